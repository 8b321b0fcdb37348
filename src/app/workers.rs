//! Relay threads: one current-thread run-time each, so that a session, its client's socket and usually its server's socket
//! stay on one core. A connection goes to the thread with the fewest.

use crate::metrics::set_worker;
use crate::net::Stream;
use crate::net::socket::tune;
use crate::net::stream::{Peer, Socket};
use crate::session::{Front, serve_client};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};

/// Accepted connections that may wait for a relay thread.
const HANDED_OVER_MAX: usize = 1024;

/// A connection on its way to a relay thread.
enum Accepted {
    Tcp(std::net::TcpStream, std::net::SocketAddr),
    Unix(std::os::unix::net::UnixStream),
}

struct Worker {
    sender: mpsc::Sender<Accepted>,
    load: Arc<AtomicUsize>,
}

/// The relay threads.
pub struct Workers {
    workers: Vec<Worker>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// A thread or its run-time could not be made.
    pub fn start(count: usize, front: &Arc<Front>, stop: &watch::Receiver<bool>) -> io::Result<Workers> {
        let mut workers = Workers { workers: Vec::new(), threads: Vec::new() };
        for index in 0..count {
            let (sender, receiver) = mpsc::channel(HANDED_OVER_MAX);
            let load = Arc::new(AtomicUsize::new(0));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (front, mut stop, its_load) = (front.clone(), stop.clone(), load.clone());
            let thread = std::thread::Builder::new().name(format!("relay-{index}")).spawn(move || {
                set_worker(index);
                runtime.block_on(async move {
                    tokio::select! {
                        () = take_connections(receiver, front, its_load) => {}
                        // The sender is gone or says so: the run-time ends, and with it every session that is left.
                        _ = stop.wait_for(|stop| *stop) => {}
                    }
                });
            })?;
            workers.workers.push(Worker { sender, load });
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// The sending half, for the tasks that accept.
    pub fn dispatcher(&self) -> Dispatcher {
        let workers = self.workers.iter().map(|worker| (worker.sender.clone(), worker.load.clone())).collect();
        Dispatcher { workers }
    }

    /// Waits for the threads; they end when they are told to stop.
    pub fn join(self) {
        drop(self.workers);
        for thread in self.threads {
            // A panic outside a session was printed by the thread itself.
            let _ = thread.join();
        }
    }
}

/// Hands connections to relay threads.
#[derive(Clone)]
pub struct Dispatcher {
    workers: Vec<(mpsc::Sender<Accepted>, Arc<AtomicUsize>)>,
}

impl Dispatcher {
    async fn hand_over(&self, accepted: Accepted) {
        let Some((sender, load)) = self.workers.iter().min_by_key(|(_, load)| load.load(Ordering::Relaxed)) else { return };
        load.fetch_add(1, Ordering::Relaxed);
        if sender.send(accepted).await.is_err() {
            load.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Hands a TCP connection over.
    pub async fn tcp(&self, stream: TcpStream, peer: std::net::SocketAddr) {
        match stream.into_std() {
            Ok(stream) => self.hand_over(Accepted::Tcp(stream, peer)).await,
            Err(error) => tracing::warn!(%error, "an accepted connection could not be handed to a relay thread"),
        }
    }

    /// Hands a Unix socket connection over.
    pub async fn unix(&self, stream: UnixStream) {
        match stream.into_std() {
            Ok(stream) => self.hand_over(Accepted::Unix(stream)).await,
            Err(error) => tracing::warn!(%error, "an accepted connection could not be handed to a relay thread"),
        }
    }
}

/// Frees a place in a thread's load when its connection ends, however it ends.
struct LoadPlace(Arc<AtomicUsize>);

impl Drop for LoadPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn take_connections(mut receiver: mpsc::Receiver<Accepted>, front: Arc<Front>, load: Arc<AtomicUsize>) {
    while let Some(accepted) = receiver.recv().await {
        let place = LoadPlace(load.clone());
        let keepalive = front.settings.load().tcp_keepalive;
        let (stream, peer) = match open(accepted, keepalive) {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!(%error, "an accepted connection could not be watched");
                continue;
            }
        };
        tokio::spawn(serve_client(front.clone(), stream, peer, place));
    }
}

fn open(accepted: Accepted, keepalive: Duration) -> io::Result<(Stream, Peer)> {
    match accepted {
        Accepted::Tcp(stream, peer) => {
            let stream = TcpStream::from_std(stream)?;
            tune(&stream, keepalive);
            Ok((Stream::Plain(Socket::Tcp(stream)), Peer::Tcp(peer)))
        }
        Accepted::Unix(stream) => Ok((Stream::Plain(Socket::Unix(UnixStream::from_std(stream)?)), Peer::Unix)),
    }
}
