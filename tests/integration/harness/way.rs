//! TCP ways to a server on which a test can meddle with what passes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};

/// Opens a port that leads to `server`'s. For each connection `carriers` makes what sends its requests on, and what sends its answers
/// on: piece by piece, until one says that the connection ends.
pub fn way_to<R, A>(server: u16, carriers: impl Fn() -> (R, A) + Send + 'static) -> u16
where
    R: FnMut(&[u8], &mut TcpStream) -> bool + Send + 'static,
    A: FnMut(&[u8], &mut TcpStream) -> bool + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else { continue };
            let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let (requests, answers) = carriers();
            std::thread::spawn(move || carry(from, to, requests));
            std::thread::spawn(move || carry(server, client, answers));
        }
    });
    port
}

/// Sends a piece on as it is.
pub fn pass(piece: &[u8], to: &mut TcpStream) -> bool {
    to.write_all(piece).is_ok()
}

fn carry(mut from: TcpStream, mut to: TcpStream, mut send: impl FnMut(&[u8], &mut TcpStream) -> bool) {
    let mut piece = [0; 16384];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        if !send(&piece[..count], &mut to) {
            break;
        }
    }
    // Either may be closed already.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
