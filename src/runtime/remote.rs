//! What other threads tell a relay thread.

use std::io;
use std::sync::{Mutex, PoisonError};

/// One thing to be done on the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// Poll the task of this number.
    Wake(u32),
    /// The socket of this number is not watched any more.
    Forget(u32),
}

#[derive(Debug, Default)]
struct Inbox {
    notes: Vec<Note>,
    /// The thread has ended.
    closed: bool,
}

/// A relay thread as others see it.
#[derive(Debug)]
pub(super) struct Remote {
    inbox: Mutex<Inbox>,
    waker: mio::Waker,
    registry: mio::Registry,
}

impl Remote {
    /// For the thread that waits at `poll`, where its notes are announced with `token`.
    pub(super) fn new(poll: &mio::Poll, token: mio::Token) -> io::Result<Remote> {
        let waker = mio::Waker::new(poll.registry(), token)?;
        Ok(Remote { inbox: Mutex::default(), waker, registry: poll.registry().try_clone()? })
    }

    /// Where the thread's sockets are registered.
    pub(super) fn registry(&self) -> &mio::Registry {
        &self.registry
    }

    /// Leaves a note, and wakes the thread if it is the first one that it has not seen.
    pub(super) fn tell(&self, note: Note) {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        if inbox.closed {
            return;
        }
        inbox.notes.push(note);
        let is_first = inbox.notes.len() == 1;
        drop(inbox);
        if is_first && let Err(error) = self.waker.wake() {
            tracing::error!(%error, "a relay thread could not be woken");
        }
    }

    /// Takes the notes into `notes`, which is empty.
    pub(super) fn take(&self, notes: &mut Vec<Note>) {
        std::mem::swap(&mut self.inbox.lock().unwrap_or_else(PoisonError::into_inner).notes, notes);
    }

    /// Takes no more notes.
    pub(super) fn close(&self) {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
    }
}
