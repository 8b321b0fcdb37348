//! The rows that are there at the beginning: read under a snapshot, shared out by key, and written by COPY.
//!
//! Each target takes a table in one transaction that also notes the snapshot's position. What a copy that was interrupted has left out is copied
//! later under another snapshot: every target has its own position for every table, and takes the changes behind it.

use super::error::ReshardError;
use super::replication::SlotSnapshot;
use super::side::{ShardLink, literal};
use super::split::RowRoute;
use super::state::{FlowName, copied, copied_statement};
use super::tables::ReshardTable;
use crate::shard::{CopyLayout, CopyPart, CopySplitter, ShardSet, TextLayout};
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use std::pin::Pin;
use tokio_postgres::CopyInSink;

/// Written to a target at once. Bytes.
const CHUNK_LEN: usize = 64 * 1024;
/// The longest row. Bytes. PostgreSQL has a limit of its own below this.
const ROW_MAX: usize = 1 << 30;

/// One target's half of a COPY.
struct CopyTarget {
    shard: usize,
    sink: Pin<Box<CopyInSink<Bytes>>>,
    chunk: BytesMut,
}

/// Rows that one copy has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyCount {
    /// Rows, each target's counted.
    pub rows: u64,
    /// Bytes as COPY text.
    pub bytes: u64,
}

/// The targets that lack a table's rows of a source shard.
///
/// # Errors
/// A target can't be asked.
pub async fn missing(
    targets: &[ShardLink],
    flow: &FlowName,
    shard: usize,
    tables: &[ReshardTable],
) -> Result<Vec<(usize, ShardSet)>, ReshardError> {
    let mut lacking = vec![ShardSet::NONE; tables.len()];
    for (number, target) in targets.iter().enumerate() {
        let known = copied(target, flow, shard).await?;
        for (table, lacking) in tables.iter().zip(&mut lacking) {
            let wanted = table.from.contains(shard)
                && match &table.route {
                    RowRoute::ByKey { .. } => true,
                    RowRoute::To(shards) => shards.contains(number),
                };
            if wanted && !known.contains_key(&table.sql_name()) {
                *lacking = lacking.with(number);
            }
        }
    }
    Ok(lacking.into_iter().enumerate().filter(|(_, lacking)| !lacking.is_empty()).collect())
}

/// Begins to read a source shard under a snapshot.
///
/// # Errors
/// The server refuses it.
pub async fn enter_snapshot(source: &ShardLink, snapshot: &SlotSnapshot) -> Result<(), ReshardError> {
    let name = literal(&snapshot.name);
    source.execute(&format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {name}")).await
}

/// Copies a table's rows of a source shard, on which the snapshot was entered, to the targets that lack them.
///
/// # Errors
/// A server refuses it, or a row belongs nowhere: then no target has got any.
pub async fn copy_table(
    (source, shard): (&ShardLink, usize),
    (targets, lacking): (&[ShardLink], ShardSet),
    table: &ReshardTable,
    (flow, snapshot): (&FlowName, &SlotSnapshot),
) -> Result<CopyCount, ReshardError> {
    let mut open = Vec::new();
    let into = format!("COPY {} ({}) FROM STDIN", table.sql_name(), table.column_list());
    for number in lacking.iter().filter(|number| *number < targets.len()) {
        let target = &targets[number];
        target.execute("BEGIN").await?;
        let sink = target.client().copy_in(&into).await.map_err(|error| target.error(error))?;
        open.push(CopyTarget { shard: number, sink: Box::pin(sink), chunk: BytesMut::new() });
    }
    let from = format!("COPY (SELECT {} FROM {}) TO STDOUT", table.column_list(), table.rows_of());
    let rows = source.client().copy_out(&from).await.map_err(|error| source.error(error))?;
    let mut rows = std::pin::pin!(rows);
    let mut splitter = CopySplitter::new(CopyLayout::Text(TextLayout::default()), table.route.key_places(), ROW_MAX);
    let mut count = CopyCount::default();
    while let Some(chunk) = rows.next().await {
        let chunk = chunk.map_err(|error| source.error(error))?;
        splitter.push(&chunk);
        share_out(&mut splitter, table, &mut open, &mut count)?;
        for target in open.iter_mut().filter(|target| target.chunk.len() >= CHUNK_LEN) {
            target.send(targets).await?;
        }
    }
    splitter.finish();
    share_out(&mut splitter, table, &mut open, &mut count)?;
    for target in &mut open {
        target.send(targets).await?;
        let link = &targets[target.shard];
        target.sink.as_mut().finish().await.map_err(|error| link.error(error))?;
    }
    drop(open);
    let noted = format!("{}; COMMIT", copied_statement(flow, shard, table, snapshot.lsn));
    for number in lacking.iter().filter(|number| *number < targets.len()) {
        targets[number].execute(&noted).await?;
    }
    Ok(count)
}

/// Gives each row that has come to the targets that it belongs to.
fn share_out(
    splitter: &mut CopySplitter,
    table: &ReshardTable,
    open: &mut [CopyTarget],
    count: &mut CopyCount,
) -> Result<(), ReshardError> {
    let failed = |error: &dyn std::fmt::Display| ReshardError::Refused(format!("table {}: {error}", table.sql_name()));
    while let Some(part) = splitter.next_part().map_err(|error| failed(&error))? {
        let CopyPart::Row { bytes, key, .. } = part else { continue };
        let key = key.unwrap_or_default();
        let shards = table.route.of_key(key.iter().map(Option::as_deref)).map_err(|error| failed(&error))?;
        for target in open.iter_mut().filter(|target| shards.contains(target.shard)) {
            target.chunk.extend_from_slice(&bytes);
            count.rows += 1;
            count.bytes += bytes.len() as u64;
        }
    }
    Ok(())
}

impl CopyTarget {
    async fn send(&mut self, targets: &[ShardLink]) -> Result<(), ReshardError> {
        let chunk = self.chunk.split().freeze();
        if chunk.is_empty() {
            return Ok(());
        }
        self.sink.send(chunk).await.map_err(|error| targets[self.shard].error(error))
    }
}
