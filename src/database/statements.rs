//! Prepared statements of one database, shared by all sessions that prepared the same text.
//!
//! What a text means is fixed when it is parsed, so the parameters that decide its meaning are part of a statement's identity.

use crate::server::ParameterSet;
use crate::sql::Facts;
use arc_swap::ArcSwapOption;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Parameters that change what a text means or how its constants are read.
const MEANING: [&str; 12] = [
    "search_path",
    "role",
    "session_authorization",
    "datestyle",
    "intervalstyle",
    "timezone",
    "standard_conforming_strings",
    "transform_null_equals",
    "client_encoding",
    "default_text_search_config",
    "lc_monetary",
    "xmloption",
];

/// A prepared statement.
#[derive(Debug)]
pub struct PreparedStatement {
    /// Unique in this process; part of its name on servers.
    pub id: u64,
    /// What follows the name in a Parse message: the text, a zero byte, the parameter types. Of a PREPARE in SQL: its text.
    pub definition: Box<[u8]>,
    /// Where the statement itself stands in it.
    text: std::ops::Range<usize>,
    meaning: Box<str>,
    form: StatementForm,
    /// Its tables have changed: who prepares the text now gets another statement.
    outdated: AtomicBool,
    facts: ArcSwapOption<(u64, Arc<Facts>)>,
    /// Roles for which the primary has prepared it, each with the last change of the catalogue before that.
    proofs: Mutex<Vec<(Arc<str>, u64)>>,
    told: Mutex<Option<ToldResult>>,
}

/// What clients were told of a statement's rows.
#[derive(Clone, Copy, Debug)]
struct ToldResult {
    /// What they read them by; `None`: they were told different things.
    shape: Option<u64>,
    /// The last change of the catalogue before that was known to be so.
    change: u64,
}

/// Roles for which it is remembered that a statement can be prepared.
const PROOFS_MAX: usize = 16;

/// How a statement was prepared, and so how it can be prepared again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatementForm {
    /// By a Parse message. Any session may use it, under a name of pgyard's.
    Shared,
    /// By a Parse message, but what it does depends on the session's names (`EXECUTE x`): servers must know it by its own name.
    Private,
    /// By PREPARE: servers must know it by its own name, which stands in the text.
    Command,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl PreparedStatement {
    fn new(definition: &[u8], text: std::ops::Range<usize>, meaning: &str, form: StatementForm) -> Self {
        PreparedStatement {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            definition: definition.into(),
            text,
            meaning: meaning.into(),
            form,
            outdated: AtomicBool::new(false),
            facts: ArcSwapOption::empty(),
            proofs: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// A server has said what its rows are, asked after the catalogue's change with this number.
    pub fn note_result(&self, shape: u64, change: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        *told = Some(match *told {
            None => ToldResult { shape: Some(shape), change },
            Some(before) => ToldResult { shape: before.shape.filter(|known| *known == shape), change: before.change.max(change) },
        });
    }

    /// What clients were told its rows are, and the catalogue's last change before that was known to be so.
    pub fn told_result(&self) -> Option<(u64, u64)> {
        let told = *self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.and_then(|told| Some((told.shape?, told.change)))
    }

    /// The primary has prepared it for a session of `role`, whose Parse was sent after the catalogue's change with this number,
    /// and which saw no objects that others don't.
    pub fn prove(&self, role: &Arc<str>, change: u64) {
        let mut proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        match proofs.iter().position(|(proven, _)| proven == role) {
            Some(place) => proofs[place].1 = proofs[place].1.max(change),
            None => {
                proofs.truncate(PROOFS_MAX - 1);
                proofs.insert(0, (role.clone(), change));
            }
        }
    }

    /// The catalogue's last change before the primary prepared it for `role` last; `None` if it has not, as far as is known.
    pub fn proof(&self, role: &str) -> Option<u64> {
        let proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        proofs.iter().find(|(proven, _)| **proven == *role).map(|(_, change)| *change)
    }

    /// One that no other session has. `shown` as for [`StatementForm::Shared`], under a name of pgyard's.
    pub fn of_one_session(definition: &[u8], text_len: usize, meaning: &str, form: StatementForm) -> Arc<Self> {
        Arc::new(PreparedStatement::new(definition, 0..text_len, meaning, form))
    }

    /// The statement of a PREPARE with this text; `body` is what it prepares.
    pub fn of_command(text: &[u8], body: std::ops::Range<usize>, meaning: &str) -> Arc<Self> {
        let body = body.start.min(text.len())..body.end.min(text.len());
        Arc::new(PreparedStatement::new(text, body, meaning, StatementForm::Command))
    }

    /// A server has said that its plan does not fit any more. Sessions that have it are told so, as by PostgreSQL, until they
    /// prepare it again.
    pub fn mark_outdated(&self) {
        self.outdated.store(true, Ordering::Relaxed);
    }

    /// How it was prepared.
    pub fn form(&self) -> StatementForm {
        self.form
    }

    /// The parameters under which it was prepared, as far as they decide what it means; see [`meaning`].
    pub fn meaning(&self) -> &str {
        &self.meaning
    }

    /// Whether it is the one with this definition and meaning, and not outdated.
    pub fn is(&self, definition: &[u8], meaning: &str) -> bool {
        *self.definition == *definition && *self.meaning == *meaning && !self.outdated.load(Ordering::Relaxed)
    }

    /// The query text.
    pub fn text(&self) -> &[u8] {
        &self.definition[self.text.clone()]
    }

    /// Its facts under the catalogue with this id; `classify` is asked when they are not known.
    pub fn facts(&self, catalogue_id: u64, classify: impl FnOnce(&[u8]) -> Arc<Facts>) -> Arc<Facts> {
        if let Some(known) = &*self.facts.load()
            && known.0 == catalogue_id
        {
            return known.1.clone();
        }
        let facts = classify(self.text());
        self.facts.store(Some(Arc::new((catalogue_id, facts.clone()))));
        facts
    }
}

/// The parameters that decide what a text means, as one string.
pub fn meaning(parameters: &ParameterSet) -> String {
    let mut key = String::new();
    for name in MEANING {
        if let Some(value) = parameters.get(name) {
            key.push_str(name);
            key.push('=');
            key.push_str(value);
            key.push('\0');
        }
    }
    key
}

/// Whether a parameter decides what texts mean.
pub fn decides_meaning(name: &str) -> bool {
    MEANING.contains(&name)
}

/// The names of the parameters that decide what a text means.
pub fn meaning_names() -> impl Iterator<Item = &'static str> {
    MEANING.into_iter()
}

/// `parameters` with those that decide what a text means as [`meaning`] had them.
pub fn with_meaning(parameters: &ParameterSet, meaning: &str) -> ParameterSet {
    let mut wanted = parameters.clone();
    MEANING.iter().for_each(|name| wanted.unset(name));
    // A session's authorization stands before its role, which it would reset.
    let mut pairs: Vec<(&str, &str)> = meaning.split_terminator('\0').filter_map(|pair| pair.split_once('=')).collect();
    pairs.sort_by_key(|(name, _)| *name == "role");
    for (name, value) in pairs {
        wanted.set(name.into(), value.into());
    }
    wanted
}

#[derive(Debug, Default)]
struct StatementShard {
    known: HashMap<u64, Vec<Weak<PreparedStatement>>>,
    sweep_at: usize,
}

/// The statements of a database.
#[derive(Debug, Default)]
pub struct Statements {
    shards: [Mutex<StatementShard>; 16],
    hasher: foldhash::fast::RandomState,
}

impl Statements {
    /// The statement with this definition and meaning that another session has.
    pub fn known(&self, definition: &[u8], meaning: &str) -> Option<Arc<PreparedStatement>> {
        let hash = self.hasher.hash_one((definition, meaning));
        let shard = self.shards[(hash >> 60) as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let mut same = shard.known.get(&hash)?.iter().filter_map(Weak::upgrade);
        same.find(|statement| statement.is(definition, meaning))
    }

    /// The statement with this definition and meaning: the one that another session has, or a new one.
    pub fn intern(&self, definition: &[u8], text_len: usize, meaning: &str) -> Arc<PreparedStatement> {
        let hash = self.hasher.hash_one((definition, meaning));
        let mut shard = self.shards[(hash >> 60) as usize].lock().unwrap_or_else(PoisonError::into_inner);
        if shard.known.len() >= shard.sweep_at {
            shard.known.retain(|_, same| {
                same.retain(|statement| statement.strong_count() > 0);
                !same.is_empty()
            });
            shard.sweep_at = (shard.known.len() * 2).max(64);
        }
        let same = shard.known.entry(hash).or_default();
        let found = same.iter().filter_map(Weak::upgrade).find(|statement| statement.is(definition, meaning));
        found.unwrap_or_else(|| {
            let statement = Arc::new(PreparedStatement::new(definition, 0..text_len, meaning, StatementForm::Shared));
            same.retain(|statement| statement.strong_count() > 0);
            same.push(Arc::downgrade(&statement));
            statement
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_under_another_meaning_is_another_statement() {
        let statements = Statements::default();
        let first = statements.intern(b"select 1\0\0\0", 8, "");
        assert_eq!(first.text(), b"select 1");
        assert_eq!(statements.intern(b"select 1\0\0\0", 8, "").id, first.id);
        let mut parameters = ParameterSet::default();
        parameters.set_text("search_path", "other");
        parameters.set_text("work_mem", "1MB");
        let other = statements.intern(b"select 1\0\0\0", 8, &meaning(&parameters));
        assert_ne!(other.id, first.id);
        parameters.unset("work_mem");
        assert_eq!(statements.intern(b"select 1\0\0\0", 8, &meaning(&parameters)).id, other.id);
        other.mark_outdated();
        assert_ne!(statements.intern(b"select 1\0\0\0", 8, &meaning(&parameters)).id, other.id);
        let id = other.id;
        drop(other);
        assert_ne!(statements.intern(b"select 1\0\0\0", 8, &meaning(&parameters)).id, id);
    }

    #[test]
    fn what_is_proven_is_known_by_role_and_change() {
        let statements = Statements::default();
        assert!(statements.known(b"select 1\0\0\0", "").is_none());
        let statement = statements.intern(b"select 1\0\0\0", 8, "");
        assert_eq!(statements.known(b"select 1\0\0\0", "").map(|known| known.id), Some(statement.id));
        assert!(statements.known(b"select 1\0\0\0", "role='ann'\0").is_none());
        let ann: Arc<str> = "ann".into();
        assert_eq!(statement.proof("ann"), None);
        statement.prove(&ann, 4);
        statement.prove(&ann, 3);
        assert_eq!((statement.proof("ann"), statement.proof("bob")), (Some(4), None));
        for number in 0..PROOFS_MAX as u64 {
            statement.prove(&format!("role {number}").into(), number);
        }
        assert_eq!((statement.proof("ann"), statement.proof("role 3")), (None, Some(3)));
        assert_eq!(statement.proofs.lock().expect("not poisoned").len(), PROOFS_MAX);
        statement.mark_outdated();
        assert!(statements.known(b"select 1\0\0\0", "").is_none());
    }

    #[test]
    fn the_parameters_of_a_meaning_come_back() {
        let mut parameters = ParameterSet::default();
        for (name, value) in [("role", "bob"), ("session_authorization", "ann"), ("search_path", "a=b"), ("work_mem", "1MB")] {
            parameters.set_text(name, value);
        }
        parameters.set_text("role", "bob");
        let mut now = ParameterSet::default();
        now.set_text("datestyle", "German");
        now.set_text("work_mem", "2MB");
        let wanted = with_meaning(&now, &meaning(&parameters));
        assert_eq!(meaning(&wanted), meaning(&parameters));
        assert_eq!((wanted.get("work_mem"), wanted.get("datestyle")), (Some("'2MB'"), None));
    }

    #[test]
    fn statements_that_nobody_holds_are_swept() {
        let statements = Statements::default();
        for i in 0..20_000 {
            statements.intern(format!("select {i}\0\0\0").as_bytes(), 8, "");
        }
        let left: usize = statements.shards.iter().map(|s| s.lock().expect("not poisoned").known.len()).sum();
        assert!(left <= 64 * 16, "{left}");
    }
}
