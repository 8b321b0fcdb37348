//! TLS towards clients.

use super::certificate::endpoint_hash;
use super::error::TlsError;
use super::pem;
use crate::config::ClientTlsSettings;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// The application protocol of PostgreSQL. A connection that starts with TLS at once, without SSLRequest, must have negotiated it; others
/// may have.
///
/// Spec: PostgreSQL documentation, "SSL Session Encryption".
pub const ALPN_POSTGRESQL: &[u8] = b"postgresql";

/// Sessions kept for clients that come back (those of TLS 1.3 keep their state in tickets of their own). Entries.
const SESSION_CACHE: usize = 1024;

/// What clients are shown: certificate, key and rules, immutable.
#[derive(Debug)]
pub struct ClientTls {
    config: Arc<ServerConfig>,
    endpoint_hash: Option<Vec<u8>>,
    required: bool,
}

impl ClientTls {
    /// Reads the files. To reload, load again and swap; connections that exist keep what they have.
    ///
    /// With `client_ca`, clients must show a certificate that one of its authorities issued, or, if it is optional, may show none.
    ///
    /// # Errors
    /// Names the file and what would be right.
    pub fn load(settings: &ClientTlsSettings) -> Result<Arc<Self>, TlsError> {
        let chain = pem::certificates(&settings.certificate)?;
        let key = pem::private_key(&settings.key)?;
        let endpoint_hash = chain.first().and_then(endpoint_hash);
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match &settings.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(pem::roots(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier = if settings.client_cert_optional { verifier.allow_unauthenticated() } else { verifier };
                let verifier = verifier.build();
                builder.with_client_cert_verifier(verifier.map_err(|error| TlsError::file(path, error.to_string()))?)
            }
        };
        let config = builder.with_single_cert(chain, key);
        let mut config = config.map_err(|error| pair_error(error, &settings.certificate, &settings.key))?;
        config.alpn_protocols = vec![ALPN_POSTGRESQL.to_vec()];
        config.session_storage = ServerSessionMemoryCache::new(SESSION_CACHE);
        config.ticketer = ring::Ticketer::new()?;
        Ok(Arc::new(ClientTls { config: Arc::new(config), endpoint_hash, required: settings.required }))
    }

    /// For the handshake with a client, after `S` was sent in answer to SSLRequest or at once.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.clone())
    }

    /// The configuration itself.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// The channel binding data for SCRAM-SHA-256-PLUS.
    pub fn endpoint_hash(&self) -> Option<&[u8]> {
        self.endpoint_hash.as_deref()
    }

    /// Whether clients on TCP must use TLS.
    pub fn required(&self) -> bool {
        self.required
    }
}

/// Explains why a certificate and a key were refused.
pub(super) fn pair_error(error: rustls::Error, certificate: &Path, key: &Path) -> TlsError {
    match error {
        rustls::Error::InconsistentKeys(_) => TlsError::KeyMismatch { certificate: certificate.to_owned(), key: key.to_owned() },
        rustls::Error::InvalidCertificate(error) => {
            TlsError::file(certificate, format!("the first certificate can't be used ({error:?}); it must be X.509 version 3"))
        }
        error => TlsError::file(
            key,
            format!("the key can't be used ({error}); RSA (2048 bits or more), ECDSA P-256, P-384 and Ed25519 can"),
        ),
    }
}
