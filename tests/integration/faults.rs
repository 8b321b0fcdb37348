//! Hosts that die under reading clients: no client sees it.

use super::harness::proxy::host_of;
use super::harness::{Pgyard, eventually, own_fleet};
use pgyard::demo::StopMode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const CLIENTS: usize = 32;

/// Runs `disturb` while 32 clients read; answers how often they read. Any error fails the test.
fn while_reading(yard: &Pgyard, disturb: impl FnOnce()) -> u64 {
    let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = yard.client();
                    while !stop.load(Ordering::Relaxed) {
                        let answer = client.column("SELECT count(*) FROM generate_series(1, 100)");
                        assert_eq!(answer.expect("a read must not fail because a replica did"), ["100"]);
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(500));
        disturb();
        stop.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    reads.into_inner()
}

#[test]
fn a_replica_is_killed_and_restarted_under_reading_clients() {
    let fleet = own_fleet(2);
    let yard = Pgyard::start(&fleet, &[]);
    let victim = &fleet.replicas()[0];
    for round in 0..3 {
        let reads = while_reading(&yard, || {
            victim.kill().unwrap();
            std::thread::sleep(Duration::from_secs(2));
            victim.start().unwrap();
            let started = Instant::now();
            let mut client = yard.client();
            eventually("the replica is used again", Duration::from_secs(10), || host_of(&mut client) == victim.name());
            assert!(started.elapsed() < Duration::from_secs(5), "used again after {:?}", started.elapsed());
        });
        assert!(reads > 500, "round {round}: only {reads} reads");
    }
}

#[test]
fn a_replica_is_stopped_and_restarted_under_reading_clients() {
    let fleet = own_fleet(2);
    let yard = Pgyard::start(&fleet, &[]);
    let victim = &fleet.replicas()[1];
    for mode in [StopMode::Fast, StopMode::Immediate] {
        while_reading(&yard, || {
            victim.restart(mode).unwrap();
            let mut client = yard.client();
            eventually("the replica is used again", Duration::from_secs(5), || host_of(&mut client) == victim.name());
        });
    }
}

#[test]
fn reads_use_the_primary_when_no_replica_is_left() {
    let fleet = own_fleet(2);
    let yard = Pgyard::start(&fleet, &[]);
    while_reading(&yard, || {
        fleet.replicas().iter().for_each(|replica| replica.kill().unwrap());
        let mut client = yard.client();
        eventually("the primary serves", Duration::from_secs(5), || host_of(&mut client) == "primary");
        std::thread::sleep(Duration::from_secs(1));
    });
}

#[test]
fn a_client_that_vanishes_in_a_transaction_leaves_no_lock() {
    let fleet = own_fleet(0);
    fleet.primary().sql("SET ROLE app; CREATE TABLE held AS SELECT 1 AS n").unwrap();
    let yard = Pgyard::start(&fleet, &[]);
    let mut client = yard.client();
    client.column("BEGIN").unwrap();
    client.column("UPDATE held SET n = 2").unwrap();
    drop(client);
    let mut next = yard.client();
    next.column("SET lock_timeout = '3s'").unwrap();
    next.column("UPDATE held SET n = n + 10").expect("the lock of the vanished client is gone");
    assert_eq!(next.column("SELECT n FROM held FOR UPDATE").unwrap(), ["11"], "its update was rolled back");
}
