//! Where a pipeline is cut.

use crate::database::Database;
use crate::wire::WireError;
use crate::wire::bind::BindMessage;
use crate::wire::frame::{HEADER_LEN, Header, client_header};

/// A pipeline that grows beyond this before its Sync is sent in parts, to the primary. Bytes.
const PIPELINE_MAX: usize = 1024 * 1024;
/// The same for one that writes: it goes to the primary whatever comes, which may have an error to tell by now. Bytes.
const WRITES_MAX: usize = 128 * 1024;
/// A Bind longer than this, and than `retry_buffer`, is passed on as it comes, once its names are there. Bytes.
const STREAM_MIN: usize = 256 * 1024;

/// Whether a pipeline can be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It can.
    Here,
    /// If it writes.
    IfItWrites,
    /// Not before more has come.
    Missing,
}

/// Whether the pipeline at the front of `input` can be cut: its Sync or Flush is there, or it is too long to wait for it. `scanned`
/// is how much of it was looked at before.
pub(super) fn end_of(input: &[u8], scanned: &mut usize, database: &Database, max_message: usize) -> Result<End, WireError> {
    let before = *scanned;
    let streamed = loop {
        let rest = &input[(*scanned).min(input.len())..];
        match client_header(rest)? {
            Some(header) if header.total > max_message => {
                return Err(WireError::Length { tag: header.tag, length: (header.total - 1) as u32 });
            }
            Some(header) if rest.len() >= header.total => {
                if !matches!(header.tag, b'P' | b'B' | b'D' | b'E' | b'C') {
                    return Ok(End::Here);
                }
                *scanned += header.total;
            }
            other => break other.is_some_and(|header| streamed_bind(header, rest, database).is_some()),
        }
    };
    if streamed || *scanned >= PIPELINE_MAX {
        return Ok(End::Here);
    }
    // Asked again only behind as much again: what was looked at is looked at from its beginning.
    Ok(if before / WRITES_MAX < *scanned / WRITES_MAX { End::IfItWrites } else { End::Missing })
}

/// The head of a Bind that is passed on as it comes: too long to be sent again, and its names are there.
pub(super) fn streamed_bind<'a>(header: Header, message: &'a [u8], database: &Database) -> Option<BindMessage<'a>> {
    let long = header.tag == b'B' && header.total > STREAM_MIN.max(database.settings().routing.retry_buffer);
    if long { BindMessage::read(&message[HEADER_LEN..]).ok() } else { None }
}
