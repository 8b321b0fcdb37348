//! What an error says about the unit: whether it can be sent again, elsewhere or as it is.

use super::{Answer, CopyPhase};
use crate::metrics::RetryReason;
use crate::server::{Expected, Incoming};
use crate::types::SqlState;
use crate::wire::error_response::ErrorFields;

/// What reports "cached plan must not change result type".
///
/// Spec: `src/backend/utils/cache/plancache.c`.
const STALE_PLAN_ROUTINE: &[u8] = b"RevalidateCachedQuery";

/// What reports "unexpected message type during COPY from stdin".
///
/// Spec: PostgreSQL `src/backend/commands/copyfromparse.c`.
const COPY_ROUTINE: &[u8] = b"CopyGetData";

#[cold]
pub(super) fn note_error(body: &[u8], server: &mut Incoming, answer: &mut Answer) {
    let fields = ErrorFields::read(body);
    answer.fatal |= fields.is_fatal();
    answer.farewell |= fields.is_fatal() && fields.state.class() == *b"57";
    if answer.hidden || server.replies.front() == Some(Expected::Own) {
        answer.own_error.get_or_insert_with(|| Box::new((fields.text(), body.to_vec())));
        return;
    }
    answer.error = Some(fields.state);
    answer.lost_sync |=
        answer.copy == CopyPhase::In && fields.state == SqlState::PROTOCOL_VIOLATION && fields.routine == COPY_ROUTINE;
    answer.copy = CopyPhase::None;
    let stale = fields.state == SqlState::FEATURE_NOT_SUPPORTED && fields.routine == STALE_PLAN_ROUTINE;
    answer.stale_plan = stale;
    if answer.committed || answer.refused.is_some() {
        // The rows before it may have come with it, and not have been forwarded yet.
        answer.late_refusal = if answer.may_retry { refusal(fields.state) } else { None };
        return;
    }
    if stale {
        if !answer.may_replan {
            return;
        }
        answer.stale_plan = false;
        answer.refused = Some(RetryReason::StalePlan);
    } else if answer.may_retry {
        answer.refused = refusal(fields.state);
    } else if answer.may_resend && fields.is_fatal() && fields.state == SqlState::ADMIN_SHUTDOWN {
        answer.refused = Some(RetryReason::PrimaryLost);
    }
}

/// Why a replica's error does not mean that the statement is wrong; `None` when the primary would say the same.
pub fn refusal(state: SqlState) -> Option<RetryReason> {
    match &state.0 {
        // Read-only transaction, feature not supported in recovery, object not in prerequisite state.
        b"25006" | b"0A000" | b"55000" => Some(RetryReason::ReplicaRefused),
        b"40001" | b"40P01" | b"57P04" => Some(RetryReason::RecoveryConflict),
        // Objects, roles and rights that were not replayed yet.
        b"42P01" | b"42703" | b"42883" | b"3F000" | b"42704" | b"42501" => Some(RetryReason::MissingObject),
        b"57P01" | b"57P02" | b"57P03" => Some(RetryReason::ReplicaLost),
        _ => None,
    }
}
