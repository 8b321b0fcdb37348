//! Scripts of statements that change rows, made by chance.

use super::generate::Dice;

/// Makes a script of one form: statements that run one after the other.
type ScriptMaker = fn(&mut Dice, usize) -> Vec<String>;

/// The forms, each with its maker. The number is unique in a run, for new keys.
pub const WRITE_FORMS: &[(&str, ScriptMaker)] = &[
    ("INSERT", insert),
    ("INSERT of several rows", insert_rows),
    ("INSERT ... ON CONFLICT", conflict),
    ("INSERT ... SELECT", insert_select),
    ("UPDATE", update),
    ("UPDATE ... FROM", update_from),
    ("DELETE", delete),
    ("reference tables", reference),
    ("transactions", transactions),
    ("several statements", several),
];

/// The tables that the scripts change, each with the partitioned table whose hash is its, and its key.
pub const WRITTEN: &[(&str, &str, &str)] = &[
    ("orders", "by_int", "customer"),
    ("lines", "by_int", "customer"),
    ("extra.notes", "by_int", "customer"),
    ("events", "by_text", "tenant"),
    ("readings", "by_pair", "site, day"),
    ("countries", "", ""),
    ("audit", "", ""),
];

const RETURNINGS: &[&str] =
    &["", "", " RETURNING *", " RETURNING id, qty + 1 AS more", " RETURNING customer, upper(region), note"];

fn new_order(dice: &mut Dice, id: usize) -> String {
    let region = dice.pick(&["'de'", "'fr'", "NULL", "'new'"]);
    format!("({}, {}, {region}, {}.25, {})", dice.below(40), 10_000 + id, dice.below(99), dice.below(7))
}

fn insert(dice: &mut Dice, number: usize) -> Vec<String> {
    let returning = dice.pick(RETURNINGS);
    let sql = match dice.below(6) {
        0 => {
            format!("INSERT INTO events VALUES ('t{}', {}, '2024-05-05 05:05+02', '{{\"n\": 1}}')", dice.below(30), dice.below(5))
        }
        1 => format!("INSERT INTO events (kind, tenant) VALUES ({}, NULL) RETURNING tenant, kind", dice.below(5)),
        2 => format!(
            "INSERT INTO readings (value, day, site) VALUES (1.5, '2025-01-01', '00000000-0000-0000-0000-{number:012}') RETURNING *"
        ),
        3 => format!(
            "INSERT INTO orders (customer, id, note, created) VALUES ('{}', {}, 'it''s', DEFAULT){returning}",
            dice.below(40),
            10_000 + number * 10
        ),
        4 => format!("INSERT INTO extra.notes VALUES ({}, 1 + 1, 'a' || 'b') RETURNING body", dice.below(40)),
        _ => format!("INSERT INTO orders (customer, id, region, amount, qty) VALUES {}{returning}", new_order(dice, number * 10)),
    };
    vec![sql]
}

fn insert_rows(dice: &mut Dice, number: usize) -> Vec<String> {
    let returning = dice.pick(RETURNINGS);
    let rows: Vec<String> = (0..1 + dice.below(6)).map(|row| new_order(dice, number * 10 + row)).collect();
    let bad = match dice.below(6) {
        0 => format!(", {}", rows[0]),
        1 => ", (NULL, 1, NULL, 1, 1)".to_owned(),
        _ => String::new(),
    };
    match dice.below(4) {
        0 => {
            let rows: Vec<String> = (0..3).map(|row| format!("('{{\"k\": {row}}}', 't{}', {row})", dice.below(30))).collect();
            vec![format!("INSERT INTO events (payload, tenant, kind) VALUES {} RETURNING tenant, payload", rows.join(", "))]
        }
        _ => vec![format!("INSERT INTO orders (customer, id, region, amount, qty) VALUES {}{bad}{returning}", rows.join(", "))],
    }
}

fn conflict(dice: &mut Dice, number: usize) -> Vec<String> {
    let customer = dice.below(23) + 1;
    // Rows of the fixture have the customer 1 + id % 23.
    let known = (customer + 22) % 23 + 23 * dice.below(9);
    let rows = format!(
        "({customer}, {known}, 5), ({}, {}, 6), ({customer}, {}, 7)",
        dice.below(40),
        10_000 + number * 10,
        10_001 + number * 10
    );
    let action = dice.pick(&[
        "(customer, id) DO NOTHING",
        "(customer, id) DO UPDATE SET qty = excluded.qty + orders.qty",
        "DO NOTHING",
        "(customer, id) DO UPDATE SET qty = 0, note = 'again' WHERE orders.qty > 3",
        "ON CONSTRAINT orders_pkey DO UPDATE SET region = excluded.region",
    ]);
    let returning = dice.pick(&["", " RETURNING id, qty", " RETURNING *"]);
    vec![format!("INSERT INTO orders (customer, id, qty) VALUES {rows} ON CONFLICT {action}{returning}")]
}

fn insert_select(dice: &mut Dice, number: usize) -> Vec<String> {
    let customer = dice.below(30);
    let sql = match dice.below(7) {
        0 => format!(
            "INSERT INTO lines SELECT customer, id, {}, note, 1.5 FROM orders WHERE qty = {}",
            100 + number,
            dice.below(7)
        ),
        1 => format!("INSERT INTO extra.notes SELECT id % 37, qty, 'from ' || id FROM orders WHERE customer < {customer}"),
        2 => format!(
            "INSERT INTO extra.notes (body, customer) SELECT sku, customer + 1 FROM lines WHERE n = 2 AND order_id < {}",
            customer * 3
        ),
        3 => format!(
            "INSERT INTO events (tenant, kind, cost) SELECT region, qty, id FROM orders WHERE customer = {customer} RETURNING tenant, cost"
        ),
        4 => "INSERT INTO events (tenant, kind) SELECT region, count(*) FROM orders GROUP BY region".to_owned(),
        5 => format!("INSERT INTO extra.notes (customer, body) SELECT n, 'series' FROM generate_series(1, {customer}) AS n"),
        _ => format!(
            "INSERT INTO extra.notes (customer, body) SELECT customer, region FROM orders ORDER BY id LIMIT {}",
            dice.below(9)
        ),
    };
    vec![sql]
}

fn update(dice: &mut Dice, _: usize) -> Vec<String> {
    let set = dice.pick(&[
        "qty = qty + 1",
        "note = note || '.'",
        "amount = amount * 1.1, flag = NOT flag",
        "(qty, small) = (1, 2)",
        "region = DEFAULT",
    ]);
    let condition = match dice.below(6) {
        0 => format!("customer = {}", dice.below(26)),
        1 => format!("customer IN ({}, {}, {})", dice.below(26), dice.below(26), dice.below(26)),
        2 => format!("qty = {}", dice.below(8)),
        3 => format!("id > {}", dice.below(300)),
        4 => "region IN (SELECT code FROM countries WHERE continent = 'here')".to_owned(),
        _ => {
            "EXISTS (SELECT 1 FROM lines l WHERE l.customer = orders.customer AND l.order_id = orders.id AND l.n = 2)".to_owned()
        }
    };
    let returning = dice.pick(&["", " RETURNING id, qty, note", " RETURNING *"]);
    let sql = match dice.below(5) {
        0 => format!("UPDATE events SET kind = kind + 1 WHERE tenant = 't{}' RETURNING tenant, kind", dice.below(18)),
        1 => format!("UPDATE readings SET value = value * 2 WHERE day = '2024-05-0{}'", 1 + dice.below(9)),
        _ => format!("UPDATE orders SET {set} WHERE {condition}{returning}"),
    };
    vec![sql]
}

fn update_from(dice: &mut Dice, _: usize) -> Vec<String> {
    let qty = dice.below(7);
    vec![match dice.below(4) {
        0 => format!(
            "UPDATE orders o SET note = l.sku FROM lines l WHERE l.customer = o.customer AND l.order_id = o.id AND l.n = 1 AND o.qty = {qty} RETURNING o.id, l.sku"
        ),
        1 => format!("UPDATE orders SET code = left(c.name, 8) FROM countries c WHERE c.code = region AND qty = {qty}"),
        2 => format!(
            "UPDATE lines SET cost = o.amount FROM orders o WHERE (o.customer, o.id) = (lines.customer, lines.order_id) AND o.customer = {}",
            qty + 3
        ),
        _ => format!("UPDATE extra.notes n SET stars = 5 FROM orders o WHERE o.customer = n.customer AND o.id = {}", 1 + qty * 9),
    }]
}

fn delete(dice: &mut Dice, _: usize) -> Vec<String> {
    vec![match dice.below(7) {
        0 => format!("DELETE FROM orders WHERE id > 9999 AND customer = {}", dice.below(40)),
        1 => format!("DELETE FROM lines WHERE n > {} RETURNING customer, n", 90 + dice.below(20)),
        2 => "DELETE FROM extra.notes WHERE body = 'series' OR body LIKE 'from%'".to_owned(),
        3 => format!(
            "DELETE FROM lines l USING orders o WHERE o.customer = l.customer AND o.id = l.order_id AND o.id > {} RETURNING l.sku, o.id",
            10_000 + dice.below(500)
        ),
        4 => format!("DELETE FROM events WHERE cost IS NULL OR kind > 4 AND tenant = 't{}'", dice.below(15)),
        5 => format!("DELETE FROM events WHERE tenant = 'de' AND kind = {} RETURNING *", dice.below(5)),
        _ => "DELETE FROM orders WHERE id > 10000 AND qty > 3 RETURNING id".to_owned(),
    }]
}

fn reference(dice: &mut Dice, number: usize) -> Vec<String> {
    let returning = dice.pick(&["", " RETURNING *", " RETURNING code, name || '!' AS cry"]);
    vec![match dice.below(6) {
        0 => format!("INSERT INTO countries VALUES ('n{number}', 'New', 'far'){returning}"),
        1 => format!(
            "INSERT INTO countries (name, code) VALUES ('N', 'n{number}'), ('M', 'm{number}') ON CONFLICT (code) DO NOTHING{returning}"
        ),
        2 => {
            format!("UPDATE countries SET name = name || '+' WHERE continent = 'far' AND code > 'n{}'{returning}", dice.below(9))
        }
        3 => format!("DELETE FROM countries WHERE code = 'n{}'{returning}", number.saturating_sub(dice.below(8))),
        4 => format!("UPDATE audit SET what = what || '{number}' WHERE id = {} RETURNING *", 1 + dice.below(6)),
        _ => format!(
            "INSERT INTO audit VALUES ({}, 'new') ON CONFLICT (id) DO UPDATE SET what = audit.what || excluded.what RETURNING *",
            dice.below(30)
        ),
    }]
}

fn transactions(dice: &mut Dice, number: usize) -> Vec<String> {
    let mut script = vec![dice.pick(&["BEGIN", "BEGIN ISOLATION LEVEL READ COMMITTED", "START TRANSACTION"]).to_owned()];
    let part = |dice: &mut Dice, place: usize| {
        let number = number * 1000 + place * 10;
        let makers: [ScriptMaker; 5] = [insert_rows, update, delete, reference, update_from];
        makers[dice.below(makers.len())](dice, number)
    };
    script.extend(part(dice, 1));
    script.push("SELECT count(*), sum(qty), max(id) FROM orders".to_owned());
    if dice.below(2) == 0 {
        script.push("SAVEPOINT a".to_owned());
        script.extend(part(dice, 2));
        if dice.below(2) == 0 {
            // One reason to fail: of several, on several shards, which one is shown is left open.
            let rows = dice.pick(&["(2, 1), (3, 1)", "(2, 1), (3, -1)", "(2, -2), (3, NULL)", "(3, NULL), (2, NULL)"]);
            script.push(format!("INSERT INTO orders (customer, id) VALUES ({}, -1), {rows}", dice.below(20)));
        }
        script.push("ROLLBACK TO a".to_owned());
        script.push("SELECT customer, count(*) FROM orders GROUP BY customer ORDER BY 1".to_owned());
    }
    script.extend(part(dice, 3));
    script.push(dice.pick(&["COMMIT", "ROLLBACK", "COMMIT"]).to_owned());
    script
}

fn several(dice: &mut Dice, number: usize) -> Vec<String> {
    let first = insert_rows(dice, number * 100);
    let second = update(dice, number);
    let third =
        dice.pick(&["SELECT count(*) FROM orders", "SELECT 1/0", "SELECT 1", "DELETE FROM lines WHERE n = 2 AND cost > 20"]);
    vec![format!("{}; {}; {third}", first[0], second[0])]
}
