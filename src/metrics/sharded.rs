//! What is counted per sharded database.

use super::{Counter, Gauge, Registry, TimeoutKind, catalogue};

/// The instruments of one sharded database. What its shards do is counted under the shards' own names.
#[derive(Clone, Debug)]
pub struct ShardedMetrics {
    /// Clients logged in.
    pub clients: Gauge,
    /// Statements that one shard answered.
    pub confined: Counter,
    /// Statements whose answers were concatenated or merged.
    pub gathered: Counter,
    /// Statements that a shard finished over the partial answers of all.
    pub finished: Counter,
    /// Statements that wrote on several shards.
    pub written: Counter,
    /// Statements that went to every shard.
    pub everywhere: Counter,
    /// Statements that could not be answered exactly.
    pub refused: Counter,
    /// Commits in two phases.
    pub two_phase: Counter,
    /// Transactions that waited too long for their client.
    pub idle_transactions: Counter,
    /// Prepared transactions that recovery committed.
    pub recovered_commits: Counter,
    /// Prepared transactions that recovery rolled back.
    pub recovered_roll_backs: Counter,
}

impl ShardedMetrics {
    /// The instruments of `database`; the same ones for the same name.
    pub fn new(registry: &Registry, database: &str) -> Self {
        let kind = |kind| registry.counter(&catalogue::SHARDED_STATEMENTS, &[database, kind]);
        let recovered = |outcome| registry.counter(&catalogue::TWO_PHASE_RECOVERED, &[database, outcome]);
        ShardedMetrics {
            clients: registry.gauge(&catalogue::CLIENTS, &[database]),
            confined: kind("confined"),
            gathered: kind("gathered"),
            finished: kind("finished"),
            written: kind("written"),
            everywhere: kind("everywhere"),
            refused: kind("refused"),
            two_phase: registry.counter(&catalogue::TWO_PHASE_COMMITS, &[database]),
            idle_transactions: registry.counter(&catalogue::TIMEOUTS, &[database, TimeoutKind::IdleTransaction.label()]),
            recovered_commits: recovered("committed"),
            recovered_roll_backs: recovered("rolled_back"),
        }
    }
}
