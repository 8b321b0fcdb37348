//! Options of the commands that go by a configuration file and speak to servers themselves.

use clap::Args;
use std::path::PathBuf;

/// Options of `coordinator`.
#[derive(Args, Clone, Debug)]
pub struct CoordinatorArguments {
    /// Configuration file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Which database, if the file has several that are sharded
    #[arg(short, long, value_name = "NAME")]
    pub database: Option<String>,
}

/// Options of `sequences`.
#[derive(Args, Clone, Debug)]
pub struct SequencesArguments {
    /// Configuration file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Which database, if the file has several that are sharded
    #[arg(short, long, value_name = "NAME")]
    pub database: Option<String>,
    /// Do it; else it is only shown what would be done
    #[arg(long)]
    pub apply: bool,
}

/// Options of `check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArguments {
    /// Configuration file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Look at the servers too: hosts and their roles; of shards, whether definitions, copies and keys agree with the settings and with each other
    #[arg(long)]
    pub live: bool,
}
