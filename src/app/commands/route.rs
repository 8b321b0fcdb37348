//! `pgyard route`: where a text would go, and why; offline by what every PostgreSQL has, or by what a running pgyard knows.

use super::connection::{CommandError, identifier, literal, value, with_console};
use super::outcome;
use crate::admin::{decide_text, plan_lines};
use crate::app::arguments::{RouteArguments, TargetArguments};
use crate::config::{self, DatabaseSettings, ShardingSettings};
use crate::inspection::definitions;
use crate::route::Target;
use crate::sql::Catalogue;
use std::process::ExitCode;
use std::sync::Arc;

const OFFLINE: &str = "\
(decided offline: your own functions, views and types are unknown, so what names them goes to the primary; with --admin URL a \
running pgyard says what it knows)";

/// Says where a statement would go.
pub fn run(arguments: &RouteArguments) -> ExitCode {
    outcome(match &arguments.admin {
        Some(_) => ask(arguments),
        None => decide_offline(arguments),
    })
}

fn ask(arguments: &RouteArguments) -> Result<String, CommandError> {
    let target = TargetArguments { admin: arguments.admin.clone(), config: None };
    with_console(&target, async |console| {
        let place = arguments.database.as_deref().map(|name| format!(" IN {}", identifier(name))).unwrap_or_default();
        let rows = console.rows(&format!("SHOW ROUTE FOR {}{place}", literal(&arguments.sql))).await?;
        let Some(row) = rows.first() else { return Err(CommandError::Refused("the console gave no answer".to_owned())) };
        let lines = value(row, "explanation").lines();
        let mut text = verdict(value(row, "route"), value(row, "reason"), value(row, "meaning"), lines);
        let (host, candidates) = (value(row, "host"), value(row, "candidates"));
        if !host.is_empty() {
            text.push_str(&format!("\nhost now: {host}"));
        }
        if candidates.contains(", ") {
            text.push_str(&format!(" (one of {candidates})"));
        }
        Ok(text)
    })
}

fn decide_offline(arguments: &RouteArguments) -> Result<String, CommandError> {
    let split = match &arguments.config {
        None => true,
        Some(file) => {
            let loaded = config::load(file, &|name| std::env::var(name).ok())?;
            let database = chosen(&loaded.settings.databases, arguments.database.as_deref())?;
            if let Some(sharding) = &database.sharding {
                return decide_over_shards(arguments, database, sharding);
            }
            database.routing.split
        }
    };
    let (need, lines) = decide_text(&arguments.sql, &Catalogue::builtin(), split, true);
    let text = verdict(route_name(need.target), need.reason.label(), need.reason.meaning(), lines.iter().map(String::as_str));
    Ok(format!("{text}\n{OFFLINE}"))
}

/// A plan over shards needs their tables: they are read from the first shard.
fn decide_over_shards(
    arguments: &RouteArguments,
    database: &DatabaseSettings,
    sharding: &ShardingSettings,
) -> Result<String, CommandError> {
    let Some(first) = sharding.shards.first() else {
        return Err(CommandError::Refused(format!("database {} has no shards", database.name)));
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let read = runtime.block_on(definitions(first));
    let (schema, catalogue) = read.map_err(|reasons| {
        CommandError::Refused(format!("a plan over shards needs the tables of the first one, which can't be read\n{reasons}"))
    })?;
    let (need, mut lines) = decide_text(&arguments.sql, &catalogue, database.routing.split, true);
    lines.extend(plan_lines(&arguments.sql, (&schema, &catalogue), &sharding.map));
    let route = route_name(need.target);
    Ok(verdict(route, need.reason.label(), need.reason.meaning(), lines.iter().map(String::as_str)))
}

fn route_name(target: Target) -> &'static str {
    match target {
        Target::Primary => "primary",
        Target::Replica => "replica",
    }
}

fn chosen<'a>(databases: &'a [Arc<DatabaseSettings>], name: Option<&str>) -> Result<&'a DatabaseSettings, CommandError> {
    let named = |wanted: &str| databases.iter().find(|database| database.name == wanted);
    let found = match (name, databases) {
        (Some(name), _) => named(name).or_else(|| named("*")),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    found.map(|database| &**database).ok_or_else(|| {
        let names: Vec<&str> = databases.iter().map(|database| database.name.as_str()).collect();
        CommandError::Refused(format!("say which database is meant with --database; there are {}", names.join(", ")))
    })
}

/// The decision on the first line, its reasons below.
fn verdict<'a>(route: &str, reason: &str, meaning: &str, lines: impl Iterator<Item = &'a str>) -> String {
    let place = if route == "replica" { "a replica" } else { "the primary" };
    let head = format!("{place} ({reason}: {})", meaning.trim_end_matches('.'));
    lines.fold(head, |text, line| format!("{text}\n  {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(sql: &str) -> String {
        decide_offline(&RouteArguments { sql: sql.to_owned(), admin: None, config: None, database: None }).unwrap()
    }

    #[test]
    fn says_where_and_why_without_a_server() {
        let check = |sql: &str, parts: &[&str]| {
            let text = route(sql);
            parts.iter().for_each(|part| assert!(text.contains(part), "{part} is not in\n{text}"));
        };
        check("select 1", &["a replica (read: ", "\n  select 1: any replica", "decided offline"]);
        check("select * from t for update", &["the primary (lock: A row or table lock)"]);
        check("listen news", &["the primary (", "pins the session"]);
        check("select 1; delete from t", &["the primary (several_statements", "one unit"]);
        check("", &["empty query"]);
    }

    #[test]
    fn a_file_with_several_databases_needs_a_name() {
        let text = "[databases.a]\nprimary = 'postgres://u@a'\n[databases.b]\nprimary = 'postgres://u@b'\nsplit = false\n";
        let settings = config::parse(text, "test.toml", &|_| None).unwrap().settings;
        assert!(chosen(&settings.databases, None).unwrap_err().to_string().contains("a, b"));
        assert!(!chosen(&settings.databases, Some("b")).unwrap().routing.split);
        assert!(chosen(&settings.databases, Some("c")).is_err());
        assert!(chosen(&settings.databases[..1], None).unwrap().routing.split);
    }
}
