//! Checksums of tables: sums of hashes, which any order of rows gives alike and which can be added up over shards. Pure.

use super::tables::ReshardTable;
use std::collections::BTreeMap;

/// Chunks of a table, by the hash of what identifies a row: a difference is narrowed down to one of them.
const CHUNKS: u32 = 64;

/// The rows of one chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkDigest {
    /// How many.
    pub rows: u64,
    /// The sum of their hashes.
    pub sum: i128,
}

/// The rows of a table, chunk by chunk; one without rows is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableDigest(BTreeMap<u32, ChunkDigest>);

impl TableDigest {
    /// The query for it: chunk, rows, sum. Rows are hashed as the text that they are written as.
    pub fn query(table: &ReshardTable) -> String {
        format!(
            "SELECT chunk, pg_catalog.count(*), pg_catalog.sum(hash) FROM (SELECT \
             pg_catalog.hashtextextended(ROW({})::pg_catalog.text, 0) & {} AS chunk, \
             pg_catalog.hashtextextended(ROW({})::pg_catalog.text, 1)::pg_catalog.numeric AS hash FROM {}) hashed GROUP BY chunk",
            table.identity_list(),
            CHUNKS - 1,
            table.column_list(),
            table.rows_of()
        )
    }

    /// Adds one row of that query's; `None` when it makes no sense.
    pub fn add_row(&mut self, row: &[Option<String>]) -> Option<()> {
        let [Some(chunk), Some(rows), Some(sum)] = row else { return None };
        let chunk = self.0.entry(chunk.parse().ok()?).or_default();
        chunk.rows += rows.parse::<u64>().ok()?;
        chunk.sum += sum.parse::<i128>().ok()?;
        Some(())
    }

    /// Adds another shard's.
    pub fn add(&mut self, other: &TableDigest) {
        for (chunk, digest) in &other.0 {
            let own = self.0.entry(*chunk).or_default();
            own.rows += digest.rows;
            own.sum += digest.sum;
        }
    }

    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        self.0.values().map(|chunk| chunk.rows).sum()
    }

    /// The chunks in which the two differ.
    pub fn differences(&self, other: &TableDigest) -> Vec<u32> {
        let chunk = |digest: &TableDigest, chunk: u32| digest.0.get(&chunk).copied().unwrap_or_default();
        (0..CHUNKS).filter(|number| chunk(self, *number) != chunk(other, *number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(rows: &[(u32, u64, i128)]) -> TableDigest {
        let mut digest = TableDigest::default();
        for (chunk, rows, sum) in rows {
            digest.add_row(&[Some(chunk.to_string()), Some(rows.to_string()), Some(sum.to_string())]).unwrap();
        }
        digest
    }

    #[test]
    fn shards_add_up() {
        let mut parts = digest(&[(0, 2, -7), (5, 1, i128::from(i64::MAX))]);
        parts.add(&digest(&[(0, 1, 10), (63, 1, 1)]));
        let whole = digest(&[(0, 3, 3), (5, 1, i128::from(i64::MAX)), (63, 1, 1)]);
        assert_eq!(parts.differences(&whole), [] as [u32; 0]);
        assert_eq!(whole.rows(), 5);
    }

    #[test]
    fn differences_are_found() {
        let one = digest(&[(1, 2, 5), (2, 1, 1)]);
        assert_eq!(one.differences(&digest(&[(1, 2, 6), (2, 1, 1)])), [1], "another row");
        assert_eq!(one.differences(&digest(&[(1, 3, 5), (2, 1, 1)])), [1], "a row whose hash is 0");
        assert_eq!(one.differences(&digest(&[(1, 2, 5)])), [2], "a chunk that is not there");
        assert_eq!(TableDigest::default().add_row(&[Some("x".into()), None, None]), None);
    }
}
