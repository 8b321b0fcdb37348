//! The cap on connections to one host, all its pools together.

use super::Pool;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Counts a host's connections and lets a starved pool take the place of another's idle connection.
#[derive(Debug)]
pub struct HostPermits {
    maximum: AtomicUsize,
    open: AtomicUsize,
    pools: Mutex<Vec<Weak<Pool>>>,
}

impl HostPermits {
    /// A host that takes `maximum` connections.
    pub fn new(maximum: usize) -> Self {
        HostPermits { maximum: AtomicUsize::new(maximum.max(1)), open: AtomicUsize::new(0), pools: Mutex::default() }
    }

    /// Changes the cap; connections over it are not closed, but no new one is opened.
    pub fn set_maximum(&self, maximum: usize) {
        self.maximum.store(maximum.max(1), Ordering::Relaxed);
    }

    /// Connections that exist or are being made.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn join(&self, pool: &Arc<Pool>) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|known| known.strong_count() > 0);
        pools.push(Arc::downgrade(pool));
    }

    pub(super) fn try_acquire(&self) -> bool {
        let maximum = self.maximum.load(Ordering::Relaxed);
        self.open.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |open| (open < maximum).then_some(open + 1)).is_ok()
    }

    pub(super) fn release(&self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
    }

    fn pools(&self) -> Vec<Arc<Pool>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
    }

    fn others(&self, than: &Pool) -> Vec<Arc<Pool>> {
        let mut pools = self.pools();
        pools.retain(|pool| !std::ptr::eq(&**pool, than));
        pools
    }

    /// Closes an idle connection of another pool, so that its place is free. False when there is none.
    pub(super) fn reclaim_for(&self, pool: &Pool) -> bool {
        self.others(pool).iter().any(|other| other.close_one_idle())
    }

    /// A place is free: the other pools may have waiters who can use it.
    pub(super) fn wake_others(&self, pool: &Pool) {
        for other in self.others(pool) {
            other.connect_for_waiters();
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
        (permits.try_acquire() || reclaimed()).then(|| HostPlace(permits.clone()))
    }
}

impl Drop for HostPlace {
    fn drop(&mut self) {
        self.0.release();
        self.0.pools().iter().for_each(Pool::connect_for_waiters);
    }
}
