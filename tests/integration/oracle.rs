//! The oracle: PostgreSQL itself says what the right answer is, byte for byte.
//!
//! Scripts of messages run directly and through pgyard, in both pool modes, with reads on replicas; the answers have to be the
//! same. What lawfully differs is masked by the rules in `mask`. `PGYARD_ORACLE=text` plays only the scripts whose title contains
//! the text, and prints what was compared; `PGYARD_ORACLE_FILE=path` plays the scripts of a file of one's own.

mod grammar;
mod mask;
mod play;
mod script;

use super::harness::{Pgyard, RawClient, eventually, shared_fleet};
use pgyard::demo::LocalHost;
use play::{Place, Played, difference, play};
use script::{Modes, Script};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Server connections behind pgyard that a script may ask for.
const POOLS: std::ops::RangeInclusive<usize> = 1..=4;

const FILES: &[(&str, &str)] = &[
    ("simple", include_str!("oracle/scripts/simple.txt")),
    ("extended", include_str!("oracle/scripts/extended.txt")),
    ("portals", include_str!("oracle/scripts/portals.txt")),
    ("prepared", include_str!("oracle/scripts/prepared.txt")),
    ("copy", include_str!("oracle/scripts/copy.txt")),
    ("settings", include_str!("oracle/scripts/settings.txt")),
    ("bound", include_str!("oracle/scripts/bound.txt")),
    ("transactions", include_str!("oracle/scripts/transactions.txt")),
    ("values", include_str!("oracle/scripts/values.txt")),
    ("connections", include_str!("oracle/scripts/connections.txt")),
];

/// The servers, pgyard in front of them, and a superuser who puts things right between scripts.
struct Stage {
    yard: Pgyard,
    direct: Place,
    janitor: Mutex<Vec<RawClient>>,
    /// Scripts share tables: one test at a time.
    turn: Mutex<()>,
}

fn stage() -> &'static Stage {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    STAGE.get_or_init(Stage::new)
}

impl Stage {
    fn new() -> Stage {
        let fleet = shared_fleet();
        let password = fleet.superuser_password().reveal();
        let superuser = |port, database| RawClient::log_in(port, pgyard::demo::SUPERUSER, password, database).unwrap();
        superuser(fleet.primary().port(), "postgres").column("CREATE DATABASE oracle").unwrap();
        let mut janitor = superuser(fleet.primary().port(), "oracle");
        janitor.column(include_str!("oracle/fixture.sql")).unwrap();
        let fresh = janitor.column("CREATE TABLE first_fresh (); SELECT 'first_fresh'::regclass::oid").unwrap();
        let mut janitors = vec![janitor];
        for replica in fleet.replicas() {
            fleet.wait_for_replay(fleet.primary(), replica).unwrap();
            janitors.push(superuser(replica.port(), "oracle"));
        }
        let direct = Place {
            port: fleet.primary().port(),
            database: "oracle".to_owned(),
            first_fresh_oid: fresh.last().unwrap().parse().unwrap(),
        };
        let yard = Pgyard::start_with_config(fleet, &config());
        let stage = Stage { yard, direct, janitor: Mutex::new(janitors), turn: Mutex::default() };
        for mode in ["transaction", "session"] {
            for pool in POOLS {
                stage.wait_for_replicas(&stage.through(mode, pool));
            }
        }
        stage
    }

    fn through(&self, mode: &str, pool: usize) -> Place {
        Place { port: self.yard.port(), database: format!("{mode}{pool}"), ..self.direct.clone() }
    }

    /// A session under session pooling has the primary; there this only waits for the database to be there.
    fn wait_for_replicas(&self, place: &Place) {
        let script = script::read("stage", "=== reads\n0: Q select current_setting('cluster_name')");
        eventually(&format!("reads in {}", place.database), Duration::from_secs(30), || {
            let answer = format!("{:?}", play(place, &script[0]));
            !answer.contains("Silence")
                && (place.database.starts_with("session") || answer.contains(&format!("{:?}", b"replica1")[1..20]))
        });
    }

    /// Puts the fixture right, on all hosts.
    fn reset(&self) {
        let mut hosts = self.janitor.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (primary, replicas) = hosts.split_first_mut().unwrap();
        for gid in primary.column("SELECT gid FROM pg_prepared_xacts WHERE database = 'oracle'").unwrap() {
            primary.column(&format!("ROLLBACK PREPARED '{gid}'")).unwrap();
        }
        let position = primary.column("CALL oracle_reset(); SELECT pg_current_wal_insert_lsn()").unwrap().remove(0);
        let question = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'");
        for replica in replicas {
            eventually("replay", Duration::from_secs(30), || replica.column(&question).unwrap() == ["t"]);
        }
    }

    fn direct(&self, script: &Script) -> Vec<Played> {
        if script.may_write() {
            self.reset();
        }
        play(&self.direct, script)
    }

    /// Runs the script in a mode and compares; `None` if the answers are the same.
    fn compare(&self, script: &Script, direct: &[Played], mode: &str) -> Option<String> {
        let pool = if mode == "session" && !script.alone {
            script.pool.unwrap_or(0).max(script.sessions())
        } else {
            script.pool.unwrap_or(1)
        };
        if script.may_write() {
            self.reset();
        }
        difference(direct, &play(&self.through(mode, pool), script))
    }
}

fn config() -> String {
    let fleet = shared_fleet();
    let url = |host: &LocalHost| host.superuser_url().replace("/app", "/oracle");
    let replicas: Vec<String> = fleet.replicas().iter().map(|replica| format!("'{}'", url(replica))).collect();
    let mut text = "listen = '{listen}'\nhttp = '{http}'\n".to_owned();
    for mode in ["transaction", "session"] {
        for pool in POOLS {
            text.push_str(&format!(
                "[databases.{mode}{pool}]\nprimary = '{}'\nreplicas = [{}]\npool_mode = '{mode}'\n\
                 pool_size = {pool}\nconsistency = 'global'\n",
                url(fleet.primary()),
                replicas.join(", ")
            ));
        }
    }
    text
}

fn scripts() -> Vec<Script> {
    if let Some(path) = std::env::var_os("PGYARD_ORACLE_FILE") {
        return script::read("file", &std::fs::read_to_string(path).unwrap());
    }
    let mut scripts: Vec<Script> = FILES.iter().flat_map(|(name, text)| script::read(name, text)).collect();
    // Behind a change of the catalogue everything goes to the primary for a moment: such scripts come last.
    scripts.sort_by_key(Script::changes_catalogue);
    scripts
}

#[test]
fn every_script_gets_the_answers_that_postgresql_gives() {
    let stage = stage();
    let _turn = stage.turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let begin = Instant::now();
    let wanted = std::env::var("PGYARD_ORACLE").unwrap_or_default();
    let both = Modes { transaction: true, session: true };
    let mut problems = Vec::new();
    let (mut played, mut stalled) = (0, 0);
    for script in scripts().iter().filter(|script| script.title.contains(&wanted)) {
        let direct = stage.direct(script);
        if !wanted.is_empty() {
            println!("{}\n{}", script.title, play::transcript(&direct));
        }
        let runs = script.only.unwrap_or(both);
        for (mode, runs, differs) in
            [("transaction", runs.transaction, script.differs.transaction), ("session", runs.session, script.differs.session)]
        {
            if !runs {
                continue;
            }
            played += 1;
            match stage.compare(script, &direct, mode) {
                None if differs => problems.push(format!("{}, {mode}: marked as differing, but does not", script.title)),
                Some(difference) if !differs => {
                    stalled += usize::from(difference.contains("silence: "));
                    problems.push(format!("{}, {mode}:\n{difference}", script.title));
                }
                _ => {}
            }
        }
        assert!(stalled < 40, "too many stalls:\n{}", problems.join("\n"));
    }
    assert!(problems.is_empty(), "{} of {played} differ:\n{}", problems.len(), problems.join("\n"));
    let labels = [("database", "transaction1"), ("route", "replica"), ("reason", "read")];
    let reads = stage.yard.metric("pgyard_queries_total", &labels).unwrap_or(0.0);
    println!("{played} runs in {:?}, {reads} requests of database transaction1 on replicas", begin.elapsed());
    assert!(
        reads > 100.0 || !wanted.is_empty() || std::env::var_os("PGYARD_ORACLE_FILE").is_some(),
        "only {reads} requests went to replicas"
    );
}

/// How many scripts of chance a run plays in each mode, and from which seed on: more by `PGYARD_ORACLE_CASES`, one again by
/// `PGYARD_ORACLE_SEED=7 PGYARD_ORACLE_CASES=1`.
const CASES: u64 = 30;

#[test]
fn messages_in_any_order_get_the_answers_that_postgresql_gives() {
    let stage = stage();
    let _turn = stage.turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, cases) = (number("PGYARD_ORACLE_SEED").unwrap_or(0), number("PGYARD_ORACLE_CASES").unwrap_or(CASES));
    let mut problems = Vec::new();
    for seed in first..first + cases {
        let script = grammar::script(seed);
        let direct = stage.direct(&script);
        for mode in ["transaction", "session"] {
            let Some(difference) = stage.compare(&script, &direct, mode) else { continue };
            println!("PGYARD_ORACLE_SEED={seed}, {mode}:\n{}\n{difference}", grammar::text(&script));
            let mut last = difference;
            let smallest = grammar::shrink(&grammar::text(&script), |script| {
                let direct = stage.direct(script);
                let found = stage.compare(script, &direct, mode);
                found.is_some_and(|difference| {
                    last = difference;
                    true
                })
            });
            problems.push(format!("PGYARD_ORACLE_SEED={seed}, {mode}:\n{smallest}\n{last}"));
        }
        assert!(problems.len() < 8, "{}", problems.join("\n"));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
