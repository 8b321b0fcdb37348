//! SHUTDOWN: stops pgyard, as SIGTERM does, or at once.

use super::context::{ConsoleContext, ShutdownMode};

pub(super) fn run(context: &ConsoleContext, mode: ShutdownMode) {
    context.actions.shutdown(mode);
}
