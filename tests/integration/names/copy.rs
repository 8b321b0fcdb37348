//! COPY FROM STDIN in pipelines: what stands behind the data is an ordinary part of the pipeline.

use super::super::harness::client::{bind, execute, frame, parse, query, sync};
use super::play::{Yards, describe, p, q, raw};

const TABLE: &str = "CREATE TABLE lines (n int);
    CREATE TABLE guarded (n int);
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''refused''; END';
    CREATE TRIGGER first BEFORE INSERT ON guarded EXECUTE FUNCTION refuse()";

#[test]
fn a_pipeline_goes_on_behind_copy_data() {
    let yards = Yards::start(TABLE, "");
    let copy = || [parse("", "copy lines from stdin"), bind("", ""), execute("")].concat();
    let data = || [frame(b'd', b"1\n2\n"), frame(b'd', b"3\n"), frame(b'c', b"")].concat();
    yards.check(
        "names behind the data",
        &[
            p(0, &[parse("s", "select count(*) from lines")]),
            raw(
                0,
                &[
                    copy(),
                    data(),
                    bind("", "s"),
                    execute(""),
                    parse("t", "select 2"),
                    bind("", "t"),
                    describe("t"),
                    execute(""),
                    sync(),
                ],
                1,
            ),
            p(0, &[bind("", "t"), execute("")]),
            q(1, "select count(*) from lines"),
            q(0, "execute t"),
            q(0, "truncate lines"),
        ],
    );
    yards.check(
        "a Sync before the data counts for nothing",
        &[
            raw(0, &[copy(), sync()], 0),
            raw(0, &[data(), sync()], 1),
            raw(0, &[copy(), sync(), data(), parse("u", "select 3"), bind("", "u"), execute(""), sync()], 1),
            raw(0, &[parse("c", "copy lines from stdin"), bind("", "c"), execute(""), sync(), data(), sync()], 1),
            raw(
                0,
                &[bind("", "c"), execute(""), frame(b'H', b""), data(), frame(b'H', b""), bind("", "u"), execute(""), sync()],
                1,
            ),
            q(0, "select count(*) from lines"),
            q(0, "truncate lines"),
        ],
    );
    yards.check(
        "a COPY that fails",
        &[
            p(0, &[parse("s", "select 1")]),
            raw(0, &[copy(), frame(b'd', b"no number\n"), frame(b'c', b""), bind("", "s"), execute(""), sync()], 1),
            raw(0, &[copy(), sync(), frame(b'd', b"no number\n"), frame(b'c', b""), parse("v", "select 1"), sync()], 1),
            p(0, &[bind("", "v")]),
            raw(0, &[copy(), frame(b'd', b"1\n"), frame(b'f', b"no more\0"), bind("", "s"), execute(""), sync()], 1),
            p(0, &[parse("", "copy nosuch from stdin"), bind("", ""), execute("")]),
            p(0, &[bind("", "s"), execute("")]),
            raw(0, &[query("copy lines from stdin"), frame(b'd', b"x\n"), frame(b'c', b"")], 1),
            raw(0, &[query("copy lines from stdin"), data()], 1),
            q(0, "begin"),
            raw(0, &[copy(), frame(b'd', b"x\n"), frame(b'c', b""), sync()], 1),
            q(0, "execute s"),
            q(0, "rollback"),
            q(0, "truncate lines"),
        ],
    );
    yards.check(
        "a COPY that is refused before its data is read",
        &[
            raw(0, &[parse("", "copy guarded from stdin"), bind("", ""), execute(""), data(), sync()], 1),
            q(0, "select 1"),
            q(1, "select 1"),
        ],
    );
}

#[test]
fn an_open_pipeline_is_not_committed_by_the_next_client() {
    let yards = Yards::start(TABLE, "");
    let insert = [parse("", "insert into lines values (1)"), bind("", ""), execute(""), frame(b'H', b"")].concat();
    for yard in yards.each() {
        let mut client = yard.client();
        client.send(&insert).unwrap();
        while client.receive().unwrap().unwrap().tag != b'C' {}
        drop(client);
        assert_eq!(yard.client().column("SELECT count(*) FROM lines").unwrap(), ["0"]);
    }
}

#[test]
fn what_a_pipeline_has_written_is_read_after_its_sync() {
    let yards = Yards::start(TABLE, "");
    for yard in yards.each() {
        let mut client = yard.client();
        for round in 1..=20 {
            let insert = [parse("", "insert into lines values (1)"), bind("", ""), execute(""), frame(b'H', b"")].concat();
            client.send(&insert).unwrap();
            while client.receive().unwrap().unwrap().tag != b'C' {}
            client.send(&sync()).unwrap();
            client.until_ready().unwrap();
            assert_eq!(client.column("SELECT count(*) FROM lines").unwrap(), [round.to_string()]);
        }
        client.column("TRUNCATE lines").unwrap();
    }
}
