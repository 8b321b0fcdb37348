//! The sessions that wait at a pool, and whose turn it is.

use super::WaitSlot;
use crate::runtime::prefetch;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A waiter of another relay thread goes first if it has waited this much longer: a hand-off within a thread is cheaper, but
/// must not starve the others.
const FOREIGN_HEAD_START: Duration = Duration::from_millis(1);

/// One waiting session.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) slot: Arc<WaitSlot>,
    pub(super) ticket: u64,
    pub(super) since: Instant,
}

/// A queue for each relay thread, and how many wait in all: usually nobody, which is asked at every checkout and every return.
#[derive(Debug)]
pub(super) struct Waiters {
    queues: Box<[VecDeque<Waiter>]>,
    count: usize,
}

impl Waiters {
    /// Nobody, at a pool that serves `threads` relay threads.
    pub(super) fn new(threads: usize) -> Self {
        Waiters { queues: (0..threads.max(1)).map(|_| VecDeque::new()).collect(), count: 0 }
    }

    /// Whether nobody waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// One more, of this thread.
    pub(super) fn push(&mut self, thread: usize, waiter: Waiter) {
        self.queues[thread % self.queues.len()].push_back(waiter);
        self.count += 1;
    }

    /// Who is next to get a connection of this thread: its own first waiter, unless one of another thread has waited much longer.
    #[inline]
    pub(super) fn next(&mut self, thread: usize, now: Instant) -> Option<Waiter> {
        if self.count == 0 { None } else { self.next_of_all(thread, now) }
    }

    #[inline(never)]
    fn next_of_all(&mut self, thread: usize, now: Instant) -> Option<Waiter> {
        let home = thread % self.queues.len();
        let age = |queue: &VecDeque<Waiter>| queue.front().map(|waiter| now.saturating_duration_since(waiter.since));
        let local = age(&self.queues[home]);
        let foreign = (0..self.queues.len()).filter(|index| *index != home).max_by_key(|index| age(&self.queues[*index]));
        let from = match (local, foreign) {
            (Some(local), Some(other)) if age(&self.queues[other]) > Some(local + FOREIGN_HEAD_START) => other,
            (Some(_), _) => home,
            (None, Some(other)) => other,
            (None, None) => return None,
        };
        let queue = &mut self.queues[from];
        let waiter = queue.pop_front();
        self.count -= usize::from(waiter.is_some());
        if let Some(next) = queue.front() {
            prefetch(&*next.slot);
        }
        waiter
    }

    /// Since when the first of them has waited.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.queues.iter().filter_map(VecDeque::front).map(|waiter| waiter.since).min()
    }

    /// One of this thread, who began to wait at this instant, waits no more. They stand in the order of their beginnings.
    pub(super) fn leave(&mut self, thread: usize, since: Instant, is: impl Fn(&Waiter) -> bool) {
        let queue = &mut self.queues[thread % self.queues.len()];
        let first = queue.partition_point(|waiter| waiter.since < since);
        if let Some(place) = (first..queue.len()).find(|place| is(&queue[*place])) {
            queue.remove(place);
            self.count -= 1;
        }
    }

    /// From the one that has waited longest on, queue by queue: takes out those that `ends` says.
    pub(super) fn end_while(&mut self, mut ends: impl FnMut(&Waiter) -> bool) {
        for queue in &mut self.queues {
            while queue.pop_front_if(|waiter| ends(waiter)).is_some() {
                self.count -= 1;
            }
        }
    }

    /// Takes all of them out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Waiter> {
        self.count = 0;
        self.queues.iter_mut().flat_map(|queue| queue.drain(..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waiters of the threads 0 to 2, each as long before `now` as is said.
    fn waiters(now: Instant, of: &[(usize, u64)]) -> Waiters {
        let mut waiters = Waiters::new(3);
        for (ticket, (thread, age)) in of.iter().enumerate() {
            let since = now - Duration::from_millis(*age);
            waiters.push(*thread, Waiter { slot: Arc::default(), ticket: ticket as u64, since });
        }
        waiters
    }

    fn order(thread: usize, of: &[(usize, u64)]) -> Vec<u64> {
        let now = Instant::now();
        let mut waiters = waiters(now, of);
        let order: Vec<u64> = std::iter::from_fn(|| waiters.next(thread, now)).map(|waiter| waiter.ticket).collect();
        assert!(waiters.is_empty() && waiters.oldest().is_none());
        order
    }

    #[test]
    fn the_own_thread_goes_first_unless_another_has_waited_much_longer() {
        assert_eq!(order(0, &[]), [0; 0]);
        assert_eq!(order(0, &[(0, 30), (0, 20), (0, 10)]), [0, 1, 2]);
        assert_eq!(order(0, &[(1, 10), (0, 9)]), [1, 0]);
        assert_eq!(order(0, &[(1, 10), (0, 2)]), [0, 1]);
        assert_eq!(order(0, &[(1, 10), (2, 12)]), [1, 0]);
        assert_eq!(order(5, &[(1, 10), (2, 10), (0, 11)]), [1, 2, 0]);
    }

    #[test]
    fn the_count_is_that_of_the_queues() {
        let now = Instant::now();
        let mut all = waiters(now, &[(0, 9), (0, 8), (1, 7), (2, 6), (2, 5)]);
        assert_eq!((all.len(), all.oldest()), (5, Some(now - Duration::from_millis(9))));
        all.leave(0, now - Duration::from_millis(8), |waiter| waiter.ticket == 1);
        assert_eq!(all.len(), 4);
        all.leave(0, now - Duration::from_millis(8), |waiter| waiter.ticket == 1);
        assert_eq!(all.len(), 4, "it has left already");
        all.end_while(|waiter| waiter.ticket != 4);
        assert_eq!(all.len(), 1);
        assert_eq!(all.drain().map(|waiter| waiter.ticket).collect::<Vec<_>>(), [4]);
        assert!(all.is_empty() && all.next(0, now).is_none());
    }
}
