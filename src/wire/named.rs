//! Describe and Close: a kind (`S`tatement or `P`ortal) and a name.

use super::frame::{put_message, put_string};
use super::{Cursor, WireError};

/// A Describe or Close message.
///
/// Spec: "Message Formats", Describe (F) and Close (F).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedMessage<'a> {
    /// Whether it names a statement; else a portal.
    pub statement: bool,
    /// The name.
    pub name: &'a [u8],
}

impl<'a> NamedMessage<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// The kind is neither `S` nor `P`, or the name is not all of the rest.
    pub fn read(body: &'a [u8]) -> Result<Self, WireError> {
        let mut cursor = Cursor::new(body);
        let statement = match cursor.byte()? {
            b'S' => true,
            b'P' => false,
            _ => return Err(WireError::Field("kind")),
        };
        let name = cursor.string()?;
        cursor.end()?;
        Ok(NamedMessage { statement, name })
    }

    /// Appends a Describe (`D`) or Close (`C`) of a statement.
    pub fn put_statement(out: &mut Vec<u8>, tag: u8, name: &[u8]) {
        put_message(out, tag, |body| {
            body.push(b'S');
            put_string(body, name);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_kind_and_name() {
        assert_eq!(NamedMessage::read(b"Sx\0"), Ok(NamedMessage { statement: true, name: b"x" }));
        assert_eq!(NamedMessage::read(b"P\0"), Ok(NamedMessage { statement: false, name: b"" }));
        assert!(NamedMessage::read(b"X\0").is_err());
        assert!(NamedMessage::read(b"S").is_err());
        assert!(NamedMessage::read(b"Sx\0y").is_err());
        assert!(NamedMessage::read(b"").is_err());
    }
}
