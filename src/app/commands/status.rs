//! `pgyard status`: hosts, roles, lag, pools and clients of a running pgyard, for people.

use super::aligned::aligned;
use super::connection::{CommandError, ConsoleConnection, value, with_console};
use super::{complain, say};
use crate::app::arguments::StatusArguments;
use crate::config::format_duration;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;
use tokio_postgres::SimpleQueryRow;

/// Prints how a running pgyard is; fails if none answers, or if a database has no host in use.
pub fn run(arguments: &StatusArguments) -> ExitCode {
    let report = with_console(&arguments.target, async |console| Report::read(&console).await);
    match report {
        Ok(report) => {
            say(&report.text);
            if report.without_host.is_empty() {
                return ExitCode::SUCCESS;
            }
            complain(&format!("not ready: no host is in use for {}", report.without_host.join(", ")));
            ExitCode::FAILURE
        }
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

struct Report {
    text: String,
    /// Databases that nobody can use.
    without_host: Vec<String>,
}

impl Report {
    async fn read(console: &ConsoleConnection) -> Result<Report, CommandError> {
        let version = console.rows("SHOW VERSION").await?;
        let hosts = console.rows("SHOW HOSTS").await?;
        let pools = console.rows("SHOW POOLS").await?;
        let clients = console.rows("SHOW CLIENTS").await?;
        let databases = console.rows("SHOW DATABASES").await?;
        let paused = databases.iter().filter(|row| value(row, "paused") == "1").map(|row| value(row, "name"));
        let paused: Vec<&str> = paused.collect();
        let mut parts = vec![headline(version.first(), &console.address), format!("Hosts\n{}", host_table(&hosts))];
        if !pools.is_empty() {
            parts.push(format!("Pools\n{}", pool_table(&pools)));
        }
        if !clients.is_empty() {
            parts.push(format!("Clients\n{}", client_table(&clients)));
        }
        if !paused.is_empty() {
            parts.push(format!("Paused: {}", paused.join(", ")));
        }
        let usable = hosts.iter().map(|row| (value(row, "database"), value(row, "standing") == "eligible"));
        Ok(Report { text: parts.join("\n\n"), without_host: without_host(usable) })
    }
}

/// Databases of which no host is in use.
fn without_host<'a>(hosts: impl Iterator<Item = (&'a str, bool)>) -> Vec<String> {
    let mut in_use: BTreeMap<&str, bool> = BTreeMap::new();
    for (database, eligible) in hosts {
        *in_use.entry(database).or_default() |= eligible;
    }
    in_use.into_iter().filter(|(_, any)| !any).map(|(database, _)| format!("database {database}")).collect()
}

fn headline(version: Option<&SimpleQueryRow>, address: &str) -> String {
    let Some(row) = version else { return format!("pgyard at {address}") };
    let uptime = value(row, "uptime_seconds")
        .parse()
        .map_or_else(|_| "?".to_owned(), |seconds| format_duration(Duration::from_secs(seconds)));
    format!("{} at {address}, up {uptime}, {} clients", value(row, "version"), value(row, "clients"))
}

fn host_table(hosts: &[SimpleQueryRow]) -> String {
    let rows: Vec<Vec<String>> = hosts
        .iter()
        .map(|row| {
            let state = match (value(row, "standing"), value(row, "reason")) {
                ("eligible", reason) => reason.to_owned(),
                (_, reason) => format!("OUT: {reason}"),
            };
            let plain = |column: &str| value(row, column).to_owned();
            vec![
                plain("database"),
                plain("host"),
                plain("address"),
                plain("role"),
                state,
                dash(value(row, "lag_ms")),
                dash(value(row, "lag_bytes")),
                dash(value(row, "lsn")),
                plain("in_flight"),
                dash(value(row, "probe_ms")),
            ]
        })
        .collect();
    aligned(&["database", "host", "address", "role", "state", "lag ms", "lag bytes", "position", "in flight", "probe ms"], &rows)
}

fn pool_table(pools: &[SimpleQueryRow]) -> String {
    let columns = ["database", "user", "host", "sv_active", "sv_idle", "cl_waiting", "pool_size", "pool_mode"];
    let rows: Vec<Vec<String>> =
        pools.iter().map(|row| columns.iter().map(|column| value(row, column).to_owned()).collect()).collect();
    aligned(&["database", "user", "host", "in use", "idle", "waiting", "size", "mode"], &rows)
}

/// How many clients a database has, and what they do.
fn client_table(clients: &[SimpleQueryRow]) -> String {
    let mut counts: BTreeMap<(&str, &str), [usize; 5]> = BTreeMap::new();
    for row in clients {
        let count = counts.entry((value(row, "database"), value(row, "user"))).or_default();
        count[0] += 1;
        match value(row, "state") {
            "active" => count[1] += 1,
            "waiting" => count[2] += 1,
            "idle in transaction" => count[3] += 1,
            _ => {}
        }
        count[4] += usize::from(!value(row, "pins").is_empty());
    }
    let line = |((database, user), counts): ((&str, &str), [usize; 5])| {
        let mut line = vec![database.to_owned(), user.to_owned()];
        line.extend(counts.iter().map(ToString::to_string));
        line
    };
    let rows: Vec<Vec<String>> = counts.into_iter().map(line).collect();
    aligned(&["database", "user", "connected", "active", "waiting", "in transaction", "pinned"], &rows)
}

fn dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_usable_with_one_host() {
        let check =
            |hosts: &[(&str, bool)], expect: &[&str]| assert_eq!(without_host(hosts.iter().copied()), expect, "{hosts:?}");
        check(&[], &[]);
        check(&[("a", true), ("a", false)], &[]);
        check(&[("a", false), ("b", true), ("a", false)], &["database a"]);
    }
}
