//! Bind: only its two names are of interest; the rest passes as it is.

use super::frame::put_string;
use super::{Cursor, WireError};

/// The names at the front of a Bind message.
///
/// Spec: "Message Formats", Bind (F).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindMessage<'a> {
    /// The portal's name.
    pub portal: &'a [u8],
    /// The statement's name.
    pub statement: &'a [u8],
    /// All that follows the names.
    pub rest: &'a [u8],
}

impl<'a> BindMessage<'a> {
    /// Reads the names of a body that may not be all there yet.
    ///
    /// # Errors
    /// One of the names does not end within `body`.
    pub fn read(body: &'a [u8]) -> Result<Self, WireError> {
        let mut cursor = Cursor::new(body);
        let portal = cursor.string()?;
        let statement = cursor.string()?;
        Ok(BindMessage { portal, statement, rest: cursor.rest() })
    }

    /// Appends the message with another statement name. `rest_len` is the length of what will follow the names on the wire,
    /// of which `self.rest` may be only the first part.
    pub fn put_head(&self, out: &mut Vec<u8>, statement: &[u8], rest_len: usize) {
        out.push(b'B');
        let length = 4 + self.portal.len() + 1 + statement.len() + 1 + rest_len;
        out.extend_from_slice(&(length as u32).to_be_bytes());
        put_string(out, self.portal);
        put_string(out, statement);
        out.extend_from_slice(self.rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renames_the_statement_and_keeps_the_rest() {
        let body = b"portal\0old\0\0\0\0\0\0\0";
        let bind = BindMessage::read(body).expect("well formed");
        let mut out = Vec::new();
        bind.put_head(&mut out, b"pgyard_7", bind.rest.len());
        let renamed = BindMessage::read(&out[5..]).expect("well formed");
        assert_eq!(renamed.statement, b"pgyard_7");
        assert_eq!(renamed.rest, bind.rest);
        assert_eq!(u32::from_be_bytes([out[1], out[2], out[3], out[4]]) as usize + 1, out.len());
        assert_eq!(BindMessage::read(b"portal\0old"), Err(WireError::Unterminated));
    }
}
