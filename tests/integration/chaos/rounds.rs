//! A round: sessions play, faults strike, all is healed, and the history is judged.

use super::checker::{Verdict, check};
use super::dice::{Dice, minutes_of_run};
use super::faults::Fault;
use super::history::{Event, Failover, Promise};
use super::sessions::{Cast, Manner, Notes, Player};
use super::stage::{Door, Keys, Stage};
use std::fmt::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

const SESSIONS: usize = 8;
/// More of them say nothing that the first do not.
const SHOWN_MAX: usize = 12;

/// What is to happen in a round.
#[derive(Clone, Debug)]
pub struct Plan {
    pub promise: Promise,
    pub faults: Vec<Fault>,
    /// How long each fault lasts, in milliseconds.
    pub lasting_ms: Range<u64>,
    /// Whether a commit waits for a replica.
    pub synchronous: bool,
    /// Without it sessions use simple queries only.
    pub all_protocols: bool,
}

impl Plan {
    fn failover(&self) -> Failover {
        match (self.faults.iter().any(|fault| fault.changes_primary()), self.synchronous) {
            (false, _) => Failover::Never,
            (true, true) => Failover::Synchronous,
            (true, false) => Failover::Asynchronous,
        }
    }

    /// Five faults by chance, for a long run; a promotion, which takes a while, in every third round.
    pub fn by_chance(promise: Promise, dice: &mut Dice) -> Plan {
        let mut faults: Vec<Fault> = Vec::new();
        while faults.len() < 5 {
            let fault = *dice.pick(&Fault::ALL);
            if !fault.changes_primary() {
                faults.push(fault);
            }
        }
        if dice.percent(33) {
            *faults.last_mut().unwrap() = *dice.pick(&[Fault::Promote, Fault::Split]);
        }
        // A replica may show what a primary that waits for one does not show yet: this is not what `monotonic` promises.
        let synchronous = promise != Promise::Monotonic && dice.percent(50);
        Plan { promise, faults, lasting_ms: 50..2500, synchronous, all_protocols: true }
    }
}

/// What came of a round.
#[derive(Debug)]
pub struct Report {
    seed: u64,
    plan: Plan,
    struck: Vec<String>,
    notes: Notes,
    pub verdict: Verdict,
}

/// Plays a round through a door. `healed` is called when all is well again, while the sessions still play.
pub fn play(stage: &mut Stage, door: &Door, plan: &Plan, seed: u64, healed: &dyn Fn(&Stage)) -> Report {
    let mut dice = Dice::new(seed);
    stage.set_synchronous(plan.synchronous);
    let keys = stage.new_keys();
    let (clock, sessions, stop) = (Instant::now(), AtomicU32::new(0), AtomicBool::new(false));
    let manner = Manner {
        simple: !plan.all_protocols,
        asynchronous: !plan.synchronous && !plan.faults.iter().any(|fault| fault.loses_what_is_not_flushed()),
    };
    let cast = Cast { door, keys: &keys, manner, clock, sessions: &sessions, stop: &stop };
    let mut struck = Vec::new();
    let mut notes = Notes::default();
    std::thread::scope(|scope| {
        let players: Vec<_> = (0..SESSIONS).map(|_| Player::new(&cast, dice.fork())).collect();
        let players: Vec<_> = players.into_iter().map(|player| scope.spawn(|| player.play())).collect();
        // Ends them also when something below fails.
        let end = End(&stop);
        std::thread::sleep(Duration::from_millis(300));
        for fault in &plan.faults {
            let lasting = Duration::from_millis(dice.between(plan.lasting_ms.clone()));
            let began = clock.elapsed();
            let what = stage.strike(*fault, &mut dice, lasting);
            struck.push(format!("{began:?} to {:?}: {what}", clock.elapsed()));
            std::thread::sleep(Duration::from_millis(dice.between(50..400)));
        }
        healed(stage);
        drop(end);
        for player in players {
            let its = player.join().unwrap();
            notes.events.extend(its.events);
            notes.complaints.extend(its.complaints);
            its.errors.into_iter().for_each(|(what, count)| *notes.errors.entry(what).or_default() += count);
        }
    });
    finish(stage, &keys, (plan, seed), (struck, notes))
}

fn finish(stage: &Stage, keys: &Keys, (plan, seed): (&Plan, u64), (struck, notes): (Vec<String>, Notes)) -> Report {
    let truth = stage.truth(keys);
    let verdict = check(&notes.events, &truth, plan.promise, plan.failover());
    Report { seed, plan: plan.clone(), struck, notes, verdict }
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Report {
    /// One line.
    pub fn summary(&self) -> String {
        let verdict = &self.verdict;
        format!(
            "seed {}: {} writes acknowledged, {} unknown, {} reads checked, {} of states that are gone, {} writes lost with a \
             primary; errors {:?}",
            self.seed, verdict.writes, verdict.unknown, verdict.reads, verdict.doomed_reads, verdict.lost, self.notes.errors
        )
    }

    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.verdict.violations.is_empty() && self.notes.complaints.is_empty()
    }

    /// Everything that somebody needs who looks for the reason. The whole history goes into a file.
    pub fn explain(&self) -> String {
        let mut text = format!("{}\nplan: {:?}\n", self.summary(), self.plan);
        for line in &self.struck {
            writeln!(text, "  {line}").unwrap();
        }
        for complaint in self.notes.complaints.iter().take(SHOWN_MAX) {
            writeln!(text, "COMPLAINT: {complaint}").unwrap();
        }
        for violation in self.verdict.violations.iter().take(SHOWN_MAX) {
            writeln!(text, "{violation}").unwrap();
        }
        let hidden = (self.notes.complaints.len() + self.verdict.violations.len()).saturating_sub(2 * SHOWN_MAX);
        let path = std::env::temp_dir().join(format!("pgyard-chaos-{}.txt", self.seed));
        let mut events: Vec<&Event> = self.notes.events.iter().collect();
        events.sort_by_key(|event| event.ended);
        let lines: Vec<String> = events.iter().map(|event| format!("{event:?}\n")).collect();
        let kept = std::fs::write(&path, text.clone() + &lines.concat());
        writeln!(text, "{hidden} or more not shown; history: {} {kept:?}", path.display()).unwrap();
        let (seed, level) = (self.seed, self.plan.promise.setting());
        match minutes_of_run() {
            Some(_) => writeln!(text, "again: make chaos SEED={seed} MINUTES=1 ARGS={level}").unwrap(),
            None => {
                writeln!(text, "again: PGYARD_CHAOS_SEED={seed} cargo test --test integration chaos::levels::{level}").unwrap()
            }
        }
        text
    }

    /// # Panics
    /// When anything is wrong.
    pub fn must_be_good(&self) {
        assert!(self.is_good(), "{}", self.explain());
    }
}
