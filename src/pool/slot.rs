//! Where a waiting session receives its connection. Each session has one and uses it again and again, so that waiting
//! allocates nothing.

use super::CheckoutError;
use crate::server::ServerConnection;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

#[derive(Debug, Default)]
enum SlotState {
    #[default]
    Vacant,
    Waiting(Option<Waker>),
    Filled(Box<ServerConnection>),
    Failed(CheckoutError),
}

#[derive(Debug, Default)]
struct SlotInner {
    state: SlotState,
    /// Grows with each wait, so that an entry of an earlier wait that is still queued does nothing.
    ticket: u64,
}

/// How a wait stood when it was given up.
#[derive(Debug)]
pub(super) enum WaitEnd {
    /// It was over.
    Over,
    /// This had come and was not taken.
    Filled(Box<ServerConnection>),
    /// Nothing had come; its entry is still in the queue.
    Waiting,
}

/// A session's place to receive a connection.
#[derive(Debug, Default)]
pub struct WaitSlot {
    inner: Mutex<SlotInner>,
}

impl WaitSlot {
    fn lock(&self) -> MutexGuard<'_, SlotInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a wait and returns its ticket.
    pub(super) fn begin(&self) -> u64 {
        let mut inner = self.lock();
        inner.ticket += 1;
        inner.state = SlotState::Waiting(None);
        inner.ticket
    }

    /// Ends a wait, and says how it stood.
    pub(super) fn end(&self) -> WaitEnd {
        let mut inner = self.lock();
        match std::mem::take(&mut inner.state) {
            SlotState::Filled(connection) => WaitEnd::Filled(connection),
            SlotState::Waiting(_) => WaitEnd::Waiting,
            SlotState::Vacant | SlotState::Failed(_) => WaitEnd::Over,
        }
    }

    /// Hands a connection over, or gives it back when that wait is over.
    pub(super) fn fill(&self, ticket: u64, connection: Box<ServerConnection>) -> Result<(), Box<ServerConnection>> {
        let mut inner = self.lock();
        if inner.ticket != ticket || !matches!(inner.state, SlotState::Waiting(_)) {
            return Err(connection);
        }
        if let SlotState::Waiting(Some(waker)) = std::mem::replace(&mut inner.state, SlotState::Filled(connection)) {
            drop(inner);
            waker.wake();
        }
        Ok(())
    }

    /// Ends the wait with an error.
    pub(super) fn fail(&self, ticket: u64, error: CheckoutError) {
        let mut inner = self.lock();
        if inner.ticket != ticket || !matches!(inner.state, SlotState::Waiting(_)) {
            return;
        }
        if let SlotState::Waiting(Some(waker)) = std::mem::replace(&mut inner.state, SlotState::Failed(error)) {
            drop(inner);
            waker.wake();
        }
    }

    /// Whether that wait still goes on.
    pub(super) fn is_waiting(&self, ticket: u64) -> bool {
        let inner = self.lock();
        inner.ticket == ticket && matches!(inner.state, SlotState::Waiting(_))
    }

    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<Box<ServerConnection>, CheckoutError>> {
        let mut inner = self.lock();
        match std::mem::take(&mut inner.state) {
            SlotState::Filled(connection) => Poll::Ready(Ok(connection)),
            SlotState::Failed(error) => Poll::Ready(Err(error)),
            SlotState::Waiting(old) => {
                let waker = match old {
                    Some(old) if old.will_wake(cx.waker()) => old,
                    _ => cx.waker().clone(),
                };
                inner.state = SlotState::Waiting(Some(waker));
                Poll::Pending
            }
            SlotState::Vacant => Poll::Ready(Err(CheckoutError::Closed)),
        }
    }
}
