//! Rows: copies that are not alike, and rows on a shard that is not theirs.

use super::finding::Finding;
use super::map::full_name;
use super::read::ReadRow;
use crate::coordinator::layout::{quote_name, quote_table};
use crate::shard::{KeyColumn, KeySession, KeyValue, QualifiedName, ShardedTable};
use std::collections::BTreeMap;

/// Rows of a sharded table that are looked at on each shard.
pub const SAMPLE_ROWS: usize = 1000;

/// Counts a table's rows and adds up hashes of them, whatever their order.
pub fn copy_query(table: &QualifiedName) -> String {
    format!("SELECT count(*), coalesce(sum(hashtextextended(CAST(t.* AS text), 0)::numeric), 0) FROM {} AS t", quote_table(table))
}

/// Reads some keys of a sharded table.
pub fn sample_query(table: &ShardedTable) -> String {
    let key: Vec<String> = table.key.iter().map(|column| quote_name(column)).collect();
    format!("SELECT {} FROM {} LIMIT {SAMPLE_ROWS}", key.join(", "), quote_table(&table.table))
}

/// What each shard has of a reference table: rows, and the sum of their hashes.
pub fn judge_copies(table: &QualifiedName, copies: &[(&str, (u64, String))]) -> Option<Finding> {
    let mut counts: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    copies.iter().for_each(|(shard, (rows, _))| counts.entry(*rows).or_default().push(shard));
    let name = full_name(table);
    let advice = "choose the right one, and copy it to the others";
    if counts.len() > 1 {
        let parts: Vec<String> = counts.iter().map(|(rows, shards)| format!("{rows} on {}", shards.join(", "))).collect();
        return Some(Finding::problem(
            format!("reference table {name} has not the same rows everywhere: {}", parts.join("; ")),
            advice,
        ));
    }
    let mut sums: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    copies.iter().for_each(|(shard, (_, sum))| sums.entry(sum).or_default().push(shard));
    (sums.len() > 1).then(|| {
        let groups: Vec<String> = sums.values().map(|shards| shards.join(", ")).collect();
        Finding::problem(format!("reference table {name} has as many rows, but others, on {}", groups.join(" than on ")), advice)
    })
}

/// Where a sharded table's rows should be, of some that one shard has. `shards` are the names in the map's order.
pub fn judge_sample(
    (table, columns): (&ShardedTable, &[KeyColumn]),
    shards: &[String],
    shard: usize,
    rows: &[ReadRow],
    session: KeySession,
) -> Option<Finding> {
    let own = |row: &ReadRow| -> Option<Vec<KeyValue>> {
        columns.iter().zip(row).map(|(column, text)| column.copied_text(text.as_deref().map(str::as_bytes), session)).collect()
    };
    let mut strangers: BTreeMap<Option<usize>, usize> = BTreeMap::new();
    for key in rows.iter().filter_map(own) {
        let place = table.shard_of(&key);
        if place != Some(shard) {
            *strangers.entry(place).or_default() += 1;
        }
    }
    if strangers.is_empty() {
        return None;
    }
    let name = |place: usize| shards.get(place).map_or("?", String::as_str);
    let parts: Vec<String> = strangers
        .iter()
        .map(|(place, count)| place.map_or(format!("{count} to none"), |place| format!("{count} to {}", name(place))))
        .collect();
    Some(Finding::problem(
        format!(
            "of {} rows of {} looked at on {}, some belong elsewhere by the settings: {}",
            rows.len(),
            full_name(&table.table),
            name(shard),
            parts.join(", ")
        ),
        "the shards' order and scheme must be those that the rows were spread by; move what is left over",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{KeyType, Scheme};

    #[test]
    fn copies_are_compared() {
        let table = QualifiedName { schema: "public".into(), name: "t".into() };
        let check = |copies: &[(&str, u64, &str)], expect: Option<&str>| {
            let copies: Vec<_> = copies.iter().map(|(shard, rows, sum)| (*shard, (*rows, (*sum).to_owned()))).collect();
            let found = judge_copies(&table, &copies).map(|finding| finding.says);
            assert_eq!(found.as_deref(), expect);
        };
        check(&[("s0", 2, "7"), ("s1", 2, "7")], None);
        let counts = "reference table public.t has not the same rows everywhere: 2 on s0, s2; 3 on s1";
        check(&[("s0", 2, "7"), ("s1", 3, "7"), ("s2", 2, "7")], Some(counts));
        let others = "reference table public.t has as many rows, but others, on s0 than on s1";
        check(&[("s0", 2, "7"), ("s1", 2, "8")], Some(others));
    }

    #[test]
    fn rows_in_the_wrong_place() {
        let table = ShardedTable {
            table: QualifiedName { schema: "public".into(), name: "t".into() },
            key: vec!["id".into()],
            group: 0,
            types: None,
            scheme: Scheme::Hash { shards: 2 },
        };
        let shards = ["s0".to_owned(), "s1".to_owned()];
        let session = KeySession::new("UTC", "UTF8", "UTF8");
        let columns = [KeyColumn::from(KeyType::Int8)];
        let rows: Vec<ReadRow> = (1..=20).map(|id: i64| vec![Some(id.to_string())]).collect();
        let at_home = |shard: usize| {
            let home = |row: &&ReadRow| {
                let id: i64 = row[0].as_deref().unwrap().parse().unwrap();
                table.shard_of(&[KeyValue::Integer(id)]) == Some(shard)
            };
            rows.iter().filter(home).cloned().collect::<Vec<_>>()
        };
        assert_eq!(judge_sample((&table, &columns), &shards, 0, &at_home(0), session), None);
        let strangers = at_home(1).len();
        let found = judge_sample((&table, &columns), &shards, 0, &rows, session).unwrap();
        assert!(
            found.says.contains("of 20 rows of public.t looked at on s0") && found.says.ends_with(&format!("{strangers} to s1")),
            "{found}"
        );
    }
}
