//! Prepared statements of one database, shared by all sessions that prepared the same text.
//!
//! What a text means is fixed when it is parsed, so the parameters that decide its meaning are part of a statement's identity.

use crate::server::ParameterSet;
use crate::sql::Facts;
use arc_swap::ArcSwapOption;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// What follows the name in a Parse message: the text, a zero byte, the parameter types.
    pub definition: Box<[u8]>,
    text_len: usize,
    meaning: Box<str>,
    /// How often definitions had changed before it was prepared.
    generation: u64,
    facts: ArcSwapOption<(u64, Arc<Facts>)>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl PreparedStatement {
    fn new(definition: &[u8], text_len: usize, meaning: &str) -> Self {
        PreparedStatement {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            definition: definition.into(),
            text_len,
            meaning: meaning.into(),
            generation: 0,
            facts: ArcSwapOption::empty(),
        }
    }

    /// Whether it is the one with this definition and meaning.
    pub fn is(&self, definition: &[u8], meaning: &str) -> bool {
        *self.definition == *definition && *self.meaning == *meaning
    }

    /// The query text.
    pub fn text(&self) -> &[u8] {
        &self.definition[..self.text_len]
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

#[derive(Debug, Default)]
struct StatementShard {
    known: HashMap<u64, Vec<Weak<PreparedStatement>>>,
    sweep_at: usize,
}

/// The statements of a database.
#[derive(Debug, Default)]
pub struct Statements {
    shards: [Mutex<StatementShard>; 16],
    /// How often definitions of tables and types have changed.
    generation: AtomicU64,
    hasher: foldhash::fast::RandomState,
}

impl Statements {
    /// Definitions have changed, or are about to: a text that is prepared from now on is another statement than before, since the
    /// plans that servers have of the old one may not fit any more.
    pub fn definitions_changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// The statement with this definition and meaning: the one that another session has, or a new one.
    pub fn intern(&self, definition: &[u8], text_len: usize, meaning: &str) -> Arc<PreparedStatement> {
        let generation = self.generation.load(Ordering::Acquire);
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
        let found = same
            .iter()
            .filter_map(Weak::upgrade)
            .find(|statement| statement.generation == generation && statement.is(definition, meaning));
        found.unwrap_or_else(|| {
            let mut statement = PreparedStatement::new(definition, text_len, meaning);
            statement.generation = generation;
            let statement = Arc::new(statement);
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
        let id = other.id;
        drop(other);
        assert_ne!(statements.intern(b"select 1\0\0\0", 8, &meaning(&parameters)).id, id);
    }

    #[test]
    fn what_is_prepared_behind_ddl_is_another_statement() {
        let statements = Statements::default();
        let before = statements.intern(b"select 1\0\0\0", 8, "");
        statements.definitions_changed();
        let behind = statements.intern(b"select 1\0\0\0", 8, "");
        assert_ne!(before.id, behind.id);
        assert_eq!(statements.intern(b"select 1\0\0\0", 8, "").id, behind.id);
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
