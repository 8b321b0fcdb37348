//! One unit from its need to its answer: attach, send, exchange, and again where that is safe.

use super::attach::{AttachError, Attempt};
use super::exchange::{Exchange, ExchangeEnd};
use super::recover::{Loss, LossAction, after_loss};
use super::relay::Answer;
use super::run::{Session, SessionEnd};
use super::send::{Sent, put_own_query, put_parameters, put_unit};
use super::state::Freshness;
use super::unit::{Unit, UnitKind};
use crate::cluster::HostReport;
use crate::config::PoolMode;
use crate::database::{ClientState, StopRequest};
use crate::metrics::{ByteDirection, QueryReason, QueryRoute, RetryReason};
use crate::route::{Need, Target};
use crate::server::{Expected, ServerTarget, TransactionStatus};
use crate::sql::{Access, Command, Isolation, Pins, StatementFacts};
use crate::types::SqlState;
use crate::wire::frame::{HEADER_LEN, put_message};
use crate::wire::reply::Report;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

const COUNT_ADVISORY_LOCKS: &str = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks \
     WHERE locktype OPERATOR(pg_catalog.=) 'advisory' AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()";

/// How long a host may take to show that it still listens.
const GONE_CHECK_TIMEOUT: Duration = Duration::from_millis(500);

impl Session {
    /// Serves one unit.
    pub(super) async fn serve(&mut self, unit: Unit) -> Result<(), SessionEnd> {
        if unit.kind == UnitKind::Terminate {
            return Err(SessionEnd::Terminated);
        }
        if self.answers_itself(&unit) {
            self.client.inbox.consume(unit.len);
            return Ok(());
        }
        if unit.changes_catalogue {
            self.database.catalogue_changed();
        }
        self.state.view.catalogue_is_current = self.database.catalogue_is_current();
        let mut attempt = Attempt {
            need: self.need(&unit),
            failed: Vec::new(),
            same_server: unit.pins.intersects(Pins::SEQUENCE),
            replanned: false,
            since: Instant::now(),
        };
        self.state_is(ClientState::Active);
        let outcome = match self.leave_replica(&unit, &mut attempt).await {
            Ok(()) => self.answer(&unit, &mut attempt).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => Ok(()),
            Err(AttachError::End(end)) => Err(end),
            Err(AttachError::Refused(report)) => {
                self.refuse(&unit, &report);
                self.client.inbox.consume(unit.len);
                self.state_is(ClientState::Idle);
                Ok(())
            }
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
            let held = self.link.is_some();
            if held {
                attempt.need.reason = self.held_reason();
            } else {
                self.attach(attempt).await?;
            }
            if !self.prepare_link(unit, attempt, held).await? {
                continue;
            }
            let waited = attempt.since.elapsed();
            let (mut exchange, route) = match self.start(unit, held, attempt.replanned)? {
                Some(started) => started,
                None => continue,
            };
            let end = self.exchange(&mut exchange).await;
            match end {
                ExchangeEnd::Done => {
                    self.finish(unit, attempt, &exchange, (route, waited));
                    self.check_advisory_locks(unit).await;
                    return Ok(());
                }
                ExchangeEnd::Refused if exchange.answer.refused == Some(RetryReason::StalePlan) => self.replan(attempt),
                ExchangeEnd::Refused => {
                    self.start_again(exchange.answer.refused.unwrap_or(RetryReason::ReplicaRefused));
                    attempt.need.target = Target::Primary;
                    attempt.need.reason = QueryReason::Retry;
                }
                ExchangeEnd::Stopped => return Err(AttachError::End(SessionEnd::Stopped)),
                ExchangeEnd::ClientLost => return Err(AttachError::End(SessionEnd::ClientGone)),
                ExchangeEnd::ClientProtocol(error) => return Err(AttachError::End(SessionEnd::Protocol(error))),
                ExchangeEnd::ServerLost(error) => {
                    tracing::warn!(host = self.host_name(), %error, "a server connection broke in use");
                    if !self.server_lost(unit, attempt, &exchange, held).await? {
                        return Ok(());
                    }
                }
                ExchangeEnd::ServerProtocol(error) => {
                    tracing::error!(host = self.host_name(), %error, "a server broke the protocol");
                    if !self.server_lost(unit, attempt, &exchange, held).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The pin of an advisory lock ends when the server holds none for the session any more; only the server knows.
    async fn check_advisory_locks(&mut self, unit: &Unit) {
        let may_have_ended = self.state.pins.intersects(Pins::ADVISORY) && unit.access > Access::Server;
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
    fn start(&mut self, unit: &Unit, held: bool, replanned: bool) -> Result<Option<(Exchange, QueryRoute)>, AttachError> {
        let Some(link) = self.link.as_mut() else { return Ok(None) };
        let route = link.route;
        let kept = unit.len <= self.database.settings().routing.retry_buffer;
        let may_retry = !held && kept && route == QueryRoute::Replica;
        if route == QueryRoute::Primary && self.state.write_mark.is_none() && unit.may_write() {
            self.state.write_mark = Some(self.database.writes.begin(self.database.upstream().cluster.sampler()));
        }
        let sent = put_unit(self.client.inbox.as_slice(), unit, &mut self.state, link.server(), &self.database);
        match sent {
            Ok(sent) => {
                let may_replan = unit.is_extended()
                    && !(unit.verbatim || replanned)
                    && self.state.transaction.is_none()
                    && !(self.state.pipeline_open || self.state.pins.intersects(Pins::PREPARE))
                    && kept;
                let answer = Answer { may_retry, may_replan, extended: unit.is_extended(), ..Answer::default() };
                Ok(Some((Exchange::new(answer, unit.len, sent == Sent::AsItIs), route)))
            }
            Err(error) => Err(AttachError::End(SessionEnd::Protocol(error))),
        }
    }

    /// Moves bytes until the exchange ends.
    async fn exchange(&mut self, exchange: &mut Exchange) -> ExchangeEnd {
        let Some(link) = self.link.as_mut() else { return ExchangeEnd::Stopped };
        let (client, entry) = (&mut self.client, &self.entry);
        let limit = self.database.settings().pool.query_timeout;
        let relay = std::future::poll_fn(|cx| {
            if let Poll::Ready(end) = exchange.poll(cx, client, link) {
                return Poll::Ready(end);
            }
            match entry.stop_requested(cx) {
                StopRequest::Now => Poll::Ready(ExchangeEnd::Stopped),
                StopRequest::None | StopRequest::Drain => Poll::Pending,
            }
        });
        if limit.is_zero() {
            return relay.await;
        }
        let mut relay = std::pin::pin!(relay);
        if let Ok(end) = tokio::time::timeout(limit, relay.as_mut()).await {
            return end;
        }
        // The server answers a cancelled statement with an error, as it would for the client's own request.
        if let Err(error) = entry.cancel().await {
            tracing::warn!(%error, "a statement over query_timeout could not be cancelled");
        }
        relay.await
    }

    /// Runs what is in the outbox of pgyard's own, before the unit. `Ok(false)`: the connection was lost, another is needed.
    async fn prepare_link(&mut self, unit: &Unit, attempt: &mut Attempt, held: bool) -> Result<bool, AttachError> {
        let Some(link) = self.link.as_mut() else { return Ok(false) };
        let server = link.server();
        if held && !self.state.pipeline_open {
            put_parameters(server, &self.state);
        }
        if !held && unit.pins.intersects(Pins::SEQUENCE) && server.last_session != self.entry.process {
            // currval and lastval must not show what another session did here.
            put_own_query(server, "DISCARD SEQUENCES");
        }
        server.last_session = self.entry.process;
        if server.incoming.replies.is_empty() {
            return Ok(true);
        }
        match self.run_own().await {
            Ok(()) => Ok(true),
            Err(OwnError::Lost) if !held => {
                let failed = self.link.take().map(|link| link.host.id);
                attempt.failed.extend(failed);
                Ok(false)
            }
            Err(OwnError::Lost) => {
                self.abandon_link();
                Err(AttachError::Refused(Report::error(SqlState::ADMIN_SHUTDOWN, "the server closed the connection")))
            }
            Err(OwnError::Failed(message)) => {
                self.break_link();
                let report = Report::error(SqlState::INVALID_PARAMETER_VALUE, message)
                    .detail("pgyard set the session's parameters on another server connection, and the server refused.")
                    .hint("RESET the parameter, or set a value that every server accepts.");
                Err(AttachError::Refused(report))
            }
            Err(OwnError::End(end)) => Err(AttachError::End(end)),
        }
    }

    /// Waits for the answers to queries of pgyard's own.
    async fn run_own(&mut self) -> Result<(), OwnError> {
        let mut exchange = Exchange::new(Answer::default(), 0, false);
        match self.exchange(&mut exchange).await {
            ExchangeEnd::Done | ExchangeEnd::Refused => match exchange.answer.own_error {
                Some(message) => Err(OwnError::Failed(message)),
                None => Ok(()),
            },
            ExchangeEnd::ServerLost(_) | ExchangeEnd::ServerProtocol(_) => Err(OwnError::Lost),
            ExchangeEnd::Stopped => Err(OwnError::End(SessionEnd::Stopped)),
            ExchangeEnd::ClientLost => Err(OwnError::End(SessionEnd::ClientGone)),
            ExchangeEnd::ClientProtocol(error) => Err(OwnError::End(SessionEnd::Protocol(error))),
        }
    }

    /// A connection whose parameters are not known any more is not used again.
    fn break_link(&mut self) {
        if let Some(mut link) = self.link.take() {
            link.server().broken = true;
        }
        self.abandon_link();
    }

    /// The server is gone, and with it what bound the session to it.
    fn abandon_link(&mut self) {
        self.link = None;
        // Whether its write took effect is not known: its reads must see it if it did.
        if let Some(mark) = self.state.write_mark.take() {
            self.state.freshness = Freshness::Pending(mark.acknowledged());
        }
        self.state.lost_transaction |= self.state.transaction.take().is_some();
        self.state.pipeline_open = false;
        self.state.pins = Pins::NONE;
        self.note_pins();
    }

    /// The unit was answered: notes its effects, counts it, logs it if it was slow.
    fn finish(&mut self, unit: &Unit, attempt: &Attempt, exchange: &Exchange, (route, waited): (QueryRoute, Duration)) {
        let text = self.text_to_replay(unit, exchange, route);
        self.client.inbox.consume(exchange.unit_len);
        let elapsed = attempt.since.elapsed();
        let metrics = &self.database.metrics;
        metrics.record_query(route, attempt.need.reason, elapsed);
        metrics.checkout_duration(route).record(waited);
        metrics.bytes(ByteDirection::ClientIn).add(unit.len as u64);
        metrics.bytes(ByteDirection::ClientOut).add(exchange.answer.bytes);
        self.entry.requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if let Some(link) = &self.link {
            link.host.record_latency(elapsed.saturating_sub(waited));
        }
        if self.limits.load().min_duration.is_some_and(|limit| elapsed >= limit) {
            self.log_slow(unit, attempt, (route, elapsed));
        }
        self.settle(unit, text.as_deref(), &exchange.answer, elapsed);
    }

    /// The text of a simple query in a READ ONLY transaction on a replica, if it may have to be run again.
    fn text_to_replay(&self, unit: &Unit, exchange: &Exchange, route: QueryRoute) -> Option<String> {
        let open = self.state.transaction.is_some() && route == QueryRoute::Replica && unit.needs_care;
        if !open || unit.kind != UnitKind::Query || exchange.unit_len == 0 {
            return None;
        }
        let text = &self.client.inbox.as_slice()[HEADER_LEN..unit.len - 1];
        std::str::from_utf8(text).ok().map(str::to_owned)
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

    /// A plan that the server holds does not fit its tables any more: the server forgets its statements, and the unit is sent
    /// once more.
    fn replan(&mut self, attempt: &mut Attempt) {
        attempt.replanned = true;
        self.client.outbox.clear();
        self.state.undo_names(0);
        self.database.metrics.retries(RetryReason::StalePlan).increment();
        if let Some(link) = self.link.as_mut() {
            put_own_query(link.server(), "DEALLOCATE ALL");
            link.server().incoming.prepared.clear();
        }
    }

    /// Nothing of the answer was forwarded: the unit goes elsewhere.
    fn start_again(&mut self, reason: RetryReason) {
        self.client.outbox.clear();
        self.state.undo_names(0);
        self.link = None;
        self.database.metrics.retries(reason).increment();
    }

    /// The server's connection ended under the unit. True: it is to be sent again.
    async fn server_lost(
        &mut self,
        unit: &Unit,
        attempt: &mut Attempt,
        exchange: &Exchange,
        held: bool,
    ) -> Result<bool, AttachError> {
        let Some(mut link) = self.link.take() else { return Ok(true) };
        link.server().broken = true;
        let (host_id, route, cut_off) = (link.host.id, link.route, link.server().incoming.body_left > 0);
        let target = link.server().target.clone();
        drop(link);
        self.database.upstream().cluster.report(host_id, HostReport::Broken);
        let answer = &exchange.answer;
        let in_transaction = self.state.transaction.is_some();
        let commits = |statement: &StatementFacts| matches!(statement.command, Command::Commit { .. } | Command::TwoPhase);
        let loss = Loss {
            route,
            harmless: !held && unit.access == Access::Read && unit.pins.is_empty(),
            kept: unit.len <= self.database.settings().routing.retry_buffer,
            committed: answer.committed,
            cut_off: cut_off && answer.bytes > 0 && answer.committed,
            explained: answer.error.is_some() && answer.fatal && answer.committed,
            in_transaction,
            may_have_committed: match in_transaction {
                true => unit.run_statements().any(commits),
                false => unit.access > Access::Server || unit.run_statements().any(commits),
            },
            said_something: answer.fatal,
            // Asked only when it decides: a second loss without a word.
            host_is_gone: !attempt.failed.is_empty() && !answer.fatal && is_gone(&target).await,
            losses: attempt.failed.len(),
        };
        match after_loss(&loss) {
            LossAction::Again => {
                attempt.failed.push(host_id);
                self.start_again(if route == QueryRoute::Replica { RetryReason::ReplicaLost } else { RetryReason::PrimaryLost });
                return Ok(true);
            }
            LossAction::Close => return Err(AttachError::End(SessionEnd::CutOff)),
            LossAction::Ready => {
                self.abandon_link();
                self.end_answer(unit);
            }
            LossAction::Fail(report) => {
                if !answer.committed {
                    self.client.outbox.clear();
                }
                self.state.undo_names(0);
                self.abandon_link();
                self.refuse(unit, &report);
            }
        }
        self.client.inbox.consume(exchange.unit_len);
        self.state_is(ClientState::Idle);
        Ok(false)
    }

    /// A READ ONLY transaction, or an open pipeline, that runs on a replica goes on on the primary when the unit needs it there.
    async fn leave_replica(&mut self, unit: &Unit, attempt: &mut Attempt) -> Result<(), AttachError> {
        let Some(link) = self.link.as_mut().filter(|link| link.is_replica()) else { return Ok(()) };
        if unit.statements().all(stays_on_replica) && unit.access <= Access::Server {
            return Ok(());
        }
        let begin = match &self.state.transaction {
            None if self.state.pipeline_open => None,
            None => return Ok(()),
            Some(transaction) => match transaction.movable {
                Some(isolation) if isolation == Isolation::ReadCommitted || transaction.statements <= 1 => {
                    Some((isolation, transaction.deferrable))
                }
                _ => return Ok(()),
            },
        };
        let server = link.server();
        if server.incoming.status == TransactionStatus::Failed {
            return Ok(());
        }
        put_message(server.outbox.writer(), b'S', |_| {});
        server.incoming.replies.push(Expected::QuietSync);
        if begin.is_some() {
            put_own_query(server, "ROLLBACK");
            server.parameters = self.state.transaction.as_ref().map_or_else(Arc::default, |t| t.at_begin.1.clone());
        }
        if self.run_own().await.is_err() {
            self.break_link();
            let message = "the server closed the connection in the middle of a transaction";
            return Err(AttachError::Refused(Report::error(SqlState::ADMIN_SHUTDOWN, message)));
        }
        self.link = None;
        self.state.pipeline_open = false;
        attempt.need.target = Target::Primary;
        attempt.need.reason = QueryReason::Retry;
        let Some((isolation, deferrable)) = begin else { return Ok(()) };
        self.begin_again(attempt, isolation, deferrable).await
    }

    async fn begin_again(&mut self, attempt: &mut Attempt, isolation: Isolation, deferrable: bool) -> Result<(), AttachError> {
        self.attach(attempt).await?;
        let Some(link) = self.link.as_mut() else { return Ok(()) };
        let level = match isolation {
            Isolation::ReadCommitted => "READ COMMITTED",
            Isolation::RepeatableRead => "REPEATABLE READ",
            Isolation::Serializable => "SERIALIZABLE",
        };
        let deferrable = if deferrable { " DEFERRABLE" } else { "" };
        if let Some(transaction) = &mut self.state.transaction {
            transaction.at_begin.1 = link.server().parameters.clone();
        }
        put_own_query(link.server(), &format!("BEGIN ISOLATION LEVEL {level} READ ONLY{deferrable}"));
        for text in self.state.transaction.iter().flat_map(|transaction| &transaction.replay) {
            put_own_query(link.server(), text);
        }
        match self.run_own().await {
            Ok(()) => Ok(()),
            Err(OwnError::End(end)) => Err(AttachError::End(end)),
            Err(OwnError::Lost | OwnError::Failed(_)) => {
                self.break_link();
                let message = "the transaction could not go on on the primary";
                Err(AttachError::Refused(Report::error(SqlState::ADMIN_SHUTDOWN, message)))
            }
        }
    }
}

/// Whether nothing listens at a server's address: then its machine or its postmaster is gone, which no statement does. After a
/// crash that a statement causes, the postmaster stays and says that it recovers.
async fn is_gone(target: &ServerTarget) -> bool {
    let connect = crate::net::socket::connect(&target.address, target.port, target.keepalive);
    !matches!(tokio::time::timeout(GONE_CHECK_TIMEOUT, connect).await, Ok(Ok(_)))
}

/// Why queries of pgyard's own were not answered.
enum OwnError {
    /// The connection ended.
    Lost,
    /// The server refused one.
    Failed(String),
    /// The session ends.
    End(SessionEnd),
}

/// Whether a statement of a READ ONLY transaction may run on the replica where it began.
fn stays_on_replica(statement: &StatementFacts) -> bool {
    match statement.command {
        Command::Commit { chain: true } | Command::TwoPhase | Command::Begin(_) => false,
        Command::SetTransaction(modes) => modes.read_only != Some(false) && modes.isolation != Some(Isolation::Serializable),
        _ => statement.access <= Access::Server,
    }
}
