//! COPY FROM STDIN over several shards: each row goes to the shard of its key, or, for a reference table, all of them to every shard.
//!
//! The command goes to the servers as it came, so that they say what is wrong with it, and with the rows. A shard is asked to copy when its
//! first row comes, one of them at once: its answer is the client's. A row whose key can't be read goes nowhere: a server is asked whether the row is
//! wrong, and the COPY fails in any case.

use super::session::ShardedSession;
use super::several::Question;
use super::trouble::{ShardedEnd, Trouble};
use crate::plan::{CopyPlan, CopySplit, key_columns};
use crate::shard::{
    CopyDataError, CopyField, CopyLayout, CopyPart, CopySplitter, KeyColumn, KeySession, LineNumbers, ShardedTable, TablePlace,
    lines_of,
};
use crate::types::SqlState;
use crate::wire::WireError;
use crate::wire::frame::{HEADER_LEN, client_header, put_message, put_string};
use crate::wire::reply::{Report, put_bare};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Data that waits for a slow shard before the client has to wait too. Bytes.
const COPY_AHEAD_MAX: usize = 64 * 1024;

/// Which shards get what.
enum Division {
    /// Each row goes to the shard of its key.
    Rows { splitter: Box<CopySplitter>, layout: CopyLayout, key: RowKey },
    /// All of it goes to every shard.
    Copies,
}

/// How a row's shard is found.
struct RowKey {
    table: Arc<ShardedTable>,
    columns: Vec<KeyColumn>,
    session: KeySession,
    binary: bool,
}

/// A COPY under way.
struct CopyIn<'q> {
    sql: &'q str,
    /// The table as servers name it in the context of errors.
    relation: String,
    division: Division,
    /// The shards that copy.
    targets: BTreeMap<usize, CopyTarget>,
    /// What every shard gets before its first row.
    header: Vec<u8>,
    header_lines: u64,
    /// Lines of the data that were taken apart.
    lines: u64,
    /// The command itself may write, through triggers.
    triggers: bool,
}

/// What is on its way to a shard.
#[derive(Default)]
struct CopyTarget {
    pending: Vec<u8>,
    numbers: LineNumbers,
}

/// What there is to be done next.
enum CopyNews {
    /// A shard has said something.
    Leg(usize),
    /// The client has.
    Client,
}

impl RowKey {
    /// `None`: it can't be read, or no shard takes it.
    fn shard(&self, key: &[CopyField]) -> Option<usize> {
        let value = |(column, field): (&KeyColumn, &CopyField)| match self.binary {
            true => column.copied_binary(field.as_deref(), self.session),
            false => column.copied_text(field.as_deref(), self.session),
        };
        let values: Vec<_> = self.columns.iter().zip(key).map(value).collect::<Option<_>>()?;
        self.table.shard_of(&values)
    }
}

impl CopyIn<'_> {
    /// A shard gets a row.
    fn note(&mut self, shard: usize, row: &[u8], open: bool) {
        let Division::Rows { layout, .. } = &self.division else { return };
        let target = self.targets.entry(shard).or_default();
        let own = lines_of(row, layout, (target.numbers.is_empty(), open));
        let lines = lines_of(row, layout, (self.lines == 0, open));
        target.numbers.note(self.lines, (own, lines));
        target.pending.extend_from_slice(row);
        self.lines += lines;
    }

    /// An error of a shard's as if it had got all the data.
    fn relocated(&self, target: &CopyTarget, message: &[u8]) -> Trouble {
        let find = |line: u64| target.numbers.find(line, self.lines);
        match self.division {
            Division::Copies => Trouble::Failed(message.to_vec()),
            Division::Rows { .. } => Trouble::Failed(super::context::relocated(message, &self.relation, find)),
        }
    }

    fn bad_data(&self, error: CopyDataError) -> Trouble {
        let report = super::context::bad_data(error);
        match error {
            // As PostgreSQL, which has not begun to count.
            CopyDataError::Signature => report.into(),
            _ => report.context(format!("COPY {}, line {}", self.relation, self.lines + 1)).into(),
        }
    }
}

impl ShardedSession {
    /// Takes the client's data in; the command's tag.
    pub(super) async fn copy_from(&mut self, question: Question<'_>, plan: &CopyPlan) -> Result<String, Trouble> {
        let mut copy = self.copy_of(question, plan)?;
        let outcome = self.copy_data(&mut copy).await;
        let Err(trouble @ Trouble::Failed(_)) = outcome else { return outcome };
        let others: Vec<usize> = copy.targets.keys().copied().collect();
        for &shard in &others {
            if let Some(leg) = self.legs[shard].as_mut().filter(|leg| leg.due > 0) {
                put_fail(leg.outbox.writer(), "it has failed on another shard");
            }
        }
        for &shard in &others {
            if let Err(Trouble::End(end)) = self.finish(shard, false).await {
                return Err(Trouble::End(end));
            }
        }
        Err(trouble)
    }

    fn copy_of<'q>(&self, question: Question<'q>, plan: &CopyPlan) -> Result<CopyIn<'q>, Trouble> {
        let schema = self.database.schema().get();
        let (table, division) = match plan {
            CopyPlan::Split(split) => (&split.table, self.row_division(split)?),
            CopyPlan::Copies { table } => (table, Division::Copies),
            CopyPlan::Tables { .. } | CopyPlan::Rows(_) => {
                return Err(Trouble::error(SqlState::INTERNAL_ERROR, "COPY TO was taken for COPY FROM"));
            }
        };
        let triggers = schema.and_then(|schema| schema.table(table).map(|table| table.triggers)).unwrap_or(true);
        let relation = table.name.clone();
        Ok(CopyIn {
            sql: question.sql,
            relation,
            division,
            targets: BTreeMap::new(),
            header: Vec::new(),
            header_lines: 0,
            lines: 0,
            triggers,
        })
    }

    fn row_division(&self, split: &CopySplit) -> Result<Division, Trouble> {
        let unknown = || Trouble::error(SqlState::FEATURE_NOT_SUPPORTED, "the key of the table is not known");
        let Some(TablePlace::Sharded(table)) = self.map.place(&split.table) else { return Err(unknown()) };
        let schema = self.database.schema().get().ok_or_else(unknown)?;
        let columns = key_columns(table, &schema).ok_or_else(unknown)?;
        let splitter = Box::new(CopySplitter::new(split.layout.clone(), split.fields.clone(), self.gather_memory()));
        let binary = split.layout == CopyLayout::Binary;
        let key = RowKey { table: table.clone(), columns, session: self.key_session(split.encoding.as_deref()), binary };
        Ok(Division::Rows { splitter, layout: split.layout.clone(), key })
    }

    async fn copy_data(&mut self, copy: &mut CopyIn<'_>) -> Result<String, Trouble> {
        match copy.division {
            Division::Rows { .. } => self.start_copy(copy, self.any_shard(), copy.triggers).await?,
            Division::Copies => {
                for shard in 0..self.map.shards.len() {
                    self.start_copy(copy, shard, true).await?;
                }
            }
        }
        let mut rest = 0;
        loop {
            let shards: Vec<usize> = copy.targets.keys().copied().collect();
            match std::future::poll_fn(|cx| self.poll_copy(cx, &shards, rest > 0)).await? {
                CopyNews::Leg(shard) => self.hear(copy, shard).await?,
                CopyNews::Client if rest == 0 => match self.next_of_client(copy).await? {
                    Some(length) => rest = length,
                    None => break,
                },
                CopyNews::Client => {
                    let inbox = &mut self.client.client.inbox;
                    let count = inbox.len().min(rest);
                    let chunk = &inbox.as_slice()[..count];
                    match &mut copy.division {
                        Division::Rows { splitter, .. } => splitter.push(chunk),
                        Division::Copies => copy.targets.values_mut().for_each(|target| target.pending.extend_from_slice(chunk)),
                    }
                    inbox.consume(count);
                    rest -= count;
                    self.pass_rows_on(copy).await?;
                }
            }
        }
        if let Division::Rows { splitter, .. } = &mut copy.division {
            splitter.finish();
        }
        self.pass_rows_on(copy).await?;
        self.end_copy(copy).await
    }

    /// Has a shard begin to copy.
    async fn start_copy(&mut self, copy: &mut CopyIn<'_>, shard: usize, writes: bool) -> Result<(), Trouble> {
        self.enter(shard, writes).await?;
        self.leg(shard).query(copy.sql);
        let first = copy.targets.is_empty();
        copy.targets.insert(shard, CopyTarget { pending: copy.header.clone(), ..CopyTarget::default() });
        loop {
            let (tag, body) = self.take(shard).await?;
            let mut message = Vec::new();
            put_message(&mut message, tag, |out| out.extend_from_slice(&body));
            match tag {
                b'G' => {
                    if first {
                        self.side().outbox.push(&message);
                        self.copied_in = true;
                    }
                    return Ok(());
                }
                b'N' | b'A' => self.side().outbox.push(&message),
                b'E' => {
                    copy.targets.remove(&shard);
                    self.finish(shard, false).await?;
                    return Err(Trouble::Failed(message));
                }
                b'Z' => return Err(Trouble::error(SqlState::PROTOCOL_VIOLATION, "a shard did not begin to copy")),
                _ => {}
            }
        }
    }

    /// Ready when a shard or the client has said something; the client is listened to while the shards keep up with it.
    fn poll_copy(&mut self, cx: &mut Context<'_>, shards: &[usize], within: bool) -> Poll<Result<CopyNews, Trouble>> {
        if let Err(end) = self.poll_flush(cx) {
            return Poll::Ready(Err(Trouble::End(end)));
        }
        let mut full = false;
        for &shard in shards {
            loop {
                let Some(leg) = self.legs[shard].as_mut() else { return Poll::Ready(Err(self.leg_gone(shard, None))) };
                if !matches!(leg.front(), Ok(None)) {
                    return Poll::Ready(Ok(CopyNews::Leg(shard)));
                }
                let moved = leg.poll_move(cx);
                full |= leg.outbox.len() >= COPY_AHEAD_MAX;
                match moved {
                    Poll::Pending => break,
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(self.leg_gone(shard, None))),
                }
            }
        }
        loop {
            let inbox = self.side().inbox.as_slice();
            let there = match client_header(inbox) {
                _ if within => !inbox.is_empty(),
                Ok(Some(header)) => header.tag == b'd' || header.total <= inbox.len(),
                Ok(None) => false,
                Err(error) => return Poll::Ready(Err(error.into())),
            };
            if there && !full {
                return Poll::Ready(Ok(CopyNews::Client));
            }
            if self.side().ended && !full {
                return Poll::Ready(Err(Trouble::End(ShardedEnd::ClientGone)));
            }
            if full {
                let looked = self.look_at_client(cx);
                return looked.map_or_else(|end| Poll::Ready(Err(Trouble::End(end))), |()| Poll::Pending);
            }
            match self.poll_client(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(end)) => return Poll::Ready(Err(Trouble::End(end))),
                Poll::Pending => return self.poll_stop(cx).map_err(Trouble::End),
            }
        }
    }

    /// Takes what a shard says while data goes to it: mostly that it has failed.
    async fn hear(&mut self, copy: &mut CopyIn<'_>, shard: usize) -> Result<(), Trouble> {
        let (tag, body) = self.take(shard).await?;
        let mut message = Vec::new();
        put_message(&mut message, tag, |out| out.extend_from_slice(&body));
        match tag {
            b'E' => {
                let target = copy.targets.remove(&shard).unwrap_or_default();
                self.finish(shard, false).await?;
                Err(copy.relocated(&target, &message))
            }
            b'N' | b'A' => {
                self.side().outbox.push(&message);
                Ok(())
            }
            b'Z' => Err(Trouble::error(SqlState::PROTOCOL_VIOLATION, "a shard ended its copying early")),
            _ => Ok(()),
        }
    }

    /// Takes a message of the client's, or the head of one with data: the bytes of data that follow. `None`: that was all.
    async fn next_of_client(&mut self, copy: &mut CopyIn<'_>) -> Result<Option<usize>, Trouble> {
        let inbox = &mut self.client.client.inbox;
        let Some(header) = client_header(inbox.as_slice())? else { return Ok(Some(0)) };
        if header.tag == b'd' {
            inbox.consume(HEADER_LEN);
            return Ok(Some(header.total - HEADER_LEN));
        }
        let body = inbox.as_slice()[HEADER_LEN..header.total].to_vec();
        inbox.consume(header.total);
        match header.tag {
            b'c' => Ok(None),
            // As PostgreSQL, which ignores these here.
            b'H' | b'S' => Ok(Some(0)),
            b'X' => Err(Trouble::End(ShardedEnd::ClientGone)),
            b'f' => {
                let Some(shard) = copy.targets.keys().next().copied() else { return Ok(None) };
                let mut end = Vec::new();
                put_message(&mut end, b'f', |out| out.extend_from_slice(&body));
                self.flush_target(copy, shard);
                self.leg(shard).outbox.push(&end);
                Err(self
                    .last_words(copy, shard)
                    .await?
                    .unwrap_or_else(|| Trouble::error(SqlState::QUERY_CANCELED, "COPY from stdin failed")))
            }
            tag => Err(WireError::Type(tag).into()),
        }
    }

    /// Gives the shards the rows that are whole.
    async fn pass_rows_on(&mut self, copy: &mut CopyIn<'_>) -> Result<(), Trouble> {
        while let Division::Rows { splitter, layout, key } = &mut copy.division {
            let part = match splitter.next_part() {
                Ok(Some(part)) => part,
                Ok(None) => break,
                Err(error) => return Err(copy.bad_data(error)),
            };
            match part {
                CopyPart::Header(bytes) => {
                    // The binary format's has no number.
                    let lines = if *layout == CopyLayout::Binary { 0 } else { lines_of(&bytes, layout, (true, false)) };
                    copy.lines += lines;
                    copy.header_lines = lines;
                    copy.header = bytes.to_vec();
                    for target in copy.targets.values_mut() {
                        target.pending.extend_from_slice(&bytes);
                        target.numbers.note(0, (lines, lines));
                    }
                }
                CopyPart::Trailer(bytes) => {
                    copy.targets.values_mut().for_each(|target| target.pending.extend_from_slice(&bytes));
                }
                CopyPart::Row { bytes, open, key: fields } => match fields.and_then(|fields| key.shard(&fields)) {
                    Some(shard) => self.give_row(copy, shard, &bytes).await?,
                    None => return Err(self.unplaced(copy, &bytes, open).await?),
                },
            }
        }
        let shards: Vec<usize> = copy.targets.keys().copied().collect();
        for shard in shards {
            self.flush_target(copy, shard);
        }
        Ok(())
    }

    async fn give_row(&mut self, copy: &mut CopyIn<'_>, shard: usize, bytes: &[u8]) -> Result<(), Trouble> {
        if !copy.targets.contains_key(&shard) {
            self.start_copy(copy, shard, true).await?;
            let lines = copy.header_lines;
            if lines > 0 {
                copy.targets.entry(shard).or_default().numbers.note(0, (lines, lines));
            }
        } else if self.legs[shard].as_ref().is_some_and(|leg| leg.transaction == super::leg::LegTransaction::Reading) {
            // It takes part in the commit from its first row on.
            self.enter(shard, true).await?;
        }
        copy.note(shard, bytes, false);
        Ok(())
    }

    /// Writes what waits for a shard to its leg.
    fn flush_target(&mut self, copy: &mut CopyIn<'_>, shard: usize) {
        let Some(target) = copy.targets.get_mut(&shard).filter(|target| !target.pending.is_empty()) else { return };
        if let Some(leg) = self.legs[shard].as_mut() {
            put_message(leg.outbox.writer(), b'd', |out| out.extend_from_slice(&target.pending));
        }
        target.pending.clear();
    }

    /// A row's key can't be read: a server is asked what is wrong with the row. What it has been given is rolled back in any case.
    async fn unplaced(&mut self, copy: &mut CopyIn<'_>, row: &[u8], open: bool) -> Result<Trouble, Trouble> {
        let shard = copy.targets.keys().next().copied();
        if let Some(shard) = shard {
            copy.note(shard, row, open);
        }
        let own = Report::error(SqlState::FEATURE_NOT_SUPPORTED, "the key of a row can't be read, or no shard takes it")
            .hint("Write the key as its type's output has it.")
            .context(format!("COPY {}, line {}", copy.relation, copy.lines));
        let Some(shard) = shard else { return Ok(own.into()) };
        self.flush_target(copy, shard);
        put_bare(self.leg(shard).outbox.writer(), b'c');
        Ok(self.last_words(copy, shard).await?.unwrap_or_else(|| own.into()))
    }

    /// What a shard says whose data has ended; it takes no further part. `None`: it has no objection.
    async fn last_words(&mut self, copy: &mut CopyIn<'_>, shard: usize) -> Result<Option<Trouble>, Trouble> {
        let answer = self.finish(shard, false).await?;
        let target = copy.targets.remove(&shard).unwrap_or_default();
        Ok(answer.error.map(|message| copy.relocated(&target, &message)))
    }

    /// The data has ended; how many rows the shards have taken.
    async fn end_copy(&mut self, copy: &mut CopyIn<'_>) -> Result<String, Trouble> {
        let shards: Vec<usize> = copy.targets.keys().copied().collect();
        for &shard in &shards {
            put_bare(self.leg(shard).outbox.writer(), b'c');
        }
        let mut counts = Vec::new();
        for &shard in &shards {
            let answer = self.finish(shard, false).await?;
            let target = copy.targets.remove(&shard).unwrap_or_default();
            if let Some(message) = answer.error {
                return Err(copy.relocated(&target, &message));
            }
            counts.push(answer.tag.strip_prefix("COPY ").and_then(|count| count.parse::<u64>().ok()).unwrap_or(0));
        }
        let count = match copy.division {
            Division::Rows { .. } => counts.iter().sum(),
            Division::Copies if counts.iter().any(|count| *count != counts[0]) => {
                let message = "the shards' copies of a reference table are not alike: COPY took different numbers of rows";
                return Err(Trouble::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message));
            }
            Division::Copies => counts.first().copied().unwrap_or(0),
        };
        Ok(format!("COPY {count}"))
    }
}

fn put_fail(out: &mut Vec<u8>, reason: &str) {
    put_message(out, b'f', |body| put_string(body, reason.as_bytes()));
}
