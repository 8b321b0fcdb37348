//! The front door: what every connection shares, who is let in, and a connection's whole life.

use super::exchange::ClientSide;
use super::login::{Login, LoginEnd, log_in};
use super::run::{Session, SessionEnd, SessionLimits};
use crate::auth::KeyCache;
use crate::config::{AdminSettings, FrontSettings};
use crate::database::{Clients, Directory};
use crate::metrics::{FrontMetrics, RefusalReason};
use crate::net::Stream;
use crate::net::stream::Peer;
use crate::net::tls::ClientTls;
use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::HashMap;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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
    /// No new clients: pgyard stops.
    pub draining: AtomicBool,
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
}

impl Front {
    /// The front door of a process.
    pub fn new(parts: FrontParts) -> Self {
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
            draining: AtomicBool::new(false),
            deriving: Semaphore::new(DERIVING_MAX),
            logging_in: AtomicUsize::new(0),
            connected: AtomicUsize::new(0),
            addresses: Mutex::default(),
        }
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

/// Serves one accepted connection to its end. A panic ends this connection only, and is counted. `place` is dropped at the end.
///
/// Not an async function, so that the log-in, which is rare and large, is boxed before it can become part of the session's future.
pub fn serve_client<P: Send + 'static>(
    front: Arc<Front>,
    stream: Stream,
    peer: Peer,
    place: P,
) -> impl Future<Output = ()> + Send + 'static {
    front.metrics.connections.increment();
    let entering = enter(front.clone(), stream, peer).boxed();
    async move {
        let guarded = AssertUnwindSafe(serve(&front, entering)).catch_unwind();
        if guarded.await.is_err() {
            front.metrics.panics.increment();
            tracing::error!(%peer, "a session ended in a panic; please report it with the lines above");
        }
        drop(place);
    }
}

async fn serve(front: &Front, entering: BoxFuture<'static, Option<(Admission, Box<Session>)>>) {
    if let Some((admission, session)) = entering.await {
        run(front, session).await;
        drop(admission);
    }
}

/// Lets a connection in; `None` when it was refused, or did not come for a session.
async fn enter(front: Arc<Front>, stream: Stream, peer: Peer) -> Option<(Admission, Box<Session>)> {
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
        Ok(Ok(Login::Session(session))) => return Some((admission, session)),
        Ok(Ok(Login::Console(console))) => front.console.serve(console).await,
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

async fn run(front: &Front, mut session: Box<Session>) {
    let entry = session.entry.clone();
    let _connected = session.database.metrics.clients.hold();
    let leaving = Leaving { front, entry: &entry };
    front.metrics.logins.increment();
    tracing::debug!(client = entry.process, database = &*entry.database, user = &*entry.user, peer = %entry.peer, "logged in");
    let end = session.run().await;
    drop(leaving);
    match end {
        SessionEnd::Protocol(error) => tracing::warn!(client = entry.process, peer = %entry.peer, %error, "protocol violation"),
        end => tracing::debug!(client = entry.process, ?end, "session ended"),
    }
}

/// Takes the client out of the book, also when its session panics.
struct Leaving<'a> {
    front: &'a Front,
    entry: &'a crate::database::ClientEntry,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.front.clients.leave(self.entry);
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
    const TASK_MAX: usize = 1152;
    /// Largest [`Session`]. Bytes.
    const SESSION_MAX: usize = 768;

    fn size_of_task<A, B, C, D, F: Future>(_: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_session_is_small() {
        let task = size_of_task(serve_client::<Arc<()>>);
        assert!(task <= TASK_MAX, "a session's task has grown to {task} bytes: box what is rare in it");
        let session = size_of::<Session>();
        assert!(session <= SESSION_MAX, "a session has grown to {session} bytes: box what is rare in it");
    }
}
