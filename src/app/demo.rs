//! `pgyard demo`: a local fleet with pgyard in front of it, until Ctrl-C.

use super::logging;
use super::serve::{ServeError, serve};
use crate::config::{ConfigReport, QuickOptions, parse, quick};
use crate::demo::{
    DemoOptions, FleetError, sharded_configuration, sharded_welcome_text, start_fleet_with_progress, welcome_text,
};
use std::io::Write;

/// Why the demo could not run.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The fleet did not start.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// An address was not understood.
    #[error(transparent)]
    Config(#[from] ConfigReport),
    /// Logging could not be set up.
    #[error(transparent)]
    Log(#[from] logging::LogError),
    /// pgyard did not start.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Starts the fleet, then pgyard, and ends both on Ctrl-C or SIGTERM.
///
/// # Errors
/// See [`DemoError`]; nothing is left running.
pub fn demo(options: &DemoOptions) -> Result<(), DemoError> {
    let mut out = std::io::stdout();
    let fleet = start_fleet_with_progress(options, &mut out)?;
    let mut settings = match options.shards {
        0 => quick(&QuickOptions {
            primary: fleet.primary().superuser_url(),
            replicas: fleet.replicas().iter().map(|replica| replica.superuser_url()).collect(),
            listen: vec![options.listen.to_string()],
            http: Some(options.http.to_string()),
        })?,
        _ => parse(&sharded_configuration(&fleet, options), "the demo's configuration", &|_| None)?.settings,
    };
    settings.log.filter = std::env::var("PGYARD_LOG").unwrap_or_else(|_| "warn".to_owned());
    // Ctrl-C shall not wait long for a demo.
    settings.drain_timeout = std::time::Duration::from_secs(2);
    let log = logging::start(&settings.log)?;
    let welcome = match options.shards {
        0 => welcome_text(&fleet, options.listen, options.http),
        _ => sharded_welcome_text(&fleet, options),
    };
    // A terminal that is gone is no reason to stop.
    serve(settings, None, log, move || drop(writeln!(out, "{welcome}").and_then(|()| out.flush())))?;
    println!("stopping the servers ...");
    drop(fleet);
    Ok(())
}
