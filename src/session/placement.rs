//! Which relay thread serves which session.
//!
//! Fewer busy threads cost less than many half-idle ones: each wake-up then finds more to do. So sessions gather on as few
//! threads as can carry them, and move when a thread has too much or too little to do. A session moves by itself, between two
//! units, when it holds no server connection: it is told by a number in a cache line that its thread reads after each unit anyway.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

/// `leave`: every session goes.
pub const EVERY_SESSION: usize = usize::MAX;

/// What one relay thread is told, and tells.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ThreadSign {
    /// Connections that it serves, idle ones included.
    pub connections: AtomicUsize,
    /// How many of its sessions shall leave.
    leave: AtomicUsize,
    /// Sessions that have served a unit in this round.
    active: AtomicUsize,
    /// The round.
    round: AtomicU32,
    /// Turns in this round that ended because others were to have theirs, not because there was no more to relay.
    full_turns: AtomicUsize,
    /// Large transfers pass through it: who has the choice is elsewhere.
    streams: AtomicBool,
}

impl ThreadSign {
    /// Asks `count` sessions to leave as they end their units; replaces what was asked before.
    pub fn ask_to_leave(&self, count: usize) {
        self.leave.store(count, Ordering::Relaxed);
    }

    /// Ends the round: how many sessions were active in it.
    pub fn take_active(&self) -> usize {
        self.round.fetch_add(1, Ordering::Relaxed);
        self.active.swap(0, Ordering::Relaxed)
    }

    /// A session has ended a unit; `round` is the one in which it did so last. Whether it shall leave, if it can.
    #[inline]
    pub fn unit_ended(&self, round: &mut u32) -> bool {
        let now = self.round.load(Ordering::Relaxed);
        if *round != now {
            *round = now;
            self.active.fetch_add(1, Ordering::Relaxed);
        }
        self.leave.load(Ordering::Relaxed) > 0
    }

    /// A session has relayed as much as it may at once, and has more. Not on the path of small statements.
    pub fn turn_was_full(&self) {
        self.full_turns.fetch_add(1, Ordering::Relaxed);
    }

    /// How many turns were full in this round.
    pub fn take_full_turns(&self) -> usize {
        self.full_turns.swap(0, Ordering::Relaxed)
    }

    /// Notes whether large transfers pass through it.
    pub fn set_streams(&self, streams: bool) {
        self.streams.store(streams, Ordering::Relaxed);
    }

    /// One session leaves; false if enough have left already, or if it has just `streamed` and others were meant.
    pub fn take_leave(&self, streamed: bool) -> bool {
        let one_less = |left: usize| match left {
            EVERY_SESSION => Some(EVERY_SESSION),
            _ if streamed => None,
            left => left.checked_sub(1),
        };
        self.leave.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }
}

/// The relay threads.
#[derive(Debug)]
pub struct Placement {
    threads: Box<[ThreadSign]>,
    /// The first so many threads take sessions.
    in_use: AtomicUsize,
}

impl Placement {
    /// For `threads` relay threads, the first of which takes all sessions.
    pub fn new(threads: usize) -> Self {
        let threads = std::iter::repeat_with(ThreadSign::default).take(threads.max(1)).collect();
        Placement { threads, in_use: AtomicUsize::new(1) }
    }

    /// A thread's sign.
    pub fn thread(&self, index: usize) -> &ThreadSign {
        &self.threads[index.min(self.threads.len() - 1)]
    }

    /// All relay threads.
    pub fn count(&self) -> usize {
        self.threads.len()
    }

    /// How many threads take sessions.
    pub fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed).clamp(1, self.threads.len())
    }

    /// Lets the first `count` threads take sessions; those on the others leave as they become active.
    pub fn use_threads(&self, count: usize) {
        self.in_use.store(count, Ordering::Relaxed);
        for (index, thread) in self.threads.iter().enumerate() {
            thread.ask_to_leave(if index < count { 0 } else { EVERY_SESSION });
        }
    }

    /// The thread for one more session: of those in use but not `not`, if there is another, one through which no large transfer
    /// passes, with the fewest connections.
    pub fn choose(&self, not: Option<usize>) -> usize {
        let in_use = self.in_use();
        let candidates = (0..in_use).filter(|index| Some(*index) != not);
        let price = |index: &usize| {
            let thread = &self.threads[*index];
            (thread.streams.load(Ordering::Relaxed), thread.connections.load(Ordering::Relaxed))
        };
        candidates.min_by_key(price).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_leave_as_were_asked() {
        let placement = Placement::new(2);
        let (thread, mut round) = (placement.thread(0), 0);
        assert!(!thread.unit_ended(&mut round));
        thread.ask_to_leave(2);
        assert!(thread.unit_ended(&mut round));
        assert_eq!([true, false, false, false].map(|streamed| thread.take_leave(streamed)), [false, true, true, false]);
        assert!(!thread.unit_ended(&mut round));
        placement.use_threads(2);
        placement.use_threads(1);
        for _ in 0..10 {
            assert!(placement.thread(1).unit_ended(&mut round) && placement.thread(1).take_leave(true));
        }
    }

    #[test]
    fn active_sessions_are_counted_once_a_round() {
        let thread = ThreadSign::default();
        let mut rounds = [0, 0, 0];
        thread.take_active();
        for _ in 0..5 {
            thread.unit_ended(&mut rounds[0]);
            thread.unit_ended(&mut rounds[1]);
        }
        assert_eq!(thread.take_active(), 2);
        thread.unit_ended(&mut rounds[2]);
        assert_eq!(thread.take_active(), 1);
        assert_eq!(thread.take_active(), 0);
    }

    #[test]
    fn new_sessions_go_to_the_emptiest_thread_in_use() {
        let placement = Placement::new(3);
        placement.thread(0).connections.store(5, Ordering::Relaxed);
        assert_eq!(placement.choose(None), 0);
        placement.use_threads(2);
        assert_eq!(placement.choose(None), 1);
        assert_eq!(placement.choose(Some(1)), 0);
        placement.thread(1).set_streams(true);
        assert_eq!((placement.choose(None), placement.choose(Some(0))), (0, 1));
        placement.use_threads(1);
        assert_eq!(placement.choose(Some(0)), 0);
    }
}
