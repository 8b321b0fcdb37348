//! Which tables are sharded, and where the others are.

use super::schemes::{self, Columns};
use super::{RESERVED, tables_of, texts_of};
use crate::config::codec::{Complaint, RawValue};
use crate::config::file::reader::{Reader, Section, Span};
use crate::config::file::suggest::closest;
use crate::config::file::unknown::check_unknown;
use crate::config::keys::{self, plain_names};
use crate::config::problem::ProblemKind;
use crate::shard::{KeyType, QualifiedName, ShardMap, ShardedTable, TablePlace};
use std::collections::hash_map::Entry;
use std::sync::Arc;

/// Columns that a key may have.
const KEY_COLUMNS_MAX: usize = 32;

/// Reads all that is said of tables.
pub(super) fn read(reader: &mut Reader, section: Section, shards: Vec<String>) -> ShardMap {
    let mut map = ShardMap { shards, ..ShardMap::default() };
    if let Some(value) = section.get("sharded_tables") {
        let help = "begin each entry with a line [[databases.NAME.sharded_tables]], and write tables and key below it";
        for (table, span) in tables_of(reader, value, "sharded_tables", help) {
            let entry = Section { table, title: "[[databases.NAME.sharded_tables]]" };
            check_unknown(reader, entry, &plain_names(keys::SHARDED_TABLES).collect::<Vec<_>>());
            read_sharded(reader, entry, &span, &mut map);
        }
    }
    if let Some(tables) = crate::config::file::section(reader, section, "tables", "[databases.NAME.tables]") {
        for (name, span, value) in tables.entries() {
            let Some(RawValue::Text(place)) = reader.raw(value) else {
                let help = "write \"reference\", or the name of a shard";
                reader.error(
                    ProblemKind::BadValue,
                    value.span(),
                    Complaint::new(format!("the place of `{name}` is not a text"), help),
                );
                continue;
            };
            let place = match place.as_str() {
                "reference" => Some(TablePlace::Reference),
                shard => shard_number(reader, &map.shards, shard, value.span()).map(TablePlace::Single),
            };
            if let (Some(place), Some(table)) = (place, table_name(reader, name, &span)) {
                put(reader, &mut map, (table, span), place);
            }
        }
    }
    map.unlisted = read_unlisted(reader, section, &map.shards);
    let said = ["sharded_tables", "tables", "unlisted_tables"].iter().any(|key| section.get(key).is_some());
    if !said {
        let span = section.key_span("shards").unwrap_or(0..0);
        let help = "list tables under sharded_tables or tables, or write unlisted_tables = \"reference\"";
        reader.warn(span, "no table has a place: every statement that names one is refused", help);
    }
    map
}

fn read_unlisted(reader: &mut Reader, section: Section, shards: &[String]) -> Option<TablePlace> {
    let (place, span) = reader.text_of(section, "unlisted_tables")?;
    match place.as_str() {
        "refuse" => None,
        "reference" => Some(TablePlace::Reference),
        shard => shard_number(reader, shards, shard, span).map(TablePlace::Single),
    }
}

fn read_sharded(reader: &mut Reader, entry: Section, span: &Span, map: &mut ShardMap) {
    for key in ["tables", "key"] {
        if entry.get(key).is_none() {
            let complaint =
                Complaint::new(format!("these sharded tables have no `{key}`"), format!("write such as {key} = \"...\""));
            reader.error(ProblemKind::MissingKey, span.clone(), complaint);
        }
    }
    let tables = texts_of(reader, entry, "tables");
    let key: Vec<(String, Span)> = texts_of(reader, entry, "key");
    for (place, (column, span)) in key.iter().enumerate() {
        if key[..place].iter().any(|(other, _)| other == column) {
            let complaint = Complaint::new(format!("the key has the column `{column}` twice"), "name each column once");
            reader.error(ProblemKind::Contradiction, span.clone(), complaint);
        }
    }
    if key.len() > KEY_COLUMNS_MAX {
        let complaint =
            Complaint::new(format!("the key has {} columns", key.len()), format!("at most {KEY_COLUMNS_MAX} are possible"));
        reader.error(ProblemKind::BadValue, span.clone(), complaint);
    }
    let columns = Columns { count: key.len(), types: read_types(reader, entry, key.len()) };
    let Some(scheme) = schemes::read(reader, entry, &map.shards, &columns) else { return };
    // Keys that are spread in the same way meet on the same shard, whatever entry they are of.
    let sharded =
        || map.tables.values().filter_map(|place| if let TablePlace::Sharded(table) = place { Some(table) } else { None });
    let known = sharded().find(|other| other.scheme == scheme && other.key.len() == key.len()).map(|other| other.group);
    let group = known.unwrap_or_else(|| sharded().map(|other| other.group + 1).max().unwrap_or(0));
    let key: Vec<String> = key.into_iter().map(|(column, _)| column).collect();
    for (name, span) in tables {
        let Some(table) = table_name(reader, &name, &span) else { continue };
        let place =
            ShardedTable { table: table.clone(), key: key.clone(), group, types: columns.types.clone(), scheme: scheme.clone() };
        put(reader, map, (table, span), TablePlace::Sharded(Arc::new(place)));
    }
}

fn read_types(reader: &mut Reader, entry: Section, count: usize) -> Option<Vec<KeyType>> {
    entry.get("key_type")?;
    let written = texts_of(reader, entry, "key_type");
    let mut types = Vec::new();
    for (name, span) in &written {
        let Some(kind) = KeyType::from_name(name) else {
            let names: Vec<&str> = KeyType::all().map(KeyType::name).collect();
            let help = format!("a key may be of {}", names.join(", "));
            reader.error(ProblemKind::BadValue, span.clone(), Complaint::new(format!("`{name}` is not a type of keys"), help));
            return None;
        };
        types.push(kind);
    }
    if types.len() != count {
        let span = entry.get("key_type").map_or(0..0, toml::Spanned::span);
        let message = format!("the key has {count} columns, but key_type has {} types", types.len());
        reader.error(ProblemKind::Contradiction, span, Complaint::new(message, "write one for each column"));
        return None;
    }
    Some(types)
}

fn put(reader: &mut Reader, map: &mut ShardMap, (table, span): (QualifiedName, Span), place: TablePlace) {
    match map.tables.entry(table) {
        Entry::Vacant(free) => {
            free.insert(place);
        }
        Entry::Occupied(taken) => {
            let message = format!("`{}.{}` has two places", taken.key().schema, taken.key().name);
            let help = "list it once, under sharded_tables or under tables";
            reader.error(ProblemKind::Contradiction, span, Complaint::new(message, help));
        }
    }
}

/// A table's name as it is written: with its schema, or in `public`.
fn table_name(reader: &mut Reader, text: &str, span: &Span) -> Option<QualifiedName> {
    let (schema, name) = text.split_once('.').unwrap_or(("public", text));
    if schema.is_empty() || name.is_empty() || name.contains('.') || text.contains('"') {
        let help =
            "write schema.table, as the catalogue has the names: without quotes, in lower case unless they were made with quotes";
        reader.error(ProblemKind::BadValue, span.clone(), Complaint::new(format!("`{text}` is not the name of a table"), help));
        return None;
    }
    Some(QualifiedName { schema: schema.to_owned(), name: name.to_owned() })
}

/// The number of the shard with this name.
pub(super) fn shard_number(reader: &mut Reader, shards: &[String], name: &str, span: Span) -> Option<usize> {
    let found = shards.iter().position(|shard| shard == name);
    if found.is_none() {
        let names: Vec<&str> = shards.iter().map(String::as_str).collect();
        let help = match closest(name, &names) {
            _ if RESERVED.contains(&name) => "this word says where a whole table is; here a shard is meant".to_owned(),
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("the shards are {}", names.join(", ")),
        };
        reader.error(ProblemKind::Contradiction, span, Complaint::new(format!("there is no shard `{name}`"), help));
    }
    found
}
