//! `pgyard reload` under load: hosts come and go, and no client notices.

use super::harness::client::Protocol;
use super::harness::proxy::host_of;
use super::harness::{Pgyard, RawClient, eventually, own_fleet, promised};
use pgyard::demo::LocalFleet;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const CLIENTS: usize = 8;

fn config(fleet: &LocalFleet, replicas: usize, more: &str) -> String {
    let urls: Vec<String> = fleet.replicas()[..replicas].iter().map(|replica| format!("'{}'", replica.superuser_url())).collect();
    format!(
        "listen = '{{listen}}'\nhttp = '{{http}}'\n[databases.app]\nprimary = '{}'\nreplicas = [{}]\n{more}",
        fleet.primary().superuser_url(),
        urls.join(", ")
    )
}

/// Reads by the host that answered, of those that began since it was last cleared.
#[derive(Default)]
struct Counts {
    epoch: AtomicU64,
    by_host: Mutex<BTreeMap<String, u64>>,
}

impl Counts {
    fn read(&self, client: &mut RawClient) {
        let epoch = self.epoch.load(Ordering::SeqCst);
        let host = host_of(client);
        let mut counts = self.by_host.lock().unwrap();
        if self.epoch.load(Ordering::SeqCst) == epoch {
            *counts.entry(host).or_default() += 1;
        }
    }

    /// How many reads each replica answers from here on. (The primary answers some too: after DDL, until the catalogue was read again.)
    fn taken(&self) -> BTreeMap<String, u64> {
        {
            let mut counts = self.by_host.lock().unwrap();
            self.epoch.fetch_add(1, Ordering::SeqCst);
            counts.clear();
        }
        let of_replicas =
            || self.by_host.lock().unwrap().iter().filter(|(host, _)| *host != "primary").map(|(_, count)| count).sum::<u64>();
        eventually("replicas are read", Duration::from_secs(30), || of_replicas() >= 200);
        let mut taken = self.by_host.lock().unwrap().clone();
        taken.remove("primary");
        taken
    }
}

#[test]
fn replicas_are_added_and_removed_under_load() {
    let fleet = own_fleet(2);
    let (one, two) = (fleet.replicas()[0].name().to_owned(), fleet.replicas()[1].name().to_owned());
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, 1, ""));
    yard.client().column("CREATE TABLE reload_writes (id int)").unwrap();
    let (stop, counts, written) = (AtomicBool::new(false), Counts::default(), AtomicU64::new(0));
    let clients = promised(CLIENTS, 32);
    std::thread::scope(|scope| {
        for number in 0..clients {
            let (yard, stop, counts, written) = (&yard, &stop, &counts, &written);
            scope.spawn(move || {
                let _end = Stop(stop);
                let mut client = yard.client();
                while !stop.load(Ordering::Relaxed) {
                    if number == 0 {
                        client.column("INSERT INTO reload_writes VALUES (1)").expect("no write fails for a reload");
                        written.fetch_add(1, Ordering::Relaxed);
                    } else if number == 1 {
                        let replies = client.run(Protocol::Named, "SELECT 1").expect("no prepared read fails for a reload");
                        assert!(replies.iter().all(|reply| reply.tag != b'E'), "{replies:?}");
                    } else {
                        counts.read(&mut client);
                    }
                }
            });
        }
        // Ends the clients also when something below fails.
        let _end = Stop(&stop);
        yard.wait_for_replicas(&[&one]);
        let with_one = counts.taken();
        assert_eq!(with_one.keys().collect::<Vec<_>>(), [&one]);
        for round in 0..promised(1, 10) {
            assert!(yard.reload(&config(&fleet, 2, "")).contains(": added"));
            yard.wait_for_replicas(&[&one, &two]);
            let with_two = counts.taken();
            assert_eq!(with_two.keys().collect::<Vec<_>>(), [&one, &two], "{with_two:?}");

            assert!(yard.reload(&config(&fleet, 1, "")).contains(": removed"));
            yard.wait_for_replicas(&[&one]);
            let again_one = counts.taken();
            assert_eq!(again_one.keys().collect::<Vec<_>>(), [&one]);
            println!("a replica added and removed, round {round}, {clients} clients: no error; {with_two:?}, then {again_one:?}");
        }
    });
    let found = fleet.primary().sql("SELECT count(*) FROM reload_writes").unwrap();
    let written = written.into_inner();
    assert!(written > 0 && found == written.to_string(), "{written} writes were acknowledged, {found} are there");
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_reload_says_what_it_changes_and_refuses_what_is_wrong() {
    let fleet = own_fleet(1);
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, 1, ""));
    assert!(yard.reload(&config(&fleet, 1, "")).contains("nothing has changed"));
    let said = yard.reload(&config(&fleet, 1, "max_lag = '5s'\npool_size = 7\n[log]\nformat = 'json'\n"));
    assert!(said.contains("changed: databases.app.max_lag: 1s -> 5s"), "{said}");
    assert!(said.contains("applies after a restart: log.format: text -> json"), "{said}");
    let wrong = yard.reload(&config(&fleet, 1, "max_lagg = '5s'\n"));
    assert!(wrong.contains("not reloaded") && wrong.contains("max_lagg"), "{wrong}");
    // SIGHUP does the same, and what is wrong leaves everything as it is.
    yard.signal("HUP");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(yard.client().column("SELECT 1").unwrap(), ["1"]);
    assert!(yard.reload(&config(&fleet, 1, "")).contains("changed: databases.app.max_lag: 5s -> 1s"));
}

#[test]
fn sessions_spread_over_the_relay_threads_and_gather_again() {
    let fleet = own_fleet(1);
    let with_minimum = |minimum: usize| {
        let threads = format!("workers = 2\nworkers_min = {minimum}\n[databases.app]");
        config(&fleet, 1, "").replace("[databases.app]", &threads)
    };
    let yard = Pgyard::start_with_config(&fleet, &with_minimum(2));
    let metric = |name: &str| yard.metric(name, &[]).unwrap_or_default();
    eventually("two threads are used", Duration::from_secs(30), || metric("pgyard_workers_in_use") == 2.0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (yard, stop) = (&yard, &stop);
            scope.spawn(move || {
                let mut client = yard.client();
                client.column(&format!("SET app.client = '{number}'")).unwrap();
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    // Every answer is the client's own, and its settings follow it, whichever thread serves it.
                    let token = format!("{number}-{round}");
                    let seen = client.column(&format!("SELECT current_setting('app.client') || '-{round}'")).unwrap();
                    assert_eq!(seen, [token]);
                    // A light load: one thread can carry it.
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
        assert!(yard.reload(&with_minimum(1)).contains("workers_min"));
        eventually("one thread is enough", Duration::from_secs(60), || metric("pgyard_workers_in_use") == 1.0);
        // They were spread evenly, so half of them have to move.
        eventually("all are on one", Duration::from_secs(60), || metric("pgyard_sessions_moved_total") >= (CLIENTS / 2) as f64);
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_wait_for_a_server_connection_ends_with_a_clear_error() {
    let fleet = own_fleet(0);
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, 0, "pool_size = 1\ncheckout_timeout = '400ms'"));
    let (mut holder, mut waiter) = (yard.client(), yard.client());
    holder.run(Protocol::Simple, "BEGIN").unwrap();
    for _ in 0..2 {
        let begun = std::time::Instant::now();
        let replies = waiter.run(Protocol::Simple, "SELECT 1").unwrap();
        let error = replies.iter().find(|reply| reply.tag == b'E').expect("an error");
        assert_eq!(error.field(b'C').as_deref(), Some("53300"));
        assert!(error.field(b'H').is_some_and(|hint| hint.contains("checkout_timeout")), "{error:?}");
        assert!(begun.elapsed() >= Duration::from_millis(400));
    }
    holder.run(Protocol::Simple, "COMMIT").unwrap();
    assert_eq!(waiter.column("SELECT 1").unwrap(), ["1"]);
}
