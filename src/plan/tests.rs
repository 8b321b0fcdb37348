//! Statements and what is done with them, without servers. Whether the answers are right is judged by the integration tests.

use super::{Binding, Combine, KeyCondition, Plan, Planner, Schema, SchemaRow, WritePlan};
use crate::shard::{KeySession, QualifiedName, Scheme, SentParameter, ShardMap, ShardSet, ShardedTable, TablePlace};
use crate::sql::{Catalogue, Lexing};
use std::sync::Arc;

fn row<const N: usize>(details: [&str; N]) -> SchemaRow {
    std::array::from_fn(|index| details.get(index).filter(|text| !text.is_empty()).map(|text| (*text).to_owned()))
}

fn schema() -> Schema {
    let mut rows = vec![row(["database", "C"]), row(["type", "23", "integer"])];
    for (table, columns) in
        [("t", &["k", "a", "b"][..]), ("u", &["k", "x"]), ("r", &["id", "name"]), ("single", &["id"]), ("unlisted", &["id"])]
    {
        rows.push(row(["table", "public", table, "r"]));
        rows.extend(columns.iter().map(|column| row(["column", "public", table, column, "23:-1", "integer"])));
    }
    rows.push(row(["primary", "public", "t", "k\u{1}a"]));
    Schema::from_rows(rows)
}

fn map() -> ShardMap {
    let name = |name: &str| QualifiedName { schema: "public".to_owned(), name: name.to_owned() };
    let sharded = |table: &str| {
        let table = ShardedTable {
            table: name(table),
            key: vec!["k".to_owned()],
            group: 0,
            types: None,
            scheme: Scheme::Hash { shards: 3 },
        };
        TablePlace::Sharded(Arc::new(table))
    };
    ShardMap {
        shards: vec!["s0".to_owned(), "s1".to_owned(), "s2".to_owned()],
        tables: [
            (name("t"), sharded("t")),
            (name("u"), sharded("u")),
            (name("r"), TablePlace::Reference),
            (name("single"), TablePlace::Single(2)),
        ]
        .into(),
        unlisted: None,
    }
}

fn plan(text: &str) -> Plan {
    let path = ["public".to_owned()];
    let (schema, catalogue, map) = (schema(), Catalogue::builtin(), map());
    Planner { schema: &schema, catalogue: &catalogue, map: &map, search_path: &path, lexing: Lexing::default() }.plan(text)
}

fn word(plan: &Plan) -> &'static str {
    match plan {
        Plan::Anywhere => "anywhere",
        Plan::Confined { .. } => "confined",
        Plan::Gather(gather) => match gather.combine {
            Combine::Concat { .. } => "concat",
            Combine::Merge { .. } => "merge",
            Combine::Finish(_) => "finish",
        },
        Plan::Write(WritePlan::Each { .. }) => "each",
        Plan::Write(WritePlan::Copies) => "copies",
        Plan::Write(_) => "write",
        Plan::Everywhere => "everywhere",
        Plan::Copy(_) => "copy",
        Plan::Refused(_) => "refused",
    }
}

#[test]
fn statements_and_their_plans() {
    for (text, expect) in [
        ("", "anywhere"),
        ("SELECT 1", "anywhere"),
        ("SELECT * FROM r", "anywhere"),
        ("SELECT * FROM r, single", "confined"),
        ("SELECT * FROM t", "concat"),
        ("SELECT * FROM t LIMIT 3", "concat"),
        ("SELECT * FROM t ORDER BY a", "merge"),
        ("SELECT * FROM t ORDER BY a FETCH FIRST 2 ROWS WITH TIES", "merge"),
        ("SELECT count(*) FROM t", "finish"),
        ("SELECT k, count(*) FROM t GROUP BY k", "concat"),
        ("SELECT a, count(*) FROM t GROUP BY a", "finish"),
        ("SELECT * FROM t JOIN u ON t.k = u.k", "concat"),
        ("SELECT * FROM t JOIN u USING (k)", "concat"),
        ("SELECT * FROM t JOIN u ON t.a = u.x", "finish"),
        ("SELECT * FROM r LEFT JOIN t ON t.a = r.id", "finish"),
        ("SELECT * FROM t WHERE k = 5", "confined"),
        ("SELECT * FROM t WHERE k + 0 = 5", "concat"),
        ("SELECT * FROM t WHERE k = 5 OR a = 5", "concat"),
        ("SELECT * FROM t, u WHERE t.k = 5", "finish"),
        ("SELECT * FROM unlisted", "refused"),
        ("SELECT * FROM t FOR UPDATE", "refused"),
        ("SELECT a INTO copied FROM t", "refused"),
        ("SELECT a INTO copied FROM t WHERE k = 5", "refused"),
        ("SELECT * FROM ONLY t", "refused"),
        ("SELECT * FROM ONLY (t)", "refused"),
        ("SELECT * FROM t TABLESAMPLE SYSTEM (5)", "refused"),
        ("TABLE t", "concat"),
        ("TABLE ONLY t", "refused"),
        ("SELECT * FROM t LIMIT ALL", "concat"),
        ("SELECT * FROM t ORDER BY a OFFSET 2 LIMIT ALL", "merge"),
        ("SELECT * FROM t OFFSET 2 LIMIT 3", "concat"),
        ("TABLE r", "anywhere"),
        ("SELECT * FROM missing", "confined"),
        ("SELECT * FROM missing, t", "refused"),
        ("SELECT nowhere_known(a) FROM t", "refused"),
        ("SELECT 1; SELECT 2", "refused"),
        ("CREATE TABLE t (k int, g int GENERATED ALWAYS AS (k * 2) STORED)", "everywhere"),
        ("CREATE TABLE copied (a) AS (SELECT a FROM t)", "refused"),
        ("CREATE TABLE copied AS SELECT a FROM t", "refused"),
        ("UPDATE t SET a = 1", "each"),
        ("UPDATE t SET a = 1 WHERE k = 5", "confined"),
        ("UPDATE t SET k = 1 WHERE k = 5", "confined"),
        ("UPDATE t SET k = k + 1", "write"),
        ("UPDATE t SET k = r.id FROM r WHERE r.id = t.a", "refused"),
        ("UPDATE r SET name = 1", "copies"),
        ("UPDATE r SET name = 1 FROM t", "refused"),
        ("DELETE FROM t USING u WHERE t.k = u.k", "each"),
        ("DELETE FROM t USING u WHERE t.a = u.x", "refused"),
        ("INSERT INTO t VALUES (1, 2, 3)", "confined"),
        ("INSERT INTO t (a) VALUES (1)", "refused"),
        ("INSERT INTO t SELECT k, x, x FROM u", "each"),
        ("INSERT INTO t SELECT x, k, x FROM u", "write"),
        ("INSERT INTO r VALUES (1, 2)", "copies"),
        ("INSERT INTO r SELECT k, x FROM u", "refused"),
        ("INSERT INTO single VALUES (1)", "confined"),
        ("CREATE TABLE new (a int)", "everywhere"),
        ("CREATE TABLE new AS SELECT * FROM t", "refused"),
        ("CREATE TEMP TABLE new (a int)", "confined"),
        ("WITH x AS (INSERT INTO t VALUES (1, 2, 3) RETURNING a) SELECT * FROM x", "refused"),
        ("EXPLAIN SELECT * FROM t WHERE k = 5", "confined"),
        ("EXPLAIN (ANALYZE) SELECT * FROM t", "refused"),
        ("DO $$ BEGIN END $$", "refused"),
    ] {
        let plan = plan(text);
        // Text and integer columns alike are integers here: types are the servers' affair.
        assert_eq!(word(&plan), expect, "{text}: {plan:?}");
    }
}

#[test]
fn conditions_become_shards() {
    let one = |key: i64| TablePlaceOf::t().shard(key);
    for (text, parameters, expect) in [
        ("SELECT * FROM t WHERE k = 5", &[][..], one(5)),
        ("SELECT * FROM t WHERE k = -5", &[], one(-5)),
        ("SELECT * FROM t WHERE '5' = k", &[], one(5)),
        ("SELECT * FROM t WHERE k = $2", &["8", "7"], one(7)),
        ("SELECT * FROM t WHERE k IN (5, 6)", &[], one(5).union(one(6))),
        ("SELECT * FROM t WHERE k = ANY ($1)", &["{1,2}"], one(1).union(one(2))),
        ("SELECT * FROM t JOIN u ON t.k = u.k WHERE u.k = 3", &[], one(3)),
        ("SELECT * FROM t WHERE k IN (SELECT u.k FROM u WHERE u.k = 3)", &[], one(3)),
        ("SELECT * FROM t WHERE k = NULL", &[], ShardSet::NONE),
        ("SELECT * FROM t WHERE k = 1.5", &[], ShardSet::all(3)),
        ("INSERT INTO t VALUES (1, 2, 3), (2, 3, 4)", &[], one(1).union(one(2))),
        ("DELETE FROM t WHERE k = 9", &[], one(9)),
    ] {
        let parameters: Vec<SentParameter<'_>> =
            parameters.iter().map(|text| SentParameter { value: Some(text.as_bytes()), oid: 0, binary: false }).collect();
        let Plan::Confined { shards, .. } = plan(text) else { panic!("{text}: {:?}", plan(text)) };
        let binding = Binding { parameters: &parameters, session: KeySession::new("UTC", "UTF8", "UTF8") };
        assert_eq!(shards.resolve(&schema(), &map(), &binding), expect, "{text}: {shards:?}");
    }
    assert_eq!(
        KeyCondition::All
            .resolve(&schema(), &map(), &Binding { parameters: &[], session: KeySession::new("UTC", "UTF8", "UTF8") })
            .len(),
        3
    );
}

/// Where a key of the table `t` is.
struct TablePlaceOf(Arc<ShardedTable>);

impl TablePlaceOf {
    fn t() -> Self {
        let map = map();
        let name = QualifiedName { schema: "public".to_owned(), name: "t".to_owned() };
        match map.place(&name) {
            Some(TablePlace::Sharded(table)) => TablePlaceOf(Arc::clone(table)),
            other => panic!("{other:?}"),
        }
    }

    fn shard(&self, key: i64) -> ShardSet {
        ShardSet::one(self.0.shard_of(&[crate::shard::KeyValue::Integer(key)]).unwrap())
    }
}

#[test]
fn plans_are_told_in_words() {
    let check = |text: &str, parts: &[&str]| {
        let said = super::PlanWords { map: &map(), schema: &schema() }.lines(&plan(text)).join("\n");
        parts.iter().for_each(|part| assert!(said.contains(part), "{text}: {part} is not in\n{said}"));
    };
    check("SELECT 1", &["any one shard answers"]);
    check("SELECT * FROM t WHERE k = 1", &["shard s", " as it is: public.t (k) = (1)"]);
    check(
        "SELECT * FROM t WHERE k = $1",
        &["the shard of public.t (k) = ($1), when the parameters are known", "\n  the shards of public.t (k) = ($1): SELECT"],
    );
    check(
        "SELECT * FROM t ORDER BY a DESC LIMIT 3 OFFSET 1",
        &["all shards: SELECT", "merged by column 2 descending, nulls first", "without the first 1, up to 3 rows"],
    );
    check("SELECT count(*) FROM t", &["all shards: SELECT", "one shard's server finishes the answer"]);
    check("INSERT INTO t VALUES (1, 1), (2, 1), (3, 1), (4, 1)", &["each of the 4 rows goes to the shard of its key"]);
    check("UPDATE t SET a = 1", &["all shards each change their own rows"]);
    check("UPDATE r SET name = 1", &["every shard changes its copy"]);
    check("SELECT * FROM single", &["shard s2 as it is"]);
    check("SELECT ctid FROM t", &["the shards refuse it: system columns", "the coordinator answers it if there is one"]);
    check("ALTER TABLE t ADD c int", &["every shard carries it out"]);
}

#[test]
fn rows_whose_key_changes_are_read_where_they_are() {
    let check = |text: &str, expect: &str| {
        let several = match plan(text) {
            Plan::Confined { several, .. } => *several,
            plan => plan,
        };
        let told = match several {
            Plan::Write(WritePlan::Move(plan)) => {
                format!(
                    "{}\n{}...{}\n{}{}\n{}",
                    plan.select, plan.update.0, plan.update.1, plan.insert.head, plan.insert.tail, plan.delete
                )
            }
            Plan::Refused(refusal) => refusal.reason,
            other => format!("{other:?}"),
        };
        assert!(told.contains(expect), "{text}: {told}");
    };
    let list = "SELECT t.tableoid, t.ctid, CAST(k + 1 AS integer), k + 1, t.\"a\", t.\"b\" FROM t FOR UPDATE";
    check("UPDATE t SET k = k + 1", list);
    check(
        "UPDATE t SET k = k + 1",
        "\nUPDATE t SET k = k + 1 WHERE ...\nINSERT INTO t (\"k\", \"a\", \"b\") OVERRIDING SYSTEM VALUE VALUES \nDELETE FROM t WHERE ",
    );
    check(
        "UPDATE t AS x SET k = 7, a = NULL WHERE x.k = 5 OR x.a = 6 RETURNING *",
        "WHERE (x.k = 5 OR x.a = 6) AND ... RETURNING *\nINSERT INTO t AS x (",
    );
    check("UPDATE t SET k = 7, a = NULL", "t.ctid, CAST(7 AS integer), 7, CAST(NULL AS integer), t.\"b\"");
    check("UPDATE t SET (k, a) = (a, k)", "CAST(a AS integer), a, k, ");
    check("UPDATE t SET k = CAST(random() AS int)", "the same whenever it is computed");
    check("UPDATE t SET k = DEFAULT", "DEFAULT cannot be given");
    check("UPDATE t SET k = (SELECT 1)", "a subquery cannot be used");
    check("UPDATE t SET k = k + 1 RETURNING $1", "RETURNING with a subquery");
    // Rows as they are and as they will be on one shard: as it came.
    let both = |value: &str| {
        let Plan::Confined { shards, .. } = plan(&format!("UPDATE t SET k = {value} WHERE k = 5")) else { return 0 };
        let binding = Binding { parameters: &[], session: KeySession::new("UTC", "UTF8", "UTF8") };
        shards.resolve(&schema(), &map(), &binding).len()
    };
    assert_eq!(both("5"), 1);
    assert_eq!((6..30).map(|value| both(&value.to_string())).max(), Some(2));
}
