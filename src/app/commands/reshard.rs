//! `pgyard reshard`: moves a sharded database's rows to other shards.

use super::connection::{CommandError, ConsoleConnection, identifier, open_console};
use super::{complain, outcome, say};
use crate::app::arguments::{ReshardArguments, ReshardPair, ReshardStep, ReshardSwitch, TargetArguments};
use crate::config::{self, format_duration, format_size};
use crate::reshard::cutover::{self, YardControl};
use crate::reshard::state::{self, ReshardPhase};
use crate::reshard::worker::position;
use crate::reshard::{ReshardError, ReshardFlow, ReshardWorker};
use futures_util::future::join_all;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

/// Between two looks whether a comparison is done.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// For a worker to begin with a comparison that it was asked for.
const WORKER_MAX: Duration = Duration::from_secs(15);

/// Carries out one step.
pub fn run(arguments: &ReshardArguments) -> ExitCode {
    match &arguments.step {
        ReshardStep::Run(pair) => work(pair),
        ReshardStep::Status(pair) => outcome(with_flow(pair, async |flow| status(&flow).await)),
        ReshardStep::Verify(pair) => outcome(with_flow(pair, async |flow| verify(&flow).await)),
        ReshardStep::Cutover(switch) => outcome(with_flow(&switch.pair, async |flow| cut_over(&flow, switch).await)),
        ReshardStep::Rollback(switch) => outcome(with_flow(&switch.pair, async |flow| roll_back(&flow, switch).await)),
        ReshardStep::Finish(pair) => outcome(with_flow(pair, async |flow| finish(&flow).await)),
    }
}

fn with_flow<T>(pair: &ReshardPair, step: impl AsyncFnOnce(ReshardFlow) -> Result<T, CommandError>) -> Result<T, CommandError> {
    let loaded = config::load(&pair.file, &|name| std::env::var(name).ok())?;
    let flow = ReshardFlow::new(&loaded.settings, &pair.source, &pair.target).map_err(refused)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(step(flow))
}

fn refused(error: ReshardError) -> CommandError {
    CommandError::Refused(error.to_string())
}

/// Works until the end of the whole, or until it is told to stop.
fn work(pair: &ReshardPair) -> ExitCode {
    let ended = with_flow(pair, async |flow| {
        let mut tell = |line: String| say(&line);
        let worker = ReshardWorker::new(flow, &mut tell).await.map_err(refused)?;
        tokio::select! {
            ended = worker.run() => ended.map(|()| None).map_err(refused),
            _ = tokio::signal::ctrl_c() => Ok(Some("stopped; the same command takes the work up again")),
        }
    });
    match ended {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(last)) => {
            say(last);
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

async fn status(flow: &ReshardFlow) -> Result<String, CommandError> {
    let home = flow.home().await.map_err(refused)?;
    let Some(record) = state::record(&home, &flow.name).await.map_err(refused)? else {
        return Ok(format!("nothing is under way from {} to {}", flow.from.name, flow.to.name));
    };
    let mut lines = vec![match record.phase {
        ReshardPhase::Copying => format!("rows are being copied from {} to {}", flow.from.name, flow.to.name),
        ReshardPhase::Following => format!("{} has what {} has, and follows", flow.to.name, flow.from.name),
        ReshardPhase::Switched => format!("clients are on {}; {} follows", flow.to.name, flow.from.name),
    }];
    if !record.verified.is_empty() {
        lines.push(format!("last comparison: {}", record.verified));
    }
    if record.verify_wanted {
        lines.push("another comparison was asked for".to_owned());
    }
    let (name, from) = match record.phase {
        ReshardPhase::Switched => (flow.name.reverse(), &flow.to),
        _ => (flow.name.clone(), &flow.from),
    };
    for (shard, source) in from.connect().await.map_err(refused)?.iter().enumerate() {
        let slot = name.slot(shard);
        let confirmed = state::slot_position(source, &slot).await.map_err(refused)?;
        let now = position(source).await.map_err(refused)?;
        lines.push(match confirmed {
            Some(confirmed) => format!("{}: {} behind", source.shard, format_size(now.bytes_since(confirmed))),
            None => format!("{}: the slot {slot} is not there", source.shard),
        });
    }
    Ok(lines.join("\n"))
}

async fn verify(flow: &ReshardFlow) -> Result<String, CommandError> {
    let home = flow.home().await.map_err(refused)?;
    let name = crate::reshard::side::literal(&flow.name.to_string());
    let record = state::record(&home, &flow.name).await.map_err(refused)?;
    if record.is_none_or(|record| record.phase != ReshardPhase::Following) {
        let message = "the sides can be compared when everything was copied, and before the cut-over";
        return Err(CommandError::Refused(message.to_owned()));
    }
    home.execute(&format!("UPDATE pgyard.reshard SET verify_wanted = true, verified = '' WHERE flow = {name}"))
        .await
        .map_err(refused)?;
    let began = Instant::now();
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let record = state::record(&home, &flow.name).await.map_err(refused)?;
        let Some(record) = record else { return Err(CommandError::Refused("the work has ended".to_owned())) };
        if record.verify_wanted {
            let worker = cutover::has_worker(&home, &flow.name).await.map_err(refused)?;
            if !worker && began.elapsed() >= WORKER_MAX {
                return Err(CommandError::Refused("nobody compares: `pgyard reshard run` is not at work".to_owned()));
            }
        } else if record.verified.starts_with("all ") {
            return Ok(record.verified);
        } else {
            return Err(CommandError::Refused(record.verified));
        }
    }
}

async fn cut_over(flow: &ReshardFlow, switch: &ReshardSwitch) -> Result<String, CommandError> {
    let yards = Yards::of(switch);
    let report = cutover::cut_over(flow, &yards, switch.hold, &mut |line| say(&line)).await.map_err(refused)?;
    Ok(format!(
        "clients of {} are on {}; they were held for {}\n`pgyard reshard finish` ends the work, `pgyard reshard rollback` takes it back",
        flow.from.name,
        flow.to.name,
        format_duration(Duration::from_millis(report.held.as_millis() as u64))
    ))
}

async fn roll_back(flow: &ReshardFlow, switch: &ReshardSwitch) -> Result<String, CommandError> {
    let yards = Yards::of(switch);
    let mut last = String::new();
    cutover::roll_back(flow, &yards, switch.hold, &mut |line| last.push_str(&(line + "\n"))).await.map_err(refused)?;
    Ok(last)
}

async fn finish(flow: &ReshardFlow) -> Result<String, CommandError> {
    let mut last = String::new();
    cutover::finish(flow, &mut |line| last.push_str(&(line + "\n"))).await.map_err(refused)?;
    Ok(last)
}

/// The consoles of every pgyard whose clients move. They are opened when they are needed first.
struct Yards {
    targets: Vec<TargetArguments>,
    consoles: OnceCell<Vec<ConsoleConnection>>,
}

impl Yards {
    fn of(switch: &ReshardSwitch) -> Yards {
        let named = switch.admin.iter().map(|url| TargetArguments { admin: Some(url.clone()), config: None });
        let mut targets: Vec<TargetArguments> = named.collect();
        if targets.is_empty() {
            targets.push(TargetArguments { admin: None, config: Some(switch.pair.file.clone()) });
        }
        Yards { targets, consoles: OnceCell::new() }
    }

    async fn consoles(&self) -> Result<&Vec<ConsoleConnection>, ReshardError> {
        let open = async || {
            let mut consoles = Vec::new();
            for target in &self.targets {
                consoles.push(open_console(target).await?);
            }
            Ok(consoles)
        };
        self.consoles.get_or_try_init(open).await.map_err(|error: CommandError| ReshardError::Refused(error.to_string()))
    }

    /// Gives all of them a command; the error says which refused it.
    async fn tell(&self, command: &str) -> Result<(), ReshardError> {
        let consoles = self.consoles().await?;
        let answers = join_all(consoles.iter().map(|console| console.rows(command))).await;
        let failed = consoles.iter().zip(answers).filter_map(|(console, answer)| Some((console, answer.err()?)));
        let failed: Vec<String> = failed.map(|(console, error)| format!("pgyard at {}: {error}", console.address)).collect();
        if failed.is_empty() { Ok(()) } else { Err(ReshardError::Refused(failed.join("\n"))) }
    }
}

impl YardControl for Yards {
    async fn reach(&self) -> Result<(), ReshardError> {
        self.consoles().await.map(drop)
    }

    async fn hold(&self, database: &str, limit: Duration) -> Result<(), ReshardError> {
        let held = self.tell(&format!("HOLD {} {}", identifier(database), limit.as_millis())).await;
        if held.is_err() {
            self.resume(database).await?;
        }
        held
    }

    async fn resume(&self, database: &str) -> Result<(), ReshardError> {
        self.tell(&format!("RESUME {}", identifier(database))).await
    }

    async fn serve_by(&self, database: &str, other: Option<&str>) -> Result<(), ReshardError> {
        self.tell(&format!("SERVE {} BY {}", identifier(database), identifier(other.unwrap_or(database)))).await
    }
}
