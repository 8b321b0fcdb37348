//! TLS towards servers.

use super::certificate::endpoint_hash;
use super::client::{ALPN_POSTGRESQL, pair_error};
use super::error::TlsError;
use super::pem;
use super::trust::{Trust, TrustVerifier};
use crate::config::{ServerTlsMode, ServerTlsSettings};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::sync::Arc;
use tokio_rustls::TlsConnector;

/// Sessions kept to be resumed, per host. Entries (one is used per server name).
const SESSION_CACHE: usize = 8;

/// How one host is talked to, immutable.
#[derive(Debug)]
pub struct ServerTls {
    mode: ServerTlsMode,
    /// `None` under `disable`.
    config: Option<Arc<ClientConfig>>,
}

impl ServerTls {
    /// Reads the files. To reload, load again and swap; connections that exist keep what they have.
    ///
    /// As with libpq, `prefer` and `require` verify the chain too where a `ca` is given.
    ///
    /// # Errors
    /// Names the file and what would be right.
    pub fn load(settings: &ServerTlsSettings) -> Result<Arc<Self>, TlsError> {
        let mode = settings.mode;
        if mode == ServerTlsMode::Disable {
            return Ok(Arc::new(ServerTls { mode, config: None }));
        }
        let provider = Arc::new(ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let verifier = TrustVerifier { trust: trust(settings)?, algorithms };
        // Called dangerous because a verifier may accept anything; TrustVerifier says when it does.
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &settings.certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(pem::certificates(certificate)?, pem::private_key(key)?)
                .map_err(|error| pair_error(error, certificate, key))?,
        };
        config.alpn_protocols = vec![ALPN_POSTGRESQL.to_vec()];
        config.resumption = Resumption::in_memory_sessions(SESSION_CACHE);
        Ok(Arc::new(ServerTls { mode, config: Some(Arc::new(config)) }))
    }

    /// The configured mode: `Disable` sends no SSLRequest, `Prefer` goes on in clear if the server answers `N`, the others don't.
    pub fn mode(&self) -> ServerTlsMode {
        self.mode
    }

    /// For the handshake with the server after it answered `S`; `None` under `disable`.
    pub fn connector(&self) -> Option<TlsConnector> {
        self.config.clone().map(TlsConnector::from)
    }

    /// The configuration itself; `None` under `disable`.
    pub fn config(&self) -> Option<&Arc<ClientConfig>> {
        self.config.as_ref()
    }

    /// The name of a host, to be sent to it (SNI) and compared with its certificate.
    ///
    /// # Errors
    /// A Unix socket's directory has none: there is no TLS on Unix sockets.
    pub fn server_name(address: &str) -> Result<ServerName<'static>, TlsError> {
        ServerName::try_from(address.to_owned()).map_err(|_| TlsError::ServerName(address.to_owned()))
    }

    /// The channel binding data of a connection whose handshake is done, for SCRAM-SHA-256-PLUS.
    pub fn endpoint_hash(connection: &ClientConnection) -> Option<Vec<u8>> {
        connection.peer_certificates()?.first().and_then(endpoint_hash)
    }
}

fn trust(settings: &ServerTlsSettings) -> Result<Trust, TlsError> {
    let name = settings.mode == ServerTlsMode::VerifyFull;
    match (&settings.ca, settings.mode) {
        (Some(ca), _) => Ok(Trust::Chain { roots: pem::roots(ca)?, pinned: pem::certificates(ca)?, name }),
        (None, ServerTlsMode::VerifyCa | ServerTlsMode::VerifyFull) => {
            Ok(Trust::Chain { roots: system_roots()?, pinned: Vec::new(), name })
        }
        (None, ServerTlsMode::Disable | ServerTlsMode::Allow | ServerTlsMode::Prefer | ServerTlsMode::Require) => {
            Ok(Trust::Anybody)
        }
    }
}

/// The machine's authorities. Some files of them may be damaged; what counts is that there are any.
fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsError::NoSystemRoots) } else { Ok(roots) }
}
