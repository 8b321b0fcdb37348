//! Which tables a unit reads and writes: reads under `consistency = "global"` wait for the writes to their own tables only.

use super::run::Session;
use super::unit::{Unit, UnitKind};
use crate::config::Consistency;
use crate::database::{Database, DatabaseView, with_view};
use crate::sql::{Pins, TableSet, TableUse};
use std::hint::cold_path;

impl Session {
    /// The unit is about to be sent to the primary, where it may write. `uncertain`: what it does is not what its text says.
    pub(super) fn mark_write(&mut self, unit: &Unit, uncertain: bool) {
        let database = &self.database;
        let begin = || database.writes.begin(database.upstream().cluster.sampler());
        let mark = self.state.write_mark.get_or_insert_with(begin);
        if mark.covers_everything() {
            return;
        }
        // In this order: what has changed before this call is in a catalogue that is current after it.
        let changes = database.writes.changes();
        // A temporary view may stand for any table, by any name; the catalogue does not know it.
        let certain = !uncertain && !self.state.pins.intersects(Pins::TEMPORARY);
        let known = certain && self.state.view.catalogue_is_current && unit.run_facts().next().is_some();
        let written = if known { tables(database, unit, |used| &used.written) } else { TableSet::Unknown };
        mark.cover(&written, changes);
    }

    /// The tables of which the unit must show every write; of no interest unless the session reads so.
    pub(super) fn tables_read(&self, unit: &Unit) -> TableSet {
        if self.state.consistency != Consistency::Global {
            return TableSet::Unknown;
        }
        cold_path();
        self.database.count_tables();
        if self.state.view.catalogue_is_current { tables(&self.database, unit, |used| &used.read) } else { TableSet::Unknown }
    }
}

/// The tables of all texts that the unit runs.
fn tables(database: &Database, unit: &Unit, side: impl Fn(&TableUse) -> &TableSet) -> TableSet {
    if !database.counts_tables() || !database.catalogue_is_current() || unit.kind == UnitKind::Function {
        return TableSet::Unknown;
    }
    let catalogue = with_view(database, DatabaseView::catalogue_id);
    let mut all = Vec::new();
    for facts in unit.run_facts() {
        let used = facts.tables.get().filter(|used| used.catalogue == catalogue);
        let Some(TableSet::Known(keys)) = used.map(|used| side(used)) else { return TableSet::Unknown };
        all.extend_from_slice(keys);
    }
    all.sort_unstable();
    all.dedup();
    TableSet::Known(all.into())
}
