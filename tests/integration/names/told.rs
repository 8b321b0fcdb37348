//! A client reads rows as it was told when it described their statement. Where they would be others, it is told so, as by PostgreSQL:
//! also by a server that never held the statement.

use super::super::harness::client::{RawClient, bind, execute, frame, parse, sync};
use super::play::{Yards, describe};

/// What the answers say, but for the places in PostgreSQL's source.
fn ask(client: &mut RawClient, messages: &[Vec<u8>]) -> String {
    client.send(&[messages.concat(), sync()].concat()).unwrap();
    let replies = client.until_ready().unwrap();
    let said = replies.iter().map(|reply| match reply.tag {
        b'E' => {
            let field = |name| reply.field(name).unwrap_or_default();
            // Drivers know this error by the routine that reports it.
            let routine = if field(b'C') == "0A000" { field(b'R') } else { String::new() };
            format!("E{} {} {} {routine}", field(b'S'), field(b'C'), field(b'M'))
        }
        b'Z' | b'D' | b'C' => format!("{}{}", reply.tag as char, String::from_utf8_lossy(&reply.body).escape_debug()),
        tag => (tag as char).to_string(),
    });
    said.collect::<Vec<_>>().join(" ")
}

fn play(reader: &mut RawClient, other: &mut RawClient) -> Vec<String> {
    let used = |name: &str| [bind("", name), execute("")].concat();
    let prepared = |name: &str, text: &str| [parse(name, text), describe(name)].concat();
    let mut said = Vec::new();
    let mut change = |sql: &str| drop(other.column(sql).unwrap());
    change("DROP TABLE IF EXISTS told");
    change("CREATE TABLE told AS SELECT 1 AS a, 2 AS b");
    said.push(ask(reader, &[prepared("x", "SELECT * FROM told")]));
    said.push(ask(reader, &[prepared("w", "INSERT INTO told SELECT 3, 4 RETURNING *")]));
    said.push(ask(reader, &[prepared("n", "DELETE FROM told WHERE a = 3")]));
    said.push(ask(reader, &[used("x")]));
    change("ALTER TABLE told ALTER b TYPE text");
    said.push(ask(reader, &[used("x")]));
    said.push(ask(reader, &[used("w")]));
    said.push(ask(reader, &[used("n")]));
    said.push(ask(reader, &[used("x")]));
    // In a transaction it is an error like any other.
    reader.column("BEGIN").unwrap();
    reader.column("SAVEPOINT here").unwrap();
    said.push(ask(reader, &[used("x")]));
    said.push(ask(reader, &[used("n")]));
    reader.column("ROLLBACK TO here").unwrap();
    said.push(ask(reader, &[used("n")]));
    said.push(ask(reader, &[used("w")]));
    said.push(ask(reader, &[parse("", "COMMIT"), used("")]));
    // Prepared again it works again.
    said.push(ask(reader, &[frame(b'C', b"Sx\0"), prepared("x", "SELECT * FROM told")]));
    said.push(ask(reader, &[used("x")]));
    // What was made anew as it was gives the same rows.
    change("BEGIN; DROP TABLE told; CREATE TABLE told AS SELECT 5 AS a, 'six'::text AS b; COMMIT");
    said.push(ask(reader, &[used("x")]));
    change("DROP TABLE told");
    said.push(ask(reader, &[used("x")]));
    said.push(other.column("SELECT 1").unwrap().concat());
    said
}

#[test]
fn rows_are_those_that_a_client_was_told() {
    let yards = Yards::start("", "");
    let expect = play(&mut yards.direct(), &mut yards.direct());
    let told = expect.iter().filter(|said| said.contains("cached plan must not change result type")).count();
    assert_eq!(told, 5, "{expect:#?}");
    for yard in yards.each() {
        assert_eq!(play(&mut yard.client(), &mut yard.client()), expect);
    }
}
