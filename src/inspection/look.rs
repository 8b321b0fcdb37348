//! Looks at the servers of one database.

use super::compare::compare;
use super::finding::{Finding, Inspection};
use super::hosts::{HOST_QUERY, HostDemands, HostFacts, SeenHost};
use super::map::{ReadShard, full_name, key_columns, without_place};
use super::read::{ReadRow, column, open, rows};
use super::shape::{SHAPE_QUERY, Shape};
use super::{contents, coordinator, hosts, map, numbers};
use crate::cluster::control::{ControlConnection, describe_error};
use crate::config::{COORDINATOR, DatabaseSettings, ShardingSettings};
use crate::coordinator::ShardServer;
use crate::plan::{SCHEMA_QUERY, Schema, SchemaRow};
use crate::sequences::apply::{SEQUENCES_QUERY, facts_query, names, read_facts};
use crate::shard::{KeySession, QualifiedName, TablePlace};
use std::collections::BTreeMap;
use tokio_postgres::Client;

/// Findings of one kind beyond which they are only counted.
const FINDINGS_MAX: usize = 200;

/// Roles that may log in, with a hash of what proves them, and whether the table of decisions is there or can be made.
const ROLES_QUERY: &str = "SELECT rolname, md5(rolpassword) FROM pg_authid WHERE rolcanlogin AND rolpassword IS NOT NULL";

/// Whether pgyard has its table of decisions on a shard, or may make it.
const DECISIONS_QUERY: &str =
    "SELECT to_regclass('pgyard.decisions') IS NOT NULL OR has_database_privilege(current_database(), 'CREATE')";

/// What was read of a shard's primary.
struct SeenShard {
    name: String,
    connection: ControlConnection,
    facts: HostFacts,
    host: String,
    shape: Shape,
    schema: Schema,
}

/// Looks at all servers of a database. It may take minutes where reference tables are large.
pub async fn inspect(database: &DatabaseSettings) -> Inspection {
    let mut inspection = Inspection::default();
    match &database.sharding {
        None => {
            let what = format!("database {}", database.name);
            look_at_hosts(&what, database, false, &mut inspection).await;
        }
        Some(sharding) => look_at_shards(database, sharding, &mut inspection).await,
    }
    inspection.findings.sort_by_key(|finding| finding.gravity);
    if inspection.findings.len() > FINDINGS_MAX {
        let more = inspection.findings.len() - FINDINGS_MAX;
        inspection.findings.truncate(FINDINGS_MAX);
        inspection.findings.push(Finding::problem(format!("and {more} more"), "mend these first"));
    }
    inspection
}

/// Looks at the hosts of one cluster; the connection to the one that takes writes, its name and facts.
async fn look_at_hosts(
    what: &str,
    database: &DatabaseSettings,
    prepares: bool,
    inspection: &mut Inspection,
) -> Option<(ControlConnection, String, HostFacts)> {
    let (mut seen, mut primary) = (Vec::new(), None);
    for host in &database.hosts {
        let opened = open(database, host).await;
        let facts = match &opened {
            Err(reason) => Err(reason.clone()),
            Ok(connection) => match rows(&connection.client, HOST_QUERY).await {
                Ok(rows) => rows.first().map(HostFacts::read).ok_or_else(|| "it answers nothing".to_owned()),
                Err(error) => Err(describe_error(&error)),
            },
        };
        let host = SeenHost { name: host.name.clone(), role: host.role, facts };
        inspection.seen.push(format!("{what}: {}", host.describe()));
        if let (Ok(connection), Ok(facts), None) = (opened, &host.facts, &primary)
            && host.is_primary()
        {
            primary = Some((connection, host.name.clone(), facts.clone()));
        }
        seen.push(host);
    }
    let looks_up = database.auth.lookup_query.as_deref().is_some_and(|query| query.contains("pg_authid"));
    let demands = HostDemands { connections: database.pool.max_per_host, looks_up, prepares };
    inspection.findings.extend(hosts::judge(what, &seen, demands));
    primary
}

async fn look_at_shards(database: &DatabaseSettings, sharding: &ShardingSettings, inspection: &mut Inspection) {
    let several = sharding.shards.len() > 1;
    let mut shards: Vec<Option<SeenShard>> = Vec::new();
    for (name, shard) in sharding.map.shards.iter().zip(&sharding.shards) {
        let what = format!("shard {name}");
        let primary = look_at_hosts(&what, shard, several, inspection).await;
        let seen = match primary {
            None => None,
            Some((connection, host, facts)) => match read_shard(&connection.client).await {
                Ok((shape, schema)) => Some(SeenShard { name: name.clone(), connection, facts, host, shape, schema }),
                Err(error) => {
                    let says = format!("{what}: its definitions can't be read from {host}: {}", describe_error(&error));
                    inspection.findings.push(Finding::problem(says, "see the server's log"));
                    None
                }
            },
        };
        shards.push(seen);
    }
    let named: Vec<_> = shards.iter().map(|shard| shard.as_ref().map(|shard| (shard.name.as_str(), &shard.shape))).collect();
    inspection.findings.extend(compare(&named, &sharding.map));
    let read: Vec<ReadShard<'_>> = shards
        .iter()
        .flatten()
        .map(|shard| ReadShard { shape: (shard.name.as_str(), &shard.shape), schema: &shard.schema })
        .collect();
    if read.len() == shards.len() {
        inspection.findings.extend(map::judge(&read, &sharding.map));
    }
    let without = without_place(&read, &sharding.map);
    if !without.is_empty() {
        inspection
            .seen
            .push(format!("tables without a place in the settings, which statements can't name: {}", without.join(", ")));
    }
    inspection.findings.extend(same_servers(database, sharding, &shards));
    look_at_rights(database, &shards, &mut inspection.findings).await;
    look_at_rows(sharding, &shards, &mut inspection.findings).await;
    look_at_sequences(sharding, &shards, &mut inspection.findings).await;
    if let Some(settings) = &sharding.coordinator {
        let primary = look_at_hosts(COORDINATOR, settings, false, inspection).await;
        if let (Some((connection, ..)), Some(Some(first))) = (primary, shards.first()) {
            look_at_coordinator(sharding, &first.shape, &connection.client, &mut inspection.findings).await;
        }
    }
}

async fn read_shard(client: &Client) -> Result<(Shape, Schema), tokio_postgres::Error> {
    let shape = Shape::from_rows(&rows(client, SHAPE_QUERY).await?);
    let schema = rows(client, SCHEMA_QUERY).await?;
    Ok((shape, Schema::from_rows(schema.into_iter().filter_map(|row| SchemaRow::try_from(row).ok()))))
}

/// Shards that are the same database, or copies of one.
fn same_servers(database: &DatabaseSettings, sharding: &ShardingSettings, shards: &[Option<SeenShard>]) -> Vec<Finding> {
    let name = |place: usize| {
        let settings = sharding.shards.get(place);
        settings.and_then(|shard| shard.server_name.clone()).unwrap_or_else(|| database.name.clone())
    };
    let mut findings = Vec::new();
    for (later, two) in shards.iter().enumerate() {
        for (earlier, one) in shards.iter().enumerate().take(later) {
            let (Some(one), Some(two)) = (one, two) else { continue };
            if one.facts.system.is_none() || one.facts.system != two.facts.system || name(earlier) != name(later) {
                continue;
            }
            let who = format!("shards {} and {}", one.name, two.name);
            findings.push(if one.facts.started == two.facts.started {
                Finding::problem(
                    format!("{who} are one and the same database \"{}\", by {} and {}", name(later), one.host, two.host),
                    "give one of them another host or another database",
                )
            } else {
                Finding::warning(
                    format!("{who} have the same system identifier: one server is a copy of the other"),
                    "make sure that it was promoted on purpose, and that rows which belong to the other shard were deleted",
                )
            });
        }
    }
    findings
}

/// What roles may do on each shard, and by which passwords.
async fn look_at_rights(database: &DatabaseSettings, shards: &[Option<SeenShard>], findings: &mut Vec<Finding>) {
    let mut roles: BTreeMap<String, BTreeMap<String, Vec<&str>>> = BTreeMap::new();
    let mut asked = Vec::new();
    for shard in shards.iter().flatten() {
        if shards.len() > 1
            && let Ok(rows) = rows(&shard.connection.client, DECISIONS_QUERY).await
            && rows.first().is_some_and(|row| column(row, 0) != "t")
        {
            findings.push(Finding::problem(
                format!("shard {}: pgyard may not make its table of decisions there", shard.name),
                "GRANT CREATE ON DATABASE to the role that probes it",
            ));
        }
        if !shard.facts.sees_passwords {
            continue;
        }
        if let Ok(rows) = rows(&shard.connection.client, ROLES_QUERY).await {
            asked.push(shard.name.as_str());
            for row in &rows {
                let proofs = roles.entry(column(row, 0).to_owned()).or_default();
                proofs.entry(column(row, 1).to_owned()).or_default().push(&shard.name);
            }
        }
    }
    let configured = |role: &str| {
        database.users.iter().any(|user| user.name == role && (user.server_password.is_some() || user.secret.is_some()))
    };
    for (role, proofs) in roles.iter().filter(|(role, _)| !configured(role)) {
        let there: usize = proofs.values().map(Vec::len).sum();
        let advice = "copy it from the first shard with its verifier: pg_dumpall --roles-only; or give pgyard its password";
        if proofs.len() > 1 {
            let groups: Vec<String> = proofs.values().map(|shards| shards.join(", ")).collect();
            let says = format!("role {role} has another password or salt on {}", groups.join(" than on "));
            findings.push(Finding::warning(says, advice));
        } else if there < asked.len() {
            let shards: Vec<&str> = proofs.values().flatten().copied().collect();
            findings.push(Finding::warning(format!("role {role} can log in on {} only", shards.join(", ")), advice));
        }
    }
}

/// Reference tables beside each other, and keys of sharded tables beside the map.
async fn look_at_rows(sharding: &ShardingSettings, shards: &[Option<SeenShard>], findings: &mut Vec<Finding>) {
    let Some(first) = shards.iter().flatten().next() else { return };
    let same_columns = |table: &QualifiedName| {
        let columns = |shard: &SeenShard| {
            let of = |(name, definition): (&str, &str)| (name.to_owned(), definition.to_owned());
            let order = shard.shape.get("order of columns", table, "").map(str::to_owned);
            (order, shard.shape.of_table("column", table).map(of).collect::<Vec<_>>())
        };
        shards.iter().flatten().all(|shard| columns(shard) == columns(first))
    };
    for table in first.shape.tables() {
        match sharding.map.place(table) {
            Some(TablePlace::Reference) if same_columns(table) => {
                let mut copies = Vec::new();
                for shard in shards.iter().flatten() {
                    match rows(&shard.connection.client, &contents::copy_query(table)).await {
                        Ok(rows) => copies.extend(rows.first().map(|row| {
                            (shard.name.as_str(), (column(row, 0).parse().unwrap_or_default(), column(row, 1).to_owned()))
                        })),
                        Err(error) => findings.push(unread(table, shard, &error)),
                    }
                }
                findings.extend(contents::judge_copies(table, &copies));
            }
            Some(TablePlace::Sharded(sharded)) => {
                for (place, shard) in shards.iter().enumerate() {
                    let Some(shard) = shard else { continue };
                    let Ok(columns) = key_columns(sharded, &shard.schema) else { continue };
                    match rows(&shard.connection.client, &contents::sample_query(sharded)).await {
                        Ok(rows) => {
                            let session = KeySession::new("UTC", "UTF8", shard.shape.encoding());
                            let judged = contents::judge_sample((sharded, &columns), &sharding.map.shards, place, &rows, session);
                            findings.extend(judged);
                        }
                        Err(error) => findings.push(unread(table, shard, &error)),
                    }
                }
            }
            _ => {}
        }
    }
}

/// Whether sequences of sharded tables may give the same values on two shards.
async fn look_at_sequences(sharding: &ShardingSettings, shards: &[Option<SeenShard>], findings: &mut Vec<Finding>) {
    let text = |row: &ReadRow| (0..row.len()).map(|place| column(row, place).to_owned()).collect::<Vec<_>>();
    let Some(first) = shards.iter().flatten().next() else { return };
    let Ok(found) = rows(&first.connection.client, SEQUENCES_QUERY).await else { return };
    for sequence in names(&found.iter().map(text).collect::<Vec<_>>(), &sharding.map) {
        let mut facts = Vec::new();
        for shard in shards.iter().flatten() {
            // One that is not there is told with its column's default.
            let Ok(found) = rows(&shard.connection.client, &facts_query(&sequence.sequence)).await else { continue };
            facts.extend(found.first().and_then(|row| Some((shard.name.as_str(), read_facts(&text(row))?))));
        }
        findings.extend(numbers::judge(&sequence, &facts));
    }
}

fn unread(table: &QualifiedName, shard: &SeenShard, error: &tokio_postgres::Error) -> Finding {
    Finding::warning(
        format!("the rows of {} could not be looked at on {}: {}", full_name(table), shard.name, describe_error(error)),
        "let the role that probes it read the table, or look again when the server is less busy",
    )
}

async fn look_at_coordinator(sharding: &ShardingSettings, first: &Shape, client: &Client, findings: &mut Vec<Finding>) {
    let unread = |error: &tokio_postgres::Error| {
        Finding::problem(format!("the coordinator can't be read: {}", describe_error(error)), "see its server's log")
    };
    let own = match rows(client, SHAPE_QUERY).await {
        Ok(rows) => Shape::from_rows(&rows),
        Err(error) => return findings.push(unread(&error)),
    };
    let servers = match rows(client, coordinator::SERVERS_QUERY).await {
        Ok(rows) => rows,
        Err(error) => return findings.push(unread(&error)),
    };
    let shards = sharding.map.shards.iter().zip(&sharding.shards);
    let wanted: Vec<ShardServer> = shards.map(|(name, shard)| ShardServer::of(name, shard)).collect();
    let judged = coordinator::judge(first, &own, &servers, &wanted, &sharding.map);
    let in_step = judged.is_empty();
    findings.extend(judged);
    if !in_step {
        return;
    }
    for (shard, query) in coordinator::reach_queries(first, &sharding.map) {
        if let Err(error) = rows(client, &query).await {
            findings.push(Finding::problem(
                format!("the coordinator's server can't read shard {shard}: {}", describe_error(&error)),
                "its server must reach the shard's host and log in there as the role that probes it (pg_hba.conf, password)",
            ));
        }
    }
}
