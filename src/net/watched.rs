//! A socket that a relay thread watches.

use crate::runtime::Readiness;
use rustix::net::{RecvFlags, SendFlags};
use socket2::SockRef;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};
use tokio::io::ReadBuf;

/// A socket that a relay thread watches. To another one it goes by [`super::socket::Socket::rehome`].
#[derive(Debug)]
pub struct WatchedSocket {
    readiness: Readiness,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Tcp,
    /// With the number of the user at the other end, where the kernel told it.
    Unix(Option<u32>),
}

impl AsFd for WatchedSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readiness.as_fd()
    }
}

impl WatchedSocket {
    /// Has the calling relay thread watch a TCP connection, which does not block.
    ///
    /// # Errors
    /// It can't be watched; it is closed.
    pub(super) fn tcp(fd: OwnedFd) -> io::Result<Self> {
        Ok(WatchedSocket { readiness: Readiness::new(fd)?, kind: Kind::Tcp })
    }

    /// The same for a Unix socket with the user `uid` at its other end.
    ///
    /// # Errors
    /// As [`WatchedSocket::tcp`].
    pub(super) fn unix(fd: OwnedFd, uid: Option<u32>) -> io::Result<Self> {
        Ok(WatchedSocket { readiness: Readiness::new(fd)?, kind: Kind::Unix(uid) })
    }

    /// Whether a send waits for the end of the turn.
    #[inline]
    pub(super) fn is_deferring(&self) -> bool {
        self.readiness.is_deferring()
    }

    /// Whether it did not take all of a send that had waited.
    pub(super) fn has_refused(&self) -> bool {
        self.readiness.has_refused()
    }

    /// Sends what waits to be sent; ready when the socket has taken it.
    pub(super) fn poll_sent(&self, cx: &Context<'_>) -> Poll<()> {
        self.readiness.poll_sent(cx)
    }

    /// Sends what waits to be sent, so that it can go to another thread.
    ///
    /// # Errors
    /// It does not take all of it now, or bytes wait on another thread.
    pub(super) fn leave(&self) -> io::Result<()> {
        self.readiness.leave()
    }

    /// Whether the calling thread watches it.
    #[inline]
    pub(super) fn is_here(&self) -> bool {
        self.readiness.is_here()
    }

    /// The address of the other end; `None` on a Unix socket.
    pub(super) fn peer_addr(&self) -> Option<SocketAddr> {
        SockRef::from(self).peer_addr().ok().and_then(|address| address.as_socket())
    }

    /// The user at the other end of a Unix socket.
    pub(super) fn peer_uid(&self) -> Option<u32> {
        match self.kind {
            Kind::Unix(uid) => uid,
            Kind::Tcp => None,
        }
    }

    /// Whether it is a TCP socket.
    pub(super) fn is_tcp(&self) -> bool {
        matches!(self.kind, Kind::Tcp)
    }

    /// Whether something could be read, its end included. The socket is asked only if its thread has not been told that it is empty.
    pub(super) fn has_something(&self) -> bool {
        if !self.readiness.may_read() {
            return false;
        }
        match rustix::net::recv(self, &mut [0; 1][..], RecvFlags::PEEK) {
            Err(rustix::io::Errno::AGAIN) => {
                if self.is_here() {
                    self.readiness.found_empty();
                }
                false
            }
            _ => true,
        }
    }

    #[inline]
    pub(super) fn poll_read(&self, cx: &Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let flags = RecvFlags::empty();
        self.poll_receive(cx, buf.remaining(), || {
            let (count, _) = rustix::net::recv(self, buf.initialize_unfilled(), flags)?;
            buf.advance(count);
            Ok(count)
        })
        .map_ok(|_| ())
    }

    /// Reads a byte and leaves it there; 0 bytes at the end.
    pub(super) fn poll_peek(&self, cx: &Context<'_>, byte: &mut [u8; 1]) -> Poll<io::Result<usize>> {
        self.poll_receive(cx, 1, || Ok(rustix::net::recv(self, &mut byte[..], RecvFlags::PEEK)?.1))
    }

    #[inline]
    fn poll_receive(
        &self,
        cx: &Context<'_>,
        wanted: usize,
        mut receive: impl FnMut() -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        while self.readiness.may_read() {
            match receive() {
                Ok(count) => {
                    self.readiness.has_read(count, wanted);
                    return Poll::Ready(Ok(count));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        self.readiness.wait_to_read(cx);
        Poll::Pending
    }

    #[inline]
    pub(super) fn poll_write(&self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.readiness.defer(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.poll_send(cx, || rustix::net::send(self, bytes, SendFlags::empty()))
    }

    /// Writes from a thread that does not watch it; `None` if there is no room.
    pub(super) fn write_from_afar(&self, bytes: &[u8]) -> Option<io::Result<usize>> {
        if let Err(error) = self.readiness.leave() {
            return Some(Err(error));
        }
        match rustix::net::send(self, bytes, SendFlags::empty()) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => None,
            written => Some(written.map_err(io::Error::from)),
        }
    }

    pub(super) fn poll_write_vectored(&self, cx: &Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, || rustix::io::writev(self, parts))
    }

    #[inline]
    fn poll_send(&self, cx: &Context<'_>, mut send: impl FnMut() -> rustix::io::Result<usize>) -> Poll<io::Result<usize>> {
        while self.readiness.may_write() {
            match send() {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        self.readiness.wait_to_write(cx);
        Poll::Pending
    }

    /// Says that nothing more will be sent.
    pub(super) fn shut_down(&self) -> io::Result<()> {
        self.readiness.leave()?;
        SockRef::from(self).shutdown(Shutdown::Write)
    }
}

#[cfg(test)]
mod tests {
    use crate::net::socket::Socket;
    use crate::runtime::{self, yield_now};
    use futures_util::future::{join_all, poll_fn};
    use std::future::Future;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::pin::Pin;
    use std::sync::mpsc;
    use std::task::Poll;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let near = TcpStream::connect(listener.local_addr().expect("its address")).expect("connected");
        let far = listener.accept().expect("accepted").0;
        near.set_nonblocking(true).expect("set");
        far.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        (near, far)
    }

    /// Runs `main` on a relay thread with and without io_uring.
    fn relay<F: Future<Output = ()> + 'static>(main: impl Fn(Socket, TcpStream) -> F + Send + Clone + 'static) {
        for together in [true, false] {
            let ((near, far), main) = (pair(), main.clone());
            let thread = std::thread::spawn(move || {
                let (done, is_done) = mpsc::channel();
                runtime::run(
                    async move {
                        main(Socket::tcp(near).expect("watched"), far).await;
                        done.send(()).expect("it is looked at");
                    },
                    together,
                )
                .expect("a reactor");
                is_done.try_recv().expect("it came to its end");
            });
            thread.join().expect("no panic");
        }
    }

    fn poll_write(socket: &mut Socket, bytes: &[u8]) -> impl Future<Output = Option<usize>> {
        poll_fn(move |cx| match Pin::new(&mut *socket).poll_write(cx, bytes) {
            Poll::Ready(count) => Poll::Ready(Some(count.expect("it is open"))),
            Poll::Pending => Poll::Ready(None),
        })
    }

    #[test]
    fn sends_of_a_turn_come_in_their_order_whatever_their_length() {
        relay(|mut socket, mut far| async move {
            let reading = std::thread::spawn(move || {
                let mut all = Vec::new();
                far.read_to_end(&mut all).expect("they come");
                all
            });
            let mut sent = Vec::new();
            for number in 0..200u32 {
                let len = [1usize, 30, 4096, 4097, 20_000][number as usize % 5];
                let message = number.to_le_bytes().repeat(len.div_ceil(4));
                socket.write_all(&message).await.expect("it is read");
                sent.extend(message);
            }
            drop(socket);
            assert!(reading.join().expect("no panic") == sent);
        });
    }

    #[test]
    fn who_does_not_read_stops_the_sender_and_loses_nothing() {
        relay(|mut socket, mut far| async move {
            let mut sent = Vec::new();
            // The socket's buffers are full when what was deferred meets them.
            while let Some(count) = poll_write(&mut socket, &[b'x'; 3001]).await {
                sent.resize(sent.len() + count, b'x');
                yield_now().await;
            }
            for letter in b'a'..=b'z' {
                assert_eq!(poll_write(&mut socket, &[letter; 10]).await, None, "nothing goes past what waits");
            }
            let (rest, expected) = (vec![b'y'; 5000], sent.len() + 5000);
            let reading = std::thread::spawn(move || {
                let mut all = vec![0; expected];
                far.read_exact(&mut all).expect("all of it comes");
                all
            });
            socket.write_all(&rest).await.expect("it is read now");
            sent.extend(rest);
            yield_now().await;
            assert!(reading.join().expect("no panic") == sent);
        });
    }

    #[test]
    fn a_last_word_is_said_before_the_socket_is_closed() {
        relay(|mut socket, mut far| async move {
            socket.write_all(b"goodbye").await.expect("written");
            drop(socket);
            let mut said = String::new();
            far.read_to_string(&mut said).expect("it is there");
            assert_eq!(said, "goodbye");
        });
    }

    #[test]
    fn a_last_word_may_be_said_by_any_thread() {
        let ((near, mut far), (sender, receiver)) = (pair(), mpsc::channel());
        let (stay, mut leave) = tokio::sync::mpsc::channel::<()>(1);
        let thread = std::thread::spawn(move || {
            let work = async move {
                sender.send(Socket::tcp(near).expect("watched")).expect("it is waited for");
                leave.recv().await;
            };
            runtime::run(work, true).expect("a reactor");
        });
        let mut stream = crate::net::Stream::Plain(receiver.recv().expect("a socket"));
        stream.say_last(b"goodbye");
        drop(stream);
        let mut said = String::new();
        far.read_to_string(&mut said).expect("it is there");
        assert_eq!(said, "goodbye");
        drop(stay);
        thread.join().expect("no panic");
    }

    #[test]
    fn a_last_word_waits_for_room() {
        relay(|mut socket, mut far| async move {
            let mut sent = 0;
            while let Some(count) = poll_write(&mut socket, &[b'x'; 3001]).await {
                sent += count;
                yield_now().await;
            }
            let reading = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                let mut all = Vec::new();
                far.read_to_end(&mut all).expect("they come");
                all.len()
            });
            let mut stream = crate::net::Stream::Plain(socket);
            poll_fn(|cx| stream.poll_sent(cx)).await;
            drop(stream);
            assert_eq!(reading.join().expect("no panic"), sent);
        });
    }

    #[test]
    fn who_sends_to_a_closed_socket_finds_its_end() {
        relay(|mut socket, far| async move {
            // Bytes that were not read make the close a reset.
            socket.write_all(b"unread").await.expect("written");
            yield_now().await;
            drop(far);
            for _ in 0..3 {
                // The first error may come of a send as well as of a read.
                let _ = socket.write_all(b"more").await;
                yield_now().await;
            }
            assert!(matches!(socket.read(&mut [0; 8]).await, Ok(0) | Err(_)));
        });
    }

    #[test]
    fn futures_within_a_task_wait_for_their_own_sockets() {
        relay(|_, _| async move {
            let (sockets, mut fars): (Vec<_>, Vec<_>) = (0..5).map(|_| pair()).unzip();
            let reads = sockets.into_iter().map(|near| async move {
                let mut socket = Socket::tcp(near).expect("watched");
                let mut read = [0; 3];
                socket.read_exact(&mut read).await.expect("it comes");
                read[0]
            });
            // Each is written when the one before has been found.
            let (found_one, is_found) = mpsc::channel();
            let writing = std::thread::spawn(move || {
                for (number, far) in fars.iter_mut().enumerate().rev() {
                    far.write_all(&[u8::try_from(number).expect("small"); 3]).expect("written");
                    is_found.recv().expect("it looks for them");
                }
                fars
            });
            // Each has a waker of its own.
            let all: Vec<_> = reads.map(|read| Box::pin(read) as Pin<Box<dyn Future<Output = u8>>>).collect();
            let mut many: futures_util::stream::FuturesUnordered<_> = all.into_iter().collect();
            let mut found = Vec::new();
            while let Some(number) = futures_util::StreamExt::next(&mut many).await {
                found.push(number);
                found_one.send(()).expect("it writes");
            }
            assert_eq!(found, [4, 3, 2, 1, 0]);
            writing.join().expect("no panic");
            join_all([std::future::ready(())]).await;
        });
    }

    /// A socket goes round three relay threads and one of tokio; each writes a letter as it leaves.
    #[test]
    fn a_socket_is_watched_wherever_it_goes() {
        const ROUNDS: usize = 300;
        let (near, mut far) = pair();
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..4).map(|_| tokio::sync::mpsc::channel::<Socket>(1)).unzip();
        let mut threads = Vec::new();
        for (place, mut receiver) in receivers.into_iter().enumerate() {
            let next = senders[(place + 1) % senders.len()].clone();
            let work = async move {
                let mut round = 0;
                while let Some(mut socket) = receiver.recv().await {
                    assert_eq!(socket.read_u8().await.expect("it is asked"), b'?');
                    socket.write_all(&[b'a' + u8::try_from(place).expect("small")]).await.expect("it is read");
                    socket.leave().expect("there is room");
                    round += 1;
                    if next.send(socket).await.is_err() || round == ROUNDS {
                        break;
                    }
                }
            };
            threads.push(std::thread::spawn(move || match place {
                3 => {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a run-time");
                    runtime.block_on(work);
                }
                _ => runtime::run(work, place > 0).expect("a reactor"),
            }));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a run-time");
        let first = runtime.block_on(async { Socket::tcp(near).expect("watched") });
        senders[0].blocking_send(first).expect("it is waited for");
        drop(senders);
        let mut answers = vec![0; 4 * ROUNDS];
        for answer in &mut answers {
            far.write_all(b"?").expect("written");
            far.read_exact(std::slice::from_mut(answer)).expect("it comes");
        }
        assert!(answers.chunks(4).all(|round| round == b"abcd"));
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    }
}
