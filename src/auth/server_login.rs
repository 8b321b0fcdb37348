//! Logging in to a server.
//!
//! The caller has sent the startup message. It hands over the body of every `R` message, sends what a step says, and ends with
//! [`ServerLoginStep::Done`] or [`ServerLoginStep::Fail`]. ErrorResponses are the caller's to read.
//!
//! A password never leaves in clear over an unencrypted connection, and a server that was asked to prove that it knows the role's secret
//! (SCRAM) is not believed before it has.

use super::credential::{ServerCredential, TransportSecurity};
use super::error::AuthError;
use super::keys::{DerivedKeys, KeyCache, KeyRequest};
use super::md5;
use super::message::{self, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ServerAsks};
use super::scram_client::{ScramBinding, ScramClient};
use std::sync::Arc;

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum ServerLoginStep {
    /// Send these bytes, a whole message, and hand over the body of the next `R` message.
    Send(Vec<u8>),
    /// Derive these keys where it may take a while, and hand them to [`ServerLogin::derived`].
    Derive(KeyRequest),
    /// Nothing to send; hand over the body of the next `R` message.
    Continue,
    /// Logged in.
    Done,
    /// The connection is to be closed.
    Fail(AuthError),
}

/// One log-in to a server.
#[derive(Debug)]
pub struct ServerLogin {
    user: String,
    credential: ServerCredential,
    security: TransportSecurity,
    cache: Arc<KeyCache>,
    state: ServerLoginState,
}

#[derive(Debug)]
enum ServerLoginState {
    /// The startup message was sent.
    Started,
    /// A password was sent.
    Answered,
    /// The client-first-message was sent.
    ScramStarted(ScramClient),
    /// Keys for the server's challenge are being derived.
    ScramDerives(ScramClient, KeyRequest),
    /// The proof was sent; the derived keys are remembered once the server has taken it.
    ScramProven(ScramClient, Option<(KeyRequest, DerivedKeys)>),
    /// The server has proven itself too; only AuthenticationOk is left.
    ScramVerified,
    /// Logged in or failed.
    Ended,
}

impl ServerLogin {
    /// Starts a log-in. `security` describes the connection to the server; its hash is that of the server's certificate.
    pub fn new(user: String, credential: ServerCredential, security: TransportSecurity, cache: Arc<KeyCache>) -> Self {
        ServerLogin { user, credential, security, cache, state: ServerLoginState::Started }
    }

    /// Takes the body of an `R` message.
    pub fn receive(&mut self, body: &[u8]) -> ServerLoginStep {
        let step = match message::decode_server_asks(body) {
            Some(asks) => self.step(asks),
            None => Err(AuthError::ServerProtocol("an authentication message has the wrong shape")),
        };
        self.end_on_error(step)
    }

    /// Takes the keys that [`ServerLoginStep::Derive`] asked for.
    pub fn derived(&mut self, keys: DerivedKeys) -> ServerLoginStep {
        let step = match std::mem::replace(&mut self.state, ServerLoginState::Ended) {
            ServerLoginState::ScramDerives(client, request) => self.prove(client, &keys.clone(), Some((request, keys))),
            _ => Err(AuthError::OutOfOrder),
        };
        self.end_on_error(step)
    }

    fn end_on_error(&mut self, step: Result<ServerLoginStep, AuthError>) -> ServerLoginStep {
        step.unwrap_or_else(|error| {
            self.state = ServerLoginState::Ended;
            ServerLoginStep::Fail(error)
        })
    }

    fn step(&mut self, asks: ServerAsks<'_>) -> Result<ServerLoginStep, AuthError> {
        let state = std::mem::replace(&mut self.state, ServerLoginState::Ended);
        match (state, asks) {
            (ServerLoginState::Started | ServerLoginState::Answered | ServerLoginState::ScramVerified, ServerAsks::Ok) => {
                Ok(ServerLoginStep::Done)
            }
            (ServerLoginState::Started, ServerAsks::ClearText) => self.send_clear_text(),
            (ServerLoginState::Started, ServerAsks::Md5(salt)) => self.send_md5(salt),
            (ServerLoginState::Started, ServerAsks::Sasl { scram, scram_plus }) => self.start_scram(scram, scram_plus),
            (ServerLoginState::Started, ServerAsks::Other(code)) => Err(AuthError::UnsupportedByPgyard(method_name(code))),
            (ServerLoginState::ScramStarted(client), ServerAsks::SaslContinue(data)) => self.answer_challenge(client, data),
            (ServerLoginState::ScramProven(mut client, derived), ServerAsks::SaslFinal(data)) => {
                client.finish(data)?;
                if let Some((request, keys)) = derived {
                    self.cache.remember(&request, keys);
                }
                self.state = ServerLoginState::ScramVerified;
                Ok(ServerLoginStep::Continue)
            }
            (ServerLoginState::ScramStarted(_) | ServerLoginState::ScramProven(..), ServerAsks::Ok) => Err(
                AuthError::ServerProtocol("it let pgyard in without proving that it knows the password: it may be an impostor"),
            ),
            _ => Err(AuthError::ServerProtocol("an authentication message came out of order")),
        }
    }

    fn send_clear_text(&mut self) -> Result<ServerLoginStep, AuthError> {
        if !self.security.is_private() {
            return Err(AuthError::ServerWantsPlainWithoutTls);
        }
        let ServerCredential::Password(password) = &self.credential else {
            return Err(self.nothing_for("the password in clear"));
        };
        self.state = ServerLoginState::Answered;
        Ok(ServerLoginStep::Send(message::password(password.reveal())))
    }

    fn send_md5(&mut self, salt: [u8; 4]) -> Result<ServerLoginStep, AuthError> {
        let response = match &self.credential {
            ServerCredential::Password(password) => md5::response(&md5::stored_hash(&self.user, password), salt),
            ServerCredential::Md5(hash) => md5::response(hash, salt),
            ServerCredential::Scram(_) | ServerCredential::None => return Err(self.nothing_for("an MD5 password")),
        };
        self.state = ServerLoginState::Answered;
        Ok(ServerLoginStep::Send(message::password(response.reveal())))
    }

    fn start_scram(&mut self, scram: bool, scram_plus: bool) -> Result<ServerLoginStep, AuthError> {
        if matches!(self.credential, ServerCredential::Md5(_) | ServerCredential::None) {
            return Err(self.nothing_for("a SCRAM-SHA-256 proof"));
        }
        let (mechanism, binding) = match (self.security.endpoint_hash(), scram, scram_plus) {
            (Some(hash), _, true) => (SCRAM_SHA_256_PLUS, ScramBinding::EndPoint(hash.to_vec())),
            (Some(_), true, false) => (SCRAM_SHA_256, ScramBinding::NotOffered),
            (None, true, _) => (SCRAM_SHA_256, ScramBinding::Unsupported),
            _ => return Err(AuthError::UnsupportedByPgyard("SASL".to_owned())),
        };
        let client = ScramClient::new(binding);
        let first = message::sasl_initial_response(mechanism, &client.first());
        self.state = ServerLoginState::ScramStarted(client);
        Ok(ServerLoginStep::Send(first))
    }

    fn answer_challenge(&mut self, mut client: ScramClient, server_first: &[u8]) -> Result<ServerLoginStep, AuthError> {
        let challenge = client.challenge(server_first)?;
        match &self.credential {
            ServerCredential::Scram(known) if known.salt == challenge.salt && known.iterations == challenge.iterations => {
                let keys = known.keys.clone();
                self.prove(client, &keys, None)
            }
            ServerCredential::Scram(_) => Err(AuthError::DifferentVerifier { user: self.user.clone() }),
            ServerCredential::Password(password) => {
                let request = KeyRequest { password: password.clone(), salt: challenge.salt, iterations: challenge.iterations };
                if let Some(keys) = self.cache.get(&request) {
                    return self.prove(client, &keys, None);
                }
                self.state = ServerLoginState::ScramDerives(client, request.clone());
                Ok(ServerLoginStep::Derive(request))
            }
            ServerCredential::Md5(_) | ServerCredential::None => Err(self.nothing_for("a SCRAM-SHA-256 proof")),
        }
    }

    fn prove(
        &mut self,
        mut client: ScramClient,
        keys: &DerivedKeys,
        derived: Option<(KeyRequest, DerivedKeys)>,
    ) -> Result<ServerLoginStep, AuthError> {
        let response = message::sasl_response(&client.respond(keys)?);
        self.state = ServerLoginState::ScramProven(client, derived);
        Ok(ServerLoginStep::Send(response))
    }

    fn nothing_for(&self, asked: &'static str) -> AuthError {
        AuthError::NothingToLogInWith { user: self.user.clone(), asked, known: self.credential.known() }
    }
}

/// Spec: PostgreSQL documentation, "Message Formats", the `AUTH_REQ` codes.
fn method_name(code: u32) -> String {
    match code {
        2 => "Kerberos V5".to_owned(),
        6 => "SCM credential".to_owned(),
        7 => "GSSAPI".to_owned(),
        9 => "SSPI".to_owned(),
        code => format!("unknown (code {code})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::credential::ScramKeys;
    use crate::auth::scram_server::{ScramExpectation, ScramMechanism, ScramServer};
    use crate::auth::verifier::ScramVerifier;
    use crate::types::Secret;
    use proptest::prelude::*;

    fn cache() -> Arc<KeyCache> {
        Arc::new(KeyCache::new(10))
    }

    fn password() -> ServerCredential {
        ServerCredential::Password(Secret::new("pencil"))
    }

    fn md5_hash() -> ServerCredential {
        ServerCredential::Md5(md5::stored_hash("alice", &Secret::new("pencil")))
    }

    fn request(salt: u8) -> KeyRequest {
        KeyRequest { password: Secret::new("pencil"), salt: vec![salt; 16], iterations: 2 }
    }

    fn keys() -> ServerCredential {
        ServerCredential::Scram(ScramKeys { keys: request(7).derive(), salt: vec![7; 16], iterations: 2 })
    }

    fn login(credential: ServerCredential, security: TransportSecurity) -> ServerLogin {
        ServerLogin::new("alice".to_owned(), credential, security, cache())
    }

    fn tls() -> TransportSecurity {
        TransportSecurity::Tls { endpoint_hash: Some(b"hash".to_vec()) }
    }

    /// Logs in to a server whose verifier has `salt`; the server offers PLUS if it has a hash.
    fn scram(login: &mut ServerLogin, salt: u8, hash: Option<&[u8]>) -> Result<usize, AuthError> {
        let verifier = ScramVerifier::from_keys(&request(salt), &request(salt).derive());
        let mut server = ScramServer::new(ScramExpectation::Verifier(verifier), hash.map(<[u8]>::to_vec));
        let mut started = false;
        let mut derivations = 0;
        let mut step = login.receive(&message::sasl(hash.is_some())[5..]);
        loop {
            step = match step {
                ServerLoginStep::Send(bytes) if !started => {
                    started = true;
                    let response = message::decode_sasl_initial_response(&bytes[5..]).unwrap();
                    let mechanism =
                        if response.mechanism == SCRAM_SHA_256 { ScramMechanism::Unbound } else { ScramMechanism::Bound };
                    let first = server.first(mechanism, response.data.unwrap())?;
                    login.receive(&message::sasl_continue(&first)[5..])
                }
                ServerLoginStep::Send(bytes) => {
                    let success = server.last(&bytes[5..])?;
                    login.receive(&message::sasl_final(&success.server_final)[5..])
                }
                ServerLoginStep::Derive(request) => {
                    derivations += 1;
                    login.derived(request.derive())
                }
                ServerLoginStep::Continue => login.receive(&message::authentication_ok()[5..]),
                ServerLoginStep::Done => return Ok(derivations),
                ServerLoginStep::Fail(error) => return Err(error),
            }
        }
    }

    #[test]
    fn scram_with_a_password_or_with_keys() {
        for (security, hash) in [
            (TransportSecurity::Plaintext, None),
            (TransportSecurity::UnixSocket, None),
            (tls(), None),
            (tls(), Some(&b"hash"[..])),
            (TransportSecurity::Tls { endpoint_hash: None }, Some(b"hash")),
        ] {
            assert_eq!(scram(&mut login(password(), security.clone()), 7, hash), Ok(1), "{security:?}");
            assert_eq!(scram(&mut login(keys(), security.clone()), 7, hash), Ok(0), "{security:?}");
        }
        let error = scram(&mut login(password(), tls()), 7, Some(b"other")).unwrap_err();
        assert!(error.to_string().contains("channel binding check failed"), "{error}");
        let error = scram(&mut login(keys(), tls()), 8, None).unwrap_err();
        assert_eq!(error, AuthError::DifferentVerifier { user: "alice".to_owned() });
        for credential in [md5_hash(), ServerCredential::None] {
            let error = scram(&mut login(credential, tls()), 7, None).unwrap_err();
            assert!(error.to_string().contains("set server_password"), "{error}");
        }
    }

    #[test]
    fn keys_are_remembered_once_the_server_took_them() {
        let cache = cache();
        for (user_password, expect) in [("wrong", None), ("pencil", Some(1)), ("pencil", Some(0))] {
            let credential = ServerCredential::Password(Secret::new(user_password));
            let mut login = ServerLogin::new("alice".to_owned(), credential, TransportSecurity::Plaintext, cache.clone());
            assert_eq!(scram(&mut login, 7, None).ok(), expect, "{user_password}");
        }
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn simple_methods() {
        let check = |credential: ServerCredential, security: TransportSecurity, asked: &[u8], expect: Result<&str, &str>| {
            let mut login = login(credential.clone(), security);
            match (login.receive(asked), expect) {
                (ServerLoginStep::Send(bytes), Ok(text)) => {
                    assert_eq!(bytes, message::password(text));
                    assert_eq!(login.receive(&[0; 4]), ServerLoginStep::Done);
                }
                (ServerLoginStep::Done, Ok("")) => {}
                (ServerLoginStep::Fail(error), Err(text)) => {
                    assert!(error.to_string().contains(text), "{error}");
                    assert!(matches!(login.receive(&[0; 4]), ServerLoginStep::Fail(_)));
                }
                (step, expect) => panic!("{credential:?} {asked:?}: {step:?}, not {expect:?}"),
            }
        };
        use TransportSecurity::{Plaintext, UnixSocket};
        let (ok, clear, salted) = (&[0; 4][..], &[0, 0, 0, 3][..], &[0, 0, 0, 5, 1, 2, 3, 4][..]);
        let answer = md5::response(&md5::stored_hash("alice", &Secret::new("pencil")), [1, 2, 3, 4]);
        check(ServerCredential::None, Plaintext, ok, Ok(""));
        check(password(), Plaintext, clear, Err("in clear over an unencrypted connection"));
        check(password(), UnixSocket, clear, Ok("pencil"));
        check(password(), tls(), clear, Ok("pencil"));
        check(md5_hash(), tls(), clear, Err("its MD5 hash only"));
        check(keys(), tls(), clear, Err("its SCRAM keys only"));
        check(ServerCredential::None, tls(), clear, Err("no password of it"));
        check(password(), Plaintext, salted, Ok(answer.reveal()));
        check(md5_hash(), Plaintext, salted, Ok(answer.reveal()));
        check(keys(), Plaintext, salted, Err("its SCRAM keys only"));
        check(ServerCredential::None, Plaintext, salted, Err("no password of it"));
        check(password(), tls(), &[0, 0, 0, 7], Err("GSSAPI"));
        check(password(), tls(), &[0, 0, 0, 99], Err("code 99"));
        check(password(), tls(), b"\0\0\0\x0aOAUTHBEARER\0\0", Err("SASL"));
        check(password(), tls(), b"", Err("wrong shape"));
        check(password(), tls(), b"\0\0\0\x0bxyz", Err("out of order"));
        check(password(), tls(), b"\0\0\0\x0cxyz", Err("out of order"));
    }

    #[test]
    fn a_server_that_skips_its_proof_is_not_believed() {
        let mut early = login(keys(), TransportSecurity::Plaintext);
        early.receive(&message::sasl(false)[5..]);
        let ServerLoginStep::Fail(error) = early.receive(&[0; 4]) else { panic!("believed") };
        assert!(error.to_string().contains("impostor"), "{error}");
        let mut twice = login(password(), tls());
        twice.receive(&[0, 0, 0, 3]);
        assert!(matches!(twice.receive(&[0, 0, 0, 3]), ServerLoginStep::Fail(_)), "a password is sent once");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bodies in proptest::collection::vec((any::<u8>(), any::<Vec<u8>>()), 1..5)) {
            let mut login = login(password(), tls());
            for (code, rest) in bodies {
                let body = [&[0, 0, 0, code % 14], &rest[..]].concat();
                if let ServerLoginStep::Derive(request) = login.receive(&body) {
                    login.derived(KeyRequest { iterations: 1, ..request }.derive());
                }
            }
        }
    }
}
