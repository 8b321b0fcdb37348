//! Handshakes in memory between [`ClientTls`] and [`ServerTls`], with certificates made on the spot.

#![cfg(test)]

use super::*;
use crate::config::{ClientTlsSettings, ServerTlsMode, ServerTlsSettings};
use ServerTlsMode::{Disable, Prefer, Require, VerifyCa, VerifyFull};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::{ClientConnection, HandshakeKind, ProtocolVersion, ServerConnection};
use std::path::PathBuf;

/// A directory of PEM files: `ca`, and `server`, `client` (common name alice), `expired`, each with a key; `self` is its own authority,
/// `stranger` an authority that issued nothing.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let files = Files(tempfile::tempdir().unwrap());
        let ca = authority("ca");
        files.write("ca", &ca.pem(), None);
        files.write("stranger", &authority("stranger").pem(), None);
        for (file, name) in [("server", "db.test"), ("client", "alice"), ("expired", "db.test")] {
            let mut params = CertificateParams::new(vec!["db.test".to_owned(), "127.0.0.1".to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            if file == "expired" {
                params.not_after = date_time_ymd(2020, 1, 1);
            }
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &ca).unwrap();
            files.write(file, &(certificate.pem() + &ca.pem()), Some(&key));
        }
        for (file, constraint) in [("self", IsCa::Ca(BasicConstraints::Unconstrained)), ("self-old", IsCa::NoCa)] {
            let mut params = CertificateParams::new(vec!["db.test".to_owned()]).unwrap();
            params.is_ca = constraint;
            if file == "self-old" {
                params.not_after = date_time_ymd(2020, 1, 1);
            }
            let key = KeyPair::generate().unwrap();
            files.write(file, &params.self_signed(&key).unwrap().pem(), Some(&key));
        }
        files
    }

    fn write(&self, name: &str, certificate: &str, key: Option<&KeyPair>) {
        std::fs::write(self.certificate(name), certificate).unwrap();
        if let Some(key) = key {
            std::fs::write(self.key(name), key.serialize_pem()).unwrap();
        }
    }

    fn certificate(&self, name: &str) -> PathBuf {
        self.0.path().join(name).with_extension("crt")
    }

    fn key(&self, name: &str) -> PathBuf {
        self.0.path().join(name).with_extension("key")
    }

    fn front(&self, name: &str, client_ca: Option<&str>) -> ClientTlsSettings {
        let client_ca = client_ca.map(|ca| self.certificate(ca));
        ClientTlsSettings {
            certificate: self.certificate(name),
            key: self.key(name),
            client_ca,
            required: true,
            client_cert_optional: false,
            content: 0,
        }
    }

    fn back(&self, mode: ServerTlsMode, ca: Option<&str>, certificate: Option<&str>) -> ServerTlsSettings {
        let certificate = certificate.map(|name| (self.certificate(name), self.key(name)));
        ServerTlsSettings { mode, ca: ca.map(|ca| self.certificate(ca)), certificate, content: 0 }
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Shakes hands until both sides are done and the client has its tickets, or one side fails.
fn shake(front: &ClientTls, back: &ServerTls, host: &str) -> Result<(ServerConnection, ClientConnection), TlsError> {
    let mut server = ServerConnection::new(front.config().clone()).unwrap();
    let mut client = ClientConnection::new(back.config().unwrap().clone(), ServerTls::server_name(host)?).unwrap();
    let failed = |error| TlsError::from_handshake(host, std::io::Error::other(error));
    for _ in 0..10 {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            server.read_tls(&mut wire).unwrap();
            server.process_new_packets().map_err(failed)?;
        }
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets().map_err(failed)?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((server, client))
}

#[test]
fn each_mode_believes_what_libpq_would() {
    let files = Files::new();
    let check = |mode, ca: Option<&str>, host: &str, shown: &str, expect: Result<(), &str>| {
        let front = ClientTls::load(&files.front(shown, None)).unwrap();
        let back = ServerTls::load(&files.back(mode, ca, None)).unwrap();
        assert_eq!(back.mode(), mode);
        match (shake(&front, &back, host), expect) {
            (Ok((server, client)), Ok(())) => {
                assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
                assert_eq!(server.alpn_protocol(), Some(ALPN_POSTGRESQL));
                assert!(front.endpoint_hash().is_some_and(|hash| hash.len() == 32));
                assert_eq!(ServerTls::endpoint_hash(&client).as_deref(), front.endpoint_hash());
            }
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{mode:?} {host} {shown}: {error}"),
            (actual, expect) => panic!("{mode:?} {ca:?} {host} {shown}: {:?}, not {expect:?}", actual.map(drop)),
        }
    };
    for mode in [Prefer, Require] {
        check(mode, None, "other.test", "server", Ok(()));
        check(mode, None, "10.0.0.1", "expired", Ok(()));
        check(mode, Some("ca"), "other.test", "server", Ok(()));
        check(mode, Some("stranger"), "db.test", "server", Err("set tls ca"));
    }
    check(VerifyCa, Some("ca"), "db.test", "server", Ok(()));
    check(VerifyCa, Some("ca"), "other.test", "server", Ok(()));
    check(VerifyCa, Some("stranger"), "db.test", "server", Err("set tls ca"));
    check(VerifyCa, Some("ca"), "db.test", "expired", Err("renew"));
    check(VerifyCa, Some("self"), "other.test", "self", Ok(()));
    check(VerifyCa, Some("ca"), "db.test", "self", Err("TLS with db.test failed"));
    check(VerifyCa, Some("self-old"), "db.test", "self-old", Err("renew"));
    check(VerifyFull, Some("ca"), "db.test", "server", Ok(()));
    check(VerifyFull, Some("ca"), "127.0.0.1", "server", Ok(()));
    check(VerifyFull, Some("ca"), "other.test", "server", Err("subjectAltName"));
    check(VerifyFull, Some("ca"), "127.0.0.2", "server", Err("subjectAltName"));
    check(VerifyFull, Some("stranger"), "db.test", "server", Err("set tls ca"));
    check(VerifyFull, Some("self"), "db.test", "self", Ok(()));
    check(VerifyFull, Some("self"), "other.test", "self", Err("subjectAltName"));
}

#[test]
fn disable_has_no_connector() {
    let files = Files::new();
    let back = ServerTls::load(&files.back(Disable, Some("missing"), None)).unwrap();
    assert!(back.connector().is_none() && back.config().is_none());
    assert!(ServerTls::load(&files.back(Require, None, None)).unwrap().connector().is_some());
}

#[test]
fn clients_show_certificates_where_an_authority_is_configured() {
    let files = Files::new();
    let front = ClientTls::load(&files.front("server", Some("ca"))).unwrap();
    assert!(front.required());
    let with = |certificate| ServerTls::load(&files.back(Require, None, certificate)).unwrap();
    let (server, _) = shake(&front, &with(Some("client")), "db.test").unwrap();
    assert_eq!(peer_common_name(server.peer_certificates().unwrap()).as_deref(), Some("alice"));
    for certificate in [None, Some("self"), Some("expired")] {
        assert!(shake(&front, &with(certificate), "db.test").is_err(), "{certificate:?}");
    }
    let anybody = ClientTls::load(&files.front("server", None)).unwrap();
    let (server, _) = shake(&anybody, &with(Some("client")), "db.test").unwrap();
    assert!(server.peer_certificates().is_none(), "not asked for");
}

#[test]
fn sessions_are_resumed_and_keep_the_channel_binding() {
    let files = Files::new();
    let front = ClientTls::load(&files.front("server", Some("ca"))).unwrap();
    let back = ServerTls::load(&files.back(VerifyFull, Some("ca"), Some("client"))).unwrap();
    for expect in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let (server, client) = shake(&front, &back, "db.test").unwrap();
        assert_eq!(client.handshake_kind(), Some(expect));
        assert_eq!(ServerTls::endpoint_hash(&client).as_deref(), front.endpoint_hash());
        assert_eq!(peer_common_name(server.peer_certificates().unwrap()).as_deref(), Some("alice"));
    }
    let reloaded = ClientTls::load(&files.front("server", Some("ca"))).unwrap();
    let (_, client) = shake(&reloaded, &back, "db.test").unwrap();
    assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full), "no session outlives a reload");
}

#[test]
fn bad_files_are_named_with_what_would_be_right() {
    let files = Files::new();
    let write = |name: &str, text: &str| std::fs::write(files.0.path().join(name), text).unwrap();
    write("empty.crt", "");
    write("cut.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    write("junk.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    write("locked.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    write("junk.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let check = |certificate: &str, key: &str, client_ca: Option<&str>, named: &str, advice: &str| {
        let path = |name: &str| files.0.path().join(name);
        let settings = ClientTlsSettings {
            certificate: path(certificate),
            key: path(key),
            client_ca: client_ca.map(path),
            required: false,
            client_cert_optional: false,
            content: 0,
        };
        let error = ClientTls::load(&settings).unwrap_err().to_string();
        assert!(error.contains(named) && error.contains(advice), "{certificate} {key}: {error}");
    };
    check("missing.crt", "server.key", None, "missing.crt", "must exist");
    check("server.crt", "missing.key", None, "missing.key", "must exist");
    check("empty.crt", "server.key", None, "empty.crt", "BEGIN CERTIFICATE");
    check("server.key", "server.key", None, "server.key", "BEGIN CERTIFICATE");
    check("cut.crt", "server.key", None, "cut.crt", "damaged PEM");
    check("junk.crt", "server.key", None, "junk.crt", "can't be used");
    check("server.crt", "server.crt", None, "server.crt", "BEGIN PRIVATE KEY");
    check("server.crt", "locked.key", None, "locked.key", "openssl pkey");
    check("server.crt", "junk.key", None, "junk.key", "can't be used");
    check("server.crt", "client.key", None, "client.key is not the key", "must come first");
    check("server.crt", "server.key", Some("junk.crt"), "junk.crt", "can't be trusted");
    check("server.crt", "server.key", Some("missing.crt"), "missing.crt", "must exist");

    let missing = files.back(VerifyCa, Some("missing"), None);
    assert!(ServerTls::load(&missing).unwrap_err().to_string().contains("missing.crt"));
    let mut mixed = files.back(Require, None, Some("client"));
    mixed.certificate = Some((files.certificate("client"), files.key("server")));
    assert!(ServerTls::load(&mixed).unwrap_err().to_string().contains("is not the key"));
}

#[test]
fn names_of_hosts() {
    for good in ["db.test", "localhost", "127.0.0.1", "::1", "db_1"] {
        assert!(ServerTls::server_name(good).is_ok(), "{good}");
    }
    for bad in ["/var/run/postgresql", "", "a b", "db:5432"] {
        assert!(ServerTls::server_name(bad).unwrap_err().to_string().contains("TLS"), "{bad}");
    }
}
