//! UPDATE that sets the key of a sharded table: rows may have to move to other shards.
//!
//! The rows are locked and their new values computed where they are. Those that stay are changed by the statement itself; the others are
//! deleted there and inserted where they belong. So what happens at a deletion or insertion must be what happens at a change: no triggers, no
//! foreign keys to the table, no row security.

use super::change::{assigned, has_queries};
use super::collect::Found;
use super::conditions::{peel, term};
use super::functions::FunctionKind;
use super::schema::{ColumnDefinition, DefaultKind, Schema, TableDefinition};
use super::steps::{KeyCondition, KeyTerm, MovePlan, SplitInsert};
use super::tree::quoted;
use crate::shard::ShardedTable;
use sqlparser::ast::{Assignment, Expr, SelectItem, TableFactor, TableWithJoins, Value};
use std::collections::HashMap;

/// Columns of the rows that are read before those of the key: which table, and where in it.
const PLACES: usize = 2;

/// An UPDATE of a sharded table that sets its key.
pub(super) struct KeyChange<'c> {
    pub(super) target: &'c TableWithJoins,
    pub(super) condition: Option<&'c Expr>,
    pub(super) assignments: &'c [Assignment],
    pub(super) returning: Option<&'c Vec<SelectItem>>,
    pub(super) kinds: &'c [FunctionKind],
    pub(super) table: &'c ShardedTable,
    pub(super) definition: &'c TableDefinition,
    pub(super) schema: &'c Schema,
}

impl KeyChange<'_> {
    /// The shards of the rows as they are and as they will be.
    pub(super) fn all_shards(&self, now: &KeyCondition) -> KeyCondition {
        let Ok(values) = self.new_values() else { return KeyCondition::All };
        if *now == KeyCondition::All {
            return KeyCondition::All;
        }
        let key: Option<Vec<KeyTerm>> = self.table.key.iter().map(|column| term(values.get(column.as_str())?)).collect();
        match key {
            Some(values) => {
                KeyCondition::Union(vec![now.clone(), KeyCondition::Stored { table: self.table.table.clone(), values }])
            }
            None => KeyCondition::All,
        }
    }

    /// How the rows are moved, or why they can't be.
    pub(super) fn plan(&self, shards: KeyCondition) -> Result<MovePlan, String> {
        if self.definition.triggers {
            return Err("a row of a table with triggers or rules cannot be moved to another shard".to_owned());
        }
        if self.definition.guarded {
            return Err(
                "a row of a table to which foreign keys refer, or with row security, cannot be moved to another shard".to_owned()
            );
        }
        if !self.kinds.iter().all(|kind| matches!(kind, FunctionKind::Plain | FunctionKind::Clock)) {
            return Err("the new key of a row must be the same whenever it is computed".to_owned());
        }
        let TableFactor::Table { name, alias, .. } = &self.target.relation else {
            return Err("the key of a sharded table cannot be changed".to_owned());
        };
        let own = name.0.last().map(ToString::to_string).unwrap_or_default();
        let called = alias.as_ref().map_or(own, |alias| alias.name.to_string());
        if self.returning.is_some_and(|list| has_queries(list) || has_parameters(list)) {
            return Err("RETURNING with a subquery or a parameter cannot be had of rows that move to other shards".to_owned());
        }
        let values = self.new_values()?;
        let mut list = vec![format!("{called}.tableoid"), format!("{called}.ctid")];
        for key in &self.table.key {
            let column = self.definition.column(key).ok_or("a key column is not known")?;
            list.push(match values.get(key.as_str()) {
                Some(value) => format!("CAST({value} AS {})", column.type_name),
                None => format!("{called}.{}", quoted(key)),
            });
        }
        let columns: Vec<&ColumnDefinition> =
            self.definition.columns.iter().filter(|column| column.default != DefaultKind::Generated).collect();
        for column in &columns {
            list.push(match values.get(column.name.as_str()) {
                Some(value) => self.as_assigned(value, column)?,
                None => format!("{called}.{}", quoted(&column.name)),
            });
        }
        let target = self.target;
        let condition = self.condition.map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
        let before = self.condition.map(|condition| format!("({condition}) AND ")).unwrap_or_default();
        let assignments: Vec<String> = self.assignments.iter().map(ToString::to_string).collect();
        let shown: Vec<String> = self.returning.into_iter().flatten().map(ToString::to_string).collect();
        let returning = if shown.is_empty() { String::new() } else { format!(" RETURNING {}", shown.join(", ")) };
        let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
        let alias = alias.as_ref().map(|alias| format!(" AS {}", alias.name)).unwrap_or_default();
        Ok(MovePlan {
            shards,
            select: format!("SELECT {} FROM {target}{condition} FOR UPDATE", list.join(", ")),
            update: (format!("UPDATE {target} SET {} WHERE {before}", assignments.join(", ")), returning.clone()),
            delete: format!("DELETE FROM {target} WHERE "),
            called,
            insert: SplitInsert {
                table: self.table.table.clone(),
                head: format!("INSERT INTO {name}{alias} ({}) OVERRIDING SYSTEM VALUE VALUES ", names.join(", ")),
                rows: Vec::new(),
                keys: Vec::new(),
                key_columns: (PLACES..PLACES + self.table.key.len()).collect(),
                tail: returning,
                returns: !shown.is_empty(),
            },
        })
    }

    /// What columns are set to.
    fn new_values(&self) -> Result<HashMap<String, &Expr>, String> {
        let mut values = HashMap::new();
        for assignment in self.assignments {
            let columns = assigned(assignment);
            let parts: Vec<&Expr> = match (columns.len(), &assignment.value) {
                (1, value) => vec![value],
                (count, Expr::Tuple(parts)) if parts.len() == count => parts.iter().collect(),
                _ => return Err("an assignment of this form cannot change the key of a sharded table".to_owned()),
            };
            for (column, value) in columns.into_iter().zip(parts) {
                if matches!(peel(value), Expr::Identifier(name) if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("default"))
                {
                    return Err("DEFAULT cannot be given to a column of a row that moves to another shard".to_owned());
                }
                if has_queries(value) {
                    return Err("a subquery cannot be used where the key of a sharded table is changed".to_owned());
                }
                values.insert(column, value);
            }
        }
        Ok(values)
    }

    /// A value as it is handed to an INSERT, which converts it to the column's type as UPDATE would. What has no type of its own gets the
    /// column's, without its length: a text that is too long must not be cut by the cast.
    fn as_assigned(&self, value: &Expr, column: &ColumnDefinition) -> Result<String, String> {
        if !is_untyped(value) {
            return Ok(value.to_string());
        }
        let name = self.schema.type_name(column.type_oid, -1).ok_or("the type of a column is not known")?;
        Ok(format!("CAST({value} AS {name})"))
    }
}

/// Whether a value gets its type from what is done with it: a text in quotes, NULL, a parameter.
pub(super) fn is_untyped(value: &Expr) -> bool {
    matches!(peel(value), Expr::Value(value) if !matches!(value.value, Value::Number(..) | Value::Boolean(_)))
}

fn has_parameters(list: &[SelectItem]) -> bool {
    let parameter = |item: &SelectItem| item.to_string().contains('$');
    list.iter().any(parameter) || Found::within(&list.to_vec()).special
}
