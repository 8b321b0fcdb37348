//! `pgyard`: reads the command line and leaves the rest to the library.

use pgyard::app::arguments::{Invocation, ServeArguments, parse};
use pgyard::app::{commands, demo, logging, serve};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = parse();
    if let Some(code) = commands::run(&arguments.command) {
        return code;
    }
    let outcome = match &arguments.command {
        Invocation::Demo(options) => demo::demo(&options.options()).map_err(|error| error.to_string()),
        Invocation::Serve(options) => run(options),
        // `commands::run` has answered all others.
        _ => Ok(()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{}", message.trim_end());
            ExitCode::FAILURE
        }
    }
}

fn run(options: &ServeArguments) -> Result<(), String> {
    let loaded = options.load().map_err(|report| report.to_string())?;
    let log = logging::start(&loaded.settings.log).map_err(|error| format!("error: {error}"))?;
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{}", warning.summary()));
    serve::serve(loaded.settings, Some(options.clone()), log, || {}).map_err(|error| format!("error: {error}"))
}
