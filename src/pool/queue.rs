//! The pool: idle connections, waiting sessions, and who gets what.

use super::expiry::expire_waiters;
use super::waiters::{Waiter, Waiters};
use super::{CheckoutError, Connector, HostPermits, PoolKey, PoolLimits, PoolStats, WaitSlot};
use crate::server::{ConnectError, ServerCard, ServerConnection, ServerTarget};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Connections that one pool makes at the same time, so that a burst of clients is not a log-in storm for the server.
pub(super) const CONNECTING_MAX: usize = 4;

#[derive(Debug)]
pub(super) struct PoolState {
    /// Idle connections by relay thread; the last returned is the first used.
    #[expect(clippy::vec_box, reason = "connections are handed on as boxes: moving one would copy it")]
    pub(super) idle: Vec<Vec<Box<ServerConnection>>>,
    /// Waiting sessions.
    pub(super) waiting: Waiters,
    pub(super) open: usize,
    pub(super) connecting: usize,
    /// Of the limits, what is asked for at every return.
    pub(super) size: usize,
    pub(super) max_age: Duration,
    /// A task looks after those who wait for too long.
    pub(super) expiring: bool,
    /// Connections opened before this are closed when they are returned.
    pub(super) valid_from: Instant,
    pub(super) closed: bool,
}

/// Server connections of one (host, database, role).
pub struct Pool {
    /// Which it is.
    pub key: PoolKey,
    connector: Connector,
    permits: Arc<HostPermits>,
    pub(super) limits: arc_swap::ArcSwap<PoolLimits>,
    state: Mutex<PoolState>,
    checkouts: AtomicU64,
    pub(super) timeouts: AtomicU64,
    overflows: AtomicU64,
    /// Told of every attempt to connect.
    observer: Observer,
}

/// Is told how an attempt to connect ended.
pub type Observer = Box<dyn Fn(Result<(), &ConnectError>) + Send + Sync>;

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("key", &self.key).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Pool {
    /// An empty pool that serves `workers` relay threads.
    pub fn new(
        key: PoolKey,
        connector: Connector,
        permits: Arc<HostPermits>,
        limits: PoolLimits,
        workers: usize,
        observer: Observer,
    ) -> Arc<Pool> {
        let state = PoolState {
            idle: (0..workers.max(1)).map(|_| Vec::new()).collect(),
            waiting: Waiters::new(workers),
            open: 0,
            connecting: 0,
            size: limits.size,
            max_age: limits.max_age,
            expiring: false,
            valid_from: Instant::now(),
            closed: false,
        };
        let pool = Arc::new(Pool {
            key,
            connector,
            permits,
            limits: arc_swap::ArcSwap::from_pointee(limits),
            state: Mutex::new(state),
            checkouts: AtomicU64::new(0),
            timeouts: AtomicU64::new(0),
            overflows: AtomicU64::new(0),
            observer,
        });
        pool.permits.join(&pool);
        pool
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idle connection, if there is one and nobody waits.
    pub fn try_checkout(&self, worker: usize) -> Option<Box<ServerConnection>> {
        let mut state = self.lock();
        if !state.waiting.is_empty() {
            return None;
        }
        let home = worker % state.idle.len();
        let found = state.idle[home].pop();
        let found = found.or_else(|| state.idle.iter_mut().find_map(Vec::pop));
        drop(state);
        if found.is_some() {
            self.checkouts.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    /// The idle connection with this id, if it is here and nobody waits.
    pub fn try_checkout_exactly(&self, id: u64) -> Option<Box<ServerConnection>> {
        let mut state = self.lock();
        if !state.waiting.is_empty() {
            return None;
        }
        let found = state.idle.iter_mut().find_map(|idle| {
            let place = idle.iter().position(|connection| connection.id == id)?;
            Some(idle.remove(place))
        });
        drop(state);
        if found.is_some() {
            self.checkouts.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    /// Waits for a connection: one that is returned, or a new one.
    ///
    /// # Errors
    /// See [`CheckoutError`].
    ///
    /// # Cancel safety
    /// A connection that was handed over and not taken goes back to the pool.
    pub async fn checkout(self: &Arc<Self>, slot: &Arc<WaitSlot>, worker: usize) -> Result<Box<ServerConnection>, CheckoutError> {
        if let Some(connection) = self.try_checkout(worker) {
            return Ok(connection);
        }
        let limits = self.limits.load();
        let ticket = slot.begin();
        let wait = PoolWait { pool: self, slot };
        let may_connect = {
            let mut state = self.lock();
            let waiting = state.waiting.len();
            if state.closed {
                return Err(CheckoutError::Closed);
            }
            if waiting >= limits.max_waiting {
                self.overflows.fetch_add(1, Ordering::Relaxed);
                let (host, role) = (self.key.host.clone(), self.key.role.clone());
                return Err(CheckoutError::TooManyWaiting { waiting, host, role });
            }
            state.waiting.push(worker, Waiter { slot: slot.clone(), ticket, since: Instant::now() });
            if !std::mem::replace(&mut state.expiring, true) {
                tokio::spawn(expire_waiters(Arc::downgrade(self)));
            }
            state.open < state.size
        };
        drop(limits);
        if may_connect {
            self.connect_for_waiters();
        }
        let outcome = std::future::poll_fn(|cx| slot.poll(cx)).await;
        drop(wait);
        if outcome.is_ok() {
            self.checkouts.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    /// Takes a connection back: hands it to a waiting session, keeps it idle, or closes it.
    pub fn give_back(self: &Arc<Self>, connection: Box<ServerConnection>) {
        self.give_back_at(connection, Instant::now());
    }

    /// The same, by one who knows what time it is.
    pub fn give_back_at(self: &Arc<Self>, mut connection: Box<ServerConnection>, now: Instant) {
        connection.returned = now;
        let mut state = self.lock();
        let max_age = state.max_age;
        let too_old = !max_age.is_zero() && now.saturating_duration_since(connection.opened) > max_age;
        let unwanted = state.closed || connection.opened < state.valid_from || state.open > state.size;
        if unwanted || too_old || !connection.is_clean() {
            drop(state);
            return self.discard(connection);
        }
        while let Some(waiter) = state.waiting.next(connection.worker, now) {
            match waiter.slot.fill(waiter.ticket, connection) {
                Ok(()) => return,
                Err(back) => connection = back,
            }
        }
        let home = connection.worker % state.idle.len();
        state.idle[home].push(connection);
    }

    /// Closes a connection and frees its place.
    pub fn discard(self: &Arc<Self>, connection: Box<ServerConnection>) {
        drop(connection);
        self.free_place();
    }

    fn free_place(self: &Arc<Self>) {
        self.lock().open -= 1;
        self.permits.release();
        self.connect_for_waiters();
        self.permits.wake_others(self);
    }

    /// Starts as many connections as waiting sessions can use and the limits allow. Needs a tokio run-time.
    pub(super) fn connect_for_waiters(self: &Arc<Self>) {
        loop {
            let (size, wanted) = {
                let mut state = self.lock();
                if state.open >= state.size || state.connecting >= CONNECTING_MAX || state.closed {
                    return;
                }
                state.waiting.retain(|waiter| waiter.slot.is_waiting(waiter.ticket));
                (state.size, state.waiting.len() > state.connecting)
            };
            if !wanted || !self.start_connecting(size) {
                return;
            }
        }
    }

    /// Starts one connection. False when there is no place for it or no run-time to make it in.
    pub(super) fn start_connecting(self: &Arc<Self>, size: usize) -> bool {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return false };
        let placed = self.permits.try_acquire() || (self.permits.reclaim_for(self) && self.permits.try_acquire());
        if !placed {
            return false;
        }
        {
            let mut state = self.lock();
            if state.open >= size || state.closed {
                drop(state);
                self.permits.release();
                return false;
            }
            state.open += 1;
            state.connecting += 1;
        }
        let place = ConnectingPlace { pool: self.clone(), done: false };
        runtime.spawn(place.connect(crate::metrics::worker_index().unwrap_or(0)));
        true
    }

    fn fail_waiters(&self, error: &Arc<ConnectError>) {
        let mut state = self.lock();
        // Somebody still holds a connection that will come back, and the server only said that it is full: waiting is right.
        if error.is_server_full() && state.open > 0 {
            return;
        }
        for waiter in state.waiting.drain() {
            waiter.slot.fail(waiter.ticket, CheckoutError::Connect(error.clone()));
        }
    }

    /// Closes one idle connection, the least recently used of the busiest thread. False when there is none.
    pub(super) fn close_one_idle(self: &Arc<Self>) -> bool {
        let mut state = self.lock();
        let Some(longest) = state.idle.iter_mut().max_by_key(|idle| idle.len()) else { return false };
        if longest.is_empty() {
            return false;
        }
        let connection = longest.remove(0);
        state.open -= 1;
        drop(state);
        drop(connection);
        self.permits.release();
        true
    }

    /// Applies new limits; connections over a smaller size are closed as they are returned.
    pub fn set_limits(self: &Arc<Self>, limits: PoolLimits) {
        {
            let mut state = self.lock();
            (state.size, state.max_age) = (limits.size, limits.max_age);
        }
        self.limits.store(Arc::new(limits));
        self.connect_for_waiters();
    }

    /// Where its connections lead.
    pub fn target(&self) -> Arc<ServerTarget> {
        self.connector.target.load_full()
    }

    /// The connections that nobody uses, each with the time since it was returned.
    pub fn idle_servers(&self) -> Vec<(ServerCard, Duration)> {
        let state = self.lock();
        state.idle.iter().flatten().map(|connection| (connection.card(), connection.returned.elapsed())).collect()
    }

    /// The figures of now.
    pub fn stats(&self) -> PoolStats {
        let state = self.lock();
        let first = state.waiting.oldest();
        PoolStats {
            size: self.limits.load().size,
            open: state.open,
            idle: state.idle.iter().map(Vec::len).sum(),
            connecting: state.connecting,
            waiting: state.waiting.len(),
            oldest_wait: first.map_or(Duration::ZERO, |since| since.elapsed()),
            checkouts: self.checkouts.load(Ordering::Relaxed),
            timeouts: self.timeouts.load(Ordering::Relaxed),
            overflows: self.overflows.load(Ordering::Relaxed),
        }
    }
}

/// A session's wait; ending it puts back what came too late.
struct PoolWait<'a> {
    pool: &'a Arc<Pool>,
    slot: &'a WaitSlot,
}

impl Drop for PoolWait<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.slot.end() {
            self.pool.give_back(connection);
        }
    }
}

/// A place that is taken while a connection is being made.
struct ConnectingPlace {
    pool: Arc<Pool>,
    done: bool,
}

impl ConnectingPlace {
    async fn connect(mut self, worker: usize) {
        match self.pool.connector.connect(worker).await {
            Ok(connection) => {
                self.done = true;
                self.pool.lock().connecting -= 1;
                (self.pool.observer)(Ok(()));
                self.pool.give_back(connection);
                self.pool.connect_for_waiters();
            }
            Err(error) => {
                (self.pool.observer)(Err(&error));
                let pool = self.pool.clone();
                drop(self);
                pool.fail_waiters(&Arc::new(error));
            }
        }
    }
}

impl Drop for ConnectingPlace {
    fn drop(&mut self) {
        if !self.done {
            let mut state = self.pool.lock();
            state.connecting -= 1;
            state.open -= 1;
            drop(state);
            self.pool.permits.release();
        }
    }
}
