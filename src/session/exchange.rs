//! One unit's exchange with its server: both directions at once, until everything that is expected has come.

use super::link::Link;
use super::relay::{Answer, CopyPhase, take_chunk_for};
use super::state::SessionState;
use crate::net::scratch::poll_read_with;
use crate::net::{Buffer, Stream};
use crate::runtime::yield_turn;
use crate::server::{Expected, ServerConnection};
use crate::wire::WireError;
use crate::wire::frame::put_message;
use std::hint::cold_path;
use std::io;
use std::task::{Context, Poll, ready};

/// Requests of the client that are read ahead while a server works. Bytes.
const READ_AHEAD_MAX: usize = 128 * 1024;
/// Bytes relayed before other sessions of the thread get their turn.
const TURN_BYTES: u32 = 128 * 1024;

/// How an exchange ended.
#[derive(Debug)]
pub enum ExchangeEnd {
    /// All answers have come.
    Done,
    /// The replica refused: nothing was forwarded, and its connection is in order again.
    Refused,
    /// The server's connection ended or broke.
    ServerLost(io::Error),
    /// The server broke the protocol.
    ServerProtocol(WireError),
    /// The client's connection ended or broke.
    ClientLost,
    /// The session was told to end.
    Stopped,
    /// The host does not answer its probe any more, and the unit can go elsewhere.
    HostSilent,
    /// The client broke the protocol in the middle of a COPY.
    ClientProtocol(WireError),
}

/// The client's side of a session.
#[derive(Debug)]
pub struct ClientSide {
    /// The socket.
    pub stream: Stream,
    /// Requests that were read; the unit under way is at the front.
    pub inbox: Buffer,
    /// Answers that the socket did not take yet.
    pub outbox: Buffer,
    /// The client will send no more.
    pub ended: bool,
    /// Bytes of its message under way that are still to come. They go to the server while an exchange is under way, and are
    /// dropped if none is.
    pub rest: usize,
}

impl ClientSide {
    /// A client from which nothing was read.
    pub fn new(stream: Stream) -> Self {
        ClientSide { stream, inbox: Buffer::new(), outbox: Buffer::new(), ended: false, rest: 0 }
    }
}

/// An exchange under way.
#[derive(Debug)]
pub struct Exchange {
    /// What happened so far.
    pub answer: Answer,
    /// Bytes at the front of the client's inbox that are the unit's, kept to be sent again.
    pub unit_len: usize,
    /// How many of them are written, or in the server's outbox in another form.
    written: usize,
    /// Bytes of the client's that were passed on as they came.
    pub passed: u64,
    /// A Flush is due behind the message that is passed on.
    flush_due: bool,
    /// The client's bytes belong to it: not while queries of pgyard's own are answered.
    passes: bool,
    /// The unit may go to another host as long as nothing of its answer has been forwarded.
    pub movable: bool,
    /// The socket broke before it had taken all of the unit's bytes.
    pub unsent: bool,
    /// Bytes relayed in this turn.
    turn: u32,
    /// The unit's last bytes wait for the end of the thread's turn.
    deferred: bool,
    /// Turns that ended because other sessions were to have theirs.
    pub full_turns: u32,
}

impl Exchange {
    /// An exchange whose unit is to be written as it is, or has just been put into the server's outbox.
    pub fn new(answer: Answer, unit_len: usize, as_it_is: bool) -> Self {
        let written = if as_it_is { 0 } else { unit_len };
        Exchange {
            answer,
            unit_len,
            written,
            passed: 0,
            flush_due: false,
            passes: true,
            movable: false,
            unsent: false,
            turn: 0,
            deferred: false,
            full_turns: 0,
        }
    }

    /// The answers to queries of pgyard's own; what the client sends meanwhile waits.
    pub fn of_own_queries() -> Self {
        Exchange { passes: false, ..Exchange::new(Answer { hidden: true, ..Answer::default() }, 0, false) }
    }

    /// The same for a unit whose last message is still to come in part: a Flush follows it.
    pub fn with_flush_behind(self) -> Self {
        Exchange { flush_due: true, ..self }
    }

    /// Whether the unit can still be taken to another host.
    pub fn can_move(&self) -> bool {
        self.movable && !self.answer.forwarded()
    }

    /// Moves bytes until the exchange ends.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (client, state): (&mut ClientSide, Option<&SessionState>),
        link: &mut Link,
    ) -> Poll<ExchangeEnd> {
        self.turn = 0;
        let server = link.server();
        if self.deferred && !server.stream.is_deferring() {
            self.deferred = false;
            self.unsent = server.stream.has_refused();
        }
        server.mid_request |= self.has_rest(client);
        // Answers of pgyard's own that wait for nothing from the server.
        while let Some(tag) = server.incoming.replies.take_fake() {
            crate::wire::reply::put_bare(client.outbox.writer(), tag);
        }
        loop {
            if let Err(error) = self.send(cx, client, server) {
                cold_path();
                // What the server said before it went may still be there to be read.
                if let Poll::Ready(end) = self.poll_server(cx, (client, state), server) {
                    return Poll::Ready(end);
                }
                return self.server_lost(server, error);
            }
            let mut moved = false;
            match self.poll_server(cx, (client, state), server) {
                Poll::Ready(ExchangeEnd::Done) if self.is_done(client, server) => return Poll::Ready(self.finish()),
                Poll::Ready(ExchangeEnd::Done) => moved = true,
                Poll::Ready(end) => return Poll::Ready(end),
                Poll::Pending => {}
            }
            match self.poll_client(cx, client, server) {
                Poll::Ready(Ok(())) => moved = true,
                Poll::Ready(Err(end)) => return Poll::Ready(end),
                Poll::Pending => {}
            }
            if self.is_done(client, server) {
                return Poll::Ready(self.finish());
            }
            if !moved {
                return Poll::Pending;
            }
            if self.turn > TURN_BYTES {
                cold_path();
                self.full_turns = self.full_turns.saturating_add(1);
                return yield_turn(cx);
            }
        }
    }

    /// Writes what the server's socket takes of its outbox, and behind it of a unit that goes as it is: a large one is not copied.
    fn send(&mut self, cx: &mut Context<'_>, client: &ClientSide, server: &mut ServerConnection) -> io::Result<()> {
        if self.is_unsent() {
            let unit = &client.inbox.as_slice()[self.written..self.unit_len];
            let written = server.stream.write_behind(cx, unit, &mut server.outbox);
            // Then the socket has not taken all of the unit, so the server can't have got a whole request.
            self.unsent = written.is_err() && !server.stream.is_tls();
            self.written += written?;
            self.deferred = server.stream.is_deferring();
            return Ok(());
        }
        match server.stream.poll_drain(cx, &mut server.outbox) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Whether the unit has bytes that are still to be written.
    pub(super) fn is_unsent(&self) -> bool {
        self.written < self.unit_len
    }

    /// The unit is not needed any more; returns its length in the inbox, to be dropped there.
    pub(super) fn forget_unit(&mut self) -> usize {
        self.written = 0;
        std::mem::take(&mut self.unit_len)
    }

    pub(super) fn count_passed(&mut self, count: usize) {
        self.passed += count as u64;
        self.count_in_turn(count as u64);
    }

    fn count_in_turn(&mut self, bytes: u64) {
        self.turn = self.turn.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// The end of a COPY's data is passed on in a pipeline: the server answers when it is told to flush.
    pub(super) fn flush_behind_copy(&mut self, before: CopyPhase) {
        self.flush_due |= self.answer.extended && before == CopyPhase::In && self.answer.copy == CopyPhase::None;
    }

    pub(super) fn take_flush_due(&mut self) -> bool {
        std::mem::take(&mut self.flush_due)
    }

    fn is_done(&self, client: &ClientSide, server: &ServerConnection) -> bool {
        server.incoming.is_quiet() && server.outbox.is_empty() && !(self.is_unsent() || self.flush_due || self.has_rest(client))
    }

    /// Whether the rest of a message is to be passed on.
    pub(super) fn has_rest(&self, client: &ClientSide) -> bool {
        self.passes && client.rest > 0
    }

    fn finish(&self) -> ExchangeEnd {
        if self.answer.refused.is_some() { ExchangeEnd::Refused } else { ExchangeEnd::Done }
    }

    fn server_lost(&self, server: &mut ServerConnection, error: io::Error) -> Poll<ExchangeEnd> {
        server.broken = true;
        Poll::Ready(ExchangeEnd::ServerLost(error))
    }

    /// Whether answers are kept from the client for now, because the unit may have to be sent again.
    fn holds(&self) -> bool {
        self.answer.may_be_taken_back() && !self.answer.committed
    }

    /// Reads the server and writes the client. `Ready(Done)` means that something moved.
    fn poll_server(
        &mut self,
        cx: &mut Context<'_>,
        (client, state): (&mut ClientSide, Option<&SessionState>),
        server: &mut ServerConnection,
    ) -> Poll<ExchangeEnd> {
        if !self.holds() && !client.outbox.is_empty() {
            match client.stream.poll_drain(cx, &mut client.outbox) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(ExchangeEnd::ClientLost),
                // The client is slow: its server waits.
                Poll::Pending => return Poll::Pending,
            }
        }
        let before = self.answer.bytes;
        let ServerConnection { stream, incoming, .. } = &mut *server;
        let read = poll_read_with(stream, cx, |chunk, cx| {
            if chunk.is_empty() {
                return Ok(Err(io::Error::from(io::ErrorKind::UnexpectedEof)));
            }
            let range = take_chunk_for(state, chunk, incoming, &mut self.answer, &mut client.outbox)?;
            Ok(Ok(match range.is_empty() {
                true => Ok(()),
                false => client.stream.write_or_keep(cx, &chunk[range], &mut client.outbox),
            }))
        });
        self.count_in_turn(self.answer.bytes - before);
        let outcome: Result<io::Result<io::Result<()>>, WireError> = match read {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => Ok(Err(error)),
            Poll::Ready(Ok(outcome)) => outcome,
        };
        match outcome {
            Err(error) => {
                cold_path();
                server.broken = true;
                return Poll::Ready(ExchangeEnd::ServerProtocol(error));
            }
            Ok(Err(error)) => return self.server_lost(server, error),
            Ok(Ok(Err(_))) => return Poll::Ready(ExchangeEnd::ClientLost),
            Ok(Ok(Ok(()))) => {}
        }
        self.after_chunk(cx, client, server)
    }

    fn after_chunk(&mut self, cx: &mut Context<'_>, client: &mut ClientSide, server: &mut ServerConnection) -> Poll<ExchangeEnd> {
        if self.answer.refused.is_some() {
            cold_path();
            client.outbox.clear();
            if server.incoming.replies.is_empty() && self.answer.extended && !self.answer.synced {
                // A pipeline up to a Flush: the server drops messages up to a Sync that the client has not sent.
                put_message(server.outbox.writer(), b'S', |_| {});
                server.incoming.replies.push(Expected::QuietSync);
                self.answer.synced = true;
            }
            return Poll::Ready(ExchangeEnd::Done);
        }
        if self.answer.holds_sync && !self.answer.copy_began && server.incoming.replies.is_empty() {
            cold_path();
            // The COPY was refused: the pipeline ends here.
            put_message(server.outbox.writer(), b'S', |_| {});
            server.incoming.replies.push(Expected::Sync);
            self.answer.holds_sync = false;
        }
        if !self.holds()
            && !client.outbox.is_empty()
            && let Poll::Ready(Err(_)) = client.stream.poll_drain(cx, &mut client.outbox)
        {
            return Poll::Ready(ExchangeEnd::ClientLost);
        }
        Poll::Ready(ExchangeEnd::Done)
    }

    /// Reads the client: ahead, or what goes to the server as it comes.
    fn poll_client(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut ClientSide,
        server: &mut ServerConnection,
    ) -> Poll<Result<(), ExchangeEnd>> {
        let passing = self.is_passing(client);
        if passing && ready!(self.poll_pass(cx, client, server))? {
            return Poll::Ready(Ok(()));
        }
        if client.ended || client.inbox.len() > READ_AHEAD_MAX + self.unit_len {
            // The rest of its data or its Sync will never come: the server would wait for ever.
            if client.ended && passing {
                return Poll::Ready(Err(ExchangeEnd::ClientLost));
            }
            return Poll::Pending;
        }
        let ClientSide { stream, inbox, ended, .. } = client;
        match ready!(poll_read_with(stream, cx, |chunk, _| {
            inbox.push(chunk);
            *ended |= chunk.is_empty();
        })) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(_) => Poll::Ready(Err(ExchangeEnd::ClientLost)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::yield_turn;
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Poll;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A session that has always something to relay, and one that gets a byte in the middle of that.
    #[test]
    fn at_each_turn_the_sockets_of_others_are_looked_at() {
        const WRITTEN_AT: usize = 10;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a run-time");
        let turns = Arc::new(AtomicUsize::new(0));
        let (mut near, mut far) = runtime.block_on(async { tokio::net::UnixStream::pair() }).expect("a pair of sockets");
        let seen = turns.clone();
        let quiet = runtime.spawn(async move {
            far.read_exact(&mut [0]).await.expect("a byte comes");
            seen.load(Ordering::Relaxed)
        });
        let busy = runtime.spawn(async move {
            for turn in 0..500 {
                turns.store(turn, Ordering::Relaxed);
                if turn == WRITTEN_AT {
                    near.write_all(b"x").await.expect("the socket has room");
                }
                let mut yielded = false;
                poll_fn(|cx| if std::mem::replace(&mut yielded, true) { Poll::Ready(()) } else { yield_turn(cx) }).await;
            }
        });
        let served_at = runtime.block_on(quiet).expect("it does not panic");
        assert!(served_at <= WRITTEN_AT + 2, "served at turn {served_at}");
        runtime.block_on(busy).expect("it does not panic");
    }
}
