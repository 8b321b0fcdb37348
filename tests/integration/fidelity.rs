//! What PostgreSQL's own regression and isolation suites have shown: sessions that share connections print what they would print
//! alone. `make regress` runs the suites themselves.

use super::harness::client::{RawClient, query};
use super::harness::{Pgyard, own_fleet};
use super::isolation::{Step, play, q};
use pgyard::demo::{LocalFleet, SUPERUSER};

/// A pgyard with these settings for every database, in front of the primary alone.
fn yard(fleet: &LocalFleet, settings: &str) -> Pgyard {
    let primary = fleet.primary().superuser_url();
    Pgyard::start_with_config(
        fleet,
        &format!("listen = '{{listen}}'\nhttp = '{{http}}'\n[databases.app]\nprimary = '{primary}'\n{settings}\n"),
    )
}

fn superuser(fleet: &LocalFleet, port: u16) -> RawClient {
    RawClient::log_in(port, SUPERUSER, fleet.superuser_password().reveal(), "app").unwrap()
}

/// Both clients of the script are the superuser.
fn check(fleet: &LocalFleet, yard: &Pgyard, name: &str, script: &[Step]) {
    let clients = |port| [superuser(fleet, port), superuser(fleet, port)];
    let through = play(&mut clients(yard.port()), script);
    let direct = play(&mut clients(fleet.primary().port()), script);
    assert_eq!(through, direct, "{name}");
}

#[test]
fn settings_that_hang_together_follow_their_session() {
    let fleet = own_fleet(0);
    let yard = yard(&fleet, "pool_size = 1");
    let dates = |client| q(client, "select date '1999-02-01', date '03/04/2005', current_setting('datestyle')");
    check(
        &fleet,
        &yard,
        "halves of DateStyle",
        &[
            q(0, "set datestyle to german"),
            q(0, "set datestyle to dmy"),
            dates(1),
            q(1, "set datestyle to sql"),
            dates(0),
            q(0, "begin; set datestyle to iso"),
            q(0, "rollback"),
            dates(1),
            dates(0),
            q(0, "set datestyle to mdy; set datestyle to iso"),
            q(0, "begin"),
            q(0, "set datestyle to ymd"),
            q(0, "commit"),
            q(1, "reset datestyle"),
            dates(1),
            dates(0),
        ],
    );
    fleet.primary().sql("CREATE ROLE fidelity_one; CREATE ROLE fidelity_two IN ROLE fidelity_one").unwrap();
    let who = |client| q(client, "select session_user, current_user, current_setting('role')");
    check(
        &fleet,
        &yard,
        "a role goes with its session authorization",
        &[
            q(0, "set session authorization fidelity_two"),
            q(0, "set role fidelity_one"),
            who(1),
            who(0),
            q(0, "reset session authorization"),
            who(1),
            who(0),
            q(0, "set session authorization fidelity_two"),
            q(0, "set role fidelity_one"),
            q(0, "set session authorization default"),
            who(1),
            who(0),
        ],
    );
}

#[test]
fn what_a_new_function_leaves_behind_stays_with_its_session() {
    let fleet = own_fleet(0);
    // The last returned is the first used: without a pin the second client would get the first one's connection.
    let yard = yard(&fleet, "pool_size = 2");
    let show = |client| q(client, "select current_setting('work_mem')");
    check(
        &fleet,
        &yard,
        "a function that is called before the catalogue can have been read",
        &[
            q(0, "create function leaves() returns text language sql as $$ select set_config('work_mem', '9MB', false) $$"),
            q(0, "select leaves()"),
            show(1),
            show(0),
            q(0, "drop function leaves()"),
        ],
    );
    check(
        &fleet,
        &yard,
        "a trigger, in the transaction that makes it",
        &[
            q(0, "begin"),
            q(0, "create table watched (a int)"),
            q(
                0,
                "create function watches() returns trigger language plpgsql as \
                 $$ begin perform set_config('work_mem', '8MB', false); return new; end $$",
            ),
            q(0, "create trigger w before insert on watched for each row execute function watches()"),
            q(0, "insert into watched values (1)"),
            q(0, "commit"),
            show(1),
            show(0),
            q(0, "drop table watched; drop function watches()"),
        ],
    );
}

#[test]
fn a_temporary_schema_is_not_handed_on() {
    let fleet = own_fleet(0);
    let yard = yard(&fleet, "pool_size = 1");
    check(
        &fleet,
        &yard,
        "after DISCARD ALL",
        &[q(0, "create temp table t (a int)"), q(0, "discard all"), q(1, "select pg_my_temp_schema()")],
    );
}

#[test]
fn under_session_pooling_a_client_ends_with_its_server_connection() {
    let fleet = own_fleet(0);
    let yard = yard(&fleet, "pool_mode = 'session'");
    // The errors up to the end of the connection.
    let errors = |client: &mut RawClient| -> Vec<String> {
        let replies = std::iter::from_fn(|| client.receive().unwrap_or(None)).filter(|reply| reply.tag == b'E');
        replies.map(|reply| format!("{} {}", reply.field(b'S').unwrap(), reply.field(b'C').unwrap())).collect()
    };
    for port in [fleet.primary().port(), yard.port()] {
        let mut client = superuser(&fleet, port);
        client.send(&query("select pg_terminate_backend(pg_backend_pid())")).unwrap();
        assert_eq!(errors(&mut client), ["FATAL 57P01"], "at work, {port}");

        let mut client = superuser(&fleet, port);
        let process = client.column("select pg_backend_pid()").unwrap().remove(0);
        fleet.primary().sql(&format!("select pg_terminate_backend({process})")).unwrap();
        assert_eq!(errors(&mut client), ["FATAL 57P01"], "idle, {port}");
    }
}

#[test]
fn fresh_connections_serve_one_session_each() {
    let fleet = own_fleet(0);
    let process = |yard: &Pgyard| superuser(&fleet, yard.port()).column("select pg_backend_pid()").unwrap().remove(0);
    let fresh = yard(&fleet, "pool_mode = 'session'\nfresh_connections = true\npool_size = 1");
    let (one, two) = (process(&fresh), process(&fresh));
    assert_ne!(one, two);
    let reused = yard(&fleet, "pool_mode = 'session'\npool_size = 1");
    assert_eq!(process(&reused), process(&reused));
}
