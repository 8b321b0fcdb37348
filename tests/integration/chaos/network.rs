//! A network that can be told to misbehave: a TCP relay between pgyard and one server, each direction by itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// What happens to bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// They go on at once.
    #[default]
    Free,
    /// They go on after a while, in order.
    Delay(Duration),
    /// So many go on at a time, with this pause.
    Drip(usize, Duration),
    /// None goes on until this ends; then all do. Connections stay open, as when a cable is out.
    Hold,
    /// So many more go on; then the connection is closed both ways, perhaps in the middle of a message.
    CutAfter(u64),
    /// The receiver is told that no more will come, and what does come is thrown away.
    HalfClose,
}

/// What happens between pgyard and a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Requests.
    pub to_server: Flow,
    /// Answers.
    pub to_client: Flow,
    /// New connections are closed at once.
    pub refuses: bool,
    /// Log positions in answers are replaced by zero: the server seems to have written nothing. Only positions have this form in
    /// what the tests send.
    pub lies_about_positions: bool,
}

impl Weather {
    fn flow(&self, direction: Direction) -> Flow {
        match direction {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

/// The way to one server. It ends with the last connection after it is dropped.
#[derive(Debug)]
pub struct BadNetwork {
    port: u16,
    weather: watch::Sender<Weather>,
}

impl BadNetwork {
    /// Listens on a free port, and leads to a server on this machine.
    pub fn to(server: u16) -> BadNetwork {
        let (weather, seen) = watch::channel(Weather::default());
        let listener = runtime().block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        runtime().spawn(listen(listener, (Ipv4Addr::LOCALHOST, server).into(), seen));
        BadNetwork { port, weather }
    }

    /// Where pgyard connects.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes what happens from now on, also to connections that are open.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// All is well from now on.
    pub fn clear(&self) {
        self.set(Weather::default());
    }
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap())
}

async fn listen(listener: TcpListener, server: SocketAddr, weather: watch::Receiver<Weather>) {
    // Ends with the sender, which is the BadNetwork.
    while weather.has_changed().is_ok() {
        let Ok(Ok((client, _))) = tokio::time::timeout(Duration::from_secs(1), listener.accept()).await else { continue };
        if !weather.borrow().refuses {
            tokio::spawn(relay(client, server, weather.clone()));
        }
    }
}

async fn relay(client: TcpStream, server: SocketAddr, weather: watch::Receiver<Weather>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let requests = pump(from_client, to_server, Direction::ToServer, weather.clone());
    let answers = pump(from_server, to_client, Direction::ToClient, weather);
    // A direction that was cut takes the other with it; one that came to its end does not.
    drop(tokio::try_join!(requests, answers));
}

/// The connection is to be closed both ways.
struct Cut;

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    mut weather: watch::Receiver<Weather>,
) -> Result<(), Cut> {
    let mut chunk = vec![0; 16 * 1024];
    let mut left = budget(weather.borrow_and_update().flow(direction));
    loop {
        let count = tokio::select! {
            // What was set before the bytes were sent holds for them.
            biased;
            changed = weather.changed() => {
                let flow = weather.borrow().flow(direction);
                left = budget(flow);
                if flow == Flow::HalfClose {
                    break;
                }
                match changed {
                    Ok(()) => continue,
                    Err(_) => return Err(Cut),
                }
            }
            read = from.read(&mut chunk) => read.map_err(|_| Cut)?,
        };
        if count == 0 {
            return to.shutdown().await.map_err(|_| Cut);
        }
        if weather.borrow().lies_about_positions && direction == Direction::ToClient {
            zero_positions(&mut chunk[..count]);
        }
        if !forward(&chunk[..count], &mut to, (direction, &mut weather), &mut left).await? {
            break;
        }
    }
    to.shutdown().await.map_err(|_| Cut)?;
    while from.read(&mut chunk).await.map_err(|_| Cut)? > 0 {}
    Ok(())
}

fn budget(flow: Flow) -> u64 {
    match flow {
        Flow::CutAfter(bytes) => bytes,
        _ => u64::MAX,
    }
}

/// False: this direction is half-closed.
async fn forward(
    bytes: &[u8],
    to: &mut OwnedWriteHalf,
    (direction, weather): (Direction, &mut watch::Receiver<Weather>),
    left: &mut u64,
) -> Result<bool, Cut> {
    let held = weather.wait_for(|weather| weather.flow(direction) != Flow::Hold).await.map_err(|_| Cut)?.flow(direction);
    match held {
        Flow::HalfClose => return Ok(false),
        Flow::Delay(time) => tokio::time::sleep(time).await,
        Flow::Drip(count, pause) => {
            for part in bytes.chunks(count) {
                to.write_all(part).await.map_err(|_| Cut)?;
                // Drops that were under way when this ends follow at once.
                if matches!(weather.borrow().flow(direction), Flow::Drip(..)) {
                    tokio::time::sleep(pause).await;
                }
            }
            return Ok(true);
        }
        Flow::Free | Flow::Hold | Flow::CutAfter(_) => {}
    }
    let passing = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
    to.write_all(&bytes[..passing]).await.map_err(|_| Cut)?;
    *left = left.saturating_sub(passing as u64);
    if *left == 0 { Err(Cut) } else { Ok(true) }
}

/// Replaces `0/3000148` by `0/0000000`, without changing a length.
fn zero_positions(bytes: &mut [u8]) {
    let mut at = 0;
    while at + 2 < bytes.len() {
        let digits = bytes[at + 2..].iter().take_while(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(byte)).count();
        if bytes[at..].starts_with(b"0/") && digits >= 6 {
            bytes[at + 2..at + 2 + digits].fill(b'0');
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpStream;
    use std::time::Instant;

    /// A server that sends back what it gets.
    fn echo() -> u16 {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
            }
        });
        port
    }

    fn connect(network: &BadNetwork) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, network.port())).unwrap()
    }

    /// As many bytes as are expected, and then the end of the stream or silence: whichever is expected.
    fn expect(stream: &mut TcpStream, text: &str, ended: bool, case: &str) {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut got = vec![0; text.len()];
        stream.read_exact(&mut got).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(String::from_utf8_lossy(&got), text, "{case}");
        if !ended {
            stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        }
        let silent = |error: &std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        match stream.read(&mut [0]) {
            Ok(0) => assert!(ended, "{case}: it ended"),
            Ok(_) => panic!("{case}: more than {text:?}"),
            Err(error) => assert_eq!(ended, !silent(&error), "{case}: {error}"),
        }
    }

    const TEXT: &str = "ill at 0/3000148.";

    fn check(weather: Weather, (text, ended): (&str, bool), afterwards: &str) {
        let (network, case) = (BadNetwork::to(echo()), format!("{weather:?}"));
        let mut stream = connect(&network);
        stream.write_all(b"well.").unwrap();
        expect(&mut stream, "well.", false, "at the beginning");
        network.set(weather);
        let sent = Instant::now();
        drop(stream.write_all(TEXT.as_bytes()));
        expect(&mut stream, text, ended, &case);
        if let Flow::Delay(time) = weather.to_client {
            assert!(sent.elapsed() >= time, "{case}");
        }
        if !ended {
            network.clear();
            expect(&mut stream, afterwards, false, &format!("after {case}"));
        }
    }

    #[test]
    fn each_direction_does_as_it_is_told() {
        let fair = Weather::default();
        let (open, ended) = (false, true);
        check(fair, (TEXT, open), "");
        check(Weather { to_client: Flow::Delay(Duration::from_millis(100)), ..fair }, (TEXT, open), "");
        check(Weather { to_server: Flow::Hold, ..fair }, ("", open), TEXT);
        check(Weather { to_client: Flow::Hold, ..fair }, ("", open), TEXT);
        check(Weather { to_client: Flow::Drip(1, Duration::from_millis(5)), ..fair }, (TEXT, open), "");
        check(Weather { to_client: Flow::CutAfter(3), ..fair }, ("ill", ended), "");
        check(Weather { to_server: Flow::CutAfter(0), ..fair }, ("", ended), "");
        check(Weather { to_client: Flow::HalfClose, ..fair }, ("", ended), "");
        check(Weather { to_server: Flow::HalfClose, ..fair }, ("", ended), "");
        check(Weather { lies_about_positions: true, ..fair }, ("ill at 0/0000000.", open), "");
        check(Weather { refuses: true, ..fair }, (TEXT, open), "");
    }

    #[test]
    fn a_refused_connection_ends_at_once() {
        let network = BadNetwork::to(echo());
        network.set(Weather { refuses: true, ..Weather::default() });
        expect(&mut connect(&network), "", true, "refused");
    }
}
