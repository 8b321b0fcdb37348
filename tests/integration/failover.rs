//! Primaries that stop, restart, die and come back: what clients see of it, and what becomes of their writes.

use super::harness::client::Protocol;
use super::harness::proxy::host_of;
use super::harness::{Pgyard, RawClient, config, eventually, own_fleet, promised};
use pgyard::demo::{LocalFleet, LocalHost, StopMode};
use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// The SQLSTATE of a statement that failed, or its tag.
fn outcome(client: &mut RawClient, protocol: Protocol, sql: &str) -> String {
    let replies = client.run(protocol, sql).expect("the client stays connected");
    match replies.iter().find(|reply| reply.tag == b'E') {
        Some(error) => error.field(b'C').unwrap(),
        None => "ok".to_owned(),
    }
}

fn direct(host: &LocalHost, fleet: &LocalFleet) -> RawClient {
    RawClient::log_in(host.port(), "app", fleet.app_password().reveal(), "app").unwrap()
}

fn wait_until_locked(host: &LocalHost, waiting: usize) {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    eventually("statements wait for the lock", 10 * SECOND, || host.sql(count).unwrap() == waiting.to_string());
}

#[test]
fn a_plain_write_that_is_turned_away_is_sent_again() {
    let fleet = own_fleet(0);
    let primary = fleet.primary();
    primary
        .sql(
            "SET ROLE app; CREATE TABLE t AS SELECT 0 AS n; CREATE TABLE log (n int); \
        CREATE FUNCTION adds() RETURNS int LANGUAGE sql AS 'UPDATE t SET n = n + 100 RETURNING n'",
        )
        .unwrap();
    // The oldest backend is told last that the server shuts down: nobody gets the lock by its end.
    let mut holder = direct(primary, &fleet);
    let yard = Pgyard::start(&fleet, &[]);
    holder.column("BEGIN").unwrap();
    holder.column("LOCK TABLE t").unwrap();
    let protocols = [Protocol::Simple, Protocol::Extended, Protocol::Named];
    std::thread::scope(|scope| {
        let plain: Vec<_> = protocols
            .map(|protocol| {
                let mut client = yard.client();
                (protocol, scope.spawn(move || outcome(&mut client, protocol, "UPDATE t SET n = n + 1")))
            })
            .into();
        // A function may do anything, so its call is not sent a second time.
        let mut client = yard.client();
        let opaque = scope.spawn(move || (outcome(&mut client, Protocol::Simple, "SELECT adds()"), client));
        wait_until_locked(primary, 4);
        primary.restart(StopMode::Fast).unwrap();
        for (protocol, client) in plain {
            assert_eq!(client.join().unwrap(), "ok", "{protocol:?}");
        }
        let (state, mut client) = opaque.join().unwrap();
        assert_eq!(state, "57P01");
        assert_eq!(client.column("SELECT n FROM t").unwrap(), ["3"], "the client goes on; each write took effect once");
    });
    assert!(yard.metric("pgyard_retries_total", &[("reason", "primary_lost")]) >= Some(1.0));

    // An administrator who ends one session means it.
    let mut holder = direct(primary, &fleet);
    holder.column("BEGIN").unwrap();
    holder.column("LOCK TABLE t").unwrap();
    std::thread::scope(|scope| {
        let mut client = yard.client();
        let killed = scope.spawn(move || (outcome(&mut client, Protocol::Simple, "UPDATE t SET n = n + 1"), client));
        wait_until_locked(primary, 1);
        primary.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").unwrap();
        let (state, mut client) = killed.join().unwrap();
        assert_eq!(state, "57P01");
        holder.column("ROLLBACK").unwrap();
        assert_eq!(client.column("SELECT n FROM t").unwrap(), ["3"]);
    });
}

#[test]
fn a_commit_that_waits_for_a_standby_and_is_cut_short_is_of_unknown_outcome() {
    let fleet = own_fleet(0);
    let primary = fleet.primary();
    primary.sql("SET ROLE app; CREATE TABLE t (n int)").unwrap();
    let yard = Pgyard::start(&fleet, &[]);
    for statement in ["ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()"] {
        primary.sql(statement).unwrap();
    }
    eventually("the standby is asked for", 5 * SECOND, || primary.sql("SHOW synchronous_standby_names").unwrap() == "nobody");
    std::thread::scope(|scope| {
        for protocol in [Protocol::Simple, Protocol::Extended, Protocol::Named] {
            let mut client = yard.client();
            scope.spawn(move || {
                assert_eq!(outcome(&mut client, protocol, "INSERT INTO t VALUES (1)"), "08007", "{protocol:?}");
                assert_eq!(client.column("SELECT 1").unwrap(), ["1"]);
            });
        }
        let waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        eventually("all wait", 10 * SECOND, || primary.sql(&format!("SELECT count(*) {waiting}")).unwrap() == "3");
        primary.sql(&format!("SELECT pg_terminate_backend(pid) {waiting}")).unwrap();
    });
    assert_eq!(primary.sql("SELECT count(*) FROM t").unwrap(), "3", "each took effect once");
}

#[test]
fn a_restart_under_writers_loses_nothing_and_does_nothing_twice() {
    let fleet = own_fleet(1);
    fleet.primary().sql("SET ROLE app; CREATE TABLE log (id text)").unwrap();
    let yard = Pgyard::start(&fleet, &[]);
    (0..promised(1, 10)).for_each(|round| restart_under_writers(&fleet, &yard, round));
}

fn restart_under_writers(fleet: &LocalFleet, yard: &Pgyard, round: usize) {
    const WRITERS: usize = 32;
    let primary = fleet.primary();
    let (stop, written) = (AtomicBool::new(false), Mutex::new(HashMap::new()));
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (stop, written) = (&stop, &written);
            scope.spawn(move || {
                let mut client = yard.client();
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let protocol = [Protocol::Simple, Protocol::Extended, Protocol::Named][writer % 3];
                    let id = format!("{round}.{writer}.{number}");
                    let state = outcome(&mut client, protocol, &format!("INSERT INTO log VALUES ('{id}')"));
                    written.lock().unwrap().insert(id, state);
                }
            });
        }
        let goes_on = || {
            let before = written.lock().unwrap().len();
            eventually("writing goes on", 30 * SECOND, || written.lock().unwrap().len() > before + 10 * WRITERS);
        };
        goes_on();
        primary.restart(StopMode::Fast).unwrap();
        goes_on();
        stop.store(true, Ordering::Relaxed);
    });
    let found = primary.sql(&format!("SELECT id, count(*) FROM log WHERE id LIKE '{round}.%' GROUP BY id")).unwrap();
    let found: HashMap<&str, &str> = found.lines().map(|line| line.split_once('|').unwrap()).collect();
    let written = written.into_inner().unwrap();
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, state) in &written {
        match (state.as_str(), found.get(id.as_str())) {
            ("ok", Some(&"1")) | ("57P01", None) | ("08007", None | Some(&"1")) => *states.entry(state).or_default() += 1,
            (state, found) => panic!("{id}: told {state}, found {found:?} times"),
        }
    }
    println!("restart {round} under {WRITERS} writers: {states:?}, each there once or not as it was told");
    let failed = written.values().filter(|state| *state != "ok").count();
    assert!(failed <= WRITERS, "{failed} failed; {WRITERS} at most were in flight");
}

#[test]
fn a_restart_that_is_over_before_pgyard_looks_turns_nobody_away() {
    let fleet = own_fleet(0);
    let primary = fleet.primary();
    primary.sql("SET ROLE app; CREATE TABLE t AS SELECT 0 AS n").unwrap();
    let yard = Pgyard::start(&fleet, &[]);
    let mut holder = direct(primary, &fleet);
    holder.column("BEGIN").unwrap();
    holder.column("LOCK TABLE t").unwrap();
    std::thread::scope(|scope| {
        let mut client = yard.client();
        let write = scope.spawn(move || outcome(&mut client, Protocol::Simple, "UPDATE t SET n = n + 1"));
        wait_until_locked(primary, 1);
        // As on a machine that stands still: the next primary takes sessions by the time that the last one's farewell is read.
        yard.signal("STOP");
        primary.restart(StopMode::Fast).unwrap();
        yard.signal("CONT");
        assert_eq!(write.join().unwrap(), "ok");
    });
    assert_eq!(primary.sql("SELECT n FROM t").unwrap(), "1");
}

#[test]
fn a_promotion_is_followed_and_the_old_primary_fenced() {
    const WRITERS: usize = 6;
    let fleet = own_fleet(2);
    let (old, new) = (fleet.primary(), &fleet.replicas()[0]);
    old.sql("SET ROLE app; CREATE TABLE log (id text)").unwrap();
    let yard = Pgyard::start(&fleet, &[]);
    let mut idle = yard.client();
    idle.column("SELECT 1").unwrap();
    let (stop, gap) = (AtomicBool::new(false), Mutex::new(Duration::ZERO));
    let (promoted, killed, acknowledged) = (Mutex::new(None), AtomicBool::new(false), AtomicU64::new(0));
    let first_writes: Vec<(Duration, Vec<String>)> = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = yard.client();
                while !stop.load(Ordering::Relaxed) {
                    let begin = Instant::now();
                    client.column("SELECT count(*) FROM log").expect("reads go on");
                    let mut gap = gap.lock().unwrap();
                    *gap = (*gap).max(begin.elapsed());
                }
            });
        }
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (yard, killed, promoted, acknowledged) = (&yard, &killed, &promoted, &acknowledged);
                scope.spawn(move || {
                    let (mut client, mut failed) = (yard.client(), Vec::new());
                    for number in 0.. {
                        let after_kill = killed.load(Ordering::SeqCst);
                        match outcome(&mut client, Protocol::Simple, &format!("INSERT INTO log VALUES ('{writer}.{number}')")) {
                            state if state == "ok" && after_kill => break,
                            state if state == "ok" => drop(acknowledged.fetch_add(1, Ordering::Relaxed)),
                            state => failed.push(state),
                        }
                    }
                    let promoted: Instant = promoted.lock().unwrap().expect("nothing is written before the promotion ends");
                    (promoted.elapsed(), failed)
                })
            })
            .collect();
        std::thread::sleep(SECOND / 2);
        old.kill().unwrap();
        // Whoever begins a write now has begun it without a primary.
        killed.store(true, Ordering::SeqCst);
        std::thread::sleep(SECOND);
        {
            // Held until the promotion has ended: a writer that was quicker waits here, and counts as no time at all.
            let mut ended = promoted.lock().unwrap();
            new.promote().unwrap();
            *ended = Some(Instant::now());
        }
        let written = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        stop.store(true, Ordering::Relaxed);
        written
    });
    assert!(acknowledged.into_inner() > 0);
    let mut times: Vec<Duration> = first_writes.iter().map(|(time, _)| *time).collect();
    times.sort();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    assert!(median <= promised(10 * SECOND, Duration::from_millis(300)) && longest <= promised(10 * SECOND, SECOND), "{times:?}");
    for (_, failed) in &first_writes {
        assert!(failed.len() <= 1 && failed.iter().all(|state| state == "08007"), "only what was in flight failed: {failed:?}");
    }
    let gap = gap.into_inner().unwrap();
    assert!(gap <= promised(10 * SECOND, SECOND / 2), "a read took {gap:?}");
    assert_eq!(idle.column("SELECT 1").expect("an idle client notices nothing"), ["1"]);
    assert!(yard.metric("pgyard_primary_changes_total", &[]) == Some(1.0));

    // The old primary comes back as it was: two claim to be primary, and the higher timeline is right.
    old.start().unwrap();
    eventually("it is fenced", 10 * SECOND, || yard.metric("pgyard_hosts_fenced_total", &[]) == Some(1.0));
    assert!(yard.log().contains("is fenced off"), "{}", yard.log());
    let rows = |host: &LocalHost| host.sql("SELECT count(*) FROM log WHERE id LIKE 'late%'").unwrap();
    for number in 0..20 {
        assert_eq!(outcome(&mut idle, Protocol::Simple, &format!("INSERT INTO log VALUES ('late.{number}')")), "ok");
        assert_ne!(host_of(&mut yard.client()), old.name());
    }
    assert_eq!((rows(old), rows(new)), ("0".into(), "20".into()));
    // Rewound and in line again, it serves reads.
    old.stop(StopMode::Fast).unwrap();
    fleet.follow(old, new, true).unwrap();
    let mut reader = yard.client();
    eventually("it is a replica like any other", 15 * SECOND, || host_of(&mut reader) == old.name());
}

#[test]
fn a_host_of_another_cluster_is_refused() {
    let (fleet, stranger) = (own_fleet(1), own_fleet(0));
    stranger.primary().sql("CREATE TABLE strange (n int)").unwrap();
    let text =
        config(&fleet, None, "").replace("replicas = [", &format!("replicas = [{:?}, ", stranger.primary().superuser_url()));
    let yard = Pgyard::start_with_config(&fleet, &text);
    yard.wait_for_replicas(&["replica1"]);
    eventually("it is refused", 10 * SECOND, || yard.metric("pgyard_hosts_refused_total", &[]) >= Some(1.0));
    let mut client = yard.client();
    // With the real primary gone, the stranger that claims to be one is still not written to.
    fleet.primary().kill().unwrap();
    for _ in 0..20 {
        assert_eq!(host_of(&mut client), "replica1");
    }
    std::thread::scope(|scope| {
        let write = scope.spawn(|| outcome(&mut client, Protocol::Simple, "CREATE TABLE strange2 (n int)"));
        std::thread::sleep(SECOND);
        fleet.primary().start().unwrap();
        assert_eq!(write.join().unwrap(), "ok", "it waited for the primary");
    });
    assert_eq!(stranger.primary().sql("SELECT to_regclass('strange2') IS NULL").unwrap(), "t");
}

#[test]
fn waiting_for_a_primary_is_bounded_in_time_number_and_bytes() {
    let fleet = own_fleet(1);
    fleet.primary().sql("SET ROLE app; CREATE TABLE t (n text)").unwrap();
    let limits = "failover_wait = \"3s\"\nmax_held = 3\nmax_held_bytes = \"100KiB\"\n";
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, None, limits));
    yard.wait_for_replicas(&["replica1"]);
    let mut clients: Vec<RawClient> = (0..3).map(|_| yard.client()).collect();
    let (mut fourth, mut large) = (yard.client(), yard.client());
    fleet.primary().kill().unwrap();
    std::thread::scope(|scope| {
        let begin = Instant::now();
        let third = clients.pop().unwrap();
        let waiting: Vec<_> = clients
            .into_iter()
            .map(|mut client| scope.spawn(move || outcome(&mut client, Protocol::Simple, "INSERT INTO t VALUES ('1')")))
            .collect();
        eventually("two wait", 2 * SECOND, || yard.metric("pgyard_statements_held", &[]) == Some(2.0));
        let text = format!("INSERT INTO t VALUES ('{}')", "x".repeat(100 * 1024));
        assert_eq!(outcome(&mut large, Protocol::Simple, &text), "57P03", "too many bytes");
        let mut third = third;
        let third = scope.spawn(move || outcome(&mut third, Protocol::Simple, "INSERT INTO t VALUES ('1')"));
        eventually("three wait", 2 * SECOND, || yard.metric("pgyard_statements_held", &[]) == Some(3.0));
        assert_eq!(outcome(&mut fourth, Protocol::Simple, "INSERT INTO t VALUES ('1')"), "57P03", "too many statements");
        assert!(begin.elapsed() < 3 * SECOND, "turned away at once");
        assert!(waiting.into_iter().chain([third]).all(|waiter| waiter.join().unwrap() == "57P03"));
        assert!(begin.elapsed() >= 3 * SECOND && begin.elapsed() < 6 * SECOND, "{:?}", begin.elapsed());
    });
    assert_eq!(yard.metric("pgyard_statements_held_refused_total", &[]), Some(2.0));
    assert_eq!(yard.metric("pgyard_statements_held", &[]), Some(0.0));
}

/// What a client is told that asks nothing any more.
fn last_words(client: &mut RawClient) -> String {
    let mut words = Vec::new();
    while let Some(reply) = client.receive().expect("the connection ends") {
        words.extend(reply.field(b'S').zip(reply.field(b'C')).map(|(severity, state)| format!("{severity} {state}")));
    }
    words.join(", ")
}

#[test]
fn a_client_that_only_listens_is_told_that_its_server_is_gone() {
    let fleet = own_fleet(0);
    let primary = fleet.primary();
    let modes = ["pool_mode = 'transaction'", "pool_mode = 'session'"];
    let yards = modes.map(|mode| Pgyard::start_with_config(&fleet, &config(&fleet, None, mode)));
    let listeners = || {
        let mut clients = vec![direct(primary, &fleet)];
        clients.extend(yards.iter().map(Pgyard::client));
        for client in &mut clients {
            client.column("LISTEN news").unwrap();
        }
        clients
    };
    let mut ended = listeners();
    primary.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'").unwrap();
    for client in &mut ended {
        assert_eq!(last_words(client), "FATAL 57P01", "as PostgreSQL itself says it");
    }
    let mut killed = listeners();
    primary.kill().unwrap();
    // PostgreSQL itself has hardly time to say anything then.
    for client in &mut killed[1..] {
        assert_eq!(last_words(client), "FATAL 57P01");
    }
    for yard in &yards {
        let pinned = || yard.metric("pgyard_clients_pinned", &[("cause", "listen")]);
        eventually("nobody is pinned any more", 10 * SECOND, || pinned() == Some(0.0));
    }
}
