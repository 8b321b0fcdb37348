//! Starting, stopping, and cancelling: what happens at the edges of pgyard's and of a client's life.

use super::harness::client::{Protocol, RawClient, cancel_request};
use super::harness::server_log::{executed_on, mark};
use super::harness::{Pgyard, eventually, shared_fleet, shared_pgyard};
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn the_first_sigterm_lets_a_transaction_end() {
    let mut yard = Pgyard::start(shared_fleet(), &[]);
    let mut busy = yard.client();
    let mut idle = yard.client();
    busy.column("BEGIN").unwrap();
    busy.column("SELECT 1").unwrap();
    yard.signal("TERM");
    let farewell = idle.receive().unwrap().expect("an idle client is told");
    assert_eq!((farewell.tag, farewell.field(b'C').as_deref()), (b'E', Some("57P01")));
    eventually("nobody is let in any more", Duration::from_secs(5), || {
        RawClient::log_in(yard.port(), "app", "x", "app").is_err()
    });
    assert_eq!(busy.column("SELECT 2").unwrap(), ["2"], "a running transaction goes on");
    busy.column("COMMIT").unwrap();
    eventually("the process ends", Duration::from_secs(5), || !yard.is_running());
}

#[test]
fn the_second_sigterm_ends_at_once() {
    let mut yard = Pgyard::start(shared_fleet(), &[]);
    let mut busy = yard.client();
    busy.column("BEGIN").unwrap();
    busy.column("SELECT 1").unwrap();
    yard.signal("TERM");
    std::thread::sleep(Duration::from_millis(500));
    assert!(yard.is_running(), "it waits for the transaction");
    yard.signal("TERM");
    eventually("the process ends", Duration::from_secs(3), || !yard.is_running());
}

#[test]
fn a_port_in_use_is_a_clear_error() {
    let taken = shared_pgyard().port();
    let output = Command::new(env!("CARGO_BIN_EXE_pgyard"))
        .args(["--primary", &shared_fleet().primary().superuser_url(), "--listen", &format!("127.0.0.1:{taken}")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains(&taken.to_string()), "{said}");
}

#[test]
fn a_late_cancel_request_hits_nobody_else() {
    let yard = shared_pgyard();
    let mut finished = yard.client();
    finished.column("SELECT 1").unwrap();
    // Other sessions use the server connections that the first one has used.
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut other = yard.client();
                    (0..5).for_each(|_| {
                        drop(other.column("SELECT pg_sleep(0.2)").expect("somebody else's cancel request hit this"))
                    });
                })
            })
            .collect();
        for _ in 0..40 {
            let mut request = RawClient::connect(yard.port()).unwrap();
            request.send(&cancel_request(finished.key)).unwrap();
            assert_eq!(request.receive().unwrap(), None, "a cancel request has no answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        others.into_iter().for_each(|other| other.join().unwrap());
    });
    assert_eq!(finished.column("SELECT 1").unwrap(), ["1"]);
}

#[test]
fn a_cancel_request_with_a_wrong_secret_does_nothing() {
    let yard = shared_pgyard();
    let mut client = yard.client();
    let (pid, secret) = client.key;
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let sleeping = scope.spawn(|| client.column("SELECT pg_sleep(1)"));
        std::thread::sleep(Duration::from_millis(300));
        RawClient::connect(yard.port()).unwrap().send(&cancel_request((pid, secret ^ 1))).unwrap();
        sleeping.join().unwrap().expect("it must not be cancelled");
    });
    assert!(begin.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_pipeline_of_reads_uses_a_replica() {
    use super::harness::client::{bind, execute, parse, sync};
    let yard = Pgyard::start(shared_fleet(), &[]);
    let mut client = yard.client();
    for (name, second, primary) in [("lifecycle.reads", "SELECT 2", false), ("lifecycle.mixed", "SELECT txid_current()", true)] {
        let part = |sql: &str| [parse("", &(mark(name) + sql)), bind("", ""), execute("")].concat();
        client.send(&[part("SELECT 1"), part(second), part("SELECT 3"), sync()].concat()).unwrap();
        let replies = client.until_ready().unwrap();
        assert_eq!(replies.iter().filter(|reply| reply.tag == b'D').count(), 3);
        let hosts = executed_on(shared_fleet(), name);
        assert!(hosts.len() == 1 && (hosts[0] == "primary") == primary, "{name}: {hosts:?}");
    }
    client.run(Protocol::Simple, "SELECT 1").unwrap();
}
