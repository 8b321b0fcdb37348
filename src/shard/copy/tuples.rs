//! The binary format.
//!
//! Spec: PostgreSQL documentation, COPY, "Binary Format".

use super::{CopyDataError, CopyField};

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// The signature, the flags and the length of the header's extension.
const HEADER: usize = 19;
/// Stands for the number of fields behind the last row.
const TRAILER: [u8; 2] = [0xff, 0xff];

/// Finds tuples in data that comes in pieces.
#[derive(Default)]
pub(super) struct Tuples {
    header_is_past: bool,
    /// Bytes of the buffer's first tuple whose fields are whole, and the number of fields behind them.
    at: usize,
    fields_left: usize,
}

impl Tuples {
    /// Whether the header has not been found yet.
    pub(super) fn header_is_due(&self) -> bool {
        !self.header_is_past
    }

    /// The bytes of the header, of the next tuple or of the trailer, if they are there.
    pub(super) fn scan(&mut self, buffer: &[u8]) -> Result<Option<usize>, CopyDataError> {
        if !self.header_is_past {
            let known = buffer.len().min(SIGNATURE.len());
            if buffer[..known] != SIGNATURE[..known] {
                return Err(CopyDataError::Signature);
            }
            let Some(extension) = number(buffer, HEADER - 4) else { return Ok(None) };
            let length = HEADER.saturating_add(usize::try_from(extension).unwrap_or(0));
            self.header_is_past = buffer.len() >= length;
            return Ok(self.header_is_past.then_some(length));
        }
        if self.at == 0 {
            let Some(count) = buffer.first_chunk::<2>() else { return Ok(None) };
            self.at = 2;
            self.fields_left = if *count == TRAILER { 0 } else { usize::from(u16::from_be_bytes(*count)) };
        }
        while self.fields_left > 0 {
            let Some(length) = number(buffer, self.at) else { return Ok(None) };
            let end = (self.at + 4).saturating_add(usize::try_from(length).unwrap_or(0));
            if buffer.len() < end {
                return Ok(None);
            }
            self.at = end;
            self.fields_left -= 1;
        }
        Ok(Some(std::mem::take(&mut self.at)))
    }

    /// Whether what was found at the front of the buffer is the trailer.
    pub(super) fn is_trailer(&self, buffer: &[u8]) -> bool {
        buffer.starts_with(&TRAILER)
    }

    /// The key fields of a tuple.
    pub(super) fn key_of(&self, tuple: &[u8], key: &[usize]) -> Option<Vec<CopyField>> {
        let last = *key.iter().max()?;
        let mut fields: Vec<Option<&[u8]>> = Vec::new();
        let mut at = 2;
        while fields.len() <= last {
            let length = number(tuple, at)?;
            at += 4;
            let Ok(length) = usize::try_from(length) else {
                fields.push(None);
                continue;
            };
            fields.push(Some(tuple.get(at..at + length)?));
            at += length;
        }
        Some(key.iter().map(|field| fields[*field].map(<[u8]>::to_vec)).collect())
    }
}

fn number(buffer: &[u8], at: usize) -> Option<i32> {
    buffer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_be_bytes)
}
