//! Authenticating a client.
//!
//! The caller has read the startup message and looked the role up. It sends what a step says, hands over the bodies of `p` messages, and
//! ends with [`ClientLoginStep::Accepted`] or [`ClientLoginStep::Refused`]. AuthenticationOk is the caller's to send, because more may have
//! to be right first.
//!
//! A role that does not exist is asked for its password like any other and refused with the same words. Two things are not hidden, as
//! PostgreSQL doesn't hide them either: whether a role uses MD5 or SCRAM, and, until its keys are cached, that deriving them for a
//! configured password takes time.

use super::credential::{ServerCredential, TransportSecurity};
use super::error::{AuthError, ScramError};
use super::keys::{DEFAULT_ITERATIONS, DerivedKeys, KeyCache, KeyRequest};
use super::md5;
use super::message::{self, MAX_PASSWORD_BODY, MAX_SASL_BODY, SCRAM_SHA_256, SCRAM_SHA_256_PLUS};
use super::scram_server::{ScramExpectation, ScramMechanism, ScramServer};
use super::verifier::{ScramVerifier, StoredSecret};
use crate::config::AuthMethod;
use crate::types::Secret;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// Who wants in, and what is known of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuthRequest {
    /// What is asked of clients.
    pub method: AuthMethod,
    /// The role's stored secret; `None`: there is no such role, or it must not log in.
    pub secret: Option<StoredSecret>,
    /// How the client is connected; for TLS with the hash of the certificate that it was shown.
    pub security: TransportSecurity,
    /// The role's name.
    pub user: String,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientLoginStep {
    /// Send these bytes, a whole message, and hand over the body of the client's next `p` message.
    Send(Vec<u8>),
    /// Derive these keys where it may take a while, and hand them to [`ClientLogin::derived`].
    Derive(KeyRequest),
    /// The client is who it says.
    Accepted {
        /// With what its role can be logged in to servers.
        credential: ServerCredential,
        /// A whole message to send before AuthenticationOk.
        final_message: Option<Vec<u8>>,
    },
    /// It is not, or it broke the protocol. The connection is to be closed with this error.
    Refused(AuthError),
}

/// One client's log-in.
#[derive(Debug)]
pub struct ClientLogin {
    user: String,
    endpoint_hash: Option<Vec<u8>>,
    cache: Arc<KeyCache>,
    state: ClientLoginState,
}

#[derive(Debug)]
enum ClientLoginState {
    /// Keys of a configured password, before SCRAM can be offered.
    DerivesOwn { password: Secret, request: KeyRequest },
    /// AuthenticationSASL is sent. A configured password is kept for the servers.
    SaslOffered { server: ScramServer, password: Option<Secret> },
    /// The client chose a mechanism without sending its first message, and was sent an empty challenge.
    SaslEmpty { server: ScramServer, mechanism: ScramMechanism, password: Option<Secret> },
    /// The server-first-message is sent.
    SaslChallenged { server: ScramServer, password: Option<Secret> },
    /// AuthenticationMD5Password is sent.
    Md5 { salt: [u8; 4], secret: Option<StoredSecret> },
    /// AuthenticationCleartextPassword is sent.
    Plain { secret: Option<StoredSecret> },
    /// Keys of the password that the client sent; no verifier: the role does not exist, but takes as long.
    DerivesTheirs { password: Secret, request: KeyRequest, verifier: Option<ScramVerifier> },
    /// Accepted or refused.
    Ended,
}

/// How a client is asked, out of method and stored secret.
enum Asked {
    Scram,
    Md5,
    Plain,
    Nothing,
}

fn asked(method: AuthMethod, secret: Option<&StoredSecret>) -> Asked {
    match (method, secret) {
        (AuthMethod::Trust, _) => Asked::Nothing,
        (AuthMethod::Plain, _) => Asked::Plain,
        (AuthMethod::Auto, Some(StoredSecret::Md5(_))) => Asked::Md5,
        // As under PostgreSQL's method md5: nothing else is possible with a SCRAM verifier.
        (AuthMethod::Md5, Some(StoredSecret::Scram(_))) => Asked::Scram,
        (AuthMethod::Md5, _) => Asked::Md5,
        (AuthMethod::Auto | AuthMethod::Scram, _) => Asked::Scram,
    }
}

impl ClientLogin {
    /// Starts a log-in and gives its first step.
    pub fn new(request: ClientAuthRequest, cache: Arc<KeyCache>) -> (Self, ClientLoginStep) {
        let ClientAuthRequest { method, secret, security, user } = request;
        let endpoint_hash = security.endpoint_hash().map(<[u8]>::to_vec);
        let mut login = ClientLogin { user, endpoint_hash, cache, state: ClientLoginState::Ended };
        let step = match asked(method, secret.as_ref()) {
            Asked::Nothing => ClientLoginStep::Accepted { credential: trusted(secret), final_message: None },
            Asked::Plain if !security.is_private() => ClientLoginStep::Refused(AuthError::PlainWithoutTls),
            Asked::Plain => {
                login.state = ClientLoginState::Plain { secret };
                ClientLoginStep::Send(message::clear_text_password())
            }
            Asked::Md5 => {
                let salt = rand::random();
                login.state = ClientLoginState::Md5 { salt, secret };
                ClientLoginStep::Send(message::md5_password(salt))
            }
            Asked::Scram => login.start_scram(secret),
        };
        (login, step)
    }

    fn start_scram(&mut self, secret: Option<StoredSecret>) -> ClientLoginStep {
        match secret {
            Some(StoredSecret::Scram(verifier)) => self.offer_sasl(ScramExpectation::Verifier(verifier), None),
            Some(StoredSecret::Plain(password)) => {
                let salt = self.cache.salt_for(&self.user);
                let request = KeyRequest { password: password.clone(), salt, iterations: DEFAULT_ITERATIONS };
                if let Some(keys) = self.cache.get(&request) {
                    let verifier = ScramVerifier::from_keys(&request, &keys);
                    return self.offer_sasl(ScramExpectation::Verifier(verifier), Some(password));
                }
                self.state = ClientLoginState::DerivesOwn { password, request: request.clone() };
                ClientLoginStep::Derive(request)
            }
            Some(StoredSecret::Md5(_)) | None => self.offer_sasl(ScramExpectation::mock(&self.user, &self.cache), None),
        }
    }

    fn offer_sasl(&mut self, expectation: ScramExpectation, password: Option<Secret>) -> ClientLoginStep {
        let server = ScramServer::new(expectation, self.endpoint_hash.take());
        let offer = message::sasl(server.offers_binding());
        self.state = ClientLoginState::SaslOffered { server, password };
        ClientLoginStep::Send(offer)
    }

    /// Takes the body of a `p` message.
    pub fn receive(&mut self, body: &[u8]) -> ClientLoginStep {
        let step = match std::mem::replace(&mut self.state, ClientLoginState::Ended) {
            ClientLoginState::SaslOffered { server, password } => self.sasl_chosen(server, password, body),
            ClientLoginState::SaslEmpty { server, mechanism, password } => self.sasl_first(server, mechanism, password, body),
            ClientLoginState::SaslChallenged { server, password } => self.sasl_last(server, password, body),
            ClientLoginState::Md5 { salt, secret } => self.md5_answer(salt, secret, body),
            ClientLoginState::Plain { secret } => self.plain_answer(secret, body),
            ClientLoginState::DerivesOwn { .. } | ClientLoginState::DerivesTheirs { .. } | ClientLoginState::Ended => {
                Err(AuthError::OutOfOrder)
            }
        };
        self.end_on_error(step)
    }

    /// Takes the keys that [`ClientLoginStep::Derive`] asked for.
    pub fn derived(&mut self, keys: DerivedKeys) -> ClientLoginStep {
        let step = match std::mem::replace(&mut self.state, ClientLoginState::Ended) {
            ClientLoginState::DerivesOwn { password, request } => {
                let verifier = ScramVerifier::from_keys(&request, &keys);
                self.cache.remember(&request, keys);
                Ok(self.offer_sasl(ScramExpectation::Verifier(verifier), Some(password)))
            }
            ClientLoginState::DerivesTheirs { password, request, verifier } => match verifier {
                Some(verifier) if verifier.matches(&keys) => {
                    self.cache.remember(&request, keys);
                    Ok(accepted(ServerCredential::Password(password)))
                }
                Some(_) => Err(self.failed("wrong password")),
                None => Err(self.failed("no such role, or it must not log in")),
            },
            _ => Err(AuthError::OutOfOrder),
        };
        self.end_on_error(step)
    }

    fn end_on_error(&mut self, step: Result<ClientLoginStep, AuthError>) -> ClientLoginStep {
        step.unwrap_or_else(|error| {
            self.state = ClientLoginState::Ended;
            // What a client must not tell from a wrong password is said as one.
            ClientLoginStep::Refused(match error {
                AuthError::Scram(ScramError::WrongProof) => self.failed("wrong password, no such role, or no SCRAM secret"),
                error => error,
            })
        })
    }

    fn failed(&self, reason: &'static str) -> AuthError {
        AuthError::PasswordFailed { user: self.user.clone(), reason }
    }

    fn sasl_chosen(&mut self, server: ScramServer, password: Option<Secret>, body: &[u8]) -> Result<ClientLoginStep, AuthError> {
        check_sasl_length(body)?;
        let response =
            message::decode_sasl_initial_response(body).ok_or(AuthError::MalformedPassword("not a SASLInitialResponse"))?;
        let mechanism = match response.mechanism {
            SCRAM_SHA_256 => ScramMechanism::Unbound,
            SCRAM_SHA_256_PLUS if server.offers_binding() => ScramMechanism::Bound,
            _ => return Err(AuthError::InvalidMechanism),
        };
        match response.data {
            Some(client_first) => self.sasl_first(server, mechanism, password, client_first),
            None => {
                self.state = ClientLoginState::SaslEmpty { server, mechanism, password };
                Ok(ClientLoginStep::Send(message::sasl_continue(&[])))
            }
        }
    }

    fn sasl_first(
        &mut self,
        mut server: ScramServer,
        mechanism: ScramMechanism,
        password: Option<Secret>,
        client_first: &[u8],
    ) -> Result<ClientLoginStep, AuthError> {
        check_sasl_length(client_first)?;
        let server_first = server.first(mechanism, client_first)?;
        self.state = ClientLoginState::SaslChallenged { server, password };
        Ok(ClientLoginStep::Send(message::sasl_continue(&server_first)))
    }

    fn sasl_last(&self, mut server: ScramServer, password: Option<Secret>, body: &[u8]) -> Result<ClientLoginStep, AuthError> {
        check_sasl_length(body)?;
        let success = server.last(body)?;
        let credential = match password {
            Some(password) => ServerCredential::Password(password),
            None => ServerCredential::Scram(success.keys),
        };
        Ok(ClientLoginStep::Accepted { credential, final_message: Some(message::sasl_final(&success.server_final)) })
    }

    fn md5_answer(&self, salt: [u8; 4], secret: Option<StoredSecret>, body: &[u8]) -> Result<ClientLoginStep, AuthError> {
        let answer = password_text(body)?;
        let (hash, credential) = match secret {
            Some(StoredSecret::Md5(hash)) => (hash.clone(), ServerCredential::Md5(hash)),
            Some(StoredSecret::Plain(password)) => {
                (md5::stored_hash(&self.user, &password), ServerCredential::Password(password))
            }
            Some(StoredSecret::Scram(_)) | None => {
                // Verified all the same, against nothing, so that it takes as long.
                md5::verify(&Secret::default(), salt, answer);
                return Err(self.failed("no such role, or it must not log in"));
            }
        };
        if md5::verify(&hash, salt, answer) { Ok(accepted(credential)) } else { Err(self.failed("wrong password")) }
    }

    fn plain_answer(&mut self, secret: Option<StoredSecret>, body: &[u8]) -> Result<ClientLoginStep, AuthError> {
        let answer = password_text(body)?;
        let text = std::str::from_utf8(answer).map_err(|_| self.failed("the password is not UTF-8"))?;
        let password = Secret::new(text);
        let right = match &secret {
            Some(StoredSecret::Plain(expect)) => bool::from(expect.reveal().as_bytes().ct_eq(answer)),
            Some(StoredSecret::Md5(hash)) => *hash == md5::stored_hash(&self.user, &password),
            Some(StoredSecret::Scram(verifier)) => return Ok(self.check_against(Some(verifier.clone()), password)),
            None => return Ok(self.check_against(None, password)),
        };
        if right { Ok(accepted(ServerCredential::Password(password))) } else { Err(self.failed("wrong password")) }
    }

    /// Compares a password with a verifier, by keys from the cache or by derivation.
    fn check_against(&mut self, verifier: Option<ScramVerifier>, password: Secret) -> ClientLoginStep {
        let request = match &verifier {
            Some(verifier) => verifier.key_request(&password),
            None => {
                let salt = self.cache.salt_for(&self.user);
                KeyRequest { password: password.clone(), salt, iterations: DEFAULT_ITERATIONS }
            }
        };
        let cached = self.cache.get(&request);
        if verifier.as_ref().zip(cached.as_ref()).is_some_and(|(verifier, keys)| verifier.matches(keys)) {
            return accepted(ServerCredential::Password(password));
        }
        self.state = ClientLoginState::DerivesTheirs { password, request: request.clone(), verifier };
        ClientLoginStep::Derive(request)
    }
}

fn accepted(credential: ServerCredential) -> ClientLoginStep {
    ClientLoginStep::Accepted { credential, final_message: None }
}

/// What is known of a role that was not asked for anything.
fn trusted(secret: Option<StoredSecret>) -> ServerCredential {
    match secret {
        Some(StoredSecret::Plain(password)) => ServerCredential::Password(password),
        Some(StoredSecret::Md5(hash)) => ServerCredential::Md5(hash),
        Some(StoredSecret::Scram(_)) | None => ServerCredential::None,
    }
}

fn check_sasl_length(body: &[u8]) -> Result<(), AuthError> {
    if body.len() > MAX_SASL_BODY { Err(AuthError::MalformedPassword("longer than 1024 bytes")) } else { Ok(()) }
}

/// The text of a PasswordMessage.
///
/// Spec: PostgreSQL `recv_password_packet`.
fn password_text(body: &[u8]) -> Result<&[u8], AuthError> {
    if body.len() > MAX_PASSWORD_BODY {
        return Err(AuthError::MalformedPassword("longer than 65535 bytes"));
    }
    match body {
        [] => Err(AuthError::MalformedPassword("no terminator")),
        [0] => Err(AuthError::EmptyPassword),
        [text @ .., 0] if !text.contains(&0) => Ok(text),
        _ => Err(AuthError::MalformedPassword("its terminator is not at its end")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::scram_client::{ScramBinding, ScramClient};
    use proptest::prelude::*;

    const USER: &str = "alice";

    fn cache() -> Arc<KeyCache> {
        Arc::new(KeyCache::new(10))
    }

    fn plain() -> Option<StoredSecret> {
        Some(StoredSecret::Plain(Secret::new("pencil")))
    }

    fn md5_hash() -> Secret {
        md5::stored_hash(USER, &Secret::new("pencil"))
    }

    fn scram() -> Option<StoredSecret> {
        let request = KeyRequest { password: Secret::new("pencil"), salt: vec![7; 16], iterations: 2 };
        Some(StoredSecret::Scram(ScramVerifier::from_keys(&request, &request.derive())))
    }

    fn tls(hash: &[u8]) -> TransportSecurity {
        TransportSecurity::Tls { endpoint_hash: Some(hash.to_vec()) }
    }

    fn start(
        method: AuthMethod,
        secret: Option<StoredSecret>,
        security: TransportSecurity,
        cache: &Arc<KeyCache>,
    ) -> (ClientLogin, ClientLoginStep) {
        ClientLogin::new(ClientAuthRequest { method, secret, security, user: USER.to_owned() }, cache.clone())
    }

    /// Plays a client that knows `password` and does what it is asked, to the end; also says how many derivations were needed.
    fn play(login: &mut ClientLogin, mut step: ClientLoginStep, password: &str) -> (ClientLoginStep, usize) {
        let mut client = None;
        let mut derivations = 0;
        let password = Secret::new(password);
        loop {
            step = match step {
                ClientLoginStep::Derive(request) => {
                    derivations += 1;
                    login.derived(request.derive())
                }
                ClientLoginStep::Send(bytes) => {
                    let answer = match message::decode_server_asks(&bytes[5..]).unwrap() {
                        message::ServerAsks::ClearText => message::password(password.reveal()),
                        message::ServerAsks::Md5(salt) => {
                            message::password(md5::response(&md5::stored_hash(USER, &password), salt).reveal())
                        }
                        message::ServerAsks::Sasl { scram_plus, .. } => {
                            let (binding, mechanism) = match scram_plus {
                                true => (ScramBinding::EndPoint(b"hash".to_vec()), SCRAM_SHA_256_PLUS),
                                false => (ScramBinding::Unsupported, SCRAM_SHA_256),
                            };
                            let scram = client.insert(ScramClient::new(binding));
                            message::sasl_initial_response(mechanism, &scram.first())
                        }
                        message::ServerAsks::SaslContinue(data) => {
                            let scram: &mut ScramClient = client.as_mut().unwrap();
                            let challenge = scram.challenge(data).unwrap();
                            let (salt, iterations) = (challenge.salt, challenge.iterations);
                            let keys = KeyRequest { password: password.clone(), salt, iterations }.derive();
                            message::sasl_response(&scram.respond(&keys).unwrap())
                        }
                        other => panic!("{other:?}"),
                    };
                    login.receive(&answer[5..])
                }
                end => {
                    if let ClientLoginStep::Accepted { final_message: Some(bytes), .. } = &end {
                        let Some(message::ServerAsks::SaslFinal(data)) = message::decode_server_asks(&bytes[5..]) else {
                            panic!("{bytes:?}")
                        };
                        client.unwrap().finish(data).unwrap();
                    }
                    return (end, derivations);
                }
            }
        }
    }

    fn credential(step: ClientLoginStep) -> Result<ServerCredential, AuthError> {
        match step {
            ClientLoginStep::Accepted { credential, .. } => Ok(credential),
            ClientLoginStep::Refused(error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_method_with_every_secret() {
        use AuthMethod::{Auto, Md5, Plain, Scram, Trust};
        let md5 = || Some(StoredSecret::Md5(md5_hash()));
        let password = ServerCredential::Password(Secret::new("pencil"));
        let hash = ServerCredential::Md5(md5_hash());
        // What the right password gives: none is a refusal; and whether SCRAM keys are what it gives.
        for (method, secret, right, keys) in [
            (Auto, plain(), Some(&password), false),
            (Auto, scram(), None, true),
            (Auto, md5(), Some(&hash), false),
            (Auto, None, None, false),
            (Scram, plain(), Some(&password), false),
            (Scram, scram(), None, true),
            (Scram, md5(), None, false),
            (Scram, None, None, false),
            (Md5, plain(), Some(&password), false),
            (Md5, scram(), None, true),
            (Md5, md5(), Some(&hash), false),
            (Md5, None, None, false),
            (Plain, plain(), Some(&password), false),
            (Plain, scram(), Some(&password), false),
            (Plain, md5(), Some(&password), false),
            (Plain, None, None, false),
        ] {
            for security in [TransportSecurity::UnixSocket, tls(b"hash"), TransportSecurity::Tls { endpoint_hash: None }] {
                let (mut login, first) = start(method, secret.clone(), security.clone(), &cache());
                let (end, _) = play(&mut login, first, "pencil");
                match credential(end) {
                    Ok(ServerCredential::Scram(known)) if keys => {
                        assert_eq!((known.salt, known.iterations), (vec![7; 16], 2));
                    }
                    Ok(credential) => assert_eq!(Some(&credential), right, "{method:?} {secret:?}"),
                    Err(error) => {
                        assert!(right.is_none() && !keys, "{method:?} {secret:?} {security:?} {error}");
                        assert_eq!(error.to_string(), "password authentication failed for user \"alice\"");
                    }
                }
                assert_eq!(login.receive(b"x\0"), ClientLoginStep::Refused(AuthError::OutOfOrder));

                let (mut login, first) = start(method, secret.clone(), security.clone(), &cache());
                let error = credential(play(&mut login, first, "pencils").0).unwrap_err();
                assert_eq!(error.to_string(), "password authentication failed for user \"alice\"", "{method:?} {secret:?}");
            }
        }
        for (secret, expect) in [
            (None, ServerCredential::None),
            (scram(), ServerCredential::None),
            (md5(), hash.clone()),
            (plain(), password.clone()),
        ] {
            let (_, step) = start(Trust, secret, TransportSecurity::Plaintext, &cache());
            assert_eq!(credential(step), Ok(expect));
        }
    }

    #[test]
    fn passwords_in_clear_need_a_private_connection() {
        let (mut login, step) = start(AuthMethod::Plain, plain(), TransportSecurity::Plaintext, &cache());
        assert_eq!(step, ClientLoginStep::Refused(AuthError::PlainWithoutTls));
        assert_eq!(login.receive(b"pencil\0"), ClientLoginStep::Refused(AuthError::OutOfOrder));
    }

    #[test]
    fn keys_are_derived_once_for_right_passwords_and_never_kept_for_wrong_ones() {
        let derivations = |cache: &Arc<KeyCache>, method, secret, password: &str| {
            let (mut login, step) = start(method, secret, TransportSecurity::UnixSocket, cache);
            play(&mut login, step, password).1
        };
        let cache = cache();
        assert_eq!(derivations(&cache, AuthMethod::Scram, plain(), "wrong"), 1, "the configured password's keys");
        assert_eq!(derivations(&cache, AuthMethod::Scram, plain(), "pencil"), 0);
        assert_eq!(cache.len(), 1);
        assert_eq!(derivations(&cache, AuthMethod::Plain, scram(), "wrong"), 1);
        assert_eq!(derivations(&cache, AuthMethod::Plain, None, "wrong"), 1, "unknown roles take as long");
        assert_eq!(cache.len(), 1);
        assert_eq!(derivations(&cache, AuthMethod::Plain, scram(), "pencil"), 1);
        assert_eq!(derivations(&cache, AuthMethod::Plain, scram(), "pencil"), 0);
        assert_eq!(cache.len(), 2);
        assert_eq!(derivations(&cache, AuthMethod::Scram, scram(), "pencil"), 0);
    }

    #[test]
    fn a_client_may_wait_for_an_empty_challenge() {
        let (mut login, _) = start(AuthMethod::Auto, scram(), TransportSecurity::Plaintext, &cache());
        let empty = login.receive(b"SCRAM-SHA-256\0\xff\xff\xff\xff");
        assert_eq!(empty, ClientLoginStep::Send(message::sasl_continue(b"")));
        assert!(matches!(login.receive(b"n,,n=,r=abc"), ClientLoginStep::Send(_)));
    }

    #[test]
    fn malformed_answers_are_refused() {
        let check = |method, secret, body: &[u8], expect: &str| {
            let (mut login, _) = start(method, secret, TransportSecurity::UnixSocket, &cache());
            let ClientLoginStep::Refused(error) = login.receive(body) else { panic!("{}", body.escape_ascii()) };
            assert!(error.to_string().contains(expect), "{}: {error}", body.escape_ascii());
            assert_eq!(login.receive(body), ClientLoginStep::Refused(AuthError::OutOfOrder));
        };
        for method in [AuthMethod::Md5, AuthMethod::Plain] {
            check(method, plain(), b"", "no terminator");
            check(method, plain(), b"\0", "empty password");
            check(method, plain(), b"pencil", "terminator");
            check(method, plain(), b"pen\0cil\0", "terminator");
            check(method, plain(), b"pencil\0\0", "terminator");
            check(method, plain(), &[b'x'; 65536], "longer than 65535");
            check(method, plain(), b"\xff\0", "password authentication failed");
        }
        check(AuthMethod::Scram, scram(), b"", "SASLInitialResponse");
        check(AuthMethod::Scram, scram(), b"pencil\0", "SASLInitialResponse");
        check(AuthMethod::Scram, scram(), b"SCRAM-SHA-256\0\0\0\0\x0an,,n=,r=a", "SASLInitialResponse");
        check(AuthMethod::Scram, scram(), b"SCRAM-SHA-1\0\0\0\0\x00", "invalid SASL authentication mechanism");
        check(AuthMethod::Scram, scram(), b"SCRAM-SHA-256-PLUS\0\0\0\0\x00", "invalid SASL authentication mechanism");
        check(AuthMethod::Scram, scram(), b"SCRAM-SHA-256\0\0\0\0\x00", "malformed SCRAM message");
        check(AuthMethod::Scram, scram(), &[b'x'; 1025], "longer than 1024");
    }

    #[test]
    fn keys_that_nobody_asked_for_are_refused() {
        let keys = KeyRequest { password: Secret::new("x"), salt: vec![], iterations: 1 }.derive();
        let (mut login, _) = start(AuthMethod::Scram, scram(), TransportSecurity::UnixSocket, &cache());
        assert_eq!(login.derived(keys), ClientLoginStep::Refused(AuthError::OutOfOrder));
        let (mut login, step) = start(AuthMethod::Scram, plain(), TransportSecurity::UnixSocket, &cache());
        assert!(matches!(step, ClientLoginStep::Derive(_)));
        assert_eq!(login.receive(b"x"), ClientLoginStep::Refused(AuthError::OutOfOrder));
    }

    proptest! {
        #[test]
        fn no_bytes_let_anybody_in(bodies in proptest::collection::vec(any::<Vec<u8>>(), 1..4), method in 0..4usize, secret in 0..4usize) {
            let method = [AuthMethod::Auto, AuthMethod::Scram, AuthMethod::Md5, AuthMethod::Plain][method];
            let secret = [None, plain(), scram(), Some(StoredSecret::Md5(md5_hash()))][secret].clone();
            let (mut login, mut step) = start(method, secret, tls(b"hash"), &cache());
            for body in &bodies {
                if let ClientLoginStep::Derive(_) = step {
                    let keys = KeyRequest { password: Secret::new("x"), salt: vec![], iterations: 1 }.derive();
                    login.derived(keys);
                }
                step = login.receive(body);
                let accepted = matches!(step, ClientLoginStep::Accepted { .. });
                prop_assert!(!accepted);
            }
        }
    }
}
