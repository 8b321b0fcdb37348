//! SHOW POOLS: server connections per database, user and host. PgBouncer's columns, and the host.

use super::context::ConsoleContext;
use super::table::{ResultTable, cell};
use crate::config::NamedChoice;
use std::collections::HashMap;

pub(super) const COLUMNS: [&str; 13] = [
    "database",
    "user",
    "cl_active",
    "cl_waiting",
    "sv_active",
    "sv_idle",
    "sv_used",
    "sv_login",
    "maxwait",
    "maxwait_us",
    "pool_mode",
    "host",
    "pool_size",
];

pub(super) fn fill(context: &ConsoleContext, table: &mut ResultTable) {
    let mut working: HashMap<_, usize> = HashMap::new();
    for client in context.clients.all() {
        if let Some(host) = client.host() {
            *working.entry((client.database.clone(), client.user.clone(), host)).or_default() += 1;
        }
    }
    for database in context.directory.all() {
        for role in database.roles() {
            let mode = role.mode(&database);
            for pool in role.pools().iter() {
                let stats = pool.stats();
                let clients = working.get(&(database.name.clone(), role.role.clone(), pool.key.host.clone()));
                table.push(vec![
                    cell(&database.name),
                    cell(&role.role),
                    cell(clients.copied().unwrap_or(0)),
                    cell(stats.waiting),
                    cell(stats.active()),
                    cell(stats.idle),
                    // PgBouncer's connections that wait for a check: pgyard resets them as they are returned.
                    cell(0),
                    cell(stats.connecting),
                    cell(stats.oldest_wait.as_secs()),
                    cell(stats.oldest_wait.subsec_micros()),
                    cell(mode.name()),
                    cell(&pool.key.host),
                    cell(stats.size),
                ]);
            }
        }
    }
}
