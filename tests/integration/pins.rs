//! What binds a session to its server connection, and what ends that: the table of `docs/limits.md`, tried.

use super::harness::{Pgyard, RawClient, config, eventually, own_fleet};
use super::soak::rows;
use pgyard::demo::SUPERUSER;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

/// Statements, what pins the session behind them, and statements of which the last one, and no other, ends that.
type Case = (&'static [&'static str], &'static str, &'static [&'static str]);

const PINS: &[Case] = &[
    (&["LISTEN a", "LISTEN b"], "listen", &["UNLISTEN a", "UNLISTEN b"]),
    (&["LISTEN a", "LISTEN b"], "listen", &["UNLISTEN *"]),
    (&["LISTEN a"], "listen", &["DISCARD ALL"]),
    (&["CREATE TEMP TABLE tt (n int)"], "temporary", &["DROP TABLE tt", "DISCARD TEMP"]),
    (&["SELECT 1 AS n INTO TEMP tt"], "temporary", &["DISCARD ALL"]),
    (&["CREATE TEMP VIEW tv AS SELECT 1"], "temporary", &["DISCARD TEMP"]),
    (&["CREATE TEMP SEQUENCE ts"], "temporary", &["DISCARD TEMP"]),
    (&["SELECT pg_advisory_lock(1)", "SELECT pg_advisory_lock(1)"], "advisory_lock", &["SELECT pg_advisory_unlock(1)"; 2]),
    (&["SELECT pg_try_advisory_lock(1, 2)"], "advisory_lock", &["SELECT pg_advisory_unlock_all()"]),
    (
        &["SELECT * FROM (SELECT pg_catalog.pg_advisory_lock_shared(3) OFFSET 0) nested"],
        "advisory_lock",
        &["SELECT 1 FROM plain FOR UPDATE", "DISCARD ALL"],
    ),
    (
        &["DECLARE h CURSOR WITH HOLD FOR SELECT 1", "DECLARE i CURSOR WITH HOLD FOR SELECT 2"],
        "hold_cursor",
        &["CLOSE h", "CLOSE i"],
    ),
    (&["DECLARE h CURSOR WITH HOLD FOR SELECT 1"], "hold_cursor", &["CLOSE ALL"]),
    (&["LOAD 'plpgsql'"], "load", &["DISCARD ALL"]),
    (&["BEGIN", "SELECT nextval('counter')", "SELECT currval('counter')", "COMMIT"], "sequence", &["DISCARD SEQUENCES"]),
    (&["BEGIN", "INSERT INTO serials DEFAULT VALUES", "SELECT lastval()", "COMMIT"], "sequence", &["DISCARD ALL"]),
    (&["SELECT set_config('work_mem', 2 * 1024 || 'kB', false)"], "parameter", &["RESET ALL", "DISCARD ALL"]),
    (&["SET seed = 0.5"], "parameter", &["DISCARD ALL"]),
    (&["SET TIME ZONE INTERVAL '+02:00' HOUR TO MINUTE"], "parameter", &["DISCARD ALL"]),
    (&["PREPARE p AS SELECT 'now'::text", "PREPARE q AS SELECT 'today'::text"], "prepare", &["DEALLOCATE p", "DEALLOCATE q"]),
    (&["PREPARE p AS SELECT 'now'::text"], "prepare", &["DEALLOCATE ALL"]),
    (&["DO $$ BEGIN EXECUTE 'SELECT 1'; END $$"], "opaque", &["DISCARD PLANS", "DISCARD ALL"]),
    (&["SELECT setseed(0.5)"], "opaque", &["DISCARD ALL"]),
    (&["SELECT locks()"], "opaque", &["DISCARD ALL"]),
];

/// What needs no connection of its own.
const SHARED: &[&[&str]] = &[
    &["SET work_mem = '3MB'", "RESET work_mem", "SET TIME ZONE 'UTC'", "SET app.tenant = '7'", "SET ROLE NONE"],
    &["SELECT set_config('work_mem', '3MB', false)"],
    &["BEGIN", "SET LOCAL work_mem = '3MB'", "SELECT set_config('work_mem', '5MB', true)", "COMMIT"],
    &["PREPARE p AS SELECT 1", "EXECUTE p", "DEALLOCATE p"],
    &["SELECT name FROM pg_prepared_statements"],
    &["BEGIN", "DECLARE c CURSOR FOR SELECT 1", "FETCH c", "COMMIT"],
    &["BEGIN", "SELECT pg_advisory_xact_lock(1)", "COMMIT"],
    &["NOTIFY a", "SELECT pg_notify('a', 'b')"],
    &["SELECT nextval('counter')", "SELECT setval('counter', 5)", "INSERT INTO serials DEFAULT VALUES"],
    &["DISCARD PLANS", "DISCARD SEQUENCES", "DISCARD TEMP", "DISCARD ALL"],
    &["DO $$ BEGIN PERFORM 1; END $$", "SELECT adds(1)"],
    &["SELECT lo_unlink(lo_create(0))", "LOCK TABLE plain", "ROLLBACK"],
];

/// What the console says of the client: its pins, and whether it holds a server connection.
fn bonds(console: &mut RawClient, client: &RawClient) -> (String, bool) {
    let listed = rows(console, "SHOW CLIENTS").unwrap();
    let own = listed.into_iter().find(|row| row[11] == client.key.0.to_string()).expect("the client is listed");
    (own[13].clone(), !own[7].is_empty())
}

#[test]
fn pins_begin_and_end_as_the_table_says() {
    let fleet = own_fleet(0);
    fleet
        .primary()
        .sql(
            "CREATE SEQUENCE counter; CREATE TABLE serials (id serial); CREATE TABLE plain AS SELECT 0 AS n; \
             CREATE FUNCTION locks() RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_lock(9); END'; \
             CREATE FUNCTION adds(n int) RETURNS int LANGUAGE plpgsql AS 'BEGIN UPDATE plain SET n = adds.n; RETURN 1; END'",
        )
        .unwrap();
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, None, ""));
    let password = fleet.superuser_password().reveal();
    let mut console = RawClient::log_in(yard.port(), "pgyard", "", "pgyard").unwrap();
    let log_in = || RawClient::log_in(yard.port(), SUPERUSER, password, "app").unwrap();
    let free = (String::new(), false);
    for (begin, cause, end) in PINS {
        let mut client = log_in();
        for statement in *begin {
            client.column(statement).unwrap();
        }
        let bound = ((*cause).to_owned(), true);
        eventually(&format!("{begin:?}: {cause}"), LIMIT, || bonds(&mut console, &client) == bound);
        assert_eq!(yard.metric("pgyard_clients_pinned", &[("cause", cause)]), Some(1.0), "{begin:?}");
        let (last, others) = end.split_last().unwrap();
        for statement in others {
            client.column(statement).unwrap();
            assert_eq!(bonds(&mut console, &client), bound, "{begin:?}, {statement}");
        }
        client.column(last).unwrap();
        eventually(&format!("{last} ends {begin:?}"), LIMIT, || bonds(&mut console, &client) == free);
        assert_eq!(yard.metric("pgyard_clients_pinned", &[("cause", cause)]), Some(0.0), "{begin:?}");
    }
    for statements in SHARED {
        let mut client = log_in();
        for statement in *statements {
            // An error is as good: LOCK TABLE outside a block.
            let _outcome = client.column(statement);
            assert_eq!(bonds(&mut console, &client).0, "", "{statement}");
        }
        eventually(&format!("free behind {statements:?}"), LIMIT, || bonds(&mut console, &client) == free);
    }
}
