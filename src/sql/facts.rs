//! The result of looking at a query text. Depends on the text and the catalogue only, so it is cached and shared.

use super::tables::TableUse;
use std::sync::{Arc, OnceLock};

/// What a whole query text says: one entry per statement, none for an empty query.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The statements in order.
    pub statements: Box<[StatementFacts]>,
    /// The neediest of the statements' accesses (`Read` for an empty text).
    pub access: Access,
    /// A routing comment: `/* pgyard: primary */`, `/* pgyard: replica */`.
    pub hint: Option<RouteHint>,
    /// Union of the statements' pins.
    pub pins: Pins,
    /// Some statement changes the catalogue, so that it has to be read again afterwards.
    pub changes_catalogue: bool,
    /// Some statement makes or changes a function, a trigger, or something else that runs code: what a statement leaves behind
    /// in the session can't be told until the catalogue has been read.
    pub defines_code: bool,
    /// Some statement has a session effect, a transaction effect or a pin: the session must look closer. False for plain
    /// reads and writes, which is the fast path.
    pub needs_care: bool,
    /// The tables that it uses, where somebody has asked for them.
    pub tables: OnceLock<Box<TableUse>>,
}

/// What one statement says.
#[derive(Clone, Debug, PartialEq)]
pub struct StatementFacts {
    /// Its kind.
    pub command: Command,
    /// Where it may run.
    pub access: Access,
    /// What it does to the session, in order.
    pub effects: Vec<SessionEffect>,
    /// Why the session could not be multiplexed after it.
    pub pins: Pins,
    /// It is an INSERT, UPDATE, DELETE or MERGE on plain tables that calls nothing opaque: if a server says FATAL 57P01 before
    /// it answered, it had no effect.
    pub plain_write: bool,
    /// Byte range in the text that was classified. Facts from a `FactsCache` may have been made from another text of the same
    /// shape; then there is one statement: who needs the text of a single statement takes the whole text.
    pub span: std::ops::Range<usize>,
}

/// Where a statement may run. Ordered by need: the greatest of several wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Proven to be a read: any node that is fresh enough.
    Read,
    /// Says something of the session or the transaction (SET, SHOW, BEGIN, COMMIT, PREPARE, DEALLOCATE ...): the server that
    /// the session has; else the primary.
    Session,
    /// Describes a server (`pg_stat_activity`, `pg_backend_pid()`): the server that the session has; else the primary.
    Server,
    /// The primary only.
    Write(WriteReason),
}

/// Why a statement goes to the primary: a metric label and an explanation for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WriteReason {
    /// INSERT, UPDATE, DELETE, MERGE, TRUNCATE, COPY FROM, CALL, DO.
    Command,
    /// DDL and other utility statements.
    Utility,
    /// A data-changing CTE, SELECT INTO, EXPLAIN ANALYZE of a write, COPY (write) TO.
    Nested,
    /// FOR UPDATE/SHARE at any depth, LOCK.
    Lock,
    /// Calls a volatile function, or one whose overloads are not all known to be harmless.
    VolatileFunction,
    /// Calls a function that the catalogue does not know.
    UnknownFunction,
    /// Reads a view, type, operator or policy that rests on something volatile; or a sequence, an unlogged or a foreign table.
    SuspectObject,
    /// LISTEN, NOTIFY, UNLISTEN, advisory locks, DECLARE, temporary objects: bound to a session on the primary.
    SessionBound,
    /// Several statements that are not all reads.
    SeveralStatements,
    /// Neither the scan nor the parser could prove anything.
    Unparsed,
    /// The text cannot be scanned safely: standard_conforming_strings is off, or the client encoding is not ASCII-safe.
    UnsafeLexing,
    /// COPY TO a file or a program.
    ServerFile,
}

impl WriteReason {
    /// The metric label: lower-case words with underscores.
    pub fn label(self) -> &'static str {
        match self {
            WriteReason::Command => "write",
            WriteReason::Utility => "utility",
            WriteReason::Nested => "nested_write",
            WriteReason::Lock => "lock",
            WriteReason::VolatileFunction => "volatile_function",
            WriteReason::UnknownFunction => "unknown_function",
            WriteReason::SuspectObject => "suspect_object",
            WriteReason::SessionBound => "session_bound",
            WriteReason::SeveralStatements => "several_statements",
            WriteReason::Unparsed => "unparsed",
            WriteReason::UnsafeLexing => "unsafe_lexing",
            WriteReason::ServerFile => "server_file",
        }
    }
}

/// A routing comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteHint {
    /// `/* pgyard: primary */`: the primary.
    Primary,
    /// `/* pgyard: replica */`: a replica, whatever the analysis says (a failure falls back to the primary).
    Replica,
}

/// A statement's kind, as far as the session has to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// SELECT, VALUES, TABLE, WITH, EXPLAIN: answers rows.
    Query,
    /// INSERT, UPDATE, DELETE, MERGE and everything else that is not named here.
    Other,
    /// COPY ... FROM STDIN.
    CopyIn,
    /// COPY ... TO STDOUT.
    CopyOut,
    /// BEGIN, START TRANSACTION.
    Begin(TransactionModes),
    /// COMMIT, END.
    Commit {
        /// AND CHAIN.
        chain: bool,
    },
    /// ROLLBACK, ABORT.
    Rollback {
        /// AND CHAIN.
        chain: bool,
    },
    /// SAVEPOINT name.
    Savepoint(Arc<str>),
    /// RELEASE SAVEPOINT name.
    Release(Arc<str>),
    /// ROLLBACK TO SAVEPOINT name.
    RollbackTo(Arc<str>),
    /// SET TRANSACTION.
    SetTransaction(TransactionModes),
    /// PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED.
    TwoPhase,
    /// SHOW name (folded to lower case; `all` for SHOW ALL).
    Show(Arc<str>),
}

/// Modes named by BEGIN, START TRANSACTION, SET TRANSACTION; `None` where not named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionModes {
    /// READ ONLY is `Some(true)`, READ WRITE `Some(false)`.
    pub read_only: Option<bool>,
    /// ISOLATION LEVEL.
    pub isolation: Option<Isolation>,
    /// DEFERRABLE is `Some(true)`.
    pub deferrable: Option<bool>,
}

/// Isolation levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isolation {
    /// READ UNCOMMITTED or READ COMMITTED.
    ReadCommitted,
    /// REPEATABLE READ.
    RepeatableRead,
    /// SERIALIZABLE.
    Serializable,
}

/// What a statement does to the session's state if it succeeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEffect {
    /// SET name = value, SET ROLE, SET SESSION AUTHORIZATION, `set_config('name', 'value', false)` with literals.
    Set {
        /// Folded to lower case; `role` and `session_authorization` for those forms; `timezone` for SET TIME ZONE;
        /// `client_encoding` for SET NAMES; `transaction` modes of SET SESSION CHARACTERISTICS are `default_transaction_*`.
        name: Arc<str>,
        /// The value as SQL text that can stand behind `SET name = `; `None` is DEFAULT.
        value: Option<Arc<str>>,
    },
    /// SET LOCAL: ends with the transaction by itself.
    SetLocal {
        /// As above; empty where it is computed (`set_config($1, $2, true)`).
        name: Arc<str>,
        /// The value as SQL text; `None` where it is computed, DEFAULT, or not sure to be set.
        value: Option<Arc<str>>,
    },
    /// RESET name.
    Reset(Arc<str>),
    /// RESET ALL.
    ResetAll,
    /// DISCARD ALL.
    DiscardAll,
    /// DISCARD PLANS, SEQUENCES, TEMP.
    DiscardSome(Discard),
    /// PREPARE name AS ...
    Prepare {
        /// The name.
        name: Arc<str>,
        /// Where the prepared statement itself stands in the text that was classified.
        body: std::ops::Range<usize>,
    },
    /// EXECUTE name, also inside EXPLAIN and CREATE TABLE AS.
    Execute(Arc<str>),
    /// Reads which prepared statements the session has.
    ListStatements,
    /// DEALLOCATE name; `None` is ALL.
    Deallocate(Option<Arc<str>>),
    /// LISTEN channel.
    Listen(Arc<str>),
    /// UNLISTEN channel; `None` is `*`.
    Unlisten(Option<Arc<str>>),
    /// DECLARE name ... CURSOR WITH HOLD.
    DeclareHold(Arc<str>),
    /// CLOSE name; `None` is ALL.
    CloseCursor(Option<Arc<str>>),
    /// ALTER ROLE ... SET, ALTER DATABASE ... SET and their like: new sessions of servers begin otherwise.
    ChangeDefaults,
    /// DROP DATABASE and its like, which servers refuse while anybody is connected to the database.
    NeedDatabaseAlone(Arc<str>),
}

impl SessionEffect {
    /// Whether it gives, takes, uses or shows names of prepared statements.
    pub fn concerns_names(&self) -> bool {
        use SessionEffect::{Deallocate, DiscardAll, Execute, ListStatements, Prepare};
        matches!(self, Prepare { .. } | Execute(_) | Deallocate(_) | DiscardAll | ListStatements)
    }
}

/// What DISCARD discards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// DISCARD PLANS.
    Plans,
    /// DISCARD SEQUENCES.
    Sequences,
    /// DISCARD TEMP.
    Temp,
}

/// A set of causes that bind a session to its server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pins(pub u16);

impl Pins {
    /// Nothing.
    pub const NONE: Pins = Pins(0);
    /// Temporary tables, views, sequences, functions; `SELECT INTO TEMP`.
    pub const TEMPORARY: Pins = Pins(1);
    /// Session-level advisory locks.
    pub const ADVISORY: Pins = Pins(1 << 1);
    /// LISTEN.
    pub const LISTEN: Pins = Pins(1 << 2);
    /// WITH HOLD cursors.
    pub const HOLD_CURSOR: Pins = Pins(1 << 3);
    /// LOAD.
    pub const LOAD: Pins = Pins(1 << 4);
    /// currval, lastval.
    pub const SEQUENCE: Pins = Pins(1 << 5);
    /// SQL PREPARE of what cannot be made again elsewhere.
    pub const PREPARE: Pins = Pins(1 << 6);
    /// DO, CALL, functions whose body may do any of the above, set_config with computed arguments.
    pub const OPAQUE: Pins = Pins(1 << 7);
    /// A SET or set_config whose effect cannot be followed from the text.
    pub const PARAMETER: Pins = Pins(1 << 8);
    /// A replication connection.
    pub const REPLICATION: Pins = Pins(1 << 9);

    /// Every pin with its metric label.
    pub const ALL: [(Pins, &'static str); 10] = [
        (Pins::TEMPORARY, "temporary"),
        (Pins::ADVISORY, "advisory_lock"),
        (Pins::LISTEN, "listen"),
        (Pins::HOLD_CURSOR, "hold_cursor"),
        (Pins::LOAD, "load"),
        (Pins::SEQUENCE, "sequence"),
        (Pins::PREPARE, "prepare"),
        (Pins::OPAQUE, "opaque"),
        (Pins::PARAMETER, "parameter"),
        (Pins::REPLICATION, "replication"),
    ];

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Both sets.
    pub fn union(self, other: Pins) -> Pins {
        Pins(self.0 | other.0)
    }

    /// Those of `self` that `other` lacks.
    pub fn without(self, other: Pins) -> Pins {
        Pins(self.0 & !other.0)
    }

    /// Whether any of `other` is in `self`.
    pub fn intersects(self, other: Pins) -> bool {
        self.0 & other.0 != 0
    }

    /// The labels of those that are set.
    pub fn labels(self) -> impl Iterator<Item = &'static str> {
        Pins::ALL.into_iter().filter(move |(pin, _)| self.intersects(*pin)).map(|(_, label)| label)
    }
}
