//! SHOW DATABASES: every database that is configured or that a client has named.

use super::context::ConsoleContext;
use super::show_hosts::upstreams;
use super::table::{Cell, ResultTable, cell, maybe};
use crate::cluster::Fleet;
use crate::config::{DatabaseSettings, NamedChoice};

pub(super) const COLUMNS: [&str; 17] = [
    "name",
    "host",
    "port",
    "database",
    "pool_size",
    "min_pool_size",
    "pool_mode",
    "max_connections",
    "current_connections",
    "current_client_connections",
    "paused",
    "disabled",
    "hosts",
    "replicas_in_use",
    "balance",
    "consistency",
    "catalogue",
];

/// What lives behind a database's name, as far as anything does.
#[derive(Default)]
struct Present {
    server_name: Option<String>,
    connections: usize,
    clients: usize,
    paused: bool,
    catalogue: &'static str,
}

pub(super) fn fill(context: &ConsoleContext, table: &mut ResultTable) {
    let clients = context.clients.all();
    for database in context.directory.all() {
        let connections =
            database.roles().iter().flat_map(|role| role.pools().iter().map(|pool| pool.stats().open).collect::<Vec<_>>()).sum();
        let present = Present {
            server_name: Some(database.server_name()),
            connections,
            clients: clients.iter().filter(|client| client.database == database.name).count(),
            paused: database.is_paused(),
            catalogue: match (database.catalogue_is_current(), database.catalogue().is_complete()) {
                (true, true) => "current",
                (false, true) => "being read again",
                (_, false) => "not read yet",
            },
        };
        table.push(row(&database.name, &database.settings(), &database.upstream().cluster.fleet(), &present));
    }
    for (name, upstream) in upstreams(context).iter().filter(|(name, _)| name == "*") {
        table.push(row(name, &upstream.settings(), &upstream.cluster.fleet(), &Present { catalogue: "", ..Present::default() }));
    }
}

fn row(name: &str, settings: &DatabaseSettings, fleet: &Fleet, present: &Present) -> Vec<Cell> {
    let primary = fleet.primary_view().map(|view| &view.host.settings);
    vec![
        cell(name),
        maybe(primary.map(|host| &host.address)),
        maybe(primary.map(|host| host.port)),
        maybe(present.server_name.as_ref()),
        cell(settings.pool.size),
        cell(settings.pool.min_idle),
        cell(settings.pool.mode.name()),
        cell(settings.pool.max_per_host),
        cell(present.connections),
        cell(present.clients),
        cell(u8::from(present.paused)),
        cell(0),
        cell(fleet.hosts.len()),
        cell(fleet.eligible.len()),
        cell(settings.routing.balance.name()),
        cell(settings.routing.consistency.name()),
        cell(present.catalogue),
    ]
}
