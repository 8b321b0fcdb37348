//! Statements made by chance, of each form that several shards answer.

/// A statement, and whether its rows have one order only.
#[derive(Clone, Debug)]
pub struct Case {
    /// SQL with literals.
    pub sql: String,
    /// ORDER BY leaves no choice.
    pub ordered: bool,
}

/// Numbers by chance that a seed repeats (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    /// A number below `count`.
    pub fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ mixed >> 31) % count as u64).unwrap()
    }

    /// One of them.
    pub fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

/// Makes a statement of one form.
pub type Maker = fn(&mut Dice) -> Case;

/// The forms, each with its maker.
pub const FORMS: &[(&str, Maker)] = &[
    ("concatenation", concatenation),
    ("key conditions", key_conditions),
    ("ORDER BY", order_by),
    ("LIMIT, OFFSET, FETCH", limits),
    ("DISTINCT", distinct),
    ("DISTINCT ON", distinct_on),
    ("aggregates", aggregates),
    ("ordered aggregates", ordered_aggregates),
    ("statistics", statistics),
    ("DISTINCT aggregates, FILTER", filtered),
    ("expressions over aggregates", over_aggregates),
    ("GROUP BY", group_by),
    ("HAVING", having),
    ("set operations", set_operations),
    ("subqueries", subqueries),
    ("joins on the key", joins),
    ("joins with reference tables", reference_joins),
    ("outer joins", outer_joins),
    ("other joins", other_joins),
    ("windows", windows),
    ("FROM (SELECT), WITH", derived),
    ("WITH RECURSIVE", recursive),
];

fn case(sql: String, ordered: bool) -> Case {
    Case { sql, ordered }
}

const CONDITIONS: &[&str] = &[
    "o.amount > 30",
    "o.region = 'de'",
    "o.region IS NULL",
    "o.qty IN (1, 3)",
    "o.note < 'M'",
    "o.flag",
    "NOT o.flag",
    "o.customer % 5 = 2",
    "o.customer < 9",
    "o.created >= date '2024-01-20'",
    "o.amount IS NOT NULL AND o.qty > 2",
    "(o.qty = 1 OR o.region = 'fr')",
    "o.id BETWEEN 20 AND 150",
    "o.code LIKE 'c1%'",
    "true",
    "o.customer IN (3, 8, 11, 12)",
    "o.customer = 4",
    "o.region NOT IN ('de', 'us')",
    "coalesce(o.amount, 0) < 60",
    "o.customer = 4 OR o.customer = 17",
    "CASE WHEN o.customer = 5 THEN o.qty > 1 ELSE o.qty > 3 END",
    "o.customer + 1 = 5",
    "o.id = 7 AND o.customer = 8",
];

fn condition(dice: &mut Dice) -> &'static str {
    dice.pick(CONDITIONS)
}

fn concatenation(dice: &mut Dice) -> Case {
    let list = dice.pick(&[
        "*",
        "o.*",
        "o.id, o.amount * 2 AS twice",
        "o.id, o.note || '!', o.customer",
        "upper(o.region), o.id::text",
        "o.price, o.small + 1",
        "o.id, o.id",
        "CASE WHEN o.qty > 3 THEN 'many' ELSE 'few' END, o.id",
        "count(*) OVER (PARTITION BY o.customer), o.id",
        "1",
    ]);
    case(format!("SELECT {list} FROM orders o WHERE {}", condition(dice)), false)
}

fn key_conditions(dice: &mut Dice) -> Case {
    let sql = match dice.below(10) {
        0 => format!("SELECT * FROM orders WHERE customer = {}", dice.below(26)),
        1 => format!(
            "SELECT * FROM orders o, lines l WHERE o.customer = l.customer AND o.id = l.order_id AND l.customer = {}",
            dice.below(26)
        ),
        2 => format!(
            "SELECT * FROM orders o JOIN lines l USING (customer) WHERE customer IN ({}, {})",
            dice.below(26),
            dice.below(26)
        ),
        3 => format!("SELECT * FROM events WHERE tenant = 't{}' AND kind > 1", dice.below(18)),
        4 => format!("SELECT * FROM events WHERE tenant IN ('t{}', 't{}', NULL)", dice.below(18), dice.below(18)),
        5 => format!(
            "SELECT * FROM readings WHERE (site, day) IN (('00000000-0000-0000-0000-00000000000{}', '2024-05-03'), \
             ('00000000-0000-0000-0000-00000000000{}', '2024-05-04'))",
            dice.below(10),
            dice.below(10)
        ),
        6 => format!(
            "SELECT * FROM readings WHERE site = '00000000-0000-0000-0000-00000000000{}' AND day = date '2024-05-02'",
            dice.below(10)
        ),
        7 => format!(
            "SELECT count(*), sum(amount) FROM orders WHERE customer = ANY (ARRAY[{}, {}])",
            dice.below(26),
            dice.below(26)
        ),
        8 => format!(
            "SELECT * FROM orders o WHERE customer = {} AND EXISTS (SELECT 1 FROM lines l WHERE l.customer = o.customer)",
            dice.below(26)
        ),
        _ => format!(
            "SELECT * FROM (SELECT * FROM orders WHERE customer = {}) x LEFT JOIN extra.notes n ON n.customer = x.customer",
            dice.below(26)
        ),
    };
    case(sql, false)
}

fn order_by(dice: &mut Dice) -> Case {
    let list = dice.pick(&[
        "o.id, o.amount",
        "*",
        "o.region, o.qty AS q, o.id",
        "o.note, o.customer + 0 AS c, o.id",
        "lower(o.note), o.id",
    ]);
    let order = dice.pick(&[
        "o.amount DESC NULLS LAST",
        "o.region",
        "o.note DESC",
        "o.created, o.qty DESC",
        "o.qty % 3, o.note NULLS FIRST",
        "o.price",
        "o.flag DESC",
        "lower(o.region)",
        "o.amount NULLS FIRST",
        "o.code, o.small DESC",
        "o.region COLLATE \"C\"",
        "CASE WHEN o.qty > 3 THEN 1 ELSE 0 END",
        "2, 1",
    ]);
    if dice.below(5) == 0 {
        let order = dice.pick(&["tenant", "at DESC", "payload", "kind, tenant DESC NULLS LAST"]);
        return case(format!("SELECT tenant, kind, at FROM events ORDER BY {order}, cost"), true);
    }
    case(format!("SELECT {list} FROM orders o WHERE {} ORDER BY {order}, o.id", condition(dice)), true)
}

fn limits(dice: &mut Dice) -> Case {
    let (limit, offset) = (dice.below(12), dice.below(9));
    let clause = match dice.below(7) {
        0 => format!("LIMIT {limit}"),
        1 => format!("LIMIT {limit} OFFSET {offset}"),
        2 => format!("OFFSET {offset}"),
        3 => "LIMIT 0".to_owned(),
        4 => format!("FETCH FIRST {limit} ROWS ONLY"),
        5 => format!("LIMIT {limit} + 2"),
        _ => {
            let order = dice.pick(&["qty", "region NULLS FIRST", "note"]);
            return case(
                format!("SELECT {order} FROM orders ORDER BY {order} FETCH FIRST {} ROWS WITH TIES", limit + 1)
                    .replace("SELECT region NULLS FIRST", "SELECT region"),
                true,
            );
        }
    };
    let order = dice.pick(&["o.amount DESC, o.id", "o.id", "o.note, o.id DESC", "o.region, o.id"]);
    let table = dice.pick(&["orders o", "orders o JOIN lines l ON l.customer = o.customer AND l.order_id = o.id AND l.n = 1"]);
    case(format!("SELECT o.id, o.qty, o.region FROM {table} WHERE {} ORDER BY {order} {clause}", condition(dice)), true)
}

fn distinct(dice: &mut Dice) -> Case {
    let list = dice.pick(&[
        "o.region",
        "o.qty, o.flag",
        "o.customer",
        "o.note",
        "o.qty % 2",
        "lower(o.region), o.qty",
        "o.customer, o.region",
        "o.code",
    ]);
    let tail = match dice.below(4) {
        0 => String::new(),
        1 => " ORDER BY 1".to_owned(),
        2 => format!(" ORDER BY {list}"),
        _ => format!(" ORDER BY {list} LIMIT {}", dice.below(8)),
    };
    let ordered = tail.contains(list) || !tail.is_empty() && !list.contains(',');
    case(format!("SELECT DISTINCT {list} FROM orders o WHERE {}{tail}", condition(dice)), ordered)
}

fn distinct_on(dice: &mut Dice) -> Case {
    let on = dice.pick(&["o.region", "o.qty", "o.note", "o.customer", "o.qty % 3", "o.region, o.flag"]);
    let list = dice.pick(&["o.id, o.amount", "o.*", "o.region, o.id"]);
    let limit = if dice.below(3) == 0 { format!(" LIMIT {}", dice.below(6)) } else { String::new() };
    case(
        format!("SELECT DISTINCT ON ({on}) {list} FROM orders o WHERE {} ORDER BY {on}, o.id DESC{limit}", condition(dice)),
        true,
    )
}

const AGGREGATES: &[&str] = &[
    "count(*)",
    "count(o.amount)",
    "sum(o.amount)",
    "sum(o.qty)",
    "sum(o.id)",
    "sum(o.small)",
    "sum(o.price)",
    "min(o.note)",
    "max(o.region)",
    "min(o.created)",
    "max(o.amount)",
    "avg(o.amount)",
    "avg(o.qty)",
    "avg(o.id)",
    "avg(o.price)",
    "bool_and(o.flag)",
    "bool_or(o.flag)",
    "every(o.qty > 0)",
    "bit_and(o.qty)",
    "bit_or(o.id)",
    "min(o.id)",
    "max(o.customer)",
    "count(o.flag)",
    "sum(o.amount * o.qty)",
    "max(upper(o.region))",
    "sum(o.qty::numeric)",
];

fn some_aggregates(dice: &mut Dice) -> String {
    let count = 1 + dice.below(3);
    (0..count).map(|_| dice.pick(AGGREGATES)).collect::<Vec<_>>().join(", ")
}

fn aggregates(dice: &mut Dice) -> Case {
    if dice.below(6) == 0 {
        let aggregate = dice.pick(&["sum(cost)", "avg(cost)", "max(at)", "count(DISTINCT tenant)", "min(tenant)", "max(kind)"]);
        return case(format!("SELECT {aggregate} FROM events WHERE kind <> {}", dice.below(6)), true);
    }
    case(format!("SELECT {} FROM orders o WHERE {}", some_aggregates(dice), condition(dice)), true)
}

fn ordered_aggregates(dice: &mut Dice) -> Case {
    let aggregate = dice.pick(&[
        "array_agg(o.id ORDER BY o.id)",
        "string_agg(o.note, ',' ORDER BY o.id DESC)",
        "json_agg(o.amount ORDER BY o.id)",
        "jsonb_object_agg(o.id, o.qty)",
        "array_agg(o.note ORDER BY o.note, o.id)",
        "array_agg(DISTINCT o.qty ORDER BY o.qty)",
        "string_agg(DISTINCT o.region, '-')",
        "json_object_agg(o.id, o.region ORDER BY o.id)",
    ]);
    let group = dice.pick(&["", "o.region", "o.qty", "o.customer"]);
    if group.is_empty() {
        return case(format!("SELECT {aggregate}, count(*) FROM orders o WHERE {}", condition(dice)), true);
    }
    case(format!("SELECT {group}, {aggregate} FROM orders o WHERE {} GROUP BY {group} ORDER BY {group}", condition(dice)), true)
}

fn statistics(dice: &mut Dice) -> Case {
    let aggregate = dice.pick(&[
        "stddev(o.amount)",
        "variance(o.qty)",
        "stddev_pop(o.id)",
        "var_samp(o.amount)",
        "percentile_disc(0.5) WITHIN GROUP (ORDER BY o.qty)",
        "percentile_cont(0.25) WITHIN GROUP (ORDER BY o.price)",
        "mode() WITHIN GROUP (ORDER BY o.customer)",
        "var_pop(o.small)",
    ]);
    let group = dice.pick(&["", "o.flag", "o.qty % 2"]);
    let condition = dice.pick(&["true", "o.qty < 5", "o.region = 'de'", "o.customer < 12"]);
    if group.is_empty() {
        return case(format!("SELECT {aggregate} FROM orders o WHERE {condition}"), true);
    }
    case(format!("SELECT {aggregate}, {group} FROM orders o WHERE {condition} GROUP BY {group}"), false)
}

fn filtered(dice: &mut Dice) -> Case {
    let aggregate = dice.pick(&[
        "count(DISTINCT o.region)",
        "count(DISTINCT o.qty), count(*)",
        "sum(DISTINCT o.qty)",
        "count(*) FILTER (WHERE o.customer = 5)",
        "sum(o.amount) FILTER (WHERE o.flag)",
        "avg(o.qty) FILTER (WHERE o.region IS NOT NULL)",
        "count(DISTINCT o.note) FILTER (WHERE o.qty > 2)",
        "count(DISTINCT o.customer)",
        "avg(DISTINCT o.small)",
        "max(o.note) FILTER (WHERE o.note > 'D'), min(o.note)",
        "sum(CASE WHEN o.customer = 5 THEN o.qty ELSE 0 END)",
        "count(DISTINCT lower(o.region)), count(DISTINCT o.code)",
    ]);
    let group = dice.pick(&["", "o.flag", "o.region", "o.qty + 1"]);
    if group.is_empty() {
        return case(format!("SELECT {aggregate} FROM orders o WHERE {}", condition(dice)), true);
    }
    case(format!("SELECT {group}, {aggregate} FROM orders o WHERE {} GROUP BY {group}", condition(dice)), false)
}

fn over_aggregates(dice: &mut Dice) -> Case {
    let list = dice.pick(&[
        "sum(o.amount) / nullif(sum(o.qty), 0)",
        "coalesce(sum(o.amount), 0)",
        "count(*) + 1",
        "sum(o.qty) / 3, sum(o.qty) % 5",
        "round(avg(o.amount), 3)",
        "max(o.id) - min(o.id)",
        "CASE WHEN count(*) > 40 THEN 'many' ELSE 'few' END",
        "sum(o.qty)::float8 / count(*)",
        "-sum(o.id)",
        "count(*) * 1.5",
        "max(o.region) || '/' || min(o.region)",
        "sum(o.qty + 1) + max(o.qty)",
        "round(100.0 * count(*) FILTER (WHERE o.flag) / count(*), 2)",
        "greatest(max(o.qty), count(*))",
        "extract(year FROM max(o.created))",
        "to_char(max(o.created), 'YYYY-MM-DD')",
    ]);
    let where_some = dice.pick(&["true", "o.qty > 1", "o.customer > 3", "o.region IS NOT NULL"]);
    case(format!("SELECT {list} FROM orders o WHERE {where_some}"), true)
}

fn group_by(dice: &mut Dice) -> Case {
    let some = some_aggregates(dice);
    let condition = condition(dice);
    let sql = match dice.below(12) {
        0 => format!("SELECT o.region, {some} FROM orders o WHERE {condition} GROUP BY o.region ORDER BY o.region"),
        1 => format!("SELECT o.qty % 3 AS rest, {some} FROM orders o WHERE {condition} GROUP BY rest ORDER BY rest"),
        2 => format!("SELECT lower(o.region), {some} FROM orders o WHERE {condition} GROUP BY 1 ORDER BY 1 DESC"),
        3 => format!("SELECT o.flag, o.qty, {some} FROM orders o WHERE {condition} GROUP BY o.flag, o.qty ORDER BY 1, 2"),
        4 => format!("SELECT o.customer, {some} FROM orders o WHERE {condition} GROUP BY o.customer ORDER BY o.customer"),
        5 => format!(
            "SELECT date_trunc('month', o.created), {some} FROM orders o WHERE {condition} GROUP BY date_trunc('month', o.created) ORDER BY 1"
        ),
        6 => format!(
            "SELECT o.region, count(*) FROM orders o WHERE {condition} GROUP BY o.region ORDER BY count(*) DESC, o.region LIMIT 3"
        ),
        7 => format!("SELECT {some} FROM orders o WHERE {condition} GROUP BY o.qty ORDER BY o.qty"),
        8 => format!("SELECT o.note, {some} FROM orders o WHERE {condition} GROUP BY o.note ORDER BY o.note"),
        9 => format!(
            "SELECT o.region, o.qty, {some} FROM orders o WHERE {condition} GROUP BY ROLLUP (o.region, o.qty) ORDER BY 1, 2, grouping(o.region), grouping(o.qty)"
        ),
        10 => format!("SELECT o.qty + 1, (o.qty + 1) * 2, {some} FROM orders o WHERE {condition} GROUP BY o.qty + 1 ORDER BY 1"),
        _ => format!(
            "SELECT o.customer, o.id, o.note, {some} FROM orders o WHERE {condition} GROUP BY o.customer, o.id ORDER BY o.id"
        ),
    };
    case(sql, true)
}

fn having(dice: &mut Dice) -> Case {
    let some = some_aggregates(dice);
    let having = dice.pick(&[
        "count(*) > 12",
        "sum(o.qty) > 40",
        "max(o.amount) < 95",
        "avg(o.qty) > 2.5",
        "count(DISTINCT o.customer) > 6",
        "bool_or(o.flag)",
    ]);
    match dice.below(3) {
        0 => case(format!("SELECT {some} FROM orders o HAVING {having}"), true),
        1 => case(format!("SELECT o.region, {some} FROM orders o GROUP BY o.region HAVING {having} ORDER BY o.region"), true),
        _ => case(format!("SELECT o.qty AS q, {some} FROM orders o GROUP BY q HAVING {having} AND o.qty <> 3 ORDER BY q"), true),
    }
}

fn set_operations(dice: &mut Dice) -> Case {
    let side = |dice: &mut Dice| {
        let list = dice.pick(&["o.qty", "o.customer", "o.id", "o.small"]);
        format!("SELECT {list} FROM orders o WHERE {}", condition(dice))
    };
    let other = match dice.below(4) {
        0 => "SELECT l.n FROM lines l".to_owned(),
        1 => "SELECT length(name) FROM countries".to_owned(),
        _ => side(dice),
    };
    let operator = dice.pick(&["UNION ALL", "UNION", "INTERSECT", "EXCEPT", "UNION ALL", "EXCEPT ALL"]);
    let first = side(dice);
    match dice.below(4) {
        0 => case(format!("{first} {operator} {other} ORDER BY 1"), true),
        1 => case(format!("{first} {operator} {other} ORDER BY 1 DESC LIMIT 7"), true),
        2 => {
            case("SELECT id FROM orders WHERE customer = 1 UNION ALL SELECT id FROM orders WHERE customer = 2".to_owned(), false)
        }
        _ => case(format!("{first} {operator} {other}"), false),
    }
}

fn subqueries(dice: &mut Dice) -> Case {
    let condition = condition(dice);
    let sql = match dice.below(12) {
        0 => format!(
            "SELECT o.id FROM orders o WHERE o.region IN (SELECT code FROM countries WHERE continent = 'here') AND {condition}"
        ),
        1 => format!(
            "SELECT o.id FROM orders o WHERE EXISTS (SELECT 1 FROM countries c WHERE c.code = o.region AND c.continent = 'There') AND {condition}"
        ),
        2 => format!(
            "SELECT o.id FROM orders o WHERE EXISTS (SELECT 1 FROM lines l WHERE l.customer = o.customer AND l.order_id = o.id) AND {condition}"
        ),
        3 => format!(
            "SELECT o.id FROM orders o WHERE NOT EXISTS (SELECT 1 FROM lines l WHERE l.customer = o.customer AND l.n = 2 AND l.order_id = o.id) AND {condition}"
        ),
        4 => format!(
            "SELECT o.id FROM orders o WHERE o.customer IN (SELECT customer FROM extra.notes WHERE stars > 2) AND {condition}"
        ),
        5 => format!(
            "SELECT o.id FROM orders o WHERE o.customer NOT IN (SELECT customer FROM extra.notes WHERE stars = 1) AND {condition}"
        ),
        6 => format!("SELECT o.id, (SELECT count(*) FROM lines l WHERE l.customer = o.customer) FROM orders o WHERE {condition}"),
        7 => format!("SELECT o.id FROM orders o WHERE o.amount > (SELECT avg(amount) FROM orders) AND {condition}"),
        8 => format!("SELECT o.id FROM orders o WHERE o.id IN (SELECT order_id FROM lines WHERE cost > 10) AND {condition}"),
        9 => format!(
            "SELECT o.region, count(*) FROM orders o WHERE o.region IN (SELECT code FROM countries) AND {condition} GROUP BY o.region"
        ),
        10 => format!(
            "SELECT o.id FROM orders o WHERE o.qty = ANY (SELECT n FROM lines l WHERE l.customer = o.customer) AND {condition}"
        ),
        _ => format!(
            "SELECT o.id, (SELECT max(name) FROM countries c WHERE c.code = o.region) AS land FROM orders o WHERE {condition}"
        ),
    };
    case(sql, false)
}

fn joins(dice: &mut Dice) -> Case {
    let condition = condition(dice);
    let join = dice.pick(&[
        "orders o JOIN lines l ON l.customer = o.customer AND l.order_id = o.id",
        "orders o, lines l WHERE l.customer = o.customer AND l.order_id = o.id AND true",
        "lines l INNER JOIN orders o ON (o.customer, o.id) = (l.customer, l.order_id)",
        "orders o JOIN extra.notes l ON l.customer = o.customer",
        "orders o JOIN orders l ON l.customer = o.customer AND l.id = o.id + 23",
    ]);
    let word = if join.contains("WHERE") { "AND" } else { "WHERE" };
    match dice.below(4) {
        0 => case(format!("SELECT o.id, l.* FROM {join} {word} {condition}"), false),
        1 => case(format!("SELECT count(*), sum(o.amount), max(l.customer) FROM {join} {word} {condition}"), true),
        2 => case(format!("SELECT o.region, count(*) FROM {join} {word} {condition} GROUP BY o.region ORDER BY 1"), true),
        _ => case(
            format!(
                "SELECT o.customer, count(*) AS n FROM {join} {word} {condition} GROUP BY o.customer ORDER BY n DESC, 1 LIMIT 4"
            ),
            true,
        ),
    }
}

fn reference_joins(dice: &mut Dice) -> Case {
    let condition = condition(dice);
    let join = dice.pick(&[
        "orders o JOIN countries c ON c.code = o.region",
        "countries c JOIN orders o ON c.code = o.region",
        "orders o CROSS JOIN countries c",
        "orders o LEFT JOIN countries c ON c.code = o.region",
        "countries c LEFT JOIN orders o ON c.code = o.region AND o.qty = 2",
        "orders o FULL JOIN countries c ON c.code = o.region",
    ]);
    match dice.below(3) {
        0 => case(format!("SELECT c.name, o.id FROM {join} WHERE {condition}"), false),
        1 => case(
            format!(
                "SELECT c.continent, count(*), sum(o.amount) FROM {join} WHERE {condition} GROUP BY c.continent ORDER BY c.continent"
            ),
            true,
        ),
        _ => case(format!("SELECT c.name, o.id, o.note FROM {join} WHERE {condition} ORDER BY c.name DESC, o.id LIMIT 9"), true),
    }
}

fn outer_joins(dice: &mut Dice) -> Case {
    let condition = condition(dice);
    let join = dice.pick(&[
        "orders o LEFT JOIN lines l ON l.customer = o.customer AND l.order_id = o.id",
        "orders o LEFT JOIN extra.notes l ON l.customer = o.customer AND l.stars > 3",
        "lines l RIGHT JOIN orders o ON l.customer = o.customer AND l.order_id = o.id AND l.n = 2",
        "orders o FULL JOIN extra.notes l ON l.customer = o.customer",
        "orders o LEFT JOIN lines l ON l.order_id = o.id",
        "orders o LEFT JOIN lines l ON l.customer = o.customer AND o.customer = 3",
    ]);
    match dice.below(4) {
        0 => case(format!("SELECT o.id, l.customer FROM {join} WHERE {condition}"), false),
        1 => case(format!("SELECT o.id FROM {join} WHERE l.customer IS NULL AND {condition}"), false),
        2 => case(format!("SELECT count(*), count(l.customer) FROM {join}"), true),
        _ => case(format!("SELECT l.customer, count(*) FROM {join} WHERE {condition} GROUP BY l.customer"), false),
    }
}

fn other_joins(dice: &mut Dice) -> Case {
    let sql = match dice.below(6) {
        0 => "SELECT o.id, l.sku FROM orders o JOIN lines l ON l.order_id = o.id WHERE l.n = 1".to_owned(),
        1 => format!("SELECT a.id, b.id FROM orders a JOIN orders b ON a.id = b.id + {} WHERE a.qty = 2", dice.below(9)),
        2 => "SELECT e.tenant, o.id FROM events e JOIN orders o ON o.qty = e.kind WHERE o.id < 40".to_owned(),
        3 => "SELECT count(*) FROM orders o, events e WHERE e.kind = o.qty".to_owned(),
        4 => "SELECT a.what, o.id FROM audit a JOIN orders o ON o.id = a.id".to_owned(),
        _ => format!("SELECT * FROM orders o NATURAL JOIN extra.notes n WHERE o.customer < {}", dice.below(20)),
    };
    case(sql, false)
}

fn windows(dice: &mut Dice) -> Case {
    let window = dice.pick(&[
        "row_number() OVER (ORDER BY o.id)",
        "rank() OVER (PARTITION BY o.region ORDER BY o.amount, o.id)",
        "sum(o.qty) OVER (PARTITION BY o.customer)",
        "lag(o.id) OVER (PARTITION BY o.customer ORDER BY o.id)",
        "sum(o.amount) OVER (ORDER BY o.id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW)",
        "count(*) OVER ()",
        "first_value(o.note) OVER w",
    ]);
    let named = if window.ends_with('w') { " WINDOW w AS (PARTITION BY o.qty ORDER BY o.id)" } else { "" };
    case(format!("SELECT o.id, {window} FROM orders o WHERE {}{named} ORDER BY o.id", condition(dice)), true)
}

fn derived(dice: &mut Dice) -> Case {
    let condition = condition(dice);
    let sql = match dice.below(9) {
        0 => format!("SELECT x.id FROM (SELECT * FROM orders o WHERE {condition}) x WHERE x.qty > 1"),
        1 => format!(
            "WITH x AS (SELECT o.region, count(*) AS n FROM orders o WHERE {condition} GROUP BY o.region) SELECT sum(n), max(region) FROM x"
        ),
        2 => {
            format!("SELECT max(n) FROM (SELECT o.customer, count(*) AS n FROM orders o WHERE {condition} GROUP BY o.customer) x")
        }
        3 => format!(
            "WITH x AS (SELECT * FROM orders o WHERE {condition}) SELECT a.id FROM x a JOIN x b ON a.customer = b.customer AND a.id = b.id"
        ),
        4 => format!(
            "SELECT x.customer, l.sku FROM (SELECT DISTINCT o.customer FROM orders o WHERE {condition}) x JOIN lines l ON l.customer = x.customer"
        ),
        5 => format!("SELECT count(*) FROM (SELECT o.id FROM orders o WHERE {condition} ORDER BY o.id LIMIT 5) x"),
        6 => format!(
            "SELECT o.id, x.n FROM orders o, LATERAL (SELECT count(*) AS n FROM lines l WHERE l.customer = o.customer) x WHERE {condition}"
        ),
        7 => format!(
            "SELECT count(*) FROM big_orders b JOIN orders o ON o.customer = b.customer AND o.id = b.id WHERE {condition}"
        ),
        _ => format!(
            "WITH x AS (SELECT o.customer AS c FROM orders o WHERE {condition}), y AS (SELECT c FROM x WHERE c > 5) SELECT c, count(*) FROM y GROUP BY c"
        ),
    };
    case(sql, false)
}

fn recursive(dice: &mut Dice) -> Case {
    let sql = match dice.below(3) {
        0 => format!(
            "WITH RECURSIVE r (id, depth) AS (SELECT id, 1 FROM orders WHERE id = {} UNION ALL SELECT o.id, r.depth + 1 FROM orders o JOIN r ON o.id = r.id + 23) \
             SELECT * FROM r",
            dice.below(60)
        ),
        1 => "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 8) SELECT n.n, count(*) FROM n JOIN orders o ON o.qty = n.n GROUP BY n.n".to_owned(),
        _ => format!(
            "WITH RECURSIVE r (c) AS (SELECT min(customer) FROM orders UNION SELECT o.customer FROM r JOIN orders o ON o.customer = r.c + 1 WHERE o.qty = {}) \
             SELECT count(*) FROM r",
            dice.below(7)
        ),
    };
    case(sql, false)
}
