//! Which kind of node a unit of work needs, and the reason that is shown to people and counted.

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
    pub reason: RouteReason,
}

/// Why a unit goes where it goes: a metric label and an explanation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteReason {
    /// Proven to be a read.
    Read,
    /// A transaction that is READ ONLY.
    ReadOnlyTransaction,
    /// It is not a read, for this reason.
    Write(WriteReason),
    /// It says something of the session or begins a transaction.
    Session,
    /// It describes a server.
    Server,
    /// A transaction is open on that server.
    Transaction,
    /// The session is pinned to that server.
    Pinned,
    /// A comment said so.
    Hint,
    /// `SET pgyard.route` said so.
    Setting,
    /// Splitting is off for the database.
    SplitOff,
    /// The catalogue has not been read (again) yet.
    Catalogue,
    /// No replica is fresh enough for this session.
    Freshness,
    /// No replica is eligible.
    NoReplica,
    /// A replica refused or failed it.
    Retry,
    /// The primary takes part in the rotation.
    Rotation,
    /// The request was too large to be looked at whole.
    TooLarge,
}

impl RouteReason {
    /// Every label, for metrics registered up front; [`RouteReason::index`] points into it.
    pub const LABELS: [&'static str; 27] = [
        "read",
        "read_only_transaction",
        "session",
        "server",
        "transaction",
        "pinned",
        "hint",
        "setting",
        "split_off",
        "catalogue",
        "freshness",
        "no_replica",
        "retry",
        "rotation",
        "too_large",
        "write",
        "utility",
        "nested_write",
        "lock",
        "volatile_function",
        "unknown_function",
        "suspect_object",
        "session_bound",
        "several_statements",
        "unparsed",
        "unsafe_lexing",
        "server_file",
    ];

    /// Its place in [`RouteReason::LABELS`].
    pub fn index(self) -> usize {
        match self {
            RouteReason::Read => 0,
            RouteReason::ReadOnlyTransaction => 1,
            RouteReason::Session => 2,
            RouteReason::Server => 3,
            RouteReason::Transaction => 4,
            RouteReason::Pinned => 5,
            RouteReason::Hint => 6,
            RouteReason::Setting => 7,
            RouteReason::SplitOff => 8,
            RouteReason::Catalogue => 9,
            RouteReason::Freshness => 10,
            RouteReason::NoReplica => 11,
            RouteReason::Retry => 12,
            RouteReason::Rotation => 13,
            RouteReason::TooLarge => 14,
            RouteReason::Write(reason) => 15 + reason as usize,
        }
    }

    /// The metric label.
    pub fn label(self) -> &'static str {
        Self::LABELS[self.index()]
    }

    /// A sentence for people.
    pub fn explain(self) -> &'static str {
        match self {
            RouteReason::Read => "it is proven to be a read",
            RouteReason::ReadOnlyTransaction => "it begins a READ ONLY transaction, whose statements so far are reads",
            RouteReason::Session => "it says something of the session: it goes to the server that the session has, else to the primary",
            RouteReason::Server => "it describes a server or a session: it goes to the server that the session has, else to the primary",
            RouteReason::Transaction => "a transaction runs on one server",
            RouteReason::Pinned => "the session is pinned to its server",
            RouteReason::Hint => "a comment in the text says so",
            RouteReason::Setting => "pgyard.route says so",
            RouteReason::SplitOff => "routing.split is off for this database",
            RouteReason::Catalogue => "the catalogue has not been read since it last changed",
            RouteReason::Freshness => "no replica has replayed this session's last write yet",
            RouteReason::NoReplica => "no replica is eligible",
            RouteReason::Retry => "a replica could not answer it",
            RouteReason::Rotation => "reads_on_primary = \"always\" puts the primary into the rotation",
            RouteReason::TooLarge => "the request is larger than pgyard holds in memory to look at",
            RouteReason::Write(reason) => explain_write(reason),
        }
    }
}

fn explain_write(reason: WriteReason) -> &'static str {
    match reason {
        WriteReason::Command => "it writes",
        WriteReason::Utility => "it is DDL or a utility statement",
        WriteReason::Nested => "it contains a statement that writes",
        WriteReason::Lock => "it takes row or table locks",
        WriteReason::VolatileFunction => "it calls a volatile function, which may write",
        WriteReason::UnknownFunction => "it calls a function that the catalogue does not know",
        WriteReason::SuspectObject => "it names an object that may call something volatile or that a replica lacks",
        WriteReason::SessionBound => "it is bound to a session on the primary",
        WriteReason::SeveralStatements => "it holds several statements that are not all reads",
        WriteReason::Unparsed => "it could not be proven to be a read",
        WriteReason::UnsafeLexing => "standard_conforming_strings is off or the client encoding is not ASCII-safe, so the text cannot be trusted",
        WriteReason::ServerFile => "it writes a file or runs a program on the server",
    }
}

/// The neediest of the parts of a unit decides.
///
/// `access` is the greatest of the statements' accesses; `statements` are looked at only where a transaction begins.
pub fn decide(view: &SessionView, access: Access, hint: Option<RouteHint>, statements: &[&StatementFacts]) -> Need {
    let primary = |reason| Need { target: Target::Primary, reason };
    let replica = |reason| Need { target: Target::Replica, reason };
    match (hint, view.setting) {
        (Some(RouteHint::Primary), _) => return primary(RouteReason::Hint),
        (Some(RouteHint::Replica), _) => return replica(RouteReason::Hint),
        (None, Some(RouteHint::Primary)) => return primary(RouteReason::Setting),
        // The setting is broad: it turns off the proof for what is not understood, not the knowledge that something writes.
        (None, Some(RouteHint::Replica)) if is_replica_possible(access) => return replica(RouteReason::Setting),
        _ => {}
    }
    if !view.split {
        return primary(RouteReason::SplitOff);
    }
    if !view.catalogue_is_current {
        return primary(RouteReason::Catalogue);
    }
    match access {
        Access::Read => replica(RouteReason::Read),
        Access::Session if begins_read_only(view, statements) => replica(RouteReason::ReadOnlyTransaction),
        Access::Session => primary(RouteReason::Session),
        Access::Server => primary(RouteReason::Server),
        Access::Write(reason) => primary(RouteReason::Write(reason)),
    }
}

fn is_replica_possible(access: Access) -> bool {
    use WriteReason::{Unparsed, UnknownFunction, VolatileFunction};
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
    use crate::sql::{Pins, Tables, TransactionModes};

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
        StatementFacts {
            command,
            access,
            effects: Vec::new(),
            pins: Pins::NONE,
            tables: Tables::Unknown,
            plain_write: false,
            span: 0..0,
        }
    }

    #[test]
    fn labels_are_in_step_with_the_reasons() {
        let mut seen = std::collections::HashSet::new();
        for label in RouteReason::LABELS {
            assert!(seen.insert(label), "{label} twice");
        }
        for reason in [WriteReason::Command, WriteReason::Lock, WriteReason::ServerFile, WriteReason::UnsafeLexing] {
            assert_eq!(RouteReason::Write(reason).label(), reason.label());
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
