//! COPY over several shards: the rows, messages and errors of one PostgreSQL with all rows.

use super::super::harness::client::{RawClient, Reply, bind, execute, frame, parse, query, sync};
use super::beside::{Beside, beside, rows_of};
use super::{error_of, run, status, tags};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tests that fill the same tables go one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static TABLES: Mutex<()> = Mutex::new(());
    TABLES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs COPY FROM STDIN with data in chunks; the client ends it with CopyDone, or with CopyFail if `fails`.
fn copy_in(client: &mut RawClient, (sql, extended): (&str, bool), data: &[u8], (chunk, fails): (usize, bool)) -> Vec<Reply> {
    let request = [parse("", sql), bind("", ""), execute(""), sync()].concat();
    client.send(&if extended { request } else { query(sql) }).unwrap();
    let mut replies = Vec::new();
    loop {
        let reply = client.receive().unwrap().unwrap();
        let tag = reply.tag;
        replies.push(reply);
        match tag {
            b'Z' => return replies,
            b'G' => break,
            _ => {}
        }
    }
    let mut out: Vec<u8> = data.chunks(chunk).flat_map(|chunk| frame(b'd', chunk)).collect();
    out.extend(if fails { frame(b'f', b"enough\0") } else { frame(b'c', b"") });
    if extended {
        out.extend(sync());
    }
    client.send(&out).unwrap();
    replies.extend(client.until_ready().unwrap());
    replies
}

/// Messages without what may differ: rows of the answer are compared apart.
fn shown(replies: &[Reply]) -> Vec<String> {
    let text = |reply: &Reply| match reply.tag {
        b'E' | b'N' => {
            b"CMHW".iter().map(|code| format!("{}:{} ", *code as char, reply.field(*code).unwrap_or_default())).collect()
        }
        tag => format!("{} {}", tag as char, String::from_utf8_lossy(&reply.body)),
    };
    replies.iter().map(text).collect()
}

/// Connections of a test: through pgyard, to the database with all rows, and to the shards.
struct Connections {
    through: RawClient,
    whole: RawClient,
    parts: Vec<RawClient>,
}

impl Connections {
    fn new() -> Connections {
        Connections { through: beside().yard.client(), whole: beside().whole(), parts: beside().parts() }
    }

    /// What the shards' tables have together, and that of the database with all rows.
    fn contents(&mut self, table: &str) -> (Vec<String>, Vec<String>) {
        let sql = format!("SELECT t.*::text FROM {table} AS t");
        let mut parts: Vec<String> = self.parts.iter_mut().flat_map(|part| part.column(&sql).unwrap()).collect();
        let mut whole = self.whole.column(&sql).unwrap();
        whole.sort();
        parts.sort();
        (parts, whole)
    }

    /// The same COPY through pgyard and directly: the same messages and rows, by both protocols, in and outside a transaction.
    fn check(&mut self, sql: &str, table: &str, data: &[u8]) {
        for (extended, chunk, block) in [(false, 7, false), (true, 60_000, false), (false, 1000, true)] {
            let mut answers = Vec::new();
            for client in [&mut self.through, &mut self.whole] {
                run(client, &format!("TRUNCATE {table}"));
                if block {
                    run(client, "BEGIN");
                }
                let mut answer = shown(&copy_in(client, (sql, extended), data, (chunk, false)));
                if block {
                    answer.extend(shown(&run(client, "COMMIT")));
                }
                // The session goes on.
                answer.extend(shown(&run(client, "SELECT 1")));
                answers.push(answer);
            }
            let text = String::from_utf8_lossy(data).chars().take(200).collect::<String>();
            assert_eq!(answers[0], answers[1], "{sql} in chunks of {chunk}, extended: {extended}: {text:?}");
            let (parts, rows) = self.contents(table);
            assert_eq!(parts, rows, "{sql} in chunks of {chunk}: {text:?}");
        }
        let left = "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()";
        assert!(self.parts.iter_mut().all(|part| part.column(left).unwrap() == ["0"]), "{sql}");
    }
}

fn lines(count: usize, line: impl Fn(usize) -> String) -> Vec<u8> {
    (1..=count).map(line).collect::<String>().into_bytes()
}

#[test]
fn rows_of_text_are_shared_out() {
    let _alone = alone();
    let mut all = Connections::new();
    let rows = lines(300, |i| format!("{i}\tnote {i}\t{}.5\t2024-01-{:02}\n", i % 900, i % 28 + 1));
    all.check("COPY copied FROM STDIN", "copied", &rows);
    let counts = beside().on_parts("SELECT count(*) FROM copied");
    assert!(counts.iter().all(|count| count.parse::<u32>().unwrap() > 50), "{counts:?}");
    // Each row is where reading looks for it.
    let mut client = beside().yard.client();
    for k in [1, 17, 300] {
        assert_eq!(client.column(&format!("SELECT note FROM copied WHERE k = {k}")).unwrap(), [format!("note {k}")]);
    }
    for (sql, data) in [
        ("COPY copied FROM STDIN", ""),
        ("COPY copied FROM STDIN", "1\t\\N\t\\N\t\\N\n2\ta\\tb\\\\c\\nd\\x41\\101\t\\N\t\\N"),
        ("COPY copied (note, k) FROM STDIN", "a\t1\r\nb\t2\r\nc\t3\r\n"),
        ("COPY public.copied (k, note) FROM STDIN", "1\ta\n2\tb\n\\.\n3\tc\n"),
        ("COPY copied (k, note) FROM STDIN WITH DELIMITER '|' NULL 'none'", "1|none\nnone|x\n3|a\\|b\n"),
        ("COPY copied (k, note) FROM STDIN (DELIMITER E'\\x01', NULL '', HEADER)", "one\u{1}two\n5\u{1}\n6\u{1}x\n"),
        ("COPY copied (k, note) FROM STDIN (HEADER match)", "k\tnote\n5\tx\n6\ty\n7\tz\n"),
        ("COPY copied (k, note) FROM STDIN WHERE k > 3 AND length(note) < 5", "1\ta\n4\tlonger than that\n5\tb\n6\tc\n"),
        ("COPY copied (k, note) FROM STDIN", "1\ta\\\nb\n2\tc\\\\\n3\td\n"),
        ("COPY copied (k) FROM STDIN", "-5\n +7 \n9223372036854775807\n"),
    ] {
        all.check(sql, "copied", data.as_bytes());
    }
    all.check("COPY copied (k, note) FROM STDIN (ENCODING 'LATIN1')", "copied", b"1\tcaf\xe9\n2\t\xfc\n3\tx\n");
}

#[test]
fn rows_of_csv_are_shared_out() {
    let _alone = alone();
    let mut all = Connections::new();
    for (options, data) in [
        ("CSV", "1,\"a,b\"\n2,\"line\nbreak\"\n3,\"say \"\"hi\"\"\"\n4,\n5,\"\"\n"),
        ("(FORMAT csv, HEADER true)", "k,\"no\nte\"\n1,a\n2,\"b\nc\"\n3,d\n"),
        ("(FORMAT csv, HEADER match)", "k,note\n1,a\n2,b\n"),
        ("(FORMAT csv, DELIMITER ';', QUOTE '''', ESCAPE '\\', NULL '-')", "1;'it\\'s'\n2;-\n3;'-'\n-;x\n"),
        ("(FORMAT csv, NULL 'x', FORCE_NULL (note))", "1,\"x\"\n2,x\n3,y\n"),
        ("CSV NULL 'x' FORCE NOT NULL note", "1,x\n2,\"x\"\nx,z\n"),
        ("CSV", "1,a\r\n2,\"b\r\nc\"\r\n3,d\r\n"),
        ("CSV", "1,a\n\\.\n2,b\n"),
        ("CSV", "1,\\.\n2,b"),
    ] {
        all.check(&format!("COPY copied (k, note) FROM STDIN {options}"), "copied", data.as_bytes());
    }
}

/// COPY TO STDOUT: all messages.
fn copy_out(client: &mut RawClient, sql: &str, extended: bool) -> Vec<Reply> {
    let request = [parse("", sql), bind("", ""), execute(""), sync()].concat();
    client.send(&if extended { request } else { query(sql) }).unwrap();
    client.until_ready().unwrap()
}

fn data_of(replies: &[Reply]) -> Vec<u8> {
    replies.iter().filter(|reply| reply.tag == b'd').flat_map(|reply| reply.body.clone()).collect()
}

#[test]
fn binary_rows_are_shared_out() {
    let _alone = alone();
    let mut all = Connections::new();
    let mut whole = beside().whole();
    let select =
        "SELECT i::bigint, 'note ' || i, (i % 900)::numeric(10,2), date '2024-01-01' + i FROM generate_series(1, 200) AS i";
    let data = data_of(&copy_out(&mut whole, &format!("COPY ({select}) TO STDOUT (FORMAT binary)"), false));
    all.check("COPY copied FROM STDIN (FORMAT binary)", "copied", &data);
    all.check("COPY BINARY copied FROM STDIN", "copied", &data);
    all.check("COPY copied FROM STDIN BINARY", "copied", &data[..data.len() - 2]);
    // Cut within a row, another signature, something behind the trailer, a field too many.
    all.check("COPY copied FROM STDIN BINARY", "copied", &data[..data.len() / 2]);
    all.check("COPY copied FROM STDIN BINARY", "copied", b"PGCOPX\n\xff\r\n\0\0\0\0\0\0\0\0\0\xff\xff");
    let wide = data_of(&copy_out(&mut whole, "COPY (SELECT 1::bigint, 'x', 5) TO STDOUT BINARY", false));
    all.check("COPY copied (k, note) FROM STDIN BINARY", "copied", &wide);
    let data = data_of(&copy_out(
        &mut whole,
        "COPY (SELECT 'p' || i, date '2024-01-01' + i, i FROM generate_series(1, 50) AS i) TO STDOUT BINARY",
        false,
    ));
    all.check("COPY pairs FROM STDIN (FORMAT binary)", "pairs", &data);
}

#[test]
fn keys_of_several_columns() {
    let _alone = alone();
    let mut all = Connections::new();
    let rows = lines(100, |i| format!("place {}\t2024-02-{:02}\t{i}\n", i % 9, i % 29 + 1));
    all.check("COPY pairs FROM STDIN", "pairs", &rows);
    all.check(
        "COPY pairs (x, day, place) FROM STDIN CSV",
        "pairs",
        "1,2024-01-01,\"a,b\"\n2,2024-01-02,é\n3,infinity,c\n".as_bytes(),
    );
    // A key that pgyard can't read is the server's error, or refused; in no case is the row put anywhere.
    all.check("COPY pairs FROM STDIN", "pairs", b"a\t2024-01-01\t1\nb\tno date\t2\nc\t2024-01-01\t3\n");
    for block in [false, true] {
        let mut client = beside().yard.client();
        run(&mut client, "TRUNCATE pairs");
        if block {
            run(&mut client, "BEGIN");
        }
        let replies = copy_in(&mut client, ("COPY pairs FROM STDIN", false), b"a\t2024-01-01\t1\nb\ttoday\t2\n", (100, false));
        let error = replies.iter().find(|reply| reply.tag == b'E').unwrap();
        assert_eq!((error.field(b'C').unwrap().as_str(), error.field(b'W').unwrap().as_str()), ("0A000", "COPY pairs, line 2"));
        assert_eq!(status(&replies), if block { 'E' } else { 'I' });
        run(&mut client, "ROLLBACK");
        assert_eq!(client.column("SELECT count(*) FROM pairs").unwrap(), ["0"]);
    }
}

#[test]
fn errors_are_those_of_one_server_with_the_line_of_the_whole() {
    let _alone = alone();
    let mut all = Connections::new();
    let bad = |at: usize, line: &'static str| {
        lines(100, move |i| if i == at { line.to_owned() } else { format!("{i}\tn{i}\t1\t\\N\n") })
    };
    for (sql, data) in [
        ("COPY copied FROM STDIN", bad(57, "x\tn\t1\t\\N\n")),
        ("COPY copied FROM STDIN", bad(57, "57\tn\tx\t\\N\n")),
        ("COPY copied FROM STDIN", bad(1, "57\tn\t1\tno date\n")),
        ("COPY copied FROM STDIN", bad(100, "57\tn\t1\n")),
        ("COPY copied FROM STDIN", bad(33, "57\tn\t1\t\\N\tmore\n")),
        ("COPY copied FROM STDIN", bad(33, "\n")),
        ("COPY copied FROM STDIN", bad(80, "80\tn\t1000\t\\N\n")),
        ("COPY copied FROM STDIN", bad(90, "7\tn7\t1\t\\N\n")),
        ("COPY copied FROM STDIN", bad(50, "50\ta\r\t1\t\\N\n")),
        ("COPY copied FROM STDIN (HEADER match)", bad(1, "k\tnote\tn\tday\n")),
        ("COPY copied FROM STDIN (HEADER)", bad(57, "x\tn\t1\t\\N\n")),
        ("COPY copied FROM STDIN", [bad(0, ""), b"200\tbad \xff\t1\t\\N\n".to_vec()].concat()),
        ("COPY copied FROM STDIN", bad(20, "99999999999999999999\tn\t1\t\\N\n")),
        ("COPY copied (k, note) FROM STDIN CSV", b"1,\"a\nb\"\n2,\"c\nd\"\nx,y\n4,z\n".to_vec()),
        ("COPY copied (k, note) FROM STDIN CSV", b"1,a\n2,b\n3,\"open\n4,c\n".to_vec()),
        ("COPY copied (k, note) FROM STDIN CSV", b"1,a\n2,b,c\n3,d\n".to_vec()),
        ("COPY copied (k, note) FROM STDIN CSV", b"1,a\r\n2,b\n".to_vec()),
    ] {
        all.check(sql, "copied", &data);
        assert_eq!(all.contents("copied").0, Vec::<String>::new(), "{sql}");
    }
}

#[test]
fn what_fails_before_the_data() {
    let _alone = alone();
    let (mut through, mut whole) = (beside().yard.client(), beside().whole());
    for sql in [
        "COPY copied (k, nonsense) FROM STDIN",
        "COPY copied (k, k) FROM STDIN",
        "COPY copied (k, big) FROM STDIN",
        "COPY copied FROM STDIN (FORMAT csv, DELIMITER 'ab')",
        "COPY copied FROM STDIN (QUOTE '|')",
        "COPY copied FROM STDIN (DELIMITER 'a')",
        "COPY copied FROM STDIN (FORMAT text, FORMAT csv)",
        "COPY copied FROM STDIN (FORMAT csv, FORCE_NULL (nonsense))",
        "COPY copied FROM STDIN (ENCODING 'nonsense')",
        "COPY nowhere FROM STDIN",
        "COPY copied (nonsense) TO STDOUT",
        "COPY nowhere TO STDOUT",
        "COPY (SELECT nonsense FROM copied) TO STDOUT",
        "COPY (SELECT k FROM copied) TO STDOUT (FORMAT csv, DELIMITER 'ab')",
        "COPY (SELECT k FROM copied) TO STDOUT (FORMAT csv, FORCE_QUOTE (nonsense))",
        "COPY (SELECT 1 / (k - k) FROM sorted ORDER BY k) TO STDOUT",
    ] {
        for extended in [false, true] {
            let expect = shown(&copy_in(&mut whole, (sql, extended), b"", (1, false)));
            assert_eq!(shown(&copy_in(&mut through, (sql, extended), b"", (1, false))), expect, "{sql}");
        }
    }
    for sql in [
        "COPY copied FROM '/nowhere'",
        "COPY copied TO PROGRAM 'cat'",
        "COPY (SELECT k FROM copied) TO '/nowhere'",
        "COPY copied (note) FROM STDIN",
        "COPY copied FROM STDIN (DEFAULT 'x')",
        "COPY copied FROM STDIN (ENCODING 'SJIS')",
        "COPY (SELECT k FROM copied) TO STDOUT (ENCODING 'LATIN1')",
    ] {
        let error = error_of(&run(&mut through, sql)).unwrap();
        assert_eq!(error.0, "0A000", "{sql}: {error:?}");
        assert_eq!(through.column("SELECT 1").unwrap(), ["1"]);
    }
}

#[test]
fn a_client_that_gives_up() {
    let _alone = alone();
    let data = lines(50, |i| format!("{i}\tn\t1\t\\N\n"));
    for (extended, block) in [(false, false), (true, false), (false, true)] {
        let (mut through, mut whole) = (beside().yard.client(), beside().whole());
        let mut answers = Vec::new();
        for client in [&mut through, &mut whole] {
            run(client, "TRUNCATE copied");
            if block {
                run(client, "BEGIN");
            }
            let mut answer = shown(&copy_in(client, ("COPY copied FROM STDIN", extended), &data, (64, true)));
            answer.extend(shown(&run(client, "ROLLBACK")));
            answer.extend(shown(&run(client, "SELECT count(*) FROM copied")));
            answers.push(answer);
        }
        // Each shard's line is its own; the last one of the data is the one that is named.
        assert_eq!(answers[0], answers[1]);
    }
    // One that goes in the middle leaves nothing behind.
    let mut client = beside().yard.client();
    client.send(&[query("COPY copied FROM STDIN"), frame(b'd', &data)].concat()).unwrap();
    assert_eq!(client.receive().unwrap().unwrap().tag, b'G');
    drop(client);
    super::super::harness::eventually("its transactions end", std::time::Duration::from_secs(20), || {
        beside().on_parts("SELECT count(*) FROM pg_locks WHERE relation = 'copied'::regclass AND pid <> pg_backend_pid()")
            == ["0"; 3]
    });
    assert_eq!(beside().on_parts("SELECT count(*) FROM copied"), ["0", "0", "0"]);
}

#[test]
fn a_reference_table_is_copied_to_every_shard() {
    let _alone = alone();
    let mut client = beside().yard.client();
    let copied =
        copy_in(&mut client, ("COPY kinds FROM STDIN CSV HEADER", false), b"code,name\nc,\"th\nree\"\nd,four\n", (3, false));
    assert_eq!(tags(&copied), "GCZ");
    assert_eq!(copied[1].body, b"COPY 2\0");
    assert_eq!(beside().on_parts("SELECT count(*), max(name) FROM kinds"), ["4|two", "4|two", "4|two"]);
    let twice = copy_in(&mut client, ("COPY kinds FROM STDIN", true), b"e\tfive\na\tagain\n", (100, false));
    assert_eq!(error_of(&twice).unwrap().0, "23505");
    assert_eq!(beside().on_parts("SELECT count(*) FROM kinds"), ["4", "4", "4"]);
    run(&mut client, "DELETE FROM kinds WHERE code IN ('c', 'd')");
    // And one that lives on one shard.
    assert_eq!(tags(&copy_in(&mut client, ("COPY lone FROM STDIN", false), b"1\tx\n", (9, false))), "GCZ");
    assert_eq!(beside().on_parts("SELECT count(*) FROM lone"), ["0", "1", "0"]);
    run(&mut client, "DELETE FROM lone");
}

#[test]
fn a_reference_table_is_copied_out_once() {
    let _alone = alone();
    let mut client = beside().yard.client();
    for extended in [false, true] {
        let replies = copy_out(&mut client, "COPY kinds TO STDOUT", extended);
        assert_eq!(data_of(&replies), b"a\tone\nb\ttwo\n");
    }
}

/// Data messages sorted, for answers without an order.
fn sorted(replies: &[Reply]) -> Vec<Vec<u8>> {
    let mut data: Vec<Vec<u8>> = replies.iter().map(|reply| [&[reply.tag][..], &reply.body].concat()).collect();
    data.sort();
    data
}

#[test]
fn a_csv_header_comes_once() {
    let (mut through, mut whole) = (beside().yard.client(), beside().whole());
    for options in ["CSV HEADER", "(FORMAT csv, HEADER, FORCE_QUOTE *)", "(HEADER, DELIMITER '|')", "", "(NULL 'nothing')"] {
        for extended in [false, true] {
            let sql = format!("COPY sorted (k, id, t, n) TO STDOUT {options}");
            let (got, expect) = (copy_out(&mut through, &sql, extended), copy_out(&mut whole, &sql, extended));
            assert_eq!(sorted(&got), sorted(&expect), "{sql}");
            // The header is the first message.
            let first = |replies: &[Reply]| replies.iter().find(|reply| reply.tag == b'd').map(|reply| reply.body.clone());
            if options.contains("HEADER") {
                assert_eq!(first(&got), first(&expect), "{sql}");
            }
            assert_eq!(got.last(), expect.last());
        }
    }
}

#[test]
fn a_binary_file_has_one_header_and_one_trailer() {
    let _alone = alone();
    let (mut through, mut whole) = (beside().yard.client(), beside().whole());
    for client in [&mut through, &mut whole] {
        run(client, "TRUNCATE copied");
    }
    // Without rows, header and trailer are one message.
    assert_eq!(
        copy_out(&mut through, "COPY copied TO STDOUT BINARY", false),
        copy_out(&mut whole, "COPY copied TO STDOUT BINARY", false)
    );
    let data = data_of(&copy_out(&mut through, "COPY sorted (k, id, t, n, u) TO STDOUT (FORMAT binary)", false));
    // PostgreSQL reads it back.
    run(&mut whole, "CREATE TEMP TABLE read (k bigint, id int, t text, n numeric, u uuid)");
    let replies = copy_in(&mut whole, ("COPY read FROM STDIN BINARY", false), &data, (5000, false));
    assert_eq!(String::from_utf8_lossy(&replies[1].body), "COPY 600\0");
    let same = "SELECT count(*) FROM (SELECT k, id, t, n, u FROM sorted EXCEPT ALL SELECT * FROM read) AS x";
    assert_eq!(whole.column(same).unwrap(), ["0"]);
}

#[test]
fn queries_are_copied_by_their_plan() {
    let (mut through, mut whole) = (beside().yard.client(), beside().whole());
    let queries = [
        "SELECT * FROM sorted ORDER BY k, id",
        "SELECT t, te, y, ch, n FROM sorted ORDER BY n DESC, id LIMIT 77 OFFSET 5",
        "SELECT k, count(*), avg(n), min(t) FROM sorted GROUP BY k ORDER BY k",
        "SELECT id, t FROM sorted WHERE k = 5 ORDER BY id",
        "SELECT s.id, c.name FROM sorted s, kinds c WHERE s.id < 30 ORDER BY s.id, c.code -- the end",
        "SELECT id, rank() OVER (ORDER BY n NULLS FIRST, id) FROM sorted ORDER BY id LIMIT 20",
        "SELECT '\\.', 'a\\b', E'x\\ty\\r\\n', id AS \"a \"\"name\"\"\" FROM sorted ORDER BY id LIMIT 3",
        "SELECT '\\.' FROM sorted LIMIT 2",
        "SELECT te FROM sorted ORDER BY te, id FETCH FIRST 9 ROWS ONLY",
        "SELECT id, n FROM sorted WHERE id < 0 ORDER BY id",
        "VALUES (1, 'x'), (2, NULL)",
        "TABLE kinds ORDER BY code",
    ];
    for query in queries {
        for options in [
            "",
            "(FORMAT csv, HEADER)",
            "(FORMAT binary)",
            "(DELIMITER '|', NULL 'é', HEADER)",
            "(FORMAT csv, FORCE_QUOTE *, NULL 'x', QUOTE '''', ESCAPE '\\', DELIMITER ';')",
        ] {
            let sql = format!("COPY ({query}\n) TO STDOUT {options}");
            let (got, expect) = (copy_out(&mut through, &sql, false), copy_out(&mut whole, &sql, false));
            if error_of(&got).is_some_and(|error| error.0 == "0A000") {
                assert!(query.starts_with("TABLE"), "{sql}: {:?}", error_of(&got));
                continue;
            }
            assert!(got == expect, "{sql}\n{:?}\n{:?}", shown(&got), shown(&expect));
        }
    }
}

#[test]
fn data_is_not_held() {
    let _alone = alone();
    let Beside { yard, .. } = beside();
    let mut client = yard.client();
    run(&mut client, "TRUNCATE copied");
    // 24 MB where 1 MiB may be held.
    let note = "x".repeat(1000);
    let data = lines(24_000, |i| format!("{i}\t{note}\t1\t\\N\n"));
    copy_in(&mut client, ("COPY copied FROM STDIN", false), &data[..1015 * 10], (9000, true));
    let before = yard.resident_bytes();
    client.send(&query("COPY copied FROM STDIN")).unwrap();
    assert_eq!(client.receive().unwrap().unwrap().tag, b'G');
    let mut most = 0;
    for chunk in data.chunks(100_000) {
        client.send(&frame(b'd', chunk)).unwrap();
        most = most.max(yard.resident_bytes());
    }
    client.send(&frame(b'c', b"")).unwrap();
    assert_eq!(rows_of(&client.until_ready().unwrap()), [b"CCOPY 24000\0".to_vec()]);
    assert!(most.saturating_sub(before) < 16 << 20, "{} bytes more", most - before);
    // And out again, to a client that takes its time.
    let before = yard.resident_bytes();
    client.send(&query("COPY copied (k, note) TO STDOUT")).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(yard.resident_bytes().saturating_sub(before) < 16 << 20);
    assert_eq!(tags(&client.until_ready().unwrap()).matches('d').count(), 24_000);
    run(&mut client, "TRUNCATE copied");
    // A row that is larger than may be held is refused.
    let row = format!("1\t{}\t1\t\\N\n", "y".repeat(2 << 20));
    let replies = copy_in(&mut client, ("COPY copied FROM STDIN", false), row.as_bytes(), (60_000, false));
    assert_eq!(error_of(&replies).unwrap().0, "54000");
}
