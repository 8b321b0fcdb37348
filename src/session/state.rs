//! What a session is, apart from its sockets: parameters, prepared statements, transaction, pins, and what it must see.

use crate::cluster::Ticket;
use crate::config::{Consistency, parse_duration};
use crate::database::{PreparedStatement, WriteMark, meaning};
use crate::route::SessionView;
use crate::server::{ParameterSet, ParameterSets, ReportedParameters, TransactionStatus};
use crate::sql::{Isolation, Lexing, Pins, RouteHint, TransactionModes};
use crate::types::{Floor, Lsn, Timeline};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Parameters by which drivers read and write values, of those that servers report.
const KEPT_FROM_LOGIN: [&str; 5] = ["client_encoding", "datestyle", "intervalstyle", "timezone", "standard_conforming_strings"];

/// What a read of this session must see.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Freshness {
    /// Nothing in particular.
    Any,
    /// What this position covers.
    Floor(Floor),
    /// A write was acknowledged; its position is not known yet.
    Pending(Ticket),
}

/// The unnamed statement, kept so that it can be made again on another server.
#[derive(Clone, Debug, Default)]
pub struct UnnamedStatement {
    /// Which Parse it came from; 0 is none. Unique in this process.
    pub tag: u64,
    /// What follows the name in the Parse message.
    pub definition: Vec<u8>,
    /// Length of the text at its front.
    pub text_len: usize,
    /// The named statement that stands for it on servers (`reuse_unnamed`).
    pub kept: Option<Arc<PreparedStatement>>,
}

/// What a roll-back brings back.
#[derive(Clone, Debug)]
pub struct SessionSnapshot {
    /// Parameters of the session.
    pub session: Arc<ParameterSet>,
    /// Parameters of its server connection.
    pub server: Arc<ParameterSet>,
    /// What bound the session to it.
    pub pins: Pins,
    /// The names of these things.
    pub named: Option<NamedPins>,
}

/// A transaction block on the server that the session has.
#[derive(Clone, Debug)]
pub struct OpenTransaction {
    /// When it began.
    pub since: std::time::Instant,
    /// What a roll-back goes back to.
    pub at_begin: SessionSnapshot,
    /// The same at each savepoint.
    pub savepoints: Vec<(Arc<str>, SessionSnapshot)>,
    /// An error has made it fail: a COMMIT will be a roll-back.
    pub failed: bool,
    /// How it began, if it is READ ONLY on a replica and can begin again on the primary.
    pub movable: Option<Isolation>,
    /// Simple queries that a move to the primary must do again there: SET LOCAL, SAVEPOINT.
    pub replay: Vec<Box<str>>,
    /// DEFERRABLE was asked for.
    pub deferrable: bool,
    /// Statements other than BEGIN that it has run.
    pub statements: u64,
    /// It changed the catalogue.
    pub changed_catalogue: bool,
    /// It made or changed functions, triggers and the like.
    pub defined_code: bool,
}

impl OpenTransaction {
    /// A transaction that has begun with these modes.
    pub fn new(at_begin: SessionSnapshot, modes: TransactionModes, state: &SessionState) -> Self {
        let read_only = modes.read_only.unwrap_or(state.view.read_only_by_default);
        let isolation = modes.isolation.unwrap_or(state.view.isolation_by_default);
        OpenTransaction {
            since: std::time::Instant::now(),
            at_begin,
            savepoints: Vec::new(),
            failed: false,
            movable: read_only.then_some(isolation),
            replay: Vec::new(),
            deferrable: modes.deferrable == Some(true),
            statements: 0,
            changed_catalogue: false,
            defined_code: false,
        }
    }
}

/// Names of things that bind a session to its server until the last of their kind is gone.
#[derive(Clone, Debug, Default)]
pub struct NamedPins {
    /// LISTEN.
    pub channels: HashSet<Arc<str>>,
    /// DECLARE ... WITH HOLD.
    pub cursors: HashSet<Arc<str>>,
    /// PREPARE.
    pub prepared: HashSet<Arc<str>>,
}

/// What must be undone when a unit is sent again or an error drops it.
#[derive(Debug)]
pub enum StatementChange {
    /// A name was given.
    Added(Box<[u8]>),
    /// A name that was not there was taken away.
    Nothing,
    /// A name was taken away.
    Removed(Box<[u8]>, Arc<PreparedStatement>),
}

impl StatementChange {
    /// The name that was given.
    pub fn added(&self) -> Option<&[u8]> {
        match self {
            StatementChange::Added(name) => Some(name),
            StatementChange::Nothing | StatementChange::Removed(..) => None,
        }
    }
}

/// Prepared statements by the client's names.
pub type NamedStatements = HashMap<Box<[u8]>, Arc<PreparedStatement>>;

/// A session's state.
#[derive(Debug)]
pub struct SessionState {
    /// What the client has set.
    pub parameters: Arc<ParameterSet>,
    /// What it asked for in its start-up packet: RESET goes back to this.
    pub startup: Arc<ParameterSet>,
    /// What the client was told at its log-in.
    pub told: Option<Arc<ReportedParameters>>,
    /// How often what new server sessions begin with had changed when that was true.
    pub defaults: u32,
    /// The sets that sessions of the database have: equal ones are one.
    known_parameters: Arc<ParameterSets>,
    /// Named statements.
    pub statements: Option<Box<NamedStatements>>,
    /// The unnamed statement.
    pub unnamed: UnnamedStatement,
    /// The one before it, while the unit that replaces it may fail first.
    pub unnamed_before: Option<Box<UnnamedStatement>>,
    /// Names given and taken by the unit under way.
    pub journal: Vec<StatementChange>,
    /// What binds the session to its server.
    pub pins: Pins,
    /// What its reads must see.
    pub freshness: Freshness,
    /// `monotonic`: the replica that served the last read, by host id, and when.
    pub last_read: Option<(u32, Instant)>,
    /// A write of this session that is under way.
    pub write_mark: Option<WriteMark>,
    /// Channels that it listens on, names of its WITH HOLD cursors, names of its SQL-prepared statements: the pins end with the
    /// last of each.
    pub named_pins: Option<Box<NamedPins>>,
    /// The change of the catalogue, by its number, with which it last made or changed functions, triggers and the like.
    pub unread_code: Option<u64>,
    /// It has changed what new sessions of servers begin with, in the transaction under way.
    pub changed_defaults: bool,
    /// The server connection that it used last, by id.
    pub last_server: u64,
    /// Its transaction block, if one is open.
    pub transaction: Option<OpenTransaction>,
    /// Its server was lost in a transaction: everything fails with 25P02 until ROLLBACK.
    pub lost_transaction: bool,
    /// An error was reported in an extended pipeline that no server holds: messages are dropped up to Sync.
    pub skipping: bool,
    /// The server waits for the Sync of a pipeline.
    pub pipeline_open: bool,
    /// How texts are read.
    pub lexing: Lexing,
    /// The parameters that decide what a text means, as one string.
    pub meaning: Box<str>,
    /// What its reads may miss.
    pub consistency: Consistency,
    /// The same without `SET pgyard.consistency`.
    pub configured_consistency: Consistency,
    /// What it has asked its reads to show, beyond its own writes.
    pub asked: AskedFreshness,
    /// What the route depends on.
    pub view: SessionView,
}

impl SessionState {
    /// A session that has just logged in.
    pub fn new(startup: ParameterSet, known_parameters: Arc<ParameterSets>, consistency: Consistency, split: bool) -> Self {
        let startup = known_parameters.intern(&Arc::new(startup));
        let mut state = SessionState {
            parameters: startup.clone(),
            startup,
            told: None,
            defaults: 0,
            known_parameters,
            statements: None,
            unnamed: UnnamedStatement::default(),
            unnamed_before: None,
            journal: Vec::new(),
            pins: Pins::NONE,
            freshness: Freshness::Any,
            last_read: None,
            write_mark: None,
            named_pins: None,
            unread_code: None,
            changed_defaults: false,
            last_server: 0,
            transaction: None,
            lost_transaction: false,
            skipping: false,
            pipeline_open: false,
            lexing: Lexing { standard_conforming_strings: true, ascii_safe_encoding: true },
            meaning: Box::default(),
            consistency,
            configured_consistency: consistency,
            asked: AskedFreshness::default(),
            view: SessionView {
                split,
                setting: None,
                read_only_by_default: false,
                isolation_by_default: Isolation::ReadCommitted,
                catalogue_is_current: true,
            },
        };
        state.parameters_changed();
        state
    }

    /// A server begins with other defaults than when the client logged in. What the client was told of how values are written
    /// stays as it is, as it would in a session of its own.
    #[cold]
    pub fn keep_told(&mut self, defaults: u32) {
        self.defaults = defaults;
        let Some(told) = self.told.take() else { return };
        let (startup, own) = (Arc::make_mut(&mut self.startup), Arc::make_mut(&mut self.parameters));
        for name in KEPT_FROM_LOGIN {
            if startup.get(name).is_some() {
                continue;
            }
            let Some((_, value)) = told.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) else { continue };
            startup.set_text(name, value);
            if own.get(name).is_none() {
                own.set_text(name, value);
            }
        }
        self.startup = self.known_parameters.intern(&self.startup);
        self.parameters_changed();
    }

    /// The status that the client believes in.
    pub fn status(&self) -> TransactionStatus {
        match (&self.transaction, self.lost_transaction) {
            (_, true) => TransactionStatus::Failed,
            (Some(_), false) => TransactionStatus::Open,
            (None, false) => TransactionStatus::Idle,
        }
    }

    /// A named statement.
    pub fn statement(&self, name: &[u8]) -> Option<&Arc<PreparedStatement>> {
        self.statements.as_ref()?.get(name)
    }

    /// Gives a name, noting it in the journal.
    pub fn name_statement(&mut self, name: &[u8], statement: Arc<PreparedStatement>) {
        self.statements.get_or_insert_default().insert(name.into(), statement);
        self.journal.push(StatementChange::Added(name.into()));
    }

    /// Takes a name away, noting it in the journal.
    pub fn forget_statement(&mut self, name: &[u8]) -> Option<Arc<PreparedStatement>> {
        let Some((name, statement)) = self.statements.as_mut().and_then(|known| known.remove_entry(name)) else {
            self.journal.push(StatementChange::Nothing);
            return None;
        };
        self.journal.push(StatementChange::Removed(name, statement.clone()));
        Some(statement)
    }

    /// Undoes the names of the unit from the `kept`-th change on.
    pub fn undo_names(&mut self, kept: usize) {
        while self.journal.len() > kept {
            match self.journal.pop() {
                Some(StatementChange::Added(name)) => drop(self.statements.as_mut().and_then(|known| known.remove(&name))),
                Some(StatementChange::Removed(name, statement)) => {
                    self.statements.get_or_insert_default().insert(name, statement);
                }
                Some(StatementChange::Nothing) => {}
                None => return,
            }
        }
    }

    /// Draws the conclusions from a change of `parameters`.
    pub fn parameters_changed(&mut self) {
        self.parameters = self.known_parameters.intern(&self.parameters);
        let parameters = &self.parameters;
        self.meaning = meaning(parameters).into_boxed_str();
        let strings = parameters.is_on("standard_conforming_strings").unwrap_or(true);
        let encoding = parameters.plain("client_encoding").unwrap_or_default();
        self.lexing = Lexing { standard_conforming_strings: strings, ascii_safe_encoding: is_ascii_safe(&encoding) };
        self.view.setting = parameters.plain("pgyard.route").and_then(|route| route_setting(&route).flatten());
        let asked = parameters.plain("pgyard.consistency").as_deref().and_then(consistency_setting);
        self.consistency = asked.unwrap_or(self.configured_consistency);
        self.asked = AskedFreshness {
            min_lsn: parameters.plain("pgyard.min_lsn").and_then(|text| min_lsn_setting(&text).flatten()),
            max_lag: parameters.plain("pgyard.max_lag").and_then(|text| max_lag_setting(&text)),
        };
        self.view.read_only_by_default = parameters.is_on("default_transaction_read_only").unwrap_or(false);
        self.view.isolation_by_default = match parameters.plain("default_transaction_isolation").as_deref() {
            Some("serializable") => Isolation::Serializable,
            Some("repeatable read") => Isolation::RepeatableRead,
            _ => Isolation::ReadCommitted,
        };
    }
}

/// What a session has asked its reads to show, with `SET`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AskedFreshness {
    /// `pgyard.min_lsn`: a point of the log, which another session may have seen.
    pub min_lsn: Option<(Timeline, Lsn)>,
    /// `pgyard.max_lag`: replicas further behind are not read.
    pub max_lag: Option<Duration>,
}

impl AskedFreshness {
    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.min_lsn.is_none() && self.max_lag.is_none()
    }
}

/// A value of `pgyard.min_lsn`, such as `1:0/16B3748`; the outer `None` is a value that it can't have.
pub fn min_lsn_setting(value: &str) -> Option<Option<(Timeline, Lsn)>> {
    if value.is_empty() {
        return Some(None);
    }
    let (timeline, lsn) = value.split_once(':')?;
    let digits = (1..=10).contains(&timeline.len()) && timeline.bytes().all(|byte| byte.is_ascii_digit());
    let timeline = timeline.parse().ok().filter(|timeline| digits && *timeline > 0)?;
    Some(Some((Timeline(timeline), lsn.parse().ok()?)))
}

/// A value of `pgyard.max_lag`; `None` is a value that it can't have.
pub fn max_lag_setting(value: &str) -> Option<Duration> {
    parse_duration(value).ok()
}

/// A value of `pgyard.route`; the outer `None` is a value that it can't have.
pub fn route_setting(value: &str) -> Option<Option<RouteHint>> {
    match value {
        "primary" => Some(Some(RouteHint::Primary)),
        "replica" => Some(Some(RouteHint::Replica)),
        "auto" | "default" | "" => Some(None),
        _ => None,
    }
}

/// A value of `pgyard.consistency`.
pub fn consistency_setting(value: &str) -> Option<Consistency> {
    match value {
        "eventual" => Some(Consistency::Eventual),
        "session" => Some(Consistency::Session),
        "monotonic" => Some(Consistency::Monotonic),
        "global" => Some(Consistency::Global),
        _ => None,
    }
}

/// Whether no multi-byte character of the encoding holds an ASCII byte. Those for which that is not so are client-only
/// encodings in PostgreSQL.
///
/// Spec: PostgreSQL documentation, "PostgreSQL Character Sets" (column "Server?").
fn is_ascii_safe(encoding: &str) -> bool {
    let name: String = encoding.chars().filter(char::is_ascii_alphanumeric).collect();
    !matches!(
        name.as_str(),
        "sjis"
            | "mskanji"
            | "shiftjis"
            | "win932"
            | "windows932"
            | "shiftjis2004"
            | "big5"
            | "win950"
            | "windows950"
            | "gbk"
            | "win936"
            | "windows936"
            | "gb18030"
            | "johab"
            | "uhc"
            | "win949"
            | "windows949"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Statements;

    fn state() -> SessionState {
        SessionState::new(ParameterSet::default(), Arc::default(), Consistency::Session, true)
    }

    #[test]
    fn parameters_decide_how_texts_are_read_and_routed() {
        let mut state = state();
        let mut parameters = ParameterSet::default();
        parameters.set_text("client_encoding", "SHIFT_JIS_2004");
        parameters.set_text("standard_conforming_strings", "off");
        parameters.set_text("pgyard.route", "Primary");
        parameters.set_text("default_transaction_isolation", "serializable");
        parameters.set_text("default_transaction_read_only", "on");
        state.parameters = Arc::new(parameters);
        state.parameters_changed();
        assert_eq!(state.lexing, Lexing { standard_conforming_strings: false, ascii_safe_encoding: false });
        assert_eq!(state.view.setting, Some(RouteHint::Primary));
        assert_eq!(state.view.isolation_by_default, Isolation::Serializable);
        assert!(state.view.read_only_by_default);
        assert!(is_ascii_safe("UTF8") && is_ascii_safe("latin1") && is_ascii_safe("EUC_JP"));
    }

    #[test]
    fn points_and_bounds_are_read_strictly() {
        let check = |value, expect: Option<Option<(u32, u64)>>| {
            let expect = expect.map(|point| point.map(|(timeline, lsn)| (Timeline(timeline), Lsn(lsn))));
            assert_eq!(min_lsn_setting(value), expect, "{value}");
        };
        check("", Some(None));
        check("1:0/16b3748", Some(Some((1, 0x016B_3748))));
        check("4294967295:FFFFFFFF/FFFFFFFF", Some(Some((u32::MAX, u64::MAX))));
        for bad in
            ["0/16B3748", "1:", ":0/1", "0:0/1", "+1:0/1", "-1:0/1", "4294967296:0/1", "1:0/1 ", "1 :0/1", "1:0", "one:0/1"]
        {
            check(bad, None);
        }
        assert_eq!(max_lag_setting("100ms"), Some(Duration::from_millis(100)));
        assert!(["", "100", "-1s", "soon", "off"].into_iter().all(|bad| max_lag_setting(bad).is_none()));
    }

    #[test]
    fn names_of_a_dropped_unit_are_undone_in_reverse() {
        let mut state = state();
        let statements = Statements::default();
        let (one, two) = (statements.intern(b"1\0\0\0", 1, ""), statements.intern(b"2\0\0\0", 1, ""));
        state.name_statement(b"a", one.clone());
        state.journal.clear();
        state.forget_statement(b"a");
        state.name_statement(b"a", two.clone());
        state.name_statement(b"b", two);
        state.undo_names(0);
        assert_eq!(state.statement(b"a").map(|s| s.id), Some(one.id));
        assert!(state.statement(b"b").is_none());
    }
}
