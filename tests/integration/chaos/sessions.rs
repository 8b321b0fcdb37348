//! Clients that write and read at random, and note what they were told.

use super::dice::Dice;
use super::history::{Deed, Event, Object, Outcome, Seen, Token};
use super::stage::{Door, Keys};
use crate::integration::harness::RawClient;
use crate::integration::harness::client::{Protocol, Reply, frame, sync};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Errors that a client may get while hosts fail. Anything else means that somebody took a fault for something different.
const BEARABLE: [&str; 9] = ["08000", "08001", "08003", "08004", "08006", "08007", "57P01", "57P02", "57P03"];
/// Those that a READ ONLY transaction may get besides: it is not run again.
const BEARABLE_IN_TRANSACTION: [&str; 3] = ["40001", "40P01", "25P02"];
const UNKNOWN: &str = "08007";
/// Every session's tokens have a block of their own.
const TOKENS_PER_SESSION: u64 = 1_000_000;

/// How sessions behave.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Simple queries only.
    pub simple: bool,
    /// Some sessions commit asynchronously. Not where a primary is killed: what they are told then may be lost.
    pub asynchronous: bool,
}

/// What a client brings home.
#[derive(Debug, Default)]
pub struct Notes {
    /// What it did and saw.
    pub events: Vec<Event>,
    /// Errors, by what was asked and SQLSTATE.
    pub errors: BTreeMap<String, u64>,
    /// What must not be, whatever the history says.
    pub complaints: Vec<String>,
}

/// What the clients of one round share.
#[derive(Debug)]
pub struct Cast<'a> {
    pub door: &'a Door,
    pub keys: &'a Keys,
    pub manner: Manner,
    /// When the run began.
    pub clock: Instant,
    /// The number of the last session.
    pub sessions: &'a AtomicU32,
    pub stop: &'a AtomicBool,
}

/// An application's client.
pub struct Player<'a> {
    cast: &'a Cast<'a>,
    dice: Dice,
    connection: Option<RawClient>,
    session: u32,
    tokens: Token,
    /// What it wrote last, and likes to read.
    last: Option<Object>,
    notes: Notes,
}

/// Why an answer is none.
enum Trouble {
    Refused(String),
    Lost,
}

/// An answer without an error.
struct Answer {
    /// The first columns of all rows.
    rows: Vec<String>,
    tags: Vec<String>,
}

/// How a write is put.
#[derive(Clone, Copy)]
enum Writing {
    Update,
    Function,
    Expression,
}

impl<'a> Player<'a> {
    pub fn new(cast: &'a Cast<'a>, dice: Dice) -> Player<'a> {
        Player { cast, dice, connection: None, session: 0, tokens: 0, last: None, notes: Notes::default() }
    }

    /// Plays until it is told to stop.
    pub fn play(mut self) -> Notes {
        while !self.cast.stop.load(Ordering::Relaxed) {
            if self.connection.is_none() && !self.connect() {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
            match self.dice.between(0..100) {
                0..20 => self.write_one(),
                20..30 => self.write_two(),
                30..35 => self.write_batch(),
                35..43 => self.survey(),
                43..50 => self.read_in_transaction(),
                _ => self.read_one(),
            }
            if self.dice.percent(1) {
                self.connection = None;
            }
            std::thread::sleep(Duration::from_micros(self.dice.between(0..4000)));
        }
        self.notes
    }

    fn connect(&mut self) -> bool {
        self.session = self.cast.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        self.tokens = u64::from(self.session) * TOKENS_PER_SESSION;
        self.last = None;
        match RawClient::log_in(self.cast.door.port, "app", &self.cast.door.password, "app") {
            Ok(client) => self.connection = Some(client),
            Err(error) => *self.notes.errors.entry(format!("log-in: {error}")).or_default() += 1,
        }
        if self.connection.is_some() && self.cast.manner.asynchronous && self.dice.percent(25) {
            drop(self.ask_plainly("SET synchronous_commit = off"));
        }
        self.connection.is_some()
    }

    fn now(&self) -> Duration {
        self.cast.clock.elapsed()
    }

    fn token(&mut self) -> Token {
        self.tokens += 1;
        self.tokens
    }

    fn register(&mut self) -> Object {
        Object::Register(u32::try_from(self.dice.between(range(&self.cast.keys.registers))).unwrap())
    }

    fn object(&mut self) -> Object {
        match self.last {
            Some(last) if self.dice.percent(50) => last,
            _ if self.dice.percent(25) => Object::List(u32::try_from(self.dice.between(range(&self.cast.keys.lists))).unwrap()),
            _ => self.register(),
        }
    }

    /// Sends a statement by some protocol; tells about errors that must not be.
    fn ask(&mut self, what: &str, sql: &str, bearable: &[&str]) -> Result<Answer, Trouble> {
        let protocol = match self.cast.manner.simple {
            true => Protocol::Simple,
            false => *self.dice.pick(&[Protocol::Simple, Protocol::Extended, Protocol::Named]),
        };
        self.ask_by(protocol, what, (sql, bearable))
    }

    fn ask_plainly(&mut self, sql: &str) -> Result<Answer, Trouble> {
        let bearable = [&BEARABLE[..], &BEARABLE_IN_TRANSACTION].concat();
        self.ask_by(Protocol::Simple, sql.split(' ').next().unwrap(), (sql, &bearable))
    }

    fn ask_by(&mut self, protocol: Protocol, what: &str, (sql, bearable): (&str, &[&str])) -> Result<Answer, Trouble> {
        let Some(connection) = self.connection.as_mut() else { return Err(Trouble::Lost) };
        let begun = Instant::now();
        let outcome = connection.run(protocol, sql);
        let replies = match outcome {
            Ok(replies) => replies,
            Err(error) => {
                self.connection = None;
                *self.notes.errors.entry(format!("{what}: {:?}", error.kind())).or_default() += 1;
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::InvalidData) {
                    self.notes.complaints.push(format!("{error} after {:?}: {sql}", begun.elapsed()));
                }
                return Err(Trouble::Lost);
            }
        };
        // What is completed and ended is done: a Close that fails behind it takes nothing back.
        let completed = replies.iter().position(|reply| reply.tag == b'C').unwrap_or(replies.len());
        let done = replies[completed..].iter().position(|reply| matches!(reply.tag, b'Z' | b'E')).map(|place| completed + place);
        // A transaction whose server goes away under the Close of a statement is lost, and the client was told.
        let in_transaction = what == "begin" || what.ends_with("in a transaction");
        let is_done = done.is_some_and(|place| replies[place].tag == b'Z') && !in_transaction;
        if protocol == Protocol::Named && !forgets_statement(connection, &replies) {
            self.connection = None;
        }
        let failed = replies.iter().position(|reply| reply.tag == b'E').filter(|place| !is_done || Some(*place) < done);
        let Some(error) = failed.map(|place| &replies[place]) else {
            let tags = replies.iter().filter(|reply| reply.tag == b'C').map(|reply| text(&reply.body)).collect();
            return Ok(Answer { rows: replies.iter().filter(|reply| reply.tag == b'D').map(first_column).collect(), tags });
        };
        let state = error.field(b'C').unwrap_or_default();
        *self.notes.errors.entry(format!("{what}: {state}")).or_default() += 1;
        // What has sent a row can't be run again elsewhere: the conflict is the client's to know.
        let sent_rows = replies.iter().take_while(|reply| reply.tag != b'E').any(|reply| reply.tag == b'D');
        let conflicts = sent_rows && BEARABLE_IN_TRANSACTION.contains(&state.as_str());
        if !conflicts && !bearable.contains(&state.as_str()) {
            let message = error.field(b'M').unwrap_or_default();
            self.notes.complaints.push(format!("{state} {message} after {:?} at {:?}: {sql}", begun.elapsed(), self.now()));
        }
        Err(Trouble::Refused(state))
    }

    fn note_write(&mut self, begun: Duration, object: Object, token: Token, outcome: Outcome) {
        let deed = Deed::Wrote { token, outcome };
        self.notes.events.push(Event { session: self.session, object, begun, ended: self.cast.clock.elapsed(), deed });
        self.last = Some(object);
    }

    fn note_read(&mut self, begun: Duration, object: Object, seen: Seen, way: &'static str) {
        let deed = Deed::Read { seen, way };
        self.notes.events.push(Event { session: self.session, object, begun, ended: self.cast.clock.elapsed(), deed });
    }

    fn write_one(&mut self) {
        let (object, token, begun) = (self.object(), self.token(), self.now());
        let writing = *self.dice.pick(&[Writing::Update, Writing::Update, Writing::Function, Writing::Expression]);
        let (sql, wanted) = write_statement(object, token, writing);
        let answer = self.ask("write", &sql, &BEARABLE);
        let outcome = self.outcome(answer, &[wanted]);
        self.note_write(begun, object, token, outcome);
    }

    fn outcome(&mut self, answer: Result<Answer, Trouble>, wanted: &[&str]) -> Outcome {
        match answer {
            Ok(answer) if answer.tags == wanted => Outcome::Acknowledged,
            Ok(answer) => {
                self.notes.complaints.push(format!("a write was answered {:?} instead of {wanted:?}", answer.tags));
                Outcome::Unknown
            }
            Err(Trouble::Refused(state)) if state != UNKNOWN => Outcome::Refused,
            Err(_) => Outcome::Unknown,
        }
    }

    /// Two registers, always in the same order: no deadlock.
    fn two_registers(&mut self) -> [(Object, Token); 2] {
        loop {
            let (one, other) = (self.register(), self.register());
            if one < other {
                return [(one, self.token()), (other, self.token())];
            }
        }
    }

    fn write_two(&mut self) {
        let (writes, begun) = (self.two_registers(), self.now());
        let outcome = self.transaction(&writes);
        for (object, token) in writes {
            self.note_write(begun, object, token, outcome);
        }
    }

    /// Nothing of it may take effect before COMMIT was sent.
    fn transaction(&mut self, writes: &[(Object, Token)]) -> Outcome {
        let mut failed = self.ask("begin", "BEGIN", &BEARABLE).is_err();
        for (object, token) in writes {
            if !failed {
                let (sql, _) = write_statement(*object, *token, Writing::Update);
                failed = self.ask("write in a transaction", &sql, &BEARABLE).is_err();
            }
        }
        if failed {
            drop(self.ask_plainly("ROLLBACK"));
            return Outcome::Refused;
        }
        // Not by name: a COMMIT that failed to be prepared has ended nothing.
        let protocol =
            if self.cast.manner.simple { Protocol::Simple } else { *self.dice.pick(&[Protocol::Simple, Protocol::Extended]) };
        let answer = self.ask_by(protocol, "commit", ("COMMIT", &BEARABLE));
        match answer {
            Ok(answer) if answer.tags == ["ROLLBACK"] => Outcome::Refused,
            other => self.outcome(other, &["COMMIT"]),
        }
    }

    /// Two statements in one query: one transaction.
    fn write_batch(&mut self) {
        let (writes, begun) = (self.two_registers(), self.now());
        let statements = writes.map(|(object, token)| write_statement(object, token, Writing::Update).0);
        let answer = self.ask_by(Protocol::Simple, "batch", (&statements.join("; "), &BEARABLE));
        let outcome = self.outcome(answer, &["UPDATE 1", "UPDATE 1"]);
        for (object, token) in writes {
            self.note_write(begun, object, token, outcome);
        }
    }

    fn read_one(&mut self) {
        let (object, begun) = (self.object(), self.now());
        let (way, sql) = self.read_statement(object);
        if let Ok(answer) = self.ask(way, &sql, &BEARABLE) {
            self.note_answer(begun, object, (way, &sql), &answer.rows);
        }
    }

    fn note_answer(&mut self, begun: Duration, object: Object, (way, sql): (&'static str, &str), rows: &[String]) {
        let seen = match (object, rows) {
            // Nothing was written yet, so that the trigger has not written either.
            (Object::Register(_), []) if way == "trigger" => Some(Seen::Value { version: 0, token: 0 }),
            (Object::Register(_), [row]) => value(row),
            (Object::List(_), [row]) => items(row).map(Seen::Items),
            _ => None,
        };
        match seen {
            Some(seen) => self.note_read(begun, object, seen, way),
            None => self.notes.complaints.push(format!("{rows:?} is no answer to {sql}")),
        }
    }

    fn read_statement(&mut self, object: Object) -> (&'static str, String) {
        let key = match object {
            Object::Register(key) => key,
            Object::List(key) => return ("list", format!("SELECT items FROM lists WHERE key = {key}")),
        };
        let row = "version || ',' || token";
        match self.dice.between(0..20) {
            0..6 => ("table", format!("SELECT {row} FROM registers WHERE key = {key}")),
            6..9 => ("trigger", format!("SELECT {row} FROM register_log WHERE key = {key} ORDER BY version DESC LIMIT 1")),
            9..12 => ("cascade", format!("SELECT {row} FROM mirrors WHERE key = {key}")),
            12..14 => ("view", format!("SELECT {row} FROM register_view WHERE key = {key}")),
            14..17 => ("function", format!("SELECT read_register({key})")),
            // Long enough for a conflict with what the replica replays.
            17 => ("slow", format!("SELECT {row} FROM registers, pg_sleep(0.25) WHERE key = {key}")),
            // Long enough to be cut in the middle.
            _ => ("wide", format!("SELECT {row} || ',' || repeat('x', 30000) FROM registers WHERE key = {key}")),
        }
    }

    /// All registers at one instant.
    fn survey(&mut self) {
        let (keys, begun) = (self.cast.keys.registers.clone(), self.now());
        let table = *self.dice.pick(&["registers", "mirrors", "register_view"]);
        let sql = format!(
            "SELECT key || ',' || version || ',' || token FROM {table} WHERE key >= {} AND key < {} ORDER BY key",
            keys.start, keys.end
        );
        let Ok(answer) = self.ask("survey", &sql, &BEARABLE) else { return };
        if answer.rows.len() != keys.len() {
            return self.notes.complaints.push(format!("{} rows to {sql}", answer.rows.len()));
        }
        for (key, row) in keys.zip(&answer.rows) {
            let rest = row.strip_prefix(&format!("{key},")).unwrap_or_default().to_owned();
            self.note_answer(begun, Object::Register(key), ("survey", &sql), &[rest]);
        }
    }

    fn read_in_transaction(&mut self) {
        let begun = self.now();
        let isolation = *self.dice.pick(&["READ COMMITTED", "REPEATABLE READ"]);
        let bearable = [&BEARABLE[..], &BEARABLE_IN_TRANSACTION].concat();
        let mut well = self.ask("begin", &format!("BEGIN ISOLATION LEVEL {isolation} READ ONLY"), &BEARABLE).is_ok();
        for _ in 0..2 {
            let object = self.object();
            let (way, sql) = self.read_statement(object);
            if well {
                match self.ask("read in a transaction", &sql, &bearable) {
                    Ok(answer) => self.note_answer(begun, object, (way, &sql), &answer.rows),
                    Err(_) => well = false,
                }
            }
        }
        drop(self.ask_plainly(if well { "COMMIT" } else { "ROLLBACK" }));
    }
}

fn range(keys: &std::ops::Range<u32>) -> std::ops::Range<u64> {
    keys.start.into()..keys.end.into()
}

/// The statement and the tag of its completion.
fn write_statement(object: Object, token: Token, writing: Writing) -> (String, &'static str) {
    let update = match object {
        Object::Register(key) => format!("UPDATE registers SET version = version + 1, token = {token} WHERE key = {key}"),
        Object::List(key) => format!("UPDATE lists SET items = items || {token}::bigint WHERE key = {key}"),
    };
    match (writing, object) {
        (Writing::Function, Object::Register(key)) => (format!("SELECT write_register({key}, {token})"), "SELECT 1"),
        (Writing::Expression, _) => {
            (format!("WITH written AS ({update} RETURNING key) SELECT count(*) FROM written"), "SELECT 1")
        }
        _ => (update, "UPDATE 1"),
    }
}

/// After an error the name may still be given, for an error drops a Close too. False: it could not be taken back.
fn forgets_statement(connection: &mut RawClient, replies: &[Reply]) -> bool {
    if replies.iter().all(|reply| reply.tag != b'E') {
        return true;
    }
    let answer = connection.send(&[frame(b'C', b"Sstmt\0"), sync()].concat()).and_then(|()| connection.until_ready());
    answer.is_ok_and(|replies| replies.iter().all(|reply| reply.tag != b'E'))
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).trim_end_matches('\0').to_owned()
}

fn first_column(row: &Reply) -> String {
    let length = row.body.get(2..6).map_or(-1, |length| i32::from_be_bytes(length.try_into().unwrap()));
    let end = 6 + usize::try_from(length).unwrap_or(0);
    row.body.get(6..end).map(text).unwrap_or_default()
}

fn value(row: &str) -> Option<Seen> {
    let mut fields = row.split(',').map(str::parse::<u64>);
    Some(Seen::Value { version: fields.next()?.ok()?, token: fields.next()?.ok()? })
}

fn items(row: &str) -> Option<Vec<Token>> {
    let inside = row.strip_prefix('{')?.strip_suffix('}')?;
    inside.split(',').filter(|item| !item.is_empty()).map(|item| item.parse().ok()).collect()
}
