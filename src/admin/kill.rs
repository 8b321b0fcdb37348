//! KILL: ends one client at once; its transaction is rolled back.

use super::context::ConsoleContext;
use crate::database::StopRequest;
use crate::types::SqlState;
use crate::wire::reply::Report;

pub(super) fn run(context: &ConsoleContext, client: i32) -> Result<(), Report> {
    let Some(entry) = context.clients.get(client) else {
        return Err(Report::error(SqlState::UNDEFINED_OBJECT, format!("there is no client {client}"))
            .hint("SHOW CLIENTS lists them, with their number in the column id."));
    };
    entry.ask_to_stop(StopRequest::Now);
    Ok(())
}
