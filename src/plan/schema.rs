//! What planning knows of a database's objects. Read by one query from any shard (they are alike), never changed.

mod query;
mod types;

pub use query::{SCHEMA_QUERY, SCHEMA_SCRIPT};

use crate::shard::QualifiedName;
use std::collections::{HashMap, HashSet};

/// A row of [`SCHEMA_QUERY`]: its kind, and up to eight details.
///
/// Rows of an unknown kind are passed over.
pub type SchemaRow = [Option<String>; 9];

/// The schema of pgyard's own tables.
const OWN_SCHEMA: &str = "pgyard";

/// Separates the columns of a key in a row of [`SCHEMA_QUERY`].
const SEPARATOR: char = '\u{1}';

/// Tables, views, keys and types of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    tables: HashMap<QualifiedName, TableDefinition>,
    types: HashMap<u32, String>,
    aggregates: HashSet<String>,
    collation: String,
    /// Names of tables of which `public` is not the only schema.
    beside_public: HashSet<String>,
}

/// A table, view, foreign table or materialized view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableDefinition {
    /// As `pg_class.relkind`: `r`, `p`, `v`, `m`, `f`.
    pub kind: char,
    /// Its columns in their order, without dropped ones.
    pub columns: Vec<ColumnDefinition>,
    /// Its primary key and unique indexes that hold for all rows: the names of their columns.
    pub unique: Vec<Vec<String>>,
    /// The columns of its primary key.
    pub primary: Vec<String>,
    /// It has triggers or rules of a user's.
    pub triggers: bool,
    /// Foreign keys refer to it, or policies say who sees and changes which of its rows.
    pub guarded: bool,
    /// The query of a view.
    pub view: Option<String>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDefinition {
    /// Its name.
    pub name: String,
    /// Its type; of a domain, the type beneath it.
    pub type_oid: u32,
    /// The type's modifier (`atttypmod`): a length or precision; -1 is none.
    pub type_modifier: i32,
    /// Its type as SQL, with its modifier: `numeric(10,2)`; a domain's own name.
    pub type_name: String,
    /// The type is a domain.
    pub domain: bool,
    /// Its collation as SQL; `default` for the database's; `None` for types without.
    pub collation: Option<String>,
    /// Equal under its collation means equal bytes.
    pub deterministic: bool,
    /// NOT NULL.
    pub not_null: bool,
    /// What it gets when it is not named.
    pub default: DefaultKind,
}

/// What a column gets when an INSERT does not name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultKind {
    /// NULL.
    None,
    /// A constant.
    Constant,
    /// Something that is computed: a sequence, a clock, a function.
    Computed,
    /// GENERATED ALWAYS AS (...) STORED: it follows from the other columns.
    Generated,
}

impl Schema {
    /// From the rows of [`SCHEMA_QUERY`].
    pub fn from_rows(rows: impl IntoIterator<Item = SchemaRow>) -> Self {
        let mut schema = Schema { collation: "unknown".to_owned(), ..Schema::default() };
        rows.into_iter().for_each(|row| schema.add(row));
        let beside = schema.tables.keys().filter(|table| table.schema != "public" && table.schema != OWN_SCHEMA);
        schema.beside_public = beside.map(|table| table.name.clone()).collect();
        schema
    }

    fn add(&mut self, row: SchemaRow) {
        let [Some(kind), a, b, c, d, e, f, g, h] = row else { return };
        let (a, b, c) = (a.unwrap_or_default(), b.unwrap_or_default(), c.unwrap_or_default());
        match kind.as_str() {
            "database" => self.collation = a,
            "type" => drop(a.parse().map(|oid| self.types.insert(oid, b))),
            "aggregate" => drop(self.aggregates.insert(a)),
            _ => {
                let table = self.tables.entry(QualifiedName { schema: a, name: b }).or_default();
                match kind.as_str() {
                    "table" => {
                        table.kind = c.chars().next().unwrap_or('r');
                        table.view = d;
                    }
                    "column" => table.columns.push(ColumnDefinition {
                        name: c,
                        type_oid: number(d.as_deref(), 0),
                        type_modifier: number(d.as_deref(), 1),
                        type_name: e.unwrap_or_default(),
                        collation: f,
                        domain: flag(g.as_deref(), 'd'),
                        deterministic: !flag(g.as_deref(), 'x'),
                        not_null: flag(g.as_deref(), 'n'),
                        default: match h.as_deref() {
                            Some("constant") => DefaultKind::Constant,
                            Some("computed") => DefaultKind::Computed,
                            Some("generated") => DefaultKind::Generated,
                            _ => DefaultKind::None,
                        },
                    }),
                    "unique" | "primary" => {
                        let columns: Vec<String> = c.split(SEPARATOR).map(str::to_owned).collect();
                        if kind == "primary" {
                            table.primary.clone_from(&columns);
                        }
                        table.unique.push(columns);
                    }
                    "trigger" => table.triggers = true,
                    "guarded" => table.guarded = true,
                    _ => {}
                }
            }
        }
    }

    /// A table by its full name.
    pub fn table(&self, name: &QualifiedName) -> Option<&TableDefinition> {
        self.tables.get(name)
    }

    /// Finds a table as a statement names it.
    pub fn find(&self, schema: Option<&str>, name: &str, search_path: &[String]) -> Option<(QualifiedName, &TableDefinition)> {
        let look = |schema: &str| {
            let name = QualifiedName { schema: schema.to_owned(), name: name.to_owned() };
            self.tables.get(&name).map(|table| (name, table))
        };
        match schema {
            Some(schema) => look(schema),
            None => search_path.iter().find_map(|schema| look(schema)),
        }
    }

    /// Whether the search path decides which table a name without a schema means, or whether it means one.
    pub fn depends_on_path(&self, name: &str) -> bool {
        self.beside_public.contains(name)
    }

    /// Whether the search path decides about any name.
    pub fn has_names_beside_public(&self) -> bool {
        !self.beside_public.is_empty()
    }

    /// All tables.
    pub fn tables(&self) -> impl Iterator<Item = (&QualifiedName, &TableDefinition)> {
        self.tables.iter()
    }

    /// Whether a user's aggregate has this name in some schema.
    pub fn is_aggregate(&self, name: &str) -> bool {
        self.aggregates.contains(name)
    }

    /// The collation behind `default`: `C`, `POSIX`, `C.UTF-8` or another's name; with its provider before it unless that is the
    /// operating system's: `icu:en-US`.
    pub fn database_collation(&self) -> &str {
        &self.collation
    }

    /// A type as SQL, from what a RowDescription says of a column. `None` for a type that is not known, or a modifier of a type
    /// whose modifiers are not.
    pub fn type_name(&self, oid: u32, modifier: i32) -> Option<String> {
        types::with_modifier(oid, self.types.get(&oid)?, modifier)
    }
}

impl TableDefinition {
    /// A column by its name.
    pub fn column(&self, name: &str) -> Option<&ColumnDefinition> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// The first or second of two numbers with a colon between them.
fn number<N: std::str::FromStr + Default>(pair: Option<&str>, place: usize) -> N {
    pair.and_then(|pair| pair.split(':').nth(place)?.parse().ok()).unwrap_or_default()
}

fn flag(flags: Option<&str>, wanted: char) -> bool {
    flags.is_some_and(|flags| flags.contains(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<const N: usize>(details: [&str; N]) -> SchemaRow {
        std::array::from_fn(|index| details.get(index).filter(|text| !text.is_empty()).map(|text| (*text).to_owned()))
    }

    #[test]
    fn rows_become_tables() {
        let schema = Schema::from_rows([
            row(["database", "C.UTF-8"]),
            row(["table", "public", "t", "r"]),
            row(["column", "public", "t", "id", "23:-1", "integer", "", "n", "computed"]),
            row(["column", "public", "t", "name", "25:-1", "text", "default", "", ""]),
            row(["primary", "public", "t", "id\u{1}name"]),
            row(["trigger", "public", "t"]),
            row(["guarded", "public", "t"]),
            row(["something else", "public", "u"]),
            row(["type", "1700", "numeric"]),
            row(["type", "x", "numeric"]),
        ]);
        let path = ["missing".to_owned(), "public".to_owned()];
        let (name, table) = schema.find(None, "t", &path).unwrap();
        assert_eq!((name.schema.as_str(), table.kind, table.triggers, table.guarded), ("public", 'r', true, true));
        assert_eq!(table.columns[0].default, DefaultKind::Computed);
        assert_eq!((table.columns[1].type_oid, table.columns[1].type_modifier), (25, -1));
        assert!(table.columns[0].not_null && table.columns[1].deterministic && !table.columns[1].not_null);
        assert_eq!(table.unique, [["id".to_owned(), "name".to_owned()]]);
        assert_eq!(schema.find(Some("missing"), "t", &path), None);
        assert_eq!(schema.type_name(1700, -1).as_deref(), Some("numeric"));
        assert_eq!(schema.type_name(1, -1), None);
        assert_eq!(schema.database_collation(), "C.UTF-8");
        assert!(!schema.depends_on_path("t") && !schema.has_names_beside_public());
        let two = Schema::from_rows([
            row(["table", "public", "t", "r"]),
            row(["table", "other", "t", "r"]),
            row(["table", "pgyard", "u"]),
        ]);
        assert!(two.depends_on_path("t") && !two.depends_on_path("u"));
    }
}
