//! A proxy as one writes it in an afternoon: reads to the replicas in turn, everything else to the primary. It shows that the
//! checker finds what it is there to find.

use super::stage::{Door, Stage};
use crate::integration::harness::RawClient;
use crate::integration::harness::client::{Reply, frame, query};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

/// What it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sin {
    /// Reads go to replicas, however old their state.
    ReadsAnywhere,
    /// Every tenth update is sent a second time, as after a lost answer.
    SendsTwice,
    /// Every tenth update is acknowledged and not sent.
    Forgets,
}

/// Listens for simple queries until the test program ends; asks for no password.
pub fn listen(stage: &Stage, sin: Sin) -> Door {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let door = stage.door(listener.local_addr().unwrap().port());
    let in_order = std::iter::once(stage.primary).chain(stage.replicas());
    let hosts: Vec<Door> = in_order.map(|index| stage.door(stage.fleet.hosts()[index].port())).collect();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let hosts = hosts.clone();
            // The end of either side ends the session.
            std::thread::spawn(move || drop(serve(client, &hosts, sin)));
        }
    });
    door
}

fn serve(mut client: TcpStream, hosts: &[Door], sin: Sin) -> io::Result<()> {
    let log_in = |host: &Door| RawClient::log_in(host.port, "app", &host.password, "app");
    let mut servers = hosts.iter().map(log_in).collect::<io::Result<Vec<_>>>()?;
    receive(&mut client)?;
    client.write_all(&[frame(b'R', &[0; 4]), frame(b'Z', b"I")].concat())?;
    let (mut count, mut in_transaction) = (0, false);
    loop {
        let mut tag = [0];
        client.read_exact(&mut tag)?;
        let body = receive(&mut client)?;
        if tag != *b"Q" {
            return Ok(());
        }
        count += 1;
        let sql = String::from_utf8_lossy(&body[..body.len() - 1]).into_owned();
        let updates = sql.starts_with("UPDATE") && !sql.contains(';') && count % 10 == 0;
        if updates && sin == Sin::Forgets {
            client.write_all(&[frame(b'C', b"UPDATE 1\0"), frame(b'Z', if in_transaction { b"T" } else { b"I" })].concat())?;
            continue;
        }
        let reads = sql.starts_with("SELECT") && !sql.contains("write_register") && !in_transaction;
        let anywhere = reads && sin == Sin::ReadsAnywhere;
        let index = if anywhere { 1 + count % (servers.len() - 1) } else { 0 };
        let server = &mut servers[index];
        if updates && sin == Sin::SendsTwice {
            server.send(&query(&sql))?;
            server.until_ready()?;
        }
        server.send(&query(&sql))?;
        let replies = server.until_ready()?;
        in_transaction = replies.last().is_some_and(|ready: &Reply| ready.body == b"T");
        client.write_all(&replies.iter().map(|reply| frame(reply.tag, &reply.body)).collect::<Vec<_>>().concat())?;
    }
}

/// A length and what it counts.
fn receive(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    client.read_exact(&mut length)?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    client.read_exact(&mut body)?;
    Ok(body)
}
