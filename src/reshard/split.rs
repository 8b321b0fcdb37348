//! Which shards a row belongs to. Pure.

use super::pgoutput::StreamValue;
use crate::shard::{KeyColumn, KeySession, KeyValue, ShardMap, ShardSet, ShardedTable, TablePlace};
use std::sync::Arc;

/// Where a table's rows go.
#[derive(Clone, Debug)]
pub enum RowRoute {
    /// To the shard of the key.
    ByKey {
        /// The table's scheme.
        table: Arc<ShardedTable>,
        /// The key's columns: places among the table's columns, and types.
        key: Vec<(usize, KeyColumn)>,
    },
    /// To these shards, all of them.
    To(ShardSet),
}

/// Why a row belongs nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteProblem {
    /// The key's value is not one that can be read.
    #[error("the key of a row can't be read")]
    Unreadable,
    /// The stream does not repeat the key, because it is large.
    #[error("the key of a row is not in the stream")]
    Missing,
    /// No shard takes such a key.
    #[error("no shard of the target takes the key of a row")]
    Nowhere,
}

impl RowRoute {
    /// Where rows of a table in this place go.
    pub fn of(place: &TablePlace, map: &ShardMap, key: Vec<(usize, KeyColumn)>) -> RowRoute {
        match place {
            TablePlace::Sharded(table) => RowRoute::ByKey { table: table.clone(), key },
            TablePlace::Reference => RowRoute::To(map.all()),
            TablePlace::Single(shard) => RowRoute::To(ShardSet::one(*shard)),
        }
    }

    /// The key's columns, by their places among the table's.
    pub fn key_places(&self) -> Vec<usize> {
        match self {
            RowRoute::ByKey { key, .. } => key.iter().map(|(place, _)| *place).collect(),
            RowRoute::To(_) => Vec::new(),
        }
    }

    /// The shards of a row whose key has these values, in the order of the key.
    ///
    /// # Errors
    /// It belongs nowhere.
    pub fn of_key<'a>(&self, values: impl Iterator<Item = Option<&'a [u8]>>) -> Result<ShardSet, RouteProblem> {
        let RowRoute::ByKey { table, key } = self else { return Ok(self.fixed()) };
        let session = KeySession::new("UTC", "UTF8", "UTF8");
        let read = |((_, column), value): (&(usize, KeyColumn), Option<&[u8]>)| column.copied_text(value, session);
        let values: Option<Vec<KeyValue>> = key.iter().zip(values).map(read).collect();
        let shard = table.shard_of(&values.ok_or(RouteProblem::Unreadable)?).ok_or(RouteProblem::Nowhere)?;
        Ok(ShardSet::one(shard))
    }

    /// The shards of a row of the stream.
    ///
    /// # Errors
    /// It belongs nowhere.
    pub fn of_row(&self, row: &[StreamValue]) -> Result<ShardSet, RouteProblem> {
        let RowRoute::ByKey { key, .. } = self else { return Ok(self.fixed()) };
        let mut values = Vec::with_capacity(key.len());
        for (place, _) in key {
            values.push(match row.get(*place) {
                Some(StreamValue::Text(text)) => Some(text.as_slice()),
                Some(StreamValue::Null) => None,
                Some(StreamValue::Unchanged) | None => return Err(RouteProblem::Missing),
            });
        }
        self.of_key(values.into_iter())
    }

    fn fixed(&self) -> ShardSet {
        match self {
            RowRoute::To(shards) => *shards,
            RowRoute::ByKey { .. } => ShardSet::NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{KeyType, QualifiedName, Scheme};

    fn by_key() -> RowRoute {
        let table = QualifiedName { schema: "public".into(), name: "t".into() };
        let scheme = Scheme::Hash { shards: 3 };
        let table = ShardedTable { table, key: vec!["id".into()], group: 0, types: None, scheme };
        RowRoute::ByKey { table: Arc::new(table), key: vec![(1, KeyType::Int4.into())] }
    }

    fn text(value: &str) -> StreamValue {
        StreamValue::Text(value.as_bytes().to_vec())
    }

    #[test]
    fn rows_go_to_the_shard_of_their_key() {
        let route = by_key();
        let mut all = ShardSet::NONE;
        for id in 0..30 {
            let id = id.to_string();
            let row = [StreamValue::Unchanged, text(&id)];
            let found = route.of_row(&row).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!(route.of_key([Some(id.as_bytes())].into_iter()), Ok(found), "copied and streamed alike");
            all = all.union(found);
        }
        assert_eq!(all, ShardSet::all(3));
    }

    #[test]
    fn rows_that_belong_nowhere_are_told() {
        let check = |row: &[StreamValue], expect| assert_eq!(by_key().of_row(row), Err(expect), "{row:?}");
        check(&[text("1"), StreamValue::Unchanged], RouteProblem::Missing);
        check(&[text("1")], RouteProblem::Missing);
        check(&[text("1"), text("x")], RouteProblem::Unreadable);
    }

    #[test]
    fn whole_tables_go_where_they_are_whole() {
        let map = ShardMap { shards: vec!["a".into(), "b".into()], ..ShardMap::default() };
        let of = |place| RowRoute::of(&place, &map, Vec::new()).of_row(&[]).unwrap();
        assert_eq!(of(TablePlace::Reference), ShardSet::all(2));
        assert_eq!(of(TablePlace::Single(1)), ShardSet::one(1));
    }
}
