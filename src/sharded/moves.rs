//! An UPDATE that changes keys: rows that belong to another shard afterwards move there, within one transaction.
//!
//! First all rows are locked and read, on every shard; then those that stay are changed, those that leave are deleted, and at last they are
//! inserted: so no statement sees a row twice, and keys that are exchanged do not meet.

use super::gather::WHOLE_ANSWER;
use super::partial_rows::{PartialRows, described_types};
use super::session::ShardedSession;
use super::several::Question;
use super::trouble::Trouble;
use super::write::{BATCH_ROWS, PartAnswer};
use crate::plan::MovePlan;
use crate::types::SqlState;
use std::collections::BTreeMap;

/// The rows of one shard.
#[derive(Default)]
struct Sorted {
    /// Those that stay: table and place.
    stay: Vec<(String, String)>,
    /// Those that leave.
    leave: Vec<(String, String)>,
}

impl ShardedSession {
    /// Carries it out; its command tag.
    pub(super) async fn move_rows(&mut self, question: Question<'_>, plan: &MovePlan) -> Result<String, Trouble> {
        let mut shards: Vec<usize> = self.resolve(&plan.shards, question.parameters).iter().collect();
        if shards.is_empty() {
            shards.push(self.any_shard());
        }
        let (sorted, arrivals) = self.sort_rows(question, plan, &shards).await?;
        // Also where no row stays: what PostgreSQL has against the statement itself is said by it.
        let change = |(shard, rows): &(usize, Sorted)| (*shard, named(&plan.update.0, &plan.called, &rows.stay, &plan.update.1));
        let mut answers = self.parts(&sorted.iter().map(change).collect::<Vec<_>>(), question).await?;
        let plain = Question { parameters: None, ..question };
        let leaving = sorted.iter().filter(|(_, rows)| !rows.leave.is_empty());
        let deletions: Vec<(usize, String)> =
            leaving.clone().map(|(shard, rows)| (*shard, named(&plan.delete, &plan.called, &rows.leave, ""))).collect();
        let deleted: u64 = self.parts(&deletions, Question { results: &[], ..plain }).await?.iter().map(PartAnswer::count).sum();
        let expected: usize = leaving.map(|(_, rows)| rows.leave.len()).sum();
        if deleted != expected as u64 {
            return Err(Trouble::error(SqlState::INTERNAL_ERROR, "a row that is locked could not be deleted"));
        }
        let mut arrivals = arrivals;
        while arrivals.values().any(|rows| !rows.is_empty()) {
            let batch = |(shard, rows): (&usize, &mut Vec<String>)| {
                let some: Vec<String> = rows.drain(..rows.len().min(BATCH_ROWS)).collect();
                (!some.is_empty()).then(|| (*shard, format!("{}{}{}", plan.insert.head, some.join(", "), plan.insert.tail)))
            };
            let parts: Vec<(usize, String)> = arrivals.iter_mut().filter_map(batch).collect();
            answers.extend(self.parts(&parts, plain).await?);
        }
        self.show(question, &answers);
        Ok(format!("UPDATE {}", answers.iter().map(PartAnswer::count).sum::<u64>()))
    }

    /// Locks and reads the rows, and sorts them by where they belong: which stay and leave on each shard, and what arrives at which.
    async fn sort_rows(
        &mut self,
        question: Question<'_>,
        plan: &MovePlan,
        shards: &[usize],
    ) -> Result<(Vec<(usize, Sorted)>, BTreeMap<usize, Vec<String>>), Trouble> {
        for &shard in shards {
            self.enter(shard, true).await?;
        }
        for &shard in shards {
            self.put_question(shard, &plan.select, (question.parameters, &[]), WHOLE_ANSWER);
        }
        let mut read = Vec::new();
        let mut bytes = 0;
        for &shard in shards {
            let mut rows = PartialRows::default();
            let answer = self.answer((shard, shards), &mut bytes, |row| rows.add(&row)).await;
            rows.description = self.all_or_none(shards, answer).await?.description.unwrap_or_default();
            read.push((shard, rows));
        }
        let own = plan.insert.key_columns.iter().max().map_or(0, |last| last + 1);
        let (mut sorted, mut arrivals) = (Vec::new(), BTreeMap::<usize, Vec<String>>::new());
        for (shard, mut rows) in read {
            self.in_terms_of_the_schema(&mut rows, (shard, &plan.select), question.parameters).await?;
            let types: Vec<u32> = described_types(&rows.description).into_iter().map(|(oid, _)| oid).collect();
            let mut here = Sorted::default();
            let texts = self.row_texts(&rows, own)?;
            for (row, text) in rows.rows().iter().zip(texts) {
                let part = |place: usize| {
                    row.get(place).and_then(Option::as_deref).map(String::from_utf8_lossy).unwrap_or_default().into_owned()
                };
                let target = self.shard_of_values(&plan.insert, row, &types)?;
                if target == shard {
                    here.stay.push((part(0), part(1)));
                } else {
                    here.leave.push((part(0), part(1)));
                    arrivals.entry(target).or_default().push(text);
                }
            }
            sorted.push((shard, here));
        }
        Ok((sorted, arrivals))
    }
}

/// A statement about some rows, by their places. The same place may be taken in several partitions.
fn named(before: &str, called: &str, rows: &[(String, String)], behind: &str) -> String {
    let places: Vec<String> = rows.iter().map(|(_, place)| format!("\"{place}\"")).collect();
    let condition = format!("{called}.ctid = ANY ('{{{}}}'::pg_catalog.tid[])", places.join(","));
    let pairs: Vec<String> =
        rows.iter().map(|(table, place)| format!("({table}::pg_catalog.oid, '{place}'::pg_catalog.tid)")).collect();
    let both = match pairs.as_slice() {
        [] => String::new(),
        pairs => format!(" AND ({called}.tableoid, {called}.ctid) IN ({})", pairs.join(", ")),
    };
    format!("{before}{condition}{both}{behind}")
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn rows_are_named_by_their_places() {
        assert_eq!(named("DELETE FROM t WHERE ", "t", &[], ""), "DELETE FROM t WHERE t.ctid = ANY ('{}'::pg_catalog.tid[])");
        let rows = [("7".to_owned(), "(0,1)".to_owned())];
        assert_eq!(
            named("UPDATE t AS x SET k = 1 WHERE (a = 2) AND ", "x", &rows, " RETURNING *"),
            "UPDATE t AS x SET k = 1 WHERE (a = 2) AND x.ctid = ANY ('{\"(0,1)\"}'::pg_catalog.tid[]) \
             AND (x.tableoid, x.ctid) IN ((7::pg_catalog.oid, '(0,1)'::pg_catalog.tid)) RETURNING *"
        );
    }
}
