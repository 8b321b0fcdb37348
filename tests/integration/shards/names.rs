//! What names mean to a session, where the schema alone does not say it: other search paths, temporary tables, definitions that are
//! not committed. The answer is that of one database, or a refusal.

use super::super::harness::RawClient;
use super::super::harness::client::{Protocol, bind, execute, parse, sync};
use super::through::{SHARDS, Through, direct};
use super::wire::{Answer, Given, Sent, Way};
use std::sync::OnceLock;

fn through() -> &'static Through {
    static THROUGH: OnceLock<Through> = OnceLock::new();
    THROUGH.get_or_init(|| Through::start(false))
}

struct Pair {
    whole: RawClient,
    shards: RawClient,
    refused: Vec<String>,
}

impl Pair {
    fn new() -> Pair {
        Pair { whole: direct(&through().fleet, "app"), shards: through().yard.client(), refused: Vec::new() }
    }

    fn ask(&mut self, sql: &str, way: Way) -> (Answer, Answer) {
        let sent = Sent::new(sql, way, Given::Literals);
        (sent.ask(&mut self.whole), sent.ask(&mut self.shards))
    }

    /// The same answer.
    fn same(&mut self, sql: &str) {
        for way in [Way::Simple, Way::Text] {
            let (expect, got) = self.ask(sql, way);
            assert_eq!(got.difference(&expect, sql.contains("ORDER BY")), None, "{way:?}: {sql}");
        }
    }

    /// The same answer, or a refusal, which is remembered.
    fn exact(&mut self, sql: &str) {
        for way in [Way::Simple, Way::Text] {
            let (expect, got) = self.ask(sql, way);
            match got.refusal() {
                Some(_) if expect.error.is_some() => {}
                Some(_) => self.refused.push(sql.to_owned()),
                None => assert_eq!(got.difference(&expect, sql.contains("ORDER BY")), None, "{way:?}: {sql}"),
            }
        }
    }

    /// Once on each side, with one outcome.
    fn once(&mut self, sql: &str) {
        let (expect, got) = self.ask(sql, Way::Simple);
        assert_eq!(got.difference(&expect, false), None, "{sql}");
    }
}

const ASKED: [&str; 8] = [
    "SELECT count(*), min(note) FROM orders",
    "SELECT note FROM orders WHERE customer = 5 ORDER BY id",
    "SELECT name FROM countries ORDER BY code",
    "SELECT o.id, c.name FROM orders o JOIN countries c ON c.code = 'de' ORDER BY o.customer, o.id LIMIT 4",
    "SELECT * FROM shown ORDER BY customer LIMIT 2",
    "SELECT count(*) FROM public.orders",
    "SELECT count(*) FROM other.orders",
    "SELECT count(*) FROM big_orders",
];

#[test]
fn a_search_path_is_the_servers_not_a_guess() {
    let mut pair = Pair::new();
    ASKED.iter().for_each(|sql| pair.exact(sql));
    for path in ["other", "other, public", "public, other", "\"Other\", public", "nowhere", "pg_catalog"] {
        pair.once(&format!("SET search_path = {path}"));
        ASKED.iter().for_each(|sql| pair.exact(sql));
        pair.once("BEGIN");
        pair.once("SET LOCAL search_path = public");
        pair.same(ASKED[0]);
        pair.once("SAVEPOINT a");
        pair.once("SET LOCAL search_path TO other, public");
        pair.same(ASKED[0]);
        pair.once("ROLLBACK TO a");
        pair.same(ASKED[0]);
        pair.once("COMMIT");
        ASKED.iter().for_each(|sql| pair.exact(sql));
    }
    pair.once("RESET search_path");
    ASKED.iter().for_each(|sql| pair.exact(sql));
    assert_eq!(pair.refused, Vec::<String>::new());
}

#[test]
fn a_search_path_of_the_role_or_the_database_is_known() {
    let through = Through::start(false);
    for database in SHARDS.iter().chain(&["app"]) {
        through.fleet.primary().sql(&format!("ALTER DATABASE {database} SET search_path = other, public")).unwrap();
    }
    // Connections that were opened before don't know it yet.
    for client in ["app", "s0", "s1", "s2"] {
        let left =
            format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{client}' AND usename = 'app'");
        through.fleet.primary().sql(&left).unwrap();
    }
    let mut pair = Pair { whole: direct(&through.fleet, "app"), shards: through.yard.client(), refused: Vec::new() };
    ASKED.iter().for_each(|sql| pair.same(sql));
    pair.once("UPDATE countries SET name = 'changed'");
    pair.once("INSERT INTO orders VALUES (100, 1, 'new'), (101, 1, 'new'), (102, 1, 'new')");
    pair.same("SELECT * FROM other.orders ORDER BY customer, id");
    for shard in SHARDS {
        let mut shard = direct(&through.fleet, shard);
        assert_eq!(shard.column("SELECT name FROM other.countries").unwrap(), ["changed"]);
        assert_eq!(shard.column("SELECT count(*) FROM public.countries WHERE name = 'changed'").unwrap(), ["0"]);
    }
}

#[test]
fn temporary_tables_hide_others() {
    let mut pair = Pair::new();
    pair.once("CREATE TEMP TABLE orders (customer int, note text)");
    pair.once("INSERT INTO orders VALUES (1, 'mine'), (5, 'mine')");
    for sql in ["SELECT count(*) FROM orders", "SELECT note FROM orders WHERE customer = 5", "SELECT count(*) FROM public.orders"]
    {
        pair.exact(sql);
    }
    pair.exact("SELECT count(*) FROM orders o JOIN lines l ON l.customer = o.customer");
    assert!(pair.refused.iter().all(|sql| sql.contains("lines") || sql.contains("public.orders")), "{:?}", pair.refused);
    pair.once("DROP TABLE orders");
    pair.same("SELECT count(*) FROM lines");
    for shard in SHARDS {
        let there = direct(&through().fleet, shard).column("SELECT to_regclass('public.orders') IS NOT NULL").unwrap();
        assert_eq!(there, ["t"], "the table that was hidden is still there");
    }
    pair.once("CREATE TEMP TABLE own (n int)");
    pair.once("INSERT INTO own SELECT generate_series(1, 4)");
    pair.once("ALTER TABLE own ADD COLUMN m int DEFAULT 7");
    pair.same("SELECT sum(n * m) FROM own");
    pair.exact("SELECT count(*) FROM own JOIN orders ON id = n");
}

#[test]
fn definitions_hold_before_they_are_committed() {
    let through = Through::start(false);
    let mut pair = Pair { whole: direct(&through.fleet, "app"), shards: through.yard.client(), refused: Vec::new() };
    for end in ["ROLLBACK", "COMMIT"] {
        pair.once("BEGIN");
        pair.once("ALTER TABLE other.marks ADD COLUMN more int DEFAULT 3");
        pair.same("SELECT * FROM other.marks ORDER BY customer LIMIT 3");
        pair.same("SELECT sum(more), count(*) FROM other.marks");
        pair.once("CREATE OR REPLACE VIEW other.shown AS SELECT customer, note AS name FROM other.orders WHERE customer < 10");
        pair.same("SELECT count(*) FROM other.shown");
        pair.once("SAVEPOINT a");
        pair.once("ALTER TABLE other.marks RENAME COLUMN more TO most");
        pair.same("SELECT max(most) FROM other.marks");
        pair.once("ROLLBACK TO a");
        pair.same("SELECT max(more) FROM other.marks");
        // A reference table that was not there before is written on every shard.
        pair.once("CREATE TABLE later (id int)");
        pair.once("INSERT INTO later VALUES (1), (2)");
        pair.same("SELECT count(*) FROM later");
        pair.once(end);
        pair.same("SELECT * FROM other.marks ORDER BY customer LIMIT 3");
        pair.same("SELECT count(*) FROM other.shown");
    }
    for shard in SHARDS {
        assert_eq!(direct(&through.fleet, shard).column("SELECT count(*) FROM later").unwrap(), ["2"]);
    }
}

#[test]
fn a_prepared_statement_means_what_its_names_mean_now() {
    let mut client = through().yard.client();
    let sql = "SELECT count(*)::text FROM orders";
    client.send(&[parse("p", sql), sync()].concat()).unwrap();
    client.until_ready().unwrap();
    let ask = |client: &mut RawClient| {
        client.send(&[bind("", "p"), execute(""), sync()].concat()).unwrap();
        let replies = client.until_ready().unwrap();
        let row = replies.iter().find(|reply| reply.tag == b'D').unwrap_or_else(|| panic!("{replies:?}"));
        String::from_utf8_lossy(&row.body[6..]).into_owned()
    };
    let public = ask(&mut client);
    client.column("SET search_path = other").unwrap();
    let other = ask(&mut client);
    client.column("SET pgyard.shard = 's0'").unwrap();
    let one = ask(&mut client);
    client.column("RESET pgyard.shard").unwrap();
    client.column("RESET search_path").unwrap();
    assert_eq!(ask(&mut client), public);
    let mut whole = direct(&through().fleet, "app");
    assert_eq!(other, whole.column("SELECT count(*) FROM other.orders").unwrap()[0]);
    assert_eq!(public, whole.column("SELECT count(*) FROM orders").unwrap()[0]);
    assert_eq!(one, direct(&through().fleet, "s0").column("SELECT count(*) FROM other.orders").unwrap()[0]);
}

#[test]
fn the_console_tells_which_shards_and_how() {
    let through = through();
    let mut console = RawClient::connect(through.yard.port()).unwrap();
    console.send(&super::super::harness::client::startup(&[("user", "pgyard"), ("database", "pgyard")])).unwrap();
    console.until_ready().unwrap();
    let mut told = |sql: &str| {
        let replies = console.run(Protocol::Simple, &format!("SHOW ROUTE FOR '{sql}'")).unwrap();
        let row = replies.iter().find(|reply| reply.tag == b'D').unwrap_or_else(|| panic!("{replies:?}"));
        String::from_utf8_lossy(&row.body).into_owned()
    };
    assert!(told("SELECT count(*) FROM lines").contains("all shards: SELECT"));
    assert!(told("SELECT * FROM lines WHERE customer = 5").contains("as it is: public.lines (customer) = (5)"));
    assert!(told("SELECT * FROM orders WHERE customer = 5").contains("names without a schema are taken for those of public"));
}
