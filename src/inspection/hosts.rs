//! The hosts of one cluster: who they are, and whether they belong together.

use super::finding::Finding;
use super::read::{ReadRow, column};
use crate::config::RoleSetting;

/// What is asked of every host. One row; see [`HostFacts::read`].
pub const HOST_QUERY: &str = "
SELECT pg_is_in_recovery(), CASE WHEN has_function_privilege('pg_control_system()', 'EXECUTE') THEN (SELECT system_identifier::text FROM pg_control_system()) END,
       current_setting('server_version'), current_setting('max_prepared_transactions'), current_setting('max_connections'),
       pg_postmaster_start_time()::text, EXISTS (SELECT FROM pg_stat_wal_receiver),
       has_table_privilege('pg_authid', 'SELECT')";

/// What one host says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// It replays another's changes.
    pub standby: bool,
    /// Its system identifier; `None` when the role may not see it.
    pub system: Option<String>,
    /// The version as it calls it.
    pub version: String,
    /// `max_prepared_transactions`.
    pub prepared_max: u32,
    /// `max_connections`.
    pub connections_max: usize,
    /// When it was started: two names with the same instant and identifier are one server.
    pub started: String,
    /// A standby that is connected to its primary.
    pub streams: bool,
    /// The role may read the clients' verifiers.
    pub sees_passwords: bool,
}

impl HostFacts {
    /// From the row of [`HOST_QUERY`].
    pub fn read(row: &ReadRow) -> Self {
        HostFacts {
            standby: column(row, 0) == "t",
            system: row.get(1).cloned().flatten(),
            version: column(row, 2).to_owned(),
            prepared_max: column(row, 3).parse().unwrap_or_default(),
            connections_max: column(row, 4).parse().unwrap_or_default(),
            started: column(row, 5).to_owned(),
            streams: column(row, 6) == "t",
            sees_passwords: column(row, 7) == "t",
        }
    }
}

/// One host of the settings with what it answered, or why it did not.
#[derive(Clone, Debug)]
pub struct SeenHost {
    /// Its name in the settings.
    pub name: String,
    /// The role that the settings give it.
    pub role: RoleSetting,
    /// What it said.
    pub facts: Result<HostFacts, String>,
}

impl SeenHost {
    /// It takes writes.
    pub fn is_primary(&self) -> bool {
        self.role != RoleSetting::Replica && self.facts.as_ref().is_ok_and(|facts| !facts.standby)
    }

    /// In words.
    pub fn describe(&self) -> String {
        match &self.facts {
            Ok(facts) => {
                let role = if facts.standby { "replica" } else { "primary" };
                format!("host {}: {role}, PostgreSQL {}", self.name, facts.version)
            }
            Err(reason) => format!("host {}: {reason}", self.name),
        }
    }
}

/// What the settings ask of a cluster's hosts.
#[derive(Clone, Copy, Debug)]
pub struct HostDemands {
    /// Connections that pgyard may open to each.
    pub connections: usize,
    /// Passwords are looked up there.
    pub looks_up: bool,
    /// Writes to several shards must be prepared there.
    pub prepares: bool,
}

/// What is wrong with the hosts of one cluster, which is called `what`.
pub fn judge(what: &str, hosts: &[SeenHost], demands: HostDemands) -> Vec<Finding> {
    let mut findings = Vec::new();
    for host in hosts {
        match &host.facts {
            Err(reason) => findings.push(Finding::problem(
                format!("{what}: host {} can't be asked: {reason}", host.name),
                "start it, or mend its address, user, password or database in the settings",
            )),
            Ok(facts) => findings.extend(judge_host(what, host, facts, demands)),
        }
    }
    let primaries: Vec<&str> = hosts.iter().filter(|host| host.is_primary()).map(|host| host.name.as_str()).collect();
    match primaries.as_slice() {
        [] => findings.push(Finding::problem(
            format!("{what}: no host takes writes"),
            "promote one of its replicas, or name the primary in the settings",
        )),
        [_] => {}
        several => findings.push(Finding::problem(
            format!("{what}: several hosts take writes: {}", several.join(", ")),
            "only one may be a primary: take the others out of the settings, or make them its replicas",
        )),
    }
    let system = |host: &&SeenHost| host.facts.as_ref().ok()?.system.clone();
    let primary = hosts.iter().find(|host| host.is_primary());
    for host in hosts {
        if let (Some(first), Some(own), Some(primary)) = (primary.as_ref().and_then(system), system(&host), primary)
            && first != own
        {
            findings.push(Finding::problem(
                format!("{what}: host {} is no copy of {}: their system identifiers differ", host.name, primary.name),
                "it belongs to another cluster: take it out, or make it anew with pg_basebackup",
            ));
        }
    }
    findings
}

fn judge_host(what: &str, host: &SeenHost, facts: &HostFacts, demands: HostDemands) -> Vec<Finding> {
    let mut findings = Vec::new();
    let name = &host.name;
    if host.role == RoleSetting::Primary && facts.standby {
        findings.push(Finding::problem(
            format!("{what}: host {name} is set to be the primary, but it is a replica"),
            "promote it, or take its role out of the settings",
        ));
    }
    if host.role == RoleSetting::Replica && !facts.standby {
        findings.push(Finding::problem(
            format!("{what}: host {name} is set to be a replica, but it takes writes: it is a server of its own"),
            "make it a replica of the primary with pg_basebackup, or take it out of the settings",
        ));
    }
    if demands.prepares && facts.prepared_max == 0 {
        let suggestion = facts.connections_max.max(1);
        findings.push(Finding::problem(
            format!("{what}: max_prepared_transactions is 0 on {name}: every write to several shards fails"),
            format!(
                "ALTER SYSTEM SET max_prepared_transactions = {suggestion}, and restart the server; its replicas first, with at least its value"
            ),
        ));
    }
    if facts.standby && !facts.streams {
        findings.push(Finding::warning(
            format!("{what}: replica {name} is not connected to its primary"),
            "it gets no reads once it is too far behind: see its primary_conninfo and its log",
        ));
    }
    if demands.connections > facts.connections_max {
        findings.push(Finding::warning(
            format!(
                "{what}: up to {} connections may be opened to {name}, which takes {}",
                demands.connections, facts.connections_max
            ),
            "lower max_per_host, or raise max_connections there",
        ));
    }
    if demands.looks_up && !facts.sees_passwords {
        findings.push(Finding::warning(
            format!("{what}: the role that probes {name} may not read pg_authid, where passwords are looked up by default"),
            "set lookup_query to a function that may (SECURITY DEFINER), list the users, or use a superuser",
        ));
    }
    if facts.system.is_none() {
        findings.push(Finding::warning(
            format!("{what}: the role that probes {name} may not see its system identifier"),
            "GRANT EXECUTE ON FUNCTION pg_control_system() to it",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspection::Gravity;

    const DEMANDS: HostDemands = HostDemands { connections: 100, looks_up: true, prepares: true };

    fn facts() -> HostFacts {
        HostFacts {
            system: Some("7".into()),
            version: "15.4".into(),
            prepared_max: 10,
            connections_max: 100,
            streams: true,
            sees_passwords: true,
            ..HostFacts::default()
        }
    }

    fn host(name: &str, facts: HostFacts) -> SeenHost {
        SeenHost { name: name.into(), role: RoleSetting::Auto, facts: Ok(facts) }
    }

    #[test]
    fn hosts_of_one_cluster() {
        let standby = || HostFacts { standby: true, ..facts() };
        let check = |hosts: &[SeenHost], expect: &[(Gravity, &str)]| {
            let found = judge("shard s0", hosts, DEMANDS);
            assert_eq!(found.len(), expect.len(), "{found:?}");
            for (finding, (gravity, part)) in found.iter().zip(expect) {
                assert!(finding.gravity == *gravity && finding.to_string().contains(part), "{part}: {finding}");
            }
        };
        let (problem, warning) = (Gravity::Problem, Gravity::Warning);
        check(&[host("a", facts()), host("b", standby())], &[]);
        check(&[host("a", standby())], &[(problem, "no host takes writes")]);
        check(&[host("a", facts()), host("b", facts())], &[(problem, "several hosts take writes: a, b")]);
        check(
            &[host("a", facts()), host("b", HostFacts { system: Some("8".into()), ..standby() })],
            &[(problem, "b is no copy of a")],
        );
        check(
            &[host("a", HostFacts { prepared_max: 0, ..facts() })],
            &[(problem, "ALTER SYSTEM SET max_prepared_transactions = 100")],
        );
        check(
            &[host("a", facts()), host("b", HostFacts { streams: false, ..standby() })],
            &[(warning, "b is not connected to its primary")],
        );
        check(&[host("a", HostFacts { connections_max: 50, ..facts() })], &[(warning, "up to 100 connections")]);
        check(&[host("a", HostFacts { sees_passwords: false, ..facts() })], &[(warning, "pg_authid")]);
        check(&[host("a", HostFacts { system: None, ..facts() })], &[(warning, "pg_control_system")]);
        let gone = SeenHost { name: "c".into(), role: RoleSetting::Auto, facts: Err("refused".into()) };
        check(&[host("a", facts()), gone], &[(problem, "c can't be asked: refused")]);
        let strict = SeenHost { role: RoleSetting::Primary, ..host("b", standby()) };
        check(&[host("a", facts()), strict], &[(problem, "set to be the primary")]);
        let strict = SeenHost { role: RoleSetting::Replica, ..host("b", facts()) };
        check(&[host("a", facts()), strict], &[(problem, "set to be a replica")]);
    }
}
