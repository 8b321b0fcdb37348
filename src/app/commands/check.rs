//! `pgyard check`: what is wrong with a file, or how it was understood.

use super::{outcome, say};
use crate::app::arguments::CheckArguments;
use crate::config::{
    self, AuthMethod, DatabaseSettings, HostSettings, NamedChoice, ReadsOnPrimary, RoleSetting, Settings, ShardingSettings,
    format_duration, format_size,
};
use crate::inspection::{Gravity, inspect};
use crate::shard::{Scheme, TablePlace};
use std::collections::BTreeSet;
use std::process::ExitCode;

/// Checks a configuration file as a start would read it.
pub fn run(arguments: &CheckArguments) -> ExitCode {
    match config::load(&arguments.file, &|name| std::env::var(name).ok()) {
        Ok(loaded) => {
            loaded.warnings.iter().for_each(|warning| eprintln!("{warning}\n"));
            say(&summary(&loaded.settings));
            let count = loaded.warnings.len();
            let warnings = match count {
                0 => String::new(),
                1 => " (1 warning)".to_owned(),
                _ => format!(" ({count} warnings)"),
            };
            say(&format!("OK: {} can be used{warnings}", arguments.file.display()));
            if arguments.live { look(&loaded.settings) } else { ExitCode::SUCCESS }
        }
        Err(report) => {
            eprintln!("{report}");
            ExitCode::FAILURE
        }
    }
}

/// Looks at the servers of every database, and says what is not as it should be.
fn look(settings: &Settings) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return outcome(Err::<String, _>(error)),
    };
    let (mut problems, mut warnings) = (0, 0);
    for database in &settings.databases {
        let inspection = runtime.block_on(inspect(database));
        say(&format!("\ndatabase {} on its servers", database.name));
        inspection.lines().iter().for_each(|line| say(line));
        problems += inspection.count(Gravity::Problem);
        warnings += inspection.count(Gravity::Warning);
    }
    say(&format!("\n{}", verdict(problems, warnings)));
    if problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn verdict(problems: usize, warnings: usize) -> String {
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    match problems {
        0 => format!("OK: the servers are as the settings say ({})", count(warnings, "warning")),
        _ => format!("{} and {}: see above", count(problems, "problem"), count(warnings, "warning")),
    }
}

/// What the settings mean, in sentences.
fn summary(settings: &Settings) -> String {
    let listen: Vec<String> = settings.listen.iter().map(ToString::to_string).collect();
    let http = settings.http.map_or("nowhere".to_owned(), |address| format!("http://{address}"));
    let tls = match &settings.tls {
        None => "not offered",
        Some(tls) if tls.required => "required",
        Some(_) => "offered",
    };
    let admins = match settings.admin.users.as_slice() {
        [] => "user pgyard from this machine, without a password".to_owned(),
        users => users.iter().map(|user| user.name.as_str()).collect::<Vec<_>>().join(", "),
    };
    let mut lines = vec![
        format!("clients connect to {} (TLS {tls}); {} worker threads", listen.join(", "), settings.workers),
        format!("who may come: {}", who_may_come(settings)),
        format!("metrics and health: {http}"),
        format!("console (database pgyard): {admins}"),
    ];
    for database in &settings.databases {
        lines.push(String::new());
        lines.extend(database_lines(database));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn who_may_come(settings: &Settings) -> String {
    match settings.front.access.as_slice() {
        [] => "whoever can log in (no access list)".to_owned(),
        rules => {
            let lines = rules.iter().enumerate().map(|(index, rule)| format!("\n  {}. {rule}", index + 1));
            format!("the first of these rules that matches decides, and none is a refusal{}", lines.collect::<String>())
        }
    }
}

fn database_lines(database: &DatabaseSettings) -> Vec<String> {
    let name = match (database.name.as_str(), &database.server_name) {
        ("*", None) => "any other database, by the name that clients use".to_owned(),
        ("*", Some(server)) => format!("any other database: always \"{server}\" on the servers"),
        (name, Some(server)) if name != server => format!("database {name}: \"{server}\" on the servers"),
        (name, _) => format!("database {name}"),
    };
    let mut lines = vec![name];
    lines.extend(host_lines(database, "  "));
    if let Some(sharding) = &database.sharding {
        lines.extend(sharding_lines(sharding));
    }
    lines.push(format!("  reads: {}", reads(database)));
    let pool = &database.pool;
    lines.push(format!(
        "  pools: {} connections per host and role, {} per host, {} mode; a client waits at most {}",
        pool.size,
        pool.max_per_host,
        pool.mode.name(),
        format_duration(pool.checkout_timeout)
    ));
    lines.push(format!("  clients: {}", clients(database)));
    lines
}

fn host_lines(database: &DatabaseSettings, indent: &str) -> Vec<String> {
    let line = |host: &HostSettings| {
        let role = match host.role {
            RoleSetting::Auto => "primary or replica: found out by asking it",
            RoleSetting::Primary => "always taken as the primary",
            RoleSetting::Replica => "never written to",
        };
        let weight = if host.weight == 1 { String::new() } else { format!(", weight {}", host.weight) };
        let at = format!("{}:{}", host.address, host.port);
        let place = if at == host.name { String::new() } else { format!(" at {at}") };
        format!("{indent}host {}{place}, {role}{weight}, probed as {}", host.name, host.control.user)
    };
    database.hosts.iter().map(line).collect()
}

/// The shards, and which tables are where.
fn sharding_lines(sharding: &ShardingSettings) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, shard) in sharding.map.shards.iter().zip(&sharding.shards) {
        lines.push(format!("  shard {name}: \"{}\" on the servers", shard.server_name.as_deref().unwrap_or_default()));
        lines.extend(host_lines(shard, "    "));
    }
    let places = sharding.table_places();
    for (place, tables) in &places {
        lines.push(format!("  {place}: {}", tables.join(", ")));
    }
    lines.extend(ring_lines(sharding));
    lines.push(match &sharding.map.unlisted {
        None => "  statements that name any other table are refused".to_owned(),
        Some(place) => format!("  any other table: {}", sharding.describe_place(place)),
    });
    lines.push(format!("  a statement holds at most {} of the shards' rows", format_size(sharding.gather_memory as u64)));
    lines
}

/// What each shard has of the keys on a ring, and what would move if one more joined.
fn ring_lines(sharding: &ShardingSettings) -> BTreeSet<String> {
    let describe = |place: &TablePlace| {
        let TablePlace::Sharded(table) = place else { return None };
        let Scheme::Ring(ring) = &table.scheme else { return None };
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let shares = ring.shares(sharding.map.shards.len());
        let shares: Vec<String> =
            sharding.map.shards.iter().zip(shares).map(|(name, share)| format!("{name} {}", percent(share))).collect();
        let moved = percent(ring.moved(&ring.joined_by("one more", 1)));
        let key = table.key.join(", ");
        Some(format!(
            "    keys by {key} on the ring: {}; one more shard of weight 1 would take {moved}, and no other key would move",
            shares.join(", ")
        ))
    };
    sharding.map.tables.values().filter_map(describe).collect()
}

fn reads(database: &DatabaseSettings) -> String {
    let routing = &database.routing;
    if !routing.split {
        return "from the primary, as everything (split is off)".to_owned();
    }
    if database.hosts.len() == 1 {
        return "from the one host, as everything".to_owned();
    }
    if let Some(sharding) = &database.sharding
        && sharding.shards.iter().all(|shard| shard.hosts.len() == 1)
    {
        return "from each shard's one host, as everything".to_owned();
    }
    let lag = match (database.health.max_lag, database.health.max_lag_bytes) {
        (None, None) => "however far behind".to_owned(),
        (Some(time), None) => format!("at most {} behind", format_duration(time)),
        (None, Some(bytes)) => format!("at most {} behind", format_size(bytes)),
        (Some(time), Some(bytes)) => format!("at most {} and {} behind", format_duration(time), format_size(bytes)),
    };
    let primary = match routing.reads_on_primary {
        ReadsOnPrimary::Fallback => "from the primary if there is none",
        ReadsOnPrimary::Always => "and from the primary",
        ReadsOnPrimary::Never => "never from the primary",
    };
    let (balance, consistency) = (routing.balance.name(), routing.consistency.name());
    format!("from replicas {lag} ({balance}), {primary}; consistency {consistency}")
}

fn clients(database: &DatabaseSettings) -> String {
    let listed: Vec<&str> = database.users.iter().filter(|user| user.secret.is_some()).map(|user| user.name.as_str()).collect();
    let listed = if listed.is_empty() { String::new() } else { format!("{} by the configuration's secrets", listed.join(", ")) };
    if database.auth.method == AuthMethod::Trust {
        return "ANYBODY, without a password (auth method trust)".to_owned();
    }
    let looked_up = match &database.auth.lookup_query {
        Some(_) if listed.is_empty() => "any role of the primary, by its own password",
        Some(_) => "; any other role of the primary by its own password",
        None => "",
    };
    match format!("{listed}{looked_up}") {
        nobody if nobody.is_empty() => "nobody: no users are listed, and look-up is off".to_owned(),
        somebody => format!("{somebody} (method {})", database.auth.method.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict() {
        assert_eq!(verdict(0, 1), "OK: the servers are as the settings say (1 warning)");
        assert_eq!(verdict(2, 0), "2 problems and 0 warnings: see above");
    }

    #[test]
    fn a_file_is_explained() {
        let check = |text: &str, parts: &[&str]| {
            let summary = summary(&config::parse(text, "test.toml", &|_| None).unwrap().settings);
            parts.iter().for_each(|part| assert!(summary.contains(part), "{part} is not in\n{summary}"));
            assert!(!summary.contains("hunter2"), "{summary}");
        };
        let app = "[databases.app]\nprimary = 'postgres://yard:hunter2@10.0.0.1'\nreplicas = ['10.0.0.2']\n";
        check(
            app,
            &[
                "clients connect to 127.0.0.1:6432 (TLS not offered)",
                "user pgyard from this machine",
                "database app\n",
                "host 10.0.0.2:5432, ",
                "at most 1s behind (round_robin), from the primary if there is none; consistency session",
                "20 connections per host and role",
                "any role of the primary, by its own password (method auto)",
            ],
        );
        check(app, &["who may come: whoever can log in"]);
        check(
            &format!("[[access]]\naddresses = '10.0.0.0/8'\nusers = ['al', 'b*']\n{app}"),
            &["and none is a refusal\n  1. any from 10.0.0.0/8 user al,b*: auto\n"],
        );
        check(&format!("{app}split = false\n"), &["reads: from the primary, as everything"]);
        check(
            &format!(
                "{app}max_lag_bytes = '16MB'\nreads_on_primary = 'never'\ndatabase = 'other'\n[databases.app.users]\nal = 'hunter2'\n"
            ),
            &[
                "at most 1s and 16MiB behind",
                "never from the primary",
                "\"other\" on the servers",
                "al by the configuration's secrets; any other role",
            ],
        );
        check(
            &std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/sharded.toml"))
                .unwrap()
                .replace("${PGPASSWORD}", "x"),
            &[
                "database shop\n",
                "  shard s1: \"shop\" on the servers\n    host 10.0.1.1:5432, ",
                "  by customer_id, hash: billing.invoices, public.order_lines, public.orders\n",
                "  by at date, range: s0 to 2025-01-01; s1 from 2025-01-01 to 2026-01-01; s2 from 2026-01-01: public.events\n",
                "  by region text, list: s0 has \"eu\", \"uk\"; s1 has \"ca\", \"us\"; s2 has all others: public.warehouses\n",
                "keys by tenant, id on the ring: s0 2",
                "one more shard of weight 1 would take ",
                "  reference: public.countries, public.currencies\n",
                "  s0: public.audit\n",
                "statements that name any other table are refused",
                "at most 64MiB of the shards' rows",
            ],
        );
        check(
            "[databases.'*']\nprimary = 'postgres://u@a'\n[admin.users]\nops = 'hunter2'\n",
            &["any other database", "from the one host", "console (database pgyard): ops"],
        );
    }
}
