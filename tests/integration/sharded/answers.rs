//! Answers over shards are those of one PostgreSQL with all the rows.

use super::super::harness::client::{Protocol, RawClient, Reply};
use super::super::harness::programs::psql;
use super::stage::{Stage, app_url, on_shards, stage};
use super::{error_of, run, tags};
use std::sync::OnceLock;

const TABLES: &str = "
    CREATE TABLE orders (customer_id bigint NOT NULL, id int NOT NULL, product text, amount numeric(10,2), at date, PRIMARY KEY (customer_id, id));
    CREATE TABLE order_lines (customer_id bigint NOT NULL, id int NOT NULL, line int NOT NULL, quantity int, PRIMARY KEY (customer_id, id, line));
    CREATE TABLE accounts (customer_id bigint PRIMARY KEY, balance bigint NOT NULL);
    CREATE TABLE countries (code text PRIMARY KEY, name text);
    CREATE TABLE audit (id int PRIMARY KEY, note text);";

/// What fills the tables: through pgyard, and directly where all rows are.
fn rows() -> Vec<String> {
    let list = |count: usize, row: &dyn Fn(usize) -> String| (1..=count).map(row).collect::<Vec<_>>().join(", ");
    vec![
        format!(
            "INSERT INTO orders VALUES {}",
            list(200, &|i| format!(
                "({}, {i}, {}, {}.{:02}, DATE '2024-01-01' + {})",
                i % 37,
                ["'tea'", "'coffee'", "NULL"][i % 3],
                i * 7 % 100,
                i % 100,
                i % 50
            ))
        ),
        format!(
            "INSERT INTO order_lines (customer_id, id, line, quantity) VALUES {}",
            list(300, &|i| format!("({}, {}, {i}, {})", i % 37, i % 200 + 1, i % 9))
        ),
        format!("INSERT INTO accounts (balance, customer_id) VALUES {}", list(37, &|i| format!("(1000, {})", i - 1))),
        "INSERT INTO countries VALUES ('de', 'Germany'), ('fr', 'France')".to_owned(),
        "INSERT INTO audit VALUES (1, 'one'), (2, 'two')".to_owned(),
    ]
}

/// The stage with its tables filled, on the shards by pgyard.
fn filled() -> &'static Stage {
    static FILLED: OnceLock<()> = OnceLock::new();
    let stage = stage();
    FILLED.get_or_init(|| {
        psql(&app_url(&stage.fleet, "app"), TABLES);
        let mut client = stage.yard.client();
        for sql in TABLES.split(';').filter(|sql| !sql.trim().is_empty()) {
            assert_eq!(error_of(&run(&mut client, sql)), None, "{sql}");
        }
        for sql in rows() {
            psql(&app_url(&stage.fleet, "app"), &sql);
            let replies = run(&mut client, &sql);
            assert_eq!(error_of(&replies), None, "{sql}");
        }
    });
    stage
}

fn direct(stage: &Stage) -> RawClient {
    RawClient::log_in(stage.fleet.primary().port(), "app", stage.fleet.app_password().reveal(), "app").unwrap()
}

/// Rows and command tags, and errors by their code.
fn answer(replies: &[Reply], ordered: bool) -> Vec<String> {
    let text = |reply: &Reply| match reply.tag {
        b'D' | b'C' => Some(format!("{} {}", reply.tag as char, String::from_utf8_lossy(&reply.body))),
        b'E' => Some(format!("E {}", reply.field(b'C').unwrap_or_default())),
        _ => None,
    };
    let mut all: Vec<String> = replies.iter().filter_map(text).collect();
    if !ordered {
        all.sort();
    }
    all
}

#[test]
fn rows_are_where_their_keys_say() {
    filled();
    let counts: Vec<u32> = on_shards("SELECT count(*) FROM orders").iter().map(|count| count.parse().unwrap()).collect();
    assert!(counts.iter().sum::<u32>() == 200 && counts.iter().all(|count| *count > 20), "{counts:?}");
    assert_eq!(on_shards("SELECT count(*) FROM countries"), ["2", "2", "2"]);
    // Another test adds to it.
    assert_eq!(on_shards("SELECT count(*) > 1, count(*) FROM audit WHERE id < 3"), ["f|0", "t|2", "f|0"]);
}

#[test]
fn reads_answer_as_one_server_with_all_rows() {
    let stage = filled();
    let (mut through, mut one) = (stage.yard.client(), direct(stage));
    let statements = [
        "SELECT * FROM orders WHERE customer_id = 5 ORDER BY id",
        "SELECT count(*) FROM orders",
        "SELECT * FROM orders",
        "SELECT customer_id, id FROM orders ORDER BY customer_id DESC, id LIMIT 7 OFFSET 3",
        "SELECT id FROM orders ORDER BY at, id LIMIT 10",
        "SELECT product, count(*), sum(amount), avg(amount), min(at), max(at) FROM orders GROUP BY product ORDER BY product NULLS FIRST",
        "SELECT count(DISTINCT product) FROM orders",
        "SELECT sum(amount) / count(*) + 1 FROM orders WHERE customer_id IN (1, 2, 3)",
        "SELECT o.id, sum(quantity) FROM orders o JOIN order_lines l USING (customer_id) WHERE o.id = l.id GROUP BY o.id ORDER BY 1",
        "SELECT product FROM orders UNION SELECT name FROM countries ORDER BY 1",
        "SELECT DISTINCT product FROM orders ORDER BY product",
        "SELECT count(*) FROM orders WHERE customer_id = 3 AND customer_id = 4",
        "SELECT name FROM countries ORDER BY code",
        "SELECT note FROM audit ORDER BY id",
        "SELECT a.customer_id, b.customer_id FROM orders a JOIN orders b ON a.id = b.id + 1 ORDER BY 1, 2 LIMIT 5",
        "SELECT customer_id, rank() OVER (ORDER BY sum(amount) DESC) FROM orders GROUP BY customer_id ORDER BY 2, 1 LIMIT 5",
        "SELECT 1/0 FROM orders",
        "SELECT nonsense FROM orders",
        "SELECT now() IS NOT NULL",
    ];
    let mut refused = Vec::new();
    for sql in statements {
        let ordered = sql.contains("ORDER BY");
        for protocol in [Protocol::Simple, Protocol::Extended, Protocol::Named] {
            let expect = answer(&one.run(protocol, sql).unwrap(), ordered);
            let replies = through.run(protocol, sql).unwrap();
            if error_of(&replies).is_some_and(|error| error.0 == "0A000") {
                refused.push(sql);
                continue;
            }
            assert_eq!(answer(&replies, ordered), expect, "{protocol:?}: {sql}");
        }
    }
    println!("refused: {refused:#?}");
    assert!(refused.len() <= 6, "{refused:#?}");
    assert_eq!(tags(&run(&mut through, "SELECT count(*) FROM orders")), "TDCZ");
}

#[test]
fn writes_change_the_same_rows() {
    let stage = filled();
    let (mut through, mut one) = (stage.yard.client(), direct(stage));
    let statements = [
        "UPDATE accounts SET balance = balance + 1",
        "UPDATE accounts SET balance = balance + 1 WHERE customer_id = 7 RETURNING balance",
        "UPDATE accounts SET balance = balance - 1 WHERE customer_id IN (1, 2, 3, 4, 5)",
        "DELETE FROM order_lines WHERE quantity = 8",
        "INSERT INTO accounts VALUES (100, 1), (101, 2), (102, 3), (103, 4) RETURNING customer_id, balance",
        "INSERT INTO accounts VALUES (200, 1)",
        "INSERT INTO accounts VALUES (104, 1), (100, 2)",
        "UPDATE countries SET name = upper(name)",
        "INSERT INTO audit VALUES (3, 'three')",
        "DELETE FROM accounts WHERE customer_id >= 100",
    ];
    for sql in statements {
        for protocol in [Protocol::Simple, Protocol::Extended] {
            let (expect, got) = (one.run(protocol, sql).unwrap(), through.run(protocol, sql).unwrap());
            // Where the keys of a unique index lie, an error may name another row of the same statement.
            assert_eq!(
                answer(&got, sql.starts_with("INSERT")),
                answer(&expect, sql.starts_with("INSERT")),
                "{protocol:?}: {sql}"
            );
        }
    }
    let sum = "SELECT count(*), sum(balance), sum(customer_id) FROM accounts";
    assert_eq!(answer(&run(&mut through, sum), true), answer(&run(&mut one, sum), true));
    assert_eq!(on_shards("SELECT min(name) FROM countries"), ["FRANCE", "FRANCE", "FRANCE"]);
    // Several statements are one transaction, on all shards or on none.
    let twice =
        "INSERT INTO accounts VALUES (300, 1); INSERT INTO accounts VALUES (301, 1); INSERT INTO accounts VALUES (300, 1)";
    assert_eq!(error_of(&run(&mut through, twice)).unwrap().0, "23505");
    assert_eq!(answer(&run(&mut through, sum), true), answer(&run(&mut one, sum), true));
}
