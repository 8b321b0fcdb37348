"""psycopg 3, synchronous and in pipeline mode: what an application does in its day. Argument: the URL."""

import contextlib
import sys
import threading

import psycopg
from psycopg import errors

TABLE = "driver_psycopg_sync"


def tables_and_rows(conn):
    conn.execute(f"DROP TABLE IF EXISTS {TABLE}")
    conn.execute(f"CREATE TABLE {TABLE} (id int PRIMARY KEY, name text, at timestamptz DEFAULT now())")
    conn.execute(f"INSERT INTO {TABLE} (id, name) VALUES (%s, %s), (%s, %s)", (1, "one", 2, None))
    assert conn.execute(f"SELECT name FROM {TABLE} ORDER BY id").fetchall() == [("one",), (None,)]
    got = conn.execute(f"UPDATE {TABLE} SET name = 'two' WHERE id = 2 RETURNING id, name").fetchone()
    assert got == (2, "two"), got
    assert conn.execute(f"SELECT count(*) FROM {TABLE} WHERE id = ANY(%s)", ([1, 2, 3],)).fetchone() == (2,)
    assert conn.execute("SELECT %s::bytea", (b"\0\xff",), binary=True).fetchone() == (b"\0\xff",)


def transactions(conn):
    with conn.transaction():
        conn.execute(f"INSERT INTO {TABLE} VALUES (3, 'three')")
        assert conn.execute(f"SELECT count(*) FROM {TABLE}").fetchone() == (3,)
    try:
        with conn.transaction():
            conn.execute(f"DELETE FROM {TABLE}")
            with conn.transaction():
                conn.execute("SELECT 1")
            raise RuntimeError("roll back")
    except RuntimeError:
        pass
    assert conn.execute(f"SELECT count(*) FROM {TABLE}").fetchone() == (3,)


def copies(conn):
    with conn.cursor() as cur:
        with cur.copy(f"COPY {TABLE} (id, name) FROM STDIN") as copy:
            for number in range(100, 1100):
                copy.write_row((number, "x" * 100))
        assert cur.rowcount == 1000
        with cur.copy(f"COPY (SELECT id, name FROM {TABLE} WHERE id >= 100 ORDER BY id) TO STDOUT") as copy:
            rows = list(copy.rows())
    assert len(rows) == 1000 and rows[0] == ("100", "x" * 100)
    try:
        with conn.cursor().copy(f"COPY {TABLE} (id) FROM STDIN") as copy:
            copy.write("not a number\n")
        raise AssertionError("a bad COPY must fail")
    except errors.InvalidTextRepresentation:
        pass
    assert conn.execute("SELECT 1").fetchone() == (1,)


def prepared(conn):
    for number in range(20):
        row = conn.execute(f"SELECT id, name FROM {TABLE} WHERE id = %s", (1,), prepare=True).fetchone()
        assert row == (1, "one"), (number, row)
    for number in range(20):
        conn.execute(f"UPDATE {TABLE} SET name = %s WHERE id = 2", (f"two {number}",), prepare=True)
    assert conn.execute(f"SELECT name FROM {TABLE} WHERE id = 2").fetchone() == ("two 19",)


def failures(conn):
    for wrong, sqlstate in [
        ("SELECT * FROM no_such_table", "42P01"),
        ("SELEC 1", "42601"),
        ("SELECT 1/0", "22012"),
        (f"INSERT INTO {TABLE} VALUES (1, 'again')", "23505"),
    ]:
        try:
            conn.execute(wrong)
            raise AssertionError(wrong)
        except psycopg.Error as error:
            assert error.sqlstate == sqlstate, (wrong, error.sqlstate)
        assert conn.execute("SELECT 1").fetchone() == (1,)


def pipelines(conn):
    with conn.pipeline() as pipeline:
        cursors = [conn.execute("SELECT %s::int", (number,)) for number in range(50)]
        conn.execute(f"INSERT INTO {TABLE} VALUES (5000, 'pipeline')")
        read_back = conn.execute(f"SELECT name FROM {TABLE} WHERE id = 5000")
        pipeline.sync()
        assert [cursor.fetchone()[0] for cursor in cursors] == list(range(50))
        assert read_back.fetchone() == ("pipeline",)
    try:
        with conn.pipeline():
            conn.execute(f"INSERT INTO {TABLE} VALUES (5001, 'lost')")
            conn.execute("SELECT 1/0")
            conn.execute(f"INSERT INTO {TABLE} VALUES (5002, 'lost')")
        raise AssertionError("the pipeline must fail")
    except errors.DivisionByZero:
        pass
    # Up to its Sync a pipeline is one transaction.
    assert conn.execute(f"SELECT count(*) FROM {TABLE} WHERE id > 5000").fetchone() == (0,)


def cancels(conn):
    ended = threading.Event()

    def cancel():
        # A request that comes before its statement does nothing, as with PostgreSQL: it is sent until the statement ends.
        while not ended.wait(0.5):
            conn.cancel()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    try:
        conn.execute("SELECT pg_sleep(60)")
        raise AssertionError("pg_sleep must be cancelled")
    except errors.QueryCanceled:
        pass
    finally:
        ended.set()
        canceller.join()
    # A request that was still under way may reach this one.
    with contextlib.suppress(errors.QueryCanceled):
        conn.execute("SELECT 1")
    assert conn.execute("SELECT 1").fetchone() == (1,)


def main():
    with psycopg.connect(sys.argv[1], autocommit=True) as conn:
        for step in [tables_and_rows, transactions, copies, prepared, failures, pipelines, cancels]:
            step(conn)
            print(step.__name__, "ok")
        with conn.cursor(name="by_name", withhold=False) as cursor, conn.transaction():
            cursor.execute(f"SELECT id FROM {TABLE} ORDER BY id")
            assert [row[0] for row in cursor.fetchmany(3)] == [1, 2, 3]
        conn.execute(f"DROP TABLE {TABLE}")


main()
