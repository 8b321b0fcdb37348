//! How far a replica is behind, measured without comparing clocks: the primary's own history of positions, on our clock.

use super::snapshot::Standing;
use crate::types::Lsn;
use std::time::{Duration, Instant};

/// The points that a [`LagHistory`] keeps. At ten samples a second the newest half alone covers 25 seconds exactly.
pub const LAG_HISTORY_POINTS: usize = 512;

/// When the primary's flush LSN was first seen to have reached which position.
///
/// Bounded: when full, the older half is thinned. A thinned history may call a replica older than it is, never younger.
#[derive(Clone, Debug, Default)]
pub struct LagHistory {
    /// Ascending in both; an idle primary adds nothing.
    points: Vec<LagPoint>,
    newest_asked: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct LagPoint {
    reached: Lsn,
    at: Instant,
}

/// A replica's distance from its primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeasuredLag {
    /// No primary has been seen yet.
    Unknown,
    /// It is behind the beginning of the history: the true time may be longer.
    AtLeast {
        /// Flush LSN of the primary minus replay LSN.
        bytes: u64,
        /// At least this old.
        time: Duration,
    },
    /// Measured.
    Exactly {
        /// Flush LSN of the primary minus replay LSN.
        bytes: u64,
        /// Since the primary first passed the replica's position; 0 when the replica has it all.
        time: Duration,
    },
}

impl LagHistory {
    /// Takes a sample of the primary, asked for at `at`. What is older than the last one is ignored.
    pub fn record(&mut self, flushed: Lsn, at: Instant) {
        if self.newest_asked.is_some_and(|newest| at < newest) {
            return;
        }
        self.newest_asked = Some(at);
        if self.points.last().is_some_and(|last| flushed <= last.reached) {
            return;
        }
        if self.points.len() >= LAG_HISTORY_POINTS {
            self.thin();
        }
        self.points.push(LagPoint { reached: flushed, at });
    }

    /// Goes on with a new primary whose first sample shows `flushed`: what the old one wrote beyond it is not part of history.
    pub fn fork(&mut self, flushed: Lsn, at: Instant) {
        self.points.retain(|point| point.reached < flushed);
        self.newest_asked = None;
        self.record(flushed, at);
    }

    /// The newest position of the primary.
    pub fn newest(&self) -> Option<Lsn> {
        self.points.last().map(|point| point.reached)
    }

    /// When the primary was last asked.
    pub fn newest_asked(&self) -> Option<Instant> {
        self.newest_asked
    }

    /// The distance of a replica that has replayed up to `replayed`, as of `now`.
    pub fn behind(&self, replayed: Lsn, now: Instant) -> MeasuredLag {
        let Some(newest) = self.newest() else { return MeasuredLag::Unknown };
        let bytes = newest.bytes_since(replayed);
        let passed = self.points.partition_point(|point| point.reached <= replayed);
        match self.points.get(passed) {
            None => MeasuredLag::Exactly { bytes: 0, time: Duration::ZERO },
            Some(point) => {
                let time = now.saturating_duration_since(point.at);
                // Nothing says when the first point was reached; it was there when we came.
                if passed == 0 { MeasuredLag::AtLeast { bytes, time } } else { MeasuredLag::Exactly { bytes, time } }
            }
        }
    }

    /// Merges pairs in the older half. The pair's earlier instant stays with its later position, so that positions in between
    /// look passed earlier than they were: the lag is overstated, not understated. The first point marks where knowledge begins.
    fn thin(&mut self) {
        let half = self.points.len() / 2;
        let mut kept = Vec::with_capacity(LAG_HISTORY_POINTS);
        kept.extend(self.points.first().copied());
        let older = self.points.get(1..half).unwrap_or_default();
        for pair in older.chunks(2) {
            if let (Some(first), Some(last)) = (pair.first(), pair.last()) {
                kept.push(LagPoint { reached: last.reached, at: first.at });
            }
        }
        kept.extend_from_slice(self.points.get(half..).unwrap_or_default());
        self.points = kept;
    }
}

impl MeasuredLag {
    /// Time behind, if it is known.
    pub fn time(self) -> Option<Duration> {
        match self {
            MeasuredLag::Exactly { time, .. } | MeasuredLag::AtLeast { time, .. } => Some(time),
            MeasuredLag::Unknown => None,
        }
    }

    /// Bytes behind, if known.
    pub fn bytes(self) -> Option<u64> {
        match self {
            MeasuredLag::Exactly { bytes, .. } | MeasuredLag::AtLeast { bytes, .. } => Some(bytes),
            MeasuredLag::Unknown => None,
        }
    }
}

/// The configured limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LagLimits {
    /// `max_lag`.
    pub time: Option<Duration>,
    /// `max_lag_bytes`.
    pub bytes: Option<u64>,
}

/// Hysteresis: out at a sample over the limit, in again at the first one under 80 % of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LagGate {
    over_time: bool,
    over_bytes: bool,
}

impl LagGate {
    /// Judges one sample: `Eligible`, or why not.
    pub fn judge(&mut self, lag: MeasuredLag, limits: LagLimits) -> Standing {
        let (Some(time), Some(bytes)) = (lag.time(), lag.bytes()) else { return Standing::LagUnknown };
        self.over_time = limits.time.is_some_and(|limit| {
            let back = limit.mul_f64(0.8);
            time > limit || (self.over_time && time > back)
        });
        self.over_bytes = limits.bytes.is_some_and(|limit| {
            let back = limit / 5 * 4 + limit % 5 * 4 / 5;
            bytes > limit || (self.over_bytes && bytes > back)
        });
        if self.over_time {
            Standing::LagTime
        } else if self.over_bytes {
            Standing::LagBytes
        } else if limits.time.is_some() && matches!(lag, MeasuredLag::AtLeast { .. }) {
            // It may be over the limit already: it counts from when it has passed the first position that we know.
            Standing::LagUnknown
        } else {
            Standing::Eligible
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn exactly(bytes: u64, time: Duration) -> MeasuredLag {
        MeasuredLag::Exactly { bytes, time }
    }

    #[test]
    fn measures_from_the_instant_at_which_the_primary_passed() {
        let start = Instant::now();
        let mut history = LagHistory::default();
        assert_eq!(history.behind(Lsn(1), start), MeasuredLag::Unknown);
        for (lsn, at) in [(100, 0), (100, 100), (200, 200), (200, 300), (300, 400)] {
            history.record(Lsn(lsn), start + millis(at));
        }
        let now = start + millis(1000);
        let check = |replayed, expect| assert_eq!(history.behind(Lsn(replayed), now), expect, "{replayed}");
        check(300, exactly(0, Duration::ZERO));
        check(350, exactly(0, Duration::ZERO));
        check(299, exactly(1, millis(600)));
        check(200, exactly(100, millis(600)));
        check(199, exactly(101, millis(800)));
        check(100, exactly(200, millis(800)));
        check(99, MeasuredLag::AtLeast { bytes: 201, time: SECOND });
    }

    #[test]
    fn one_write_after_an_idle_hour_is_young() {
        let start = Instant::now();
        let mut history = LagHistory::default();
        let mut gate = LagGate::default();
        let limits = LagLimits { time: Some(SECOND), bytes: None };
        for tick in 0..36_000u64 {
            history.record(Lsn(500), start + millis(tick * 100));
            let lag = history.behind(Lsn(500), start + millis(tick * 100));
            assert_eq!(gate.judge(lag, limits), Standing::Eligible);
        }
        let write = start + Duration::from_secs(3600);
        history.record(Lsn(600), write);
        for late in [0, 100, 500, 900] {
            let lag = history.behind(Lsn(500), write + millis(late));
            assert_eq!(lag, exactly(100, millis(late)));
            assert_eq!(gate.judge(lag, limits), Standing::Eligible);
        }
    }

    #[test]
    fn a_fork_forgets_only_what_the_dead_timeline_had_alone() {
        let start = Instant::now();
        let mut history = LagHistory::default();
        for step in 1..=10u64 {
            history.record(Lsn(step * 100), start + millis(step * 100));
        }
        history.fork(Lsn(550), start + millis(2000));
        let now = start + millis(2100);
        assert_eq!(history.newest(), Some(Lsn(550)));
        assert_eq!(history.behind(Lsn(400), now), exactly(150, millis(1600)));
        assert_eq!(history.behind(Lsn(500), now), exactly(50, millis(100)));
        assert_eq!(history.behind(Lsn(550), now), exactly(0, Duration::ZERO));
        // The new primary's clock of samples starts anew: an older instant than the dead one's last is taken.
        let mut history = LagHistory::default();
        history.record(Lsn(100), start + millis(500));
        history.fork(Lsn(90), start + millis(400));
        assert_eq!(history.newest(), Some(Lsn(90)));
    }

    #[test]
    fn late_answers_do_not_rewrite_history() {
        let start = Instant::now();
        let mut history = LagHistory::default();
        history.record(Lsn(100), start + millis(100));
        history.record(Lsn(300), start + millis(50));
        history.record(Lsn(90), start + millis(200));
        assert_eq!(history.newest(), Some(Lsn(100)));
        assert_eq!(history.newest_asked(), Some(start + millis(200)));
    }

    #[test]
    fn leaves_over_the_limit_and_returns_under_four_fifths() {
        let limits = LagLimits { time: Some(SECOND), bytes: Some(1000) };
        let mut gate = LagGate::default();
        let mut check = |bytes, ms, expect| assert_eq!(gate.judge(exactly(bytes, millis(ms)), limits), expect, "{bytes} {ms}");
        check(0, 1000, Standing::Eligible);
        check(0, 1001, Standing::LagTime);
        check(0, 900, Standing::LagTime);
        check(0, 801, Standing::LagTime);
        check(0, 799, Standing::Eligible);
        check(0, 900, Standing::Eligible);
        check(1000, 0, Standing::Eligible);
        check(1001, 0, Standing::LagBytes);
        check(801, 0, Standing::LagBytes);
        check(1001, 1001, Standing::LagTime);
        check(900, 10, Standing::LagBytes);
        check(800, 10, Standing::Eligible);
    }

    #[test]
    fn what_is_older_than_history_is_not_trusted_under_a_time_limit() {
        let young = MeasuredLag::AtLeast { bytes: 5, time: millis(10) };
        let old = MeasuredLag::AtLeast { bytes: 5, time: millis(1100) };
        let check = |lag, limits, expect| assert_eq!(LagGate::default().judge(lag, limits), expect);
        let time = LagLimits { time: Some(SECOND), bytes: None };
        check(young, time, Standing::LagUnknown);
        check(old, time, Standing::LagTime);
        check(young, LagLimits { time: None, bytes: Some(10) }, Standing::Eligible);
        check(young, LagLimits::default(), Standing::Eligible);
        check(MeasuredLag::Unknown, LagLimits::default(), Standing::LagUnknown);
        // A limit of nothing at all still lets a replica in that has everything.
        check(exactly(0, Duration::ZERO), LagLimits { time: Some(Duration::ZERO), bytes: Some(0) }, Standing::Eligible);
    }

    proptest! {
        /// However long the history and however often it was thinned: bounded, and never younger than the whole truth.
        #[test]
        fn thinning_never_understates(steps in prop::collection::vec((1u64..50, 1u64..200), 1..3000), probe in 0.0f64..1.0) {
            let start = Instant::now();
            let (mut history, mut truth) = (LagHistory::default(), Vec::new());
            let (mut lsn, mut at) = (0, start);
            for (bytes, ms) in steps {
                lsn += bytes;
                at += millis(ms);
                history.record(Lsn(lsn), at);
                truth.push((lsn, at));
            }
            prop_assert!(history.points.len() <= LAG_HISTORY_POINTS);
            let now = at + SECOND;
            let replayed = (lsn as f64 * probe) as u64;
            let exact = truth.iter().find(|(reached, _)| *reached > replayed).map_or(Duration::ZERO, |(_, at)| now - *at);
            let measured = history.behind(Lsn(replayed), now);
            prop_assert!(measured.time() >= Some(exact), "{measured:?} < {exact:?}");
            // The newest part is exact.
            let recent = truth[truth.len().saturating_sub(LAG_HISTORY_POINTS / 4)].0;
            prop_assert_eq!(history.behind(Lsn(recent), now).time(), truth.iter().find(|(r, _)| *r > recent).map(|(_, at)| now - *at).or(Some(Duration::ZERO)));
        }
    }
}
