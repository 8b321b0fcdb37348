//! Prepared statements through pgyard cannot be told from PostgreSQL's own: every script runs directly and through pgyard, on one
//! server connection, on several, and under session pooling, and every byte of the answers has to be the same.

mod copy;
mod known;
mod meaning;
mod play;
mod shared;
mod told;

use super::harness::client::{bind, execute, frame, parse};
use play::{Yards, describe, p, q};

const LIST: &str = "select name, statement, parameter_types, from_sql from pg_prepared_statements order by name";

#[test]
fn errors_quote_the_clients_names() {
    let yards = Yards::start("", "");
    yards.check(
        "a name that is taken",
        &[
            p(0, &[parse("x", "select 1")]),
            p(0, &[parse("x", "select 1")]),
            p(0, &[parse("x", "select 2")]),
            p(0, &[parse("x", "selec")]),
            p(1, &[parse("y", "select 1")]),
            p(1, &[parse("y", "select 1")]),
            p(0, &[parse("x2", "select 1")]),
            p(0, &[parse("x2", "select 1")]),
            p(0, &[frame(b'C', b"Sx\0"), parse("x", "select 3"), parse("x", "select 4")]),
            p(0, &[bind("", "x"), execute("")]),
        ],
    );
    yards.check(
        "a Bind with the wrong number of parameters",
        &[
            p(0, &[parse("two", "select $1::int + $2::int")]),
            p(0, &[bind("", "two"), execute("")]),
            p(0, &[bind("", "two"), frame(b'C', b"Stwo\0")]),
            p(0, &[frame(b'C', b"Stwo\0")]),
            p(0, &[bind("", "two")]),
            p(0, &[parse("", "select $1::int"), bind("", ""), execute("")]),
        ],
    );
    yards.check(
        "names that nobody gave",
        &[
            p(0, &[bind("", "nope")]),
            p(0, &[describe("nope")]),
            p(0, &[frame(b'C', b"Snope\0"), bind("", "nope")]),
            p(1, &[parse("s", "select 1"), bind("", "s"), execute("")]),
            p(0, &[bind("", "pgyard_1")]),
            p(0, &[describe("pgyard_2"), execute("")]),
            p(0, &[bind("", "?pgyard_1")]),
            p(0, &[bind("", "pgyard_")]),
            q(0, "execute pgyard_1"),
            q(0, "deallocate pgyard_1"),
            p(0, &[parse("pgyard_1", "select 41"), bind("", "pgyard_1"), execute("")]),
            q(0, "execute pgyard_1"),
            p(0, &[parse("pgyard_1", "select 41")]),
            q(1, "select 1"),
            p(1, &[bind("", "s"), execute("")]),
            p(0, &[bind("", "pgyard_1"), execute("")]),
        ],
    );
    yards.check(
        "a text that looks like such a name",
        &[
            p(0, &[parse("a", "select 1"), parse("b", "select 'pgyard_1'::int"), parse("c", "select 'x' as pgyard_1")]),
            p(0, &[bind("", "b"), execute("")]),
            p(0, &[parse("d", "select pgyard_1 from pgyard_2")]),
            q(0, "do $$ begin raise exception 'prepared statement \"pgyard_1\" does not exist'; end $$"),
        ],
    );
    let long = "x".repeat(70);
    yards.check(
        "names longer than PostgreSQL's",
        &[
            p(0, &[parse(&long, "select 1")]),
            p(0, &[parse(&long[..64], "select 2")]),
            p(0, &[bind("", &long[..63]), execute("")]),
            q(0, &format!("execute {long}")),
            q(0, &format!("deallocate {}", &long[..63])),
            p(0, &[bind("", &long), execute("")]),
        ],
    );
}

#[test]
fn prepare_and_parse_share_their_names() {
    let yards = Yards::start("", "");
    yards.check(
        "PREPARE, then by protocol",
        &[
            q(0, "prepare x (int) as select $1 + 1"),
            p(0, &[describe("x")]),
            q(1, "select 'in between'"),
            q(0, "execute x(41)"),
            p(0, &[parse("x", "select 2")]),
            q(0, "prepare x as select 2"),
            p(0, &[bind("", "x"), execute("")]),
            q(0, "explain (costs off) execute x(1)"),
            q(0, "execute x"),
            q(0, "execute x('no number')"),
            q(0, "execute x(1, 2)"),
            q(0, "create table made as execute x(7)"),
            q(0, "table made"),
            q(0, "drop table made"),
            p(0, &[frame(b'C', b"Sx\0")]),
            q(0, "execute x(1)"),
            q(0, "deallocate x"),
        ],
    );
    yards.check(
        "Parse, then in SQL",
        &[
            p(0, &[parse("x", "select $1::int + 1")]),
            q(1, "execute x(1)"),
            q(0, "execute x(41)"),
            q(0, "explain (costs off) execute x(41)"),
            q(0, "prepare x as select 2"),
            p(0, &[parse("", "execute x(5)"), describe(""), bind("", ""), execute("")]),
            p(0, &[parse("again", "execute x(6)"), describe("again")]),
            p(1, &[parse("x", "select 'other'"), bind("", "x"), execute("")]),
            p(0, &[describe("again"), bind("", "again"), execute("")]),
            p(0, &[parse("d", "deallocate x"), bind("", "d"), execute("")]),
            p(0, &[bind("", "again"), execute("")]),
            p(0, &[bind("", "d"), execute("")]),
            q(1, "execute x"),
        ],
    );
    yards.check(
        "quoted and folded names",
        &[
            q(0, "prepare \"My \"\"Name\" as select 1"),
            q(0, "prepare MINE as select 2"),
            p(0, &[bind("", "My \"Name"), execute("")]),
            p(0, &[bind("", "mine"), execute("")]),
            p(0, &[bind("", "MINE"), execute("")]),
            p(0, &[parse("MINE", "select 3")]),
            q(0, "execute \"MINE\""),
            q(0, "execute Mine"),
            q(0, "deallocate prepare \"My \"\"Name\""),
            q(0, LIST),
        ],
    );
    yards.check(
        "everything is forgotten at once",
        &[
            q(0, "prepare a as select 1"),
            p(0, &[parse("b", "select 2")]),
            p(1, &[parse("b", "select 22")]),
            q(0, "deallocate all"),
            q(0, "execute a"),
            p(0, &[bind("", "b")]),
            p(1, &[bind("", "b"), execute("")]),
            q(0, "prepare a as select 3"),
            p(0, &[parse("b", "select 4")]),
            q(0, "discard all"),
            q(0, "execute a"),
            p(0, &[bind("", "b")]),
            p(1, &[bind("", "b"), execute("")]),
            p(0, &[parse("a", "select 5"), parse("", "deallocate all"), bind("", ""), execute(""), parse("b", "select 6")]),
            q(0, LIST),
            q(1, LIST),
        ],
    );
    yards.check(
        "several statements in one string",
        &[
            q(0, "prepare a as select 1; prepare b as select 2; execute a; deallocate a; execute b"),
            q(0, "execute b"),
            q(0, "prepare c as select 3; select 1 / 0; prepare d as select 4"),
            q(0, "execute c"),
            q(0, "execute d"),
            q(0, "deallocate b; select 1 / 0; deallocate c"),
            q(0, "execute b"),
            q(0, "execute c"),
            q(0, "deallocate all; prepare e as select 5; prepare e as select 6"),
            q(0, LIST),
            q(0, "deallocate all"),
            q(1, LIST),
        ],
    );
}

#[test]
fn names_are_followed_through_pipelines_and_transactions() {
    let yards = Yards::start("", "");
    let run = |sql: &str| [parse("", sql), bind("", ""), execute("")].concat();
    yards.check(
        "names given and taken in one pipeline",
        &[
            p(0, &[parse("x", "select 1"), run("execute x"), run("deallocate x"), parse("x", "select 2"), run("execute x")]),
            p(0, &[bind("", "x"), execute("")]),
            p(0, &[run("prepare y as select 3"), bind("", "y"), execute(""), run("select 1 / 0"), run("deallocate y")]),
            q(0, "execute y"),
            p(0, &[run("deallocate y"), run("select 1 / 0"), run("prepare y as select 4")]),
            q(1, "select 1"),
            q(0, "execute y"),
            p(0, &[run("select 1 / 0"), parse("z", "select 5"), run("prepare w as select 6")]),
            q(0, "execute z"),
            p(0, &[bind("", "w")]),
            p(0, &[parse("z", "select 7"), frame(b'C', b"Sz\0"), parse("z", "select 8"), run("execute z")]),
            p(0, &[parse("m", "prepare late as select 9"), bind("portal", "m")]),
            q(0, LIST),
        ],
    );
    yards.check(
        "a Parse that failed leaves its name free",
        &[
            p(0, &[parse("x", "selec 1")]),
            p(0, &[bind("", "x")]),
            p(0, &[parse("x", "select * from nosuch")]),
            q(0, "execute x"),
            p(0, &[parse("x", "select 1"), bind("", "x"), execute("")]),
            q(0, "prepare y as select * from nosuch"),
            p(0, &[parse("y", "select 2"), bind("", "y"), execute("")]),
            q(0, "execute y"),
        ],
    );
    yards.check(
        "transactions",
        &[
            q(0, "begin"),
            q(0, "prepare x as select 1"),
            p(0, &[parse("y", "select 2")]),
            q(0, "select 1 / 0"),
            q(0, "execute x"),
            p(0, &[bind("", "y"), execute("")]),
            q(0, "deallocate x"),
            q(0, "rollback"),
            q(1, "select 1"),
            q(0, "execute x"),
            q(0, "execute y"),
            q(0, "begin"),
            q(0, "execute nosuch"),
            q(0, "commit"),
            q(0, "begin"),
            q(0, "deallocate y"),
            q(0, "rollback"),
            p(0, &[bind("", "y")]),
            q(0, LIST),
        ],
    );
    yards.check(
        "two clients with the same names",
        &[
            q(0, "prepare x as select 'zero'"),
            q(1, "prepare x as select 'one'"),
            p(0, &[bind("", "x"), execute("")]),
            p(1, &[bind("", "x"), execute("")]),
            q(0, "execute x"),
            q(1, "execute x"),
            p(0, &[parse("s", "select 'zero s'")]),
            p(1, &[parse("s", "select 'one s'")]),
            p(0, &[bind("", "s"), execute("")]),
            q(1, "execute s"),
            q(0, "execute s"),
            q(0, "deallocate x"),
            q(0, "execute x"),
            q(1, "execute x"),
        ],
    );
    yards.check(
        "functions and blocks that nobody sees through",
        &[
            p(0, &[parse("x", "select 1")]),
            q(0, "do $$ begin execute 'prepare hidden as select 2'; execute 'deallocate x'; end $$"),
            q(0, "execute hidden"),
            p(0, &[bind("", "hidden"), execute("")]),
            p(0, &[bind("", "x"), execute("")]),
            p(0, &[parse("x", "select 3"), bind("", "x"), execute("")]),
            q(0, LIST),
            q(0, "discard all"),
            q(0, LIST),
            p(0, &[bind("", "x")]),
        ],
    );
}

#[test]
fn a_session_sees_its_own_statements_and_no_others() {
    let yards = Yards::start(
        "CREATE VIEW mine AS SELECT name FROM pg_prepared_statements;
         CREATE FUNCTION how_many() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM pg_prepared_statements'",
        "",
    );
    yards.check(
        "pg_prepared_statements",
        &[
            p(1, &[parse("secret", "select 'a constant of somebody else'")]),
            q(1, "prepare secret2 as select 'another'"),
            q(0, LIST),
            p(0, &[parse("b", "select $1::int, $2::text"), bind("", "none")]),
            p(0, &[parse("b", "select $1::int, $2::text")]),
            q(0, "prepare a (int) as   select $1 ; "),
            q(0, LIST),
            p(0, &[parse("list", LIST), describe("list"), bind("", "list"), execute("")]),
            p(0, &[frame(b'C', b"Sb\0"), bind("", "list"), execute("")]),
            q(1, LIST),
            q(0, "begin"),
            p(0, &[parse("in_transaction", "select 1"), bind("", "in_transaction"), execute("")]),
            q(0, LIST),
            q(0, "select count(*) from pg_prepared_statement()"),
            q(0, "copy (select name from pg_prepared_statements order by 1) to stdout"),
            q(0, "commit"),
            q(0, "select * from mine order by 1"),
            q(0, "select how_many()"),
            q(0, "discard all"),
            q(0, "select how_many()"),
            q(0, "discard all"),
            q(1, LIST),
        ],
    );
}
