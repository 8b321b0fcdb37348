//! Where the play takes place: real servers, a bad network before each, and what the sessions write to.

use super::history::{Object, Promise, Truth};
use super::network::BadNetwork;
use crate::integration::harness::{Pgyard, RawClient, eventually};
use pgyard::demo::{FleetError, FleetOptions, LocalFleet, LocalHost};
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

/// Hosts that conflict with long reads, as replicas of a busy primary do.
const SETTINGS: [&str; 4] = [
    "hot_standby_feedback = off",
    "max_standby_streaming_delay = 100ms",
    // A row that sessions die under is free again soon.
    "tcp_keepalives_idle = 5",
    "client_connection_check_interval = 1s",
];

/// A register is read in four ways: as a row, as what a trigger wrote, as what a foreign key carried on, and through functions
/// and views. `register_log` is the order of all writes.
const SCHEMA: &str = "
    SET ROLE app;
    CREATE TABLE registers (key int PRIMARY KEY, version bigint NOT NULL DEFAULT 0, token bigint NOT NULL DEFAULT 0,
        UNIQUE (key, version, token));
    CREATE TABLE mirrors (key int PRIMARY KEY, version bigint NOT NULL DEFAULT 0, token bigint NOT NULL DEFAULT 0,
        FOREIGN KEY (key, version, token) REFERENCES registers (key, version, token) ON UPDATE CASCADE);
    CREATE TABLE register_log (key int NOT NULL, version bigint NOT NULL, token bigint NOT NULL);
    CREATE INDEX ON register_log (key, version);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO register_log VALUES (NEW.key, NEW.version, NEW.token); RETURN NULL; END';
    CREATE TRIGGER note AFTER UPDATE ON registers FOR EACH ROW EXECUTE FUNCTION note();
    CREATE VIEW register_view AS SELECT key, version, token FROM registers;
    CREATE FUNCTION write_register(k int, t bigint) RETURNS bigint LANGUAGE sql AS
        'UPDATE registers SET version = version + 1, token = t WHERE key = k RETURNING version';
    CREATE FUNCTION read_register(k int) RETURNS text LANGUAGE sql STABLE AS
        'SELECT version || '','' || token FROM registers WHERE key = k';
    CREATE TABLE lists (key int PRIMARY KEY, items bigint[] NOT NULL DEFAULT '{}');
";

const REGISTERS: u32 = 6;
const LISTS: u32 = 3;

/// What one round writes to.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Rows of `registers`.
    pub registers: Range<u32>,
    /// Rows of `lists`.
    pub lists: Range<u32>,
}

/// Where sessions connect.
#[derive(Clone, Debug)]
pub struct Door {
    /// On 127.0.0.1.
    pub port: u16,
    /// Of the role `app`.
    pub password: String,
}

/// The fleet with its networks.
#[derive(Debug)]
pub struct Stage {
    pub fleet: LocalFleet,
    /// In the order of the fleet's hosts.
    pub networks: Vec<BadNetwork>,
    /// The index of the host that is the primary now.
    pub primary: usize,
    rounds: u32,
}

impl Stage {
    /// A primary and two replicas.
    pub fn build() -> Stage {
        let settings = SETTINGS.iter().map(|line| (*line).to_owned()).collect();
        let fleet = LocalFleet::start(FleetOptions { settings, ..FleetOptions::default() }, &mut |_| ()).unwrap();
        fleet.primary().sql(SCHEMA).unwrap();
        let networks = fleet.hosts().iter().map(|host| BadNetwork::to(host.port())).collect();
        Stage { fleet, networks, primary: 0, rounds: 0 }
    }

    /// The host that is the primary now.
    pub fn primary(&self) -> &LocalHost {
        &self.fleet.hosts()[self.primary]
    }

    /// Indices of the hosts that are replicas now.
    pub fn replicas(&self) -> Vec<usize> {
        (0..self.fleet.hosts().len()).filter(|index| *index != self.primary).collect()
    }

    /// The role's password, and a port.
    pub fn door(&self, port: u16) -> Door {
        Door { port, password: self.fleet.app_password().reveal().to_owned() }
    }

    /// pgyard behind the bad network. Its replicas may be far behind: what they may serve is then a matter of floors alone.
    pub fn pgyard(&self, promise: Promise) -> Pgyard {
        let password = self.fleet.superuser_password().reveal();
        let url = |(host, network): (&LocalHost, &BadNetwork)| {
            format!("'postgres://postgres:{password}@127.0.0.1:{}/app?name={}'", network.port(), host.name())
        };
        let hosts: Vec<String> = self.fleet.hosts().iter().zip(&self.networks).map(url).collect();
        let config = format!(
            "listen = '{{listen}}'\nhttp = '{{http}}'\n[databases.app]\nhosts = [{}]\nconsistency = '{}'\nmax_lag = '60s'\n\
             pool_size = 6\n",
            hosts.join(", "),
            promise.setting()
        );
        let yard = Pgyard::start_with_config(&self.fleet, &config);
        self.wait_until_all_serve(&yard);
        yard
    }

    /// Waits until every replica answers reads. Each question has a session of its own: some stay where they have read.
    pub fn wait_until_all_serve(&self, yard: &Pgyard) {
        let names: BTreeSet<&str> = self.replicas().iter().map(|index| self.fleet.hosts()[*index].name()).collect();
        let mut seen = BTreeSet::new();
        let door = self.door(yard.port());
        eventually(&format!("reads go to {names:?}"), Duration::from_secs(30), || {
            let client = RawClient::log_in(door.port, "app", &door.password, "app");
            let host = client.and_then(|mut client| client.column("SELECT current_setting('cluster_name')"));
            seen.extend(host.unwrap_or_default());
            names.iter().all(|name| seen.contains(*name))
        });
    }

    /// New rows for a round, on every host.
    pub fn new_keys(&mut self) -> Keys {
        self.rounds += 1;
        let first = self.rounds * 100;
        let keys = Keys { registers: first..first + REGISTERS, lists: first..first + LISTS };
        let last = |keys: &Range<u32>| keys.end - 1;
        let (registers, lists) = (last(&keys.registers), last(&keys.lists));
        let rows = format!(
            "INSERT INTO registers (key) SELECT generate_series({first}, {registers}); \
             INSERT INTO mirrors (key) SELECT generate_series({first}, {registers}); \
             INSERT INTO lists (key) SELECT generate_series({first}, {lists})"
        );
        self.primary().sql(&rows).unwrap();
        // A replica that crashes comes back as old as its last restart point lets it, and a session that asks for nothing may read
        // that: the rows are there all the same.
        self.primary().sql("CHECKPOINT").unwrap();
        for index in self.replicas() {
            let replica = &self.fleet.hosts()[index];
            insist(replica, &|| self.fleet.wait_for_replay(self.primary(), replica));
            insist(replica, &|| replica.sql("CHECKPOINT"));
        }
        keys
    }

    /// Whether a commit waits until one of the replicas has it.
    pub fn set_synchronous(&self, synchronous: bool) {
        let names: Vec<&str> = self.fleet.hosts().iter().map(LocalHost::name).collect();
        let value = if synchronous { format!("ANY 1 ({})", names.join(", ")) } else { String::new() };
        for host in self.fleet.hosts() {
            ask(host, &format!("ALTER SYSTEM SET synchronous_standby_names = '{value}'"));
            ask(host, "SELECT pg_reload_conf()");
        }
        eventually("the primary has read its settings", Duration::from_secs(10), || {
            self.primary().sql("SHOW synchronous_standby_names").unwrap() == value
        });
    }

    /// What was written, once nobody writes any more.
    pub fn truth(&self, keys: &Keys) -> Truth {
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state <> 'idle'";
        eventually("no statement runs on the primary", Duration::from_secs(30), || self.primary().sql(busy).unwrap() == "0");
        let mut truth: Truth = keys.registers.clone().map(|key| (Object::Register(key), Vec::new())).collect();
        let number = |text: &str| text.parse::<u64>().unwrap();
        let log = self.primary().sql(&format!(
            "SELECT key, version, token FROM register_log WHERE key >= {} AND key < {} ORDER BY key, version",
            keys.registers.start, keys.registers.end
        ));
        for line in log.unwrap().lines() {
            let fields: Vec<u64> = line.split('|').map(number).collect();
            let tokens = truth.entry(Object::Register(u32::try_from(fields[0]).unwrap())).or_default();
            tokens.push(fields[2]);
            assert_eq!(fields[1], tokens.len() as u64, "the log of register {} has a gap or a fork", fields[0]);
        }
        let lists = self.primary().sql(&format!(
            "SELECT key, array_to_string(items, ',') FROM lists WHERE key >= {} AND key < {}",
            keys.lists.start, keys.lists.end
        ));
        for line in lists.unwrap().lines() {
            let (key, items) = line.split_once('|').unwrap();
            let items = items.split(',').filter(|item| !item.is_empty()).map(number).collect();
            truth.insert(Object::List(key.parse().unwrap()), items);
        }
        truth
    }
}

/// Runs statements as the superuser. On a replica ours may be cancelled for a conflict, as those of others: they are run again.
pub fn ask(host: &LocalHost, sql: &str) -> String {
    insist(host, &|| host.sql(sql))
}

/// Does something to a host, again if a conflict with replay came in between.
pub fn insist<T>(host: &LocalHost, act: &dyn Fn() -> Result<T, FleetError>) -> T {
    let mut last = None;
    eventually(&format!("{} does as it is told", host.name()), Duration::from_secs(20), || {
        let outcome = act();
        let done = !outcome.as_ref().is_err_and(|error| error.to_string().contains("conflict with recovery"));
        last = Some(outcome);
        done
    });
    last.unwrap().unwrap()
}
