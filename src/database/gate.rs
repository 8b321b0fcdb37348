//! Where sessions of a sharded database wait while its rows move to other shards.
//!
//! A session passes the gate with the first statement of a transaction and leaves it when the transaction has ended. Closing the gate keeps the
//! next ones out; when nobody is inside any more, nothing is under way. A gate that was closed opens by itself: whoever closed it may die.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The gate of one name that clients use.
#[derive(Debug)]
pub struct TransactionGate {
    inside: AtomicUsize,
    /// Whether it may be closed: who passes looks here only.
    shut: AtomicBool,
    until: watch::Sender<Option<Instant>>,
}

impl Default for TransactionGate {
    fn default() -> Self {
        TransactionGate { inside: AtomicUsize::new(0), shut: AtomicBool::new(false), until: watch::Sender::new(None) }
    }
}

impl TransactionGate {
    /// Closes it, for `limit` at most.
    pub fn shut_for(&self, limit: Duration) {
        self.until.send_replace(Some(Instant::now() + limit));
        self.shut.store(true, Ordering::SeqCst);
    }

    /// Opens it.
    pub fn open(&self) {
        self.shut.store(false, Ordering::SeqCst);
        self.until.send_replace(None);
    }

    /// Sessions inside.
    pub fn inside(&self) -> usize {
        self.inside.load(Ordering::SeqCst)
    }

    /// Whether it is closed now.
    pub fn is_shut(&self) -> bool {
        self.shut.load(Ordering::SeqCst) && self.until.borrow().is_some_and(|until| Instant::now() < until)
    }

    fn enter(&self) -> bool {
        // Counted first: either the session sees that the gate is closed, or whoever closed it sees the session.
        self.inside.fetch_add(1, Ordering::SeqCst);
        if !self.shut.load(Ordering::SeqCst) || !self.is_shut() {
            return true;
        }
        self.inside.fetch_sub(1, Ordering::SeqCst);
        false
    }

    async fn opened(&self) {
        let mut changes = self.until.subscribe();
        loop {
            let until = *changes.borrow_and_update();
            let Some(until) = until.filter(|until| Instant::now() < *until) else { return };
            // The sender lives as long as `self`.
            let _ = tokio::time::timeout_at(until, changes.changed()).await;
        }
    }
}

/// One session's place at the gate. It leaves when it is dropped.
#[derive(Debug)]
pub struct GatePlace {
    gate: Arc<TransactionGate>,
    inside: bool,
}

impl GatePlace {
    /// Before the gate.
    pub fn new(gate: Arc<TransactionGate>) -> Self {
        GatePlace { gate, inside: false }
    }

    /// Whether the session has passed.
    pub fn is_inside(&self) -> bool {
        self.inside
    }

    /// Passes if the gate is open.
    pub fn try_pass(&mut self) -> bool {
        self.inside = self.inside || self.gate.enter();
        self.inside
    }

    /// Waits until the gate is open, and passes.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn pass(&mut self) {
        while !self.try_pass() {
            self.gate.opened().await;
        }
    }

    /// The transaction has ended.
    pub fn leave(&mut self) {
        if std::mem::take(&mut self.inside) {
            self.gate.inside.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for GatePlace {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_closed_gate_lets_out_and_not_in() {
        let gate = Arc::new(TransactionGate::default());
        let (mut one, mut two) = (GatePlace::new(gate.clone()), GatePlace::new(gate.clone()));
        assert!(one.try_pass());
        gate.shut_for(Duration::from_secs(5));
        assert!(gate.is_shut() && one.try_pass() && !two.try_pass(), "who is inside stays inside");
        assert_eq!(gate.inside(), 1);
        one.leave();
        assert!(!one.try_pass() && gate.inside() == 0);
        gate.open();
        two.pass().await;
        assert_eq!(gate.inside(), 1);
        drop(two);
        assert_eq!(gate.inside(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_gate_opens_by_itself() {
        let gate = Arc::new(TransactionGate::default());
        gate.shut_for(Duration::from_secs(5));
        let began = Instant::now();
        let mut place = GatePlace::new(gate.clone());
        place.pass().await;
        assert!(began.elapsed() >= Duration::from_secs(5) && !gate.is_shut());
        // Who waits is told of a longer limit, and of the end before it.
        place.leave();
        gate.shut_for(Duration::from_secs(60));
        let opener = gate.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(10)).await;
            opener.open();
        });
        let began = Instant::now();
        place.pass().await;
        assert_eq!(began.elapsed().as_secs(), 10);
    }
}
