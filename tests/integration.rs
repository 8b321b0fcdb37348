//! Everything that needs real PostgreSQL servers. One program, so that one fleet serves all tests; one file for each theme.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod integration {
    mod access;
    mod begun;
    mod chaos;
    mod check_live;
    mod console;
    mod coordinator;
    mod defaults;
    mod drivers;
    mod failover;
    mod farewell;
    mod faults;
    mod fidelity;
    mod fleet;
    mod giants;
    mod global;
    mod harness;
    mod isolation;
    mod lag;
    mod libpq;
    mod lifecycle;
    mod load;
    mod maintenance;
    mod malformed;
    mod monotonic;
    mod names;
    mod oracle;
    mod overload;
    mod peers;
    mod pins;
    mod points;
    mod promises;
    mod reload;
    mod replication;
    mod reshard;
    mod retry;
    mod routing;
    mod sequences;
    mod shard_keys;
    mod shard_order;
    mod shard_writes;
    mod sharded;
    mod shards;
    mod slow_hosts;
    mod soak;
    mod strangers;
    mod streams;
    mod stubborn;
    mod timeouts;
    mod tls;
    mod tls_server;
    mod tpch;
}
