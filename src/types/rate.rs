//! Rates as token buckets: so many in a time, and so many at once after a pause.
//!
//! A bucket is kept as the instant up to which its tokens are spent, so that it needs no refilling and follows a changed rate at once.

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
    /// The time that one happening takes up.
    fn each(&self) -> Duration {
        self.period / self.count.max(1)
    }
}

/// One bucket, full at first.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenBucket {
    /// The instant at which it is full again.
    full_at: Option<Instant>,
}

impl TokenBucket {
    fn spent(&self, now: Instant) -> Duration {
        self.full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    /// How long until it holds `count` tokens, or is full if it never holds as many; zero if it does now.
    pub fn wait(&self, rate: &Rate, count: u32, now: Instant) -> Duration {
        let room = rate.each() * rate.burst.max(1);
        (self.spent(now) + rate.each() * count.min(rate.burst.max(1))).saturating_sub(room)
    }

    /// Takes `count` tokens out, also those that it does not hold yet: they are owed.
    pub fn take(&mut self, rate: &Rate, count: u32, now: Instant) {
        self.full_at = Some(now + self.spent(now) + rate.each() * count);
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
            buckets.retain(|_, bucket| !bucket.spent(now).is_zero());
            if buckets.len() >= ENTRIES_MAX {
                let fullest = buckets.iter().min_by_key(|(_, bucket)| bucket.spent(now)).map(|(key, _)| key.clone());
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

    #[test]
    fn a_burst_and_then_the_rate() {
        let (mut bucket, start) = (TokenBucket::default(), Instant::now());
        for _ in 0..3 {
            assert_eq!(bucket.wait(&RATE, 1, start), ms(0));
            bucket.take(&RATE, 1, start);
        }
        assert_eq!(bucket.wait(&RATE, 1, start), ms(100));
        assert_eq!(bucket.wait(&RATE, 1, start + ms(99)), ms(1));
        assert_eq!(bucket.wait(&RATE, 1, start + ms(100)), ms(0));
        assert_eq!(bucket.wait(&RATE, 3, start + ms(100)), ms(200));
        // An hour's pause gives no more than the burst.
        let later = start + Duration::from_secs(3600);
        bucket.take(&RATE, 3, later);
        assert_eq!(bucket.wait(&RATE, 1, later), ms(100));
    }

    #[test]
    fn more_than_a_burst_needs_a_full_bucket_and_is_owed() {
        let (mut bucket, start) = (TokenBucket::default(), Instant::now());
        assert_eq!(bucket.wait(&RATE, 50, start), ms(0));
        bucket.take(&RATE, 50, start);
        assert_eq!(bucket.wait(&RATE, 1, start), ms(4800));
        assert_eq!(bucket.wait(&RATE, 50, start), ms(5000));
        // A higher rate counts from here on.
        let quick = Rate { count: 1000, ..RATE };
        assert_eq!(bucket.wait(&quick, 1, start + ms(5000)), ms(0));
    }

    #[test]
    fn a_book_is_bounded_and_keeps_the_emptiest() {
        let (book, start) = (TokenBook::default(), Instant::now());
        (0..3).for_each(|_| book.admit(&u32::MAX, &RATE, start).unwrap());
        assert_eq!(book.admit(&u32::MAX, &RATE, start), Err(ms(100)));
        for key in 0..ENTRIES_MAX as u32 + 50 {
            book.admit(&key, &RATE, start).unwrap();
        }
        assert_eq!(book.lock().len(), ENTRIES_MAX);
        assert_eq!(book.admit(&u32::MAX, &RATE, start), Err(ms(100)));
        book.admit(&1, &RATE, start + Duration::from_secs(9)).unwrap();
        book.admit(&u32::MAX, &RATE, start + Duration::from_secs(9)).unwrap();
    }
}
