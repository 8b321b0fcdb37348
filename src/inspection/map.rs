//! The tables of the shards beside what the settings say of them.

use super::compare::NamedShape;
use super::finding::Finding;
use crate::plan::Schema;
use crate::shard::{KeyColumn, KeyType, QualifiedName, ShardMap, ShardedTable, TablePlace};

/// Separates columns in a definition.
const COLUMNS: char = '\u{1}';
/// Separates the parts of a reference.
const PARTS: char = '\u{2}';

/// A shard that could be read.
#[derive(Clone, Copy)]
pub struct ReadShard<'s> {
    /// Its name and definitions.
    pub shape: NamedShape<'s>,
    /// Its columns as planning knows them.
    pub schema: &'s Schema,
}

/// The key columns of a sharded table on a shard.
///
/// # Errors
/// Why it can't be sharded by them.
pub fn key_columns(table: &ShardedTable, schema: &Schema) -> Result<Vec<KeyColumn>, String> {
    let full = full_name(&table.table);
    let Some(definition) = schema.table(&table.table) else { return Err(format!("table {full} is not there")) };
    let column = |name: &String| {
        let column = definition.column(name).ok_or_else(|| format!("table {full} has no key column {name}"))?;
        if !column.deterministic {
            return Err(format!("the collation of key column {name} of {full} is not deterministic"));
        }
        let kind = KeyType::from_oid(column.type_oid)
            .ok_or_else(|| format!("key column {name} of {full} is of type {}, which no key may have", column.type_name))?;
        Ok(KeyColumn { kind, typmod: column.type_modifier })
    };
    table.key.iter().map(column).collect()
}

/// What the tables do not have of what the settings say.
pub fn judge(shards: &[ReadShard<'_>], map: &ShardMap) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut tables: Vec<(&QualifiedName, &TablePlace)> = map.tables.iter().collect();
    tables.sort_by_key(|(name, _)| *name);
    for (table, place) in tables {
        if shards.iter().all(|shard| shard.shape.1.relation(table).is_none()) {
            let says = format!("the settings list table {}, which no shard has", full_name(table));
            findings
                .push(Finding::warning(says, "make it, through pgyard on all shards at once, or take it out of the settings"));
            continue;
        }
        if let TablePlace::Sharded(sharded) = place {
            findings.extend(shards.iter().filter_map(|shard| judge_key(sharded, shard)));
            findings.extend(shards.first().into_iter().flat_map(|shard| judge_unique(sharded, shard)));
        }
    }
    findings.extend(shards.first().into_iter().flat_map(|shard| judge_references(shard, map)));
    findings
}

/// Tables that statements can't name, since the settings do not say where their rows are.
pub fn without_place(shards: &[ReadShard<'_>], map: &ShardMap) -> Vec<String> {
    let tables = shards.iter().flat_map(|shard| shard.shape.1.tables()).filter(|table| map.place(table).is_none());
    let mut names: Vec<String> = tables.map(full_name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn judge_key(table: &ShardedTable, shard: &ReadShard<'_>) -> Option<Finding> {
    let name = shard.shape.0;
    // That it is missing is told by the comparison.
    shard.schema.table(&table.table)?;
    match key_columns(table, shard.schema) {
        Err(reason) => Some(Finding::problem(
            format!("{reason} (on {name})"),
            "name a column that is there, of an integer, text, uuid, numeric, bytea, date or timestamp type",
        )),
        Ok(columns) if !table.accepts(&columns) => Some(Finding::problem(
            format!("the key of {} is of other types than the settings' key_type (on {name})", full_name(&table.table)),
            "set key_type to the columns' types",
        )),
        Ok(_) => None,
    }
}

/// A unique index without the key holds on each shard by itself.
fn judge_unique(table: &ShardedTable, shard: &ReadShard<'_>) -> Vec<Finding> {
    let lacks = |columns: &str| {
        let columns: Vec<&str> = columns.split(COLUMNS).collect();
        table.key.iter().any(|key| !columns.contains(&key.as_str()))
    };
    let key = table.key.join(", ");
    let unique = shard.shape.1.of_table("unique", &table.table).filter(|(_, columns)| lacks(columns));
    let finding = |(index, _): (&str, &str)| {
        Finding::warning(
            format!(
                "unique index {index} of {} has no {key}: two shards may have rows with the same values",
                full_name(&table.table)
            ),
            format!(
                "add {key} to it, or give it values that are unique by themselves (pgyard sequences, pgyard.unique_id(), UUIDs)"
            ),
        )
    };
    unique.map(finding).collect()
}

/// Foreign keys are checked by each shard among its own rows.
fn judge_references(shard: &ReadShard<'_>, map: &ShardMap) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (item, definition) in &shard.shape.1.items {
        if item.kind != "reference" {
            continue;
        }
        let parts: Vec<&str> = definition.split(PARTS).collect();
        let &[schema, name, own, others] = parts.as_slice() else { continue };
        let target = QualifiedName { schema: schema.to_owned(), name: name.to_owned() };
        let (from, to) = (map.place(&item.table), map.place(&target));
        let says = format!("foreign key {} of {} to {}", item.name, full_name(&item.table), full_name(&target));
        match (from, to) {
            (Some(TablePlace::Sharded(from)), Some(TablePlace::Sharded(to))) => {
                let pairs: Vec<(&str, &str)> = own.split(COLUMNS).zip(others.split(COLUMNS)).collect();
                let local = from.group == to.group
                    && from.key.iter().zip(&to.key).all(|(one, two)| pairs.contains(&(one.as_str(), two.as_str())));
                if !local {
                    findings.push(Finding::warning(
                        format!("{says} does not pair their keys: a row whose counterpart is on another shard is refused"),
                        "add the keys to it, or drop it",
                    ));
                }
            }
            (_, Some(TablePlace::Reference)) | (None, _) | (_, None) => {}
            (Some(TablePlace::Single(from)), Some(TablePlace::Single(to))) if from == to => {}
            _ => findings.push(Finding::problem(
                format!("{says} refers to rows that are not on every shard"),
                "drop it, or make the table that it refers to a reference table",
            )),
        }
    }
    findings
}

/// A table's name for people.
pub fn full_name(table: &QualifiedName) -> String {
    format!("{}.{}", table.schema, table.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspection::shape::{Shape, ShapeItem};
    use crate::shard::Scheme;
    use std::sync::Arc;

    fn name(name: &str) -> QualifiedName {
        QualifiedName { schema: "public".into(), name: name.into() }
    }

    fn sharded(table: &str, group: usize, types: Option<Vec<KeyType>>) -> (QualifiedName, TablePlace) {
        let (table, scheme) = (name(table), Scheme::Hash { shards: 2 });
        let place = ShardedTable { table: table.clone(), key: vec!["id".into()], group, types, scheme };
        (table, TablePlace::Sharded(Arc::new(place)))
    }

    fn schema(columns: &[(&str, &str, u32)]) -> Schema {
        let row = |parts: [&str; 9]| parts.map(|part| (!part.is_empty()).then(|| part.to_owned()));
        let rows = columns.iter().flat_map(|(table, column, oid)| {
            let kind = format!("{oid}:-1");
            [
                row(["table", "public", table, "r", "", "", "", "", ""]),
                row(["column", "public", table, column, &kind, "some type", "", "", ""]),
            ]
        });
        Schema::from_rows(rows)
    }

    fn shape(items: &[(&str, &str, &str, &str)]) -> Shape {
        let item = |(kind, table, own, definition): &(&str, &str, &str, &str)| {
            (ShapeItem { table: name(table), kind: (*kind).to_owned(), name: (*own).to_owned() }, (*definition).to_owned())
        };
        Shape { items: items.iter().map(item).collect() }
    }

    #[test]
    fn places_and_tables() {
        let relations = ["t", "u", "ref", "one"].map(|table| ("relation", table, "", "table"));
        let check = |places: &[(QualifiedName, TablePlace)], columns: &[(&str, &str, u32)], items: &[_], expect: &[&str]| {
            let map = ShardMap { shards: vec!["s0".into()], tables: places.iter().cloned().collect(), unlisted: None };
            let (schema, shape) = (schema(columns), shape(&[&relations[..], items].concat()));
            let found = judge(&[ReadShard { shape: ("s0", &shape), schema: &schema }], &map);
            assert_eq!(found.len(), expect.len(), "{found:?}");
            found.iter().zip(expect).for_each(|(finding, part)| assert!(finding.to_string().contains(part), "{part}: {finding}"));
        };
        let (t, u) = (sharded("t", 0, None), sharded("u", 0, None));
        check(std::slice::from_ref(&t), &[("t", "id", 20)], &[], &[]);
        check(std::slice::from_ref(&t), &[("t", "other", 20)], &[], &["table public.t has no key column id (on s0)"]);
        check(std::slice::from_ref(&t), &[("t", "id", 114)], &[], &["of type some type, which no key may have"]);
        check(&[sharded("t", 0, Some(vec![KeyType::Date]))], &[("t", "id", 20)], &[], &["settings' key_type"]);
        check(&[sharded("gone", 0, None)], &[], &[], &["warning: the settings list table public.gone"]);
        check(&[t.clone(), u.clone()], &[("t", "id", 20), ("u", "id", 23)], &[], &[]);
        let columns = &[("t", "id", 20), ("u", "id", 20)];
        check(std::slice::from_ref(&t), columns, &[("unique", "t", "t_pkey", "id\u{1}n")], &[]);
        check(
            std::slice::from_ref(&t),
            columns,
            &[("unique", "t", "t_n_key", "n")],
            &["warning: unique index t_n_key of public.t has no id"],
        );
        let places = [t, u, (name("ref"), TablePlace::Reference), (name("one"), TablePlace::Single(0))];
        for (from, definition, expect) in [
            ("t", "public\u{2}u\u{2}id\u{2}id", None),
            ("t", "public\u{2}u\u{2}n\u{2}n", Some("warning: foreign key fk of public.t to public.u does not pair")),
            ("t", "public\u{2}ref\u{2}n\u{2}n", None),
            ("t", "public\u{2}one\u{2}n\u{2}n", Some("PROBLEM: foreign key fk")),
            ("ref", "public\u{2}t\u{2}n\u{2}n", Some("not on every shard")),
            ("one", "public\u{2}one\u{2}n\u{2}n", None),
        ] {
            let expect: Vec<&str> = expect.into_iter().collect();
            check(&places, columns, &[("reference", from, "fk", definition)], &expect);
        }
    }
}
