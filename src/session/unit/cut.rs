//! Cutting the client's bytes into units.

use super::messages::{add_bind, add_named, add_parse};
use super::{Cut, Unit, UnitKind};
use crate::database::{Database, classify};
use crate::session::state::SessionState;
use crate::sql::{Access, Pins, WriteReason};
use crate::wire::bind::BindMessage;
use crate::wire::frame::{HEADER_LEN, Header, client_header};
use crate::wire::{Cursor, WireError};
use std::hint::cold_path;

/// A pipeline that grows beyond this before its Sync is sent in parts, to the primary. Bytes.
const PIPELINE_MAX: usize = 1024 * 1024;
/// A Bind longer than this, and than `retry_buffer`, is passed on as it comes, once its names are there. Bytes.
const STREAM_MIN: usize = 256 * 1024;

/// A whole Sync.
const SYNC: &[u8] = &[b'S', 0, 0, 0, 4];

/// Cuts the unit at the front of `input`.
///
/// `scanned` remembers how far a pipeline was looked through without finding its end; it is 0 for a new unit.
///
/// # Errors
/// A message that no client may send here; the session ends with it.
pub fn cut(
    input: &[u8],
    scanned: &mut u32,
    state: &SessionState,
    database: &Database,
    max_message: usize,
) -> Result<Cut, WireError> {
    let Some(header) = client_header(input)? else { return Ok(Cut::NeedMore) };
    if header.total > max_message {
        return Err(WireError::Length { tag: header.tag, length: (header.total - 1) as u32 });
    }
    if state.skipping && !matches!(header.tag, b'S' | b'X') {
        return Ok(Cut::Ignore(header.total));
    }
    match header.tag {
        b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'S' => {
            if *scanned == 0 && input.ends_with(SYNC) && input.len() <= max_message {
                // Nearly always one pipeline, and all of it. These bytes may be inside a message too, which is seen below.
                let cut = cut_pipeline(input, state, database)?;
                if !matches!(&cut, Cut::Whole(unit) if unit.kind == UnitKind::Part) {
                    return Ok(cut);
                }
                cold_path();
            }
            if !has_end(input, scanned, database, max_message)? {
                return Ok(Cut::NeedMore);
            }
            *scanned = 0;
            return cut_pipeline(input, state, database);
        }
        // Data of a COPY that has failed: PostgreSQL drops it too.
        b'd' | b'c' | b'f' => return Ok(Cut::Ignore(header.total)),
        _ if input.len() < header.total => return Ok(Cut::NeedMore),
        _ => {}
    }
    let body = &input[HEADER_LEN..header.total];
    let mut unit = Unit { len: header.total, ..Unit::empty(UnitKind::Query) };
    match header.tag {
        b'Q' => {
            let mut cursor = Cursor::new(body);
            let text = cursor.string()?;
            cursor.end()?;
            unit.add(classify(database, text, state.lexing), true, (state, database));
        }
        b'F' => {
            cold_path();
            unit.kind = UnitKind::Function;
            unit.access = Access::Write(WriteReason::Command);
            unit.pins = Pins::OPAQUE;
            unit.needs_care = true;
        }
        b'X' => unit.kind = UnitKind::Terminate,
        tag => return Err(WireError::Type(tag)),
    }
    Ok(Cut::Whole(unit))
}

/// Whether the pipeline at the front of `input` can be cut: its Sync or Flush is there, or it is too long to wait for it.
fn has_end(input: &[u8], scanned: &mut u32, database: &Database, max_message: usize) -> Result<bool, WireError> {
    loop {
        let done = *scanned as usize;
        let rest = &input[done.min(input.len())..];
        match client_header(rest)? {
            Some(header) if header.total > max_message => {
                return Err(WireError::Length { tag: header.tag, length: (header.total - 1) as u32 });
            }
            Some(header) if rest.len() >= header.total => {
                if !matches!(header.tag, b'P' | b'B' | b'D' | b'E' | b'C') {
                    return Ok(true);
                }
                *scanned += header.total as u32;
            }
            Some(header) => return Ok(done >= PIPELINE_MAX || streamed_bind(header, rest, database).is_some()),
            None => return Ok(done >= PIPELINE_MAX),
        }
    }
}

/// The head of a Bind that is passed on as it comes: too long to be sent again, and its names are there.
fn streamed_bind<'a>(header: Header, message: &'a [u8], database: &Database) -> Option<BindMessage<'a>> {
    let long = header.tag == b'B' && header.total > STREAM_MIN.max(database.settings().routing.retry_buffer);
    if long { BindMessage::read(&message[HEADER_LEN..]).ok() } else { None }
}

fn cut_pipeline(input: &[u8], state: &SessionState, database: &Database) -> Result<Cut, WireError> {
    let mut unit = Unit::empty(UnitKind::Pipeline);
    loop {
        let rest = &input[unit.len..];
        let header = match client_header(rest)? {
            Some(header) if rest.len() >= header.total => header,
            head => {
                if let Some(head) = head
                    && let Some(bind) = streamed_bind(head, rest, database)
                {
                    add_bind(&mut unit, input, bind, state, database)?;
                    (unit.len, unit.rest) = (input.len(), head.total - rest.len());
                }
                unit.kind = UnitKind::Part;
                unit.keep_portals();
                return Ok(Cut::Whole(unit));
            }
        };
        let place = unit.len + HEADER_LEN;
        let body = &rest[HEADER_LEN..header.total];
        match header.tag {
            b'P' => add_parse(&mut unit, input, place, body, state, database)?,
            b'B' => add_bind(&mut unit, input, BindMessage::read(body)?, state, database)?,
            b'E' => {
                unit.binds = true;
                unit.leaves_portals |= !body.ends_with(&[0; 4]);
            }
            b'D' | b'C' => add_named(&mut unit, header.tag, body, (state, database))?,
            b'S' | b'H' => {
                if !body.is_empty() {
                    return Err(WireError::Trailing);
                }
                unit.len += header.total;
                if header.tag == b'H' {
                    unit.kind = UnitKind::Flush;
                    unit.keep_portals();
                }
                return Ok(Cut::Whole(unit));
            }
            _ => {
                // A simple query in the middle of a pipeline: what came before it is sent first.
                unit.kind = UnitKind::Part;
                unit.keep_portals();
                return Ok(Cut::Whole(unit));
            }
        }
        unit.len += header.total;
        unit.message_count += 1;
    }
}
