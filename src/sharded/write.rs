//! Writes on several shards. Each runs in a transaction on every shard that it touches; the caller ends it.

use super::answers::ShardAnswer;
use super::gather::WHOLE_ANSWER;
use super::partial_rows::{PartialRows, described_types};
use super::session::ShardedSession;
use super::several::Question;
use super::trouble::Trouble;
use crate::gather::cut_description;
use crate::plan::{Plan, SplitInsert, WritePlan};
use crate::server::parameters::quote_literal;
use crate::types::SqlState;
use crate::wire::frame::put_message;
use std::collections::BTreeMap;

/// Rows of one INSERT that pgyard itself writes.
pub(super) const BATCH_ROWS: usize = 500;

/// What one shard answered to its part of a write.
#[derive(Debug, Default)]
pub(super) struct PartAnswer {
    description: Option<Vec<u8>>,
    rows: Vec<Vec<u8>>,
    tag: String,
}

impl PartAnswer {
    /// How many rows its tag says.
    pub(super) fn count(&self) -> u64 {
        self.tag.rsplit_once(' ').and_then(|(_, count)| count.parse().ok()).unwrap_or_default()
    }
}

impl ShardedSession {
    /// Carries a write out; its command tag.
    pub(super) async fn write(&mut self, question: Question<'_>, plan: &WritePlan) -> Result<String, Trouble> {
        match plan {
            WritePlan::Each { shards } => {
                let mut shards: Vec<usize> = self.resolve(shards, question.parameters).iter().collect();
                if shards.is_empty() {
                    shards.push(self.any_shard());
                }
                let answers = self
                    .parts(&shards.iter().map(|shard| (*shard, question.sql.to_owned())).collect::<Vec<_>>(), question)
                    .await?;
                self.show(question, &answers);
                Ok(summed(&answers))
            }
            WritePlan::Copies => {
                let parts: Vec<(usize, String)> =
                    (0..self.map.shards.len()).map(|shard| (shard, question.sql.to_owned())).collect();
                let answers = self.parts(&parts, question).await?;
                if answers.iter().any(|answer| answer.tag != answers[0].tag) {
                    let message =
                        "the shards' copies of a reference table are not alike: a statement changed different numbers of rows";
                    return Err(Trouble::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message));
                }
                self.show(question, &answers[..1]);
                Ok(summed(&answers[..1]))
            }
            WritePlan::FirstThenCopy { returning, table, columns } => {
                self.first_then_copy(question, returning, table, columns).await
            }
            WritePlan::Split(insert) => self.split(question, insert).await,
            WritePlan::InsertRows { select, select_sql, insert } => {
                self.insert_rows(question, (select.as_ref(), select_sql), insert).await
            }
            WritePlan::Move(plan) => self.move_rows(question, plan).await,
        }
    }

    /// Runs a text on each of some shards; their answers in the same order.
    pub(super) async fn parts(&mut self, parts: &[(usize, String)], question: Question<'_>) -> Result<Vec<PartAnswer>, Trouble> {
        let shards: Vec<usize> = parts.iter().map(|(shard, _)| *shard).collect();
        for &shard in &shards {
            self.enter(shard, true).await?;
        }
        for (shard, sql) in parts {
            self.put_question(*shard, sql, (question.parameters, question.results), WHOLE_ANSWER);
        }
        let mut answers = Vec::new();
        let mut bytes = 0;
        for &shard in &shards {
            let mut rows = Vec::new();
            let answer = self.answer((shard, &shards), &mut bytes, |row| rows.push(row)).await;
            let ShardAnswer { description, tag } = self.all_or_none(&shards, answer).await?;
            answers.push(PartAnswer { description, rows, tag });
        }
        Ok(answers)
    }

    pub(super) fn show(&mut self, question: Question<'_>, answers: &[PartAnswer]) {
        self.describe_once(question, answers.first());
        let out = self.side().outbox.writer();
        answers.iter().flat_map(|answer| &answer.rows).for_each(|row| put_message(out, b'D', |body| body.extend_from_slice(row)));
    }

    fn describe_once(&mut self, question: Question<'_>, answer: Option<&PartAnswer>) {
        if question.describes
            && let Some(description) = answer.and_then(|answer| answer.description.as_ref())
        {
            put_message(self.side().outbox.writer(), b'T', |body| body.extend_from_slice(description));
        }
    }

    /// An INSERT of several rows: each goes to the shard of its key.
    async fn split(&mut self, question: Question<'_>, insert: &SplitInsert) -> Result<String, Trouble> {
        // In the order of their first rows: of several errors the first is shown.
        let mut places: Vec<(usize, Vec<usize>)> = Vec::new();
        for (row, key) in insert.keys.iter().enumerate() {
            let shard = self.shard_of_row(insert, key, question.parameters)?;
            match places.iter_mut().find(|(place, _)| *place == shard) {
                Some((_, rows)) => rows.push(row),
                None => places.push((shard, vec![row])),
            }
        }
        let part = |rows: &Vec<usize>| {
            let texts: Vec<&str> = rows.iter().filter_map(|row| insert.rows.get(*row)).map(String::as_str).collect();
            format!("{}{}{}", insert.head, texts.join(", "), insert.tail)
        };
        let parts: Vec<(usize, String)> = places.iter().map(|(shard, rows)| (*shard, part(rows))).collect();
        let answers = self.parts(&parts, question).await?;
        let in_order = insert.returns && answers.iter().zip(&places).all(|(answer, (_, rows))| answer.rows.len() == rows.len());
        if in_order {
            self.describe_once(question, answers.first());
            let mut rows: BTreeMap<usize, &Vec<u8>> = BTreeMap::new();
            for (answer, (_, places)) in answers.iter().zip(&places) {
                rows.extend(places.iter().copied().zip(&answer.rows));
            }
            let out = self.side().outbox.writer();
            rows.values().for_each(|row| put_message(out, b'D', |body| body.extend_from_slice(row)));
        } else {
            self.show(question, &answers);
        }
        Ok(summed(&answers))
    }

    /// A row of a reference table whose defaults could differ from shard to shard: the first makes it, the others get a copy.
    async fn first_then_copy(
        &mut self,
        question: Question<'_>,
        returning: &str,
        table: &str,
        columns: &[String],
    ) -> Result<String, Trouble> {
        if question.results.contains(&1) {
            let message = "rows of RETURNING can't be had in binary format from a reference table whose defaults are computed";
            return Err(Trouble::error(SqlState::FEATURE_NOT_SUPPORTED, message));
        }
        self.enter(0, true).await?;
        self.put_question(0, returning, (question.parameters, &[]), WHOLE_ANSWER);
        let made = self.bring(&[0], &mut 0).await?;
        let head = format!("INSERT INTO {table} ({}) OVERRIDING SYSTEM VALUE VALUES ", columns.join(", "));
        // The client's own RETURNING stands before the columns that are copied.
        let shown = described_types(&made.description).len().saturating_sub(columns.len());
        let texts = self.row_texts(&made, shown)?;
        for batch in texts.chunks(BATCH_ROWS) {
            let sql = format!("{head}{}", batch.join(", "));
            let others: Vec<usize> = (1..self.map.shards.len()).collect();
            for &shard in &others {
                self.enter(shard, true).await?;
                self.leg(shard).query(&sql);
            }
            for &shard in &others {
                let answer = self.finish(shard, false).await.and_then(|answer| answer.check());
                self.all_or_none(&others, answer).await?;
            }
        }
        if shown > 0 {
            self.show_first_columns(question, &made, shown)?;
        }
        Ok(format!("INSERT 0 {}", made.count))
    }

    /// Shows the first columns of rows that were read as text.
    fn show_first_columns(&mut self, question: Question<'_>, rows: &PartialRows, shown: usize) -> Result<(), Trouble> {
        let malformed = |_| Trouble::error(SqlState::PROTOCOL_VIOLATION, "a shard sent a malformed row");
        let message = |tag: u8, body: &[u8]| {
            let mut bytes = Vec::new();
            put_message(&mut bytes, tag, |out| out.extend_from_slice(body));
            bytes::BytesMut::from(&bytes[..])
        };
        if question.describes {
            let hidden = described_types(&rows.description).len() - shown;
            let mut description = message(b'T', &rows.description);
            cut_description(&mut description, hidden).map_err(malformed)?;
            self.side().outbox.push(&description);
        }
        for row in rows.rows() {
            put_message(self.side().outbox.writer(), b'D', |out| {
                out.extend_from_slice(&(shown as u16).to_be_bytes());
                for value in &row[..shown.min(row.len())] {
                    let length = value.as_ref().map_or(-1, |value| value.len() as i32);
                    out.extend_from_slice(&length.to_be_bytes());
                    out.extend_from_slice(value.as_deref().unwrap_or_default());
                }
            });
        }
        Ok(())
    }

    /// `INSERT ... SELECT`: the rows are read, and each goes to the shard of its key.
    async fn insert_rows(
        &mut self,
        question: Question<'_>,
        (select, select_sql): (&Plan, &str),
        insert: &SplitInsert,
    ) -> Result<String, Trouble> {
        let read = self.read_all(question, select, select_sql).await?;
        let texts = self.row_texts(&read, 0)?;
        let types: Vec<u32> = described_types(&read.description).into_iter().map(|(oid, _)| oid).collect();
        let mut places: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (row, text) in read.rows().iter().zip(texts) {
            let shard = self.shard_of_values(insert, row, &types)?;
            places.entry(shard).or_default().push(text);
        }
        let mut all = Vec::new();
        let plain = Question { parameters: None, ..question };
        while places.values().any(|rows| !rows.is_empty()) {
            let batch = |(shard, rows): (&usize, &mut Vec<String>)| {
                let some: Vec<String> = rows.drain(..rows.len().min(BATCH_ROWS)).collect();
                (!some.is_empty()).then(|| (*shard, format!("{}{}{}", insert.head, some.join(", "), insert.tail)))
            };
            let parts: Vec<(usize, String)> = places.iter_mut().filter_map(batch).collect();
            all.extend(self.parts(&parts, plain).await?);
        }
        self.show(question, &all);
        Ok(if all.is_empty() { "INSERT 0 0".to_owned() } else { summed(&all) })
    }

    /// All rows of a SELECT, as text.
    async fn read_all(&mut self, question: Question<'_>, select: &Plan, sql: &str) -> Result<PartialRows, Trouble> {
        let (shards, sql) = match select {
            Plan::Anywhere => (vec![self.any_shard()], sql),
            Plan::Confined { shards, several } => {
                let set = self.resolve(shards, question.parameters);
                match set.only() {
                    Some(shard) => (vec![shard], sql),
                    None if set.is_empty() => return Ok(PartialRows::default()),
                    None => return Box::pin(self.read_all(question, several, sql)).await,
                }
            }
            Plan::Gather(gather) => {
                let mut rows = self.gathered_rows(question, gather).await?;
                self.in_terms_of_the_schema(&mut rows, (usize::MAX, sql), question.parameters).await?;
                return Ok(rows);
            }
            _ => return Err(Trouble::error(SqlState::FEATURE_NOT_SUPPORTED, "the rows of this SELECT can't be read exactly")),
        };
        self.ask_all(&shards, sql, question, &[]).await?;
        let mut rows = self.bring(&shards, &mut 0).await?;
        self.in_terms_of_the_schema(&mut rows, (shards[0], sql), question.parameters).await?;
        Ok(rows)
    }

    /// Rows as the texts of a VALUES list, each value with its type, without the first columns.
    pub(super) fn row_texts(&self, rows: &PartialRows, without: usize) -> Result<Vec<String>, Trouble> {
        let types: Vec<String> = described_types(&rows.description)
            .iter()
            .skip(without)
            .map(|(oid, modifier)| self.type_name(*oid, *modifier))
            .collect::<Result<_, _>>()?;
        let value = |(value, kind): (&Option<Vec<u8>>, &String)| match value {
            None => format!("CAST(NULL AS {kind})"),
            Some(text) => format!("CAST({} AS {kind})", quote_literal(&String::from_utf8_lossy(text))),
        };
        let text = |row: &Vec<Option<Vec<u8>>>| {
            format!("({})", row.iter().skip(without).zip(&types).map(value).collect::<Vec<_>>().join(", "))
        };
        Ok(rows.rows().iter().map(text).collect())
    }
}

/// The tag of several parts: the same words, and the sum of their counts.
fn summed(answers: &[PartAnswer]) -> String {
    let split = |tag: &str| tag.rsplit_once(' ').and_then(|(words, count)| Some((words.to_owned(), count.parse::<u64>().ok()?)));
    let counts: Option<Vec<(String, u64)>> = answers.iter().map(|answer| split(&answer.tag)).collect();
    match counts.as_deref() {
        Some([first, ..]) => format!("{} {}", first.0, counts.iter().flatten().map(|(_, count)| count).sum::<u64>()),
        _ => answers.first().map(|answer| answer.tag.clone()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_added() {
        let check = |tags: &[&str], expect: &str| {
            let answers: Vec<PartAnswer> =
                tags.iter().map(|tag| PartAnswer { tag: (*tag).to_owned(), ..PartAnswer::default() }).collect();
            assert_eq!(summed(&answers), expect);
        };
        check(&["INSERT 0 2", "INSERT 0 3"], "INSERT 0 5");
        check(&["UPDATE 0"], "UPDATE 0");
        check(&["TRUNCATE TABLE", "TRUNCATE TABLE"], "TRUNCATE TABLE");
        check(&[], "");
    }
}
