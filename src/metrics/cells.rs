//! Rows of numbers, one row per worker thread, that are summed when somebody asks.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    /// Which row this thread owns; `usize::MAX` is none: the shared one.
    static WORKER: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Says that this thread is worker `index` (0-based) from now on, so that it counts in a row of its own.
///
/// Two threads that count in the same registry must not share an index: they would lose counts (never more than that). An index
/// that is not below the registry's number of workers is harmless: such threads use the shared row, as all others do.
pub fn set_worker(index: usize) {
    WORKER.set(index);
}

/// Which worker this thread is, if it is one.
pub fn worker_index() -> Option<usize> {
    Some(WORKER.get()).filter(|index| *index != usize::MAX)
}

/// Cells of a [`Line`].
const LINE_CELLS: usize = 16;

/// Two cache lines: the hardware fetches lines in pairs, so a row that begins on such a pair never shares one with a neighbour.
#[repr(align(128))]
#[derive(Debug)]
struct Line([AtomicU64; LINE_CELLS]);

/// A row of `count` cells for each worker, and one row that all other threads share.
#[derive(Debug)]
pub(super) struct Cells {
    lines: Box<[Line]>,
    lines_per_row: usize,
    workers: usize,
    count: usize,
}

impl Cells {
    pub(super) fn new(workers: usize, count: usize) -> Self {
        let lines_per_row = count.div_ceil(LINE_CELLS);
        let line = || Line(std::array::from_fn(|_| AtomicU64::new(0)));
        let lines = std::iter::repeat_with(line).take((workers + 1) * lines_per_row).collect();
        Cells { lines, lines_per_row, workers, count }
    }

    /// Adds to the cell `index` of this thread's row, wrapping.
    #[inline]
    pub(super) fn add(&self, index: usize, amount: u64) {
        let worker = WORKER.get();
        if worker < self.workers {
            // Only this thread writes to this row, so a load and a store are an addition, without a locked instruction.
            let cell = self.cell(worker, index);
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
        } else {
            self.cell(self.workers, index).fetch_add(amount, Ordering::Relaxed);
        }
    }

    /// The cell summed over all rows, wrapping: a thread may have taken away what another had added.
    pub(super) fn sum(&self, index: usize) -> u64 {
        (0..=self.workers).fold(0, |sum, row| sum.wrapping_add(self.cell(row, index).load(Ordering::Relaxed)))
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    #[inline]
    fn cell(&self, row: usize, index: usize) -> &AtomicU64 {
        &self.lines[row * self.lines_per_row + index / LINE_CELLS].0[index % LINE_CELLS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_and_others_add_up() {
        let cells = Cells::new(3, 40);
        std::thread::scope(|scope| {
            for worker in 0..5 {
                let cells = &cells;
                scope.spawn(move || {
                    // Workers 3 and 4 are more than the cells were made for, and one thread below names none.
                    set_worker(worker);
                    for index in 0..40 {
                        for _ in 0..1000 {
                            cells.add(index, index as u64);
                        }
                    }
                });
            }
            scope.spawn(|| (0..40).for_each(|index| cells.add(index, 1)));
        });
        for index in 0..40 {
            assert_eq!(cells.sum(index), 5000 * index as u64 + 1);
        }
    }

    #[test]
    fn a_row_starts_on_its_own_pair_of_cache_lines() {
        assert_eq!(std::mem::align_of::<Line>(), 128);
        assert_eq!(std::mem::size_of::<Line>(), 128);
        assert_eq!(Cells::new(2, 17).lines.len(), 6);
    }
}
