//! The shards' definitions beside each other.

use super::finding::Finding;
use super::shape::{Shape, ShapeItem};
use crate::shard::{QualifiedName, ShardMap, TablePlace};
use std::collections::{BTreeMap, BTreeSet};

/// Longest definition that is shown.
const SHOWN_MAX: usize = 160;

/// What a shard has, with its name.
pub type NamedShape<'s> = (&'s str, &'s Shape);

/// What differs between shards that must be alike. The shards are in the map's order; one that could not be read is left out.
pub fn compare(shapes: &[Option<NamedShape<'_>>], map: &ShardMap) -> Vec<Finding> {
    let items: BTreeSet<&ShapeItem> = shapes.iter().flatten().flat_map(|(_, shape)| shape.items.keys()).collect();
    let mut findings = Vec::new();
    for item in items {
        let concerned: Vec<&NamedShape<'_>> = concerned(item, shapes, map);
        // A table that is missing is told once, not column by column.
        let has_table =
            |shape: &Shape| item.table.name.is_empty() || item.kind == "relation" || shape.relation(&item.table).is_some();
        let concerned: Vec<&NamedShape<'_>> = concerned.into_iter().filter(|(_, shape)| has_table(shape)).collect();
        findings.extend(difference(item, &concerned));
    }
    findings
}

/// The shards on which an item must be alike.
fn concerned<'a, 's>(item: &ShapeItem, shapes: &'a [Option<NamedShape<'s>>], map: &ShardMap) -> Vec<&'a NamedShape<'s>> {
    // What a table's place asks of them is judged by itself.
    if item.kind == "unique" || item.kind == "reference" {
        return Vec::new();
    }
    let all = || shapes.iter().flatten().collect();
    if item.table.name.is_empty() || !is_plain_table(&item.table, shapes) {
        return all();
    }
    match map.place(&item.table) {
        Some(TablePlace::Sharded(_) | TablePlace::Reference) => all(),
        // Statements are planned by the first shard's definitions.
        Some(TablePlace::Single(shard)) => {
            let wanted = [0, *shard];
            shapes
                .iter()
                .enumerate()
                .filter(|(place, _)| wanted.contains(place))
                .filter_map(|(_, shape)| shape.as_ref())
                .collect()
        }
        None => Vec::new(),
    }
}

/// Whether it is a table of which the settings say the place: no view, and no partition, whose rows are its table's.
fn is_plain_table(table: &QualifiedName, shapes: &[Option<NamedShape<'_>>]) -> bool {
    let definition = shapes.iter().flatten().find_map(|(_, shape)| shape.relation(table)).unwrap_or_default();
    !definition.contains("view") && !definition.contains(", a partition ")
}

fn difference(item: &ShapeItem, shards: &[&NamedShape<'_>]) -> Option<Finding> {
    let mut groups: BTreeMap<Option<&str>, Vec<&str>> = BTreeMap::new();
    for (name, shape) in shards {
        groups.entry(shape.items.get(item).map(String::as_str)).or_default().push(name);
    }
    if groups.len() < 2 {
        return None;
    }
    let what = item.describe();
    let missing = groups.remove(&None);
    let definitions: Vec<(&str, String)> =
        groups.iter().map(|(definition, names)| (definition.unwrap_or_default(), names.join(", "))).collect();
    let (says, advice) = match (missing, definitions.as_slice()) {
        (Some(without), [(definition, with), ..]) => {
            (format!("{what} is missing on {} (there on {with})", without.join(", ")), make(item, definition, with))
        }
        (_, all) if all.iter().all(|(definition, _)| definition.len() <= SHOWN_MAX && !definition.contains('\n')) => {
            let parts: Vec<String> = all.iter().map(|(definition, names)| format!("`{definition}` on {names}")).collect();
            (format!("{what} differs: {}", parts.join("; ")), "make it the same on all".to_owned())
        }
        (_, all) => {
            let parts: Vec<&str> = all.iter().map(|(_, names)| names.as_str()).collect();
            (format!("{what} differs between {}", parts.join(" and ")), "make it the same on all".to_owned())
        }
    };
    let mild = item.kind == "extension" && definitions.len() > 1
        || item.kind == "index" && definitions.iter().all(|(definition, _)| !definition.starts_with("CREATE UNIQUE"));
    Some(if mild { Finding::warning(says, advice) } else { Finding::problem(says, advice) })
}

/// What makes an item where it is missing.
fn make(item: &ShapeItem, definition: &str, with: &str) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let table = format!("{}.{}", quoted(&item.table.schema), quoted(&item.table.name));
    let short = definition.len() <= SHOWN_MAX && !definition.contains('\n');
    match item.kind.as_str() {
        "column" if short => format!("there: ALTER TABLE {table} ADD COLUMN {} {definition}", quoted(&item.name)),
        "constraint" if short => format!("there: ALTER TABLE {table} ADD CONSTRAINT {} {definition}", quoted(&item.name)),
        "index" | "trigger" if short => format!("there: {definition}"),
        "extension" => format!("there: CREATE EXTENSION {}", quoted(&item.name)),
        "schema" => format!("there: CREATE SCHEMA {}", quoted(&item.name)),
        _ => format!("make it there as it is on {with}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspection::Gravity;
    use std::collections::HashMap;

    fn shape(items: &[(&str, &str, &str, &str)]) -> Shape {
        let item = |(kind, table, name, definition): &(&str, &str, &str, &str)| {
            let table = QualifiedName { schema: "public".into(), name: (*table).to_owned() };
            (ShapeItem { table, kind: (*kind).to_owned(), name: (*name).to_owned() }, (*definition).to_owned())
        };
        Shape { items: items.iter().map(item).collect() }
    }

    #[test]
    fn differences() {
        let name = |name: &str| QualifiedName { schema: "public".into(), name: name.into() };
        let tables = HashMap::from([(name("t"), TablePlace::Reference), (name("one"), TablePlace::Single(1))]);
        let map = ShardMap { shards: vec!["s0".into(), "s1".into(), "s2".into()], tables, unlisted: None };
        let base = [("relation", "t", "", "table"), ("column", "t", "a", "integer")];
        let check = |others: [&[(&str, &str, &str, &str)]; 3], expect: &[(Gravity, &str)]| {
            let shapes = others.map(|more| shape(&[&base[..], more].concat()));
            let named: Vec<Option<NamedShape<'_>>> = map.shards.iter().map(String::as_str).zip(&shapes).map(Some).collect();
            let found = compare(&named, &map);
            assert_eq!(found.len(), expect.len(), "{found:?}");
            for (finding, (gravity, part)) in found.iter().zip(expect) {
                assert!(finding.gravity == *gravity && finding.to_string().contains(part), "{part}: {finding}");
            }
        };
        let (problem, warning) = (Gravity::Problem, Gravity::Warning);
        check([&[], &[], &[]], &[]);
        let column: &[_] = &[("column", "t", "b", "text")];
        check(
            [column, &[], column],
            &[(
                problem,
                "column b of public.t is missing on s1 (there on s0, s2)\n    -> there: ALTER TABLE \"public\".\"t\" ADD COLUMN \"b\" text",
            )],
        );
        check(
            [column, column, &[("column", "t", "b", "bigint")]],
            &[(problem, "column b of public.t differs: `bigint` on s2; `text` on s0, s1")],
        );
        // A table without a place is nobody's concern; one of a single shard is that shard's and the first's.
        check([&[("relation", "other", "", "table")], &[], &[]], &[]);
        let one: &[_] = &[("relation", "one", "", "table"), ("column", "one", "x", "text")];
        check([one, one, &[]], &[]);
        check([&[], one, &[]], &[(problem, "table public.one is missing on s0")]);
        // Views are everybody's.
        check(
            [&[("relation", "v", "", "view"), ("view", "v", "", " SELECT 1;")], &[], &[]],
            &[(problem, "table public.v is missing")],
        );
        check([&[("index", "t", "i", "CREATE INDEX i ON t")], &[], &[]], &[(warning, "there: CREATE INDEX i")]);
        check(
            [&[("index", "t", "i", "CREATE UNIQUE INDEX i ON t")], &[], &[]],
            &[(problem, "index i of public.t is missing on s1, s2")],
        );
        let long: &[_] = &[("function", "", "f()", "BEGIN\nEND")];
        check(
            [long, long, &[("function", "", "f()", "BEGIN\n\nEND")]],
            &[(problem, "function public.f() differs between s2 and s0, s1")],
        );
    }
}
