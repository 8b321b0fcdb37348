//! Opening sockets and setting their options.

use super::stream::Socket;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};

/// Turns Nagle's delay off and keep-alives on. A socket that refuses an option still works, so errors are dropped.
pub fn tune(stream: &TcpStream, keepalive: Duration) {
    let _ = stream.set_nodelay(true);
    if !keepalive.is_zero() {
        let options = TcpKeepalive::new().with_time(keepalive).with_interval(keepalive / 4).with_retries(4);
        let _ = SockRef::from(stream).set_tcp_keepalive(&options);
    }
}

/// Connects to `address`: a DNS name, an IP address, or the directory of a Unix socket (starts with `/`). Names are resolved
/// at each call.
pub async fn connect(address: &str, port: u16, keepalive: Duration) -> io::Result<Socket> {
    if address.starts_with('/') {
        let path = Path::new(address).join(format!(".s.PGSQL.{port}"));
        return UnixStream::connect(path).await.map(Socket::Unix);
    }
    let stream = TcpStream::connect((address.trim_start_matches('[').trim_end_matches(']'), port)).await?;
    tune(&stream, keepalive);
    Ok(Socket::Tcp(stream))
}

/// Binds a TCP listener. The address is not shared (no SO_REUSEPORT), so that a second pgyard on the same port fails clearly.
pub fn listen_tcp(address: std::net::SocketAddr) -> io::Result<std::net::TcpListener> {
    let domain = if address.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
