//! The table of decisions.

use super::identity::GlobalId;

/// Makes the table on a shard. Sessions of any role insert into it as themselves; nobody but its owner reads it.
pub const CREATE_DECISIONS: &str = "\
    SET LOCAL client_min_messages = warning;
    CREATE SCHEMA IF NOT EXISTS pgyard;
    CREATE TABLE IF NOT EXISTS pgyard.decisions (
        transaction text PRIMARY KEY,
        committed boolean NOT NULL,
        at timestamptz NOT NULL DEFAULT pg_catalog.now());
    GRANT USAGE ON SCHEMA pgyard TO PUBLIC;
    GRANT INSERT ON pgyard.decisions TO PUBLIC";

/// What the decider runs at the end of its transaction: with this commit all is committed.
pub fn record_commit(id: &GlobalId) -> String {
    format!("SET LOCAL synchronous_commit = on; {}; COMMIT", insert(id, true))
}

/// Inserts a decision.
pub(super) fn insert(id: &GlobalId, committed: bool) -> String {
    // A name holds no quote and no backslash.
    format!("INSERT INTO pgyard.decisions (transaction, committed) VALUES ('{}', {committed})", id.key())
}
