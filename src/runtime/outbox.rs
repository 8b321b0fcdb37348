//! What the tasks of a turn send, until its end.

use super::readiness::Watched;
use super::ring::{NOT_TRIED, Ring, SENDS_MAX};
use rustix::net::{SendFlags, send};
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Once};

/// Bytes of a send that may wait; a longer one is not worth the copy.
pub(super) const DEFERRED_MAX: usize = 4096;

#[derive(Debug)]
struct Deferred {
    socket: Arc<Watched>,
    len: usize,
}

/// Small sends of a relay thread, at most one to each socket.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    ring: Option<Ring>,
    bytes: Vec<u8>,
    deferred: Vec<Deferred>,
    results: Vec<i32>,
}

impl Outbox {
    /// One whose sends go by one system call, where the kernel allows it.
    pub(super) fn new(together: bool) -> Outbox {
        let ring = together.then(Ring::new).and_then(|ring| ring.inspect_err(without_ring).ok());
        Outbox { ring, ..Outbox::default() }
    }

    /// Takes a send to a socket that has none here.
    pub(super) fn put(&mut self, socket: Arc<Watched>, bytes: &[u8]) {
        if self.deferred.len() == SENDS_MAX {
            self.flush();
        }
        self.bytes.extend_from_slice(bytes);
        self.deferred.push(Deferred { socket, len: bytes.len() });
    }

    /// Sends all that waits. What a socket has no room for stays with the socket.
    pub(super) fn flush(&mut self) {
        if self.deferred.is_empty() {
            return;
        }
        let Outbox { ring, bytes, deferred, results } = self;
        let mut rest = bytes.as_slice();
        let parts = deferred.iter().map(|one| {
            let (first, others) = rest.split_at(one.len);
            rest = others;
            (one.socket.as_fd(), first)
        });
        match ring.as_mut().filter(|_| deferred.len() > 1) {
            None => results.clear(),
            Some(working) => {
                if let Err(error) = working.send_all(parts, results) {
                    tracing::warn!(%error, "io_uring failed: each send is a system call of its own from now on");
                    *ring = None;
                }
            }
        }
        let mut rest = bytes.as_slice();
        for (index, Deferred { socket, len }) in deferred.drain(..).enumerate() {
            let (first, others) = rest.split_at(len);
            rest = others;
            let result = match results.get(index) {
                None | Some(&NOT_TRIED) => send(&*socket, first, SendFlags::empty()),
                Some(&result) => usize::try_from(result).map_err(|_| rustix::io::Errno::from_raw_os_error(-result)),
            };
            socket.was_sent(first, result);
        }
        bytes.clear();
    }
}

/// Says once what every relay thread finds.
fn without_ring(error: &io::Error) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        tracing::info!(%error, "io_uring is not available here: each send is a system call of its own (io_uring = false asks for none)");
    });
}
