//! More clients, statements and log-ins than there is room for: limits, fair queues, rates.
//!
//! A few seconds in the suite; `make overload` runs the crowd for a minute and looks at times too, which need a machine of their own.

mod crowd;

use super::harness::client::{Protocol, RawClient, bind, execute, parse, sync};
use super::harness::{Pgyard, config, eventually, own_fleet};
use pgyard::demo::LocalFleet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// A primary for the tests of this file, with a second role `other`.
fn fleet() -> &'static LocalFleet {
    static FLEET: OnceLock<LocalFleet> = OnceLock::new();
    FLEET.get_or_init(|| {
        let fleet = own_fleet(0);
        fleet.primary().sql("CREATE ROLE other LOGIN PASSWORD 'other'").unwrap();
        fleet
    })
}

/// pgyard in front of it. Clients need no password, so that log-ins cost little; `top` comes before the first section.
fn yard(top: &str, database: &str) -> Pgyard {
    Pgyard::start_with_config(fleet(), &settings(top, database))
}

fn settings(top: &str, database: &str) -> String {
    let password = fleet().app_password().reveal();
    let users = format!(
        "[databases.app.users.app]\nserver_password = '{password}'\n[databases.app.users.other]\nserver_password = 'other'\n"
    );
    let text = config(fleet(), None, &format!("auth = 'trust'\n{database}\n{users}"));
    text.replace("[databases.app]\n", &format!("{top}[databases.app]\n"))
}

fn client(yard: &Pgyard, user: &str) -> std::io::Result<RawClient> {
    RawClient::log_in(yard.port(), user, "", "app")
}

/// SQLSTATE and hint of the error in an answer.
fn error_of(client: &mut RawClient, sql: &str) -> Option<(String, String)> {
    let replies = client.run(Protocol::Simple, sql).unwrap();
    let error = replies.into_iter().find(|reply| reply.tag == b'E')?;
    Some((error.field(b'C').unwrap(), error.field(b'H').unwrap_or_default()))
}

#[test]
fn a_crowd_waits_in_order_and_nobody_is_turned_away() {
    let seconds = std::env::var("PGYARD_OVERLOAD_SECONDS").ok().filter(|text| !text.is_empty());
    let measured = seconds.is_some();
    let time = Duration::from_secs(seconds.map_or(4, |text| text.parse().expect("PGYARD_OVERLOAD_SECONDS is a number")));
    let count = if measured { 2000 } else { 600 };
    let yard = Arc::new(yard("", "pool_size = 20\n"));
    let (stop, seen_by) = (Arc::new(AtomicBool::new(false)), yard.clone());
    let watcher = Arc::new(OnceLock::new());
    let (watching, stopping) = (watcher.clone(), stop.clone());
    let seen = crowd::run(yard.port(), ("app", count), "SELECT pg_sleep(0.005)", time, move || {
        let begin = seen_by.resident_bytes();
        let watch = move || {
            let (mut slowest, mut most) = (Duration::ZERO, 0);
            while !stopping.load(Ordering::Relaxed) {
                let asked = Instant::now();
                assert_eq!(seen_by.get("/livez").map(|(status, _)| status), Some(200));
                slowest = slowest.max(asked.elapsed());
                most = most.max(seen_by.resident_bytes());
                std::thread::sleep(Duration::from_millis(20));
            }
            (slowest, begin, most)
        };
        drop(watching.set(std::thread::spawn(watch)));
    });
    stop.store(true, Ordering::Relaxed);
    let watcher = Arc::into_inner(watcher).and_then(OnceLock::into_inner).expect("the clients began");
    let (slowest, begin, most) = watcher.join().unwrap();
    let (median, high) = (seen.percentile(0.5), seen.percentile(0.99));
    let done = |client: &Vec<Duration>| client.len();
    let (least, best) = (seen.clients.iter().map(done).min().unwrap(), seen.clients.iter().map(done).max().unwrap());
    println!(
        "{count} clients, {time:?}: median {median:?}, p99 {high:?}, max {:?}; statements per client {least} to {best}; \
         /livez at most {slowest:?}; memory {} to {} KiB",
        seen.percentile(1.0),
        begin >> 10,
        most >> 10
    );
    assert!(seen.errors.is_empty(), "{} errors: {:?}", seen.errors.len(), seen.errors.first());
    // First come, first served: in the time in which one has had two turns nobody is left out.
    assert!(least * 2 + 1 >= best, "{least} to {best} statements per client");
    assert!(most - begin < 64 << 20, "memory grew from {begin} to {most}");
    let host = yard.metric("pgyard_pool_timeouts_total", &[("user", "app")]);
    assert_eq!(host, Some(0.0));
    if measured {
        assert!(high <= median * 2, "p99 of waiting is {high:?} at a median of {median:?}");
        assert!(slowest <= Duration::from_millis(100), "/livez took {slowest:?}");
    }
}

#[test]
fn a_crowd_of_one_role_does_not_keep_another_role_waiting() {
    let yard = yard("", "max_per_host = 4\npool_size = 4\ncheckout_timeout = '20s'\n");
    let port = yard.port();
    let (stop, begun) = (AtomicBool::new(false), Arc::new(AtomicBool::new(false)));
    std::thread::scope(|scope| {
        let told = begun.clone();
        let crowd = scope.spawn(move || {
            crowd::run(port, ("app", 300), "SELECT pg_sleep(0.02)", Duration::from_secs(4), move || {
                told.store(true, Ordering::Release)
            })
        });
        eventually("the crowd has begun", Duration::from_secs(20), || begun.load(Ordering::Acquire));
        let mut single = client(&yard, "other").unwrap();
        for _ in 0..20 {
            assert_eq!(single.column("SELECT current_user").unwrap(), ["other"]);
            // All of them were answered while the crowd filled the queue.
            assert!(!crowd.is_finished(), "the other role waited until the crowd had gone");
        }
        let seen = crowd.join().unwrap();
        assert!(seen.errors.is_empty(), "{:?}", seen.errors.first());
        stop.store(true, Ordering::Relaxed);
    });
    let open: f64 = ["app", "other"]
        .iter()
        .map(|user| {
            yard.metric("pgyard_pool_idle", &[("user", user)]).unwrap()
                + yard.metric("pgyard_pool_active", &[("user", user)]).unwrap()
        })
        .sum();
    assert!(open <= 4.0, "{open} connections");
}

#[test]
fn clients_are_limited_by_database_and_user_also_when_they_come_together() {
    let yard = yard("", "max_clients = 5\nmax_clients_per_user = 3\n");
    let together = |user: &'static str| -> Vec<std::io::Result<RawClient>> {
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..12).map(|_| scope.spawn(|| client(&yard, user))).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        })
    };
    let of_app = together("app");
    assert_eq!(of_app.iter().filter(|client| client.is_ok()).count(), 3);
    let refused = of_app.iter().find_map(|client| client.as_ref().err()).unwrap().to_string();
    assert_eq!(refused, "53300: too many connections for role \"app\"");
    let of_other = together("other");
    assert_eq!(of_other.iter().filter(|client| client.is_ok()).count(), 2);
    let refused = of_other.iter().find_map(|client| client.as_ref().err()).unwrap().to_string();
    assert_eq!(refused, "53300: too many connections for database \"app\"");
    let failures = |reason: &str| yard.metric("pgyard_login_failures_total", &[("reason", reason)]).unwrap();
    assert_eq!((failures("too_many_clients"), failures("too_many_database_clients")), (9.0, 10.0));
    // Places come back, also those of log-ins that failed; a reload counts those who are there.
    drop((of_app, of_other));
    eventually("the places are free", Duration::from_secs(10), || client(&yard, "app").is_ok());
    let said = yard.reload(&settings("", "max_clients = 1\n"));
    assert!(said.contains("databases.app.max_clients: 5 -> 1"), "{said}");
    eventually("one may come", Duration::from_secs(10), || {
        let first = client(&yard, "app");
        first.is_ok() && client(&yard, "other").is_err()
    });
}

#[test]
fn statements_beyond_a_rate_are_refused_and_in_a_transaction_wait() {
    let yard = yard("", "statement_rate_per_user = '1/min burst 4'\n");
    let (mut one, mut two) = (client(&yard, "app").unwrap(), client(&yard, "app").unwrap());
    // Every statement of a query or a pipeline counts, whoever's session it is of.
    assert_eq!(error_of(&mut one, "SELECT 1"), None);
    let part = [parse("", "SELECT 2"), bind("", ""), execute(""), bind("", ""), execute("")].concat();
    two.send(&[part, sync()].concat()).unwrap();
    assert!(two.until_ready().unwrap().iter().all(|reply| reply.tag != b'E'));
    for (client, sql) in [(&mut one, "SELECT 1; SELECT 2"), (&mut two, "SELECT 1; SELECT 2; SELECT 3")] {
        let (state, hint) = error_of(client, sql).expect("it is over the rate");
        assert!(state == "53400" && hint.contains("statement_rate_per_user is 1/min burst 4"), "{state} {hint}");
    }
    assert_eq!(error_of(&mut two, "SELECT 1"), None);
    assert!(error_of(&mut two, "BEGIN").is_some());
    // Another role has its own, and the session goes on.
    assert_eq!(error_of(&mut client(&yard, "other").unwrap(), "SELECT 1; SELECT 2"), None);
    let refused = yard.metric("pgyard_statements_rate_limited_total", &[("scope", "user"), ("outcome", "refused")]);
    assert_eq!(refused, Some(3.0));
    // A reload counts for those who are there.
    assert!(yard.reload(&settings("", "statement_rate_per_user = '20/s burst 2'\n")).contains("statement_rate_per_user"));
    eventually("the old debt is forgiven at the new rate", Duration::from_secs(20), || error_of(&mut one, "BEGIN").is_none());
    for _ in 0..8 {
        assert_eq!(error_of(&mut one, "SELECT 1"), None, "an error would end the transaction");
    }
    assert_eq!(error_of(&mut one, "COMMIT"), None);
    let delayed = yard.metric("pgyard_statements_rate_limited_total", &[("scope", "user"), ("outcome", "delayed")]);
    assert!(delayed >= Some(1.0), "{delayed:?}");
    yard.reload(&settings("", ""));
    (0..50).for_each(|_| assert_eq!(error_of(&mut one, "SELECT 1"), None));
}

#[test]
fn statements_from_an_address_are_limited_whoever_sends_them() {
    let yard = yard("", "statement_rate_per_address = '1/min burst 2'\n");
    let (mut app, mut other) = (client(&yard, "app").unwrap(), client(&yard, "other").unwrap());
    assert_eq!(error_of(&mut app, "SELECT 1"), None);
    assert_eq!(error_of(&mut other, "SELECT 1"), None);
    let (state, hint) = error_of(&mut other, "SELECT 1").expect("it is over the rate");
    assert!(state == "53400" && hint.contains("statement_rate_per_address"), "{state} {hint}");
    assert_eq!(yard.metric("pgyard_statements_rate_limited_total", &[("scope", "address"), ("outcome", "refused")]), Some(1.0));
}

#[test]
fn log_ins_beyond_a_rate_are_refused() {
    let yard = yard("[limits]\nlogin_rate_per_user = '1/min burst 2'\n", "");
    let refused = |user: &str| client(&yard, user).err().map(|error| error.to_string());
    // The one that looked whether pgyard is ready named no user.
    let mut outcomes: Vec<_> = (0..3).map(|_| refused("app")).collect();
    assert_eq!(outcomes.pop().unwrap().as_deref(), Some("53400: too many log-ins of user \"app\""));
    assert_eq!((outcomes, refused("other")), (vec![None, None], None));
    yard.reload(&settings("[limits]\nlogin_rate_per_address = '1/min burst 2'\n", ""));
    assert_eq!((refused("app"), refused("other")), (None, None));
    assert_eq!(refused("other").as_deref(), Some("53400: too many log-ins from your address"));
    // The operator gets in.
    assert!(RawClient::log_in(yard.port(), "pgyard", "", "pgyard").is_ok());
    let failures = |reason: &str| yard.metric("pgyard_login_failures_total", &[("reason", reason)]);
    assert_eq!((failures("user_rate"), failures("address_rate")), (Some(1.0), Some(1.0)));
}

#[test]
fn a_full_queue_turns_away_at_once_by_user() {
    let yard = yard("", "pool_size = 1\nmax_waiting = 1\n");
    let mut holder = client(&yard, "app").unwrap();
    holder.run(Protocol::Simple, "BEGIN").unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| client(&yard, "app").unwrap().column("SELECT 1").unwrap());
        eventually("one waits", Duration::from_secs(10), || yard.metric("pgyard_pool_waiting", &[("user", "app")]) == Some(1.0));
        let mut third = client(&yard, "app").unwrap();
        let (state, hint) = error_of(&mut third, "SELECT 1").expect("the queue is full");
        assert!(state == "53300" && hint.contains("max_waiting"), "{state} {hint}");
        assert_eq!(yard.metric("pgyard_pool_overflows_total", &[("user", "app")]), Some(1.0));
        assert_eq!(error_of(&mut client(&yard, "other").unwrap(), "SELECT 1"), None, "another role has its own queue");
        holder.run(Protocol::Simple, "COMMIT").unwrap();
        assert_eq!(waits.join().unwrap(), ["1"]);
    });
}
