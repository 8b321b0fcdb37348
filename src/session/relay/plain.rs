//! The messages that nearly every answer has, passed on without a judgement of each.

use super::changed::must_be_told;
use super::{Answer, Ranges, forward};
use crate::server::{Incoming, TransactionStatus};
use crate::wire::WireError;
use crate::wire::frame::{HEADER_LEN, Header, LARGE_MESSAGE_MAX, header};

/// Whether nothing but the answer to one unit is expected, and the client gets it as it is.
#[inline]
pub(super) fn goes_as_it_comes(server: &Incoming, answer: &Answer) -> bool {
    server.replies.is_plain() && !answer.hidden && answer.refused.is_none() && answer.withheld.is_none()
}

/// Passes on the messages of an answer that nearly every one has, up to another: what only prepares it (ParseComplete, BindComplete,
/// RowDescription), its rows, and the end of a read outside a transaction. Returns up to where.
pub(super) fn pass(ranges: &mut Ranges<'_>, from: usize, server: &mut Incoming, answer: &mut Answer) -> Result<usize, WireError> {
    let chunk = ranges.chunk;
    let mut place = from;
    while let Some(head) = header(&chunk[place..])? {
        let rest = &chunk[place..];
        let len = match head.tag {
            b'1' | b'2' | b'T' => {
                answer.answered += 1;
                head.total
            }
            b'D' | b'd' => {
                answer.committed = true;
                rows_len(rest)
            }
            b'C' if is_end_of_read(rest, head) && !must_be_told(ranges.session, server) => {
                server.status = TransactionStatus::Idle;
                server.replies.judge(b'Z');
                answer.answered += 1;
                answer.completed += 1;
                (answer.rolled_back, answer.commit_completed) = (false, false);
                (answer.committed, answer.ready) = (true, true);
                rest.len()
            }
            _ => break,
        };
        let end = place + len.min(rest.len());
        answer.body_forward = true;
        forward(ranges, answer, place, end);
        server.body_left = len - (end - place);
        place = end;
    }
    Ok(place)
}

/// Whether `rest` is the CommandComplete of a SELECT and a ReadyForQuery outside a transaction, and no more.
fn is_end_of_read(rest: &[u8], complete: Header) -> bool {
    const READY: &[u8] = &[b'Z', 0, 0, 0, 5, b'I'];
    rest.get(complete.total..) == Some(READY) && rest[HEADER_LEN..].starts_with(b"SELECT ")
}

/// Length of the run of rows and COPY data at the front, of which the last may not be all there: the length may be beyond the
/// end. A message that is not one of them, or whose length can't be, ends it.
pub(super) fn rows_len(bytes: &[u8]) -> usize {
    let mut end = 0;
    while let Some(head) = bytes.get(end..).and_then(<[u8]>::first_chunk::<HEADER_LEN>) {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        if !matches!(head[0], b'D' | b'd') || !(4..=LARGE_MESSAGE_MAX + 4).contains(&length) {
            break;
        }
        end += length as usize + 1;
    }
    end
}
