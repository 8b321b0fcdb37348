//! Statements over values of many types, also of the user's own, whose numbers differ from database to database.

use super::generate::{Case, Dice, Maker};

/// The forms, each with its maker.
pub const KIND_FORMS: &[(&str, Maker)] =
    &[("types in order", ordered), ("types in groups", grouped), ("types in joins", joined), ("types as they are", plain)];

/// Columns that have an order.
const COLUMNS: &[&str] = &[
    "mood", "cents", "pair", "tags", "span", "took", "clock", "addr", "data", "ratio", "bits", "short", "big", "doc", "id2",
    "moods", "stamp", "zone",
];
const CONDITIONS: &[&str] = &[
    "true",
    "mood = 'happy'",
    "mood > 'sad'",
    "cents < 5",
    "span @> 3",
    "'t1' = ANY (tags)",
    "stamp > '2024-03-01'",
    "zone < '2024-04-01 00:00+02'",
    "customer = 7",
    "customer IN (2, 9)",
    "big IS NOT NULL AND bits = B'0101'",
    "took > interval '2 days'",
    "data = '\\x0003'",
    "doc ->> 'k' = '2'",
    "mood IN ('ok', 'sad')",
    "(pair).a = 1",
];

fn pick(dice: &mut Dice) -> (&'static str, &'static str) {
    (dice.pick(COLUMNS), dice.pick(CONDITIONS))
}

fn ordered(dice: &mut Dice) -> Case {
    let (column, condition) = pick(dice);
    let direction = dice.pick(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
    let limit = dice.pick(&["", " LIMIT 7", " OFFSET 100", " LIMIT 5 OFFSET 3"]);
    let list = dice.pick(&["*", "id, mood", "id", "tags, pair, id", "k.moods, k.doc, k.id2"]);
    Case { sql: format!("SELECT {list} FROM kinds k WHERE {condition} ORDER BY {column}{direction}, id{limit}"), ordered: true }
}

fn grouped(dice: &mut Dice) -> Case {
    let (column, condition) = pick(dice);
    let aggregate = dice.pick(&[
        "count(*)",
        "max(stamp), min(zone)",
        "max(mood), min(mood)",
        "sum(took)",
        "avg(took), avg(ratio)",
        "count(DISTINCT mood)",
        "array_agg(mood ORDER BY id)",
        "max(addr), min(short)",
        "sum(big)",
        "array_agg(DISTINCT pair ORDER BY pair)",
        "string_agg(data, '\\x00' ORDER BY id)",
        "sum(ratio)",
        "range_agg(span)",
        "max(big), bit_or(bits)",
        "min(tags), max(cents)",
        "jsonb_agg(mood ORDER BY id)",
    ]);
    match dice.below(4) {
        0 => Case { sql: format!("SELECT {aggregate} FROM kinds WHERE {condition}"), ordered: true },
        1 => Case { sql: format!("SELECT DISTINCT {column} FROM kinds WHERE {condition} ORDER BY {column}"), ordered: true },
        2 => Case {
            sql: format!(
                "SELECT {column} AS c, {aggregate} FROM kinds WHERE {condition} GROUP BY {column} ORDER BY {column} LIMIT 9"
            ),
            ordered: true,
        },
        _ => Case {
            sql: format!(
                "SELECT {column}, {aggregate} FROM kinds WHERE {condition} GROUP BY {column} HAVING count(*) > 1 ORDER BY 1"
            ),
            ordered: true,
        },
    }
}

fn joined(dice: &mut Dice) -> Case {
    let (column, condition) = pick(dice);
    let sql = match dice.below(7) {
        0 => format!("SELECT k.{column}, m.mark FROM kinds k JOIN other.marks m USING (customer) WHERE {condition}"),
        1 => format!("SELECT m.mark, count(*), max(k.{column}::text) FROM kinds k JOIN other.marks m ON m.mark = k.mood WHERE k.{condition} GROUP BY m.mark")
            .replace("k.true", "true")
            .replace("k.'t1' = ANY (tags)", "'t1' = ANY (k.tags)")
            .replace("k.(pair).a", "(k.pair).a"),
        2 => format!("SELECT mood, mark, count(*) FROM kinds_view GROUP BY mood, mark ORDER BY mood, mark, count(*) LIMIT {}", dice.below(9)),
        3 => format!("SELECT a.id, b.id FROM kinds a JOIN kinds b ON a.{column} = b.{column} AND a.id < b.id WHERE a.id < 20"),
        4 => format!("SELECT mood FROM kinds WHERE {condition} UNION SELECT mark FROM other.marks"),
        5 => format!("SELECT mark, (SELECT count(*) FROM kinds k WHERE k.customer = m.customer AND {condition}) FROM other.marks m")
            .replace("AND customer", "AND k.customer"),
        _ => format!("SELECT id, lag({column}) OVER (PARTITION BY mood ORDER BY id) FROM kinds WHERE {condition}"),
    };
    Case { sql, ordered: false }
}

fn plain(dice: &mut Dice) -> Case {
    let (column, condition) = pick(dice);
    let list = match dice.below(5) {
        0 => "*".to_owned(),
        1 => format!("{column}, {column} AS again"),
        2 => format!("{column} IS NULL, id"),
        3 => format!("coalesce({column}, {column}), customer"),
        _ => format!("ARRAY[{column}], id"),
    };
    Case { sql: format!("SELECT {list} FROM kinds WHERE {condition}"), ordered: false }
}
