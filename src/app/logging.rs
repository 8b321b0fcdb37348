//! Logging: text or JSON lines on standard error, with a filter that a reload may replace.

use crate::config::{LogFormat, LogSettings};
use std::io::IsTerminal;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

/// Replaces the filter of a running pgyard.
#[derive(Clone, Debug)]
pub struct LogFilter(reload::Handle<EnvFilter, Registry>);

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is malformed.
    #[error("log.level \"{filter}\" is not a filter: {source}; try \"info\", \"debug\" or \"info,pgyard::session=debug\"")]
    Filter {
        /// What was configured.
        filter: String,
        /// What is wrong.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something else logs already.
    #[error("logging is set up already")]
    Taken,
}

fn filter(text: &str) -> Result<EnvFilter, LogError> {
    // hyper warns of every idle connection that it closes.
    let full = format!("hyper=error,{text}");
    EnvFilter::try_new(full).map_err(|source| LogError::Filter { filter: text.to_owned(), source })
}

/// Starts logging.
///
/// # Errors
/// See [`LogError`].
pub fn start(settings: &LogSettings) -> Result<LogFilter, LogError> {
    let (filter, handle) = reload::Layer::new(filter(&settings.filter)?);
    let registry = tracing_subscriber::registry().with(filter);
    let started = match settings.format {
        LogFormat::Text => {
            let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
            registry.with(lines).try_init()
        }
        LogFormat::Json => registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init(),
    };
    started.map_err(|_| LogError::Taken)?;
    Ok(LogFilter(handle))
}

impl LogFilter {
    /// Applies another filter.
    ///
    /// # Errors
    /// The filter is malformed; the old one stays.
    pub fn replace(&self, settings: &LogSettings) -> Result<(), LogError> {
        let new = filter(&settings.filter)?;
        self.0.reload(new).map_err(|_| LogError::Taken)
    }
}
