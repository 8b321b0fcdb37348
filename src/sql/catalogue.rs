//! What is known of a database's objects: which names a statement may not mention if it is to be called a read.
//!
//! Everything goes by bare name over all schemas: a statement's search path is not known here, and a name that is dangerous in one
//! schema is dangerous. A catalogue never changes; a new one is built and swapped in.

mod build;
mod query;
mod source;

pub use build::CatalogueRow;
pub use query::CATALOGUE_QUERY;
pub(crate) use source::is_opaque as source_is_opaque;

use crate::sql::functions;
use crate::sql::tables::TableKey;
use crate::sql::words::{WordFlags, WordTable};
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

/// Functions of a fresh PostgreSQL by their volatility, for use before a catalogue has been read.
const BUILTIN: &str = include_str!("catalogue/builtin.txt");

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The names that matter in one database, at one time.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// Process-unique: facts that were made with one catalogue are not valid with another.
    pub id: u64,
    words: WordTable,
    operators: Vec<Box<[u8]>>,
    hidden: HiddenReads,
    complete: bool,
}

impl Catalogue {
    /// PostgreSQL's own functions only. A statement that calls anything else is not proven to be a read.
    pub fn builtin() -> Self {
        let mut words = WordTable::with_keywords();
        let mut volatile = false;
        for line in BUILTIN.lines().filter(|line| !line.starts_with('#')) {
            match line.strip_prefix("= ") {
                Some(class) => volatile = class == "v",
                None => line.split_ascii_whitespace().for_each(|name| {
                    words.add(name, functions::builtin_flags(name, volatile));
                }),
            }
        }
        for name in functions::known_system_views() {
            words.add(name, functions::system_view_flags(name));
        }
        Catalogue::new(words, Vec::new(), HiddenReads::default(), false)
    }

    /// Builds a catalogue from the rows of [`CATALOGUE_QUERY`].
    pub fn from_rows(rows: impl IntoIterator<Item = CatalogueRow>) -> Self {
        let (words, operators, hidden) = build::build(rows);
        Catalogue::new(words, operators, hidden, true)
    }

    fn new(words: WordTable, operators: Vec<Box<[u8]>>, hidden: HiddenReads, complete: bool) -> Self {
        Catalogue { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), words, operators, hidden, complete }
    }

    /// Whether it was read from a server, so that it knows the user's objects too.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether a user's function that is not immutable has this name.
    pub(crate) fn is_user_function(&self, name: &str) -> bool {
        self.stored_name(name).has(WordFlags::READS_TABLES)
    }

    /// What is known of names.
    pub(crate) fn words(&self) -> &WordTable {
        &self.words
    }

    /// What is known of a name that stands in a parsed tree: without quotes, as PostgreSQL stores it.
    pub(crate) fn stored_name(&self, name: &str) -> WordFlags {
        self.words.quoted(name.as_bytes())
    }

    /// What stands for a table, and for all of its inheritance tree, among those of other names. The name is as PostgreSQL stores it.
    pub(crate) fn table_key(&self, name: &str) -> TableKey {
        let name = self.hidden.families.get(name).map_or(name, |root| root);
        TableKey(foldhash::fast::FixedState::with_seed(3).hash_one(name))
    }

    /// Operators over functions that may read any table.
    pub(crate) fn reading_operators(&self) -> &[Box<[u8]>] {
        &self.hidden.operators
    }

    /// Whether some cast may read any table.
    pub(crate) fn has_reading_casts(&self) -> bool {
        self.hidden.casts
    }

    /// Operators over volatile functions. Any run of operator characters that contains one is suspect.
    pub(crate) fn operators(&self) -> &[Box<[u8]>] {
        &self.operators
    }
}

/// What a statement may read without naming it.
#[derive(Clone, Debug, Default)]
struct HiddenReads {
    /// Of each table with parents or children, the name that stands for all of its tree.
    families: HashMap<Box<str>, Box<str>>,
    /// Operators over functions of the users', which may read any table.
    operators: Vec<Box<[u8]>>,
    /// There is a cast over such a function.
    casts: bool,
}

/// Keywords that use an operator without naming it.
const IMPLIED_OPERATORS: [(&str, &str); 8] = [
    ("=", "in distinct nullif case using natural group union intersect except any some all"),
    ("<>", "in not any some all"),
    ("<", "order distinct group union intersect except between"),
    (">", "order between"),
    ("<=", "between"),
    (">=", "between"),
    ("~~", "like"),
    ("~~*", "ilike"),
];

/// Marks the keywords that use this operator without naming it.
fn add_implied(words: &mut WordTable, operator: &str, flags: WordFlags) {
    for (_, keywords) in IMPLIED_OPERATORS.iter().filter(|(implied, _)| *implied == operator) {
        for keyword in keywords.split_ascii_whitespace() {
            words.add(keyword, flags);
        }
    }
}
