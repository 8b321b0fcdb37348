//! Several pgyards behind one address: a cancel request finds its client whichever of them it reaches, and nobody else.

use super::harness::client::{RawClient, cancel_request_with, query, startup, startup_3_2};
use super::harness::secure::secure_fleet;
use super::harness::{Pgyard, eventually};
use pgyard::demo::free_port;
use std::time::Duration;

/// Sends a cancel request and waits until the connection is closed, which is when it has been carried out.
fn cancel(port: u16, pid: i32, secret: &[u8]) {
    let mut client = RawClient::connect(port).unwrap();
    client.send(&cancel_request_with(pid, secret)).unwrap();
    assert_eq!(client.receive().unwrap(), None);
}

fn sleeping(text: &str) -> bool {
    let question =
        format!("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '{}'", text.replace('\'', "''"));
    secure_fleet().fleet.primary().sql(&question).unwrap() == "1"
}

#[test]
fn a_cancel_request_finds_its_client_through_any_process() {
    let secure = secure_fleet();
    let ports = [free_port().unwrap(), free_port().unwrap()];
    let peers = |id: usize| {
        // Number 3 is a mistake: it leads back to the process itself.
        format!(
            "[peers]\nid = {id}\naddresses = {{ 1 = '127.0.0.1:{}', 2 = '127.0.0.1:{}', 3 = '127.0.0.1:{}', 4 = '127.0.0.1:1' }}\n",
            ports[0],
            ports[1],
            ports[id - 1]
        )
    };
    let one = Pgyard::start_at(&secure.fleet, ports[0], &secure.config(&(peers(1) + &secure.tls("front")), ""), &[]);
    let two = Pgyard::start_at(&secure.fleet, ports[1], &secure.config(&(peers(2) + &secure.tls("front")), ""), &[]);
    let password = secure.fleet.app_password().reveal();
    let names = [("user", "app"), ("database", "app")];
    for (packet, length, seconds) in [(startup(&names), 4, 111), (startup_3_2(&names), 32, 112)] {
        let mut client = RawClient::log_in_with(one.port(), &packet, password).unwrap();
        let mut other = RawClient::log_in_with(two.port(), &packet, password).unwrap();
        assert_eq!((client.secret.len(), client.key.0 >> 22, other.key.0 >> 22), (length, 1, 2));
        let (text, bystander) = (format!("SELECT pg_sleep({seconds})"), format!("SELECT pg_sleep({seconds}.5)"));
        client.send(&query(&text)).unwrap();
        other.send(&query(&bystander)).unwrap();
        eventually("both sleep", Duration::from_secs(10), || sleeping(&text) && sleeping(&bystander));
        // Wrong keys, keys of nobody, a peer that is not there: nothing happens.
        let mut wrong = client.secret.clone();
        wrong[0] ^= 1;
        cancel(two.port(), client.key.0, &wrong);
        cancel(two.port(), client.key.0 ^ 1, &client.secret);
        cancel(two.port(), other.key.0, &client.secret);
        cancel(two.port(), 3 << 22 | 5, &client.secret);
        cancel(two.port(), 4 << 22 | 5, &client.secret);
        cancel(two.port(), 5 << 22 | 5, &client.secret);
        cancel(two.port(), -1, &client.secret);
        assert!(sleeping(&text) && sleeping(&bystander));
        cancel(two.port(), client.key.0, &client.secret.clone());
        let replies = client.until_ready().unwrap();
        assert!(replies.iter().any(|reply| reply.field(b'C').as_deref() == Some("57014")), "{replies:?}");
        assert!(sleeping(&bystander), "only the client with the key is cancelled");
        cancel(one.port(), other.key.0, &other.secret.clone());
        let replies = other.until_ready().unwrap();
        assert!(replies.iter().any(|reply| reply.field(b'C').as_deref() == Some("57014")), "{replies:?}");
    }
    let count =
        |yard: &Pgyard, outcome: &str| yard.metric("pgyard_cancel_requests_total", &[("outcome", outcome)]).unwrap_or(0.0);
    // Through 2, for each protocol: to 1 with a wrong key, to 1 for nobody, to itself as number 3, to 1 with the right key.
    assert_eq!((count(&two, "peer"), count(&one, "peer")), (8.0, 2.0));
    assert_eq!((count(&one, "forwarded"), count(&two, "forwarded")), (2.0, 2.0));
    // Number 4 does not answer; what came back as number 3 is not passed on again.
    assert_eq!((count(&two, "failed"), count(&two, "unknown_key"), count(&one, "unknown_key")), (2.0, 8.0, 4.0));
}
