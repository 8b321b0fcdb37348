//! Reads the shards' sequences and gives them steps by which they do not meet.

use super::stride::{SequenceFacts, SequenceName, first_values, overlap, quote_column, quoted, restart, set_step};
use super::unique_id::unique_id_script;
use crate::server::parameters::quote_literal;
use crate::shard::{QualifiedName, ShardMap, TablePlace};
use std::collections::BTreeMap;
use tokio_postgres::{Client, SimpleQueryMessage};

/// Sequences with the columns that take their values from them: identity columns, and defaults that call `nextval`. Columns: the sequence's
/// schema and name, the table's, the column.
pub const SEQUENCES_QUERY: &str = "
SELECT sn.nspname, s.relname, tn.nspname, t.relname, a.attname
  FROM pg_catalog.pg_class s JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace
  JOIN (SELECT d.objid AS sequence, d.refobjid AS relation, d.refobjsubid AS number FROM pg_catalog.pg_depend d
         WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'i' AND d.refobjsubid > 0
        UNION
        SELECT d.refobjid, f.adrelid, f.adnum FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attrdef f ON f.oid = d.objid
         WHERE d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass) u ON u.sequence = s.oid
  JOIN pg_catalog.pg_class t ON t.oid = u.relation JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum = u.number
 WHERE s.relkind = 'S' AND t.relkind IN ('r', 'p') AND t.relpersistence <> 't'
 ORDER BY 1, 2, 3, 4, 5";

/// Why the sequences are as they were.
#[derive(Debug, thiserror::Error)]
pub enum SequenceError {
    /// A shard refuses a statement.
    #[error("shard {shard} refuses `{statement}`")]
    Shard {
        /// Its name.
        shard: String,
        /// The statement.
        statement: String,
        /// What it says.
        source: tokio_postgres::Error,
    },
    /// A shard that was not committed with the others: the sequences of those before it have their steps.
    #[error("shard {shard} did not commit; run the command again")]
    Commit {
        /// Its name.
        shard: String,
        /// What it says.
        source: tokio_postgres::Error,
    },
}

/// What is to be done, or was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SequencePlan {
    /// For each shard in the map's order, its statements.
    pub statements: Vec<Vec<String>>,
    /// Sequences that are left alone, with the reason.
    pub left: Vec<String>,
    /// Sequences that can't meet as they are.
    pub fine: usize,
}

/// Gives the sequences of sharded tables steps by which they do not meet, and installs `pgyard.unique_id()`: in one transaction on each shard,
/// in which nobody gets a value. With `dry` nothing is kept: the statements are those that would be run now.
///
/// # Errors
/// See [`SequenceError`].
pub async fn arrange(shards: &[(&str, &Client)], map: &ShardMap, dry: bool) -> Result<SequencePlan, SequenceError> {
    let mut begun = 0;
    let outcome = async {
        for (name, client) in shards {
            run(name, client, "BEGIN; SET LOCAL lock_timeout = '10s'; SET LOCAL search_path = pg_catalog").await?;
            begun += 1;
        }
        work(shards, map, dry).await
    }
    .await;
    let keep = outcome.is_ok() && !dry;
    for (name, client) in &shards[..begun] {
        match client.batch_execute(if keep { "COMMIT" } else { "ROLLBACK" }).await {
            Err(source) if keep => return Err(SequenceError::Commit { shard: (*name).to_owned(), source }),
            _ => {}
        }
    }
    outcome
}

async fn work(shards: &[(&str, &Client)], map: &ShardMap, dry: bool) -> Result<SequencePlan, SequenceError> {
    let mut plan = SequencePlan { statements: vec![Vec::new(); shards.len()], ..SequencePlan::default() };
    let Some((first_name, first)) = shards.first() else { return Ok(plan) };
    let sequences = names(&rows(first_name, first, SEQUENCES_QUERY).await?, map);
    for (number, (name, client)) in shards.iter().enumerate() {
        let script = unique_id_script(number);
        if !dry {
            run(name, client, &script).await?;
        }
        plan.statements[number].push(script);
    }
    for sequence in &sequences {
        let before = facts_of(shards, sequence).await?;
        let name = format!("{}.{}", sequence.sequence.schema, sequence.sequence.name);
        let settled = before.iter().enumerate().all(|(place, one)| before[..place].iter().all(|two| !overlap(one, two)));
        if settled {
            plan.fine += 1;
            continue;
        }
        if before.iter().any(|facts| facts.cycles || facts.increment < 0) {
            plan.left.push(format!("{name} cycles or counts downwards: give its shards ranges of their own"));
            continue;
        }
        if !dry {
            // From here to the end of the transactions nobody gets a value.
            for (shard, client) in shards {
                run(shard, client, &set_step(&sequence.sequence, shards.len())).await?;
            }
        }
        let mut highest = 0;
        let mut max = i64::MAX;
        for ((shard, client), facts) in shards.iter().zip(facts_of(shards, sequence).await?) {
            highest = highest.max(facts.last);
            max = max.min(facts.max);
            for (table, column) in &sequence.columns {
                let sql = format!("SELECT coalesce(max({}), 0)::bigint FROM {}", quote_column(column), quoted(table));
                let found = rows(shard, client, &sql).await?;
                highest = highest.max(found.first().and_then(|row| row.first()?.parse().ok()).unwrap_or(0));
            }
        }
        let Some(values) = first_values(shards.len(), highest, max) else {
            plan.left.push(format!("{name} has no room left beyond {highest}: make its column a bigint"));
            continue;
        };
        for (number, ((shard, client), value)) in shards.iter().zip(values).enumerate() {
            let statement = restart(&sequence.sequence, shards.len(), value);
            if !dry {
                run(shard, client, &statement).await?;
            }
            plan.statements[number].push(statement);
        }
    }
    Ok(plan)
}

/// The sequences of sharded tables.
pub fn names(rows: &[Vec<String>], map: &ShardMap) -> Vec<SequenceName> {
    let mut found: BTreeMap<QualifiedName, Vec<(QualifiedName, String)>> = BTreeMap::new();
    for row in rows {
        let [schema, name, table_schema, table, column] = row.as_slice() else { continue };
        let table = QualifiedName { schema: table_schema.clone(), name: table.clone() };
        if matches!(map.place(&table), Some(TablePlace::Sharded(_))) {
            let sequence = QualifiedName { schema: schema.clone(), name: name.clone() };
            found.entry(sequence).or_default().push((table, column.clone()));
        }
    }
    found.into_iter().map(|(sequence, columns)| SequenceName { sequence, columns }).collect()
}

/// Reads a sequence. One row.
pub fn facts_query(sequence: &QualifiedName) -> String {
    format!(
        "SELECT v.last_value, v.is_called, s.seqincrement, s.seqmin, s.seqmax, s.seqcycle FROM {0} v, pg_catalog.pg_sequence s \
         WHERE s.seqrelid = {1}::pg_catalog.regclass",
        quoted(sequence),
        quote_literal(&quoted(sequence))
    )
}

/// From the row of [`facts_query`].
pub fn read_facts(row: &[String]) -> Option<SequenceFacts> {
    let number = |place: usize| row.get(place)?.parse().ok();
    let flag = |place: usize| row.get(place).map(|text| text == "t");
    Some(SequenceFacts {
        last: number(0)?,
        called: flag(1)?,
        increment: number(2)?,
        min: number(3)?,
        max: number(4)?,
        cycles: flag(5)?,
    })
}

/// A sequence on each shard.
async fn facts_of(shards: &[(&str, &Client)], sequence: &SequenceName) -> Result<Vec<SequenceFacts>, SequenceError> {
    let mut all = Vec::new();
    for (name, client) in shards {
        let found = rows(name, client, &facts_query(&sequence.sequence)).await?;
        all.extend(found.first().and_then(|row| read_facts(row)));
    }
    Ok(all)
}

async fn run(shard: &str, client: &Client, statement: &str) -> Result<(), SequenceError> {
    let refused = |source| SequenceError::Shard { shard: shard.to_owned(), statement: statement.to_owned(), source };
    client.batch_execute(statement).await.map_err(refused)
}

async fn rows(shard: &str, client: &Client, query: &str) -> Result<Vec<Vec<String>>, SequenceError> {
    let refused = |source| SequenceError::Shard { shard: shard.to_owned(), statement: query.to_owned(), source };
    let messages = client.simple_query(query).await.map_err(refused)?;
    let text = |message: SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|place| row.get(place).unwrap_or_default().to_owned()).collect()),
        _ => None,
    };
    Ok(messages.into_iter().filter_map(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{Scheme, ShardedTable};
    use std::sync::Arc;

    #[test]
    fn sequences_of_sharded_tables() {
        let name = |name: &str| QualifiedName { schema: "public".into(), name: name.into() };
        let sharded = |table: &str| {
            let scheme = Scheme::Hash { shards: 3 };
            TablePlace::Sharded(Arc::new(ShardedTable {
                table: name(table),
                key: vec!["k".into()],
                group: 0,
                types: None,
                scheme,
            }))
        };
        let tables = [(name("t"), sharded("t")), (name("u"), sharded("u")), (name("r"), TablePlace::Reference)];
        let map = ShardMap { shards: vec!["s0".into()], tables: tables.into(), unlisted: None };
        let row = |sequence: &str, table: &str| ["public", sequence, "public", table, "id"].map(str::to_owned).to_vec();
        let found = names(&[row("a", "t"), row("b", "r"), row("a", "u"), row("c", "gone")], &map);
        assert_eq!(
            found,
            [SequenceName { sequence: name("a"), columns: vec![(name("t"), "id".into()), (name("u"), "id".into())] }]
        );
    }

    #[test]
    fn facts_are_read() {
        let row = |parts: [&str; 6]| parts.map(str::to_owned).to_vec();
        let facts = read_facts(&row(["7", "t", "3", "1", "100", "f"])).unwrap();
        assert_eq!((facts.next(), facts.increment, facts.cycles), (Some(10), 3, false));
        assert_eq!(read_facts(&row(["x", "t", "3", "1", "100", "f"])), None);
        let sequence = QualifiedName { schema: "a'b".into(), name: "c".into() };
        assert!(facts_query(&sequence).contains("'\"a''b\".\"c\"'::pg_catalog.regclass"));
    }
}
