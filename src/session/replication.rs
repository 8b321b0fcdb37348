//! Replication connections: the client and a server connection of its own, on the primary, and every byte between them as it is.
//!
//! Nothing is looked at: walsender commands, base backups and streams in both directions pass as they come, each side at the speed
//! of the other. The server connection is logged in with the client's own start-up parameters, never pooled, and ends with its client.

use super::access::Denied;
use super::exchange::ClientSide;
use crate::auth::ServerCredential;
use crate::cluster::{Host, HostSet, PickRequest, Want, pick};
use crate::config::{REPLICATION_KEYWORD, ReadsOnPrimary};
use crate::database::{ClientEntry, ClientState, Database, Directory, StopRequest};
use crate::metrics::{ByteDirection, LoginFailureReason, PinCause};
use crate::net::scratch::poll_read_with;
use crate::net::{Buffer, Stream};
use crate::pool::HostPlace;
use crate::server::{ConnectError, ServerConnection, connect_with};
use crate::sql::Pins;
use crate::types::SqlState;
use crate::wire::reply::Report;
use crate::wire::startup::StartupMessage;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Bytes moved before other sessions of the thread get their turn.
const TURN_BYTES: usize = 256 * 1024;

/// What a client wants to replicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicationKind {
    /// It is a connection like any other.
    None,
    /// `replication=database`: a walsender that is connected to a database.
    Logical,
    /// `replication=true`: a walsender without one.
    Physical,
}

/// The value of the start-up parameter `replication`.
///
/// # Errors
/// It is neither `database` nor a boolean.
///
/// Spec: PostgreSQL `ProcessStartupPacket` and `parse_bool`.
pub fn replication_kind(message: &StartupMessage) -> Result<ReplicationKind, Report> {
    let Some(value) = message.get("replication") else { return Ok(ReplicationKind::None) };
    let lower = value.to_ascii_lowercase();
    let short_for = |word: &str, least: usize| lower.len() >= least && word.starts_with(&lower);
    if value == "database" {
        Ok(ReplicationKind::Logical)
    } else if short_for("true", 1) || short_for("yes", 1) || short_for("on", 2) || lower == "1" {
        Ok(ReplicationKind::Physical)
    } else if short_for("false", 1) || short_for("no", 1) || short_for("off", 2) || lower == "0" {
        Ok(ReplicationKind::None)
    } else {
        let text = format!("invalid value for parameter \"replication\": \"{value}\"");
        Err(Report::fatal(SqlState::INVALID_PARAMETER_VALUE, text)
            .hint("Valid values are: \"false\", 0, \"true\", 1, \"database\"."))
    }
}

/// The database whose primary serves physical replication. Clients name `replication` where they mean none: then it is the only
/// one that is configured.
pub fn physical_database(directory: &Directory, name: &str) -> Option<Arc<Database>> {
    let upstreams = directory.upstreams();
    if name != REPLICATION_KEYWORD || upstreams.contains_key(name) || upstreams.contains_key("*") {
        return directory.find(name);
    }
    let mut names = upstreams.keys();
    let only = names.next()?;
    if names.next().is_some() { None } else { directory.find(only) }
}

/// A server connection for one replication client.
pub struct Walsender {
    /// The connection.
    pub server: ServerConnection,
    host: Arc<Host>,
    _place: HostPlace,
}

/// Connects a replication client that has logged in to the primary.
///
/// # Errors
/// There is no primary, or it refuses: what the client is told.
pub async fn connect_walsender(
    database: &Arc<Database>,
    message: &StartupMessage,
    credential: &ServerCredential,
) -> Result<Walsender, Denied> {
    let since = Instant::now();
    let limit = database.settings().routing.failover_wait;
    let mut parameters: Vec<(&str, &str)> = message.parameters.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let server_name = database.server_name();
    match parameters.iter_mut().find(|(name, _)| *name == "database") {
        // A name that means no database means none to the server either.
        Some((_, name)) if *name == REPLICATION_KEYWORD => {}
        Some((_, name)) => *name = &server_name,
        None => parameters.push(("database", &server_name)),
    }
    loop {
        let (error, generation) = match reach_primary(database, &parameters, credential).await {
            Ok(walsender) => return Ok(walsender),
            Err(failure) => failure,
        };
        let left = limit.saturating_sub(since.elapsed());
        let Some(generation) = generation.filter(|_| !left.is_zero()) else { return Err(denied(error)) };
        let cluster = database.upstream().cluster.clone();
        let news = cluster.wait_for_change(generation);
        // Changed or not: look again until the time is over.
        let _ = tokio::time::timeout(left.min(Duration::from_millis(250)), news).await;
    }
}

/// What a client is told that gets no walsender.
fn denied(report: Report) -> Denied {
    let full = report.state == SqlState::TOO_MANY_CONNECTIONS;
    (if full { LoginFailureReason::HostFull } else { LoginFailureReason::NotPermitted }, report)
}

/// One attempt; with an error the generation of the fleet if waiting for another one may help.
async fn reach_primary(
    database: &Arc<Database>,
    parameters: &[(&str, &str)],
    credential: &ServerCredential,
) -> Result<Walsender, (Report, Option<u64>)> {
    let upstream = database.upstream();
    let fleet = upstream.cluster.fleet().clone();
    let request = PickRequest {
        max_lag: None,
        want: Want::Primary,
        floor: None,
        excluded: HostSet::NONE,
        reads_on_primary: ReadsOnPrimary::Fallback,
        client_hash: 0,
        crowded: None,
    };
    let index = pick(&fleet, &upstream.balancer(), &request).map_err(|missing| {
        let report =
            Report::fatal(SqlState::CANNOT_CONNECT_NOW, missing.explain(&fleet)).hint("See `SHOW HOSTS` in the console.");
        (report, Some(fleet.generation))
    })?;
    let host = fleet.hosts[index].host.clone();
    let Some(target) = upstream.target(&host) else {
        let text = format!("host {} can't be used: its TLS settings can't be loaded", host.settings.name);
        return Err((Report::fatal(SqlState::CANNOT_CONNECT, text), None));
    };
    let Some(place) = HostPlace::take(&upstream.permits(&host)) else {
        let report =
            Report::fatal(SqlState::TOO_MANY_CONNECTIONS, format!("too many connections to host {}", host.settings.name))
                .hint("Raise max_per_host.");
        return Err((report, None));
    };
    match connect_with(&target, parameters, credential, upstream.keys()).await {
        Ok(mut server) => {
            server.worker = crate::metrics::worker_index().unwrap_or(0);
            Ok(Walsender { server, host, _place: place })
        }
        Err(ConnectError::Refused { state, message, target }) => {
            let report = Report::fatal(state, message).detail(format!("{target} refused the connection."));
            Err((report, (state.class() == *b"57").then_some(fleet.generation)))
        }
        Err(error) => {
            let wait = !error.is_host_well();
            Err((Report::fatal(SqlState::CANNOT_CONNECT, error.to_string()), wait.then_some(fleet.generation)))
        }
    }
}

/// A logged-in replication client.
pub struct ReplicationSession {
    /// The client.
    pub entry: Arc<ClientEntry>,
    /// The database it is counted under.
    pub database: Arc<Database>,
    client: Stream,
    walsender: Walsender,
    to_client: Buffer,
    to_server: Buffer,
    moved: usize,
}

impl ReplicationSession {
    /// A session between a client, whose outbox holds the end of its log-in, and its walsender.
    pub fn new(client: ClientSide, walsender: Walsender, database: Arc<Database>, entry: Arc<ClientEntry>) -> Self {
        let ClientSide { stream, outbox, .. } = client;
        ReplicationSession { entry, database, client: stream, walsender, to_client: outbox, to_server: Buffer::new(), moved: 0 }
    }

    /// Passes bytes on until one side ends or the session is told to. A drain ends it too: those who stream connect again.
    pub async fn run(&mut self) {
        let _pinned = self.database.metrics.pinned(PinCause::Replication).hold();
        self.entry.set_pins(Pins::REPLICATION);
        self.entry.set_state(ClientState::Active);
        self.entry.attach(&self.walsender.server, &self.walsender.host.settings.name.as_str().into());
        let stopped = std::future::poll_fn(|cx| self.poll(cx)).await;
        if stopped {
            Report::fatal(SqlState::ADMIN_SHUTDOWN, "terminating connection due to administrator command")
                .put(self.to_client.writer());
        }
        // The last words of the server, or ours; a client that does not read is not waited for.
        let ReplicationSession { client, to_client, .. } = self;
        let write = std::future::poll_fn(|cx| client.poll_drain(cx, to_client));
        let _ = tokio::time::timeout(Duration::from_secs(1), write).await;
        self.entry.detach();
    }

    /// Ready when the session is over: true when it was told to end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.moved = 0;
        if self.entry.stop_requested(cx) != StopRequest::None {
            return Poll::Ready(true);
        }
        let metrics = self.database.metrics.clone();
        loop {
            let ReplicationSession { client, walsender, to_client, to_server, moved, .. } = self;
            let server = &mut walsender.server.stream;
            let from_server = poll_move(cx, server, client, to_client, |count| {
                *moved += count;
                metrics.bytes(ByteDirection::ClientOut).add(count as u64);
            });
            let from_client = poll_move(cx, client, server, to_server, |count| {
                *moved += count;
                metrics.bytes(ByteDirection::ClientIn).add(count as u64);
            });
            match (from_server, from_client) {
                (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => return Poll::Ready(false),
                (Poll::Pending, Poll::Pending) => return Poll::Pending,
                _ => {}
            }
            if *moved > TURN_BYTES {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}

/// Moves what has come from one side to the other, once what waits there is written. An error is the end of either.
fn poll_move(
    cx: &mut Context<'_>,
    from: &mut Stream,
    to: &mut Stream,
    waiting: &mut Buffer,
    count: impl FnOnce(usize),
) -> Poll<io::Result<()>> {
    if to.poll_drain(cx, waiting)?.is_pending() {
        return Poll::Pending;
    }
    let read = poll_read_with(from, cx, |chunk, cx| {
        if chunk.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        count(chunk.len());
        to.write_or_keep(cx, chunk, waiting)
    });
    read.map(|outcome| outcome.and_then(|written| written))
}

/// What a client is told whose database for physical replication is not known.
pub fn no_physical_database() -> (LoginFailureReason, Report) {
    let report = Report::fatal(SqlState::INVALID_CATALOG_NAME, "which cluster to replicate is not known")
        .hint("Several databases are configured: add one called `replication`, whose hosts are the cluster that replication connections mean.");
    (LoginFailureReason::UnknownDatabase, report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter_is_read_as_postgresql_reads_it() {
        let check = |value: Option<&str>, expect: Option<ReplicationKind>| {
            let parameters = value.map(|value| ("replication".to_owned(), value.to_owned())).into_iter().collect();
            let message = StartupMessage { minor: 0, parameters, protocol_options: Vec::new() };
            assert_eq!(replication_kind(&message).ok(), expect, "{value:?}");
        };
        check(None, Some(ReplicationKind::None));
        for physical in ["true", "t", "TRUE", "yes", "y", "on", "1"] {
            check(Some(physical), Some(ReplicationKind::Physical));
        }
        for none in ["false", "f", "no", "n", "off", "of", "0"] {
            check(Some(none), Some(ReplicationKind::None));
        }
        check(Some("database"), Some(ReplicationKind::Logical));
        for bad in ["", "o", "2", "truer", "Database"] {
            check(Some(bad), None);
        }
    }
}
