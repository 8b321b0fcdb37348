//! Reads over several shards: concatenated, or finished by one shard over what all of them answered.

use super::merge::SortedRows;
use super::own_types::portable;
use super::partial_rows::{PartialRows, TEXT, TEXT_ARRAY, described_types};
use super::planning::BoundParameters;
use super::session::ShardedSession;
use super::several::Question;
use super::trouble::Trouble;
use crate::plan::{Combine, Finish, FinishPiece, GatherPlan, Partial, RowCount};
use crate::types::SqlState;
use crate::wire::frame::{HEADER_LEN, header, put_message, put_string};
use crate::wire::reply::Report;

/// Rows that wait for a slow client before the shards have to wait too. Bytes.
const UNSENT_MAX: usize = 64 * 1024;

/// Which of the rows that come are shown.
#[derive(Debug)]
struct RowWindow {
    skip: u64,
    left: u64,
    shown: u64,
}

impl ShardedSession {
    /// Answers a statement from several shards; how many rows it has.
    pub(super) async fn gather(&mut self, question: Question<'_>, plan: &GatherPlan) -> Result<u64, Trouble> {
        match &plan.combine {
            Combine::Concat { offset, limit } => {
                let window = RowWindow {
                    skip: row_count(offset, question.parameters)?.unwrap_or(0),
                    left: row_count(limit, question.parameters)?.unwrap_or(u64::MAX),
                    shown: 0,
                };
                self.database.metrics.gathered.increment();
                let Some(partial) = plan.partials.first() else { return Ok(0) };
                let shards = self.shards_of(partial, question.parameters);
                self.ask_all(&shards, &partial.sql, question, question.results).await?;
                let outcome = self.concatenate(&shards, question, window).await;
                self.all_or_none(&shards, outcome).await
            }
            Combine::Merge { otherwise: Some(otherwise), .. } => Box::pin(self.gather(question, otherwise)).await,
            Combine::Merge { keys, hidden, offset, limit, otherwise: None } => {
                self.database.metrics.gathered.increment();
                let Some(partial) = plan.partials.first() else { return Ok(0) };
                let (offset, limit) = (row_count(offset, question.parameters)?, row_count(limit, question.parameters)?);
                let wanted = SortedRows { partial, keys, hidden: *hidden, offset: offset.unwrap_or(0), limit };
                self.sort_on_a_shard(question, wanted).await
            }
            Combine::Finish(finish) => {
                self.database.metrics.finished.increment();
                self.finish_over(question, &plan.partials, finish).await
            }
        }
    }

    /// The shards that a partial is asked of.
    pub(super) fn shards_of(&mut self, partial: &Partial, parameters: Option<BoundParameters<'_>>) -> Vec<usize> {
        if partial.one_is_enough {
            return vec![self.any_shard()];
        }
        let set = self.resolve(&partial.shards, parameters);
        // A condition that no row can meet: one shard says what an empty answer is like.
        if set.is_empty() { vec![self.any_shard()] } else { set.iter().collect() }
    }

    /// Asks shards the same; they work at once.
    pub(super) async fn ask_all(
        &mut self,
        shards: &[usize],
        sql: &str,
        question: Question<'_>,
        results: &[i16],
    ) -> Result<(), Trouble> {
        for &shard in shards {
            self.enter(shard, question.writes()).await?;
        }
        for &shard in shards {
            self.put_question(shard, sql, question.parameters, results);
        }
        Ok(())
    }

    /// Appends a statement to a leg's requests: parsed, bound, described and executed.
    pub(super) fn put_question(&mut self, shard: usize, sql: &str, parameters: Option<BoundParameters<'_>>, results: &[i16]) {
        let portable = parameters.and_then(|parameters| portable(sql, parameters));
        let portable = portable.as_ref().map(|(types, values)| BoundParameters { types, values });
        let (types, values) = portable.or(parameters).map_or((&[][..], &[][..]), |sent| (sent.types, sent.values));
        let mut out = Vec::new();
        put_message(&mut out, b'P', |body| {
            body.push(0);
            put_string(body, sql.as_bytes());
            body.extend_from_slice(&(types.len() as u16).to_be_bytes());
            types.iter().for_each(|oid| body.extend_from_slice(&oid.to_be_bytes()));
        });
        put_message(&mut out, b'B', |body| {
            body.extend_from_slice(&[0, 0]);
            body.extend_from_slice(&(values.len() as u16).to_be_bytes());
            values.iter().for_each(|(_, binary)| body.extend_from_slice(&u16::from(*binary).to_be_bytes()));
            body.extend_from_slice(&(values.len() as u16).to_be_bytes());
            values.iter().for_each(|(value, _)| put_value(body, value.as_deref()));
            body.extend_from_slice(&(results.len() as u16).to_be_bytes());
            results.iter().for_each(|format| body.extend_from_slice(&format.to_be_bytes()));
        });
        put_message(&mut out, b'D', |body| body.extend_from_slice(b"P\0"));
        put_message(&mut out, b'E', |body| body.extend_from_slice(&[0; 5]));
        put_message(&mut out, b'S', |_| {});
        let leg = self.leg(shard);
        leg.statements.remove(&b""[..]);
        leg.send(&out);
    }

    /// Passes on the rows of one shard after the other.
    async fn concatenate(&mut self, shards: &[usize], question: Question<'_>, mut window: RowWindow) -> Result<u64, Trouble> {
        for (place, &shard) in shards.iter().enumerate() {
            let describes = question.describes && place == 0;
            while self.legs[shard].as_ref().is_some_and(|leg| leg.due > 0) {
                self.wait_for(&[shard]).await?;
                self.pass_rows(shard, describes, &mut window)?;
                self.room_for_rows().await?;
            }
        }
        Ok(window.shown)
    }

    /// Passes on what has come of a shard's rows.
    fn pass_rows(&mut self, shard: usize, describes: bool, window: &mut RowWindow) -> Result<(), Trouble> {
        let outbox = &mut self.client.client.outbox;
        let Some(leg) = self.legs[shard].as_mut() else { return Ok(()) };
        let bytes = leg.inbox.as_slice();
        let (mut at, mut status) = (0, None);
        while let Ok(Some(found)) = header(&bytes[at..]) {
            let Some(message) = bytes.get(at..at + found.total) else { break };
            at += found.total;
            match found.tag {
                b'D' if window.skip > 0 => window.skip -= 1,
                b'D' if window.left > 0 => {
                    window.left -= 1;
                    window.shown += 1;
                    outbox.push(message);
                }
                b'T' if describes => outbox.push(message),
                b'N' | b'A' => outbox.push(message),
                b'E' => {
                    let message = message.to_vec();
                    leg.inbox.consume(at);
                    return Err(Trouble::Failed(message));
                }
                b'Z' => {
                    status = message.get(HEADER_LEN).copied();
                    break;
                }
                _ => {}
            }
        }
        leg.inbox.consume(at);
        if let Some(status) = status {
            leg.ready(status);
        }
        Ok(())
    }

    /// Waits until the client has taken most of what was said to it.
    ///
    /// # Errors
    /// Its connection ended; or rows are held for it, and they are too many.
    pub(super) async fn room_for_rows(&mut self) -> Result<(), Trouble> {
        if self.holding {
            let held = self.side().outbox.len();
            return self.within_memory(held);
        }
        if self.side().outbox.len() < UNSENT_MAX {
            return Ok(());
        }
        std::future::poll_fn(|cx| {
            if let Err(end) = self.poll_flush(cx).and_then(|()| self.look_at_client(cx)) {
                return std::task::Poll::Ready(Err(Trouble::End(end)));
            }
            if self.side().outbox.len() < UNSENT_MAX { std::task::Poll::Ready(Ok(())) } else { std::task::Poll::Pending }
        })
        .await
    }

    pub(super) fn within_memory(&self, bytes: usize) -> Result<(), Trouble> {
        let limit = self.gather_memory();
        if bytes <= limit {
            return Ok(());
        }
        let message = format!("the rows of several shards that a statement needs at once take more than {limit} bytes");
        let report = Report::error(SqlState::PROGRAM_LIMIT_EXCEEDED, message);
        Err(report.hint("Raise gather_memory, or have the statement need fewer rows.").into())
    }

    /// After a failure on one shard the others' work is of no use: it is cancelled, and what they still say is dropped.
    pub(super) async fn all_or_none<T>(&mut self, shards: &[usize], outcome: Result<T, Trouble>) -> Result<T, Trouble> {
        let trouble = match outcome {
            Ok(value) => return Ok(value),
            Err(Trouble::End(end)) => return Err(Trouble::End(end)),
            Err(trouble) => trouble,
        };
        for &shard in shards {
            let Some(leg) = self.legs[shard].as_ref().filter(|leg| leg.due > 0) else { continue };
            let entry = leg.entry.clone();
            // One that has ended meanwhile is not hurt by it.
            let _ = entry.cancel().await;
        }
        for &shard in shards {
            if let Err(Trouble::End(end)) = self.finish(shard, false).await {
                return Err(Trouble::End(end));
            }
        }
        Err(trouble)
    }

    /// Brings the partial rows together and has one shard finish over them.
    async fn finish_over(&mut self, question: Question<'_>, partials: &[Partial], finish: &Finish) -> Result<u64, Trouble> {
        let mut brought = Vec::new();
        let mut bytes = 0;
        for partial in partials {
            let shards = self.shards_of(partial, question.parameters);
            self.ask_all(&shards, &partial.sql, question, &[]).await?;
            let outcome = self.bring(&shards, &mut bytes).await;
            let mut rows = self.all_or_none(&shards, outcome).await?;
            self.in_terms_of_the_schema(&mut rows, (shards[0], &partial.sql), question.parameters).await?;
            brought.push(rows);
        }
        let (sql, arrays) = self.finishing_query(question, finish, &brought)?;
        let parameters = question.parameters;
        let mut types: Vec<u32> = parameters.map(|parameters| parameters.types.to_vec()).unwrap_or_default();
        let mut values: Vec<(Option<Vec<u8>>, bool)> =
            parameters.map(|parameters| parameters.values.to_vec()).unwrap_or_default();
        for array in arrays {
            types.push(TEXT_ARRAY);
            values.push((Some(array), true));
        }
        drop(brought);
        self.finishing_answer(question, &sql, BoundParameters { types: &types, values: &values }).await
    }

    /// Has one shard answer a query of pgyard's own over what was brought.
    pub(super) async fn finishing_answer(
        &mut self,
        question: Question<'_>,
        sql: &str,
        parameters: BoundParameters<'_>,
    ) -> Result<u64, Trouble> {
        let shard = self.any_shard();
        self.enter(shard, question.writes()).await?;
        self.put_question(shard, sql, Some(parameters), question.results);
        let window = RowWindow { skip: 0, left: u64::MAX, shown: 0 };
        let outcome = self.concatenate(&[shard], question, window).await;
        self.all_or_none(&[shard], outcome).await
    }

    /// The rows of a gathered answer, as text, instead of telling them to the client.
    pub(super) async fn gathered_rows(&mut self, question: Question<'_>, plan: &GatherPlan) -> Result<PartialRows, Trouble> {
        let question = Question { results: &[], describes: true, ..question };
        let begin = self.side().outbox.len();
        let held = std::mem::replace(&mut self.holding, true);
        let outcome = self.gather(question, plan).await;
        self.holding = held;
        let outbox = &mut self.client.client.outbox;
        let all = outbox.as_slice().to_vec();
        outbox.clear();
        let (before, mut rest) = all.split_at(begin.min(all.len()));
        outbox.push(before);
        outcome?;
        let mut rows = PartialRows::default();
        while let Ok(Some(frame)) = crate::wire::frame_at(rest) {
            match frame.tag {
                b'D' => rows.add(frame.body),
                b'T' => rows.description = frame.body.to_vec(),
                _ => outbox.push(&rest[..frame.total]),
            }
            rest = &rest[frame.total..];
        }
        Ok(rows)
    }

    /// Takes all rows of some shards.
    pub(super) async fn bring(&mut self, shards: &[usize], bytes: &mut usize) -> Result<PartialRows, Trouble> {
        let mut rows = PartialRows::default();
        for &shard in shards {
            while self.legs[shard].as_ref().is_some_and(|leg| leg.due > 0) {
                let (tag, body) = self.take(shard).await?;
                match tag {
                    b'D' => {
                        *bytes += body.len();
                        self.within_memory(*bytes)?;
                        rows.add(&body);
                    }
                    b'T' if rows.description.is_empty() => rows.description = body,
                    b'E' => {
                        let mut message = Vec::new();
                        put_message(&mut message, tag, |out| out.extend_from_slice(&body));
                        return Err(Trouble::Failed(message));
                    }
                    b'N' => put_message(self.side().outbox.writer(), tag, |out| out.extend_from_slice(&body)),
                    _ => {}
                }
            }
        }
        Ok(rows)
    }

    /// The finishing query's text, and the arrays that it gets beside the statement's own parameters.
    fn finishing_query(
        &self,
        question: Question<'_>,
        finish: &Finish,
        brought: &[PartialRows],
    ) -> Result<(String, Vec<Vec<u8>>), Trouble> {
        let mut sql = String::new();
        let mut arrays: Vec<Vec<u8>> = Vec::new();
        let own = question.parameters.map_or(0, |parameters| parameters.types.len());
        let mut places: std::collections::HashMap<usize, usize> = std::collections::HashMap::new();
        for piece in &finish.pieces {
            match piece {
                FinishPiece::Sql(text) => sql.push_str(text),
                FinishPiece::Type { partial, column } => {
                    let types = brought.get(*partial).map(|rows| described_types(&rows.description)).unwrap_or_default();
                    let (oid, modifier) = types.get(*column).copied().unwrap_or((TEXT, -1));
                    sql.push_str(&self.type_name(oid, modifier)?);
                }
                FinishPiece::Rows { partial, columns, collations } => {
                    let Some(rows) = brought.get(*partial) else { continue };
                    let first = *places.entry(*partial).or_insert_with(|| {
                        let first = own + arrays.len() + 1;
                        arrays.extend(rows.arrays());
                        first
                    });
                    sql.push_str(&self.rows_source(rows, first, columns, collations)?);
                }
            }
        }
        Ok((sql, arrays))
    }

    /// The rows of a partial as a subquery; its first array is the parameter `first`.
    pub(super) fn rows_source(
        &self,
        rows: &PartialRows,
        first: usize,
        columns: &[String],
        collations: &[Option<String>],
    ) -> Result<String, Trouble> {
        let types = described_types(&rows.description);
        if types.is_empty() {
            return Ok(format!("(SELECT FROM pg_catalog.unnest(${first}::pg_catalog.text[]))"));
        }
        let mut shown = Vec::new();
        for (place, (oid, modifier)) in types.iter().enumerate() {
            let kind = self.type_name(*oid, *modifier)?;
            let collation =
                collations.get(place).and_then(Option::as_ref).map(|name| format!(" COLLATE {name}")).unwrap_or_default();
            let alias = columns.get(place).map(|name| format!(" AS {name}")).unwrap_or_default();
            shown.push(format!("CAST(c{place} AS {kind}){collation}{alias}"));
        }
        let arrays: Vec<String> =
            (0..types.len()).map(|place| format!("pg_catalog.unnest(${}::pg_catalog.text[])", first + place)).collect();
        let names: Vec<String> = (0..types.len()).map(|place| format!("c{place}")).collect();
        Ok(format!("(SELECT {} FROM ROWS FROM ({}) AS u({}))", shown.join(", "), arrays.join(", "), names.join(", ")))
    }
}

fn put_value(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(value) => {
            out.extend_from_slice(&(value.len() as u32).to_be_bytes());
            out.extend_from_slice(value);
        }
        None => out.extend_from_slice(&(-1_i32).to_be_bytes()),
    }
}

/// A LIMIT or OFFSET; `None` is none.
fn row_count(count: &RowCount, parameters: Option<BoundParameters<'_>>) -> Result<Option<u64>, Trouble> {
    let number = match count {
        RowCount::None => return Ok(None),
        RowCount::Number(number) => return Ok(Some(*number)),
        RowCount::Parameter(number) => *number,
    };
    let value = parameters.and_then(|parameters| parameters.values.get(number.wrapping_sub(1)));
    let Some((Some(value), binary)) = value else { return Ok(None) };
    let read = match (binary, value.len()) {
        (true, 8) => <[u8; 8]>::try_from(&value[..]).ok().map(i64::from_be_bytes),
        (true, 4) => <[u8; 4]>::try_from(&value[..]).ok().map(i32::from_be_bytes).map(i64::from),
        (true, _) => None,
        (false, _) => std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok()),
    };
    match read {
        // The shards refuse a negative one in PostgreSQL's words.
        Some(number) => Ok(Some(u64::try_from(number).unwrap_or(0))),
        None => {
            Err(Trouble::error(SqlState::FEATURE_NOT_SUPPORTED, "LIMIT or OFFSET has a parameter that can't be read as a number"))
        }
    }
}
