//! Opening a connection to a server: socket, TLS, start-up packet, authentication, and what the server says of itself.

use super::{ReportedParameters, ServerConnection, ServerKey, ServerTarget};
use crate::auth::{AuthError, KeyCache, ServerCredential, ServerLogin, ServerLoginStep, TransportSecurity};
use crate::config::ServerTlsMode;
use crate::net::socket::Socket;
use crate::net::tls::{ServerTls, TlsError};
use crate::net::{Stream, open};
use crate::types::SqlState;
use crate::wire::error_response::ErrorFields;
use crate::wire::{Cursor, startup};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Largest message that a server may send before its first ReadyForQuery. Bytes.
const LOGIN_MESSAGE_MAX: usize = 64 * 1024;

/// Why a connection to a server could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The socket failed or ended.
    #[error("could not connect to {target}: {source}")]
    Socket {
        /// Which server.
        target: String,
        /// What failed.
        source: io::Error,
    },
    /// It took longer than `connect_timeout`.
    #[error("could not connect to {0} within connect_timeout")]
    Timeout(String),
    /// The TLS handshake failed.
    #[error("could not speak TLS with {target}: {source}")]
    Tls {
        /// Which server.
        target: String,
        /// What failed.
        source: TlsError,
    },
    /// The server does not do TLS and the settings demand it.
    #[error("{0} does not support TLS, which this host's sslmode demands")]
    TlsRefused(String),
    /// The server said no.
    #[error("{target} refused the connection: {message}")]
    Refused {
        /// Which server.
        target: String,
        /// Its SQLSTATE.
        state: SqlState,
        /// Its message.
        message: String,
    },
    /// The log-in failed on our side of it.
    #[error("could not log in to {target}: {source}")]
    Auth {
        /// Which server.
        target: String,
        /// What failed.
        source: AuthError,
    },
    /// It is another server than the one that is probed.
    #[error("{0} leads to another server than its probe's: do several stand behind that name?")]
    Stranger(String),
    /// The server broke the protocol.
    #[error("{0} sent something that is not PostgreSQL's protocol")]
    Protocol(String),
}

impl ConnectError {
    /// The server is there and well, but takes no more connections.
    pub fn is_server_full(&self) -> bool {
        matches!(self, ConnectError::Refused { state: SqlState::TOO_MANY_CONNECTIONS, .. })
    }

    /// The server is there and answers: the circuit stays closed (28xxx, 3D000, 53300, our own log-in failures).
    pub fn is_host_well(&self) -> bool {
        match self {
            ConnectError::Refused { state, .. } => !matches!(&state.class(), b"57" | b"58" | b"XX"),
            ConnectError::Auth { .. } | ConnectError::TlsRefused(_) | ConnectError::Tls { .. } => true,
            _ => false,
        }
    }

    /// The role or database is not there (yet): on a replica it may not have been replayed.
    pub fn is_about_role(&self) -> bool {
        match self {
            ConnectError::Refused { state, .. } => state.class() == *b"28" || *state == SqlState::INVALID_CATALOG_NAME,
            ConnectError::Auth { .. } => true,
            _ => false,
        }
    }
}

/// Connects and logs in, within the target's time-out. The caller sets the connection's worker.
///
/// # Errors
/// See [`ConnectError`].
///
/// # Cancel safety
/// Dropping the future closes the socket.
pub async fn connect(
    target: &Arc<ServerTarget>,
    database: &str,
    role: &str,
    credential: &ServerCredential,
    keys: &Arc<KeyCache>,
) -> Result<ServerConnection, ConnectError> {
    let parameters = [("user", role), ("database", database), ("options", target.options.as_str())];
    let given = if target.options.is_empty() { &parameters[..2] } else { &parameters[..] };
    connect_with(target, given, credential, keys).await
}

/// As [`connect`], with a start-up packet of one's own: `parameters` name the user.
///
/// # Errors
/// See [`ConnectError`].
///
/// # Cancel safety
/// Dropping the future closes the socket.
pub async fn connect_with(
    target: &Arc<ServerTarget>,
    parameters: &[(&str, &str)],
    credential: &ServerCredential,
    keys: &Arc<KeyCache>,
) -> Result<ServerConnection, ConnectError> {
    let attempt = async {
        let first = log_in(target, open(target).await?, parameters, credential, keys).await;
        match first {
            // As libpq's `allow`: a server that lets nobody in without TLS says so when it has seen who wants in.
            Err(ConnectError::Refused { state, .. })
                if state.class() == *b"28" && target.tls.mode() == ServerTlsMode::Allow && !target.is_unix() =>
            {
                match shake_hands(target).await {
                    Ok(opened) => log_in(target, opened, parameters, credential, keys).await,
                    Err(_) => first,
                }
            }
            outcome => outcome,
        }
    };
    match tokio::time::timeout(target.connect_timeout, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ConnectError::Timeout(target.to_string())),
    }
}

/// Opens a socket to `target`, with TLS where its settings say so.
///
/// # Errors
/// The socket or TLS fails, or the server does not do TLS and must.
pub async fn open(target: &ServerTarget) -> Result<(Stream, TransportSecurity), ConnectError> {
    if !target.is_unix() && !matches!(target.tls.mode(), ServerTlsMode::Disable | ServerTlsMode::Allow) {
        return shake_hands(target).await;
    }
    let failed = |source| ConnectError::Socket { target: target.to_string(), source };
    let socket = open::connect(&target.address, target.port, target.keepalive).await.map_err(failed)?;
    let security = if target.is_unix() { TransportSecurity::UnixSocket } else { TransportSecurity::Plaintext };
    Ok((Stream::Plain(socket), security))
}

/// Opens a socket and asks for TLS.
async fn shake_hands(target: &ServerTarget) -> Result<(Stream, TransportSecurity), ConnectError> {
    let failed = |source| ConnectError::Socket { target: target.to_string(), source };
    let mut socket = open::connect(&target.address, target.port, target.keepalive).await.map_err(failed)?;
    if !ask_for_tls(&mut socket).await.map_err(failed)? {
        return match target.tls.mode() {
            ServerTlsMode::Prefer => Ok((Stream::Plain(socket), TransportSecurity::Plaintext)),
            _ => Err(ConnectError::TlsRefused(target.to_string())),
        };
    }
    let tls = |source| ConnectError::Tls { target: target.to_string(), source };
    let name = ServerTls::server_name(&target.address).map_err(tls)?;
    let Some(connector) = target.tls.connector() else { return Err(ConnectError::TlsRefused(target.to_string())) };
    let shaken = connector.connect(name, socket).await;
    let stream = shaken.map_err(|source| tls(TlsError::from_handshake(&target.address, source)))?;
    let endpoint_hash = ServerTls::endpoint_hash(stream.get_ref().1);
    Ok((Stream::ServerTls(Box::new(stream)), TransportSecurity::Tls { endpoint_hash }))
}

/// Sends an SSLRequest. Exactly one byte is read: what else came with it would be plain text before TLS, and the handshake
/// then fails on it.
async fn ask_for_tls(socket: &mut Socket) -> io::Result<bool> {
    let mut request = Vec::new();
    startup::put_tls_request(&mut request);
    socket.write_all(&request).await?;
    match socket.read_u8().await? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        // A very old server answers with an ErrorResponse.
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the answer to SSLRequest is neither S nor N")),
    }
}

async fn log_in(
    target: &Arc<ServerTarget>,
    (mut stream, security): (Stream, TransportSecurity),
    parameters: &[(&str, &str)],
    credential: &ServerCredential,
    keys: &Arc<KeyCache>,
) -> Result<ServerConnection, ConnectError> {
    let failed = |source| ConnectError::Socket { target: target.to_string(), source };
    let auth = |source| ConnectError::Auth { target: target.to_string(), source };
    let role = parameters.iter().find(|(name, _)| *name == "user").map_or("", |(_, role)| role);
    let mut packet = Vec::new();
    startup::put_startup(&mut packet, parameters);
    stream.write_all(&packet).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    let mut login = ServerLogin::new(role.to_owned(), credential.clone(), security, keys.clone());
    let mut key = ServerKey::default();
    let mut reported = ReportedParameters::default();
    loop {
        let (tag, body) = read_message(&mut stream, target).await?;
        match tag {
            b'R' => {
                let mut step = login.receive(&body);
                if let ServerLoginStep::Derive(request) = step {
                    step = login.derived(derive(request).await);
                }
                match step {
                    ServerLoginStep::Send(bytes) => {
                        stream.write_all(&bytes).await.map_err(failed)?;
                        stream.flush().await.map_err(failed)?;
                    }
                    ServerLoginStep::Fail(error) => return Err(auth(error)),
                    ServerLoginStep::Continue | ServerLoginStep::Done | ServerLoginStep::Derive(_) => {}
                }
            }
            b'K' => {
                let mut cursor = Cursor::new(&body);
                let process = cursor.int32().map_err(|_| ConnectError::Protocol(target.to_string()))?;
                key = ServerKey { process, key: cursor.rest().into() };
            }
            b'S' => _ = note_parameter(&body, &mut reported),
            b'E' => {
                let fields = ErrorFields::read(&body);
                let (state, message) = (fields.state, fields.text());
                return Err(ConnectError::Refused { target: target.to_string(), state, message });
            }
            b'N' | b'v' => {}
            b'Z' => return Ok(ServerConnection::new(stream, target.clone(), key, reported, 0)),
            _ => return Err(ConnectError::Protocol(target.to_string())),
        }
    }
}

/// Whether the server begins a session with this role: it asks for a password, or lets it in, or refuses for a reason that lies
/// with the role. One that starts, stops or recovers says so before all that.
///
/// # Cancel safety
/// Dropping the future closes the socket. The caller bounds the time.
pub async fn greets(target: &ServerTarget, database: &str, role: &str) -> bool {
    let Ok((mut stream, _)) = open(target).await else { return false };
    let mut packet = Vec::new();
    startup::put_startup(&mut packet, &[("user", role), ("database", database)]);
    if stream.write_all(&packet).await.is_err() || stream.flush().await.is_err() {
        return false;
    }
    match read_message(&mut stream, target).await {
        Ok((b'E', body)) => ErrorFields::read(&body).state.class() != *b"57",
        Ok(_) => true,
        Err(_) => false,
    }
}

/// Takes a ParameterStatus body in; answers by what that changes the mark.
pub fn note_parameter(body: &[u8], reported: &mut ReportedParameters) -> u32 {
    let mut cursor = Cursor::new(body);
    match (cursor.string(), cursor.string()) {
        (Ok(name), Ok(value)) => reported.set(&String::from_utf8_lossy(name), &String::from_utf8_lossy(value)),
        _ => 0,
    }
}

/// Derives SCRAM keys on a thread that no session waits on.
pub async fn derive(request: crate::auth::KeyRequest) -> crate::auth::DerivedKeys {
    let fallback = request.clone();
    match tokio::task::spawn_blocking(move || request.derive()).await {
        Ok(keys) => keys,
        // The run-time is shutting down; the log-in is about to be dropped too.
        Err(_) => fallback.derive(),
    }
}

async fn read_message(stream: &mut Stream, target: &ServerTarget) -> Result<(u8, Vec<u8>), ConnectError> {
    let failed = |source| ConnectError::Socket { target: target.to_string(), source };
    let mut head = [0; 5];
    stream.read_exact(&mut head).await.map_err(failed)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if !(4..=LOGIN_MESSAGE_MAX).contains(&length) {
        return Err(ConnectError::Protocol(target.to_string()));
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).await.map_err(failed)?;
    Ok((head[0], body))
}

/// Asks the server with this key to cancel what it is doing, and waits until it has taken the request: the server closes the
/// connection when it has signalled the process.
///
/// # Errors
/// The socket or TLS fails.
pub async fn cancel(target: &ServerTarget, key: &ServerKey) -> Result<(), ConnectError> {
    let mut packet = Vec::new();
    startup::put_cancel(&mut packet, key.process, &key.key);
    send_cancel(target, &packet).await
}

/// Passes a client's cancel request on to another pgyard, and waits until that has carried it out.
///
/// # Errors
/// The socket or TLS fails.
pub async fn cancel_at_peer(target: &ServerTarget, process: i32, key: &[u8]) -> Result<(), ConnectError> {
    let mut packet = Vec::new();
    startup::put_peer_cancel(&mut packet, process, key);
    send_cancel(target, &packet).await
}

async fn send_cancel(target: &ServerTarget, packet: &[u8]) -> Result<(), ConnectError> {
    let failed = |source| ConnectError::Socket { target: target.to_string(), source };
    let attempt = async {
        let (mut stream, _) = open(target).await?;
        stream.write_all(packet).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
        let mut end = [0; 1];
        // The end of the stream is the answer; so is a reset.
        let _ = stream.read(&mut end).await;
        Ok(())
    };
    match tokio::time::timeout(target.connect_timeout, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ConnectError::Timeout(target.to_string())),
    }
}
