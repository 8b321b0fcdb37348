//! Texts that the primary has prepared before: a Parse of one is answered at once, unless its tables may have changed.

use super::super::harness::client::{RawClient, bind, execute, frame, parse, sync};
use super::super::harness::{Pgyard, own_fleet};
use super::play::{Yards, describe, p, q};

/// The answers to a pipeline: their types, and the SQLSTATE of an error.
fn answers(client: &mut RawClient, messages: &[Vec<u8>]) -> String {
    client.send(&[messages.concat(), sync()].concat()).unwrap();
    let replies = client.until_ready().unwrap();
    replies.iter().map(|reply| reply.field(b'C').filter(|_| reply.tag == b'E').unwrap_or((reply.tag as char).into())).collect()
}

#[test]
fn a_known_text_waits_for_no_connection() {
    let fleet = own_fleet(0);
    let primary = fleet.primary().superuser_url();
    let settings = "pool_size = 1\ncheckout_timeout = '300ms'\n";
    let head = "listen = '{listen}'\nhttp = '{http}'\n[databases.app]\n";
    let yard = Pgyard::start_with_config(&fleet, &format!("{head}primary = '{primary}'\n{settings}"));
    yard.wait_for_replicas(&[]);
    let (mut holder, mut other) = (yard.client(), yard.client());
    let known = "select 40 + $1::int";
    assert_eq!(answers(&mut holder, &[parse("x", known), parse("b", "begin")]), "11Z");
    holder.column("BEGIN").unwrap();
    assert_eq!(answers(&mut other, &[parse("mine", known), parse("begins", "begin")]), "11Z");
    // These only a server can answer, and the only connection is taken.
    let refused = "53300Z";
    assert_eq!(answers(&mut other, &[parse("unknown", "select 41 + $1::int")]), refused);
    assert_eq!(answers(&mut other, &[parse("mine", known)]), refused);
    assert_eq!(answers(&mut other, &[parse("second", known)]), refused);
    assert_eq!(answers(&mut other, &[parse("", known)]), refused);
    assert_eq!(answers(&mut other, &[parse("described", "begin"), describe("described")]), refused);
    assert_eq!(answers(&mut other, &[describe("mine")]), refused);
    holder.column("COMMIT").unwrap();
    assert_eq!(answers(&mut other, &[describe("mine")]), "tTZ");
    assert_eq!(answers(&mut other, &[bind("", "begins"), execute(""), frame(b'C', b"Sbegins\0")]), "2C3Z");
    assert_eq!(answers(&mut other, &[bind("", "begins")]), "26000Z");
    other.column("ROLLBACK").unwrap();
}

#[test]
fn a_text_is_asked_for_again_when_its_tables_may_have_changed() {
    let yards = Yards::start("", "");
    let fresh = "DROP TABLE IF EXISTS changing; CREATE TABLE changing AS SELECT 1 AS a; ALTER TABLE changing OWNER TO app";
    let (all, used) = ("select * from changing", |name: &str| [bind("", name), execute("")].concat());
    yards.check_after(
        fresh,
        "a table that goes and comes back",
        &[
            p(0, &[parse("x", all)]),
            p(1, &[parse("x", all)]),
            p(1, &[used("x")]),
            q(0, "drop table changing"),
            p(0, &[parse("y", all)]),
            p(1, &[parse("y", all)]),
            p(1, &[used("x")]),
            q(1, "create table changing (b text, c int)"),
            p(0, &[parse("y", all), describe("y")]),
            p(1, &[parse("y", all)]),
            p(1, &[describe("y"), used("y")]),
            q(0, "alter table changing rename column b to d"),
            p(1, &[parse("z", "select b from changing")]),
            p(0, &[parse("z", all)]),
            p(0, &[describe("z")]),
        ],
    );
    yards.check_with(
        2,
        "objects that others do not see",
        &[
            q(0, "begin"),
            q(0, "create table uncommitted (a int)"),
            p(0, &[parse("u", "select * from uncommitted")]),
            p(1, &[parse("u", "select * from uncommitted")]),
            q(0, "rollback"),
            p(0, &[parse("u2", "select * from uncommitted")]),
            q(0, "create temp table own (a int)"),
            p(0, &[parse("t", "select * from own")]),
            p(1, &[parse("t", "select * from own")]),
            p(0, &[used("t")]),
            q(0, "discard all"),
            p(0, &[parse("t", "select * from own")]),
        ],
    );
}
