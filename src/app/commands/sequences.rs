//! `pgyard sequences`: gives the sequences of sharded tables steps by which no two shards give the same value, and installs
//! `pgyard.unique_id()`.

use super::connection::CommandError;
use super::coordinator::{chosen, connect};
use super::outcome;
use crate::app::arguments::SequencesArguments;
use crate::cluster::control::describe_error;
use crate::config;
use crate::sequences::{SequencePlan, arrange};
use std::process::ExitCode;

/// Does it, or shows what would be done.
pub fn run(arguments: &SequencesArguments) -> ExitCode {
    outcome(set_up(arguments))
}

fn set_up(arguments: &SequencesArguments) -> Result<String, CommandError> {
    let loaded = config::load(&arguments.file, &|name| std::env::var(name).ok())?;
    let (name, sharding) = chosen(&loaded.settings.databases, arguments.database.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connections = Vec::new();
        for shard in &sharding.shards {
            connections.push(connect(shard).await?);
        }
        let shards: Vec<_> =
            sharding.map.shards.iter().map(String::as_str).zip(connections.iter().map(|connection| &connection.client)).collect();
        let outcome = arrange(&shards, &sharding.map, !arguments.apply).await;
        let plan = outcome.map_err(|error| CommandError::Refused(describe_error(&error)))?;
        Ok(told(name, &sharding.map.shards, &plan, arguments.apply))
    })
}

/// What was done or would be done.
fn told(database: &str, shards: &[String], plan: &SequencePlan, applied: bool) -> String {
    let changed = plan.statements.first().map_or(0, |statements| statements.len().saturating_sub(1));
    let mut lines = Vec::new();
    if !applied {
        for (shard, statements) in shards.iter().zip(&plan.statements) {
            lines.push(format!("-- on shard {shard}"));
            lines.extend(statements.iter().map(|statement| format!("{};", statement.trim_end_matches(';'))));
            lines.push(String::new());
        }
    }
    lines.extend(plan.left.iter().map(|left| format!("left alone: {left}")));
    let (verb, end) = match applied {
        true => ("now go", "; pgyard.unique_id() is there"),
        false => ("would go", "; pgyard.unique_id() would be made. Run it with --apply"),
    };
    lines.push(format!(
        "{database}: {changed} sequences {verb} by steps of {}, {} could not meet before{end}",
        shards.len(),
        plan.fine
    ));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told() {
        let shards = ["s0".to_owned(), "s1".to_owned()];
        let statements = |value: i64| vec!["make it;".to_owned(), format!("ALTER SEQUENCE x RESTART WITH {value}")];
        let plan = SequencePlan { statements: vec![statements(2), statements(3)], left: vec!["y cycles".into()], fine: 1 };
        let shown = told("shop", &shards, &plan, false);
        assert!(shown.starts_with("-- on shard s0\nmake it;\nALTER SEQUENCE x RESTART WITH 2;\n\n-- on shard s1\n"), "{shown}");
        assert!(shown.contains("left alone: y cycles\nshop: 1 sequences would go by steps of 2, 1 could not meet"), "{shown}");
        let done = told("shop", &shards, &plan, true);
        assert_eq!(
            done,
            "left alone: y cycles\nshop: 1 sequences now go by steps of 2, 1 could not meet before; pgyard.unique_id() is there"
        );
    }
}
