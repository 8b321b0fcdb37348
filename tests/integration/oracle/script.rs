//! Scripts: which session sends which messages, and up to what it then reads.
//!
//! ```text
//! === a title
//! @pool 2                      server connections behind pgyard (1 under transaction pooling, the sessions' number under session pooling)
//! @alone                       its sessions come one after the other: one server connection in both modes
//! @only transaction            it makes sense in one pool mode only
//! @differs session: reason     it is known that the answers differ; the test fails when they don't
//! 0: open options=-c work_mem=3MB / user=oracle_super
//! 0: Q select 1                waits for one ReadyForQuery for each Query, Sync and FunctionCall
//! 0: P s [23] select $1 / B - s {7} / E - / H => 12DC
//! 1: wait A                    sends nothing
//! 1: close
//! ```
//!
//! Messages are separated by ` / `; a line that begins with a blank continues the one before. `-` is the empty name. What follows
//! `=>` are the messages to wait for, in order, others being between them; `-` is to wait for nothing, `end` for the end of the
//! connection, `mark` for the answer to a mark that is sent behind them (see `play`).

use crate::integration::harness::client::{frame, query};

/// Which pool modes something is said of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    /// `pool_mode = "transaction"`.
    pub transaction: bool,
    /// `pool_mode = "session"`.
    pub session: bool,
}

/// Up to what a session reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// These messages, in this order.
    Tags(Vec<u8>),
    /// The end of the connection.
    End,
    /// The answer to a mark, whatever comes before it: see `play`.
    Mark(usize),
}

/// What a session does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Logs in, with these parameters beside `user` and `database`.
    Open(Vec<(String, String)>),
    /// Sends bytes, each chunk in a write of its own, and reads.
    Send(Vec<Vec<u8>>, Wait),
    /// Says Terminate and reads to the end of the connection.
    Close,
    /// Closes its connection without a word.
    Abort,
    /// Says that it will send no more, and reads to the end of the connection.
    Half,
}

/// One line of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Who.
    pub session: usize,
    /// What.
    pub deed: Deed,
    /// As it is written.
    pub line: String,
}

/// A script.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// File and title.
    pub title: String,
    /// Server connections behind pgyard, if it says so.
    pub pool: Option<usize>,
    /// Its sessions come one after the other, so that one server connection is enough in both modes.
    pub alone: bool,
    /// The modes in which it runs; none named is both.
    pub only: Option<Modes>,
    /// The modes in which the answers differ.
    pub differs: Modes,
    /// What is done.
    pub steps: Vec<Step>,
}

impl Script {
    /// How many sessions it has.
    pub fn sessions(&self) -> usize {
        self.steps.iter().map(|step| step.session + 1).max().unwrap_or(0)
    }

    /// Whether it may change what the next script meets.
    pub fn may_write(&self) -> bool {
        const WRITES: [&str; 21] = [
            "insert", "update", "delete", "truncate", "copy", "create", "drop", "alter", "nextval", "setval", "merge", "call",
            "do ", "refresh", "prepare", "writes", " into ", "analyze", "comment", "vacuum", "grant",
        ];
        self.steps.iter().any(|step| {
            let line = step.line.to_lowercase();
            WRITES.iter().any(|word| line.contains(word))
        })
    }

    /// Whether it changes the catalogue, after which pgyard sends everything to the primary for a moment.
    pub fn changes_catalogue(&self) -> bool {
        self.steps.iter().any(|step| {
            let line = step.line.to_lowercase();
            ["create", "drop", "alter", "grant", "revoke", " into "].iter().any(|word| line.contains(word))
        })
    }
}

/// Reads a file of scripts.
///
/// # Panics
/// A line is not understood.
pub fn read(file: &str, text: &str) -> Vec<Script> {
    let mut scripts: Vec<Script> = Vec::new();
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        match lines.last_mut() {
            Some((_, before)) if line.starts_with(' ') && !line.trim().is_empty() => {
                before.push(' ');
                before.push_str(line.trim());
            }
            _ => lines.push((number + 1, line.trim_end().to_owned())),
        }
    }
    for (number, line) in lines {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(title) = line.strip_prefix("=== ") {
            scripts.push(Script { title: format!("{file}: {title}"), ..Script::default() });
            continue;
        }
        let script = scripts.last_mut().unwrap_or_else(|| panic!("{file}:{number}: no title yet"));
        read_line(script, &line).unwrap_or_else(|problem| panic!("{file}:{number}: {problem}: {line}"));
    }
    for script in &scripts {
        assert!(!script.steps.is_empty(), "{} does nothing", script.title);
    }
    scripts
}

fn read_line(script: &mut Script, line: &str) -> Result<(), String> {
    if let Some(directive) = line.strip_prefix('@') {
        let (word, rest) = directive.split_once(' ').unwrap_or((directive, ""));
        match word {
            "pool" => script.pool = Some(rest.parse().map_err(|_| "not a number")?),
            "alone" => script.alone = true,
            "only" => script.only = Some(modes(rest)?),
            "differs" => {
                let (named, reason) = rest.split_once(':').ok_or("a reason is missing")?;
                if reason.trim().is_empty() {
                    return Err("a reason is missing".into());
                }
                script.differs = modes(named)?;
            }
            _ => return Err("unknown directive".into()),
        }
        return Ok(());
    }
    let (session, deed) = line.split_once(": ").ok_or("neither directive nor step")?;
    let session = session.parse().map_err(|_| "not the number of a session")?;
    script.steps.push(Step { session, deed: read_deed(deed, script.steps.len())?, line: line.to_owned() });
    Ok(())
}

fn modes(text: &str) -> Result<Modes, String> {
    let mut modes = Modes::default();
    for name in text.split(',') {
        match name.trim() {
            "transaction" => modes.transaction = true,
            "session" => modes.session = true,
            "both" => modes = Modes { transaction: true, session: true },
            _ => return Err("unknown pool mode".into()),
        }
    }
    Ok(modes)
}

fn read_deed(text: &str, place: usize) -> Result<Deed, String> {
    match text {
        "close" => return Ok(Deed::Close),
        "abort" => return Ok(Deed::Abort),
        "half" => return Ok(Deed::Half),
        "open" => return Ok(Deed::Open(Vec::new())),
        _ => {}
    }
    if let Some(parameters) = text.strip_prefix("open ") {
        let pair = |part: &str| {
            let (name, value) = part.split_once('=').ok_or("a parameter without a value")?;
            Ok((name.to_owned(), value.to_owned()))
        };
        return Ok(Deed::Open(parameters.split(" / ").map(pair).collect::<Result<_, String>>()?));
    }
    if let Some(tags) = text.strip_prefix("wait ") {
        return Ok(Deed::Send(Vec::new(), Wait::Tags(tags.bytes().collect())));
    }
    let (messages, wait) = match text.rsplit_once(" => ") {
        Some((messages, wait)) if wait.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') => (messages, Some(wait)),
        _ => (text, None),
    };
    let mut chunks = vec![Vec::new()];
    let parts: Vec<&str> = messages.split(" / ").map(str::trim).collect();
    let answers = put_parts(&parts, &mut chunks)?;
    let wait = match wait {
        Some("-") => Wait::Tags(Vec::new()),
        Some("end") => Wait::End,
        Some("mark") => Wait::Mark(place),
        Some(tags) => Wait::Tags(tags.bytes().collect()),
        None => Wait::Tags(vec![b'Z'; answers]),
    };
    Ok(Deed::Send(chunks, wait))
}

/// Appends messages; answers for how many a ReadyForQuery is due.
fn put_parts(parts: &[&str], chunks: &mut Vec<Vec<u8>>) -> Result<usize, String> {
    let mut answers = 0;
    let mut place = 0;
    while let Some(part) = parts.get(place) {
        place += 1;
        if let Some(times) = part.strip_suffix('[') {
            let end = place + parts[place..].iter().position(|part| *part == "]").ok_or("no end of a repetition")?;
            for _ in 0..times.trim().parse::<usize>().map_err(|_| "not a number")? {
                answers += put_parts(&parts[place..end], chunks)?;
            }
            place = end + 1;
        } else if *part == "~" {
            chunks.push(Vec::new());
        } else {
            let bytes = message(part)?;
            answers += usize::from(matches!(bytes[0], b'Q' | b'S' | b'F'));
            if let Some(chunk) = chunks.last_mut() {
                chunk.extend_from_slice(&bytes);
            }
        }
    }
    Ok(answers)
}

/// A message as scripts write it.
pub fn message(text: &str) -> Result<Vec<u8>, String> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let rest = rest.trim_start();
    Ok(match word {
        "Q" => query(&expanded(rest)),
        "P" => {
            let (name, rest) = taken(rest);
            let (types, sql) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                Some((types, sql)) => (types, sql.trim_start()),
                None => ("", rest),
            };
            let mut body = format!("{}\0{}\0", named(name), expanded(sql)).into_bytes();
            let types = numbers::<u32>(types)?;
            body.extend(count(types.len()));
            types.iter().for_each(|oid| body.extend(oid.to_be_bytes()));
            frame(b'P', &body)
        }
        "B" => {
            let (portal, rest) = taken(rest);
            let (statement, rest) = taken(rest);
            let mut body = format!("{}\0{}\0", named(portal), named(statement)).into_bytes();
            put_values(&mut body, rest)?;
            frame(b'B', &body)
        }
        "F" => {
            let (function, rest) = taken(rest);
            let mut body = function.parse::<u32>().map_err(|_| "not an OID")?.to_be_bytes().to_vec();
            put_values(&mut body, rest)?;
            // One result format, without a count.
            let formats = option(rest, "rf=").map(numbers::<u16>).transpose()?.unwrap_or_default();
            body.truncate(body.len() - 2 - 2 * formats.len());
            body.extend(formats.first().copied().unwrap_or(0).to_be_bytes());
            frame(b'F', &body)
        }
        "DS" | "CS" | "DP" | "CP" => {
            let kind = &word[1..];
            frame(word.as_bytes()[0], format!("{kind}{}\0", named(rest)).as_bytes())
        }
        "E" => {
            let (portal, limit) = taken(rest);
            let limit = if limit.is_empty() { 0 } else { limit.parse::<i32>().map_err(|_| "not a number")? };
            let mut body = format!("{}\0", named(portal)).into_bytes();
            body.extend(limit.to_be_bytes());
            frame(b'E', &body)
        }
        "H" | "S" | "c" | "X" => frame(word.as_bytes()[0], b""),
        "d" => frame(b'd', &unescaped(&expanded(rest))?),
        "f" => frame(b'f', &[rest.as_bytes(), b"\0"].concat()),
        "raw" => {
            let (tag, body) = taken(rest);
            frame(*tag.as_bytes().first().ok_or("no type")?, &unescaped(body)?)
        }
        "bytes" => unescaped(rest)?,
        _ => return Err(format!("unknown message `{word}`")),
    })
}

/// `{a|b|\N} pf=0,1 rf=1`: formats, values, result formats, as in Bind.
fn put_values(body: &mut Vec<u8>, text: &str) -> Result<(), String> {
    let (values, options) = match text.strip_prefix('{').and_then(|text| text.rsplit_once('}')) {
        Some((values, options)) => (values, options),
        None => ("", text),
    };
    let formats = numbers::<u16>(option(options, "pf=").unwrap_or(""))?;
    body.extend(count(formats.len()));
    formats.iter().for_each(|format| body.extend(format.to_be_bytes()));
    let values: Vec<&str> = if values.is_empty() { Vec::new() } else { values.split('|').collect() };
    body.extend(count(values.len()));
    for value in values {
        if value == "\\N" {
            body.extend((-1_i32).to_be_bytes());
            continue;
        }
        let value = unescaped(&expanded(value))?;
        body.extend(u32::try_from(value.len()).map_err(|_| "too long")?.to_be_bytes());
        body.extend(value);
    }
    let formats = numbers::<u16>(option(options, "rf=").unwrap_or(""))?;
    body.extend(count(formats.len()));
    formats.iter().for_each(|format| body.extend(format.to_be_bytes()));
    Ok(())
}

fn option<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split_whitespace().find_map(|word| word.strip_prefix(name))
}

fn numbers<T: std::str::FromStr>(list: &str) -> Result<Vec<T>, String> {
    list.split(',').filter(|item| !item.is_empty()).map(|item| item.trim().parse().map_err(|_| "not a number".into())).collect()
}

fn count(count: usize) -> [u8; 2] {
    u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes()
}

fn taken(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    (word, rest.trim_start())
}

fn named(name: &str) -> &str {
    if name == "-" { "" } else { name }
}

/// `${x*1000}` is a thousand x; `${nl}` is the end of a line.
fn expanded(text: &str) -> String {
    let Some((before, rest)) = text.split_once("${") else { return text.to_owned() };
    let Some((inside, after)) = rest.split_once('}') else { return text.to_owned() };
    let (what, times) = inside.rsplit_once('*').unwrap_or((inside, "1"));
    let what = if what == "nl" { "\n" } else { what };
    format!("{before}{}{}", what.repeat(times.parse().unwrap_or(1)), expanded(after))
}

/// `\n`, `\t`, `\r`, `\0`, `\\`, `\xHH`.
fn unescaped(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'r') => b'\r',
            Some(b'0') => 0,
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let digits = [rest.next(), rest.next()].map(|digit| digit.and_then(|digit| (digit as char).to_digit(16)));
                let [Some(high), Some(low)] = digits else { return Err("not a hexadecimal byte".into()) };
                u8::try_from(high * 16 + low).unwrap_or(0)
            }
            _ => return Err("unknown escape".into()),
        });
    }
    Ok(bytes)
}

#[test]
fn messages_are_written_as_the_protocol_wants_them() {
    let check = |text: &str, bytes: &[u8]| assert_eq!(message(text).unwrap(), bytes, "{text}");
    check("P s [23,25] select 1", b"P\0\0\0\x19s\0select 1\0\0\x02\0\0\0\x17\0\0\0\x19");
    check("B - s {1|\\N|} pf=1 rf=0,1", b"B\0\0\0\x20\0s\0\0\x01\0\x01\0\x03\0\0\0\x011\xff\xff\xff\xff\0\0\0\0\0\x02\0\0\0\x01");
    check("E p 5", b"E\0\0\0\x0ap\0\0\0\0\x05");
    check("DS -", b"D\0\0\0\x06S\0");
    check("d a\\tb\\x00", b"d\0\0\0\x08a\tb\0");
    check("F 1 {x} rf=1", b"F\0\0\0\x13\0\0\0\x01\0\0\0\x01\0\0\0\x01x\0\x01");
    check("Q ${ab*2}c", b"Q\0\0\0\x0aababc\0");
    assert!(message("Y").is_err() && message("d \\q").is_err());
}
