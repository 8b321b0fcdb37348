//! Everything that needs real PostgreSQL servers. One program, so that one fleet serves all tests; one file for each theme.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod integration {
    mod access;
    mod chaos;
    mod console;
    mod coordinator;
    mod defaults;
    mod drivers;
    mod failover;
    mod faults;
    mod fidelity;
    mod fleet;
    mod harness;
    mod isolation;
    mod lag;
    mod lifecycle;
    mod load;
    mod malformed;
    mod oracle;
    mod peers;
    mod points;
    mod reload;
    mod replication;
    mod routing;
    mod shard_keys;
    mod slow_hosts;
    mod soak;
    mod streams;
    mod stubborn;
    mod tls;
    mod tls_server;
}
