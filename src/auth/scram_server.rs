//! The server's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS: pgyard towards clients.
//!
//! Spec: RFC 5802, RFC 7677; PostgreSQL `auth-scram.c`, whose order of checks and texts this keeps. The user name in the messages is
//! ignored, as there: the startup message has it. Failures are never said with `e=`, but by an ErrorResponse.

use super::credential::ScramKeys;
use super::error::ScramError;
use super::keys::{DEFAULT_ITERATIONS, DerivedKeys, KeyCache, ScramKey};
use super::scram_message::{AttributeReader, decode_key, encode_key, is_printable, new_nonce};
use super::verifier::ScramVerifier;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What the header of a client's first message says when it binds to the channel.
pub(super) const BOUND_HEADER: &[u8] = b"p=tls-server-end-point,,";

/// What a client's proof is held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScramExpectation {
    /// The role's verifier.
    Verifier(ScramVerifier),
    /// Nothing will do, but the client must not notice before its proof: the role is unknown, or has no verifier.
    Mock {
        /// The salt to show, always the same for a name.
        salt: Vec<u8>,
    },
}

/// The mechanism that a client chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScramMechanism {
    /// SCRAM-SHA-256.
    Unbound,
    /// SCRAM-SHA-256-PLUS.
    Bound,
}

/// A client that has proven itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScramSuccess {
    /// The data of AuthenticationSASLFinal.
    pub server_final: Vec<u8>,
    /// What the proof gave away: with it pgyard can log in, as this role, to servers that have the same verifier.
    pub keys: ScramKeys,
}

/// One exchange.
#[derive(Debug)]
pub struct ScramServer {
    verifier: ScramVerifier,
    doomed: bool,
    channel_binding: Option<Vec<u8>>,
    state: ScramServerState,
}

#[derive(Debug)]
enum ScramServerState {
    Start,
    Challenged(Challenge),
    Ended,
}

#[derive(Debug)]
struct Challenge {
    mechanism: ScramMechanism,
    /// The first byte of the client's first message: `n`, `y` or `p`.
    binding_flag: u8,
    client_first_bare: Vec<u8>,
    server_first: Vec<u8>,
    nonce: Vec<u8>,
}

impl ScramExpectation {
    /// For a role that can't log in.
    pub fn mock(user: &str, cache: &KeyCache) -> Self {
        ScramExpectation::Mock { salt: cache.salt_for(user) }
    }
}

impl ScramServer {
    /// An exchange. `channel_binding` is the `tls-server-end-point` hash of the certificate that the client was shown; with it the PLUS
    /// mechanism is offered.
    pub fn new(expectation: ScramExpectation, channel_binding: Option<Vec<u8>>) -> Self {
        let zero = || ScramKey::new([0; 32]);
        let (verifier, doomed) = match expectation {
            ScramExpectation::Verifier(verifier) => (verifier, false),
            ScramExpectation::Mock { salt } => {
                (ScramVerifier { iterations: DEFAULT_ITERATIONS, salt, stored_key: zero(), server_key: zero() }, true)
            }
        };
        ScramServer { verifier, doomed, channel_binding, state: ScramServerState::Start }
    }

    /// Whether SCRAM-SHA-256-PLUS is offered.
    pub fn offers_binding(&self) -> bool {
        self.channel_binding.is_some()
    }

    /// Takes the client-first-message and gives the server-first-message.
    ///
    /// # Errors
    /// The exchange is over after an error.
    pub fn first(&mut self, mechanism: ScramMechanism, client_first: &[u8]) -> Result<Vec<u8>, ScramError> {
        self.first_with_nonce(mechanism, client_first, &new_nonce())
    }

    fn first_with_nonce(&mut self, mechanism: ScramMechanism, client_first: &[u8], nonce: &str) -> Result<Vec<u8>, ScramError> {
        if !matches!(std::mem::replace(&mut self.state, ScramServerState::Ended), ScramServerState::Start) {
            return Err(ScramError::OutOfOrder);
        }
        let mut reader = AttributeReader::new(client_first).map_err(ScramError::Malformed)?;
        let binding_flag = self.read_header(mechanism, &mut reader)?;
        let client_first_bare = reader.rest();
        if reader.peek() == Some(b'm') {
            return Err(ScramError::MandatoryExtension);
        }
        reader.value(b'n').map_err(ScramError::Malformed)?;
        let client_nonce = reader.value(b'r').map_err(ScramError::Malformed)?;
        if !is_printable(client_nonce) {
            return Err(ScramError::UnprintableNonce);
        }
        while !reader.rest().is_empty() {
            reader.any().map_err(ScramError::Malformed)?;
        }
        let nonce = [client_nonce, nonce.as_bytes()].concat();
        let salt = STANDARD.encode(&self.verifier.salt);
        let server_first = [b"r=", &nonce[..], format!(",s={salt},i={}", self.verifier.iterations).as_bytes()].concat();
        self.state = ScramServerState::Challenged(Challenge {
            mechanism,
            binding_flag,
            client_first_bare: client_first_bare.to_vec(),
            server_first: server_first.clone(),
            nonce,
        });
        Ok(server_first)
    }

    /// Reads the GS2 header, up to the comma before the bare message, and gives its flag.
    fn read_header(&self, mechanism: ScramMechanism, reader: &mut AttributeReader<'_>) -> Result<u8, ScramError> {
        let flag = reader.peek().unwrap_or_default();
        match (flag, mechanism) {
            (b'n' | b'y', ScramMechanism::Bound) => {
                let detail =
                    "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.";
                return Err(ScramError::Malformed(detail));
            }
            (b'y', ScramMechanism::Unbound) if self.offers_binding() => return Err(ScramError::BindingDowngraded),
            (b'n' | b'y', ScramMechanism::Unbound) => {
                if !reader.eat(&[flag, b',']) {
                    return Err(ScramError::Malformed("Comma expected after the channel-binding flag."));
                }
            }
            (b'p', ScramMechanism::Unbound) => {
                let detail = "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.";
                return Err(ScramError::Malformed(detail));
            }
            (b'p', ScramMechanism::Bound) => {
                if reader.value(b'p').map_err(ScramError::Malformed)? != b"tls-server-end-point" {
                    return Err(ScramError::UnsupportedBinding);
                }
            }
            _ => return Err(ScramError::Malformed("Unexpected channel-binding flag.")),
        }
        if reader.peek() == Some(b'a') {
            return Err(ScramError::AuthorizationIdentity);
        }
        if !reader.eat(b",") {
            return Err(ScramError::Malformed("Unexpected attribute in client-first-message."));
        }
        Ok(flag)
    }

    /// Takes the client-final-message and gives the server-final-message with the keys that the proof gave away.
    ///
    /// # Errors
    /// [`ScramError::WrongProof`] if the password is wrong or was never going to be right. The exchange is over after an error.
    pub fn last(&mut self, client_final: &[u8]) -> Result<ScramSuccess, ScramError> {
        let ScramServerState::Challenged(challenge) = std::mem::replace(&mut self.state, ScramServerState::Ended) else {
            return Err(ScramError::OutOfOrder);
        };
        let (without_proof, proof) = self.read_final(&challenge, client_final)?;
        let message: [&[u8]; 3] = [&challenge.client_first_bare, &challenge.server_first, without_proof];
        let client_key = proof.xor(&self.verifier.stored_key.sign(&message));
        // The proof is computed for doomed exchanges too: the time must not tell that they are.
        if (client_key.hash() != self.verifier.stored_key) | self.doomed {
            return Err(ScramError::WrongProof);
        }
        let signature = self.verifier.server_key.sign(&message);
        Ok(ScramSuccess {
            server_final: format!("v={}", encode_key(&signature)).into_bytes(),
            keys: ScramKeys {
                keys: DerivedKeys { client_key, server_key: self.verifier.server_key.clone() },
                salt: self.verifier.salt.clone(),
                iterations: self.verifier.iterations,
            },
        })
    }

    /// The client-final-message up to its proof, and the proof.
    fn read_final<'a>(&self, challenge: &Challenge, client_final: &'a [u8]) -> Result<(&'a [u8], ScramKey), ScramError> {
        let mut reader = AttributeReader::new(client_final).map_err(ScramError::Malformed)?;
        let binding = reader.value(b'c').map_err(ScramError::Malformed)?;
        self.check_binding(challenge, binding)?;
        let nonce = reader.value(b'r').map_err(ScramError::Malformed)?;
        let (proof_start, proof) = loop {
            let start = client_final.len() - reader.rest().len();
            match reader.any().map_err(ScramError::Malformed)? {
                (b'p', proof) => break (start, proof),
                _ => continue,
            }
        };
        let proof = decode_key(proof).ok_or(ScramError::Malformed("Malformed proof in client-final-message."))?;
        if !reader.rest().is_empty() {
            return Err(ScramError::Malformed("Garbage found at the end of client-final-message."));
        }
        if nonce != challenge.nonce {
            return Err(ScramError::NonceMismatch);
        }
        Ok((&client_final[..proof_start - 1], proof))
    }

    fn check_binding(&self, challenge: &Challenge, binding: &[u8]) -> Result<(), ScramError> {
        match (challenge.mechanism, &self.channel_binding) {
            (ScramMechanism::Bound, Some(hash)) => {
                let expect = STANDARD.encode([BOUND_HEADER, hash].concat());
                if binding == expect.as_bytes() { Ok(()) } else { Err(ScramError::BindingMismatch) }
            }
            (ScramMechanism::Bound, None) => Err(ScramError::BindingMismatch),
            (ScramMechanism::Unbound, _) => match (challenge.binding_flag, binding) {
                (b'n', b"biws") | (b'y', b"eSws") => Ok(()),
                _ => Err(ScramError::BindingChanged),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::keys::KeyRequest;
    use crate::types::Secret;
    use ScramMechanism::{Bound, Unbound};
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    use proptest::prelude::*;

    const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";

    fn request() -> KeyRequest {
        KeyRequest { password: Secret::new("pencil"), salt: STANDARD.decode(SALT).unwrap(), iterations: 4096 }
    }

    fn pencil() -> ScramExpectation {
        ScramExpectation::Verifier(ScramVerifier::from_keys(&request(), &request().derive()))
    }

    #[test]
    fn gives_the_vectors_of_rfc_7677() {
        let mut server = ScramServer::new(pencil(), None);
        let first =
            server.first_with_nonce(Unbound, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0").unwrap();
        assert_eq!(first, b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        let last = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let success = server.last(last).unwrap();
        assert_eq!(success.server_final, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(success.keys.keys, request().derive());
        assert_eq!((success.keys.salt, success.keys.iterations), (request().salt, 4096));
        assert_eq!(server.last(last).unwrap_err(), ScramError::OutOfOrder);
    }

    /// Runs an exchange with the client of postgres-protocol.
    fn exchange(
        password: &str,
        expectation: ScramExpectation,
        hash: Option<&[u8]>,
        seen: Option<&[u8]>,
    ) -> Result<(), ScramError> {
        let (binding, mechanism) = match seen {
            Some(seen) => (ChannelBinding::tls_server_end_point(seen.to_vec()), Bound),
            None => (ChannelBinding::unsupported(), Unbound),
        };
        let mut client = ScramSha256::new(password.as_bytes(), binding);
        let mut server = ScramServer::new(expectation, hash.map(<[u8]>::to_vec));
        let first = server.first(mechanism, client.message())?;
        client.update(&first).unwrap();
        let success = server.last(client.message())?;
        client.finish(&success.server_final).unwrap();
        Ok(())
    }

    #[test]
    fn lets_in_who_knows_the_password() {
        let cache = KeyCache::new(1);
        for (password, expectation, hash, seen, expect) in [
            ("pencil", pencil(), None, None, Ok(())),
            ("pencil", pencil(), Some(&b"hash"[..]), None, Ok(())),
            ("pencil", pencil(), Some(b"hash"), Some(&b"hash"[..]), Ok(())),
            ("pencil", pencil(), Some(b"hash"), Some(b"other"), Err(ScramError::BindingMismatch)),
            ("pencil", pencil(), None, Some(b"hash"), Err(ScramError::BindingMismatch)),
            ("pencils", pencil(), None, None, Err(ScramError::WrongProof)),
            ("", pencil(), None, None, Err(ScramError::WrongProof)),
            ("pencil", ScramExpectation::mock("nobody", &cache), None, None, Err(ScramError::WrongProof)),
            ("pencil", ScramExpectation::mock("nobody", &cache), Some(b"h"), Some(b"h"), Err(ScramError::WrongProof)),
        ] {
            assert_eq!(exchange(password, expectation, hash, seen), expect, "{password} {hash:?} {seen:?}");
        }
    }

    #[test]
    fn unknown_roles_look_like_known_ones() {
        let cache = KeyCache::new(1);
        let first = || {
            let mut server = ScramServer::new(ScramExpectation::mock("nobody", &cache), None);
            String::from_utf8(server.first_with_nonce(Unbound, b"n,,n=,r=abc", "def").unwrap()).unwrap()
        };
        assert_eq!(first(), first());
        let mut known = ScramServer::new(pencil(), None);
        let known = String::from_utf8(known.first_with_nonce(Unbound, b"n,,n=,r=abc", "def").unwrap()).unwrap();
        assert_eq!(first().len(), known.len());
        assert!(first().starts_with("r=abcdef,s=") && first().ends_with(",i=4096"), "{}", first());
    }

    #[test]
    fn first_messages_are_read_as_postgresql_reads_them() {
        let check = |mechanism, offered: bool, message: &[u8], expect: Result<(), &str>| {
            let mut server = ScramServer::new(pencil(), offered.then(|| b"hash".to_vec()));
            let actual = server.first(mechanism, message).map(drop).map_err(|error| format!("{error} {:?}", error.detail()));
            match expect {
                Ok(()) => assert_eq!(actual, Ok(()), "{}", message.escape_ascii()),
                Err(text) => {
                    let error = actual.expect_err("must be refused");
                    assert!(error.contains(text), "{}: {error}", message.escape_ascii());
                    assert_eq!(server.last(b"c=biws,r=x,p=x"), Err(ScramError::OutOfOrder));
                }
            }
        };
        check(Unbound, false, b"n,,n=,r=abc", Ok(()));
        check(Unbound, true, b"n,,n=,r=abc", Ok(()));
        check(Unbound, false, b"y,,n=,r=abc", Ok(()));
        check(Unbound, true, b"y,,n=,r=abc", Err("negotiation error"));
        check(Bound, true, b"p=tls-server-end-point,,n=,r=abc", Ok(()));
        check(Bound, true, b"p=tls-unique,,n=,r=abc", Err("unsupported SCRAM channel-binding type"));
        check(Bound, true, b"n,,n=,r=abc", Err("does not include channel binding data"));
        check(Bound, true, b"y,,n=,r=abc", Err("does not include channel binding data"));
        check(Unbound, false, b"p=tls-server-end-point,,n=,r=abc", Err("without channel binding"));
        check(Unbound, false, b"n,,n=any\xff=2Cname,r=abc,x=ext,y=", Ok(()));
        check(Unbound, false, b"n,a=root,n=,r=abc", Err("authorization identity"));
        check(Unbound, false, b"n,,m=x,n=,r=abc", Err("unsupported SCRAM extension"));
        check(Unbound, false, b"n,,n=,r=a\x01c", Err("non-printable"));
        check(Unbound, false, b"n,,n=,r=a\xffc", Err("non-printable"));
        for malformed in [
            &b""[..],
            b"n",
            b"n,",
            b"n,,",
            b"n,,n",
            b"n,,n=",
            b"n,,n=,",
            b"n,,n=,r",
            b"n,,r=abc",
            b"n,,n=,r=abc,1=x",
            b"n,,n=,r=abc,x",
            b"n,,n=,r=abc\0",
            b"nn,,n=,r=abc",
            b"n,x,n=,r=abc",
            b"x,,n=,r=abc",
            b",,",
        ] {
            check(Unbound, false, malformed, Err("malformed SCRAM message"));
        }
        check(Bound, true, b"p", Err("malformed SCRAM message"));
        check(Bound, true, b"p=", Err("unsupported SCRAM channel-binding type"));
        check(Bound, true, b"p=tls-server-end-point", Err("malformed SCRAM message"));
    }

    #[test]
    fn last_messages_are_read_as_postgresql_reads_them() {
        let check = |flag: &[u8], message: &[u8], expect: ScramError| {
            let mut server = ScramServer::new(pencil(), None);
            server.first_with_nonce(Unbound, &[flag, b",,n=,r=abc"].concat(), "def").unwrap();
            assert_eq!(server.last(message).unwrap_err(), expect, "{}", message.escape_ascii());
        };
        let proof = encode_key(&ScramKey::new([7; 32]));
        let with_proof = |head: &str| format!("{head},p={proof}").into_bytes();
        check(b"n", &with_proof("c=biws,r=abcdef"), ScramError::WrongProof);
        check(b"y", &with_proof("c=eSws,r=abcdef"), ScramError::WrongProof);
        check(b"n", &with_proof("c=biws,r=abcdef,x=ext"), ScramError::WrongProof);
        check(b"n", &with_proof("c=eSws,r=abcdef"), ScramError::BindingChanged);
        check(b"y", &with_proof("c=biws,r=abcdef"), ScramError::BindingChanged);
        check(b"n", &with_proof("c=,r=abcdef"), ScramError::BindingChanged);
        for nonce in ["", "abc", "abcde", "abcdeg", "abcdefg", "xbcdef"] {
            check(b"n", &with_proof(&format!("c=biws,r={nonce}")), ScramError::NonceMismatch);
        }
        for (message, detail) in [
            (&b""[..], "The message is empty."),
            (b"c=biws\0", "Message length does not match input length."),
            (b"r=abcdef", "An expected attribute is missing."),
            (b"c=biws,r=abcdef", "Attribute expected, but found end of string."),
            (b"c=biws,r=abcdef,p=AAAA", "Malformed proof in client-final-message."),
            (b"c=biws,r=abcdef,p=!", "Malformed proof in client-final-message."),
            (&[&with_proof("c=biws,r=abcdef")[..], b",x=y"].concat(), "Garbage found at the end of client-final-message."),
        ] {
            check(b"n", message, ScramError::Malformed(detail));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_a_panic(first: Vec<u8>, last: Vec<u8>, bound: bool) {
            let mut server = ScramServer::new(ScramExpectation::Mock { salt: vec![1] }, bound.then(|| vec![2]));
            let mechanism = if bound { Bound } else { Unbound };
            let _ = server.first(mechanism, &first);
            prop_assert!(server.last(&last).is_err());
            let mut server = ScramServer::new(ScramExpectation::Mock { salt: vec![1] }, None);
            server.first(Unbound, b"n,,n=,r=abc").unwrap();
            prop_assert!(server.last(&last).is_err());
        }

        #[test]
        fn near_misses_are_refused_without_a_panic(first in "[nyp]?[,=a-z]{0,12}", last in "c=(biws|eSws)?,?r=[a-z]{0,5},?(p=)?[A-Za-z0-9+/=]{0,50}") {
            let mut server = ScramServer::new(ScramExpectation::Mock { salt: vec![1] }, None);
            let _ = server.first(Unbound, first.as_bytes());
            prop_assert!(server.last(last.as_bytes()).is_err());
        }
    }
}
