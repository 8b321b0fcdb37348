//! Statements that several shards answer.

use super::planning::BoundParameters;
use super::session::ShardedSession;
use super::trouble::Trouble;
use crate::plan::Plan;
use crate::sql::StatementFacts;

impl ShardedSession {
    pub(super) async fn run_several(
        &mut self,
        _sql: &str,
        _statement: &StatementFacts,
        _plan: &Plan,
        _parameters: Option<BoundParameters<'_>>,
    ) -> Result<(), Trouble> {
        Ok(())
    }

    pub(super) fn schema_changed(&mut self) {}

    pub(super) fn forget_statements(&mut self) {}
}
