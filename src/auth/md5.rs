//! MD5 passwords: weak, but some drivers and stored secrets know nothing else.
//!
//! Spec: PostgreSQL documentation, "Message Flow", AuthenticationMD5Password.

use crate::types::Secret;
use ::md5::{Digest, Md5};
use subtle::ConstantTimeEq;

const PREFIX: &str = "md5";

/// What PostgreSQL stores: `md5` and the MD5 of password and role name.
pub fn stored_hash(user: &str, password: &Secret) -> Secret {
    Secret::new(hash_of(&[password.reveal().as_bytes(), user.as_bytes()]))
}

/// The answer to a challenge: a stored hash is enough, the password is not needed.
pub fn response(stored: &Secret, salt: [u8; 4]) -> Secret {
    let digits = stored.reveal().strip_prefix(PREFIX).unwrap_or_default();
    Secret::new(hash_of(&[digits.as_bytes(), &salt]))
}

/// Whether a client's answer is the right one. Takes the same time wherever they differ.
pub fn verify(stored: &Secret, salt: [u8; 4], answer: &[u8]) -> bool {
    response(stored, salt).reveal().as_bytes().ct_eq(answer).into()
}

/// Whether a text is a stored hash.
///
/// Spec: PostgreSQL `get_password_type`: lower-case digits only.
pub fn is_hash(text: &str) -> bool {
    let digits = text.strip_prefix(PREFIX).unwrap_or_default();
    digits.len() == 32 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn hash_of(parts: &[&[u8]]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut md5 = Md5::new();
    parts.iter().for_each(|part| md5.update(part));
    let mut text = String::from(PREFIX);
    for byte in md5.finalize() {
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 15)].into());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SALT: [u8; 4] = [0x2a, 0x3d, 0x8f, 0xe0];

    #[test]
    fn answers_and_verifies() {
        let stored = stored_hash("md5_user", &Secret::new("password"));
        assert!(is_hash(stored.reveal()));
        let answer = response(&stored, SALT);
        assert_eq!(answer.reveal(), "md562af4dd09bbb41884907a838a3233294");
        assert!(verify(&stored, SALT, answer.reveal().as_bytes()));
        for (salt, answer) in [
            ([0; 4], answer.reveal()),
            (SALT, "md562af4dd09bbb41884907a838a3233295"),
            (SALT, "62af4dd09bbb41884907a838a3233294"),
            (SALT, ""),
            (SALT, "password"),
        ] {
            assert!(!verify(&stored, salt, answer.as_bytes()), "{salt:?} {answer}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_postgres_protocol(user in ".{0,20}", password in ".{0,20}", salt: [u8; 4]) {
            let ours = response(&stored_hash(&user, &Secret::new(password.clone())), salt);
            let theirs = postgres_protocol::authentication::md5_hash(user.as_bytes(), password.as_bytes(), salt);
            prop_assert_eq!(ours.reveal(), theirs);
        }
    }
}
