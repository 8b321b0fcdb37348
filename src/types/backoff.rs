//! Exponential back-off with jitter.

use std::time::Duration;

/// Delays that double from a minimum to a maximum; each is spread by up to a half, so that many waiters do not march in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    minimum: Duration,
    maximum: Duration,
    failures: u32,
}

impl Backoff {
    /// A back-off that has not failed yet.
    pub fn new(minimum: Duration, maximum: Duration) -> Self {
        Backoff { minimum, maximum: maximum.max(minimum), failures: 0 }
    }

    /// The delay after one more failure. `jitter` is a random number in 0..1.
    pub fn next_delay(&mut self, jitter: f64) -> Duration {
        let doubled = self.minimum.saturating_mul(1u32.checked_shl(self.failures.min(30)).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        doubled.min(self.maximum).mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
    }

    /// Starts again at the minimum.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_maximum_and_starts_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let delays: Vec<u128> = (0..7).map(|_| backoff.next_delay(1.0).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 2000, 2000]);
        backoff.reset();
        assert_eq!(backoff.next_delay(0.0), Duration::from_millis(50));
        for _ in 0..200 {
            assert!(backoff.next_delay(0.5) <= Duration::from_secs(2));
        }
    }
}
