//! From a command to its answer.

use super::command::ConsoleCommand;
use super::context::ConsoleContext;
use super::table::ResultTable;
use super::{
    drain, hold, kill, pause, reload, show_clients, show_config, show_databases, show_hosts, show_lag, show_pools, show_route,
};
use super::{show_help, show_servers, show_stats, show_users, show_version, shutdown};
use crate::types::SqlState;
use crate::wire::reply::{Report, ReportSeverity};
use tokio::sync::mpsc;

/// The answer to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Rows, and the tag behind them.
    Table(ResultTable, &'static str),
    /// A tag only.
    Done(&'static str),
}

/// Where a command that takes its time says how far it is.
#[derive(Clone, Debug)]
pub(super) struct Progress(mpsc::Sender<Report>);

/// Notices that may wait to be sent: each one makes those before it old.
const NOTICES_MAX: usize = 8;

impl Progress {
    pub(super) fn new() -> (Self, mpsc::Receiver<Report>) {
        let (sender, receiver) = mpsc::channel(NOTICES_MAX);
        (Progress(sender), receiver)
    }

    /// Tells the operator. What does not fit is left out.
    pub(super) fn say(&self, text: impl Into<String>) {
        let report = Report { severity: ReportSeverity::Warning, ..Report::error(SqlState(*b"01000"), text) };
        // The operator does not read as fast as this is said, or has gone.
        let _ = self.0.try_send(report);
    }
}

impl ConsoleCommand {
    /// The columns of its answer; `None` if it has none.
    pub(super) fn table(&self) -> Option<ResultTable> {
        use ConsoleCommand as C;
        let columns: &[&'static str] = match self {
            C::ShowHosts => &show_hosts::COLUMNS,
            C::ShowLag => &show_lag::COLUMNS,
            C::ShowPools => &show_pools::COLUMNS,
            C::ShowClients => &show_clients::COLUMNS,
            C::ShowServers => &show_servers::COLUMNS,
            C::ShowStats => &show_stats::COLUMNS,
            C::ShowDatabases => &show_databases::COLUMNS,
            C::ShowUsers => &show_users::COLUMNS,
            C::ShowConfig => &show_config::COLUMNS,
            C::ShowRoute { .. } => &show_route::COLUMNS,
            C::ShowVersion => &show_version::COLUMNS,
            C::ShowHelp => &show_help::COLUMNS,
            C::Reload => &reload::COLUMNS,
            C::Drain { .. } | C::Undrain { .. } => &drain::COLUMNS,
            C::Constant(table, _) => return Some(ResultTable { columns: table.columns.clone(), rows: Vec::new() }),
            C::Empty
            | C::Pause(_)
            | C::Resume(_)
            | C::Hold { .. }
            | C::Serve { .. }
            | C::Kill(_)
            | C::Shutdown(_)
            | C::Transaction(_)
            | C::Accepted(_)
            | C::Deallocate(_) => return None,
        };
        Some(ResultTable::new(columns))
    }

    /// Carries it out. Transactions and prepared statements are the conversation's: to them this only says their tag.
    pub(super) async fn run(&self, context: &ConsoleContext, progress: &Progress) -> Result<Answer, Report> {
        use ConsoleCommand as C;
        let Some(table) = self.table() else { return self.act(context, progress).await };
        let fill: Filling = match self {
            C::ShowHosts => show_hosts::fill,
            C::ShowLag => show_lag::fill,
            C::ShowPools => show_pools::fill,
            C::ShowClients => show_clients::fill,
            C::ShowServers => show_servers::fill,
            C::ShowStats => show_stats::fill,
            C::ShowDatabases => show_databases::fill,
            C::ShowUsers => show_users::fill,
            C::ShowConfig => show_config::fill,
            C::ShowVersion => show_version::fill,
            C::ShowHelp => show_help::fill,
            C::ShowRoute { sql, database } => {
                return show_route::run(context, sql, database.as_deref()).map(|row| with(table, vec![row], "SHOW"));
            }
            C::Reload => return reload::run(context).await.map(|rows| with(table, rows, "RELOAD")),
            C::Drain { host, database } => {
                let rows = drain::run(context, host, database.as_deref(), true, progress).await?;
                return Ok(with(table, rows, "DRAIN"));
            }
            C::Undrain { host, database } => {
                let rows = drain::run(context, host, database.as_deref(), false, progress).await?;
                return Ok(with(table, rows, "UNDRAIN"));
            }
            C::Constant(constant, tag) => return Ok(Answer::Table(constant.clone(), tag)),
            _ => return self.act(context, progress).await,
        };
        let mut table = table;
        fill(context, &mut table);
        Ok(Answer::Table(table, "SHOW"))
    }

    async fn act(&self, context: &ConsoleContext, progress: &Progress) -> Result<Answer, Report> {
        use ConsoleCommand as C;
        match self {
            C::Pause(database) => pause::pause(context, database.as_deref(), progress).await.map(|()| Answer::Done("PAUSE")),
            C::Resume(database) => pause::resume(context, database.as_deref()).map(|()| Answer::Done("RESUME")),
            C::Hold { database, limit } => hold::hold(context, database, *limit).await.map(|()| Answer::Done("HOLD")),
            C::Serve { database, other } => hold::serve(context, database, other).await.map(|()| Answer::Done("SERVE")),
            C::Kill(client) => kill::run(context, *client).map(|()| Answer::Done("KILL")),
            C::Shutdown(mode) => {
                shutdown::run(context, *mode);
                Ok(Answer::Done("SHUTDOWN"))
            }
            C::Accepted(tag) => Ok(Answer::Done(tag)),
            C::Deallocate(_) => Ok(Answer::Done("DEALLOCATE")),
            C::Transaction(step) => Ok(Answer::Done(step.tag())),
            _ => Ok(Answer::Done("")),
        }
    }
}

/// Fills a table from live state; awaits nothing.
type Filling = fn(&ConsoleContext, &mut ResultTable);

fn with(mut table: ResultTable, rows: Vec<Vec<super::table::Cell>>, tag: &'static str) -> Answer {
    rows.into_iter().for_each(|row| table.push(row));
    Answer::Table(table, tag)
}
