//! Relay threads, each with a run-time of its own, so that a session, its client's socket and usually its server's socket are on one core.
//! A connection goes to the thread with the fewest.

use super::governor::thread_number;
use crate::metrics::set_worker;
use crate::net::Stream;
use crate::net::open::tune;
use crate::net::socket::Socket;
use crate::net::stream::Peer;
use crate::runtime;
use crate::session::{Front, Placement, Resident, serve_client};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};

/// Connections that may wait for a relay thread.
const HANDED_OVER_MAX: usize = 1024;
/// Longest wait for a relay thread to say its number.
const START_MAX: Duration = Duration::from_secs(5);

/// A connection on its way to a relay thread.
enum Arrival {
    Tcp(std::net::TcpStream, std::net::SocketAddr),
    Unix(std::os::unix::net::UnixStream),
    /// A session that another thread had.
    Resident(Box<Resident>),
}

/// The relay threads.
pub struct Workers {
    dispatcher: Dispatcher,
    threads: Vec<JoinHandle<()>>,
    numbers: Vec<Option<u32>>,
}

impl Workers {
    /// Starts one thread for each that the front door's placement knows; `sends_together` is setting `io_uring`. The calling thread's
    /// run-time has to outlive them.
    ///
    /// # Errors
    /// A thread could not be made.
    pub fn start(front: &Arc<Front>, stop: &watch::Receiver<bool>, sends_together: bool) -> io::Result<Workers> {
        let control = tokio::runtime::Handle::current();
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..front.placement.count()).map(|_| mpsc::channel(HANDED_OVER_MAX)).unzip();
        let dispatcher = Dispatcher { senders: senders.into(), placement: front.placement.clone() };
        let mut workers = Workers { dispatcher, threads: Vec::new(), numbers: Vec::new() };
        for (index, receiver) in receivers.into_iter().enumerate() {
            let (mut stop, relay) =
                (stop.clone(), RelayThread { index, front: front.clone(), dispatcher: workers.dispatcher.clone() });
            let (told, number) = std::sync::mpsc::sync_channel(1);
            let control = control.clone();
            let thread = std::thread::Builder::new().name(format!("relay-{index}")).spawn(move || {
                set_worker(index);
                // The receiver waits for it, for a while.
                let _ = told.send(thread_number());
                // Timers, and what blocks, are the control threads'.
                let _entered = control.enter();
                let main = async move {
                    tokio::select! {
                        () = relay.take_connections(receiver) => {}
                        // The run-time ends, and with it every session that is left.
                        _ = stop.wait_for(|stop| *stop) => {}
                    }
                };
                let outcome = runtime::run(main, sends_together);
                if let Err(error) = outcome {
                    tracing::error!(%error, "a relay thread has ended");
                }
            })?;
            workers.threads.push(thread);
            workers.numbers.push(number.recv_timeout(START_MAX).ok().flatten());
        }
        Ok(workers)
    }

    /// For the tasks that accept.
    pub fn dispatcher(&self) -> Dispatcher {
        self.dispatcher.clone()
    }

    /// The threads' numbers in the kernel, where it tells.
    pub fn numbers(&self) -> Vec<Option<u32>> {
        self.numbers.clone()
    }

    /// Waits for the threads; they end when they are told to stop.
    pub fn join(self) {
        for thread in self.threads {
            // A panic outside a session was printed by the thread itself.
            let _ = thread.join();
        }
    }
}

/// Hands connections to relay threads.
#[derive(Clone)]
pub struct Dispatcher {
    senders: Arc<[mpsc::Sender<Arrival>]>,
    placement: Arc<Placement>,
}

impl Dispatcher {
    async fn hand_over(&self, index: usize, arrival: Arrival) {
        let Some(sender) = self.senders.get(index) else { return };
        let connections = &self.placement.thread(index).connections;
        connections.fetch_add(1, Ordering::Relaxed);
        if sender.send(arrival).await.is_err() {
            connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Hands a TCP connection over.
    pub async fn tcp(&self, stream: TcpStream, peer: std::net::SocketAddr) {
        match stream.into_std() {
            Ok(stream) => self.hand_over(self.placement.choose(None), Arrival::Tcp(stream, peer)).await,
            Err(error) => tracing::warn!(%error, "an accepted connection could not be handed to a relay thread"),
        }
    }

    /// Hands a Unix socket connection over.
    pub async fn unix(&self, stream: UnixStream) {
        match stream.into_std() {
            Ok(stream) => self.hand_over(self.placement.choose(None), Arrival::Unix(stream)).await,
            Err(error) => tracing::warn!(%error, "an accepted connection could not be handed to a relay thread"),
        }
    }
}

/// Frees a connection's place on its thread when it ends or leaves, however it does.
struct ConnectionPlace {
    placement: Arc<Placement>,
    index: usize,
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.placement.thread(self.index).connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One relay thread.
#[derive(Clone)]
struct RelayThread {
    index: usize,
    front: Arc<Front>,
    dispatcher: Dispatcher,
}

impl RelayThread {
    async fn take_connections(self, mut receiver: mpsc::Receiver<Arrival>) {
        while let Some(arrival) = receiver.recv().await {
            let place = ConnectionPlace { placement: self.front.placement.clone(), index: self.index };
            match arrival {
                Arrival::Resident(mut resident) => match resident.arrive() {
                    Ok(()) => self.keep(resident, place),
                    Err(error) => tracing::warn!(%error, "a session could not be moved to another thread"),
                },
                new => match open(new, self.front.settings.load().tcp_keepalive) {
                    Ok(Some((stream, peer))) => self.receive(stream, peer, place),
                    Ok(None) => {}
                    Err(error) => tracing::warn!(%error, "an accepted connection could not be watched"),
                },
            }
        }
    }

    /// Lets a connection in. The log-in is a task of its own: what it needs is not kept for the session's whole life.
    fn receive(&self, stream: Stream, peer: Peer, place: ConnectionPlace) {
        let this = self.clone();
        runtime::spawn(async move {
            if let Some(resident) = serve_client(this.front.clone(), stream, peer).await {
                this.keep(Box::new(resident), place);
            }
        });
    }

    /// Serves a session until it ends or leaves for another thread.
    fn keep(&self, resident: Box<Resident>, place: ConnectionPlace) {
        let this = self.clone();
        runtime::spawn(async move {
            if let Some(resident) = resident.stay().await {
                drop(place);
                let to = this.dispatcher.placement.choose(Some(this.index));
                this.dispatcher.hand_over(to, Arrival::Resident(resident)).await;
            }
        });
    }
}

/// The connection and who is at its other end; `None` if there is nothing to open.
fn open(arrival: Arrival, keepalive: Duration) -> io::Result<Option<(Stream, Peer)>> {
    Ok(match arrival {
        Arrival::Tcp(stream, peer) => {
            tune(&stream, keepalive);
            Some((Stream::Plain(Socket::tcp(stream)?), Peer::Tcp(peer)))
        }
        Arrival::Unix(stream) => Some((Stream::Plain(Socket::unix(stream)?), Peer::Unix)),
        Arrival::Resident(_) => None,
    })
}
