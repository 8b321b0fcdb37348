//! Chaos: hosts and networks break under sessions that write and read, and what the sessions were told is judged.
//!
//! In the suite each consistency level has one short round, with faults chosen so that every kind occurs. `make chaos` plays
//! rounds with faults by chance, for minutes. A seed decides what sessions do and what breaks when; how threads and servers meet
//! in time it cannot decide, so that a seed makes a failure likely again rather than certain.

mod checker;
pub mod dice;
mod faults;
mod history;
mod naive;
mod network;
mod rounds;
mod sessions;
mod stage;

use checker::Violation;
use dice::{Dice, minutes_of_run, seed_of_run};
use faults::Fault;
use history::Promise;
use network::Weather;
use rounds::{Plan, Report, play};
use stage::Stage;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// One fleet for all of these tests, one after another; a test that fails leaves none to the next.
fn on_stage(test: impl FnOnce(&mut Stage)) {
    static STAGE: Mutex<Option<Stage>> = Mutex::new(None);
    let mut shared = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut stage = shared.take().unwrap_or_else(Stage::build);
    test(&mut stage);
    *shared = Some(stage);
}

const fn short(promise: Promise) -> &'static [Fault] {
    match promise {
        Promise::Eventual => {
            &[Fault::Slow, Fault::Drip, Fault::Cut, Fault::HalfClose, Fault::Refuse, Fault::RestartPrimary, Fault::Split]
        }
        Promise::OwnWrites => {
            &[Fault::PauseReplay, Fault::Conflict, Fault::KillReplica, Fault::BlackHole, Fault::Terminate, Fault::KillPrimary]
        }
        Promise::Monotonic => {
            &[Fault::PauseReplay, Fault::FreezeReplica, Fault::PauseReplay, Fault::RestartReplica, Fault::CrashReplica]
        }
        Promise::Everything => &[Fault::PauseReplay, Fault::CrashPrimary, Fault::FreezePrimary, Fault::Promote],
    }
}

const LEVELS: [Promise; 4] = [Promise::Eventual, Promise::OwnWrites, Promise::Monotonic, Promise::Everything];

#[test]
fn the_short_rounds_have_every_kind_of_fault() {
    for fault in Fault::ALL {
        assert!(LEVELS.iter().any(|promise| short(*promise).contains(&fault)), "{fault:?}");
    }
}

/// The short round of a level, or as many by chance as the time allows.
fn level(promise: Promise) {
    on_stage(|stage| {
        let (seed, begin, time) = (seed_of_run(), Instant::now(), minutes_of_run());
        println!("chaos: {promise:?}, PGYARD_CHAOS_SEED={seed}");
        let yard = stage.pgyard(promise);
        let door = stage.door(yard.port());
        let healed = |stage: &Stage| stage.wait_until_all_serve(&yard);
        let round = |stage: &mut Stage, plan: &Plan, seed: u64| {
            let report = play(stage, &door, plan, seed, &healed);
            println!("chaos: {promise:?}, {}", report.summary());
            report.must_be_good();
            assert!(!yard.log().contains("panicked"), "a panic:\n{}", yard.log());
        };
        match time {
            None => {
                let (faults, synchronous) = (short(promise).to_vec(), short(promise).iter().any(|fault| fault.changes_primary()));
                let plan = Plan { promise, faults, lasting_ms: 200..600, synchronous, all_protocols: true };
                round(stage, &plan, seed);
            }
            Some(time) => {
                // A round's own seed replays it as the first of a run.
                for seed in seed.. {
                    round(stage, &Plan::by_chance(promise, &mut Dice::new(seed)), seed);
                    if begin.elapsed() > time {
                        break;
                    }
                }
            }
        }
    });
}

mod levels {
    use super::{Promise, level};

    #[test]
    fn eventual() {
        level(Promise::Eventual);
    }

    #[test]
    fn session() {
        level(Promise::OwnWrites);
    }

    #[test]
    fn monotonic() {
        level(Promise::Monotonic);
    }

    #[test]
    fn global() {
        level(Promise::Everything);
    }
}

/// A round in which replicas are held back now and then, through something that is not to be trusted.
fn caught(stage: &mut Stage, door: &stage::Door, promise: Promise) -> Report {
    let faults = vec![Fault::PauseReplay, Fault::PauseReplay];
    let plan = Plan { promise, faults, lasting_ms: 400..500, synchronous: false, all_protocols: false };
    play(stage, door, &plan, seed_of_run(), &|_| ())
}

fn finds(report: &Report, what: &str, wanted: fn(&Violation) -> bool) {
    assert!(report.verdict.violations.iter().any(wanted), "{what} was not found: {}", report.summary());
}

#[test]
fn a_naive_proxy_is_caught() {
    on_stage(|stage| {
        let door = naive::listen(stage, naive::Sin::ReadsAnywhere);
        finds(&caught(stage, &door, Promise::OwnWrites), "a stale own read", |one| matches!(one, Violation::StaleOwn(_)));
        finds(&caught(stage, &door, Promise::Monotonic), "going back", |one| matches!(one, Violation::BackInTime(_)));
        finds(&caught(stage, &door, Promise::Everything), "a stale read", |one| matches!(one, Violation::StaleGlobal(_)));
        let door = naive::listen(stage, naive::Sin::SendsTwice);
        finds(&caught(stage, &door, Promise::Eventual), "a second time", |one| matches!(one, Violation::Twice(..)));
        let door = naive::listen(stage, naive::Sin::Forgets);
        finds(&caught(stage, &door, Promise::Eventual), "a lost write", |one| matches!(one, Violation::Lost(..)));
    });
}

#[test]
fn a_pgyard_with_false_positions_is_caught() {
    on_stage(|stage| {
        let yard = stage.pgyard(Promise::OwnWrites);
        let door = stage.door(yard.port());
        stage.networks[stage.primary].set(Weather { lies_about_positions: true, ..Weather::default() });
        let report = caught(stage, &door, Promise::OwnWrites);
        stage.networks[stage.primary].clear();
        finds(&report, "a stale own read", |one| matches!(one, Violation::StaleOwn(_)));
    });
}

#[test]
fn rounds_by_chance_can_be_had_again() {
    let plan = |seed| format!("{:?}", Plan::by_chance(Promise::Everything, &mut Dice::new(seed)));
    assert_eq!(plan(7), plan(7));
    assert!((0..20).any(|seed| plan(seed) != plan(7)));
}
