//! `pgyard demo`: a local fleet from PostgreSQL's programs, and the words that introduce it. Tests use the same fleet.
//!
//! It starts servers only; pgyard itself is started in front of them by `app`.

mod error;
mod fleet;
mod host;
mod ports;
mod programs;
mod shards;
mod warden;

pub use error::FleetError;
pub use fleet::{FleetOptions, FleetProgress, LocalFleet};
pub use host::{APP_DATABASE, APP_USER, LocalHost, SUPERUSER, StopMode};
pub use ports::free_port;
pub use programs::PgPrograms;
pub use shards::{sharded_configuration, sharded_welcome_text};

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What `pgyard demo` was asked for.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// Streaming replicas. Default 2.
    pub replicas: usize,
    /// Shards, as databases of the servers; 0 (default) is a database that is not sharded.
    pub shards: usize,
    /// Where pgyard listens for clients. Default `127.0.0.1:6432`.
    pub listen: SocketAddr,
    /// Where pgyard serves metrics and health. Default `127.0.0.1:9632`.
    pub http: SocketAddr,
    /// Port of the primary, replicas follow; `None` (default) takes free ones.
    pub first_port: Option<u16>,
    /// Keeps the data when the demo ends. Default false.
    pub keep: bool,
    /// Where the data lives; a named directory is always kept. Default: a throw-away directory.
    pub directory: Option<PathBuf>,
}

impl Default for DemoOptions {
    fn default() -> Self {
        DemoOptions {
            replicas: 2,
            shards: 0,
            listen: SocketAddr::from(([127, 0, 0, 1], 6432)),
            http: SocketAddr::from(([127, 0, 0, 1], 9632)),
            first_port: None,
            keep: false,
            directory: None,
        }
    }
}

/// The demo's table: what somebody who has just arrived can read at once.
const SAMPLE: &str = "
    SET ROLE app;
    CREATE TABLE IF NOT EXISTS wagons (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, cargo text NOT NULL, track int NOT NULL);
    INSERT INTO wagons (cargo, track) SELECT cargo, track FROM
        (VALUES ('timber', 1), ('grain', 2), ('steel', 1), ('cars', 3), ('oil', 2)) AS sample (cargo, track)
        WHERE NOT EXISTS (SELECT FROM wagons);
";

/// Starts the demo's fleet with its sample table, a line on `out` for each step. Blocks for some seconds: call it where that is
/// allowed.
///
/// # Errors
/// When PostgreSQL is not installed or a server does not start; nothing is left running then.
pub fn start_fleet_with_progress(options: &DemoOptions, out: &mut dyn Write) -> Result<LocalFleet, FleetError> {
    let wanted = FleetOptions {
        replicas: options.replicas,
        directory: options.directory.clone(),
        first_port: options.first_port,
        keep: options.keep,
        settings: if options.shards > 0 { vec!["max_prepared_transactions = 64".to_owned()] } else { Vec::new() },
        ..FleetOptions::default()
    };
    // A terminal that is gone is no reason to stop: the fleet ends with us.
    let fleet = LocalFleet::start(wanted, &mut |progress| drop(writeln!(out, "  {progress}").and_then(|()| out.flush())))?;
    match options.shards {
        0 => drop(fleet.primary().sql(SAMPLE)?),
        count => shards::fill(&fleet, count)?,
    }
    Ok(fleet)
}

/// The `DATABASE_URL` for an application: pgyard's address, the application's role.
pub fn database_url(fleet: &LocalFleet, listen: SocketAddr) -> String {
    format!("postgres://{APP_USER}:{}@{}/{APP_DATABASE}", fleet.app_password().reveal(), reachable(listen))
}

/// What is printed when pgyard is in front of the fleet and ready.
pub fn welcome_text(fleet: &LocalFleet, listen: SocketAddr, http: SocketAddr) -> String {
    let end = if fleet.deletes_its_data() {
        "Ctrl-C stops everything and deletes the data.".to_owned()
    } else {
        format!("Ctrl-C stops everything; the data stays in {}.", fleet.directory().display())
    };
    words(&database_url(fleet, listen), reachable(http), &end)
}

fn words(url: &str, http: SocketAddr, end: &str) -> String {
    format!(
        "
pgyard is ready.

  DATABASE_URL  {url}
  metrics       http://{http}/metrics

Try, in another terminal:

  # each read goes to a replica, in turn
  psql '{url}' -c \"select current_setting('cluster_name'), * from wagons\"
  # a write goes to the primary, and the session reads it back at once
  psql '{url}' -c \"insert into wagons (cargo, track) values ('sand', 4)\" -c \"table wagons\"
  # how far behind each replica is
  curl -s http://{http}/metrics | grep replica_lag

{end}
"
    )
}

/// An address that a client on this machine can connect to: 0.0.0.0 is one to listen on only.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => SocketAddr::from(([127, 0, 0, 1], v4.port())),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, v6.port())),
        given => given,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_name_addresses_that_can_be_reached() {
        let check = |given: &str, expect: &str| assert_eq!(reachable(given.parse().unwrap()).to_string(), expect);
        check("0.0.0.0:6432", "127.0.0.1:6432");
        check("[::]:6432", "[::1]:6432");
        check("10.0.0.7:6432", "10.0.0.7:6432");
        let text = words("postgres://app:x@127.0.0.1:6432/app", "127.0.0.1:9632".parse().unwrap(), "Ctrl-C stops everything.");
        assert!(text.contains("DATABASE_URL  postgres://app:x@127.0.0.1:6432/app\n"));
        assert!(text.contains("http://127.0.0.1:9632/metrics"));
        assert_eq!(text.matches("\n  # ").count(), 3, "three commands to try");
    }
}
