//! Opening sockets and setting their options.

use super::socket::Socket;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};

/// Turns Nagle's delay off and keep-alives on. A socket that refuses an option still works, so errors are dropped.
pub fn tune<S: AsFd>(stream: &S, keepalive: Duration) {
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_nodelay(true);
    if !keepalive.is_zero() {
        let options = TcpKeepalive::new().with_time(keepalive).with_interval(keepalive / 4).with_retries(4);
        let _ = socket.set_tcp_keepalive(&options);
    }
    let peer = socket.peer_addr().ok().and_then(|peer| peer.as_socket());
    if peer.is_some_and(|peer| peer.ip().is_loopback()) {
        control_congestion_locally(socket);
    }
}

/// Between two processes of this machine nothing is lost and no line is shared: the simplest congestion control will do. What a
/// system has chosen for far connections may cost more: BBR models the line at every acknowledgement and paces what is sent.
#[cfg(target_os = "linux")]
fn control_congestion_locally(socket: SockRef<'_>) {
    // Every Linux has this one and lets everybody use it.
    let _ = socket.set_tcp_congestion(b"reno");
}

#[cfg(not(target_os = "linux"))]
fn control_congestion_locally(_: SockRef<'_>) {}

/// Connects to `address`: a DNS name, an IP address, or the directory of a Unix socket (starts with `/`). Names are resolved
/// at each call.
pub async fn connect(address: &str, port: u16, keepalive: Duration) -> io::Result<Socket> {
    if address.starts_with('/') {
        let path = Path::new(address).join(format!(".s.PGSQL.{port}"));
        return UnixStream::connect(path).await.map(Socket::Unix);
    }
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((address.trim_start_matches('[').trim_end_matches(']'), port)).await? {
        match connect_tcp(address).await {
            Ok(stream) => {
                tune(&stream, keepalive);
                return Ok(Socket::Tcp(stream));
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

async fn connect_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Before it is connected, so that the system's own choice never begins.
    if address.ip().is_loopback() {
        control_congestion_locally(SockRef::from(&socket));
    }
    socket.connect(address).await
}

/// Binds a TCP listener. The address is not shared (no SO_REUSEPORT), so that a second pgyard on the same port fails clearly.
pub fn listen_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let domain = if address.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.ip().is_loopback() {
        // Accepted connections inherit it.
        control_congestion_locally(SockRef::from(&socket));
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn within_this_machine_the_simplest_congestion_control_is_used() {
        let listener = listen_tcp(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a listener");
        let port = listener.local_addr().expect("its address").port();
        let accepting = tokio::net::TcpListener::from_std(listener).expect("watched");
        let (connected, accepted) = tokio::join!(connect("localhost", port, Duration::ZERO), accepting.accept());
        let Ok(Socket::Tcp(connected)) = connected else { panic!("a TCP connection: {connected:?}") };
        let (accepted, _) = accepted.expect("a connection");
        for stream in [&connected, &accepted] {
            let name = SockRef::from(stream).tcp_congestion().expect("its congestion control");
            assert_eq!(name.split(|byte| *byte == 0).next(), Some(&b"reno"[..]));
        }
    }

    #[tokio::test]
    async fn a_refused_connection_is_an_error() {
        let listener = listen_tcp(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a listener");
        let port = listener.local_addr().expect("its address").port();
        drop(listener);
        let refused = connect("127.0.0.1", port, Duration::ZERO).await.expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
