//! The pool: idle connections, waiting sessions, and who gets what.

use super::expiry::expire_waiters;
use super::waiters::{Waiter, Waiters};
use super::{CheckoutError, Connector, HostPermits, PoolKey, PoolLimits, PoolStats, PoolWait, Turn, WaitSlot};
use crate::server::{ConnectError, ServerCard, ServerConnection, ServerTarget};
use std::hint::cold_path;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct PoolState {
    /// Idle connections by relay thread; the last returned is the first used.
    #[expect(clippy::vec_box, reason = "connections are handed on as boxes: moving one would copy it")]
    pub(super) idle: Vec<Vec<Box<ServerConnection>>>,
    /// Waiting sessions.
    pub(super) waiting: Waiters,
    pub(super) open: usize,
    pub(super) connecting: usize,
    /// Connections that sessions were given.
    checkouts: u64,
    /// Most connections.
    pub(super) size: usize,
    /// As many, or fewer while other pools of the host have a right to their places.
    pub(super) quota: usize,
    pub(super) max_age: Duration,
    /// When it was last given a place.
    pub(super) granted: Option<Instant>,
    /// After a failure to connect none is made but for those who wait.
    pub(super) idle_after: Option<Instant>,
    /// A task looks after those who wait for too long.
    pub(super) expiring: bool,
    /// Connections that were found good before this are looked at when they are returned.
    pub(super) valid_from: Instant,
    /// Connections opened before this are closed when they are returned.
    pub(super) renewed: Instant,
    /// The addresses that the host's name stands for, once they have changed.
    pub(super) addresses: Option<Arc<[IpAddr]>>,
    pub(super) closed: bool,
}

impl PoolState {
    /// How many are idle.
    pub(super) fn idle(&self) -> usize {
        self.idle.iter().map(Vec::len).sum()
    }

    /// An idle connection, one of this thread if possible, and one that is not kept for another session.
    fn take_idle(&mut self, worker: usize) -> Option<Box<ServerConnection>> {
        let home = worker % self.idle.len();
        take_free(&mut self.idle[home]).or_else(|| self.idle.iter_mut().find_map(take_free))
    }

    /// The connection that has been kept longest: its session may not come back for it.
    pub(super) fn take_kept(&mut self) -> Option<Box<ServerConnection>> {
        let longest = self.idle.iter_mut().filter(|idle| !idle.is_empty()).min_by_key(|idle| idle.last().map(|c| c.returned))?;
        longest.pop()
    }

    /// Puts a connection to the idle ones. Those that are kept for a session lie below all others.
    fn put_idle(&mut self, connection: Box<ServerConnection>) {
        let home = connection.worker % self.idle.len();
        let place = if connection.is_kept { 0 } else { self.idle[home].len() };
        self.idle[home].insert(place, connection);
    }

    /// Whether a connection from before `valid_from` may stay: it is of no earlier server, and leads where the name leads today.
    pub(super) fn revalidate(&self, connection: &mut ServerConnection, now: Instant) -> bool {
        let stands = |addresses: &Arc<[IpAddr]>| connection.peer.is_none_or(|peer| addresses.contains(&peer));
        let stays = connection.opened >= self.renewed && self.addresses.as_ref().is_none_or(stands);
        connection.valid = now;
        stays
    }
}

/// Server connections of one (host, database, role).
pub struct Pool {
    /// Which it is.
    pub key: PoolKey,
    pub(super) connector: Connector,
    pub(super) permits: Arc<HostPermits>,
    pub(super) limits: arc_swap::ArcSwap<PoolLimits>,
    state: Mutex<PoolState>,
    /// Connections have been kept for their sessions.
    keeps: AtomicBool,
    pub(super) timeouts: AtomicU64,
    overflows: AtomicU64,
    /// Told of every attempt to connect.
    pub(super) observer: Observer,
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
        let now = Instant::now();
        let state = PoolState {
            idle: (0..workers.max(1)).map(|_| Vec::new()).collect(),
            waiting: Waiters::new(workers),
            open: 0,
            connecting: 0,
            checkouts: 0,
            size: limits.size,
            quota: limits.size,
            max_age: limits.max_age,
            granted: None,
            idle_after: None,
            expiring: false,
            valid_from: now,
            renewed: now,
            addresses: None,
            closed: false,
        };
        let pool = Arc::new(Pool {
            key,
            connector,
            permits,
            limits: arc_swap::ArcSwap::from_pointee(limits),
            state: Mutex::new(state),
            keeps: AtomicBool::new(false),
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
        let found = state.take_idle(worker);
        state.checkouts += u64::from(found.is_some());
        found
    }

    /// Whether it has as many connections as it may have: who finds none idle has to wait for one that is returned.
    pub fn is_full(&self) -> bool {
        let state = self.lock();
        state.open >= state.size
    }

    /// The idle connection with this id, if it is here and either nobody waits or it is kept from those who do.
    pub fn try_checkout_exactly(&self, id: u64) -> Option<Box<ServerConnection>> {
        let mut state = self.lock();
        let free = state.waiting.is_empty();
        let found = state.idle.iter_mut().find_map(|idle| {
            let place = idle.iter().position(|connection| connection.id == id)?;
            let may_go = free || idle[place].is_kept;
            may_go.then(|| idle.remove(place))
        });
        state.checkouts += u64::from(found.is_some());
        found
    }

    /// Whether the idle connections, of which there are some, are all kept for sessions, and a new one may be made instead.
    fn opens_beside_kept(self: &Arc<Self>) -> bool {
        if !self.keeps.load(Ordering::Relaxed) {
            return false;
        }
        let only_kept = {
            let state = self.lock();
            let all_kept = state.idle.iter().all(|idle| idle.last().is_none_or(|connection| connection.is_kept));
            all_kept && state.waiting.is_empty() && state.idle() > 0 && state.connecting == 0 && state.open < state.quota
        };
        only_kept && self.open_idle()
    }

    /// Waits for a connection: one that is returned, or a new one.
    ///
    /// # Errors
    /// See [`CheckoutError`].
    ///
    /// # Cancel safety
    /// A connection that was handed over and not taken goes back to the pool.
    pub async fn checkout(self: &Arc<Self>, slot: &Arc<WaitSlot>, worker: usize) -> Result<Box<ServerConnection>, CheckoutError> {
        match self.line_up(slot, worker)? {
            Turn::Now(connection) => Ok(connection),
            Turn::Later(mut wait) => std::future::poll_fn(|cx| wait.poll(cx)).await,
        }
    }

    /// An idle connection, or a place in the queue of those who wait for one.
    ///
    /// # Errors
    /// The pool is closed, or too many wait.
    pub fn line_up(self: &Arc<Self>, slot: &Arc<WaitSlot>, worker: usize) -> Result<Turn, CheckoutError> {
        let max_waiting = self.limits.load().max_waiting;
        let opens = self.opens_beside_kept();
        let (wait, may_connect) = {
            let mut state = self.lock();
            let waiting = state.waiting.len();
            // Looked at under the lock under which the session begins to wait: what is returned in between would wait as well.
            if waiting == 0
                && let Some(connection) = state.take_idle(worker).or_else(|| if opens { None } else { state.take_kept() })
            {
                state.checkouts += 1;
                return Ok(Turn::Now(connection));
            }
            if state.closed {
                return Err(CheckoutError::Closed);
            }
            if waiting >= max_waiting {
                self.overflows.fetch_add(1, Ordering::Relaxed);
                let (host, role) = (self.key.host.clone(), self.key.role.clone());
                return Err(CheckoutError::TooManyWaiting { waiting, host, role });
            }
            let (ticket, since) = (slot.begin(), Instant::now());
            state.waiting.push(worker, Waiter { slot: slot.clone(), ticket, since });
            if !std::mem::replace(&mut state.expiring, true) {
                tokio::spawn(expire_waiters(Arc::downgrade(self)));
            }
            (PoolWait::new(self.clone(), slot.clone(), worker, (ticket, since)), state.open < state.size)
        };
        if may_connect {
            self.connect_for_waiters();
        }
        Ok(Turn::Later(wait))
    }

    /// Takes a connection back: hands it to a waiting session, keeps it idle, or closes it.
    pub fn give_back(self: &Arc<Self>, connection: Box<ServerConnection>) {
        self.give_back_at(connection, Instant::now());
    }

    /// The same, by one who knows what time it is.
    pub fn give_back_at(self: &Arc<Self>, mut connection: Box<ServerConnection>, now: Instant) {
        connection.returned = now;
        // Whoever gets it may be on another thread.
        connection.broken |= connection.stream.leave().is_err();
        let mut state = self.lock();
        let max_age = state.max_age;
        let too_old = !max_age.is_zero() && now.saturating_duration_since(connection.aged_from) > max_age;
        let mut unwanted = state.closed || state.open > state.quota;
        if connection.valid < state.valid_from {
            cold_path();
            unwanted |= !state.revalidate(&mut connection, now);
        }
        if unwanted || too_old || !connection.is_clean() {
            cold_path();
            drop(state);
            return self.discard(connection);
        }
        // Those who wait have connections coming.
        let stays = connection.is_kept && state.connecting >= state.waiting.len();
        while !stays && let Some(waiter) = state.waiting.next(connection.worker, now) {
            match waiter.slot.fill(waiter.ticket, connection) {
                Ok(()) => {
                    state.checkouts += 1;
                    return;
                }
                Err(back) => connection = back,
            }
        }
        if connection.is_kept && !self.keeps.load(Ordering::Relaxed) {
            self.keeps.store(true, Ordering::Relaxed);
        }
        state.put_idle(connection);
    }

    /// Closes a connection and frees its place.
    pub fn discard(self: &Arc<Self>, connection: Box<ServerConnection>) {
        drop(connection);
        self.free_place();
    }

    /// A connection of this pool is gone.
    pub(super) fn free_place(self: &Arc<Self>) {
        self.lock().open -= 1;
        self.permits.release();
        if self.permits.is_contended() {
            return self.permits.place_is_free();
        }
        self.connect_for_waiters();
    }

    pub(super) fn fail_waiters(self: &Arc<Self>, error: &Arc<ConnectError>) {
        let mut state = self.lock();
        // Somebody still holds a connection that will come back, and the server only said that it is full: waiting is right.
        if error.is_server_full() && state.open > 0 {
            drop(state);
            return self.give_up_kept();
        }
        for waiter in state.waiting.drain() {
            waiter.slot.fail(waiter.ticket, CheckoutError::Connect(error.clone()));
        }
    }

    /// Those who wait get what was kept for others.
    pub(super) fn give_up_kept(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            if state.waiting.is_empty() {
                return;
            }
            let Some(mut connection) = state.take_kept() else { return };
            let returned = connection.returned;
            connection.is_kept = false;
            drop(state);
            self.give_back_at(connection, returned);
        }
    }

    /// Closes one idle connection, the least recently used of the busiest thread. False when there is none.
    pub(super) fn close_one_idle(self: &Arc<Self>) -> bool {
        let mut state = self.lock();
        let Some(longest) = state.idle.iter_mut().max_by_key(|idle| idle.len()) else { return false };
        if longest.is_empty() {
            return false;
        }
        let connection = longest.remove(longest.iter().position(|connection| !connection.is_kept).unwrap_or(0));
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
            (state.size, state.quota, state.max_age) = (limits.size, limits.size, limits.max_age);
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
            idle: state.idle(),
            connecting: state.connecting,
            waiting: state.waiting.len(),
            oldest_wait: first.map_or(Duration::ZERO, |since| since.elapsed()),
            checkouts: state.checkouts,
            timeouts: self.timeouts.load(Ordering::Relaxed),
            overflows: self.overflows.load(Ordering::Relaxed),
        }
    }
}

/// The connection that was returned last, unless all of them are kept.
#[expect(clippy::vec_box, reason = "connections are handed on as boxes: moving one would copy it")]
fn take_free(idle: &mut Vec<Box<ServerConnection>>) -> Option<Box<ServerConnection>> {
    if idle.last()?.is_kept { None } else { idle.pop() }
}
