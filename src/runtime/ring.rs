//! Several sends in one system call, by io_uring.
//!
//! After a send the kernel may take the core away from the sender for the process that it has woken. With a system call for each of
//! ten answers a relay thread may lose its core, and what its caches hold, ten times; with one for all it is once.

#![allow(unsafe_code)]

use io_uring::{IoUring, opcode, squeue, types};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sends at once, at most.
pub(super) const SENDS_MAX: usize = 64;
/// The result of a send that was not tried.
pub(super) const NOT_TRIED: i32 = i32::MIN;
/// Neither waits for room nor raises SIGPIPE (<sys/socket.h> of Linux).
const FLAGS: i32 = 0x40 | 0x4000;

/// A relay thread's ring.
pub(super) struct Ring {
    ring: IoUring,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a ring")
    }
}

impl Ring {
    /// A ring of the calling thread, the only one that may use it.
    ///
    /// # Errors
    /// The kernel has none, or does not allow it.
    pub(super) fn new() -> io::Result<Ring> {
        let entries = u32::try_from(SENDS_MAX).map_err(io::Error::other)?;
        // Kernels before 6.0 do not know the hints.
        let hinted = IoUring::builder().setup_single_issuer().setup_submit_all().build(entries);
        hinted.or_else(|_| IoUring::new(entries)).map(|ring| Ring { ring })
    }

    /// Sends each part to its socket, at most [`SENDS_MAX`] of them: results as of `send(2)`, or minus the error's number, in order.
    ///
    /// # Errors
    /// The kernel did not do its part. [`NOT_TRIED`] is the result of what it did not take; the ring is not used again.
    pub(super) fn send_all<'a>(
        &mut self,
        parts: impl Iterator<Item = (BorrowedFd<'a>, &'a [u8])>,
        results: &mut Vec<i32>,
    ) -> io::Result<()> {
        results.clear();
        for (socket, bytes) in parts {
            let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
            let send = opcode::Send::new(types::Fd(socket.as_raw_fd()), bytes.as_ptr(), len).flags(FLAGS).build();
            self.push(&send.user_data(results.len() as u64))?;
            results.push(NOT_TRIED);
        }
        let mut left = results.len();
        let mut outcome = Ok(());
        while left > 0 {
            // Each send is tried at once; what is waited for here has happened.
            let submitted = self.ring.submit_and_wait(left);
            for done in self.ring.completion() {
                if let Some(result) = results.get_mut(done.user_data() as usize) {
                    *result = done.result();
                    left -= 1;
                }
            }
            match submitted {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    outcome = Err(error);
                    let unsent = self.ring.submission().len();
                    if left <= unsent {
                        break;
                    }
                    // The kernel has some and has not said what came of them: their bytes may not go away.
                    std::thread::yield_now();
                }
                Ok(_) => {}
            }
        }
        outcome
    }

    fn push(&mut self, send: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the socket and the bytes are borrowed by send_all, which returns only when no send that the kernel has taken is
        // under way.
        unsafe { self.ring.submission().push(send) }.map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn each_socket_gets_its_bytes_and_each_failure_is_its_own() {
        // Where io_uring is not allowed there is nothing to be tested: pgyard does without.
        let Ok(mut ring) = Ring::new() else { return };
        let pairs: Vec<(UnixStream, UnixStream)> = (0..5).map(|_| UnixStream::pair().expect("a pair")).collect();
        pairs[1].1.shutdown(std::net::Shutdown::Both).expect("shut");
        let full = [7u8; 4096];
        pairs[3].0.set_nonblocking(true).expect("set");
        while rustix::net::send(&pairs[3].0, &full, rustix::net::SendFlags::empty()).is_ok() {}
        for round in 0..100u8 {
            let texts: Vec<Vec<u8>> = (0..5).map(|number| vec![round; number + 1]).collect();
            let mut results = Vec::new();
            let parts = pairs.iter().zip(&texts).map(|((socket, _), text)| (socket.as_fd(), text.as_slice()));
            ring.send_all(parts, &mut results).expect("the kernel does its part");
            let (broken, again) = (-rustix::io::Errno::PIPE.raw_os_error(), -rustix::io::Errno::AGAIN.raw_os_error());
            assert_eq!(results, [1, broken, 3, again, 5]);
            for number in [0, 2, 4] {
                let mut read = vec![0; number + 1];
                (&pairs[number].1).read_exact(&mut read).expect("it was sent");
                assert_eq!(read, texts[number]);
            }
        }
    }
}
