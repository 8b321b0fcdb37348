//! SHOW CONFIG: every setting. Secrets are shown as `***`.

use super::context::ConsoleContext;
use super::table::{ResultTable, cell, yes_no};
use crate::config::settings_table;

pub(super) const COLUMNS: [&str; 4] = ["key", "value", "default", "changeable"];

pub(super) fn fill(context: &ConsoleContext, table: &mut ResultTable) {
    for (key, value, default, changeable) in settings_table(&context.actions.settings()) {
        table.push(vec![cell(key), cell(value), cell(default), yes_no(changeable)]);
    }
}
