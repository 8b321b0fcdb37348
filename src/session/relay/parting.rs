//! A server that is told to end between a COMMIT and its Sync.
//!
//! In a pipeline PostgreSQL commits when it executes COMMIT, before it answers that it did. If it is told to end before it has read the
//! Sync, it says FATAL behind that answer. What the client asked for is done then, and an error would tell it otherwise.
//!
//! Spec: PostgreSQL source, `exec_execute_message` (`is_xact_command`), and `PostgresMain`, which looks for interrupts between messages.

use super::Answer;
use crate::server::{Incoming, TransactionStatus, Verdict};
use crate::wire::error_response::ErrorFields;

/// Whether this error is a server's farewell behind a COMMIT with which all of the pipeline is done.
#[cold]
pub(super) fn is_behind_commit(body: &[u8], answer: &Answer) -> bool {
    let is_done = answer.commits_at > 0 && answer.completed >= answer.commits_at && answer.commit_completed;
    // Where ReadyForQuery is withheld, the same server still has something to do.
    if !is_done || answer.error.is_some() || answer.refused.is_some() || answer.withheld.is_some() {
        return false;
    }
    let fields = ErrorFields::read(body);
    fields.is_fatal() && fields.state.class() == *b"57"
}

/// The pipeline ends as if its Sync had been answered, and the connection is not used again.
#[cold]
pub(super) fn end_well(server: &mut Incoming, answer: &mut Answer) -> Verdict {
    server.status = TransactionStatus::Idle;
    server.replies.judge(b'Z');
    (answer.unsolicited, answer.ready, answer.ready_is_due) = (true, true, true);
    Verdict::Skip
}
