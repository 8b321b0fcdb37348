//! A client's bytes that go to the server as they come: COPY data, and the rest of a message that is too long to be held.
//!
//! They are written straight from the thread's scratch buffer; what the server's socket does not take waits in its outbox, and
//! until that is empty the client is not read.

use super::exchange::{ClientSide, Exchange, ExchangeEnd};
use super::relay::{Answer, CopyPhase};
use crate::net::scratch::poll_read_with;
use crate::server::ServerConnection;
use crate::wire::WireError;
use crate::wire::frame::{client_header, put_message};
use std::task::{Context, Poll, ready};

impl Exchange {
    /// Whether what the client sends goes to the server now.
    pub(super) fn is_passing(&self, client: &ClientSide) -> bool {
        self.answer.copy != CopyPhase::None || self.has_rest(client)
    }

    /// Passes on what the client has sent. `Ready(Ok(false))`: there is more to be read into its inbox first.
    #[inline(never)]
    pub(super) fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut ClientSide,
        server: &mut ServerConnection,
    ) -> Poll<Result<bool, ExchangeEnd>> {
        if !server.outbox.is_empty() || self.is_unsent() {
            return Poll::Pending;
        }
        // The unit is never sent again: a COPY has begun, or the unit was too long to be kept.
        client.inbox.consume(self.forget_unit());
        let copy = self.answer.copy;
        let passed = if client.inbox.is_empty() {
            ready!(self.poll_pass_through(cx, client, server))?
        } else {
            let used =
                passable(client.inbox.as_slice(), &mut client.rest, &mut self.answer).map_err(ExchangeEnd::ClientProtocol)?;
            // An error of the server's socket shows when its outbox is written next, once its last words have been read.
            let written = server.stream.write_behind(cx, &client.inbox.as_slice()[..used], &mut server.outbox).unwrap_or(0);
            server.outbox.push(&client.inbox.as_slice()[written..used]);
            client.inbox.consume(used);
            used
        };
        self.flush_behind_copy(copy);
        self.note_passed(passed, client, server);
        Poll::Ready(Ok(passed > 0))
    }

    fn poll_pass_through(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut ClientSide,
        server: &mut ServerConnection,
    ) -> Poll<Result<usize, ExchangeEnd>> {
        if client.ended {
            return Poll::Ready(Ok(0));
        }
        let ClientSide { stream, inbox, ended, rest, .. } = client;
        let read = poll_read_with(stream, cx, |chunk, cx| {
            *ended |= chunk.is_empty();
            let used = passable(chunk, rest, &mut self.answer)?;
            inbox.push(&chunk[used..]);
            let written = server.stream.write_behind(cx, &chunk[..used], &mut server.outbox).unwrap_or(0);
            server.outbox.push(&chunk[written..used]);
            Ok(used)
        });
        match ready!(read) {
            Ok(used) => Poll::Ready(used.map_err(ExchangeEnd::ClientProtocol)),
            Err(_) => Poll::Ready(Err(ExchangeEnd::ClientLost)),
        }
    }

    fn note_passed(&mut self, count: usize, client: &ClientSide, server: &mut ServerConnection) {
        self.count_passed(count);
        if client.rest == 0 && self.take_flush_due() {
            // The message that was passed in parts ends a part of a pipeline: without a Flush the server would not answer it.
            put_message(server.outbox.writer(), b'H', |_| {});
        }
        server.mid_request = client.rest > 0;
    }
}

/// How many bytes at the front of `input` go to the server: the rest of the message under way, of which `rest` bytes are still
/// to come, and while a COPY is under way the messages behind it, up to the one that ends its data.
///
/// # Errors
/// The client broke the protocol.
fn passable(input: &[u8], rest: &mut usize, answer: &mut Answer) -> Result<usize, WireError> {
    let mut used = (*rest).min(input.len());
    *rest -= used;
    while *rest == 0 && answer.copy != CopyPhase::None {
        let ahead = &input[used..];
        let Some(head) = client_header(ahead)? else { break };
        // What follows the end of the data is a unit of its own. A Sync or Flush before it is ignored by the server, anything else
        // is for the server to refuse.
        if matches!(head.tag, b'c' | b'f') {
            answer.copy = CopyPhase::None;
        }
        let now = head.total.min(ahead.len());
        used += now;
        *rest = head.total - now;
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copying(extended: bool) -> Answer {
        Answer { copy: CopyPhase::In, extended, ..Answer::default() }
    }

    fn stream(messages: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        messages.iter().for_each(|(tag, body)| put_message(&mut out, *tag, |to| to.extend_from_slice(body)));
        out
    }

    /// Feeds `input` in pieces of `step`; returns how much of it goes to the server.
    fn feed(input: &[u8], step: usize, rest: &mut usize, answer: &mut Answer) -> Result<usize, WireError> {
        let (mut used, mut end) = (0, 0);
        while end < input.len() {
            end = (end + step).min(input.len());
            used += passable(&input[used..end], rest, answer)?;
        }
        Ok(used)
    }

    #[test]
    fn copy_data_passes_up_to_its_end_however_it_is_cut() {
        let check = |extended: bool, messages: &[(u8, &[u8])], behind: &[(u8, &[u8])]| {
            let (data, rest_of_input) = (stream(messages), stream(behind));
            let input = [data.clone(), rest_of_input].concat();
            for step in [1, 2, 3, 7, 100, 10_000] {
                let (mut answer, mut rest) = (copying(extended), 0);
                assert_eq!(feed(&input, step, &mut rest, &mut answer), Ok(data.len()), "{messages:?}, step {step}");
                assert_eq!((rest, answer.copy), (0, CopyPhase::None));
            }
        };
        let next: &[(u8, &[u8])] = &[(b'Q', b"select 1\0")];
        check(false, &[(b'd', &[7; 300]), (b'd', b""), (b'H', b""), (b'c', b"")], next);
        check(false, &[(b'S', b""), (b'd', b"x"), (b'f', b"why\0")], next);
        check(true, &[(b'S', b""), (b'd', b"x"), (b'c', b"")], &[(b'P', b"s\0text\0\0\0"), (b'S', b"")]);
        check(true, &[(b'f', b"why\0")], next);
    }

    #[test]
    fn what_is_left_of_a_message_passes_and_no_more() {
        let mut rest = 5;
        assert_eq!(passable(b"abc", &mut rest, &mut Answer::default()), Ok(3));
        assert_eq!(passable(b"deQ\0\0\0\x05\0", &mut rest, &mut Answer::default()), Ok(2));
        assert_eq!(passable(b"Q\0\0\0\x05\0", &mut rest, &mut Answer::default()), Ok(0));
        assert_eq!(rest, 0);
    }

    #[test]
    fn what_no_client_sends_is_refused() {
        assert!(feed(&stream(&[(b'?', b"")]), 9, &mut 0, &mut copying(false)).is_err());
    }
}
