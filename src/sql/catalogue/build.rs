//! From rows to a table of names. What rests on other names (views, policies, domains, functions' sources) is looked at again and
//! again until nothing new comes out.

use super::{HiddenReads, add_implied, source};
use crate::sql::functions;
use crate::sql::read::memmem_folded;
use crate::sql::scan::{Lexing, Scanner};
use crate::sql::survey;
use crate::sql::words::{WordFlags, WordTable};
use std::collections::{HashMap, HashSet};

/// A row of [`CATALOGUE_QUERY`](super::CATALOGUE_QUERY): kind, schema, name, and up to four details.
///
/// Rows of an unknown kind or without a name are passed over.
pub type CatalogueRow = [Option<String>; 7];

/// A text that decides what a name is.
struct Resting {
    name: String,
    text: String,
    kind: RestingKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RestingKind {
    View,
    /// A policy, a domain's check, the defaults of a function's arguments.
    Condition,
    Function,
    Default,
}

/// `name` contains or names `used`.
struct Uses {
    name: String,
    used: String,
    kind: UsesKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum UsesKind {
    Type,
    Table,
    Parent,
    Child,
    Trigger,
}

/// What a parent has because a child has it.
const INHERITED: WordFlags =
    WordFlags(WordFlags::SUSPECT.0 | WordFlags::SIDE_EFFECTS.0 | WordFlags::OPAQUE_WRITE.0 | WordFlags::SUSPECT_IF_CAST.0);

/// What the use of a default brings with it.
const DEFAULTED: WordFlags = WordFlags(WordFlags::SIDE_EFFECTS.0 | WordFlags::OPAQUE_WRITE.0);

/// Words by which statements name PostgreSQL's own types beside their stored names.
const SPELLINGS: [(&str, &str); 11] = [
    ("bool", "boolean"),
    ("int2", "smallint"),
    ("int4", "int integer"),
    ("int8", "bigint"),
    ("float4", "real float"),
    ("float8", "float double"),
    ("numeric", "decimal dec"),
    ("varchar", "varying"),
    ("bpchar", "char character nchar"),
    ("timestamptz", "timestamp"),
    ("timetz", "time"),
];

#[derive(Default)]
struct Builder {
    operators: Vec<Box<[u8]>>,
    hidden: HiddenReads,
    /// Parents and their children.
    inherits: Vec<(String, String)>,
    resting: Vec<Resting>,
    uses: Vec<Uses>,
    /// User types that a volatile function coerces: what it is asked to coerce need not name the type.
    coercing: HashSet<String>,
}

/// The table of names, the suspect operators, and what is read without being named.
pub(super) fn build(rows: impl IntoIterator<Item = CatalogueRow>) -> (WordTable, Vec<Box<[u8]>>, HiddenReads) {
    let mut words = WordTable::with_keywords();
    let mut builder = Builder::default();
    for name in functions::known_system_views() {
        words.add(name, functions::system_view_flags(name));
    }
    for row in rows {
        builder.add(&mut words, row);
    }
    while builder.spread(&mut words) {}
    builder.hidden.families = families(&builder.inherits);
    (words, builder.operators, builder.hidden)
}

impl Builder {
    fn add(&mut self, words: &mut WordTable, row: CatalogueRow) {
        let [Some(kind), _, Some(name), a, b, c, d] = row else { return };
        let text = a.unwrap_or_default();
        match kind.as_str() {
            "builtin" => drop(words.add(&name, functions::builtin_flags(&name, text == "v"))),
            "system_view" => drop(words.add(&name, functions::system_view_flags(&name))),
            "function" => {
                let harmless = c.as_deref().is_some_and(|extension| functions::harmless_in_extension(extension, &name));
                let volatile = if text == "i" || text == "s" || harmless { WordFlags::NONE } else { WordFlags::VOLATILE };
                // Many a function in SQL says that it is immutable, and reads a table.
                let compiled = matches!(b.as_deref(), Some("c" | "internal"));
                let reads = if text == "i" && compiled { WordFlags::NONE } else { WordFlags::READS_TABLES };
                words.add(&name, WordFlags::FUNCTION | volatile | reads);
                // C code can keep anything in its process. An extension's can be trusted not to, and what promises to change
                // nothing; a function of somebody's own can't.
                if volatile != WordFlags::NONE && c.is_none() && b.as_deref() == Some("c") {
                    words.add(&name, WordFlags::OPAQUE);
                }
                self.add_source(words, name, b.as_deref(), c.as_deref(), d);
            }
            "trigger_function" if c.is_none() && b.as_deref() == Some("c") => drop(words.add(&name, WordFlags::OPAQUE)),
            "trigger_function" => self.add_source(words, name, b.as_deref(), c.as_deref(), d),
            "view" => {
                words.add(&name, WordFlags::TREE);
                self.resting.push(Resting { name, text, kind: RestingKind::View });
            }
            "sequence" | "foreign" | "unlogged" => drop(words.add(&name, WordFlags::SUSPECT)),
            "inherits" => {
                self.inherits.push((name.clone(), text.clone()));
                self.uses.push(Uses { name: text.clone(), used: name.clone(), kind: UsesKind::Child });
                self.uses.push(Uses { name, used: text, kind: UsesKind::Parent });
            }
            "policy" => {
                words.add(&name, WordFlags::TREE);
                self.resting.push(Resting { name, text, kind: RestingKind::Condition });
            }
            "domain" | "argument" => self.resting.push(Resting { name, text, kind: RestingKind::Condition }),
            "default" => self.resting.push(Resting { name, text, kind: RestingKind::Default }),
            "uses" => {
                let kind = if b.as_deref() == Some("type") { UsesKind::Type } else { UsesKind::Table };
                self.uses.push(Uses { name, used: text, kind });
            }
            "operator" => {
                add_implied(words, &name, WordFlags::SUSPECT);
                self.operators.push(name.into_bytes().into());
            }
            "reading_operator" => {
                add_implied(words, &name, WordFlags::READS_TABLES);
                self.hidden.operators.push(name.into_bytes().into());
            }
            "reading_cast" => self.hidden.casts = true,
            "cast" => self.add_cast(words, [(name, c.is_some()), (text, d.is_some())]),
            "type_io" => {
                words.add(&name, WordFlags::SUSPECT);
                self.coercing.insert(name);
            }
            "trigger" => {
                words.add(&name, WordFlags::SIDE_EFFECTS);
                self.uses.push(Uses { name, used: text, kind: UsesKind::Trigger });
            }
            "side_effects" => drop(words.add(&name, WordFlags::SIDE_EFFECTS)),
            _ => {}
        }
    }

    fn add_source(
        &mut self,
        words: &mut WordTable,
        name: String,
        language: Option<&str>,
        extension: Option<&str>,
        source: Option<String>,
    ) {
        match (language, source) {
            // Its connections outlive the statement and act outside of the transaction.
            _ if extension == Some("dblink") => drop(words.add(&name, WordFlags::OPAQUE)),
            (Some("sql" | "plpgsql" | "aggregate"), Some(text)) => {
                self.resting.push(Resting { name, text, kind: RestingKind::Function });
            }
            (Some("internal" | "c"), _) => {}
            _ => drop(words.add(&name, WordFlags::OPAQUE)),
        }
    }

    /// A volatile cast between two types; with each, whether it is the user's. Values of a user's type come out of tables or are
    /// made by naming the type. PostgreSQL's own types are everywhere, so that they are suspect only where both are its own.
    fn add_cast(&mut self, words: &mut WordTable, types: [(String, bool); 2]) {
        let own = types.iter().all(|(_, user)| !user);
        for (name, user) in types {
            if user {
                words.add(&name, WordFlags::SUSPECT);
                self.coercing.insert(name);
            } else if own {
                words.add(&name, WordFlags::SUSPECT);
                let spelled = SPELLINGS.iter().filter(|(stored, _)| *stored == name);
                for spelling in spelled.flat_map(|(_, spellings)| spellings.split_ascii_whitespace()) {
                    words.add(spelling, WordFlags::SUSPECT);
                }
            }
        }
    }

    /// One round; true if it found anything new.
    fn spread(&self, words: &mut WordTable) -> bool {
        let mut news = false;
        for resting in &self.resting {
            let flags = self.verdict(words, resting);
            if flags != WordFlags::NONE {
                news |= words.add(&resting.name, flags);
            }
        }
        for uses in &self.uses {
            let used = words.quoted(uses.used.as_bytes());
            let suspect = used.has(WordFlags::SUSPECT);
            let flags = match uses.kind {
                UsesKind::Type if suspect || used.has(WordFlags::SUSPECT_IF_CAST) => WordFlags::SUSPECT,
                UsesKind::Type => WordFlags(used.0 & (WordFlags::READS_TABLES.0 | DEFAULTED.0)),
                UsesKind::Table if self.coercing.contains(&uses.used) => WordFlags::SUSPECT,
                UsesKind::Table if suspect || used.has(WordFlags::SUSPECT_IF_CAST) => WordFlags::SUSPECT_IF_CAST,
                UsesKind::Parent => WordFlags(used.0 & INHERITED.0),
                // A domain's default is its columns'.
                UsesKind::Table => WordFlags(used.0 & DEFAULTED.0),
                // A parent's triggers are its partitions' too.
                UsesKind::Child => WordFlags(used.0 & WordFlags::SIDE_EFFECTS.0),
                UsesKind::Trigger if used.has(WordFlags::OPAQUE) => WordFlags::OPAQUE_WRITE,
                _ => WordFlags::NONE,
            };
            if flags != WordFlags::NONE {
                news |= words.add(&uses.name, flags);
            }
        }
        news
    }

    fn verdict(&self, words: &WordTable, resting: &Resting) -> WordFlags {
        if resting.kind == RestingKind::Function {
            let text = resting.text.as_bytes();
            let opaque = source::is_opaque(text, words) || shows_statements(text);
            let local = source::sets_locally(text, words);
            let writes = source::may_write(text, words);
            return if opaque { WordFlags::OPAQUE } else { WordFlags::NONE }
                | if local { WordFlags::LOCAL_SETTING } else { WordFlags::NONE }
                | if writes { WordFlags::VOLATILE } else { WordFlags::NONE };
        }
        let mut scanner = Scanner::new(resting.text.as_bytes(), Lexing::default());
        let Some(seen) = survey::survey_names(&mut scanner, words, &self.operators) else { return WordFlags::NONE };
        let all = seen.names | seen.calls;
        let opaque =
            all.has(WordFlags::OPAQUE) || seen.calls.has(WordFlags::SET_CONFIG) || shows_statements(resting.text.as_bytes());
        if resting.kind == RestingKind::Default {
            let flags = if opaque { WordFlags::OPAQUE_WRITE } else { WordFlags::NONE };
            let writes = !seen.trusted || seen.suspect_operator || all.has(WordFlags::VOLATILE | WordFlags::SUSPECT);
            return if writes { flags | WordFlags::SIDE_EFFECTS } else { flags };
        }
        let mut flags = WordFlags::NONE;
        let cast = seen.casts && all.has(WordFlags::SUSPECT_IF_CAST);
        if !seen.trusted || seen.locks || seen.suspect_operator || cast || all.has(WordFlags::VOLATILE | WordFlags::SUSPECT) {
            flags |= WordFlags::SUSPECT;
        }
        if opaque {
            flags |= WordFlags::OPAQUE;
        }
        flags |= WordFlags(all.0 & WordFlags::READS_TABLES.0);
        if resting.kind == RestingKind::View {
            if seen.names.has(WordFlags::SERVER_NAME) || seen.calls.has(WordFlags::SERVER_CALL) {
                flags |= WordFlags::SERVER_NAME;
            }
            // A view can be written through, too.
            flags |= WordFlags(seen.calls.0 & (WordFlags::ADVISORY.0 | WordFlags::SEQUENCE.0));
            flags |= WordFlags(seen.names.0 & (WordFlags::OPAQUE_WRITE.0 | WordFlags::SIDE_EFFECTS.0));
        }
        flags
    }
}

/// Of each table that has parents or children, the first name, in the alphabet, of all that hang together.
fn families(inherits: &[(String, String)]) -> HashMap<Box<str>, Box<str>> {
    let mut neighbours: HashMap<&str, Vec<&str>> = HashMap::new();
    for (parent, child) in inherits {
        neighbours.entry(parent).or_default().push(child);
        neighbours.entry(child).or_default().push(parent);
    }
    let mut names: Vec<&str> = neighbours.keys().copied().collect();
    names.sort_unstable();
    let mut roots: HashMap<Box<str>, Box<str>> = HashMap::new();
    for root in names {
        let mut left = vec![root];
        while let Some(name) = left.pop() {
            if !roots.contains_key(name) {
                roots.insert(name.into(), root.into());
                left.extend(&neighbours[name]);
            }
        }
    }
    roots
}

/// Whether a view or a function may show which prepared statements the session has.
fn shows_statements(text: &[u8]) -> bool {
    memmem_folded(text, b"pg_prepared_statement")
}
