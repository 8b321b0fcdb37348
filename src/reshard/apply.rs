//! The changes of one source shard, as they come, applied to the targets.
//!
//! Transactions are applied in the order of their commits, several at once. What a batch changes on a target and how far that target is then
//! are committed together. A target that is further than another, because a process ended between two commits, leaves out what it has.

use super::error::ReshardError;
use super::pgoutput::{OldRow, StreamMessage, StreamRelation, StreamValue};
use super::replication::{ReplicationStream, StreamEvent};
use super::side::ShardLink;
use super::state::{FlowName, ShardProgress, progress_statement};
use super::tables::ReshardTable;
use crate::shard::{QualifiedName, ShardSet};
use crate::types::Lsn;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::SimpleQueryMessage;

/// Changes that are applied together, at most, but for those of one transaction.
const BATCH_CHANGES_MAX: usize = 1000;
/// Statements that are held before they are sent, also in the middle of a transaction. Bytes.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Where marks are written.
const MARKS: &str = "reshard_marks";
/// Between two requests to say how far the server has sent.
const ASK_INTERVAL: Duration = Duration::from_millis(200);

/// What one target is to do.
#[derive(Debug, Default)]
struct TargetBatch {
    statements: String,
    /// The table of each: one row must be found.
    tables: Vec<Arc<ReshardTable>>,
    /// Something of this batch was sent already, in a transaction that is open.
    begun: bool,
    /// A row has come from another target, which must not lose it before.
    moved_in: bool,
}

/// A table of the stream.
#[derive(Clone)]
enum KnownRelation {
    /// One that is copied: with the position behind which each target takes its changes.
    Table(Arc<ReshardTable>, Arc<Vec<Lsn>>),
    /// The marks.
    Marks,
    /// None of the flow's.
    Other,
}

/// Applies the changes of one source shard.
pub struct Applier {
    flow: FlowName,
    shard: usize,
    stream: ReplicationStream,
    targets: Vec<ShardLink>,
    tables: HashMap<QualifiedName, (Arc<ReshardTable>, Arc<Vec<Lsn>>)>,
    relations: HashMap<u32, KnownRelation>,
    /// The last transaction that each target has.
    applied: Vec<Lsn>,
    batches: Vec<TargetBatch>,
    /// The commit position of the transaction that is being read.
    open: Option<Lsn>,
    /// The last transaction of the batch that is complete.
    complete: Option<Lsn>,
    mark: Option<String>,
    /// All that committed before this position is on the targets.
    position: Lsn,
    /// Changes applied so far.
    pub changes: u64,
}

/// What an applier begins with.
pub struct ApplierStart {
    /// The flow.
    pub flow: FlowName,
    /// The source shard's number.
    pub shard: usize,
    /// Its stream, begun.
    pub stream: ReplicationStream,
    /// From where on.
    pub position: Lsn,
    /// Connections of its own to all targets.
    pub targets: Vec<ShardLink>,
    /// What each target has noted of this source shard.
    pub progress: Vec<ShardProgress>,
    /// The tables, with the position behind which each target takes changes.
    pub tables: Vec<(Arc<ReshardTable>, Vec<Lsn>)>,
}

impl Applier {
    /// Makes the targets ready for changes whose order and completeness the source has already looked after.
    ///
    /// # Errors
    /// The role may not switch triggers and foreign keys off.
    pub async fn new(start: ApplierStart) -> Result<Applier, ReshardError> {
        for target in &start.targets {
            quieten(target).await?;
        }
        let table = |(table, from): (Arc<ReshardTable>, Vec<Lsn>)| (table.name.clone(), (table, Arc::new(from)));
        Ok(Applier {
            flow: start.flow,
            shard: start.shard,
            stream: start.stream,
            tables: start.tables.into_iter().map(table).collect(),
            relations: HashMap::new(),
            applied: start.progress.iter().map(|progress| progress.applied).collect(),
            batches: start.targets.iter().map(|_| TargetBatch::default()).collect(),
            targets: start.targets,
            open: None,
            complete: None,
            mark: None,
            position: start.position,
            changes: 0,
        })
    }

    /// All that committed before this position on the source is on the targets.
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// Applies what comes, until everything that committed before `barrier` is on the targets, and nothing that committed later, or until
    /// `deadline`. Answers whether the barrier was reached. Between two calls no transaction is open on the targets.
    ///
    /// # Errors
    /// A server fails, or a change does not find its row.
    pub async fn pump(&mut self, barrier: Option<Lsn>, deadline: Instant) -> Result<bool, ReshardError> {
        let mut asked: Option<Instant> = None;
        loop {
            if barrier.is_some_and(|barrier| self.is_at(barrier)) {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                self.flush().await?;
                if self.is_between() {
                    self.stream.confirm(self.position, false).await?;
                    return Ok(false);
                }
            }
            if let Some(event) = self.stream.ready_event()? {
                self.take(event, barrier).await?;
                continue;
            }
            // Nothing more has come: what is complete goes to the targets now.
            self.flush().await?;
            if asked.is_none_or(|asked| asked.elapsed() >= ASK_INTERVAL) {
                self.stream.confirm(self.position, true).await?;
                asked = Some(Instant::now());
            }
            if let Ok(event) = tokio::time::timeout(ASK_INTERVAL, self.stream.event()).await {
                self.take(event?, barrier).await?;
            }
        }
    }

    /// Whether no transaction is half read and none waits to be sent.
    fn is_between(&self) -> bool {
        self.complete.is_none() && self.batches.iter().all(|batch| !batch.begun && batch.tables.is_empty())
    }

    fn is_at(&self, barrier: Lsn) -> bool {
        let behind = self.open.is_some_and(|open| open >= barrier) || (self.open.is_none() && self.position >= barrier);
        behind && self.is_between()
    }

    async fn take(&mut self, event: StreamEvent, barrier: Option<Lsn>) -> Result<(), ReshardError> {
        let message = match event {
            StreamEvent::SentTo(sent) => {
                // Within a transaction, or before one was sent on, it says nothing of what is on the targets.
                if self.open.is_none() && self.complete.is_none() {
                    self.position = self.position.max(sent);
                }
                return Ok(());
            }
            StreamEvent::Change(bytes) => StreamMessage::read(&bytes).map_err(|source| self.stream.malformed(source))?,
        };
        match message {
            StreamMessage::Begin { commit } => {
                if barrier.is_some_and(|barrier| commit >= barrier) {
                    // What lies before the barrier is complete, and must be seen without this one.
                    self.flush().await?;
                }
                self.open = Some(commit);
            }
            StreamMessage::Commit { commit, end } => {
                self.open = None;
                self.complete = Some(commit);
                let changes: usize = self.batches.iter().map(|batch| batch.tables.len()).sum();
                let bytes: usize = self.batches.iter().map(|batch| batch.statements.len()).sum();
                if changes == 0 && self.mark.is_none() && self.batches.iter().all(|batch| !batch.begun) {
                    self.complete = None;
                    self.position = self.position.max(end);
                } else if changes >= BATCH_CHANGES_MAX || bytes >= BATCH_BYTES_MAX {
                    self.flush().await?;
                }
            }
            StreamMessage::Relation(relation) => self.note_relation(relation)?,
            StreamMessage::Insert { relation, new } => self.insert(relation, &new).await?,
            StreamMessage::Update { relation, old, new } => self.update(relation, old, new).await?,
            StreamMessage::Delete { relation, old } => self.delete(relation, &old).await?,
            StreamMessage::Truncate { relations } => self.truncate(&relations).await?,
            StreamMessage::Other => {}
        }
        Ok(())
    }

    fn note_relation(&mut self, relation: StreamRelation) -> Result<(), ReshardError> {
        let known = match self.tables.get(&relation.name) {
            _ if relation.name.schema == "pgyard" && relation.name.name == MARKS => KnownRelation::Marks,
            None => KnownRelation::Other,
            Some((table, from)) => {
                let same = table.columns.iter().map(|column| &column.name).eq(relation.columns.iter());
                if !same {
                    return Err(self.refused(table, &"its columns were changed on the source: begin again with the new schema"));
                }
                KnownRelation::Table(table.clone(), from.clone())
            }
        };
        self.relations.insert(relation.id, known);
        Ok(())
    }

    fn table(&self, relation: u32) -> Option<(Arc<ReshardTable>, Arc<Vec<Lsn>>)> {
        match self.relations.get(&relation) {
            Some(KnownRelation::Table(table, from)) => Some((table.clone(), from.clone())),
            _ => None,
        }
    }

    /// Which of these targets take a change of the transaction that is being read.
    fn taking(&self, shards: ShardSet, from: &[Lsn]) -> ShardSet {
        let Some(commit) = self.open else { return ShardSet::NONE };
        let takes = |shard: &usize| {
            let copied = from.get(*shard).copied().unwrap_or_default();
            *shard < self.targets.len() && commit >= copied && commit > self.applied[*shard]
        };
        shards.iter().filter(takes).fold(ShardSet::NONE, ShardSet::with)
    }

    async fn insert(&mut self, relation: u32, new: &[StreamValue]) -> Result<(), ReshardError> {
        if matches!(self.relations.get(&relation), Some(KnownRelation::Marks)) {
            if let [StreamValue::Text(flow), StreamValue::Text(mark)] = new
                && flow == self.flow.to_string().as_bytes()
            {
                self.mark = Some(String::from_utf8_lossy(mark).into_owned());
            }
            return Ok(());
        }
        let Some((table, from)) = self.table(relation) else { return Ok(()) };
        let shards = table.route.of_row(new).map_err(|problem| self.refused(&table, &problem))?;
        let sql = table.insert(new).map_err(|problem| self.refused(&table, &problem))?;
        self.add(self.taking(shards, &from), &table, &sql).await
    }

    async fn update(&mut self, relation: u32, old: Option<OldRow>, mut new: Vec<StreamValue>) -> Result<(), ReshardError> {
        let Some((table, from)) = self.table(relation) else { return Ok(()) };
        let refused = |this: &Self, problem: &dyn std::fmt::Display| this.refused(&table, problem);
        let key = table.route.key_places();
        // A key that is large and the same is that of the old row.
        if let Some(old) = &old {
            for place in key {
                if let Some(value) = new.get_mut(place).filter(|value| **value == StreamValue::Unchanged) {
                    *value = old.values.get(place).cloned().unwrap_or(StreamValue::Null);
                }
            }
        }
        let now = table.route.of_row(&new).map_err(|problem| refused(self, &problem))?;
        let before = match &old {
            Some(old) => table.route.of_row(&old.values).map_err(|problem| refused(self, &problem))?,
            None => now,
        };
        let replaces = old.as_ref().is_some_and(|old| table.must_replace(&old.values, &new));
        if now == before && !replaces {
            let sql = table.update(old.as_ref(), &new).map_err(|problem| refused(self, &problem))?;
            return self.add(self.taking(now, &from), &table, &sql).await;
        }
        let (leaves, comes) = (self.taking(before, &from), self.taking(now, &from));
        if !comes.is_empty() && new.contains(&StreamValue::Unchanged) {
            self.fill(&table, before, (old.as_ref(), &mut new)).await?;
            comes.iter().for_each(|shard| self.batches[shard].moved_in = true);
        }
        if let Some(old) = &old {
            let sql = table.delete(old).map_err(|problem| refused(self, &problem))?;
            self.add(leaves, &table, &sql).await?;
        }
        let sql = match table.insert(&new) {
            Ok(sql) => sql,
            Err(_) if comes.is_empty() => return Ok(()),
            Err(problem) => return Err(refused(self, &problem)),
        };
        self.add(comes, &table, &sql).await
    }

    async fn delete(&mut self, relation: u32, old: &OldRow) -> Result<(), ReshardError> {
        let Some((table, from)) = self.table(relation) else { return Ok(()) };
        let shards = table.route.of_row(&old.values).map_err(|problem| self.refused(&table, &problem))?;
        let sql = table.delete(old).map_err(|problem| self.refused(&table, &problem))?;
        self.add(self.taking(shards, &from), &table, &sql).await
    }

    async fn truncate(&mut self, relations: &[u32]) -> Result<(), ReshardError> {
        let mut names = vec![Vec::new(); self.targets.len()];
        for relation in relations {
            let Some((table, from)) = self.table(*relation) else { continue };
            if table.from.len() > 1 {
                let problem = "TRUNCATE of a table that comes from several shards can't be followed: DELETE its rows instead";
                return Err(self.refused(&table, &problem));
            }
            // Every row of the table on the targets has come from this shard.
            self.taking(ShardSet::all(self.targets.len()), &from).iter().for_each(|shard| names[shard].push(table.sql_name()));
        }
        self.send().await?;
        for (shard, names) in names.iter().enumerate().filter(|(_, names)| !names.is_empty()) {
            let begin = if std::mem::replace(&mut self.batches[shard].begun, true) { "" } else { "BEGIN; " };
            self.targets[shard].execute(&format!("{begin}TRUNCATE {}", names.join(", "))).await?;
        }
        Ok(())
    }

    /// Values that the stream does not repeat, from the target that has the row as it was.
    async fn fill(
        &mut self,
        table: &ReshardTable,
        before: ShardSet,
        (old, new): (Option<&OldRow>, &mut Vec<StreamValue>),
    ) -> Result<(), ReshardError> {
        // Values of a row of the old target, if the whole of it is not in the stream.
        if let Some(old) = old.filter(|old| old.whole) {
            let known = new.iter_mut().zip(&old.values).filter(|(value, _)| **value == StreamValue::Unchanged);
            known.for_each(|(value, old)| value.clone_from(old));
            return Ok(());
        }
        self.send().await?;
        let columns: Vec<usize> =
            new.iter().enumerate().filter(|(_, value)| **value == StreamValue::Unchanged).map(|(place, _)| place).collect();
        let query = table.select(&columns, old, new).map_err(|problem| self.refused(table, &problem))?;
        let Some(target) = before.iter().next().and_then(|shard| self.targets.get(shard)) else { return Ok(()) };
        let rows = target.rows(&query).await?;
        let [row] = rows.as_slice() else {
            return Err(self.refused(table, &format!("a row that was changed is not on {}", target.shard)));
        };
        for (place, value) in columns.into_iter().zip(row) {
            new[place] = value.as_ref().map_or(StreamValue::Null, |text| StreamValue::Text(text.clone().into_bytes()));
        }
        Ok(())
    }

    /// Gives a statement that concerns one row to some of the targets.
    async fn add(&mut self, shards: ShardSet, table: &Arc<ReshardTable>, sql: &str) -> Result<(), ReshardError> {
        for shard in shards.iter() {
            let batch = &mut self.batches[shard];
            batch.statements.push_str(sql);
            batch.statements.push_str(";\n");
            batch.tables.push(table.clone());
            self.changes += 1;
        }
        if self.batches.iter().any(|batch| batch.statements.len() >= 4 * BATCH_BYTES_MAX) {
            self.send().await?;
        }
        Ok(())
    }

    /// Commits the transactions that are complete, unless another one is mixed with them already.
    async fn flush(&mut self) -> Result<(), ReshardError> {
        let Some(last) = self.complete.filter(|_| self.open.is_none()) else { return Ok(()) };
        self.send().await?;
        let mark = self.mark.take();
        let mut commits = Vec::new();
        for (number, batch) in self.batches.iter_mut().enumerate() {
            // A mark is noted everywhere.
            let marked = mark.is_some() && last > self.applied[number];
            let begin = match batch.begun {
                true => "",
                false if marked => "BEGIN; ",
                false => continue,
            };
            let noted = progress_statement(&self.flow, self.shard, last, mark.as_deref());
            commits.push((number, batch.moved_in, format!("{begin}{noted}; COMMIT")));
            *batch = TargetBatch::default();
        }
        let targets = &self.targets;
        for first in [true, false] {
            let turn = commits.iter().filter(|(_, moved_in, _)| *moved_in == first);
            let all = turn.map(|(number, _, sql)| targets[*number].execute(sql));
            futures_util::future::try_join_all(all).await?;
        }
        commits.iter().for_each(|(number, ..)| self.applied[*number] = last);
        self.complete = None;
        self.position = self.position.max(last);
        Ok(())
    }

    /// Sends the statements that are held, and sees that each has found its row.
    async fn send(&mut self) -> Result<(), ReshardError> {
        let mut work = Vec::new();
        for (number, batch) in self.batches.iter_mut().enumerate().filter(|(_, batch)| !batch.tables.is_empty()) {
            let begin = if std::mem::replace(&mut batch.begun, true) { "" } else { "BEGIN;\n" };
            let sql = format!("{begin}{}", std::mem::take(&mut batch.statements));
            work.push((number, sql, std::mem::take(&mut batch.tables), usize::from(!begin.is_empty())));
        }
        let targets = &self.targets;
        let all = work.iter().map(|(number, sql, tables, skip)| carry_out(&targets[*number], sql, (tables, *skip)));
        futures_util::future::try_join_all(all).await.map(drop)
    }

    fn refused(&self, table: &ReshardTable, problem: &dyn std::fmt::Display) -> ReshardError {
        ReshardError::Refused(format!("table {}: {problem}", table.sql_name()))
    }
}

/// Triggers and foreign keys have done their work on the source; here they would do it twice, or in another order.
///
/// # Errors
/// The role may not.
pub async fn quieten(target: &ShardLink) -> Result<(), ReshardError> {
    target.execute("SET session_replication_role = replica").await.map_err(|error| {
        ReshardError::Refused(format!(
            "{error}\nThe role in the configuration must be a superuser on {}, or be given: GRANT SET ON PARAMETER session_replication_role TO it",
            target.shard
        ))
    })
}

/// Carries out statements of which each, but for `skip` at the front, must concern one row of its table.
async fn carry_out(target: &ShardLink, sql: &str, (tables, skip): (&[Arc<ReshardTable>], usize)) -> Result<(), ReshardError> {
    let messages = target.client().simple_query(sql).await.map_err(|error| target.error(error))?;
    let counts = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
        _ => None,
    });
    let counts: Vec<u64> = counts.skip(skip).collect();
    let wrong = tables.iter().enumerate().find(|(place, _)| counts.get(*place) != Some(&1));
    wrong.map_or(Ok(()), |(_, table)| {
        let name = table.sql_name();
        let message = format!("{}: a change of {name} did not find its row: has somebody else written there?", target.shard);
        Err(ReshardError::Refused(message))
    })
}
