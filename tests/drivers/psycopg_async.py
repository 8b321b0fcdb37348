"""psycopg 3, asynchronous, several connections at once. Argument: the URL."""

import asyncio
import contextlib
import sys

import psycopg
from psycopg import errors

TABLE = "driver_psycopg_async"


async def worker(url, number):
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        for turn in range(10):
            row_id = number * 100 + turn
            await conn.execute(f"INSERT INTO {TABLE} VALUES (%s, %s)", (row_id, f"{number}/{turn}"))
            row = await (await conn.execute(f"SELECT name FROM {TABLE} WHERE id = %s", (row_id,))).fetchone()
            # A session reads what it has written.
            assert row == (f"{number}/{turn}",), row
        async with conn.transaction(force_rollback=True):
            await conn.execute(f"DELETE FROM {TABLE} WHERE id / 100 = %s", (number,))
        async with conn.cursor() as cur:
            async with cur.copy(f"COPY {TABLE} FROM STDIN") as copy:
                await copy.write_row((number * 100 + 50, "copied"))
            async with cur.copy(f"COPY (SELECT * FROM {TABLE} WHERE id / 100 = {number}) TO STDOUT") as copy:
                assert len([row async for row in copy.rows()]) == 11
        async with conn.pipeline():
            cursors = [await conn.execute("SELECT %s::int", (turn,)) for turn in range(10)]
            assert [(await cursor.fetchone())[0] for cursor in cursors] == list(range(10))
        try:
            await conn.execute("SELECT * FROM no_such_table")
            raise AssertionError("no_such_table must fail")
        except errors.UndefinedTable:
            pass


async def cancels(url):
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        task = asyncio.create_task(conn.execute("SELECT pg_sleep(60)"))
        # A request that comes before its statement does nothing, as with PostgreSQL: it is sent until the statement ends.
        while not (await asyncio.wait([task], timeout=0.5))[0]:
            await conn.cancel_safe(timeout=30)
        try:
            await task
            raise AssertionError("pg_sleep must be cancelled")
        except errors.QueryCanceled:
            pass
        # A request that was still under way may reach this one.
        with contextlib.suppress(errors.QueryCanceled):
            await conn.execute("SELECT 1")
        assert await (await conn.execute("SELECT 1")).fetchone() == (1,)


async def main():
    url = sys.argv[1]
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        await conn.execute(f"DROP TABLE IF EXISTS {TABLE}")
        await conn.execute(f"CREATE TABLE {TABLE} (id int PRIMARY KEY, name text)")
        await asyncio.gather(*(worker(url, number) for number in range(1, 6)))
        await cancels(url)
        count = await (await conn.execute(f"SELECT count(*) FROM {TABLE}")).fetchone()
        # What other sessions wrote may be younger than what a replica shows: the primary is asked, by a lock.
        locked = await (await conn.execute(f"SELECT id FROM {TABLE} FOR UPDATE")).fetchall()
        assert len(locked) == 55, (len(locked), count)
        await conn.execute(f"DROP TABLE {TABLE}")


asyncio.run(main())
