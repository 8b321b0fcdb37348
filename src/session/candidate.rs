//! What is known of a role before it has proven anything.

use super::access::{Admitted, Denied};
use crate::auth::StoredSecret;
use crate::cluster::LookupError;
use crate::config::{AuthMethod, DatabaseSettings};
use crate::database::Database;
use crate::metrics::LoginFailureReason;
use crate::types::{Secret, SqlState};
use crate::wire::reply::Report;
use std::sync::Arc;

/// Who wants in, and what is known of the role.
pub(super) struct Candidate {
    pub(super) user: String,
    pub(super) method: AuthMethod,
    pub(super) secret: Option<StoredSecret>,
    pub(super) server_password: Option<Secret>,
    /// Why it may not come in although it proves who it is.
    pub(super) barred: Option<Report>,
    pub(super) looked_up: bool,
}

/// What is known of a role: from the configuration, else looked up.
pub(super) async fn candidate(
    database: &Database,
    user: &str,
    admitted: Admitted,
    lookup_name: &str,
) -> Result<Candidate, Denied> {
    let settings: Arc<DatabaseSettings> = database.settings().clone();
    let method = admitted.method.unwrap_or(settings.auth.method);
    let own = settings.users.iter().find(|known| known.name == user);
    let server_password = own.and_then(|known| known.server_password.clone());
    let mut candidate =
        Candidate { user: user.to_owned(), method, secret: None, server_password, barred: None, looked_up: false };
    if let Some(secret) = own.and_then(|known| known.secret.as_ref()) {
        let parsed = StoredSecret::parse(secret).map_err(|error| {
            let text = format!("the configured password of \"{user}\" can't be used: {error}");
            (LoginFailureReason::Lookup, Report::fatal(SqlState::INVALID_AUTHORIZATION, text))
        })?;
        candidate.secret = Some(parsed);
        return Ok(candidate);
    }
    let unknown = || {
        let report = Report::fatal(SqlState::INVALID_AUTHORIZATION, format!("role \"{user}\" does not exist"));
        (LoginFailureReason::UnknownUser, report)
    };
    if settings.auth.lookup_query.is_none() && admitted.proven && own.is_none() {
        return Err(unknown());
    }
    if (method == AuthMethod::Trust && !admitted.proven) || settings.auth.lookup_query.is_none() {
        return Ok(candidate);
    }
    let found = database.upstream().cluster.lookup().find(user, lookup_name).await.map_err(|error| lookup_report(&error))?;
    candidate.looked_up = true;
    let Some(role) = found else {
        // Nobody who has not proven who it is learns whether there is such a role.
        return if admitted.proven { Err(unknown()) } else { Ok(candidate) };
    };
    if !role.expired {
        candidate.secret = role.verifier.as_ref().and_then(|verifier| StoredSecret::parse(verifier).ok());
    }
    candidate.barred = if !role.may_log_in {
        Some(Report::fatal(SqlState::INVALID_AUTHORIZATION, format!("role \"{user}\" is not permitted to log in")))
    } else if !role.may_connect {
        let text = format!("permission denied for database \"{lookup_name}\"");
        Some(Report::fatal(SqlState::INSUFFICIENT_PRIVILEGE, text).detail("User does not have CONNECT privilege."))
    } else {
        None
    };
    Ok(candidate)
}

fn lookup_report(error: &LookupError) -> (LoginFailureReason, Report) {
    tracing::warn!(%error, "a role could not be looked up");
    let report = match error {
        LookupError::NoSuchDatabase(text) => {
            return (LoginFailureReason::UnknownDatabase, Report::fatal(SqlState::INVALID_CATALOG_NAME, text.clone()));
        }
        LookupError::Off | LookupError::PermissionDenied { .. } | LookupError::WrongShape(_) => {
            Report::fatal(SqlState::INVALID_AUTHORIZATION, "the role could not be looked up")
                .hint("pgyard's log says why; see lookup_query in its documentation.")
        }
        LookupError::Unavailable(_) | LookupError::Busy => {
            Report::fatal(SqlState::CANNOT_CONNECT_NOW, "the role could not be looked up: no server answers")
                .hint("See `SHOW HOSTS` in the console.")
        }
    };
    (LoginFailureReason::Lookup, report)
}
