//! How connections come into a pool: as many as those who wait can use and the limits allow, a few at a time.

use super::Pool;
use super::share::PlaceDemand;
use crate::runtime;
use crate::server::ConnectError;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Connections that one pool makes at the same time, so that a burst of clients is not a log-in storm for the server.
pub(super) const CONNECTING_MAX: usize = 4;
/// An idle connection that was in use within this time counts as one that its pool needs.
const RECENT: Duration = Duration::from_secs(1);
/// After a failure to connect, `min_idle` is not seen to for this long.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// Whether a pool can have what its waiting sessions could use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    /// It is being made, or its own limits forbid it.
    Enough,
    /// The host has no place for it, or too many log in to it now.
    NoPlace,
    /// It has as much as is due to it while others want more too.
    HasItsShare,
}

impl Pool {
    /// Starts as many connections as waiting sessions can use and the limits allow. Needs a tokio run-time.
    pub(super) fn connect_for_waiters(self: &Arc<Self>) {
        match self.open_while_needed() {
            Opening::Enough => {}
            Opening::NoPlace => self.permits.contend(),
            Opening::HasItsShare => self.permits.ask_again(),
        }
    }

    /// The same, for one who has seen to what others want.
    pub(super) fn open_for_waiters(self: &Arc<Self>) {
        self.open_while_needed();
    }

    fn open_while_needed(self: &Arc<Self>) -> Opening {
        loop {
            {
                let state = self.lock();
                let covered = state.connecting >= CONNECTING_MAX || state.waiting.len() <= state.connecting;
                if state.closed || covered || state.open >= state.size {
                    return Opening::Enough;
                }
                if state.open >= state.quota {
                    return Opening::HasItsShare;
                }
            }
            if !self.permits.try_begin() {
                return Opening::NoPlace;
            }
            if !self.begin_connecting() {
                return Opening::Enough;
            }
        }
    }

    /// Starts one that nobody waits for, if that takes nothing from anybody.
    pub(super) fn open_idle(self: &Arc<Self>) -> bool {
        !self.permits.is_contended() && self.permits.try_begin() && self.begin_connecting()
    }

    /// Starts one connection, for which the host has a place. False, and the place is free again, when the pool has none or there is
    /// no run-time to make it in.
    fn begin_connecting(self: &Arc<Self>) -> bool {
        let allowed = {
            let mut state = self.lock();
            let allowed = runtime::can_spawn() && !state.closed && state.open < state.quota;
            if allowed {
                (state.open, state.connecting, state.granted) = (state.open + 1, state.connecting + 1, Some(Instant::now()));
            }
            allowed
        };
        if allowed {
            let place = ConnectingPlace { pool: self.clone(), failed: true };
            runtime::spawn(place.connect(crate::metrics::worker_index().unwrap_or(0)));
        } else {
            self.permits.logged_in();
            self.permits.release();
        }
        allowed
    }

    /// What it has and wants of the host's places.
    pub(super) fn demand(&self, now: Instant) -> PlaceDemand {
        let state = self.lock();
        let (idle, waiting) = (state.idle(), state.waiting.len());
        let in_use = state.open.saturating_sub(idle + state.connecting);
        let needed = if state.closed { 0 } else { (in_use + waiting.max(state.connecting)).min(state.size) };
        let recent = state.idle.iter().flatten().filter(|c| now.saturating_duration_since(c.returned) < RECENT).count();
        let recent = if state.closed { 0 } else { recent.min(state.size - needed) };
        PlaceDemand { open: state.open, needed, recent, granted: state.granted }
    }

    /// How many connections it may have while others want their places; `None`: as many as its size.
    pub(super) fn set_quota(&self, quota: Option<usize>) {
        let mut state = self.lock();
        state.quota = quota.map_or(state.size, |quota| quota.min(state.size));
    }
}

/// A place that is taken while a connection is being made.
struct ConnectingPlace {
    pool: Arc<Pool>,
    failed: bool,
}

impl ConnectingPlace {
    async fn connect(mut self, worker: usize) {
        match self.pool.connector.connect(worker).await {
            Ok(mut connection) => {
                self.failed = false;
                {
                    let mut state = self.pool.lock();
                    state.connecting -= 1;
                    connection.age_from(state.max_age, rand::random());
                }
                self.pool.permits.logged_in();
                (self.pool.observer)(Ok(()));
                // As young as it was when it was opened: however short `max_age` is, a new one serves somebody once.
                let opened = connection.opened;
                self.pool.give_back_at(connection, opened);
                self.pool.connect_for_waiters();
                self.pool.permits.place_is_free();
            }
            Err(error) => self.fail(error),
        }
    }

    fn fail(self, error: ConnectError) {
        (self.pool.observer)(Err(&error));
        let pool = self.pool.clone();
        pool.lock().idle_after = Some(Instant::now() + FAILURE_PAUSE);
        drop(self);
        pool.fail_waiters(&Arc::new(error));
    }
}

impl Drop for ConnectingPlace {
    fn drop(&mut self) {
        if self.failed {
            let mut state = self.pool.lock();
            state.connecting -= 1;
            state.open -= 1;
            drop(state);
            self.pool.permits.logged_in();
            self.pool.permits.release();
            self.pool.permits.place_is_free();
        }
    }
}
