//! One leg's answer on its way to the client, as it comes: the way of every statement that one shard answers.

use super::leg::LegGone;
use super::session::ShardedSession;
use super::trouble::Trouble;
use crate::config::COORDINATOR;
use crate::session::ClientSide;
use crate::types::SqlState;
use crate::wire::error_response::ErrorFields;
use crate::wire::frame::{HEADER_LEN, client_header, header};
use std::task::{Context, Poll};

/// Answers that wait for a slow client before its leg has to wait too. Bytes.
const UNSENT_MAX: usize = 64 * 1024;
/// Messages longer than this are passed on in parts. Bytes.
const WHOLE_MAX: usize = 64 * 1024;
/// COPY data that waits for a slow shard before the client has to wait too. Bytes.
const COPY_AHEAD_MAX: usize = 64 * 1024;

/// How a leg is listened to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listening {
    /// The client gets the ReadyForQuery.
    pub ready: bool,
    /// The request uses the extended protocol, so that a COPY from the client ends with a Sync.
    pub extended: bool,
    /// BindComplete messages are not shown.
    pub hides_binds: bool,
}

/// What a relayed answer said.
#[derive(Debug, Default)]
pub struct Relayed {
    /// The SQLSTATE of the first error in it.
    pub error: Option<SqlState>,
    /// ParseComplete messages in it.
    pub parses: usize,
}

#[derive(Debug, Default)]
struct RelayState {
    /// Bytes of the leg's message under way that are still to be passed on.
    rest: usize,
    copy: CopyIn,
    /// Bytes of the client's message under way that are still to be passed on.
    copy_rest: usize,
    done: bool,
    /// What the leg said before its session ended.
    last_words: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum CopyIn {
    #[default]
    None,
    /// The client's data goes to the leg.
    Data,
    /// Its data has ended; its Sync is still to come.
    AwaitsSync,
}

impl ShardedSession {
    /// Passes a leg's answers on up to its last ReadyForQuery, and data of a COPY the other way.
    ///
    /// # Errors
    /// The leg's or the client's connection ended. An error that the server reports is passed on like any other answer.
    pub(super) async fn relay(&mut self, shard: usize, how: Listening) -> Result<Relayed, Trouble> {
        let mut state = RelayState::default();
        let mut relayed = Relayed::default();
        loop {
            std::future::poll_fn(|cx| self.poll_relay(cx, shard, (&mut state, how.extended))).await?;
            self.pass_on(shard, how, &mut state, &mut relayed)?;
            if state.done {
                return Ok(relayed);
            }
        }
    }

    /// Ready when there may be something to pass on.
    fn poll_relay(
        &mut self,
        cx: &mut Context<'_>,
        shard: usize,
        (state, extended): (&mut RelayState, bool),
    ) -> Poll<Result<(), Trouble>> {
        if let Err(end) = self.poll_flush(cx) {
            return Poll::Ready(Err(Trouble::End(end)));
        }
        let ClientSide { inbox, .. } = self.side();
        let before = inbox.len();
        if let Err(end) = self.look_at_client(cx) {
            return Poll::Ready(Err(Trouble::End(end)));
        }
        if state.copy != CopyIn::None || state.copy_rest > 0 {
            if self.side().ended && self.side().inbox.is_empty() {
                // The rest of its data will never come.
                return Poll::Ready(Err(Trouble::End(super::trouble::ShardedEnd::ClientGone)));
            }
            self.pass_copy(shard, state, extended)?;
            if self.side().inbox.len() < before
                && let Err(end) = self.look_at_client(cx)
            {
                return Poll::Ready(Err(Trouble::End(end)));
            }
        }
        let slow = self.side().outbox.len() > UNSENT_MAX && !self.holding;
        let name = self.map.shards.get(shard).map_or(COORDINATOR, String::as_str);
        let Some(leg) = self.legs[shard].as_mut() else { return Poll::Ready(Err(LegGone::trouble(name, None))) };
        let moved = if slow && leg.outbox.is_empty() { Poll::Pending } else { leg.poll_move(cx) };
        match moved {
            Poll::Ready(Err(LegGone)) if !has_news(leg.inbox.as_slice(), state.rest) => {
                let last_words = state.last_words.take();
                Poll::Ready(Err(self.leg_gone(shard, last_words.as_deref())))
            }
            Poll::Pending if slow || !has_news(leg.inbox.as_slice(), state.rest) => Poll::Pending,
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Looks at what the leg said and passes on what is the client's.
    fn pass_on(&mut self, shard: usize, how: Listening, state: &mut RelayState, relayed: &mut Relayed) -> Result<(), Trouble> {
        let ClientSide { outbox, .. } = &mut self.client.client;
        let Some(leg) = self.legs[shard].as_mut() else { return Ok(()) };
        let (mut at, mut from) = (0, 0);
        let bytes = leg.inbox.as_slice();
        if state.rest > 0 {
            at = state.rest.min(bytes.len());
            state.rest -= at;
        }
        let mut last_status = None;
        while at < bytes.len() && !state.done {
            let Ok(found) = header(&bytes[at..]) else { return Err(self.leg_gone(shard, None)) };
            let Some(found) = found else { break };
            if bytes.len() - at < found.total {
                if found.total > WHOLE_MAX && matches!(found.tag, b'D' | b'd') {
                    state.rest = found.total - (bytes.len() - at);
                    at = bytes.len();
                }
                break;
            }
            let body = &bytes[at + HEADER_LEN..at + found.total];
            let mut shown = true;
            match found.tag {
                b'D' | b'd' => {}
                b'1' => relayed.parses += 1,
                b'2' => shown = !how.hides_binds,
                b'E' if ErrorFields::read(body).is_fatal() => {
                    state.last_words = Some(body.to_vec());
                    shown = false;
                }
                b'E' => {
                    relayed.error.get_or_insert(ErrorFields::read(body).state);
                    // In the extended protocol the server drops data up to the client's Sync.
                    let goes_on = how.extended && state.copy != CopyIn::None;
                    state.copy = if goes_on { CopyIn::AwaitsSync } else { CopyIn::None };
                }
                b'G' => state.copy = CopyIn::Data,
                b'Z' => {
                    last_status = body.first().copied();
                    state.done = leg.due <= 1;
                    shown = false;
                }
                _ => {}
            }
            if !shown {
                outbox.push(&bytes[from..at]);
                from = at + found.total;
            }
            at += found.total;
            if found.tag == b'Z' && !state.done {
                leg.due -= 1;
            }
        }
        outbox.push(&bytes[from..at]);
        leg.inbox.consume(at);
        if let Some(status) = last_status.filter(|_| state.done) {
            leg.ready(status);
            if status == b'E' {
                self.block.fail();
            }
            if how.ready {
                self.put_ready();
            }
        }
        Ok(())
    }

    /// Passes the client's COPY data to the leg as far as it has room.
    fn pass_copy(&mut self, shard: usize, state: &mut RelayState, extended: bool) -> Result<(), Trouble> {
        let inbox = &mut self.client.client.inbox;
        let Some(leg) = self.legs[shard].as_mut() else { return Ok(()) };
        while (state.copy != CopyIn::None || state.copy_rest > 0) && leg.outbox.len() < COPY_AHEAD_MAX {
            if state.copy_rest == 0 {
                let Some(found) = client_header(inbox.as_slice())? else { break };
                state.copy_rest = found.total;
                state.copy = match (found.tag, state.copy) {
                    (b'c' | b'f', CopyIn::Data) => CopyIn::AwaitsSync,
                    (_, now) => now,
                };
                let ends = match extended {
                    true => found.tag == b'S' && state.copy == CopyIn::AwaitsSync,
                    false => state.copy == CopyIn::AwaitsSync,
                };
                if ends || !is_copy(found.tag) {
                    state.copy = CopyIn::None;
                }
            }
            let count = state.copy_rest.min(inbox.len());
            leg.outbox.push(&inbox.as_slice()[..count]);
            inbox.consume(count);
            state.copy_rest -= count;
            if state.copy_rest > 0 {
                break;
            }
        }
        Ok(())
    }
}

fn is_copy(tag: u8) -> bool {
    matches!(tag, b'd' | b'c' | b'f' | b'S' | b'H')
}

/// Whether a leg has said something that can be passed on now.
fn has_news(bytes: &[u8], rest: usize) -> bool {
    match header(bytes) {
        _ if rest > 0 => !bytes.is_empty(),
        Ok(Some(found)) => found.total <= bytes.len() || (found.total > WHOLE_MAX && matches!(found.tag, b'D' | b'd')),
        Ok(None) => false,
        Err(_) => true,
    }
}
