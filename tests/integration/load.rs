//! pgbench through pgyard: no error, by every protocol, and reads spread evenly.

use super::harness::client::query;
use super::harness::programs::pgbench;
use super::harness::{Pgyard, config, eventually, own_fleet, shared_fleet};
use pgyard::demo::LocalFleet;
use std::time::Duration;

/// Reads that each replica has served: pgbench's transactions of `-S` look up one account each, and nobody else does there.
fn selects(fleet: &LocalFleet) -> Vec<u64> {
    let count = "SELECT idx_scan FROM pg_stat_user_tables WHERE relname = 'pgbench_accounts'";
    fleet.replicas().iter().map(|replica| replica.sql(count).unwrap().parse().unwrap()).collect()
}

fn failed_transactions(report: &str) -> u64 {
    let line =
        report.lines().find_map(|line| line.strip_prefix("number of failed transactions: ")).expect("pgbench reports failures");
    line.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn pgbench_itself_works_on_a_fleet() {
    let fleet = own_fleet(0);
    let url = fleet.primary().app_url();
    pgbench(&url, &["-i", "-s", "1", "-q"]);
    let report = pgbench(&url, &["-S", "-c", "4", "-T", "1", "-n", "-M", "prepared"]);
    assert_eq!(failed_transactions(&report), 0, "{report}");
}

#[test]
fn pgbench_sees_no_error_and_reads_are_spread_evenly() {
    let fleet = own_fleet(2);
    // Initialised directly: this test is about the load.
    pgbench(&fleet.primary().app_url(), &["-i", "-s", "2", "-q"]);
    for replica in fleet.replicas() {
        fleet.wait_for_replay(fleet.primary(), replica).unwrap();
    }
    let yard = Pgyard::start(&fleet, &[]);
    for protocol in ["simple", "extended", "prepared"] {
        // The first reads would find one of them only.
        yard.wait_for_replicas(&["replica1", "replica2"]);
        for script in ["-S", "-N"] {
            let before = selects(&fleet);
            // By number, not by time: a slow machine makes the run longer, not the figures smaller.
            let report = pgbench(&yard.url(), &[script, "-c", "16", "-j", "2", "-t", "150", "-n", "-M", protocol]);
            assert_eq!(failed_transactions(&report), 0, "{script} {protocol}: {report}");
            if script == "-S" {
                // A server session reports its statistics once a second, and what it did in its last second when it has been idle for ten.
                let mut counts = (0, 0);
                eventually("the replicas have served all reads", Duration::from_secs(60), || {
                    let after = selects(&fleet);
                    counts = (after[0] - before[0], after[1] - before[1]);
                    counts.0 + counts.1 >= 16 * 150
                });
                let (one, two) = counts;
                let even = (one + two) / 2;
                // A replica whose probe comes late on a busy machine is left for a moment.
                assert!(one.abs_diff(even) * 3 <= even, "{protocol}: {one} and {two} reads");
            }
        }
    }
}

#[test]
fn no_read_waits_at_one_replica_while_another_has_a_free_connection() {
    let fleet = shared_fleet();
    let yard = Pgyard::start_with_config(fleet, &config(fleet, None, "pool_size = 1\n"));
    yard.wait_for_replicas(&["replica1", "replica2"]);
    let (mut sleeper, mut reader) = (yard.client(), yard.client());
    let sleep = "SELECT pg_sleep(67)";
    sleeper.send(&query(sleep)).unwrap();
    let sleeping = format!("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '{sleep}'");
    eventually("a replica works for the sleeper", Duration::from_secs(10), || {
        fleet.replicas().iter().any(|replica| replica.sql(&sleeping).unwrap() == "1")
    });
    // By turns every other read would have to wait for the end of the sleep, and be refused at checkout_timeout.
    for _ in 0..20 {
        assert_eq!(reader.column("SELECT 1").expect("a replica has a free connection"), ["1"]);
    }
}

/// pgbench blocks a thread while it prepares, with the thread's other clients in transactions that hold every connection.
#[test]
fn many_clients_share_two_connections() {
    let fleet = own_fleet(0);
    pgbench(&fleet.primary().app_url(), &["-i", "-s", "1", "-q"]);
    let head = "listen = '{listen}'\nhttp = '{http}'\n[databases.app]\n";
    let primary = fleet.primary().superuser_url();
    let yard = Pgyard::start_with_config(&fleet, &format!("{head}primary = '{primary}'\npool_size = 2\n"));
    yard.wait_for_replicas(&[]);
    for protocol in ["prepared", "extended"] {
        for threads in ["1", "2", "4"] {
            for script in ["tpcb-like", "simple-update", "select-only"] {
                let arguments = ["-b", script, "-c", "64", "-j", threads, "-t", "4", "-n", "-M", protocol];
                let report = pgbench(&yard.url(), &arguments);
                assert_eq!(failed_transactions(&report), 0, "{protocol} {threads} {script}: {report}");
                assert!(report.contains("actually processed: 256/256"), "{protocol} {threads} {script}: {report}");
            }
        }
    }
}
