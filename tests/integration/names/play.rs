//! Scripts of raw messages, played directly and through pgyard.

use super::super::harness::client::{RawClient, Reply, frame, query, sync};
use super::super::harness::{Pgyard, own_fleet};
use pgyard::demo::LocalFleet;

/// Bytes that a client sends, and how many times ReadyForQuery comes before the next step.
pub struct Step {
    pub client: usize,
    pub bytes: Vec<u8>,
    pub ready: usize,
}

/// A simple query.
pub fn q(client: usize, sql: &str) -> Step {
    Step { client, bytes: query(sql), ready: 1 }
}

/// A pipeline; its Sync is added.
pub fn p(client: usize, messages: &[Vec<u8>]) -> Step {
    Step { client, bytes: [messages.concat(), sync()].concat(), ready: 1 }
}

/// Bytes as they are.
pub fn raw(client: usize, messages: &[Vec<u8>], ready: usize) -> Step {
    Step { client, bytes: messages.concat(), ready }
}

/// Describe of a statement.
pub fn describe(statement: &str) -> Vec<u8> {
    frame(b'D', format!("S{statement}\0").as_bytes())
}

/// Everything that the clients are told, one line a step: every byte but for parameter reports.
fn play(clients: &mut [RawClient], script: &[Step]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for step in script {
        let client = &mut clients[step.client];
        client.send(&step.bytes).unwrap();
        let mut shown = Vec::new();
        let mut ready = 0;
        while ready < step.ready {
            let reply = match client.receive() {
                Ok(Some(reply)) => reply,
                other => panic!("{other:?} after {shown:?}; before: {lines:#?}"),
            };
            ready += usize::from(reply.tag == b'Z');
            shown.extend(show(&reply));
        }
        lines.push(format!("{}: {}", step.client, shown.join(" ")));
    }
    lines
}

fn show(reply: &Reply) -> Option<String> {
    let body = if reply.tag == b'T' { without_tables(&reply.body) } else { reply.body.clone() };
    let text = String::from_utf8_lossy(&body);
    (reply.tag != b'S').then(|| format!("{}:{}", reply.tag as char, text.escape_debug()))
}

/// A RowDescription without the tables' numbers: a table that a script makes has another one each time.
fn without_tables(body: &[u8]) -> Vec<u8> {
    let mut shown = body.to_vec();
    let mut place = 2;
    while let Some(end) = shown[place..].iter().position(|byte| *byte == 0) {
        let table = place + end + 1;
        shown[table..table + 4].fill(0);
        place = table + 18;
    }
    shown
}

/// The same servers behind pgyards of different kinds.
pub struct Yards {
    yards: Vec<(&'static str, Pgyard)>,
    fleet: LocalFleet,
}

impl Yards {
    /// `setup` is SQL for the primary; `settings` are lines of the database's table.
    pub fn start(setup: &str, settings: &str) -> Yards {
        let fleet = own_fleet(1);
        fleet.primary().sql(&format!("SET ROLE app; {setup}")).unwrap();
        let start = |replica: bool, more: &str| {
            let hosts = match replica {
                true => format!("replicas = ['{}']\n", fleet.replicas()[0].superuser_url()),
                false => String::new(),
            };
            let primary = fleet.primary().superuser_url();
            let head = "listen = '{listen}'\nhttp = '{http}'\n[databases.app]\n";
            let yard = Pgyard::start_with_config(&fleet, &format!("{head}primary = '{primary}'\n{hosts}{more}{settings}"));
            yard.wait_for_replicas(if replica { &["replica1"] } else { &[] });
            yard
        };
        let yards = vec![
            ("one connection", start(false, "pool_size = 1\n")),
            ("several servers", start(true, "pool_size = 2\nconsistency = 'global'\n")),
            ("session pooling", start(false, "pool_mode = 'session'\npool_size = 4\n")),
        ];
        Yards { yards, fleet }
    }

    /// Plays the script directly and through each pgyard with two clients, and compares.
    pub fn check(&self, name: &str, script: &[Step]) {
        self.compare(&self.yards, (2, "SELECT 1"), name, script);
    }

    /// The same with more clients. One connection is not enough for several transactions at once: that kind is left out.
    pub fn check_with(&self, clients: usize, name: &str, script: &[Step]) {
        self.compare(&self.yards[1..], (clients, "SELECT 1"), name, script);
    }

    /// The pgyard in front of several servers.
    pub fn several(&self) -> &Pgyard {
        &self.yards[1].1
    }

    /// A client of the primary itself.
    pub fn direct(&self) -> RawClient {
        let primary = self.fleet.primary();
        RawClient::log_in(primary.port(), "app", self.fleet.app_password().reveal(), "app").unwrap()
    }

    /// Each pgyard.
    pub fn each(&self) -> impl Iterator<Item = &Pgyard> {
        self.yards.iter().map(|(_, yard)| yard)
    }

    /// The same where a session meets one server connection only, with SQL that a superuser runs before each.
    pub fn check_after(&self, before: &str, name: &str, script: &[Step]) {
        self.compare(&self.yards[..1], (2, before), name, script);
        self.compare(&self.yards[2..], (2, before), name, script);
    }

    fn compare(&self, yards: &[(&str, Pgyard)], (clients, before): (usize, &str), name: &str, script: &[Step]) {
        let primary = self.fleet.primary();
        primary.sql(before).unwrap();
        let mut each: Vec<RawClient> = (0..clients).map(|_| self.direct()).collect();
        let expect = play(&mut each, script);
        for (kind, yard) in yards {
            primary.sql(before).unwrap();
            let mut each: Vec<RawClient> = (0..clients).map(|_| yard.client()).collect();
            let got = play(&mut each, script);
            for (place, (got, expect)) in got.iter().zip(&expect).enumerate() {
                let step = String::from_utf8_lossy(&script[place].bytes).escape_debug().to_string();
                assert_eq!(got, expect, "{name}, {kind}, step {place}: {step}");
            }
        }
    }
}
