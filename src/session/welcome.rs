//! What a server reports to a client at its log-in, found out from a server and remembered for clients that ask the same.

use crate::auth::ServerCredential;
use crate::cluster::{HostSet, PickRequest, Want, pick};
use crate::config::ReadsOnPrimary;
use crate::database::Database;
use crate::pool::{CheckoutError, Pool, WaitSlot};
use crate::server::{ConnectError, ParameterSet, ReportedParameters, ServerConnection};
use crate::types::SqlState;
use crate::wire::reply::Report;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a client is told at its log-in.
pub struct Welcome {
    /// To be sent to it.
    pub reported: ReportedParameters,
    /// What a server has reported, shared with other clients.
    pub told: Arc<ReportedParameters>,
    /// How often what new server sessions begin with had changed before that.
    pub defaults: u32,
}

/// What a server would report to this role with these parameters.
///
/// # Errors
/// No server can be reached, the server refuses the role, or it refuses one of the parameters: what the client is told.
pub async fn welcome(
    database: &Arc<Database>,
    user: &str,
    credential: ServerCredential,
    startup: &ParameterSet,
) -> Result<Welcome, Report> {
    let role = database.role(user, credential);
    let mut key = startup.clone();
    key.unset("application_name");
    let defaults = role.defaults();
    let told = match role.welcome(&key) {
        Ok(known) => known,
        Err(age) => {
            let (pool, server) = borrow(database, user).await?;
            let reported = Arc::new(ask(&pool, server, &key).await?);
            role.set_welcome(key, reported.clone(), age);
            reported
        }
    };
    let mut reported = told.as_ref().clone();
    if let Some(name) = startup.text("application_name") {
        let escapes = reported.get("server_version").and_then(major_version).is_some_and(|major| major >= 16);
        reported.set("application_name", &clean_name(&name, escapes));
    }
    // Reads may go to replicas, writes go to the primary: the session is not in hot standby.
    if reported.get("in_hot_standby").is_some() {
        reported.set("in_hot_standby", "off");
    }
    Ok(Welcome { reported, told, defaults })
}

fn major_version(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The name as a server shows it: cut to the length of an identifier, and plain ASCII.
///
/// Spec: `pg_clean_ascii` in `src/common/string.c`, which writes question marks before version 16; `GUC_IS_NAME`.
fn clean_name(name: &str, escapes: bool) -> String {
    let mut clean = String::new();
    for byte in name[..name.floor_char_boundary(NAME_MAX)].bytes() {
        match byte {
            b' '..=b'~' => clean.push(byte as char),
            _ if escapes => clean.push_str(&format!("\\x{byte:02x}")),
            _ => clean.push('?'),
        }
    }
    clean
}

/// Longest identifier. Bytes.
///
/// Spec: `NAMEDATALEN` in `src/include/pg_config_manual.h`.
const NAME_MAX: usize = 63;

/// A server connection of the role: the primary's, or a replica's while there is no primary.
async fn borrow(database: &Arc<Database>, user: &str) -> Result<(Arc<Pool>, Box<ServerConnection>), Report> {
    let since = Instant::now();
    let limit = database.settings().routing.failover_wait;
    let role = database.role_named(user).ok_or_else(|| Report::fatal(SqlState::INTERNAL_ERROR, "the role is gone"))?;
    let slot = Arc::new(WaitSlot::default());
    let worker = crate::metrics::worker_index().unwrap_or(0);
    let cluster = database.upstream().cluster.clone();
    let mut excluded: Vec<u32> = Vec::new();
    loop {
        let fleet = cluster.fleet().clone();
        let failed = |index: &usize| excluded.contains(&fleet.hosts[*index].host.id);
        let tried = (0..fleet.hosts.len()).filter(failed).fold(HostSet::NONE, HostSet::with);
        let request = |want| PickRequest {
            want,
            floor: None,
            max_lag: None,
            excluded: tried,
            reads_on_primary: ReadsOnPrimary::Fallback,
            client_hash: 0,
            crowded: None,
        };
        let balancer = database.upstream().balancer().clone();
        let chosen = pick(&fleet, &balancer, &request(Want::Primary)).or_else(|_| pick(&fleet, &balancer, &request(Want::Read)));
        let left = limit.saturating_sub(since.elapsed());
        let index = match chosen {
            Ok(index) => index,
            Err(missing) if left.is_zero() => {
                return Err(
                    Report::fatal(SqlState::CANNOT_CONNECT_NOW, missing.explain(&fleet)).hint("See `SHOW HOSTS` in the console.")
                );
            }
            Err(_) => {
                excluded.clear();
                let wait = left.min(Duration::from_secs(1));
                // Changed or not: look again until the time is over.
                let _ = tokio::time::timeout(wait, cluster.wait_for_change(fleet.generation)).await;
                continue;
            }
        };
        let host = fleet.hosts[index].host.clone();
        let Some(pool) = role.pool(&host) else {
            return Err(Report::fatal(SqlState::CANNOT_CONNECT, format!("host {} can't be used", host.settings.name)));
        };
        match pool.checkout(&slot, worker).await {
            Ok(mut server) => match server.adopt(worker) {
                Ok(()) => return Ok((pool, server)),
                Err(_) => pool.discard(server),
            },
            Err(CheckoutError::Connect(error)) if !error.is_host_well() => excluded.push(host.id),
            Err(error) => return Err(report(&error)),
        }
    }
}

async fn ask(pool: &Arc<Pool>, mut server: Box<ServerConnection>, wanted: &ParameterSet) -> Result<ReportedParameters, Report> {
    // Sent also when there is nothing to change: a server reports what a reload of its files has changed with its next answer.
    let sql = server.parameters.change_to(wanted);
    match server.run(&sql).await {
        Ok(Ok(_)) => server.parameters = Arc::new(wanted.clone()),
        Ok(Err(report)) => {
            pool.discard(server);
            return Err(report.ending_the_session());
        }
        Err(error) => {
            pool.discard(server);
            return Err(Report::fatal(SqlState::CONNECTION_FAILURE, format!("the server closed the connection: {error}")));
        }
    }
    let reported = server.incoming.reported.clone();
    pool.give_back(server);
    Ok(reported)
}

fn report(error: &CheckoutError) -> Report {
    match error {
        CheckoutError::Connect(connect) => match &**connect {
            ConnectError::Refused { state, message, .. } => Report::fatal(*state, message.clone()).detail(format!("{connect}.")),
            other => Report::fatal(SqlState::CANNOT_CONNECT, other.to_string()),
        },
        other => Report::fatal(SqlState::TOO_MANY_CONNECTIONS, other.to_string()).hint("Raise pool_size or max_per_host."),
    }
}
