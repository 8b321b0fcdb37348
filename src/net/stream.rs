//! A connection to a client or a server: TCP or Unix socket, plain or TLS.

use super::socket::Socket;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{client, server};

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
            Stream::Plain(s) => Pin::new(s).$method($($argument),*),
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

impl Stream {
    fn socket(&self) -> &Socket {
        match self {
            Stream::Plain(socket) => socket,
            Stream::ClientTls(tls) => tls.get_ref().0,
            Stream::ServerTls(tls) => tls.get_ref().0,
        }
    }

    /// The address of the other end; `None` on a Unix socket.
    pub fn peer_ip(&self) -> Option<IpAddr> {
        let address = match self.socket() {
            Socket::Tcp(stream) => stream.peer_addr().ok(),
            Socket::Watched(socket) => socket.peer_addr(),
            Socket::Unix(_) | Socket::Memory(_) => None,
        };
        address.map(|address| address.ip().to_canonical())
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

    /// Whether a send of this socket waits for the end of its thread's turn. Of TLS nobody asks.
    #[inline]
    pub fn is_deferring(&self) -> bool {
        matches!(self, Stream::Plain(Socket::Watched(socket)) if socket.is_deferring())
    }

    /// Whether the socket did not take all of a send that had waited.
    pub fn has_refused(&self) -> bool {
        matches!(self, Stream::Plain(Socket::Watched(socket)) if socket.has_refused())
    }

    /// Whether something can be read, the end included, of a connection of which nobody reads: it may be taken in.
    pub fn has_something(&mut self) -> bool {
        if let Stream::Plain(socket) = self {
            return socket.has_something();
        }
        // It is not fetched from the thread that watches it for nothing.
        if !self.socket().is_here() && !self.socket().has_something() {
            return false;
        }
        // TLS sends records of its own (session tickets), so it has to take in what came to know whether the other end said anything.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        Pin::new(self).poll_read(&mut cx, &mut ReadBuf::new(&mut [0])).is_ready()
    }

    /// Ready when the socket has taken what was written, also what waited for the end of the turn.
    pub fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.socket() {
            Socket::Watched(socket) => socket.poll_sent(cx),
            Socket::Tcp(_) | Socket::Unix(_) | Socket::Memory(_) => Poll::Ready(()),
        }
    }

    /// As [`Socket::leave`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn leave(&self) -> io::Result<()> {
        self.socket().leave()
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
