//! What servers give their new sessions must reach new clients, as it would without pgyard; and pgyard's own connections are in
//! nobody's way. Each step is done on a direct connection too, which says what is right.

use super::harness::client::{RawClient, bind, describe_portal, execute, parse, sync};
use super::harness::{Pgyard, config, eventually, own_fleet};
use pgyard::demo::LocalFleet;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// A new client of each kind: of pgyard and of the primary.
fn both(fleet: &LocalFleet, yard: &Pgyard) -> [RawClient; 2] {
    let log_in = |port| RawClient::log_in(port, "app", fleet.app_password().reveal(), "app").unwrap();
    [log_in(yard.port()), log_in(fleet.primary().port())]
}

fn ask(clients: &mut [RawClient; 2], sql: &str) -> [String; 2] {
    let [through, direct] = clients;
    [through.column(sql).unwrap().concat(), direct.column(sql).unwrap().concat()]
}

#[test]
fn settings_of_roles_and_databases_reach_new_clients() {
    let fleet = own_fleet(1);
    let yard = Pgyard::start(&fleet, &[]);
    let mut old = both(&fleet, &yard);
    let date = "SELECT DATE '2020-01-02'";
    assert_eq!(ask(&mut old, date), ["2020-01-02", "2020-01-02"]);
    // What passes through pgyard is there for the next client at once.
    for (change, question) in [
        ("ALTER ROLE app SET work_mem = '7MB'", "SHOW work_mem"),
        ("ALTER ROLE app SET DateStyle = 'German, DMY'", date),
        ("BEGIN; ALTER ROLE app IN DATABASE app SET extra_float_digits = 0; COMMIT", "SHOW extra_float_digits"),
        ("ALTER DATABASE app SET search_path = 'pg_catalog'", "SHOW search_path"),
        ("ALTER ROLE app RESET work_mem", "SHOW work_mem"),
    ] {
        yard.client().column(change).unwrap();
        let mut new = both(&fleet, &yard);
        let [through, direct] = ask(&mut new, question);
        assert_eq!(through, direct, "{change}: {question}");
        assert_eq!(new[0].told.get("DateStyle"), new[1].told.get("DateStyle"), "{change}");
    }
    // A client that was told how dates are written goes on reading them so.
    assert_eq!(ask(&mut old, date), ["2020-01-02", "2020-01-02"]);
    ask(&mut old, "RESET DateStyle");
    assert_eq!(ask(&mut old, date), ["2020-01-02", "2020-01-02"]);

    // What does not pass through pgyard is noticed.
    fleet.primary().sql("ALTER ROLE app SET work_mem = '9MB'; ALTER ROLE app SET IntervalStyle = 'iso_8601'").unwrap();
    eventually("the settings of a role are noticed", SOON, || {
        let mut new = both(&fleet, &yard);
        let [through, direct] = ask(&mut new, "SHOW work_mem");
        assert_eq!((&*direct, new[1].told["IntervalStyle"].as_str()), ("9MB", "iso_8601"));
        through == direct && new[0].told.get("IntervalStyle") == new[1].told.get("IntervalStyle")
    });
    fleet.primary().sql("ALTER SYSTEM SET TimeZone = 'Asia/Tokyo'").unwrap();
    fleet.primary().sql("SELECT pg_reload_conf()").unwrap();
    eventually("changed files are noticed", SOON, || {
        let mut new = both(&fleet, &yard);
        let [through, direct] = ask(&mut new, "SHOW TimeZone");
        direct == "Asia/Tokyo" && through == direct && new[0].told.get("TimeZone") == new[1].told.get("TimeZone")
    });
}

/// What a server reads from its files anew holds for its sessions too, but for what they have set themselves; each is told at the end of an
/// answer, and never reads values written otherwise than it was told.
#[test]
fn sessions_follow_changed_files_and_are_told() {
    let fleet = own_fleet(1);
    let yard = Pgyard::start(&fleet, &[]);
    yard.wait_for_replicas(&["replica1"]);
    let mut clients: Vec<RawClient> = (0..3).map(|_| yard.client()).collect();
    clients.push(RawClient::log_in(fleet.primary().port(), "app", fleet.app_password().reveal(), "app").unwrap());
    let mut own = yard.client();
    own.column("SET TimeZone = 'America/Lima'").unwrap();
    // Several connections to each host are there.
    for text in ["BEGIN", "SELECT 1", "COMMIT", "BEGIN READ ONLY", "SELECT 1", "COMMIT"] {
        clients.iter_mut().for_each(|client| drop(client.column(text).unwrap()));
    }
    let hosts = [fleet.primary(), &fleet.replicas()[0]];
    for zone in ["Asia/Tokyo", "Asia/Kolkata"] {
        for host in hosts {
            host.sql(&format!("ALTER SYSTEM SET TimeZone = '{zone}'")).unwrap();
            host.sql("SELECT pg_reload_conf()").unwrap();
        }
        for (number, client) in clients.iter_mut().enumerate() {
            for text in ["SELECT current_setting('TimeZone')", "BEGIN; SELECT current_setting('TimeZone'); COMMIT"] {
                eventually(&format!("client {number} is told {zone}"), SOON, || {
                    let shown = client.column(text).unwrap();
                    assert_eq!(client.told["TimeZone"], shown[0], "client {number}, {text}");
                    shown[0] == zone
                });
            }
        }
        assert_eq!(own.column("SELECT current_setting('TimeZone')").unwrap(), ["America/Lima"]);
        assert_eq!(own.told["TimeZone"], "America/Lima");
    }
}

#[test]
fn a_replica_follows_when_it_has_replayed_the_change() {
    let fleet = own_fleet(1);
    let yard = Pgyard::start(&fleet, &[]);
    let question = "SELECT current_setting('cluster_name') || ' ' || (DATE '2020-01-02')::text";
    assert_eq!(yard.client().column(question).unwrap(), ["replica1 2020-01-02"]);
    yard.client().column("ALTER ROLE app SET DateStyle = 'German, DMY'").unwrap();
    eventually("reads on the replica run with the new setting", SOON, || {
        yard.client().column(question).unwrap() == ["replica1 02.01.2020"]
    });
    for _ in 0..20 {
        let found = yard.client().column(question).unwrap();
        assert!(found[0].ends_with("02.01.2020"), "{found:?}");
    }
}

#[test]
fn a_database_can_be_dropped_renamed_and_copied() {
    let fleet = own_fleet(1);
    let hosts = config(&fleet, None, "").replace("[databases.app]", "[databases.\"*\"]");
    let yard = Pgyard::start_with_config(&fleet, &hosts);
    fleet.primary().sql("ALTER ROLE app CREATEDB").unwrap();
    let log_in = |database: &str| RawClient::log_in(yard.port(), "app", fleet.app_password().reveal(), database).unwrap();
    let mut owner = log_in("app");
    owner.column("CREATE DATABASE short_lived").unwrap();
    // Two clients leave connections behind, and the catalogue is read.
    let mut guests = [log_in("short_lived"), log_in("short_lived")];
    for guest in &mut guests {
        guest.column("BEGIN").unwrap();
    }
    for guest in &mut guests {
        guest.column("COMMIT").unwrap();
    }
    for change in [
        "CREATE DATABASE copied TEMPLATE short_lived",
        "ALTER DATABASE short_lived RENAME TO renamed",
        "DROP DATABASE renamed",
        "DROP DATABASE copied",
    ] {
        owner.column(change).unwrap_or_else(|error| panic!("{change}: {error}"));
    }
}

/// What `*` brought into being goes with its database, and comes back with it.
#[test]
fn a_database_that_is_there_no_more_is_forgotten() {
    let fleet = own_fleet(1);
    let hosts = config(&fleet, None, "catalogue_interval = '1s'\n").replace("[databases.app]", "[databases.\"*\"]");
    let yard = Pgyard::start_with_config(&fleet, &hosts);
    fleet.primary().sql("ALTER ROLE app CREATEDB").unwrap();
    let log_in = |database: &str| RawClient::log_in(yard.port(), "app", fleet.app_password().reveal(), database);
    let mut owner = log_in("app").unwrap();
    let is_known = || yard.get("/metrics").is_some_and(|(_, text)| text.contains("database=\"short_lived\""));
    for drop_it in ["through pgyard", "by somebody else"] {
        owner.column("CREATE DATABASE short_lived").unwrap();
        let mut guest = log_in("short_lived").unwrap();
        assert_eq!(guest.column("SELECT current_database()").unwrap(), ["short_lived"]);
        assert!(is_known());
        match drop_it {
            "through pgyard" => drop(owner.column("DROP DATABASE short_lived").unwrap()),
            _ => drop(fleet.primary().sql("DROP DATABASE short_lived WITH (FORCE)").unwrap()),
        }
        // A client that is still there keeps it, and is told.
        let error = guest.column("SELECT 1").unwrap_err().to_string();
        assert!(error.contains("short_lived") || error.contains("57P01"), "{error}");
        drop(guest);
        eventually(&format!("a database dropped {drop_it} is forgotten"), SOON, || !is_known());
    }
    // One that never was leaves nothing behind either.
    assert!(log_in("never_was").is_err());
    eventually("it is forgotten", SOON, || !yard.get("/metrics").unwrap().1.contains("never_was"));
    let failures =
        |name: &str| yard.log().lines().filter(|line| line.contains("catalogue failed") && line.contains(name)).count();
    assert!(failures("short_lived") <= 2 && failures("never_was") <= 1, "{}", yard.log());
}

/// A text that is prepared anew behind DDL must not meet a plan from before it, which would fail the transaction.
#[test]
fn a_text_prepared_behind_ddl_is_planned_anew() {
    let fleet = own_fleet(0);
    let yard = Pgyard::start(&fleet, &[]);
    for client in &mut both(&fleet, &yard) {
        let ask = |client: &mut RawClient, name: &str| {
            let text = "SELECT * FROM changing";
            let mut bytes = parse(name, text);
            [bind("", name), describe_portal(""), execute(""), sync()].iter().for_each(|part| bytes.extend(part));
            client.send(&bytes).unwrap();
            client.until_ready().unwrap().iter().map(|reply| reply.tag as char).collect::<String>()
        };
        client.column("CREATE TABLE changing AS SELECT 1 AS a, 2 AS b").unwrap();
        assert_eq!(ask(client, "first"), "12TDCZ");
        client.column("BEGIN").unwrap();
        client.column("ALTER TABLE changing ALTER COLUMN b TYPE text").unwrap();
        assert_eq!(ask(client, "second"), "12TDCZ");
        client.column("COMMIT").unwrap();
        client.column("BEGIN").unwrap();
        assert_eq!(ask(client, "third"), "12TDCZ");
        client.column("COMMIT").unwrap();
        client.column("DROP TABLE changing").unwrap();
    }
}

#[test]
fn servers_are_told_that_a_connection_ends() {
    let fleet = own_fleet(0);
    fleet.primary().sql("ALTER SYSTEM SET log_disconnections = on").unwrap();
    fleet.primary().sql("SELECT pg_reload_conf()").unwrap();
    fleet.primary().sql("ALTER ROLE app SET log_min_messages = debug1").unwrap();
    let log = || std::fs::read_to_string(fleet.primary().log_path()).unwrap();
    let gone = |text: &str| text.lines().filter(|line| line.contains("disconnection:") && line.contains("user=app")).count();
    // A client that hangs up without a word is what is looked for.
    let mut rude = RawClient::log_in(fleet.primary().port(), "app", fleet.app_password().reveal(), "app").unwrap();
    rude.column("SELECT 1").unwrap();
    drop(rude);
    eventually("a lost client is logged", SOON, || log().contains("unexpected EOF on client connection"));
    let seen = log().len();

    let mut yard = Pgyard::start(&fleet, &[]);
    let mut pinned = yard.client();
    pinned.column("CREATE TEMP TABLE own (a int)").unwrap();
    let mut open = yard.client();
    open.column("BEGIN").unwrap();
    open.column("SELECT 1").unwrap();
    yard.client().column("SELECT 1").unwrap();
    // The connection with the temporary table is closed; the one with the transaction is rolled back and kept.
    drop((pinned, open));
    eventually("a connection is closed", SOON, || gone(&log()[seen..]) > 0);
    yard.signal("TERM");
    eventually("pgyard ends", SOON, || !yard.is_running());
    let none_left = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
    eventually("all connections are closed", SOON, || fleet.primary().sql(none_left).unwrap() == "0");
    let log = &log()[seen..];
    let abrupt: Vec<&str> = log.lines().filter(|line| line.contains("unexpected EOF")).collect();
    assert!(abrupt.is_empty() && gone(log) >= 2, "{abrupt:?}\n{log}");
}
