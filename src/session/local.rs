//! What pgyard itself must see in a text, beyond its route: settings of its own.

use super::state::{Freshness, SessionState, consistency_setting, max_lag_setting, min_lsn_setting, route_setting};
use super::unit::Unit;
use crate::config::{NamedChoice, format_duration};
use crate::server::parameters::quote_literal;
use crate::sql::{Command, SessionEffect};
use crate::types::SqlState;
use crate::wire::reply::Report;
use std::sync::Arc;
use std::time::Duration;

/// The setting that can only be shown.
pub const LSN: &str = "pgyard.lsn";

/// A setting of pgyard's own that the unit shows: its name.
pub fn shown_setting(unit: &Unit) -> Option<Arc<str>> {
    let mut commands = unit.statements().map(|statement| &statement.command);
    commands.find_map(|command| match command {
        Command::Show(name) if name.starts_with("pgyard.") => Some(name.clone()),
        _ => None,
    })
}

/// The value of a setting of pgyard's own, as SQL text; `None` for a name that pgyard does not know.
pub fn setting_value(name: &str, state: &SessionState, max_lag: Option<Duration>) -> Option<String> {
    if let Some(value) = state.parameters.get(name).filter(|_| name != LSN) {
        return Some(value.to_owned());
    }
    let value = match name {
        "pgyard.route" => "auto".to_owned(),
        "pgyard.consistency" => state.consistency.name().to_owned(),
        "pgyard.min_lsn" => String::new(),
        "pgyard.max_lag" => max_lag.map_or_else(|| "off".to_owned(), format_duration),
        LSN => point(state),
        _ => return None,
    };
    Some(quote_literal(&value))
}

/// What the session's reads must show, for another session's `SET pgyard.min_lsn`: nothing if it has neither written nor asked.
fn point(state: &SessionState) -> String {
    let own = match state.freshness {
        Freshness::Floor(floor) => Some((floor.timeline, floor.lsn)),
        Freshness::Any | Freshness::Pending(_) => None,
    };
    own.max(state.asked.as_ref().and_then(|asked| asked.min_lsn))
        .map_or_else(String::new, |(timeline, lsn)| format!("{timeline}:{lsn}"))
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
    let (right, hint) = match name {
        "pgyard.route" => (route_setting(&plain).is_some(), "Available values: auto, primary, replica."),
        "pgyard.consistency" => {
            (consistency_setting(&plain).is_some(), "Available values: eventual, session, monotonic, global.")
        }
        "pgyard.min_lsn" => {
            (min_lsn_setting(&plain).is_some(), "What another session's SHOW pgyard.lsn has said, such as '1:0/16B3748'.")
        }
        "pgyard.max_lag" => (max_lag_setting(&plain).is_some(), "A duration with its unit, such as '100ms' or '2s'."),
        LSN => {
            return Err(Report::error(SqlState::CANT_CHANGE_RUNTIME_PARAM, "parameter \"pgyard.lsn\" cannot be changed")
                .hint("Another session's point is given with SET pgyard.min_lsn."));
        }
        _ => {
            return Err(Report::error(SqlState::UNDEFINED_OBJECT, format!("unrecognized pgyard setting \"{name}\""))
                .hint("Available settings: pgyard.route, pgyard.consistency, pgyard.min_lsn, pgyard.max_lag."));
        }
    };
    if right {
        return Ok(());
    }
    let message = format!("invalid value for parameter \"{name}\": \"{plain}\"");
    Err(Report::error(SqlState::INVALID_PARAMETER_VALUE, message).hint(hint))
}
