//! The session's loop: a unit in, its answer out.

use super::exchange::ClientSide;
use super::link::Link;
use super::placement::Placement;
use super::relay::Answer;
use super::state::SessionState;
use super::unit::{Cut, Unit, cut};
use crate::cluster::HostReport;
use crate::config::PoolMode;
use crate::database::{ClientEntry, ClientState, Database, RolePools, StopRequest, with_view};
use crate::metrics::TimeoutKind;
use crate::net::scratch::poll_read_with;
use crate::pool::{Pool, WaitSlot};
use crate::runtime::prefetch;
use crate::sql::Pins;
use crate::types::SqlState;
use crate::wire::WireError;
use crate::wire::reply::Report;
use std::hint::cold_path;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The client said goodbye.
    Terminated,
    /// The client's connection ended or broke.
    ClientGone,
    /// pgyard stops, or the console said so.
    Stopped,
    /// The client broke the protocol.
    Protocol(WireError),
    /// A server's answer was cut off in the middle of a message.
    CutOff,
    /// Nothing: another relay thread goes on with it.
    Moves,
    /// The server connection of a session that can't go on without it ended: of session pooling, or with LISTEN. What the client is
    /// told, if the server has not told it.
    ServerGone(Option<Box<Report>>),
    /// The transaction or the client was idle for too long.
    TimedOut(Duration),
}

/// What all sessions share and a reload may change.
#[derive(Clone, Debug)]
pub struct SessionLimits {
    /// Longest message that is held whole. Bytes.
    pub max_message: usize,
    /// Statements that take at least this long are logged.
    pub min_duration: Option<Duration>,
}

/// The pools of the session's role, as they last were.
type PoolsAtHand = arc_swap::Cache<Arc<arc_swap::ArcSwap<Vec<Arc<Pool>>>>, Arc<Vec<Arc<Pool>>>>;

/// One logged-in client.
#[derive(Debug)]
pub struct Session {
    pub(super) client: ClientSide,
    pub(super) database: Arc<Database>,
    pub(super) role: Arc<RolePools>,
    pub(super) entry: Arc<ClientEntry>,
    pub(super) state: SessionState,
    pub(super) link: Option<Link>,
    pub(super) worker: usize,
    pub(super) mode: PoolMode,
    pub(super) client_hash: u32,
    pub(super) limits: arc_swap::Cache<Arc<arc_swap::ArcSwap<SessionLimits>>, Arc<SessionLimits>>,
    pub(super) pools: PoolsAtHand,
    slot: Option<Arc<WaitSlot>>,
    /// How far a pipeline was looked through: at most 1 MiB and a message.
    scanned: u32,
    pub(super) placement: Arc<Placement>,
    /// The round of its thread in which it last served a unit.
    round: u32,
    /// Its last unit was a large transfer.
    pub(super) streamed: bool,
    /// The server went away while nothing was asked of it: the next unit is told.
    pub(super) lost: Option<Report>,
}

impl Session {
    /// A session that has just logged in.
    pub fn new(
        client: ClientSide,
        (database, role): (Arc<Database>, Arc<RolePools>),
        entry: Arc<ClientEntry>,
        state: SessionState,
        (limits, placement): (Arc<arc_swap::ArcSwap<SessionLimits>>, Arc<Placement>),
    ) -> Self {
        let mode = role.mode(&database);
        let client_hash = entry.peer.ip().map_or(0, |ip| {
            use std::hash::BuildHasher;
            (foldhash::fast::FixedState::with_seed(1).hash_one(ip) >> 32) as u32
        });
        let pools = arc_swap::Cache::new(role.pools_cell().clone());
        let worker = crate::metrics::worker_index().unwrap_or(0);
        Session {
            client,
            database,
            role,
            entry,
            state,
            link: None,
            worker,
            mode,
            client_hash,
            limits: arc_swap::Cache::new(limits),
            pools,
            slot: None,
            scanned: 0,
            placement,
            round: 0,
            streamed: false,
            lost: None,
        }
    }

    /// Serves the client until it goes or is told to, and says why it ended.
    pub async fn run(&mut self) -> SessionEnd {
        self.worker = crate::metrics::worker_index().unwrap_or(0);
        let end = loop {
            let unit = match self.next_unit().await {
                Ok(unit) => unit,
                Err(end) => break end,
            };
            if let Err(end) = self.serve(unit).await {
                break end;
            }
            let thread = self.placement.thread(self.worker);
            if thread.unit_ended(&mut self.round) && self.may_move() && thread.take_leave(self.streamed) {
                return SessionEnd::Moves;
            }
        };
        if let Some(link) = self.link.as_mut().filter(|_| self.state.pipeline_open) {
            // What its pipeline has done so far must not be committed by whoever comes next.
            link.server().broken = true;
        }
        self.link = None;
        self.state.pins = Pins::NONE;
        self.note_pins();
        self.say_goodbye(&end).await;
        end
    }

    /// Whether another thread could go on with the session here and now.
    fn may_move(&self) -> bool {
        let nothing_held = self.link.is_none() && self.lost.is_none() && self.state.transaction.is_none();
        let nothing_waits = self.client.outbox.is_empty() && self.client.inbox.is_empty() && !self.client.ended;
        nothing_held && nothing_waits && self.client.stream.leave().is_ok()
    }

    async fn next_unit(&mut self) -> Result<Unit, SessionEnd> {
        if self.state.transaction.is_none() {
            return std::future::poll_fn(|cx| self.poll_unit(cx)).await;
        }
        let limit = with_view(&self.database, |view| view.settings().pool.idle_transaction_timeout);
        if limit.is_zero() {
            return std::future::poll_fn(|cx| self.poll_unit(cx)).await;
        }
        let next = tokio::time::timeout(limit, std::future::poll_fn(|cx| self.poll_unit(cx)));
        next.await.unwrap_or_else(|_| {
            self.database.metrics.timeouts(TimeoutKind::IdleTransaction).increment();
            Err(SessionEnd::TimedOut(limit))
        })
    }

    async fn say_goodbye(&mut self, end: &SessionEnd) {
        if !self.put_goodbye(end) {
            return;
        }
        let ClientSide { stream, outbox, .. } = &mut self.client;
        let write = std::future::poll_fn(|cx| {
            ready!(stream.poll_drain(cx, outbox))?;
            stream.poll_sent(cx).map(Ok::<(), io::Error>)
        });
        // A client that does not read is not waited for.
        let _ = tokio::time::timeout(Duration::from_secs(1), write).await;
    }

    /// Puts the last words for the client into its outbox; false if it is not there any more to hear them. Not `async`: a report is
    /// nothing that each idle session should have room for.
    fn put_goodbye(&mut self, end: &SessionEnd) -> bool {
        let report = match end {
            SessionEnd::Stopped => {
                Some(Report::fatal(SqlState::ADMIN_SHUTDOWN, "terminating connection due to administrator command"))
            }
            SessionEnd::Protocol(error) => Some(Report::fatal(SqlState::PROTOCOL_VIOLATION, error.to_string())),
            SessionEnd::TimedOut(limit) => {
                let message = "terminating connection due to idle-in-transaction timeout";
                let report = Report::fatal(SqlState::IDLE_IN_TRANSACTION_TIMEOUT, message);
                Some(report.detail(format!("idle_transaction_timeout is {limit:?}.")))
            }
            SessionEnd::ServerGone(report) => report.as_deref().cloned(),
            SessionEnd::Terminated | SessionEnd::ClientGone | SessionEnd::CutOff | SessionEnd::Moves => return false,
        };
        if let Some(report) = report {
            report.put(self.client.outbox.writer());
        }
        true
    }

    pub(super) fn state_is(&self, state: ClientState) {
        self.entry.set_state(state);
    }

    pub(super) fn slot(&mut self) -> Arc<WaitSlot> {
        self.slot.get_or_insert_default().clone()
    }

    /// Reads what the client sends into its inbox. `Ready(Ok)` with `client.ended` is the end of its stream.
    pub(super) fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ClientSide { stream, inbox, ended, .. } = &mut self.client;
        if inbox.len() > 1024 * 1024 && self.scanned == 0 {
            return Poll::Pending;
        }
        poll_read_with(stream, cx, |chunk, _| {
            inbox.push(chunk);
            *ended |= chunk.is_empty();
        })
    }

    fn poll_unit(&mut self, cx: &mut Context<'_>) -> Poll<Result<Unit, SessionEnd>> {
        // Touched by every unit, once it is read.
        prefetch(&*self.entry);
        loop {
            if !self.client.outbox.is_empty() {
                let ClientSide { stream, outbox, .. } = &mut self.client;
                match stream.poll_drain(cx, outbox) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(SessionEnd::ClientGone)),
                    Poll::Pending => return self.poll_stop(cx),
                }
            }
            match self.cut() {
                Err(error) => {
                    cold_path();
                    return Poll::Ready(Err(SessionEnd::Protocol(error)));
                }
                Ok(Cut::Whole(unit)) => {
                    self.client.rest = unit.rest;
                    return Poll::Ready(Ok(unit));
                }
                Ok(Cut::Ignore(count)) => {
                    self.client.rest = count;
                    self.drop_rest();
                    continue;
                }
                Ok(Cut::NeedMore) => {}
            }
            if self.client.ended {
                return Poll::Ready(Err(SessionEnd::ClientGone));
            }
            if self.link.is_some() && self.lost.is_none() {
                self.watch_server(cx);
                // A client that listens may never ask anything again: it has to be told at once, as the server would have told it.
                if (self.mode == PoolMode::Session || self.state.pins.intersects(Pins::LISTEN))
                    && let Some(report) = self.lost.take()
                {
                    return Poll::Ready(Err(SessionEnd::ServerGone(Some(Box::new(report.ending_the_session())))));
                }
                if !self.client.outbox.is_empty() {
                    continue;
                }
            }
            let ClientSide { stream, inbox, ended, .. } = &mut self.client;
            let read = poll_read_with(stream, cx, |chunk, _| {
                inbox.push(chunk);
                *ended |= chunk.is_empty();
            });
            match read {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(SessionEnd::ClientGone)),
                Poll::Pending => return self.poll_stop(cx),
            }
        }
    }

    /// Drops what has come of a message that nobody wants any more.
    fn drop_rest(&mut self) {
        let count = self.client.rest.min(self.client.inbox.len());
        self.client.inbox.consume(count);
        self.client.rest -= count;
    }

    fn cut(&mut self) -> Result<Cut, WireError> {
        if self.client.rest > 0 {
            cold_path();
            self.drop_rest();
        }
        if self.client.inbox.is_empty() {
            return Ok(Cut::NeedMore);
        }
        let max_message = self.limits.load().max_message;
        cut(self.client.inbox.as_slice(), &mut self.scanned, &self.state, &self.database, max_message)
    }

    /// Ends the session if it was asked to and may end now.
    fn poll_stop<T>(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, SessionEnd>> {
        let busy = self.state.transaction.is_some() || self.state.pipeline_open;
        match self.entry.stop_requested(cx) {
            StopRequest::None => Poll::Pending,
            StopRequest::Drain if busy => Poll::Pending,
            StopRequest::Drain | StopRequest::Now => Poll::Ready(Err(SessionEnd::Stopped)),
        }
    }

    /// Takes what a server says while nothing is asked of it: notifications, parameter reports, its end.
    #[inline(never)]
    fn watch_server(&mut self, cx: &mut Context<'_>) {
        let Some(link) = self.link.as_mut() else { return };
        let server = link.server();
        let (mut answer, mut seen) = (Answer::default(), crate::net::Buffer::new());
        let (stream, incoming) = (&mut server.stream, &mut server.incoming);
        let gone = loop {
            let read = poll_read_with(stream, cx, |chunk, _| {
                if chunk.is_empty() {
                    return false;
                }
                let range = super::relay::take_chunk_for(Some(&self.state), chunk, incoming, &mut answer, &mut seen);
                if let Ok(range) = &range {
                    seen.push(&chunk[range.clone()]);
                }
                range.is_ok()
            });
            match read {
                Poll::Pending => break false,
                Poll::Ready(Ok(true)) if !answer.unsolicited => {}
                Poll::Ready(_) => break true,
            }
        };
        if !gone {
            self.state.told_mark ^= std::mem::take(&mut incoming.told);
            return self.client.outbox.push(seen.as_slice());
        }
        server.broken = true;
        let (host_id, route) = (link.host.id, link.route);
        self.database.upstream().cluster.report(host_id, HostReport::Broken);
        self.link = None;
        if self.can_lose_begun() {
            return;
        }
        self.note_shown((route, host_id), false);
        let in_transaction = self.state.transaction.is_some();
        let what = if in_transaction { "in the middle of a transaction" } else { "that this session was bound to" };
        let labels: Vec<&str> = self.state.pins.labels().collect();
        let mut report = Report::error(SqlState::ADMIN_SHUTDOWN, format!("the server closed the connection {what}"));
        if !labels.is_empty() {
            report = report.detail(format!("Lost with it: {}.", labels.join(", ")));
        }
        self.lost = Some(report);
    }
}
