//! Everything that needs real PostgreSQL servers. One program, so that one fleet serves all tests; one file for each theme.

mod integration {
    mod drivers;
    mod fleet;
    mod harness;
}
