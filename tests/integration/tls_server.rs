//! TLS with servers: every `sslmode`, whoever stands in the middle, files that change, and connections that died while idle.

use super::harness::client::{Protocol, RawClient};
use super::harness::secure::secure_fleet;
use super::harness::{Pgyard, eventually};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

const SSL: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

fn log_in(yard: &Pgyard, user: &str, password: &str, database: &str) -> std::io::Result<RawClient> {
    RawClient::log_in(yard.port(), user, password, database)
}

#[test]
fn every_sslmode_does_what_it_says() {
    let secure = secure_fleet();
    let primary = secure.fleet.primary().superuser_url();
    let ca = secure.files.text("ca.crt");
    let mut config = "listen = '{listen}'\nhttp = '{http}'\n".to_owned();
    let modes = [
        ("disable", "", "f"),
        ("allow", "", "f"),
        ("prefer", "", "t"),
        ("require", "", "t"),
        ("verify-ca", ca.as_str(), "t"),
        ("verify-full", ca.as_str(), "t"),
        ("system", "system", "t"),
    ];
    for (mode, root, _) in modes {
        config.push_str(&format!("[databases.{mode}]\ndatabase = 'app'\nprimary = '{primary}'\n"));
        config.push_str(&if mode == "system" { String::new() } else { format!("sslmode = '{mode}'\n") });
        config.push_str(&if root.is_empty() { String::new() } else { format!("sslrootcert = '{root}'\n") });
    }
    // The system's authorities are, for this process, ours.
    let yard = Pgyard::start_at(&secure.fleet, pgyard::demo::free_port().unwrap(), &config, &[("SSL_CERT_FILE", &ca)]);
    let password = secure.fleet.app_password().reveal();
    for (mode, _, expect) in modes {
        assert_eq!(log_in(&yard, "app", password, mode).unwrap().column(SSL).unwrap(), [expect], "{mode}");
    }
    // A role that the server lets in with TLS only: `allow` tries again, `disable` passes on what the server said.
    assert_eq!(log_in(&yard, "tlsonly", "hidden", "allow").unwrap().column(SSL).unwrap(), ["t"]);
    let refused = log_in(&yard, "tlsonly", "hidden", "disable").unwrap_err().to_string();
    assert!(refused.starts_with("28000: pg_hba.conf rejects connection") && refused.ends_with("no encryption"), "{refused}");
}

/// Ends TLS towards pgyard with a certificate of its own, and begins it anew towards the server.
fn stand_in_the_middle(server: u16) -> u16 {
    let secure = secure_fleet();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let chain = vec![CertificateDer::from_pem_file(secure.files.path("other.crt")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(secure.files.path("other.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let connector = tokio_rustls::TlsConnector::from(super::harness::secure::client_config(&[&rustls::version::TLS13], &[]));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((mut victim, _)) = listener.accept().await {
                let (acceptor, connector) = (acceptor.clone(), connector.clone());
                tokio::spawn(async move {
                    let mut request = [0; 8];
                    victim.read_exact(&mut request).await?;
                    victim.write_all(b"S").await?;
                    let mut victim = acceptor.accept(victim).await?;
                    let mut server = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await?;
                    server.write_all(&request).await?;
                    server.read_u8().await?;
                    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
                    let mut server = connector.connect(name, server).await?;
                    tokio::io::copy_bidirectional(&mut victim, &mut server).await.map(|_| ())
                });
            }
        });
    });
    port
}

#[test]
fn whoever_stands_between_pgyard_and_a_server_cannot_log_in() {
    let secure = secure_fleet();
    let primary = secure.fleet.primary();
    let middle = stand_in_the_middle(primary.port());
    let config = secure.config("", "sslmode = 'require'").replace(&format!(":{}/", primary.port()), &format!(":{middle}/"));
    let yard = Pgyard::start_with_config(&secure.fleet, &config);
    let refused = log_in(&yard, "app", secure.fleet.app_password().reveal(), "app").unwrap_err().to_string();
    assert!(refused.contains("SCRAM channel binding check failed"), "{refused}");
}

#[test]
fn a_server_that_speaks_before_tls_is_not_believed() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.read_exact(&mut [0; 8]).unwrap();
        // `S`, and in the same breath a log-in that needs no proof and an answer.
        socket.write_all(b"SR\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").unwrap();
        let mut said = Vec::new();
        drop(socket.read_to_end(&mut said));
        said
    });
    let tls = pgyard::config::ServerTlsSettings { mode: pgyard::config::ServerTlsMode::Require, ..Default::default() };
    let target = Arc::new(pgyard::server::ServerTarget {
        address: "127.0.0.1".to_owned(),
        port,
        tls: pgyard::net::tls::ServerTls::load(&tls).unwrap(),
        keepalive: Duration::ZERO,
        options: String::new(),
        connect_timeout: Duration::from_secs(10),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let keys = Arc::new(pgyard::auth::KeyCache::new(1));
    let credential = pgyard::auth::ServerCredential::None;
    let outcome = runtime.block_on(pgyard::server::connect(&target, "app", "app", &credential, &keys));
    assert!(matches!(outcome, Err(pgyard::server::ConnectError::Tls { .. })), "{outcome:?}");
    let said = server.join().unwrap();
    assert!(!said.windows(4).any(|window| window == b"user"), "no StartupMessage was sent in clear");
}

#[test]
fn changed_roots_are_read_at_a_reload_for_new_connections() {
    let secure = secure_fleet();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root.crt");
    std::fs::copy(secure.files.path("ca.crt"), &root).unwrap();
    let config =
        secure.config("", &format!("sslmode = 'verify-full'\nsslrootcert = '{}'\nfailover_wait = '500ms'", root.display()));
    let yard = Pgyard::start_with_config(&secure.fleet, &config);
    let password = secure.fleet.app_password().reveal();
    let mut stays = log_in(&yard, "app", password, "app").unwrap();
    stays.column("BEGIN").unwrap();
    std::fs::copy(secure.files.path("stranger.crt"), &root).unwrap();
    let said = yard.reload(&config);
    assert!(said.contains("sslrootcert: changed"), "{said}");
    assert_eq!(stays.column(SSL).unwrap(), ["t"], "who has a connection keeps it");
    // The look-up still has its connection, or fails for the same reason.
    eventually("new connections are refused", Duration::from_secs(10), || log_in(&yard, "alice", "wonderland", "app").is_err());
    std::fs::write(&root, "no certificate").unwrap();
    assert!(yard.reload(&config).contains("not reloaded"));
    std::fs::copy(secure.files.path("ca.crt"), &root).unwrap();
    yard.reload(&config);
    eventually("new connections are made", Duration::from_secs(20), || log_in(&yard, "alice", "wonderland", "app").is_ok());
    assert_eq!(stays.column("COMMIT").unwrap(), Vec::<String>::new());
}

#[test]
fn a_connection_that_died_while_idle_is_not_used() {
    let secure = secure_fleet();
    let yard = Pgyard::start_with_config(&secure.fleet, &secure.config("workers = 1\n", "sslmode = 'require'"));
    let mut client = log_in(&yard, "app", secure.fleet.app_password().reveal(), "app").unwrap();
    client.column("CREATE TABLE IF NOT EXISTS died (id int)").unwrap();
    for turn in 0..5 {
        let pid = client.column("SELECT pg_backend_pid()").unwrap().remove(0);
        let primary = secure.fleet.primary();
        primary.sql(&format!("SELECT pg_terminate_backend({pid}, 5000)")).unwrap();
        // A write is never sent twice: it must not have been sent to the dead connection.
        let replies = client.run(Protocol::Simple, "INSERT INTO died VALUES (1)").unwrap();
        assert!(replies.iter().all(|reply| reply.tag != b'E'), "turn {turn}: {replies:?}");
    }
    assert_eq!(client.column("SELECT count(*) FROM died").unwrap(), ["5"]);
}

#[test]
fn a_unix_socket_serves_on_both_sides() {
    let secure = secure_fleet();
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().display().to_string();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let primary = secure.fleet.primary();
    let password = secure.fleet.superuser_password().reveal();
    let config = format!(
        "listen = ['{{listen}}', 'unix:{directory}']\nhttp = '{{http}}'\n[databases.app]\nprimary = {{ host = '{}', port = {}, user = 'postgres', password = '{password}' }}\n",
        primary.socket_directory().display(),
        primary.port()
    );
    let yard = Pgyard::start_with_config(&secure.fleet, &config);
    let app = secure.fleet.app_password().reveal();
    let url = format!("host={directory} port=6432 user=app dbname=app password={app} sslmode=require");
    let said = super::harness::programs::psql(
        &url,
        "SELECT coalesce(client_addr::text, 'unix') FROM pg_stat_activity WHERE pid = pg_backend_pid()",
    );
    assert_eq!(said, "unix");
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, yard.port()));
    assert!(stream.is_ok(), "the other listener serves too");
}
