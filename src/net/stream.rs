//! A connection to a client or a server: TCP or Unix socket, plain or TLS.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{client, server};

/// A plain socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// One end of a pipe within the process: no system calls, no address.
    Memory(DuplexStream),
}

/// A connection that the relay reads and writes.
#[derive(Debug)]
pub enum Stream {
    /// Not encrypted.
    Plain(Socket),
    /// TLS with a client.
    ClientTls(Box<server::TlsStream<Socket>>),
    /// TLS with a server.
    ServerTls(Box<client::TlsStream<Socket>>),
}

/// A write up to this length is tried before the run-time is asked whether the socket has room: it nearly always has. Bytes.
const TRIED_MAX: usize = 16 * 1024;

/// Bytes that a pipe within the process holds in each direction.
const PIPE_LEN: usize = 32 * 1024;

/// Both ends of a pipe within the process.
pub fn pipe() -> (Stream, Stream) {
    let (one, other) = tokio::io::duplex(PIPE_LEN);
    (Stream::Plain(Socket::Memory(one)), Stream::Plain(Socket::Memory(other)))
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A process on this machine.
    Unix,
}

impl Peer {
    /// The address without its port; `None` on a Unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Peer::Tcp(address) => Some(address.ip()),
            Peer::Unix => None,
        }
    }

    /// Whether the other end is on this machine.
    pub fn is_local(&self) -> bool {
        self.ip().is_none_or(|ip| ip.is_loopback())
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Unix => f.write_str("unix"),
        }
    }
}

macro_rules! forward {
    ($self:ident, $method:ident $(, $argument:expr)*) => {
        match $self.get_mut() {
            Stream::Plain(Socket::Tcp(s)) => Pin::new(s).$method($($argument),*),
            Stream::Plain(Socket::Unix(s)) => Pin::new(s).$method($($argument),*),
            Stream::Plain(Socket::Memory(s)) => Pin::new(s).$method($($argument),*),
            Stream::ClientTls(s) => Pin::new(s.as_mut()).$method($($argument),*),
            Stream::ServerTls(s) => Pin::new(s.as_mut()).$method($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        forward!(self, poll_read, cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Stream::Plain(Socket::Tcp(socket)) = &*self
            && buf.len() <= TRIED_MAX
        {
            match socket.try_write(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
        forward!(self, poll_write, cx, buf)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        forward!(self, poll_write_vectored, cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, poll_shutdown, cx)
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Socket::Unix(s) => Pin::new(s).poll_read(cx, buf),
            Socket::Memory(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Socket::Unix(s) => Pin::new(s).poll_write(cx, buf),
            Socket::Memory(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Socket::Unix(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Socket::Memory(s) => Pin::new(s).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(s) => Pin::new(s).poll_flush(cx),
            Socket::Unix(s) => Pin::new(s).poll_flush(cx),
            Socket::Memory(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Socket::Unix(s) => Pin::new(s).poll_shutdown(cx),
            Socket::Memory(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

impl Socket {
    /// Has the calling thread's run-time watch the socket from now on, in place of the one that did.
    ///
    /// # Errors
    /// It can't be registered; the socket is unusable.
    pub fn rehome(&mut self) -> io::Result<()> {
        *self = match self {
            Socket::Memory(_) => return Ok(()),
            Socket::Tcp(stream) => {
                let stream = std::net::TcpStream::from(stream.as_fd().try_clone_to_owned()?);
                Socket::Tcp(TcpStream::from_std(stream)?)
            }
            Socket::Unix(stream) => {
                let stream = std::os::unix::net::UnixStream::from(stream.as_fd().try_clone_to_owned()?);
                Socket::Unix(UnixStream::from_std(stream)?)
            }
        };
        Ok(())
    }
}

impl Stream {
    /// The address of the other end; `None` on a Unix socket.
    pub fn peer_ip(&self) -> Option<IpAddr> {
        let socket = match self {
            Stream::Plain(socket) => socket,
            Stream::ClientTls(tls) => tls.get_ref().0,
            Stream::ServerTls(tls) => tls.get_ref().0,
        };
        match socket {
            Socket::Tcp(stream) => stream.peer_addr().ok().map(|address| address.ip().to_canonical()),
            Socket::Unix(_) | Socket::Memory(_) => None,
        }
    }

    /// Has the calling thread's run-time watch the socket from now on.
    ///
    /// # Errors
    /// As [`Socket::rehome`].
    pub fn rehome(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => socket.rehome(),
            Stream::ClientTls(stream) => stream.get_mut().0.rehome(),
            Stream::ServerTls(stream) => stream.get_mut().0.rehome(),
        }
    }

    /// Writes `bytes` if the socket takes them at once: a last word, for which nobody waits.
    pub fn say_last(&mut self, bytes: &[u8]) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        if matches!(Pin::new(&mut *self).poll_write(&mut cx, bytes), Poll::Ready(Ok(_))) {
            // What TLS still has is lost with the connection.
            let _ = Pin::new(self).poll_flush(&mut cx);
        }
    }

    /// Whether the bytes on the wire are encrypted.
    pub fn is_tls(&self) -> bool {
        !matches!(self, Stream::Plain(_))
    }

    /// Writes the front of `buffer` until it is empty or the socket is full, then flushes TLS records.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>, buffer: &mut super::Buffer) -> Poll<io::Result<()>> {
        while !buffer.is_empty() {
            match Pin::new(&mut *self).poll_write(cx, buffer.as_slice()) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => buffer.consume(count),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.poll_flush_records(cx)
    }

    /// Writes `buffer` and behind it `bytes`; what the socket does not take of them is in `buffer` afterwards.
    pub fn write_or_keep(&mut self, cx: &mut Context<'_>, bytes: &[u8], buffer: &mut super::Buffer) -> io::Result<()> {
        let written = self.write_behind(cx, bytes, buffer)?;
        buffer.push(&bytes[written..]);
        Ok(())
    }

    /// Writes `buffer` and behind it `bytes`, as far as the socket takes them; returns how many of `bytes` it took.
    pub fn write_behind(&mut self, cx: &mut Context<'_>, bytes: &[u8], buffer: &mut super::Buffer) -> io::Result<usize> {
        let mut written = 0;
        while !buffer.is_empty() || written < bytes.len() {
            let poll = match buffer.is_empty() {
                true => Pin::new(&mut *self).poll_write(cx, &bytes[written..]),
                false => {
                    let both = [IoSlice::new(buffer.as_slice()), IoSlice::new(&bytes[written..])];
                    Pin::new(&mut *self).poll_write_vectored(cx, &both)
                }
            };
            match poll {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    let kept = count.min(buffer.len());
                    buffer.consume(kept);
                    written += count - kept;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(written),
            }
        }
        match self.poll_flush_records(cx) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(written),
        }
    }

    /// Hands buffered TLS records to the socket; nothing to do for a plain one.
    pub fn poll_flush_records(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_tls() { Pin::new(self).poll_flush(cx) } else { Poll::Ready(Ok(())) }
    }
}
