//! The hot paths: what every statement, or every chunk of a result, goes through.
//!
//! A path is prepared once and then run again and again in steady state. Each run does the same work, so that its instructions
//! can be counted.

mod cluster;
mod pool;
mod relay;
mod sql;
mod wire;

/// A path, or the file with its budget, could not be prepared.
pub type BenchError = Box<dyn std::error::Error + Send + Sync>;

/// A path that is ready to be run.
pub type Run = Result<Box<dyn FnMut()>, BenchError>;

/// One hot path.
pub struct HotPath {
    /// Its name: chooses it, and stands in `benches/budget.toml`.
    pub name: &'static str,
    /// Bytes that one run moves or looks through; 0 where that says nothing.
    pub bytes: usize,
    /// Whether its instructions are the same each time: not where system calls or other threads take part.
    pub counted: bool,
    /// Makes it ready.
    pub prepare: fn() -> Run,
}

/// Every path there is.
pub fn all() -> Vec<&'static HotPath> {
    [wire::PATHS, sql::PATHS, cluster::PATHS, pool::PATHS, relay::PATHS].into_iter().flatten().collect()
}

impl HotPath {
    const fn new(name: &'static str, prepare: fn() -> Run) -> HotPath {
        HotPath { name, bytes: 0, counted: true, prepare }
    }
}
