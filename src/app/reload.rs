//! Applying a changed configuration to a running pgyard.

use super::arguments::ServeArguments;
use super::logging::LogFilter;
use super::yard::{Yard, session_limits, set_sharded, warn_of_risks};
use crate::config::{ReloadPlan, ShardingSettings, diff, set_served_by};
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
    /// The file can't be written.
    #[error("{} can't be written: {source}", file.display())]
    Write {
        /// Which.
        file: std::path::PathBuf,
        /// What failed.
        source: std::io::Error,
    },
    /// The file is written in a way in which the line can't be put by itself.
    #[error("{}", by_hand(database, line.as_deref()))]
    ByHand {
        /// The database.
        database: String,
        /// What serves it.
        line: Option<String>,
    },
    /// pgyard is ending.
    #[error("pgyard is ending")]
    Ending,
}

fn by_hand(database: &str, other: Option<&str>) -> String {
    match other {
        Some(other) => format!("write served_by = \"{other}\" into the section [databases.{database}] yourself, and reload"),
        None => format!("take served_by out of the section [databases.{database}] yourself, and reload"),
    }
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

/// Writes into the configuration's file which sharded database serves another one's clients, and applies that and whatever else has changed in it.
///
/// # Errors
/// See [`ReloadError`]; the file is as it was, unless it could be written and then not be applied.
pub async fn serve_by(
    yard: &Arc<Yard>,
    (front, log): (&Arc<Front>, &LogFilter),
    (database, other): (&str, Option<&str>),
) -> Result<(), ReloadError> {
    let _alone = yard.reloading.lock().await;
    let source = yard.source.clone().filter(|source| source.config.is_some()).ok_or(ReloadError::NoFile)?;
    let (name, target) = (database.to_owned(), other.map(str::to_owned));
    let written = tokio::task::spawn_blocking(move || write_served_by(&source, &name, target.as_deref()));
    written.await.map_err(|_| ReloadError::Ending)??;
    apply(yard, front, log).await?;
    front.metrics.config_reloads.increment();
    tracing::info!(database, served_by = other.unwrap_or(database), "clients are served by another sharded database");
    Ok(())
}

/// Replaces the file by one that differs in this alone: its settings are read and compared before.
fn write_served_by(source: &ServeArguments, database: &str, other: Option<&str>) -> Result<(), ReloadError> {
    let Some(file) = &source.config else { return Err(ReloadError::NoFile) };
    let failed = |source: std::io::Error| ReloadError::Write { file: file.clone(), source };
    let text = std::fs::read_to_string(file).map_err(failed)?;
    let by_hand = || ReloadError::ByHand { database: database.to_owned(), line: other.map(str::to_owned) };
    let new = set_served_by(&text, database, other).ok_or_else(by_hand)?;
    if new == text {
        return Ok(());
    }
    let mut expect = source.load().map_err(ReloadError::File)?.settings;
    for settings in &mut expect.databases {
        let Some(sharding) = settings.sharding.as_ref().filter(|_| settings.name == database) else { continue };
        let mut sharding = ShardingSettings::clone(sharding);
        sharding.served_by = other.map(str::to_owned);
        Arc::make_mut(settings).sharding = Some(Arc::new(sharding));
    }
    // Beside the file, so that it can be put in its place whole; with its owner and mode, as far as they can be kept.
    let mut beside = file.clone().into_os_string();
    beside.push(".new");
    let beside = std::path::PathBuf::from(beside);
    let outcome = write_whole(&beside, &new, file).map_err(failed).and_then(|()| {
        let found = ServeArguments { config: Some(beside.clone()), ..source.clone() }.load().map_err(ReloadError::File)?;
        if !diff(&expect, &found.settings).is_empty() {
            return Err(by_hand());
        }
        // A link stays one.
        let place = std::fs::canonicalize(file).map_err(failed)?;
        std::fs::rename(&beside, &place).map_err(failed)?;
        // The new name is there for good only when the directory is.
        place.parent().map_or(Ok(()), |directory| std::fs::File::open(directory)?.sync_all()).map_err(failed)
    });
    if outcome.is_err() {
        // What is left of it harms nobody.
        let _ = std::fs::remove_file(&beside);
    }
    outcome
}

fn write_whole(file: &std::path::Path, text: &str, like: &std::path::Path) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
    let old = std::fs::metadata(like)?;
    let mut new = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    // Whoever may write the file may not always give it away.
    let _ = fchown(&new, Some(old.uid()), Some(old.gid()));
    new.set_permissions(old.permissions())?;
    new.write_all(text.as_bytes())?;
    new.sync_all()
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
    set_sharded(&yard.directory, &yard.registry, &new);
    yard.settings.store(Arc::new(new));
    Ok(plan)
}
