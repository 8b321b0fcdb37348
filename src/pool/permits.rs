//! The cap on connections to one host, all its pools together, and who gets a place when there are too few.

use super::Pool;
use super::share::{PlaceDemand, shares};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Log-ins to one host at once, all its pools together: after its restart everybody wants in.
const LOGGING_IN_MAX: usize = 32;
/// A pool that has its share asks for more at most this often.
const BALANCE_INTERVAL: Duration = Duration::from_millis(5);

/// Counts a host's connections. While it has fewer places than its pools want, each pool has a quota: what is over it is closed when it is
/// returned, and its place goes to a pool that has less.
#[derive(Debug)]
pub struct HostPermits {
    maximum: AtomicUsize,
    /// Connections that exist or are being made.
    open: AtomicUsize,
    /// Of these, the ones that belong to no pool.
    outside: AtomicUsize,
    /// Connections of pools that are being made.
    logging_in: AtomicUsize,
    /// Some pool could not have a place. Kept in one order with `open`, so that either who frees a place sees this, or who wants one sees it.
    contended: AtomicBool,
    books: Mutex<HostBooks>,
}

#[derive(Debug, Default)]
struct HostBooks {
    pools: Vec<Weak<Pool>>,
    balanced: Option<Instant>,
}

impl HostPermits {
    /// A host that takes `maximum` connections.
    pub fn new(maximum: usize) -> Self {
        HostPermits {
            maximum: AtomicUsize::new(maximum.max(1)),
            open: AtomicUsize::new(0),
            outside: AtomicUsize::new(0),
            logging_in: AtomicUsize::new(0),
            contended: AtomicBool::new(false),
            books: Mutex::default(),
        }
    }

    /// Changes the cap. Connections over it are not closed at once, but as they are returned while others want their places.
    pub fn set_maximum(&self, maximum: usize) {
        if self.maximum.swap(maximum.max(1), Ordering::SeqCst) != maximum.max(1) {
            self.place_is_free();
        }
    }

    /// Connections that exist or are being made.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, HostBooks> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn join(&self, pool: &Arc<Pool>) {
        let mut books = self.lock();
        books.pools.retain(|known| known.strong_count() > 0);
        books.pools.push(Arc::downgrade(pool));
    }

    fn try_acquire(&self) -> bool {
        let maximum = self.maximum.load(Ordering::SeqCst);
        self.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |open| (open < maximum).then_some(open + 1)).is_ok()
    }

    /// A place for a connection that is made now; [`HostPermits::logged_in`] says when it is.
    pub(super) fn try_begin(&self) -> bool {
        let begin = |count: usize| (count < LOGGING_IN_MAX).then_some(count + 1);
        if self.logging_in.fetch_update(Ordering::SeqCst, Ordering::SeqCst, begin).is_err() {
            return false;
        }
        let placed = self.try_acquire();
        if !placed {
            self.logging_in.fetch_sub(1, Ordering::SeqCst);
        }
        placed
    }

    /// A connection is made, or could not be.
    pub(super) fn logged_in(&self) {
        self.logging_in.fetch_sub(1, Ordering::SeqCst);
    }

    /// Frees a place, without telling anybody: see [`HostPermits::place_is_free`].
    pub(super) fn release(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    /// A place is free, or a log-in has ended: pools that wait for that go on.
    pub(super) fn place_is_free(&self) {
        if self.is_contended() {
            self.balance();
        }
    }

    /// Whether some pool could not have a place and may still want it.
    pub(super) fn is_contended(&self) -> bool {
        self.contended.load(Ordering::SeqCst)
    }

    /// A pool wants a place and there is none.
    pub(super) fn contend(&self) {
        self.contended.store(true, Ordering::SeqCst);
        self.balance();
    }

    /// A pool wants more than its share: it may have grown.
    pub(super) fn ask_again(&self) {
        if self.lock().balanced.is_none_or(|at| at.elapsed() >= BALANCE_INTERVAL) {
            self.balance();
        }
    }

    fn pools(&self) -> Vec<Arc<Pool>> {
        self.lock().pools.iter().filter_map(Weak::upgrade).collect()
    }

    /// Shares the places out anew, closes idle connections that others need the places of, and has those pools go on that may.
    fn balance(&self) {
        let now = Instant::now();
        let mut books = self.lock();
        books.balanced = Some(now);
        let mut pools: Vec<(Arc<Pool>, PlaceDemand)> =
            books.pools.iter().filter_map(Weak::upgrade).map(|pool| (pool.demand(now), pool)).map(|(d, p)| (p, d)).collect();
        // Who has waited longest for a place goes first.
        pools.sort_by_key(|(_, demand)| demand.granted);
        let demands: Vec<PlaceDemand> = pools.iter().map(|(_, demand)| *demand).collect();
        let maximum = self.maximum.load(Ordering::SeqCst);
        let shares = shares(maximum.saturating_sub(self.outside.load(Ordering::SeqCst)), &demands, now);
        self.contended.store(demands.iter().any(PlaceDemand::is_short), Ordering::SeqCst);
        let mut missing = 0;
        for ((pool, demand), share) in pools.iter().zip(&shares) {
            pool.set_quota((demand.wanted() > *share).then_some(*share));
            missing += (*share).min(demand.wanted()).saturating_sub(demand.open);
        }
        drop(books);
        let free = maximum.saturating_sub(self.open.load(Ordering::SeqCst));
        let mut missing = missing.saturating_sub(free);
        for ((pool, demand), share) in pools.iter().zip(&shares) {
            let mut over = demand.open.saturating_sub(*share);
            while missing > 0 && over > 0 && pool.close_one_idle() {
                (missing, over) = (missing - 1, over - 1);
            }
        }
        for (pool, _) in pools.iter().filter(|(_, demand)| demand.is_short()) {
            pool.open_for_waiters();
        }
    }
}

/// The place of a connection that no pool holds; dropping it frees the place.
#[derive(Debug)]
pub struct HostPlace(Arc<HostPermits>);

impl HostPlace {
    /// A place on the host, if need be that of an idle connection; `None` when all are in use.
    pub fn take(permits: &Arc<HostPermits>) -> Option<HostPlace> {
        let reclaimed = || permits.pools().iter().any(|pool| pool.close_one_idle()) && permits.try_acquire();
        (permits.try_acquire() || reclaimed()).then(|| {
            permits.outside.fetch_add(1, Ordering::SeqCst);
            HostPlace(permits.clone())
        })
    }
}

impl Drop for HostPlace {
    fn drop(&mut self) {
        self.0.outside.fetch_sub(1, Ordering::SeqCst);
        self.0.release();
        self.0.place_is_free();
    }
}
