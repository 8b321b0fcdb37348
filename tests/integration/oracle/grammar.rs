//! Scripts made by chance: messages of all kinds in any order, from a grammar that leaves out what is known to differ.
//!
//! A script is made of text, so that one that fails can be put into a file of scripts as it is printed.

use super::script::{self, Script};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// Texts that any session may run, whatever server connection it gets next.
const TEXTS: &[&str] = &[
    "select 1",
    "select 1",
    "select id, name from items order by id",
    "select generate_series(1, 5)",
    "select reads(2)",
    "select 1/(select 0)",
    "select nosuch",
    "selec",
    "",
    "-- nothing",
    "values (1, 'a'), (2, null)",
    "show work_mem",
    "show datestyle",
    "select current_setting('application_name'), current_setting('timezone')",
    "select current_user, date '2020-01-31'",
    "select notices('n')",
    "select fails('25006')",
    "select fails('40001')",
    "select lies(3)",
    "select count(*) from lines",
    "insert into lines values (1)",
    "insert into lines values (2), (3) returning n",
    "update items set price = price + 1 where id < 3",
    "delete from lines where n = 1",
    "copy (select id from items order by id) to stdout",
    "begin",
    "begin",
    "begin read only",
    "begin isolation level repeatable read",
    "commit",
    "commit",
    "rollback",
    "rollback and chain",
    "savepoint a",
    "rollback to a",
    "release a",
    "set work_mem = '3MB'",
    "set application_name = 'me'",
    "set datestyle = 'German'",
    "set timezone = 'UTC'",
    "set local work_mem = '5MB'",
    "set local application_name = 'local'",
    "select set_config('work_mem', '7MB', false)",
    "set work_mem = 'x'",
    "set role low",
    "reset role",
    "reset work_mem",
    "reset application_name",
    "reset all",
    "discard all",
    "discard plans",
    "deallocate all",
    "deallocate a",
];

/// Texts about names of prepared statements, and about a table that comes and goes under them.
const NAMES: &[&str] = &[
    "prepare a as select 5",
    "prepare b (int) as select $1 + 1",
    "prepare c as select a from made",
    "execute a",
    "execute b (3)",
    "execute c",
    "deallocate b",
    "deallocate all",
    "explain (costs off) execute b (1)",
    "select name, statement, parameter_types, from_sql from pg_prepared_statements order by name",
    "create table made (a int)",
    "drop table made",
    "alter table made add b text",
    "select a from made",
    "select a from made",
    "insert into made values (1)",
    "set local search_path = public",
    "set search_path = public, scratch",
    "set role low",
    "reset role",
    "savepoint a",
    "rollback to a",
];

/// Texts that bind the session to its server connection.
const BINDING: &[&str] = &[
    "create temp table if not exists tt (a int)",
    "insert into tt values (1)",
    "select * from tt",
    "drop table tt",
    "discard temp",
    "declare h cursor with hold for select generate_series(1, 9)",
    "declare c cursor for select generate_series(1, 9)",
    "fetch 2 from h",
    "fetch 2 from c",
    "close h",
    "close all",
    "prepare z as select 5",
    "execute z",
    "deallocate z",
    "select pg_advisory_lock_shared(77)",
    "select pg_advisory_unlock_shared(77)",
    "listen ch",
    "notify ch, 'x'",
    "unlisten *",
];

/// Several statements in one simple query.
const SEVERAL: &[&str] = &[
    "select 1; select 2",
    "insert into lines values (4); select 1/0",
    "begin; insert into lines values (5); commit",
    "begin; set work_mem = '6MB'; rollback",
    "begin; select 1",
    "select 1; commit",
    "rollback; set application_name = 'again'",
    "set work_mem = '8MB'; select 1/0",
    "savepoint a; set local work_mem = '9MB'; rollback to a",
];

/// Start-up packets.
const OPENINGS: &[&str] =
    &["open", "open", "open application_name=first / timezone=UTC", "open options=-c work_mem=1MB -c datestyle=SQL"];

/// The script of a seed.
pub fn script(seed: u64) -> Script {
    let mut maker = Maker { random: StdRng::seed_from_u64(seed), binds: seed % 3 == 2, names: seed % 4 == 1 };
    let text = maker.text(seed);
    let mut scripts = script::read("chance", &text);
    scripts.remove(0)
}

struct Maker {
    random: StdRng,
    binds: bool,
    names: bool,
}

impl Maker {
    fn text(&mut self, seed: u64) -> String {
        let mut text = format!("=== seed {seed}\n@pool 2\n0: {}\n1: {}\n", self.one(OPENINGS), self.one(OPENINGS));
        let mut session = 0;
        for _ in 0..self.random.random_range(4..12) {
            if self.random.random_bool(0.3) {
                // Nobody may wait for a lock.
                text.push_str(&format!("{session}: Q rollback\n"));
                session = 1 - session;
            }
            let round = match self.random.random_range(0..10) {
                0..5 => self.pipelines(),
                5..7 => self.queries(),
                7 => self.copy(),
                _ => self.mixture(),
            };
            text.push_str(&format!("{session}: {round}\n"));
        }
        if self.binds {
            text.push_str("0: Q rollback\n0: Q discard all\n1: Q rollback\n1: Q discard all\n");
        }
        text
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of.choose(&mut self.random).copied().unwrap_or_default()
    }

    fn sql(&mut self) -> &'static str {
        if self.names && self.random.random_bool(0.5) {
            return self.one(NAMES);
        }
        if self.binds && self.random.random_bool(0.4) { self.one(BINDING) } else { self.one(TEXTS) }
    }

    /// A text for the extended protocol: RESET before a Flush or a query in the middle is reported otherwise (docs/limits.md).
    fn piped(&mut self) -> &'static str {
        loop {
            let sql = self.sql();
            if !sql.starts_with("reset") && sql != "discard all" {
                return sql;
            }
        }
    }

    /// Extended messages, with a Sync now and then and one at the end: each is answered, whatever fails.
    fn pipelines(&mut self) -> String {
        let mut parts = Vec::new();
        for _ in 0..self.random.random_range(1..9) {
            self.extended(&mut parts);
            match self.random.random_range(0..12) {
                0 => parts.push("S".to_owned()),
                1 => parts.push("H".to_owned()),
                2 => parts.push("~".to_owned()),
                _ => {}
            }
        }
        parts.push("S".to_owned());
        parts.join(" / ")
    }

    fn queries(&mut self) -> String {
        let count = self.random.random_range(1..5);
        let queries: Vec<String> = (0..count).map(|_| self.query()).collect();
        queries.join(" / ")
    }

    fn query(&mut self) -> String {
        let text = if self.random.random_bool(0.2) { self.one(SEVERAL) } else { self.sql() };
        format!("Q {text}")
    }

    /// Simple queries and function calls among extended messages: an error may drop them, so that only the mark tells the end.
    fn mixture(&mut self) -> String {
        let mut parts = Vec::new();
        for _ in 0..self.random.random_range(2..8) {
            match self.random.random_range(0..10) {
                0..5 => self.extended(&mut parts),
                5..7 => parts.push(self.query()),
                7 => parts.push("F 177 {1|2}".to_owned()),
                8 => parts.push("S".to_owned()),
                _ => parts.push(self.one(&["d 1\\n", "c", "f no", "H"]).to_owned()),
            }
        }
        format!("{} => mark", parts.join(" / "))
    }

    fn extended(&mut self, parts: &mut Vec<String>) {
        let name = self.one(&["-", "-", "a", "b"]);
        let portal = self.one(&["-", "-", "-", "p"]);
        match self.random.random_range(0..20) {
            // The usual way.
            0..9 => {
                if name != "-" && self.random.random_bool(0.7) {
                    parts.push(format!("CS {name}"));
                }
                let sql = self.piped();
                parts.push(format!("P {name} {sql}"));
                parts.push(format!("B {portal} {name}"));
                if self.random.random_bool(0.5) {
                    parts.push(format!("DP {portal}"));
                }
                parts.push(format!("E {portal}"));
            }
            9 => parts.push(
                self.one(&["P - select $1::int / B - - {7} / E -", "P - select $1::int / DS - / B - - {x} / E -"]).to_owned(),
            ),
            10 => {
                if name != "-" && self.random.random_bool(0.7) {
                    parts.push(format!("CS {name}"));
                }
                parts.push(format!("P {name} {}", self.piped()));
            }
            11..14 => {
                parts.push(format!("B {portal} {name}"));
                parts.push(format!("E {portal}"));
            }
            14 => parts.push(format!("E {portal} 2")),
            15 => parts.push(format!("E {portal}")),
            16 => parts.push(format!("DS {name}")),
            17 => parts.push(format!("DP {portal}")),
            18 => parts.push(format!("CS {name}")),
            _ => parts.push(format!("CP {portal}")),
        }
    }

    /// Data comes in a piece of its own or not, is good or bad, and ends in one of three ways.
    fn copy(&mut self) -> String {
        let data =
            self.one(&["d 7\\n", "d 7\\n8\\n / d 9\\n", "d x\\n / d 1\\n", "d 1 / ~ / d 2\\n", "H / d 5\\n", "d 1\\n\\\\.\\n"]);
        let end = self.one(&["c", "c", "f no"]);
        match self.random.random_range(0..4) {
            0 => format!("Q copy lines from stdin / {data} / {end} => mark"),
            1 => format!("Q copy lines from stdin; select 1; copy lines from stdin / {data} / {end} / {data} / {end} => mark"),
            2 => format!("P - copy lines from stdin / B - - / E - / {data} / {end} / S / P - select 1 / S => mark"),
            _ => format!("P - copy lines from stdin / B - - / E - / {data} / {end} / P - select 1 / B - - / E - / S => mark"),
        }
    }
}

/// The smallest script that still `fails`: steps and messages are left out as long as that goes well.
pub fn shrink(text: &str, mut fails: impl FnMut(&Script) -> bool) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut tries = 60;
    let mut still = |lines: &[String]| {
        tries -= 1;
        tries > 0 && fails(&script::read("chance", &lines.join("\n"))[0])
    };
    let mut place = lines.len();
    while place > 3 {
        place -= 1;
        let mut fewer = lines.clone();
        fewer.remove(place);
        if still(&fewer) {
            lines = fewer;
        }
    }
    for place in 2..lines.len() {
        let Some((session, rest)) = lines[place].split_once(": ").map(|(session, rest)| (session.to_owned(), rest.to_owned()))
        else {
            continue;
        };
        let (messages, wait) = rest.split_once(" => ").unwrap_or((&rest, ""));
        let mut parts: Vec<&str> = messages.split(" / ").collect();
        let mut part = parts.len();
        while part > 0 && parts.len() > 1 {
            part -= 1;
            // Without its last Sync a pipeline is not answered, and what stands behind `open` are no messages.
            let ends_pipeline = wait.is_empty() && part + 1 == parts.len() && parts[part] == "S";
            if ends_pipeline || parts[part].starts_with("open") {
                continue;
            }
            let mut fewer = parts.clone();
            fewer.remove(part);
            let wait = if wait.is_empty() { String::new() } else { format!(" => {wait}") };
            let mut all = lines.clone();
            all[place] = format!("{session}: {}{wait}", fewer.join(" / "));
            if still(&all) {
                parts = fewer;
                lines = all;
            }
        }
    }
    lines.join("\n")
}

/// The text of a script, as `script` reads it.
pub fn text(script: &Script) -> String {
    let lines: Vec<&str> = script.steps.iter().map(|step| step.line.as_str()).collect();
    format!("=== {}\n@pool {}\n{}", script.title, script.pool.unwrap_or(1), lines.join("\n"))
}
