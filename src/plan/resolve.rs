//! From a key condition to shards, when the parameters are known.

use super::schema::Schema;
use super::steps::{KeyCondition, KeyTerm};
use crate::shard::{
    KeyColumn, KeySession, KeyType, KeyUse, KeyValue, QualifiedName, SentParameter, ShardMap, ShardSet, ShardedTable, TablePlace,
};

/// Combinations of values beyond which every shard is asked.
const COMBINATIONS_MAX: usize = 4096;

/// What is known when a statement is run.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'b> {
    /// The parameters in their order.
    pub parameters: &'b [SentParameter<'b>],
    /// How the session's values are read.
    pub session: KeySession,
}

impl KeyCondition {
    /// The shards that can hold the rows. What cannot be read exactly as the key's type means every shard.
    pub fn resolve(&self, schema: &Schema, map: &ShardMap, binding: &Binding<'_>) -> ShardSet {
        match self {
            KeyCondition::All => map.all(),
            KeyCondition::Shards(shards) => *shards,
            KeyCondition::Key { table, values } => {
                key_shards((table, values, KeyUse::Compared), schema, map, binding).unwrap_or_else(|| map.all())
            }
            KeyCondition::Stored { table, values } => {
                key_shards((table, values, KeyUse::Stored), schema, map, binding).unwrap_or_else(|| map.all())
            }
            KeyCondition::Union(parts) => {
                parts.iter().fold(ShardSet::NONE, |shards, part| shards.union(part.resolve(schema, map, binding)))
            }
            KeyCondition::Intersection(parts) => {
                parts.iter().fold(map.all(), |shards, part| shards.intersection(part.resolve(schema, map, binding)))
            }
        }
    }
}

/// The columns of a table's key, as reading their values needs them.
pub fn key_columns(table: &ShardedTable, schema: &Schema) -> Option<Vec<KeyColumn>> {
    let definition = schema.table(&table.table)?;
    let column = |name: &String| {
        let column = definition.column(name)?;
        Some(KeyColumn { kind: KeyType::from_oid(column.type_oid)?, typmod: column.type_modifier })
    };
    table.key.iter().map(column).collect()
}

/// `None`: some value cannot be read.
fn key_shards(
    (table, terms, usage): (&QualifiedName, &[KeyTerm], KeyUse),
    schema: &Schema,
    map: &ShardMap,
    binding: &Binding<'_>,
) -> Option<ShardSet> {
    let Some(TablePlace::Sharded(table)) = map.place(table) else { return None };
    let columns = key_columns(table, schema)?;
    if columns.len() != terms.len() {
        return None;
    }
    let mut keys: Vec<Vec<KeyValue>> = vec![Vec::new()];
    for (column, term) in columns.into_iter().zip(terms) {
        let mut values = values(column, term, usage, binding)?;
        if usage == KeyUse::Compared {
            // No key equals NULL.
            values.retain(|value| !value.is_null());
        }
        if keys.len() * values.len() > COMBINATIONS_MAX {
            return None;
        }
        keys = keys.iter().flat_map(|key| values.iter().map(move |value| key.iter().chain([value]).cloned().collect())).collect();
    }
    // A key that no shard has, by the ranges or lists of its scheme, has no rows; it can't get one either.
    let mut places = keys.iter().map(|key| table.shard_of(key));
    match usage {
        KeyUse::Compared => Some(places.flatten().fold(ShardSet::NONE, ShardSet::with)),
        KeyUse::Stored => places.try_fold(ShardSet::NONE, |shards, place| Some(shards.with(place?))),
    }
}

fn values(column: KeyColumn, term: &KeyTerm, usage: KeyUse, binding: &Binding<'_>) -> Option<Vec<KeyValue>> {
    match term {
        KeyTerm::Constant { text, cast } => {
            Some(vec![column.constant(text.as_deref(), cast.as_deref(), usage, binding.session)?])
        }
        KeyTerm::Parameter { number, any } => {
            let parameter = *binding.parameters.get(number.checked_sub(1)?)?;
            if *any {
                column.elements(parameter, binding.session)
            } else {
                Some(vec![column.parameter(parameter, usage, binding.session)?])
            }
        }
    }
}
