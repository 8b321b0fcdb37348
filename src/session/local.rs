//! What pgyard itself must see in a text, beyond its route: settings of its own.

use super::state::{SessionState, consistency_setting, route_setting};
use super::unit::Unit;
use crate::sql::{Command, SessionEffect};
use crate::types::SqlState;
use crate::wire::reply::Report;
use std::sync::Arc;

/// A setting of pgyard's own that the unit shows and the session has not set: its name.
pub fn shown_setting(unit: &Unit, state: &SessionState) -> Option<Arc<str>> {
    let mut commands = unit.statements().map(|statement| &statement.command);
    commands.find_map(|command| match command {
        Command::Show(name) if name.starts_with("pgyard.") && state.parameters.get(name).is_none() => Some(name.clone()),
        _ => None,
    })
}

/// The value of a setting of pgyard's own that the session has not set.
pub fn default_setting(name: &str, state: &SessionState) -> Option<&'static str> {
    match name {
        "pgyard.route" => Some("auto"),
        "pgyard.consistency" => Some(match state.consistency {
            crate::config::Consistency::Eventual => "eventual",
            crate::config::Consistency::Session => "session",
            crate::config::Consistency::Monotonic => "monotonic",
            crate::config::Consistency::Global => "global",
        }),
        _ => None,
    }
}

/// Refuses settings of pgyard's own that do not exist, and values that they can't have.
pub fn check_settings(unit: &Unit) -> Result<(), Report> {
    for statement in unit.statements() {
        for effect in &statement.effects {
            if let SessionEffect::Set { name, value: Some(value) } = effect
                && name.starts_with("pgyard.")
            {
                check_setting(name, value)?;
            }
        }
    }
    Ok(())
}

fn check_setting(name: &str, value: &str) -> Result<(), Report> {
    let mut set = crate::server::ParameterSet::default();
    set.set(name.into(), value.into());
    let plain = set.plain(name).unwrap_or_default();
    let (right, values) = match name {
        "pgyard.route" => (route_setting(&plain).is_some(), "auto, primary, replica"),
        "pgyard.consistency" => (consistency_setting(&plain).is_some(), "eventual, session, monotonic, global"),
        _ => {
            return Err(Report::error(SqlState::UNDEFINED_OBJECT, format!("unrecognized pgyard setting \"{name}\""))
                .hint("Available settings: pgyard.route, pgyard.consistency."));
        }
    };
    if right {
        return Ok(());
    }
    let message = format!("invalid value for parameter \"{name}\": \"{plain}\"");
    Err(Report::error(SqlState::INVALID_PARAMETER_VALUE, message).hint(format!("Available values: {values}.")))
}
