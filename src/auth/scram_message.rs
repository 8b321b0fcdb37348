//! The attributes that SCRAM messages are made of: `r=nonce,s=salt,i=4096`.
//!
//! Spec: RFC 5802, section 7; read as leniently and as strictly as PostgreSQL's `read_attr_value` and `read_any_attr`.

use super::keys::ScramKey;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Bytes of randomness in a nonce: `SCRAM_RAW_NONCE_LEN`.
const RAW_NONCE_LENGTH: usize = 18;

/// What a message does wrong, in the words of a DETAIL field.
pub(super) type Flaw = &'static str;

/// Reads attributes from the front of a message.
pub(super) struct AttributeReader<'a> {
    rest: &'a [u8],
}

impl<'a> AttributeReader<'a> {
    /// Starts at the front of `message`.
    ///
    /// # Errors
    /// A message is not empty and has no zero byte.
    pub(super) fn new(message: &'a [u8]) -> Result<Self, Flaw> {
        match message {
            [] => Err("The message is empty."),
            _ if message.contains(&0) => Err("Message length does not match input length."),
            _ => Ok(AttributeReader { rest: message }),
        }
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next byte, not consumed.
    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Consumes `bytes` if they come next.
    pub(super) fn eat(&mut self, bytes: &[u8]) -> bool {
        match self.rest.strip_prefix(bytes) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// The value of the attribute `name`, which must come next.
    pub(super) fn value(&mut self, name: u8) -> Result<&'a [u8], Flaw> {
        if self.peek() != Some(name) {
            return Err("An expected attribute is missing.");
        }
        self.any().map(|(_, value)| value)
    }

    /// The next attribute, whatever it is: its name and its value.
    pub(super) fn any(&mut self) -> Result<(u8, &'a [u8]), Flaw> {
        let (name, rest) = match self.rest {
            [] => return Err("Attribute expected, but found end of string."),
            [name, b'=', rest @ ..] if name.is_ascii_alphabetic() => (*name, rest),
            [name, ..] if name.is_ascii_alphabetic() => return Err("Expected character \"=\" after an attribute's name."),
            _ => return Err("Attribute expected, but found an invalid character."),
        };
        let end = rest.iter().position(|b| *b == b',').unwrap_or(rest.len());
        self.rest = rest.get(end + 1..).unwrap_or_default();
        Ok((name, &rest[..end]))
    }
}

/// Whether a nonce has only the characters it may have.
pub(super) fn is_printable(nonce: &[u8]) -> bool {
    nonce.iter().all(|b| matches!(b, 0x21..=0x2b | 0x2d..=0x7e))
}

/// A new nonce, as PostgreSQL and libpq make them.
pub(super) fn new_nonce() -> String {
    STANDARD.encode(rand::random::<[u8; RAW_NONCE_LENGTH]>())
}

/// Base64 of a key.
pub(super) fn encode_key(key: &ScramKey) -> String {
    STANDARD.encode(key.reveal())
}

/// A key out of base64.
pub(super) fn decode_key(text: &[u8]) -> Option<ScramKey> {
    STANDARD.decode(text).ok().and_then(|bytes| ScramKey::from_slice(&bytes))
}
