//! Statements that many sessions share, few connections, and little room.

use super::super::harness::client::{bind, execute, frame, parse};
use super::play::{Yards, describe, p, q};

#[test]
fn little_room_is_enough() {
    let yards = Yards::start("", "max_prepared = 2\n");
    let all: Vec<Vec<u8>> = (0..6)
        .map(|n| {
            let name = format!("s{n}");
            [parse(&name, &format!("select {n}")), bind("", &name), execute("")].concat()
        })
        .collect();
    let again: Vec<Vec<u8>> = [5, 0, 1, 2, 3, 4, 0, 5].map(|n| [bind("", &format!("s{n}")), execute("")].concat()).to_vec();
    yards.check(
        "more statements in a pipeline than a connection may hold",
        &[
            p(0, &all),
            p(1, &all),
            p(0, &again),
            q(0, "begin"),
            p(0, &again),
            p(0, &[bind("", "s3"), execute("")]),
            q(0, "prepare one as select 1"),
            q(0, "execute s4"),
            q(0, "commit"),
            p(0, &again),
            p(1, &[again[0].clone(), parse("s0", "select 0"), bind("", "s1")]),
            p(1, &again),
            q(1, "execute s2"),
        ],
    );
}

#[test]
fn reads_by_name_go_to_replicas() {
    let yards = Yards::start("CREATE TABLE t AS SELECT 1 AS a; CREATE SEQUENCE s", "");
    let mut client = yards.several().client();
    let place = "select current_setting('cluster_name')";
    client.column(&format!("PREPARE place AS {place}")).unwrap();
    client.column(&format!("PREPARE place_of (int) AS {place} where $1 > 0")).unwrap();
    client.column("PREPARE change AS insert into t values (2) returning current_setting('cluster_name')").unwrap();
    client.send(&[parse("p", place), super::super::harness::client::sync()].concat()).unwrap();
    client.until_ready().unwrap();
    let mut column = |sql: &str| client.column(sql).unwrap();
    super::super::harness::eventually("EXECUTE of a read is on the replica", std::time::Duration::from_secs(20), || {
        column("EXECUTE place") == ["replica1"]
    });
    assert_eq!(column("EXECUTE p"), ["replica1"]);
    assert_eq!(column("EXECUTE place_of(1)"), ["replica1"]);
    assert_eq!(column("EXECUTE place_of(nextval('s')::int)"), ["primary"]);
    assert_eq!(column("EXECUTE change"), ["primary"]);
    assert_eq!(column("BEGIN; EXECUTE place; COMMIT"), ["primary"]);
}

#[test]
fn a_table_that_has_changed_is_told_of_as_by_postgresql() {
    let yards = Yards::start("CREATE TABLE changing (a int)", "");
    let used = |name: &str| [bind("", name), execute("")].concat();
    let fresh = "DROP TABLE changing; CREATE TABLE changing AS SELECT 1 AS a; ALTER TABLE changing OWNER TO app";
    let all = "select * from changing";
    yards.check_after(
        fresh,
        "cached plan must not change result type",
        &[
            p(0, &[parse("x", all), used("x")]),
            p(1, &[parse("y", all), used("y")]),
            q(0, "begin"),
            q(0, "alter table changing add column b int default 2"),
            p(0, &[used("x")]),
            q(0, "rollback"),
            p(0, &[used("x")]),
            p(0, &[used("x")]),
            p(0, &[frame(b'C', b"Sx\0"), parse("x", all), describe("x")]),
            p(0, &[used("x")]),
            p(0, &[parse("z", all), used("z")]),
        ],
    );
    yards.check_after(
        fresh,
        "a statement whose table went away",
        &[
            p(0, &[parse("x", all), used("x")]),
            q(0, "prepare s as select * from changing"),
            q(0, "drop table changing"),
            p(0, &[used("x")]),
            q(0, "execute s"),
            q(0, "create table changing as select 1 as a"),
            p(0, &[used("x")]),
            q(0, "execute s"),
        ],
    );
}
