//! A bounds-checked reader over a message body.

/// A message that does not have the shape that its type demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The length field is under 4 or over the limit for the type.
    #[error("invalid message length {length} for message type {}", printable(*.tag))]
    Length {
        /// Message type.
        tag: u8,
        /// The claimed length.
        length: u32,
    },
    /// The body ends before a field does.
    #[error("message body ends too early")]
    Short,
    /// A string without its zero byte.
    #[error("invalid string in message")]
    Unterminated,
    /// Bytes are left behind the last field.
    #[error("invalid message format")]
    Trailing,
    /// A field holds a value outside its range.
    #[error("invalid {0} in message")]
    Field(&'static str),
    /// An unknown message type.
    #[error("invalid frontend message type {0}")]
    Type(u8),
}

fn printable(tag: u8) -> String {
    if tag.is_ascii_graphic() { (tag as char).to_string() } else { tag.to_string() }
}

/// Reads fields from the front of a body.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// At the start of `body`.
    pub fn new(body: &'a [u8]) -> Self {
        Cursor { rest: body }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// A zero-terminated string, without its zero.
    pub fn string(&mut self) -> Result<&'a [u8], WireError> {
        // Most names are empty.
        let end = match self.rest.first() {
            Some(0) => 0,
            _ => memchr::memchr(0, self.rest).ok_or(WireError::Unterminated)?,
        };
        let (text, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        Ok(text)
    }

    /// `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        if count > self.rest.len() {
            return Err(WireError::Short);
        }
        let (bytes, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(bytes)
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8, WireError> {
        Ok(self.bytes(1)?[0])
    }

    /// A big-endian 16-bit integer.
    pub fn int16(&mut self) -> Result<i16, WireError> {
        let b = self.bytes(2)?;
        Ok(i16::from_be_bytes([b[0], b[1]]))
    }

    /// A big-endian 32-bit integer.
    pub fn int32(&mut self) -> Result<i32, WireError> {
        let b = self.bytes(4)?;
        Ok(i32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// Fails unless everything was read.
    pub fn end(&self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::Trailing) }
    }
}
