//! SHOW USERS: roles that are configured or have logged in, per database, and the console's users.

use super::context::ConsoleContext;
use super::table::{Cell, ResultTable, cell, maybe};
use crate::config::NamedChoice;
use crate::database::{ClientEntry, Database};
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) const COLUMNS: [&str; 8] = [
    "name",
    "database",
    "pool_size",
    "pool_mode",
    "consistency",
    "max_user_client_connections",
    "current_client_connections",
    "source",
];

pub(super) fn fill(context: &ConsoleContext, table: &mut ResultTable) {
    let clients = context.clients.all();
    for database in context.directory.all() {
        let configured = database.settings().users.iter().map(|user| user.name.clone()).collect::<Vec<_>>();
        let mut names: BTreeSet<String> = configured.into_iter().collect();
        names.extend(database.roles().iter().map(|role| role.role.to_string()));
        names.iter().for_each(|name| table.push(row(name, &database, &clients)));
    }
    let settings = context.actions.settings();
    let console = |name: &str| vec![cell(name), cell("pgyard"), None, None, None, None, None, cell("console")];
    match settings.admin.users.as_slice() {
        [] => table.push(console("pgyard")),
        users => users.iter().for_each(|user| table.push(console(&user.name))),
    }
}

fn row(name: &str, database: &Arc<Database>, clients: &[Arc<ClientEntry>]) -> Vec<Cell> {
    let settings = database.settings();
    let own = settings.users.iter().find(|user| user.name == name);
    let source = if own.is_some_and(|user| user.secret.is_some()) { "configured" } else { "looked up" };
    let limit = own.and_then(|user| user.max_clients).unwrap_or(settings.clients.max_clients_per_user);
    let current = clients.iter().filter(|client| &*client.user == name && client.database == database.name).count();
    vec![
        cell(name),
        cell(&database.name),
        cell(own.and_then(|user| user.pool_size).unwrap_or(settings.pool.size)),
        cell(own.and_then(|user| user.pool_mode).unwrap_or(settings.pool.mode).name()),
        cell(own.and_then(|user| user.consistency).unwrap_or(settings.routing.consistency).name()),
        maybe(Some(limit).filter(|limit| *limit > 0)),
        cell(current),
        cell(source),
    ]
}
