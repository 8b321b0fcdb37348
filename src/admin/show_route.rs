//! SHOW ROUTE FOR: what a new session's request would need, and which host it would get now.

use super::context::ConsoleContext;
use super::show_hosts::upstreams;
use super::table::{Cell, cell, maybe};
use crate::cluster::{Balancer, Fleet, HostSet, PickRequest, Want, pick};
use crate::config::{DatabaseSettings, ReadsOnPrimary};
use crate::database::{ShardedDatabase, Upstream};
use crate::plan::{PlanWords, Planner, Schema};
use crate::route::{Need, SessionView, Target, decide};
use crate::shard::ShardMap;
use crate::sql::{Catalogue, Isolation, Lexing, StatementFacts, classify, explain, identifiers};
use crate::types::SqlState;
use crate::wire::reply::Report;
use std::sync::Arc;

pub(super) const COLUMNS: [&str; 7] = ["database", "route", "reason", "meaning", "host", "candidates", "explanation"];

/// What a text needs in a session that has just begun, and the lines that say why.
pub fn decide_text(sql: &str, catalogue: &Catalogue, split: bool, catalogue_is_current: bool) -> (Need, Vec<String>) {
    let facts = classify(sql.as_bytes(), catalogue, Lexing::default());
    let view = SessionView {
        split,
        setting: None,
        read_only_by_default: false,
        isolation_by_default: Isolation::ReadCommitted,
        catalogue_is_current,
    };
    let statements: Vec<&StatementFacts> = facts.statements.iter().collect();
    (decide(&view, facts.access, facts.hint, &statements), explain(&facts, sql))
}

/// What the text would be decided upon.
struct Surroundings {
    name: String,
    upstream: Arc<Upstream>,
    catalogue: Arc<Catalogue>,
    current: bool,
    /// The database is sharded; the rest is its first shard's.
    sharded: Option<Arc<ShardedDatabase>>,
}

pub(super) fn run(context: &ConsoleContext, sql: &str, database: Option<&str>) -> Result<Vec<Cell>, Report> {
    let place = surroundings(context, database)?;
    let settings = place.upstream.settings().clone();
    let (need, mut lines) = decide_text(sql, &place.catalogue, settings.routing.split, place.current);
    if !place.catalogue.is_complete() {
        lines.push(
            "the database's own functions, views and types are not known yet: what names them goes to the primary".to_owned(),
        );
    }
    let fleet = place.upstream.cluster.fleet().clone();
    let (host, candidates) = match (&place.sharded, chosen(&fleet, &settings, need.target)) {
        (Some(sharded), _) => {
            lines.extend(shard_lines(sharded, sql));
            (None, Vec::new())
        }
        (None, Ok(found)) => found,
        (None, Err(missing)) => {
            lines.push(missing);
            (None, Vec::new())
        }
    };
    let route = match need.target {
        Target::Primary => "primary",
        Target::Replica => "replica",
    };
    Ok(vec![
        cell(place.name),
        cell(route),
        cell(need.reason.label()),
        cell(need.reason.meaning()),
        maybe(host),
        cell(candidates.join(", ")),
        cell(lines.join("\n")),
    ])
}

/// Which shards answer, why, and how their answers are put together.
fn shard_lines(database: &ShardedDatabase, sql: &str) -> Vec<String> {
    let Some(schema) = database.schema().get() else { return vec!["the shards' schema is not known yet".to_owned()] };
    plan_lines(sql, (&schema, &database.first().catalogue()), &database.map())
}

/// A plan over shards in words.
pub fn plan_lines(sql: &str, (schema, catalogue): (&Schema, &Catalogue), map: &ShardMap) -> Vec<String> {
    let path = ["pg_catalog", "public"].map(str::to_owned);
    let planner = Planner { schema, catalogue, map, search_path: &path, lexing: Lexing::default() };
    let plan = planner.plan(sql);
    let mut lines = PlanWords { map, schema }.lines(&plan);
    if identifiers(sql.as_bytes()).any(|name| schema.depends_on_path(&name)) {
        lines.push(
            "names without a schema are taken for those of public; a session's own search path may say otherwise".to_owned(),
        );
    }
    lines
}

/// The host that such a request would get, and all that it might get. Takes no turn of the real balancer's.
fn chosen(fleet: &Fleet, settings: &DatabaseSettings, target: Target) -> Result<(Option<String>, Vec<String>), String> {
    let want = if target == Target::Primary { Want::Primary } else { Want::Read };
    let reads_on_primary = settings.routing.reads_on_primary;
    let request = PickRequest {
        want,
        floor: None,
        max_lag: None,
        excluded: HostSet::NONE,
        reads_on_primary,
        client_hash: rand::random(),
        crowded: None,
    };
    let balancer = Balancer::new(settings.routing.balance, rand::random());
    let index = pick(fleet, &balancer, &request).map_err(|missing| missing.explain(fleet))?;
    let name = |index: usize| fleet.hosts.get(index).map(|view| view.host.settings.name.clone());
    let mut candidates: Vec<usize> = match want {
        Want::Primary => vec![index],
        Want::Read => fleet.eligible.to_vec(),
    };
    if want == Want::Read && (reads_on_primary == ReadsOnPrimary::Always || candidates.is_empty()) {
        candidates.extend(fleet.primary);
    }
    Ok((name(index), candidates.into_iter().filter_map(name).collect()))
}

fn surroundings(context: &ConsoleContext, database: Option<&str>) -> Result<Surroundings, Report> {
    let all = context.directory.all();
    let (sharded, plain) = (context.directory.all_sharded(), all.iter().filter(|database| !database.name.contains('/')).count());
    let wanted = match database {
        // Another one may serve its clients.
        Some(name) => context.directory.sharded(name),
        None if plain == 0 && sharded.len() == 1 => sharded.first().cloned(),
        None => None,
    };
    if let Some(wanted) = wanted {
        let first = wanted.first();
        return Ok(Surroundings {
            name: wanted.name.to_string(),
            upstream: first.upstream().clone(),
            catalogue: first.catalogue(),
            current: first.catalogue_is_current(),
            sharded: Some(wanted),
        });
    }
    let found = match database {
        Some(name) => all.iter().find(|database| &*database.name == name),
        None if all.len() == 1 => all.first(),
        None => None,
    };
    if let Some(database) = found {
        return Ok(Surroundings {
            name: database.name.to_string(),
            upstream: database.upstream().clone(),
            catalogue: database.catalogue(),
            current: database.catalogue_is_current(),
            sharded: None,
        });
    }
    // A name that only `*` serves and that no client has used yet: its catalogue has not been read.
    let wildcard = upstreams(context).into_iter().find(|(name, _)| name == "*").map(|(_, upstream)| upstream);
    match (database, wildcard) {
        (Some(name), Some(upstream)) => Ok(fresh(name, upstream)),
        (None, Some(upstream)) if all.is_empty() => Ok(fresh("*", upstream)),
        (Some(name), None) => Err(Report::error(SqlState::INVALID_CATALOG_NAME, format!("database \"{name}\" does not exist"))
            .hint("SHOW DATABASES lists them.")),
        (None, _) => {
            let names: Vec<&str> = all.iter().map(|database| &*database.name).collect();
            Err(Report::error(SqlState::INVALID_CATALOG_NAME, "which database?")
                .detail(format!("There are: {}.", names.join(", ")))
                .hint("Write SHOW ROUTE FOR '...' IN database."))
        }
    }
}

fn fresh(name: &str, upstream: Arc<Upstream>) -> Surroundings {
    Surroundings { name: name.to_owned(), catalogue: upstream.builtin(), upstream, current: true, sharded: None }
}
