//! A leg: a sharded session's own session on one shard, at the other end of a pipe within the process.

use super::trouble::Trouble;
use crate::database::{ClientEntry, Database, NewClient};
use crate::net::Buffer;
use crate::net::Stream;
use crate::net::scratch::poll_read_with;
use crate::net::stream::pipe;
use crate::runtime::spawn;
use crate::session::state::SessionState;
use crate::session::{ClientSide, EntryPlace, Placement, Session, ShardedClient};
use crate::types::SqlState;
use crate::wire::error_response::ErrorFields;
use crate::wire::frame::{Frame, frame_at, header};
use crate::wire::reply::Report;
use futures_util::FutureExt;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Answers that are taken out of a leg's pipe before they are asked for. Bytes.
const INBOX_MAX: usize = 128 * 1024;

/// Where a leg stands in the session's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegTransaction {
    /// It has no part in it.
    Outside,
    /// It has begun, and has only read.
    Reading,
    /// It may have written.
    Writing,
}

/// A session on one shard.
pub struct Leg {
    stream: Stream,
    /// Answers that were read and not looked at yet.
    pub inbox: Buffer,
    /// Bytes that have ever come into the inbox.
    received: usize,
    /// How many of them are known to hold no error.
    searched: usize,
    /// Requests that the pipe did not take yet.
    pub outbox: Buffer,
    /// Its part in the session's transaction.
    pub transaction: LegTransaction,
    /// The client's named statements that it has, by the number of their definition.
    pub statements: HashMap<Box<[u8]>, u64>,
    /// How many of the session's changes of parameters it has seen.
    pub sets_seen: u64,
    /// ReadyForQuery messages that are still to come.
    pub due: usize,
    /// The status of its last ReadyForQuery.
    pub status: u8,
    /// Its place among the clients.
    pub entry: Arc<ClientEntry>,
    owner: Arc<ClientEntry>,
}

impl Drop for Leg {
    fn drop(&mut self) {
        self.owner.remove_leg(self.entry.process);
    }
}

impl Leg {
    /// Opens a leg of `client` on a shard's database, on this thread. It ends, as a client's session does, when the leg is dropped.
    pub fn open(client: &ShardedClient, database: &Arc<Database>) -> Box<Leg> {
        let front = client.front.clone();
        let owner = client.entry.clone();
        let entry = front.clients.enter(NewClient {
            database: database.name.clone(),
            user: owner.user.clone(),
            peer: owner.peer,
            tls: owner.tls,
            application_name: owner.application_name(),
            key_len: 4,
            is_leg: true,
        });
        let role = database.role(&owner.user, client.credential.clone());
        let settings = database.settings();
        let own = settings.users.iter().find(|known| *known.name == *owner.user);
        let consistency = own.and_then(|user| user.consistency).unwrap_or(settings.routing.consistency);
        let state = SessionState::new(client.startup.clone(), database.parameters.clone(), consistency, settings.routing.split);
        drop(settings);
        let (ours, theirs) = pipe();
        // A leg stays on the thread of its session: no thread of this placement ever asks anybody to leave.
        let placement = Arc::new(Placement::new(1));
        let link = (front.limits.clone(), placement);
        let mut session = Box::new(Session::new(ClientSide::new(theirs), (database.clone(), role), entry.clone(), state, link));
        let place = EntryPlace { front: front.clone(), entry: entry.clone() };
        let connected = database.metrics.clients.hold();
        spawn(async move {
            if AssertUnwindSafe(session.run()).catch_unwind().await.is_err() {
                front.metrics.panics.increment();
                tracing::error!("a session on a shard ended in a panic; please report it with the lines above");
            }
            drop((session, connected, place));
        });
        owner.add_leg(entry.clone());
        Box::new(Leg {
            stream: ours,
            inbox: Buffer::new(),
            received: 0,
            searched: 0,
            outbox: Buffer::new(),
            transaction: LegTransaction::Outside,
            statements: HashMap::new(),
            sets_seen: 0,
            due: 0,
            status: b'I',
            entry,
            owner,
        })
    }

    /// Whether it takes part in the session's transaction.
    pub fn has_begun(&self) -> bool {
        self.transaction != LegTransaction::Outside
    }

    /// Appends messages that end in one ReadyForQuery.
    pub fn send(&mut self, messages: &[u8]) {
        self.outbox.push(messages);
        self.due += 1;
    }

    /// Appends a simple query.
    pub fn query(&mut self, sql: &str) {
        let out = self.outbox.writer();
        crate::wire::frame::put_message(out, b'Q', |body| {
            body.extend_from_slice(sql.as_bytes());
            body.push(0);
        });
        self.due += 1;
    }

    /// Writes what the pipe takes of the requests.
    ///
    /// # Errors
    /// The leg's session has ended.
    pub fn send_on(&mut self, cx: &mut Context<'_>) -> Result<(), LegGone> {
        if !self.outbox.is_empty() && matches!(self.stream.poll_drain(cx, &mut self.outbox), Poll::Ready(Err(_))) {
            return Err(LegGone);
        }
        Ok(())
    }

    /// Moves what can be moved. Ready when something was read; an error when the leg's session has ended.
    pub fn poll_move(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LegGone>> {
        if self.send_on(cx).is_err() {
            return Poll::Ready(Err(LegGone));
        }
        let large = header(self.inbox.as_slice()).ok().flatten().map_or(0, |header| header.total);
        if self.inbox.len() > INBOX_MAX.max(large) {
            return Poll::Pending;
        }
        let (inbox, received) = (&mut self.inbox, &mut self.received);
        let read = poll_read_with(&mut self.stream, cx, |chunk, _| {
            inbox.push(chunk);
            *received += chunk.len();
            !chunk.is_empty()
        });
        match read {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(true)) => Poll::Ready(Ok(())),
            Poll::Ready(_) => Poll::Ready(Err(LegGone)),
        }
    }

    /// The whole message at the front of what was read.
    ///
    /// # Errors
    /// What a server sent has no shape.
    pub fn front(&self) -> Result<Option<Frame<'_>>, LegGone> {
        frame_at(self.inbox.as_slice()).map_err(|_| LegGone)
    }

    /// The error in what was read and not taken yet, a whole message. What was searched once is not searched again.
    pub fn failure(&mut self) -> Option<&[u8]> {
        let bytes = self.inbox.as_slice();
        let taken = self.received - bytes.len();
        let mut at = self.searched.saturating_sub(taken);
        while let Ok(Some(frame)) = frame_at(&bytes[at..]) {
            if frame.tag == b'E' {
                return Some(&bytes[at..at + frame.total]);
            }
            at += frame.total;
        }
        self.searched = taken + at;
        None
    }

    /// Notes a ReadyForQuery.
    pub fn ready(&mut self, status: u8) {
        self.status = status;
        self.due = self.due.saturating_sub(1);
    }
}

/// A leg's session has ended.
#[derive(Debug)]
pub struct LegGone;

impl LegGone {
    /// What the client is told; `last_words` is what the leg itself said.
    pub fn trouble(shard: &str, last_words: Option<&[u8]>) -> Trouble {
        let said = last_words.map(ErrorFields::read);
        let state = said.as_ref().map_or(SqlState::CONNECTION_FAILURE, |fields| fields.state);
        let message = said.map_or_else(|| "its session ended".to_owned(), |fields| fields.text());
        Trouble::error(state, format!("shard {shard}: {message}"))
    }

    /// What the client is told when the coordinator's leg has ended: what the shards can't answer is refused then, as it is without a
    /// coordinator, whatever the coordinator has against the session.
    pub fn coordinator_trouble(last_words: Option<&[u8]>) -> Trouble {
        let said = last_words.map_or_else(|| "its session ended".to_owned(), |words| ErrorFields::read(words).text());
        let message = format!("the shards cannot answer this statement, and the coordinator does not: {said}");
        let report = Report::error(SqlState::FEATURE_NOT_SUPPORTED, message);
        report.hint("The coordinator needs the same roles as the shards; \"pgyard coordinator\" brings it into step.").into()
    }
}
