//! Everything that needs real PostgreSQL servers. One program, so that one fleet serves all tests; one file for each theme.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod integration {
    mod console;
    mod drivers;
    mod faults;
    mod fleet;
    mod harness;
    mod isolation;
    mod lag;
    mod lifecycle;
    mod load;
    mod malformed;
    mod names;
    mod reload;
    mod routing;
}
