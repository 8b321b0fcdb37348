//! Rows of several shards in one order, as they come.

use super::super::harness::client::{Protocol, RawClient, Reply, cancel_request, describe_portal, frame, parse, query, sync};
use super::beside::{Beside, beside, rows_of};
use super::stage::stage;
use super::{error_of, run, status, tags};
use std::time::Duration;

/// Columns whose order pgyard knows in both formats.
const COLUMNS: [&str; 20] =
    ["b", "i2", "i4", "i8", "f4", "f8", "n", "t", "tc", "v", "c", "d", "ts", "tz", "tm", "tmz", "u", "y", "o", "ch"];

/// Bind of the unnamed statement to a portal, with a format for all columns of the result.
fn bind_formats(portal: &str, format: u8) -> Vec<u8> {
    frame(b'B', &[portal.as_bytes(), b"\0\0\0\0\0\0\0\x01\0", &[format]].concat())
}

fn execute(portal: &str, rows: u32) -> Vec<u8> {
    frame(b'E', &[portal.as_bytes(), b"\0", &rows.to_be_bytes()].concat())
}

fn extended(client: &mut RawClient, sql: &str, format: u8) -> Vec<Reply> {
    client.send(&[parse("", sql), bind_formats("", format), describe_portal(""), execute("", 0), sync()].concat()).unwrap();
    client.until_ready().unwrap()
}

/// The names of an answer's columns.
fn names_of(replies: &[Reply]) -> Vec<String> {
    let description = replies.iter().find(|reply| reply.tag == b'T').unwrap();
    let mut rest = &description.body[2..];
    let mut names = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        names.push(String::from_utf8_lossy(&rest[..end]).into_owned());
        rest = &rest[end + 19..];
    }
    names
}

/// Compares a statement by every protocol and format.
fn check(through: &mut RawClient, whole: &mut RawClient, sql: &str) {
    let (replies, answer) = (run(whole, sql), run(through, sql));
    let expect = rows_of(&replies);
    assert!(expect.len() > 1, "{sql}: {:?}", String::from_utf8_lossy(&expect[0]));
    assert_eq!(rows_of(&answer), expect, "{sql}");
    assert_eq!(names_of(&answer), names_of(&replies), "{sql}");
    for format in [0, 1] {
        let expect = rows_of(&extended(whole, sql, format));
        assert_eq!(rows_of(&extended(through, sql, format)), expect, "{sql}, format {format}");
    }
}

#[test]
fn rows_are_merged_in_the_order_of_every_type() {
    // Its own, so that its counts are this test's.
    let own = Beside { yard: beside().another() };
    let (mut through, mut whole) = (own.yard.client(), own.whole());
    for client in [&mut through, &mut whole] {
        run(client, "SET TimeZone = 'Europe/Paris'");
    }
    let finished = own.count("finished");
    for column in COLUMNS {
        for order in [
            format!("SELECT id, {column} FROM sorted ORDER BY {column}, id"),
            format!("SELECT id FROM sorted ORDER BY {column} DESC NULLS LAST, id DESC LIMIT 50 OFFSET 7"),
            format!("SELECT {column}, id % 5 FROM sorted WHERE id < 300 ORDER BY 2, {column} NULLS FIRST, id"),
        ] {
            check(&mut through, &mut whole, &order);
        }
    }
    assert_eq!(own.count("finished"), finished, "nothing was held for a finishing query");
    // What pgyard can't compare is sorted by a server: a language's order, intervals as text, and what settings make of texts.
    check(&mut through, &mut whole, "SELECT te, id FROM sorted ORDER BY te, id");
    check(&mut through, &mut whole, "SELECT j, id FROM sorted ORDER BY j, id");
    check(&mut through, &mut whole, "SELECT iv, id FROM sorted ORDER BY iv, id");
    check(&mut through, &mut whole, "SELECT id FROM sorted ORDER BY iv, id");
    check(&mut through, &mut whole, "SELECT tc, id FROM sorted ORDER BY tc COLLATE \"de-x-icu\", id");
    assert!(own.count("finished") > finished);
    check(&mut through, &mut whole, "SELECT i2, count(*), sum(id) + 1, max(t) AS m FROM sorted GROUP BY i2 ORDER BY i2");
    check(&mut through, &mut whole, "SELECT DISTINCT b, lower(t), i2 AS two FROM sorted ORDER BY b, 2, i2");
    for setting in ["DateStyle = 'SQL, DMY'", "bytea_output = 'escape'", "extra_float_digits = -3", "client_encoding = 'LATIN1'"]
    {
        for client in [&mut through, &mut whole] {
            run(client, &format!("BEGIN; SET {setting}"));
        }
        for column in ["d", "ts", "tz", "y", "f4", "f8", "t", "tc", "v"] {
            let sql = format!("SELECT id, {column} FROM sorted ORDER BY {column}, id");
            let expect = rows_of(&run(&mut whole, &sql));
            assert_eq!(rows_of(&run(&mut through, &sql)), expect, "{sql} with {setting}");
        }
        for client in [&mut through, &mut whole] {
            run(client, "ROLLBACK");
        }
    }
}

#[test]
fn ties_of_the_last_row_are_shown() {
    let (mut through, mut whole) = (beside().yard.client(), beside().whole());
    for column in ["i2", "b", "n", "t", "o"] {
        for clause in [
            "FETCH FIRST 3 ROWS WITH TIES",
            "OFFSET 4 ROWS FETCH FIRST 1 ROW WITH TIES",
            "OFFSET 590 ROWS FETCH NEXT 50 ROWS WITH TIES",
            "FETCH FIRST 0 ROWS WITH TIES",
            "FETCH FIRST 2 ROWS ONLY",
            "LIMIT 0",
            "OFFSET 598",
        ] {
            for shown in [column, "1 AS one"] {
                let sql = format!("SELECT {shown} FROM sorted ORDER BY {column} {clause}");
                let expect = rows_of(&run(&mut whole, &sql));
                let replies = run(&mut through, &sql);
                assert_eq!(rows_of(&replies), expect, "{sql}");
                assert!(tags(&replies).starts_with('T'), "{sql}: {}", tags(&replies));
            }
        }
    }
}

#[test]
fn limits_that_are_negative_are_the_servers_error() {
    let (mut through, mut whole) = (beside().yard.client(), beside().whole());
    for sql in ["SELECT id FROM sorted ORDER BY id LIMIT $1 OFFSET $2", "SELECT 1 FROM sorted LIMIT $1 OFFSET $2"] {
        for (limit, offset) in [("-1", "5"), ("3", "-2"), ("-1", "-1"), ("2", "3")] {
            let bind = [b"\0\0\0\0\0\x02".to_vec(), field(limit), field(offset), b"\0\0".to_vec()].concat();
            let messages = [parse("", sql), frame(b'B', &bind), execute("", 0), sync()].concat();
            let mut answers = Vec::new();
            for client in [&mut through, &mut whole] {
                client.send(&messages).unwrap();
                let replies = client.until_ready().unwrap();
                answers.push((error_of(&replies), rows_of(&replies)));
            }
            assert_eq!(answers[0], answers[1], "{sql} {limit} {offset}");
        }
    }
}

fn field(text: &str) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

#[test]
fn portals_fetch_by_pieces() {
    let (mut through, mut whole) = (beside().yard.client(), beside().whole());
    let statements = [
        "SELECT id, t FROM sorted ORDER BY t, id",
        "SELECT id FROM sorted ORDER BY n DESC, id LIMIT 300",
        "SELECT id, te FROM sorted ORDER BY te, id",
        "SELECT i2, count(*) FROM sorted GROUP BY i2 ORDER BY i2",
    ];
    for (sql, size) in statements.iter().flat_map(|sql| [1, 7, 100, 600, 601].map(|size| (sql, size))) {
        let size = if size == 1 && sql.contains("600") { 7 } else { size };
        let mut answers = Vec::new();
        for client in [&mut through, &mut whole] {
            run(client, "BEGIN");
            // A second portal and a statement of another kind come in between.
            client
                .send(&[parse("", "SELECT id FROM sorted ORDER BY id DESC"), bind_formats("other", 0), sync()].concat())
                .unwrap();
            let mut answer = rows_of(&client.until_ready().unwrap());
            client.send(&[parse("", sql), bind_formats("one", 1), describe_portal("one"), sync()].concat()).unwrap();
            answer.push(tags(&client.until_ready().unwrap()).into_bytes());
            for step in 0..5 {
                client.send(&[execute("one", size), execute("other", 3), sync()].concat()).unwrap();
                answer.extend(rows_of(&client.until_ready().unwrap()));
                if step == 2 {
                    answer.extend(rows_of(&run(client, "SELECT count(*), sum(id) FROM sorted")));
                }
            }
            // The rest at once; then there is nothing left.
            client.send(&[execute("one", 0), execute("one", 0), sync()].concat()).unwrap();
            answer.extend(rows_of(&client.until_ready().unwrap()));
            client.send(&[frame(b'C', b"Pother\0"), execute("other", 1), sync()].concat()).unwrap();
            answer.extend(rows_of(&client.until_ready().unwrap()));
            assert_eq!(status(&run(client, "ROLLBACK")), 'I');
            client.send(&[execute("one", 1), sync()].concat()).unwrap();
            answer.extend(rows_of(&client.until_ready().unwrap()));
            answers.push(answer);
        }
        let text = |answer: &[Vec<u8>]| answer.iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect::<Vec<_>>();
        assert_eq!(text(&answers[0]), text(&answers[1]), "{sql} by {size}");
    }
}

#[test]
fn an_order_that_is_merged_is_not_held() {
    let Beside { yard, .. } = beside();
    let mut client = yard.client();
    // 12 MB where 1 MiB may be held; nobody reads for a while.
    let wide = "SELECT s.id, g, repeat('x', 1000) FROM sorted s, generate_series(1, 20) AS g ORDER BY s.id, g";
    let before = yard.resident_bytes();
    client.send(&query(wide)).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let mut ids = Vec::new();
    loop {
        let reply = client.receive().unwrap().unwrap();
        match reply.tag {
            b'D' => ids.push(u32::from_be_bytes(reply.body[2..6].try_into().unwrap())),
            b'E' => panic!("{:?}", reply.field(b'M')),
            b'Z' => break,
            _ => {}
        }
    }
    assert_eq!(ids.len(), 12_000);
    let grown = yard.resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
    // In a language's order it has to be held, and that is too much.
    let held = run(&mut client, "SELECT te, repeat('x', 4000) FROM sorted ORDER BY te");
    assert_eq!(error_of(&held).map(|error| error.0).as_deref(), Some("54000"), "{}", tags(&held).len());
    assert_eq!(client.column("SELECT 1").unwrap(), ["1"]);
}

#[test]
fn shards_are_told_to_stop_when_enough_is_shown() {
    let (mut through, mut whole) = (beside().yard.client(), beside().whole());
    // One shard has the first rows; the others have megabytes behind them.
    let sql = "SELECT s.k, g, repeat('y', 1000) FROM sorted s, generate_series(1, 40) AS g ORDER BY s.k, s.id, g LIMIT 3000";
    let unordered = "SELECT repeat('y', 1000) FROM sorted s, generate_series(1, 40) AS g LIMIT 3000";
    for begin in [None, Some("BEGIN")] {
        for client in [&mut through, &mut whole] {
            if let Some(begin) = begin {
                run(client, begin);
            }
        }
        for sql in [sql, unordered] {
            assert!(rows_of(&run(&mut through, sql)) == rows_of(&run(&mut whole, sql)), "{sql}");
            assert_eq!(through.column("SELECT count(*) FROM sorted").unwrap(), ["600"]);
        }
        for client in [&mut through, &mut whole] {
            if begin.is_some() {
                assert_eq!(status(&run(client, "COMMIT")), 'I');
            }
        }
    }
    let replies = run(&mut through, &sql.replace("LIMIT 3000", ""));
    assert_eq!(tags(&replies).matches('D').count(), 24_000);
}

#[test]
fn a_cancel_request_reaches_all_shards() {
    let Beside { yard, .. } = beside();
    let mut client = yard.client();
    // The rows of a key joined seven times: hours of work, of which nothing is kept.
    let joins: String = "bcdefgh".chars().map(|alias| format!(" JOIN sorted {alias} USING (k)")).collect();
    let long = &format!("SELECT a.id, 'a long one' FROM sorted a{joins} ORDER BY a.id, b.id LIMIT 5");
    client.send(&query(long)).unwrap();
    let active = || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND datname LIKE 'part%' AND query LIKE '%a long one%' \
                   AND backend_type = 'client backend'";
        super::super::harness::programs::psql(&stage().fleet.primary().superuser_url(), sql)
    };
    let limit = Duration::from_secs(20);
    super::super::harness::eventually("all shards work", limit, || active() == "3");
    let mut other = RawClient::connect(yard.port()).unwrap();
    other.send(&cancel_request(client.key)).unwrap();
    assert_eq!(error_of(&client.until_ready().unwrap()).unwrap().0, "57014");
    super::super::harness::eventually("no shard works on", limit, || active() == "0");
    assert_eq!(client.column("SELECT count(*) FROM sorted").unwrap(), ["600"]);
}

/// The first shard works on, and does not know of the error of the last.
#[test]
fn an_error_of_any_shard_ends_the_others_work() {
    let Beside { yard, .. } = beside();
    let mut client = yard.client();
    let joins: String = "bcdefgh".chars().map(|alias| format!(" JOIN sorted {alias} USING (k)")).collect();
    let ask = |sql: &str| super::super::harness::programs::psql(&stage().fleet.primary().superuser_url(), sql);
    let limit = Duration::from_secs(20);
    for long in [
        format!("SELECT a.id, 'one of three' FROM sorted a{joins} ORDER BY a.id, b.id LIMIT 5"),
        format!("SELECT avg(a.id + b.id) FROM sorted a{joins} WHERE 'one of three' <> ''"),
        "UPDATE sorted SET id = id WHERE (SELECT count(*) FROM generate_series(1, 100000000)) > 0 AND 'one of three' <> ''"
            .to_owned(),
    ] {
        let active = "FROM pg_stat_activity WHERE state = 'active' AND datname LIKE 'part%' AND query LIKE '%one of three%' \
                      AND backend_type = 'client backend'";
        client.send(&query(&long)).unwrap();
        super::super::harness::eventually("all shards work", limit, || ask(&format!("SELECT count(*) {active}")) == "3");
        let last = ask(&format!("SELECT pid {active} ORDER BY datname DESC LIMIT 1"));
        // Told again: between two messages of a pipeline a server does not listen.
        super::super::harness::eventually("no shard works on", limit, || {
            ask(&format!("SELECT pg_cancel_backend(pid) {active} AND pid = {last}"));
            ask(&format!("SELECT count(*) {active}")) == "0"
        });
        assert_eq!(error_of(&client.until_ready().unwrap()).unwrap().0, "57014", "{long}");
        assert_eq!(client.column("SELECT count(*) FROM sorted").unwrap(), ["600"]);
    }
}

/// Wherever the rows are, the shards answer in no order.
#[test]
fn of_several_rows_errors_the_first_ones_is_shown() {
    let (mut through, mut whole) = (beside().yard.client(), beside().whole());
    for (there, none) in (1..=6).flat_map(|there| (1..=6).map(move |none| (there, none))) {
        for rows in [format!("({there}, {there}), ({none}, NULL)"), format!("({none}, NULL), ({there}, {there})")] {
            let sql = query(&format!("INSERT INTO sorted (k, id) VALUES {rows}"));
            let states = [&mut through, &mut whole].map(|client| {
                client.send(&sql).unwrap();
                error_of(&client.until_ready().unwrap()).unwrap().0
            });
            assert_eq!(states[0], states[1], "{rows}");
        }
    }
}

#[test]
fn an_error_on_one_shard_ends_all() {
    let (mut through, mut whole) = (beside().yard.client(), beside().whole());
    for sql in [
        "SELECT id, 1 / (id - 17) FROM sorted ORDER BY id",
        "SELECT id FROM sorted ORDER BY 1 / (id - 17), id LIMIT 3",
        "SELECT 100 / (i2 - 3), repeat('z', 2000) FROM sorted, generate_series(1, 30)",
        "SELECT nonsense FROM sorted ORDER BY id",
    ] {
        for protocol in [Protocol::Simple, Protocol::Extended, Protocol::Named] {
            let expect = error_of(&whole.run(protocol, sql).unwrap());
            assert_eq!(error_of(&through.run(protocol, sql).unwrap()), expect, "{sql}");
            assert_eq!(through.column("SELECT count(*) FROM sorted").unwrap(), ["600"]);
        }
        run(&mut through, "BEGIN");
        assert_eq!(status(&run(&mut through, sql)), 'E', "{sql}");
        assert_eq!(status(&run(&mut through, "ROLLBACK")), 'I');
    }
}
