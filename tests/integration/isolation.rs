//! Two clients share one server connection: each sees what it would see alone with PostgreSQL.
//!
//! Every script runs directly and through pgyard, and the answers have to be the same: types and rows of all messages, SQLSTATEs
//! of errors, transaction states.

use super::harness::client::{RawClient, Reply, bind, execute, frame, parse, query, sync};
use super::harness::{Pgyard, own_fleet};
use super::streams::large_bind;
use pgyard::demo::LocalFleet;

/// One message or several, sent by a client; then everything up to ReadyForQuery is read.
pub struct Step {
    client: usize,
    bytes: Vec<u8>,
}

/// A simple query.
pub fn q(client: usize, sql: &str) -> Step {
    Step { client, bytes: query(sql) }
}

/// Messages and a Sync.
pub fn pipeline(client: usize, messages: &[Vec<u8>]) -> Step {
    Step { client, bytes: [messages.concat(), sync()].concat() }
}

/// What comes up to ReadyForQuery; the script itself says all that is sent.
fn until_ready(client: &mut RawClient) -> std::io::Result<Vec<Reply>> {
    let mut replies = Vec::new();
    while replies.last().is_none_or(|reply: &Reply| reply.tag != b'Z') {
        replies.push(client.receive()?.ok_or(std::io::ErrorKind::UnexpectedEof)?);
    }
    Ok(replies)
}

/// The answers of a whole script, one line a step.
pub(super) fn play(clients: &mut [RawClient], script: &[Step]) -> Vec<String> {
    let mut lines = Vec::new();
    for step in script {
        let client = &mut clients[step.client];
        client.send(&step.bytes).unwrap();
        let replies = until_ready(client).unwrap_or_else(|error| panic!("{error}; so far {lines:#?}"));
        let shown = replies.iter().filter(|reply| !matches!(reply.tag, b'S' | b'N')).map(|reply| match reply.tag {
            b'E' => format!("E:{}", reply.field(b'C').unwrap_or_default()),
            b'D' | b'C' | b'Z' => format!("{}:{}", reply.tag as char, String::from_utf8_lossy(&reply.body).escape_debug()),
            tag => (tag as char).to_string(),
        });
        lines.push(format!("{}: {}", step.client, shown.collect::<Vec<_>>().join(" ")));
    }
    lines
}

/// Plays the script directly and through pgyard, whose two clients share one server connection.
pub fn check(fleet: &LocalFleet, name: &str, script: &[Step]) {
    let yard = Pgyard::start_with_config(
        fleet,
        &format!(
            "listen = '{{listen}}'\nhttp = '{{http}}'\n[databases.app]\nprimary = '{}'\npool_size = 1\n",
            fleet.primary().superuser_url()
        ),
    );
    let password = fleet.app_password().reveal();
    let direct = || RawClient::log_in(fleet.primary().port(), "app", password, "app").unwrap();
    let direct = play(&mut [direct(), direct()], script);
    let through = play(&mut [yard.client(), yard.client()], script);
    assert_eq!(through, direct, "{name}");
}

#[test]
fn no_statement_of_another_client_is_found() {
    let fleet = own_fleet(0);
    let fails = "select 'secret', 1 / (select 0)";
    check(
        &fleet,
        "an unnamed statement whose execution failed",
        &[pipeline(0, &[parse("", fails), bind("", ""), execute("")]), pipeline(1, &[bind("", ""), execute("")])],
    );
    check(
        &fleet,
        "an unnamed statement whose Close was dropped",
        &[
            pipeline(0, &[parse("", "select 'secret'")]),
            pipeline(0, &[bind("", "nosuch"), frame(b'C', b"S\0")]),
            pipeline(1, &[bind("", ""), execute("")]),
        ],
    );
    check(
        &fleet,
        "DEALLOCATE under a name",
        &[
            pipeline(0, &[parse("b", "select 1")]),
            pipeline(0, &[parse("d1", "deallocate b")]),
            pipeline(1, &[bind("", "d1"), execute("")]),
            pipeline(0, &[bind("", "b"), execute("")]),
            pipeline(0, &[bind("", "d1"), execute("")]),
            pipeline(0, &[bind("", "b"), execute("")]),
        ],
    );
    check(
        &fleet,
        "a Parse that an error dropped",
        &[
            pipeline(0, &[parse("", "select 1 / (select 0)"), bind("", ""), execute(""), parse("x", "select 2")]),
            pipeline(0, &[bind("", "x"), execute("")]),
            pipeline(0, &[parse("x", "select 3"), bind("", "x"), execute("")]),
        ],
    );
    check(
        &fleet,
        "DEALLOCATE ALL before an error",
        &[
            pipeline(1, &[parse("k", "select 42")]),
            pipeline(0, &[parse("", "deallocate all"), bind("", ""), execute(""), parse("", "selec")]),
            pipeline(1, &[bind("", "k"), execute("")]),
        ],
    );
    check(
        &fleet,
        "DEALLOCATE ALL before a Parse",
        &[
            pipeline(0, &[parse("", "deallocate all"), bind("", ""), execute(""), parse("a", "select 41")]),
            pipeline(0, &[bind("", "a"), execute("")]),
        ],
    );
    check(
        &fleet,
        "DEALLOCATE behind an error",
        &[
            pipeline(0, &[parse("b", "select 1")]),
            pipeline(
                0,
                &[parse("", "select 1 / (select 0)"), bind("", ""), execute(""), parse("", "deallocate b"), bind("", "")],
            ),
            pipeline(0, &[bind("", "b"), execute("")]),
        ],
    );
}

#[test]
fn settings_that_a_roll_back_restores_stay_with_their_session() {
    let fleet = own_fleet(0);
    let show = |client| q(client, "select current_user, current_setting('statement_timeout'), current_setting('work_mem')");
    fleet.primary().sql("CREATE ROLE low; GRANT low TO app").unwrap();
    check(
        &fleet,
        "a role that a roll-back in one query brings back",
        &[q(0, "set role low"), q(0, "begin; reset role; rollback"), show(1), show(0)],
    );
    fleet
        .primary()
        .sql("SET ROLE app; CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO late VALUES (1)")
        .unwrap();
    check(
        &fleet,
        "a COMMIT that fails",
        &[
            q(0, "set work_mem = '7MB'"),
            q(0, "begin"),
            q(0, "reset work_mem"),
            q(0, "set statement_timeout = '71s'"),
            q(0, "insert into late values (1)"),
            q(0, "commit"),
            show(1),
            show(0),
        ],
    );
    check(
        &fleet,
        "ROLLBACK TO and SET in one query",
        &[
            q(0, "begin"),
            q(0, "savepoint a"),
            q(0, "rollback to a; set statement_timeout = '78s'"),
            q(0, "commit"),
            show(1),
            show(0),
        ],
    );
    check(
        &fleet,
        "AND CHAIN",
        &[
            q(0, "begin"),
            q(0, "set statement_timeout = '79s'"),
            q(0, "commit and chain"),
            q(0, "set work_mem = '9MB'"),
            q(0, "rollback"),
            show(1),
            show(0),
            q(0, "begin"),
            q(0, "set work_mem = '9MB'"),
            q(0, "rollback and chain"),
            q(0, "commit"),
            show(1),
            show(0),
        ],
    );
    check(
        &fleet,
        "a transaction in one query",
        &[
            q(0, "begin; set work_mem = '9MB'; rollback"),
            show(1),
            show(0),
            q(0, "begin; set work_mem = '8MB'; commit"),
            show(1),
            show(0),
            q(0, "begin"),
            q(0, "savepoint a; set statement_timeout = '5s'"),
            q(0, "rollback to a"),
            q(0, "commit"),
            show(1),
            show(0),
        ],
    );
}

#[test]
fn what_binds_a_session_survives_a_roll_back() {
    let fleet = own_fleet(0);
    let temporary = [
        q(0, "create temp table tt (a int)"),
        q(0, "begin"),
        q(0, "discard temp"),
        q(0, "rollback"),
        q(0, "select count(*) from tt"),
        q(0, "discard all"),
        q(1, "select count(*) from tt"),
    ];
    check(&fleet, "DISCARD TEMP", &temporary);
    check(
        &fleet,
        "UNLISTEN",
        &[
            q(0, "listen x"),
            q(0, "begin"),
            q(0, "unlisten x"),
            q(0, "rollback"),
            q(0, "notify x, 'hi'"),
            q(0, "unlisten *"),
            q(1, "notify x, 'hi'"),
        ],
    );
}

#[test]
fn nothing_hangs_and_nothing_is_lost() {
    let fleet = own_fleet(0);
    fleet.primary().sql("SET ROLE app; CREATE TABLE lines (n int)").unwrap();
    let flush = || frame(b'H', b"");
    check(
        &fleet,
        "a pipeline goes on behind COPY data",
        &[
            pipeline(
                0,
                &[
                    parse("", "copy lines from stdin"),
                    bind("", ""),
                    execute(""),
                    frame(b'd', b"1\n"),
                    frame(b'c', b""),
                    parse("", "select 8"),
                    bind("", ""),
                    execute(""),
                ],
            ),
            q(1, "select count(*) from lines"),
            q(0, "truncate lines"),
        ],
    );
    check(
        &fleet,
        "a Close of nothing in an open pipeline",
        &[
            pipeline(0, &[parse("", "select 1"), bind("", ""), execute(""), flush(), frame(b'C', b"Snope\0"), flush()]),
            q(1, "select 1"),
        ],
    );
    let large = frame(b'd', &b"x\n".repeat(20_000));
    check(
        &fleet,
        "a COPY that fails with its data half sent",
        &[
            Step { client: 0, bytes: [query("copy lines from stdin"), frame(b'd', b"x\n"), large, frame(b'c', b"")].concat() },
            q(0, "select 1"),
            q(1, "select 1"),
        ],
    );
}

#[test]
fn a_client_that_vanishes_behind_its_copy_data_frees_the_connection() {
    let fleet = own_fleet(0);
    fleet.primary().sql("SET ROLE app; CREATE TABLE lines (n int)").unwrap();
    let config = format!(
        "listen = '{{listen}}'\nhttp = '{{http}}'\n[databases.app]\nprimary = '{}'\npool_size = 1\n",
        fleet.primary().superuser_url()
    );
    let yard = Pgyard::start_with_config(&fleet, &config);
    for left in [
        [parse("", "copy lines from stdin"), bind("", ""), execute(""), frame(b'd', b"1\n"), frame(b'c', b"")].concat(),
        [query("copy lines from stdin"), frame(b'd', b"1\n"), frame(b'd', b"23")[..6].to_vec()].concat(),
        [parse("", "select pg_sleep(60)"), bind("", ""), execute("")].concat(),
        [parse("", "insert into lines values (1)"), bind("", ""), execute(""), frame(b'H', b"")].concat(),
        [parse("", "insert into lines values (length($1))"), large_bind("", 1 << 20)[..400_000].to_vec()].concat(),
        [parse("", "insert into nosuch values (length($1))"), large_bind("", 1 << 20)[..400_000].to_vec()].concat(),
    ] {
        let mut client = yard.client();
        client.send(&left).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        drop(client);
        assert_eq!(yard.client().column("SELECT 1").unwrap(), ["1"]);
    }
    assert_eq!(yard.client().column("SELECT count(*) FROM lines").unwrap(), ["0"], "nothing was committed");
}

#[test]
fn a_statement_is_closed_without_a_server() {
    let fleet = own_fleet(0);
    let close = |what: &str| frame(b'C', format!("{what}\0").as_bytes());
    check(
        &fleet,
        "closing",
        &[
            pipeline(0, &[parse("a", "select 1"), parse("", "select 2")]),
            pipeline(0, &[close("Sa"), close("Snope"), close("Pnope"), frame(b'H', b""), close("S")]),
            pipeline(0, &[bind("", "a"), execute("")]),
            pipeline(0, &[bind("", ""), execute("")]),
            pipeline(0, &[parse("a", "select 3"), bind("", "a"), execute("")]),
        ],
    );
    let yard = Pgyard::start(&fleet, &[]);
    let mut client = [yard.client()];
    play(&mut client, &[pipeline(0, &[parse("a", "select 1")])]);
    fleet.primary().stop(pgyard::demo::StopMode::Fast).unwrap();
    assert_eq!(play(&mut client, &[pipeline(0, &[close("Sa")])]), ["0: 3 Z:I"]);
}

/// In PostgreSQL a COMMIT or ROLLBACK that fails has ended its transaction.
#[test]
fn an_end_that_is_lost_ends_the_transaction() {
    let fleet = own_fleet(0);
    fleet.primary().sql("SET ROLE app; CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)").unwrap();
    // A COMMIT that takes long enough to be interrupted.
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NULL; END'; \
                CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()";
    fleet.primary().sql(&format!("SET ROLE app; {slow}")).unwrap();
    let yard = Pgyard::start(&fleet, &[]);
    let end = |state: &str| {
        let count = format!("FROM pg_stat_activity WHERE usename = 'app' AND state = '{state}'");
        super::harness::eventually(&format!("a session is {state}"), std::time::Duration::from_secs(20), || {
            fleet.primary().sql(&format!("SELECT count(pg_terminate_backend(pid)) {count}")).unwrap() == "1"
        });
    };
    let mut client = [yard.client()];
    for ending in ["commit", "rollback"] {
        // Its server is gone before it is sent.
        play(&mut client, &[q(0, "begin"), q(0, "select txid_current()")]);
        end("idle in transaction");
        let lines = play(&mut client, &[q(0, ending), q(0, "select 1")]);
        assert!(
            lines[0].starts_with("0: E:") && lines[0].ends_with("Z:I") && lines[1].contains("SELECT 1"),
            "{ending}: {lines:?}"
        );
    }
    for commit in [query("commit"), [parse("", "commit"), bind("", ""), execute(""), sync()].concat()] {
        play(&mut client, &[q(0, "begin"), q(0, "insert into late values (1)")]);
        let lines = std::thread::scope(|scope| {
            let committing = scope.spawn(|| play(&mut client, &[Step { client: 0, bytes: commit }]));
            end("active");
            committing.join().unwrap()
        });
        assert!(lines[0].contains("E:") && lines[0].ends_with("Z:I"), "{lines:?}");
        assert!(play(&mut client, &[q(0, "select 1")])[0].contains("SELECT 1"));
    }
}

/// PostgreSQL itself cannot show what follows when a server is lost in a transaction, for the client is lost too. To the client
/// it is a failed transaction.
#[test]
fn a_lost_transaction_is_a_failed_one() {
    let fleet = own_fleet(0);
    let yard = Pgyard::start(&fleet, &[]);
    let describe = |name: &str| frame(b'D', format!("S{name}\0").as_bytes());
    let close = |name: &str| frame(b'C', format!("S{name}\0").as_bytes());
    let flush = || frame(b'H', b"");
    let scripts: [(&str, Vec<Step>); 5] = [
        (
            "a Flush",
            vec![
                pipeline(0, &[parse("", "select 1"), flush()]),
                q(0, "select 1"),
                pipeline(0, &[parse("end", "rollback"), describe("end"), flush(), bind("", "end"), execute(""), flush()]),
                q(0, "select 1"),
            ],
        ),
        (
            "names are closed and given again",
            vec![
                pipeline(0, &[close("a")]),
                pipeline(0, &[parse("a", "select 1")]),
                q(0, "rollback"),
                pipeline(0, &[parse("a", "select 2"), bind("", "a"), execute("")]),
            ],
        ),
        (
            "an end that is only prepared ends nothing",
            vec![
                pipeline(0, &[parse("end", "rollback"), describe("end")]),
                q(0, "select 1"),
                pipeline(0, &[bind("", "end"), execute("")]),
                q(0, "select 1"),
                pipeline(0, &[parse("end", "select 2")]),
                pipeline(0, &[close("end"), parse("end", "select 2"), bind("", "end"), execute("")]),
            ],
        ),
        (
            "an unnamed end",
            vec![pipeline(0, &[parse("", "commit"), bind("", ""), execute("")]), pipeline(0, &[bind("", "a"), execute("")])],
        ),
        ("nothing but a Sync", vec![pipeline(0, &[]), q(0, "commit"), pipeline(0, &[bind("", "a"), execute("")])]),
    ];
    for (name, script) in scripts {
        let begin = [pipeline(0, &[parse("a", "select 41")]), q(0, "begin"), q(0, "select 1")];
        let log_in = || RawClient::log_in(fleet.primary().port(), "app", fleet.app_password().reveal(), "app").unwrap();
        let (mut direct, mut through) = ([log_in()], [yard.client()]);
        play(&mut through, &begin);
        let busy = "FROM pg_stat_activity WHERE usename = 'app' AND state <> 'idle'";
        fleet.primary().sql(&format!("SELECT pg_terminate_backend(pid) {busy}")).unwrap();
        play(&mut direct, &begin);
        play(&mut direct, &[q(0, "select 1 / 0")]);
        assert_eq!(play(&mut through, &[q(0, "select 1")]), ["0: E:57P01 Z:E"], "{name}");
        assert_eq!(play(&mut through, &script), play(&mut direct, &script), "{name}");
    }
}
