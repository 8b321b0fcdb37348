//! Logging a client in: who it is, whether it may, and what a server would tell it first.

use super::access::{Admitted, Denied, Entrance, admit, lookup_database, no_seat};
use super::candidate::{Candidate, candidate};
use super::console_login::console;
use super::exchange::ClientSide;
use super::front::{ConsoleClient, Front, ShardedClient};
use super::replication::{
    ReplicationKind, ReplicationSession, Walsender, connect_walsender, no_physical_database, physical_database, replication_kind,
};
use super::run::Session;
use super::startup::{ClientIdentity, Started, negotiate, start, startup_parameters};
use super::state::SessionState;
use super::welcome::{Welcome, welcome};
use crate::auth::{AuthError, ClientAuthRequest, ClientLogin, ClientLoginStep, ServerCredential, TransportSecurity, message};
use crate::config::{AuthMethod, REPLICATION_KEYWORD};
use crate::database::{ClientEntry, ClientSeat, Database, NewClient, ShardedDatabase};
use crate::metrics::LoginFailureReason;
use crate::net::Stream;
use crate::net::stream::Peer;
use crate::types::SqlState;
use crate::wire::reply::{Report, put_backend_key, put_parameter_status, put_ready};
use crate::wire::startup::StartupMessage;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The console's database.
pub const CONSOLE_DATABASE: &str = "pgyard";
/// How long the first client of a database waits for its catalogue; without one its reads go to the primary.
const CATALOGUE_WAIT: std::time::Duration = std::time::Duration::from_millis(500);

/// How a log-in ended.
pub enum Login {
    /// A session, with its place among the database's clients.
    Session(Box<Session>, ClientSeat),
    /// A replication connection, with its place.
    Replication(Box<ReplicationSession>, ClientSeat),
    /// A console session.
    Console(ConsoleClient),
    /// A session of a sharded database, with its place.
    Sharded(Box<ShardedClient>, ClientSeat),
    /// It was a cancel request.
    Nothing,
}

/// A log-in that failed; the client has been told.
#[derive(Debug)]
pub struct LoginEnd {
    /// For the metric.
    pub reason: LoginFailureReason,
    /// For the log.
    pub text: String,
}

impl LoginEnd {
    /// The client went away.
    pub fn gone(error: io::Error) -> Self {
        LoginEnd { reason: LoginFailureReason::ClientGone, text: error.to_string() }
    }

    /// Tells the client.
    pub async fn told(stream: &mut Stream, reason: LoginFailureReason, report: Report) -> Self {
        let mut out = Vec::new();
        report.put(&mut out);
        // Whether it reads it or not, the connection ends here.
        let _ = stream.write_all(&out).await;
        let _ = stream.flush().await;
        LoginEnd { reason, text: report.message }
    }
}

/// A client that has said what it wants.
pub(super) struct Arrival {
    pub(super) stream: Stream,
    pub(super) message: StartupMessage,
    pub(super) security: TransportSecurity,
    pub(super) identity: ClientIdentity,
    pub(super) peer: Peer,
    pub(super) user: String,
    /// The database that it names.
    pub(super) name: String,
    pub(super) kind: ReplicationKind,
}

impl Arrival {
    pub(super) fn entrance(&self) -> Entrance<'_> {
        Entrance {
            user: &self.user,
            database: &self.name,
            physical: self.kind == ReplicationKind::Physical,
            peer: &self.peer,
            security: &self.security,
            identity: &self.identity,
        }
    }

    /// Tells the client why it may not come in.
    pub(super) async fn refuse(&mut self, (reason, report): Denied) -> LoginEnd {
        LoginEnd::told(&mut self.stream, reason, report).await
    }
}

/// Logs one connection in.
///
/// # Errors
/// See [`LoginEnd`].
pub async fn log_in(front: Arc<Front>, stream: Stream, peer: Peer) -> Result<Login, LoginEnd> {
    let Some(Started { mut stream, message, security, identity }) = start(&front, stream).await? else {
        return Ok(Login::Nothing);
    };
    let mut out = Vec::new();
    negotiate(&message, &mut out);
    stream.write_all(&out).await.map_err(LoginEnd::gone)?;
    let kind = match check_start(&front, &message, &security, &peer) {
        Ok(kind) => kind,
        Err((reason, report)) => return Err(LoginEnd::told(&mut stream, reason, report).await),
    };
    let user = message.get("user").unwrap_or_default().to_owned();
    let name = message.get("database").filter(|name| !name.is_empty()).unwrap_or(&user).to_owned();
    let mut arrival = Arrival { stream, message, security, identity, peer, user, name, kind };
    if arrival.name == CONSOLE_DATABASE && kind == ReplicationKind::None {
        return console(&front, arrival).await.map(Login::Console);
    }
    let settings = front.settings.load_full();
    let admitted = match admit(&settings, &arrival.entrance()).await {
        Ok(admitted) => admitted,
        Err(denied) => return Err(arrival.refuse(denied).await),
    };
    if !admitted.proven
        && let Err(denied) = front.failures_of(&arrival)
    {
        return Err(arrival.refuse(denied).await);
    }
    if let Err(denied) = front.count_attempt(&arrival) {
        return Err(arrival.refuse(denied).await);
    }
    let sharded = front.directory.sharded(&arrival.name).filter(|_| kind == ReplicationKind::None);
    // The first shard's servers say who a client of a sharded database is.
    let found = sharded.as_ref().map_or_else(|| find_database(&front, &arrival), |sharded| Ok(sharded.first().clone()));
    let database = match found {
        Ok(database) => database,
        Err(denied) => return Err(arrival.refuse(denied).await),
    };
    let outcome = match kind {
        ReplicationKind::None => {
            session(&front, &mut arrival, &database, admitted).await.map(|found| Either::Session(Box::new(found)))
        }
        _ => replication(&front, &mut arrival, &database, admitted).await.map(|found| Either::Walsender(Box::new(found))),
    };
    match outcome {
        Ok(Either::Session(found)) => {
            let (accepted, seat) = *found;
            match sharded {
                Some(sharded) => Ok(Login::Sharded(Box::new(open_sharded(&front, arrival, sharded, accepted)), seat)),
                None => Ok(Login::Session(Box::new(open_session(&front, arrival, database, accepted)), seat)),
            }
        }
        Ok(Either::Walsender(found)) => {
            let (walsender, seat) = *found;
            Ok(Login::Replication(Box::new(open_replication(&front, arrival, database, walsender)), seat))
        }
        Err(end) => {
            front.directory.forget_unused(&database.name);
            Err(end)
        }
    }
}

/// What a log-in led to.
enum Either {
    Session(Box<(Accepted, ClientSeat)>),
    Walsender(Box<(Walsender, ClientSeat)>),
}

fn find_database(front: &Front, arrival: &Arrival) -> Result<Arc<Database>, Denied> {
    let name = &arrival.name;
    let found = match arrival.kind {
        _ if name == CONSOLE_DATABASE || front.directory.is_shard(name) => None,
        ReplicationKind::Physical => physical_database(&front.directory, name),
        ReplicationKind::None | ReplicationKind::Logical => front.directory.find(name),
    };
    found.ok_or_else(|| match name.as_str() {
        REPLICATION_KEYWORD if arrival.kind == ReplicationKind::Physical => no_physical_database(),
        name => {
            let report = Report::fatal(SqlState::INVALID_CATALOG_NAME, format!("database \"{name}\" does not exist"))
                .hint("pgyard's configuration lists neither it nor \"*\" under databases.");
            (LoginFailureReason::UnknownDatabase, report)
        }
    })
}

fn enter(front: &Front, arrival: &Arrival, database: &Arc<str>) -> Arc<ClientEntry> {
    front.clients.enter(NewClient {
        database: database.clone(),
        user: arrival.user.as_str().into(),
        peer: arrival.peer,
        tls: arrival.stream.is_tls(),
        application_name: arrival.message.get("application_name").unwrap_or_default().into(),
        key_len: if arrival.message.minor >= 2 { 32 } else { 4 },
        is_leg: false,
    })
}

fn open_session(front: &Front, arrival: Arrival, database: Arc<Database>, accepted: Accepted) -> Session {
    let (startup, credential, Welcome { reported, told, defaults }) = accepted;
    let role = database.role(&arrival.user, credential);
    let settings = database.settings();
    let own = settings.users.iter().find(|known| known.name == arrival.user);
    let consistency = own.and_then(|user| user.consistency).unwrap_or(settings.routing.consistency);
    let entry = enter(front, &arrival, &database.name);
    let client = greeted(arrival.stream, &reported, &entry);
    let mut state = SessionState::new(startup, database.parameters.clone(), consistency, settings.routing.split);
    (state.told, state.defaults, state.process) = (Some(told), defaults, entry.process);
    state.told_mark = reported.mark();
    drop(settings);
    Session::new(client, (database, role), entry, state, (front.limits.clone(), front.placement.clone()))
}

/// The client's side of a session, with what a server says first in its outbox.
fn greeted(stream: Stream, reported: &crate::server::ReportedParameters, entry: &ClientEntry) -> ClientSide {
    let mut client = ClientSide::new(stream);
    let out = client.outbox.writer();
    reported.iter().for_each(|(name, value)| put_parameter_status(out, name, value));
    put_backend_key(out, entry.process, &entry.key);
    put_ready(out, b'I');
    client
}

fn open_sharded(front: &Arc<Front>, arrival: Arrival, database: Arc<ShardedDatabase>, accepted: Accepted) -> ShardedClient {
    let (startup, credential, Welcome { reported, .. }) = accepted;
    // As the client named it, whoever serves it now.
    let entry = enter(front, &arrival, &arrival.name.as_str().into());
    let client = greeted(arrival.stream, &reported, &entry);
    ShardedClient { client, database, entry, credential, startup, reported, front: front.clone() }
}

fn open_replication(front: &Front, arrival: Arrival, database: Arc<Database>, walsender: Walsender) -> ReplicationSession {
    let entry = enter(front, &arrival, &database.name);
    let mut client = ClientSide::new(arrival.stream);
    let out = client.outbox.writer();
    out.extend_from_slice(&message::authentication_ok());
    walsender.server.incoming.reported.iter().for_each(|(name, value)| put_parameter_status(out, name, value));
    put_backend_key(out, entry.process, &entry.key);
    put_ready(out, b'I');
    ReplicationSession::new(client, walsender, database, entry)
}

/// What can be said without looking anything up.
fn check_start(
    front: &Front,
    message: &StartupMessage,
    security: &TransportSecurity,
    peer: &Peer,
) -> Result<ReplicationKind, Denied> {
    if message.get("user").is_none_or(str::is_empty) {
        let report = Report::fatal(SqlState::INVALID_AUTHORIZATION, "no PostgreSQL user name specified in startup packet");
        return Err((LoginFailureReason::Protocol, report));
    }
    let required = front.tls.load().as_ref().is_some_and(|tls| tls.required());
    if required && *security == TransportSecurity::Plaintext && peer.ip().is_some() {
        let report = Report::fatal(SqlState::INVALID_AUTHORIZATION, "this server accepts only encrypted connections")
            .hint("Connect with sslmode=require, or set tls.required to false.");
        return Err((LoginFailureReason::TlsRequired, report));
    }
    replication_kind(message).map_err(|report| (LoginFailureReason::Protocol, report))
}

type Accepted = (crate::server::ParameterSet, ServerCredential, Welcome);

/// Authenticates the client and finds out what a server would report to it.
async fn session(
    front: &Arc<Front>,
    arrival: &mut Arrival,
    database: &Arc<Database>,
    admitted: Admitted,
) -> Result<(Accepted, ClientSeat), LoginEnd> {
    let startup = match startup_parameters(&arrival.message) {
        Ok(startup) => startup,
        Err(report) => return Err(arrival.refuse((LoginFailureReason::Protocol, report)).await),
    };
    let (credential, seat) = prove(front, arrival, database, admitted).await?;
    database.catalogue_loaded(CATALOGUE_WAIT).await;
    match welcome(database, &arrival.user, credential.clone(), &startup).await {
        Ok(welcome) => {
            arrival.stream.write_all(&message::authentication_ok()).await.map_err(LoginEnd::gone)?;
            Ok(((startup, credential, welcome), seat))
        }
        Err(report) => Err(arrival.refuse((LoginFailureReason::Lookup, report)).await),
    }
}

/// Authenticates a replication client and connects it to the primary.
async fn replication(
    front: &Arc<Front>,
    arrival: &mut Arrival,
    database: &Arc<Database>,
    admitted: Admitted,
) -> Result<(Walsender, ClientSeat), LoginEnd> {
    let (credential, seat) = prove(front, arrival, database, admitted).await?;
    match connect_walsender(database, &arrival.message, &credential).await {
        Ok(walsender) => Ok((walsender, seat)),
        Err(denied) => Err(arrival.refuse(denied).await),
    }
}

/// Lets the client prove who it is, and looks whether it may come in; with what servers are logged in to on its behalf, and its place
/// among the database's clients.
async fn prove(
    front: &Arc<Front>,
    arrival: &mut Arrival,
    database: &Arc<Database>,
    admitted: Admitted,
) -> Result<(ServerCredential, ClientSeat), LoginEnd> {
    let user = arrival.user.clone();
    let lookup_name = lookup_database(arrival.kind == ReplicationKind::Physical, database.server_name());
    let candidate = match candidate(database, &user, admitted, &lookup_name).await {
        Ok(candidate) => candidate,
        Err(denied) => return Err(arrival.refuse(denied).await),
    };
    let (barred, looked_up, server_password) = (candidate.barred.clone(), candidate.looked_up, candidate.server_password.clone());
    let proven = match authenticate(front, arrival, candidate).await {
        Ok(credential) => credential,
        Err(end) => {
            if looked_up && end.reason == LoginFailureReason::WrongPassword {
                // The password may have been changed: the next try sees the role as it is now. An error says nothing new.
                let _ = database.upstream().cluster.lookup().find_anew(&user, &lookup_name).await;
            }
            return Err(end);
        }
    };
    if let Some(report) = barred {
        return Err(arrival.refuse((LoginFailureReason::NotPermitted, report)).await);
    }
    let seat = database.take_seat(&user).map_err(|limit| no_seat(limit, &user, &database.name));
    match seat.and_then(|seat| front.count_login(&user).map(|()| seat)) {
        Ok(seat) => Ok((server_password.map_or(proven, ServerCredential::Password), seat)),
        Err(denied) => Err(arrival.refuse(denied).await),
    }
}

/// Lets the client prove who it is, and notes whether it could.
pub(super) async fn authenticate(
    front: &Front,
    arrival: &mut Arrival,
    candidate: Candidate,
) -> Result<ServerCredential, LoginEnd> {
    let known = candidate.secret.is_some() || candidate.method == AuthMethod::Trust;
    let asked = candidate.method != AuthMethod::Trust;
    let security = arrival.security.clone();
    let request = ClientAuthRequest { method: candidate.method, secret: candidate.secret, security, user: candidate.user };
    let (mut login, mut step) = ClientLogin::new(request, front.keys.clone());
    let stream = &mut arrival.stream;
    loop {
        step = match step {
            ClientLoginStep::Send(bytes) => {
                stream.write_all(&bytes).await.map_err(LoginEnd::gone)?;
                stream.flush().await.map_err(LoginEnd::gone)?;
                let body = read_password(stream).await?;
                login.receive(&body)
            }
            ClientLoginStep::Derive(request) => {
                // The semaphore is never closed.
                let _place = front.deriving.acquire().await;
                login.derived(crate::server::login::derive(request).await)
            }
            ClientLoginStep::Accepted { credential, final_message } => {
                stream.write_all(&final_message.unwrap_or_default()).await.map_err(LoginEnd::gone)?;
                if asked {
                    front.note_login(arrival, true);
                }
                return Ok(credential);
            }
            ClientLoginStep::Refused(error) => {
                let end = refused(stream, &error, known).await;
                if matches!(error, AuthError::PasswordFailed { .. }) {
                    front.note_login(arrival, false);
                }
                return Err(end);
            }
        };
    }
}

async fn refused(stream: &mut Stream, error: &AuthError, known: bool) -> LoginEnd {
    let reason = match error {
        AuthError::PasswordFailed { .. } if !known => LoginFailureReason::UnknownUser,
        AuthError::PasswordFailed { .. } | AuthError::EmptyPassword => LoginFailureReason::WrongPassword,
        AuthError::PlainWithoutTls => LoginFailureReason::TlsRequired,
        _ => LoginFailureReason::Protocol,
    };
    let mut report = Report::fatal(error.sqlstate(), error.to_string());
    report.detail = error.detail().map(|detail| detail.to_string().into_boxed_str());
    LoginEnd::told(stream, reason, report).await
}

async fn read_password(stream: &mut Stream) -> Result<Vec<u8>, LoginEnd> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).await.map_err(LoginEnd::gone)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if head[0] != b'p' || !(4..=message::MAX_PASSWORD_BODY + 4).contains(&length) {
        let text = match head[0] {
            b'p' => "invalid password packet size".to_owned(),
            tag => format!("expected password response, got message type {tag}"),
        };
        let report = Report::fatal(SqlState::PROTOCOL_VIOLATION, text);
        return Err(LoginEnd::told(stream, LoginFailureReason::Protocol, report).await);
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).await.map_err(LoginEnd::gone)?;
    Ok(body)
}
