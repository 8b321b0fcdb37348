//! Whether the targets have what the source has: both are read as of one moment, and their checksums compared.
//!
//! The moment is a slot's snapshot on each source shard: it shows exactly what committed before its position. The appliers stop there; snapshots
//! of the targets are taken, and everything goes on while the rows are read.

use super::digest::TableDigest;
use super::error::ReshardError;
use super::replication::{ReplicationStream, SlotSnapshot};
use super::side::{ReshardSide, ShardLink};
use super::split::RowRoute;
use super::state::FlowName;
use super::tables::ReshardTable;
use crate::shard::ShardSet;
use crate::types::Lsn;

/// Both sides at one moment.
pub struct Comparison {
    sources: Vec<ShardLink>,
    targets: Vec<ShardLink>,
    positions: Vec<Lsn>,
    /// The snapshots live as long as their slots' connections, and are entered by now; these are dropped with them.
    _slots: Vec<ReplicationStream>,
}

/// What a comparison has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComparisonReport {
    /// Tables compared.
    pub tables: usize,
    /// Rows on the source.
    pub rows: u64,
    /// A sentence for each table that differs.
    pub differences: Vec<String>,
}

impl Comparison {
    /// Chooses the moment on the source.
    ///
    /// # Errors
    /// A server refuses it.
    pub async fn begin(flow: &FlowName, from: &ReshardSide) -> Result<Comparison, ReshardError> {
        let (mut sources, mut slots, mut positions) = (Vec::new(), Vec::new(), Vec::new());
        for (shard, end) in from.shards.iter().enumerate() {
            let mut stream = end.replicate().await?;
            let name = format!("{}v", flow.slot(shard).chars().take(50).collect::<String>());
            let snapshot: SlotSnapshot = stream.snapshot(&format!("{name}{shard}")).await?;
            let link = end.connect().await?;
            super::copy::enter_snapshot(&link, &snapshot).await?;
            positions.push(snapshot.lsn);
            sources.push(link);
            slots.push(stream);
        }
        Ok(Comparison { sources, targets: Vec::new(), positions, _slots: slots })
    }

    /// Where the changes of a source shard must stop.
    pub fn barrier(&self, shard: usize) -> Option<Lsn> {
        self.positions.get(shard).copied()
    }

    /// The targets have all changes before the barriers, and no others.
    ///
    /// # Errors
    /// A server refuses it.
    pub async fn enter_targets(&mut self, to: &ReshardSide) -> Result<(), ReshardError> {
        self.targets = to.connect().await?;
        for target in &self.targets {
            // The first statement takes the snapshot.
            target.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1").await?;
        }
        Ok(())
    }

    /// Reads and compares all tables.
    ///
    /// # Errors
    /// A server can't be asked.
    pub async fn compare(&self, tables: &[ReshardTable]) -> Result<ComparisonReport, ReshardError> {
        let mut report = ComparisonReport { tables: tables.len(), ..ComparisonReport::default() };
        for table in tables {
            let to = match &table.route {
                RowRoute::ByKey { .. } => ShardSet::all(self.targets.len()),
                RowRoute::To(shards) => *shards,
            };
            let (sources, targets) =
                futures_util::future::try_join(digests(&self.sources, table.from, table), digests(&self.targets, to, table))
                    .await?;
            let mut whole = TableDigest::default();
            sources.iter().for_each(|(_, digest)| whole.add(digest));
            report.rows += whole.rows();
            let found: Vec<(String, TableDigest)> = match &table.route {
                RowRoute::ByKey { .. } => {
                    let mut sum = TableDigest::default();
                    targets.iter().for_each(|(_, digest)| sum.add(digest));
                    vec![("the targets".to_owned(), sum)]
                }
                RowRoute::To(_) => targets,
            };
            for (name, digest) in found {
                let differing = whole.differences(&digest);
                if !differing.is_empty() {
                    report.differences.push(format!(
                        "table {}: {} rows on the source, {} on {name}; {} of 64 chunks differ",
                        table.sql_name(),
                        whole.rows(),
                        digest.rows(),
                        differing.len()
                    ));
                }
            }
        }
        Ok(report)
    }
}

/// Each shard's digest of a table, with the shard's name.
async fn digests(
    links: &[ShardLink],
    shards: ShardSet,
    table: &ReshardTable,
) -> Result<Vec<(String, TableDigest)>, ReshardError> {
    let query = TableDigest::query(table);
    let of = async |link: &ShardLink| {
        let mut digest = TableDigest::default();
        for row in link.rows(&query).await? {
            let added = digest.add_row(&row);
            added.ok_or_else(|| ReshardError::Refused(format!("{}: a checksum makes no sense", link.shard)))?;
        }
        Ok((link.shard.clone(), digest))
    };
    let chosen = shards.iter().filter_map(|shard| links.get(shard));
    futures_util::future::try_join_all(chosen.map(of)).await
}

impl std::fmt::Display for ComparisonReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.differences.as_slice() {
            [] => write!(f, "all {} tables are the same, {} rows", self.tables, self.rows),
            differences => write!(f, "{} tables differ\n{}", differences.len(), differences.join("\n")),
        }
    }
}
