//! SHOW HELP: what there is.

use super::command::COMMANDS;
use super::context::ConsoleContext;
use super::table::{ResultTable, cell};

pub(super) const COLUMNS: [&str; 2] = ["command", "meaning"];

pub(super) fn fill(_: &ConsoleContext, table: &mut ResultTable) {
    COMMANDS.iter().for_each(|(name, meaning)| table.push(vec![cell(name), cell(meaning)]));
}
