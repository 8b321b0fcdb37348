//! Ports for servers of a local fleet.

use super::error::FleetError;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::net::TcpSocket;

/// Free ports are taken from below the range that systems give to outgoing connections, so that none of those takes the port
/// of a server that is down for a moment.
const FREE_PORTS: Range<u16> = 18_000..32_000;

/// How many ports this process has looked at. It begins anywhere, so that two processes seldom look at the same ones.
static LOOKED_AT: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(u32::from(rand::random::<u16>())));

/// A TCP port on 127.0.0.1 that nothing listens on. It is not given again by this process, until it has given all others: not while
/// whoever asked for it still starts, nor while a server of that port is down.
///
/// # Errors
/// None of them is free.
pub fn free_port() -> Result<u16, FleetError> {
    (0..FREE_PORTS.len())
        .map(|_| port_of(LOOKED_AT.fetch_add(1, Ordering::Relaxed)))
        .find(|port| is_free(*port))
        .ok_or(FleetError::PortTaken { host: "a server".into(), port: FREE_PORTS.end })
}

/// Whether nothing listens on a port of 127.0.0.1. The socket that finds out does not listen itself: a program that is being
/// started meanwhile holds it for a moment longer, which would keep the server from its port.
pub(super) fn is_free(port: u16) -> bool {
    let bound = || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::LOCALHOST, port).into())
    };
    bound().is_ok()
}

fn port_of(count: u32) -> u16 {
    let among = u32::from(FREE_PORTS.end - FREE_PORTS.start);
    FREE_PORTS.start + (count % among) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::net::TcpListener;

    #[test]
    fn no_port_is_given_twice() {
        let ports: Vec<u16> = std::thread::scope(|scope| {
            let some = || (0..500).map(|_| free_port().expect("a port")).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(some)).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("it does not panic")).collect()
        });
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len());
        assert!(ports.iter().all(|port| FREE_PORTS.contains(port)));
    }

    #[test]
    fn a_port_in_use_is_passed_over() {
        let port = free_port().expect("a port");
        assert!(is_free(port));
        let _server = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("it is free");
        assert!(!is_free(port));
    }
}
