//! Which kind of node a unit of work needs, and the reason that is shown to people and counted.

use crate::metrics::QueryReason;
use crate::sql::{Access, Command, Isolation, RouteHint, StatementFacts, WriteReason};

/// What the decision depends on besides the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// `split` of the database: false sends everything to the primary.
    pub split: bool,
    /// `SET pgyard.route`.
    pub setting: Option<RouteHint>,
    /// `default_transaction_read_only`.
    pub read_only_by_default: bool,
    /// `default_transaction_isolation`.
    pub isolation_by_default: Isolation,
    /// False from a DDL statement until the catalogue has been read again.
    pub catalogue_is_current: bool,
}

/// The kind of node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The primary only.
    Primary,
    /// A replica that is fresh enough, else the primary.
    Replica,
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Where to.
    pub target: Target,
    /// Why.
    pub reason: QueryReason,
}

/// The metric's reason for a write.
pub fn write_reason(reason: WriteReason) -> QueryReason {
    match reason {
        WriteReason::Command => QueryReason::Write,
        WriteReason::Utility => QueryReason::Utility,
        WriteReason::Nested => QueryReason::NestedWrite,
        WriteReason::Lock => QueryReason::Lock,
        WriteReason::VolatileFunction => QueryReason::VolatileFunction,
        WriteReason::UnknownFunction => QueryReason::UnknownFunction,
        WriteReason::SuspectObject => QueryReason::SuspectObject,
        WriteReason::SessionBound => QueryReason::SessionBound,
        WriteReason::SeveralStatements => QueryReason::SeveralStatements,
        WriteReason::Unparsed => QueryReason::Unparsed,
        WriteReason::UnsafeLexing => QueryReason::UnsafeLexing,
        WriteReason::ServerFile => QueryReason::ServerFile,
    }
}

/// The neediest of the parts of a unit decides.
///
/// `access` is the greatest of the statements' accesses; `statements` are looked at only where a transaction begins.
pub fn decide(view: &SessionView, access: Access, hint: Option<RouteHint>, statements: &[&StatementFacts]) -> Need {
    let primary = |reason| Need { target: Target::Primary, reason };
    let replica = |reason| Need { target: Target::Replica, reason };
    match (hint, view.setting) {
        (Some(RouteHint::Primary), _) => return primary(QueryReason::Hint),
        (Some(RouteHint::Replica), _) => return replica(QueryReason::Hint),
        (None, Some(RouteHint::Primary)) => return primary(QueryReason::Setting),
        // The setting is broad: it turns off the proof for what is not understood, not the knowledge that something writes.
        (None, Some(RouteHint::Replica)) if is_replica_possible(access) => return replica(QueryReason::Setting),
        _ => {}
    }
    if !view.split {
        return primary(QueryReason::SplitOff);
    }
    if !view.catalogue_is_current {
        return primary(QueryReason::Catalogue);
    }
    match access {
        Access::Read => replica(QueryReason::Read),
        Access::Session if begins_read_only(view, statements) => replica(QueryReason::ReadOnlyTransaction),
        Access::Session => primary(QueryReason::Session),
        Access::Server => primary(QueryReason::Server),
        Access::Write(reason) => primary(write_reason(reason)),
    }
}

fn is_replica_possible(access: Access) -> bool {
    use WriteReason::{UnknownFunction, Unparsed, VolatileFunction};
    matches!(access, Access::Read | Access::Write(Unparsed | UnknownFunction | VolatileFunction))
}

/// Whether the unit begins a READ ONLY transaction that a standby accepts, and does nothing else but read.
fn begins_read_only(view: &SessionView, statements: &[&StatementFacts]) -> bool {
    let mut begun = false;
    for statement in statements {
        match &statement.command {
            Command::Begin(modes) => {
                let read_only = modes.read_only.unwrap_or(view.read_only_by_default);
                let isolation = modes.isolation.unwrap_or(view.isolation_by_default);
                if !read_only || isolation == Isolation::Serializable {
                    return false;
                }
                begun = true;
            }
            Command::Commit { chain: false } | Command::Rollback { chain: false } if begun => {}
            _ if statement.access == Access::Read => {}
            _ => return false,
        }
    }
    begun
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Pins, TransactionModes};

    const VIEW: SessionView = SessionView {
        split: true,
        setting: None,
        read_only_by_default: false,
        isolation_by_default: Isolation::ReadCommitted,
        catalogue_is_current: true,
    };

    fn begin(read_only: Option<bool>, isolation: Option<Isolation>) -> StatementFacts {
        statement(Command::Begin(TransactionModes { read_only, isolation, deferrable: None }), Access::Session)
    }

    fn statement(command: Command, access: Access) -> StatementFacts {
        StatementFacts { command, access, effects: Vec::new(), pins: Pins::NONE, plain_write: false, span: 0..0 }
    }

    #[test]
    fn labels_are_in_step_with_the_facts() {
        use WriteReason::*;
        let all = [Command, Utility, Nested, Lock, VolatileFunction, UnknownFunction, SuspectObject, SessionBound];
        for reason in all.into_iter().chain([SeveralStatements, Unparsed, UnsafeLexing, ServerFile]) {
            assert_eq!(write_reason(reason).label(), reason.label());
        }
    }

    #[test]
    fn the_need_follows_access_hint_and_setting() {
        let check = |view: SessionView, access, hint, target, label| {
            let need = decide(&view, access, hint, &[]);
            assert_eq!((need.target, need.reason.label()), (target, label));
        };
        let write = Access::Write(WriteReason::Command);
        check(VIEW, Access::Read, None, Target::Replica, "read");
        check(VIEW, write, None, Target::Primary, "write");
        check(VIEW, Access::Server, None, Target::Primary, "server");
        check(VIEW, Access::Read, Some(RouteHint::Primary), Target::Primary, "hint");
        check(VIEW, write, Some(RouteHint::Replica), Target::Replica, "hint");
        let to_primary = SessionView { setting: Some(RouteHint::Primary), ..VIEW };
        check(to_primary, Access::Read, None, Target::Primary, "setting");
        check(to_primary, Access::Read, Some(RouteHint::Replica), Target::Replica, "hint");
        let to_replica = SessionView { setting: Some(RouteHint::Replica), ..VIEW };
        check(to_replica, write, None, Target::Primary, "write");
        check(to_replica, Access::Write(WriteReason::Unparsed), None, Target::Replica, "setting");
        check(SessionView { split: false, ..VIEW }, Access::Read, None, Target::Primary, "split_off");
        check(SessionView { catalogue_is_current: false, ..VIEW }, Access::Read, None, Target::Primary, "catalogue");
    }

    #[test]
    fn only_read_only_transactions_begin_on_a_replica() {
        let check = |view: SessionView, statements: &[&StatementFacts], target| {
            assert_eq!(decide(&view, Access::Session, None, statements).target, target, "{statements:?}");
        };
        let read = statement(Command::Query, Access::Read);
        let commit = statement(Command::Commit { chain: false }, Access::Session);
        check(VIEW, &[&begin(Some(true), None)], Target::Replica);
        check(VIEW, &[&begin(None, None)], Target::Primary);
        check(VIEW, &[&begin(Some(true), Some(Isolation::Serializable))], Target::Primary);
        check(VIEW, &[&begin(Some(true), Some(Isolation::RepeatableRead)), &read, &commit], Target::Replica);
        check(VIEW, &[&commit], Target::Primary);
        check(SessionView { read_only_by_default: true, ..VIEW }, &[&begin(None, None)], Target::Replica);
        check(SessionView { read_only_by_default: true, ..VIEW }, &[&begin(Some(false), None)], Target::Primary);
        let serializable = SessionView { isolation_by_default: Isolation::Serializable, ..VIEW };
        check(serializable, &[&begin(Some(true), None)], Target::Primary);
    }
}
