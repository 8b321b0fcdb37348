"""asyncpg: its own prepared statements, Flush instead of Sync, binary formats, COPY, a pool. Argument: the URL."""

import asyncio
import io
import sys

import asyncpg

TABLE = "driver_asyncpg"


async def statements(conn):
    await conn.execute(f"DROP TABLE IF EXISTS {TABLE}")
    await conn.execute(f"CREATE TABLE {TABLE} (id int PRIMARY KEY, name text, tags text[])")
    await conn.execute(f"INSERT INTO {TABLE} VALUES ($1, $2, $3)", 1, "one", ["a", "b"])
    await conn.executemany(f"INSERT INTO {TABLE} VALUES ($1, $2, NULL)", [(n, str(n)) for n in range(2, 50)])
    assert await conn.fetchval(f"SELECT tags FROM {TABLE} WHERE id = $1", 1) == ["a", "b"]
    statement = await conn.prepare(f"SELECT name FROM {TABLE} WHERE id = $1")
    for number in range(2, 20):
        assert await statement.fetchval(number) == str(number)
    assert (await statement.explain(3))[0]["Plan"]


async def transactions(conn):
    async with conn.transaction():
        await conn.execute(f"UPDATE {TABLE} SET name = 'kept' WHERE id = 2")
    transaction = conn.transaction()
    await transaction.start()
    await conn.execute(f"UPDATE {TABLE} SET name = 'lost' WHERE id = 2")
    await transaction.rollback()
    assert await conn.fetchval(f"SELECT name FROM {TABLE} WHERE id = 2") == "kept"
    async with conn.transaction(readonly=True):
        assert [row["id"] async for row in conn.cursor(f"SELECT id FROM {TABLE} ORDER BY id LIMIT 20", prefetch=5)] == list(range(1, 21))
    async with conn.transaction(isolation="serializable"):
        await conn.execute(f"DELETE FROM {TABLE} WHERE id = 49")


async def copies(conn):
    rows = [(n, f"copied {n}") for n in range(1000, 2000)]
    status = await conn.copy_records_to_table(TABLE, records=rows, columns=["id", "name"])
    assert status == "COPY 1000", status
    out = io.BytesIO()
    await conn.copy_from_query(f"SELECT id FROM {TABLE} WHERE id >= $1", 1000, output=out, format="csv")
    assert len(out.getvalue().splitlines()) == 1000


async def failures(conn):
    for wrong, expected in [
        ("SELECT * FROM no_such_table", asyncpg.UndefinedTableError),
        ("SELECT 1/0", asyncpg.DivisionByZeroError),
        (f"INSERT INTO {TABLE} VALUES (1)", asyncpg.UniqueViolationError),
    ]:
        try:
            await conn.fetch(wrong)
            raise AssertionError(wrong)
        except expected:
            pass
    assert await conn.fetchval("SELECT 1") == 1


async def cancels(conn):
    try:
        await asyncio.wait_for(conn.execute("SELECT pg_sleep(60)"), 1.5)
        raise AssertionError("pg_sleep must be cancelled")
    except asyncio.TimeoutError:
        pass
    # asyncpg waits for the answer to its cancel request before it lets the connection be used again.
    assert await asyncio.wait_for(conn.fetchval("SELECT 1"), 50) == 1


async def main():
    conn = await asyncpg.connect(sys.argv[1])
    for step in [statements, transactions, copies, failures, cancels]:
        await step(conn)
        print(step.__name__, "ok")
    async with asyncpg.create_pool(sys.argv[1], min_size=2, max_size=5) as pool:
        found = await asyncio.gather(*(pool.fetchval("SELECT $1::int", n) for n in range(50)))
        assert found == list(range(50))
    await conn.execute(f"DROP TABLE {TABLE}")
    await conn.close()


asyncio.run(main())
