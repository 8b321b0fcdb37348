//! When something breaks, row by row: what is sent again and where, and what is the client's to know. The rows that have tests of their
//! own are in `faults`, `slow_hosts`, `stubborn`, `failover`, `begun`, and in `reload` (an exhausted pool).

use super::harness::client::{Protocol, Reply};
use super::harness::proxy::host_of;
use super::harness::{Pgyard, RawClient, config, eventually, own_fleet};
use pgyard::demo::LocalHost;
use std::process::Command;
use std::time::Duration;

const PROTOCOLS: [Protocol; 3] = [Protocol::Simple, Protocol::Extended, Protocol::Named];

fn state_of(replies: &[Reply]) -> String {
    let error = replies.iter().find(|reply| reply.tag == b'E');
    error.map_or_else(|| "ok".to_owned(), |error| error.field(b'C').unwrap())
}

fn run(client: &mut RawClient, sql: &str) -> String {
    state_of(&client.run(Protocol::Simple, sql).expect("the client stays connected"))
}

#[test]
fn what_a_replica_does_not_have_yet_is_read_on_the_primary() {
    let fleet = own_fleet(1);
    let (primary, replica) = (fleet.primary(), &fleet.replicas()[0]);
    primary
        .sql(
            "SET ROLE app; CREATE TABLE base AS SELECT 1 AS n; CREATE TABLE secret AS SELECT 5 AS n; \
             CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 3'; \
             CREATE MATERIALIZED VIEW later AS SELECT 7 AS n WITH NO DATA; RESET ROLE; ALTER TABLE secret OWNER TO postgres",
        )
        .unwrap();
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, None, "max_lag = \"off\"\n"));
    yard.wait_for_replicas(&["replica1"]);
    // Behind pgyard's back: it knows nothing of all this.
    primary.sql("SET ROLE app; CREATE UNLOGGED TABLE unlogged AS SELECT 8 AS n").unwrap();
    fleet.wait_for_replay(primary, replica).unwrap();
    replica.pause_replay().unwrap();
    primary
        .sql(
            "GRANT SELECT ON secret TO app; SET ROLE app; CREATE TABLE fresh AS SELECT 1 AS n; ALTER TABLE base ADD added int DEFAULT 2; \
             CREATE FUNCTION f(text) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 4'; CREATE TYPE mood AS ENUM ('good'); \
             REFRESH MATERIALIZED VIEW later",
        )
        .unwrap();
    primary.sql("CREATE SCHEMA moods AUTHORIZATION app; CREATE TYPE moods.mood AS ENUM ('bad')").unwrap();
    let mut direct = RawClient::log_in(replica.port(), "app", fleet.app_password().reveal(), "app").unwrap();
    for (text, state, shown) in [
        ("SELECT n FROM fresh", "42P01", "1"),
        ("SELECT added FROM base", "42703", "2"),
        ("SELECT f('x'::text)", "42883", "4"),
        ("SELECT 'bad'::moods.mood", "3F000", "bad"),
        ("SELECT 'good'::mood", "42704", "good"),
        ("SELECT n FROM secret", "42501", "5"),
        ("SELECT n FROM later", "55000", "7"),
        ("SELECT n FROM unlogged", "0A000", "8"),
    ] {
        assert_eq!(run(&mut direct, text), state, "{text}: what the replica itself says");
        let reason = if state.starts_with("42") || state == "3F000" { "missing_object" } else { "replica_refused" };
        let retries = || yard.metric("pgyard_retries_total", &[("reason", reason)]).unwrap_or_default();
        for protocol in PROTOCOLS {
            let before = retries();
            // What a replica has refused may have written, so that its session reads on the primary afterwards.
            let replies = yard.client().run(protocol, text).unwrap();
            assert_eq!(state_of(&replies), "ok", "{text} {protocol:?}");
            let row = replies.iter().find(|reply| reply.tag == b'D').expect("a row");
            assert!(row.body.ends_with(shown.as_bytes()), "{text} {protocol:?}: {row:?}");
            assert!(retries() > before, "{text} {protocol:?}: a replica was asked first");
        }
        // In a transaction on the replica the error stands.
        let mut client = yard.client();
        assert_eq!(run(&mut client, "BEGIN READ ONLY"), "ok");
        assert_eq!(run(&mut client, text), state, "{text}");
        assert_eq!(run(&mut client, "SELECT 1"), "25P02");
        assert_eq!(run(&mut client, "ROLLBACK"), "ok");
    }
    // What is wrong everywhere is the primary's own error.
    assert_eq!(run(&mut yard.client(), "SELECT n FROM nowhere"), "42P01");
}

fn waiting_for_locks(host: &LocalHost) -> String {
    host.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").unwrap()
}

#[test]
fn a_primary_that_dies_under_a_write_leaves_its_outcome_unknown_only_if_it_could_commit() {
    let fleet = own_fleet(0);
    let primary = fleet.primary();
    primary.sql("SET ROLE app; CREATE TABLE t AS SELECT 0 AS n; CREATE TABLE u AS SELECT 0 AS n").unwrap();
    let yard = Pgyard::start(&fleet, &[]);
    let mut holder = RawClient::log_in(primary.port(), "app", fleet.app_password().reveal(), "app").unwrap();
    assert_eq!((run(&mut holder, "BEGIN"), run(&mut holder, "LOCK TABLE t")), ("ok".into(), "ok".into()));
    let cases = [
        ("", "UPDATE t SET n = n + 1", "08007"),
        ("", "BEGIN; UPDATE t SET n = n + 1; COMMIT", "08007"),
        ("", "INSERT INTO u SELECT n FROM t", "08007"),
        ("UPDATE u SET n = n + 1", "UPDATE t SET n = n + 1", "57P01"),
        ("SELECT n FROM u", "UPDATE t SET n = n + 1; COMMIT", "08007"),
    ];
    std::thread::scope(|scope| {
        let clients: Vec<_> = cases
            .map(|(before, text, state)| {
                let mut client = yard.client();
                if !before.is_empty() {
                    assert_eq!((run(&mut client, "BEGIN"), run(&mut client, before)), ("ok".into(), "ok".into()));
                }
                scope.spawn(move || {
                    assert_eq!(run(&mut client, text), state, "{before}; {text}");
                    if state == "57P01" {
                        assert_eq!(run(&mut client, "SELECT 1"), "25P02", "{text}");
                        assert_eq!(run(&mut client, "ROLLBACK"), "ok", "{text}");
                    }
                    // The client goes on, once there is a primary.
                    assert_eq!(run(&mut client, "INSERT INTO u VALUES (1)"), "ok", "{text}");
                })
            })
            .into();
        eventually("all wait for the lock", Duration::from_secs(10), || waiting_for_locks(primary) == "5");
        primary.kill().unwrap();
        primary.start().unwrap();
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    assert_eq!(primary.sql("SELECT n FROM t").unwrap(), "0", "nothing was done twice, or at all");
    assert_eq!(primary.sql("SELECT count(*), sum(n) FROM u").unwrap(), "6|5");
}

#[test]
fn reads_wait_for_a_replica_where_the_primary_must_not_serve_them() {
    let fleet = own_fleet(1);
    let replica = &fleet.replicas()[0];
    let settings = "reads_on_primary = \"never\"\nfailover_wait = \"20s\"\n";
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, None, settings));
    yard.wait_for_replicas(&["replica1"]);
    replica.kill().unwrap();
    std::thread::scope(|scope| {
        let mut client = yard.client();
        let read = scope.spawn(move || host_of(&mut client));
        eventually("it waits", Duration::from_secs(10), || yard.metric("pgyard_statements_held", &[]) == Some(1.0));
        replica.start().unwrap();
        assert_eq!(read.join().unwrap(), "replica1");
    });
}

#[test]
fn a_read_that_ends_servers_does_not_walk_the_fleet() {
    let fleet = own_fleet(2);
    let yard = Pgyard::start(&fleet, &[]);
    let sleepers = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND usename = 'app'";
    std::thread::scope(|scope| {
        let mut client = yard.client();
        let read = scope.spawn(move || (run(&mut client, "SELECT count(pg_sleep(60))"), client));
        for _ in 0..2 {
            let mut victim = None;
            eventually("a replica runs it", Duration::from_secs(20), || {
                let running = fleet.replicas().iter().find_map(|host| host.sql(sleepers).ok().filter(|pid| !pid.is_empty()));
                victim = running;
                victim.is_some()
            });
            // As a crash would: the server says nothing, and its postmaster stays.
            let killed = Command::new("sh").args(["-c", "kill -9 \"$1\"", "sh", &victim.unwrap()]).status().unwrap();
            assert!(killed.success());
        }
        let (state, mut client) = read.join().unwrap();
        assert_eq!(state, "57P02");
        assert_eq!(run(&mut client, "SELECT 1"), "ok");
    });
    assert_eq!(fleet.primary().sql(sleepers).unwrap(), "", "it never came to the primary");
}

#[test]
fn what_is_too_long_to_be_kept_is_not_sent_again() {
    let fleet = own_fleet(1);
    let (primary, replica) = (fleet.primary(), &fleet.replicas()[0]);
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, None, "max_lag = \"off\"\nretry_buffer = \"4KiB\"\n"));
    yard.wait_for_replicas(&["replica1"]);
    replica.pause_replay().unwrap();
    primary.sql("SET ROLE app; CREATE TABLE fresh AS SELECT 1 AS n").unwrap();
    let mut client = yard.client();
    assert_eq!(run(&mut client, "SELECT n FROM fresh"), "ok");
    assert_eq!(run(&mut client, &format!("SELECT n, '{}' FROM fresh", "x".repeat(5000))), "42P01");
}
