//! TLS with clients: both ways to begin it, both versions, what binds a log-in to it, and what must not get through it.

use super::harness::client::{RawClient, cancel_request, query, ssl_request, startup};
use super::harness::programs::{psql, psql_output};
use super::harness::secure::{TlsClient, client_config, first_error, rest, secure_fleet, tls_client};
use super::harness::{Pgyard, eventually};
use rustls::version::{TLS12, TLS13};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

const ALPN: &[&[u8]] = &[b"postgresql"];

/// pgyard with TLS on both sides.
fn yard() -> &'static Pgyard {
    static YARD: OnceLock<Pgyard> = OnceLock::new();
    YARD.get_or_init(|| {
        let secure = secure_fleet();
        Pgyard::start_with_config(&secure.fleet, &secure.config(&secure.tls("front"), "sslmode = 'require'"))
    })
}

fn url(port: u16, more: &str) -> String {
    format!("postgres://app:{}@localhost:{port}/app?{more}", secure_fleet().fleet.app_password().reveal())
}

/// Reads until the log-in asks for a proof, and says which methods it offers.
fn offered(client: &mut TlsClient) -> String {
    client.write_all(&startup(&[("user", "app"), ("database", "app")])).unwrap();
    let mut head = [0; 5];
    client.read_exact(&mut head).unwrap();
    let mut body = vec![0; u32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4];
    client.read_exact(&mut body).unwrap();
    assert_eq!(head[0], b'R', "{}", String::from_utf8_lossy(&body));
    String::from_utf8_lossy(&body[4..]).replace('\0', " ").trim().to_owned()
}

#[test]
fn both_versions_begin_with_a_request_or_at_once() {
    for version in [&TLS12, &TLS13] {
        for (direct, alpn) in [(false, &[][..]), (false, ALPN), (true, ALPN)] {
            let mut client = tls_client(yard().port(), client_config(&[version], alpn), direct).unwrap();
            assert_eq!(client.conn.protocol_version(), Some(version.version));
            assert_eq!(client.conn.alpn_protocol(), alpn.first().copied());
            assert_eq!(offered(&mut client), "SCRAM-SHA-256-PLUS SCRAM-SHA-256", "{version:?} {direct}");
        }
    }
}

#[test]
fn direct_tls_needs_the_application_protocol() {
    for alpn in [&[][..], &[b"http/1.1".as_slice()]] {
        let said = match tls_client(yard().port(), client_config(&[&TLS13], alpn), true) {
            // With TLS 1.3 a client may be done before it learns that it was refused.
            Ok(mut client) => {
                drop(client.write_all(&startup(&[("user", "app"), ("database", "app")])));
                rest(&mut client)
            }
            Err(_) => Vec::new(),
        };
        assert!(said.is_empty(), "{alpn:?}: {said:?}");
    }
}

#[test]
fn libpq_verifies_binds_and_resumes() {
    let (port, ca) = (yard().port(), secure_fleet().files.text("ca.crt"));
    let binding = url(port, &format!("sslmode=verify-full&sslrootcert={ca}&channel_binding=require"));
    assert_eq!(psql(&binding, "SELECT current_user"), "app");
    let stranger = secure_fleet().files.text("stranger.crt");
    let said = psql_output(&url(port, &format!("sslmode=verify-ca&sslrootcert={stranger}")), "SELECT 1");
    assert!(String::from_utf8_lossy(&said.stderr).contains("certificate verify failed"));
    // One configuration keeps its tickets: the second handshake is a short one.
    let config = client_config(&[&TLS13], &[]);
    let kinds: Vec<_> = (0..2)
        .map(|_| {
            let mut client = tls_client(port, config.clone(), false).unwrap();
            offered(&mut client);
            client.conn.handshake_kind()
        })
        .collect();
    assert_eq!(kinds, [Some(rustls::HandshakeKind::Full), Some(rustls::HandshakeKind::Resumed)]);
}

#[test]
fn nothing_in_clear_gets_into_tls() {
    // A StartupMessage behind the SSLRequest, in the same segment: as if somebody in the middle had put it there.
    for port in [yard().port(), secure_fleet().fleet.primary().port()] {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.write_all(&[ssl_request(), startup(&[("user", "app"), ("database", "app")])].concat()).unwrap();
        let said = rest(&mut socket);
        assert!(!said.windows(5).any(|window| window == b"SCRAM"), "{}", String::from_utf8_lossy(&said));
    }
}

#[test]
fn broken_beginnings_end_with_an_error_or_the_connection() {
    let port = yard().port();
    let check = |what: &str, bytes: &[u8], expect: &[u8], state: Option<&str>| {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.write_all(bytes).unwrap();
        drop(socket.shutdown(std::net::Shutdown::Write));
        let said = rest(&mut socket);
        let said = said.strip_prefix(expect).unwrap_or_else(|| panic!("{what}: {said:?}"));
        assert_eq!(first_error(said).as_deref(), state, "{what}: {}", String::from_utf8_lossy(said));
    };
    let gss_request = [8_u32.to_be_bytes(), 80_877_104_u32.to_be_bytes()].concat();
    check("rubbish instead of a ClientHello", &[ssl_request(), vec![0x16, 3, 1, 0xff, 0xff, 1, 2, 3]].concat(), b"S", None);
    check("a handshake that stops", &[0x16, 3, 1, 2, 0], b"", None);
    check("a record of another kind", &[0x16, 9, 9, 0, 1, 0], b"", None);
    check("GSSENCRequest twice", &[gss_request.clone(), gss_request].concat(), b"N", Some("08P01"));
    check("a packet of 10001 bytes", &10_001_u32.to_be_bytes(), b"", Some("08P01"));
    check("a packet of 4 GiB", &[0xff; 4], b"", Some("08P01"));
    check("a packet that is too short", &7_u32.to_be_bytes(), b"", Some("08P01"));
    check("protocol 2", &[8_u32.to_be_bytes(), (2_u32 << 16).to_be_bytes()].concat(), b"", Some("0A000"));
    check("no user", &startup(&[("database", "app")]), b"", Some("28000"));
    // PostgreSQL takes a second request for a protocol that it does not know.
    let mut client = tls_client(port, client_config(&[&TLS13], &[]), false).unwrap();
    client.write_all(&ssl_request()).unwrap();
    assert_eq!(first_error(&rest(&mut client)).as_deref(), Some("08P01"));
}

#[test]
fn without_tls_a_second_request_is_refused() {
    let secure = secure_fleet();
    let yard = Pgyard::start_with_config(&secure.fleet, &secure.config("[limits]\nlogin_timeout = '300ms'\n", ""));
    let mut client = RawClient::connect(yard.port()).unwrap();
    client.send(&ssl_request()).unwrap();
    assert_eq!(client.receive_byte().unwrap(), Some(b'N'));
    client.send(&ssl_request()).unwrap();
    assert_eq!(client.receive().unwrap().unwrap().field(b'C').as_deref(), Some("08P01"));
    // Direct TLS is not spoken either.
    assert!(tls_client(yard.port(), client_config(&[&TLS13], ALPN), true).is_err());
    // Whoever is slow is let go, wherever it stops.
    let packet = startup(&[("user", "app"), ("database", "app")]);
    for sent in [&b""[..], &packet[..3], &packet[..20], &packet] {
        let mut slow = RawClient::connect(yard.port()).unwrap();
        slow.send(sent).unwrap();
        while slow.receive().unwrap().is_some() {}
    }
    // The last is counted a moment after its connection has been closed.
    eventually("all four are counted", Duration::from_secs(5), || {
        yard.metric("pgyard_login_failures_total", &[("reason", "timeout")]).unwrap() >= 4.0
    });
}

#[test]
fn a_changed_certificate_is_shown_to_new_clients_and_a_broken_pair_is_not() {
    let secure = secure_fleet();
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| {
        for (kind, from) in [("crt", name.to_owned()), ("key", name.to_owned())] {
            std::fs::copy(secure.files.path(&format!("{from}.{kind}")), folder.path().join(format!("own.{kind}"))).unwrap();
        }
    };
    place("front");
    let own = |kind: &str| folder.path().join(format!("own.{kind}")).display().to_string();
    let tls = format!("[tls]\ncertificate = '{}'\nkey = '{}'\n", own("crt"), own("key"));
    let config = secure.config(&tls, "");
    let yard = Pgyard::start_with_config(&secure.fleet, &config);
    let shown = || {
        let client = tls_client(yard.port(), client_config(&[&TLS13], &[]), false).unwrap();
        client.conn.peer_certificates().unwrap()[0].to_vec()
    };
    let first = shown();
    let mut stays = tls_client(yard.port(), client_config(&[&TLS13], &[]), false).unwrap();
    place("other");
    assert_eq!(shown(), first, "nothing changes before the reload");
    let said = yard.reload(&config);
    assert!(said.contains("tls.certificate: changed"), "{said}");
    let second = shown();
    assert_ne!(second, first);
    // The one who came before is served on.
    assert_eq!(offered(&mut stays), "SCRAM-SHA-256-PLUS SCRAM-SHA-256");
    // A key that is another certificate's.
    std::fs::copy(secure.files.path("front.key"), own("key")).unwrap();
    let said = yard.reload(&config);
    assert!(said.contains("not reloaded") && said.contains("is not the key of the first certificate"), "{said}");
    assert_eq!(shown(), second);
    assert_eq!(yard.metric("pgyard_config_reloads_total", &[("result", "failed")]), Some(1.0));
}

#[test]
fn a_cancel_request_over_tls_reaches_its_statement() {
    let port = yard().port();
    let mut sleeper = yard().client();
    sleeper.send(&query("SELECT pg_sleep(120)")).unwrap();
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(120)%'";
    eventually("the statement runs", Duration::from_secs(10), || secure_fleet().fleet.primary().sql(running).unwrap() == "1");
    // pgyard's own request to the server goes over TLS too: sslmode is require.
    let mut canceller = tls_client(port, client_config(&[&TLS13], ALPN), true).unwrap();
    canceller.write_all(&cancel_request(sleeper.key)).unwrap();
    assert!(rest(&mut canceller).is_empty());
    let replies = sleeper.until_ready().unwrap();
    assert!(replies.iter().any(|reply| reply.field(b'C').as_deref() == Some("57014")), "{replies:?}");
}

#[test]
fn a_client_that_takes_binding_for_missing_is_warned_of_a_downgrade() {
    // `y`: "I could bind, but you did not offer it", although it was offered: somebody cut it out.
    let check = |mechanism: &str, first: &str, state: &str| {
        let mut client = tls_client(yard().port(), client_config(&[&TLS13], &[]), false).unwrap();
        offered(&mut client);
        let body = [mechanism.as_bytes(), &[0], &u32::try_from(first.len()).unwrap().to_be_bytes(), first.as_bytes()].concat();
        client.write_all(&super::harness::client::frame(b'p', &body)).unwrap();
        assert_eq!(first_error(&rest(&mut client)).as_deref(), Some(state), "{mechanism} {first}");
    };
    check("SCRAM-SHA-256", "y,,n=,r=abcdefghijklmnop", "28000");
    check("SCRAM-SHA-256-PLUS", "n,,n=,r=abcdefghijklmnop", "08P01");
    check("SCRAM-SHA-256-PLUS", "p=tls-unique,,n=,r=abcdefghijklmnop", "08P01");
    check("SCRAM-SHA-256", "p=tls-server-end-point,,n=,r=abcdefghijklmnop", "08P01");
    check("SCRAM-SHA-1", "n,,n=,r=abcdefghijklmnop", "08P01");
    check("SCRAM-SHA-256", "", "08P01");
}
