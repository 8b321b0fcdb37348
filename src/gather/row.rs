//! The values in a DataRow message.

use crate::types::SqlState;
use crate::wire::frame::HEADER_LEN;

/// Why shards' rows could not be put together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GatherError {
    /// A server's row is not what its description says.
    #[error("a shard sent a malformed row")]
    MalformedRow,
    /// A server printed a value in a way that its type does not have under the session's settings.
    #[error("a value of type {0} that a shard sent can't be compared")]
    UnreadableValue(&'static str),
    /// A row comes before one that the same shard has sent earlier: its order is not the one that is merged by.
    #[error("a shard sent its rows in another order than the others")]
    OutOfOrder,
}

impl GatherError {
    /// The SQLSTATE that tells a client.
    pub fn sql_state(&self) -> SqlState {
        match self {
            GatherError::MalformedRow => SqlState::PROTOCOL_VIOLATION,
            GatherError::UnreadableValue(_) => SqlState::INTERNAL_ERROR,
            GatherError::OutOfOrder => SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        }
    }
}

/// The values of a row, one after another; NULL is `None`.
///
/// Spec: PostgreSQL documentation, "Message Formats", DataRow.
#[derive(Clone, Copy, Debug)]
pub struct RowValues<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> RowValues<'a> {
    /// The values of a whole DataRow message.
    ///
    /// # Errors
    /// It is not one.
    pub fn new(message: &'a [u8]) -> Result<RowValues<'a>, GatherError> {
        let body = message.get(HEADER_LEN..).filter(|_| message[0] == b'D').ok_or(GatherError::MalformedRow)?;
        let (count, rest) = body.split_first_chunk::<2>().ok_or(GatherError::MalformedRow)?;
        Ok(RowValues { rest, left: usize::from(u16::from_be_bytes(*count)) })
    }

    /// How many values are left.
    pub fn count_left(&self) -> usize {
        self.left
    }

    /// The bytes behind the last value that was read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next value; an error when there is none.
    ///
    /// # Errors
    /// The row ends here, or is malformed.
    pub fn next_value(&mut self) -> Result<Option<&'a [u8]>, GatherError> {
        self.left = self.left.checked_sub(1).ok_or(GatherError::MalformedRow)?;
        let (length, rest) = self.rest.split_first_chunk::<4>().ok_or(GatherError::MalformedRow)?;
        let length = i32::from_be_bytes(*length);
        if length == -1 {
            self.rest = rest;
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| GatherError::MalformedRow)?;
        let (value, rest) = rest.split_at_checked(length).ok_or(GatherError::MalformedRow)?;
        self.rest = rest;
        Ok(Some(value))
    }
}

/// A DataRow message of these values.
#[cfg(test)]
pub(super) fn row_of(values: &[Option<&[u8]>]) -> bytes::BytesMut {
    let mut body = Vec::new();
    body.extend((values.len() as u16).to_be_bytes());
    for value in values {
        body.extend(value.map_or(-1, |value| value.len() as i32).to_be_bytes());
        body.extend(value.unwrap_or_default());
    }
    let mut message = vec![b'D'];
    message.extend((body.len() as u32 + 4).to_be_bytes());
    message.extend(body);
    bytes::BytesMut::from(message.as_slice())
}
