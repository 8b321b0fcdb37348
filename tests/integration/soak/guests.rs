//! Clients of many habits. What they ask for has their token in it; what they get must have it too, and no other.

use crate::integration::chaos::dice::Dice;
use crate::integration::harness::RawClient;
use crate::integration::harness::client::{
    Protocol, Reply, bind, cancel_request, describe_portal, execute, frame, parse, query, sync,
};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What a session may be told while servers end sessions.
const BEARABLE: [&str; 8] = ["08006", "08007", "57P01", "57P02", "57P03", "40001", "25P02", "08001"];
const TOKEN: &str = "tok_";

/// What a guest brings home.
#[derive(Debug, Default)]
pub struct Report {
    /// How often it did what.
    pub acts: BTreeMap<&'static str, u64>,
    /// Errors that are part of the game.
    pub errors: BTreeMap<String, u64>,
    /// What must not be.
    pub complaints: Vec<String>,
}

/// A client.
pub struct Guest {
    door: (u16, String),
    number: u64,
    dice: Dice,
    client: Option<RawClient>,
    count: u64,
    /// The value of `app.token` in its session.
    setting: Option<String>,
    /// It has asked for a cancellation, which may come late.
    has_cancelled: bool,
    report: Report,
}

/// Why an act was not finished.
#[derive(Debug)]
pub enum Broken {
    /// As such things go; the session is left.
    Bearable(String),
    Wrong(String),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Broken {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::InvalidData => Broken::Wrong(error.to_string()),
            kind => Broken::Bearable(format!("{kind:?}")),
        }
    }
}

/// One of the things that guests do.
pub type Act = fn(&mut Guest, &str) -> Result<(), Broken>;

/// All of them.
pub const ACTS: [(&str, Act); 16] = [
    ("statement", Guest::statement),
    ("pipeline", Guest::pipeline),
    ("many rows", Guest::many_rows),
    ("error", Guest::error),
    ("setting", Guest::change_setting),
    ("show", Guest::show_setting),
    ("notice", Guest::notice),
    ("copy out", Guest::copy_out),
    ("copy in", Guest::copy_in),
    ("transaction", Guest::transaction),
    ("cancel", Guest::cancel),
    ("listen", Guest::listen),
    ("temporary", Guest::temporary),
    ("prepare", Guest::prepare),
    ("cursor", Guest::cursor),
    ("vanish", Guest::vanish),
];

impl Guest {
    pub fn new(door: (u16, &str), number: u64, dice: Dice) -> Guest {
        let report = Report::default();
        Guest {
            door: (door.0, door.1.to_owned()),
            number,
            dice,
            client: None,
            count: 0,
            setting: None,
            has_cancelled: false,
            report,
        }
    }

    /// Plays until it is told to stop.
    pub fn stay(mut self, stop: &AtomicBool) -> Report {
        while !stop.load(Ordering::Relaxed) {
            if self.client.is_none() {
                match RawClient::log_in(self.door.0, "app", &self.door.1, "app") {
                    Ok(client) => self.client = Some(client),
                    Err(error) => {
                        self.bear(&format!("log-in: {error}"));
                        std::thread::sleep(Duration::from_millis(50));
                        continue;
                    }
                }
                (self.setting, self.has_cancelled) = (None, false);
            }
            self.count += 1;
            let token = format!("{TOKEN}{}_{}_", self.number, self.count);
            let (name, act) = *self.dice.pick(&ACTS);
            match act(&mut self, &token) {
                Ok(()) => *self.report.acts.entry(name).or_default() += 1,
                Err(Broken::Bearable(what)) => {
                    self.bear(&format!("{name}: {what}"));
                    self.client = None;
                }
                Err(Broken::Wrong(what)) => {
                    self.report.complaints.push(format!("guest {} at {token}, {name}: {what}", self.number));
                    self.client = None;
                }
            }
        }
        self.report
    }

    fn bear(&mut self, what: &str) {
        *self.report.errors.entry(what.to_owned()).or_default() += 1;
    }

    fn client(&mut self) -> &mut RawClient {
        self.client.as_mut().unwrap()
    }

    /// Answers up to ReadyForQuery, `count` times. Errors end the act; tokens of others are wrong.
    fn answers(&mut self, token: &str, count: usize) -> Result<Vec<Reply>, Broken> {
        let mut replies = Vec::new();
        for _ in 0..count {
            replies.extend(self.client().until_ready()?);
        }
        self.look_at(token, &replies)?;
        match replies.iter().find(|reply| reply.tag == b'E') {
            Some(error) => Err(self.judge(error)),
            None => Ok(replies),
        }
    }

    fn judge(&self, error: &Reply) -> Broken {
        let (state, message) = (error.field(b'C').unwrap_or_default(), error.field(b'M').unwrap_or_default());
        let late_cancel = state == "57014" && self.has_cancelled;
        match late_cancel || BEARABLE.contains(&state.as_str()) {
            true => Broken::Bearable(state),
            false => Broken::Wrong(format!("{state} {message}")),
        }
    }

    fn look_at(&self, token: &str, replies: &[Reply]) -> Result<(), Broken> {
        for reply in replies {
            let text = String::from_utf8_lossy(&reply.body);
            for (place, _) in text.match_indices(TOKEN) {
                let found = &text[place..];
                let known = found.starts_with(token) || self.setting.as_ref().is_some_and(|own| found.starts_with(own));
                if !known {
                    let shown: String = found.chars().take(40).collect();
                    return Err(Broken::Wrong(format!("an answer of somebody else: {} {shown}", reply.tag as char)));
                }
            }
        }
        Ok(())
    }

    /// Runs a statement; its rows' first columns must be `expect`.
    fn expect(&mut self, token: &str, sql: &str, expect: &[&str]) -> Result<Vec<Reply>, Broken> {
        self.client().send(&query(sql))?;
        let replies = self.answers(token, 1)?;
        let found: Vec<String> =
            replies.iter().filter(|reply| reply.tag == b'D').map(|row| columns(row).swap_remove(0)).collect();
        match found == expect {
            true => Ok(replies),
            false => Err(Broken::Wrong(format!("{found:?} is the answer to {sql}"))),
        }
    }

    fn statement(&mut self, token: &str) -> Result<(), Broken> {
        let protocol = *self.dice.pick(&[Protocol::Simple, Protocol::Extended, Protocol::Named]);
        let write =
            if self.dice.percent(20) { format!("INSERT INTO soak VALUES ('{token}') RETURNING token") } else { String::new() };
        let sql = if write.is_empty() { format!("SELECT '{token}'") } else { write };
        let replies = self.client().run(protocol, &sql)?;
        self.look_at(token, &replies)?;
        if let Some(error) = replies.iter().find(|reply| reply.tag == b'E') {
            return Err(self.judge(error));
        }
        let found: Vec<Vec<String>> = replies.iter().filter(|reply| reply.tag == b'D').map(columns).collect();
        if found == [[token]] { Ok(()) } else { Err(Broken::Wrong(format!("{found:?} is the answer to {sql}"))) }
    }

    fn pipeline(&mut self, token: &str) -> Result<(), Broken> {
        let parts = usize::try_from(self.dice.between(2..6)).unwrap();
        let every = self.dice.percent(50);
        let mut bytes = Vec::new();
        for part in 0..parts {
            let write = self.dice.percent(30);
            let sql = if write {
                format!("INSERT INTO soak VALUES ('{token}', '{part}') RETURNING token || {part}")
            } else {
                format!("SELECT '{token}{part}'")
            };
            bytes.extend([parse("", &sql), bind("", ""), describe_portal(""), execute("")].concat());
            if every || part + 1 == parts {
                bytes.extend(sync());
            }
        }
        self.client().send(&bytes)?;
        let replies = self.answers(token, if every { parts } else { 1 })?;
        let found: Vec<String> =
            replies.iter().filter(|reply| reply.tag == b'D').map(|row| columns(row).swap_remove(0)).collect();
        let wanted: Vec<String> = (0..parts).map(|part| format!("{token}{part}")).collect();
        if found == wanted { Ok(()) } else { Err(Broken::Wrong(format!("{found:?} instead of {wanted:?}"))) }
    }

    fn many_rows(&mut self, token: &str) -> Result<(), Broken> {
        let count = usize::try_from(self.dice.between(1..400)).unwrap();
        let row = format!("{token}{}", "-".repeat(500));
        let sql = format!("SELECT '{token}' || repeat('-', 500) FROM generate_series(1, {count})");
        self.expect(token, &sql, &vec![row.as_str(); count]).map(drop)
    }

    fn error(&mut self, token: &str) -> Result<(), Broken> {
        self.client().send(&query(&format!("SELECT '{token}'::int")))?;
        let replies = self.client().until_ready()?;
        self.look_at(token, &replies)?;
        let error = replies.iter().find(|reply| reply.tag == b'E').ok_or_else(|| Broken::Wrong("no error".into()))?;
        let own = error.field(b'M').is_some_and(|message| message.contains(token));
        if error.field(b'C').as_deref() == Some("22P02") && own { Ok(()) } else { Err(self.judge(error)) }
    }

    fn change_setting(&mut self, token: &str) -> Result<(), Broken> {
        self.expect(token, &format!("SET app.token = '{token}'"), &[])?;
        self.setting = Some(token.to_owned());
        Ok(())
    }

    fn show_setting(&mut self, token: &str) -> Result<(), Broken> {
        // A name that a server connection has seen stays known there, as an empty text.
        let wanted = self.setting.clone().unwrap_or_default();
        self.expect(token, "SELECT coalesce(current_setting('app.token', true), '')", &[&wanted]).map(drop)
    }

    fn notice(&mut self, token: &str) -> Result<(), Broken> {
        let replies = self.expect(token, &format!("DO $$ BEGIN RAISE NOTICE '{token}'; END $$"), &[])?;
        let noticed = replies.iter().any(|reply| reply.tag == b'N' && reply.field(b'M').as_deref() == Some(token));
        if noticed { Ok(()) } else { Err(Broken::Wrong("no notice".into())) }
    }

    fn copy_out(&mut self, token: &str) -> Result<(), Broken> {
        self.client().send(&query(&format!("COPY (SELECT '{token}' FROM generate_series(1, 50)) TO STDOUT")))?;
        let replies = self.answers(token, 1)?;
        let line = format!("{token}\n");
        let count = replies.iter().filter(|reply| reply.tag == b'd' && reply.body == line.as_bytes()).count();
        if count == 50 { Ok(()) } else { Err(Broken::Wrong(format!("{count} lines"))) }
    }

    fn copy_in(&mut self, token: &str) -> Result<(), Broken> {
        let line = frame(b'd', format!("{token}\t\\N\n").as_bytes());
        self.client().send(&query("COPY soak FROM STDIN"))?;
        loop {
            match self.client().receive()?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))? {
                begin if begin.tag == b'G' => break,
                error if error.tag == b'E' => return Err(self.judge(&error)),
                _ => {}
            }
        }
        self.client().send(&[line.repeat(7), frame(b'c', b"")].concat())?;
        let replies = self.answers(token, 1)?;
        let done = replies.iter().any(|reply| reply.tag == b'C' && reply.body == b"COPY 7\0");
        if done { Ok(()) } else { Err(Broken::Wrong(format!("{replies:?}"))) }
    }

    fn transaction(&mut self, token: &str) -> Result<(), Broken> {
        self.expect(token, "BEGIN", &[])?;
        self.expect(token, &format!("INSERT INTO soak VALUES ('{token}', 'in a transaction')"), &[])?;
        self.expect(token, &format!("SELECT token FROM soak WHERE token = '{token}'"), &[token])?;
        let end = *self.dice.pick(&["COMMIT", "ROLLBACK"]);
        self.expect(token, end, &[])?;
        let wanted: &[&str] = if end == "COMMIT" { &[token] } else { &[] };
        self.expect(token, &format!("SELECT token FROM soak WHERE token = '{token}'"), wanted).map(drop)
    }

    fn cancel(&mut self, token: &str) -> Result<(), Broken> {
        let (port, key) = (self.door.0, self.client().key);
        self.client().send(&query(&format!("SELECT pg_sleep(0.05), '{token}'")))?;
        std::thread::sleep(Duration::from_millis(self.dice.between(0..60)));
        self.has_cancelled = true;
        let mut request = RawClient::connect(port)?;
        request.send(&cancel_request(key))?;
        drop(request.receive());
        let replies = self.client().until_ready()?;
        self.look_at(token, &replies)?;
        match replies.iter().find(|reply| reply.tag == b'E') {
            Some(error) if error.field(b'C').as_deref() == Some("57014") => Ok(()),
            Some(error) => Err(self.judge(error)),
            None => Ok(()),
        }
    }

    fn listen(&mut self, token: &str) -> Result<(), Broken> {
        let channel = format!("c{}", self.number);
        self.expect(token, &format!("LISTEN {channel}"), &[])?;
        self.client().send(&query(&format!("NOTIFY {channel}, '{token}'")))?;
        let mut replies = self.answers(token, 1)?;
        let is_it = |reply: &Reply| reply.tag == b'A';
        if !replies.iter().any(is_it) {
            // It may come behind ReadyForQuery.
            replies.extend(self.client().receive()?);
        }
        self.look_at(token, &replies)?;
        if let Some(error) = replies.iter().find(|reply| reply.tag == b'E') {
            return Err(self.judge(error));
        }
        if !replies.iter().any(is_it) {
            return Err(Broken::Wrong(format!("no notification: {replies:?}")));
        }
        self.expect(token, "UNLISTEN *", &[]).map(drop)
    }

    fn temporary(&mut self, token: &str) -> Result<(), Broken> {
        self.expect(token, &format!("CREATE TEMP TABLE own AS SELECT '{token}' AS token"), &[])?;
        self.expect(token, "SELECT token FROM own", &[token])?;
        self.expect(token, "DISCARD ALL", &[])?;
        self.setting = None;
        Ok(())
    }

    fn prepare(&mut self, token: &str) -> Result<(), Broken> {
        self.expect(token, &format!("PREPARE own AS SELECT '{token}'"), &[])?;
        self.expect(token, "EXECUTE own", &[token])?;
        self.expect(token, "DEALLOCATE own", &[]).map(drop)
    }

    fn cursor(&mut self, token: &str) -> Result<(), Broken> {
        self.expect(token, "BEGIN", &[])?;
        self.expect(token, &format!("DECLARE own CURSOR FOR SELECT '{token}' FROM generate_series(1, 9)"), &[])?;
        self.expect(token, "FETCH 2 FROM own", &[token; 2])?;
        self.expect(token, "FETCH ALL FROM own", &[token; 7])?;
        self.expect(token, "COMMIT", &[]).map(drop)
    }

    /// Leaves in the middle of something, without a word.
    fn vanish(&mut self, token: &str) -> Result<(), Broken> {
        let insert = format!("INSERT INTO soak VALUES ('{token}', 'vanished')");
        let large = query(&format!("SELECT '{token}' || repeat('x', 1000) FROM generate_series(1, 20000)"));
        match self.dice.between(0..8) {
            0 => {
                let bytes = query(&format!("SELECT '{token}'"));
                let length = usize::try_from(self.dice.between(1..bytes.len() as u64)).unwrap();
                self.client().send(&bytes[..length])?;
            }
            // As with PostgreSQL alone, the statement runs to its end.
            1 => self.client().send(&query(&format!("SELECT pg_sleep(2), '{token}'")))?,
            2 => {
                self.client().send(&large)?;
                for _ in 0..self.dice.between(0..50) {
                    let reply = self.client().receive()?;
                    // An error makes it a short answer.
                    let is_last = reply.as_ref().is_none_or(|reply| reply.tag == b'Z');
                    self.look_at(token, &Vec::from_iter(reply))?;
                    if is_last {
                        break;
                    }
                }
            }
            3 => {
                self.expect(token, "BEGIN", &[])?;
                self.client().send(&query(&insert))?;
            }
            4 => self.client().send(&[query("COPY soak FROM STDIN"), frame(b'd', token.as_bytes())[..8].to_vec()].concat())?,
            5 => self.client().send(&[parse("", &insert), bind("", ""), execute("")].concat())?,
            6 => {
                self.client().send(&[query("BEGIN"), query("LOCK TABLE soak IN SHARE MODE"), large].concat())?;
            }
            _ => {
                self.client().send(&[query(&insert), query(&format!("LISTEN {token}")), frame(b'X', b"")].concat())?;
            }
        }
        if self.dice.percent(50) {
            std::thread::sleep(Duration::from_millis(self.dice.between(0..30)));
        }
        self.client = None;
        Ok(())
    }
}

/// The columns of a DataRow, as text; NULL is empty.
fn columns(row: &Reply) -> Vec<String> {
    let number = |at: usize| row.body.get(at..at + 4).map_or(-1, |bytes| i32::from_be_bytes(bytes.try_into().unwrap()));
    let count = u16::from_be_bytes(row.body[..2].try_into().unwrap());
    let mut at = 2;
    let column = |_| {
        let length = usize::try_from(number(at)).unwrap_or(0);
        let text = String::from_utf8_lossy(&row.body[at + 4..at + 4 + length]).into_owned();
        at += 4 + length;
        text
    };
    (0..count).map(column).collect()
}

/// All rows of a simple query.
pub fn rows(client: &mut RawClient, sql: &str) -> io::Result<Vec<Vec<String>>> {
    let replies = client.run(Protocol::Simple, sql)?;
    if let Some(error) = replies.iter().find(|reply| reply.tag == b'E') {
        return Err(io::Error::other(error.field(b'M').unwrap_or_default()));
    }
    Ok(replies.iter().filter(|reply| reply.tag == b'D').map(columns).collect())
}
