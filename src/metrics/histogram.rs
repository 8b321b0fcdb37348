//! Histograms of durations: log-linear buckets, fixed memory, a bounded error.
//!
//! Durations are cut to microseconds. The first eight buckets are one microsecond wide; from there on each doubling is cut into
//! eight, so a bucket is at most an eighth of its lower bound wide, up to 134 s. A bucket holds its upper bound and not its
//! lower one, as `le` means it, so the bounds shown to Prometheus (16 µs, 32 µs ... 67 s) count exactly.

use super::cells::Cells;
use std::sync::Arc;
use std::time::Duration;

/// Buckets per doubling, as a power of two.
const STEP_BITS: u32 = 3;
const STEPS: usize = 1 << STEP_BITS;
/// Durations over 2^27 µs (134 s) share the last bucket.
const LIMIT_BITS: u32 = 27;
/// Buckets with an upper bound.
const BOUNDED: usize = (LIMIT_BITS - STEP_BITS + 1) as usize * STEPS;
/// The sum stands behind the buckets, in nanoseconds.
const SUM: usize = BOUNDED + 1;

/// Exponents of the bounds that are shown to Prometheus, in microseconds: one per doubling. All bounds would be 200 series a histogram.
const SHOWN_BITS: std::ops::RangeInclusive<u32> = 4..=26;

/// How long things took. Clones record together.
#[derive(Clone, Debug)]
pub struct DurationHistogram {
    cells: Arc<Cells>,
}

impl DurationHistogram {
    pub(super) fn new(workers: usize) -> Self {
        DurationHistogram { cells: Arc::new(Cells::new(workers, SUM + 1)) }
    }

    /// Records one duration.
    #[inline]
    pub fn record(&self, duration: Duration) {
        // Of waiting there is none, nearly always.
        if duration.is_zero() {
            return self.cells.add(0, 1);
        }
        let nanos = duration.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(duration.subsec_nanos()));
        self.cells.add(bucket_of(nanos), 1);
        self.cells.add(SUM, nanos);
    }

    /// What has been recorded so far.
    pub fn snapshot(&self) -> HistogramSnapshot {
        debug_assert_eq!(self.cells.count(), SUM + 1);
        HistogramSnapshot { buckets: (0..SUM).map(|index| self.cells.sum(index)).collect(), sum_ns: self.cells.sum(SUM) }
    }
}

/// The state of a [`DurationHistogram`] at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramSnapshot {
    buckets: Box<[u64]>,
    sum_ns: u64,
}

impl HistogramSnapshot {
    /// How many durations were recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All durations together.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns)
    }

    /// The duration that the share `quantile` (0 to 1) of the records does not exceed, at most an eighth or 1 µs too high; `None` if
    /// there are no records. What lies beyond the last bound is reported as the last bound, 134 s.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let count = self.count();
        let rank = ((count as f64 * quantile.clamp(0.0, 1.0)).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        let index = self.buckets.iter().position(|bucket| {
            seen += bucket;
            seen >= rank
        })?;
        Some(Duration::from_micros(upper_bound_us(index.min(BOUNDED - 1))))
    }

    /// Adds another histogram's records.
    pub fn merge(&mut self, other: &HistogramSnapshot) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(mine, theirs)| *mine += theirs);
        self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
    }

    /// The cumulative counts shown to Prometheus: (upper bound in seconds, records up to it), without the infinite one.
    pub(super) fn shown(&self) -> impl Iterator<Item = (f64, u64)> {
        let (mut next, mut seen) = (0, 0);
        SHOWN_BITS.map(move |bits| {
            let bound_us = 1u64 << bits;
            while upper_bound_us(next) <= bound_us {
                seen += self.buckets[next];
                next += 1;
            }
            (bound_us as f64 / 1e6, seen)
        })
    }
}

/// The bucket of a duration in nanoseconds.
#[inline]
fn bucket_of(nanos: u64) -> usize {
    // One less than the microseconds rounded up: a bucket then holds its upper bound and not its lower one.
    let micros = nanos.div_ceil(1000).saturating_sub(1);
    if micros < STEPS as u64 {
        return micros as usize;
    }
    let exponent = micros.ilog2();
    if exponent >= LIMIT_BITS {
        return BOUNDED;
    }
    let step = (micros >> (exponent - STEP_BITS)) as usize & (STEPS - 1);
    (exponent - STEP_BITS + 1) as usize * STEPS + step
}

/// The upper bound of a bounded bucket, in microseconds.
fn upper_bound_us(index: usize) -> u64 {
    let (doubling, step) = (index / STEPS, (index % STEPS) as u64);
    match doubling {
        0 => step + 1,
        _ => (STEPS as u64 + step + 1) << (doubling - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn recorded(durations: &[Duration]) -> HistogramSnapshot {
        let histogram = DurationHistogram::new(1);
        durations.iter().for_each(|duration| histogram.record(*duration));
        histogram.snapshot()
    }

    #[test]
    fn bounds_belong_to_the_bucket_below_them() {
        for (nanos, expect_us) in [
            (0, 1),
            (1, 1),
            (1000, 1),
            (1001, 2),
            (8000, 8),
            (8001, 9),
            (16_000, 16),
            (16_001, 18),
            (18_000, 18),
            (1_024_000, 1024),
            (1_024_001, 1152),
            (134_217_728_000, 134_217_728),
        ] {
            assert_eq!(upper_bound_us(bucket_of(nanos)), expect_us, "{nanos} ns");
        }
        for nanos in [134_217_728_001, u64::MAX] {
            assert_eq!(bucket_of(nanos), BOUNDED);
        }
    }

    proptest! {
        #[test]
        fn a_bucket_is_at_most_an_eighth_wide(nanos in 1u64..134_217_728_000) {
            let index = bucket_of(nanos);
            let upper = upper_bound_us(index) * 1000;
            let lower = if index == 0 { 0 } else { upper_bound_us(index - 1) * 1000 };
            prop_assert!(lower < nanos && nanos <= upper);
            prop_assert!(upper - lower <= (lower / 8).max(1000));
        }
    }

    #[test]
    fn prometheus_sees_exact_cumulative_counts() {
        let us = Duration::from_micros;
        let snapshot = recorded(&[us(3), us(16), us(17), us(32), us(33), Duration::from_secs(1000)]);
        let shown: Vec<(f64, u64)> = snapshot.shown().collect();
        assert_eq!(shown[..3], [(0.000016, 2), (0.000032, 4), (0.000064, 5)]);
        assert_eq!(*shown.last().unwrap(), (67.108864, 5));
        assert_eq!(shown.len(), 23);
        assert_eq!(snapshot.count(), 6);
        assert_eq!(snapshot.sum(), us(101) + Duration::from_secs(1000));
    }

    #[test]
    fn quantiles_are_close_and_never_too_low() {
        assert_eq!(recorded(&[]).quantile(0.5), None);
        let snapshot = recorded(&(1..=1000).map(Duration::from_micros).collect::<Vec<_>>());
        for (quantile, exact_us) in [(0.0, 1), (0.001, 1), (0.5, 500), (0.99, 990), (1.0, 1000), (7.0, 1000), (f64::NAN, 1)] {
            let found = snapshot.quantile(quantile).unwrap().as_micros();
            assert!((exact_us..=exact_us + exact_us / 8).contains(&found), "{quantile}: {found}");
        }
        assert_eq!(recorded(&[Duration::MAX]).quantile(0.5), Some(Duration::from_micros(1 << LIMIT_BITS)));
    }

    #[test]
    fn merging_adds_records() {
        let mut left = recorded(&[Duration::from_millis(1)]);
        left.merge(&recorded(&[Duration::from_millis(3), Duration::from_millis(4)]));
        assert_eq!((left.count(), left.sum()), (3, Duration::from_millis(8)));
    }
}
