//! Plans in words, for people.

use super::resolve::Binding;
use super::schema::Schema;
use super::steps::{Combine, GatherPlan, KeyCondition, KeyTerm, Partial, Plan, RowCount, SortKey, WritePlan};
use crate::shard::{KeySession, ShardMap, ShardSet};

/// What a plan does, for a map.
#[derive(Clone, Copy, Debug)]
pub struct PlanWords<'a> {
    /// Its shards.
    pub map: &'a ShardMap,
    /// Its tables.
    pub schema: &'a Schema,
}

impl PlanWords<'_> {
    /// Which shards, and why; what is merged, and how: a line each.
    pub fn lines(&self, plan: &Plan) -> Vec<String> {
        match plan {
            Plan::Anywhere => vec!["any one shard answers: every shard has what it needs".to_owned()],
            Plan::Everywhere => vec!["every shard carries it out, all of them or none".to_owned()],
            Plan::Confined { shards, several } => self.confined(shards, several),
            Plan::Gather(gather) => self.gathered(gather),
            Plan::Write(write) => self.written(write),
            Plan::Copy(_) => {
                vec!["COPY over all shards: rows go to the shards of their keys, or come from all of them".to_owned()]
            }
            Plan::Refused(refusal) => vec![
                format!("the shards refuse it: {}", refusal.reason),
                "the coordinator answers it if there is one and it is a read; else it fails with 0A000".to_owned(),
            ],
        }
    }

    fn confined(&self, shards: &KeyCondition, several: &Plan) -> Vec<String> {
        let why = self.why(shards);
        match self.resolved(shards) {
            Some(set) if set.is_empty() => vec![format!("any one shard answers: no row can meet {why}")],
            Some(set) => match set.only() {
                Some(shard) => vec![format!("shard {} as it is: {why}", self.name(shard))],
                None => [vec![format!("{}: {why}", self.names(set))], self.lines(several)].concat(),
            },
            None => {
                let mut lines = vec![format!("the shard of {why}, when the parameters are known; if they lead to several:")];
                lines.extend(self.lines(several).into_iter().map(|line| format!("  {line}")));
                lines
            }
        }
    }

    fn gathered(&self, gather: &GatherPlan) -> Vec<String> {
        let mut lines: Vec<String> = gather.partials.iter().map(|partial| self.partial(partial)).collect();
        match &gather.combine {
            Combine::Concat { offset, limit } => {
                lines.push(format!("their rows are passed on one shard after the other{}", cut(offset, limit)));
            }
            Combine::Merge { keys, offset, limit, otherwise, .. } => {
                let keys: Vec<String> = keys.iter().map(sort_key).collect();
                lines.push(format!("their sorted rows are merged by {}{}", keys.join(", "), cut(offset, limit)));
                if otherwise.is_some() {
                    lines.push("one shard sorts them instead if that order is not one that pgyard can reproduce".to_owned());
                }
            }
            Combine::Finish(_) => lines.push("one shard's server finishes the answer over these rows".to_owned()),
        }
        lines
    }

    fn partial(&self, partial: &Partial) -> String {
        let shards = match (partial.one_is_enough, self.resolved(&partial.shards)) {
            (true, _) => "one shard".to_owned(),
            (false, Some(set)) => self.names(set),
            (false, None) => format!("the shards of {}", self.why(&partial.shards)),
        };
        format!("{shards}: {}", partial.sql)
    }

    fn written(&self, write: &WritePlan) -> Vec<String> {
        let first = self.name(0);
        let line = match write {
            WritePlan::Each { shards } => match self.resolved(shards) {
                Some(set) => format!("{} each change their own rows, all of them or none", self.names(set)),
                None => format!("the shards of {} each change their own rows, all of them or none", self.why(shards)),
            },
            WritePlan::Copies => "every shard changes its copy of the reference table alike, all of them or none".to_owned(),
            WritePlan::FirstThenCopy { .. } => {
                format!("shard {first} makes the rows of the reference table, and the other shards get copies of them")
            }
            WritePlan::Split(insert) => {
                format!("each of the {} rows goes to the shard of its key, all of them or none", insert.rows.len())
            }
            WritePlan::Move(plan) => {
                let shards = self.resolved(&plan.shards).map_or_else(|| self.why(&plan.shards), |set| self.names(set));
                format!(
                    "rows on {shards} whose new key belongs elsewhere are deleted there and inserted where they belong, all of them or none"
                )
            }
            WritePlan::InsertRows { select, select_sql, .. } => {
                let mut lines = vec![format!("rows are read: {select_sql}")];
                lines.extend(self.lines(select).into_iter().map(|line| format!("  {line}")));
                lines.push("each row goes to the shard of its key, all of them or none".to_owned());
                return lines;
            }
        };
        vec![line]
    }

    /// The shards of a condition without parameters.
    fn resolved(&self, condition: &KeyCondition) -> Option<ShardSet> {
        if has_parameters(condition) {
            return None;
        }
        let binding = Binding { parameters: &[], session: KeySession::new("UTC", "UTF8", "UTF8") };
        Some(condition.resolve(self.schema, self.map, &binding))
    }

    fn why(&self, condition: &KeyCondition) -> String {
        match condition {
            KeyCondition::All => "no key is given".to_owned(),
            KeyCondition::Shards(_) => "what it uses is there".to_owned(),
            KeyCondition::Key { table, values } | KeyCondition::Stored { table, values } => {
                let place = self.map.place(table);
                let columns = match place {
                    Some(crate::shard::TablePlace::Sharded(sharded)) => sharded.key.join(", "),
                    _ => String::new(),
                };
                let values: Vec<String> = values.iter().map(term).collect();
                format!("{}.{} ({columns}) = ({})", table.schema, table.name, values.join(", "))
            }
            KeyCondition::Union(parts) => parts.iter().map(|part| self.why(part)).collect::<Vec<_>>().join(" or "),
            KeyCondition::Intersection(parts) => parts.iter().map(|part| self.why(part)).collect::<Vec<_>>().join(" and "),
        }
    }

    fn name(&self, shard: usize) -> &str {
        self.map.shards.get(shard).map_or("", String::as_str)
    }

    fn names(&self, set: ShardSet) -> String {
        if set == self.map.all() {
            return "all shards".to_owned();
        }
        let names: Vec<&str> = set.iter().map(|shard| self.name(shard)).collect();
        format!("shards {}", names.join(", "))
    }
}

fn has_parameters(condition: &KeyCondition) -> bool {
    match condition {
        KeyCondition::All | KeyCondition::Shards(_) => false,
        KeyCondition::Key { values, .. } | KeyCondition::Stored { values, .. } => {
            values.iter().any(|value| matches!(value, KeyTerm::Parameter { .. }))
        }
        KeyCondition::Union(parts) | KeyCondition::Intersection(parts) => parts.iter().any(has_parameters),
    }
}

fn term(term: &KeyTerm) -> String {
    match term {
        KeyTerm::Constant { text: Some(text), .. } => text.clone(),
        KeyTerm::Constant { text: None, .. } => "NULL".to_owned(),
        KeyTerm::Parameter { number, any: false } => format!("${number}"),
        KeyTerm::Parameter { number, any: true } => format!("ANY (${number})"),
    }
}

fn sort_key(key: &SortKey) -> String {
    let direction = if key.descending { " descending" } else { "" };
    let nulls = if key.nulls_first { "first" } else { "last" };
    format!("column {}{direction}, nulls {nulls}", key.column + 1)
}

fn cut(offset: &RowCount, limit: &RowCount) -> String {
    let count = |count: &RowCount| match count {
        RowCount::None => None,
        RowCount::Number(number) => Some(number.to_string()),
        RowCount::Parameter(number) => Some(format!("${number}")),
    };
    let skipped = count(offset).map(|offset| format!(", without the first {offset}")).unwrap_or_default();
    let shown = count(limit).map(|limit| format!(", up to {limit} rows")).unwrap_or_default();
    format!("{skipped}{shown}")
}
