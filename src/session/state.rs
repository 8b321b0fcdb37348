//! What a session is, apart from its sockets: parameters, prepared statements, transaction, pins, and what it must see.

use super::asked::is_ascii_safe;
pub use super::asked::{AskedFreshness, consistency_setting, max_lag_setting, min_lsn_setting, route_setting};
use super::meaning::LocalSettings;
use crate::cluster::Ticket;
use crate::config::Consistency;
use crate::database::{PreparedStatement, WriteMark, meaning};
use crate::route::SessionView;
use crate::server::{ParameterSet, ParameterSets, ReportedParameters, ServerConnection, TransactionStatus};
use crate::sql::{Isolation, Lexing, Pins, TransactionModes};
use crate::types::Floor;
use std::collections::{HashMap, HashSet};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Instant;

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
    /// The meaning under which it was prepared, if the session's is another one by now.
    pub meaning: Option<Box<str>>,
}

impl UnnamedStatement {
    /// There is none any more.
    pub fn forget(&mut self) {
        (self.tag, self.kept, self.meaning) = (0, None, None);
    }
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
    /// What was set to the end of the transaction.
    pub local: Option<Box<LocalSettings>>,
}

/// A transaction block on the server that the session has.
#[derive(Clone, Debug)]
pub struct OpenTransaction {
    /// When it began.
    pub since: std::time::Instant,
    /// The modes that it began with, if the unit that began it did nothing else.
    pub begun: Option<TransactionModes>,
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
            begun: None,
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
    /// PREPARE of what cannot be made again elsewhere.
    pub prepared: HashSet<Arc<str>>,
}

/// A name given or taken by the unit under way: undone when the unit is sent again or an error drops what did it.
#[derive(Debug)]
pub struct StatementChange {
    /// The number of the answer that makes it true.
    at: u64,
    name: Box<[u8]>,
    before: Option<Arc<PreparedStatement>>,
    /// A server prepares it now: the last change of the catalogue before that.
    asked_at: Option<u64>,
}

/// PostgreSQL tells names of prepared statements apart by so many bytes.
///
/// Spec: `NAMEDATALEN` and `InitQueryHashTable` in `src/backend/commands/prepare.c`.
const NAME_LENGTH_MAX: usize = 63;

/// The part of a name that counts.
pub fn significant(name: &[u8]) -> &[u8] {
    &name[..name.len().min(NAME_LENGTH_MAX)]
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
    /// The mark of all that it was told of its parameters until now.
    pub told_mark: u32,
    /// The process that the client was told as its own; 0 for one that is not a client of the network.
    pub process: i32,
    /// The sets that sessions of the database have: equal ones are one.
    known_parameters: Arc<ParameterSets>,
    /// Named statements.
    pub statements: Option<Box<NamedStatements>>,
    /// The oldest change of the catalogue behind which its client was told of the rows of a statement; without one the greatest
    /// number.
    pub told_since: u64,
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
    pub unread_code: Option<NonZeroU64>,
    /// It has changed what new sessions of servers begin with, in the transaction under way.
    pub changed_defaults: bool,
    /// The server connection that it used last, by id.
    pub last_server: u64,
    /// The one whose memory of sequences is its own, by id; 0 is none.
    pub sequence_server: u64,
    /// Its transaction block, if one is open.
    pub transaction: Option<OpenTransaction>,
    /// Its server was lost in a transaction: everything fails with 25P02 until ROLLBACK.
    pub lost_transaction: bool,
    /// An error was reported in an extended pipeline that no server holds: messages are dropped up to Sync.
    pub skipping: bool,
    /// The server waits for the Sync of a pipeline.
    pub pipeline_open: bool,
    /// What an error in that pipeline goes back to, if no transaction block is open: its parts up to a Flush are rolled back with it.
    pub pipeline_begin: Option<Box<SessionSnapshot>>,
    /// That pipeline changes the catalogue.
    pub pipeline_changed_catalogue: bool,
    /// It has defined functions or triggers.
    pub pipeline_defined_code: bool,
    /// How texts are read.
    pub lexing: Lexing,
    /// What its transaction has set to its end.
    pub local: Option<Box<LocalSettings>>,
    /// The parameters that decide what a text means, as one string.
    pub meaning: Box<str>,
    /// What its reads may miss.
    pub consistency: Consistency,
    /// The same without `SET pgyard.consistency`.
    pub configured_consistency: Consistency,
    /// What it has asked its reads to show, beyond its own writes.
    pub asked: Option<Box<AskedFreshness>>,
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
            told_mark: 0,
            process: 0,
            known_parameters,
            statements: None,
            told_since: u64::MAX,
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
            sequence_server: 0,
            transaction: None,
            lost_transaction: false,
            skipping: false,
            pipeline_open: false,
            pipeline_begin: None,
            pipeline_changed_catalogue: false,
            pipeline_defined_code: false,
            lexing: Lexing { standard_conforming_strings: true, ascii_safe_encoding: true },
            local: None,
            meaning: Box::default(),
            consistency,
            configured_consistency: consistency,
            asked: None,
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

    /// The server's sessions begin otherwise than when the client logged in. What the client was told of how values are written
    /// stays as it is, as it would in a session of its own.
    #[cold]
    pub fn keep_told(&mut self, server: &ServerConnection) {
        // What a roll-back goes back to must have it too.
        if self.transaction.is_some() {
            return;
        }
        self.defaults = server.defaults;
        let Some(told) = &self.told else { return };
        let is_default = |name: &str| server.parameters.get(name).is_none();
        let mut startup = self.startup.clone();
        for name in KEPT_FROM_LOGIN {
            let value_of = |reported: &ReportedParameters| {
                reported.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
            };
            let Some(value) = value_of(told) else { continue };
            let same = is_default(name) && value_of(&server.incoming.reported).as_ref() == Some(&value);
            if same || startup.get(name).is_some() {
                continue;
            }
            Arc::make_mut(&mut startup).set_text(name, &value);
            if self.parameters.get(name).is_none() {
                Arc::make_mut(&mut self.parameters).set_text(name, &value);
            }
        }
        self.startup = self.known_parameters.intern(&startup);
        self.parameters_changed();
    }

    /// The status that the client believes in.
    pub fn status(&self) -> TransactionStatus {
        match (&self.transaction, self.lost_transaction) {
            (_, true) => TransactionStatus::Failed,
            (Some(transaction), false) if transaction.failed => TransactionStatus::Failed,
            (Some(_), false) => TransactionStatus::Open,
            (None, false) => TransactionStatus::Idle,
        }
    }

    /// The server connection that it would like to have again, by id: where its sequences are, else the one that it used last.
    pub fn own_server(&self) -> u64 {
        if self.sequence_server == 0 { self.last_server } else { self.sequence_server }
    }

    /// A named statement.
    pub fn statement(&self, name: &[u8]) -> Option<&Arc<PreparedStatement>> {
        self.statements.as_ref()?.get(significant(name))
    }

    /// Gives a name when the answer with this number has come, noting it in the journal.
    pub fn name_statement(&mut self, name: &[u8], statement: Arc<PreparedStatement>, at: u64) {
        let name: Box<[u8]> = significant(name).into();
        let before = self.statements.get_or_insert_default().insert(name.clone(), statement);
        self.journal.push(StatementChange { at, name, before, asked_at: None });
    }

    /// Takes a name away when the answer with this number has come, noting it in the journal.
    pub fn forget_statement(&mut self, name: &[u8], at: u64) {
        if let Some((name, before)) = self.statements.as_mut().and_then(|known| known.remove_entry(significant(name))) {
            self.journal.push(StatementChange { at, name, before: Some(before), asked_at: None });
        }
    }

    /// The name that was given last is one of a statement that its server is asked to prepare, behind this change of the catalogue.
    pub fn asks_server(&mut self, change: u64) {
        if let Some(last) = self.journal.last_mut() {
            last.asked_at = Some(change);
        }
    }

    /// Statements that a server has prepared in the unit under way, and the last change of the catalogue before that.
    pub fn prepared_now(&self) -> impl Iterator<Item = (&Arc<PreparedStatement>, u64)> {
        self.journal.iter().filter_map(|change| Some((self.statement(&change.name)?, change.asked_at?)))
    }

    /// Takes all names away when the answer with this number has come, noting it in the journal.
    pub fn forget_statements(&mut self, at: u64) {
        let known = self.statements.take().into_iter().flat_map(|known| *known);
        self.journal.extend(known.map(|(name, before)| StatementChange { at, name, before: Some(before), asked_at: None }));
    }

    /// Undoes what the unit has done to names, from the answer with this number on.
    pub fn undo_names(&mut self, from: u64) {
        while self.journal.last().is_some_and(|change| change.at >= from) {
            let Some(StatementChange { name, before, .. }) = self.journal.pop() else { return };
            match before {
                Some(statement) => drop(self.statements.get_or_insert_default().insert(name, statement)),
                None => drop(self.statements.as_mut().and_then(|known| known.remove(&name))),
            }
        }
    }

    /// The session's name of the statement with this id, which it may have taken away in the unit under way.
    pub fn name_of(&self, id: u64) -> Option<&[u8]> {
        if self.unnamed.kept.as_ref().is_some_and(|kept| kept.id == id) {
            return Some(b"");
        }
        let known = self.statements.iter().flat_map(|known| known.iter()).map(|(name, statement)| (name, statement.id));
        let taken = self.journal.iter().filter_map(|change| Some((&change.name, change.before.as_ref()?.id)));
        known.chain(taken).find(|(_, known)| *known == id).map(|(name, _)| &**name)
    }

    /// The transaction is over, and with it what was set to its end.
    pub fn end_transaction(&mut self) -> Option<OpenTransaction> {
        if self.local.take().is_some() {
            self.parameters_changed();
        }
        self.transaction.take()
    }

    /// The server is gone, and what was not committed with it. Answers whether a transaction block was open.
    pub fn lose_transaction(&mut self) -> bool {
        self.pipeline_open = false;
        let of_pipeline = self.pipeline_begin.take().map(|begin| *begin);
        let transaction = self.end_transaction();
        let was_open = transaction.is_some();
        if let Some(begin) = transaction.map(|transaction| transaction.at_begin).or(of_pipeline) {
            self.parameters = begin.session;
            self.parameters_changed();
        }
        was_open
    }

    /// Draws the conclusions from a change of `parameters`.
    pub fn parameters_changed(&mut self) {
        self.parameters = self.known_parameters.intern(&self.parameters);
        let now = match &self.local {
            Some(local) => meaning(&local.over(&self.parameters)),
            None => meaning(&self.parameters),
        };
        if *now != *self.meaning {
            let before = std::mem::replace(&mut self.meaning, now.into_boxed_str());
            if self.unnamed.tag != 0 {
                self.unnamed.meaning.get_or_insert(before);
            }
        }
        let parameters = &self.parameters;
        let strings = parameters.is_on("standard_conforming_strings").unwrap_or(true);
        let encoding = parameters.plain("client_encoding").unwrap_or_default();
        self.lexing = Lexing { standard_conforming_strings: strings, ascii_safe_encoding: is_ascii_safe(&encoding) };
        self.view.setting = parameters.plain("pgyard.route").and_then(|route| route_setting(&route).flatten());
        let asked = parameters.plain("pgyard.consistency").as_deref().and_then(consistency_setting);
        self.consistency = asked.unwrap_or(self.configured_consistency);
        let asked = AskedFreshness {
            min_lsn: parameters.plain("pgyard.min_lsn").and_then(|text| min_lsn_setting(&text).flatten()),
            max_lag: parameters.plain("pgyard.max_lag").and_then(|text| max_lag_setting(&text)),
        };
        self.asked = (!asked.is_empty()).then(|| Box::new(asked));
        self.view.read_only_by_default = parameters.is_on("default_transaction_read_only").unwrap_or(false);
        self.view.isolation_by_default = match parameters.plain("default_transaction_isolation").as_deref() {
            Some("serializable") => Isolation::Serializable,
            Some("repeatable read") => Isolation::RepeatableRead,
            _ => Isolation::ReadCommitted,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Statements;
    use crate::sql::RouteHint;

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
    }

    #[test]
    fn names_of_a_dropped_unit_are_undone_in_reverse() {
        let mut state = state();
        let statements = Statements::default();
        let (one, two) = (statements.intern(b"1\0\0\0", 1, ""), statements.intern(b"2\0\0\0", 1, ""));
        state.name_statement(b"a", one.clone(), 0);
        state.journal.clear();
        state.forget_statement(b"a", 1);
        assert_eq!(state.name_of(one.id), Some(&b"a"[..]));
        state.name_statement(b"a", two.clone(), 2);
        state.name_statement(b"b", two.clone(), 2);
        state.forget_statements(3);
        assert!(state.statement(b"a").is_none());
        state.undo_names(3);
        assert_eq!(state.statement(b"b").map(|s| s.id), Some(two.id));
        state.undo_names(0);
        assert_eq!(state.statement(b"a").map(|s| s.id), Some(one.id));
        assert!(state.statement(b"b").is_none());
    }

    #[test]
    fn names_differ_by_their_first_63_bytes() {
        let mut state = state();
        let statement = Statements::default().intern(b"1\0\0\0", 1, "");
        state.name_statement(&[b'x'; 70], statement.clone(), 0);
        assert_eq!(state.statement(&[b'x'; 64]).map(|s| s.id), Some(statement.id));
        assert!(state.statement(&[b'x'; 62]).is_none());
    }

    #[test]
    fn what_is_set_to_the_end_of_a_transaction_decides_what_texts_mean() {
        let mut state = state();
        state.unnamed.tag = 1;
        let mut local = LocalSettings::default();
        local.set(&"search_path".into(), Some(&"b".into()));
        state.local = Some(Box::new(local));
        state.parameters_changed();
        assert_eq!((&*state.meaning, state.unnamed.meaning.as_deref()), ("search_path=b\0", Some("")));
        assert!(state.end_transaction().is_none());
        assert_eq!(&*state.meaning, "");
    }
}
