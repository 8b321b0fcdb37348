//! Hosts that die under reading clients: no client sees it.

use super::harness::proxy::host_of;
use super::harness::readers::while_reading;
use super::harness::{Pgyard, eventually, own_fleet, promised};
use pgyard::demo::StopMode;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_replica_is_killed_and_restarted_under_reading_clients() {
    let fleet = own_fleet(2);
    let yard = Pgyard::start(&fleet, &[]);
    let victim = &fleet.replicas()[0];
    for _ in 0..promised(2, 5) {
        while_reading(&yard, "a replica killed and started", |readers| {
            victim.kill().unwrap();
            readers.go_on();
            std::thread::sleep(promised(Duration::ZERO, Duration::from_secs(2)));
            victim.start().unwrap();
            let mut client = yard.client();
            eventually("the replica is used again", LIMIT, || host_of(&mut client) == victim.name());
        });
    }
}

#[test]
fn a_replica_is_stopped_and_restarted_under_reading_clients() {
    let fleet = own_fleet(2);
    let yard = Pgyard::start(&fleet, &[]);
    let victim = &fleet.replicas()[1];
    for mode in [StopMode::Fast, StopMode::Immediate] {
        while_reading(&yard, &format!("a replica stopped and started, {mode:?}"), |readers| {
            victim.stop(mode).unwrap();
            readers.go_on();
            victim.start().unwrap();
            let mut client = yard.client();
            eventually("the replica is used again", LIMIT, || host_of(&mut client) == victim.name());
        });
        for _ in 0..promised(1, 5) {
            while_reading(&yard, &format!("a replica restarted, {mode:?}"), |_| {
                victim.restart(mode).unwrap();
                let mut client = yard.client();
                eventually("the replica is used again", LIMIT, || host_of(&mut client) == victim.name());
            });
        }
    }
}

#[test]
fn reads_use_the_primary_when_no_replica_is_left() {
    let fleet = own_fleet(2);
    let yard = Pgyard::start(&fleet, &[]);
    while_reading(&yard, "all replicas killed", |readers| {
        fleet.replicas().iter().for_each(|replica| replica.kill().unwrap());
        let mut client = yard.client();
        eventually("the primary serves", LIMIT, || host_of(&mut client) == "primary");
        readers.go_on();
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
