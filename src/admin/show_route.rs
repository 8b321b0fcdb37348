//! SHOW ROUTE FOR: what a new session's request would need, and which host it would get now.

use super::context::ConsoleContext;
use super::show_hosts::upstreams;
use super::table::{Cell, cell, maybe};
use crate::cluster::{Balancer, Fleet, HostSet, PickRequest, Want, pick};
use crate::config::{DatabaseSettings, ReadsOnPrimary};
use crate::database::Upstream;
use crate::route::{Need, SessionView, Target, decide};
use crate::sql::{Catalogue, Isolation, Lexing, StatementFacts, classify, explain};
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
    let (host, candidates) = match chosen(&fleet, &settings, need.target) {
        Ok(found) => found,
        Err(missing) => {
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
        crowded: false,
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
    Surroundings { name: name.to_owned(), catalogue: upstream.builtin(), upstream, current: true }
}
