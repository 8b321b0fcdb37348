//! One unit from its need to its answer: attach, send, exchange, and again where that is safe.

use super::aside::aside;
use super::attach::{AttachError, Attempt, Tuning};
use super::exchange::{Exchange, ExchangeEnd};
use super::link::Link;
use super::local::{LSN, shown_setting};
use super::relay::Answer;
use super::run::{Session, SessionEnd};
use super::send::{Sent, put_unit};
use super::state::Freshness;
use super::unit::{Unit, UnitKind};
use crate::cluster::CommitMode;
use crate::config::{Consistency, PoolMode};
use crate::database::{ClientState, Database, StopRequest, with_view};
use crate::metrics::{ByteDirection, QueryReason, QueryRoute, RetryReason, TimeoutKind};
use crate::route::{Need, Target};
use crate::server::TransactionStatus;
use crate::sql::{Access, Command, Pins, SessionEffect};
use crate::wire::bind::BindMessage;
use crate::wire::frame::{HEADER_LEN, frame_at, put_message};
use std::hint::cold_path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

const COUNT_ADVISORY_LOCKS: &str = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks \
     WHERE locktype OPERATOR(pg_catalog.=) 'advisory' AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()";

/// How long a server may take to answer a statement that it was told to cancel; `query_timeout`, if that is longer.
const CANCEL_GRACE: Duration = Duration::from_secs(10);

/// Full turns that make a unit a large transfer: a MiB.
const LARGE_TRANSFER_TURNS: u32 = 8;

impl Session {
    /// Serves one unit.
    pub(super) async fn serve(&mut self, unit: Unit) -> Result<(), SessionEnd> {
        if unit.kind == UnitKind::Terminate {
            cold_path();
            return Err(SessionEnd::Terminated);
        }
        if self.entry.take_canceled() {
            // It was for the unit before, which got its server at the same moment.
            cold_path();
        }
        if self.answers_itself(&unit) {
            cold_path();
            self.client.inbox.consume(unit.len);
            return Ok(());
        }
        if unit.changes_catalogue {
            cold_path();
            self.database.catalogue_changed();
            // What pgyard itself has open there must not be in the way.
            databases_needed(&unit).for_each(|name| self.database.leave_alone(name));
        }
        // What a transaction has changed nobody else can read before it commits.
        let changed = self.state.transaction.as_ref().is_some_and(|transaction| transaction.changed_catalogue);
        self.state.view.catalogue_is_current = self.database.catalogue_is_current() && !changed;
        let mut attempt = Attempt {
            need: self.need(&unit),
            reads: self.tables_read(&unit),
            writes: false,
            failed: Vec::new(),
            same_server: unit.pins.intersects(Pins::SEQUENCE) || unit.own_names || self.wants_its_sequences(&unit),
            crowded: None,
            replanned: false,
            losses: 0,
            held: None,
            since: Instant::now(),
            waited: Duration::ZERO,
            tuning: with_view(&self.database, Tuning::of),
        };
        self.state_is(ClientState::Active);
        if unit.needs_care && shown_setting(&unit).is_some_and(|name| *name == *LSN) {
            aside(|| self.learn_own_position()).await;
        }
        let admitted = if attempt.tuning.is_rated { aside(|| self.keep_to_rates(&unit)).await } else { Ok(()) };
        let behind = self.state.consistency == Consistency::Global && self.replica_is_behind(&unit, &attempt);
        let left = match admitted {
            Ok(()) if behind || self.must_leave_replica(&unit) => aside(|| self.leave_replica(&mut attempt)).await,
            other => other,
        };
        let outcome = match left {
            Ok(()) => self.answer(&unit, &mut attempt).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => Ok(()),
            Err(AttachError::End(end)) => {
                cold_path();
                Err(end)
            }
            Err(AttachError::Answered(body)) => {
                cold_path();
                put_message(self.client.outbox.writer(), b'E', |out| out.extend_from_slice(&body));
                self.end_answer(&unit);
                self.client.inbox.consume(unit.len);
                if self.state.transaction.is_none() {
                    self.release_if_free();
                }
                self.state_is(ClientState::Idle);
                Ok(())
            }
            Err(AttachError::Refused(report)) => {
                cold_path();
                if self.link.is_none() {
                    // It was sent once, and could not be sent again.
                    self.end_write_mark();
                }
                self.refuse(&unit, &report);
                self.client.inbox.consume(unit.len);
                self.state_is(ClientState::Idle);
                Ok(())
            }
        }
    }

    /// Whether the unit is one of those that are better off where the session's sequences are: what writes, or begins a transaction.
    fn wants_its_sequences(&self, unit: &Unit) -> bool {
        self.state.sequence_server != 0 && (unit.access > Access::Server || unit.needs_care)
    }

    /// Waits until the position of the session's last write is known: it is asked for it.
    async fn learn_own_position(&mut self) {
        let Freshness::Pending(ticket) = self.state.freshness else { return };
        let sampler = self.database.upstream().cluster.sampler().clone();
        let limit = self.database.settings().routing.failover_wait;
        let position = async move { sampler.wait_for(ticket, CommitMode::MaybeAsynchronous).await };
        // Without a primary it stays unknown, and the statement itself says why.
        if let Ok(Some(floor)) = tokio::time::timeout(limit, position).await {
            self.state.freshness = Freshness::Floor(floor);
        }
    }

    /// What the unit needs. A session that keeps its connection keeps one to the primary, unless it asks for a replica.
    fn need(&self, unit: &Unit) -> Need {
        let need = unit.need(&self.state);
        match (self.mode, need.reason) {
            (PoolMode::Session, QueryReason::Read | QueryReason::ReadOnlyTransaction) => {
                Need { target: Target::Primary, reason: QueryReason::Session }
            }
            _ => need,
        }
    }

    /// Sends the unit, again if need be, until it is answered.
    async fn answer(&mut self, unit: &Unit, attempt: &mut Attempt) -> Result<(), AttachError> {
        loop {
            if self.link.is_none() && self.state.transaction.is_some() {
                aside(|| self.begin_anew(unit, attempt)).await?;
            }
            let held = self.link.is_some();
            if held {
                attempt.need.reason = self.held_reason();
            } else {
                self.attach(attempt).await?;
            }
            if self.put_own_queries(unit, held) && !aside(|| self.run_own_queries(attempt, held)).await? {
                continue;
            }
            if (unit.own_names || unit.whole || self.state.local.is_some())
                && !aside(|| self.prepare_for(unit, attempt, held)).await?
            {
                continue;
            }
            if self.may_give_other_rows(unit) && !aside(|| self.compare_results(unit, attempt, held)).await? {
                continue;
            }
            let (mut exchange, route) = match self.start(unit, held, attempt)? {
                Some(started) => started,
                None => continue,
            };
            let end = self.exchange(&mut exchange, attempt.tuning.query_timeout).await;
            match end {
                ExchangeEnd::Done => {
                    self.finish(unit, attempt, &exchange, route);
                    if let Some(told) = exchange.answer.withheld {
                        aside(|| self.put_startup_back(unit, &told)).await?;
                    }
                    if self.state.pins.intersects(Pins::ADVISORY) {
                        aside(|| self.check_advisory_locks(unit)).await;
                    }
                    return Ok(());
                }
                ExchangeEnd::Refused if exchange.answer.refused == Some(RetryReason::StalePlan) => self.replan(attempt),
                ExchangeEnd::Refused => {
                    cold_path();
                    let reason = exchange.answer.refused.unwrap_or(RetryReason::ReplicaRefused);
                    attempt.writes |= reason == RetryReason::ReplicaRefused;
                    self.start_again(reason);
                    attempt.need.target = Target::Primary;
                    attempt.need.reason = QueryReason::Retry;
                }
                ExchangeEnd::HostSilent => self.leave_silent_host(attempt),
                ExchangeEnd::Stopped => return Err(AttachError::End(SessionEnd::Stopped)),
                ExchangeEnd::ClientLost => return Err(AttachError::End(SessionEnd::ClientGone)),
                ExchangeEnd::ClientProtocol(error) => return Err(AttachError::End(SessionEnd::Protocol(error))),
                ExchangeEnd::ServerLost(error) => {
                    cold_path();
                    tracing::warn!(host = self.host_name(), %error, "a server connection broke in use");
                    if !aside(|| self.server_lost(unit, attempt, &exchange, held)).await? {
                        return Ok(());
                    }
                }
                ExchangeEnd::ServerProtocol(error) => {
                    cold_path();
                    tracing::error!(host = self.host_name(), %error, "a server broke the protocol");
                    if !aside(|| self.server_lost(unit, attempt, &exchange, held)).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The pin of an advisory lock ends when the server holds none for the session any more; only the server knows.
    async fn check_advisory_locks(&mut self, unit: &Unit) {
        let may_have_ended = unit.access > Access::Server;
        let Some(link) = self.link.as_mut().filter(|_| may_have_ended && !self.state.pipeline_open) else { return };
        if link.server().incoming.status != TransactionStatus::Idle || !link.server().incoming.is_quiet() {
            return;
        }
        match link.server().run(COUNT_ADVISORY_LOCKS).await {
            Ok(Ok(count)) if count.as_deref() == Some("0") => {
                self.state.pins = self.state.pins.without(Pins::ADVISORY);
                self.note_pins();
                self.release_if_free();
            }
            Ok(_) => {}
            // The next unit finds out.
            Err(_) => link.server().broken = true,
        }
    }

    fn host_name(&self) -> &str {
        self.link.as_ref().map_or("", |link| &link.host.settings.name)
    }

    fn held_reason(&self) -> QueryReason {
        match (&self.state.transaction, self.state.pins.is_empty()) {
            (Some(_), _) => QueryReason::Transaction,
            (None, false) => QueryReason::Pinned,
            (None, true) => QueryReason::Session,
        }
    }

    /// Puts the unit into the server's outbox.
    fn start(&mut self, unit: &Unit, held: bool, attempt: &Attempt) -> Result<Option<(Exchange, QueryRoute)>, AttachError> {
        let own_names = self.uses_own_names(unit);
        let Some(route) = self.link.as_ref().map(|link| link.route) else { return Ok(None) };
        let kept = unit.total_len() <= attempt.tuning.retry_buffer;
        let may_retry = !held && kept && route == QueryRoute::Replica;
        let turned_away_whole = !held && route == QueryRoute::Primary && !attempt.writes && unit.is_turned_away_whole();
        let may_resend = kept && (turned_away_whole || held && self.may_begin_anew(unit));
        if route == QueryRoute::Primary && (attempt.writes || unit.may_write()) {
            self.mark_write(unit, attempt.writes);
        }
        let Some(link) = self.link.as_mut() else { return Ok(None) };
        let to = (link.server(), own_names);
        let sent = put_unit(
            self.client.inbox.as_slice(),
            unit,
            &mut self.state,
            to,
            (&self.database, &self.role.role, attempt.tuning.reuses_unnamed),
        );
        match sent {
            Ok(sent) => {
                let may_replan = unit.is_extended()
                    && unit.describes
                    && !(unit.verbatim || attempt.replanned)
                    && self.state.transaction.is_none()
                    && !(self.state.pipeline_open || own_names)
                    && kept;
                let withheld = super::reset::withheld(unit, &self.state, link.server());
                let (extended, holds_sync) = (unit.is_extended(), sent == Sent::WithoutSync);
                let only_reads = may_resend && unit.is_harmless();
                let answer =
                    Answer { may_retry, may_resend, only_reads, may_replan, extended, holds_sync, withheld, ..Answer::default() };
                let mut exchange = Exchange::new(answer, unit.len, sent == Sent::AsItIs);
                if held && self.mode == PoolMode::Transaction {
                    exchange.answer.commits_at = commits_at(unit);
                }
                exchange.movable = !held && kept && !attempt.writes && unit.is_harmless();
                Ok(Some((if unit.rest > 0 { exchange.with_flush_behind() } else { exchange }, route)))
            }
            Err(error) => Err(AttachError::End(SessionEnd::Protocol(error))),
        }
    }

    /// Moves bytes until the exchange ends.
    pub(super) async fn exchange(&mut self, exchange: &mut Exchange, limit: Duration) -> ExchangeEnd {
        let Some(link) = self.link.as_mut() else { return ExchangeEnd::Stopped };
        let (client, state, entry, database) = (&mut self.client, &self.state, &self.entry, &self.database);
        let thread = self.placement.thread(self.worker);
        let mut turn = |exchange: &mut Exchange, cx: &mut Context<'_>| {
            let full_turns = exchange.full_turns;
            if let Poll::Ready(end) = exchange.poll(cx, (client, Some(state)), link) {
                return Poll::Ready(end);
            }
            if exchange.full_turns != full_turns {
                thread.turn_was_full();
            }
            match entry.stop_requested(cx) {
                StopRequest::Now => Poll::Ready(ExchangeEnd::Stopped),
                _ if exchange.can_move() && entry.take_host_is_silent() && is_silent(database, link) => {
                    Poll::Ready(ExchangeEnd::HostSilent)
                }
                StopRequest::None | StopRequest::Drain => Poll::Pending,
            }
        };
        if limit.is_zero() {
            return std::future::poll_fn(|cx| turn(exchange, cx)).await;
        }
        if let Ok(end) = tokio::time::timeout(limit, std::future::poll_fn(|cx| turn(exchange, cx))).await {
            return end;
        }
        cold_path();
        // The server answers a cancelled statement with an error, as it would for the client's own request.
        exchange.answer.timed_out = true;
        database.metrics.timeouts(TimeoutKind::Query).increment();
        if let Err(error) = Box::pin(entry.cancel()).await {
            tracing::warn!(%error, "a statement over query_timeout could not be cancelled");
        }
        // One that does not even answer that is as good as gone.
        let rest = tokio::time::timeout(limit.max(CANCEL_GRACE), std::future::poll_fn(|cx| turn(exchange, cx)));
        rest.await.unwrap_or_else(|_| ExchangeEnd::ServerLost(std::io::ErrorKind::TimedOut.into()))
    }

    /// A connection whose parameters are not known any more is not used again.
    pub(super) fn break_link(&mut self) {
        if let Some(link) = self.link.as_mut() {
            link.server().broken = true;
        }
        self.abandon_link();
    }

    /// The server is gone, and with it what bound the session to it.
    pub(super) fn abandon_link(&mut self) {
        if let Some(link) = self.link.take() {
            self.note_shown((link.route, link.host.id), false);
        }
        self.end_write_mark();
        self.state.lost_transaction |= self.state.lose_transaction();
        self.state.pins = Pins::NONE;
        self.note_pins();
    }

    /// Whether the session's write took effect is not known: its reads must see it if it did.
    fn end_write_mark(&mut self) {
        if let Some(mark) = self.state.write_mark.take() {
            self.state.freshness = Freshness::Pending(mark.acknowledged());
        }
    }

    /// The unit was answered: notes its effects, counts it, logs it if it was slow.
    fn finish(&mut self, unit: &Unit, attempt: &Attempt, exchange: &Exchange, route: QueryRoute) {
        let text = self.text_of_query(unit, exchange, route);
        if exchange.answer.stale_plan {
            cold_path();
            self.note_stale_plan(unit, exchange);
        }
        if exchange.answer.error.is_some() || self.state.unnamed_before.is_some() {
            cold_path();
            self.settle_unnamed(unit, exchange);
        }
        self.client.inbox.consume(exchange.unit_len);
        self.streamed = exchange.full_turns >= LARGE_TRANSFER_TURNS;
        let now = Instant::now();
        let (elapsed, waited) = (now.saturating_duration_since(attempt.since), attempt.waited);
        let metrics = &self.database.metrics;
        metrics.record_query(route, attempt.need.reason, elapsed);
        metrics.checkout_duration(route).record(waited);
        metrics.bytes(ByteDirection::ClientIn).add(unit.len as u64 + exchange.passed);
        metrics.bytes(ByteDirection::ClientOut).add(exchange.answer.bytes);
        self.entry.count_request();
        if let Some(link) = &mut self.link {
            link.answered = Some(now);
            link.host.record_latency(elapsed.saturating_sub(waited));
        }
        if self.limits.load().min_duration.is_some_and(|limit| elapsed >= limit) {
            cold_path();
            self.log_slow(unit, attempt, (route, elapsed));
        }
        self.settle(unit, text.as_deref(), &exchange.answer, elapsed);
    }

    /// The client was told that a plan does not fit its tables any more: when it prepares the statement again, it is a new one.
    fn note_stale_plan(&self, unit: &Unit, exchange: &Exchange) {
        let mut messages = &self.client.inbox.as_slice()[..unit.len.min(exchange.unit_len)];
        while let Ok(Some(frame)) = frame_at(messages) {
            if let (b'B', Ok(bind)) = (frame.tag, BindMessage::read(frame.body))
                && let Some(statement) = self.state.statement(bind.statement)
            {
                statement.mark_outdated();
            }
            messages = &messages[frame.total..];
        }
    }

    /// The text of a simple query that may have to be run again: in a READ ONLY transaction on a replica, or because it prepares a
    /// statement.
    fn text_of_query(&self, unit: &Unit, exchange: &Exchange, route: QueryRoute) -> Option<Vec<u8>> {
        let open = self.state.transaction.is_some() && route == QueryRoute::Replica && unit.needs_care;
        let wanted = (open || unit.own_names) && unit.kind == UnitKind::Query && exchange.unit_len > 0;
        wanted.then(|| self.client.inbox.as_slice()[HEADER_LEN..unit.len - 1].to_vec())
    }

    fn log_slow(&self, unit: &Unit, attempt: &Attempt, (route, elapsed): (QueryRoute, Duration)) {
        let commands: Vec<String> = unit.statements().map(|statement| format!("{:?}", statement.command)).collect();
        tracing::info!(
            database = &*self.database.name,
            user = &*self.role.role,
            client = self.entry.process,
            host = self.host_name(),
            route = route.label(),
            reason = attempt.need.reason.label(),
            duration_ms = elapsed.as_secs_f64() * 1000.0,
            commands = commands.join(", "),
            "slow query"
        );
    }
}

/// Databases to which nobody else may be connected, by their names on the servers: of DROP DATABASE and its like.
pub(super) fn databases_needed(unit: &Unit) -> impl Iterator<Item = &Arc<str>> {
    unit.run_statements().flat_map(|statement| &statement.effects).filter_map(|effect| match effect {
        SessionEffect::NeedDatabaseAlone(name) => Some(name),
        _ => None,
    })
}

/// How many statements have been carried out when a pipeline that ends with COMMIT is done; 0 for any other unit.
fn commits_at(unit: &Unit) -> u32 {
    let ends = matches!(unit.run_statements().last(), Some(last) if last.command == Command::Commit { chain: false });
    let count = if ends && unit.kind == UnitKind::Pipeline { unit.run_statements().count() } else { 0 };
    u32::try_from(count).unwrap_or(0)
}

/// Whether the server's host does not answer its probe.
fn is_silent(database: &Database, link: &Link) -> bool {
    let fleet = database.upstream().cluster.fleet();
    fleet.index_of(link.host.id).is_some_and(|index| fleet.hosts[index].standing.is_silent())
}
