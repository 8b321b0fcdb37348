//! Where statements ran, judged from what the servers themselves logged.
//!
//! A statement that is to be found begins with a comment, `/*mark:NAME*/`.

use pgyard::demo::LocalFleet;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What one server did with a marked statement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// It began to execute it.
    Executed,
    /// It answered it with an error, perhaps before executing it.
    Failed,
}

/// Per mark, the deeds by host name.
pub type Deeds = BTreeMap<String, BTreeSet<(String, Deed)>>;

/// The comment to put before a statement.
pub fn mark(name: &str) -> String {
    format!("/*mark:{name}*/ ")
}

/// Everything that the fleet's hosts logged of statements whose marks begin with `prefix`.
pub fn deeds(fleet: &LocalFleet, prefix: &str) -> Deeds {
    let mut found = Deeds::new();
    for host in fleet.hosts() {
        let log = std::fs::read(host.log_path()).unwrap();
        for line in String::from_utf8_lossy(&log).lines() {
            let Some((before, name)) = marked(line) else { continue };
            if !name.starts_with(prefix) {
                continue;
            }
            let deed = if before.contains("LOG:  statement: ") || before.contains("LOG:  execute ") {
                Deed::Executed
            } else if before.contains("STATEMENT:  ") {
                Deed::Failed
            } else {
                continue;
            };
            found.entry(name.to_owned()).or_default().insert((host.name().to_owned(), deed));
        }
    }
    found
}

/// The hosts that executed a statement; waits a moment for their logs.
pub fn executed_on(fleet: &LocalFleet, name: &str) -> Vec<String> {
    let mut hosts = Vec::new();
    super::eventually(&format!("{name} in a log"), Duration::from_secs(5), || {
        hosts = deeds(fleet, name).remove(name).into_iter().flatten().map(|(host, _)| host).collect();
        !hosts.is_empty()
    });
    hosts.dedup();
    hosts
}

fn marked(line: &str) -> Option<(&str, &str)> {
    let (before, rest) = line.split_once("/*mark:")?;
    Some((before, rest.split_once("*/")?.0))
}
