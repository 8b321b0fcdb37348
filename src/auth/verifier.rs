//! Secrets as PostgreSQL stores them in `pg_authid.rolpassword`.

use super::keys::{DEFAULT_ITERATIONS, DerivedKeys, KeyRequest, MAX_ITERATIONS, SALT_LENGTH, ScramKey};
use super::md5;
use crate::types::Secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const SCRAM_PREFIX: &str = "SCRAM-SHA-256$";

/// What clients' proofs are checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredSecret {
    /// A SCRAM-SHA-256 verifier.
    Scram(ScramVerifier),
    /// `md5` and 32 hexadecimal digits.
    Md5(Secret),
    /// The password itself.
    Plain(Secret),
}

/// A SCRAM-SHA-256 verifier: checks proofs, but can't make them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScramVerifier {
    /// PBKDF2 rounds; 1 to [`MAX_ITERATIONS`].
    pub iterations: u32,
    /// The salt, decoded.
    pub salt: Vec<u8>,
    /// SHA-256 of the ClientKey.
    pub stored_key: ScramKey,
    /// Signs the server's last message.
    pub server_key: ScramKey,
}

/// A text that starts like a SCRAM verifier but isn't one. Taken as a password it would let anybody in who can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "damaged SCRAM verifier: {0} (expected SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>, as in pg_authid.rolpassword; in a \
     double-quoted shell text, $ must be escaped)"
)]
pub struct VerifierError(&'static str);

impl StoredSecret {
    /// Reads a configured secret or a `rolpassword`: a verifier, an MD5 hash, else a password.
    ///
    /// # Errors
    /// A text that starts with `SCRAM-SHA-256$` must be a whole verifier.
    ///
    /// Spec: PostgreSQL `get_password_type`.
    pub fn parse(secret: &Secret) -> Result<Self, VerifierError> {
        let text = secret.reveal();
        if text.starts_with(SCRAM_PREFIX) {
            ScramVerifier::parse(text).map(StoredSecret::Scram)
        } else if md5::is_hash(text) {
            Ok(StoredSecret::Md5(secret.clone()))
        } else {
            Ok(StoredSecret::Plain(secret.clone()))
        }
    }
}

impl ScramVerifier {
    /// Reads `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
    ///
    /// # Errors
    /// Says which part is wrong.
    ///
    /// Spec: PostgreSQL `parse_scram_secret`.
    pub fn parse(text: &str) -> Result<Self, VerifierError> {
        let rest = text.strip_prefix(SCRAM_PREFIX).ok_or(VerifierError("it does not start with SCRAM-SHA-256$"))?;
        let (iterations, rest) = rest.split_once(':').ok_or(VerifierError("no ':' after the iterations"))?;
        let (salt, rest) = rest.split_once('$').ok_or(VerifierError("no '$' after the salt"))?;
        let (stored_key, server_key) = rest.split_once(':').ok_or(VerifierError("no ':' after the StoredKey"))?;
        let iterations = Some(iterations)
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .filter(|n| (1..=MAX_ITERATIONS).contains(n))
            .ok_or(VerifierError("the iterations are not a number from 1 to 1000000"))?;
        let key = |text: &str| STANDARD.decode(text).ok().and_then(|bytes| ScramKey::from_slice(&bytes));
        Ok(ScramVerifier {
            iterations,
            salt: STANDARD.decode(salt).map_err(|_| VerifierError("the salt is not base64"))?,
            stored_key: key(stored_key).ok_or(VerifierError("the StoredKey is not 32 bytes of base64"))?,
            server_key: key(server_key).ok_or(VerifierError("the ServerKey is not 32 bytes of base64"))?,
        })
    }

    /// The verifier of a password under a new random salt. Takes milliseconds, as [`KeyRequest::derive`] does.
    pub fn from_password(password: &Secret) -> Self {
        let salt: [u8; SALT_LENGTH] = rand::random();
        let request = KeyRequest { password: password.clone(), salt: salt.to_vec(), iterations: DEFAULT_ITERATIONS };
        Self::from_keys(&request, &request.derive())
    }

    /// The verifier that belongs to keys derived by `request`.
    pub fn from_keys(request: &KeyRequest, keys: &DerivedKeys) -> Self {
        ScramVerifier {
            iterations: request.iterations,
            salt: request.salt.clone(),
            stored_key: keys.client_key.hash(),
            server_key: keys.server_key.clone(),
        }
    }

    /// What to derive to find out whether `password` is the right one.
    pub fn key_request(&self, password: &Secret) -> KeyRequest {
        KeyRequest { password: password.clone(), salt: self.salt.clone(), iterations: self.iterations }
    }

    /// Whether keys derived under this verifier's salt and iterations are of the right password.
    pub fn matches(&self, keys: &DerivedKeys) -> bool {
        // Both are compared whatever the first says, so that the time tells nothing.
        (keys.client_key.hash() == self.stored_key) & (keys.server_key == self.server_key)
    }

    /// The verifier as PostgreSQL stores it.
    pub fn encode(&self) -> Secret {
        let (salt, stored, server) = (&self.salt, self.stored_key.reveal(), self.server_key.reveal());
        let [salt, stored, server] = [salt.as_slice(), stored, server].map(|bytes| STANDARD.encode(bytes));
        Secret::new(format!("{SCRAM_PREFIX}{}:{salt}${stored}:{server}", self.iterations))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The password `pencil` under the salt of RFC 7677; PostgreSQL accepts it as `CREATE ROLE ... PASSWORD`.
    const PENCIL: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    fn request(password: &str) -> KeyRequest {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        KeyRequest { password: Secret::new(password), salt, iterations: 4096 }
    }

    #[test]
    fn reads_and_writes_what_postgresql_stores() {
        let verifier = ScramVerifier::parse(PENCIL).unwrap();
        assert_eq!(verifier.encode(), Secret::new(PENCIL));
        let request = request("pencil");
        assert_eq!(ScramVerifier::from_keys(&request, &request.derive()), verifier);
    }

    #[test]
    fn tells_the_right_password_from_wrong_ones() {
        let verifier = ScramVerifier::parse(PENCIL).unwrap();
        for (password, expect) in [("pencil", true), ("Pencil", false), ("", false), ("pen\u{ad}cil", true)] {
            assert_eq!(verifier.matches(&request(password).derive()), expect, "{password:?}");
        }
        let fresh = ScramVerifier::from_password(&Secret::new("x"));
        assert!(fresh.matches(&fresh.key_request(&Secret::new("x")).derive()));
        assert_ne!(fresh.salt, ScramVerifier::from_password(&Secret::new("x")).salt);
    }

    #[test]
    fn tells_the_kinds_of_secret_apart() {
        let hash = "md562af4dd09bbb41884907a838a3233294";
        assert_eq!(StoredSecret::parse(&Secret::new(hash)), Ok(StoredSecret::Md5(Secret::new(hash))));
        for plain in
            ["", "md5", "hunter2", &hash[..34], &hash.to_uppercase(), "md5zzaf4dd09bbb41884907a838a3233294", "SCRAM-SHA-1$x"]
        {
            assert_eq!(StoredSecret::parse(&Secret::new(plain)), Ok(StoredSecret::Plain(Secret::new(plain))));
        }
        assert!(matches!(StoredSecret::parse(&Secret::new(PENCIL)), Ok(StoredSecret::Scram(_))));
    }

    #[test]
    fn damaged_verifiers_are_errors_that_name_the_part() {
        for (damage, expect) in [
            ("SCRAM-SHA-256$".to_owned(), "after the iterations"),
            (PENCIL.replace("4096", "0"), "not a number from 1"),
            (PENCIL.replace("4096", "+96"), "not a number from 1"),
            (PENCIL.replace("4096", "-1"), "not a number from 1"),
            (PENCIL.replace("4096", "1000001"), "not a number from 1"),
            (PENCIL.replace("==$", "=="), "after the salt"),
            (PENCIL.replace("W22Z", "W2*Z"), "salt is not base64"),
            (PENCIL.replace("WG5d", ""), "StoredKey is not 32"),
            (PENCIL.replace("dU=", ""), "ServerKey is not 32"),
            (PENCIL.replace("qY=:", "qY="), "after the StoredKey"),
            (format!("{PENCIL}\n"), "ServerKey is not 32"),
        ] {
            let error = StoredSecret::parse(&Secret::new(&damage)).unwrap_err().to_string();
            assert!(error.contains(expect), "{damage}: {error}");
        }
    }
}
