"""The console by asyncpg, which asks for binary results and resets connections that go back to its pool. Argument: the URL."""

import asyncio
import sys

import asyncpg


async def main():
    conn = await asyncpg.connect(sys.argv[1])
    hosts = await conn.fetch("SHOW HOSTS")
    assert len(hosts) == 3 and all(host["standing"] == "eligible" for host in hosts), hosts
    assert await conn.fetchval("SELECT 1") == "1"
    async with conn.transaction():
        assert len(await conn.fetch("SHOW CONFIG")) > 50
    try:
        await conn.fetch("KILL $1", "1")
        raise AssertionError("parameters must be refused")
    except asyncpg.FeatureNotSupportedError:
        pass
    await conn.close()
    async with asyncpg.create_pool(sys.argv[1], min_size=1, max_size=1) as pool:
        for _ in range(3):
            async with pool.acquire() as conn:
                assert (await conn.fetchval("SHOW VERSION")).startswith("pgyard ")
    print("ok")


asyncio.run(main())
