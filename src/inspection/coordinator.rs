//! Whether the coordinator shows what the shards have, as the settings say where they are.

use super::finding::Finding;
use super::map::full_name;
use super::read::{ReadRow, column};
use super::shape::Shape;
use crate::coordinator::{ShardServer, layout};
use crate::shard::{ShardMap, TablePlace};
use std::collections::BTreeMap;

/// The servers that foreign tables of the coordinator reach. Columns: name, host, port, database.
pub const SERVERS_QUERY: &str = "
SELECT s.srvname, o.host, o.port, o.dbname FROM pg_foreign_server s
  CROSS JOIN LATERAL (SELECT max(option_value) FILTER (WHERE option_name = 'host') AS host, max(option_value) FILTER (WHERE option_name = 'port') AS port,
                             max(option_value) FILTER (WHERE option_name = 'dbname') AS dbname FROM pg_options_to_table(s.srvoptions)) o
 WHERE s.srvname LIKE 'pgyard\\_%'";

/// What puts a coordinator in step.
const SYNC: &str = "run: pgyard coordinator FILE (a running pgyard does it by itself within seconds)";

/// What a coordinator lacks. `first` is the first shard's shape, `own` the coordinator's.
pub fn judge(first: &Shape, own: &Shape, servers: &[ReadRow], wanted: &[ShardServer], map: &ShardMap) -> Vec<Finding> {
    let mut findings = Vec::new();
    let locale = |shape: &Shape| shape.items.iter().find(|(item, _)| item.kind == "locale").map(|(_, locale)| locale.clone());
    if let (Some(shard), Some(coordinator)) = (locale(first), locale(own))
        && shard != coordinator
    {
        findings.push(Finding::problem(
            format!("the coordinator's database has encoding and locale {coordinator}, the shards have {shard}"),
            "make it anew with theirs: CREATE DATABASE ... TEMPLATE template0 ENCODING ... LOCALE ...",
        ));
    }
    let known: BTreeMap<&str, &ReadRow> = servers.iter().map(|row| (column(row, 0), row)).collect();
    let strange = |shard: &&ShardServer| {
        let Some(row) = known.get(layout::server_name(&shard.name).as_str()) else { return true };
        let hosts: Vec<&str> = shard.hosts.iter().map(|(host, _)| host.as_str()).collect();
        let ports: Vec<String> = shard.hosts.iter().map(|(_, port)| port.to_string()).collect();
        let wanted = [hosts.join(","), ports.join(","), shard.database.clone()];
        wanted.iter().enumerate().any(|(place, wanted)| column(row, place + 1) != wanted)
    };
    let shards: Vec<&str> = wanted.iter().filter(strange).map(|shard| shard.name.as_str()).collect();
    if !shards.is_empty() {
        findings.push(Finding::problem(format!("the coordinator does not reach {} as the settings do", shards.join(", ")), SYNC));
    }
    let hidden = |definition: Option<&str>| definition.is_some_and(|definition| definition.contains("row security"));
    let shown = first.tables().filter(|table| map.place(table).is_some() && !hidden(first.relation(table)));
    for table in shown {
        let types = |shape: &Shape| -> Vec<(String, String)> {
            // Defaults and keys are the shards' own.
            let bare = |definition: &str| {
                let end =
                    [" NOT NULL", " DEFAULT ", " GENERATED ", " COLLATE "].iter().filter_map(|word| definition.find(word)).min();
                definition[..end.unwrap_or(definition.len())].to_owned()
            };
            shape.of_table("column", table).map(|(name, definition)| (name.to_owned(), bare(definition))).collect()
        };
        let name = full_name(table);
        if own.relation(table).is_none() {
            findings.push(Finding::problem(format!("the coordinator does not show table {name}"), SYNC));
        } else if types(first) != types(own) {
            findings.push(Finding::problem(
                format!("the coordinator shows table {name} with other columns than the shards have"),
                SYNC,
            ));
        }
    }
    findings
}

/// A query of the coordinator that reads something of each shard: the shard's name, and the query.
pub fn reach_queries(first: &Shape, map: &ShardMap) -> Vec<(String, String)> {
    let sharded = first.tables().find(|table| matches!(map.place(table), Some(TablePlace::Sharded(_))));
    let query =
        |shard: &String| Some((shard.clone(), format!("SELECT 1 FROM {} LIMIT 1", layout::foreign_table(shard, sharded?))));
    map.shards.iter().filter_map(query).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspection::shape::ShapeItem;
    use crate::shard::QualifiedName;

    fn shape(locale: &str, columns: &[(&str, &str, &str)]) -> Shape {
        let name = |table: &str| QualifiedName { schema: "public".into(), name: table.into() };
        let none = QualifiedName { schema: String::new(), name: String::new() };
        let mut shape = Shape::default();
        shape.items.insert(ShapeItem { table: none, kind: "locale".into(), name: String::new() }, locale.into());
        for (table, column, definition) in columns {
            let relation = ShapeItem { table: name(table), kind: "relation".into(), name: String::new() };
            shape.items.insert(relation, "table".into());
            let column = ShapeItem { table: name(table), kind: "column".into(), name: (*column).into() };
            shape.items.insert(column, (*definition).into());
        }
        shape
    }

    #[test]
    fn coordinators() {
        let map = ShardMap { shards: vec!["s0".into()], unlisted: Some(TablePlace::Reference), ..ShardMap::default() };
        let server = ShardServer {
            name: "s0".into(),
            hosts: vec![("a".into(), 5432), ("b".into(), 5433)],
            database: "shop".into(),
            ssl_mode: "prefer",
            user: "u".into(),
            password: None,
        };
        let servers = |host: &str| vec![["pgyard_s0", host, "5432,5433", "shop"].map(|text| Some(text.to_owned())).to_vec()];
        let check = |own: &Shape, servers: &[ReadRow], expect: &[&str]| {
            let first = shape("UTF8 C C", &[("t", "a", "text NOT NULL DEFAULT 'x'::text")]);
            let found = judge(&first, own, servers, std::slice::from_ref(&server), &map);
            assert_eq!(found.len(), expect.len(), "{found:?}");
            found.iter().zip(expect).for_each(|(finding, part)| assert!(finding.says.contains(part), "{part}: {finding}"));
        };
        let good = shape("UTF8 C C", &[("t", "a", "text")]);
        check(&good, &servers("a,b"), &[]);
        check(&good, &servers("a"), &["does not reach s0"]);
        check(&good, &[], &["does not reach s0"]);
        check(&shape("UTF8 C C", &[]), &servers("a,b"), &["does not show table public.t"]);
        check(&shape("UTF8 C C", &[("t", "a", "integer")]), &servers("a,b"), &["table public.t with other columns"]);
        check(&shape("UTF8 de_DE de_DE", &[("t", "a", "text")]), &servers("a,b"), &["encoding and locale UTF8 de_DE"]);
        assert_eq!(reach_queries(&good, &map), []);
    }
}
