//! Running: listeners, relay threads, signals, and the orderly end.

use super::arguments::ServeArguments;
use super::governor::govern;
use super::logging::LogFilter;
use super::reload::{reload, serve_by};
use super::status::YardHealth;
use super::workers::{Dispatcher, Workers};
use super::yard::{Ending, Yard};
use super::{coordinators, recovery, scrape, watch};
use crate::admin::{Console, ConsoleActions, ConsoleContext, ShutdownMode};
use crate::config::{ListenAddress, ReloadPlan, Settings};
use crate::database::StopRequest;
use crate::net::open::listen_tcp;
use crate::net::tls::TlsError;
use crate::session::Front;
use futures_util::future::BoxFuture;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};

/// Pause after an accept that failed for want of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What is left of an orderly end for the last bytes to be written.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why pgyard could not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address can't be listened on.
    #[error("can't listen on {address}: {source}{}", advice(source))]
    Listen {
        /// Which.
        address: String,
        /// What is wrong.
        source: io::Error,
    },
    /// The TLS files can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Threads or run-times could not be made.
    #[error("can't start: {0}")]
    Start(#[from] io::Error),
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program listens there (a pgyard that still runs?): stop it, or change listen or http"
        }
        io::ErrorKind::PermissionDenied => "; use a port over 1023, or give pgyard CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
        _ => "",
    }
}

/// The listeners of one pgyard, bound before anything else starts.
struct Listeners {
    tcp: Vec<std::net::TcpListener>,
    unix: Vec<(std::os::unix::net::UnixListener, PathBuf)>,
    http: Option<std::net::TcpListener>,
}

fn bind(settings: &Settings) -> Result<Listeners, ServeError> {
    let mut listeners = Listeners { tcp: Vec::new(), unix: Vec::new(), http: None };
    let failed = |address: String| move |source| ServeError::Listen { address, source };
    for address in &settings.listen {
        match address {
            ListenAddress::Tcp(address) => listeners.tcp.push(listen_tcp(*address).map_err(failed(address.to_string()))?),
            ListenAddress::Unix { directory, port } => {
                let path = directory.join(format!(".s.PGSQL.{port}"));
                let bound = bind_unix(&path).map_err(failed(path.display().to_string()))?;
                listeners.unix.push((bound, path));
            }
        }
    }
    if let Some(address) = settings.http {
        listeners.http = Some(listen_tcp(address).map_err(failed(address.to_string()))?);
    }
    Ok(listeners)
}

/// Binds a Unix socket; one that a dead process has left behind is replaced.
fn bind_unix(path: &std::path::Path) -> io::Result<std::os::unix::net::UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && UnixStream::connect(path).is_err() => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        other => other?,
    };
    // As PostgreSQL's unix_socket_permissions: who may connect is for the log-in to decide.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Runs pgyard until it is told to end. `ready` is called once clients are accepted; `interrupted` ends it as SIGTERM does.
///
/// # Errors
/// See [`ServeError`]; nothing is left running.
pub fn serve(settings: Settings, source: Option<ServeArguments>, log: LogFilter, ready: impl FnOnce()) -> Result<(), ServeError> {
    raise_file_limit();
    let listeners = bind(&settings)?;
    let control = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("control").enable_all().build()?;
    let outcome = control.block_on(run(settings, source, log, listeners, ready));
    control.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// Raises the limit of open files to the hard limit.
fn raise_file_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::debug!(limit, "open files"),
        Err(error) => tracing::warn!(%error, "the limit of open files could not be raised"),
    }
}

async fn run(
    settings: Settings,
    source: Option<ServeArguments>,
    log: LogFilter,
    listeners: Listeners,
    ready: impl FnOnce(),
) -> Result<(), ServeError> {
    let (workers, io_uring) = (settings.workers, settings.io_uring);
    let yard = Yard::new(settings, source, tokio::runtime::Handle::current());
    let actions = Arc::new(YardActions { yard: yard.clone(), front: OnceLock::new(), log: log.clone() });
    let console = Console::new(ConsoleContext {
        directory: yard.directory.clone(),
        clients: yard.clients.clone(),
        registry: yard.registry.clone(),
        workers,
        started: yard.started,
        actions: actions.clone(),
    });
    let front = yard.front(Box::new(console))?;
    // Set once, here.
    let _ = actions.front.set(Arc::downgrade(&front));
    scrape::register(&yard);
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let relays = Workers::start(&front, &stopping, io_uring)?;
    let governor = tokio::spawn(govern(front.clone(), relays.numbers()));
    let tasks = start_tasks(&yard, &listeners, &relays.dispatcher(), &stopping)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), workers, "pgyard is listening");
    ready();
    until_told(&yard, &front, &log).await;
    front.draining.store(true, Ordering::Release);
    end(&yard).await;
    yard.directory.close();
    stop.send_replace(true);
    tasks.into_iter().chain([governor]).for_each(|task| task.abort());
    for (_, path) in &listeners.unix {
        // It may be gone already.
        let _ = std::fs::remove_file(path);
    }
    let joined = tokio::task::spawn_blocking(move || relays.join());
    // A thread that does not end is left to the end of the process.
    let _ = tokio::time::timeout(LAST_WORDS, joined).await;
    Ok(())
}

fn start_tasks(
    yard: &Arc<Yard>,
    listeners: &Listeners,
    dispatcher: &Dispatcher,
    stopping: &tokio::sync::watch::Receiver<bool>,
) -> io::Result<Vec<tokio::task::JoinHandle<()>>> {
    let mut tasks = vec![tokio::spawn(watch::maintain(yard.clone())), tokio::spawn(watch::follow_all(yard.clone()))];
    tasks.push(tokio::spawn(recovery::keep_recovering(yard.clone())));
    tasks.push(tokio::spawn(coordinators::keep_in_step(yard.clone())));
    if let Some(http) = &listeners.http {
        let listener = TcpListener::from_std(http.try_clone()?)?;
        let health = Arc::new(YardHealth(yard.clone()));
        tasks.push(tokio::spawn(crate::http::serve(listener, health, yard.registry.clone(), stopping.clone())));
    }
    for listener in &listeners.tcp {
        let listener = TcpListener::from_std(listener.try_clone()?)?;
        tasks.push(tokio::spawn(accept_tcp(listener, dispatcher.clone())));
    }
    for (listener, _) in &listeners.unix {
        let listener = UnixListener::from_std(listener.try_clone()?)?;
        tasks.push(tokio::spawn(accept_unix(listener, dispatcher.clone())));
    }
    Ok(tasks)
}

async fn accept_tcp(listener: TcpListener, dispatcher: Dispatcher) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => dispatcher.tcp(stream, peer).await,
            Err(error) => accept_failed(&error).await,
        }
    }
}

async fn accept_unix(listener: UnixListener, dispatcher: Dispatcher) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => dispatcher.unix(stream).await,
            Err(error) => accept_failed(&error).await,
        }
    }
}

async fn accept_failed(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Waits for SIGTERM, SIGINT or the console; SIGHUP reloads meanwhile.
async fn until_told(yard: &Arc<Yard>, front: &Arc<Front>, log: &LogFilter) {
    let mut ending = yard.ending.subscribe();
    let (Ok(mut hangup), Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::hangup()), signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals can't be received: stop pgyard with SHUTDOWN in its console");
        // The sender lives in `yard`.
        let _ = ending.wait_for(|ending| *ending != Ending::No).await;
        return;
    };
    loop {
        tokio::select! {
            // The outcome is in the log.
            _ = hangup.recv() => drop(reload(yard, front, log).await),
            _ = terminate.recv() => break yard.end(Ending::Drain),
            _ = interrupt.recv() => break yard.end(Ending::Drain),
            _ = ending.wait_for(|ending| *ending != Ending::No) => break,
        }
    }
    let yard = yard.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        yard.end(Ending::Now);
    });
}

/// Lets running transactions end, then closes what is left.
async fn end(yard: &Arc<Yard>) {
    let limit = yard.settings.load().drain_timeout;
    tracing::info!(clients = yard.clients.len(), "stopping: no new clients; running transactions may end (drain_timeout)");
    let mut ending = yard.ending.subscribe();
    let left = tokio::select! {
        left = yard.clients.stop_all(StopRequest::Drain, Instant::now() + limit) => left,
        _ = ending.wait_for(|ending| *ending == Ending::Now) => yard.clients.len(),
    };
    if left > 0 {
        tracing::warn!(clients = left, "closing clients that are left");
        let left = yard.clients.stop_all(StopRequest::Now, Instant::now() + LAST_WORDS).await;
        tracing::info!(clients = left, "stopped");
    } else {
        tracing::info!("stopped: every client ended in order");
    }
}

/// What the console can do to pgyard.
struct YardActions {
    yard: Arc<Yard>,
    front: OnceLock<std::sync::Weak<Front>>,
    log: LogFilter,
}

impl ConsoleActions for YardActions {
    fn settings(&self) -> Arc<Settings> {
        self.yard.settings.load_full()
    }

    fn reload(&self) -> BoxFuture<'static, Result<ReloadPlan, String>> {
        let (yard, log) = (self.yard.clone(), self.log.clone());
        let front = self.front.get().and_then(std::sync::Weak::upgrade);
        Box::pin(async move {
            let front = front.ok_or("pgyard is ending")?;
            reload(&yard, &front, &log).await.map_err(|error| error.to_string())
        })
    }

    fn serve_by(&self, database: String, other: Option<String>) -> BoxFuture<'static, Result<(), String>> {
        let (yard, log) = (self.yard.clone(), self.log.clone());
        let front = self.front.get().and_then(std::sync::Weak::upgrade);
        Box::pin(async move {
            let front = front.ok_or("pgyard is ending")?;
            serve_by(&yard, (&front, &log), (&database, other.as_deref())).await.map_err(|error| error.to_string())
        })
    }

    fn shutdown(&self, mode: ShutdownMode) {
        self.yard.end(match mode {
            ShutdownMode::Drain => Ending::Drain,
            ShutdownMode::Now => Ending::Now,
        });
    }
}
