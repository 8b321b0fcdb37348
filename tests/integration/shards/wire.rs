//! One statement by any of the ways in which drivers send statements, and its answer in a form that can be compared.

use super::super::harness::RawClient;
use super::super::harness::client::{Reply, describe_portal, frame, query, sync};
use super::generate::Dice;

/// How a statement is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Query.
    Simple,
    /// Parse, Bind, Describe, Execute in one pipeline; the result as text.
    Text,
    /// The same; the result in binary.
    Binary,
    /// A named statement, described before it is bound.
    Named,
    /// A portal in a transaction that gives three rows at a time.
    Fetched,
}

/// All of them.
pub const WAYS: [Way; 5] = [Way::Simple, Way::Text, Way::Binary, Way::Named, Way::Fetched];

/// How constants become parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// They stay in the text.
    Literals,
    /// As text; the server finds their types.
    Untyped,
    /// integers in binary, others as text.
    Integers,
    /// bigint in binary, others as text.
    Bigints,
}

/// A statement as it is sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub way: Way,
    pub sql: String,
    /// Type, value, whether it is binary.
    parameters: Vec<(u32, Vec<u8>, bool)>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Name, type, modifier and format of each column. Types of the user's own have another number in each database.
    pub columns: Vec<(String, u32, i32, u16)>,
    /// Bodies of DataRow messages.
    pub rows: Vec<Vec<u8>>,
    /// Command tags, and `s` for a portal that was suspended.
    pub tags: Vec<String>,
    /// SQLSTATE and message.
    pub error: Option<(String, String)>,
    /// The transaction's status behind it.
    pub status: char,
}

impl Sent {
    /// A way by chance; without a literal's value being changed.
    pub fn by_chance(sql: &str, dice: &mut Dice) -> Sent {
        let way = match WAYS[dice.below(WAYS.len())] {
            Way::Binary if shows_numbers_of_types(sql) => Way::Text,
            way => way,
        };
        let given = [Given::Literals, Given::Untyped, Given::Integers, Given::Bigints][dice.below(4)];
        Sent::new(sql, way, given)
    }

    /// By this way.
    pub fn new(sql: &str, way: Way, given: Given) -> Sent {
        if way == Way::Simple || given == Given::Literals {
            return Sent { way, sql: sql.to_owned(), parameters: Vec::new() };
        }
        let (sql, parameters) = parameterised(sql, given);
        Sent { way, sql, parameters }
    }

    /// Sends it and takes the answer.
    pub fn ask(&self, client: &mut RawClient) -> Answer {
        let replies = match self.way {
            Way::Simple => {
                client.send(&query(&self.sql)).unwrap();
                client.until_ready().unwrap()
            }
            Way::Text | Way::Binary => {
                let messages = [self.parse(""), self.bind("", ""), describe_portal(""), execute("", 0), sync()].concat();
                client.send(&messages).unwrap();
                client.until_ready().unwrap()
            }
            Way::Named => {
                client.send(&[self.parse("n"), frame(b'D', b"Sn\0"), sync()].concat()).unwrap();
                let mut replies = client.until_ready().unwrap();
                if replies.iter().all(|reply| reply.tag != b'E') {
                    client.send(&[self.bind("", "n"), execute("", 0), sync()].concat()).unwrap();
                    replies.extend(client.until_ready().unwrap());
                }
                let status = replies.pop();
                client.send(&[frame(b'C', b"Sn\0"), sync()].concat()).unwrap();
                client.until_ready().unwrap();
                replies.extend(status);
                replies
            }
            Way::Fetched => self.fetch(client),
        };
        Answer::of(&replies)
    }

    fn fetch(&self, client: &mut RawClient) -> Vec<Reply> {
        client.send(&query("BEGIN")).unwrap();
        client.until_ready().unwrap();
        client.send(&[self.parse(""), self.bind("c", ""), describe_portal("c"), execute("c", 3), sync()].concat()).unwrap();
        let mut replies = client.until_ready().unwrap();
        while replies.iter().rev().nth(1).is_some_and(|reply| reply.tag == b's') {
            client.send(&[execute("c", 3), sync()].concat()).unwrap();
            replies.extend(client.until_ready().unwrap());
        }
        client.send(&query("COMMIT")).unwrap();
        let end = client.until_ready().unwrap();
        replies.extend(end.into_iter().filter(|reply| reply.tag == b'Z'));
        replies
    }

    fn parse(&self, name: &str) -> Vec<u8> {
        let mut body = format!("{name}\0{}\0", self.sql).into_bytes();
        body.extend_from_slice(&u16::try_from(self.parameters.len()).unwrap().to_be_bytes());
        self.parameters.iter().for_each(|(oid, ..)| body.extend_from_slice(&oid.to_be_bytes()));
        frame(b'P', &body)
    }

    fn bind(&self, portal: &str, statement: &str) -> Vec<u8> {
        let count = u16::try_from(self.parameters.len()).unwrap().to_be_bytes();
        let mut body = format!("{portal}\0{statement}\0").into_bytes();
        body.extend_from_slice(&count);
        self.parameters.iter().for_each(|(.., binary)| body.extend_from_slice(&u16::from(*binary).to_be_bytes()));
        body.extend_from_slice(&count);
        for (_, value, _) in &self.parameters {
            body.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
            body.extend_from_slice(value);
        }
        match self.way {
            Way::Binary => body.extend_from_slice(&[0, 1, 0, 1]),
            _ => body.extend_from_slice(&[0, 0]),
        }
        frame(b'B', &body)
    }
}

/// Rule: an array of a type of one's own has in binary the type's number, which each database gives out for itself.
fn shows_numbers_of_types(sql: &str) -> bool {
    sql.contains("kinds") && ["*", "moods", "DISTINCT pair", "ARRAY["].iter().any(|part| sql.contains(part))
        || sql.contains("kinds") && sql.contains("array_agg(mood")
}

fn execute(portal: &str, limit: u32) -> Vec<u8> {
    frame(b'E', &[format!("{portal}\0").as_bytes(), &limit.to_be_bytes()].concat())
}

/// Constants behind a comparison, LIMIT or OFFSET become parameters.
fn parameterised(sql: &str, given: Given) -> (String, Vec<(u32, Vec<u8>, bool)>) {
    let mut out = String::new();
    let mut parameters = Vec::new();
    let mut rest = sql;
    loop {
        let marks = [" = ", " > ", " < ", "LIMIT ", "OFFSET "];
        let next = marks.iter().filter_map(|mark| rest.find(mark).map(|at| at + mark.len())).min();
        let Some(at) = next else {
            out.push_str(rest);
            return (out, parameters);
        };
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let behind = rest.as_bytes().get(digits).copied().unwrap_or(b' ');
        if digits > 0 && digits < 10 && !matches!(behind, b'.' | b':') {
            let value: i64 = rest[..digits].parse().unwrap();
            parameters.push(match given {
                Given::Integers => (23, i32::try_from(value).unwrap().to_be_bytes().to_vec(), true),
                Given::Bigints => (20, value.to_be_bytes().to_vec(), true),
                Given::Untyped | Given::Literals => (0, rest.as_bytes()[..digits].to_vec(), false),
            });
            rest = &rest[digits..];
        } else if let Some(text) = rest.strip_prefix('\'').and_then(|text| text.split_once('\'')).map(|(text, _)| text) {
            parameters.push((0, text.as_bytes().to_vec(), false));
            rest = &rest[text.len() + 2..];
        } else {
            continue;
        }
        out.push_str(&format!("${}", parameters.len()));
    }
}

impl Answer {
    fn of(replies: &[Reply]) -> Answer {
        let mut answer = Answer::default();
        for reply in replies {
            match reply.tag {
                b'T' => answer.columns = columns(&reply.body),
                b'D' => answer.rows.push(reply.body.clone()),
                b'C' => answer.tags.push(String::from_utf8_lossy(reply.body.strip_suffix(b"\0").unwrap()).into_owned()),
                b's' => answer.tags.push("s".to_owned()),
                b'E' => answer.error = Some((reply.field(b'C').unwrap_or_default(), reply.field(b'M').unwrap_or_default())),
                b'Z' => answer.status = char::from(reply.body[0]),
                _ => {}
            }
        }
        answer
    }

    /// Whether it is a refusal, and why.
    pub fn refusal(&self) -> Option<&str> {
        self.error.as_ref().filter(|(state, _)| state == "0A000").map(|(_, message)| message.as_str())
    }

    /// What differs from another answer, if anything does.
    pub fn difference(&self, other: &Answer, ordered: bool) -> Option<String> {
        if let (Some((mine, text)), Some((theirs, _))) = (&self.error, &other.error) {
            return (mine != theirs).then(|| format!("another error: {mine} {text} instead of {theirs}"));
        }
        if self.error != other.error {
            return Some(format!("{:?} instead of {:?}", self.error, other.error));
        }
        if self.columns != other.columns {
            return Some(format!("columns {:?} instead of {:?}", self.columns, other.columns));
        }
        if self.tags != other.tags {
            return Some(format!("tags {:?} instead of {:?}", self.tags, other.tags));
        }
        if self.status != other.status {
            return Some(format!("status {} instead of {}", self.status, other.status));
        }
        let (mut mine, mut theirs) = (self.rows.clone(), other.rows.clone());
        if !ordered {
            mine.sort();
            theirs.sort();
        }
        (mine != theirs).then(|| {
            let shown = |row: Option<&Vec<u8>>| row.map(|row| String::from_utf8_lossy(row).into_owned());
            let first =
                mine.iter().zip(&theirs).position(|(mine, theirs)| mine != theirs).unwrap_or(mine.len().min(theirs.len()));
            let (mine, theirs) = (shown(mine.get(first)), shown(theirs.get(first)));
            format!("row {first}: {mine:?} instead of {theirs:?}")
        })
    }
}

fn columns(body: &[u8]) -> Vec<(String, u32, i32, u16)> {
    let count = u16::from_be_bytes(body[..2].try_into().unwrap());
    let mut at = 2;
    let column = |_| {
        let end = at + body[at..].iter().position(|byte| *byte == 0).unwrap();
        let name = String::from_utf8_lossy(&body[at..end]).into_owned();
        let oid = u32::from_be_bytes(body[end + 7..end + 11].try_into().unwrap());
        let modifier = i32::from_be_bytes(body[end + 13..end + 17].try_into().unwrap());
        let format = u16::from_be_bytes(body[end + 17..end + 19].try_into().unwrap());
        at = end + 19;
        (name, oid.min(16_384), modifier, format)
    };
    (0..count).map(column).collect()
}

#[test]
fn constants_become_parameters() {
    let sent = Sent::new("SELECT 1 WHERE a = 12 AND b = 'x y' AND c > 3.5 LIMIT 4", Way::Text, Given::Integers);
    assert_eq!(sent.sql, "SELECT 1 WHERE a = $1 AND b = $2 AND c > 3.5 LIMIT $3");
    assert_eq!(sent.parameters[0], (23, vec![0, 0, 0, 12], true));
    assert_eq!(sent.parameters[1], (0, b"x y".to_vec(), false));
}
