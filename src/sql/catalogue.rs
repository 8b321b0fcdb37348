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
use crate::sql::words::{WordFlags, WordTable};
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
        Catalogue::new(words, Vec::new(), false)
    }

    /// Builds a catalogue from the rows of [`CATALOGUE_QUERY`].
    pub fn from_rows(rows: impl IntoIterator<Item = CatalogueRow>) -> Self {
        let (words, operators) = build::build(rows);
        Catalogue::new(words, operators, true)
    }

    fn new(words: WordTable, operators: Vec<Box<[u8]>>, complete: bool) -> Self {
        Catalogue { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), words, operators, complete }
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

    /// Operators over volatile functions. Any run of operator characters that contains one is suspect.
    pub(crate) fn operators(&self) -> &[Box<[u8]>] {
        &self.operators
    }
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

/// Makes the keywords suspect that use this operator without naming it.
fn add_implied(words: &mut WordTable, operator: &str) {
    for (_, keywords) in IMPLIED_OPERATORS.iter().filter(|(implied, _)| *implied == operator) {
        for keyword in keywords.split_ascii_whitespace() {
            words.add(keyword, WordFlags::SUSPECT);
        }
    }
}
