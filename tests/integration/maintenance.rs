//! What an operator does while clients work: pause, drain, smaller and larger pools. Nobody sees an error.

use super::harness::client::Protocol;
use super::harness::{Pgyard, RawClient, config, eventually, own_fleet};
use pgyard::demo::LocalFleet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const CLIENTS: usize = 12;
/// Enough of each client's work that something was under way in every state.
const ENOUGH: u64 = 8;

fn fleet() -> &'static LocalFleet {
    static FLEET: OnceLock<LocalFleet> = OnceLock::new();
    FLEET.get_or_init(|| {
        let fleet = own_fleet(2);
        fleet.primary().sql("SET ROLE app; CREATE TABLE maintenance (id int)").unwrap();
        fleet.replicas().iter().for_each(|replica| fleet.wait_for_replay(fleet.primary(), replica).unwrap());
        fleet
    })
}

/// What the clients have done so far, for waiting until they have done more.
struct Work {
    counts: Vec<AtomicU64>,
    stop: AtomicBool,
}

impl Work {
    /// Waits until every client has done some more.
    fn goes_on(&self) {
        let before: Vec<u64> = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        eventually("every client goes on", Duration::from_secs(20), || {
            self.counts.iter().zip(&before).all(|(count, before)| count.load(Ordering::Relaxed) >= before + ENOUGH)
        });
    }

    fn done(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Ends the clients also when something fails.
struct End<'a>(&'a Work);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// Runs `disturb` while clients read, write, use transactions and prepared statements. Any error fails the test.
fn under_load(yard: &Pgyard, disturb: impl FnOnce(&Work)) {
    let work = Work { counts: (0..CLIENTS).map(|_| AtomicU64::new(0)).collect(), stop: AtomicBool::new(false) };
    std::thread::scope(|scope| {
        for (number, count) in work.counts.iter().enumerate() {
            let work = &work;
            scope.spawn(move || {
                let _end = End(work);
                let mut client = yard.client();
                while !work.stop.load(Ordering::Relaxed) {
                    one_piece(&mut client, number);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let end = End(&work);
        work.goes_on();
        disturb(&work);
        work.goes_on();
        drop(end);
    });
}

fn one_piece(client: &mut RawClient, number: usize) {
    let mut run = |protocol, sql: &str| {
        let replies = client.run(protocol, sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert!(replies.iter().all(|reply| reply.tag != b'E'), "{sql}: {replies:?}");
    };
    match number % 4 {
        0 => run(Protocol::Simple, "INSERT INTO maintenance VALUES (1)"),
        1 => ["BEGIN", "INSERT INTO maintenance VALUES (2)", "SELECT count(*) FROM maintenance", "COMMIT"]
            .iter()
            .for_each(|sql| run(Protocol::Simple, sql)),
        2 => run(Protocol::Named, "SELECT 1"),
        _ => run(Protocol::Extended, "SELECT count(*) FROM generate_series(1, 100)"),
    }
}

fn console(yard: &Pgyard, command: &str) {
    let mut console = RawClient::log_in(yard.port(), "pgyard", "", "pgyard").unwrap();
    let replies = console.run(Protocol::Simple, command).unwrap();
    assert!(replies.iter().all(|reply| reply.tag != b'E'), "{command}: {replies:?}");
}

/// Sessions of clients on a server.
fn sessions(fleet: &LocalFleet) -> u64 {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
    std::iter::once(fleet.primary()).chain(fleet.replicas()).map(|host| host.sql(count).unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn a_pause_under_load_holds_everybody_and_loses_nobody() {
    // Of its own: no other test's sessions are on its servers.
    let fleet = own_fleet(0);
    fleet.primary().sql("SET ROLE app; CREATE TABLE maintenance (id int)").unwrap();
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, None, "pool_size = 3\n"));
    under_load(&yard, |work| {
        for _ in 0..2 {
            console(&yard, "PAUSE app");
            // The servers may be stopped now: nothing runs on them, and nothing comes.
            eventually("the servers are left", Duration::from_secs(10), || sessions(&fleet) == 0);
            let done = work.done();
            for _ in 0..10 {
                std::thread::sleep(Duration::from_millis(20));
                assert_eq!(sessions(&fleet), 0);
            }
            assert_eq!(work.done(), done);
            console(&yard, "RESUME app");
            work.goes_on();
        }
    });
}

#[test]
fn hosts_are_drained_and_put_back_under_load() {
    let yard = Pgyard::start_with_config(fleet(), &config(fleet(), None, ""));
    let address = |index: usize| format!("127.0.0.1:{}", fleet().replicas()[index].port());
    let primary = format!("127.0.0.1:{}", fleet().primary().port());
    under_load(&yard, |work| {
        for hosts in [vec![address(0)], vec![address(1)], vec![address(0), address(1)], vec![primary]] {
            hosts.iter().for_each(|host| console(&yard, &format!("DRAIN '{host}'")));
            if hosts[0].ends_with(&format!(":{}", fleet().primary().port())) {
                // Writes wait until it is back.
                std::thread::sleep(Duration::from_millis(300));
            } else {
                work.goes_on();
            }
            hosts.iter().for_each(|host| console(&yard, &format!("UNDRAIN '{host}'")));
            work.goes_on();
        }
    });
}

#[test]
fn pools_grow_and_shrink_by_reload_under_load() {
    let settings = |text: &str| config(fleet(), None, text);
    let yard = Pgyard::start_with_config(fleet(), &settings(""));
    let open = || {
        let of = |name: &str, host: &str| yard.metric(name, &[("host", host)]).unwrap_or(0.0);
        let host = format!("127.0.0.1:{}", fleet().primary().port());
        of("pgyard_pool_idle", &host) + of("pgyard_pool_active", &host)
    };
    under_load(&yard, |work| {
        for change in [
            "pool_size = 1\n",
            "pool_size = 20\n",
            "max_per_host = 2\npool_size = 2\n",
            "max_age = '1ms'\n",
            "dns_interval = 'off'\n",
        ] {
            assert!(yard.reload(&settings(change)).contains("changed"), "{change}");
            work.goes_on();
            if change.starts_with("pool_size = 1\n") {
                eventually("connections over the new size are closed", Duration::from_secs(10), || open() <= 1.0);
            }
        }
    });
}
