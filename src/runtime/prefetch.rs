//! Fetching what a task will touch into the caches, before its turn.
//!
//! With thousands of sessions each of them is out of the caches when its turn comes, and a turn waits for memory some thirty times, one
//! line after the other. Asked for in advance, all of a task's lines come at once, while the task before it is polled. Worth it for
//! what a session touches in nearly every turn and nobody else has just touched; anything more is in the way of the rest.

#![allow(unsafe_code)]

/// Bytes of a line of the caches.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;
/// What is fetched of one value, at most: a task that is larger is no session that waits.
#[cfg(target_arch = "x86_64")]
const FETCHED_MAX: usize = 4096;

/// Has the processor fetch a value, where it can be asked to. It waits for nothing, and what is fetched need not be used.
#[inline]
pub(crate) fn prefetch<T: ?Sized>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = std::ptr::from_ref(value).cast::<i8>();
        for offset in (0..size_of_val(value).min(FETCHED_MAX)).step_by(LINE) {
            // SAFETY: a prefetch reads nothing that the program sees, at any address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(offset)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
