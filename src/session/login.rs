//! Logging a client in: who it is, whether it may, and what a server would tell it first.

use super::exchange::ClientSide;
use super::front::{ConsoleClient, Front};
use super::run::Session;
use super::startup::{Started, negotiate, start, startup_parameters};
use super::state::SessionState;
use super::welcome::welcome;
use crate::auth::{
    AuthError, ClientAuthRequest, ClientLogin, ClientLoginStep, ServerCredential, StoredSecret, TransportSecurity, message,
};
use crate::cluster::LookupError;
use crate::config::{AuthMethod, DatabaseSettings};
use crate::database::{Database, NewClient};
use crate::metrics::LoginFailureReason;
use crate::net::stream::Peer;
use crate::net::{Buffer, Stream};
use crate::types::{Secret, SqlState};
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
    /// A session.
    Session(Box<Session>),
    /// A console session.
    Console(ConsoleClient),
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

/// Who wants in, and what is known of the role.
struct Candidate {
    user: String,
    method: AuthMethod,
    secret: Option<StoredSecret>,
    server_password: Option<Secret>,
    /// Why it may not come in although it proves who it is.
    barred: Option<Report>,
    looked_up: bool,
}

/// Logs one connection in.
///
/// # Errors
/// See [`LoginEnd`].
pub async fn log_in(front: Arc<Front>, stream: Stream, peer: Peer) -> Result<Login, LoginEnd> {
    let Some(Started { mut stream, message, security }) = start(&front, stream).await? else { return Ok(Login::Nothing) };
    let mut out = Vec::new();
    negotiate(&message, &mut out);
    stream.write_all(&out).await.map_err(LoginEnd::gone)?;
    match check_start(&front, &message, &security, &peer) {
        Ok(()) => {}
        Err((reason, report)) => return Err(LoginEnd::told(&mut stream, reason, report).await),
    }
    let user = message.get("user").unwrap_or_default().to_owned();
    let name = message.get("database").filter(|name| !name.is_empty()).unwrap_or(&user).to_owned();
    if name == CONSOLE_DATABASE {
        return console(&front, stream, &message, security, peer).await.map(Login::Console);
    }
    let Some(database) = front.directory.find(&name) else {
        let report = Report::fatal(SqlState::INVALID_CATALOG_NAME, format!("database \"{name}\" does not exist"))
            .hint("pgyard's configuration lists neither it nor \"*\" under databases.");
        return Err(LoginEnd::told(&mut stream, LoginFailureReason::UnknownDatabase, report).await);
    };
    let outcome = session(&front, &mut stream, &message, &database, security).await;
    let (startup, credential, reported) = match outcome {
        Ok(accepted) => accepted,
        Err(end) => {
            front.directory.forget_unused(&name);
            return Err(end);
        }
    };
    let role = database.role(&user, credential);
    let settings = database.settings();
    let own = settings.users.iter().find(|known| known.name == user);
    let consistency = own.and_then(|user| user.consistency).unwrap_or(settings.routing.consistency);
    let entry = front.clients.enter(NewClient {
        database: database.name.clone(),
        user: user.as_str().into(),
        peer,
        tls: stream.is_tls(),
        application_name: message.get("application_name").unwrap_or_default().into(),
        key_len: if message.minor >= 2 { 32 } else { 4 },
    });
    let mut client = ClientSide { stream, inbox: Buffer::new(), outbox: Buffer::new(), ended: false };
    let out = client.outbox.writer();
    reported.iter().for_each(|(name, value)| put_parameter_status(out, name, value));
    put_backend_key(out, entry.process, &entry.key);
    put_ready(out, b'I');
    let state = SessionState::new(startup, database.parameters.clone(), consistency, settings.routing.split);
    drop(settings);
    let session = Session::new(client, (database, role), entry, state, front.limits.clone());
    Ok(Login::Session(Box::new(session)))
}

/// What can be said without looking anything up.
fn check_start(
    front: &Front,
    message: &StartupMessage,
    security: &TransportSecurity,
    peer: &Peer,
) -> Result<(), (LoginFailureReason, Report)> {
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
    if message.get("replication").is_some_and(|value| !matches!(value, "" | "false" | "off" | "0" | "no")) {
        let report = Report::fatal(SqlState::FEATURE_NOT_SUPPORTED, "pgyard does not relay replication connections")
            .hint("Connect to the primary itself.");
        return Err((LoginFailureReason::NotPermitted, report));
    }
    Ok(())
}

type Accepted = (crate::server::ParameterSet, ServerCredential, crate::server::ReportedParameters);

/// Authenticates the client and finds out what a server would report to it.
async fn session(
    front: &Arc<Front>,
    stream: &mut Stream,
    message: &StartupMessage,
    database: &Arc<Database>,
    security: TransportSecurity,
) -> Result<Accepted, LoginEnd> {
    let user = message.get("user").unwrap_or_default();
    let startup = match startup_parameters(message) {
        Ok(startup) => startup,
        Err(report) => return Err(LoginEnd::told(stream, LoginFailureReason::Protocol, report).await),
    };
    let candidate = match candidate(database, user).await {
        Ok(candidate) => candidate,
        Err((reason, report)) => return Err(LoginEnd::told(stream, reason, report).await),
    };
    let limit = database.settings().users.iter().find(|known| known.name == user).map_or(0, |known| known.max_clients);
    let (barred, looked_up, server_password) = (candidate.barred.clone(), candidate.looked_up, candidate.server_password.clone());
    let proven = match authenticate(front, stream, candidate, security).await {
        Ok(credential) => credential,
        Err(end) => {
            if looked_up && end.reason == LoginFailureReason::WrongPassword {
                // The password may have been changed: the next try sees the role as it is now. An error says nothing new.
                let _ = database.upstream().cluster.lookup().find_anew(user, &database.server_name()).await;
            }
            return Err(end);
        }
    };
    if let Some(report) = barred {
        return Err(LoginEnd::told(stream, LoginFailureReason::NotPermitted, report).await);
    }
    if limit > 0
        && front.clients.all().iter().filter(|entry| &*entry.user == user && entry.database == database.name).count() >= limit
    {
        let report = Report::fatal(SqlState::TOO_MANY_CONNECTIONS, format!("too many connections for role \"{user}\""))
            .hint("Raise max_clients of this user.");
        return Err(LoginEnd::told(stream, LoginFailureReason::TooManyClients, report).await);
    }
    let credential = server_password.map_or(proven, ServerCredential::Password);
    database.catalogue_loaded(CATALOGUE_WAIT).await;
    match welcome(database, user, credential.clone(), &startup).await {
        Ok(reported) => {
            stream.write_all(&message::authentication_ok()).await.map_err(LoginEnd::gone)?;
            Ok((startup, credential, reported))
        }
        Err(report) => Err(LoginEnd::told(stream, LoginFailureReason::Lookup, report).await),
    }
}

/// What is known of a role: from the configuration, else looked up.
async fn candidate(database: &Database, user: &str) -> Result<Candidate, (LoginFailureReason, Report)> {
    let settings: Arc<DatabaseSettings> = database.settings().clone();
    let method = settings.auth.method;
    let own = settings.users.iter().find(|known| known.name == user);
    let server_password = own.and_then(|known| known.server_password.clone());
    let mut candidate =
        Candidate { user: user.to_owned(), method, secret: None, server_password, barred: None, looked_up: false };
    if let Some(secret) = own.and_then(|known| known.secret.as_ref()) {
        let parsed = StoredSecret::parse(secret).map_err(|error| {
            let text = format!("the configured password of \"{user}\" can't be used: {error}");
            (LoginFailureReason::Lookup, Report::fatal(SqlState::INVALID_AUTHORIZATION, text))
        })?;
        candidate.secret = Some(parsed);
        return Ok(candidate);
    }
    if method == AuthMethod::Trust || settings.auth.lookup_query.is_none() {
        return Ok(candidate);
    }
    let server_name = database.server_name();
    let found = database.upstream().cluster.lookup().find(user, &server_name).await.map_err(|error| lookup_report(&error))?;
    candidate.looked_up = true;
    let Some(role) = found else { return Ok(candidate) };
    if !role.expired {
        candidate.secret = role.verifier.as_ref().and_then(|verifier| StoredSecret::parse(verifier).ok());
    }
    candidate.barred = if !role.may_log_in {
        Some(Report::fatal(SqlState::INVALID_AUTHORIZATION, format!("role \"{user}\" is not permitted to log in")))
    } else if !role.may_connect {
        let text = format!("permission denied for database \"{server_name}\"");
        Some(Report::fatal(SqlState::INSUFFICIENT_PRIVILEGE, text).detail("User does not have CONNECT privilege."))
    } else {
        None
    };
    Ok(candidate)
}

fn lookup_report(error: &LookupError) -> (LoginFailureReason, Report) {
    tracing::warn!(%error, "a role could not be looked up");
    let report = match error {
        LookupError::NoSuchDatabase(text) => {
            return (LoginFailureReason::UnknownDatabase, Report::fatal(SqlState::INVALID_CATALOG_NAME, text.clone()));
        }
        LookupError::Off | LookupError::PermissionDenied { .. } | LookupError::WrongShape(_) => {
            Report::fatal(SqlState::INVALID_AUTHORIZATION, "the role could not be looked up")
                .hint("pgyard's log says why; see lookup_query in its documentation.")
        }
        LookupError::Unavailable(_) | LookupError::Busy => {
            Report::fatal(SqlState::CANNOT_CONNECT_NOW, "the role could not be looked up: no server answers")
                .hint("See `SHOW HOSTS` in the console.")
        }
    };
    (LoginFailureReason::Lookup, report)
}

/// Lets the client prove who it is.
async fn authenticate(
    front: &Front,
    stream: &mut Stream,
    candidate: Candidate,
    security: TransportSecurity,
) -> Result<ServerCredential, LoginEnd> {
    let known = candidate.secret.is_some() || candidate.method == AuthMethod::Trust;
    let request = ClientAuthRequest { method: candidate.method, secret: candidate.secret, security, user: candidate.user };
    let (mut login, mut step) = ClientLogin::new(request, front.keys.clone());
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
                return Ok(credential);
            }
            ClientLoginStep::Refused(error) => return Err(refused(stream, &error, known).await),
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
    report.detail = error.detail().map(|detail| detail.to_string());
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

/// Lets a console user in.
async fn console(
    front: &Front,
    mut stream: Stream,
    message: &StartupMessage,
    security: TransportSecurity,
    peer: Peer,
) -> Result<ConsoleClient, LoginEnd> {
    let user = message.get("user").unwrap_or_default().to_owned();
    let admin = front.admin.load_full();
    let open = admin.users.is_empty();
    if open && !(peer.is_local() && user == CONSOLE_DATABASE) {
        let report = Report::fatal(SqlState::INVALID_AUTHORIZATION, "the console is not open to you").hint(
            "Without users under admin.users it serves the user pgyard from this machine only; with them, each by its password.",
        );
        return Err(LoginEnd::told(&mut stream, LoginFailureReason::NotPermitted, report).await);
    }
    let secret = admin.users.iter().find(|known| known.name == user).and_then(|known| StoredSecret::parse(&known.secret).ok());
    let method = if open { AuthMethod::Trust } else { AuthMethod::Auto };
    let candidate = Candidate { user: user.clone(), method, secret, server_password: None, barred: None, looked_up: false };
    authenticate(front, &mut stream, candidate, security).await?;
    let mut client = ClientSide { stream, inbox: Buffer::new(), outbox: Buffer::new(), ended: false };
    let out = client.outbox.writer();
    out.extend_from_slice(&message::authentication_ok());
    let version = format!("15.0 (pgyard {})", env!("CARGO_PKG_VERSION"));
    let reported = [
        ("server_version", version.as_str()),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("standard_conforming_strings", "on"),
        ("integer_datetimes", "on"),
        ("TimeZone", "UTC"),
    ];
    reported.iter().for_each(|(name, value)| put_parameter_status(out, name, value));
    put_backend_key(out, 0, &[0; 4]);
    put_ready(out, b'I');
    Ok(ConsoleClient { client, user, peer })
}
