//! Why an authentication failed.
//!
//! The texts towards clients are PostgreSQL's own where it has one, because drivers and people look for them. Logging in has no effect on
//! data, so trying again is always safe; it helps only where [`AuthError::fault`] is not the client's.

use crate::types::SqlState;

/// Whose doing a failed log-in is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthFault {
    /// The application sent something wrong.
    Client,
    /// The server broke the protocol or refused.
    Server,
    /// pgyard's configuration must change.
    Configuration,
}

/// A log-in that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Wrong password, unknown role, or a stored secret that can't serve the method: the client must not learn which.
    #[error("password authentication failed for user \"{user}\"")]
    PasswordFailed {
        /// The name the client gave.
        user: String,
        /// For the log only.
        reason: &'static str,
    },
    /// An empty password, which PostgreSQL never accepts.
    #[error("empty password returned by client")]
    EmptyPassword,
    /// The client's password message has the wrong shape.
    #[error("invalid password message: {0}")]
    MalformedPassword(&'static str),
    /// The client chose a mechanism that was not offered.
    #[error("client selected an invalid SASL authentication mechanism")]
    InvalidMechanism,
    /// `method = "plain"` and the connection could be listened to.
    #[error("a password in clear is accepted over TLS only: connect with sslmode=require, or set auth method \"scram\"")]
    PlainWithoutTls,
    /// The SCRAM exchange broke.
    #[error(transparent)]
    Scram(#[from] ScramError),
    /// A message came, or keys were handed over, when none was due.
    #[error("authentication message out of order")]
    OutOfOrder,
    /// The server wants a method that pgyard can't do.
    #[error(
        "the server asks for {0} authentication, which pgyard can't do: let pg_hba.conf ask for scram-sha-256 for connections from pgyard"
    )]
    UnsupportedByPgyard(String),
    /// The server wants the password in clear over a connection that could be listened to.
    #[error(
        "the server asks for the password in clear over an unencrypted connection: set tls mode \"require\" or better for this host, or let \
         its pg_hba.conf ask for scram-sha-256"
    )]
    ServerWantsPlainWithoutTls,
    /// What is known of the role does not serve the method that the server wants.
    #[error(
        "the server asks for {asked} for role \"{user}\", but pgyard knows {known}: set server_password for this user, or store a \
         SCRAM-SHA-256 password for the role"
    )]
    NothingToLogInWith {
        /// The role.
        user: String,
        /// What the server wants.
        asked: &'static str,
        /// What there is.
        known: &'static str,
    },
    /// The server's verifier of this role is not the one that the client proved its password against.
    #[error(
        "this server holds another SCRAM verifier for role \"{user}\" than the one its client was checked against: if the password was changed, \
         log in again; else copy the verifier in pg_authid from one server to the other, or set server_password for this user"
    )]
    DifferentVerifier {
        /// The role.
        user: String,
    },
    /// The server's authentication message has the wrong shape or came at the wrong time.
    #[error("the server broke the authentication protocol: {0}")]
    ServerProtocol(&'static str),
}

impl AuthError {
    /// The SQLSTATE for the ErrorResponse towards the client.
    pub fn sqlstate(&self) -> SqlState {
        match self {
            AuthError::PasswordFailed { .. } | AuthError::EmptyPassword => SqlState::INVALID_PASSWORD,
            AuthError::MalformedPassword(_) | AuthError::InvalidMechanism | AuthError::OutOfOrder => SqlState::PROTOCOL_VIOLATION,
            AuthError::PlainWithoutTls => SqlState::INVALID_AUTHORIZATION,
            AuthError::Scram(error) => error.sqlstate(),
            AuthError::UnsupportedByPgyard(_)
            | AuthError::ServerWantsPlainWithoutTls
            | AuthError::NothingToLogInWith { .. }
            | AuthError::DifferentVerifier { .. } => SqlState::INVALID_AUTHORIZATION,
            AuthError::ServerProtocol(_) => SqlState::CANNOT_CONNECT,
        }
    }

    /// Whose doing it is.
    pub fn fault(&self) -> AuthFault {
        match self {
            AuthError::PasswordFailed { .. }
            | AuthError::EmptyPassword
            | AuthError::MalformedPassword(_)
            | AuthError::InvalidMechanism
            | AuthError::PlainWithoutTls
            | AuthError::OutOfOrder => AuthFault::Client,
            AuthError::Scram(error) => error.fault(),
            AuthError::UnsupportedByPgyard(_)
            | AuthError::ServerWantsPlainWithoutTls
            | AuthError::NothingToLogInWith { .. }
            | AuthError::DifferentVerifier { .. } => AuthFault::Configuration,
            AuthError::ServerProtocol(_) => AuthFault::Server,
        }
    }

    /// What PostgreSQL would put into the DETAIL field; safe to show.
    pub fn detail(&self) -> Option<&'static str> {
        match self {
            AuthError::Scram(error) => error.detail(),
            _ => None,
        }
    }

    /// Why, for the log; never to be shown to the client.
    pub fn log_reason(&self) -> Option<&'static str> {
        match self {
            AuthError::PasswordFailed { reason, .. } => Some(reason),
            _ => None,
        }
    }
}

/// A SCRAM exchange that broke.
///
/// Spec: RFC 5802; the texts of PostgreSQL's `auth-scram.c`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// The client's message does not follow the grammar.
    #[error("malformed SCRAM message")]
    Malformed(&'static str),
    /// The client's nonce has bytes outside of printable ASCII.
    #[error("non-printable characters in SCRAM nonce")]
    UnprintableNonce,
    /// The client wants to act as somebody else.
    #[error("client uses authorization identity, but it is not supported")]
    AuthorizationIdentity,
    /// The client insists on an extension.
    #[error("client requires an unsupported SCRAM extension")]
    MandatoryExtension,
    /// Another binding than tls-server-end-point.
    #[error("unsupported SCRAM channel-binding type")]
    UnsupportedBinding,
    /// The client thinks that channel binding was not offered although it was: somebody may have cut it out.
    #[error("SCRAM channel binding negotiation error")]
    BindingDowngraded,
    /// The client saw another certificate than ours.
    #[error("SCRAM channel binding check failed")]
    BindingMismatch,
    /// The binding in the last message is not the one announced in the first.
    #[error("unexpected SCRAM channel-binding attribute in client-final-message")]
    BindingChanged,
    /// The nonce in the last message is not the one agreed on.
    #[error("invalid SCRAM response")]
    NonceMismatch,
    /// The proof is wrong, or the role was never going to get in.
    #[error("SCRAM proof does not match")]
    WrongProof,
    /// A step out of order.
    #[error("SCRAM message out of order")]
    OutOfOrder,
    /// The server's message does not follow the grammar.
    #[error("the server sent a malformed SCRAM message: {0}")]
    MalformedByServer(&'static str),
    /// The server's nonce does not continue ours: a replay.
    #[error("the server's SCRAM nonce does not continue pgyard's")]
    ServerNonce,
    /// An iteration count that would keep a core busy for seconds.
    #[error(
        "the server asks for {0} SCRAM iterations, more than pgyard computes (1000000): lower scram_iterations and set the password again"
    )]
    TooManyIterations(u32),
    /// The server refused in the SCRAM exchange itself.
    #[error("the server refused the SCRAM exchange")]
    RefusedByServer,
    /// The server does not know the role's secret: it is not the server it claims to be.
    #[error("the server could not prove that it knows the role's password: it may be an impostor")]
    WrongServerSignature,
}

impl ScramError {
    /// The SQLSTATE that PostgreSQL gives.
    pub fn sqlstate(&self) -> SqlState {
        match self {
            ScramError::WrongProof => SqlState::INVALID_PASSWORD,
            ScramError::BindingDowngraded | ScramError::BindingMismatch => SqlState::INVALID_AUTHORIZATION,
            ScramError::AuthorizationIdentity | ScramError::MandatoryExtension => SqlState::FEATURE_NOT_SUPPORTED,
            ScramError::RefusedByServer | ScramError::WrongServerSignature | ScramError::ServerNonce => SqlState::CANNOT_CONNECT,
            ScramError::MalformedByServer(_) | ScramError::TooManyIterations(_) => SqlState::CANNOT_CONNECT,
            _ => SqlState::PROTOCOL_VIOLATION,
        }
    }

    /// Whose doing it is.
    pub fn fault(&self) -> AuthFault {
        match self {
            ScramError::MalformedByServer(_)
            | ScramError::ServerNonce
            | ScramError::RefusedByServer
            | ScramError::WrongServerSignature => AuthFault::Server,
            ScramError::TooManyIterations(_) => AuthFault::Configuration,
            _ => AuthFault::Client,
        }
    }

    /// The DETAIL field; safe to show.
    pub fn detail(&self) -> Option<&'static str> {
        match self {
            ScramError::Malformed(detail) => Some(detail),
            ScramError::NonceMismatch => Some("Nonce does not match."),
            ScramError::BindingDowngraded => Some(
                "The client supports SCRAM channel binding but thinks the server does not.  However, this server does support channel binding.",
            ),
            _ => None,
        }
    }
}
