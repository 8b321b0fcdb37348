//! A small executor of plans: what the sessions of a sharded database do, without their protocol.

use super::stage::{Rows, Stage, Table, run};
use pgyard::plan::{
    Binding, Combine, Finish, FinishPiece, GatherPlan, Plan, Planner, RowCount, SortKey, SplitInsert, WritePlan, key_columns,
};
use pgyard::shard::{KeySession, KeyUse, SentParameter, ShardSet, TablePlace};
use pgyard::sql::Lexing;
use std::cmp::Ordering;

/// What came of a statement.
#[derive(Debug)]
pub enum Outcome {
    /// Its rows, and how they were had.
    Answer(Table, &'static str),
    /// SQLSTATE and message.
    Failed(String),
    /// Why not.
    Refused(String),
}

impl Stage {
    /// The plan of a statement.
    pub fn plan(&self, sql: &str) -> Plan {
        let path = ["public".to_owned()];
        let (schema, catalogue, map) = (&self.schema, &self.catalogue, &self.map);
        Planner { schema, catalogue, map, search_path: &path, lexing: Lexing::default() }.plan(sql)
    }

    /// Plans and runs a statement over the shards; parameters are put in as literals.
    pub fn execute(&mut self, sql: &str, parameters: &[Option<&str>]) -> Outcome {
        let plan = self.plan(sql);
        match self.perform(&plan, sql, parameters) {
            Ok((table, how)) => Outcome::Answer(table, how),
            Err(reason) => match reason.strip_prefix("refused: ") {
                Some(reason) => Outcome::Refused(reason.to_owned()),
                None => Outcome::Failed(reason),
            },
        }
    }

    fn perform(&mut self, plan: &Plan, sql: &str, parameters: &[Option<&str>]) -> Result<(Table, &'static str), String> {
        match plan {
            Plan::Anywhere => Ok((self.ask(0, sql, parameters)?, "anywhere")),
            Plan::Confined { shards, several } => {
                let set = self.resolve(shards, parameters);
                if set.len() <= 1 {
                    return Ok((self.ask(set.only().unwrap_or(0), sql, parameters)?, "confined"));
                }
                self.perform(several, sql, parameters)
            }
            Plan::Gather(gather) => self.gather(gather, parameters),
            Plan::Everywhere => self.each(ShardSet::all(self.shards.len()), sql, parameters),
            Plan::Write(write) => self.write(write, sql, parameters),
            Plan::Copy(_) => Err("refused: COPY is for sessions".to_owned()),
            Plan::Refused(refusal) => Err(format!("refused: {}", refusal.reason)),
        }
    }

    fn resolve(&self, condition: &pgyard::plan::KeyCondition, parameters: &[Option<&str>]) -> ShardSet {
        let sent: Vec<SentParameter<'_>> =
            parameters.iter().map(|value| SentParameter { value: value.map(str::as_bytes), oid: 0, binary: false }).collect();
        condition.resolve(&self.schema, &self.map, &Binding { parameters: &sent, session: session() })
    }

    fn ask(&mut self, shard: usize, sql: &str, parameters: &[Option<&str>]) -> Result<Table, String> {
        run(&mut self.shards[shard], &with_literals(sql, parameters))
    }

    fn each(&mut self, set: ShardSet, sql: &str, parameters: &[Option<&str>]) -> Result<(Table, &'static str), String> {
        let mut all = Table::default();
        for shard in set.iter() {
            let answer = self.ask(shard, sql, parameters)?;
            all.types = answer.types;
            all.rows.extend(answer.rows);
        }
        Ok((all, "each"))
    }

    fn gather(&mut self, plan: &GatherPlan, parameters: &[Option<&str>]) -> Result<(Table, &'static str), String> {
        let mut answers: Vec<(Table, Vec<Rows>)> = Vec::new();
        for partial in &plan.partials {
            let mut set = self.resolve(&partial.shards, parameters);
            if set.is_empty() {
                set = ShardSet::one(2);
            }
            let mut table = Table::default();
            let mut sorted = Vec::new();
            for shard in set.iter() {
                let answer = self.ask(shard, &partial.sql, parameters).map_err(|error| format!("{error} in {}", partial.sql))?;
                table.types = answer.types;
                sorted.push(answer.rows.clone());
                table.rows.extend(answer.rows);
            }
            answers.push((table, sorted));
        }
        match &plan.combine {
            Combine::Concat { offset, limit } => {
                let (mut table, _) = answers.remove(0);
                table.rows = cut(table.rows, offset, limit, parameters);
                Ok((table, "concat"))
            }
            Combine::Merge { keys, hidden, offset, limit, ties, otherwise } => {
                let (mut table, sorted) = answers.remove(0);
                if !keys.iter().all(|key| mergeable(key, table.types[key.column].0, self.schema.database_collation())) {
                    let Some(otherwise) = otherwise else { return Err("refused: no order".to_owned()) };
                    return self.gather(otherwise, parameters);
                }
                let types: Vec<u32> = table.types.iter().map(|(oid, _)| *oid).collect();
                table.rows = merge(sorted, keys, &types);
                if let (true, Some(limit @ 1..)) = (*ties, count(limit, parameters)) {
                    let mut end = count(offset, parameters).unwrap_or(0) + limit;
                    let tied = |end: usize, rows: &Rows| compare(&rows[end], &rows[end - 1], keys, &types) == Ordering::Equal;
                    while end < table.rows.len() && tied(end, &table.rows) {
                        end += 1;
                    }
                    table.rows.truncate(end);
                }
                let shown = table.types.len() - hidden;
                table.types.truncate(shown);
                table.rows.iter_mut().for_each(|row| row.truncate(shown));
                let limit = if *ties && count(limit, parameters) > Some(0) { &RowCount::None } else { limit };
                table.rows = cut(table.rows, offset, limit, parameters);
                Ok((table, "merge"))
            }
            Combine::Finish(finish) => {
                let tables: Vec<Table> = answers.into_iter().map(|(table, _)| table).collect();
                let sql = self.finishing(finish, &tables)?;
                let brought = sql.contains("\"pgyard_0\"");
                let answer = self.ask(1, &sql, parameters).map_err(|error| format!("{error} in {sql}"))?;
                Ok((answer, if brought { "bring" } else { "finish" }))
            }
        }
    }

    fn finishing(&self, finish: &Finish, tables: &[Table]) -> Result<String, String> {
        let type_name = |partial: usize, column: usize| {
            let (oid, modifier) = tables[partial].types[column];
            self.schema.type_name(oid, modifier).ok_or_else(|| format!("type {oid} {modifier} is not known"))
        };
        let mut sql = String::new();
        for piece in &finish.pieces {
            match piece {
                FinishPiece::Sql(text) => sql.push_str(text),
                FinishPiece::Type { partial, column } => sql.push_str(&type_name(*partial, *column)?),
                FinishPiece::Rows { partial, columns, collations } => {
                    let rows = &tables[*partial].rows;
                    if columns.is_empty() {
                        sql.push_str(&format!("(SELECT FROM generate_series(1, {}))", rows.len()));
                        continue;
                    }
                    assert_eq!(tables[*partial].types.len(), columns.len(), "{finish:?}");
                    let mut list = Vec::new();
                    let mut arrays = Vec::new();
                    for (place, (name, collation)) in columns.iter().zip(collations).enumerate() {
                        let collate = collation.as_ref().map(|name| format!(" COLLATE {name}")).unwrap_or_default();
                        list.push(format!("CAST(u{place} AS {}){collate} AS {name}", type_name(*partial, place)?));
                        let values: Vec<String> = rows.iter().map(|row| literal(row[place].as_deref())).collect();
                        arrays.push(format!("ARRAY[{}]::text[]", values.join(", ")));
                    }
                    let names: Vec<String> = (0..columns.len()).map(|place| format!("u{place}")).collect();
                    sql.push_str(&format!(
                        "(SELECT {} FROM unnest({}) AS u({}))",
                        list.join(", "),
                        arrays.join(", "),
                        names.join(", ")
                    ));
                }
            }
        }
        Ok(sql)
    }

    fn write(&mut self, plan: &WritePlan, sql: &str, parameters: &[Option<&str>]) -> Result<(Table, &'static str), String> {
        match plan {
            WritePlan::Each { shards } => self.each(self.resolve(shards, parameters), sql, parameters),
            WritePlan::Copies => {
                for shard in 1..self.shards.len() {
                    self.ask(shard, sql, parameters)?;
                }
                Ok((self.ask(0, sql, parameters)?, "copies"))
            }
            WritePlan::Split(insert) => {
                let keys: Vec<usize> = insert.keys.iter().map(|key| self.place(insert, key, parameters)).collect();
                self.split(insert, &insert.rows, &keys, parameters)
            }
            WritePlan::InsertRows { select, select_sql, insert } => {
                let (answer, _) = self.perform(select, select_sql, parameters)?;
                let mut rows = Vec::new();
                let mut keys = Vec::new();
                for row in answer.rows {
                    let values: Vec<String> = row.iter().map(|value| literal(value.as_deref())).collect();
                    rows.push(format!("({})", values.join(", ")));
                    let texts: Vec<Option<String>> = insert.key_columns.iter().map(|place| row[*place].clone()).collect();
                    keys.push(self.place_of(insert, &texts));
                }
                self.split(insert, &rows, &keys, &[])
            }
            WritePlan::Move(_) => Err("refused: rows that move are for sessions".to_owned()),
            WritePlan::FirstThenCopy { returning, table, columns } => {
                let answer = self.ask(0, returning, parameters)?;
                for row in &answer.rows {
                    let copied = &row[row.len() - columns.len()..];
                    let values: Vec<String> = copied.iter().map(|value| literal(value.as_deref())).collect();
                    let insert = format!(
                        "INSERT INTO {table} ({}) OVERRIDING SYSTEM VALUE VALUES ({})",
                        columns.join(", "),
                        values.join(", ")
                    );
                    for shard in 1..self.shards.len() {
                        run(&mut self.shards[shard], &insert)?;
                    }
                }
                Ok((Table::default(), "first, then copies"))
            }
        }
    }

    fn place(&self, insert: &SplitInsert, key: &[pgyard::plan::KeyTerm], parameters: &[Option<&str>]) -> usize {
        let condition = pgyard::plan::KeyCondition::Stored { table: insert.table.clone(), values: key.to_vec() };
        self.resolve(&condition, parameters).only().unwrap_or_else(|| panic!("{key:?} leads to no shard"))
    }

    fn place_of(&self, insert: &SplitInsert, key: &[Option<String>]) -> usize {
        let Some(TablePlace::Sharded(table)) = self.map.place(&insert.table) else { panic!("{:?}", insert.table) };
        let columns = key_columns(table, &self.schema).unwrap();
        let values: Vec<_> = columns
            .iter()
            .zip(key)
            .map(|(column, text)| column.constant(text.as_deref(), None, KeyUse::Stored, session()).unwrap())
            .collect();
        table.shard_of(&values).unwrap()
    }

    fn split(
        &mut self,
        insert: &SplitInsert,
        rows: &[String],
        places: &[usize],
        parameters: &[Option<&str>],
    ) -> Result<(Table, &'static str), String> {
        let mut all = Table::default();
        for shard in 0..self.shards.len() {
            let own: Vec<&str> =
                rows.iter().zip(places).filter(|(_, place)| **place == shard).map(|(row, _)| row.as_str()).collect();
            if !own.is_empty() {
                let sql = format!("{}{}{}", insert.head, own.join(", "), insert.tail);
                let answer = self.ask(shard, &sql, parameters).map_err(|error| format!("{error} in {sql}"))?;
                all.types = answer.types;
                all.rows.extend(answer.rows);
            }
        }
        Ok((all, "split"))
    }
}

fn session() -> KeySession {
    KeySession::new("UTC", "UTF8", "UTF8")
}

/// A value as an SQL literal.
pub fn literal(value: Option<&str>) -> String {
    match value {
        Some(text) if text.contains('\\') => format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''")),
        Some(text) => format!("'{}'", text.replace('\'', "''")),
        None => "NULL".to_owned(),
    }
}

/// `$1` becomes a literal. The statements of these tests have no `$` elsewhere.
pub fn with_literals(sql: &str, parameters: &[Option<&str>]) -> String {
    let mut sql = sql.to_owned();
    for (place, value) in parameters.iter().enumerate().rev() {
        sql = sql.replace(&format!("${}", place + 1), &literal(*value));
    }
    sql
}

fn count(bound: &RowCount, parameters: &[Option<&str>]) -> Option<usize> {
    match bound {
        RowCount::None => None,
        RowCount::Number(number) => Some(usize::try_from(*number).unwrap()),
        RowCount::Parameter(number) => parameters[number - 1].map(|text| text.parse().unwrap()),
    }
}

fn cut(rows: Rows, offset: &RowCount, limit: &RowCount, parameters: &[Option<&str>]) -> Rows {
    let (offset, limit) = (count(offset, parameters).unwrap_or(0), count(limit, parameters).unwrap_or(usize::MAX));
    rows.into_iter().skip(offset).take(limit).collect()
}

fn mergeable(key: &SortKey, oid: u32, database: &str) -> bool {
    match oid {
        16 | 20 | 21 | 23 | 1082 => true,
        25 | 1043 => match key.collation.as_deref() {
            Some("C") => true,
            Some("default") => matches!(database, "C" | "POSIX"),
            _ => false,
        },
        _ => false,
    }
}

fn compare(left: &[Option<String>], right: &[Option<String>], keys: &[SortKey], types: &[u32]) -> Ordering {
    for key in keys {
        let order = match (&left[key.column], &right[key.column]) {
            (None, None) => continue,
            (None, Some(_)) if key.nulls_first => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) if key.nulls_first => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(left), Some(right)) => {
                let order = match types[key.column] {
                    20 | 21 | 23 => left.parse::<i64>().unwrap().cmp(&right.parse().unwrap()),
                    _ => left.cmp(right),
                };
                if key.descending { order.reverse() } else { order }
            }
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

fn merge(parts: Vec<Rows>, keys: &[SortKey], types: &[u32]) -> Rows {
    for part in &parts {
        assert!(
            part.is_sorted_by(|left, right| compare(left, right, keys, types) != Ordering::Greater),
            "a shard's rows are not sorted"
        );
    }
    let mut heads: Vec<_> = parts.into_iter().map(|part| part.into_iter().peekable()).collect();
    let mut rows = Vec::new();
    loop {
        let mut best: Option<usize> = None;
        for place in 0..heads.len() {
            let Some(row) = heads[place].peek().cloned() else { continue };
            let better = match best {
                Some(best) => compare(&row, heads[best].peek().unwrap(), keys, types) == Ordering::Less,
                None => true,
            };
            if better {
                best = Some(place);
            }
        }
        let Some(best) = best else { return rows };
        rows.extend(heads[best].next());
    }
}
