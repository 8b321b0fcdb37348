//! Three shards, one PostgreSQL with all rows, and a pgyard in front of the shards.

use super::super::harness::Pgyard;
use super::super::harness::programs::psql;
use pgyard::demo::{FleetOptions, LocalFleet};
use std::sync::OnceLock;

/// The shards' names, which are also those of their databases.
pub const SHARDS: [&str; 3] = ["s0", "s1", "s2"];

/// Everything that the tests share.
pub struct Stage {
    /// One server, with a database for each shard, and `app` for all rows.
    pub fleet: LocalFleet,
    /// pgyard in front of the shards.
    pub yard: Pgyard,
}

/// The shared stage.
pub fn stage() -> &'static Stage {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    STAGE.get_or_init(|| {
        let fleet = server();
        let yard = Pgyard::start_with_config(&fleet, &config(&fleet, ""));
        wait_for_decisions(&fleet);
        Stage { fleet, yard }
    })
}

/// A server with the shards' databases.
pub fn server() -> LocalFleet {
    let settings = vec!["max_prepared_transactions = 50".to_owned(), "max_connections = 200".to_owned()];
    let fleet = LocalFleet::start(FleetOptions { replicas: 0, settings, ..FleetOptions::default() }, &mut |_| ()).unwrap();
    for shard in SHARDS {
        fleet.primary().sql(&format!("CREATE DATABASE {shard} OWNER app")).unwrap();
    }
    fleet
}

/// A URL of a shard's own database, as the superuser.
pub fn shard_url(fleet: &LocalFleet, shard: &str) -> String {
    let url = fleet.primary().superuser_url();
    let (before, database) = url.rsplit_once('/').unwrap();
    let options = database.split_once('?').map(|(_, options)| format!("?{options}")).unwrap_or_default();
    format!("{before}/{shard}{options}")
}

/// The configuration in front of a server's shards, with more settings of the database.
pub fn config(fleet: &LocalFleet, more: &str) -> String {
    let shard = |name: &&str| format!("[[databases.app.shards]]\nname = \"{name}\"\nprimary = {:?}\n", shard_url(fleet, name));
    format!(
        "listen = \"{{listen}}\"\nhttp = \"{{http}}\"\n[databases.app]\nunlisted_tables = \"refuse\"\n{more}\n{}\
         [[databases.app.sharded_tables]]\ntables = [\"orders\", \"order_lines\", \"accounts\"]\nkey = \"customer_id\"\nscheme = \"hash\"\n\
         [databases.app.tables]\ncountries = \"reference\"\nsamples = \"reference\"\naudit = \"s1\"\n",
        SHARDS.iter().map(shard).collect::<String>()
    )
}

/// Runs a script on each shard of the shared stage as the application would, past pgyard; what each printed.
pub fn on_shards(sql: &str) -> Vec<String> {
    let fleet = &stage().fleet;
    SHARDS.iter().map(|shard| psql(&app_url(fleet, shard), sql)).collect()
}

/// A URL of a database of the server, as the application.
pub fn app_url(fleet: &LocalFleet, database: &str) -> String {
    let url = fleet.primary().app_url();
    let (before, rest) = url.rsplit_once('/').unwrap();
    let options = rest.split_once('?').map(|(_, options)| format!("?{options}")).unwrap_or_default();
    format!("{before}/{database}{options}")
}

/// Waits until a running pgyard has made the tables of decisions.
pub fn wait_for_decisions(fleet: &LocalFleet) {
    let there = |shard: &&str| psql(&shard_url(fleet, shard), "SELECT to_regclass('pgyard.decisions') IS NOT NULL") == "t";
    super::super::harness::eventually("the tables of decisions are made", std::time::Duration::from_secs(20), || {
        SHARDS.iter().all(there)
    });
}
