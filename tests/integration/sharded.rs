//! A sharded database, compared with one PostgreSQL that holds all rows. The shards are databases of one server.

mod answers;
mod beside;
mod copying;
mod cut_ways;
mod figures;
mod merging;
pub mod stage;
mod two_phase;

use super::harness::client::{Protocol, RawClient, Reply, bind, describe_portal, execute, frame, parse, query, sync};
use super::harness::programs::{psql, psql_output};
use stage::{Stage, stage};

fn error_of(replies: &[Reply]) -> Option<(String, String)> {
    let error = replies.iter().find(|reply| reply.tag == b'E')?;
    Some((error.field(b'C')?, error.field(b'M')?))
}

fn tags(replies: &[Reply]) -> String {
    replies.iter().map(|reply| reply.tag as char).collect()
}

fn status(replies: &[Reply]) -> char {
    replies.last().map_or('?', |reply| reply.body[0] as char)
}

fn run(client: &mut RawClient, sql: &str) -> Vec<Reply> {
    client.run(Protocol::Simple, sql).unwrap()
}

#[test]
fn a_session_chooses_its_shard() {
    let Stage { yard, .. } = stage();
    let mut client = yard.client();
    for shard in ["s0", "s1", "s2"] {
        run(&mut client, &format!("SET pgyard.shard = '{shard}'"));
        for protocol in [Protocol::Simple, Protocol::Extended, Protocol::Named] {
            let replies = client.run(protocol, "SELECT current_database()::text").unwrap();
            let row = replies.iter().find(|reply| reply.tag == b'D').unwrap_or_else(|| panic!("{replies:?}"));
            assert!(row.body.ends_with(shard.as_bytes()), "{protocol:?} {row:?}");
        }
    }
    let refused = run(&mut client, "SET pgyard.shard = 'nowhere'");
    assert_eq!(error_of(&refused).map(|error| error.0).as_deref(), Some("22023"));
    run(&mut client, "RESET pgyard.shard");
    assert_eq!(client.column("SELECT 1").unwrap(), ["1"]);
}

#[test]
fn clients_cannot_name_a_shard() {
    let Stage { yard, fleet } = stage();
    let refused = RawClient::log_in(yard.port(), "app", fleet.app_password().reveal(), "app/s0").unwrap_err();
    assert!(refused.to_string().contains("3D000"), "{refused}");
}

#[test]
fn what_a_session_has_set_holds_on_every_shard() {
    let Stage { yard, .. } = stage();
    let mut client = yard.client();
    let on = |client: &mut RawClient, shard: &str, sql: &str| {
        run(client, &format!("SET pgyard.shard = '{shard}'"));
        client.column(sql).unwrap().remove(0)
    };
    let show = "SELECT current_setting('work_mem') || current_setting('app.tenant', true)";
    assert_eq!(on(&mut client, "s0", "SELECT 1"), "1");
    run(&mut client, "SET work_mem = '7MB'; SET app.tenant = 'x'");
    assert_eq!(on(&mut client, "s0", show), "7MBx");
    assert_eq!(on(&mut client, "s1", show), "7MBx", "a leg that was opened later");
    run(&mut client, "BEGIN");
    run(&mut client, "SET work_mem = '8MB'");
    run(&mut client, "SAVEPOINT a");
    run(&mut client, "SET app.tenant = 'y'");
    assert_eq!(on(&mut client, "s2", show), "8MBy", "a leg that comes into the transaction later");
    run(&mut client, "ROLLBACK TO a");
    assert_eq!(on(&mut client, "s2", show), "8MBx");
    assert_eq!(on(&mut client, "s0", show), "8MBx");
    run(&mut client, "ROLLBACK");
    for shard in ["s0", "s1", "s2"] {
        assert_eq!(on(&mut client, shard, show), "7MBx", "{shard}");
    }
    run(&mut client, "SET work_mem = '9MB'");
    run(&mut client, "DISCARD ALL");
    assert_ne!(on(&mut client, "s1", "SELECT current_setting('work_mem')"), "9MB");
}

#[test]
fn a_transaction_on_several_shards_is_one_for_the_client() {
    let Stage { yard, .. } = stage();
    stage::on_shards("CREATE TABLE IF NOT EXISTS blocks (id int PRIMARY KEY, v int)");
    stage::on_shards("TRUNCATE blocks");
    let mut client = yard.client();
    let on = |client: &mut RawClient, shard: &str, sql: &str| {
        run(client, &format!("SET pgyard.shard = '{shard}'"));
        run(client, sql)
    };
    assert_eq!(status(&run(&mut client, "BEGIN")), 'T');
    assert_eq!(status(&on(&mut client, "s0", "INSERT INTO blocks VALUES (1, 1)")), 'T');
    assert_eq!(status(&on(&mut client, "s1", "INSERT INTO blocks VALUES (1, 1)")), 'T');
    run(&mut client, "SAVEPOINT a");
    let twice = run(&mut client, "INSERT INTO blocks VALUES (1, 1)");
    assert_eq!((error_of(&twice).unwrap().0.as_str(), status(&twice)), ("23505", 'E'));
    let failed = run(&mut client, "SELECT 1");
    assert_eq!((error_of(&failed).unwrap().0.as_str(), status(&failed)), ("25P02", 'E'));
    assert_eq!(status(&run(&mut client, "ROLLBACK TO a")), 'T');
    assert_eq!(status(&on(&mut client, "s2", "INSERT INTO blocks VALUES (2, 2)")), 'T');
    assert_eq!(status(&run(&mut client, "COMMIT")), 'I');
    assert_eq!(stage::on_shards("SELECT count(*) FROM blocks"), ["1", "1", "1"]);
    assert_eq!(stage::on_shards("SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()"), ["0", "0", "0"]);

    run(&mut client, "BEGIN");
    on(&mut client, "s0", "DELETE FROM blocks");
    on(&mut client, "s1", "DELETE FROM blocks");
    assert_eq!(status(&on(&mut client, "s1", "SELECT nonsense")), 'E');
    let end = run(&mut client, "COMMIT");
    assert_eq!((status(&end), end[0].body.as_slice()), ('I', &b"ROLLBACK\0"[..]));
    run(&mut client, "BEGIN");
    on(&mut client, "s0", "DELETE FROM blocks");
    on(&mut client, "s1", "DELETE FROM blocks");
    drop(client);
    let eventually = std::time::Duration::from_secs(10);
    super::harness::eventually("what a client left behind is rolled back", eventually, || {
        stage::on_shards("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'")
            == ["0", "0", "0"]
    });
    assert_eq!(stage::on_shards("SELECT count(*) FROM blocks"), ["1", "1", "1"]);
}

#[test]
fn one_snapshot_is_for_one_shard() {
    let Stage { yard, .. } = stage();
    let mut client = yard.client();
    run(&mut client, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    run(&mut client, "SET pgyard.shard = 's0'");
    assert_eq!(status(&run(&mut client, "SELECT 1")), 'T');
    run(&mut client, "SET pgyard.shard = 's1'");
    let refused = run(&mut client, "SELECT 1");
    assert_eq!((error_of(&refused).unwrap().0.as_str(), status(&refused)), ("0A000", 'E'));
    assert_eq!(status(&run(&mut client, "ROLLBACK")), 'I');
}

#[test]
fn prepared_statements_follow_the_session_from_shard_to_shard() {
    let Stage { yard, .. } = stage();
    let mut client = yard.client();
    client.send(&[parse("p", "SELECT current_database()::text"), frame(b'D', b"Sp\0"), sync()].concat()).unwrap();
    assert_eq!(tags(&client.until_ready().unwrap()), "1tTZ");
    for shard in ["s0", "s1", "s0", "s2"] {
        run(&mut client, &format!("SET pgyard.shard = '{shard}'"));
        // What was planned stays planned: the statement names no table.
        client.send(&[bind("", "p"), describe_portal(""), execute(""), sync()].concat()).unwrap();
        assert_eq!(tags(&client.until_ready().unwrap()), "2TDCZ", "{shard}");
    }
    client.send(&[parse("p", "SELECT 2"), sync()].concat()).unwrap();
    let twice = client.until_ready().unwrap();
    assert_eq!(error_of(&twice).unwrap().0, "42P05");
    client.send(&[bind("", "unknown"), execute(""), sync()].concat()).unwrap();
    assert_eq!(error_of(&client.until_ready().unwrap()).unwrap().0, "26000");
    client.send(&[frame(b'C', b"Sp\0"), sync()].concat()).unwrap();
    assert_eq!(tags(&client.until_ready().unwrap()), "3Z");
    client.send(&[bind("", "p"), execute(""), sync()].concat()).unwrap();
    assert_eq!(error_of(&client.until_ready().unwrap()).unwrap().0, "26000");
}

#[test]
fn transactions_by_the_extended_protocol() {
    let Stage { yard, .. } = stage();
    let mut client = yard.client();
    for (sql, expect) in [("BEGIN", 'T'), ("SELECT 1", 'T'), ("SELECT nonsense", 'E'), ("SELECT 1", 'E'), ("ROLLBACK", 'I')] {
        let replies = client.run(Protocol::Extended, sql).unwrap();
        assert_eq!(status(&replies), expect, "{sql}: {replies:?}");
    }
    // A portal with a row limit, in a block.
    run(&mut client, "BEGIN");
    let execute_two = frame(b'E', b"c\0\0\0\0\x02");
    client.send(&[parse("", "SELECT generate_series(1, 3)"), bind("c", ""), execute_two.clone(), sync()].concat()).unwrap();
    assert_eq!(tags(&client.until_ready().unwrap()), "12DDsZ");
    client.send(&[execute_two, sync()].concat()).unwrap();
    assert_eq!(tags(&client.until_ready().unwrap()), "DCZ");
    run(&mut client, "COMMIT");
}

#[test]
fn several_statements_in_one_query() {
    let Stage { yard, .. } = stage();
    let mut client = yard.client();
    run(&mut client, "SET pgyard.shard = 's0'");
    let replies = run(&mut client, "SELECT 1; SELECT 2");
    assert_eq!(tags(&replies), "TDCTDCZ");
    assert_eq!(tags(&run(&mut client, "")), "IZ");
    assert_eq!(tags(&run(&mut client, "BEGIN; SELECT 1; COMMIT")), "CTDCCZ");
    let replies = run(&mut client, "BEGIN; SELECT nonsense; COMMIT");
    assert_eq!((tags(&replies).as_str(), status(&replies)), ("CEZ", 'E'));
    assert_eq!(status(&run(&mut client, "ROLLBACK")), 'I');
}

#[test]
fn copy_in_and_out_on_one_shard() {
    let Stage { yard, .. } = stage();
    stage::on_shards("CREATE TABLE IF NOT EXISTS copies (id int, t text)");
    stage::on_shards("TRUNCATE copies");
    let rows: String = (0..20_000).map(|id| format!("{id}\t{}\n", "x".repeat(id % 50))).collect();
    let script = format!("SET pgyard.shard = 's1';\nCOPY copies FROM STDIN;\n{rows}\\.\nSELECT count(*) FROM copies;\n");
    assert_eq!(psql(&yard.url(), &script), "20000");
    let out = psql(&yard.url(), "SET pgyard.shard = 's1';\nCOPY (SELECT * FROM copies ORDER BY id) TO STDOUT;\n");
    assert_eq!(out, rows.trim_end());
    let failed = psql_output(&yard.url(), "SET pgyard.shard = 's1';\nCOPY copies FROM STDIN;\nno\n\\.\n");
    assert!(String::from_utf8_lossy(&failed.stderr).contains("invalid input syntax"), "{failed:?}");
    assert_eq!(stage::on_shards("SELECT count(*) FROM copies"), ["0", "20000", "0"]);
}

#[test]
fn a_cancel_request_reaches_the_leg() {
    let Stage { yard, .. } = stage();
    let mut client = yard.client();
    run(&mut client, "SET pgyard.shard = 's2'");
    client.send(&query("SELECT pg_sleep(60)")).unwrap();
    let limit = std::time::Duration::from_secs(10);
    super::harness::eventually("the statement runs", limit, || {
        stage::on_shards(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%' AND datname = current_database()",
        )[2] == "1"
    });
    let mut other = RawClient::connect(yard.port()).unwrap();
    other.send(&super::harness::client::cancel_request(client.key)).unwrap();
    assert_eq!(error_of(&client.until_ready().unwrap()).unwrap().0, "57014");
    assert_eq!(client.column("SELECT 1").unwrap(), ["1"]);
}

#[test]
fn a_large_answer_is_not_held() {
    let Stage { yard, .. } = stage();
    let mut client = yard.client();
    run(&mut client, "SET pgyard.shard = 's0'");
    let before = yard.resident_bytes();
    client.send(&query("SELECT repeat('x', 1000) FROM generate_series(1, 100000)")).unwrap();
    // Nobody reads for a while: the answer stays where it is made.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let grown = yard.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
    assert_eq!(client.until_ready().unwrap().iter().filter(|reply| reply.tag == b'D').count(), 100_000);
}

#[test]
fn a_coordinator_answers_what_the_shards_cannot() {
    let fleet = stage::server();
    fleet.primary().sql("CREATE DATABASE coordinator OWNER app").unwrap();
    let more = format!("[databases.app.coordinator]\nprimary = {:?}\n", stage::shard_url(&fleet, "coordinator"));
    let yard = super::harness::Pgyard::start_with_config(&fleet, &format!("{}{more}", stage::config(&fleet, "")));
    stage::wait_for_decisions(&fleet);
    let mut client = RawClient::log_in(yard.port(), "app", fleet.app_password().reveal(), "app").unwrap();
    for sql in [
        "CREATE TABLE orders (customer_id bigint, id bigint, amount numeric, PRIMARY KEY (customer_id, id))",
        "INSERT INTO orders VALUES (1, 1, 10), (2, 1, 20), (3, 1, 30), (4, 1, 40), (5, 1, 50)",
        "CREATE VIEW totals AS SELECT count(*) AS orders, sum(amount) AS amount FROM orders",
    ] {
        assert_eq!(error_of(&run(&mut client, sql)), None, "{sql}");
    }
    let asked = "SELECT t.orders, t.amount, o.customer_id FROM totals t, orders o WHERE o.amount = t.amount / t.orders";
    // The coordinator follows the definitions above as soon as it can.
    super::harness::eventually("the coordinator answers", std::time::Duration::from_secs(30), || {
        error_of(&run(&mut client, asked)).is_none()
    });
    for protocol in [Protocol::Simple, Protocol::Extended, Protocol::Named] {
        let rows = client.run(protocol, asked).unwrap();
        let values = rows.iter().find(|reply| reply.tag == b'D').unwrap();
        assert!(String::from_utf8_lossy(&values.body).contains("150"), "{protocol:?} {values:?}");
    }
    // It sees what is committed: behind a write in the same transaction it is not asked.
    for sql in ["BEGIN", asked, "UPDATE orders SET amount = 0 WHERE customer_id = 1"] {
        assert_eq!(error_of(&run(&mut client, sql)), None, "{sql}");
    }
    assert_eq!(error_of(&run(&mut client, asked)).map(|error| error.0).as_deref(), Some("0A000"));
    assert_eq!(error_of(&run(&mut client, "ROLLBACK")), None);
    // A statement that writes is none of its business, and what has changed is not answered by what was.
    assert!(error_of(&run(&mut client, "UPDATE orders SET amount = 1 FROM totals t WHERE t.orders = orders.id")).is_some());
    assert_eq!(error_of(&run(&mut client, "ALTER TABLE orders ADD COLUMN note text DEFAULT 'new'")), None);
    super::harness::eventually("the coordinator follows", std::time::Duration::from_secs(30), || {
        client
            .run(Protocol::Simple, &asked.replace("o.customer_id", "o.note"))
            .unwrap()
            .iter()
            .any(|reply| reply.tag == b'D' && String::from_utf8_lossy(&reply.body).contains("new"))
    });
}

#[test]
fn a_reference_table_with_computed_defaults_is_alike_everywhere() {
    let Stage { yard, .. } = stage();
    let mut client = yard.client();
    for protocol in [Protocol::Simple, Protocol::Extended] {
        run(&mut client, "DROP TABLE IF EXISTS samples");
        let make = "CREATE TABLE samples (code text, made timestamptz DEFAULT clock_timestamp(), token float8 DEFAULT random())";
        assert_eq!(error_of(&run(&mut client, make)), None);
        let insert = "INSERT INTO samples (code) VALUES ('de'), ('fr') RETURNING code, upper(code) AS big";
        let replies = client.run(protocol, insert).unwrap();
        assert_eq!(error_of(&replies), None, "{protocol:?}");
        let rows: Vec<&Reply> = replies.iter().filter(|reply| reply.tag == b'D').collect();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1].body, b"\0\x02\0\0\0\x02fr\0\0\0\x02FR");
        let copies = stage::on_shards("SELECT code, made, token FROM samples ORDER BY code");
        assert!(copies[0].contains("de") && copies.iter().all(|copy| *copy == copies[0]), "{copies:#?}");
    }
}
