//! A name behind which several servers stand: what the probe has learnt of one says nothing of another.

use super::harness::{Pgyard, config, eventually, own_fleet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// The answer to SSLRequest of a server without TLS.
const NO_TLS: &[u8] = b"N";
const SSL_REQUEST_LEN: usize = 8;

/// A balancer: pgyard's own connections go to one server, those of clients to another.
struct Balancer {
    port: u16,
    of_clients: Arc<AtomicU16>,
}

impl Balancer {
    fn new(of_control: u16, of_clients: u16) -> Balancer {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (port, of_clients) = (listener.local_addr().unwrap().port(), Arc::new(AtomicU16::new(of_clients)));
        let chosen = of_clients.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let chosen = chosen.clone();
                // A connection that ends before its start-up packet needs no server.
                std::thread::spawn(move || drop(pass_on(client, of_control, &chosen)));
            }
        });
        Balancer { port, of_clients }
    }
}

fn pass_on(mut client: TcpStream, of_control: u16, of_clients: &AtomicU16) -> std::io::Result<()> {
    let mut packet = read_packet(&mut client)?;
    if packet.len() == SSL_REQUEST_LEN {
        client.write_all(NO_TLS)?;
        packet = read_packet(&mut client)?;
    }
    let is_client = packet.windows(9).any(|bytes| bytes == b"user\0app\0");
    let port = if is_client { of_clients.load(Ordering::Relaxed) } else { of_control };
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    server.write_all(&packet)?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    let _ = std::io::copy(&mut server, &mut client);
    client.shutdown(Shutdown::Both)
}

fn read_packet(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut packet = vec![0; 4];
    stream.read_exact(&mut packet)?;
    let length = u32::from_be_bytes([packet[0], packet[1], packet[2], packet[3]]) as usize;
    packet.resize(length, 0);
    stream.read_exact(&mut packet[4..])?;
    Ok(packet)
}

#[test]
fn a_connection_to_another_server_than_the_probes_is_not_used() {
    let fleet = own_fleet(2);
    let (one, two) = (fleet.replicas()[0].port(), fleet.replicas()[1].port());
    let balancer = Balancer::new(one, one);
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, Some(balancer.port), ""));
    yard.wait_for_replicas(&["replica1", "replica2"]);
    // Both replicas under one name: the second is known, but not by that one.
    balancer.of_clients.store(two, Ordering::Relaxed);
    let host = format!("127.0.0.1:{}", balancer.port);
    let strangers = || yard.metric("pgyard_server_strangers_total", &[("host", &host)]).unwrap();
    let mut clients: Vec<_> = (0..4).map(|_| yard.client()).collect();
    // Connections of before are used on, so transactions hold them while more are asked for.
    eventually("new connections are looked at", Duration::from_secs(20), || {
        for client in &mut clients {
            client.column("BEGIN READ ONLY").unwrap();
            client.column("SELECT 1").unwrap();
        }
        clients.iter_mut().for_each(|client| drop(client.column("COMMIT").unwrap()));
        strangers() >= 1.0
    });
    assert!(yard.log().contains("do several stand behind that name?"));
    // Nobody sees an error, and the one that the probe knows is used again when the name leads there.
    balancer.of_clients.store(one, Ordering::Relaxed);
    yard.wait_for_replicas(&["replica1", "replica2"]);
}
