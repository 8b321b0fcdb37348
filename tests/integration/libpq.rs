//! What libpq makes of its environment reaches the servers, and nobody else: psql prints the same directly and through pgyard. And what
//! libpq tells of notifications.

use super::harness::client::{Reply, query};
use super::harness::programs::psql_under;
use super::harness::{Pgyard, Target, config, shared_fleet};

const SHOW: &str = "
    SHOW TimeZone; SHOW DateStyle; SHOW IntervalStyle; SHOW work_mem; SHOW search_path; SHOW application_name; SHOW client_encoding;
    SHOW geqo; SHOW default_transaction_isolation; SELECT current_setting('app.tenant', true);
    SELECT timestamptz '2020-07-01 12:00:00+00', date '2020-02-01', interval '1 day 2 hours', to_tsvector('Zürich');
";

/// What each client does. A temporary table takes it to the primary and keeps it there until DISCARD ALL.
fn script() -> String {
    [
        SHOW,
        "BEGIN; SET LOCAL TimeZone = 'Asia/Tokyo'; SET DateStyle = 'SQL'; SHOW TimeZone; ROLLBACK;",
        SHOW,
        "SET TimeZone = 'Asia/Tokyo'; SET work_mem = '3MB'; CREATE TEMP TABLE own (a int);",
        SHOW,
        "RESET TimeZone; RESET work_mem; SET search_path TO DEFAULT;",
        SHOW,
        "SET DateStyle = 'Postgres, YMD'; DISCARD ALL;",
        SHOW,
        "SET work_mem = '3MB'; SET SESSION AUTHORIZATION DEFAULT; RESET ALL;",
        SHOW,
        // A new connection under the same environment.
        "\\c -\n",
        SHOW,
    ]
    .concat()
}

/// What psql printed and how it ended, but for the port.
fn run(target: Target, environment: &[(&str, &str)]) -> String {
    let output = psql_under(&target.url(), environment, &script());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&target.port().to_string(), "PORT");
    format!("{:?}\n{}\n{}", output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_environment_of_libpq_reaches_the_servers() {
    let fleet = shared_fleet();
    // With one connection a host, whatever a client leaves behind the next one meets.
    let yard = Pgyard::start_with_config(fleet, &config(fleet, None, "pool_size = 1\n"));
    yard.wait_for_replicas(&["replica1", "replica2"]);
    let through = Target::Port(yard.port());
    let plain = run(Target::Direct, &[]);
    assert!(plain.starts_with("Some(0)"), "{plain}");
    for environment in [
        &[("PGTZ", "America/New_York")][..],
        &[("PGDATESTYLE", "German, DMY")],
        &[("PGTZ", "UTC"), ("PGDATESTYLE", "iso, ymd"), ("PGGEQO", "off"), ("PGAPPNAME", "an 'application'")],
        &[("PGCLIENTENCODING", "LATIN1")],
        &[("PGOPTIONS", "-c work_mem=7MB -c search_path=pg_catalog,public")],
        &[("PGOPTIONS", "--work-mem=7MB --geqo=off --IntervalStyle=iso_8601")],
    ] {
        let direct = run(Target::Direct, environment);
        assert!(direct != plain, "{environment:?} changes nothing");
        assert_eq!(run(through, environment), direct, "{environment:?}");
        assert_eq!(run(through, &[]), plain, "after {environment:?}");
    }
    for options in [
        "-c default_transaction_isolation=nonsense",
        "-c datestyle=nonsense",
        "-c work_mem=1",
        "-c work_mem=many",
        "-c nosuch=1",
        "-c log_statement=all",
        "-c timezone=Mars",
        "-c client_encoding=nonsense",
    ] {
        // It may try again without TLS, and says all of it twice then.
        let said = |target| {
            let mut lines: Vec<String> = Vec::new();
            for line in run(target, &[("PGOPTIONS", options)]).lines().map(|line| line.trim_start_matches("psql: error: ")) {
                if !lines.iter().any(|known| known == line) {
                    lines.push(line.to_owned());
                }
            }
            lines
        };
        let direct = said(Target::Direct);
        assert!(direct.iter().any(|line| line.contains("FATAL")), "{options}: {direct:?}");
        assert_eq!(said(through), direct, "{options}");
    }
}

/// `PGnotify.be_pid` is `PQbackendPID()` for a client's own notifications, and only for these: applications skip them by that.
#[test]
fn clients_tell_their_own_notifications_from_others() {
    let said = |reply: &Reply| {
        let (process, text) = reply.body.split_first_chunk().unwrap();
        (i32::from_be_bytes(*process), String::from_utf8_lossy(text).replace('\0', " "))
    };
    for target in [Target::Direct, Target::Pgyard] {
        let (mut own, mut other) = (target.client(), target.client());
        own.column("LISTEN libpq_told").unwrap();
        for (sql, payload) in [
            ("NOTIFY libpq_told, 'one'", "libpq_told one "),
            ("SELECT pg_notify('libpq_told', 'two')", "libpq_told two "),
            ("BEGIN; NOTIFY libpq_told, 'three'; COMMIT", "libpq_told three "),
        ] {
            own.send(&query(sql)).unwrap();
            let replies = own.until_ready().unwrap();
            let mut told: Vec<_> = replies.iter().filter(|reply| reply.tag == b'A').map(said).collect();
            // It may come behind ReadyForQuery.
            while told.is_empty() {
                told.extend(own.receive().unwrap().iter().map(said));
            }
            assert_eq!(told, [(own.key.0, payload.to_owned())], "{target:?}: {sql}");
        }
        other.column("NOTIFY libpq_told, 'from another'").unwrap();
        let (process, text) = said(&own.receive().unwrap().unwrap());
        assert_eq!(text, "libpq_told from another ");
        assert_ne!(process, own.key.0, "{target:?}");
    }
}
