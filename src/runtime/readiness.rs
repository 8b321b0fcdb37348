//! Whether a socket can be read and written, and who waits for that.

use super::executor::{Current, Here, here, thread_number};
use super::outbox::DEFERRED_MAX;
use super::remote::{Note, Remote};
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown, send, shutdown};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// It may be read.
const READ: u8 = 1;
/// It may be written.
const WRITE: u8 = 2;
/// What is read next may be its end: an end is announced once.
const ENDED: u8 = 4;
/// A send waits for the end of the turn.
const DEFERRED: u8 = 8;
/// Of a send that was deferred the socket did not take all: nothing else may be sent before the rest.
const BEHIND: u8 = 16;
/// A send that was deferred failed.
const REFUSED: u8 = 32;

/// Who waits.
const NOBODY: u32 = u32::MAX;
/// Something that has a waker of its own, such as one of several futures of a task.
const FOREIGN: u32 = u32::MAX - 1;

/// Who waits for one side of a socket. Only its thread comes here.
#[derive(Debug)]
struct Waiting {
    task: AtomicU32,
    foreign: Mutex<Option<Waker>>,
}

impl Waiting {
    fn nobody() -> Self {
        Waiting { task: AtomicU32::new(NOBODY), foreign: Mutex::new(None) }
    }

    #[inline]
    fn wait(&self, cx: &Context<'_>) {
        match Current::number(cx) {
            Some(task) => self.task.store(task, Relaxed),
            None => self.wait_elsewhere(cx),
        }
    }

    #[cold]
    fn wait_elsewhere(&self, cx: &Context<'_>) {
        *self.foreign.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        self.task.store(FOREIGN, Relaxed);
    }

    #[inline]
    fn wake(&self, here: &Here) {
        let task = self.task.load(Relaxed);
        if task == NOBODY {
            return;
        }
        self.task.store(NOBODY, Relaxed);
        if task != FOREIGN {
            return here.enqueue(task);
        }
        let waker = self.foreign.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            here.wake_later(waker);
        }
    }
}

/// A socket as its thread's reactor knows it.
#[derive(Debug)]
pub(super) struct Watched {
    fd: OwnedFd,
    /// Of the bits above. Only its thread writes it; any may look.
    state: AtomicU8,
    reader: Waiting,
    writer: Waiting,
    /// What is to be sent before anything else. Only its thread comes here.
    rest: Mutex<Vec<u8>>,
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Watched {
    #[inline]
    fn has(&self, bits: u8) -> bool {
        self.state.load(Relaxed) & bits != 0
    }

    #[inline]
    fn change(&self, cleared: u8, set: u8) {
        self.state.store(self.state.load(Relaxed) & !cleared | set, Relaxed);
    }

    /// The kernel has said so.
    pub(super) fn notice(&self, event: &mio::event::Event, here: &Here) {
        let (failed, ended) = (event.is_error(), event.is_read_closed());
        let readable = event.is_readable() || ended || failed;
        let writable = event.is_writable() || event.is_write_closed() || failed;
        let mut state = self.state.load(Relaxed);
        for (bit, is_set) in [(READ, readable), (WRITE, writable), (ENDED, ended || failed)] {
            state |= if is_set { bit } else { 0 };
        }
        self.state.store(state, Relaxed);
        if readable {
            self.reader.wake(here);
        }
        if writable && (state & BEHIND == 0 || self.send_rest()) {
            self.writer.wake(here);
        }
    }

    /// The send that was deferred is over.
    #[inline]
    pub(super) fn was_sent(&self, bytes: &[u8], result: rustix::io::Result<usize>) {
        self.change(DEFERRED, 0);
        if result != Ok(bytes.len()) {
            self.keep_rest(bytes, result);
        }
    }

    #[cold]
    fn keep_rest(&self, bytes: &[u8], result: rustix::io::Result<usize>) {
        match result {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {
                self.rest().extend_from_slice(&bytes[result.unwrap_or(0)..]);
                self.change(0, BEHIND);
                // It may have room again by now: only who was refused is told when there is.
                self.send_rest();
            }
            Err(_) => self.give_up(),
        }
    }

    /// Sends what is to be sent first, as far as it goes; whether anything else may be sent now.
    #[cold]
    fn send_rest(&self) -> bool {
        let mut rest = self.rest();
        while !rest.is_empty() {
            match send(&self.fd, &rest, SendFlags::empty()) {
                Ok(count) => drop(rest.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.change(WRITE, 0);
                    return false;
                }
                Err(_) => {
                    rest.clear();
                    self.give_up();
                }
            }
        }
        *rest = Vec::new();
        self.change(BEHIND, 0);
        true
    }

    /// What was said to be sent was not: no more is, and who reads finds the end.
    fn give_up(&self) {
        self.change(0, REFUSED);
        // It may be closed already.
        let _ = shutdown(&self.fd, Shutdown::Both);
    }

    fn rest(&self) -> MutexGuard<'_, Vec<u8>> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket and its place with the thread that watches it. Dropping it ends that, and closes the socket.
#[derive(Debug)]
pub(crate) struct Readiness {
    watched: Arc<Watched>,
    number: u32,
    thread: u32,
    remote: Arc<Remote>,
}

impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watched.as_fd()
    }
}

impl Readiness {
    /// Has the calling thread, a relay thread, watch a socket, which does not block.
    ///
    /// # Errors
    /// The kernel can't watch it, or the caller is no relay thread.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Readiness> {
        let Some(here) = here() else { return Err(io::Error::other("not a relay thread")) };
        let (reader, writer) = (Waiting::nobody(), Waiting::nobody());
        // Who had it before may not have been told of what came.
        let state = AtomicU8::new(READ | WRITE);
        let watched = Arc::new(Watched { fd, state, reader, writer, rest: Mutex::default() });
        let number = here.watch(watched.clone())?;
        Ok(Readiness { watched, number, thread: thread_number(), remote: here.remote().clone() })
    }

    /// Whether the calling thread watches it.
    #[inline]
    pub(crate) fn is_here(&self) -> bool {
        self.thread == thread_number()
    }

    /// Whether a read may find something. Any thread may ask.
    #[inline]
    pub(crate) fn may_read(&self) -> bool {
        self.watched.has(READ)
    }

    /// A read has got `count` of at most `wanted` bytes: with fewer the socket is empty, and the kernel says when it no longer is.
    #[inline]
    pub(crate) fn has_read(&self, count: usize, wanted: usize) {
        if count < wanted && !self.watched.has(ENDED) {
            self.watched.change(READ, 0);
        }
    }

    /// A read found nothing, and nobody waits for more yet.
    #[inline]
    pub(crate) fn found_empty(&self) {
        self.watched.change(READ, 0);
    }

    /// Nothing can be read: `cx` is woken when something can.
    #[inline]
    pub(crate) fn wait_to_read(&self, cx: &Context<'_>) {
        self.watched.change(READ, 0);
        self.watched.reader.wait(cx);
    }

    /// Whether a write may find room. What was deferred is sent first.
    #[inline]
    pub(crate) fn may_write(&self) -> bool {
        if self.watched.has(DEFERRED) {
            self.settle();
        }
        self.watched.state.load(Relaxed) & (WRITE | BEHIND) == WRITE
    }

    /// Nothing can be written: `cx` is woken when something can.
    #[cold]
    pub(crate) fn wait_to_write(&self, cx: &Context<'_>) {
        self.watched.change(WRITE, 0);
        self.watched.writer.wait(cx);
    }

    /// Takes over a small send, which goes with others at the end of the turn. False if it has to be sent by the caller.
    #[inline]
    pub(crate) fn defer(&self, bytes: &[u8]) -> bool {
        if bytes.len() > DEFERRED_MAX || self.watched.state.load(Relaxed) & (WRITE | BEHIND | DEFERRED) != WRITE {
            return false;
        }
        let Some(here) = here() else { return false };
        here.defer(&self.watched, bytes);
        self.watched.change(0, DEFERRED);
        true
    }

    /// Whether a send waits for the end of the turn.
    #[inline]
    pub(crate) fn is_deferring(&self) -> bool {
        self.watched.has(DEFERRED)
    }

    /// Whether a send that was deferred failed.
    pub(crate) fn has_refused(&self) -> bool {
        self.watched.has(REFUSED)
    }

    /// Sends what was deferred; ready when the socket has taken all of it.
    pub(crate) fn poll_sent(&self, cx: &Context<'_>) -> Poll<()> {
        if self.watched.has(DEFERRED) {
            self.settle();
        }
        if self.watched.has(BEHIND) {
            self.wait_to_write(cx);
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Sends what was deferred. Only its thread can; another one gets an error if there is something.
    ///
    /// # Errors
    /// Bytes wait on the thread that watches it.
    pub(crate) fn leave(&self) -> io::Result<()> {
        if self.watched.has(DEFERRED) && self.is_here() {
            self.settle();
        }
        match self.watched.has(DEFERRED | BEHIND) {
            true => Err(io::Error::other("bytes wait to be sent on another thread")),
            false => Ok(()),
        }
    }

    #[cold]
    fn settle(&self) {
        if let Some(here) = here() {
            here.flush();
        }
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        // One that goes elsewhere must not be watched twice.
        let _ = self.remote.registry().deregister(&mut mio::unix::SourceFd(&self.watched.fd.as_raw_fd()));
        match here().filter(|_| self.is_here()) {
            Some(here) => {
                if self.watched.has(DEFERRED) {
                    here.flush();
                }
                here.forget(self.number);
            }
            None => self.remote.tell(Note::Forget(self.number)),
        }
    }
}
