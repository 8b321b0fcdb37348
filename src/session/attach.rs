//! Giving a unit a server connection: which host, which pool, and how long to wait for either.

use super::link::Link;
use super::run::{Session, SessionEnd};
use super::send::put_parameters;
use super::state::Freshness;
use crate::cluster::{CommitMode, Fleet, HostSet, PickRequest, Want, pick};
use crate::config::{Consistency, PoolMode, ReadsOnPrimary};
use crate::database::{ClientState, LastWrite, StopRequest};
use crate::metrics::{QueryReason, QueryRoute};
use crate::net::Stream;
use crate::net::stream::Socket;
use crate::pool::{CheckoutError, Pool};
use crate::route::{Need, Target};
use crate::server::ServerConnection;
use crate::types::{Floor, SqlState};
use crate::wire::reply::Report;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// What has been tried for a unit so far.
#[derive(Debug)]
pub struct Attempt {
    /// Where it must go.
    pub need: Need,
    /// Hosts that failed it, by id.
    pub failed: Vec<u32>,
    /// The server connection that the session used last is wanted, if it is free.
    pub same_server: bool,
    /// Its prepared statements were made again once.
    pub replanned: bool,
    /// When it began.
    pub since: Instant,
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

/// What a read may be given.
enum Sight {
    /// The primary only: the session's last write has no known position yet.
    PrimaryOnly,
    /// A replica that shows this.
    AtLeast(Option<Floor>),
    /// This replica, which the session has read from.
    Only(usize),
}

/// The floor that covers both; of two timelines the newer one does.
fn later(a: Floor, b: Floor) -> Floor {
    if (a.timeline, a.lsn) >= (b.timeline, b.lsn) { a } else { b }
}

impl Session {
    /// Takes a server connection for the unit; afterwards `self.link` is there and has the session's parameters on their way.
    pub(super) async fn attach(&mut self, attempt: &mut Attempt) -> Result<(), AttachError> {
        if self.database.is_paused() {
            self.wait_while_paused().await?;
        }
        loop {
            let fleet = self.database.upstream().cluster.fleet().clone();
            let (index, reason) = match self.choose(&fleet, attempt) {
                Ok(chosen) => chosen,
                Err(missing) => {
                    self.wait_for_fleet(&fleet, attempt, missing).await?;
                    continue;
                }
            };
            let view = &fleet.hosts[index];
            let route = if fleet.primary == Some(index) { QueryRoute::Primary } else { QueryRoute::Replica };
            attempt.need.reason = reason;
            let Some(pool) = self.role.pool(&view.host) else {
                return Err(AttachError::Refused(no_pool(&view.host.settings.name)));
            };
            match self.check_out(&pool, attempt.same_server).await? {
                Ok(server) => {
                    let mut link = Link::new(server, pool, view.host.clone(), route, self.entry.clone());
                    link.needs_reset = self.mode == PoolMode::Session;
                    put_parameters(link.server(), &self.state);
                    self.link = Some(Box::new(link));
                    return Ok(());
                }
                Err(error) => self.checkout_failed(error, attempt, view.host.id, route).await?,
            }
        }
    }

    /// What a read of this session must see.
    fn sight(&mut self, fleet: &Fleet) -> Sight {
        let cluster = self.database.upstream().cluster.clone();
        let position = |ticket| cluster.sampler().floor_for(ticket, CommitMode::MaybeAsynchronous);
        let everybody = match (self.state.consistency, self.database.writes.last()) {
            (Consistency::Eventual, _) => return Sight::AtLeast(None),
            (Consistency::Global, LastWrite::UnderWay) => return Sight::PrimaryOnly,
            (Consistency::Global, LastWrite::Acknowledged(ticket)) => match position(ticket) {
                Some(floor) => Some(floor),
                None => return Sight::PrimaryOnly,
            },
            _ => None,
        };
        if let Freshness::Pending(ticket) = self.state.freshness {
            match position(ticket) {
                Some(floor) => self.state.freshness = Freshness::Floor(floor),
                None => return Sight::PrimaryOnly,
            }
        }
        if self.state.consistency == Consistency::Monotonic
            && let Some(stays) = self.after_last_read(fleet)
        {
            return stays;
        }
        match (self.state.freshness, everybody) {
            (Freshness::Floor(own), Some(everybody)) => Sight::AtLeast(Some(later(own, everybody))),
            (Freshness::Floor(own), None) => Sight::AtLeast(Some(own)),
            (_, everybody) => Sight::AtLeast(everybody),
        }
    }

    /// Raises the floor by what the last read may have shown; until that is known the session stays on its replica.
    fn after_last_read(&mut self, fleet: &Fleet) -> Option<Sight> {
        let (host_id, at) = self.state.last_read?;
        let index = fleet.index_of(host_id);
        let sample = index.and_then(|index| fleet.hosts[index].sample).filter(|sample| sample.asked > at);
        if let (Some(sample), Some(era)) = (sample, fleet.era) {
            let seen = Floor { system: era.system, timeline: era.timeline, lsn: sample.lsn };
            let floor = match self.state.freshness {
                Freshness::Floor(own) => later(own, seen),
                _ => seen,
            };
            self.state.freshness = Freshness::Floor(floor);
            self.state.last_read = None;
            return None;
        }
        // Gone or not eligible any more: only the primary surely shows as much.
        Some(index.filter(|index| fleet.eligible.contains(index)).map_or(Sight::PrimaryOnly, Sight::Only))
    }

    /// The host for the unit and the reason, or why there is none.
    fn choose(&mut self, fleet: &Fleet, attempt: &Attempt) -> Result<(usize, QueryReason), crate::cluster::NoHost> {
        let failed = |index: &usize| attempt.failed.contains(&fleet.hosts[*index].host.id);
        let excluded = (0..fleet.hosts.len()).filter(failed).fold(HostSet::NONE, HostSet::with);
        let (want, floor) = match attempt.need.target {
            Target::Primary => (Want::Primary, None),
            Target::Replica => match self.sight(fleet) {
                Sight::AtLeast(floor) => (Want::Read, floor),
                Sight::Only(index) if !excluded.contains(index) => return Ok((index, attempt.need.reason)),
                Sight::PrimaryOnly | Sight::Only(_) => (Want::Primary, None),
            },
        };
        let settings = self.database.settings();
        let reads_on_primary = settings.routing.reads_on_primary;
        let request = PickRequest { want, floor: floor.as_ref(), excluded, reads_on_primary, client_hash: self.client_hash };
        let upstream = self.database.upstream();
        let index = pick(fleet, &upstream.balancer(), &request)?;
        let reason = if attempt.need.target == Target::Primary || fleet.primary != Some(index) {
            attempt.need.reason
        } else if !attempt.failed.is_empty() {
            QueryReason::Retry
        } else if reads_on_primary == ReadsOnPrimary::Always {
            QueryReason::Rotation
        } else if want == Want::Primary || !fleet.eligible.is_empty() {
            QueryReason::Freshness
        } else {
            QueryReason::NoReplica
        };
        Ok((index, reason))
    }

    async fn wait_while_paused(&mut self) -> Result<(), AttachError> {
        let database = self.database.clone();
        self.state_is(ClientState::Waiting);
        self.or_interrupted(database.resumed()).await
    }

    /// Waits for a fleet in which the unit may find its host.
    async fn wait_for_fleet(
        &mut self,
        fleet: &Fleet,
        attempt: &mut Attempt,
        missing: crate::cluster::NoHost,
    ) -> Result<(), AttachError> {
        let limit = self.database.settings().routing.failover_wait;
        let left = limit.saturating_sub(attempt.since.elapsed());
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

    /// A connection that is alive and watched by this thread.
    async fn check_out(
        &mut self,
        pool: &Arc<Pool>,
        same: bool,
    ) -> Result<Result<Box<ServerConnection>, CheckoutError>, AttachError> {
        loop {
            let wanted = if same { pool.try_checkout_exactly(self.state.last_server) } else { None };
            let server = match wanted.or_else(|| pool.try_checkout(self.worker)) {
                Some(server) => server,
                None => {
                    self.state_is(ClientState::Waiting);
                    let (waiting, slot, worker) = (pool.clone(), self.slot(), self.worker);
                    match self.or_interrupted(async move { waiting.checkout(&slot, worker).await }).await? {
                        Ok(server) => server,
                        Err(error) => return Ok(Err(error)),
                    }
                }
            };
            if let Some(server) = adopt(pool, server, self.worker) {
                self.state_is(ClientState::Active);
                return Ok(Ok(server));
            }
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
        let CheckoutError::Connect(connect) = &error else {
            if matches!(error, CheckoutError::Closed) && attempt.since.elapsed() < self.database.settings().routing.failover_wait
            {
                // The host was taken out of the configuration a moment ago; the next snapshot does not have it.
                tokio::task::yield_now().await;
                return Ok(());
            }
            return Err(AttachError::Refused(checkout_report(&error)));
        };
        if route == QueryRoute::Replica {
            attempt.failed.push(host_id);
            return Ok(());
        }
        let well = connect.is_host_well();
        if well || attempt.since.elapsed() >= self.database.settings().routing.failover_wait {
            return Err(AttachError::Refused(checkout_report(&error)));
        }
        // Nothing was sent: hold the request until there is a primary that takes connections.
        let wait = Duration::from_millis(50);
        self.or_interrupted(tokio::time::sleep(wait)).await
    }

    /// Waits for `work`, unless the client cancels, leaves or is told to end.
    async fn or_interrupted<T>(&mut self, work: impl Future<Output = T>) -> Result<T, AttachError> {
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

/// Registers the connection here, and looks whether it has died or spoken while it was idle.
fn adopt(pool: &Arc<Pool>, server: Box<ServerConnection>, worker: usize) -> Option<Box<ServerConnection>> {
    match server.adopt(worker) {
        Ok(mut server) => {
            if has_spoken(&mut server) {
                server.broken = true;
                pool.discard(server);
                return None;
            }
            Some(server)
        }
        Err(error) => {
            tracing::debug!(%error, "a server connection could not be moved to another thread");
            pool.lost();
            None
        }
    }
}

/// Whether the server has closed the connection or said anything while nobody asked it: either way it is not used. The socket
/// is not read: the reactor knows.
fn has_spoken(server: &mut ServerConnection) -> bool {
    let waker = futures_util::task::noop_waker();
    let mut cx = Context::from_waker(&waker);
    match &mut server.stream {
        Stream::Plain(Socket::Tcp(stream)) => {
            let ready = stream.poll_read_ready(&mut cx);
            ready.is_ready() && !matches!(stream.try_read(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
        }
        Stream::Plain(Socket::Unix(stream)) => {
            let ready = stream.poll_read_ready(&mut cx);
            ready.is_ready() && !matches!(stream.try_read(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
        }
        // TLS sends records of its own (session tickets), so readiness says nothing; a dead one shows at its first use.
        Stream::ClientTls(_) | Stream::ServerTls(_) => false,
    }
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
        CheckoutError::Closed => Report::error(SqlState::CANNOT_CONNECT_NOW, error.to_string()),
        CheckoutError::Connect(connect) => match &**connect {
            crate::server::ConnectError::Refused { state, message, .. } => {
                Report::error(*state, message.clone()).detail(format!("{connect}."))
            }
            other => Report::error(SqlState::CANNOT_CONNECT, other.to_string()),
        },
    }
}
