//! Soak: clients do everything that clients do, also vanish in the middle of it, while servers end their sessions. Every answer
//! carries a token of its request, so that one that reaches the wrong client is noticed; at the end nothing may be left over.
//!
//! Ten seconds in the suite, `make soak MINUTES=30` for longer. `PGYARD_CHAOS_SEED` decides what clients do and in which order.

mod guests;

use super::chaos::dice::{Dice, seed_of_run};
use super::harness::{Pgyard, RawClient, eventually, own_fleet};
pub use guests::rows;
use guests::{Guest, Report};
use pgyard::demo::{LocalFleet, LocalHost, StopMode};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const GUESTS: u64 = 10;
const SHORT: Duration = Duration::from_secs(10);
/// What the allocator may keep between one third of the run and its end.
const GROWTH_MAX: u64 = 16 << 20;
/// Connections of the control plane that come and go.
const FILES_SLACK: usize = 12;

fn time_of_run() -> Duration {
    let minutes = std::env::var("PGYARD_SOAK_MINUTES").ok().filter(|text| !text.is_empty());
    minutes.map_or(SHORT, |text| Duration::from_secs_f64(text.parse::<f64>().expect("PGYARD_SOAK_MINUTES is a number") * 60.0))
}

/// Ends the guests also when something fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_answer_goes_astray_and_nothing_is_left_over() {
    let (seed, time) = (seed_of_run(), time_of_run());
    println!("soak: PGYARD_CHAOS_SEED={seed}, {time:?}");
    let fleet = own_fleet(1);
    fleet.primary().sql("SET ROLE app; CREATE TABLE soak (token text, note text)").unwrap();
    fleet.wait_for_replay(fleet.primary(), &fleet.replicas()[0]).unwrap();
    let yard = Pgyard::start(&fleet, &[]);
    let mut dice = Dice::new(seed);
    let stop = AtomicBool::new(false);
    let files_before = yard.open_files() - servers(&yard).values().map(BTreeSet::len).sum::<usize>();
    let mut memory = Memory { early: None, samples: Vec::new() };
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let password = fleet.app_password().reveal();
        let (port, stop) = (yard.port(), &stop);
        let guests: Vec<_> = (0..GUESTS).map(|number| Guest::new((port, password), number, dice.fork())).collect();
        let guests: Vec<_> = guests.into_iter().map(|guest| scope.spawn(|| guest.stay(stop))).collect();
        let end = End(stop);
        disturb(&fleet, &yard, (&mut dice, time), &mut memory);
        drop(end);
        guests.into_iter().map(|guest| guest.join().unwrap()).collect()
    });
    let (mut acts, mut errors) = (BTreeMap::<&str, u64>::new(), BTreeMap::<String, u64>::new());
    for report in &reports {
        report.acts.iter().for_each(|(what, count)| *acts.entry(what).or_default() += count);
        report.errors.iter().for_each(|(what, count)| *errors.entry(what.clone()).or_default() += count);
    }
    println!("soak: done {acts:?}; errors {errors:?}; memory in KiB {:?}", memory.samples);
    let complaints: Vec<&String> = reports.iter().flat_map(|report| &report.complaints).take(20).collect();
    assert!(complaints.is_empty(), "seed {seed}: {complaints:#?}");
    assert!(acts.len() == guests::ACTS.len(), "every act was played: {acts:?}");

    nothing_is_left_over(&fleet, &yard);
    let files = yard.open_files() - servers(&yard).values().map(BTreeSet::len).sum::<usize>();
    assert!(files <= files_before + FILES_SLACK, "seed {seed}: {files_before} open files became {files}");
    let grown = yard.resident_bytes().saturating_sub(memory.early.unwrap_or(u64::MAX));
    assert!(grown <= GROWTH_MAX, "seed {seed}: {} KiB more than after a third of the time: {:?}", grown / 1024, memory.samples);
    assert!(!yard.log().contains("panicked"), "a panic:\n{}", yard.log());
}

/// Resident memory over time.
struct Memory {
    early: Option<u64>,
    samples: Vec<u64>,
}

/// Ends servers' sessions, and now and then a server, until the time is over.
fn disturb(fleet: &LocalFleet, yard: &Pgyard, (dice, time): (&mut Dice, Duration), memory: &mut Memory) {
    let begin = Instant::now();
    let (mut turn, mut sampled) = (0, Duration::ZERO);
    while begin.elapsed() < time {
        std::thread::sleep(Duration::from_millis(dice.between(300..900)));
        turn += 1;
        let host = *dice.pick(&fleet.hosts().iter().collect::<Vec<_>>());
        match turn % 8 {
            1..=5 => end_sessions(host, if dice.percent(50) { "true" } else { "state = 'idle'" }),
            6 => fleet.replicas()[0].restart(*dice.pick(&[StopMode::Fast, StopMode::Immediate])).unwrap(),
            7 => {
                fleet.replicas()[0].kill().unwrap();
                fleet.replicas()[0].start().unwrap();
            }
            _ => {}
        }
        if begin.elapsed() >= sampled + time / 12 {
            sampled = begin.elapsed();
            memory.samples.push(yard.resident_bytes() / 1024);
            if memory.early.is_none() && begin.elapsed() > time / 3 {
                memory.early = Some(yard.resident_bytes());
            }
        }
    }
}

fn end_sessions(host: &LocalHost, which: &str) {
    let all = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND {which}");
    host.sql(&all).unwrap();
}

/// The process ids of the server connections that pgyard says it has, by port.
fn servers(yard: &Pgyard) -> BTreeMap<u16, BTreeSet<String>> {
    let mut console = RawClient::log_in(yard.port(), "pgyard", "", "pgyard").unwrap();
    let mut found: BTreeMap<u16, BTreeSet<String>> = BTreeMap::new();
    for row in rows(&mut console, "SHOW SERVERS").unwrap() {
        found.entry(row[5].parse().unwrap()).or_default().insert(row[8].clone());
    }
    found
}

fn nothing_is_left_over(fleet: &LocalFleet, yard: &Pgyard) {
    let mut console = RawClient::log_in(yard.port(), "pgyard", "", "pgyard").unwrap();
    eventually("no client is left", Duration::from_secs(20), || {
        rows(&mut console, "SHOW CLIENTS").unwrap().iter().all(|row| row[1] != "app")
    });
    let question = "SELECT pid FROM pg_stat_activity WHERE usename = 'app'";
    for host in fleet.hosts() {
        let (mut theirs, mut ours) = (BTreeSet::new(), BTreeSet::new());
        let begin = Instant::now();
        // Sessions that were cancelled for clients that have gone take a moment to end.
        while begin.elapsed() < Duration::from_secs(20) {
            theirs = host.sql(question).unwrap().lines().map(str::to_owned).collect();
            ours = servers(yard).remove(&host.port()).unwrap_or_default();
            if theirs == ours {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(ours, theirs, "{}: SHOW SERVERS and pg_stat_activity", host.name());
    }
    let (_, metrics) = yard.get("/metrics").unwrap();
    for line in metrics.lines().filter(|line| line.starts_with("pgyard_clients_pinned{")) {
        assert!(line.ends_with(" 0"), "nobody is pinned: {line}");
    }
}
