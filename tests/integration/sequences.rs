//! What a session's `nextval()` has given is what its `currval()` answers, on whatever server connection it was.

use super::harness::client::RawClient;
use super::harness::{Pgyard, config, own_fleet};
use super::isolation::{Step, play, q};

/// Clients that ask for `currval()` in a statement of its own.
fn script() -> Vec<Step> {
    let mut script = vec![
        // From here on it is known that sessions of this role do.
        q(0, "select nextval('counter')"),
        q(0, "select currval('counter')"),
        q(0, "discard sequences"),
        q(1, "select currval('counter')"),
        q(1, "discard sequences"),
    ];
    for client in [0, 1, 2, 0, 2] {
        script.extend([q(client, "insert into serials default values"), q(2 - client, "select 1")]);
    }
    // None of them has been told to be bound to its connection yet.
    script.extend((0..3).map(|client| q(client, "select lastval(), currval('serials_id_seq')")));
    script.extend((0..3).map(|client| q(client, "discard sequences")));
    // In a transaction of its own, behind others' writes.
    script.extend((0..3).map(|client| q(client, "select nextval('counter')")));
    script.push(q(1, "update plain set n = 1"));
    for client in [1, 0, 2] {
        script.extend(["begin", "select currval('counter')", "commit", "discard all"].map(|text| q(client, text)));
    }
    // It wrote where others' sequences were, and is not told of them.
    script.extend([q(0, "update plain set n = 2"), q(0, "select lastval()"), q(1, "select currval('counter')")]);
    script
}

#[test]
fn sessions_find_their_own_sequences_again() {
    let fleet = own_fleet(1);
    fleet
        .primary()
        .sql("SET ROLE app; CREATE SEQUENCE counter; CREATE TABLE serials (id serial); CREATE TABLE plain AS SELECT 0 AS n")
        .unwrap();
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, None, "pool_size = 4\n"));
    let password = fleet.app_password().reveal();
    let mut direct = [(); 3].map(|()| RawClient::log_in(fleet.primary().port(), "app", password, "app").unwrap());
    let expected = play(&mut direct, &script());
    // On a machine that stands still for a while the servers' probes fail, and idle connections are closed with what they know:
    // then there is no value, but never a wrong one.
    for _ in 0..10 {
        let again = "ALTER SEQUENCE counter RESTART; TRUNCATE serials RESTART IDENTITY; UPDATE plain SET n = 0";
        fleet.primary().sql(again).unwrap();
        let through = play(&mut [(); 3].map(|()| yard.client()), &script());
        let differing: Vec<_> = through.iter().zip(&expected).filter(|(through, expected)| through != expected).collect();
        if differing.is_empty() {
            return;
        }
        assert!(differing.iter().all(|(through, _)| through.contains("E:55000")), "{differing:#?}");
    }
    panic!("sessions never find their sequences");
}
