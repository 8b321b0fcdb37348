//! What a text asks of the console.

use super::context::ShutdownMode;
use super::driver::{self, TransactionStep};
use super::table::ResultTable;
use super::words::{Word, statements};
use crate::types::SqlState;
use crate::wire::reply::Report;
use std::time::Duration;

/// Every command with what it does, as `SHOW HELP` lists them.
pub(super) const COMMANDS: [(&str, &str); 23] = [
    ("SHOW HOSTS", "hosts: role, whether in use and why not, lag, position, latency, circuit"),
    ("SHOW LAG", "how far each replica is behind, and the limits"),
    ("SHOW POOLS", "server connections per database, user and host, and who waits for them"),
    ("SHOW CLIENTS", "clients: what they do, on which host, and what pins them"),
    ("SHOW SERVERS", "server connections, in use and idle"),
    ("SHOW STATS", "transactions, queries, bytes and times per database, and queries by route"),
    ("SHOW DATABASES", "databases: hosts, pools, limits, whether paused"),
    ("SHOW USERS", "roles with their pools and clients, and the console's users"),
    ("SHOW CONFIG", "every setting, its default, and whether a reload applies a change"),
    ("SHOW ROUTE FOR 'sql' [IN database]", "where a text would go now, and why"),
    ("SHOW VERSION", "the version"),
    ("SHOW HELP", "this list"),
    ("RELOAD", "reads the configuration again; lists what changed and what needs a restart"),
    ("PAUSE [database]", "waits until running transactions have ended, and holds new ones"),
    ("RESUME [database]", "lets what was paused go on"),
    ("HOLD database milliseconds", "the same for a sharded database while its rows move: the hold ends by itself"),
    (
        "SERVE database BY other",
        "has the clients of a sharded database served by another one, and writes that into the configuration",
    ),
    ("DRAIN host [IN database]", "takes a host out of use for new statements"),
    ("UNDRAIN host [IN database]", "puts a drained host back"),
    ("KILL client", "ends a client, by its id in SHOW CLIENTS"),
    ("SHUTDOWN", "stops pgyard when running transactions have ended, at the latest after drain_timeout"),
    ("SHUTDOWN NOW", "stops pgyard at once"),
    ("BEGIN, SET, SELECT 1 ...", "what drivers send by themselves is answered, without effect"),
];

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ConsoleCommand {
    /// Nothing but spaces and comments.
    Empty,
    ShowHosts,
    ShowLag,
    ShowPools,
    ShowClients,
    ShowServers,
    ShowStats,
    ShowDatabases,
    ShowUsers,
    ShowConfig,
    ShowRoute {
        sql: String,
        database: Option<String>,
    },
    ShowVersion,
    ShowHelp,
    Reload,
    Pause(Option<String>),
    Resume(Option<String>),
    Hold {
        database: String,
        limit: Duration,
    },
    Serve {
        database: String,
        other: String,
    },
    Drain {
        host: String,
        database: Option<String>,
    },
    Undrain {
        host: String,
        database: Option<String>,
    },
    Kill(i32),
    Shutdown(ShutdownMode),
    /// A step of a transaction, of which the console has none.
    Transaction(TransactionStep),
    /// An answer that is always the same, such as that of `SELECT 1`.
    Constant(ResultTable, &'static str),
    /// Accepted without effect, such as SET.
    Accepted(&'static str),
    /// Forgets a prepared statement, or all of them.
    Deallocate(Option<String>),
}

impl ConsoleCommand {
    /// Whether it changes something, so that the log should say who did it.
    pub(super) fn is_action(&self) -> bool {
        use ConsoleCommand::{Drain, Hold, Kill, Pause, Reload, Resume, Serve, Shutdown, Undrain};
        matches!(
            self,
            Reload | Pause(_) | Resume(_) | Hold { .. } | Serve { .. } | Drain { .. } | Undrain { .. } | Kill(_) | Shutdown(_)
        )
    }
}

/// The commands of a text, in order.
///
/// # Errors
/// One of them is none: the report says which and what there is.
pub(super) fn parse(text: &str) -> Result<Vec<ConsoleCommand>, Report> {
    let all = statements(text).map_err(|error| Report::error(SqlState::SYNTAX_ERROR, error.to_string()))?;
    all.iter().map(|words| command(words)).collect()
}

fn command(words: &[Word]) -> Result<ConsoleCommand, Report> {
    if words.contains(&Word::Parameter) {
        return Err(Report::error(SqlState::FEATURE_NOT_SUPPORTED, "the console takes no parameters")
            .hint("Write the value into the command itself."));
    }
    let lead = words.first().and_then(Word::keyword).unwrap_or_default();
    let rest = words.get(1..).unwrap_or_default();
    let found = match lead.as_str() {
        "show" => show(rest)?,
        "reload" => rest.is_empty().then_some(ConsoleCommand::Reload),
        "pause" => optional_name(rest).map(ConsoleCommand::Pause),
        "resume" => optional_name(rest).map(ConsoleCommand::Resume),
        "hold" => match rest {
            [database, limit] => hold(database, limit),
            _ => None,
        },
        "serve" => match rest {
            [database, by, other] if by.is("by") => database
                .name()
                .zip(other.name())
                .map(|(database, other)| ConsoleCommand::Serve { database: database.to_owned(), other: other.to_owned() }),
            _ => None,
        },
        "drain" => host(rest).map(|(host, database)| ConsoleCommand::Drain { host, database }),
        "undrain" => host(rest).map(|(host, database)| ConsoleCommand::Undrain { host, database }),
        "kill" | "kill_client" => Some(ConsoleCommand::Kill(client(rest)?)),
        "shutdown" => match rest {
            [] => Some(ConsoleCommand::Shutdown(ShutdownMode::Drain)),
            [mode] if mode.is("now") => Some(ConsoleCommand::Shutdown(ShutdownMode::Now)),
            _ => None,
        },
        _ => driver::command(&lead, rest)?,
    };
    found.ok_or_else(|| unknown(words))
}

fn show(rest: &[Word]) -> Result<Option<ConsoleCommand>, Report> {
    if let [route, preposition, tail @ ..] = rest
        && route.is("route")
        && preposition.is("for")
    {
        return show_route(tail).map(Some);
    }
    let name: Option<Vec<String>> = rest.iter().map(Word::keyword).collect();
    let Some(name) = name else { return Ok(None) };
    Ok(match name.join(" ").as_str() {
        "hosts" => Some(ConsoleCommand::ShowHosts),
        "lag" => Some(ConsoleCommand::ShowLag),
        "pools" => Some(ConsoleCommand::ShowPools),
        "clients" => Some(ConsoleCommand::ShowClients),
        "servers" => Some(ConsoleCommand::ShowServers),
        "stats" => Some(ConsoleCommand::ShowStats),
        "databases" => Some(ConsoleCommand::ShowDatabases),
        "users" => Some(ConsoleCommand::ShowUsers),
        "config" => Some(ConsoleCommand::ShowConfig),
        "version" => Some(ConsoleCommand::ShowVersion),
        "help" => Some(ConsoleCommand::ShowHelp),
        parameter => driver::shown_parameter(parameter),
    })
}

fn show_route(tail: &[Word]) -> Result<ConsoleCommand, Report> {
    let usage = || {
        Report::error(SqlState::SYNTAX_ERROR, "SHOW ROUTE FOR needs a quoted text")
            .hint("Write SHOW ROUTE FOR 'select 1', or SHOW ROUTE FOR $$select 'a'$$ IN database.")
    };
    match tail {
        [Word::Text(sql)] => Ok(ConsoleCommand::ShowRoute { sql: sql.clone(), database: None }),
        [Word::Text(sql), preposition, database] if preposition.is("in") => {
            let database = database.name().ok_or_else(usage)?.to_owned();
            Ok(ConsoleCommand::ShowRoute { sql: sql.clone(), database: Some(database) })
        }
        _ => Err(usage()),
    }
}

fn optional_name(rest: &[Word]) -> Option<Option<String>> {
    match rest {
        [] => Some(None),
        [name] => Some(Some(name.name()?.to_owned())),
        _ => None,
    }
}

fn hold(database: &Word, limit: &Word) -> Option<ConsoleCommand> {
    let limit = limit.keyword()?.parse().ok().map(Duration::from_millis)?;
    Some(ConsoleCommand::Hold { database: database.name()?.to_owned(), limit })
}

fn host(rest: &[Word]) -> Option<(String, Option<String>)> {
    match rest {
        [host] => Some((host.name()?.to_owned(), None)),
        [host, preposition, database] if preposition.is("in") => {
            Some((host.name()?.to_owned(), Some(database.name()?.to_owned())))
        }
        _ => None,
    }
}

fn client(rest: &[Word]) -> Result<i32, Report> {
    let number = match rest {
        [word] => word.name().and_then(|name| name.parse().ok()),
        _ => None,
    };
    number.ok_or_else(|| {
        Report::error(SqlState::SYNTAX_ERROR, "KILL needs the number of a client").hint("It is the column id of SHOW CLIENTS.")
    })
}

/// What there is, with a guess at what was meant.
fn unknown(words: &[Word]) -> Report {
    let written: Vec<&str> = words.iter().filter_map(Word::name).collect();
    let written = written.join(" ").to_ascii_uppercase();
    let usual = |entry: &str| entry.split(['[', '\'']).next().unwrap_or_default().trim_end().to_owned();
    let close = |name: &String| strsim::damerau_levenshtein(name, &written);
    let guess = COMMANDS[..COMMANDS.len() - 1].iter().map(|(name, _)| usual(name)).min_by_key(close);
    let guess =
        guess.filter(|name| close(name) <= name.len() / 3).map(|name| format!("Did you mean {name}? ")).unwrap_or_default();
    let shown: String = written.chars().take(60).collect();
    Report::error(SqlState::SYNTAX_ERROR, format!("the console does not know \"{shown}\"")).hint(format!(
        "{guess}Commands: SHOW HOSTS, LAG, POOLS, CLIENTS, SERVERS, STATS, DATABASES, USERS, CONFIG, ROUTE FOR 'sql', VERSION, HELP; \
         RELOAD, PAUSE, RESUME, HOLD, SERVE, DRAIN, UNDRAIN, KILL, SHUTDOWN."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ConsoleCommand::*;

    fn check(text: &str, expect: &[ConsoleCommand]) {
        assert_eq!(parse(text).as_deref(), Ok(expect), "{text}");
    }

    fn fails(text: &str, state: SqlState, part: &str) {
        let report = parse(text).expect_err(text);
        let said = format!("{} {}", report.message, report.hint.clone().unwrap_or_default());
        assert!(report.state == state && said.contains(part), "{text}: {report:?}");
    }

    #[test]
    fn commands_are_read_in_any_case() {
        check("", &[]);
        check("SHOW HOSTS;", &[ShowHosts]);
        check("show Lag; sHOW pools", &[ShowLag, ShowPools]);
        check("show help", &[ShowHelp]);
        check("reload;", &[Reload]);
        check("PAUSE", &[Pause(None)]);
        check("pause app", &[Pause(Some("app".into()))]);
        check("resume \"My App\"", &[Resume(Some("My App".into()))]);
        check("hold shop 1500", &[Hold { database: "shop".into(), limit: Duration::from_millis(1500) }]);
        check("SERVE shop BY \"Shop 2\";", &[Serve { database: "shop".into(), other: "Shop 2".into() }]);
        check("drain replica-1", &[Drain { host: "replica-1".into(), database: None }]);
        check("UNDRAIN 10.0.0.1:5432 IN app;", &[Undrain { host: "10.0.0.1:5432".into(), database: Some("app".into()) }]);
        check("kill 17", &[Kill(17)]);
        check("KILL_CLIENT 17", &[Kill(17)]);
        check("shutdown", &[Shutdown(ShutdownMode::Drain)]);
        check("SHUTDOWN NOW", &[Shutdown(ShutdownMode::Now)]);
        let sql = "select ';'".to_owned();
        check("show route for 'select '';'''", &[ShowRoute { sql: sql.clone(), database: None }]);
        check("SHOW ROUTE FOR $$select ';'$$ IN app", &[ShowRoute { sql, database: Some("app".into()) }]);
    }

    #[test]
    fn every_listed_command_is_one() {
        for (name, _) in &COMMANDS[..COMMANDS.len() - 1] {
            let text = name
                .replace("'sql'", "'select 1'")
                .replace(['[', ']'], "")
                .replace("KILL client", "KILL 1")
                .replace("milliseconds", "100");
            assert_eq!(parse(&text).map(|all| all.len()), Ok(1), "{text}");
        }
    }

    #[test]
    fn what_is_no_command_is_explained() {
        fails("show hsots", SqlState::SYNTAX_ERROR, "Did you mean SHOW HOSTS?");
        fails("shwo pools", SqlState::SYNTAX_ERROR, "Did you mean SHOW POOLS?");
        fails("make coffee", SqlState::SYNTAX_ERROR, "Commands: SHOW HOSTS, LAG");
        fails("show", SqlState::SYNTAX_ERROR, "Commands:");
        fails("reload now", SqlState::SYNTAX_ERROR, "Commands:");
        fails("drain", SqlState::SYNTAX_ERROR, "Commands:");
        fails("drain a in", SqlState::SYNTAX_ERROR, "Commands:");
        fails("pause a b", SqlState::SYNTAX_ERROR, "Commands:");
        fails("hold shop", SqlState::SYNTAX_ERROR, "Commands:");
        fails("hold shop long", SqlState::SYNTAX_ERROR, "Commands:");
        fails("serve shop", SqlState::SYNTAX_ERROR, "Commands:");
        fails("serve shop with other", SqlState::SYNTAX_ERROR, "Commands:");
        fails("kill", SqlState::SYNTAX_ERROR, "SHOW CLIENTS");
        fails("kill somebody", SqlState::SYNTAX_ERROR, "SHOW CLIENTS");
        fails("kill 99999999999", SqlState::SYNTAX_ERROR, "SHOW CLIENTS");
        fails("show route for select", SqlState::SYNTAX_ERROR, "quoted text");
        fails("show route for 'a' in", SqlState::SYNTAX_ERROR, "quoted text");
        fails("show 'hosts", SqlState::SYNTAX_ERROR, "unterminated");
        fails("kill $1", SqlState::FEATURE_NOT_SUPPORTED, "takes no parameters");
        fails("show hosts; nonsense", SqlState::SYNTAX_ERROR, "NONSENSE");
        fails("select * from pg_class", SqlState::FEATURE_NOT_SUPPORTED, "no queries");
        fails(";'", SqlState::SYNTAX_ERROR, "unterminated");
        fails("(", SqlState::SYNTAX_ERROR, "Commands:");
    }
}
