//! The client's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS: pgyard towards servers.
//!
//! postgres-protocol's client is not used, because it derives keys inside its `update` (milliseconds on a relay thread) and knows passwords
//! only; it is the oracle of the tests.
//!
//! Spec: RFC 5802, RFC 7677; libpq's `fe-auth-scram.c`.

use super::error::ScramError;
use super::keys::{DerivedKeys, MAX_ITERATIONS, ScramKey};
use super::scram_message::{AttributeReader, decode_key, encode_key, is_printable, new_nonce};
use super::scram_server::BOUND_HEADER;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What the client says of channel binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScramBinding {
    /// No certificate to bind to.
    Unsupported,
    /// There is one, but the server did not offer to bind: said so, that a server which did offer can tell that somebody cut it out.
    NotOffered,
    /// Bound to the server's certificate, by its `tls-server-end-point` hash.
    EndPoint(Vec<u8>),
}

/// What the server announces: with which keys it wants its proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScramChallenge {
    /// The verifier's salt.
    pub salt: Vec<u8>,
    /// The verifier's iterations: 1 to [`MAX_ITERATIONS`].
    pub iterations: u32,
}

/// One exchange: [`first`](Self::first), [`challenge`](Self::challenge), [`respond`](Self::respond), [`finish`](Self::finish).
#[derive(Debug)]
pub struct ScramClient {
    binding: ScramBinding,
    user: &'static str,
    nonce: String,
    state: ScramClientState,
}

#[derive(Debug)]
enum ScramClientState {
    Start,
    Challenged { server_first: Vec<u8>, nonce: Vec<u8> },
    Responded { signature: ScramKey },
    Ended,
}

impl ScramClient {
    /// An exchange.
    pub fn new(binding: ScramBinding) -> Self {
        // The name is left out, as libpq does: the startup message has it.
        ScramClient { binding, user: "", nonce: new_nonce(), state: ScramClientState::Start }
    }

    /// The client-first-message.
    pub fn first(&self) -> Vec<u8> {
        [self.header(), &self.first_bare()].concat()
    }

    fn header(&self) -> &'static [u8] {
        match self.binding {
            ScramBinding::Unsupported => b"n,,",
            ScramBinding::NotOffered => b"y,,",
            ScramBinding::EndPoint(_) => BOUND_HEADER,
        }
    }

    fn first_bare(&self) -> Vec<u8> {
        format!("n={},r={}", self.user, self.nonce).into_bytes()
    }

    /// Takes the server-first-message.
    ///
    /// # Errors
    /// The exchange is over after an error.
    pub fn challenge(&mut self, server_first: &[u8]) -> Result<ScramChallenge, ScramError> {
        if !matches!(std::mem::replace(&mut self.state, ScramClientState::Ended), ScramClientState::Start) {
            return Err(ScramError::OutOfOrder);
        }
        let mut reader = AttributeReader::new(server_first).map_err(ScramError::MalformedByServer)?;
        let nonce = reader.value(b'r').map_err(ScramError::MalformedByServer)?;
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(self.nonce.as_bytes()) || !is_printable(nonce) {
            return Err(ScramError::ServerNonce);
        }
        let salt = reader.value(b's').map_err(ScramError::MalformedByServer)?;
        let salt = STANDARD.decode(salt).map_err(|_| ScramError::MalformedByServer("The salt is not base64."))?;
        let iterations = reader.value(b'i').map_err(ScramError::MalformedByServer)?;
        let iterations = std::str::from_utf8(iterations)
            .ok()
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse::<u32>().ok())
            .filter(|n| *n > 0)
            .ok_or(ScramError::MalformedByServer("Invalid iteration count."))?;
        if iterations > MAX_ITERATIONS {
            return Err(ScramError::TooManyIterations(iterations));
        }
        if !reader.rest().is_empty() {
            return Err(ScramError::MalformedByServer("Garbage at the end of server-first-message."));
        }
        self.state = ScramClientState::Challenged { server_first: server_first.to_vec(), nonce: nonce.to_vec() };
        Ok(ScramChallenge { salt, iterations })
    }

    /// The client-final-message, proven with the keys that belong to the challenge.
    ///
    /// # Errors
    /// Only when no challenge was taken before.
    pub fn respond(&mut self, keys: &DerivedKeys) -> Result<Vec<u8>, ScramError> {
        let state = std::mem::replace(&mut self.state, ScramClientState::Ended);
        let ScramClientState::Challenged { server_first, nonce } = state else {
            return Err(ScramError::OutOfOrder);
        };
        let hash = match &self.binding {
            ScramBinding::EndPoint(hash) => hash.as_slice(),
            _ => &[],
        };
        let binding = STANDARD.encode([self.header(), hash].concat());
        let without_proof = [b"c=", binding.as_bytes(), b",r=", &nonce].concat();
        let message: [&[u8]; 3] = [&self.first_bare(), &server_first, &without_proof];
        let proof = keys.client_key.xor(&keys.client_key.hash().sign(&message));
        self.state = ScramClientState::Responded { signature: keys.server_key.sign(&message) };
        Ok([&without_proof, &b",p="[..], encode_key(&proof).as_bytes()].concat())
    }

    /// Takes the server-final-message and checks that the server knows the role's secret.
    ///
    /// # Errors
    /// The server must not be talked to after an error.
    pub fn finish(&mut self, server_final: &[u8]) -> Result<(), ScramError> {
        let state = std::mem::replace(&mut self.state, ScramClientState::Ended);
        let ScramClientState::Responded { signature } = state else {
            return Err(ScramError::OutOfOrder);
        };
        let mut reader = AttributeReader::new(server_final).map_err(ScramError::MalformedByServer)?;
        if reader.peek() == Some(b'e') {
            return Err(ScramError::RefusedByServer);
        }
        let shown = reader.value(b'v').map_err(ScramError::MalformedByServer)?;
        let shown = decode_key(shown).ok_or(ScramError::MalformedByServer("Malformed server signature."))?;
        if !reader.rest().is_empty() {
            return Err(ScramError::MalformedByServer("Garbage at the end of server-final-message."));
        }
        if shown == signature { Ok(()) } else { Err(ScramError::WrongServerSignature) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::keys::KeyRequest;
    use crate::auth::scram_server::{ScramExpectation, ScramMechanism, ScramServer};
    use crate::auth::verifier::ScramVerifier;
    use crate::types::Secret;
    use proptest::prelude::*;

    fn with_nonce(binding: ScramBinding, user: &'static str, nonce: &str) -> ScramClient {
        ScramClient { binding, user, nonce: nonce.to_owned(), state: ScramClientState::Start }
    }

    fn keys(challenge: &ScramChallenge) -> DerivedKeys {
        KeyRequest { password: Secret::new("pencil"), salt: challenge.salt.clone(), iterations: challenge.iterations }.derive()
    }

    #[test]
    fn gives_the_vectors_of_rfc_7677() {
        let mut client = with_nonce(ScramBinding::Unsupported, "user", "rOprNGfwEbeRWgbNEkqO");
        assert_eq!(client.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let challenge =
            client.challenge(b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096").unwrap();
        let last = client.respond(&keys(&challenge)).unwrap();
        let expect = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(String::from_utf8(last).unwrap(), expect);
        assert_eq!(client.finish(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Ok(()));
        assert_eq!(client.finish(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Err(ScramError::OutOfOrder));
    }

    #[test]
    fn logs_in_with_keys_out_of_another_clients_proof() {
        let verifier = ScramVerifier::from_password(&Secret::new("pencil"));
        let server =
            |hash: Option<&[u8]>| ScramServer::new(ScramExpectation::Verifier(verifier.clone()), hash.map(<[u8]>::to_vec));
        let mut client = ScramClient::new(ScramBinding::Unsupported);
        let mut front = server(None);
        let challenge = client.challenge(&front.first(ScramMechanism::Unbound, &client.first()).unwrap()).unwrap();
        let proven = front.last(&client.respond(&keys(&challenge)).unwrap()).unwrap();
        assert_eq!(client.finish(&proven.server_final), Ok(()));

        let end_point = ScramBinding::EndPoint(b"hash".to_vec());
        for (binding, mechanism, hash) in [
            (ScramBinding::Unsupported, ScramMechanism::Unbound, Some(&b"hash"[..])),
            (ScramBinding::NotOffered, ScramMechanism::Unbound, None),
            (end_point, ScramMechanism::Bound, Some(b"hash")),
        ] {
            let (mut client, mut back) = (ScramClient::new(binding), server(hash));
            client.challenge(&back.first(mechanism, &client.first()).unwrap()).unwrap();
            let last = client.respond(&proven.keys.keys).unwrap();
            assert_eq!(client.finish(&back.last(&last).unwrap().server_final), Ok(()));
        }
    }

    #[test]
    fn bad_challenges_are_refused() {
        let check = |message: &[u8], expect: &str| {
            let error = with_nonce(ScramBinding::Unsupported, "", "abc").challenge(message).unwrap_err().to_string();
            assert!(error.contains(expect), "{}: {error}", message.escape_ascii());
        };
        check(b"r=abc,s=AAAA,i=4096", "nonce");
        check(b"r=xbcdef,s=AAAA,i=4096", "nonce");
        check(b"r=,s=AAAA,i=4096", "nonce");
        check(b"r=abc\xff,s=AAAA,i=4096", "nonce");
        check(b"r=abcdef,s=!,i=4096", "salt");
        for count in ["0", "-1", "x", "", "4294967296", "+5"] {
            check(format!("r=abcdef,s=AAAA,i={count}").as_bytes(), "iteration count");
        }
        check(b"r=abcdef,s=AAAA,i=1000001", "more than pgyard computes");
        check(b"r=abcdef,s=AAAA,i=1,x=y", "Garbage");
        check(b"m=ext,r=abcdef,s=AAAA,i=1", "missing");
        check(b"e=unknown-user", "missing");
        check(b"", "empty");
    }

    #[test]
    fn a_server_that_does_not_know_the_secret_is_refused() {
        let check = |message: &[u8], expect: &str| {
            let mut client = with_nonce(ScramBinding::Unsupported, "", "abc");
            let challenge = client.challenge(b"r=abcdef,s=AAAA,i=1").unwrap();
            client.respond(&keys(&challenge)).unwrap();
            let error = client.finish(message).unwrap_err().to_string();
            assert!(error.contains(expect), "{}: {error}", message.escape_ascii());
        };
        check(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", "impostor");
        check(b"v=AAAA", "Malformed server signature");
        check(b"v=", "Malformed server signature");
        check(b"e=invalid-proof", "refused");
        check(b"", "empty");
        check(b"x=1", "missing");
    }

    #[test]
    fn steps_out_of_order_are_refused() {
        let keys = keys(&ScramChallenge { salt: vec![1], iterations: 1 });
        assert_eq!(ScramClient::new(ScramBinding::Unsupported).respond(&keys), Err(ScramError::OutOfOrder));
        assert_eq!(ScramClient::new(ScramBinding::Unsupported).finish(b"v="), Err(ScramError::OutOfOrder));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_a_panic(first: Vec<u8>, last: Vec<u8>) {
            prop_assert!(ScramClient::new(ScramBinding::Unsupported).challenge(&first).is_err());
            let mut client = with_nonce(ScramBinding::NotOffered, "", "abc");
            let challenge = client.challenge(b"r=abcdef,s=AAAA,i=1").unwrap();
            client.respond(&keys(&challenge)).unwrap();
            prop_assert!(client.finish(&last).is_err());
        }
    }
}
