//! The run-time of a relay thread: its tasks and its sockets, all of one thread.
//!
//! A general run-time pays for what a relay does not need: tasks that any thread may poll, sockets that any task may wait for. Here a
//! socket knows the number of the task that waits for it, and the thread its queue of numbers: an event costs two stores and a push,
//! without a locked instruction. What comes from other threads (a lock that opens, a timer, a message in a channel) takes the way
//! every executor knows, a [`std::task::Waker`].
//!
//! What tasks send in a turn goes together at its end, in one system call, where the kernel has io_uring and allows it: see `ring`. Its
//! errors are found by who reads.
//!
//! tokio is still there: a relay thread has entered the control threads' run-time, whose timers, blocking threads and connections being
//! opened serve it from there.

mod executor;
mod outbox;
mod prefetch;
mod readiness;
mod remote;
#[cfg_attr(not(target_os = "linux"), path = "runtime/no_ring.rs")]
mod ring;

pub use executor::{can_spawn, is_relay_thread, run, spawn, yield_now, yield_turn};
pub(crate) use prefetch::prefetch;
pub(crate) use readiness::Readiness;

#[cfg(test)]
mod tests;
