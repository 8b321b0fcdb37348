//! The command line of `pgyard reshard`.

use crate::config;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

pub(super) const STEPS: &str = "\
In order:
  pgyard reshard run pgyard.toml shop shop_new       # copies and follows; stays
  pgyard reshard status pgyard.toml shop shop_new    # in another terminal
  pgyard reshard cutover pgyard.toml shop shop_new   # clients move
  pgyard reshard finish pgyard.toml shop shop_new    # or rollback

See docs/resharding.md.";

/// Options of `reshard`.
#[derive(Args, Clone, Debug)]
pub struct ReshardArguments {
    /// What is to be done.
    #[command(subcommand)]
    pub step: ReshardStep,
}

/// A step of moving rows to other shards.
#[derive(Clone, Debug, Subcommand)]
pub enum ReshardStep {
    /// Copy all rows, compare them, and follow the changes until the work is finished or rolled back; can be run again after any end
    Run(ReshardPair),
    /// Say how far it is
    Status(ReshardPair),
    /// Have the running worker compare all rows of both sides once more
    Verify(ReshardPair),
    /// Move clients to the target; from then on changes follow the other way
    Cutover(ReshardSwitch),
    /// Take everything back: clients return to the source, with all that they have written, and the target is emptied
    Rollback(ReshardSwitch),
    /// End the work for good, after the cut-over: there is no way back any more
    Finish(ReshardPair),
}

/// The two sharded databases of a configuration between which rows move.
#[derive(Args, Clone, Debug)]
pub struct ReshardPair {
    /// Configuration file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The sharded database that clients use
    #[arg(value_name = "SOURCE")]
    pub source: String,
    /// The sharded database whose shards take the rows
    #[arg(value_name = "TARGET")]
    pub target: String,
}

/// Options of `reshard cutover` and `reshard rollback`.
#[derive(Args, Clone, Debug)]
pub struct ReshardSwitch {
    /// Which databases.
    #[command(flatten)]
    pub pair: ReshardPair,
    /// The console of a pgyard whose clients move (repeat for each) [default: the one that the file leads to]
    #[arg(long, value_name = "URL")]
    pub admin: Vec<String>,
    /// Longest time for which clients are held; if it does not do, they go on as before
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = hold_time)]
    pub hold: Duration,
}

fn hold_time(text: &str) -> Result<Duration, String> {
    let time = config::parse_duration(text).map_err(|error| error.to_string())?;
    if (Duration::from_millis(100)..=Duration::from_secs(300)).contains(&time) {
        Ok(time)
    } else {
        Err("write a time from 100ms to 5m".to_owned())
    }
}
