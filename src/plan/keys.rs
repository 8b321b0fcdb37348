//! Which shards the rows that a statement touches can be on: from constants that its key columns must equal.

use super::model::{Constant, Instance, NodeId};
use super::scope::Reader;
use super::steps::{KeyCondition, KeyTerm};
use crate::shard::{ShardSet, ShardedTable, TablePlace};
use std::collections::HashSet;

/// Combinations of a composite key's values beyond which every shard is asked.
const COMBINATIONS_MAX: usize = 1000;

impl Reader<'_> {
    /// The shards of all tables together: if that is one, the statement needs no other.
    pub(super) fn statement_condition(&self) -> KeyCondition {
        let mut parts: Vec<KeyCondition> = Vec::new();
        for instance in &self.instances {
            match &instance.place {
                TablePlace::Reference => {}
                _ => {
                    let condition = self.condition_of(instance);
                    if !parts.contains(&condition) {
                        parts.push(condition);
                    }
                }
            }
        }
        if parts.contains(&KeyCondition::All) {
            return KeyCondition::All;
        }
        one_or(parts, KeyCondition::Union)
    }

    /// Where the rows of one table that matter can be.
    pub(super) fn condition_of(&self, instance: &Instance) -> KeyCondition {
        match &instance.place {
            TablePlace::Reference => KeyCondition::Shards(ShardSet::NONE),
            TablePlace::Single(shard) => KeyCondition::Shards(ShardSet::one(*shard)),
            TablePlace::Sharded(table) => match instance.key() {
                Some(key) => self.key_condition(table, &key),
                None => KeyCondition::All,
            },
        }
    }

    fn key_condition(&self, table: &ShardedTable, key: &[NodeId]) -> KeyCondition {
        let sources: Vec<HashSet<NodeId>> = key.iter().map(|node| self.sources(*node)).collect();
        let mut parts: Vec<KeyCondition> = Vec::new();
        let mut add = |rows: Vec<Vec<KeyTerm>>| {
            let keys = rows.into_iter().map(|values| KeyCondition::Key { table: table.table.clone(), values }).collect();
            let condition = one_or(keys, KeyCondition::Union);
            if !parts.contains(&condition) {
                parts.push(condition);
            }
        };
        for constant in &self.constants {
            if let Some(rows) = rows_for_key(constant, &sources) {
                add(rows);
            }
        }
        if sources.len() > 1
            && let Some(rows) = self.combinations(&sources)
        {
            add(rows);
        }
        if parts.is_empty() { KeyCondition::All } else { one_or(parts, KeyCondition::Intersection) }
    }

    /// A composite key whose columns have constants of their own.
    fn combinations(&self, sources: &[HashSet<NodeId>]) -> Option<Vec<Vec<KeyTerm>>> {
        let mut rows: Vec<Vec<KeyTerm>> = vec![Vec::new()];
        for column in sources {
            let known =
                self.constants.iter().find(|constant| matches!(constant.nodes.as_slice(), [node] if column.contains(node)))?;
            if rows.len() * known.rows.len() > COMBINATIONS_MAX {
                return None;
            }
            rows = rows
                .iter()
                .flat_map(|row| known.rows.iter().map(move |value| row.iter().chain(value).cloned().collect()))
                .collect();
        }
        Some(rows)
    }

    /// The columns whose values a column has.
    fn sources(&self, node: NodeId) -> HashSet<NodeId> {
        let mut set = HashSet::from([node]);
        let mut open = vec![node];
        while let Some(at) = open.pop() {
            for (from, _) in self.edges.iter().filter(|(_, to)| *to == at) {
                if set.insert(*from) {
                    open.push(*from);
                }
            }
        }
        set
    }
}

/// A constant's rows in the order of the key, if it has a value for each of its columns.
fn rows_for_key(constant: &Constant, sources: &[HashSet<NodeId>]) -> Option<Vec<Vec<KeyTerm>>> {
    let places: Vec<usize> =
        sources.iter().map(|column| constant.nodes.iter().position(|node| column.contains(node))).collect::<Option<_>>()?;
    let pick = |row: &Vec<KeyTerm>| places.iter().map(|place| row.get(*place).cloned()).collect::<Option<Vec<_>>>();
    constant.rows.iter().map(pick).collect()
}

/// The only one, or all of them.
fn one_or(mut parts: Vec<KeyCondition>, all: impl Fn(Vec<KeyCondition>) -> KeyCondition) -> KeyCondition {
    match parts.len() {
        1 => parts.remove(0),
        _ => all(parts),
    }
}
