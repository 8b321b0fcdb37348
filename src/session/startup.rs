//! The first packets of a connection, up to its StartupMessage: TLS, cancel requests, version negotiation.
//!
//! Exactly the bytes of each packet are read from the socket, so that nothing sent in clear before TLS can be taken for
//! something sent after it.

use super::front::Front;
use super::login::LoginEnd;
use super::peers::cancel;
use crate::auth::TransportSecurity;
use crate::metrics::LoginFailureReason;
use crate::net::Stream;
use crate::net::tls::ALPN_POSTGRESQL;
use crate::server::ParameterSet;
use crate::types::SqlState;
use crate::wire::reply::{Report, put_negotiate_version};
use crate::wire::startup::{StartupMessage, StartupPacket, packet_length};
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Newest minor version of protocol 3 that is spoken.
pub const NEWEST_MINOR: u16 = 2;
/// First byte of a TLS ClientHello.
const TLS_HANDSHAKE: u8 = 0x16;

/// A connection that has sent its StartupMessage.
pub struct Started {
    /// The socket, encrypted if the client asked for it.
    pub stream: Stream,
    /// What the client wants.
    pub message: StartupMessage,
    /// How safe it is.
    pub security: TransportSecurity,
    /// What is known of the client before it says anything of itself.
    pub identity: ClientIdentity,
}

/// What a client's connection tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The certificate that it has shown and that `client_ca` vouches for.
    pub certificate: Option<CertificateDer<'static>>,
    /// The user that the process at the other end of a Unix socket runs as.
    pub uid: Option<u32>,
}

impl ClientIdentity {
    fn of(stream: &Stream) -> Self {
        match stream {
            Stream::ClientTls(tls) => {
                let chain = tls.get_ref().1.peer_certificates();
                let certificate = chain.and_then(|chain| chain.first()).map(|first| first.clone().into_owned());
                ClientIdentity { certificate, uid: None }
            }
            Stream::Plain(socket) => ClientIdentity { certificate: None, uid: socket.peer_uid() },
            Stream::ServerTls(_) => ClientIdentity::default(),
        }
    }
}

/// Reads up to the StartupMessage; `None` when the connection was for something else and is done.
pub async fn start(front: &Arc<Front>, stream: Stream) -> Result<Option<Started>, LoginEnd> {
    let mut stream = stream;
    let mut security = match &stream {
        Stream::Plain(socket) if socket.is_unix() => TransportSecurity::UnixSocket,
        _ => TransportSecurity::Plaintext,
    };
    if is_direct_tls(&mut stream).await? {
        (stream, security) = shake_hands(front, stream, true).await?;
    }
    // SSLRequest, GSSENCRequest and StartupMessage: no client needs more than three packets, nor one of them twice.
    let (mut asked_tls, mut asked_gss) = (stream.is_tls(), stream.is_tls());
    for _ in 0..3 {
        let packet = read_packet(&mut stream).await?;
        let again = match packet {
            StartupPacket::Tls => std::mem::replace(&mut asked_tls, true),
            StartupPacket::Gss => std::mem::replace(&mut asked_gss, true) || stream.is_tls(),
            _ => false,
        };
        if again {
            let text = if stream.is_tls() { "a request for encryption within TLS" } else { "a second request for encryption" };
            return Err(protocol(&mut stream, text).await);
        }
        match packet {
            StartupPacket::Tls if front.tls.load().is_some() && security == TransportSecurity::Plaintext => {
                stream.write_all(b"S").await.map_err(LoginEnd::gone)?;
                (stream, security) = shake_hands(front, stream, false).await?;
            }
            StartupPacket::Tls | StartupPacket::Gss => {
                stream.write_all(b"N").await.map_err(LoginEnd::gone)?;
                stream.flush().await.map_err(LoginEnd::gone)?;
            }
            StartupPacket::Cancel { process, key } => {
                cancel(front, process, &key, false).await;
                return Ok(None);
            }
            StartupPacket::PeerCancel { process, key } => {
                cancel(front, process, &key, true).await;
                return Ok(None);
            }
            StartupPacket::Start(message) => {
                let identity = ClientIdentity::of(&stream);
                return Ok(Some(Started { stream, message, security, identity }));
            }
        }
    }
    Err(protocol(&mut stream, "no StartupMessage").await)
}

async fn is_direct_tls(stream: &mut Stream) -> Result<bool, LoginEnd> {
    let Stream::Plain(socket) = stream else { return Ok(false) };
    Ok(socket.peek().await.map_err(LoginEnd::gone)? == Some(TLS_HANDSHAKE))
}

async fn shake_hands(front: &Front, stream: Stream, direct: bool) -> Result<(Stream, TransportSecurity), LoginEnd> {
    let failed = |text: String| LoginEnd { reason: LoginFailureReason::Protocol, text };
    let Stream::Plain(socket) = stream else { return Err(failed("TLS within TLS".to_owned())) };
    let Some(tls) = front.tls.load_full() else { return Err(failed("TLS is not configured (tls)".to_owned())) };
    let shaken = tls.acceptor().accept(socket).await.map_err(|error| failed(format!("TLS handshake: {error}")))?;
    if direct && shaken.get_ref().1.alpn_protocol() != Some(ALPN_POSTGRESQL) {
        return Err(failed("direct TLS without the ALPN protocol postgresql".to_owned()));
    }
    let endpoint_hash = tls.endpoint_hash().map(<[u8]>::to_vec);
    Ok((Stream::ClientTls(Box::new(shaken)), TransportSecurity::Tls { endpoint_hash }))
}

async fn read_packet(stream: &mut Stream) -> Result<StartupPacket, LoginEnd> {
    let mut field = [0; 4];
    stream.read_exact(&mut field).await.map_err(LoginEnd::gone)?;
    let length = match packet_length(field) {
        Ok(length) => length,
        Err(_) => return Err(protocol(stream, "invalid length of startup packet").await),
    };
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).await.map_err(LoginEnd::gone)?;
    match StartupPacket::read(&body) {
        Ok(packet) => Ok(packet),
        Err(crate::wire::WireError::Field("protocol version")) => {
            let report = Report::fatal(SqlState::FEATURE_NOT_SUPPORTED, "unsupported frontend protocol")
                .detail("pgyard speaks protocol 3.0 and 3.2.");
            Err(LoginEnd::told(stream, LoginFailureReason::Protocol, report).await)
        }
        Err(_) => Err(protocol(stream, "invalid startup packet layout: expected terminator as last byte").await),
    }
}

async fn protocol(stream: &mut Stream, text: &str) -> LoginEnd {
    LoginEnd::told(stream, LoginFailureReason::Protocol, Report::fatal(SqlState::PROTOCOL_VIOLATION, text)).await
}

/// Tells a client that wants more than is spoken what is.
pub fn negotiate(message: &StartupMessage, out: &mut Vec<u8>) {
    if message.minor > NEWEST_MINOR || !message.protocol_options.is_empty() {
        put_negotiate_version(out, message.minor.min(NEWEST_MINOR), &message.protocol_options);
    }
}

/// Run-time parameters of a StartupMessage: those named directly, and those in `options`.
///
/// # Errors
/// `options` holds a switch that PostgreSQL takes only at a server's start, or is not well formed.
pub fn startup_parameters(message: &StartupMessage) -> Result<ParameterSet, Report> {
    let mut parameters = ParameterSet::default();
    if let Some(options) = message.get("options") {
        for (name, value) in read_options(options)? {
            parameters.set_text(&name, &value);
        }
    }
    for (name, value) in &message.parameters {
        if !matches!(name.as_str(), "user" | "database" | "options" | "replication") {
            parameters.set_text(&name.to_lowercase(), value);
        }
    }
    Ok(parameters)
}

/// `-c name=value`, `-cname=value` and `--name=value`; a backslash escapes the next character.
///
/// Spec: PostgreSQL documentation, "Message Formats", StartupMessage, `options`.
fn read_options(options: &str) -> Result<Vec<(String, String)>, Report> {
    let invalid = |word: &str| {
        Report::fatal(SqlState::INVALID_PARAMETER_VALUE, format!("invalid command-line argument for server process: {word}"))
            .hint("pgyard takes `-c name=value` and `--name=value` in options.")
    };
    let mut words = vec![String::new()];
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        let last = words.len() - 1;
        match character {
            '\\' => words[last].extend(characters.next()),
            c if c.is_ascii_whitespace() => words.push(String::new()),
            c => words[last].push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    let mut settings = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("--") {
            Some(setting) => setting.to_owned(),
            None if word == "-c" => words.next().ok_or_else(|| invalid(&word))?,
            None => word.strip_prefix("-c").map(str::to_owned).ok_or_else(|| invalid(&word))?,
        };
        let (name, value) = setting.split_once('=').ok_or_else(|| invalid(&setting))?;
        settings.push((name.replace('-', "_").to_lowercase(), value.to_owned()));
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_postgresql_reads_them() {
        let check = |options: &str, expected: &[(&str, &str)]| {
            let got = read_options(options).expect("well formed");
            let got: Vec<_> = got.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            assert_eq!(got, expected, "{options}");
        };
        check("", &[]);
        check("-c geqo=off -csearch_path=a,b --work-mem=1MB", &[("geqo", "off"), ("search_path", "a,b"), ("work_mem", "1MB")]);
        check(r"-c application_name=two\ words\\", &[("application_name", r"two words\")]);
        for bad in ["-c", "-c geqo", "-B 4", "--", "x"] {
            assert!(read_options(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn direct_parameters_win_over_options() {
        let message = StartupMessage {
            minor: 0,
            parameters: [("user", "u"), ("options", "-c geqo=off"), ("Geqo", "on")].map(|(n, v)| (n.into(), v.into())).to_vec(),
            protocol_options: vec![],
        };
        let parameters = startup_parameters(&message).expect("well formed");
        assert_eq!(parameters.get("geqo"), Some("'on'"));
        assert_eq!(parameters.get("user"), None);
    }
}
