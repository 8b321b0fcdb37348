"""The console by psycopg 3, as programs use it: with and without transactions, prepared, and in pipeline mode. Argument: the URL."""

import sys

import psycopg
from psycopg.rows import dict_row

SHOWS = "HOSTS LAG POOLS CLIENTS SERVERS STATS DATABASES USERS CONFIG VERSION HELP".split()


def shows(conn):
    for name in SHOWS:
        for prepare in (False, True):
            cursor = conn.execute(f"SHOW {name}", prepare=prepare)
            assert cursor.description and cursor.statusmessage == "SHOW", name
            rows = cursor.fetchall()
            assert all(len(row) == len(cursor.description) for row in rows), name
    hosts = conn.cursor(row_factory=dict_row).execute("SHOW HOSTS").fetchall()
    assert len(hosts) == 3 and sum(host["role"] == "primary" for host in hosts) == 1, hosts
    assert all(host["standing"] == "eligible" for host in hosts), hosts
    for host in hosts:
        assert (host["lag_ms"] is None) == (host["role"] == "primary"), host
    binary = conn.cursor(binary=True).execute("SHOW VERSION").fetchone()
    assert binary[0].startswith("pgyard "), binary


def errors(conn):
    for wrong, sqlstate in [("SHOW NOTHING", "42601"), ("SELECT * FROM pg_class", "0A000"), ("KILL 0", "42704")]:
        try:
            conn.execute(wrong)
            raise AssertionError(wrong)
        except psycopg.Error as error:
            assert error.sqlstate == sqlstate, (wrong, error.sqlstate)
            assert error.diag.message_hint, wrong
        conn.rollback()
    try:
        conn.execute("KILL %s", ("1",))
        raise AssertionError("parameters must be refused")
    except psycopg.errors.FeatureNotSupported:
        conn.rollback()


def main():
    with psycopg.connect(sys.argv[1], autocommit=True) as conn:
        shows(conn)
        errors(conn)
        with conn.transaction(), conn.transaction():
            assert conn.execute("SELECT 1").fetchone() == ("1",)
        with conn.pipeline():
            versions = [conn.execute("SHOW VERSION") for _ in range(20)]
            assert len({cursor.fetchone()[0] for cursor in versions}) == 1
    # Without autocommit the driver begins transactions of its own.
    with psycopg.connect(sys.argv[1]) as conn:
        shows(conn)
        errors(conn)
        conn.commit()
    print("ok")


main()
