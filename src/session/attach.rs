//! Giving a unit a server connection: which host, which pool, and how long to wait for either.

use super::aside::aside;
use super::choose::Choice;
use super::link::Link;
use super::run::{Session, SessionEnd};
use super::send::put_parameters;
use crate::cluster::{Fleet, Host, NoHost};
use crate::config::{PoolMode, ReadsOnPrimary, ReuseUnnamed};
use crate::database::{ClientState, DatabaseView, HeldStatement, HoldLimits, StopRequest, with_view};
use crate::metrics::{GaugeHold, QueryReason, QueryRoute};
use crate::pool::{CheckoutError, Pool, PoolWait, Turn};
use crate::route::Need;
use crate::runtime::prefetch;
use crate::server::ServerConnection;
use crate::sql::TableSet;
use crate::types::SqlState;
use crate::wire::reply::Report;
use std::future::Future;
use std::hint::cold_path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Between two attempts to reach a primary that does not take connections.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// What has been tried for a unit so far.
#[derive(Debug)]
pub struct Attempt {
    /// Where it must go.
    pub need: Need,
    /// Which tables it reads, if every write to them must be seen.
    pub reads: TableSet,
    /// A replica has refused it for what it writes: it is no read, whatever its text says.
    pub writes: bool,
    /// Hosts that failed it, by id.
    pub failed: Vec<u32>,
    /// The server connection that the session used last is wanted, if it is free.
    pub same_server: bool,
    /// The host chosen first, by id, if all its connections were in use.
    pub crowded: Option<u32>,
    /// Its prepared statements were made again once.
    pub replanned: bool,
    /// Connections that it has lost without a word of the server.
    pub losses: usize,
    /// It waits for a host.
    pub held: Option<HeldStatement>,
    /// When it began.
    pub since: Instant,
    /// How long it waited for a host and a server connection.
    pub waited: Duration,
    /// The settings when it began.
    pub tuning: Tuning,
}

/// What a unit needs of the database's settings.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Whether the primary serves reads.
    pub reads_on_primary: ReadsOnPrimary,
    /// Longest unit that is sent again. Bytes.
    pub retry_buffer: usize,
    /// Statements that take longer are cancelled; zero is no limit.
    pub query_timeout: Duration,
    /// Under session pooling a connection serves one session only.
    pub fresh_connections: bool,
    /// The rate of somebody's statements is limited.
    pub is_rated: bool,
    /// Unnamed statements may stay prepared on the servers.
    pub reuses_unnamed: bool,
}

impl Tuning {
    /// As the settings are now.
    pub fn of(view: &mut DatabaseView) -> Self {
        let settings = view.settings();
        Tuning {
            reads_on_primary: settings.routing.reads_on_primary,
            retry_buffer: settings.routing.retry_buffer,
            query_timeout: settings.pool.query_timeout,
            fresh_connections: settings.pool.fresh_connections,
            is_rated: settings.clients.is_rated,
            reuses_unnamed: settings.routing.reuse_unnamed != ReuseUnnamed::Off,
        }
    }
}

/// The host that was chosen for a unit.
struct Place {
    host: Arc<Host>,
    route: QueryRoute,
    reason: QueryReason,
}

/// Why a unit gets no server connection.
#[derive(Debug)]
pub enum AttachError {
    /// The client is told, and stays connected.
    Refused(Report),
    /// A server has refused something that the unit needs: the body of its error is the unit's answer.
    Answered(Vec<u8>),
    /// The session ends.
    End(SessionEnd),
}

impl Session {
    /// Takes a server connection for the unit; afterwards `self.link` is there and has the session's parameters on their way.
    pub(super) async fn attach(&mut self, attempt: &mut Attempt) -> Result<(), AttachError> {
        loop {
            // Also for one that has waited for something else meanwhile.
            if self.database.is_paused() {
                aside(|| self.wait_while_paused()).await?;
            }
            let place = match self.find_place(attempt) {
                Ok(place) => place,
                Err((missing, fleet)) => {
                    aside(|| self.wait_for_fleet(&fleet, attempt, missing)).await?;
                    continue;
                }
            };
            let Some(pool) = self.pool_of(&place.host) else {
                cold_path();
                return Err(AttachError::Refused(no_pool(&place.host.settings.name)));
            };
            // The usual case without the machinery of waiting.
            let found = if attempt.same_server { None } else { pool.try_checkout(self.worker) };
            let server = match found.and_then(|server| adopt(&pool, server, self.worker)) {
                Some(server) => server,
                // Another host that would do as well may have one, or fewer who wait for one.
                None if attempt.crowded.is_none() && !attempt.same_server && pool.is_full() => {
                    cold_path();
                    attempt.crowded = Some(place.host.id);
                    continue;
                }
                None => {
                    cold_path();
                    let outcome = match self.line_up(&pool, &place.host, attempt.same_server) {
                        Ok(Line::Served(server)) => Ok(server),
                        Ok(Line::Waits(mut waiting)) => std::future::poll_fn(|cx| self.poll_turn(&mut waiting, cx)).await?,
                        Err(error) => Err(error),
                    };
                    match outcome {
                        Ok(server) => {
                            // It may have died while it was idle.
                            let Some(server) = adopt(&pool, server, self.worker) else { continue };
                            self.state_is(ClientState::Active);
                            attempt.waited = attempt.since.elapsed();
                            server
                        }
                        Err(error) => {
                            aside(|| self.checkout_failed(error, attempt, place.host.id, place.route)).await?;
                            continue;
                        }
                    }
                }
            };
            attempt.need.reason = place.reason;
            let mut link = Link::new(server, pool, place.host, place.route, self.entry.clone());
            link.needs_reset = self.mode == PoolMode::Session;
            attempt.held = None;
            link.is_spent = link.needs_reset && attempt.tuning.fresh_connections;
            let server = link.server();
            if server.defaults > self.state.defaults {
                cold_path();
                self.state.keep_told(server);
            }
            server.is_kept = server.id == self.state.sequence_server;
            put_parameters(server, &self.state);
            self.link = Some(link);
            return Ok(());
        }
    }

    /// The host for the unit, or why there is none in which fleet.
    fn find_place(&mut self, attempt: &Attempt) -> Result<Place, (NoHost, Arc<Fleet>)> {
        let reads_on_primary = attempt.tuning.reads_on_primary;
        let (database, state) = (&*self.database, &mut self.state);
        let mut choice = Choice { database, state, client_hash: u64::from(self.client_hash), reads_on_primary };
        with_view(database, |view| {
            let (fleet, balancer) = view.fleet();
            let (index, reason) = choice.choose((fleet, balancer), attempt).map_err(|missing| (missing, fleet.clone()))?;
            let route = if fleet.primary == Some(index) { QueryRoute::Primary } else { QueryRoute::Replica };
            Ok(Place { host: fleet.hosts[index].host.clone(), route, reason })
        })
    }

    fn pool_of(&mut self, host: &Arc<Host>) -> Option<Arc<Pool>> {
        let known = self.pools.load().iter().find(|pool| pool.key.host_id == host.id);
        known.cloned().or_else(|| self.role.pool(host))
    }

    async fn wait_while_paused(&mut self) -> Result<(), AttachError> {
        let database = self.database.clone();
        self.state_is(ClientState::Waiting);
        self.or_interrupted(database.resumed()).await
    }

    /// The statement waits for a host: how much longer it may.
    fn hold(&self, attempt: &mut Attempt) -> Result<Duration, AttachError> {
        let settings = self.database.settings();
        let routing = &settings.routing;
        let limits = HoldLimits { statements: routing.max_held, bytes: routing.max_held_bytes };
        let length = self.client.inbox.len();
        let Some(held) = attempt.held.take().or_else(|| self.database.held.enter(length, limits)) else {
            let message = "no host takes this statement now, and as many as may wait for one do so already";
            let report = Report::error(SqlState::CANNOT_CONNECT_NOW, message);
            return Err(AttachError::Refused(report.hint("Raise max_held or max_held_bytes, or lower failover_wait.")));
        };
        let waited = attempt.held.insert(held).since.elapsed();
        Ok(routing.failover_wait.saturating_sub(waited))
    }

    /// Waits for a fleet in which the unit may find its host.
    async fn wait_for_fleet(&mut self, fleet: &Fleet, attempt: &mut Attempt, missing: NoHost) -> Result<(), AttachError> {
        let left = self.hold(attempt)?;
        if left.is_zero() {
            let report = Report::error(SqlState::CANNOT_CONNECT_NOW, missing.explain(fleet))
                .hint("See the hosts' log and `SHOW HOSTS`; `failover_wait` says how long to wait.");
            return Err(AttachError::Refused(report));
        }
        self.state_is(ClientState::Waiting);
        let cluster = self.database.upstream().cluster.clone();
        let generation = fleet.generation;
        let change = async move { tokio::time::timeout(left, cluster.wait_for_change(generation)).await };
        // Whether it changed or the time is over: look again, and give up only then.
        let _ = self.or_interrupted(change).await?;
        attempt.failed.clear();
        Ok(())
    }

    /// A connection, or a place in the queue of the pool.
    #[inline(never)]
    fn line_up(&mut self, pool: &Arc<Pool>, host: &Host, same: bool) -> Result<Line, CheckoutError> {
        if same && let Some(server) = pool.try_checkout_exactly(self.state.own_server()) {
            return Ok(Line::Served(server));
        }
        let (slot, worker) = (self.slot(), self.worker);
        Ok(match pool.line_up(&slot, worker)? {
            Turn::Now(server) => Line::Served(server),
            Turn::Later(place) => {
                self.state_is(ClientState::Waiting);
                Line::Waits(Waiting { place, _counted: (Queued::at(host), self.database.metrics.clients_waiting.hold()) })
            }
        })
    }

    /// Ready when the pool has a connection for the session or none to expect, or when the session is not to wait any more.
    #[inline(never)]
    fn poll_turn(
        &mut self,
        waiting: &mut Waiting,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Result<Box<ServerConnection>, CheckoutError>, AttachError>> {
        match waiting.place.poll(cx) {
            Poll::Ready(outcome) => {
                // The statement has waited as well, and is sent next.
                prefetch(self.client.inbox.as_slice());
                Poll::Ready(Ok(outcome))
            }
            Poll::Pending => self.poll_interrupt(cx).map(Err),
        }
    }

    /// Decides whether another host may be tried.
    async fn checkout_failed(
        &mut self,
        error: CheckoutError,
        attempt: &mut Attempt,
        host_id: u32,
        route: QueryRoute,
    ) -> Result<(), AttachError> {
        if matches!(error, CheckoutError::HostSilent) {
            if route == QueryRoute::Replica {
                attempt.failed.push(host_id);
                return Ok(());
            }
            self.hold(attempt)?;
            // Until the next look at the fleet shows it.
            return self.or_interrupted(tokio::time::sleep(RETRY_PAUSE)).await;
        }
        let CheckoutError::Connect(connect) = &error else {
            if matches!(error, CheckoutError::Closed) && !self.hold(attempt)?.is_zero() {
                // The host was taken out of the configuration a moment ago; the next snapshot does not have it.
                crate::runtime::yield_now().await;
                return Ok(());
            }
            return Err(AttachError::Refused(checkout_report(&error)));
        };
        if route == QueryRoute::Replica {
            attempt.failed.push(host_id);
            return Ok(());
        }
        let well = connect.is_host_well();
        if well || self.hold(attempt)?.is_zero() {
            return Err(AttachError::Refused(checkout_report(&error)));
        }
        // Nothing was sent: hold the request until there is a primary that takes connections.
        self.or_interrupted(tokio::time::sleep(RETRY_PAUSE)).await
    }

    /// Waits for `work`, unless the client cancels, leaves or is told to end.
    pub(super) async fn or_interrupted<T>(&mut self, work: impl Future<Output = T>) -> Result<T, AttachError> {
        let mut work = pin!(work);
        let waiting = self.database.metrics.clients_waiting.hold();
        let outcome = std::future::poll_fn(|cx| {
            if let Poll::Ready(value) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            self.poll_interrupt(cx).map(Err)
        })
        .await;
        drop(waiting);
        outcome
    }

    fn poll_interrupt(&mut self, cx: &mut Context<'_>) -> Poll<AttachError> {
        if self.entry.stop_requested(cx) == StopRequest::Now {
            return Poll::Ready(AttachError::End(SessionEnd::Stopped));
        }
        if self.entry.take_canceled() {
            let report = Report::error(SqlState::QUERY_CANCELED, "canceling statement due to user request");
            return Poll::Ready(AttachError::Refused(report));
        }
        match self.poll_read_ahead(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(AttachError::End(SessionEnd::ClientGone)),
            Poll::Ready(Ok(())) if self.client.ended => Poll::Ready(AttachError::End(SessionEnd::ClientGone)),
            _ => Poll::Pending,
        }
    }
}

/// What a session finds that asks a pool for a connection.
enum Line {
    Served(Box<ServerConnection>),
    Waits(Waiting),
}

/// A session that waits for a connection. Not in a box, as what is rare is: where a pool is full, nearly every statement waits.
struct Waiting {
    place: PoolWait,
    _counted: (Queued, GaugeHold),
}

/// A statement that waits for a connection of a host; counted there until it is dropped, so that the balance sees queues.
struct Queued(Arc<AtomicU32>);

impl Queued {
    fn at(host: &Host) -> Self {
        host.in_flight.fetch_add(1, Ordering::Relaxed);
        Queued(host.in_flight.clone())
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Registers the connection here, and looks whether it has died or spoken while it was idle.
fn adopt(pool: &Arc<Pool>, mut server: Box<ServerConnection>, worker: usize) -> Option<Box<ServerConnection>> {
    if let Err(error) = server.adopt(worker) {
        cold_path();
        tracing::debug!(%error, "a server connection could not be moved to another thread");
        server.broken = true;
    }
    if server.broken || server.has_spoken() {
        cold_path();
        pool.discard(server);
        return None;
    }
    Some(server)
}

fn no_pool(host: &str) -> Report {
    Report::error(SqlState::CANNOT_CONNECT, format!("host {host} can't be used: its TLS settings can't be loaded"))
        .hint("See pgyard's log, and `pgyard check` for the file.")
}

/// What the client is told.
fn checkout_report(error: &CheckoutError) -> Report {
    match error {
        CheckoutError::TimedOut { .. } => Report::error(SqlState::TOO_MANY_CONNECTIONS, error.to_string())
            .hint("Raise pool_size, shorten transactions, or raise checkout_timeout."),
        CheckoutError::TooManyWaiting { .. } => {
            Report::error(SqlState::TOO_MANY_CONNECTIONS, error.to_string()).hint("Raise max_waiting or pool_size.")
        }
        CheckoutError::Closed | CheckoutError::HostSilent => Report::error(SqlState::CANNOT_CONNECT_NOW, error.to_string()),
        CheckoutError::Connect(connect) => match &**connect {
            crate::server::ConnectError::Refused { state, message, .. } => {
                Report::error(*state, message.clone()).detail(format!("{connect}."))
            }
            other => Report::error(SqlState::CANNOT_CONNECT, other.to_string()),
        },
    }
}
