//! One unit's exchange with its server: both directions at once, until everything that is expected has come.

use super::link::Link;
use super::relay::{Answer, CopyPhase, take_chunk_for};
use super::state::SessionState;
use crate::net::scratch::poll_read_with;
use crate::net::{Buffer, Stream};
use crate::server::{Expected, ServerConnection};
use crate::wire::WireError;
use crate::wire::frame::{client_header, put_message};
use std::io;
use std::task::{Context, Poll};

/// Requests of the client that are read ahead while a server works. Bytes.
const READ_AHEAD_MAX: usize = 128 * 1024;
/// Bytes relayed before other sessions of the thread get their turn.
const TURN_BYTES: u64 = 256 * 1024;

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
}

/// An exchange under way.
#[derive(Debug)]
pub struct Exchange {
    /// What happened so far.
    pub answer: Answer,
    /// Bytes at the front of the client's inbox that are the unit's, kept to be sent again.
    pub unit_len: usize,
    /// The unit's bytes are to be written as they are.
    pub as_it_is: bool,
    /// COPY data: bytes of the message under way that are still to be passed on.
    copy_left: usize,
    /// The end of a COPY's data was passed on in a pipeline: the server answers when it is told to flush.
    flush_due: bool,
    turn: u64,
}

impl Exchange {
    /// An exchange that has just been put into the server's outbox.
    pub fn new(answer: Answer, unit_len: usize, as_it_is: bool) -> Self {
        Exchange { answer, unit_len, as_it_is, copy_left: 0, flush_due: false, turn: 0 }
    }

    /// Moves bytes until the exchange ends.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (client, state): (&mut ClientSide, &SessionState),
        link: &mut Link,
    ) -> Poll<ExchangeEnd> {
        self.turn = 0;
        let server = link.server();
        if std::mem::take(&mut self.as_it_is) {
            let unit = &client.inbox.as_slice()[..self.unit_len];
            if let Err(error) = server.stream.write_or_keep(cx, unit, &mut server.outbox) {
                return self.server_lost(server, error);
            }
        }
        // Answers of pgyard's own that wait for nothing from the server.
        while let Some(tag) = server.incoming.replies.take_fake() {
            crate::wire::reply::put_bare(client.outbox.writer(), tag);
        }
        loop {
            if let Poll::Ready(Err(error)) = server.stream.poll_drain(cx, &mut server.outbox) {
                // What the server said before it went may still be there to be read.
                if let Poll::Ready(end) = self.poll_server(cx, (client, state), server) {
                    return Poll::Ready(end);
                }
                return self.server_lost(server, error);
            }
            let mut moved = false;
            match self.poll_server(cx, (client, state), server) {
                Poll::Ready(ExchangeEnd::Done) if self.is_done(server) => return Poll::Ready(self.finish()),
                Poll::Ready(ExchangeEnd::Done) => moved = true,
                Poll::Ready(end) => return Poll::Ready(end),
                Poll::Pending => {}
            }
            match self.poll_client(cx, client, server) {
                Poll::Ready(Ok(())) => moved = true,
                Poll::Ready(Err(end)) => return Poll::Ready(end),
                Poll::Pending => {}
            }
            if self.is_done(server) {
                return Poll::Ready(self.finish());
            }
            if !moved {
                return Poll::Pending;
            }
            if self.turn > TURN_BYTES {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    fn is_done(&self, server: &ServerConnection) -> bool {
        server.incoming.is_quiet() && server.outbox.is_empty() && self.copy_left == 0
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
        (client, state): (&mut ClientSide, &SessionState),
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
            let range = take_chunk_for(Some(state), chunk, incoming, &mut self.answer, &mut client.outbox)?;
            Ok(Ok(match range.is_empty() {
                true => Ok(()),
                false => client.stream.write_or_keep(cx, &chunk[range], &mut client.outbox),
            }))
        });
        self.turn += self.answer.bytes - before;
        let outcome: Result<io::Result<io::Result<()>>, WireError> = match read {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => Ok(Err(error)),
            Poll::Ready(Ok(outcome)) => outcome,
        };
        match outcome {
            Err(error) => {
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

    /// Reads the client: ahead, or COPY data for the server.
    fn poll_client(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut ClientSide,
        server: &mut ServerConnection,
    ) -> Poll<Result<(), ExchangeEnd>> {
        let copying = self.answer.copy != CopyPhase::None || self.copy_left > 0;
        if copying {
            if !server.outbox.is_empty() {
                return Poll::Pending;
            }
            let before = client.inbox.len();
            if let Err(error) = self.pass_copy(client, server) {
                return Poll::Ready(Err(ExchangeEnd::ClientProtocol(error)));
            }
            if client.inbox.len() != before {
                return Poll::Ready(Ok(()));
            }
        }
        if client.ended || client.inbox.len() > READ_AHEAD_MAX + self.unit_len {
            // The rest of its data or its Sync will never come: the server would wait for ever.
            if client.ended && copying {
                return Poll::Ready(Err(ExchangeEnd::ClientLost));
            }
            return Poll::Pending;
        }
        let inbox = &mut client.inbox;
        match poll_read_with(&mut client.stream, cx, |chunk, _| {
            inbox.push(chunk);
            chunk.len()
        }) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0)) => {
                client.ended = true;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(count)) => {
                self.turn += if copying { count as u64 } else { 0 };
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(ExchangeEnd::ClientLost)),
        }
    }

    /// Moves COPY messages, up to the one that ends the data, from the client's inbox, behind the unit, into the server's outbox.
    fn pass_copy(&mut self, client: &mut ClientSide, server: &mut ServerConnection) -> Result<(), WireError> {
        // The unit was answered (a COPY has begun), so it is never sent again.
        client.inbox.consume(std::mem::take(&mut self.unit_len));
        let input = client.inbox.as_slice();
        let mut used = self.copy_left.min(input.len());
        self.copy_left -= used;
        while self.copy_left == 0 && self.answer.copy != CopyPhase::None {
            let rest = &input[used..];
            let Some(head) = client_header(rest)? else { break };
            // What follows the end of the data is a unit of its own. A Sync or Flush before it is ignored by the server, anything
            // else refused.
            if matches!(head.tag, b'c' | b'f') {
                self.answer.copy = CopyPhase::None;
                self.flush_due = self.answer.extended;
            }
            let now = head.total.min(rest.len());
            used += now;
            self.copy_left = head.total - now;
        }
        server.outbox.push(&input[..used]);
        client.inbox.consume(used);
        if self.copy_left == 0 && std::mem::take(&mut self.flush_due) {
            put_message(server.outbox.writer(), b'H', |_| {});
        }
        Ok(())
    }
}
