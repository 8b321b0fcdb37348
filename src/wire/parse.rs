//! Parse: a statement's name, its text and the types of its parameters.

use super::frame::{put_message, put_string};
use super::{Cursor, WireError};

/// A Parse message.
///
/// Spec: "Message Formats", Parse (F).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseMessage<'a> {
    /// The statement's name; empty is the unnamed statement.
    pub name: &'a [u8],
    /// The query text.
    pub text: &'a [u8],
    /// The text with its zero byte, the number of types and the types: all that follows the name.
    pub definition: &'a [u8],
}

impl<'a> ParseMessage<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// The body is shorter or longer than its fields say.
    pub fn read(body: &'a [u8]) -> Result<Self, WireError> {
        let mut cursor = Cursor::new(body);
        let name = cursor.string()?;
        let definition = cursor.rest();
        let text = cursor.string()?;
        let types = cursor.int16()? as u16 as usize;
        cursor.bytes(types * 4)?;
        cursor.end()?;
        Ok(ParseMessage { name, text, definition })
    }

    /// Appends a Parse message with another name.
    pub fn put(out: &mut Vec<u8>, name: &[u8], definition: &[u8]) {
        put_message(out, b'P', |body| {
            put_string(body, name);
            body.extend_from_slice(definition);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_refuses_the_rest() {
        let mut out = Vec::new();
        ParseMessage::put(&mut out, b"s1", b"select $1\0\0\x01\0\0\0\x17");
        let message = ParseMessage::read(&out[5..]).expect("well formed");
        assert_eq!((message.name, message.text), (&b"s1"[..], &b"select $1"[..]));
        for cut in 5..out.len() {
            assert!(ParseMessage::read(&out[5..cut]).is_err(), "cut at {cut}");
        }
        out.push(0);
        assert_eq!(ParseMessage::read(&out[5..]), Err(WireError::Trailing));
        assert_eq!(ParseMessage::read(b"\0\0\xff\xff"), Err(WireError::Short));
    }
}
