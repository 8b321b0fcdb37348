//! A plain socket, and who watches it.

use super::watched::WatchedSocket;
use crate::runtime::is_relay_thread;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A plain socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TCP or a Unix socket, watched by a relay thread.
    Watched(WatchedSocket),
    /// One end of a pipe within the process: no system calls, no address.
    Memory(DuplexStream),
}

macro_rules! forward {
    ($self:ident, $method:ident, $cx:ident, $bytes:ident) => {
        match $self.get_mut() {
            Socket::Watched(s) => s.$method($cx, $bytes),
            Socket::Tcp(s) => Pin::new(s).$method($cx, $bytes),
            Socket::Unix(s) => Pin::new(s).$method($cx, $bytes),
            Socket::Memory(s) => Pin::new(s).$method($cx, $bytes),
        }
    };
}

impl AsyncRead for Socket {
    #[inline]
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.come_here()?;
        forward!(self, poll_read, cx, buf)
    }
}

impl AsyncWrite for Socket {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if !self.is_here() {
            // A last word, most likely: it takes no watching if there is room.
            if let Some(written) = self.write_from_afar(buf) {
                return Poll::Ready(written);
            }
            self.rehome()?;
        }
        forward!(self, poll_write, cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.come_here()?;
        forward!(self, poll_write_vectored, cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // Nothing is held back.
            Socket::Tcp(_) | Socket::Unix(_) | Socket::Watched(_) => Poll::Ready(Ok(())),
            Socket::Memory(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Watched(s) => Poll::Ready(s.shut_down()),
            Socket::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Socket::Unix(s) => Pin::new(s).poll_shutdown(cx),
            Socket::Memory(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

impl Socket {
    /// A TCP connection, to be watched by the calling thread.
    ///
    /// # Errors
    /// It can't be.
    pub fn tcp(stream: std::net::TcpStream) -> io::Result<Socket> {
        Ok(match is_relay_thread() {
            true => Socket::Watched(WatchedSocket::tcp(stream.into())?),
            false => Socket::Tcp(TcpStream::from_std(stream)?),
        })
    }

    /// A connection by a Unix socket, to be watched by the calling thread.
    ///
    /// # Errors
    /// It can't be.
    pub fn unix(stream: std::os::unix::net::UnixStream) -> io::Result<Socket> {
        // tokio asks for the user at the other end.
        let mut socket = Socket::Unix(UnixStream::from_std(stream)?);
        socket.come_here()?;
        Ok(socket)
    }

    /// Whether the calling thread's kind of run-time watches it.
    #[inline]
    pub(super) fn is_here(&self) -> bool {
        match self {
            Socket::Watched(socket) => socket.is_here(),
            Socket::Tcp(_) | Socket::Unix(_) => !is_relay_thread(),
            Socket::Memory(_) => true,
        }
    }

    /// Writes to a socket that another thread watches; `None` if there is no room.
    #[cold]
    fn write_from_afar(&self, bytes: &[u8]) -> Option<io::Result<usize>> {
        match self {
            Socket::Watched(socket) => socket.write_from_afar(bytes),
            Socket::Tcp(_) | Socket::Unix(_) | Socket::Memory(_) => None,
        }
    }

    /// Has it watched where it is polled: who polls it is woken by his own thread.
    #[inline]
    fn come_here(&mut self) -> io::Result<()> {
        if self.is_here() { Ok(()) } else { self.rehome() }
    }

    /// Has the calling thread's run-time watch the socket from now on, in place of the one that did.
    ///
    /// # Errors
    /// It can't be registered; the socket is unusable.
    #[cold]
    pub fn rehome(&mut self) -> io::Result<()> {
        let (fd, is_tcp) = match self {
            Socket::Memory(_) => return Ok(()),
            Socket::Tcp(stream) => (stream.as_fd().try_clone_to_owned()?, true),
            Socket::Unix(stream) => (stream.as_fd().try_clone_to_owned()?, false),
            Socket::Watched(socket) => {
                socket.leave()?;
                (socket.as_fd().try_clone_to_owned()?, socket.is_tcp())
            }
        };
        *self = match (is_tcp, is_relay_thread()) {
            (true, _) => Socket::tcp(fd.into())?,
            (false, true) => Socket::Watched(WatchedSocket::unix(fd, self.peer_uid())?),
            (false, false) => Socket::Unix(UnixStream::from_std(fd.into())?),
        };
        Ok(())
    }

    /// Sends what waits for the end of the turn: before the socket goes to another thread.
    ///
    /// # Errors
    /// It does not take all of it at once.
    pub fn leave(&self) -> io::Result<()> {
        match self {
            Socket::Watched(socket) => socket.leave(),
            Socket::Tcp(_) | Socket::Unix(_) | Socket::Memory(_) => Ok(()),
        }
    }

    /// The number of the user at the other end of a Unix socket, where the kernel tells it.
    pub fn peer_uid(&self) -> Option<u32> {
        match self {
            Socket::Unix(stream) => stream.peer_cred().ok().map(|credentials| credentials.uid()),
            Socket::Watched(socket) => socket.peer_uid(),
            Socket::Tcp(_) | Socket::Memory(_) => None,
        }
    }

    /// Whether it is a TCP socket.
    pub fn is_tcp(&self) -> bool {
        match self {
            Socket::Tcp(_) => true,
            Socket::Watched(socket) => socket.is_tcp(),
            Socket::Unix(_) | Socket::Memory(_) => false,
        }
    }

    /// Whether it is a Unix socket.
    pub fn is_unix(&self) -> bool {
        !self.is_tcp() && !matches!(self, Socket::Memory(_))
    }

    /// The first byte of what comes, which stays there; `None` at the end, and for a pipe.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn peek(&mut self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        let count = std::future::poll_fn(|cx| {
            self.come_here()?;
            match self {
                Socket::Watched(socket) => socket.poll_peek(cx, &mut byte),
                Socket::Tcp(stream) => stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)),
                Socket::Unix(_) | Socket::Memory(_) => Poll::Ready(Ok(0)),
            }
        });
        Ok((count.await? > 0).then_some(byte[0]))
    }

    /// Whether something could be read, the end included; of TCP nothing is, since TLS may still want it. The socket is asked only if
    /// whoever watches it was not told that it is empty.
    pub fn has_something(&self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match self {
            Socket::Tcp(stream) => stream.poll_peek(&mut cx, &mut ReadBuf::new(&mut [0])).is_ready(),
            Socket::Unix(stream) => !stream.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock),
            Socket::Watched(socket) => socket.has_something(),
            Socket::Memory(_) => false,
        }
    }
}
