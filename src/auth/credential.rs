//! With what pgyard can log in to a server, and how safe a connection is.

use super::keys::DerivedKeys;
use crate::types::Secret;

/// What is known of a role towards servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerCredential {
    /// Its password: serves every method.
    Password(Secret),
    /// Its SCRAM keys, out of a client's proof: serve SCRAM on servers with the same verifier.
    Scram(ScramKeys),
    /// `md5` and 32 hexadecimal digits: serves MD5.
    Md5(Secret),
    /// Nothing: serves `trust`, `peer` and client certificates.
    None,
}

/// A role's SCRAM keys, with the salt and the iterations they were derived with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScramKeys {
    /// ClientKey and ServerKey.
    pub keys: DerivedKeys,
    /// The verifier's salt: a server that announces another one has another verifier.
    pub salt: Vec<u8>,
    /// The verifier's iterations.
    pub iterations: u32,
}

/// How safe a connection is from being listened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransportSecurity {
    /// TCP without TLS.
    Plaintext,
    /// A Unix socket: never leaves the machine.
    UnixSocket,
    /// TLS.
    Tls {
        /// RFC 5929 `tls-server-end-point` of the server's certificate; `None` if its signature algorithm has no hash (Ed25519), and
        /// then there is no channel binding.
        endpoint_hash: Option<Vec<u8>>,
    },
}

impl ServerCredential {
    /// What it is, for error texts.
    pub(super) fn known(&self) -> &'static str {
        match self {
            ServerCredential::Password(_) => "its password",
            ServerCredential::Scram(_) => "its SCRAM keys only",
            ServerCredential::Md5(_) => "its MD5 hash only",
            ServerCredential::None => "no password of it",
        }
    }
}

impl TransportSecurity {
    /// Whether a password may cross it in clear.
    pub fn is_private(&self) -> bool {
        !matches!(self, TransportSecurity::Plaintext)
    }

    /// The channel binding data, where there is any.
    pub fn endpoint_hash(&self) -> Option<&[u8]> {
        match self {
            TransportSecurity::Tls { endpoint_hash } => endpoint_hash.as_deref(),
            _ => None,
        }
    }
}
