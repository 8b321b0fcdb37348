//! What the tests share: a fleet, pgyard in front of it, clients of many kinds, and the servers' logs.

pub mod client;
pub mod guard;
pub mod programs;
pub mod proxy;
pub mod readers;
pub mod secure;
pub mod server_log;
pub mod way;

pub use client::RawClient;
pub use proxy::Pgyard;

use pgyard::demo::{FleetOptions, LocalFleet};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The fleet of all tests that break nothing: a primary and two replicas. It ends with the process.
pub fn shared_fleet() -> &'static LocalFleet {
    static FLEET: OnceLock<LocalFleet> = OnceLock::new();
    FLEET.get_or_init(|| own_fleet(2))
}

/// pgyard with its default settings in front of the shared fleet.
pub fn shared_pgyard() -> &'static Pgyard {
    static PGYARD: OnceLock<Pgyard> = OnceLock::new();
    PGYARD.get_or_init(|| Pgyard::start(shared_fleet(), &[]))
}

/// A fleet for a test that breaks hosts.
pub fn own_fleet(replicas: usize) -> LocalFleet {
    LocalFleet::start(FleetOptions { replicas, log_statements: true, ..FleetOptions::default() }, &mut |_| ()).unwrap()
}

/// A configuration in front of the fleet, whose first replica is reached over another port.
pub fn config(fleet: &LocalFleet, first_replica: Option<u16>, settings: &str) -> String {
    let url = |port: Option<u16>, index: usize| {
        let replica = &fleet.replicas()[index];
        replica.superuser_url().replace(&format!(":{}/", replica.port()), &format!(":{}/", port.unwrap_or(replica.port())))
    };
    let replicas: Vec<String> =
        (0..fleet.replicas().len()).map(|index| format!("{:?}", url(first_replica.filter(|_| index == 0), index))).collect();
    format!(
        "listen = \"{{listen}}\"\nhttp = \"{{http}}\"\n[databases.app]\nprimary = {:?}\nreplicas = [{}]\n{settings}",
        fleet.primary().superuser_url(),
        replicas.join(", ")
    )
}

/// What a test's clients connect to. Tests of clients run against both, so that PostgreSQL itself says that they are right.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// The primary of the shared fleet.
    Direct,
    /// The shared pgyard.
    Pgyard,
    /// A pgyard of the test's own in front of the shared fleet.
    Port(u16),
}

impl Target {
    /// The port on 127.0.0.1.
    pub fn port(self) -> u16 {
        match self {
            Target::Direct => shared_fleet().primary().port(),
            Target::Pgyard => shared_pgyard().port(),
            Target::Port(port) => port,
        }
    }

    /// A URL for the application's role.
    pub fn url(self) -> String {
        let password = shared_fleet().app_password().reveal();
        format!("postgres://app:{password}@127.0.0.1:{}/app?sslmode=disable", self.port())
    }

    /// A logged-in raw client.
    pub fn client(self) -> RawClient {
        RawClient::log_in(self.port(), "app", shared_fleet().app_password().reveal(), "app").unwrap()
    }
}

/// A count or a bound of time: what is promised, when `make promises` asks for it on a machine that has nothing else to do; else one that
/// suits the suite, in which no test may fail because the machine stood still for a while.
pub fn promised<T>(in_suite: T, promised: T) -> T {
    if std::env::var_os("PGYARD_PROMISES").is_some_and(|value| !value.is_empty()) { promised } else { in_suite }
}

/// Waits until `done`, and panics with `what` if that takes longer than `limit`.
pub fn eventually(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
