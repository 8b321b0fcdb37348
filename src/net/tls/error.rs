//! What can be wrong with certificates, keys and handshakes, and what to do about it.

use rustls::CertificateError;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// TLS that can't be set up.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("can't read {path}: {source}; it must exist and be readable by the user that runs pgyard")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// A file is not what it should be.
    #[error("{path}: {what}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong and what would be right.
        what: String,
    },
    /// Certificate and key don't belong together.
    #[error(
        "{key} is not the key of the first certificate in {certificate}: the server's own certificate must come first, then its issuers"
    )]
    KeyMismatch {
        /// The certificate chain.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// The machine trusts nobody.
    #[error(
        "no certificate authorities are installed on this machine: install ca-certificates, or set tls ca to the PEM file of the authority"
    )]
    NoSystemRoots,
    /// A host name that no certificate can have.
    #[error("\"{0}\" is neither a DNS name nor an IP address, so that there is no TLS with it")]
    ServerName(String),
    /// rustls refuses the combination.
    #[error("TLS set-up failed: {0}")]
    Setup(#[from] rustls::Error),
    /// The handshake with a server failed.
    #[error("TLS with {host} failed: {source}{advice}")]
    Handshake {
        /// The server.
        host: String,
        /// What rustls or the socket said.
        source: Arc<io::Error>,
        /// What to do, with its punctuation, or nothing.
        advice: &'static str,
    },
}

impl TlsError {
    /// Explains a handshake with a server that failed.
    pub fn from_handshake(host: &str, source: io::Error) -> Self {
        let cause = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let advice = cause.map_or("", advice);
        TlsError::Handshake { host: host.to_owned(), source: Arc::new(source), advice }
    }

    pub(super) fn read(path: &std::path::Path, source: io::Error) -> Self {
        TlsError::Read { path: path.to_owned(), source: Arc::new(source) }
    }

    pub(super) fn file(path: &std::path::Path, what: impl Into<String>) -> Self {
        TlsError::File { path: path.to_owned(), what: what.into() }
    }
}

fn advice(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::InvalidCertificate(error) => match error {
            CertificateError::UnknownIssuer => {
                "; set tls ca to the PEM file of the authority that issued the server's certificate"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "; put the host's name into the certificate's subjectAltName (its common name does not count), connect by a name that is \
                 there, or use tls mode \"verify-ca\""
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "; renew the server's certificate",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "; compare the clocks of both machines"
            }
            CertificateError::BadEncoding | CertificateError::Other(_) => {
                "; the certificate must be X.509 version 3 and no authority itself: make a new one, or use tls mode \"require\" without ca"
            }
            _ => "",
        },
        rustls::Error::AlertReceived(_) => {
            "; the server refused: it may want a client certificate (tls certificate and key), or know none of TLS 1.2 and 1.3"
        }
        _ => "",
    }
}
