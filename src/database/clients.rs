//! The clients that are logged in: what the console shows of them, how they are told to stop, and how a cancel request finds
//! the server that works for them.

use crate::net::stream::Peer;
use crate::server::{ConnectError, ServerCard, ServerConnection, ServerDoor, ServerTarget, cancel};
use crate::sql::Pins;
use futures_util::task::AtomicWaker;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::{Instant, SystemTime};
use subtle::ConstantTimeEq;

/// What a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ClientState {
    /// Nothing.
    Idle = 0,
    /// Waiting for a server connection or a primary.
    Waiting = 1,
    /// A request is under way.
    Active = 2,
    /// In a transaction, waiting for the client.
    InTransaction = 3,
}

impl ClientState {
    /// As the console shows it.
    pub fn label(self) -> &'static str {
        match self {
            ClientState::Idle => "idle",
            ClientState::Waiting => "waiting",
            ClientState::Active => "active",
            ClientState::InTransaction => "idle in transaction",
        }
    }

    fn from_byte(byte: u8) -> Self {
        match byte {
            1 => ClientState::Waiting,
            2 => ClientState::Active,
            3 => ClientState::InTransaction,
            _ => ClientState::Idle,
        }
    }
}

/// Whether a session shall end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum StopRequest {
    /// Go on.
    None = 0,
    /// End when no transaction is open.
    Drain = 1,
    /// End now.
    Now = 2,
}

/// A bit beside the stop requests, so that a session that waits looks at one place.
const HOST_IS_SILENT: u8 = 4;

/// Where a cancel request for a session must go.
#[derive(Clone, Debug)]
struct CancelTarget {
    door: Arc<ServerDoor>,
    card: ServerCard,
}

#[derive(Debug, Default)]
struct CancelState {
    target: Option<CancelTarget>,
    /// Cancel requests that are under way to `target`.
    sending: u32,
    host: Option<Arc<str>>,
    /// The sessions of a sharded session on its shards: a request for it goes to all of them.
    legs: Vec<Arc<ClientEntry>>,
}

/// One logged-in client.
#[derive(Debug)]
pub struct ClientEntry {
    /// Process id towards the client; also its number in the console.
    pub process: i32,
    /// Its cancel key.
    pub key: Box<[u8]>,
    /// The database that it named.
    pub database: Arc<str>,
    /// Its role.
    pub user: Arc<str>,
    /// Where it is.
    pub peer: Peer,
    /// When it logged in.
    pub connected: SystemTime,
    /// Whether its connection is encrypted.
    pub tls: bool,
    /// It is a sharded session's session on one of the shards.
    pub is_leg: bool,
    application_name: Mutex<Box<str>>,
    state: AtomicU8,
    pins: AtomicU16,
    stop: AtomicU8,
    canceled: AtomicBool,
    requests: AtomicU64,
    waker: AtomicWaker,
    /// Which task `waker` wakes, by the address of its data; 0 if it has none. A task that is registered need not be so again.
    woken_task: AtomicUsize,
    cancel: Mutex<CancelState>,
}

impl ClientEntry {
    fn lock_cancel(&self) -> MutexGuard<'_, CancelState> {
        self.cancel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it is doing.
    pub fn state(&self) -> ClientState {
        ClientState::from_byte(self.state.load(Ordering::Relaxed))
    }

    /// Notes what it is doing.
    pub fn set_state(&self, state: ClientState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Requests answered.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// One more request was answered. Only its own task says so.
    pub fn count_request(&self) {
        self.requests.store(self.requests().wrapping_add(1), Ordering::Relaxed);
    }

    /// What binds it to its server.
    pub fn pins(&self) -> Pins {
        Pins(self.pins.load(Ordering::Relaxed))
    }

    /// Notes what binds it to its server.
    pub fn set_pins(&self, pins: Pins) {
        self.pins.store(pins.0, Ordering::Relaxed);
    }

    /// The name that it gave itself.
    pub fn application_name(&self) -> Box<str> {
        self.application_name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes the name that it gave itself.
    pub fn set_application_name(&self, name: &str) {
        *self.application_name.lock().unwrap_or_else(PoisonError::into_inner) = name.into();
    }

    /// The host that works for it now.
    pub fn host(&self) -> Option<Arc<str>> {
        self.lock_cancel().host.clone()
    }

    /// Asks it to end. A request is never taken back.
    pub fn ask_to_stop(&self, request: StopRequest) {
        self.stop.fetch_or(request as u8, Ordering::Release);
        self.wake();
    }

    /// Tells it that the host which works for it does not answer any more.
    pub fn tell_host_is_silent(&self) {
        self.stop.fetch_or(HOST_IS_SILENT, Ordering::Release);
        self.wake();
    }

    /// Whether it was told that its host does not answer any more. Reading it takes it. The host may be another one by now.
    pub fn take_host_is_silent(&self) -> bool {
        let told = self.stop.load(Ordering::Relaxed) & HOST_IS_SILENT != 0;
        told && self.stop.fetch_and(!HOST_IS_SILENT, Ordering::AcqRel) & HOST_IS_SILENT != 0
    }

    /// Whether it shall end. Registers the task, so that a later request wakes it.
    pub fn stop_requested(&self, cx: &mut Context<'_>) -> StopRequest {
        self.register(cx.waker());
        match self.stop.load(Ordering::Acquire) & !HOST_IS_SILENT {
            0 => StopRequest::None,
            1 => StopRequest::Drain,
            _ => StopRequest::Now,
        }
    }

    fn register(&self, waker: &Waker) {
        let task = waker.data().addr();
        if self.woken_task.load(Ordering::Acquire) != task {
            // Before the waker: whoever takes that one sets this back.
            self.woken_task.store(task, Ordering::Release);
            self.waker.register(waker);
        }
    }

    /// Wakes the task that looks after it.
    fn wake(&self) {
        let waker = self.waker.take();
        self.woken_task.store(0, Ordering::Release);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Whether a cancel request came while no server worked for it. Reading it takes it.
    pub fn take_canceled(&self) -> bool {
        self.canceled.load(Ordering::Relaxed) && self.canceled.swap(false, Ordering::AcqRel)
    }

    /// The server connection that works for it now, and where that leads.
    pub fn server(&self) -> Option<(ServerCard, Arc<ServerTarget>)> {
        self.lock_cancel().target.as_ref().map(|target| (target.card, target.door.target.clone()))
    }

    /// From now on cancel requests go to this server.
    pub fn attach(&self, server: &ServerConnection, host: &Arc<str>) {
        let (door, card) = (server.door.clone(), server.card());
        let mut state = self.lock_cancel();
        state.target = Some(CancelTarget { door, card });
        state.host = Some(host.clone());
    }

    /// From now on cancel requests go nowhere. False when one is under way to the server at this moment: the connection must
    /// then be closed, or the request could hit the next client's statement.
    pub fn detach(&self) -> bool {
        let mut state = self.lock_cancel();
        state.target = None;
        state.host = None;
        state.sending == 0
    }

    /// From now on cancel requests go to this leg too.
    pub fn add_leg(&self, leg: Arc<ClientEntry>) {
        self.lock_cancel().legs.push(leg);
    }

    /// The leg is gone.
    pub fn remove_leg(&self, process: i32) {
        self.lock_cancel().legs.retain(|leg| leg.process != process);
    }

    /// Carries out a cancel request.
    ///
    /// # Errors
    /// The server can't be reached.
    pub async fn cancel(&self) -> Result<(), ConnectError> {
        let legs = self.lock_cancel().legs.clone();
        let requests = legs.iter().map(|leg| leg.cancel_here());
        let outcomes = futures_util::future::join_all(requests).await;
        outcomes.into_iter().find(Result::is_err).unwrap_or(Ok(()))?;
        self.cancel_here().await
    }

    async fn cancel_here(&self) -> Result<(), ConnectError> {
        let target = {
            let mut state = self.lock_cancel();
            let target = state.target.clone();
            match &target {
                Some(_) => state.sending += 1,
                None if self.state() == ClientState::Waiting => {
                    self.canceled.store(true, Ordering::Release);
                    self.wake();
                }
                None => {}
            }
            target
        };
        let Some(CancelTarget { door, .. }) = target else { return Ok(()) };
        let sending = CancelSending(self);
        let outcome = cancel(&door.target, &door.key).await;
        drop(sending);
        outcome
    }
}

/// One cancel request under way; ends with it, also when its task is dropped.
struct CancelSending<'a>(&'a ClientEntry);

impl Drop for CancelSending<'_> {
    fn drop(&mut self) {
        self.0.lock_cancel().sending -= 1;
    }
}

/// All logged-in clients of the process.
#[derive(Debug)]
pub struct Clients {
    entries: Mutex<HashMap<i32, Arc<ClientEntry>>>,
    next: AtomicI32,
    /// This process's number among its peers; 0 is none.
    peer: AtomicU8,
}

/// With peers, the bits of a process id below the peer's number.
const PEER_SHIFT: u32 = 22;

/// The peer whose client has this process id; 0 is none. Means something only where there are peers.
pub fn peer_of(process: i32) -> u8 {
    u8::try_from(process >> PEER_SHIFT).unwrap_or(0)
}

/// What is known of a client when it has logged in.
#[derive(Clone, Debug)]
pub struct NewClient {
    /// The database that it named.
    pub database: Arc<str>,
    /// Its role.
    pub user: Arc<str>,
    /// Where it is.
    pub peer: Peer,
    /// Whether its connection is encrypted.
    pub tls: bool,
    /// `application_name` of its start-up packet.
    pub application_name: Box<str>,
    /// Length of its cancel key: 4 under protocol 3.0, 32 under 3.2. Bytes.
    pub key_len: usize,
    /// It is a sharded session's session on one of the shards: it ends with that one.
    pub is_leg: bool,
}

impl Default for Clients {
    fn default() -> Self {
        // Process ids start anywhere, so that a cancel request for an earlier run of pgyard finds nobody.
        Clients { entries: Mutex::default(), next: AtomicI32::new(rand::random_range(1..0x4000_0000)), peer: AtomicU8::new(0) }
    }
}

impl Clients {
    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Arc<ClientEntry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on clients get process ids that name this process among its peers; 0: it has none.
    pub fn set_peer(&self, id: u8) {
        self.peer.store(id, Ordering::Relaxed);
    }

    /// The number of this process among its peers; 0 is none.
    pub fn peer(&self) -> u8 {
        self.peer.load(Ordering::Relaxed)
    }

    /// Enters a client.
    pub fn enter(&self, new: NewClient) -> Arc<ClientEntry> {
        let mut key = vec![0; new.key_len];
        rand::fill(&mut key[..]);
        let mut entries = self.lock();
        let peer = self.peer();
        let process = loop {
            let next = self.next.fetch_add(1, Ordering::Relaxed) & 0x7FFF_FFFF;
            let own = next & ((1 << PEER_SHIFT) - 1);
            let process = if peer == 0 { next } else { i32::from(peer) << PEER_SHIFT | own };
            if (own != 0 || peer == 0) && process != 0 && !entries.contains_key(&process) {
                break process;
            }
        };
        let entry = Arc::new(ClientEntry {
            process,
            key: key.into_boxed_slice(),
            database: new.database,
            user: new.user,
            peer: new.peer,
            connected: SystemTime::now(),
            tls: new.tls,
            is_leg: new.is_leg,
            application_name: Mutex::new(new.application_name),
            state: AtomicU8::new(0),
            pins: AtomicU16::new(0),
            stop: AtomicU8::new(0),
            canceled: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            waker: AtomicWaker::new(),
            woken_task: AtomicUsize::new(0),
            cancel: Mutex::default(),
        });
        entries.insert(process, entry.clone());
        entry
    }

    /// Takes a client out.
    pub fn leave(&self, entry: &ClientEntry) {
        self.lock().remove(&entry.process);
    }

    /// The client that a cancel request means; none unless the key is right.
    pub fn find(&self, process: i32, key: &[u8]) -> Option<Arc<ClientEntry>> {
        let entry = self.lock().get(&process).cloned()?;
        let right = entry.key.len() == key.len() && bool::from(entry.key.ct_eq(key));
        right.then_some(entry)
    }

    /// A client by its number.
    pub fn get(&self, process: i32) -> Option<Arc<ClientEntry>> {
        self.lock().get(&process).cloned()
    }

    /// All of them, the longest connected first.
    pub fn all(&self) -> Vec<Arc<ClientEntry>> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_by_key(|entry| (entry.connected, entry.process));
        all
    }

    /// Tells every client for which a server at this address works that it does not answer any more.
    pub fn tell_host_is_silent(&self, address: &str, port: u16) {
        for entry in self.lock().values() {
            let target = entry.lock_cancel().target.as_ref().map(|target| target.door.target.clone());
            if target.is_some_and(|target| target.address == address && target.port == port) {
                entry.tell_host_is_silent();
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Asks all to end, and waits until they have or `deadline` has passed. Returns how many are left.
    pub async fn stop_all(&self, request: StopRequest, deadline: Instant) -> usize {
        loop {
            let all = self.all();
            if all.is_empty() || Instant::now() >= deadline {
                return all.len();
            }
            all.iter().filter(|entry| !entry.is_leg).for_each(|entry| entry.ask_to_stop(request));
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(clients: &Clients) -> Arc<ClientEntry> {
        clients.enter(NewClient {
            database: "d".into(),
            user: "u".into(),
            peer: Peer::Unix,
            tls: false,
            application_name: "".into(),
            key_len: 4,
            is_leg: false,
        })
    }

    #[test]
    fn a_cancel_request_needs_the_whole_key() {
        let clients = Clients::default();
        let entry = client(&clients);
        assert!(clients.find(entry.process, &entry.key).is_some());
        assert!(clients.find(entry.process, &entry.key[..3]).is_none());
        assert!(clients.find(entry.process, b"").is_none());
        assert!(clients.find(entry.process.wrapping_add(1), &entry.key).is_none());
        clients.leave(&entry);
        assert!(clients.find(entry.process, &entry.key).is_none());
    }

    #[test]
    fn process_ids_name_the_peer() {
        let clients = Clients::default();
        let alone = client(&clients);
        for peer in [1, 7, 255] {
            clients.set_peer(peer);
            let first = client(&clients);
            assert!(first.process > 0 && peer_of(first.process) == peer, "{peer}: {}", first.process);
            // Where the counter begins again nobody gets another's number.
            clients.next.store(i32::MAX, Ordering::Relaxed);
            let numbers: Vec<i32> = (0..4).map(|_| client(&clients).process).collect();
            assert!(numbers.iter().all(|process| peer_of(*process) == peer && *process > 0), "{numbers:?}");
            assert!(clients.find(first.process, &first.key).is_some());
        }
        assert!(clients.find(alone.process, &alone.key).is_some(), "a new number does not lose those who are there");
        assert_eq!((peer_of(0), peer_of(-1), peer_of(i32::MIN)), (0, 0, 0));
    }

    #[test]
    fn a_stop_request_only_grows() {
        let clients = Clients::default();
        let entry = client(&clients);
        let waker = futures_util::task::noop_waker();
        let mut cx = Context::from_waker(&waker);
        assert_eq!(entry.stop_requested(&mut cx), StopRequest::None);
        entry.ask_to_stop(StopRequest::Now);
        entry.ask_to_stop(StopRequest::Drain);
        assert_eq!(entry.stop_requested(&mut cx), StopRequest::Now);
    }

    /// Sessions move from task to task, and look often; what they are told comes at any moment, from several threads.
    #[test]
    fn whoever_looks_after_a_client_is_woken_each_time() {
        const TIMES: u32 = 5_000;
        let clients = Clients::default();
        let entry = client(&clients);
        let told = AtomicBool::new(false);
        let wakers = [(); 2].map(|()| {
            let session = std::thread::current();
            Waker::from(Arc::new(Unpark(session)))
        });
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..TIMES {
                        entry.tell_host_is_silent();
                        // One of them at a time, nearly always.
                        while !told.swap(false, Ordering::AcqRel)
                            && entry.stop.load(Ordering::Acquire) & StopRequest::Now as u8 == 0
                        {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let mut seen = 0;
            for turn in 0.. {
                let waker = &wakers[turn / 3 % 2];
                assert_eq!(entry.stop_requested(&mut Context::from_waker(waker)), StopRequest::None);
                if entry.take_host_is_silent() {
                    seen += 1;
                    told.store(true, Ordering::Release);
                    if seen == TIMES {
                        break;
                    }
                    continue;
                }
                let since = Instant::now();
                std::thread::park_timeout(std::time::Duration::from_secs(20));
                if since.elapsed() > std::time::Duration::from_secs(10) {
                    entry.ask_to_stop(StopRequest::Now);
                    panic!("not woken after {seen}");
                }
            }
            entry.ask_to_stop(StopRequest::Now);
        });
    }

    struct Unpark(std::thread::Thread);

    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    #[test]
    fn a_request_for_a_waiting_client_is_kept_until_it_is_taken() {
        let clients = Clients::default();
        let entry = client(&clients);
        let cancel = |entry: &ClientEntry| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a run-time");
            runtime.block_on(entry.cancel()).expect("no server to reach");
        };
        cancel(&entry);
        assert!(!entry.take_canceled(), "an idle client has nothing to cancel");
        entry.set_state(ClientState::Waiting);
        cancel(&entry);
        assert!(entry.take_canceled());
        assert!(!entry.take_canceled());
    }
}
