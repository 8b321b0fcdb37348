//! A session's place in a pool's queue.

use super::slot::WaitEnd;
use super::waiters::Waiter;
use super::{CheckoutError, Pool, WaitSlot};
use crate::server::ServerConnection;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// What a session gets that asks a pool for a connection.
#[derive(Debug)]
pub enum Turn {
    /// A connection.
    Now(Box<ServerConnection>),
    /// A place in the queue.
    Later(PoolWait),
}

/// A session's place in the queue. It is small, and stays where the session is: thousands may wait. Dropping it leaves the queue, and
/// puts back what came too late.
#[derive(Debug)]
pub struct PoolWait {
    pool: Arc<Pool>,
    slot: Arc<WaitSlot>,
    /// Its thread.
    worker: u32,
    is_over: bool,
    ticket: u64,
    since: Instant,
}

impl PoolWait {
    /// The wait of this slot with this ticket, which is in the queue.
    pub(super) fn new(pool: Arc<Pool>, slot: Arc<WaitSlot>, worker: usize, (ticket, since): (u64, Instant)) -> Self {
        PoolWait { pool, slot, worker: worker as u32, is_over: false, ticket, since }
    }

    /// Ready with a connection, or with the reason why there is none; then it is over.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Box<ServerConnection>, CheckoutError>> {
        let outcome = self.slot.poll(cx);
        self.is_over = outcome.is_ready();
        outcome
    }
}

impl Drop for PoolWait {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        match self.slot.end() {
            WaitEnd::Over => {}
            WaitEnd::Filled(connection) => self.pool.give_back(connection),
            WaitEnd::Waiting => {
                let own = |waiter: &Waiter| waiter.ticket == self.ticket && Arc::ptr_eq(&waiter.slot, &self.slot);
                self.pool.lock().waiting.leave(self.worker as usize, self.since, own);
            }
        }
    }
}
