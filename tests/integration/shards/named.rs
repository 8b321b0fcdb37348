//! Statements that others are known, or likely, to answer wrongly, each by its name.

use super::stage::{Stage, run};
use super::{Case, Verdict, judge};
use pgyard::plan::Plan;
use std::sync::{Mutex, MutexGuard, OnceLock};

fn stage() -> MutexGuard<'static, Stage> {
    static STAGE: OnceLock<Mutex<Stage>> = OnceLock::new();
    STAGE.get_or_init(|| Mutex::new(Stage::new("named"))).lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn check(sql: &str, ordered: bool) {
    check_with(sql, ordered, &[]);
}

fn check_with(sql: &str, ordered: bool, parameters: &[Option<&str>]) {
    let case = Case { sql: sql.to_owned(), ordered };
    match judge(&mut stage(), &case, parameters) {
        Verdict::Same(how) => assert_ne!(how, "error", "{sql}"),
        Verdict::Refused(reason) => panic!("{sql}: refused: {reason}"),
        Verdict::Wrong(text) => panic!("{text}"),
    }
}

#[test]
fn arithmetic_on_the_key_is_no_key() {
    check("SELECT * FROM orders WHERE customer % 10 = 5", false);
    check("SELECT * FROM orders WHERE customer + 1 = 5", false);
}

#[test]
fn filter_and_case_do_not_route_the_query() {
    check("SELECT count(*) FILTER (WHERE customer = 5) FROM orders", true);
    check("SELECT sum(CASE WHEN customer = 5 THEN qty ELSE 1 END) FROM orders", true);
    check("SELECT CASE WHEN customer = 5 THEN 'five' ELSE 'other' END, id FROM orders", false);
}

#[test]
fn each_branch_of_a_union_has_its_own_shard() {
    check("SELECT id FROM orders WHERE customer = 1 UNION ALL SELECT id FROM orders WHERE customer = 2", false);
}

#[test]
fn no_member_of_an_in_list_is_dropped() {
    check("SELECT * FROM orders WHERE customer IN (1, 1 + 1, length('abc'), 9)", false);
    check("SELECT * FROM orders WHERE customer IN (1, NULL, '7')", false);
    check_with("SELECT * FROM orders WHERE customer IN ($1, 2, $2 + 1)", false, &[Some("11"), Some("4")]);
}

#[test]
fn groups_by_expressions_stay_apart() {
    check("SELECT lower(note), count(*) FROM orders GROUP BY lower(note) ORDER BY 1", true);
    check("SELECT lower(region), count(*) FROM orders GROUP BY lower(region) ORDER BY 1", true);
}

#[test]
fn expressions_over_aggregates_give_one_row() {
    check("SELECT sum(amount) / sum(qty) FROM orders", true);
    check("SELECT coalesce(sum(amount), 0) FROM orders WHERE id < 0", true);
    check("SELECT count(*) + 1 FROM orders", true);
    check("SELECT count(*), sum(qty) FROM orders WHERE false", true);
}

#[test]
fn a_limit_over_groups_is_not_pushed_below_them() {
    check("SELECT region, count(*) FROM orders GROUP BY region ORDER BY count(*) DESC, region LIMIT 2", true);
    check("SELECT qty FROM orders GROUP BY qty ORDER BY sum(amount) DESC LIMIT 1", true);
}

#[test]
fn texts_are_ordered_by_their_collation() {
    check("SELECT code, region, id FROM orders ORDER BY region, id", true);
    check("SELECT note FROM orders ORDER BY note, id", true);
    check("SELECT name FROM countries ORDER BY name", true);
    check("SELECT min(region), max(note) FROM orders", true);
}

#[test]
fn an_unselected_column_orders() {
    check("SELECT note FROM orders ORDER BY id DESC LIMIT 20", true);
    check("SELECT * FROM orders ORDER BY amount * -1, id LIMIT 20", true);
}

#[test]
fn distinct_values_are_counted_once() {
    check("SELECT count(DISTINCT qty) FROM orders", true);
    check("SELECT region, count(DISTINCT qty), count(DISTINCT note), sum(id) FROM orders GROUP BY region ORDER BY 1", true);
}

#[test]
fn conditions_that_need_not_hold_are_no_keys() {
    check("SELECT id FROM orders WHERE customer = 3 OR qty = 2", false);
    check("SELECT id FROM orders WHERE NOT customer = 3", false);
    check("SELECT id FROM orders WHERE (customer = 3) IS NOT TRUE", false);
    check("SELECT o.id FROM orders o LEFT JOIN lines l ON l.customer = o.customer AND o.customer = 3", false);
    check("SELECT count(*) FROM orders HAVING max(customer) = 23", true);
}

#[test]
fn nulls_in_not_in_are_seen_on_all_shards() {
    check("SELECT id FROM orders WHERE customer NOT IN (SELECT customer FROM extra.notes)", false);
    check("SELECT tenant, count(*) FROM events GROUP BY tenant ORDER BY tenant NULLS FIRST", true);
}

#[test]
fn names_of_results_are_not_those_of_columns() {
    check("SELECT -qty AS id, id AS qty FROM orders ORDER BY id, qty LIMIT 10", true);
    check("SELECT id AS customer FROM orders WHERE customer = 4", false);
    check("SELECT amount::text FROM orders WHERE amount IS NOT NULL ORDER BY amount, id LIMIT 9", true);
}

#[test]
fn keys_are_found_through_names_and_parameters() {
    let places = |sql: &str, parameters: &[Option<&str>]| {
        let mut stage = stage();
        match stage.execute(sql, parameters) {
            super::Outcome::Answer(_, how) => how,
            other => panic!("{sql}: {other:?}"),
        }
    };
    for (sql, parameters, expect) in [
        ("SELECT * FROM orders WHERE customer = 5", &[][..], "confined"),
        ("SELECT * FROM orders o JOIN lines l USING (customer) WHERE l.customer = '5'", &[], "confined"),
        ("WITH x AS (SELECT * FROM orders WHERE customer = 5) SELECT count(*) FROM x", &[], "confined"),
        ("SELECT * FROM orders WHERE customer = $1 AND id > 3", &[Some("5")], "confined"),
        ("SELECT * FROM orders WHERE customer = ANY ($1)", &[Some("{5,5}")], "confined"),
        ("SELECT * FROM orders WHERE customer = NULL", &[], "confined"),
        ("SELECT * FROM orders WHERE customer = CAST('5' AS integer)", &[], "confined"),
        ("SELECT * FROM orders WHERE customer = 5.0", &[], "confined"),
        ("SELECT * FROM orders WHERE customer + 0 = 5", &[], "concat"),
        ("SELECT * FROM big_orders WHERE customer = 5", &[], "confined"),
        ("SELECT * FROM audit", &[], "confined"),
        ("SELECT * FROM countries", &[], "anywhere"),
        ("SELECT count(*) FROM orders", &[], "finish"),
        ("SELECT id FROM orders ORDER BY id", &[], "merge"),
    ] {
        assert_eq!(places(sql, parameters), expect, "{sql}");
        check_with(sql, sql.contains("ORDER"), parameters);
    }
}

#[test]
fn what_cannot_be_exact_is_refused() {
    let stage = stage();
    for sql in [
        "SELECT ctid FROM orders",
        "SELECT * FROM orders FOR UPDATE",
        "SELECT nextval('s'), id FROM orders",
        "SELECT * FROM orders TABLESAMPLE SYSTEM (50)",
        "SELECT * INTO copied FROM orders",
        "SELECT unheard_of(id) FROM orders",
        "CREATE TABLE copied AS SELECT * FROM orders",
        "UPDATE orders SET customer = (SELECT 4)",
        "UPDATE orders SET qty = (SELECT max(n) FROM lines)",
        "INSERT INTO orders (id) VALUES (1)",
        "INSERT INTO orders (customer, id) VALUES (1 + 1, 1)",
        "INSERT INTO extra.notes (customer, stars) VALUES (1, 1) ON CONFLICT (stars) DO NOTHING",
        "INSERT INTO countries SELECT region, note FROM orders",
        "UPDATE countries SET name = name || random()",
        "WITH x AS (DELETE FROM orders RETURNING *) SELECT * FROM x",
        "DO $$ BEGIN DELETE FROM orders; END $$",
        "SELECT * FROM unlisted_table, orders",
        "MERGE INTO orders o USING countries c ON o.region = c.code WHEN MATCHED THEN DELETE",
    ] {
        assert!(matches!(stage.plan(sql), Plan::Refused(_)), "{sql}: {:?}", stage.plan(sql));
    }
}

#[test]
fn writes_leave_the_rows_that_one_database_would_have() {
    let mut stage = Stage::new("writes");
    for sql in [
        "INSERT INTO orders (customer, id, region, qty) VALUES (1, 1001, 'de', 2), (2, 1002, 'fr', 3), (30, 1003, NULL, 4)",
        "INSERT INTO orders (customer, id, qty) VALUES (40, 1004, 1) ON CONFLICT (customer, id) DO UPDATE SET qty = excluded.qty",
        "INSERT INTO events (tenant, kind) VALUES ('new', 1), ('newer', 2), (NULL, 3)",
        "INSERT INTO readings VALUES ('00000000-0000-0000-0000-00000000aaaa', '2024-06-01', 1.5), ('00000000-0000-0000-0000-00000000aaab', '2024-06-01', 2)",
        "INSERT INTO lines SELECT customer, id, 9, 'made', 1 FROM orders WHERE qty = 3",
        "INSERT INTO extra.notes (customer, body) SELECT id, 'moved' FROM orders WHERE qty = 4",
        "UPDATE orders SET qty = qty + 10 WHERE region = 'de'",
        "UPDATE orders SET note = 'x' WHERE customer IN (1, 2)",
        "UPDATE orders o SET note = l.sku FROM lines l WHERE l.customer = o.customer AND l.order_id = o.id AND l.n = 9",
        "UPDATE orders SET code = c.continent FROM countries c WHERE c.code = region",
        "DELETE FROM lines l USING orders o WHERE o.customer = l.customer AND o.id = l.order_id AND o.qty = 5",
        "DELETE FROM events WHERE kind = 4",
        "DELETE FROM orders WHERE customer = 7",
        "INSERT INTO countries VALUES ('at', 'Land at', 'here')",
        "UPDATE countries SET name = upper(name) WHERE continent = 'here'",
        "DELETE FROM countries WHERE code = 'cn'",
        "UPDATE audit SET what = 'changed' WHERE id = 2",
    ] {
        run(&mut stage.whole, sql).unwrap();
        match stage.execute(sql, &[]) {
            super::Outcome::Answer(..) => {}
            other => panic!("{sql}: {other:?}"),
        }
        for table in ["orders", "lines", "extra.notes", "events", "readings", "audit"] {
            let select = format!("SELECT * FROM {table}");
            let mut expect = run(&mut stage.whole, &select).unwrap().rows;
            let mut got = Vec::new();
            for shard in 0..stage.shards.len() {
                got.extend(run(&mut stage.shards[shard], &select).unwrap().rows);
            }
            expect.sort();
            got.sort();
            assert_eq!(got, expect, "{table} after {sql}");
        }
        for shard in 0..stage.shards.len() {
            let select = "SELECT * FROM countries ORDER BY code";
            let (expect, got) = (run(&mut stage.whole, select).unwrap(), run(&mut stage.shards[shard], select).unwrap());
            assert_eq!(got.rows, expect.rows, "countries after {sql}");
        }
    }
    // Each row is where reading will look for it.
    for sql in [
        "SELECT * FROM orders WHERE customer = 30",
        "SELECT * FROM events WHERE tenant = 'newer'",
        "SELECT * FROM extra.notes WHERE customer = 4",
    ] {
        match judge(&mut stage, &Case { sql: sql.to_owned(), ordered: false }, &[]) {
            Verdict::Same(how) => assert_eq!(how, "confined", "{sql}"),
            Verdict::Refused(text) | Verdict::Wrong(text) => panic!("{sql}: {text}"),
        }
    }
}
