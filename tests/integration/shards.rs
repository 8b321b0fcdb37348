//! Plans over shards: one database with all rows says what the right answer is.
//!
//! A statement's plan is run over three databases that share the rows out, and the answer has to be that of the whole, or a refusal.
//! `PGYARD_SHARDS_CASES=1000` makes as many statements of each form, `PGYARD_SHARDS_SEED=7` others.

mod execute;
mod generate;
mod kinds;
mod named;
mod names;
mod stage;
mod through;
mod wire;
mod writes;

use execute::{Outcome, with_literals};
use generate::{Case, Dice, FORMS};
use stage::{Stage, run};
use std::collections::BTreeMap;

/// Statements of each form that a run makes.
const CASES: usize = 12;
const SEED: u64 = 1;

/// What the comparison of one statement says.
enum Verdict {
    Same(&'static str),
    Refused(String),
    Wrong(String),
}

fn judge(stage: &mut Stage, case: &Case, parameters: &[Option<&str>]) -> Verdict {
    let expect = run(&mut stage.whole, &with_literals(&case.sql, parameters));
    let outcome = stage.execute(&case.sql, parameters);
    let plan = || format!("{:?}", stage.plan(&case.sql));
    match (expect, outcome) {
        (_, Outcome::Refused(reason)) => Verdict::Refused(reason),
        (Err(_), Outcome::Failed(_)) => Verdict::Same("error"),
        (Ok(expect), Outcome::Answer(mut got, how)) => {
            let mut wanted = expect.rows;
            if !case.ordered {
                wanted.sort();
                got.rows.sort();
            }
            let oids = |types: &[(u32, i32)]| types.iter().map(|(oid, _)| *oid).collect::<Vec<_>>();
            if wanted != got.rows || oids(&expect.types) != oids(&got.types) {
                return Verdict::Wrong(format!(
                    "{}\n  by {how}, {} rows for {}: {:?} ...\n  instead of {:?} ...\n  types {:?}, {:?}\n  {}",
                    case.sql,
                    got.rows.len(),
                    wanted.len(),
                    got.rows.iter().find(|row| !wanted.contains(row)),
                    wanted.iter().find(|row| !got.rows.contains(row)),
                    got.types,
                    expect.types,
                    plan()
                ));
            }
            Verdict::Same(how)
        }
        (Err(error), Outcome::Answer(..)) => {
            Verdict::Wrong(format!("{}\n  answered; PostgreSQL says {error}\n  {}", case.sql, plan()))
        }
        (Ok(_), Outcome::Failed(error)) => Verdict::Wrong(format!("{}\n  failed: {error}\n  {}", case.sql, plan())),
    }
}

#[test]
fn answers_over_shards_are_those_of_one_database() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let cases = number("PGYARD_SHARDS_CASES").map_or(CASES, |cases| usize::try_from(cases).unwrap());
    let seed = number("PGYARD_SHARDS_SEED").unwrap_or(SEED);
    let mut stage = Stage::new("plan");
    let mut wrong = Vec::new();
    let mut poor = Vec::new();
    for (form, make) in FORMS {
        let mut dice = Dice(seed);
        let mut ways: BTreeMap<&str, usize> = BTreeMap::new();
        let mut refusals: BTreeMap<String, (usize, String)> = BTreeMap::new();
        for _ in 0..cases {
            let case = make(&mut dice);
            match judge(&mut stage, &case, &[]) {
                Verdict::Same(how) => *ways.entry(how).or_default() += 1,
                Verdict::Refused(reason) => refusals.entry(reason).or_insert((0, case.sql)).0 += 1,
                Verdict::Wrong(text) => wrong.push(format!("{form}: {text}")),
            }
        }
        let answered: usize = ways.values().sum();
        println!("{form}: {answered} of {cases} answered (seed {seed}): {ways:?}");
        for (reason, (count, sql)) in refusals {
            println!("    {count} refused: {reason}: {sql}");
        }
        if answered * 5 < cases * 4 {
            poor.push(*form);
        }
    }
    assert!(wrong.is_empty(), "{} wrong answers, seed {seed}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(poor.is_empty(), "answered less than 80 %: {poor:?}");
}
