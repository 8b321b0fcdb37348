//! Counters and gauges. Handles are cheap to clone; clones count together.

use super::cells::Cells;
use std::sync::Arc;

/// A number that only grows.
#[derive(Clone, Debug)]
pub struct Counter {
    cells: Arc<Cells>,
    index: usize,
}

impl Counter {
    pub(super) fn new(cells: Arc<Cells>, index: usize) -> Self {
        Counter { cells, index }
    }

    /// Counts `amount` more.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.cells.add(self.index, amount);
    }

    /// Counts one more.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// What all threads have counted so far.
    pub fn get(&self) -> u64 {
        self.cells.sum(self.index)
    }
}

/// A number that goes up and down by steps, from any thread: clients connected, sessions waiting. A value that is known as a
/// whole is not kept here but read at scrape time ([`super::Scrape::gauge`]).
#[derive(Clone, Debug)]
pub struct Gauge {
    cells: Arc<Cells>,
    index: usize,
}

impl Gauge {
    pub(super) fn new(cells: Arc<Cells>, index: usize) -> Self {
        Gauge { cells, index }
    }

    /// Goes up by `amount`, down if it is negative.
    #[inline]
    pub fn add(&self, amount: i64) {
        self.cells.add(self.index, amount.cast_unsigned());
    }

    /// Goes up by one until the guard is dropped, whichever way the holder ends.
    #[must_use = "the gauge goes down again when this is dropped"]
    pub fn hold(&self) -> GaugeHold {
        self.add(1);
        GaugeHold { gauge: self.clone() }
    }

    /// The sum of all threads' steps.
    pub fn get(&self) -> i64 {
        self.cells.sum(self.index).cast_signed()
    }
}

/// One unit of a [`Gauge`], given back on drop.
#[derive(Debug)]
pub struct GaugeHold {
    gauge: Gauge,
}

impl Drop for GaugeHold {
    fn drop(&mut self) {
        self.gauge.add(-1);
    }
}

#[cfg(test)]
mod tests {
    use super::super::set_worker;
    use super::*;

    #[test]
    fn a_gauge_may_go_down_on_another_thread() {
        let gauge = Gauge::new(Arc::new(Cells::new(2, 1)), 0);
        let held: Vec<GaugeHold> = std::thread::scope(|scope| {
            let up = scope.spawn(|| {
                set_worker(0);
                (0..5).map(|_| gauge.hold()).collect()
            });
            up.join().unwrap()
        });
        assert_eq!(gauge.get(), 5);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                set_worker(1);
                drop(held);
                gauge.add(-2);
            });
        });
        assert_eq!(gauge.get(), -2);
    }

    #[test]
    fn clones_of_a_counter_count_together() {
        let counter = Counter::new(Arc::new(Cells::new(1, 8)), 7);
        counter.clone().add(41);
        counter.increment();
        assert_eq!(counter.get(), 42);
    }
}
