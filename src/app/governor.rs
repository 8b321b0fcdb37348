//! How many relay threads are used: as few as can carry the load.
//!
//! Every `ROUND` the threads' CPU time is read. A thread over `FULL` brings the next one into use; what the threads in use do
//! together, if one less could do it at `ROOMY` for `PATIENCE`, takes the last one out. Among those in use sessions move from the
//! busiest to the idlest when they differ by more than `UNEVEN`. A thread through which large transfers pass is left to them: the
//! kernel lets a thread wait that takes all the CPU it can get, and the small statements on it with it.

use crate::session::Front;
use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time between two looks.
const ROUND: Duration = Duration::from_millis(100);
/// A thread with more than this share of a core has too much to do.
const FULL: f64 = 0.75;
/// The share that a thread may have after another was taken out of use.
const ROOMY: f64 = 0.5;
/// Rounds for which one thread less must have been enough.
const PATIENCE: u32 = 20;
/// Difference between the busiest and the idlest thread that is left alone.
const UNEVEN: f64 = 0.2;

/// Full turns in a round from which on a thread is one that streams: 20 MiB a second.
const STREAMING_TURNS: usize = 16;
/// Rounds for which it stays one.
const STREAMING_ROUNDS: u32 = 10;

/// What a thread did in a round.
#[derive(Clone, Copy, Debug, Default)]
struct ThreadLoad {
    /// CPU time as a share of the round: 0 to 1.
    busy: f64,
    /// Sessions that served a unit.
    active: usize,
    /// Large transfers pass through it.
    streams: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// Use so many threads from now on.
    Use(usize),
    /// So many sessions leave a thread.
    Move {
        from: usize,
        count: usize,
    },
}

/// Decides, round by round.
#[derive(Debug, Default)]
struct Governor {
    roomy_rounds: u32,
}

impl Governor {
    /// `loads` are those of the threads in use, of `available` ones; at least `wanted` are to be used.
    fn decide(&mut self, loads: &[ThreadLoad], (wanted, available): (usize, usize)) -> Step {
        if loads.len() < wanted.min(available) {
            return Step::Use(wanted.min(available));
        }
        if let Some(step) = set_apart(loads, available) {
            self.roomy_rounds = 0;
            return step;
        }
        let by_busy = |(_, a): &(usize, &ThreadLoad), (_, b): &(usize, &ThreadLoad)| a.busy.total_cmp(&b.busy);
        let (Some((busiest, most)), Some((_, least))) =
            (loads.iter().enumerate().max_by(by_busy), loads.iter().enumerate().min_by(by_busy))
        else {
            return Step::Nothing;
        };
        let total: f64 = loads.iter().map(|load| load.busy).sum();
        if most.busy > FULL && loads.len() < available && most.active > 1 {
            self.roomy_rounds = 0;
            return Step::Use(loads.len() + 1);
        }
        let streams = loads.iter().any(|load| load.streams);
        let fits = !streams && loads.len() > wanted.max(1) && total < ROOMY * (loads.len() - 1) as f64;
        self.roomy_rounds = if fits { self.roomy_rounds + 1 } else { 0 };
        if self.roomy_rounds >= PATIENCE {
            self.roomy_rounds = 0;
            return Step::Use(loads.len() - 1);
        }
        let count = surplus(*most, total / loads.len() as f64);
        if !streams && most.busy - least.busy > UNEVEN && count > 0 {
            return Step::Move { from: busiest, count };
        }
        Step::Nothing
    }
}

/// Small statements leave a thread through which large transfers pass, if they have somewhere to go.
fn set_apart(loads: &[ThreadLoad], available: usize) -> Option<Step> {
    let from = loads.iter().position(|load| load.streams && load.active > 0)?;
    if loads.iter().any(|load| !load.streams) {
        return Some(Step::Move { from, count: loads[from].active });
    }
    (loads.len() < available).then_some(Step::Use(loads.len() + 1))
}

/// How many of a thread's active sessions make up what it does beyond `mean`.
fn surplus(load: ThreadLoad, mean: f64) -> usize {
    let share = (load.busy - mean) / load.busy.max(f64::MIN_POSITIVE);
    // At least one stays: what a single session does cannot be divided.
    ((load.active as f64 * share).round() as usize).min(load.active.saturating_sub(1))
}

/// The CPU time of a thread, from the kernel's scheduler. The file stays open: it is read ten times a second.
///
/// Spec: Linux, Documentation/scheduler/sched-stats.rst, `/proc/<pid>/schedstat`.
#[derive(Debug)]
struct ThreadClock(fs::File);

impl ThreadClock {
    fn open(thread: u32) -> Option<Self> {
        fs::File::open(format!("/proc/self/task/{thread}/schedstat")).ok().map(ThreadClock)
    }

    /// The CPU time so far.
    fn now(&self) -> Option<Duration> {
        let mut text = [0; 64];
        let length = self.0.read_at(&mut text, 0).ok()?;
        let nanos = std::str::from_utf8(&text[..length]).ok()?.split_ascii_whitespace().next()?.parse().ok()?;
        Some(Duration::from_nanos(nanos))
    }
}

/// The calling thread's number, by which its CPU time is found.
pub fn thread_number() -> Option<u32> {
    fs::read_link("/proc/thread-self").ok()?.file_name()?.to_str()?.parse().ok()
}

/// Governs the threads with these numbers until the process ends. Where CPU times can't be read all threads are used, evenly.
pub async fn govern(front: Arc<Front>, numbers: Vec<Option<u32>>) {
    let (placement, in_use) = (&front.placement, &front.metrics.workers_in_use);
    let available = numbers.len();
    let clocks: Option<Vec<ThreadClock>> = numbers.into_iter().map(|number| ThreadClock::open(number?)).collect();
    in_use.add(placement.in_use() as i64);
    let use_threads = |count: usize| {
        tracing::debug!(threads = count, "relay threads in use");
        in_use.add(count as i64 - placement.in_use() as i64);
        placement.use_threads(count);
    };
    let Some(clocks) = clocks else { return use_threads(available) };
    let mut before: Vec<Duration> = clocks.iter().map(|clock| clock.now().unwrap_or_default()).collect();
    if available < 2 {
        return;
    }
    let mut governor = Governor::default();
    let mut streaming = vec![0; available];
    let mut looked = Instant::now();
    loop {
        tokio::time::sleep(ROUND).await;
        let elapsed = looked.elapsed().as_secs_f64();
        looked = Instant::now();
        let mut loads = Vec::with_capacity(available);
        for (index, (clock, before)) in clocks.iter().zip(&mut before).enumerate() {
            let now = clock.now().unwrap_or(*before);
            let busy = now.saturating_sub(*before).as_secs_f64() / elapsed;
            *before = now;
            let thread = placement.thread(index);
            let full = thread.take_full_turns() >= STREAMING_TURNS;
            streaming[index] = if full { STREAMING_ROUNDS } else { u32::saturating_sub(streaming[index], 1) };
            let streams = streaming[index] > 0;
            thread.set_streams(streams);
            if index < placement.in_use() {
                loads.push(ThreadLoad { busy, active: thread.take_active(), streams });
            }
        }
        let ask = |which: Option<(usize, usize)>| {
            let count = |index| which.filter(|(from, _)| *from == index).map_or(0, |(_, count)| count);
            (0..loads.len()).for_each(|index| placement.thread(index).ask_to_leave(count(index)));
        };
        match governor.decide(&loads, (front.settings.load().workers_min, available)) {
            Step::Nothing => ask(None),
            Step::Move { from, count } => ask(Some((from, count))),
            Step::Use(count) => use_threads(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(of: &[(f64, usize)]) -> Vec<ThreadLoad> {
        of.iter().map(|(busy, active)| ThreadLoad { busy: *busy, active: *active, streams: false }).collect()
    }

    #[test]
    fn a_large_transfer_has_a_thread_of_its_own() {
        let check = |of: &[(f64, usize, bool)], step: Step| {
            let loads: Vec<_> = of.iter().map(|&(busy, active, streams)| ThreadLoad { busy, active, streams }).collect();
            let mut governor = Governor { roomy_rounds: PATIENCE };
            assert_eq!(governor.decide(&loads, (1, 2)), step, "{of:?}");
        };
        check(&[(0.4, 0, true)], Step::Nothing);
        check(&[(0.4, 3, true)], Step::Use(2));
        check(&[(0.4, 3, true), (0.0, 0, false)], Step::Move { from: 0, count: 3 });
        check(&[(0.1, 2, false), (0.4, 1, true)], Step::Move { from: 1, count: 1 });
        // While it lasts nobody is sent back to it, and the other thread stays.
        check(&[(0.4, 0, true), (0.7, 9, false)], Step::Nothing);
        check(&[(0.1, 0, true), (0.1, 9, false)], Step::Nothing);
        // Two of them: there is no better place.
        check(&[(0.5, 4, true), (0.5, 4, true)], Step::Nothing);
        check(&[(0.1, 9, false), (0.1, 0, false)], Step::Use(1));
    }

    #[test]
    fn threads_are_used_as_they_are_needed() {
        let check = |of: &[(f64, usize)], step: Step| assert_eq!(Governor::default().decide(&loads(of), (1, 3)), step, "{of:?}");
        check(&[(0.3, 16)], Step::Nothing);
        check(&[(0.9, 16)], Step::Use(2));
        // One session cannot be divided.
        check(&[(1.0, 1)], Step::Nothing);
        check(&[(0.9, 16), (0.0, 0)], Step::Use(3));
        check(&[(0.7, 16), (0.0, 0)], Step::Move { from: 0, count: 8 });
        check(&[(0.6, 9), (0.5, 9)], Step::Nothing);
        check(&[(0.2, 2), (0.7, 10), (0.3, 3)], Step::Move { from: 1, count: 4 });
        check(&[(0.9, 9), (0.8, 9), (0.8, 9)], Step::Nothing);
        check(&[], Step::Use(1));
        let wants = |wanted: usize, of: &[(f64, usize)], step: Step| {
            let mut governor = Governor { roomy_rounds: PATIENCE };
            assert_eq!(governor.decide(&loads(of), (wanted, 3)), step, "{of:?}");
        };
        wants(2, &[(0.0, 0)], Step::Use(2));
        wants(7, &[(0.0, 0)], Step::Use(3));
        wants(2, &[(0.0, 0), (0.0, 0)], Step::Nothing);
        wants(2, &[(0.0, 0), (0.0, 0), (0.0, 0)], Step::Use(2));
    }

    #[test]
    fn a_thread_is_given_up_only_after_a_while() {
        let mut governor = Governor::default();
        for _ in 1..PATIENCE {
            assert_eq!(governor.decide(&loads(&[(0.2, 4), (0.2, 4)]), (1, 2)), Step::Nothing);
        }
        assert_eq!(governor.decide(&loads(&[(0.2, 4), (0.2, 4)]), (1, 2)), Step::Use(1));
        // One busy round starts the wait anew.
        for _ in 1..PATIENCE {
            assert_eq!(governor.decide(&loads(&[(0.2, 4), (0.2, 4)]), (1, 2)), Step::Nothing);
        }
        assert_eq!(governor.decide(&loads(&[(0.4, 4), (0.4, 4)]), (1, 2)), Step::Nothing);
        assert_eq!(governor.decide(&loads(&[(0.2, 4), (0.2, 4)]), (1, 2)), Step::Nothing);
    }

    #[test]
    fn this_thread_has_used_the_cpu() {
        let number = thread_number().expect("a thread number");
        let clock = ThreadClock::open(number).expect("its clock");
        let before = clock.now().expect("its time");
        while clock.now() == Some(before) {
            std::hint::spin_loop();
        }
        assert!(ThreadClock::open(0).is_none());
    }
}
