//! Transfers between shards stay whole, whoever dies when.

use super::super::harness::client::{Protocol, RawClient};
use super::super::harness::programs::psql;
use super::super::harness::{Pgyard, eventually};
use super::stage::{SHARDS, app_url, config, server, shard_url, wait_for_decisions};
use super::{error_of, run};
use pgyard::demo::{FleetOptions, LocalFleet, free_port};
use pgyard::twophase::FaultPoint;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const RECOVERED: Duration = Duration::from_secs(40);
const MONEY: i64 = 1000;
const MAKE_MONEY: &str =
    "CREATE TABLE money (id int PRIMARY KEY, v bigint); INSERT INTO money SELECT i, 1000 FROM generate_series(1, 20) i";

fn make_accounts(fleet: &LocalFleet) {
    for shard in SHARDS {
        psql(&app_url(fleet, shard), MAKE_MONEY);
    }
}

/// Moves one unit of account `id` from one shard to another, as a client of pgyard; whether it was told that it is done.
fn transfer(client: &mut RawClient, (from, to): (&str, &str), id: usize) -> std::io::Result<bool> {
    let steps = [
        "BEGIN".to_owned(),
        format!("SET LOCAL pgyard.shard = '{from}'"),
        format!("UPDATE money SET v = v - 1 WHERE id = {id}"),
        format!("SET LOCAL pgyard.shard = '{to}'"),
        format!("UPDATE money SET v = v + 1 WHERE id = {id}"),
        "COMMIT".to_owned(),
    ];
    let mut well = true;
    for step in steps {
        let replies = client.run(Protocol::Simple, &step)?;
        if let Some(error) = error_of(&replies) {
            well = false;
            // What comes next would be a transaction of its own.
            if step == "BEGIN" {
                return Ok(false);
            }
            let status = replies.iter().find(|reply| reply.tag == b'Z').map(|reply| reply.body.clone());
            let goes_on = step != "COMMIT";
            assert_eq!(status.as_deref() == Some(b"E"), goes_on, "{step}: {error:?}");
        }
    }
    Ok(well)
}

fn sums(fleet: &LocalFleet) -> Vec<i64> {
    SHARDS.iter().map(|shard| psql(&app_url(fleet, shard), "SELECT sum(v) FROM money").parse().unwrap()).collect()
}

fn prepared(fleet: &LocalFleet) -> u32 {
    let count = psql(&shard_url(fleet, SHARDS[0]), "SELECT count(*) FROM pg_prepared_xacts WHERE gid LIKE 'pgyard:%'");
    count.parse().unwrap()
}

#[test]
fn a_pgyard_that_dies_at_any_step_leaves_whole_transfers() {
    let fleet = server();
    make_accounts(&fleet);
    let text = config(&fleet, "");
    // The tables of decisions are made by any pgyard.
    drop({
        let yard = Pgyard::start_with_config(&fleet, &text);
        wait_for_decisions(&fleet);
        yard
    });
    let mut left = 0;
    for (step, point) in FaultPoint::ALL.into_iter().enumerate() {
        let mut yard = Pgyard::start_at(&fleet, free_port().unwrap(), &text, &[("PGYARD_FAULT_POINT", point.name())]);
        let mut client = yard.client();
        assert!(transfer(&mut client, ("s0", "s1"), step + 1).is_err(), "pgyard dies at {point:?}");
        eventually("pgyard has died", Duration::from_secs(10), || !yard.is_running());
        left += prepared(&fleet);
    }
    assert!(left > 0, "some of the deaths leave a prepared transaction");
    let yard = Pgyard::start_with_config(&fleet, &text);
    eventually("no prepared transaction is left", RECOVERED, || prepared(&fleet) == 0);
    let whole = SHARDS.len() as i64 * 20 * MONEY;
    assert_eq!(sums(&fleet).iter().sum::<i64>(), whole);
    let account = |shard: &str, id: usize| psql(&app_url(&fleet, shard), &format!("SELECT v FROM money WHERE id = {id}"));
    for (step, point) in FaultPoint::ALL.into_iter().enumerate() {
        let (from, to) = (account("s0", step + 1), account("s1", step + 1));
        let done = (from.as_str(), to.as_str()) == ("999", "1001");
        assert!(done || (from.as_str(), to.as_str()) == ("1000", "1000"), "{point:?}: {from} and {to}");
        match point {
            FaultPoint::BeforePrepare | FaultPoint::Preparing | FaultPoint::Prepared => assert!(!done, "{point:?}"),
            FaultPoint::Decided | FaultPoint::Following => assert!(done, "{point:?}"),
            FaultPoint::Deciding => {}
        }
    }
    assert!(transfer(&mut yard.client(), ("s1", "s2"), 1).unwrap());
    assert_eq!(prepared(&fleet), 0);
}

/// Four sessions make transfers while `trouble` goes on; it is told how many were made.
fn under_transfers(yard: &Pgyard, trouble: impl FnOnce(&AtomicU64)) {
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for number in 0..4_usize {
            let (stop, done) = (&stop, &done);
            scope.spawn(move || {
                let mut client = None;
                let mut turn = number;
                while !stop.load(Ordering::Relaxed) {
                    turn += 1;
                    let ways = [("s0", "s1"), ("s1", "s2"), ("s2", "s0"), ("s1", "s0")];
                    let password = fleet_password(yard);
                    let connected = client.take().or_else(|| RawClient::log_in(yard.port(), "app", &password, "app").ok());
                    let Some(mut connected) = connected else {
                        std::thread::sleep(Duration::from_millis(50));
                        continue;
                    };
                    if let Ok(well) = transfer(&mut connected, ways[turn % 4], 1 + number * 5 + turn % 5) {
                        done.fetch_add(u64::from(well), Ordering::Relaxed);
                        drop(run(&mut connected, "ROLLBACK"));
                        client = Some(connected);
                    }
                }
            });
        }
        let stops = StopsOnDrop(&stop);
        trouble(&done);
        drop(stops);
    });
}

/// Ends the sessions, also when the test fails meanwhile.
struct StopsOnDrop<'a>(&'a AtomicBool);

impl Drop for StopsOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn more_transfers(done: &AtomicU64) {
    let before = done.load(Ordering::Relaxed);
    eventually("transfers are made", Duration::from_secs(60), || done.load(Ordering::Relaxed) > before + 50);
}

#[test]
fn shards_that_die_one_at_a_time_leave_whole_transfers() {
    let fleets = one_server_each();
    let url = |place: usize| fleets[place].primary().superuser_url();
    let shards: String = (0..SHARDS.len())
        .map(|place| format!("[[databases.app.shards]]\nname = \"s{place}\"\nprimary = {:?}\n", url(place)))
        .collect();
    let head = "listen = \"{listen}\"\nhttp = \"{http}\"\n[databases.app]\nunlisted_tables = \"s0\"\nfailover_wait = \"5s\"\n";
    let yard = Pgyard::start_with_config(&fleets[0], &format!("{head}{shards}"));
    let asked = |place: usize, sql: &str| psql(&url(place), sql);
    let there = "SELECT to_regclass('pgyard.decisions') IS NOT NULL";
    eventually("the tables of decisions are made", RECOVERED, || (0..3).all(|place| asked(place, there) == "t"));
    under_transfers(&yard, |done| {
        for place in [1, 0, 2, 1] {
            more_transfers(done);
            fleets[place].primary().kill().unwrap();
            fleets[place].primary().start().unwrap();
        }
        more_transfers(done);
    });
    let left = "SELECT count(*) FROM pg_prepared_xacts";
    eventually("no prepared transaction is left", RECOVERED, || (0..3).all(|place| asked(place, left) == "0"));
    let sum: i64 = (0..3).map(|place| asked(place, "SELECT sum(v) FROM money").parse::<i64>().unwrap()).sum();
    assert_eq!(sum, SHARDS.len() as i64 * 20 * MONEY);
}

/// A server for each shard. The application's role has one password on all of them.
fn one_server_each() -> Vec<LocalFleet> {
    let settings = vec!["max_prepared_transactions = 50".to_owned()];
    let options = || FleetOptions { replicas: 0, settings: settings.clone(), ..FleetOptions::default() };
    let fleets: Vec<LocalFleet> = SHARDS.iter().map(|_| LocalFleet::start(options(), &mut |_| ()).unwrap()).collect();
    let verifier = psql(&fleets[0].primary().superuser_url(), "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'");
    for fleet in &fleets {
        psql(&fleet.primary().superuser_url(), &format!("ALTER ROLE app PASSWORD '{verifier}'"));
        psql(&fleet.primary().superuser_url(), &format!("{MAKE_MONEY}; GRANT ALL ON money TO app"));
    }
    fleets
}

#[test]
fn shards_that_die_under_load_leave_whole_transfers() {
    let fleet = server();
    make_accounts(&fleet);
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, "failover_wait = \"5s\""));
    wait_for_decisions(&fleet);
    under_transfers(&yard, |done| {
        for _ in 0..2 {
            more_transfers(done);
            fleet.primary().kill().unwrap();
            fleet.primary().start().unwrap();
        }
        more_transfers(done);
    });
    eventually("no prepared transaction is left", RECOVERED, || prepared(&fleet) == 0);
    assert_eq!(sums(&fleet).iter().sum::<i64>(), SHARDS.len() as i64 * 20 * MONEY);
}

/// The application's password, out of the URL.
fn fleet_password(yard: &Pgyard) -> String {
    let url = yard.url();
    url.split_once("app:").and_then(|(_, rest)| rest.split_once('@')).map(|(password, _)| password.to_owned()).unwrap_or_default()
}

#[test]
fn without_prepared_transactions_the_error_names_the_setting() {
    let settings = vec!["max_prepared_transactions = 0".to_owned()];
    let fleet = LocalFleet::start(FleetOptions { replicas: 0, settings, ..FleetOptions::default() }, &mut |_| ()).unwrap();
    for shard in SHARDS {
        fleet.primary().sql(&format!("CREATE DATABASE {shard} OWNER app")).unwrap();
    }
    make_accounts(&fleet);
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, ""));
    let mut client = yard.client();
    for step in [
        "BEGIN",
        "SET LOCAL pgyard.shard = 's0'",
        "UPDATE money SET v = v - 1 WHERE id = 1",
        "SET LOCAL pgyard.shard = 's1'",
        "UPDATE money SET v = v + 1 WHERE id = 1",
    ] {
        assert_eq!(error_of(&run(&mut client, step)), None, "{step}");
    }
    let end = run(&mut client, "COMMIT");
    let error = end.iter().find(|reply| reply.tag == b'E').expect("it fails");
    assert_eq!(error.field(b'C').as_deref(), Some("55000"));
    assert!(error.field(b'H').unwrap_or_default().contains("max_prepared_transactions"), "{error:?}");
    assert_eq!(end.last().unwrap().body, b"I");
    assert_eq!(sums(&fleet), [20 * MONEY; 3]);
    eventually("the log says so", Duration::from_secs(10), || yard.log().contains("max_prepared_transactions is 0"));
}
