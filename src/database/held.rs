//! Statements that wait for a host: during a fail-over all that write. Bounded in number and bytes; their time is the session's
//! to bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// How much may wait at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldLimits {
    /// Statements.
    pub statements: usize,
    /// Bytes of their requests, together.
    pub bytes: usize,
}

/// The statements of a database that wait for a host.
#[derive(Debug, Default)]
pub struct HeldStatements {
    statements: AtomicUsize,
    bytes: AtomicUsize,
    refused: AtomicU64,
}

/// One statement that waits; it counts until it is dropped.
#[derive(Debug)]
pub struct HeldStatement {
    book: Arc<HeldStatements>,
    bytes: usize,
    /// Since when.
    pub since: Instant,
}

impl HeldStatements {
    /// A statement of this length begins to wait; `None` when it may not.
    pub fn enter(self: &Arc<Self>, bytes: usize, limits: HoldLimits) -> Option<HeldStatement> {
        let held = HeldStatement { book: self.clone(), bytes, since: Instant::now() };
        let before = self.statements.fetch_add(1, Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before < limits.statements && bytes_before.saturating_add(bytes) <= limits.bytes {
            return Some(held);
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// How many wait, the bytes of their requests, and how many were turned away so far.
    pub fn figures(&self) -> (usize, usize, u64) {
        let load = |number: &AtomicUsize| number.load(Ordering::Relaxed);
        (load(&self.statements), load(&self.bytes), self.refused.load(Ordering::Relaxed))
    }
}

impl Drop for HeldStatement {
    fn drop(&mut self) {
        self.book.statements.fetch_sub(1, Ordering::Relaxed);
        self.book.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_in_number_and_bytes() {
        let (book, limits) = (Arc::new(HeldStatements::default()), HoldLimits { statements: 2, bytes: 100 });
        let first = book.enter(60, limits).unwrap();
        assert!(book.enter(41, limits).is_none(), "too many bytes");
        let second = book.enter(40, limits).unwrap();
        assert!(book.enter(0, limits).is_none(), "too many statements");
        assert_eq!(book.figures(), (2, 100, 2));
        drop(first);
        assert!(book.enter(60, limits).is_some());
        drop(second);
        assert_eq!(book.figures(), (0, 0, 2));
    }
}
