//! Replicas that refuse or cancel what the primary may allow: the client never learns of it.

use super::harness::client::Protocol;
use super::harness::{Pgyard, config, eventually, own_fleet};
use pgyard::demo::{FleetOptions, LocalFleet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[test]
fn two_hundred_recovery_conflicts_before_the_first_row_cost_no_error() {
    const CONFLICTS: u64 = 200;
    const READERS: usize = 16;
    // Replay waits for nobody, so that every vacuum cancels whoever reads what it removes.
    let settings = vec!["max_standby_streaming_delay = 0".into(), "hot_standby_feedback = off".into()];
    let fleet = LocalFleet::start(FleetOptions { replicas: 2, settings, ..FleetOptions::default() }, &mut |_| ()).unwrap();
    let primary = fleet.primary();
    primary.sql("SET ROLE app; CREATE TABLE t AS SELECT n, n AS a FROM generate_series(1, 500) n").unwrap();
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, None, "max_lag = \"1min\"\n"));
    let stop = AtomicBool::new(false);
    let conflicts = || -> u64 {
        let count = "SELECT confl_snapshot + confl_lock + confl_bufferpin FROM pg_stat_database_conflicts WHERE datname = 'app'";
        fleet.replicas().iter().map(|replica| replica.sql(count).unwrap().parse::<u64>().unwrap()).sum()
    };
    std::thread::scope(|scope| {
        for reader in 0..READERS {
            let (yard, stop) = (&yard, &stop);
            scope.spawn(move || {
                let mut client = yard.client();
                let protocol = [Protocol::Simple, Protocol::Extended, Protocol::Named][reader % 3];
                while !stop.load(Ordering::Relaxed) {
                    // The sum is known only when all rows were read, so nothing is sent before.
                    let replies = client.run(protocol, "SELECT count(n), count(pg_sleep(0.0005)) FROM t").unwrap();
                    let error = replies.iter().find(|reply| reply.tag == b'E').map(|reply| reply.field(b'M'));
                    assert_eq!(error, None, "{protocol:?}");
                }
            });
        }
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                primary.sql("UPDATE t SET a = a + 1").unwrap();
                primary.sql("VACUUM t").unwrap();
            }
        });
        eventually("200 conflicts", Duration::from_secs(120), || conflicts() >= CONFLICTS);
        stop.store(true, Ordering::Relaxed);
    });
    let retries = yard.metric("pgyard_retries_total", &[("reason", "recovery_conflict")]).unwrap();
    println!("{} recovery conflicts under {READERS} readers, {retries} reads moved: no error", conflicts());
    assert!(retries >= CONFLICTS as f64 / 2.0);
}

#[test]
fn functions_and_views_that_write_in_a_select_cost_no_error() {
    const CALLS: usize = 1000;
    let fleet = own_fleet(2);
    let yard = Pgyard::start(&fleet, &[]);
    // Made behind pgyard's back: at first it knows neither, and must not find out at the client's expense.
    fleet
        .primary()
        .sql(
            "SET ROLE app; CREATE TABLE t AS SELECT 0 AS n; \
        CREATE FUNCTION counts() RETURNS int LANGUAGE sql AS 'UPDATE t SET n = n + 1 RETURNING n'; \
        CREATE FUNCTION lies() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN counts(); END'; \
        CREATE VIEW counted AS SELECT counts() AS n",
        )
        .unwrap();
    fleet.replicas().iter().for_each(|replica| fleet.wait_for_replay(fleet.primary(), replica).unwrap());
    let texts = ["SELECT counts()", "SELECT n FROM counted", "SELECT lies() FROM counted"];
    std::thread::scope(|scope| {
        for protocol in [Protocol::Simple, Protocol::Extended] {
            let yard = &yard;
            scope.spawn(move || {
                let mut client = yard.client();
                for call in 0..CALLS {
                    let replies = client.run(protocol, texts[call % 2]).unwrap();
                    let error = replies.iter().find(|reply| reply.tag == b'E').map(|reply| reply.field(b'M'));
                    assert_eq!(error, None, "{protocol:?} {}", texts[call % 2]);
                }
            });
        }
    });
    assert_eq!(fleet.primary().sql("SELECT n FROM t").unwrap(), (2 * CALLS).to_string(), "each took effect once");
    println!("{CALLS} calls of a function that writes and {CALLS} of a view over it: no error, each took effect once");
    // One that claims to be stable fails everywhere, as it does without pgyard; and harms nobody else.
    let mut client = yard.client();
    let replies = client.run(Protocol::Simple, texts[2]).unwrap();
    assert_eq!(
        replies.iter().find(|reply| reply.tag == b'E').and_then(|reply| reply.field(b'C')),
        direct_error(&fleet, texts[2])
    );
}

/// What PostgreSQL itself says.
fn direct_error(fleet: &LocalFleet, sql: &str) -> Option<String> {
    use super::harness::RawClient;
    let mut client = RawClient::log_in(fleet.primary().port(), "app", fleet.app_password().reveal(), "app").unwrap();
    let replies = client.run(Protocol::Simple, sql).unwrap();
    replies.iter().find(|reply| reply.tag == b'E').and_then(|reply| reply.field(b'C'))
}
