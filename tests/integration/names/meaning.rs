//! The same text under another search path, role or date style is another statement, wherever it runs.

use super::super::harness::client::{bind, execute, frame, parse};
use super::play::{Yards, describe, p, q};

const SCHEMAS: &str = "CREATE SCHEMA one; CREATE TABLE one.t AS SELECT 'one' AS place;
    CREATE SCHEMA two; CREATE TABLE two.t AS SELECT 'two' AS place, 2 AS more;
    CREATE FUNCTION enter(name text) RETURNS text LANGUAGE sql AS 'SELECT set_config(''search_path'', name, true)'";

const T: &str = "select * from t";

#[test]
fn the_same_text_may_mean_another_thing() {
    let yards = Yards::start(SCHEMAS, "");
    let used = |name: &str| [describe(name), bind("", name), execute("")].concat();
    yards.check(
        "a search path that the session sets",
        &[
            q(0, "set search_path = one"),
            q(1, "set search_path = two"),
            p(0, &[parse("s", T), used("s")]),
            p(1, &[parse("s", T), used("s")]),
            p(0, &[used("s")]),
            q(0, "set search_path = two"),
            p(0, &[used("s")]),
            p(0, &[parse("s2", T), used("s2"), used("s")]),
        ],
    );
    yards.check(
        "a search path that is set to the end of the transaction",
        &[
            q(0, "begin"),
            q(0, "set local search_path = one"),
            p(0, &[parse("s", T), used("s")]),
            q(0, "prepare p as select * from t"),
            q(0, "commit"),
            q(1, "begin"),
            q(1, "set local search_path = two"),
            p(1, &[parse("s", T), used("s")]),
            q(1, "prepare p as select * from t"),
            q(1, "commit"),
            p(0, &[used("s")]),
            p(1, &[used("s")]),
            q(0, "execute p"),
            q(1, "execute p"),
            p(0, &[parse("", T), bind("", "")]),
            q(0, "begin"),
            q(0, "set local search_path = one"),
            q(0, "savepoint a"),
            q(0, "set local search_path = two"),
            p(0, &[parse("inner", T), used("inner")]),
            q(0, "rollback to a"),
            p(0, &[parse("outer", T), used("outer")]),
            q(0, "commit"),
            p(0, &[used("inner"), used("outer")]),
        ],
    );
    let enter = |value: &str| {
        let body = [b"\0\0\0\0\0\x01".as_slice(), &(value.len() as u32).to_be_bytes(), value.as_bytes(), b"\0\0"].concat();
        [parse("", "select set_config('search_path', $1, true)"), frame(b'B', &body), execute("")].concat()
    };
    yards.check(
        "a search path that only the server knows",
        &[
            q(0, "begin"),
            p(0, &[enter("one")]),
            p(0, &[parse("s", T), used("s")]),
            q(0, "commit"),
            q(1, "begin"),
            p(1, &[enter("two")]),
            p(1, &[parse("s", T), used("s")]),
            q(1, "commit"),
            p(0, &[used("s")]),
            p(1, &[used("s")]),
            q(0, "begin"),
            q(0, "select enter('two')"),
            p(0, &[parse("f", T), used("f")]),
            q(0, "commit"),
            p(0, &[used("f"), used("s")]),
            q(1, "begin"),
            p(1, &[enter("one"), parse("same", T), used("same")]),
            q(1, "commit"),
            p(1, &[used("same")]),
            p(1, &[used("same"), used("s")]),
        ],
    );
    let run = |sql: &str| [parse("", sql), bind("", ""), execute("")].concat();
    yards.check(
        "a search path set in the same pipeline",
        &[
            p(
                0,
                &[run("set search_path = one"), parse("s", T), used("s"), run("set search_path = two"), parse("u", T), used("u")],
            ),
            p(1, &[run("set search_path = two"), parse("s", T), used("s")]),
            p(0, &[used("s"), used("u")]),
            p(1, &[used("s")]),
            p(0, &[run("begin"), run("set local search_path = one"), parse("l", T), used("l"), run("commit")]),
            p(0, &[run("reset search_path"), parse("r", "select 1"), used("r"), used("l")]),
            p(0, &[run("begin"), run("set local search_path = one"), run("rollback"), parse("k", "select 2"), used("k")]),
            p(0, &[used("k"), used("l")]),
        ],
    );
}

#[test]
fn a_statement_keeps_what_it_meant_on_every_server() {
    let yards = Yards::start(SCHEMAS, "");
    let used = |name: &str| [describe(name), bind("", name), execute("")].concat();
    yards.check_with(
        3,
        "made again where it is not known",
        &[
            q(0, "set search_path = one"),
            q(0, "set datestyle = 'German'"),
            p(0, &[parse("s", T), parse("d", "select '01.02.2003'::date as day")]),
            p(0, &[parse("", "select place, '02.03.2004'::date from t")]),
            q(0, "prepare p as select place, '01.02.2003'::date from t"),
            p(0, &[parse("", "select place, '02.03.2004'::date from t")]),
            p(0, &[parse("setting", "set search_path = two"), bind("", "setting"), execute("")]),
            p(0, &[parse("setting2", "set datestyle = 'ISO, MDY'"), bind("", "setting2"), execute("")]),
            // Each takes a connection, so that the first client meets another one.
            q(1, "begin"),
            q(1, "select 1"),
            p(0, &[used("s"), used("d")]),
            q(0, "execute p"),
            q(0, "show search_path"),
            q(1, "commit"),
            q(0, "begin"),
            q(0, "select 1"),
            q(1, "execute p"),
            q(2, "set search_path = two"),
            p(2, &[parse("s", T), used("s")]),
            p(0, &[used("s"), used("d")]),
            q(0, "commit"),
            p(0, &[used("s"), used("d")]),
            q(0, "show datestyle"),
        ],
    );
}

#[test]
fn the_unnamed_statement_keeps_its_meaning_too() {
    let yards = Yards::start(SCHEMAS, "");
    yards.check(
        "SET by protocol leaves it alone",
        &[
            q(0, "set search_path = one"),
            p(0, &[parse("setting", "set search_path = two")]),
            p(0, &[parse("", T)]),
            p(0, &[bind("", "setting"), execute("")]),
            p(0, &[describe(""), bind("", ""), execute("")]),
        ],
    );
}
