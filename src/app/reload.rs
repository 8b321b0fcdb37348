//! Applying a changed configuration to a running pgyard.

use super::logging::LogFilter;
use super::yard::{Yard, session_limits, warn_of_risks};
use crate::config::{ReloadPlan, diff};
use crate::net::tls::{ClientTls, ServerTls, TlsError};
use crate::session::Front;
use std::sync::Arc;

/// Why a reload was refused; everything goes on as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// There is nothing to read.
    #[error("pgyard was started without a configuration file, so there is nothing to reload")]
    NoFile,
    /// The file has errors.
    #[error("the configuration was not reloaded:\n{0}")]
    File(crate::config::ConfigReport),
    /// The TLS files can't be used.
    #[error("the configuration was not reloaded: {0}")]
    Tls(#[from] TlsError),
    /// The log filter is malformed.
    #[error("the configuration was not reloaded: {0}")]
    Log(#[from] super::logging::LogError),
    /// pgyard is ending.
    #[error("pgyard is ending")]
    Ending,
}

/// Reads the file again and applies what can change. Nobody is disconnected.
///
/// # Errors
/// See [`ReloadError`].
pub async fn reload(yard: &Arc<Yard>, front: &Arc<Front>, log: &LogFilter) -> Result<ReloadPlan, ReloadError> {
    let _alone = yard.reloading.lock().await;
    let outcome = apply(yard, front, log).await;
    match &outcome {
        Ok(plan) => {
            front.metrics.config_reloads.increment();
            tracing::info!(changed = plan.changed.len(), "configuration reloaded");
            plan.changed.iter().for_each(|line| tracing::info!("changed: {line}"));
            plan.needs_restart.iter().for_each(|line| tracing::warn!("needs a restart, not applied: {line}"));
        }
        Err(error) => {
            front.metrics.config_reload_failures.increment();
            tracing::error!("{error}");
        }
    }
    outcome
}

async fn apply(yard: &Arc<Yard>, front: &Arc<Front>, log: &LogFilter) -> Result<ReloadPlan, ReloadError> {
    let source = yard.source.clone().filter(|source| source.config.is_some()).ok_or(ReloadError::NoFile)?;
    let read = tokio::task::spawn_blocking(move || source.load());
    let loaded = read.await.map_err(|_| ReloadError::Ending)?.map_err(ReloadError::File)?;
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{}", warning.summary()));
    let old = yard.settings.load_full();
    let mut new = loaded.settings;
    let plan = diff(&old, &new);
    // What needs a restart stays what it is.
    new.listen.clone_from(&old.listen);
    new.http = old.http;
    new.workers = old.workers;
    new.log.format = old.log.format;
    // Everything that can fail comes first.
    let tls = new.tls.as_ref().map(ClientTls::load).transpose()?;
    for host in new.databases.iter().flat_map(|database| database.all_hosts()) {
        ServerTls::load(&host.tls)?;
    }
    log.replace(&new.log)?;
    warn_of_risks(&new);
    let upstreams = yard.upstreams_for(&new).await?;
    front.tls.store(tls);
    front.apply(new.front.clone());
    front.admin.store(Arc::new(new.admin.clone()));
    front.limits.store(Arc::new(session_limits(&new)));
    yard.directory.apply(upstreams);
    yard.settings.store(Arc::new(new));
    Ok(plan)
}
