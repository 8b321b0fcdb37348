//! A socket that is asked as little as possible whether it is ready.

use std::io::{self, IoSlice};
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A write up to this length is tried before the run-time is asked whether the socket has room: it nearly always has. Bytes.
const TRIED_MAX: usize = 16 * 1024;

/// What the run-time's sockets have in common.
pub trait Watchable: AsyncRead + AsyncWrite + Unpin {
    /// Whether the run-time has seen that there is something to be read, and it has not all been read. No system call.
    fn is_readable(&self) -> bool;

    /// Reads if the run-time has seen that there is something to be read.
    ///
    /// # Errors
    /// `WouldBlock` if it has not; those of the socket.
    fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize>;

    /// Writes if the socket has room.
    ///
    /// # Errors
    /// `WouldBlock` if it has none; those of the socket.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
}

macro_rules! has_readiness {
    ($socket:ty) => {
        impl Watchable for $socket {
            fn is_readable(&self) -> bool {
                self.try_io(Interest::READABLE, || Ok(())).is_ok()
            }

            fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
                self.try_read(bytes)
            }

            fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
                self.try_write(bytes)
            }
        }
    };
}

has_readiness!(TcpStream);
has_readiness!(UnixStream);

/// A socket that knows whom the run-time will wake when it can be read: the same task need not say so again.
///
/// The run-time forgets a waker only when it wakes it, and then the socket is readable until its bytes have been read. So while
/// the socket is not readable, the task that was told `Pending` last is still the one that will be woken.
#[derive(Debug)]
pub struct Watched<S> {
    socket: S,
    /// The waker's data, which is the task's; 0 for none.
    reader: usize,
}

impl<S> From<S> for Watched<S> {
    fn from(socket: S) -> Self {
        Watched { socket, reader: 0 }
    }
}

impl<S: Watchable> Watched<S> {
    /// Reads if the run-time has seen that there is something to be read. Whoever was to be woken asks again.
    ///
    /// # Errors
    /// As [`Watchable::try_read`].
    pub fn try_read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.reader = 0;
        self.socket.try_read(bytes)
    }
}

impl<S> Deref for Watched<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.socket
    }
}

impl<S: Watchable> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let reader = cx.waker().data().addr();
        if this.reader != 0 && this.reader == reader && !this.socket.is_readable() {
            return Poll::Pending;
        }
        let poll = Pin::new(&mut this.socket).poll_read(cx, buf);
        this.reader = if poll.is_pending() { reader } else { 0 };
        poll
    }
}

impl<S: Watchable> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.len() <= TRIED_MAX {
            match self.socket.try_write(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn pair() -> (Watched<UnixStream>, UnixStream) {
        let (near, far) = UnixStream::pair().expect("a pair of sockets");
        (near.into(), far)
    }

    /// Polls a read of one byte once.
    async fn read_once(socket: &mut Watched<UnixStream>) -> Poll<u8> {
        poll_fn(|cx| {
            let mut byte = [0];
            let poll = Pin::new(&mut *socket).poll_read(cx, &mut ReadBuf::new(&mut byte));
            Poll::Ready(poll.map(|read| read.map(|()| byte[0]).expect("the socket is whole")))
        })
        .await
    }

    #[tokio::test]
    async fn a_task_that_waits_already_is_woken_however_often_it_asks() {
        let (mut near, mut far) = pair().await;
        for round in 0..100 {
            for _ in 0..round % 4 {
                assert_eq!(read_once(&mut near).await, Poll::Pending);
            }
            let write = async {
                tokio::task::yield_now().await;
                far.write_all(&[round]).await.expect("the socket has room");
            };
            // Both in one task: the read is polled again when nothing has come yet.
            let (read, ()) = tokio::join!(near.read_u8(), write);
            assert_eq!(read.expect("a byte comes"), round);
        }
    }

    #[tokio::test]
    async fn a_socket_that_goes_to_another_task_wakes_that_one() {
        let (mut near, mut far) = pair().await;
        for byte in 0..20 {
            assert_eq!(read_once(&mut near).await, Poll::Pending);
            let reader = tokio::spawn(async move {
                let read = near.read_u8().await;
                (near, read)
            });
            tokio::task::yield_now().await;
            far.write_all(&[byte]).await.expect("the socket has room");
            let (back, read) = reader.await.expect("it does not panic");
            assert_eq!(read.expect("a byte comes"), byte);
            near = back;
        }
    }

    #[tokio::test]
    async fn the_end_of_the_stream_is_seen_by_one_that_waits() {
        let (mut near, far) = pair().await;
        assert_eq!(read_once(&mut near).await, Poll::Pending);
        drop(far);
        assert_eq!(near.read(&mut [0; 8]).await.expect("an end is no error"), 0);
    }
}
