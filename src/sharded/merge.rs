//! Rows of several shards in one order, when pgyard does not sort them itself: one shard sorts what all of them answered.

use super::partial_rows::{PartialRows, TEXT_ARRAY, described_names};
use super::planning::BoundParameters;
use super::session::ShardedSession;
use super::several::Question;
use super::trouble::Trouble;
use crate::plan::{Partial, SortKey};

/// A statement whose rows are to be sorted.
#[derive(Clone, Copy)]
pub struct SortedRows<'a> {
    /// What the shards are asked.
    pub partial: &'a Partial,
    /// The order.
    pub keys: &'a [SortKey],
    /// Columns at the end that are not shown.
    pub hidden: usize,
    /// Rows dropped first.
    pub offset: u64,
    /// Rows shown.
    pub limit: Option<u64>,
}

impl ShardedSession {
    /// Has one shard sort the rows of all.
    pub(super) async fn sort_on_a_shard(&mut self, question: Question<'_>, wanted: SortedRows<'_>) -> Result<u64, Trouble> {
        let shards = self.shards_of(wanted.partial, question.parameters);
        self.ask_all(&shards, &wanted.partial.sql, question, &[]).await?;
        let mut bytes = 0;
        let outcome = self.bring(&shards, &mut bytes).await;
        let mut rows = self.all_or_none(&shards, outcome).await?;
        self.in_terms_of_the_schema(&mut rows, (shards[0], &wanted.partial.sql), question.parameters).await?;
        let sql = self.sorting_query(&rows, wanted)?;
        let arrays = rows.arrays();
        drop(rows);
        let types = vec![TEXT_ARRAY; arrays.len()];
        let values: Vec<(Option<Vec<u8>>, bool)> = arrays.into_iter().map(|array| (Some(array), true)).collect();
        let parameters = BoundParameters { types: &types, values: &values };
        self.finishing_answer(question, &sql, parameters).await
    }

    fn sorting_query(&self, rows: &PartialRows, wanted: SortedRows<'_>) -> Result<String, Trouble> {
        let names = described_names(&rows.description);
        let inner: Vec<String> = (0..names.len()).map(|place| format!("m{place}")).collect();
        let source = self.rows_source(rows, 1, &inner, &[])?;
        let shown = names.iter().take(names.len().saturating_sub(wanted.hidden)).enumerate();
        let shown: Vec<String> = shown.map(|(place, name)| format!("m{place} AS \"{}\"", name.replace('"', "\"\""))).collect();
        let order: Vec<String> = wanted.keys.iter().map(order_item).collect();
        let mut sql = format!("SELECT {} FROM {source} AS r ORDER BY {}", shown.join(", "), order.join(", "));
        if let Some(limit) = wanted.limit {
            sql.push_str(&format!(" LIMIT {limit}"));
        }
        sql.push_str(&format!(" OFFSET {}", wanted.offset));
        Ok(sql)
    }
}

fn order_item(key: &SortKey) -> String {
    let collation = match key.collation.as_deref() {
        None | Some("default") => String::new(),
        Some(name) if name.starts_with('"') => format!(" COLLATE {name}"),
        Some(name) => format!(" COLLATE \"{name}\""),
    };
    let direction = if key.descending { " DESC" } else { "" };
    let nulls = if key.nulls_first { "FIRST" } else { "LAST" };
    format!("m{}{collation}{direction} NULLS {nulls}", key.column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_written_out() {
        let key = SortKey { column: 2, descending: true, nulls_first: false, collation: Some("C".to_owned()) };
        assert_eq!(order_item(&key), "m2 COLLATE \"C\" DESC NULLS LAST");
        let key = SortKey { column: 0, descending: false, nulls_first: true, collation: None };
        assert_eq!(order_item(&key), "m0 NULLS FIRST");
    }
}
