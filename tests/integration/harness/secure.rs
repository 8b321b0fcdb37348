//! A server that speaks TLS, the certificates of all sides, and a raw TLS client.

use pgyard::demo::{FleetOptions, LocalFleet};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned, SupportedProtocolVersion};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// PEM files of an authority `ca`, a `stranger` of one, and `server`, `front`, `other` and the client `alice`, which `ca` issued.
#[derive(Debug)]
pub struct Certificates(PathBuf);

impl Certificates {
    /// Makes them in a directory, owned by whoever owns it, as PostgreSQL wants its key.
    pub fn make(directory: &Path) -> Certificates {
        std::fs::create_dir_all(directory).unwrap();
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
        let files = Certificates(directory.to_owned());
        let ca = authority("ca");
        files.write("ca.crt", &ca.pem());
        files.write("stranger.crt", &authority("stranger").pem());
        for (file, name) in [("server", "server"), ("front", "front"), ("other", "other"), ("alice", "alice")] {
            let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            let key = KeyPair::generate().unwrap();
            files.write(&format!("{file}.crt"), &params.signed_by(&key, &ca).unwrap().pem());
            files.write(&format!("{file}.key"), &key.serialize_pem());
        }
        files
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(if name.ends_with("key") { 0o600 } else { 0o644 }))
            .unwrap();
        let owner = std::fs::metadata(self.0.parent().unwrap()).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }

    /// The path of a file.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The path of a file as text.
    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A primary with TLS.
#[derive(Debug)]
pub struct SecureFleet {
    /// The server.
    pub fleet: LocalFleet,
    /// The certificates of all sides.
    pub files: Certificates,
}

/// The server that tests of TLS, log-ins and replication share. Roles: `app` and `alice` (passwords), `walsender` (REPLICATION, password
/// `stream`), `tlsonly` (password `hidden`, not let in without TLS).
pub fn secure_fleet() -> &'static SecureFleet {
    static FLEET: OnceLock<SecureFleet> = OnceLock::new();
    FLEET.get_or_init(|| {
        let options = FleetOptions { replicas: 0, log_statements: true, ..FleetOptions::default() };
        let fleet = LocalFleet::start(options, &mut |_| ()).unwrap();
        let files = Certificates::make(&fleet.directory().join("tls"));
        let primary = fleet.primary();
        for (setting, value) in [("ssl_cert_file", files.text("server.crt")), ("ssl_key_file", files.text("server.key"))] {
            primary.sql(&format!("ALTER SYSTEM SET {setting} = '{value}'")).unwrap();
        }
        primary.sql("ALTER SYSTEM SET ssl = on").unwrap();
        primary.sql("CREATE ROLE walsender LOGIN REPLICATION PASSWORD 'stream'").unwrap();
        primary.sql("CREATE ROLE tlsonly LOGIN PASSWORD 'hidden'").unwrap();
        primary.sql("CREATE ROLE alice LOGIN PASSWORD 'wonderland'").unwrap();
        let rules = fleet.directory().join("primary/pg_hba.conf");
        let old = std::fs::read_to_string(&rules).unwrap();
        std::fs::write(&rules, format!("hostnossl all tlsonly all reject\n{old}")).unwrap();
        primary.sql("SELECT pg_reload_conf()").unwrap();
        let url = format!("{}?sslmode=require", primary.superuser_url());
        super::eventually("the server speaks TLS", Duration::from_secs(10), || {
            super::programs::psql_output(&url, "SELECT 1").status.success()
        });
        SecureFleet { fleet, files }
    })
}

impl SecureFleet {
    /// A configuration of one database `app`, with more lines at its end and at its top.
    pub fn config(&self, top: &str, app: &str) -> String {
        format!(
            "listen = '{{listen}}'\nhttp = '{{http}}'\n{top}\n[databases.app]\nprimary = '{}'\n{app}\n",
            self.fleet.primary().superuser_url()
        )
    }

    /// `[tls]` with a certificate.
    pub fn tls(&self, name: &str) -> String {
        format!(
            "[tls]\ncertificate = '{}'\nkey = '{}'\n",
            self.files.text(&format!("{name}.crt")),
            self.files.text(&format!("{name}.key"))
        )
    }
}

/// Takes any certificate: tests look at it themselves.
#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// How a TLS client shakes hands.
pub fn client_config(versions: &[&'static SupportedProtocolVersion], alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let mut config = builder.dangerous().with_custom_certificate_verifier(Arc::new(Anything)).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

/// A raw client with TLS.
pub type TlsClient = StreamOwned<ClientConnection, TcpStream>;

/// Shakes hands, after an SSLRequest or (`direct`) at once.
pub fn tls_client(port: u16, config: Arc<ClientConfig>, direct: bool) -> io::Result<TlsClient> {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    if !direct {
        socket.write_all(&super::client::ssl_request())?;
        let mut answer = [0];
        socket.read_exact(&mut answer)?;
        assert_eq!(&answer, b"S");
    }
    let connection = ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).map_err(io::Error::other)?;
    let mut client = StreamOwned::new(connection, socket);
    while client.conn.is_handshaking() {
        client.conn.complete_io(&mut client.sock)?;
    }
    Ok(client)
}

/// Everything that comes until the connection ends, however it ends.
pub fn rest(stream: &mut impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        all.extend_from_slice(&chunk[..count]);
    }
    all
}

/// The type and SQLSTATE of the first message, if it is an error.
pub fn first_error(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    (bytes.first() == Some(&b'E')).then(|| text.split('\0').find_map(|field| field.strip_prefix('C').map(str::to_owned)))?
}
