//! SHOW SERVERS: server connections, those that clients have and those that are idle. PgBouncer's columns, and the host.

use super::context::ConsoleContext;
use super::table::{Cell, ResultTable, cell, maybe, milliseconds, utc};
use crate::server::{ServerCard, ServerTarget};
use std::time::{Duration, SystemTime};

pub(super) const COLUMNS: [&str; 14] = [
    "type",
    "user",
    "database",
    "state",
    "addr",
    "port",
    "connect_time",
    "link",
    "remote_pid",
    "tls",
    "prepared_statements",
    "id",
    "idle_ms",
    "host",
];

pub(super) fn fill(context: &ConsoleContext, table: &mut ResultTable) {
    for client in context.clients.all() {
        if let (Some((card, target)), Some(host)) = (client.server(), client.host()) {
            let shown = ServerRow { user: &client.user, database: &client.database, host: &host, target: &target, card };
            table.push(shown.cells("active", Some(client.process), None));
        }
    }
    for database in context.directory.all() {
        for role in database.roles() {
            for pool in role.pools().iter() {
                for (card, idle) in pool.idle_servers() {
                    let (host, target) = (&pool.key.host, pool.target());
                    let shown = ServerRow { user: &role.role, database: &database.name, host, target: &target, card };
                    table.push(shown.cells("idle", None, Some(idle)));
                }
            }
        }
    }
}

struct ServerRow<'a> {
    user: &'a str,
    database: &'a str,
    host: &'a str,
    target: &'a ServerTarget,
    card: ServerCard,
}

impl ServerRow<'_> {
    fn cells(&self, state: &str, client: Option<i32>, idle: Option<Duration>) -> Vec<Cell> {
        let opened = SystemTime::now().checked_sub(self.card.opened.elapsed());
        vec![
            cell("S"),
            cell(self.user),
            cell(self.database),
            cell(state),
            cell(&self.target.address),
            cell(self.target.port),
            maybe(opened.map(utc)),
            maybe(client),
            cell(self.card.process),
            cell(if self.card.tls { "yes" } else { "" }),
            cell(self.card.prepared),
            cell(self.card.id),
            maybe(idle.map(milliseconds)),
            cell(self.host),
        ]
    }
}
