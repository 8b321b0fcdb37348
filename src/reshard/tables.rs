//! The tables of a flow: what the source has, where the rows go, and whether they can.

use super::error::ReshardError;
use super::pgoutput::StreamValue;
use super::side::{ReshardSide, ShardLink, identifier};
use super::split::RowRoute;
use crate::shard::{KeyColumn, KeyType, QualifiedName, ShardSet, TablePlace};
use std::collections::BTreeMap;

/// One row for each column that has a value of its own, of each table that holds rows for good.
const COLUMNS: &str = "
SELECT n.nspname, c.relname, c.relkind, c.relreplident, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
       CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END, a.atttypmod, a.attidentity = 'a',
       coalesce(a.attnum = ANY (p.indkey::pg_catalog.int2[]), false), coalesce(a.attnum = ANY (i.indkey::pg_catalog.int2[]), false)
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_index p ON p.indrelid = c.oid AND p.indisprimary
  LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid
        AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident)
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p' AND c.oid >= 16384
   AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgyard')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY 1, 2, a.attnum";

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReshardColumn {
    /// Its name.
    pub name: String,
    /// Its type in words.
    pub type_name: String,
    /// The number of its type, or of the one that its domain stands on.
    pub type_oid: u32,
    /// Its length or precision.
    pub typmod: i32,
    /// Its value is always generated, and can't be set by an UPDATE.
    pub always_generated: bool,
    in_primary: bool,
    in_identity: bool,
}

/// How a row is found on a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableIdentity {
    /// By these columns, by their places.
    Columns(Vec<usize>),
    /// By all that it has.
    Whole,
}

/// A table that a flow copies.
#[derive(Clone, Debug)]
pub struct ReshardTable {
    /// Its name.
    pub name: QualifiedName,
    /// Its columns in the source's order, without generated ones.
    pub columns: Vec<ReshardColumn>,
    /// How a row is found.
    pub identity: TableIdentity,
    /// It has partitions.
    pub partitioned: bool,
    /// The source's shards that its rows come from.
    pub from: ShardSet,
    /// Where its rows go.
    pub route: RowRoute,
}

/// A table as one server describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct FoundTable {
    partitioned: bool,
    whole_identity: bool,
    columns: Vec<ReshardColumn>,
}

impl ReshardTable {
    /// Its name in SQL.
    pub fn sql_name(&self) -> String {
        sql_name(&self.name)
    }

    /// Its columns in SQL.
    pub fn column_list(&self) -> String {
        self.columns.iter().map(|column| identifier(&column.name)).collect::<Vec<_>>().join(", ")
    }

    /// Where its own rows are read.
    pub fn rows_of(&self) -> String {
        format!("{}{}", if self.partitioned { "" } else { "ONLY " }, self.sql_name())
    }

    /// The columns that tell one row from another.
    pub fn identity_list(&self) -> String {
        match &self.identity {
            TableIdentity::Columns(places) => {
                places.iter().map(|place| identifier(&self.columns[*place].name)).collect::<Vec<_>>().join(", ")
            }
            TableIdentity::Whole => self.column_list(),
        }
    }

    /// Whether an UPDATE can't make the new row of the old one: a value differs that can't be set.
    pub fn must_replace(&self, old: &[StreamValue], new: &[StreamValue]) -> bool {
        let places = self.columns.iter().zip(old.iter().zip(new));
        places.into_iter().any(|(column, (old, new))| column.always_generated && *old != StreamValue::Null && old != new)
    }
}

/// A table's name in SQL.
pub fn sql_name(name: &QualifiedName) -> String {
    format!("{}.{}", identifier(&name.schema), identifier(&name.name))
}

async fn read(link: &ShardLink) -> Result<BTreeMap<QualifiedName, FoundTable>, ReshardError> {
    let mut tables: BTreeMap<QualifiedName, FoundTable> = BTreeMap::new();
    for row in link.rows(COLUMNS).await? {
        let text = |place: usize| row.get(place).cloned().flatten().unwrap_or_default();
        let table = tables.entry(QualifiedName { schema: text(0), name: text(1) }).or_default();
        table.partitioned = text(2) == "p";
        table.whole_identity = text(3) == "f";
        table.columns.push(ReshardColumn {
            name: text(4),
            type_name: text(5),
            type_oid: text(6).parse().unwrap_or_default(),
            typmod: text(7).parse().unwrap_or(-1),
            always_generated: text(8) == "t",
            in_primary: text(9) == "t",
            in_identity: text(10) == "t",
        });
    }
    Ok(tables)
}

/// Reads the tables of the source, and checks that they can be moved: every problem at once.
///
/// # Errors
/// A server can't be asked, or there are problems.
pub async fn plan(
    (from, sources): (&ReshardSide, &[ShardLink]),
    (to, targets): (&ReshardSide, &[ShardLink]),
) -> Result<Vec<ReshardTable>, ReshardError> {
    let Some(first) = sources.first() else { return Err(ReshardError::Refused(format!("database {} has no shards", from.name))) };
    let found = read(first).await?;
    let mut problems = Vec::new();
    for link in sources.iter().skip(1).chain(targets) {
        let other = read(link).await?;
        for (name, table) in &found {
            problems.extend(difference(name, table, other.get(name), &link.shard));
        }
    }
    let mut tables = Vec::new();
    for (name, table) in found {
        match planned(&name, table, from, to) {
            Ok(table) => tables.push(table),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        return Ok(tables);
    }
    problems.dedup();
    Err(ReshardError::Refused(format!("{} can't be moved to {} as it is\n{}", from.name, to.name, problems.join("\n"))))
}

fn difference(name: &QualifiedName, table: &FoundTable, other: Option<&FoundTable>, shard: &str) -> Option<String> {
    let shown = format!("{}.{}", name.schema, name.name);
    let Some(other) = other else {
        return Some(format!("{shard} has no table {shown}: make the schema there first, as pg_dump --schema-only writes it"));
    };
    let described = |table: &FoundTable| {
        let mut columns: Vec<(String, String)> =
            table.columns.iter().map(|column| (column.name.clone(), column.type_name.clone())).collect();
        columns.sort();
        columns
    };
    (described(table) != described(other)).then(|| format!("{shard}: table {shown} has other columns than on the source"))
}

fn planned(name: &QualifiedName, table: FoundTable, from: &ReshardSide, to: &ReshardSide) -> Result<ReshardTable, String> {
    let shown = format!("{}.{}", name.schema, name.name);
    let unknown = |side: &ReshardSide| format!("the configuration of {} does not say where table {shown} is", side.name);
    let source = from.map.place(name).ok_or_else(|| unknown(from))?;
    let target = to.map.place(name).ok_or_else(|| unknown(to))?;
    let places = |want: fn(&ReshardColumn) -> bool| -> Vec<usize> {
        table.columns.iter().enumerate().filter(|(_, column)| want(column)).map(|(place, _)| place).collect()
    };
    let (primary, own) = (places(|column| column.in_primary), places(|column| column.in_identity));
    let identity = match (table.whole_identity, primary.is_empty(), own.is_empty()) {
        (true, false, _) => TableIdentity::Columns(primary),
        (true, true, _) => TableIdentity::Whole,
        (false, _, false) => TableIdentity::Columns(own.clone()),
        (false, _, true) => {
            return Err(format!(
                "table {shown} has no replica identity, so that its UPDATEs would fail: give it a primary key, or ALTER TABLE {shown} REPLICA IDENTITY FULL"
            ));
        }
    };
    let mut key = Vec::new();
    if let TablePlace::Sharded(sharded) = target {
        for column in &sharded.key {
            key.push(key_column(&table, column, &shown)?);
        }
        let types: Vec<KeyColumn> = key.iter().map(|(_, column)| *column).collect();
        if !sharded.accepts(&types) {
            return Err(format!("the key of table {shown} is of another type than the configuration of {} says", to.name));
        }
        if !table.whole_identity && key.iter().any(|(place, _)| !own.contains(place)) {
            return Err(format!(
                "the replica identity of table {shown} lacks its key, so that the shard of a deleted row can't be told: ALTER TABLE {shown} REPLICA IDENTITY FULL"
            ));
        }
    }
    let from = match source {
        TablePlace::Sharded(_) => from.map.all(),
        TablePlace::Reference => ShardSet::one(0),
        TablePlace::Single(shard) => ShardSet::one(*shard),
    };
    let route = RowRoute::of(target, &to.map, key);
    let FoundTable { partitioned, columns, .. } = table;
    Ok(ReshardTable { name: name.clone(), columns, identity, partitioned, from, route })
}

fn key_column(table: &FoundTable, column: &str, shown: &str) -> Result<(usize, KeyColumn), String> {
    let Some(place) = table.columns.iter().position(|known| known.name == column) else {
        return Err(format!("table {shown} has no column {column}, which the configuration names as its key"));
    };
    let found = &table.columns[place];
    let Some(kind) = KeyType::from_oid(found.type_oid) else {
        return Err(format!("table {shown} can't be spread by {column}: it is of type {}", found.type_name));
    };
    Ok((place, KeyColumn { kind, typmod: found.typmod }))
}

#[cfg(test)]
pub(super) mod fixtures {
    use super::*;

    /// A table with columns of type text.
    pub(in crate::reshard) fn table(columns: &[&str], identity: TableIdentity) -> ReshardTable {
        let name = QualifiedName { schema: "public".into(), name: "t".into() };
        let columns = columns.iter().map(|name| column(name, false)).collect();
        ReshardTable {
            name,
            columns,
            identity,
            partitioned: false,
            from: ShardSet::one(0),
            route: RowRoute::To(ShardSet::one(0)),
        }
    }

    pub(super) fn column(name: &str, key: bool) -> ReshardColumn {
        ReshardColumn {
            name: name.to_owned(),
            type_name: "text".into(),
            type_oid: 25,
            typmod: -1,
            always_generated: false,
            in_primary: key,
            in_identity: key,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::column;
    use super::*;
    use crate::shard::{Scheme, ShardMap, ShardedTable};
    use std::sync::Arc;

    fn name() -> QualifiedName {
        QualifiedName { schema: "public".into(), name: "t".into() }
    }

    fn side(shards: usize, place: Option<TablePlace>) -> ReshardSide {
        let shards = (0..shards).map(|shard| format!("s{shard}")).collect();
        let tables = place.into_iter().map(|place| (name(), place)).collect();
        let map = Arc::new(ShardMap { shards, tables, unlisted: None });
        ReshardSide { name: "side".into(), map, shards: Vec::new() }
    }

    fn sharded(key: &str) -> TablePlace {
        let scheme = Scheme::Hash { shards: 3 };
        TablePlace::Sharded(Arc::new(ShardedTable { table: name(), key: vec![key.into()], group: 0, types: None, scheme }))
    }

    fn found(columns: &[(&str, bool)]) -> FoundTable {
        let columns = columns.iter().map(|(name, key)| column(name, *key)).collect();
        FoundTable { columns, ..FoundTable::default() }
    }

    #[test]
    fn tables_are_planned() {
        let plan = |table, from, to| planned(&name(), table, &side(2, from), &side(3, to));
        let table = plan(found(&[("id", true), ("v", false)]), Some(sharded("id")), Some(sharded("id"))).unwrap();
        assert_eq!((table.from, &table.identity), (ShardSet::all(2), &TableIdentity::Columns(vec![0])));
        assert_eq!(table.route.key_places(), [0]);
        let table = plan(found(&[("id", true)]), Some(TablePlace::Reference), Some(TablePlace::Reference)).unwrap();
        assert_eq!(table.from, ShardSet::one(0), "every shard has the same rows: one copy is enough");
        let whole = FoundTable { whole_identity: true, ..found(&[("id", false), ("v", false)]) };
        let table = plan(whole, Some(TablePlace::Single(1)), Some(sharded("v"))).unwrap();
        assert_eq!((table.from, table.identity), (ShardSet::one(1), TableIdentity::Whole));
    }

    #[test]
    fn what_cannot_be_moved_is_told() {
        let check = |table, from, to, expect: &str| {
            let problem = planned(&name(), table, &side(1, from), &side(3, to)).unwrap_err();
            assert!(problem.contains(expect), "{problem}");
        };
        let (one, key) = (Some(TablePlace::Single(0)), Some(sharded("v")));
        check(found(&[("id", true)]), None, key.clone(), "does not say where");
        check(found(&[("id", true)]), one.clone(), None, "does not say where");
        check(found(&[("v", false)]), one.clone(), key.clone(), "no replica identity");
        check(found(&[("id", true), ("v", false)]), one.clone(), key.clone(), "lacks its key");
        check(found(&[("id", true)]), one.clone(), key.clone(), "no column v");
        let mut odd = found(&[("v", true)]);
        odd.columns[0].type_oid = 600;
        check(odd, one, key, "can't be spread");
    }

    #[test]
    fn schemas_are_compared() {
        let (one, two) = (found(&[("id", true), ("v", false)]), found(&[("v", false), ("id", true)]));
        assert_eq!(difference(&name(), &one, Some(&two), "s"), None, "the order of columns is nobody's business");
        assert!(difference(&name(), &one, None, "s").unwrap().contains("has no table public.t"));
        assert!(difference(&name(), &one, Some(&found(&[("id", true)])), "s").unwrap().contains("other columns"));
    }
}
