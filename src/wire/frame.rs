//! Message headers: one type byte, then a big-endian length that counts itself and the body.

use super::WireError;

/// Longest body of a message that may carry user data, as in PostgreSQL. Bytes.
///
/// Spec: `PQ_LARGE_MESSAGE_LIMIT` in `src/include/libpq/libpq.h` (`MaxAllocSize - 1`).
pub const LARGE_MESSAGE_MAX: u32 = 0x3FFF_FFFE;

/// Longest body of any other message of a client. Bytes.
///
/// Spec: `PQ_SMALL_MESSAGE_LIMIT` in `src/include/libpq/libpq.h`.
pub const SMALL_MESSAGE_MAX: u32 = 10_000;

/// Bytes before a body.
pub const HEADER_LEN: usize = 5;

/// A message's type and its length on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The type byte.
    pub tag: u8,
    /// Header and body. Bytes.
    pub total: usize,
}

/// A whole message in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The type byte.
    pub tag: u8,
    /// The body.
    pub body: &'a [u8],
    /// Header and body. Bytes.
    pub total: usize,
}

/// The header at the front of `buffer`; `None` when fewer than five bytes are there.
#[inline]
pub fn header(buffer: &[u8]) -> Result<Option<Header>, WireError> {
    let Some(head) = buffer.first_chunk::<HEADER_LEN>() else { return Ok(None) };
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    if length < 4 || length - 4 > LARGE_MESSAGE_MAX {
        return Err(WireError::Length { tag: head[0], length });
    }
    Ok(Some(Header { tag: head[0], total: length as usize + 1 }))
}

/// The header of a client's message, with PostgreSQL's limit for its type.
///
/// # Errors
/// The type is not one that a client may send after log-in, or the length is outside the limit for the type.
pub fn client_header(buffer: &[u8]) -> Result<Option<Header>, WireError> {
    let Some(&tag) = buffer.first() else { return Ok(None) };
    let limit = match tag {
        b'Q' | b'P' | b'B' | b'F' | b'd' => LARGE_MESSAGE_MAX,
        b'C' | b'D' | b'E' | b'H' | b'S' | b'X' | b'c' | b'f' | b'p' => SMALL_MESSAGE_MAX,
        other => return Err(WireError::Type(other)),
    };
    let found = header(buffer)?;
    if let Some(header) = found {
        let body = (header.total - HEADER_LEN) as u32;
        if body > limit {
            return Err(WireError::Length { tag, length: body + 4 });
        }
    }
    Ok(found)
}

/// The whole message at the front of `buffer`, or `None` when it is not all there.
pub fn frame_at(buffer: &[u8]) -> Result<Option<Frame<'_>>, WireError> {
    match header(buffer)? {
        Some(Header { tag, total }) if buffer.len() >= total => Ok(Some(Frame { tag, body: &buffer[HEADER_LEN..total], total })),
        _ => Ok(None),
    }
}

/// Appends a message: the type, the length, the body that `fill` writes.
pub fn put_message(out: &mut Vec<u8>, tag: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    fill(out);
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends a zero-terminated string.
pub fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_headers_and_refuses_impossible_lengths() {
        assert_eq!(header(b""), Ok(None));
        assert_eq!(header(b"Z\0\0\0"), Ok(None));
        assert_eq!(header(b"Z\0\0\0\x05I"), Ok(Some(Header { tag: b'Z', total: 6 })));
        assert_eq!(header(b"Z\0\0\0\x03I"), Err(WireError::Length { tag: b'Z', length: 3 }));
        assert_eq!(header(b"Z\xff\xff\xff\xff"), Err(WireError::Length { tag: b'Z', length: u32::MAX }));
        assert_eq!(client_header(b"z"), Err(WireError::Type(b'z')));
        assert_eq!(client_header(b"S\0\0\x40\0"), Err(WireError::Length { tag: b'S', length: 0x4000 }));
        assert_eq!(client_header(b"Q\0\0\x40\0").map(|h| h.map(|h| h.total)), Ok(Some(0x4001)));
    }

    #[test]
    fn frames_come_whole_or_not_at_all() {
        let mut out = Vec::new();
        put_message(&mut out, b'Q', |b| put_string(b, b"select 1"));
        assert_eq!(out.len(), 14);
        for cut in 0..out.len() {
            assert_eq!(frame_at(&out[..cut]), Ok(None));
        }
        assert_eq!(frame_at(&out).map(|f| f.map(|f| f.body)), Ok(Some(&b"select 1\0"[..])));
    }
}
