//! `pgyard demo`: a local fleet with pgyard in front of it, until Ctrl-C.

use super::logging;
use super::serve::{ServeError, serve};
use crate::config::{ConfigReport, QuickOptions, quick};
use crate::demo::{DemoOptions, FleetError, start_fleet_with_progress, welcome_text};
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
    let mut settings = quick(&QuickOptions {
        primary: fleet.primary().superuser_url(),
        replicas: fleet.replicas().iter().map(|replica| replica.superuser_url()).collect(),
        listen: vec![options.listen.to_string()],
        http: Some(options.http.to_string()),
    })?;
    settings.log.filter = std::env::var("PGYARD_LOG").unwrap_or_else(|_| "warn".to_owned());
    // Ctrl-C shall not wait long for a demo.
    settings.drain_timeout = std::time::Duration::from_secs(2);
    let log = logging::start(&settings.log)?;
    let welcome = welcome_text(&fleet, options.listen, options.http);
    // A terminal that is gone is no reason to stop.
    serve(settings, None, log, move || drop(writeln!(out, "{welcome}").and_then(|()| out.flush())))?;
    println!("stopping the servers ...");
    drop(fleet);
    Ok(())
}
