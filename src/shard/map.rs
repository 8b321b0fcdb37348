//! The map of a sharded database: its shards, and for each table where its rows are.

use super::key::{KeyColumn, KeyType, KeyValue};
use super::scheme::Scheme;
use std::collections::HashMap;
use std::sync::Arc;

/// Shards that one database may have: sets of them are sets of bits.
pub const SHARDS_MAX: usize = 64;

/// A set of shards, by their numbers in [`ShardMap::shards`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ShardSet(u64);

impl ShardSet {
    /// No shard.
    pub const NONE: ShardSet = ShardSet(0);

    /// The first `count` shards, at most [`SHARDS_MAX`].
    pub fn all(count: usize) -> Self {
        if count >= SHARDS_MAX { ShardSet(u64::MAX) } else { ShardSet((1 << count) - 1) }
    }

    /// One shard.
    pub fn one(shard: usize) -> Self {
        ShardSet(1 << shard)
    }

    /// This set and one more shard.
    #[must_use]
    pub fn with(self, shard: usize) -> Self {
        ShardSet(self.0 | 1 << shard)
    }

    /// What both hold.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        ShardSet(self.0 & other.0)
    }

    /// What either holds.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        ShardSet(self.0 | other.0)
    }

    /// Whether it holds this shard.
    pub fn contains(self, shard: usize) -> bool {
        self.0 >> shard & 1 == 1
    }

    /// How many it holds.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether it holds none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The only shard that it holds.
    pub fn only(self) -> Option<usize> {
        (self.len() == 1).then(|| self.0.trailing_zeros() as usize)
    }

    /// Its shards in ascending order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..SHARDS_MAX).filter(move |shard| self.contains(*shard))
    }
}

/// A table's name as the catalogue stores it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QualifiedName {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
}

/// Where a table's rows are.
#[derive(Clone, Debug, PartialEq)]
pub enum TablePlace {
    /// Each row is on the shard that its key says.
    Sharded(Arc<ShardedTable>),
    /// Every shard has all rows.
    Reference,
    /// One shard has all rows.
    Single(usize),
}

/// A table whose rows are spread by key.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardedTable {
    /// Its name.
    pub table: QualifiedName,
    /// The names of its key columns, in the order of the scheme.
    pub key: Vec<String>,
    /// Tables of one group with keys of the same types have rows of equal keys on the same shard.
    pub group: usize,
    /// The types of the key columns, where the settings say: ranges and lists need them. Else those of the table hold.
    pub types: Option<Vec<KeyType>>,
    /// Which shard a key belongs to.
    pub scheme: Scheme,
}

impl ShardedTable {
    /// The shard of the rows with this key; `None`: no shard takes such a key, so that no row has it and none can be given it.
    pub fn shard_of(&self, key: &[KeyValue]) -> Option<usize> {
        self.scheme.shard_of(key)
    }

    /// Whether the table's key columns are of types that the settings' bounds and lists can be compared with.
    pub fn accepts(&self, columns: &[KeyColumn]) -> bool {
        let fits = |types: &Vec<KeyType>| types.iter().zip(columns).all(|(kind, column)| kind.agrees_with(column.kind));
        columns.len() == self.key.len() && self.types.as_ref().is_none_or(fits)
    }
}

/// The shards of a database and the places of its tables.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardMap {
    /// The shards' names; a shard's number is its place here.
    pub shards: Vec<String>,
    /// The tables that the settings list.
    pub tables: HashMap<QualifiedName, TablePlace>,
    /// Where any other table is; `None`: statements that name one are refused.
    pub unlisted: Option<TablePlace>,
}

impl ShardMap {
    /// Every shard.
    pub fn all(&self) -> ShardSet {
        ShardSet::all(self.shards.len())
    }

    /// Where a table's rows are; `None` when the settings do not say.
    pub fn place(&self, table: &QualifiedName) -> Option<&TablePlace> {
        self.tables.get(table).or(self.unlisted.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_shards() {
        let set = ShardSet::one(3).with(0).with(63);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 3, 63]);
        assert_eq!(set.len(), 3);
        assert_eq!(set.only(), None);
        assert_eq!(set.intersection(ShardSet::all(3)).only(), Some(0));
        assert_eq!(ShardSet::all(64).len(), 64);
        assert_eq!(ShardSet::all(0), ShardSet::NONE);
        assert!(ShardSet::NONE.is_empty());
    }
}
