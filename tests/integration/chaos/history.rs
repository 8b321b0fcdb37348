//! What concurrent sessions did and saw, as a value.
//!
//! Every write has a token of its own. The servers keep, for each object, the order in which tokens were applied (see `schema`),
//! so that the truth need not be searched for: a version is a place in that order, and whatever a read shows has a version.

use std::collections::BTreeMap;
use std::time::Duration;

/// Names one write. 0 is the value that objects begin with.
pub type Token = u64;

/// What is written and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    /// A row that holds the last token and how many there were.
    Register(u32),
    /// A row that holds all tokens.
    List(u32),
}

/// How a write ended, as its client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is committed.
    Acknowledged,
    /// An error says that it had no effect.
    Refused,
    /// 08007, or the connection ended.
    Unknown,
}

/// What a read showed of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A register's row.
    Value {
        /// How many writes it had taken.
        version: u64,
        /// The last of them.
        token: Token,
    },
    /// A list's row.
    Items(Vec<Token>),
}

/// What a session did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// One write; a transaction of several is several events of the same time.
    Wrote {
        /// Its name.
        token: Token,
        /// How it ended.
        outcome: Outcome,
    },
    /// One object of a read that brought an answer.
    Read {
        /// What was shown.
        seen: Seen,
        /// How it was asked for: the table itself, a view, what a trigger wrote.
        way: &'static str,
    },
}

/// One deed with its place and time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Who. A client that connects again is another session.
    pub session: u32,
    /// What was written or read.
    pub object: Object,
    /// When it was sent, since the beginning of the run. For a read in a transaction: when the transaction began.
    pub begun: Duration,
    /// When its end was known.
    pub ended: Duration,
    /// What.
    pub deed: Deed,
}

/// Each object's tokens in the order in which they were applied, read on the primary when all is over.
pub type Truth = BTreeMap<Object, Vec<Token>>;

/// What may have happened to the primary meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failover {
    /// It may have been restarted, and stayed the primary.
    Never,
    /// A replica took over that had everything which was acknowledged.
    Synchronous,
    /// A replica took over that may have lacked something.
    Asynchronous,
}

/// What reads were promised. Each level has the promises of those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// Some state of the past.
    Eventual,
    /// What the session itself has written.
    OwnWrites,
    /// Nothing older than what the session has seen.
    Monotonic,
    /// Everything that was acknowledged to anybody. This does not include `Monotonic`: see [`Promise::forbids_back_in_time`].
    Everything,
}

impl Promise {
    /// The setting `consistency`.
    pub fn setting(self) -> &'static str {
        match self {
            Promise::Eventual => "eventual",
            Promise::OwnWrites => "session",
            Promise::Monotonic => "monotonic",
            Promise::Everything => "global",
        }
    }

    /// Whether a session must see what it wrote.
    pub fn shows_own_writes(self) -> bool {
        self >= Promise::OwnWrites
    }

    /// Whether a session may not see less than before. `global` promises acknowledged writes only: of one that is still waiting
    /// for its acknowledgement, a replica may show what the primary does not show yet.
    pub fn forbids_back_in_time(self) -> bool {
        self == Promise::Monotonic
    }
}
