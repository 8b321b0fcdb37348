//! The session's loop: a request in, its answer out; and the waiting for legs.

use super::extended::ShardedStatements;
use super::knowledge::SessionNames;
use super::leg::{Leg, LegGone};
use super::planning::PlanShelf;
use super::portals::ShardedPortals;
use super::sets::SetLog;
use super::transaction::TransactionBlock;
use super::trouble::{ShardedEnd, Trouble};
use crate::config::COORDINATOR;
use crate::database::{ClientState, GatePlace, ShardedDatabase, StopRequest};
use crate::net::scratch::poll_read_with;
use crate::session::{ClientSide, ShardedClient};
use crate::shard::ShardMap;
use crate::twophase::InFlight;
use crate::types::SqlState;
use crate::wire::frame::{HEADER_LEN, client_header, put_message};
use crate::wire::reply::{Report, put_ready};
use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Requests that are read ahead while legs work. Bytes.
const READ_AHEAD_MAX: usize = 128 * 1024;

/// One session of a sharded database.
pub struct ShardedSession {
    pub(super) client: ShardedClient,
    pub(super) database: Arc<ShardedDatabase>,
    pub(super) map: Arc<ShardMap>,
    pub(super) legs: Vec<Option<Box<Leg>>>,
    /// The shard that answered last.
    pub(super) last: usize,
    pub(super) block: TransactionBlock,
    pub(super) sets: SetLog,
    /// An error was reported in a pipeline: messages are dropped up to its Sync.
    pub(super) skipping: bool,
    /// The statement that was answered last has failed, and the client has been told.
    pub(super) failed_within: bool,
    /// What is said to the client is kept for now.
    pub(super) holding: bool,
    /// The client was asked for COPY data within the request under way.
    pub(super) copied_in: bool,
    /// The pipeline under way executes several statements: they are one transaction.
    pub(super) several_executes: bool,
    pub(super) plans: PlanShelf,
    pub(super) names: SessionNames,
    pub(super) statements: ShardedStatements,
    pub(super) portals: ShardedPortals,
    /// Portals that a pipeline has left on a leg, by its shard.
    pub(super) leg_portals: HashMap<Box<[u8]>, usize>,
    /// The number of the statement that was prepared last.
    pub(super) last_statement: u64,
    /// Commits over several shards, of the whole process.
    pub(super) in_flight: Arc<InFlight>,
    /// Its transactions wait here while rows move.
    pub(super) place: GatePlace,
    /// The changes of the sharded databases that it knows of.
    pub(super) changes_seen: u64,
}

impl ShardedSession {
    /// A session that has just logged in.
    pub fn new(client: ShardedClient, in_flight: Arc<InFlight>) -> Self {
        let database = client.database.clone();
        let map = database.map();
        // The coordinator's comes last.
        let legs = map.shards.iter().map(|_| None).chain(database.coordinator.iter().map(|_| None)).collect();
        // Statements that any shard can answer are spread.
        let last = client.entry.process.unsigned_abs() as usize % map.shards.len().max(1);
        let (block, sets) = (TransactionBlock::default(), SetLog::default());
        let place = GatePlace::new(client.front.directory.gate(&client.entry.database));
        ShardedSession {
            client,
            database,
            map,
            legs,
            last,
            block,
            sets,
            skipping: false,
            failed_within: false,
            holding: false,
            copied_in: false,
            several_executes: false,
            plans: PlanShelf::default(),
            names: SessionNames::default(),
            statements: HashMap::new(),
            portals: HashMap::new(),
            leg_portals: HashMap::new(),
            last_statement: 0,
            in_flight,
            place,
            changes_seen: 0,
        }
    }

    /// Serves the client until it goes or is told to.
    pub async fn run(&mut self) -> ShardedEnd {
        let end = loop {
            if let Err(end) = self.serve_next().await {
                break end;
            }
        };
        // Legs roll back what is open, as any session does whose client goes.
        self.legs.clear();
        self.say_goodbye(&end).await;
        end
    }

    async fn serve_next(&mut self) -> Result<(), ShardedEnd> {
        self.client.entry.set_state(if self.block.is_open() { ClientState::InTransaction } else { ClientState::Idle });
        let length = self.next_message().await?;
        self.client.entry.set_state(ClientState::Active);
        let inbox = self.side().inbox.as_slice();
        let tag = inbox[0];
        if !self.place.is_inside() && tag != b'X' {
            self.come_in().await?;
        }
        match tag {
            b'X' => return Err(ShardedEnd::ClientGone),
            b'Q' => {
                let body = self.side().inbox.as_slice()[HEADER_LEN..length].to_vec();
                self.side().inbox.consume(length);
                self.simple(&body).await?;
            }
            b'P' | b'B' | b'D' | b'E' | b'C' | b'S' | b'H' => self.extended().await?,
            // COPY data behind a COPY that has failed is dropped, as PostgreSQL does.
            b'd' | b'c' | b'f' => self.side().inbox.consume(length),
            _ => {
                self.side().inbox.consume(length);
                if !std::mem::replace(&mut self.skipping, true) {
                    let report =
                        Report::error(SqlState::FEATURE_NOT_SUPPORTED, "function calls are not supported in a sharded database");
                    report.put(self.side().outbox.writer());
                }
            }
        }
        self.client.entry.count_request();
        if self.is_at_rest() {
            self.place.leave();
        }
        Ok(())
    }

    pub(super) fn side(&mut self) -> &mut ClientSide {
        &mut self.client.client
    }

    /// Appends the session's own ReadyForQuery.
    pub(super) fn put_ready(&mut self) {
        let status = self.block.status();
        put_ready(self.side().outbox.writer(), status);
    }

    /// Waits until a whole message of the client is there; its length.
    async fn next_message(&mut self) -> Result<usize, ShardedEnd> {
        let limit = self.database.settings().pool.idle_transaction_timeout;
        let unlimited = limit.is_zero() || !self.block.is_open();
        let next = std::future::poll_fn(|cx| self.poll_message(cx));
        if unlimited {
            return next.await;
        }
        tokio::time::timeout(limit, next).await.unwrap_or_else(|_| {
            self.database.metrics.idle_transactions.increment();
            Err(ShardedEnd::TimedOut(limit))
        })
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, ShardedEnd>> {
        loop {
            self.poll_flush(cx)?;
            match client_header(self.side().inbox.as_slice()) {
                Err(error) => return Poll::Ready(Err(ShardedEnd::Protocol(error))),
                Ok(Some(header)) if header.total <= self.side().inbox.len() => return Poll::Ready(Ok(header.total)),
                Ok(_) => {}
            }
            if self.side().ended {
                return Poll::Ready(Err(ShardedEnd::ClientGone));
            }
            self.watch_legs(cx);
            if !self.side().outbox.is_empty() {
                self.poll_flush(cx)?;
            }
            match self.poll_client(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(end)) => return Poll::Ready(Err(end)),
                Poll::Pending => return self.poll_stop(cx),
            }
        }
    }

    pub(super) fn poll_stop<T>(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, ShardedEnd>> {
        match self.client.entry.stop_requested(cx) {
            StopRequest::None => Poll::Pending,
            StopRequest::Drain if self.block.is_open() => Poll::Pending,
            StopRequest::Drain | StopRequest::Now => Poll::Ready(Err(ShardedEnd::Stopped)),
        }
    }

    /// Writes what the client's socket takes.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Result<(), ShardedEnd> {
        let holding = self.holding;
        let ClientSide { stream, outbox, .. } = self.side();
        if !outbox.is_empty() && !holding && matches!(stream.poll_drain(cx, outbox), Poll::Ready(Err(_))) {
            return Err(ShardedEnd::ClientGone);
        }
        Ok(())
    }

    pub(super) fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ShardedEnd>> {
        let ClientSide { stream, inbox, ended, .. } = self.side();
        let read = poll_read_with(stream, cx, |chunk, _| {
            inbox.push(chunk);
            *ended |= chunk.is_empty();
        });
        read.map_err(|_| ShardedEnd::ClientGone)
    }

    /// Reads ahead while legs work, so that the client's writes do not block for ever; looks whether the session shall end.
    pub(super) fn look_at_client(&mut self, cx: &mut Context<'_>) -> Result<(), ShardedEnd> {
        while !self.side().ended && self.side().inbox.len() < READ_AHEAD_MAX {
            match self.poll_client(cx) {
                Poll::Ready(outcome) => outcome?,
                Poll::Pending => break,
            }
        }
        match self.client.entry.stop_requested(cx) {
            StopRequest::Now => Err(ShardedEnd::Stopped),
            StopRequest::None | StopRequest::Drain => Ok(()),
        }
    }

    /// Passes on what legs say while nothing is asked of them: notifications and notices.
    fn watch_legs(&mut self, cx: &mut Context<'_>) {
        for shard in 0..self.legs.len() {
            let Some(leg) = self.legs[shard].as_mut() else { continue };
            let mut gone = false;
            while !gone {
                match leg.poll_move(cx) {
                    Poll::Pending => break,
                    Poll::Ready(outcome) => gone = outcome.is_err(),
                }
                while let Ok(Some(frame)) = leg.front() {
                    let total = frame.total;
                    if matches!(frame.tag, b'A' | b'N') {
                        self.client.client.outbox.push(&leg.inbox.as_slice()[..total]);
                    }
                    leg.inbox.consume(total);
                }
            }
            if gone {
                self.lose_leg(shard);
            }
        }
    }

    /// A leg's session has ended: what it had begun is rolled back, so the whole transaction has failed.
    pub(super) fn lose_leg(&mut self, shard: usize) {
        if self.legs[shard].take().is_some_and(|leg| leg.has_begun()) {
            self.block.fail();
        }
    }

    /// What a leg's other end is called.
    pub(super) fn leg_name(&self, shard: usize) -> &str {
        self.map.shards.get(shard).map_or(COORDINATOR, String::as_str)
    }

    /// The leg on a shard; opened if there is none.
    pub(super) fn leg(&mut self, shard: usize) -> &mut Leg {
        let coordinator = self.database.coordinator.as_ref().filter(|_| shard >= self.database.shards.len());
        let database = coordinator.unwrap_or_else(|| &self.database.shards[shard]);
        let client = &self.client;
        self.legs[shard].get_or_insert_with(|| Leg::open(client, database))
    }

    /// Waits until a whole message of one of these legs is there, which is the first of them that has one.
    ///
    /// # Errors
    /// A leg's session has ended: then its statement has failed.
    pub(super) async fn wait_for(&mut self, shards: &[usize]) -> Result<usize, Trouble> {
        std::future::poll_fn(|cx| self.poll_legs(cx, shards)).await
    }

    pub(super) fn poll_legs(&mut self, cx: &mut Context<'_>, shards: &[usize]) -> Poll<Result<usize, Trouble>> {
        if let Err(end) = self.poll_flush(cx) {
            return Poll::Ready(Err(Trouble::End(end)));
        }
        for leg in self.legs.iter_mut().flatten() {
            // All of them work at once. One that has ended is found out when it is listened to.
            let _ = leg.send_on(cx);
        }
        for &shard in shards {
            loop {
                let Some(leg) = self.legs[shard].as_mut() else {
                    return Poll::Ready(Err(LegGone::trouble(self.leg_name(shard), None)));
                };
                match leg.front() {
                    Ok(Some(_)) => return Poll::Ready(Ok(shard)),
                    Ok(None) => {}
                    Err(LegGone) => return Poll::Ready(Err(self.leg_gone(shard, None))),
                }
                match leg.poll_move(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(LegGone)) => return Poll::Ready(Err(self.leg_gone(shard, None))),
                }
            }
        }
        match self.look_at_client(cx) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(Err(Trouble::End(end))),
        }
    }

    /// Ready when a message of one shard is there. The others go on meanwhile, and if one of them has failed, nobody waits for this one.
    pub(super) fn poll_leg_beside(
        &mut self,
        cx: &mut Context<'_>,
        shard: usize,
        others: impl Iterator<Item = usize>,
    ) -> Poll<Result<(), Trouble>> {
        if let Poll::Ready(outcome) = self.poll_legs(cx, &[shard]) {
            return Poll::Ready(outcome.map(drop));
        }
        for other in others.filter(|other| *other != shard) {
            let Some(leg) = self.legs[other].as_mut() else { continue };
            // One that has ended is found out in its turn.
            while let Poll::Ready(Ok(())) = leg.poll_move(cx) {}
            if let Some(error) = leg.failure() {
                return Poll::Ready(Err(Trouble::Failed(error.to_vec())));
            }
        }
        Poll::Pending
    }

    pub(super) fn leg_gone(&mut self, shard: usize, last_words: Option<&[u8]>) -> Trouble {
        let trouble = match shard < self.map.shards.len() {
            true => LegGone::trouble(self.leg_name(shard), last_words),
            false => LegGone::coordinator_trouble(last_words),
        };
        self.lose_leg(shard);
        trouble
    }

    /// Takes the next message of a leg: its type and body.
    pub(super) async fn take(&mut self, shard: usize) -> Result<(u8, Vec<u8>), Trouble> {
        self.wait_for(&[shard]).await?;
        self.take_front(shard)
    }

    /// Takes the message that is there.
    pub(super) fn take_front(&mut self, shard: usize) -> Result<(u8, Vec<u8>), Trouble> {
        let Some(leg) = self.legs[shard].as_mut() else { return Err(LegGone::trouble(self.leg_name(shard), None)) };
        let (tag, body, total) = match leg.front() {
            Ok(Some(frame)) => (frame.tag, frame.body.to_vec(), frame.total),
            _ => return Err(self.leg_gone(shard, None)),
        };
        leg.inbox.consume(total);
        if tag == b'Z' {
            leg.ready(body.first().copied().unwrap_or(b'I'));
        }
        Ok((tag, body))
    }

    /// Takes all that is due of a leg, up to its last ReadyForQuery. Notices go to the client; reports of parameters too if it is the
    /// one that speaks for the session.
    ///
    /// # Errors
    /// The leg's session has ended, or the client's.
    pub(super) async fn finish(&mut self, shard: usize, speaks: bool) -> Result<LegAnswer, Trouble> {
        let mut answer = LegAnswer::default();
        while self.legs[shard].as_ref().is_some_and(|leg| leg.due > 0) {
            let (tag, body) = match self.take(shard).await {
                Err(Trouble::Failed(_)) if answer.error.is_some() => {
                    // It said why before it went.
                    return Err(Trouble::Failed(answer.error.unwrap_or_default()));
                }
                other => other?,
            };
            match tag {
                b'E' if answer.error.is_none() => {
                    let mut message = Vec::new();
                    put_message(&mut message, tag, |out| out.extend_from_slice(&body));
                    answer.error = Some(message);
                }
                b'C' => answer.tag = String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(&body)).into_owned(),
                b'T' => answer.description = Some(body),
                b't' => answer.parameters = body,
                b'N' | b'A' => put_message(self.side().outbox.writer(), tag, |out| out.extend_from_slice(&body)),
                b'S' if speaks => put_message(self.side().outbox.writer(), tag, |out| out.extend_from_slice(&body)),
                _ => {}
            }
        }
        Ok(answer)
    }

    async fn say_goodbye(&mut self, end: &ShardedEnd) {
        let report = match end {
            ShardedEnd::ClientGone => return,
            ShardedEnd::Stopped => Report::fatal(SqlState::ADMIN_SHUTDOWN, "terminating connection due to administrator command"),
            ShardedEnd::Protocol(error) => Report::fatal(SqlState::PROTOCOL_VIOLATION, error.to_string()),
            ShardedEnd::TimedOut(limit) => {
                let message = "terminating connection due to idle-in-transaction timeout";
                let report = Report::fatal(SqlState::IDLE_IN_TRANSACTION_TIMEOUT, message);
                report.detail(format!("idle_transaction_timeout is {limit:?}."))
            }
        };
        report.put(self.side().outbox.writer());
        let ClientSide { stream, outbox, .. } = self.side();
        let write = std::future::poll_fn(|cx| stream.poll_drain(cx, outbox));
        // A client that does not read is not waited for.
        let _ = tokio::time::timeout(Duration::from_secs(1), write).await;
    }
}

/// What a leg answered to requests of the session's own.
#[derive(Debug, Default)]
pub struct LegAnswer {
    /// The first ErrorResponse, whole.
    pub error: Option<Vec<u8>>,
    /// The last command's tag.
    pub tag: String,
    /// The body of a RowDescription.
    pub description: Option<Vec<u8>>,
    /// The body of a ParameterDescription.
    pub parameters: Vec<u8>,
}

impl LegAnswer {
    /// The answer, or the error in it.
    ///
    /// # Errors
    /// The server reported one.
    pub fn check(self) -> Result<LegAnswer, Trouble> {
        match self.error {
            Some(message) => Err(Trouble::Failed(message)),
            None => Ok(self),
        }
    }
}
