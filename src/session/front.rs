//! The front door: what every connection shares, who is let in, and a connection's whole life.

use super::access::{Denied, LoginRateLimit, failure_limits, too_many_failures, too_many_logins};
use super::exchange::ClientSide;
use super::login::{Arrival, Login, LoginEnd, log_in};
use super::peers::PASSING_ON_MAX;
use super::placement::Placement;
use super::replication::ReplicationSession;
use super::run::{Session, SessionEnd, SessionLimits};
use crate::auth::{FailureBook, KeyCache, ServerCredential, network};
use crate::config::{AdminSettings, FrontSettings};
use crate::database::{ClientEntry, ClientSeat, Clients, Directory, ShardedDatabase};
use crate::metrics::{FrontMetrics, GaugeHold, RefusalReason};
use crate::net::Stream;
use crate::net::stream::Peer;
use crate::net::tls::ClientTls;
use crate::server::{ParameterSet, ReportedParameters};
use crate::types::TokenBook;
use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::HashMap;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::Semaphore;

/// Key derivations at once, so that a burst of log-ins leaves a core to the relay.
const DERIVING_MAX: usize = 1;

/// A client that has proven to be a console user.
#[derive(Debug)]
pub struct ConsoleClient {
    /// Its connection.
    pub client: ClientSide,
    /// Who it is.
    pub user: String,
    /// Where it is.
    pub peer: Peer,
}

/// The console, which is another layer's.
pub trait ConsoleHandler: Send + Sync {
    /// Serves one console session to its end.
    fn serve(&self, console: ConsoleClient) -> BoxFuture<'static, ()>;
}

/// A client of a sharded database that has logged in.
pub struct ShardedClient {
    /// Its connection.
    pub client: ClientSide,
    /// The database.
    pub database: Arc<ShardedDatabase>,
    /// Its place among the clients.
    pub entry: Arc<ClientEntry>,
    /// What servers are logged in to with.
    pub credential: ServerCredential,
    /// The parameters of its start-up packet.
    pub startup: ParameterSet,
    /// What a server reported at the log-in.
    pub reported: ReportedParameters,
    /// What all connections share.
    pub front: Arc<Front>,
}

/// Sessions of sharded databases, which are another layer's.
pub trait ShardedHandler: Send + Sync {
    /// Serves one session to its end.
    fn serve(&self, client: ShardedClient) -> BoxFuture<'static, ()>;
}

/// What all connections share.
pub struct Front {
    /// The databases.
    pub directory: Arc<Directory>,
    /// The clients that are logged in.
    pub clients: Arc<Clients>,
    /// Limits; replaced by a reload.
    pub settings: ArcSwap<FrontSettings>,
    /// Console users; replaced by a reload.
    pub admin: ArcSwap<AdminSettings>,
    /// TLS towards clients; replaced by a reload.
    pub tls: ArcSwapOption<ClientTls>,
    /// What sessions must know; replaced by a reload.
    pub limits: Arc<ArcSwap<SessionLimits>>,
    /// SCRAM keys derived before.
    pub keys: Arc<KeyCache>,
    /// Process-wide counters.
    pub metrics: FrontMetrics,
    /// The console.
    pub console: Box<dyn ConsoleHandler>,
    /// Sessions of sharded databases.
    pub sharded: Box<dyn ShardedHandler>,
    /// Which relay thread serves which session.
    pub placement: Arc<Placement>,
    /// No new clients: pgyard stops.
    pub draining: AtomicBool,
    /// Log-ins that failed.
    pub(super) failures: FailureBook,
    /// Log-ins from each address, where their rate is limited.
    login_addresses: TokenBook<IpAddr>,
    /// Log-ins of each user, where their rate is limited.
    login_users: TokenBook<Box<str>>,
    /// Cancel requests on their way to peers.
    pub(super) passing_on: Semaphore,
    pub(super) deriving: Semaphore,
    logging_in: AtomicUsize,
    connected: AtomicUsize,
    addresses: Mutex<HashMap<IpAddr, usize>>,
}

/// What a new [`Front`] is made of.
pub struct FrontParts {
    /// The databases.
    pub directory: Arc<Directory>,
    /// The clients.
    pub clients: Arc<Clients>,
    /// Limits.
    pub settings: FrontSettings,
    /// Console users.
    pub admin: AdminSettings,
    /// TLS towards clients.
    pub tls: Option<Arc<ClientTls>>,
    /// What sessions must know.
    pub limits: SessionLimits,
    /// SCRAM keys derived before.
    pub keys: Arc<KeyCache>,
    /// Process-wide counters.
    pub metrics: FrontMetrics,
    /// The console.
    pub console: Box<dyn ConsoleHandler>,
    /// Sessions of sharded databases.
    pub sharded: Box<dyn ShardedHandler>,
    /// Relay threads.
    pub workers: usize,
}

impl Front {
    /// The front door of a process.
    pub fn new(parts: FrontParts) -> Self {
        parts.clients.set_peer(parts.settings.peers.id as u8);
        Front {
            directory: parts.directory,
            clients: parts.clients,
            settings: ArcSwap::from_pointee(parts.settings),
            admin: ArcSwap::from_pointee(parts.admin),
            tls: ArcSwapOption::new(parts.tls),
            limits: Arc::new(ArcSwap::from_pointee(parts.limits)),
            keys: parts.keys,
            metrics: parts.metrics,
            console: parts.console,
            sharded: parts.sharded,
            placement: Arc::new(Placement::new(parts.workers)),
            draining: AtomicBool::new(false),
            failures: FailureBook::default(),
            login_addresses: TokenBook::default(),
            login_users: TokenBook::default(),
            passing_on: Semaphore::new(PASSING_ON_MAX),
            deriving: Semaphore::new(DERIVING_MAX),
            logging_in: AtomicUsize::new(0),
            connected: AtomicUsize::new(0),
            addresses: Mutex::default(),
        }
    }

    /// Applies changed settings of the front door.
    pub fn apply(&self, settings: FrontSettings) {
        self.clients.set_peer(settings.peers.id as u8);
        self.settings.store(Arc::new(settings));
    }

    /// Whether a client may try to log in, for all that have failed before it.
    ///
    /// # Errors
    /// Too many have.
    pub(super) fn failures_of(&self, arrival: &Arrival) -> Result<(), Denied> {
        let limits = failure_limits(&self.settings.load());
        let outcome = self.failures.check((arrival.peer.ip(), &arrival.user), &limits, Instant::now());
        outcome.map_err(|limit| too_many_failures(limit, &arrival.user))
    }

    /// Notes whether a client could prove who it is.
    pub(super) fn note_login(&self, arrival: &Arrival, succeeded: bool) {
        let limits = failure_limits(&self.settings.load());
        let who = (arrival.peer.ip(), arrival.user.as_str());
        match succeeded {
            true => self.failures.succeeded(who, &limits, Instant::now()),
            false => self.failures.failed(who, &limits, Instant::now()),
        }
    }

    /// Counts an attempt to log in.
    ///
    /// # Errors
    /// There were too many from that address.
    pub(super) fn count_attempt(&self, arrival: &Arrival) -> Result<(), Denied> {
        let Some((rate, ip)) = self.settings.load().login_rate_per_address.zip(arrival.peer.ip()) else { return Ok(()) };
        let outcome = self.login_addresses.admit(&network(ip), &rate, Instant::now());
        outcome.map_err(|wait| too_many_logins((LoginRateLimit::Address(rate), wait), &arrival.user))
    }

    /// Counts a client that has proven who it is.
    ///
    /// # Errors
    /// There were too many log-ins of that user.
    pub(super) fn count_login(&self, user: &str) -> Result<(), Denied> {
        let Some(rate) = self.settings.load().login_rate_per_user else { return Ok(()) };
        let outcome = self.login_users.admit(&user.into(), &rate, Instant::now());
        outcome.map_err(|wait| too_many_logins((LoginRateLimit::User(rate), wait), user))
    }

    /// A place for a connection, or why there is none.
    fn admit(self: &Arc<Self>, peer: &Peer) -> Result<Admission, RefusalReason> {
        let settings = self.settings.load();
        if self.draining.load(Ordering::Acquire) {
            return Err(RefusalReason::Draining);
        }
        let under = |count: &AtomicUsize, limit: usize| {
            count.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| (n < limit).then_some(n + 1)).is_ok()
        };
        if !under(&self.connected, settings.max_clients) {
            return Err(RefusalReason::MaxClients);
        }
        let mut admission = Admission { front: self.clone(), address: None, logging_in: false };
        if !under(&self.logging_in, settings.max_logging_in) {
            return Err(RefusalReason::MaxLoggingIn);
        }
        admission.logging_in = true;
        if let (Some(ip), limit @ 1..) = (peer.ip(), settings.max_clients_per_address) {
            let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            let count = addresses.entry(ip).or_default();
            if *count >= limit {
                return Err(RefusalReason::MaxClientsPerAddress);
            }
            *count += 1;
            admission.address = Some(ip);
        }
        Ok(admission)
    }
}

/// A connection's place; dropping it frees the place.
struct Admission {
    front: Arc<Front>,
    address: Option<IpAddr>,
    logging_in: bool,
}

impl Admission {
    fn logged_in(&mut self) {
        if std::mem::take(&mut self.logging_in) {
            self.front.logging_in.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.logged_in();
        self.front.connected.fetch_sub(1, Ordering::AcqRel);
        if let Some(ip) = self.address {
            let mut addresses = self.front.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = addresses.get_mut(&ip) {
                *count -= 1;
                if *count == 0 {
                    addresses.remove(&ip);
                }
            }
        }
    }
}

/// Lets an accepted connection in, and serves it if it wants anything but a database. What comes back is a session that is still
/// to be served: see [`Resident::stay`]. A panic ends this connection only, and is counted.
pub async fn serve_client(front: Arc<Front>, stream: Stream, peer: Peer) -> Option<Resident> {
    front.metrics.connections.increment();
    let outcome = AssertUnwindSafe(serve(front.clone(), stream, peer)).catch_unwind().await;
    unless_panicked(&front, peer, outcome).flatten()
}

/// What came of work that may panic.
fn unless_panicked<T>(front: &Front, peer: Peer, outcome: std::thread::Result<T>) -> Option<T> {
    if outcome.is_err() {
        front.metrics.panics.increment();
        tracing::error!(%peer, "a session ended in a panic; please report it with the lines above");
    }
    outcome.ok()
}

async fn serve(front: Arc<Front>, stream: Stream, peer: Peer) -> Option<Resident> {
    let mut admission = match front.admit(&peer) {
        Ok(admission) => admission,
        Err(reason) => {
            refuse(&front, stream, peer, reason).await;
            return None;
        }
    };
    let login = {
        let _logging_in = front.metrics.logging_in.hold();
        let limit = front.settings.load().login_timeout;
        tokio::time::timeout(limit, log_in(front.clone(), stream, peer)).await
    };
    admission.logged_in();
    match login {
        Ok(Ok(Login::Replication(session, seat))) => replicate(front, session, (admission, seat)).await,
        Ok(Ok(Login::Session(session, seat))) => return Some(Resident::new(front, session, (admission, seat))),
        Ok(Ok(Login::Console(console))) => front.console.serve(console).await,
        Ok(Ok(Login::Sharded(client, _seat))) => {
            front.metrics.logins.increment();
            let _place = EntryPlace { front: front.clone(), entry: client.entry.clone() };
            front.sharded.serve(*client).await;
        }
        Ok(Ok(Login::Nothing)) => {}
        Ok(Err(LoginEnd { reason, text })) => {
            front.metrics.login_failures(reason).increment();
            match reason {
                // A probe of a load balancer, or a client that has yet to ask its user for the password.
                crate::metrics::LoginFailureReason::ClientGone => {
                    tracing::debug!(%peer, error = text, "client left before it had logged in")
                }
                reason => tracing::info!(%peer, reason = reason.label(), error = text, "log-in failed"),
            }
        }
        Err(_) => {
            front.metrics.login_failures(crate::metrics::LoginFailureReason::Timeout).increment();
            tracing::info!(%peer, "log-in took longer than limits.login_timeout");
        }
    }
    None
}

async fn replicate(front: Arc<Front>, mut session: Box<ReplicationSession>, places: (Admission, ClientSeat)) {
    let entry = session.entry.clone();
    let _connected = session.database.metrics.clients.hold();
    front.metrics.logins.increment();
    tracing::info!(client = entry.process, user = &*entry.user, peer = %entry.peer, "replication begins");
    let place = BookedPlace { front, entry, _places: places, _connected };
    session.run().await;
    tracing::info!(client = place.entry.process, user = &*place.entry.user, peer = %place.entry.peer, "replication ends");
}

/// A client's place among those that are logged in; dropping it takes the client out.
pub struct EntryPlace {
    /// What all connections share.
    pub front: Arc<Front>,
    /// The client.
    pub entry: Arc<ClientEntry>,
}

impl Drop for EntryPlace {
    fn drop(&mut self) {
        self.front.clients.leave(&self.entry);
    }
}

/// A logged-in session with its place in the books; dropping it takes the client out of them.
pub struct Resident {
    session: Session,
    place: BookedPlace,
}

/// What a logged-in client holds apart from its session; given back also when that panics.
struct BookedPlace {
    front: Arc<Front>,
    entry: Arc<ClientEntry>,
    _places: (Admission, ClientSeat),
    _connected: GaugeHold,
}

impl Drop for BookedPlace {
    fn drop(&mut self) {
        self.front.clients.leave(&self.entry);
    }
}

impl Resident {
    fn new(front: Arc<Front>, session: Box<Session>, places: (Admission, ClientSeat)) -> Self {
        let entry = session.entry.clone();
        front.metrics.logins.increment();
        tracing::debug!(client = entry.process, database = &*entry.database, user = &*entry.user, peer = %entry.peer, "logged in");
        let _connected = session.database.metrics.clients.hold();
        Resident { session: *session, place: BookedPlace { front, entry, _places: places, _connected } }
    }

    /// Serves the session on this thread; it comes back if it has to go on on another one. A panic ends this session only.
    pub async fn stay(self: Box<Self>) -> Option<Box<Resident>> {
        let mut this = self;
        let outcome = AssertUnwindSafe(this.session.run()).catch_unwind().await;
        let Resident { place, .. } = &*this;
        let entry = &place.entry;
        match unless_panicked(&place.front, entry.peer, outcome)? {
            SessionEnd::Moves => {
                place.front.metrics.sessions_moved.increment();
                return Some(this);
            }
            SessionEnd::Protocol(error) => {
                tracing::warn!(client = entry.process, peer = %entry.peer, %error, "protocol violation")
            }
            end => tracing::debug!(client = entry.process, ?end, "session ended"),
        }
        None
    }

    /// Has this thread watch the client's socket from now on.
    ///
    /// # Errors
    /// The socket can't be registered; the session ends.
    pub fn arrive(&mut self) -> std::io::Result<()> {
        self.session.client.stream.rehome()
    }
}

/// Says why, in the words that PostgreSQL has for it, once the client has said what it wants.
async fn refuse(front: &Front, mut stream: Stream, peer: Peer, reason: RefusalReason) {
    use crate::types::SqlState;
    use crate::wire::reply::Report;
    use tokio::io::AsyncWriteExt;
    front.metrics.refused(reason).increment();
    tracing::info!(%peer, reason = reason.label(), "connection refused");
    let report = match reason {
        RefusalReason::MaxClients => {
            Report::fatal(SqlState::TOO_MANY_CONNECTIONS, "sorry, too many clients already").hint("Raise limits.max_clients.")
        }
        RefusalReason::MaxClientsPerAddress => {
            Report::fatal(SqlState::TOO_MANY_CONNECTIONS, "too many connections from your address")
                .hint("Raise limits.max_clients_per_address.")
        }
        RefusalReason::MaxLoggingIn => {
            Report::fatal(SqlState::TOO_MANY_CONNECTIONS, "too many clients are logging in").hint("Raise limits.max_logging_in.")
        }
        RefusalReason::Draining => Report::fatal(SqlState::CANNOT_CONNECT_NOW, "the proxy is shutting down"),
    };
    let mut out = Vec::new();
    report.put(&mut out);
    // Nobody waits for a client that does not read.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), stream.write_all(&out)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest task of a session, without its [`Session`]. An idle client costs both and little else. Bytes.
    const TASK_MAX: usize = 1144;
    /// Largest [`Session`]. Bytes.
    const SESSION_MAX: usize = 976;

    fn size_of_task<A, F: Future>(_: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_session_is_small() {
        let task = size_of_task(Resident::stay);
        assert!(task <= TASK_MAX, "a session's task has grown to {task} bytes: box what is rare in it");
        let session = size_of::<Session>();
        assert!(session <= SESSION_MAX, "a session has grown to {session} bytes: box what is rare in it");
    }
}
