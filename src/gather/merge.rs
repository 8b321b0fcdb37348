//! Sorted rows of several shards merged into one sorted stream, while they come.

use super::compare::{SortType, SortValue, compare_sorted};
use super::row::{GatherError, RowValues};
use bytes::BytesMut;
use std::cmp::Ordering;
use std::collections::VecDeque;

/// A key that the rows of each shard are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeKey {
    /// Its column in the rows, counted from 0.
    pub column: usize,
    /// The order of its values.
    pub kind: SortType,
    /// Whether the column is in the binary format.
    pub binary: bool,
    /// Descending.
    pub descending: bool,
    /// NULLs come first.
    pub nulls_first: bool,
}

/// What a merge gives next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeStep {
    /// The next row, and the shard that it is of.
    Row(BytesMut, usize),
    /// It is not known before this shard has sent another row or its end.
    Needs(usize),
    /// All shards have ended, and all rows were given.
    Done,
}

/// A row that waits, with its keys.
type Waiting = (Vec<Option<SortValue>>, BytesMut);

#[derive(Default)]
struct Source {
    rows: VecDeque<Waiting>,
    ended: bool,
}

/// A merge. Rows with equal keys come in the order of their shards, and of each shard in the order in which it sent them. Without keys
/// that is one shard after another.
pub struct RowMerge {
    keys: Vec<MergeKey>,
    sources: Vec<Source>,
    /// Shards with a row waiting, the next one's last. Others are in none of it.
    order: Vec<usize>,
    held: usize,
    /// The keys of the row that was given last.
    last: Option<Vec<Option<SortValue>>>,
    tied: bool,
}

impl RowMerge {
    /// A merge of this many shards.
    pub fn new(keys: Vec<MergeKey>, shards: usize) -> RowMerge {
        let sources = (0..shards).map(|_| Source::default()).collect();
        RowMerge { keys, sources, order: Vec::with_capacity(shards), held: 0, last: None, tied: false }
    }

    /// Takes a row that a shard sent, a whole DataRow message.
    ///
    /// # Errors
    /// It can't be read.
    pub fn push(&mut self, shard: usize, row: BytesMut) -> Result<(), GatherError> {
        let keys = read_keys(&self.keys, &row)?;
        self.held += row.len();
        let source = &mut self.sources[shard];
        source.rows.push_back((keys, row));
        if source.rows.len() == 1 {
            self.insert(shard);
        }
        Ok(())
    }

    /// A shard has sent all its rows.
    pub fn end(&mut self, shard: usize) {
        self.sources[shard].ended = true;
    }

    /// Bytes of the rows that wait.
    pub fn held_bytes(&self) -> usize {
        self.held
    }

    /// Whether the row that was given last has the keys of the one before it.
    pub fn is_tied(&self) -> bool {
        self.tied
    }

    /// The next row, if it is known already.
    ///
    /// # Errors
    /// A shard's rows are not in the order of the keys: then nothing that was merged is.
    pub fn next_step(&mut self) -> Result<MergeStep, GatherError> {
        if self.order.len() < self.sources.len()
            && let Some(shard) = self.sources.iter().position(|source| source.rows.is_empty() && !source.ended)
        {
            return Ok(MergeStep::Needs(shard));
        }
        let Some(shard) = self.order.pop() else { return Ok(MergeStep::Done) };
        let Some((keys, row)) = self.sources[shard].rows.pop_front() else { return Ok(MergeStep::Done) };
        self.held -= row.len();
        if !self.sources[shard].rows.is_empty() {
            self.insert(shard);
        }
        let order = self.last.as_ref().map(|last| compare_keys(&self.keys, last, &keys));
        if order == Some(Ordering::Greater) {
            return Err(GatherError::OutOfOrder);
        }
        self.tied = order == Some(Ordering::Equal);
        self.last = Some(keys);
        Ok(MergeStep::Row(row, shard))
    }

    /// Puts a shard at the place of its first row.
    fn insert(&mut self, shard: usize) {
        let place = self.order.partition_point(|other| self.compare(*other, shard) == Ordering::Greater);
        self.order.insert(place, shard);
    }

    fn compare(&self, one: usize, two: usize) -> Ordering {
        let (Some((first, _)), Some((second, _))) = (self.sources[one].rows.front(), self.sources[two].rows.front()) else {
            return Ordering::Equal;
        };
        compare_keys(&self.keys, first, second).then(one.cmp(&two))
    }
}

fn compare_keys(keys: &[MergeKey], one: &[Option<SortValue>], two: &[Option<SortValue>]) -> Ordering {
    let by_key = keys
        .iter()
        .zip(one.iter().zip(two))
        .map(|(key, (one, two))| compare_sorted(one.as_ref(), two.as_ref(), key.descending, key.nulls_first));
    by_key.into_iter().find(|order| *order != Ordering::Equal).unwrap_or(Ordering::Equal)
}

fn read_keys(keys: &[MergeKey], row: &[u8]) -> Result<Vec<Option<SortValue>>, GatherError> {
    let mut found = Vec::with_capacity(keys.len());
    let (mut values, mut at) = (RowValues::new(row)?, 0);
    for key in keys {
        // Keys mostly stand in the order of their columns; else the row is read from its start again.
        if key.column < at {
            (values, at) = (RowValues::new(row)?, 0);
        }
        while at < key.column {
            values.next_value()?;
            at += 1;
        }
        at += 1;
        found.push(values.next_value()?.map(|value| key.kind.read(value, key.binary)).transpose()?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::row::row_of;
    use super::*;
    use proptest::prelude::*;

    fn key(column: usize, descending: bool, nulls_first: bool) -> MergeKey {
        MergeKey { column, kind: SortType::Int4, binary: false, descending, nulls_first }
    }

    type Values = (Option<i8>, Option<i8>, usize);

    fn row((one, two, number): Values) -> BytesMut {
        let text = |value: Option<i8>| value.map(|value| value.to_string());
        let (one, two, number) = (text(one), text(two), number.to_string());
        row_of(&[one.as_ref().map(String::as_bytes), Some(number.as_bytes()), two.as_ref().map(String::as_bytes)])
    }

    fn compare(keys: &[MergeKey], one: &Values, two: &Values) -> Ordering {
        let value = |row: &Values, key: &MergeKey| if key.column == 0 { row.0 } else { row.1 };
        keys.iter().fold(Ordering::Equal, |so_far, key| {
            let pair =
                (value(one, key).map(|v| SortValue::Number(v.into())), value(two, key).map(|v| SortValue::Number(v.into())));
            so_far.then(compare_sorted(pair.0.as_ref(), pair.1.as_ref(), key.descending, key.nulls_first))
        })
    }

    #[test]
    fn it_says_whose_row_it_needs() {
        let mut merge = RowMerge::new(vec![key(0, false, false)], 3);
        assert_eq!(merge.next_step().unwrap(), MergeStep::Needs(0));
        merge.push(0, row((Some(2), None, 0))).unwrap();
        merge.end(1);
        assert_eq!(merge.next_step().unwrap(), MergeStep::Needs(2));
        merge.push(2, row((Some(2), None, 0))).unwrap();
        assert_eq!(merge.held_bytes(), 2 * row((Some(2), None, 0)).len());
        assert!(matches!(merge.next_step().unwrap(), MergeStep::Row(_, 0)), "equal rows come in the order of the shards");
        assert_eq!(merge.next_step().unwrap(), MergeStep::Needs(0));
        merge.end(0);
        assert!(matches!(merge.next_step().unwrap(), MergeStep::Row(_, 2)));
        assert!(merge.is_tied());
        merge.end(2);
        assert_eq!((merge.next_step().unwrap(), merge.held_bytes()), (MergeStep::Done, 0));
    }

    #[test]
    fn a_shard_with_an_order_of_its_own_is_found_out() {
        let mut merge = RowMerge::new(vec![key(0, false, false)], 2);
        for (shard, value) in [(0, 3), (0, 2), (1, 1), (1, 4)] {
            merge.push(shard, row((Some(value), None, 0))).unwrap();
        }
        assert!(matches!(merge.next_step(), Ok(MergeStep::Row(_, 1))));
        assert!(matches!(merge.next_step(), Ok(MergeStep::Row(_, 0))) && !merge.is_tied());
        assert_eq!(merge.next_step(), Err(GatherError::OutOfOrder));
    }

    #[test]
    fn without_keys_one_shard_follows_another() {
        let mut merge = RowMerge::new(Vec::new(), 2);
        for (shard, value) in [(1, 1), (0, 3), (0, 2)] {
            merge.push(shard, row((Some(value), None, 0))).unwrap();
        }
        merge.end(0);
        merge.end(1);
        let mut shards = Vec::new();
        while let MergeStep::Row(_, shard) = merge.next_step().unwrap() {
            shards.push(shard);
        }
        assert_eq!(shards, [0, 0, 1]);
    }

    #[test]
    fn rows_that_are_none() {
        let mut merge = RowMerge::new(vec![key(3, false, false)], 1);
        assert_eq!(merge.push(0, row((None, None, 0))), Err(GatherError::MalformedRow));
        let mut short = row((Some(1), None, 0));
        short.truncate(9);
        let mut merge = RowMerge::new(vec![key(0, false, false)], 1);
        assert_eq!(merge.push(0, short), Err(GatherError::MalformedRow));
        assert_eq!(merge.push(0, BytesMut::new()), Err(GatherError::MalformedRow));
    }

    proptest! {
        #[test]
        fn merged_is_sorted(
            mut shards in prop::collection::vec(prop::collection::vec((prop::option::of(-2i8..3), prop::option::of(-2i8..3)), 0..12), 1..6),
            flags: [bool; 4],
            eager in 1usize..4,
        ) {
            let keys = vec![key(2, flags[0], flags[1]), key(0, flags[2], flags[3])];
            let mut number = 0;
            let mut sorted: Vec<Vec<Values>> = Vec::new();
            for shard in &mut shards {
                let mut rows: Vec<Values> = shard.iter().map(|(one, two)| { number += 1; (*one, *two, number) }).collect();
                rows.sort_by(|one, two| compare(&keys, one, two));
                sorted.push(rows);
            }
            let mut expect: Vec<Values> = sorted.concat();
            expect.sort_by(|one, two| compare(&keys, one, two));
            let mut merge = RowMerge::new(keys, sorted.len());
            let mut coming: Vec<VecDeque<Values>> = sorted.into_iter().map(VecDeque::from).collect();
            let mut got = Vec::new();
            loop {
                match merge.next_step().unwrap() {
                    MergeStep::Row(row, _) => got.push(row),
                    MergeStep::Needs(shard) => {
                        for _ in 0..eager {
                            if let Some(values) = coming[shard].pop_front() {
                                merge.push(shard, row(values)).unwrap();
                            }
                        }
                        if coming[shard].is_empty() {
                            merge.end(shard);
                        }
                    }
                    MergeStep::Done => break,
                }
            }
            let expect: Vec<BytesMut> = expect.into_iter().map(row).collect();
            prop_assert_eq!(got, expect);
        }
    }
}
