//! The command line and its environment variables. What is typed wins over what the environment says.

mod files;

pub use files::{CheckArguments, CoordinatorArguments, SequencesArguments};

use crate::config::{self, ConfigReport, Loaded, LogFormat, NamedChoice, QuickOptions};
use crate::demo::DemoOptions;
use clap::builder::TypedValueParser;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

mod reshard;
pub use reshard::{ReshardArguments, ReshardPair, ReshardStep, ReshardSwitch};

const ABOUT: &str = "A PostgreSQL proxy: one DATABASE_URL over a primary and its replicas";

const LONG_ABOUT: &str = "\
A PostgreSQL proxy: one DATABASE_URL over a primary and its replicas.

Writes go to the primary; reads are spread over the replicas that are healthy and fresh enough. Applications change nothing but \
their DATABASE_URL.";

const EXAMPLES: &str = "\
Examples:
  # try it: a local primary, two replicas, and pgyard in front of them
  pgyard demo

  # serve without a file; clients log in as any role of the primary, by its own password
  pgyard --primary postgres://pgyard:secret@10.0.0.1 --replica 10.0.0.2 --replica 10.0.0.3

  # serve with a file, and check it first
  pgyard check pgyard.toml
  pgyard check --live pgyard.toml
  pgyard --config pgyard.toml

  # where would this go, and why?
  pgyard route \"select * from orders where id = 7 for update\"

  # look at a running pgyard and change it
  pgyard status
  pgyard drain replica-1
  pgyard reload";

/// What pgyard was asked to do.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// The command with its options.
    pub command: Invocation,
}

#[derive(Debug, Parser)]
#[command(
    name = "pgyard",
    version,
    about = ABOUT,
    long_about = LONG_ABOUT,
    after_help = EXAMPLES,
    max_term_width = 110,
    subcommand_negates_reqs = true
)]
struct CommandLine {
    #[command(flatten)]
    serve: ServeArguments,
    #[command(subcommand)]
    command: Option<Invocation>,
}

/// A command.
#[derive(Clone, Debug, Subcommand)]
pub enum Invocation {
    /// Serve clients (this is the default command)
    Serve(ServeArguments),
    /// Check a configuration file, and say how it was understood
    Check(CheckArguments),
    /// Say where a statement would go, and why
    Route(RouteArguments),
    /// Show hosts, roles, lag and pools of a running pgyard
    Status(StatusArguments),
    /// Have a running pgyard read its configuration again
    Reload(ReloadArguments),
    /// Wait until running transactions have ended, and hold new ones
    Pause(PauseArguments),
    /// Let what was paused go on
    Resume(ResumeArguments),
    /// Take a host out of use for new statements
    Drain(DrainArguments),
    /// Put a drained host back
    Undrain(UndrainArguments),
    /// Make a sharded database's coordinator show what its shards have
    Coordinator(CoordinatorArguments),
    /// Move a sharded database's rows to other shards while clients go on
    #[command(after_help = reshard::STEPS)]
    Reshard(ReshardArguments),
    /// Have the sequences of sharded tables give every value on one shard only, and install pgyard.unique_id()
    Sequences(SequencesArguments),
    /// Start a local primary, replicas, and pgyard in front of them
    Demo(DemoArguments),
}

/// Options of `serve`. Where the settings come from is decided by [`ServeArguments::load`].
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct ServeArguments {
    /// Configuration file
    #[arg(short, long, value_name = "FILE", env = "PGYARD_CONFIG", value_parser = file_or_nothing())]
    pub config: Option<PathBuf>,
    /// Without a file: the primary; its user probes the hosts and looks up the clients' passwords
    #[arg(long, value_name = "URL", env = "PGYARD_PRIMARY", hide_env_values = true)]
    pub primary: Option<String>,
    /// Without a file: a replica, as URL or host:port; what it lacks is taken from the primary's URL (repeat for each; in the
    /// variable: separated by commas)
    #[arg(long = "replica", value_name = "URL", env = "PGYARD_REPLICAS", hide_env_values = true)]
    pub replicas: Vec<String>,
    /// Without a file: where clients connect [default: 127.0.0.1:6432] (repeat for several)
    #[arg(long, value_name = "ADDRESS", env = "PGYARD_LISTEN")]
    pub listen: Vec<String>,
    /// Without a file: where /metrics, health and the status page are served, or `off` [default: 127.0.0.1:9632]
    #[arg(long, value_name = "ADDRESS", env = "PGYARD_HTTP")]
    pub http: Option<String>,
    /// What is logged: a level, or a filter such as info,pgyard::session=debug
    #[arg(long, value_name = "FILTER", env = "PGYARD_LOG", value_parser = log_filter)]
    pub log: Option<String>,
    /// Shape of log lines: text or json
    #[arg(long, value_name = "FORMAT", env = "PGYARD_LOG_FORMAT", value_parser = log_format)]
    pub log_format: Option<LogFormat>,
}

/// Which running pgyard is meant.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetArguments {
    /// The console's URL (default: postgres://pgyard@127.0.0.1:6432/pgyard)
    #[arg(long, value_name = "URL", env = "PGYARD_ADMIN", hide_env_values = true)]
    pub admin: Option<String>,
    /// The configuration file that it runs with: tells address, user and password
    #[arg(short, long, value_name = "FILE", env = "PGYARD_CONFIG", value_parser = file_or_nothing())]
    pub config: Option<PathBuf>,
}

/// Options of `route`.
#[derive(Args, Clone, Debug)]
pub struct RouteArguments {
    /// The statement, or several separated by semicolons
    #[arg(value_name = "SQL")]
    pub sql: String,
    /// Ask a running pgyard, which knows the database's own functions and views
    #[arg(long, value_name = "URL", env = "PGYARD_ADMIN", hide_env_values = true)]
    pub admin: Option<String>,
    /// Without a running pgyard: a configuration file to go by
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The database that the statement is for; needed where there are several
    #[arg(short, long, value_name = "NAME")]
    pub database: Option<String>,
}

/// Options of `status`.
#[derive(Args, Clone, Debug)]
pub struct StatusArguments {
    /// Which pgyard.
    #[command(flatten)]
    pub target: TargetArguments,
}

/// Options of `reload`.
#[derive(Args, Clone, Debug)]
pub struct ReloadArguments {
    /// Which pgyard.
    #[command(flatten)]
    pub target: TargetArguments,
}

/// Options of `pause`.
#[derive(Args, Clone, Debug)]
pub struct PauseArguments {
    /// The database; all of them if none is named
    #[arg(value_name = "DATABASE")]
    pub database: Option<String>,
    /// Which pgyard.
    #[command(flatten)]
    pub target: TargetArguments,
}

/// Options of `resume`.
#[derive(Args, Clone, Debug)]
pub struct ResumeArguments {
    /// The database; all of them if none is named
    #[arg(value_name = "DATABASE")]
    pub database: Option<String>,
    /// Which pgyard.
    #[command(flatten)]
    pub target: TargetArguments,
}

/// Options of `drain`.
#[derive(Args, Clone, Debug)]
pub struct DrainArguments {
    /// The host, by its name or its address with port
    #[arg(value_name = "HOST")]
    pub host: String,
    /// Only where it serves this database
    #[arg(long = "in", value_name = "DATABASE")]
    pub database: Option<String>,
    /// Which pgyard.
    #[command(flatten)]
    pub target: TargetArguments,
}

/// Options of `undrain`.
#[derive(Args, Clone, Debug)]
pub struct UndrainArguments {
    /// The host, by its name or its address with port
    #[arg(value_name = "HOST")]
    pub host: String,
    /// Only where it serves this database
    #[arg(long = "in", value_name = "DATABASE")]
    pub database: Option<String>,
    /// Which pgyard.
    #[command(flatten)]
    pub target: TargetArguments,
}

/// Options of `demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArguments {
    /// Streaming replicas
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(0..=16))]
    pub replicas: usize,
    /// Shards: databases of these servers, with customers and orders spread over them [default: none]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(0..=16))]
    pub shards: usize,
    /// Where pgyard listens for clients
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6432")]
    pub listen: SocketAddr,
    /// Where pgyard serves metrics and health
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9632")]
    pub http: SocketAddr,
    /// Port of the primary; the replicas take the next ones [default: free ones]
    #[arg(long, value_name = "FIRST")]
    pub ports: Option<u16>,
    /// Keep the data when the demo ends
    #[arg(long)]
    pub keep: bool,
    /// Where the data lives; a named directory is always kept [default: a throw-away one]
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

/// A file's name. The empty one is for a variable that is set to nothing.
fn file_or_nothing() -> impl TypedValueParser<Value = PathBuf> {
    clap::builder::OsStringValueParser::new().map(PathBuf::from)
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    LogFormat::from_name(text).ok_or_else(|| "write text or json".to_owned())
}

fn log_filter(text: &str) -> Result<String, String> {
    let parsed = tracing_subscriber::EnvFilter::try_new(text);
    parsed.map(|_| text.to_owned()).map_err(|_| "write a level (error, warn, info, debug, trace) or a filter".to_owned())
}

/// Reads the command line; ends the process with a message when it makes no sense, or after `--help`.
pub fn parse() -> Arguments {
    read(std::env::args_os()).unwrap_or_else(|error| error.exit())
}

fn read(line: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Arguments, clap::Error> {
    let mut command = CommandLine::command();
    let matches = command.try_get_matches_from_mut(line)?;
    let parsed = CommandLine::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    let inner = matches.subcommand().map(|(_, inner)| inner);
    let wrong = |text: String| CommandLine::command().error(clap::error::ErrorKind::ArgumentConflict, text);
    if let (Some(_), Some(name)) = (&parsed.command, typed_before_command(&matches)) {
        return Err(wrong(format!("{name} has to stand behind the command")));
    }
    let mut invocation = parsed.command.unwrap_or(Invocation::Serve(parsed.serve));
    let matches = inner.unwrap_or(&matches);
    match &mut invocation {
        Invocation::Serve(serve) => settle_serve(serve, matches).map_err(wrong)?,
        Invocation::Status(StatusArguments { target })
        | Invocation::Reload(ReloadArguments { target })
        | Invocation::Pause(PauseArguments { target, .. })
        | Invocation::Resume(ResumeArguments { target, .. })
        | Invocation::Drain(DrainArguments { target, .. })
        | Invocation::Undrain(UndrainArguments { target, .. }) => settle_target(target, matches),
        Invocation::Route(route) if route.config.is_some() && !is_typed(matches, "admin") => route.admin = None,
        Invocation::Route(_) | Invocation::Check(_) | Invocation::Demo(_) => {}
        Invocation::Coordinator(_) | Invocation::Reshard(_) | Invocation::Sequences(_) => {}
    }
    Ok(Arguments { command: invocation })
}

fn is_typed(matches: &ArgMatches, id: &str) -> bool {
    matches.value_source(id) == Some(ValueSource::CommandLine)
}

const SERVE_OPTIONS: [(&str, &str); 7] = [
    ("config", "--config"),
    ("primary", "--primary"),
    ("replicas", "--replica"),
    ("listen", "--listen"),
    ("http", "--http"),
    ("log", "--log"),
    ("log_format", "--log-format"),
];

/// An option of `serve` that was typed in front of another command, where it would mean nothing.
fn typed_before_command(matches: &ArgMatches) -> Option<&'static str> {
    SERVE_OPTIONS.into_iter().find(|(id, _)| is_typed(matches, id)).map(|(_, name)| name)
}

/// What was typed wins over the environment; two sources of settings that are equally strong are an error.
fn settle_serve(serve: &mut ServeArguments, matches: &ArgMatches) -> Result<(), String> {
    for (list, id) in [(&mut serve.replicas, "replicas"), (&mut serve.listen, "listen")] {
        if !is_typed(matches, id) {
            *list = list.iter().flat_map(|text| text.split(',')).map(|part| part.trim().to_owned()).collect();
            list.retain(|part| !part.is_empty());
        }
    }
    // A variable that is set to nothing, as compose files do it, is not set.
    serve.config.take_if(|file| file.as_os_str().is_empty());
    for text in [&mut serve.primary, &mut serve.http, &mut serve.log] {
        text.take_if(|text| text.is_empty());
    }
    if serve.config.is_some() && serve.primary.is_some() {
        match (is_typed(matches, "config"), is_typed(matches, "primary")) {
            (true, false) => forget_hosts(serve, matches),
            (false, true) => serve.config = None,
            (true, true) => return Err("--config and --primary exclude each other: a file names its hosts itself".to_owned()),
            (false, false) => return Err("PGYARD_CONFIG and PGYARD_PRIMARY are both set: unset one of them".to_owned()),
        }
    }
    if serve.config.is_some() {
        let strange = [
            ("replicas", "--replica", "PGYARD_REPLICAS"),
            ("listen", "--listen", "PGYARD_LISTEN"),
            ("http", "--http", "PGYARD_HTTP"),
        ];
        for (id, name, variable) in strange {
            let left = match id {
                "replicas" => !serve.replicas.is_empty(),
                "listen" => !serve.listen.is_empty(),
                _ => serve.http.is_some(),
            };
            let given = left && matches.value_source(id).is_some();
            if given && is_typed(matches, id) {
                return Err(format!("{name} goes with --primary; with a file, write it there"));
            }
            if given && !is_typed(matches, "config") {
                return Err(format!("{variable} goes with PGYARD_PRIMARY; with a file, write it there and unset {variable}"));
            }
        }
        forget_hosts(serve, matches);
    }
    if serve.primary.is_none() && serve.config.is_none() {
        if !serve.replicas.is_empty() {
            return Err("--replica needs --primary".to_owned());
        }
        return Err("say what to serve: --config FILE, or --primary URL with --replica URL for each replica; \
            `pgyard demo` starts servers to try it with"
            .to_owned());
    }
    Ok(())
}

/// Leaves out of the environment what a file decides.
fn forget_hosts(serve: &mut ServeArguments, matches: &ArgMatches) {
    if is_typed(matches, "primary") {
        return;
    }
    serve.primary = None;
    for (list, id) in [(&mut serve.replicas, "replicas"), (&mut serve.listen, "listen")] {
        if !is_typed(matches, id) {
            list.clear();
        }
    }
    if !is_typed(matches, "http") {
        serve.http = None;
    }
}

/// A file that was typed wins over a URL out of the environment.
fn settle_target(target: &mut TargetArguments, matches: &ArgMatches) {
    target.admin.take_if(|url| url.is_empty());
    target.config.take_if(|file| file.as_os_str().is_empty());
    if is_typed(matches, "config") && !is_typed(matches, "admin") {
        target.admin = None;
    }
}

impl ServeArguments {
    /// Reads the settings that these options name; at a reload, once more.
    ///
    /// # Errors
    /// Every problem of the file or the options, as a listing for people.
    pub fn load(&self) -> Result<Loaded, ConfigReport> {
        let mut loaded = match &self.config {
            Some(file) => config::load(file, &|name| std::env::var(name).ok())?,
            None => {
                let settings = config::quick(&QuickOptions {
                    primary: self.primary.clone().unwrap_or_default(),
                    replicas: self.replicas.clone(),
                    listen: self.listen.clone(),
                    http: self.http.clone(),
                })?;
                Loaded { settings, warnings: Vec::new() }
            }
        };
        if let Some(filter) = &self.log {
            loaded.settings.log.filter.clone_from(filter);
        }
        if let Some(format) = self.log_format {
            loaded.settings.log.format = format;
        }
        Ok(loaded)
    }
}

impl DemoArguments {
    /// As the demo wants them.
    pub fn options(&self) -> DemoOptions {
        DemoOptions {
            replicas: self.replicas,
            shards: self.shards,
            listen: self.listen,
            http: self.http,
            first_port: self.ports,
            keep: self.keep,
            directory: self.directory.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
