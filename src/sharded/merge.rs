//! Rows of several shards in one order: merged as they come where pgyard can compare them, else sorted by one shard over what all of them
//! answered.

use super::gather::{LegPortal, WHOLE_ANSWER, window};
use super::own_types::portable_types;
use super::partial_rows::{PartialRows, TEXT_ARRAY, described_names, described_types};
use super::planning::{BoundParameters, QueryDescription};
use super::session::ShardedSession;
use super::several::Question;
use super::stream::{RowStream, StreamOrder, StreamSource};
use super::trouble::Trouble;
use crate::gather::{MergeKey, SortSession, SortType};
use crate::plan::{Combine, GatherPlan, Partial, SortKey};
use crate::wire::frame::put_message;
use crate::wire::parse::ParseMessage;
use std::sync::Arc;

/// A statement whose rows are to be sorted.
#[derive(Clone, Copy)]
struct SortedRows<'a> {
    /// What the shards are asked.
    partial: &'a Partial,
    keys: &'a [SortKey],
    /// Columns at the end that are not shown.
    hidden: usize,
    /// OFFSET and LIMIT as SQL.
    clause: &'a str,
}

/// What of the servers' settings decides how values are compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct SortSettings {
    session: SortSession,
    /// The shards' databases are in UTF-8.
    utf8: bool,
}

/// What decides it.
const SORT_SETTINGS: &str = "SELECT pg_catalog.current_setting('DateStyle'), pg_catalog.current_setting('bytea_output'), \
     pg_catalog.current_setting('extra_float_digits'), pg_catalog.current_setting('client_encoding'), \
     pg_catalog.current_setting('server_encoding')";

impl ShardedSession {
    /// Asks the shards for rows in one order.
    pub(super) async fn start_merge(
        &mut self,
        question: Question<'_>,
        plan: &GatherPlan,
        portal: LegPortal<'_>,
    ) -> Result<RowStream, Trouble> {
        let (Combine::Merge { keys, hidden, offset, limit, ties, otherwise }, Some(partial)) =
            (&plan.combine, plan.partials.first())
        else {
            return Ok(RowStream::nothing());
        };
        let window = window(offset, limit, *ties, question.parameters)?;
        let shards = self.shards_of(partial, question.parameters);
        let sorted = SortedRows { partial, keys, hidden: *hidden, clause: &window.clause() };
        if let Some((order, results)) = self.merge_order(question, shards[0], sorted).await? {
            self.database.metrics.gathered.increment();
            let parameters = question.parameters;
            let source = StreamSource { shards, sql: &partial.sql, parameters, results: &results, order, window };
            return self.stream_of(question, source, portal).await;
        }
        match otherwise {
            Some(otherwise) => Box::pin(self.start(question, otherwise, portal)).await,
            None => self.sort_on_a_shard(question, sorted, portal).await,
        }
    }

    /// The order by which pgyard itself can merge the shards' rows, and the formats in which it needs them; `None` if it can't compare them.
    async fn merge_order(
        &mut self,
        question: Question<'_>,
        shard: usize,
        sorted: SortedRows<'_>,
    ) -> Result<Option<(StreamOrder, Vec<i16>)>, Trouble> {
        let description = self.described(question, shard, &sorted.partial.sql).await?;
        let types: Vec<u32> = described_types(&description).into_iter().map(|(oid, _)| oid).collect();
        let results = formats(question.results, types.len(), sorted.hidden);
        let settings = self.sort_settings(question, shard).await?;
        let schema = self.database.schema().get();
        let database = schema.as_ref().map_or("", |schema| schema.database_collation());
        let mut order = StreamOrder { hidden: sorted.hidden, ..StreamOrder::default() };
        for key in sorted.keys {
            let Some(&oid) = types.get(key.column) else { return Ok(None) };
            let binary = results.get(key.column).or(results.first().filter(|_| results.len() == 1)) == Some(&1);
            let bytewise = is_bytewise(key.collation.as_deref(), database, settings.utf8);
            let Some(kind) = SortType::of(oid, binary, bytewise, settings.session) else { return Ok(None) };
            let SortKey { column, descending, nulls_first, .. } = *key;
            order.keys.push(MergeKey { column, kind, binary, descending, nulls_first });
            order.types.push(oid);
        }
        Ok(Some((order, results)))
    }

    /// The body of a query's RowDescription, as a shard says; asked for once.
    pub(super) async fn described(&mut self, question: Question<'_>, shard: usize, sql: &str) -> Result<Arc<[u8]>, Trouble> {
        let parameters = portable_types(sql, question.parameters);
        if let Some(known) = self.plans.described.get(sql)
            && *known.parameters == *parameters
        {
            return Ok(known.rows.clone());
        }
        self.enter(shard, question.writes()).await?;
        let mut definition = sql.as_bytes().to_vec();
        definition.push(0);
        definition.extend_from_slice(&(parameters.len() as u16).to_be_bytes());
        parameters.iter().for_each(|oid| definition.extend_from_slice(&oid.to_be_bytes()));
        let mut messages = Vec::new();
        ParseMessage::put(&mut messages, b"", &definition);
        put_message(&mut messages, b'D', |body| body.extend_from_slice(b"S\0"));
        put_message(&mut messages, b'S', |_| {});
        let leg = self.leg(shard);
        leg.statements.remove(&b""[..]);
        leg.send(&messages);
        let answer = self.finish(shard, false).await?.check()?;
        let rows: Arc<[u8]> = answer.description.unwrap_or_default().into();
        let description = QueryDescription { parameters: parameters.into(), rows: rows.clone() };
        self.plans.described.insert(sql.into(), description);
        Ok(rows)
    }

    /// How servers write values in this session; asked for once, and again after a SET.
    async fn sort_settings(&mut self, question: Question<'_>, shard: usize) -> Result<SortSettings, Trouble> {
        let version = self.sets.version();
        let settled = self.sets.in_transaction().is_empty();
        if let Some((known, settings)) = self.plans.sorting
            && known == version
            && settled
        {
            return Ok(settings);
        }
        self.enter(shard, question.writes()).await?;
        self.put_question(shard, SORT_SETTINGS, (None, &[]), WHOLE_ANSWER);
        let rows = self.bring(&[shard], &mut 0).await?.rows();
        let text = |place: usize| {
            let value = rows.first().and_then(|row| row.get(place)?.as_deref()).unwrap_or_default();
            String::from_utf8_lossy(value).into_owned()
        };
        let (client, server) = (text(3), text(4));
        let session = SortSession {
            iso_dates: text(0).starts_with("ISO"),
            hex_bytea: text(1) == "hex",
            exact_floats: text(2).parse::<i32>().is_ok_and(|digits| digits >= 1),
            stored_encoding: client == server || client == "SQL_ASCII" || server == "SQL_ASCII",
        };
        let settings = SortSettings { session, utf8: server == "UTF8" };
        if settled {
            self.plans.sorting = Some((version, settings));
        }
        Ok(settings)
    }

    /// Has one shard sort the rows of all.
    async fn sort_on_a_shard(
        &mut self,
        question: Question<'_>,
        wanted: SortedRows<'_>,
        portal: LegPortal<'_>,
    ) -> Result<RowStream, Trouble> {
        self.database.metrics.finished.increment();
        let shards = self.shards_of(wanted.partial, question.parameters);
        self.ask_all(&shards, &wanted.partial.sql, question, &[]).await?;
        let mut rows = self.bring(&shards, &mut 0).await?;
        self.in_terms_of_the_schema(&mut rows, (shards[0], &wanted.partial.sql), question.parameters).await?;
        let sql = self.sorting_query(&rows, wanted)?;
        let arrays = rows.arrays();
        drop(rows);
        let types = vec![TEXT_ARRAY; arrays.len()];
        let values: Vec<(Option<Vec<u8>>, bool)> = arrays.into_iter().map(|array| (Some(array), true)).collect();
        let parameters = BoundParameters { types: &types, values: &values };
        self.finishing_answer(question, &sql, parameters, portal).await
    }

    fn sorting_query(&self, rows: &PartialRows, wanted: SortedRows<'_>) -> Result<String, Trouble> {
        let names = described_names(&rows.description);
        let inner: Vec<String> = (0..names.len()).map(|place| format!("m{place}")).collect();
        let source = self.rows_source(rows, 1, &inner, &[])?;
        let shown = names.iter().take(names.len().saturating_sub(wanted.hidden)).enumerate();
        let shown: Vec<String> = shown.map(|(place, name)| format!("m{place} AS \"{}\"", name.replace('"', "\"\""))).collect();
        let order: Vec<String> = wanted.keys.iter().map(order_item).collect();
        Ok(format!("SELECT {} FROM {source} AS r ORDER BY {}{}", shown.join(", "), order.join(", "), wanted.clause))
    }
}

/// The formats of all columns: those of the shown ones as they were asked for, those of the hidden ones binary, in which more can be compared.
fn formats(asked: &[i16], columns: usize, hidden: usize) -> Vec<i16> {
    let shown = columns.saturating_sub(hidden);
    if hidden == 0 || asked.len() > 1 && asked.len() != shown {
        return asked.to_vec();
    }
    let format = |column: usize| match asked {
        _ if column >= shown => 1,
        [] => 0,
        [all] => *all,
        each => each[column],
    };
    (0..columns).map(format).collect()
}

/// Whether texts under a collation are in the order of their bytes.
fn is_bytewise(collation: Option<&str>, database: &str, utf8: bool) -> bool {
    let by_code = |name: &str| matches!(name, "C.UTF-8" | "C.utf8" | "builtin:C.UTF-8" | "builtin:PG_UNICODE_FAST");
    match collation {
        Some("C" | "POSIX") => true,
        Some("ucs_basic") => utf8,
        Some("default") => matches!(database, "C" | "POSIX" | "builtin:C") || by_code(database) && utf8,
        _ => false,
    }
}

fn order_item(key: &SortKey) -> String {
    let collation = match key.collation.as_deref() {
        None | Some("default") => String::new(),
        Some(name) if name.contains('.') => format!(" COLLATE {name}"),
        Some(name) => format!(" COLLATE \"{name}\""),
    };
    let direction = if key.descending { " DESC" } else { "" };
    let nulls = if key.nulls_first { "FIRST" } else { "LAST" };
    format!("m{}{collation}{direction} NULLS {nulls}", key.column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_written_out() {
        let key = SortKey { column: 2, descending: true, nulls_first: false, collation: Some("C".to_owned()) };
        assert_eq!(order_item(&key), "m2 COLLATE \"C\" DESC NULLS LAST");
        let key = SortKey { column: 0, descending: false, nulls_first: true, collation: None };
        assert_eq!(order_item(&key), "m0 NULLS FIRST");
        let key = SortKey { column: 0, descending: false, nulls_first: true, collation: Some("\"x\".\"y\"".to_owned()) };
        assert_eq!(order_item(&key), "m0 COLLATE \"x\".\"y\" NULLS FIRST");
    }

    #[test]
    fn hidden_columns_come_in_binary() {
        assert!(formats(&[], 3, 0).is_empty());
        assert_eq!(formats(&[1], 3, 0), [1]);
        assert_eq!(formats(&[], 3, 1), [0, 0, 1]);
        assert_eq!(formats(&[1], 3, 2), [1, 1, 1]);
        assert_eq!(formats(&[0, 1], 3, 1), [0, 1, 1]);
        // The server says what is wrong.
        assert_eq!(formats(&[0, 1, 0], 3, 1), [0, 1, 0]);
    }

    #[test]
    fn collations_in_the_order_of_bytes() {
        for (collation, database, utf8, expect) in [
            (Some("C"), "en_US.UTF-8", true, true),
            (Some("default"), "C", false, true),
            (Some("default"), "C.UTF-8", true, true),
            (Some("default"), "C.UTF-8", false, false),
            (Some("default"), "en_US.UTF-8", true, false),
            (Some("default"), "icu:en-US", true, false),
            (Some("\"public\".\"C\""), "C", true, false),
            (None, "C", true, false),
        ] {
            assert_eq!(is_bytewise(collation, database, utf8), expect, "{collation:?} {database} {utf8}");
        }
    }
}
