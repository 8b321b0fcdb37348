//! What moves when the primary goes down: transactions that have only begun, reads that it serves, and what does not.

use super::harness::client::{Protocol, bind, execute, frame, parse, sync};
use super::harness::{Pgyard, RawClient, config, eventually, own_fleet};
use pgyard::demo::{LocalHost, StopMode};
use std::time::Duration;

/// The SQLSTATE of a statement that failed, or the transaction's status after it.
fn outcome(client: &mut RawClient, sql: &str) -> String {
    let replies = client.run(Protocol::Simple, sql).expect("the client stays connected");
    match replies.iter().find(|reply| reply.tag == b'E') {
        Some(error) => error.field(b'C').unwrap(),
        None => char::from(replies.last().unwrap().body[0]).to_string(),
    }
}

fn sessions_in_transaction(host: &LocalHost) -> String {
    host.sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle in transaction'").unwrap()
}

#[test]
fn a_transaction_that_has_only_begun_begins_elsewhere() {
    let fleet = own_fleet(1);
    let primary = fleet.primary();
    primary.sql("SET ROLE app; CREATE TABLE t AS SELECT 0 AS n").unwrap();
    let yard = Pgyard::start(&fleet, &[]);
    let begins = [
        "BEGIN",
        "START TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE",
        "BEGIN TRANSACTION READ ONLY",
    ];
    for stop in [StopMode::Fast, StopMode::Immediate] {
        let mut clients: Vec<RawClient> = begins.iter().map(|_| yard.client()).collect();
        for (client, begin) in clients.iter_mut().zip(begins) {
            client.column("SET application_name = 'begun'").unwrap();
            assert_eq!(outcome(client, begin), "T");
        }
        // By the extended protocol, as some drivers do.
        let mut extended = yard.client();
        extended.send(&[parse("", "BEGIN"), bind("", ""), execute(""), sync()].concat()).unwrap();
        extended.until_ready().unwrap();
        let mut worked = yard.client();
        for statement in ["BEGIN", "UPDATE t SET n = n + 1000"] {
            assert_eq!(outcome(&mut worked, statement), "T");
        }
        let mut ended = yard.client();
        assert_eq!(outcome(&mut ended, "BEGIN"), "T");
        primary.restart(stop).unwrap();
        for (client, begin) in clients.iter_mut().zip(begins) {
            let level = client.column("SELECT current_setting('transaction_isolation')").expect(begin).remove(0);
            assert_eq!(begin.contains("SERIALIZABLE"), level == "serializable", "{begin} {level}");
            assert_eq!(begin.contains("REPEATABLE"), level == "repeatable read", "{begin} {level}");
            assert_eq!(client.column("SELECT current_setting('application_name')").unwrap(), ["begun"]);
            let written = outcome(client, "UPDATE t SET n = n + 1");
            assert_eq!(written, if begin.contains("ONLY") { "25006" } else { "T" }, "{begin}");
            assert_eq!(outcome(client, "ROLLBACK"), "I", "{begin}");
        }
        assert_eq!(outcome(&mut extended, "UPDATE t SET n = n + 1"), "T");
        assert_eq!(outcome(&mut extended, "COMMIT"), "I");
        assert_eq!(outcome(&mut ended, "COMMIT"), "I", "an empty transaction ends as it would have");
        // One that has done something is lost, and says so.
        assert_eq!(outcome(&mut worked, "UPDATE t SET n = n + 1"), "57P01");
        assert_eq!(outcome(&mut worked, "SELECT 1"), "25P02");
        assert_eq!(outcome(&mut worked, "ROLLBACK"), "I");
    }
    assert_eq!(primary.sql("SELECT n FROM t").unwrap(), "2");
    assert_eq!(sessions_in_transaction(primary), "0");
}

#[test]
fn a_first_statement_that_is_turned_away_runs_where_its_transaction_begins_anew() {
    let fleet = own_fleet(0);
    let primary = fleet.primary();
    primary.sql("SET ROLE app; CREATE TABLE t AS SELECT 0 AS n").unwrap();
    // Before any connection of pgyard's: a server that shuts down tells the oldest backend last, and nobody gets the lock that way.
    let mut holder = RawClient::log_in(primary.port(), "app", fleet.app_password().reveal(), "app").unwrap();
    let yard = Pgyard::start(&fleet, &[]);
    holder.column("BEGIN").unwrap();
    holder.column("LOCK TABLE t").unwrap();
    std::thread::scope(|scope| {
        let mut clients: Vec<RawClient> = (0..3).map(|_| yard.client()).collect();
        clients.iter_mut().for_each(|client| assert_eq!(outcome(client, "BEGIN"), "T"));
        let mut commits = clients.pop().unwrap();
        let waiting: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                scope.spawn(move || {
                    assert_eq!(outcome(&mut client, "UPDATE t SET n = n + 1"), "T");
                    assert_eq!(outcome(&mut client, "COMMIT"), "I");
                })
            })
            .collect();
        // Its own COMMIT is among what was sent: whether it took effect the server alone knows.
        let commits = scope.spawn(move || outcome(&mut commits, "UPDATE t SET n = n + 100; COMMIT"));
        let locked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        eventually("all wait for the lock", Duration::from_secs(10), || primary.sql(locked).unwrap() == "3");
        primary.restart(StopMode::Fast).unwrap();
        waiting.into_iter().for_each(|client| client.join().unwrap());
        assert_eq!(commits.join().unwrap(), "57P01");
    });
    assert_eq!(primary.sql("SELECT n FROM t").unwrap(), "2");
}

#[test]
fn reads_on_a_primary_that_goes_down_move() {
    let fleet = own_fleet(1);
    let primary = fleet.primary();
    primary.sql("SET ROLE app; CREATE TABLE t AS SELECT generate_series(1, 40) AS n").unwrap();
    fleet.wait_for_replay(primary, &fleet.replicas()[0]).unwrap();
    let settings = "max_lag = \"300ms\"\nprobe_interval = \"50ms\"\n";
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, None, settings));
    yard.wait_for_replicas(&["replica1"]);
    yard.client().column("INSERT INTO t VALUES (0)").unwrap();
    // The replica is held back, so that the primary answers reads.
    fleet.replicas()[0].pause_replay().unwrap();
    primary.sql("CREATE TABLE later AS SELECT 1").unwrap();
    let mut reader = yard.client();
    let host = "SELECT current_setting('cluster_name')";
    eventually("the primary answers", Duration::from_secs(10), || reader.column(host).unwrap() == ["primary"]);
    std::thread::scope(|scope| {
        // Rows are made slowly; none is sent before the last.
        let reads: Vec<_> = [Protocol::Simple, Protocol::Extended, Protocol::Named]
            .into_iter()
            .map(|protocol| {
                let mut client = yard.client();
                scope.spawn(move || {
                    let replies = client.run(protocol, "SELECT n, pg_sleep(0.05) FROM t WHERE n > 0").unwrap();
                    let error = replies.iter().find(|reply| reply.tag == b'E').and_then(|reply| reply.field(b'M'));
                    assert_eq!(error, None, "{protocol:?}");
                    assert_eq!(replies.iter().filter(|reply| reply.tag == b'D').count(), 40, "{protocol:?}");
                })
            })
            .collect();
        let running = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        eventually("they run", Duration::from_secs(10), || primary.sql(running).unwrap() == "3");
        fleet.replicas()[0].resume_replay().unwrap();
        primary.restart(StopMode::Fast).unwrap();
        reads.into_iter().for_each(|read| read.join().unwrap());
    });
    assert!(yard.metric("pgyard_retries_total", &[("reason", "primary_lost")]) >= Some(3.0));
}

#[test]
fn what_changes_nothing_does_not_cost_a_transaction_that_has_only_begun() {
    let fleet = own_fleet(0);
    let primary = fleet.primary();
    let yard = Pgyard::start(&fleet, &[]);
    let mut client = yard.client();
    // BEGIN by name; the Close of its statement meets a server that is gone, without a word of it.
    client.send(&[parse("b", "BEGIN"), sync()].concat()).unwrap();
    client.until_ready().unwrap();
    client.send(&[bind("", "b"), execute(""), sync()].concat()).unwrap();
    assert_eq!(client.until_ready().unwrap().last().unwrap().body, b"T");
    primary.restart(StopMode::Immediate).unwrap();
    client.send(&[frame(b'C', b"Sb\0"), sync()].concat()).unwrap();
    let replies = client.until_ready().unwrap();
    // The server may have got its warning out before it died.
    let tags: Vec<u8> = replies.iter().map(|reply| reply.tag).filter(|tag| *tag != b'N').collect();
    assert_eq!(tags, b"3Z");
    assert_eq!(outcome(&mut client, "SELECT 1"), "T");
    assert_eq!(outcome(&mut client, "COMMIT"), "I");
}
