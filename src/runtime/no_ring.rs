//! Where there is no io_uring.

use std::io;
use std::os::fd::BorrowedFd;

/// Sends at once, at most.
pub(super) const SENDS_MAX: usize = 64;
/// The result of a send that was not tried.
pub(super) const NOT_TRIED: i32 = i32::MIN;

/// There is none.
#[derive(Debug)]
pub(super) struct Ring;

impl Ring {
    /// There is none.
    ///
    /// # Errors
    /// Always.
    pub(super) fn new() -> io::Result<Ring> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Sends nothing.
    ///
    /// # Errors
    /// Always.
    pub(super) fn send_all<'a>(
        &mut self,
        _: impl Iterator<Item = (BorrowedFd<'a>, &'a [u8])>,
        _: &mut Vec<i32>,
    ) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
