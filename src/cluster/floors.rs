//! The sampler's answers, as a value: which floor a ticket gets.

use super::snapshot::Era;
use crate::types::{Floor, Lsn};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Answers that are kept. A session that asks later than that gets a newer floor, which is right too, only stricter.
pub const FLOOR_ANSWERS: usize = 128;

/// The moment at which a write was acknowledged, in the sampler's counting: any query that began later answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(super) u64);

/// Whether an acknowledged commit was flushed before it was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitMode {
    /// The session did not touch `synchronous_commit`: the server's own settings say.
    ServerDefault,
    /// The session has, or may have, set it to `off`.
    MaybeAsynchronous,
}

/// One answer of the primary to the sampler.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FloorAnswer {
    /// The number of the query.
    pub sequence: u64,
    /// When it was asked.
    pub asked: Instant,
    /// The primary's cluster and timeline.
    pub era: Era,
    /// `pg_current_wal_flush_lsn()`.
    pub flushed: Lsn,
    /// `pg_current_wal_insert_lsn()`.
    pub inserted: Lsn,
    /// What `inserted` came down to: flushed by the time at which every commit acknowledged before must have been.
    pub lowered: Option<Lsn>,
    /// By then (3 x `wal_writer_delay`) an asynchronous commit is flushed.
    pub flush_delay: Duration,
    /// Whether some setting of the server makes commits asynchronous for sessions that did not ask for it.
    pub server_may_be_asynchronous: bool,
}

impl FloorAnswer {
    fn waits_for(&self, era: Era, asked: Instant) -> bool {
        let late_enough = asked.saturating_duration_since(self.asked) >= self.flush_delay;
        self.lowered.is_none() && self.era.timeline == era.timeline && late_enough
    }
}

/// The last answers, oldest first.
#[derive(Clone, Debug, Default)]
pub struct FloorRing {
    answers: VecDeque<FloorAnswer>,
}

impl FloorRing {
    /// Adds an answer; its flush LSN may also lower earlier ones.
    pub fn add(&mut self, answer: FloorAnswer) {
        self.lower(answer.era, answer.flushed, answer.asked);
        if self.answers.len() >= FLOOR_ANSWERS {
            self.answers.pop_front();
        }
        self.answers.push_back(answer);
    }

    /// Takes the primary's flush LSN, asked for at `asked`, as proof of what was flushed by then. The first proof counts.
    pub fn lower(&mut self, era: Era, flushed: Lsn, asked: Instant) {
        for answer in self.answers.iter_mut().filter(|answer| answer.waits_for(era, asked)) {
            answer.lowered = Some(answer.inserted.min(flushed));
        }
    }

    /// Whether a flush LSN asked for at `asked` would lower anything.
    pub fn can_lower(&self, era: Era, asked: Instant) -> bool {
        self.answers.iter().any(|answer| answer.waits_for(era, asked))
    }

    /// The number of the newest answer; 0 for none.
    pub fn newest(&self) -> u64 {
        self.answers.back().map_or(0, |answer| answer.sequence)
    }

    /// The first answer at or after the ticket: the lowest floor that surely covers its write.
    pub fn floor_for(&self, ticket: Ticket, mode: CommitMode) -> Option<Floor> {
        let first = self.answers.partition_point(|answer| answer.sequence < ticket.0);
        let answer = self.answers.get(first)?;
        let asynchronous = mode == CommitMode::MaybeAsynchronous || answer.server_may_be_asynchronous;
        let lsn = if asynchronous { answer.lowered.unwrap_or(answer.inserted) } else { answer.flushed };
        Some(Floor { system: answer.era.system, timeline: answer.era.timeline, lsn })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{SystemId, Timeline};

    fn era(timeline: u32) -> Era {
        Era { system: SystemId(7), timeline: Timeline(timeline), first_lsn: Lsn(1) }
    }

    fn answer(sequence: u64, asked: Instant, flushed: u64, inserted: u64) -> FloorAnswer {
        FloorAnswer {
            sequence,
            asked,
            era: era(1),
            flushed: Lsn(flushed),
            inserted: Lsn(inserted),
            lowered: None,
            flush_delay: Duration::from_millis(600),
            server_may_be_asynchronous: false,
        }
    }

    fn lsn(ring: &FloorRing, ticket: u64, mode: CommitMode) -> Option<u64> {
        ring.floor_for(Ticket(ticket), mode).map(|floor| floor.lsn.0)
    }

    use CommitMode::*;

    #[test]
    fn a_ticket_gets_the_first_answer_at_or_after_it() {
        let (now, mut ring) = (Instant::now(), FloorRing::default());
        assert_eq!(lsn(&ring, 1, ServerDefault), None);
        for (sequence, flushed) in [(1, 100), (2, 200), (4, 400)] {
            ring.add(answer(sequence, now, flushed, flushed + 5));
        }
        let check = |ticket, expect| assert_eq!(lsn(&ring, ticket, ServerDefault), expect, "{ticket}");
        check(1, Some(100));
        check(2, Some(200));
        check(3, Some(400));
        check(4, Some(400));
        check(5, None);
        assert_eq!(ring.newest(), 4);
        assert_eq!(lsn(&ring, 2, MaybeAsynchronous), Some(205));
    }

    #[test]
    fn forgotten_answers_are_replaced_by_later_ones() {
        let (now, mut ring) = (Instant::now(), FloorRing::default());
        for sequence in 1..=1000 {
            ring.add(answer(sequence, now, sequence * 10, sequence * 10));
        }
        assert_eq!(lsn(&ring, 3, ServerDefault), Some((1000 - FLOOR_ANSWERS as u64 + 1) * 10));
        assert_eq!(lsn(&ring, 1000, ServerDefault), Some(10_000));
    }

    #[test]
    fn insert_positions_come_down_once_enough_time_has_passed() {
        let (now, mut ring) = (Instant::now(), FloorRing::default());
        ring.add(answer(1, now, 100, 900));
        ring.lower(era(1), Lsn(150), now + Duration::from_millis(599));
        assert_eq!(lsn(&ring, 1, MaybeAsynchronous), Some(900));
        assert!(!ring.can_lower(era(2), now + Duration::from_secs(5)), "another timeline proves nothing");
        assert!(ring.can_lower(era(1), now + Duration::from_millis(600)));
        ring.lower(era(1), Lsn(200), now + Duration::from_millis(600));
        assert_eq!(lsn(&ring, 1, MaybeAsynchronous), Some(200));
        assert!(!ring.can_lower(era(1), now + Duration::from_secs(9)), "the first proof is the lowest");
        ring.add(answer(2, now, 100, 150));
        ring.add(answer(3, now + Duration::from_secs(1), 500, 600));
        assert_eq!(lsn(&ring, 2, MaybeAsynchronous), Some(150), "never above what was inserted");
        assert_eq!(lsn(&ring, 3, MaybeAsynchronous), Some(600));
    }

    #[test]
    fn a_server_that_commits_asynchronously_by_itself_counts_for_all() {
        let (now, mut ring) = (Instant::now(), FloorRing::default());
        ring.add(FloorAnswer { server_may_be_asynchronous: true, ..answer(1, now, 100, 900) });
        assert_eq!(lsn(&ring, 1, ServerDefault), Some(900));
    }
}
