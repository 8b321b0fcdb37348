//! Whether a host is worth a try: closed, open, half-open, with jittered exponential back-off.
//!
//! Fed by connection and probe failures only. A full pool or a refused log-in of one role is not a sick host.

use crate::types::Backoff;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// The phase of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitPhase {
    /// Statements flow.
    Closed,
    /// Nobody tries before this instant.
    Open {
        /// When it half-opens.
        until: Instant,
    },
    /// One trial (the probe's) is under way.
    HalfOpen,
}

/// Where a host's circuit stands, for the console and the metrics: written by the probe, read by anybody.
#[derive(Debug, Default)]
pub struct CircuitSign(AtomicU8);

impl CircuitSign {
    /// `closed`, `open` or `half_open`.
    pub fn label(&self) -> &'static str {
        match self.0.load(Ordering::Relaxed) {
            0 => "closed",
            1 => "open",
            _ => "half_open",
        }
    }

    fn show(&self, phase: CircuitPhase) {
        let byte = match phase {
            CircuitPhase::Closed => 0,
            CircuitPhase::Open { .. } => 1,
            CircuitPhase::HalfOpen => 2,
        };
        self.0.store(byte, Ordering::Relaxed);
    }
}

/// One host's circuit. The clock is the caller's.
#[derive(Clone, Debug)]
pub struct Circuit {
    phase: CircuitPhase,
    backoff: Backoff,
    /// Closed for this long, a circuit is stable: its next failure starts with the shortest delay again.
    stable_after: Duration,
    closed_at: Option<Instant>,
    sign: Arc<CircuitSign>,
}

impl Circuit {
    /// A closed circuit with delays from `minimum` to `maximum`.
    pub fn new(minimum: Duration, maximum: Duration) -> Self {
        let backoff = Backoff::new(minimum, maximum);
        Circuit { phase: CircuitPhase::Closed, backoff, stable_after: maximum, closed_at: None, sign: Arc::default() }
    }

    /// The same circuit, which shows its phase here.
    pub fn shown_by(mut self, sign: Arc<CircuitSign>) -> Self {
        self.sign = sign;
        self.enter(self.phase);
        self
    }

    fn enter(&mut self, phase: CircuitPhase) {
        self.phase = phase;
        self.sign.show(phase);
    }

    /// Where it stands.
    pub fn phase(&self) -> CircuitPhase {
        self.phase
    }

    /// A trial failed. Opens, and answers when the next one is due. `jitter` is a random number in 0..1.
    pub fn fail(&mut self, now: Instant, jitter: f64) -> Instant {
        if self.is_stable(now) {
            self.backoff.reset();
        }
        let until = now + self.backoff.next_delay(jitter);
        self.enter(CircuitPhase::Open { until });
        until
    }

    /// Somebody else could not connect. A circuit that was stable is tried at once, since one refused connection may be an
    /// accident and an idle primary costs much; one that flaps waits like after a failed trial.
    pub fn suspect(&mut self, now: Instant, jitter: f64) -> Instant {
        match self.phase {
            CircuitPhase::Open { until } => until,
            CircuitPhase::HalfOpen => now,
            CircuitPhase::Closed if self.is_stable(now) => {
                self.backoff.reset();
                self.enter(CircuitPhase::Open { until: now });
                now
            }
            CircuitPhase::Closed => self.fail(now, jitter),
        }
    }

    /// Whether a trial may begin; an open circuit whose time has come is half-open from here.
    pub fn may_try(&mut self, now: Instant) -> bool {
        if let CircuitPhase::Open { until } = self.phase {
            if now < until {
                return false;
            }
            self.enter(CircuitPhase::HalfOpen);
        }
        true
    }

    /// A trial succeeded.
    pub fn succeed(&mut self, now: Instant) {
        if self.phase != CircuitPhase::Closed || self.closed_at.is_none() {
            self.enter(CircuitPhase::Closed);
            self.closed_at = Some(now);
        }
    }

    fn is_stable(&self, now: Instant) -> bool {
        let since = self.closed_at.map(|at| now.saturating_duration_since(at));
        self.phase == CircuitPhase::Closed && since.is_some_and(|closed| closed >= self.stable_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sign_shows_the_phase() {
        let (sign, now) = (Arc::new(CircuitSign::default()), Instant::now());
        let mut circuit = Circuit::new(ms(100), ms(2000)).shown_by(sign.clone());
        assert_eq!(sign.label(), "closed");
        let until = circuit.fail(now, 1.0);
        assert_eq!(sign.label(), "open");
        assert!(circuit.may_try(until));
        assert_eq!(sign.label(), "half_open");
        circuit.succeed(until);
        assert_eq!(sign.label(), "closed");
        circuit.suspect(until + ms(5000), 1.0);
        assert_eq!(sign.label(), "open");
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn circuit() -> Circuit {
        Circuit::new(ms(100), ms(2000))
    }

    #[test]
    fn opens_half_opens_and_closes() {
        let (start, mut circuit) = (Instant::now(), circuit());
        assert!(circuit.may_try(start));
        let until = circuit.fail(start, 1.0);
        assert_eq!(until, start + ms(100));
        assert!(!circuit.may_try(start + ms(99)));
        assert_eq!(circuit.phase(), CircuitPhase::Open { until });
        assert!(circuit.may_try(until));
        assert_eq!(circuit.phase(), CircuitPhase::HalfOpen);
        circuit.succeed(until);
        assert_eq!(circuit.phase(), CircuitPhase::Closed);
    }

    #[test]
    fn delays_grow_to_the_maximum_and_start_again_only_after_a_stable_time() {
        let (mut now, mut circuit) = (Instant::now(), circuit());
        for expect in [100, 200, 400, 800, 1600, 2000, 2000] {
            let until = circuit.fail(now, 1.0);
            assert_eq!(until - now, ms(expect));
            now = until;
            assert!(circuit.may_try(now));
        }
        circuit.succeed(now);
        now += ms(1000);
        assert_eq!(circuit.fail(now, 1.0) - now, ms(2000), "it flapped: no fresh start");
        now += ms(2000);
        assert!(circuit.may_try(now));
        circuit.succeed(now);
        // Further successes do not move the instant at which it closed.
        circuit.succeed(now + ms(1900));
        now += ms(2000);
        assert_eq!(circuit.fail(now, 1.0) - now, ms(100));
        assert!(circuit.fail(now, 0.0) - now >= ms(100), "jitter takes at most a half of 200 ms");
    }

    #[test]
    fn a_first_suspicion_is_tried_at_once_and_a_second_waits() {
        let (start, mut circuit) = (Instant::now(), circuit());
        circuit.succeed(start);
        let stable = start + ms(5000);
        assert_eq!(circuit.suspect(stable, 1.0), stable);
        assert!(circuit.may_try(stable));
        assert_eq!(circuit.suspect(stable, 1.0), stable, "while the trial runs nothing changes");
        circuit.succeed(stable);
        assert_eq!(circuit.suspect(stable + ms(10), 1.0), stable + ms(110));
        assert_eq!(circuit.suspect(stable + ms(20), 1.0), stable + ms(110), "already open");
    }
}
