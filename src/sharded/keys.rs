//! Which shards the rows of a condition can be on, once the parameters are known.

use super::planning::BoundParameters;
use crate::plan::{KeyCondition, KeyTerm, Schema};
use crate::shard::key::{KeyColumn, KeyType, KeyValue};
use crate::shard::reading::{KeySession, KeyUse, SentParameter};
use crate::shard::{QualifiedName, ShardMap, ShardSet, ShardedTable, TablePlace};

/// Keys that one condition may stand for: several lists are combined.
const KEYS_MAX: usize = 10_000;

/// What keys are read with.
#[derive(Clone, Copy)]
pub struct KeyReading<'a> {
    /// Where rows are.
    pub map: &'a ShardMap,
    /// The types of the key columns.
    pub schema: &'a Schema,
    /// The statement's parameters.
    pub parameters: Option<BoundParameters<'a>>,
    /// How the session's values are read.
    pub session: KeySession,
}

impl KeyReading<'_> {
    /// The shards that can hold rows which meet a condition. What can't be read means every shard.
    pub fn shards(&self, condition: &KeyCondition) -> ShardSet {
        match condition {
            KeyCondition::All => self.map.all(),
            KeyCondition::Shards(shards) => *shards,
            KeyCondition::Key { table, values } => self.of_key(table, values).unwrap_or(self.map.all()),
            KeyCondition::Union(parts) => parts.iter().map(|part| self.shards(part)).fold(ShardSet::NONE, ShardSet::union),
            KeyCondition::Intersection(parts) => {
                parts.iter().map(|part| self.shards(part)).fold(self.map.all(), ShardSet::intersection)
            }
        }
    }

    fn of_key(&self, table: &QualifiedName, values: &[KeyTerm]) -> Option<ShardSet> {
        let (sharded, columns) = self.table(table)?;
        let mut keys: Vec<Vec<KeyValue>> = vec![Vec::new()];
        for (term, column) in values.iter().zip(&columns) {
            let found = self.values(term, *column, KeyUse::Compared)?;
            if keys.len() * found.len() > KEYS_MAX {
                return None;
            }
            // Nothing equals NULL.
            let found = found.iter().filter(|value| !value.is_null());
            keys = found.flat_map(|value| keys.iter().map(|key| [key.as_slice(), std::slice::from_ref(value)].concat())).collect();
        }
        // A key that no shard takes is the key of no row.
        Some(keys.iter().filter_map(|key| sharded.shard_of(key)).fold(ShardSet::NONE, ShardSet::with))
    }

    /// The shard of a row that is to be stored; `None` when its key can't be read, `Some(None)` when no shard takes it.
    pub fn of_row(&self, table: &QualifiedName, key: &[KeyTerm]) -> Option<Option<usize>> {
        let (sharded, columns) = self.table(table)?;
        let value = |(term, column): (&KeyTerm, &KeyColumn)| self.values(term, *column, KeyUse::Stored)?.pop();
        let values: Vec<KeyValue> = key.iter().zip(&columns).map(value).collect::<Option<_>>()?;
        (values.len() == columns.len()).then(|| sharded.shard_of(&values))
    }

    /// The same for values as a server sent them, as text, of these types.
    pub fn of_sent(&self, table: &QualifiedName, key: &[(Option<&[u8]>, u32)]) -> Option<Option<usize>> {
        let (sharded, columns) = self.table(table)?;
        let value = |((value, oid), column): (&(Option<&[u8]>, u32), &KeyColumn)| {
            column.parameter(SentParameter { value: *value, oid: *oid, binary: false }, KeyUse::Stored, self.session)
        };
        let values: Vec<KeyValue> = key.iter().zip(&columns).map(value).collect::<Option<_>>()?;
        (values.len() == columns.len()).then(|| sharded.shard_of(&values))
    }

    fn values(&self, term: &KeyTerm, column: KeyColumn, usage: KeyUse) -> Option<Vec<KeyValue>> {
        match term {
            KeyTerm::Constant { text, cast } => {
                column.constant(text.as_deref(), cast.as_deref(), usage, self.session).map(|value| vec![value])
            }
            KeyTerm::Parameter { number, any } => {
                let parameters = self.parameters?;
                let place = number.checked_sub(1)?;
                let (value, binary) = parameters.values.get(place)?;
                let oid = parameters.types.get(place).copied().unwrap_or(0);
                let sent = SentParameter { value: value.as_deref(), oid, binary: *binary };
                match any {
                    true => column.elements(sent, self.session),
                    false => column.parameter(sent, usage, self.session).map(|value| vec![value]),
                }
            }
        }
    }

    fn table(&self, name: &QualifiedName) -> Option<(&ShardedTable, Vec<KeyColumn>)> {
        let Some(TablePlace::Sharded(sharded)) = self.map.place(name) else { return None };
        let definition = self.schema.table(name)?;
        let column = |key: &String| {
            let column = definition.column(key)?;
            let kind = KeyType::from_oid(column.type_oid)?;
            column.deterministic.then(|| KeyColumn { kind, typmod: typmod(kind, &column.type_name) })
        };
        let columns: Vec<KeyColumn> = sharded.key.iter().map(column).collect::<Option<_>>()?;
        sharded.accepts(&columns).then_some((sharded, columns))
    }
}

/// A type's modifier out of its name: `character varying(20)`, `numeric(10,2)`.
///
/// Spec: `varchartypmodin` and `numerictypmodin` in `src/backend/utils/adt`.
fn typmod(kind: KeyType, name: &str) -> i32 {
    const HEADER: i32 = 4;
    let Some((_, rest)) = name.split_once('(') else { return -1 };
    let Some((inside, _)) = rest.split_once(')') else { return -1 };
    let numbers: Vec<i32> = inside.split(',').filter_map(|number| number.trim().parse().ok()).collect();
    match (kind, numbers.as_slice()) {
        (KeyType::Numeric, [precision]) => (precision << 16) + HEADER,
        (KeyType::Numeric, [precision, scale]) => (precision << 16 | (scale & 0x7ff)) + HEADER,
        (KeyType::Varchar | KeyType::BpChar, [length]) => length + HEADER,
        (_, [precision]) => *precision,
        _ => -1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modifiers_are_read_from_names() {
        assert_eq!(typmod(KeyType::Varchar, "character varying(20)"), 24);
        assert_eq!(typmod(KeyType::Numeric, "numeric(10,2)"), (10 << 16 | 2) + 4);
        assert_eq!(typmod(KeyType::Numeric, "numeric"), -1);
        assert_eq!(typmod(KeyType::Timestamp, "timestamp(3) without time zone"), 3);
    }
}
