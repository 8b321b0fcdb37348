//! Reads over several shards: each shard's rows as they come, or finished by one shard over what all of them answered.

use super::own_types::portable;
use super::partial_rows::{PartialRows, TEXT, TEXT_ARRAY, described_types};
use super::planning::BoundParameters;
use super::session::ShardedSession;
use super::several::Question;
use super::stream::{RowStream, StreamOrder, StreamSource};
use super::trouble::Trouble;
use crate::gather::RowWindow;
use crate::plan::{Combine, Finish, FinishPiece, GatherPlan, Partial, RowCount};
use crate::types::SqlState;
use crate::wire::frame::{HEADER_LEN, put_message, put_string};
use crate::wire::reply::Report;

/// The portal that a shard's rows are fetched through, and how many of them at first.
#[derive(Clone, Copy, Debug)]
pub(super) struct LegPortal<'a> {
    /// Its name on the legs; empty: the unnamed one.
    pub name: &'a str,
    /// Rows of the first Execute; 0 is all.
    pub rows: u32,
}

/// The unnamed portal, for all rows at once.
pub(super) const WHOLE_ANSWER: LegPortal<'static> = LegPortal { name: "", rows: 0 };

impl ShardedSession {
    /// Answers a statement from several shards; how many rows it has.
    pub(super) async fn gather(&mut self, question: Question<'_>, plan: &GatherPlan) -> Result<u64, Trouble> {
        let mut stream = self.start(question, plan, WHOLE_ANSWER).await?;
        self.show_all(&mut stream).await?;
        Ok(stream.shown())
    }

    /// Asks the shards, and where their rows have to be finished, one of them over these: what is shown comes out of the stream.
    pub(super) async fn start(
        &mut self,
        question: Question<'_>,
        plan: &GatherPlan,
        portal: LegPortal<'_>,
    ) -> Result<RowStream, Trouble> {
        match &plan.combine {
            Combine::Concat { offset, limit } => {
                self.database.metrics.gathered.increment();
                let window = window(offset, limit, false, question.parameters)?;
                let Some(partial) = plan.partials.first() else { return Ok(RowStream::nothing()) };
                let shards = self.shards_of(partial, question.parameters);
                let (parameters, results) = (question.parameters, question.results);
                let order = StreamOrder::default();
                let source = StreamSource { shards, sql: &partial.sql, parameters, results, order, window };
                self.stream_of(question, source, portal).await
            }
            Combine::Merge { .. } => self.start_merge(question, plan, portal).await,
            Combine::Finish(finish) => {
                self.database.metrics.finished.increment();
                self.finish_over(question, &plan.partials, finish, portal).await
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
            self.put_question(shard, sql, (question.parameters, results), WHOLE_ANSWER);
        }
        Ok(())
    }

    /// Appends a statement to a leg's requests: parsed, bound, described and executed.
    pub(super) fn put_question(
        &mut self,
        shard: usize,
        sql: &str,
        (parameters, results): (Option<BoundParameters<'_>>, &[i16]),
        portal: LegPortal<'_>,
    ) {
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
            put_string(body, portal.name.as_bytes());
            body.push(0);
            body.extend_from_slice(&(values.len() as u16).to_be_bytes());
            values.iter().for_each(|(_, binary)| body.extend_from_slice(&u16::from(*binary).to_be_bytes()));
            body.extend_from_slice(&(values.len() as u16).to_be_bytes());
            values.iter().for_each(|(value, _)| put_value(body, value.as_deref()));
            body.extend_from_slice(&(results.len() as u16).to_be_bytes());
            results.iter().for_each(|format| body.extend_from_slice(&format.to_be_bytes()));
        });
        put_message(&mut out, b'D', |body| {
            body.push(b'P');
            put_string(body, portal.name.as_bytes());
        });
        put_execute(&mut out, portal);
        let leg = self.leg(shard);
        leg.statements.remove(&b""[..]);
        leg.send(&out);
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

    /// Brings the partial rows together and has one shard finish over them.
    async fn finish_over(
        &mut self,
        question: Question<'_>,
        partials: &[Partial],
        finish: &Finish,
        portal: LegPortal<'_>,
    ) -> Result<RowStream, Trouble> {
        let mut brought = Vec::new();
        let mut bytes = 0;
        for partial in partials {
            let shards = self.shards_of(partial, question.parameters);
            self.ask_all(&shards, &partial.sql, question, &[]).await?;
            let mut rows = self.bring(&shards, &mut bytes).await?;
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
        self.finishing_answer(question, &sql, BoundParameters { types: &types, values: &values }, portal).await
    }

    /// Has one shard answer a query of pgyard's own over what was brought.
    pub(super) async fn finishing_answer(
        &mut self,
        question: Question<'_>,
        sql: &str,
        parameters: BoundParameters<'_>,
        portal: LegPortal<'_>,
    ) -> Result<RowStream, Trouble> {
        let shard = self.any_shard();
        // Its columns have names of pgyard's own.
        let description = match question.describes {
            true => {
                let types = question.parameters.map_or(&[][..], |parameters| parameters.types);
                self.description_of(shard, question.sql, types).await?.map(Into::into)
            }
            false => None,
        };
        let (shards, order, window) = (vec![shard], StreamOrder::default(), RowWindow::new(0, None, false));
        let source = StreamSource { shards, sql, parameters: Some(parameters), results: question.results, order, window };
        let mut stream = self.stream_of(question, source, portal).await?;
        stream.show_as(description);
        Ok(stream)
    }

    /// The rows of a gathered answer, as text, instead of telling them to the client.
    pub(super) async fn gathered_rows(&mut self, question: Question<'_>, plan: &GatherPlan) -> Result<PartialRows, Trouble> {
        let question = Question { results: &[], describes: false, ..question };
        let mut stream = self.start(question, plan, WHOLE_ANSWER).await?;
        let mut rows = PartialRows::default();
        let mut bytes = 0;
        while let Some(row) = self.next_row(&mut stream).await? {
            bytes += row.len();
            let held = self.within_memory(bytes);
            self.all_or_none(stream.shards(), held).await?;
            rows.add(&row[HEADER_LEN..]);
        }
        rows.description = stream.description().to_vec();
        Ok(rows)
    }

    /// Takes all rows of some shards that were asked. An error of one ends all.
    pub(super) async fn bring(&mut self, shards: &[usize], bytes: &mut usize) -> Result<PartialRows, Trouble> {
        let mut rows = PartialRows::default();
        for &shard in shards {
            let answer = self.answer((shard, shards), bytes, |row| rows.add(&row)).await;
            let answer = self.all_or_none(shards, answer).await?;
            if rows.description.is_empty() {
                rows.description = answer.description.unwrap_or_default();
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

/// Appends an Execute of a portal and a Sync.
pub(super) fn put_execute(out: &mut Vec<u8>, portal: LegPortal<'_>) {
    put_message(out, b'E', |body| {
        put_string(body, portal.name.as_bytes());
        body.extend_from_slice(&portal.rows.to_be_bytes());
    });
    put_message(out, b'S', |_| {});
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

/// OFFSET and LIMIT with the parameters' values.
///
/// # Errors
/// One is negative, which is PostgreSQL's error; or it can't be read.
pub(super) fn window(
    offset: &RowCount,
    limit: &RowCount,
    ties: bool,
    parameters: Option<BoundParameters<'_>>,
) -> Result<RowWindow, Trouble> {
    // Spec: recompute_limits in nodeLimit.c looks at OFFSET first.
    let offset = row_count(offset, parameters, (*b"2201X", "OFFSET must not be negative"))?;
    let limit = row_count(limit, parameters, (*b"2201W", "LIMIT must not be negative"))?;
    Ok(RowWindow::new(offset.unwrap_or(0), limit, ties))
}

/// A LIMIT or OFFSET; `None` is none.
fn row_count(
    count: &RowCount,
    parameters: Option<BoundParameters<'_>>,
    (state, negative): ([u8; 5], &str),
) -> Result<Option<u64>, Trouble> {
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
        (true, 2) => <[u8; 2]>::try_from(&value[..]).ok().map(i16::from_be_bytes).map(i64::from),
        (true, _) => None,
        (false, _) => std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok()),
    };
    match read {
        Some(number) => u64::try_from(number).map(Some).map_err(|_| Trouble::error(SqlState(state), negative)),
        None => {
            Err(Trouble::error(SqlState::FEATURE_NOT_SUPPORTED, "LIMIT or OFFSET has a parameter that can't be read as a number"))
        }
    }
}
