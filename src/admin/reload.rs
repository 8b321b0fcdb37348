//! RELOAD: reads the configuration again, and lists what that changes.

use super::context::ConsoleContext;
use super::table::{Cell, cell};
use crate::types::SqlState;
use crate::wire::reply::Report;

pub(super) const COLUMNS: [&str; 2] = ["change", "applied"];

pub(super) async fn run(context: &ConsoleContext) -> Result<Vec<Vec<Cell>>, Report> {
    let plan = context.actions.reload().await.map_err(|error| {
        Report::error(SqlState(*b"F0000"), "the configuration was not reloaded; everything stays as it was")
            .detail(error)
            .hint("`pgyard check FILE` says the same before a reload.")
    })?;
    let applied = plan.changed.iter().map(|line| vec![cell(line), cell("yes")]);
    let pending = plan.needs_restart.iter().map(|line| vec![cell(line), cell("after a restart")]);
    Ok(applied.chain(pending).collect())
}
