//! The writes of all sessions of a database, by table, for reads that must see every one of them (`consistency = "global"`).
//!
//! A write counts as under way from before its statement is sent until its position has been asked for, which is after its
//! acknowledgement was read: a read that begins after a client has seen an acknowledgement finds either the write under way or
//! its ticket.
//!
//! Tables share a bounded number of marks: two whose keys meet count as one, which costs a read at worst the primary.
//! What a write changes is known by the catalogue of the moment. When that changes, every write under way may reach further than was
//! thought (somebody has made a trigger), and counts for every table from there on.

use crate::cluster::{Sampler, Ticket};
use crate::sql::{TableKey, TableSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Marks for tables.
const SLOTS: usize = 4096;
/// A write to more tables than this counts for all.
const TABLES_MAX: usize = 64;

/// The writes of a database.
#[derive(Debug, Default)]
pub struct WriteBook {
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    /// Changes of the catalogue so far.
    changes: u64,
    /// By table; empty until a table has been named.
    tables: Vec<Mark>,
    /// Writes that may have gone to any table.
    everything: Mark,
    /// All writes.
    all: Mark,
    /// Writes under way whose tables are known, by the catalogue of now.
    certain: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    under_way: u64,
    last: Option<Ticket>,
}

impl Mark {
    fn end(&mut self, ticket: Ticket) {
        self.under_way -= 1;
        self.last = self.last.max(Some(ticket));
    }
}

/// What a read must wait for that shall see every write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastWrite {
    /// Nothing was written since pgyard started.
    None,
    /// Some write is under way.
    UnderWay,
    /// The last one was acknowledged; its position has this ticket.
    Acknowledged(Ticket),
}

impl WriteBook {
    /// What a read of these tables that begins now must see.
    pub fn last(&self, read: &TableSet) -> LastWrite {
        let ledger = self.locked();
        let (mut under_way, mut last) = (0, None);
        let mut add = |mark: &Mark| {
            under_way += mark.under_way;
            last = last.max(mark.last);
        };
        match read {
            TableSet::Unknown => add(&ledger.all),
            TableSet::Known(keys) => {
                add(&ledger.everything);
                keys.iter().filter_map(|key| ledger.tables.get(slot_of(*key))).for_each(add);
            }
        }
        match (under_way, last) {
            (1.., _) => LastWrite::UnderWay,
            (0, Some(ticket)) => LastWrite::Acknowledged(ticket),
            (0, None) => LastWrite::None,
        }
    }

    /// A transaction is about to begin that may write. Nobody minds before it [covers](WriteMark::cover) anything.
    pub fn begin(self: &Arc<Self>, sampler: &Arc<Sampler>) -> WriteMark {
        WriteMark { book: self.clone(), sampler: sampler.clone(), slots: Vec::new(), reach: Reach::Nothing }
    }

    /// Changes of the catalogue so far: to be asked for before it is looked whether the catalogue is current.
    pub fn changes(&self) -> u64 {
        self.locked().changes
    }

    /// The catalogue has changed, or is about to: what is under way counts for every table.
    pub fn catalogue_changed(&self) {
        let mut ledger = self.locked();
        ledger.changes += 1;
        ledger.everything.under_way += std::mem::take(&mut ledger.certain);
    }

    fn locked(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn slot_of(key: TableKey) -> usize {
    key.0 as usize % SLOTS
}

/// How far a write under way reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Nothing that anybody else could read.
    Nothing,
    /// The tables of its slots, by the catalogue after so many changes.
    Tables(u64),
    /// Any table.
    Everything,
}

/// A transaction under way that may write. Dropping it, for whatever reason, leaves a ticket: whether it took effect may not be known.
#[derive(Debug)]
pub struct WriteMark {
    book: Arc<WriteBook>,
    sampler: Arc<Sampler>,
    slots: Vec<u16>,
    reach: Reach,
}

impl WriteMark {
    /// Whether it counts for every table already.
    pub fn covers_everything(&self) -> bool {
        self.reach == Reach::Everything
    }

    /// A statement is about to be sent that writes these tables, as the catalogue after so many `changes` says.
    pub fn cover(&mut self, written: &TableSet, changes: u64) {
        let book = self.book.clone();
        let mut ledger = book.locked();
        match written {
            _ if self.reach == Reach::Everything => {}
            TableSet::Known(keys) if keys.is_empty() && ledger.changes == changes => {}
            TableSet::Known(keys) if ledger.changes == changes && self.slots.len() + keys.len() <= TABLES_MAX => {
                self.cover_tables(&mut ledger, keys);
            }
            _ => {
                if self.reach == Reach::Nothing {
                    ledger.all.under_way += 1;
                }
                if !self.counts_for_everything(&ledger) {
                    ledger.certain -= u64::from(self.reach != Reach::Nothing);
                    ledger.everything.under_way += 1;
                }
                self.reach = Reach::Everything;
            }
        }
    }

    fn cover_tables(&mut self, ledger: &mut Ledger, keys: &[TableKey]) {
        if ledger.tables.is_empty() {
            ledger.tables = vec![Mark::default(); SLOTS];
        }
        if self.reach == Reach::Nothing {
            ledger.all.under_way += 1;
            ledger.certain += 1;
            self.reach = Reach::Tables(ledger.changes);
        }
        for slot in keys.iter().map(|key| slot_of(*key)) {
            if !self.slots.contains(&(slot as u16)) {
                self.slots.push(slot as u16);
                ledger.tables[slot].under_way += 1;
            }
        }
    }

    /// Whether the ledger counts it among the writes to any table: it said so, or the catalogue has changed since.
    fn counts_for_everything(&self, ledger: &Ledger) -> bool {
        match self.reach {
            Reach::Nothing => false,
            Reach::Tables(changes) => changes != ledger.changes,
            Reach::Everything => true,
        }
    }

    /// The write was acknowledged: the ticket for its position.
    pub fn acknowledged(mut self) -> Ticket {
        self.end()
    }

    fn end(&mut self) -> Ticket {
        let ticket = self.sampler.ticket();
        let book = self.book.clone();
        let mut ledger = book.locked();
        for slot in self.slots.drain(..) {
            ledger.tables[usize::from(slot)].end(ticket);
        }
        if self.counts_for_everything(&ledger) {
            ledger.everything.end(ticket);
        } else if self.reach != Reach::Nothing {
            ledger.certain -= 1;
        }
        if self.reach != Reach::Nothing {
            ledger.all.end(ticket);
        }
        self.reach = Reach::Nothing;
        ticket
    }
}

impl Drop for WriteMark {
    fn drop(&mut self) {
        if self.reach != Reach::Nothing {
            self.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(keys: &[u64]) -> TableSet {
        TableSet::Known(keys.iter().map(|key| TableKey(*key)).collect())
    }

    fn is_done(last: LastWrite) -> bool {
        matches!(last, LastWrite::Acknowledged(_))
    }

    struct Stage {
        book: Arc<WriteBook>,
        sampler: Arc<Sampler>,
    }

    impl Stage {
        fn new() -> Self {
            Stage { book: Arc::default(), sampler: Arc::default() }
        }

        fn write(&self, written: &TableSet) -> WriteMark {
            let mut mark = self.book.begin(&self.sampler);
            mark.cover(written, self.book.changes());
            mark
        }

        fn last(&self, keys: &[u64]) -> LastWrite {
            self.book.last(&tables(keys))
        }
    }

    #[test]
    fn a_write_is_under_way_until_its_ticket_is_there() {
        let stage = Stage::new();
        assert_eq!(stage.book.last(&TableSet::Unknown), LastWrite::None);
        let (first, second) = (stage.write(&TableSet::Unknown), stage.write(&TableSet::Unknown));
        assert_eq!(stage.last(&[1]), LastWrite::UnderWay);
        let ticket = first.acknowledged();
        assert_eq!(stage.last(&[1]), LastWrite::UnderWay);
        drop(second);
        assert!(matches!(stage.last(&[1]), LastWrite::Acknowledged(last) if last >= ticket));
    }

    #[test]
    fn a_read_waits_for_its_own_tables_only() {
        let stage = Stage::new();
        let mark = stage.write(&tables(&[1, 2]));
        assert_eq!((stage.last(&[1]), stage.last(&[2, 3])), (LastWrite::UnderWay, LastWrite::UnderWay));
        assert_eq!((stage.last(&[3]), stage.last(&[])), (LastWrite::None, LastWrite::None));
        assert_eq!(stage.book.last(&TableSet::Unknown), LastWrite::UnderWay, "who does not know its tables waits for all");
        mark.acknowledged();
        assert!(is_done(stage.last(&[2])) && is_done(stage.book.last(&TableSet::Unknown)));
        assert_eq!(stage.last(&[3]), LastWrite::None);
        stage.write(&TableSet::Unknown).acknowledged();
        assert!(is_done(stage.last(&[3])) && is_done(stage.last(&[])), "a write to nobody knows what is one to all");
    }

    #[test]
    fn keys_that_meet_count_as_one() {
        let stage = Stage::new();
        let mark = stage.write(&tables(&[5, 5 + SLOTS as u64]));
        assert_eq!(stage.last(&[5 + 7 * SLOTS as u64]), LastWrite::UnderWay);
        drop(mark);
        assert!(is_done(stage.last(&[5])));
    }

    #[test]
    fn what_nobody_can_read_leaves_nothing() {
        let stage = Stage::new();
        stage.write(&TableSet::none()).acknowledged();
        assert_eq!(stage.book.last(&TableSet::Unknown), LastWrite::None);
    }

    #[test]
    fn a_transaction_covers_more_and_more() {
        let stage = Stage::new();
        let mut mark = stage.write(&tables(&[1]));
        mark.cover(&tables(&[2]), 0);
        mark.cover(&tables(&[1]), 0);
        assert_eq!((stage.last(&[2]), stage.last(&[3])), (LastWrite::UnderWay, LastWrite::None));
        mark.cover(&TableSet::Unknown, 0);
        mark.cover(&tables(&[4]), 0);
        assert!(mark.covers_everything());
        assert_eq!(stage.last(&[3]), LastWrite::UnderWay);
        mark.acknowledged();
        assert!([1, 2, 3].iter().all(|key| is_done(stage.last(&[*key]))));
        let many: Vec<u64> = (0..TABLES_MAX as u64 + 1).collect();
        assert!(stage.write(&tables(&many)).covers_everything());
    }

    #[test]
    fn a_change_of_the_catalogue_makes_what_is_under_way_reach_everything() {
        let stage = Stage::new();
        let (early, late) = (stage.write(&tables(&[1])), stage.book.changes());
        stage.book.catalogue_changed();
        assert_eq!(stage.last(&[2]), LastWrite::UnderWay, "a trigger may have been made");
        stage.book.catalogue_changed();
        let current = stage.write(&tables(&[3]));
        early.acknowledged();
        assert!(is_done(stage.last(&[2])));
        assert_eq!(stage.last(&[3]), LastWrite::UnderWay);
        drop(current);
        let mut stale = stage.book.begin(&stage.sampler);
        stale.cover(&tables(&[1]), late);
        assert!(stale.covers_everything(), "its tables were told by an older catalogue");
        let mut stale_nothing = stage.book.begin(&stage.sampler);
        stale_nothing.cover(&TableSet::none(), late);
        assert!(stale_nothing.covers_everything());
    }

    #[test]
    fn the_counts_come_back_to_nothing() {
        let stage = Stage::new();
        let sets = [tables(&[]), tables(&[1]), tables(&[1, 2, 3]), TableSet::Unknown];
        let mut marks: Vec<WriteMark> = Vec::new();
        for step in 0..10_000_usize {
            match step * 7 % 11 {
                0 => stage.book.catalogue_changed(),
                1..=4 => marks.push(stage.write(&sets[step % 4])),
                5..=7 => {
                    let (place, changes) = (step % marks.len().max(1), stage.book.changes());
                    if let Some(mark) = marks.get_mut(place) {
                        mark.cover(&sets[step / 3 % 4], changes - u64::from(step % 5 == 0).min(changes));
                    }
                }
                _ if marks.is_empty() => {}
                _ => drop(marks.swap_remove(step % marks.len())),
            }
        }
        marks.clear();
        let ledger = stage.book.locked();
        assert_eq!((ledger.certain, ledger.all.under_way, ledger.everything.under_way), (0, 0, 0));
        assert!(ledger.tables.iter().all(|mark| mark.under_way == 0));
    }
}
