//! One large read buffer per thread, lent for the length of a poll.
//!
//! Reading into it and writing the same range out moves most traffic without any session owning a buffer; what cannot be
//! written at once is copied into the session's [`super::Buffer`].

use super::Stream;
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};

/// Bytes read at once.
pub const SCRATCH_LEN: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_LEN].into_boxed_slice());
}

/// Reads from `stream` once and hands what came to `use_bytes`; an empty slice is the end of the stream.
///
/// `use_bytes` must not call this function again.
pub fn poll_read_with<T>(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    use_bytes: impl FnOnce(&[u8], &mut Context<'_>) -> T,
) -> Poll<io::Result<T>> {
    SCRATCH.with(|scratch| {
        let mut scratch = scratch.borrow_mut();
        let mut read = ReadBuf::new(&mut scratch);
        ready!(Pin::new(stream).poll_read(cx, &mut read))?;
        Poll::Ready(Ok(use_bytes(read.filled(), cx)))
    })
}
