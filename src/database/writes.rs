//! The writes of all sessions of a database, for reads that must see every one of them (`consistency = "global"`).
//!
//! A write counts as under way from before its statement is sent until its position has been asked for, which is after its
//! acknowledgement was read: a read that begins after a client has seen an acknowledgement finds either the write under way or
//! its ticket.

use crate::cluster::{Sampler, Ticket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The writes of a database.
#[derive(Debug, Default)]
pub struct WriteBook {
    under_way: AtomicU64,
    last: Mutex<Option<Ticket>>,
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
    /// What a read that begins now must see.
    pub fn last(&self) -> LastWrite {
        // In this order: a write leaves its ticket before it stops being under way.
        if self.under_way.load(Ordering::SeqCst) > 0 {
            return LastWrite::UnderWay;
        }
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.map_or(LastWrite::None, LastWrite::Acknowledged)
    }

    /// A write is about to be sent.
    pub fn begin(self: &Arc<Self>, sampler: &Arc<Sampler>) -> WriteMark {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        WriteMark { book: self.clone(), sampler: sampler.clone(), ticket: None }
    }
}

/// A write under way. Dropping it, for whatever reason, leaves a ticket: whether it took effect may not be known.
#[derive(Debug)]
pub struct WriteMark {
    book: Arc<WriteBook>,
    sampler: Arc<Sampler>,
    ticket: Option<Ticket>,
}

impl WriteMark {
    /// The write was acknowledged: the ticket for its position.
    pub fn acknowledged(mut self) -> Ticket {
        self.enter()
    }

    fn enter(&mut self) -> Ticket {
        let ticket = *self.ticket.get_or_insert_with(|| self.sampler.ticket());
        let mut last = self.book.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = (*last).max(Some(ticket));
        ticket
    }
}

impl Drop for WriteMark {
    fn drop(&mut self) {
        self.enter();
        self.book.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_under_way_until_its_ticket_is_there() {
        let (book, sampler) = (Arc::new(WriteBook::default()), Arc::new(Sampler::default()));
        assert_eq!(book.last(), LastWrite::None);
        let first = book.begin(&sampler);
        let second = book.begin(&sampler);
        assert_eq!(book.last(), LastWrite::UnderWay);
        let ticket = first.acknowledged();
        assert_eq!(book.last(), LastWrite::UnderWay);
        drop(second);
        assert!(matches!(book.last(), LastWrite::Acknowledged(last) if last >= ticket));
    }
}
