//! The same through pgyard: a sharded database beside one with all rows, by every way in which drivers send statements.
//!
//! `PGYARD_SHARDS_CASES` and `PGYARD_SHARDS_SEED` say how many statements of each form there are, and which;
//! `PGYARD_SHARDS_FORM=joins` takes only forms of that name. What the shards alone refuse is asked again with a coordinator.

use super::super::harness::{Pgyard, RawClient, eventually};
use super::generate::{Case, Dice, FORMS};
use super::kinds::KIND_FORMS;
use super::stage::run;
use super::wire::{Answer, Given, Sent, Way};
use super::writes::{WRITE_FORMS, WRITTEN};
use pgyard::demo::{FleetOptions, LocalFleet};
use std::collections::BTreeMap;
use std::time::Duration;

/// Statements of each form that a run makes.
const CASES: usize = 8;
const SEED: u64 = 11;
/// The shards, which are also the names of their databases.
pub const SHARDS: [&str; 3] = ["s0", "s1", "s2"];

/// Tables of `fixture.sql` and `kinds.sql` with their keys: sharded tables of one line share their group.
const SETTINGS: &str = r#"
[[databases.app.sharded_tables]]
tables = ["orders", "lines", "extra.notes", "kinds", "other.marks", "other.orders"]
key = "customer"
[[databases.app.sharded_tables]]
tables = ["events"]
key = "tenant"
[[databases.app.sharded_tables]]
tables = ["readings"]
key = ["site", "day"]
[databases.app.tables]
countries = "reference"
"other.countries" = "reference"
later = "reference"
audit = "s1"
"#;

/// Sharded tables that no script changes.
const BESIDE: &[(&str, &str, &str)] =
    &[("kinds", "by_int", "customer"), ("other.marks", "by_int", "customer"), ("other.orders", "by_int", "customer")];

/// Servers, and pgyard in front of the shards.
pub struct Through {
    pub fleet: LocalFleet,
    pub yard: Pgyard,
    coordinated: Option<Pgyard>,
}

fn url(fleet: &LocalFleet, database: &str, superuser: bool) -> String {
    let url = if superuser { fleet.primary().superuser_url() } else { fleet.primary().app_url() };
    let (before, rest) = url.rsplit_once('/').unwrap();
    let options = rest.split_once('?').map(|(_, options)| format!("?{options}")).unwrap_or_default();
    format!("{before}/{database}{options}")
}

impl Through {
    /// Starts all of it. With a coordinator there is a second pgyard, which has one.
    pub fn start(with_coordinator: bool) -> Through {
        let settings = vec!["max_prepared_transactions = 50".to_owned(), "max_connections = 200".to_owned()];
        let fleet = LocalFleet::start(FleetOptions { replicas: 0, settings, ..FleetOptions::default() }, &mut |_| ()).unwrap();
        for database in SHARDS.iter().chain(&["coordinator"]) {
            fleet.primary().sql(&format!("CREATE DATABASE {database} OWNER app")).unwrap();
        }
        for (place, database) in ["app"].iter().chain(&SHARDS).enumerate() {
            let mut client = direct(&fleet, database);
            // Types of one's own have other numbers in each database.
            for number in 0..place * 7 {
                client.column(&format!("CREATE TYPE filler{number} AS ENUM ()")).unwrap();
            }
            client.column(include_str!("fixture.sql")).unwrap();
            client.column(include_str!("kinds.sql")).unwrap();
            let Some(shard) = place.checked_sub(1) else { continue };
            for (table, hash, key) in WRITTEN.iter().chain(BESIDE) {
                if !hash.is_empty() {
                    let own = format!("satisfies_hash_partition('{hash}'::regclass, 3, {shard}, {key})");
                    client.column(&format!("DELETE FROM {table} WHERE NOT {own}")).unwrap();
                }
            }
            if shard != 1 {
                client.column("DELETE FROM audit").unwrap();
            }
        }
        let yard = Pgyard::start_with_config(&fleet, &config(&fleet, ""));
        let coordinator = format!("[databases.app.coordinator]\nprimary = {:?}\n", url(&fleet, "coordinator", true));
        let coordinated = with_coordinator.then(|| Pgyard::start_with_config(&fleet, &config(&fleet, &coordinator)));
        let mut through = Through { fleet, yard, coordinated };
        through.wait();
        through
    }

    fn wait(&mut self) {
        let there = "SELECT to_regclass('pgyard.decisions') IS NOT NULL";
        eventually("the tables of decisions are made", Duration::from_secs(30), || {
            SHARDS.iter().all(|shard| direct(&self.fleet, shard).column(there).unwrap() == ["t"])
        });
        let password = self.fleet.app_password().reveal();
        let answers = |yard: &Pgyard, sql: &str| {
            RawClient::log_in(yard.port(), "app", password, "app").is_ok_and(|mut client| client.column(sql).is_ok())
        };
        eventually("the shards answer", Duration::from_secs(60), || answers(&self.yard, "SELECT count(*) FROM orders"));
        if let Some(yard) = &self.coordinated {
            let asked = "SELECT pg_typeof(customer) FROM orders LIMIT 1";
            eventually("the coordinator answers", Duration::from_secs(60), || answers(yard, asked));
        }
    }
}

fn config(fleet: &LocalFleet, more: &str) -> String {
    let shard = |name: &&str| format!("[[databases.app.shards]]\nname = \"{name}\"\nprimary = {:?}\n", url(fleet, name, true));
    let shards: String = SHARDS.iter().map(shard).collect();
    format!("listen = \"{{listen}}\"\nhttp = \"{{http}}\"\n[databases.app]\n{shards}{SETTINGS}{more}")
}

/// A client of one of the server's databases.
pub fn direct(fleet: &LocalFleet, database: &str) -> RawClient {
    RawClient::log_in(fleet.primary().port(), "app", fleet.app_password().reveal(), database).unwrap()
}

/// What came of the statements of one form.
#[derive(Default)]
struct Tally {
    asked: usize,
    answered: usize,
    by_coordinator: usize,
    refusals: BTreeMap<String, (usize, String)>,
}

struct Play {
    whole: RawClient,
    shards: RawClient,
    coordinated: Option<RawClient>,
    wrong: Vec<String>,
}

impl Play {
    fn new(through: &Through) -> Play {
        Play {
            whole: direct(&through.fleet, "app"),
            shards: through.yard.client(),
            coordinated: through.coordinated.as_ref().map(Pgyard::client),
            wrong: Vec::new(),
        }
    }

    /// Whether the answers are alike; `None`: refused.
    fn compare(&mut self, form: &str, sent: &Sent, (expect, got): (&Answer, &Answer), ordered: bool) -> Option<bool> {
        if got.refusal().is_some() && expect.error.as_ref().is_none_or(|(state, _)| state != "0A000") {
            return None;
        }
        let Some(difference) = got.difference(expect, ordered) else { return Some(true) };
        self.wrong.push(format!("{form}: {:?}: {}\n    {difference}", sent.way, sent.sql));
        Some(false)
    }

    fn read(&mut self, form: &str, case: &Case, dice: &mut Dice, tally: &mut Tally) {
        let sent = Sent::by_chance(&case.sql, dice);
        let (expect, got) = (sent.ask(&mut self.whole), sent.ask(&mut self.shards));
        tally.asked += 1;
        if self.compare(form, &sent, (&expect, &got), case.ordered).is_some() {
            tally.answered += 1;
            return;
        }
        tally.refusals.entry(got.refusal().unwrap_or_default().to_owned()).or_insert((0, sent.sql.clone())).0 += 1;
        let Some(mut coordinated) = self.coordinated.take() else { return };
        let got = sent.ask(&mut coordinated);
        self.coordinated = Some(coordinated);
        if self.compare(form, &sent, (&expect, &got), case.ordered).is_some() {
            tally.by_coordinator += 1;
        }
    }

    /// A script on both sides: each answer, and then all that the tables hold. What the shards refuse, the other side does not do.
    fn write(&mut self, form: &str, script: &[String], dice: &mut Dice, tally: &mut Tally) {
        let mut statements = Vec::new();
        for sql in script {
            // A portal of its own transaction can't be inside another.
            let sent = Sent::by_chance(sql, dice);
            let plain = script.len() > 1 && sent.way == Way::Fetched || sql.contains("; ");
            statements.push(if plain { Sent::new(sql, Way::Simple, Given::Literals) } else { sent });
        }
        tally.asked += 1;
        let mut open = false;
        for sent in &statements {
            let got = sent.ask(&mut self.shards);
            if let Some(reason) = got.refusal() {
                tally.refusals.entry(reason.to_owned()).or_insert((0, sent.sql.clone())).0 += 1;
                if open || got.status != 'I' {
                    for client in [&mut self.whole, &mut self.shards] {
                        run(client, "ROLLBACK").unwrap();
                    }
                }
                return;
            }
            let expect = sent.ask(&mut self.whole);
            open = got.status != 'I';
            // RETURNING of VALUES has their order; any other has none, and of several statements it isn't known whose a row is.
            let unordered = ["SELECT", "CONFLICT", "UPDATE", "DELETE"].iter().any(|word| sent.sql.contains(word));
            let ordered = sent.sql.contains("INSERT") && !unordered;
            self.compare(form, sent, (&expect, &got), ordered);
        }
        tally.answered += 1;
    }
}

/// What the tables hold on the shards, against what they should, and whether each row is on its shard.
fn compare_tables(play: &mut Play, shards: &mut [RawClient], after: &str) {
    for (table, hash, key) in WRITTEN {
        let select = format!("SELECT * FROM {table}");
        let mut expect = run(&mut play.whole, &select).unwrap().rows;
        expect.sort();
        let mut got = Vec::new();
        for (number, shard) in shards.iter_mut().enumerate() {
            let mut rows = run(shard, &select).unwrap().rows;
            rows.sort();
            if *table == "countries" && rows != expect {
                play.wrong.push(format!("{table} on {} after {after}", SHARDS[number]));
            }
            got.extend(rows);
            if !hash.is_empty() {
                let own = format!("satisfies_hash_partition('{hash}'::regclass, 3, {number}, {key})");
                let strangers = shard.column(&format!("SELECT count(*) FROM {table} WHERE NOT {own}")).unwrap();
                if strangers != ["0"] {
                    play.wrong.push(format!("{} rows of {table} are on {} after {after}", strangers[0], SHARDS[number]));
                }
            }
        }
        got.sort();
        if *table != "countries" && got != expect {
            play.wrong.push(format!("{table}: {} rows instead of {} after {after}", got.len(), expect.len()));
        }
    }
}

/// A way that leads from what was said to what the run was.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn pgyard_answers_over_shards_as_one_database() {
    let cases = number("PGYARD_SHARDS_CASES").map_or(CASES, |cases| usize::try_from(cases).unwrap());
    let seed = number("PGYARD_SHARDS_SEED").unwrap_or(SEED);
    let only = std::env::var("PGYARD_SHARDS_FORM").unwrap_or_default();
    let through = Through::start(true);
    let mut play = Play::new(&through);
    let mut tallies: Vec<(&str, Tally)> = Vec::new();
    for (form, make) in FORMS.iter().chain(KIND_FORMS).filter(|(form, _)| form.contains(&only)) {
        let (mut dice, mut tally) = (Dice(seed), Tally::default());
        for _ in 0..cases {
            let case = make(&mut dice);
            play.read(form, &case, &mut dice, &mut tally);
        }
        tallies.push((form, tally));
    }
    let mut shards: Vec<RawClient> = SHARDS.iter().map(|shard| direct(&through.fleet, shard)).collect();
    let mut scripts = 0;
    for (form, make) in WRITE_FORMS.iter().filter(|(form, _)| form.contains(&only)) {
        let (mut dice, mut tally) = (Dice(seed), Tally::default());
        for _ in 0..cases {
            scripts += 1;
            // What differs once differs ever after.
            if !play.wrong.is_empty() {
                break;
            }
            let script = make(&mut dice, scripts);
            play.write(form, &script, &mut dice, &mut tally);
            if scripts % 4 == 0 {
                compare_tables(&mut play, &mut shards, &format!("{form}: {}", script.join("; ")));
            }
        }
        tallies.push((form, tally));
    }
    report(&tallies, seed);
    assert!(play.wrong.is_empty(), "{} wrong answers, seed {seed}:\n{}", play.wrong.len(), play.wrong.join("\n"));
    for (form, tally) in &tallies {
        assert!(tally.answered * 5 >= tally.asked * 4, "{form}: {} of {}", tally.answered, tally.asked);
        if FORMS.iter().chain(KIND_FORMS).any(|(name, _)| name == form) {
            assert_eq!(tally.answered + tally.by_coordinator, tally.asked, "{form}: with a coordinator");
        }
    }
}

fn report(tallies: &[(&str, Tally)], seed: u64) {
    let mut all = (0, 0);
    for (form, tally) in tallies {
        let Tally { asked, answered, by_coordinator, refusals } = tally;
        all = (all.0 + asked, all.1 + answered);
        println!("{form}: {answered} of {asked} by the shards, {by_coordinator} by the coordinator (seed {seed})");
        for (reason, (count, sql)) in refusals {
            println!("    {count} refused: {reason}: {sql}");
        }
    }
    println!("{} of {} statements answered without a coordinator (seed {seed})", all.1, all.0);
}
