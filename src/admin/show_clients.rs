//! SHOW CLIENTS: who is logged in. PgBouncer's columns, and what pins a client, and to which host.

use super::context::ConsoleContext;
use super::table::{ResultTable, cell, maybe, utc};
use crate::net::stream::Peer;

pub(super) const COLUMNS: [&str; 15] = [
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
    "application_name",
    "id",
    "requests",
    "pins",
    "host",
];

pub(super) fn fill(context: &ConsoleContext, table: &mut ResultTable) {
    for client in context.clients.all() {
        let (addr, port) = match client.peer {
            Peer::Tcp(address) => (address.ip().to_string(), Some(address.port())),
            Peer::Unix => ("unix".to_owned(), None),
        };
        let server = client.server().map(|(card, _)| card);
        table.push(vec![
            cell("C"),
            cell(&client.user),
            cell(&client.database),
            cell(client.state().label()),
            cell(addr),
            maybe(port),
            cell(utc(client.connected)),
            maybe(server.map(|card| card.id)),
            maybe(server.map(|card| card.process)),
            cell(if client.tls { "yes" } else { "" }),
            cell(client.application_name()),
            cell(client.process),
            cell(client.requests()),
            cell(client.pins().labels().collect::<Vec<_>>().join(",")),
            maybe(client.host()),
        ]);
    }
}
