//! What a reload changes. Never prints a secret.

use super::settings::Settings;
use super::show::{Shown, flatten};
use std::collections::{HashMap, HashSet};

/// What differs between two configurations, one line for each difference, such as `databases.app.max_lag: 1s -> 2s`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadPlan {
    /// What the reload applies.
    pub changed: Vec<String>,
    /// What stays as it is until pgyard is started again.
    pub needs_restart: Vec<String>,
}

impl ReloadPlan {
    /// Whether the configurations are the same.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.needs_restart.is_empty()
    }
}

/// Compares the running settings with new ones.
pub fn diff(old: &Settings, new: &Settings) -> ReloadPlan {
    let (old, new) = (flatten(old), flatten(new));
    let mut plan = ReloadPlan::default();
    let old_values: HashMap<&str, &Shown> = old.iter().map(|shown| (shown.key.as_str(), shown)).collect();
    let (old_owners, new_owners) = (owners(&old), owners(&new));
    for owner in in_order(&old).filter(|owner| !new_owners.contains(owner) && !inside_missing(owner, &new_owners, &old_owners)) {
        plan.changed.push(format!("{owner}: removed"));
    }
    for owner in in_order(&new).filter(|owner| !old_owners.contains(owner) && !inside_missing(owner, &old_owners, &new_owners)) {
        plan.changed.push(format!("{owner}: added"));
    }
    for shown in &new {
        let Some(before) = old_values.get(shown.key.as_str()) else { continue };
        let line = if before.value != shown.value {
            format!("{}: {} -> {}", shown.key, before.value, shown.value)
        } else if before.secret != shown.secret {
            format!("{}: changed", shown.key)
        } else {
            continue;
        };
        if shown.reload { plan.changed.push(line) } else { plan.needs_restart.push(line) }
    }
    plan
}

fn owners(list: &[Shown]) -> HashSet<&str> {
    list.iter().filter_map(|shown| shown.owner.as_deref()).collect()
}

fn in_order(list: &[Shown]) -> impl Iterator<Item = &str> {
    let mut seen = HashSet::new();
    list.iter().filter_map(|shown| shown.owner.as_deref()).filter(move |owner| seen.insert(*owner))
}

/// Whether an owner lies in another (a host in a database) that came or went as a whole, so that it needs no line of its own.
fn inside_missing(owner: &str, there: &HashSet<&str>, here: &HashSet<&str>) -> bool {
    here.iter().any(|outer| {
        let inside = owner
            .strip_prefix(outer)
            .is_some_and(|rest| [".hosts.", ".users.", ".shards.", ".tables."].iter().any(|part| rest.starts_with(part)));
        inside && !there.contains(outer)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn check(old: &str, new: &str, changed: &[&str], needs_restart: &[&str]) {
        let settings = |text: &str| parse(text, "test.toml", &|_| None).unwrap().settings;
        let plan = diff(&settings(old), &settings(new));
        assert_eq!((plan.changed, plan.needs_restart), (owned(changed), owned(needs_restart)), "{old} -> {new}");
    }

    fn owned(lines: &[&str]) -> Vec<String> {
        lines.iter().map(ToString::to_string).collect()
    }

    const APP: &str = "[databases.app]\nprimary = 'postgres://u:p@a/app'\n";

    #[test]
    fn says_what_changes() {
        check(APP, APP, &[], &[]);
        check(APP, &format!("{APP}max_lag = '2s'"), &["databases.app.max_lag: 1s -> 2s"], &[]);
        check(
            APP,
            &format!("listen = '127.0.0.1:7'\nworkers = 77\n{APP}").replace("workers = 77\n", ""),
            &[],
            &["listen: 127.0.0.1:6432 -> 127.0.0.1:7"],
        );
        check(
            APP,
            &format!("http = false\n[log]\nformat = 'json'\nlevel = 'debug'\n{APP}"),
            &["log.level: info -> debug"],
            &["http: 127.0.0.1:9632 -> off", "log.format: text -> json"],
        );
        check(APP, &format!("[admin.users]\nops = 'x'\n{APP}"), &["admin.users.ops: added"], &[]);
    }

    #[test]
    fn hosts_users_and_databases_come_and_go() {
        let two = format!("{APP}replicas = ['b']\n");
        check(APP, &two, &["databases.app.hosts.b:5432: added"], &[]);
        check(&two, APP, &["databases.app.hosts.b:5432: removed"], &[]);
        check(APP, &format!("{APP}[databases.app.users]\nal = 'x'"), &["databases.app.users.al: added"], &[]);
        let other = "[databases.other]\nprimary = 'postgres://u@a'\n";
        check(APP, &format!("{APP}{other}"), &["databases.other: added"], &[]);
        check(&format!("{APP}{other}"), APP, &["databases.other: removed"], &[]);
        check(APP, other, &["databases.app: removed", "databases.other: added"], &[]);
        let weight = format!("{APP}balance = 'weighted'\nreplicas = [{{ host = 'b', weight = 3 }}]\n");
        let heavier = weight.replace("weight = 3", "weight = 4");
        check(&weight, &heavier, &["databases.app.hosts.b:5432.weight: 3 -> 4"], &[]);
    }

    #[test]
    fn secrets_are_compared_but_not_shown() {
        check(APP, &APP.replace(":p@", ":q@"), &["databases.app.hosts.a:5432.password: changed"], &[]);
        check(APP, &APP.replace(":p@", "@"), &["databases.app.hosts.a:5432.password: *** -> none"], &[]);
    }
}
