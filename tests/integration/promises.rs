//! What the project promises in numbers, counted. In the suite with small counts, `make promises` with all of them, and the figures.

use super::harness::client::{Protocol, bind, execute, frame, parse, sync};
use super::harness::server_log::{executed_on, mark};
use super::harness::{Pgyard, RawClient, config, eventually, own_fleet, promised};
use pgyard::demo::{FleetOptions, LocalFleet, LocalHost};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

fn number(client: &mut RawClient, sql: &str) -> u64 {
    client.column(sql).unwrap()[0].parse().unwrap()
}

/// Replicas that apply everything 300 ms late.
fn late_fleet() -> LocalFleet {
    let settings = vec!["recovery_min_apply_delay = '300ms'".to_owned()];
    let fleet = LocalFleet::start(FleetOptions { settings, ..FleetOptions::default() }, &mut |_| ()).unwrap();
    fleet.primary().sql("SET ROLE app; CREATE TABLE t AS SELECT id, 0 AS n FROM generate_series(0, 15) id").unwrap();
    fleet.replicas().iter().for_each(|replica| fleet.wait_for_replay(fleet.primary(), replica).unwrap());
    fleet
}

/// Pairs of a write and a read of the same row in sixteen sessions at once, the read perhaps by another session: how many were stale.
fn stale_reads(yard: &Pgyard, pairs: usize, by_another: bool) -> u64 {
    const SESSIONS: usize = 16;
    let stale = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for session in 0..SESSIONS {
            let (yard, stale) = (&yard, &stale);
            scope.spawn(move || {
                let (mut writer, mut other) = (yard.client(), yard.client());
                let protocol = [Protocol::Simple, Protocol::Extended, Protocol::Named][session % 3];
                for _ in 0..pairs.div_ceil(SESSIONS) {
                    let before = number(&mut writer, &format!("SELECT n FROM t WHERE id = {session}"));
                    let replies = writer.run(protocol, &format!("UPDATE t SET n = n + 1 WHERE id = {session}")).unwrap();
                    assert!(replies.iter().all(|reply| reply.tag != b'E'), "{replies:?}");
                    let reader = if by_another { &mut other } else { &mut writer };
                    let shown = number(reader, &format!("SELECT n FROM t WHERE id = {session}"));
                    stale.fetch_add(u64::from(shown != before + 1), Ordering::Relaxed);
                }
            });
        }
    });
    stale.into_inner()
}

fn pairs_of(consistency: &str, by_another: bool) {
    let fleet = late_fleet();
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, None, &format!("consistency = \"{consistency}\"\n")));
    yard.wait_for_replicas(&["replica1", "replica2"]);
    let (pairs, begin) = (promised(320, 10_000), Instant::now());
    let stale = stale_reads(&yard, pairs, by_another);
    let (last, took) = (Instant::now(), begin.elapsed());
    let samples =
        yard.metric("pgyard_sampler_queries_total", &[("host", &format!("127.0.0.1:{}", fleet.primary().port()))]).unwrap();
    println!("{consistency}: {stale} of {pairs} reads were stale, in {took:?}; positions were asked for {samples} times");
    assert_eq!(stale, 0);
    // One in `sampler_interval`, however many write: at 1,000 writes a second fewer than one for ten of them.
    assert!(samples <= took.as_secs_f64() * 100.0 + 10.0, "{samples} in {took:?}");
    let mut client = yard.client();
    let host = "SELECT current_setting('cluster_name'), (SELECT sum(n) FROM t)";
    eventually("all reads are on replicas", 20 * SECOND, || (0..20).all(|_| client.column(host).unwrap() != ["primary"]));
    println!("{consistency}: all reads on replicas {:?} after the last write", last.elapsed());
    assert!(last.elapsed() <= promised(10 * SECOND, SECOND * 3 / 2), "{:?}", last.elapsed());
}

#[test]
fn a_session_reads_what_it_wrote() {
    pairs_of("session", false);
}

#[test]
fn a_session_reads_what_another_wrote() {
    pairs_of("global", true);
}

/// The primary dies, a replica is promoted a second later: when the first write succeeded after that, and the longest read.
fn lose_primary(fleet: &LocalFleet, yard: &Pgyard, (old, new): (&LocalHost, &LocalHost)) -> (Duration, Duration) {
    const WRITERS: usize = 4;
    let (stop, killed, gap) = (AtomicBool::new(false), AtomicBool::new(false), Mutex::new(Duration::ZERO));
    let (promoted, ready) = (Mutex::new(None::<Instant>), std::sync::Barrier::new(WRITERS + 1));
    let first = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = yard.client();
                while !stop.load(Ordering::Relaxed) {
                    let begin = Instant::now();
                    client.column("SELECT count(*) FROM generate_series(1, 100)").expect("reads go on");
                    let mut gap = gap.lock().unwrap();
                    *gap = (*gap).max(begin.elapsed());
                }
            });
        }
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = yard.client();
                    client.column("INSERT INTO log VALUES (1)").unwrap();
                    ready.wait();
                    eventually("the primary is gone", 10 * SECOND, || killed.load(Ordering::SeqCst));
                    client.column("INSERT INTO log VALUES (2)").expect("a write that waits sees no error");
                    let promoted = promoted.lock().unwrap().expect("nothing is written before the promotion has ended");
                    promoted.elapsed()
                })
            })
            .collect();
        ready.wait();
        old.kill().unwrap();
        killed.store(true, Ordering::SeqCst);
        std::thread::sleep(SECOND);
        {
            let mut ended = promoted.lock().unwrap();
            new.promote().unwrap();
            *ended = Some(Instant::now());
        }
        let first = writers.into_iter().map(|writer| writer.join().unwrap()).min().unwrap();
        stop.store(true, Ordering::Relaxed);
        first
    });
    for host in fleet.hosts().iter().filter(|host| host.name() != old.name() && host.name() != new.name()) {
        fleet.follow(host, new, false).unwrap();
    }
    fleet.follow(old, new, true).unwrap();
    (first, gap.into_inner().unwrap())
}

#[test]
fn writes_wait_for_a_promotion_and_reads_go_on() {
    let fleet = own_fleet(2);
    fleet.primary().sql("SET ROLE app; CREATE TABLE log (n int)").unwrap();
    let hosts: Vec<String> =
        fleet.hosts().iter().map(|host| format!("'{}?name={}'", host.superuser_url(), host.name())).collect();
    let text = format!("listen = '{{listen}}'\nhttp = '{{http}}'\n[databases.app]\nhosts = [{}]\n", hosts.join(", "));
    let yard = Pgyard::start_with_config(&fleet, &text);
    let names: Vec<&str> = fleet.hosts().iter().map(LocalHost::name).collect();
    let mut firsts = Vec::new();
    for round in 0..promised(1, 10) {
        let (old, new) = (&fleet.hosts()[round % 3], &fleet.hosts()[(round + 1) % 3]);
        let replicas: Vec<&str> = names.iter().copied().filter(|name| *name != old.name()).collect();
        yard.wait_for_replicas(&replicas);
        let (first, gap) = lose_primary(&fleet, &yard, (old, new));
        println!("round {round}: the first write {first:?} after the promotion, the longest read {gap:?}");
        assert!(first <= promised(10 * SECOND, SECOND), "{first:?}");
        assert!(gap <= promised(10 * SECOND, SECOND / 2), "a read took {gap:?}");
        firsts.push(first);
    }
    firsts.sort();
    let median = firsts[firsts.len() / 2];
    println!("median of the first writes: {median:?}");
    assert!(median <= promised(10 * SECOND, Duration::from_millis(300)), "{firsts:?}");
}

#[test]
fn what_stands_in_one_query_or_pipeline_is_done_as_postgresql_does_it() {
    let fleet = own_fleet(2);
    fleet.primary().sql("SET ROLE app; CREATE TABLE t (n int)").unwrap();
    let yard = Pgyard::start(&fleet, &[]);
    let targets = [fleet.primary().port(), yard.port()];
    let answers = targets.map(|port| {
        let mut client = RawClient::log_in(port, "app", fleet.app_password().reveal(), "app").unwrap();
        client.column("TRUNCATE t").unwrap();
        [
            "BEGIN; INSERT INTO t VALUES (1); SELEC; COMMIT",
            "SELECT 1; INSERT INTO t VALUES (2)",
            "BEGIN; INSERT INTO t VALUES (3); COMMIT",
        ]
        .map(|text| {
            let replies = client.run(Protocol::Simple, text).unwrap();
            let tags: Vec<u8> = replies.iter().map(|reply| reply.tag).collect();
            let status = replies.last().unwrap().body.clone();
            if status != b"I" {
                client.column("ROLLBACK").unwrap();
            }
            (tags, status, client.column("SELECT n FROM t ORDER BY n").unwrap())
        })
    });
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[1].clone().map(|(_, _, rows)| rows.join(",")), ["", "2", "2,3"]);
    // By single statements, the error in the middle.
    let mut client = yard.client();
    for (text, fails) in [("BEGIN", false), ("INSERT INTO t VALUES (4)", false), ("SELEC", true), ("COMMIT", false)] {
        assert_eq!(client.column(text).is_err(), fails, "{text}");
    }
    assert_eq!(client.column("SELECT count(*) FROM t WHERE n = 4").unwrap(), ["0"]);
    // An advisory lock is one session's.
    let mut other = yard.client();
    client.column("SELECT pg_advisory_lock(42)").unwrap();
    assert_eq!(other.column("SELECT pg_try_advisory_lock(42)").unwrap(), ["f"]);
    client.column("SELECT pg_advisory_unlock(42)").unwrap();
    assert_eq!(other.column("SELECT pg_try_advisory_lock(42)").unwrap(), ["t"]);
    other.column("SELECT pg_advisory_unlock(42)").unwrap();
    // A pipeline of reads is served by a replica, a mixed one sees its own writes.
    let pipeline = |texts: &[String]| {
        let parts: Vec<Vec<u8>> = texts.iter().map(|text| [parse("", text), bind("", ""), execute("")].concat()).collect();
        [parts.concat(), sync()].concat()
    };
    let mut reader = yard.client();
    let reads: Vec<String> = (0..20).map(|read| format!("{}SELECT {read}", mark(&format!("pipeline.{read}")))).collect();
    reader.send(&pipeline(&reads)).unwrap();
    let replies = reader.until_ready().unwrap();
    assert_eq!(replies.iter().filter(|reply| reply.tag == b'D').count(), 20);
    for read in 0..20 {
        let hosts = executed_on(&fleet, &format!("pipeline.{read}"));
        assert!(!hosts.is_empty() && hosts.iter().all(|host| host.starts_with("replica")), "{hosts:?}");
    }
    let mixed = ["INSERT INTO t VALUES (7)", "SELECT count(*) FROM t WHERE n = 7"].map(str::to_owned);
    reader.send(&pipeline(&mixed)).unwrap();
    let replies = reader.until_ready().unwrap();
    assert_eq!(replies.iter().find(|reply| reply.tag == b'D').expect("a row").body.last(), Some(&b'1'));
    // A Flush in between changes nothing of that.
    let part = |text: &str| [parse("", text), bind("", ""), execute(""), frame(b'H', b"")].concat();
    reader.send(&part("INSERT INTO t VALUES (8)")).unwrap();
    reader.send(&[part("SELECT count(*) FROM t WHERE n = 8"), sync()].concat()).unwrap();
    let replies = reader.until_ready().unwrap();
    assert_eq!(replies.iter().find(|reply| reply.tag == b'D').expect("a row").body.last(), Some(&b'1'));
}
