//! What is done to a pool from time to time: waits that last too long, connections that are idle for too long, its end.

use super::opening::CONNECTING_MAX;
use super::{CheckoutError, Pool};
use crate::server::ServerConnection;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

impl Pool {
    /// Ends the waits that have lasted for `limit`. False when nobody waits any more: then nobody looks after them either.
    pub(super) fn end_long_waits(&self, limit: Duration) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        let size = state.size;
        // The first of a queue has waited longest.
        state.waiting.end_while(|first| {
            if !first.slot.is_waiting(first.ticket) {
                return true;
            }
            let too_long = now.saturating_duration_since(first.since) >= limit;
            if too_long {
                self.timeouts.fetch_add(1, Ordering::Relaxed);
                let (host, role) = (self.key.host.clone(), self.key.role.clone());
                first.slot.fail(first.ticket, CheckoutError::TimedOut { waited: limit, size, host, role });
            }
            too_long
        });
        state.expiring = !state.waiting.is_empty();
        state.expiring
    }

    /// How long a session may wait.
    pub(super) fn longest_wait(&self) -> Duration {
        self.limits.load().checkout_timeout
    }

    /// Closes connections that were idle for too long, are too old or have been ended by their server, and opens those that `min_idle` wants. Called every second or so.
    pub fn maintain(self: &Arc<Self>) {
        let limits = self.limits.load_full();
        let now = Instant::now();
        let mut expired = Vec::new();
        let missing = {
            let mut state = self.lock();
            let max_age = state.max_age;
            let aged = |c: &ServerConnection| !max_age.is_zero() && now.saturating_duration_since(c.aged_from) > max_age;
            for idle in &mut state.idle {
                // Those that their server has ended are of no use to anybody.
                expired.extend(idle.extract_if(.., |connection| aged(connection) || connection.has_spoken()));
            }
            if !limits.idle_timeout.is_zero() {
                let mut may_go = state.idle().saturating_sub(limits.min_idle);
                for idle in &mut state.idle {
                    let old = |c: &ServerConnection| now.duration_since(c.returned) > limits.idle_timeout;
                    let before = idle.len();
                    let mut left = may_go;
                    expired.extend(idle.extract_if(.., |connection| {
                        let goes = left > 0 && old(connection);
                        left -= usize::from(goes);
                        goes
                    }));
                    may_go -= before - idle.len();
                }
            }
            let present = state.idle() + state.connecting;
            let pausing = state.idle_after.is_some_and(|until| now < until);
            if state.closed || pausing { 0 } else { limits.min_idle.saturating_sub(present) }
        };
        for connection in expired {
            self.discard(connection);
        }
        for _ in 0..missing.min(CONNECTING_MAX) {
            if !self.open_idle() {
                break;
            }
        }
    }

    /// Closes all idle connections; those in use are closed when they are returned. For a host that was restarted, and for
    /// changed settings.
    pub fn renew(self: &Arc<Self>) {
        let idle: Vec<_> = {
            let mut state = self.lock();
            state.valid_from = Instant::now();
            state.renewed = state.valid_from;
            state.idle.iter_mut().flat_map(|idle| idle.drain(..)).collect()
        };
        for connection in idle {
            self.discard(connection);
        }
    }

    /// The host's name stands for other addresses now: idle connections to those that are gone are closed, those in use when they are
    /// returned.
    pub fn follow_addresses(self: &Arc<Self>, addresses: &Arc<[IpAddr]>) {
        let mut gone = Vec::new();
        {
            let mut state = self.lock();
            let now = Instant::now();
            state.valid_from = now;
            state.addresses = Some(addresses.clone());
            let mut idle = std::mem::take(&mut state.idle);
            for of_thread in &mut idle {
                gone.extend(of_thread.extract_if(.., |connection| !state.revalidate(connection, now)));
            }
            state.idle = idle;
        }
        for connection in gone {
            self.discard(connection);
        }
    }

    /// Sends the waiting sessions away: the host does not answer its probe, and other hosts may.
    pub fn turn_away(&self) {
        for waiter in self.lock().waiting.drain() {
            waiter.slot.fail(waiter.ticket, CheckoutError::HostSilent);
        }
    }

    /// Ends the pool: idle connections are closed, waiting sessions are told, those in use are closed when they are returned.
    pub fn close(self: &Arc<Self>) {
        {
            let mut state = self.lock();
            state.closed = true;
            for waiter in state.waiting.drain() {
                waiter.slot.fail(waiter.ticket, CheckoutError::Closed);
            }
        }
        self.renew();
    }
}
