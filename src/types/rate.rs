//! Rates as token buckets: so many in a time, and so many at once after a pause.
//!
//! A bucket is kept as the tokens that were missing at an instant, so that it needs no refilling and follows a changed rate at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Buckets that one book remembers.
const ENTRIES_MAX: usize = 10_000;

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How often within `period`, on the average. At least 1.
    pub count: u32,
    /// The time in which it may happen that often.
    pub period: Duration,
    /// How often at once after a pause. At least 1.
    pub burst: u32,
}

impl Rate {
    fn per_second(&self) -> f64 {
        f64::from(self.count.max(1)) / self.period.as_secs_f64().max(0.001)
    }
}

/// One bucket, full at first.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenBucket {
    /// The tokens that were missing, or owed, and when.
    missing: Option<(f64, Instant)>,
}

impl TokenBucket {
    fn missing(&self, rate: &Rate, now: Instant) -> f64 {
        let Some((count, at)) = self.missing else { return 0.0 };
        (count - now.saturating_duration_since(at).as_secs_f64() * rate.per_second()).max(0.0)
    }

    /// How long until it holds `count` tokens, or is full if it never holds as many; zero if it does now.
    pub fn wait(&self, rate: &Rate, count: u32, now: Instant) -> Duration {
        let burst = rate.burst.max(1);
        let over = self.missing(rate, now) + f64::from(count.min(burst)) - f64::from(burst);
        // Less than this is no token but the rounding of clocks.
        if over < 1e-6 { Duration::ZERO } else { Duration::from_secs_f64(over / rate.per_second()) }
    }

    /// Takes `count` tokens out, also those that it does not hold yet: they are owed.
    pub fn take(&mut self, rate: &Rate, count: u32, now: Instant) {
        self.missing = Some((self.missing(rate, now) + f64::from(count), now));
    }
}

/// Buckets by name, bounded: when there are too many, the fullest are forgotten first.
#[derive(Debug)]
pub struct TokenBook<K> {
    buckets: Mutex<HashMap<K, TokenBucket>>,
}

impl<K> Default for TokenBook<K> {
    fn default() -> Self {
        TokenBook { buckets: Mutex::default() }
    }
}

impl<K: Hash + Eq + Clone> TokenBook<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, TokenBucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`TokenBucket::wait`] of this one.
    pub fn wait(&self, key: &K, (rate, count): (&Rate, u32), now: Instant) -> Duration {
        self.lock().get(key).copied().unwrap_or_default().wait(rate, count, now)
    }

    /// As [`TokenBucket::take`] from this one.
    pub fn take(&self, key: &K, (rate, count): (&Rate, u32), now: Instant) {
        let mut buckets = self.lock();
        if buckets.len() >= ENTRIES_MAX && !buckets.contains_key(key) {
            let missing = |bucket: &TokenBucket| bucket.missing(rate, now);
            buckets.retain(|_, bucket| missing(bucket) > 0.0);
            if buckets.len() >= ENTRIES_MAX {
                let fullest = buckets.iter().min_by(|(_, one), (_, two)| missing(one).total_cmp(&missing(two)));
                let fullest = fullest.map(|(key, _)| key.clone());
                fullest.map(|key| buckets.remove(&key));
            }
        }
        buckets.entry(key.clone()).or_default().take(rate, count, now);
    }

    /// Takes one token, or says how long until there is one.
    ///
    /// # Errors
    /// The time until there is one.
    pub fn admit(&self, key: &K, rate: &Rate, now: Instant) -> Result<(), Duration> {
        let wait = self.wait(key, (rate, 1), now);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.take(key, (rate, 1), now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { count: 10, period: Duration::from_secs(1), burst: 3 };

    fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[track_caller]
    fn close(found: Duration, expect: Duration) {
        assert!(found.abs_diff(expect) < Duration::from_micros(10), "{found:?} and not {expect:?}");
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let (mut bucket, start) = (TokenBucket::default(), Instant::now());
        for _ in 0..3 {
            assert_eq!(bucket.wait(&RATE, 1, start), ms(0));
            bucket.take(&RATE, 1, start);
        }
        close(bucket.wait(&RATE, 1, start), ms(100));
        close(bucket.wait(&RATE, 1, start + ms(99)), ms(1));
        assert_eq!(bucket.wait(&RATE, 1, start + ms(100)), ms(0));
        close(bucket.wait(&RATE, 3, start + ms(100)), ms(200));
        // An hour's pause gives no more than the burst.
        let later = start + Duration::from_secs(3600);
        bucket.take(&RATE, 3, later);
        close(bucket.wait(&RATE, 1, later), ms(100));
    }

    #[test]
    fn more_than_a_burst_needs_a_full_bucket_and_is_owed() {
        let (mut bucket, start) = (TokenBucket::default(), Instant::now());
        assert_eq!(bucket.wait(&RATE, 50, start), ms(0));
        bucket.take(&RATE, 50, start);
        close(bucket.wait(&RATE, 1, start), ms(4800));
        close(bucket.wait(&RATE, 50, start), ms(5000));
        // A higher rate counts from here on.
        let quick = Rate { count: 1000, ..RATE };
        close(bucket.wait(&quick, 1, start), ms(48));
        assert_eq!(bucket.wait(&quick, 1, start + ms(48)), ms(0));
    }

    #[test]
    fn a_book_is_bounded_and_keeps_the_emptiest() {
        let (book, start) = (TokenBook::default(), Instant::now());
        (0..3).for_each(|_| book.admit(&u32::MAX, &RATE, start).unwrap());
        close(book.admit(&u32::MAX, &RATE, start).unwrap_err(), ms(100));
        for key in 0..ENTRIES_MAX as u32 + 50 {
            book.admit(&key, &RATE, start).unwrap();
        }
        assert_eq!(book.lock().len(), ENTRIES_MAX);
        close(book.admit(&u32::MAX, &RATE, start).unwrap_err(), ms(100));
        book.admit(&1, &RATE, start + Duration::from_secs(9)).unwrap();
        book.admit(&u32::MAX, &RATE, start + Duration::from_secs(9)).unwrap();
    }
}
