//! A server's bytes on their way to the client: judged message by message, forwarded by ranges.
//!
//! Rows and COPY data are never copied into values: only headers are read. The few messages whose body matters (errors,
//! parameter reports, ReadyForQuery) wait in the server's inbox until they are whole.

mod changed;
mod error;
mod parting;
mod plain;

pub use self::error::refusal;

use self::changed::{put_changed, put_fakes};
use self::error::note_error;
use self::plain::{goes_as_it_comes, pass, rows_len};
use super::state::SessionState;
use crate::metrics::RetryReason;
use crate::net::Buffer;
use crate::server::login::note_parameter;
use crate::server::{Expected, Incoming, ReportedParameters, TransactionStatus, Verdict};
use crate::types::SqlState;
use crate::wire::WireError;
use crate::wire::error_response::ErrorFields;
use crate::wire::frame::{HEADER_LEN, Header, header};
use crate::wire::row_description::{NO_ROWS, result_shape};
use std::hint::cold_path;

/// A message that must be whole is passed unseen beyond this. Bytes.
const INSPECT_MAX: usize = 1024 * 1024;

/// Where a COPY FROM STDIN stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyPhase {
    /// No COPY.
    #[default]
    None,
    /// The client's data goes to the server.
    In,
}

/// What happened in the answers to a unit so far.
#[derive(Debug, Default)]
pub struct Answer {
    /// The unit may be sent again: on a replica, outside a transaction, for a session that is not pinned.
    pub may_retry: bool,
    /// The unit may be sent again if the primary says that it ends the connection: a read, or a write that has no effect then.
    pub may_resend: bool,
    /// It is a read besides: rows that came with the primary's farewell are not forwarded either.
    pub only_reads: bool,
    /// The unit prepares or describes named statements outside a transaction: one whose plan has become invalid is made again.
    pub may_replan: bool,
    /// The client was told that a plan has become invalid.
    pub stale_plan: bool,
    /// Something was forwarded that can't be taken back.
    pub committed: bool,
    /// The replica refused; its answer is dropped up to ReadyForQuery.
    pub refused: Option<RetryReason>,
    /// The unit uses the extended protocol.
    pub extended: bool,
    /// COPY FROM STDIN.
    pub copy: CopyPhase,
    /// The last error that the client saw or would have seen.
    pub error: Option<SqlState>,
    /// It ran longer than `query_timeout`, and its server was told to cancel it.
    pub timed_out: bool,
    /// The server ends the connection.
    pub fatal: bool,
    /// The server reported an error when nothing was asked of it: it is going away.
    pub unsolicited: bool,
    /// A query of pgyard's own failed: its message, and the whole body of the error.
    pub own_error: Option<Box<(String, Vec<u8>)>>,
    /// All of it is pgyard's own: nothing is forwarded.
    pub hidden: bool,
    /// The unit's Sync counts for nothing, since a COPY's data comes behind it; or it is held back until that is known.
    pub holds_sync: bool,
    /// The server has met a message that does not belong into COPY data: it ends the connection.
    pub lost_sync: bool,
    /// A COPY FROM STDIN has begun.
    pub copy_began: bool,
    /// The last CommandComplete was a ROLLBACK.
    pub rolled_back: bool,
    /// CommandCompletes.
    pub completed: u32,
    /// How many there are once the COMMIT at the end of a pipeline has been carried out; 0 where there is none.
    pub commits_at: u32,
    /// The last one was a COMMIT.
    pub(super) commit_completed: bool,
    /// The server left before the ReadyForQuery of a pipeline that it has carried out: the client gets one all the same.
    pub(super) ready_is_due: bool,
    /// A ReadyForQuery of the client's was forwarded: the pipeline is over, also where its Sync came behind COPY data.
    pub ready: bool,
    /// Extended messages that the server answered without an error.
    pub answered: usize,
    /// A Sync was added behind a refused part of a pipeline.
    pub synced: bool,
    /// ReadyForQuery and parameter reports are kept from the client, which was last told these: the session's parameters are
    /// put right first.
    pub withheld: Option<Box<ReportedParameters>>,
    /// Whether the rest of the message under way is forwarded.
    pub(super) body_forward: bool,
    /// The server has said, in a notice or an error, that it ends the connection.
    pub farewell: bool,
    /// It said so in a notice: a commit that waited for a standby was cut short, and has taken effect.
    pub noticed: bool,
    /// The replica refused behind rows that came in the same chunk.
    pub(super) late_refusal: Option<RetryReason>,
    /// Bytes forwarded.
    pub bytes: u64,
}

impl Answer {
    /// Whether the unit may have to be sent again once its first messages have come.
    pub fn may_be_taken_back(&self) -> bool {
        self.may_retry || self.may_replan || self.may_resend
    }

    /// Whether the client has got something of the answer, or what can't be taken back is on its way.
    pub fn forwarded(&self) -> bool {
        self.committed || (self.bytes > 0 && !self.may_be_taken_back())
    }

    /// Whether the client has got the head of a message of which `body_left` bytes will never come.
    pub fn leaves_half_a_message(&self, body_left: usize) -> bool {
        body_left > 0 && self.body_forward && self.bytes > 0 && self.forwarded()
    }
}

/// Ranges of a chunk that are forwarded; neighbours become one.
struct Ranges<'a> {
    chunk: &'a [u8],
    start: usize,
    end: usize,
    outbox: &'a mut Buffer,
    /// Whose names errors quote.
    session: Option<&'a SessionState>,
}

impl Ranges<'_> {
    fn add(&mut self, from: usize, to: usize) {
        if self.end == from && self.start < self.end {
            self.end = to;
        } else {
            self.flush();
            (self.start, self.end) = (from, to);
        }
    }

    fn flush(&mut self) {
        if self.start < self.end {
            self.outbox.push(&self.chunk[self.start..self.end]);
        }
        self.start = self.end;
    }
}

/// Judges `chunk`, which follows what is in the server's inbox. Forwarded bytes are appended to `outbox`, except the last range
/// unless answers are held back: that range of `chunk` is returned, to be written behind `outbox` without a copy.
///
/// # Errors
/// The server broke the protocol; its connection can't be used any more.
pub fn take_chunk(
    chunk: &[u8],
    server: &mut Incoming,
    answer: &mut Answer,
    outbox: &mut Buffer,
) -> Result<std::ops::Range<usize>, WireError> {
    take_chunk_for(None, chunk, server, answer, outbox)
}

/// The same for a session, which reads its own names of prepared statements in errors.
pub(super) fn take_chunk_for(
    session: Option<&SessionState>,
    chunk: &[u8],
    server: &mut Incoming,
    answer: &mut Answer,
    outbox: &mut Buffer,
) -> Result<std::ops::Range<usize>, WireError> {
    let committed = answer.committed;
    let from = if server.inbox.is_empty() { 0 } else { complete_head(session, chunk, server, answer, outbox)? };
    let mut ranges = Ranges { chunk, start: from, end: from, outbox, session };
    let used = judge_all(&mut ranges, from, server, answer)?;
    take_back(committed, &mut ranges, answer);
    if !answer.committed && answer.may_be_taken_back() {
        ranges.flush();
    }
    let range = ranges.start..ranges.end;
    server.inbox.push(&chunk[used..]);
    Ok(range)
}

/// Judges the message whose head is in the inbox as soon as enough of it has come; returns how many bytes of `chunk` that took.
/// What follows it is not copied.
fn complete_head(
    session: Option<&SessionState>,
    chunk: &[u8],
    server: &mut Incoming,
    answer: &mut Answer,
    outbox: &mut Buffer,
) -> Result<usize, WireError> {
    let mut whole = std::mem::take(&mut server.inbox);
    let mut from = 0;
    loop {
        let missing = match header(whole.as_slice())? {
            None => HEADER_LEN - whole.len(),
            Some(head) if is_inspected(head, server) => head.total - whole.len(),
            Some(_) => 0,
        };
        if missing == 0 {
            break;
        }
        let added = missing.min(chunk.len() - from);
        whole.push(&chunk[from..from + added]);
        from += added;
        if added < missing {
            server.inbox = whole;
            return Ok(from);
        }
    }
    let mut ranges = Ranges { chunk: whole.as_slice(), start: 0, end: 0, outbox, session };
    judge_all(&mut ranges, 0, server, answer)?;
    ranges.flush();
    Ok(from)
}

/// A server that goes down in the middle of an answer flushes what it has and says goodbye at once, and one whose query conflicts
/// with replay sends its rows and the error together: none of that has been forwarded yet, so the unit can still go elsewhere.
fn take_back(committed_before: bool, ranges: &mut Ranges<'_>, answer: &mut Answer) {
    let late = answer.late_refusal.take();
    let leaves_primary = answer.may_resend && answer.only_reads;
    let reason = match answer.farewell {
        true if leaves_primary => Some(RetryReason::PrimaryLost),
        true => Some(RetryReason::ReplicaLost),
        false => late,
    };
    if reason.is_some() && (answer.may_retry || leaves_primary) && !committed_before && answer.refused.is_none() {
        cold_path();
        answer.refused = reason;
        answer.committed = false;
        ranges.start = ranges.end;
        ranges.outbox.clear();
    }
}

/// Judges the messages in the ranges' chunk from `from` on; returns up to where it was used. What is left is the head of a message.
fn judge_all(ranges: &mut Ranges<'_>, from: usize, server: &mut Incoming, answer: &mut Answer) -> Result<usize, WireError> {
    let chunk = ranges.chunk;
    let mut place = from;
    if server.body_left > 0 {
        cold_path();
        let end = from + server.body_left.min(chunk.len() - from);
        server.body_left -= end - from;
        if answer.body_forward {
            forward(ranges, answer, from, end);
        }
        place = end;
    }
    put_fakes(ranges, server, answer);
    while place < chunk.len() {
        let rest = &chunk[place..];
        if goes_as_it_comes(server, answer) {
            let end = pass(ranges, place, server, answer)?;
            if end > place {
                place = end;
                continue;
            }
        }
        if matches!(rest[0], b'D' | b'd') && server.replies.is_at_rows() && answer.refused.is_none() {
            let rows = rows_len(rest);
            if rows > 0 {
                let end = place + rows.min(rest.len());
                (answer.committed, answer.body_forward) = (true, true);
                forward(ranges, answer, place, end);
                server.body_left = rows - (end - place);
                place = end;
                continue;
            }
        }
        let Some(head) = header(rest)? else { break };
        let whole = rest.len() >= head.total;
        if !whole && is_inspected(head, server) {
            break;
        }
        let end = place + head.total.min(rest.len());
        let body = &rest[HEADER_LEN.min(rest.len())..end - place];
        let verdict = judge(head.tag, body, server, answer)?;
        answer.body_forward = verdict == Verdict::Forward && answer.refused.is_none();
        if answer.body_forward
            && !(matches!(head.tag, b'E' | b'A' | b'Z') && whole && put_changed(head.tag, body, ranges, (server, answer)))
        {
            forward(ranges, answer, place, end);
        }
        if head.tag == b'E' && std::mem::take(&mut answer.ready_is_due) {
            cold_path();
            ranges.flush();
            crate::wire::reply::put_ready(ranges.outbox.writer(), server.status.byte());
        }
        server.body_left = head.total - (end - place);
        place = end;
        put_fakes(ranges, server, answer);
    }
    Ok(place)
}

fn forward(ranges: &mut Ranges<'_>, answer: &mut Answer, from: usize, to: usize) {
    answer.bytes += (to - from) as u64;
    ranges.add(from, to);
}

/// Whether the message's body is looked at, and so waits until it is whole.
fn is_inspected(head: Header, server: &Incoming) -> bool {
    let is_read = match head.tag {
        b'C' | b'E' | b'N' | b'S' | b'Z' | b'A' => true,
        b'T' => matches!(server.replies.front(), Some(Expected::DescribeNamed { .. })),
        _ => false,
    };
    is_read && head.total <= INSPECT_MAX
}

fn judge(tag: u8, body: &[u8], server: &mut Incoming, answer: &mut Answer) -> Result<Verdict, WireError> {
    match tag {
        // The bulk of the traffic first.
        b'D' | b'd' | b'1' | b'2' | b'3' | b'T' | b't' | b'n' | b'C' | b's' | b'I' | b'V' | b'H' | b'G' | b'W' | b'c' => {}
        b'Z' => server.status = TransactionStatus::from_byte(body.first().copied().unwrap_or(b'E')),
        // Nobody asked: the server is going away. That is between it and pgyard.
        b'E' if server.replies.is_empty() => {
            answer.unsolicited = true;
            return Ok(Verdict::Skip);
        }
        b'E' if parting::is_behind_commit(body, answer) => return Ok(parting::end_well(server, answer)),
        b'E' => note_error(body, server, answer),
        b'N' if ErrorFields::read(body).state.class() == *b"57" => {
            answer.farewell = true;
            answer.noticed = true;
            return Ok(Verdict::Forward);
        }
        b'N' => return Ok(if answer.hidden || server.replies.is_quiet() { Verdict::Skip } else { Verdict::Forward }),
        b'S' => {
            cold_path();
            let change = note_parameter(body, &mut server.reported);
            if answer.hidden || answer.withheld.is_some() || server.replies.is_quiet() {
                return Ok(Verdict::Skip);
            }
            server.told ^= change;
            return Ok(Verdict::Forward);
        }
        b'A' => return Ok(Verdict::Forward),
        other => return Err(WireError::Type(other)),
    }
    match (tag, server.replies.front()) {
        (b'1', Some(Expected::Parse { id: id @ 1.., .. })) => {
            cold_path();
            server.prepared.insert(id);
        }
        (b'T', Some(Expected::DescribeNamed { id, .. })) => {
            cold_path();
            server.described.extend(result_shape(body).map(|shape| (id, shape)));
        }
        (b'n', Some(Expected::DescribeNamed { id, .. })) => server.described.push((id, NO_ROWS)),
        _ => {}
    }
    let own = answer.hidden || server.replies.is_quiet() && tag != b'E';
    let verdict = server.replies.judge(tag);
    if own {
        return Ok(if answer.hidden { Verdict::Skip } else { verdict });
    }
    match tag {
        b'1' | b'2' | b'3' | b'T' | b'n' | b'I' | b's' => answer.answered += 1,
        b'Z' => {
            answer.ready |= verdict == Verdict::Forward;
            if answer.withheld.is_some() {
                return Ok(Verdict::Skip);
            }
        }
        b'G' => begin_copy(server, answer),
        // The server's last words are waited for.
        b'E' if answer.lost_sync && server.replies.is_empty() => server.replies.push(Expected::Sync),
        b'C' => {
            answer.answered += 1;
            answer.completed += 1;
            answer.rolled_back = body.starts_with(b"ROLLBACK\0");
            answer.commit_completed = body.starts_with(b"COMMIT\0");
        }
        _ => {}
    }
    // What only prepares an answer can be taken back; what is an answer can't.
    if answer.refused.is_none() && verdict == Verdict::Forward && !matches!(tag, b'1' | b'2' | b'3' | b'T' | b't' | b'n') {
        answer.committed = true;
    }
    Ok(verdict)
}

#[cold]
fn begin_copy(server: &mut Incoming, answer: &mut Answer) {
    (answer.copy, answer.copy_began) = (CopyPhase::In, true);
    if answer.extended {
        answer.holds_sync |= server.replies.begin_copy_in();
    }
}

#[cfg(test)]
mod tests;
