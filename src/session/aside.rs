//! Steps that few units take.
//!
//! A relay thread runs through the same code for nearly every unit, and has to fetch it anew after each time that another process had
//! its core. What is rare is kept out of that code: between two steps that every unit takes it would be fetched with them.

use std::future::Future;
use std::pin::Pin;

/// Starts a rare step. What it needs is in a box, so that it does not stay in the session's future, and so not in its memory.
#[cold]
#[inline(never)]
pub(super) fn aside<'a, T, F: Future<Output = T> + Send + 'a>(
    step: impl FnOnce() -> F,
) -> Pin<Box<dyn Future<Output = T> + Send + 'a>> {
    Box::pin(step())
}
