//! Heap allocations of a relay thread per transaction, in steady state.
//!
//! A whole pgyard runs in this process, with one relay thread, in front of a fake server. Allocations of that thread are counted while
//! a client repeats the same transaction. `cargo test --all-targets` runs it and fails where there are more than the budget
//! allows; `cargo bench --bench allocations` also prints from where they come.

#![allow(unsafe_code, reason = "counting allocations takes a global allocator, and that trait is unsafe")]

#[allow(dead_code, reason = "there is one server, and no replica")]
mod fake;

use fake::{FakeRole, serve};
use pgyard::app::{logging, serve as yard};
use pgyard::config::parse;
use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Transactions before anything is counted: caches and buffers have their size.
const WARM_UP: u64 = 500;
/// Transactions that are counted.
const COUNTED: u64 = 1000;
/// Transactions of which the places are told.
const TRACED: u64 = 2;
/// How long pgyard may take to be ready.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Part of a transaction.
enum Step {
    /// The first client sends these and waits for ReadyForQuery.
    Ask(&'static [Message]),
    /// The second client sends these, and does not wait.
    Start(&'static [Message]),
    /// The second client waits for ReadyForQuery.
    Await,
}

use Step::{Ask, Await, Start};

/// Name, steps, and how many allocations one transaction may cost. There is one server connection.
const PATHS: &[(&str, &[Step], u64)] = &[
    ("a simple query", &[Ask(&[QUERY])], 0),
    ("an unnamed statement", &[Ask(&[PARSE, BIND, DESCRIBE, EXECUTE, SYNC])], 0),
    ("a prepared statement", &[Ask(&[BIND_NAMED, EXECUTE, SYNC])], 0),
    ("a transaction block", &[Ask(&[BEGIN]), Ask(&[QUERY]), Ask(&[COMMIT])], 2),
    (
        "a transaction block, and a query that waits for its end",
        &[Ask(&[BEGIN]), Start(&[QUERY]), Ask(&[QUERY]), Ask(&[COMMIT]), Await],
        2,
    ),
];

type Message = (u8, &'static [u8]);
const QUERY: Message = (b'Q', b"SELECT abalance FROM pgbench_accounts WHERE aid = 4711\0");
const BEGIN: Message = (b'Q', b"BEGIN\0");
const COMMIT: Message = (b'Q', b"COMMIT\0");
const PARSE: Message = (b'P', b"\0SELECT abalance FROM pgbench_accounts WHERE aid = 4712\0\0\0");
const PARSE_NAMED: Message = (b'P', b"s\0SELECT abalance FROM pgbench_accounts WHERE aid = 4713\0\0\0");
const BIND: Message = (b'B', b"\0\0\0\0\0\0\0\0");
const BIND_NAMED: Message = (b'B', b"\0s\0\0\0\0\0\0\0");
const DESCRIBE: Message = (b'D', b"P\0");
const EXECUTE: Message = (b'E', b"\0\0\0\0\0");
const SYNC: Message = (b'S', b"");

/// The system's allocator, which counts for relay threads.
struct CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;
static COUNT: AtomicU64 = AtomicU64::new(0);
static TRACING: AtomicBool = AtomicBool::new(false);
static TRACES: Mutex<Vec<Backtrace>> = Mutex::new(Vec::new());

thread_local! {
    /// A backtrace allocates too.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

fn note_allocation() {
    if pgyard::metrics::worker_index().is_none() || INSIDE.get() {
        return;
    }
    COUNT.fetch_add(1, Ordering::Relaxed);
    if TRACING.load(Ordering::Relaxed) {
        INSIDE.set(true);
        TRACES.lock().unwrap_or_else(PoisonError::into_inner).push(Backtrace::force_capture());
        INSIDE.set(false);
    }
}

// SAFETY: every call goes to the system's allocator with the same arguments; counting touches no memory that is handed out.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note_allocation();
        // SAFETY: as for this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note_allocation();
        // SAFETY: as for this function.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note_allocation();
        // SAFETY: as for this function.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as for this function.
        unsafe { System.dealloc(block, layout) }
    }
}

fn main() -> ExitCode {
    let explains = std::env::args().any(|argument| argument == "--bench");
    match run(explains) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("allocations: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// True: no path is over its budget.
fn run(explains: bool) -> Result<bool, Failure> {
    let port = start_pgyard()?;
    let (mut client, mut second) = (log_in(port)?, log_in(port)?);
    ask(&mut client, &[PARSE_NAMED, SYNC])?;
    let mut good = true;
    for (name, steps, budget) in PATHS {
        let mut transaction = |count: u64| -> Result<(), Failure> {
            (0..count).try_for_each(|_| {
                steps.iter().try_for_each(|step| match step {
                    Ask(messages) => ask(&mut client, messages),
                    Start(messages) => send(&mut second, messages),
                    Await => until_ready(&mut second),
                })
            })
        };
        transaction(WARM_UP)?;
        let before = COUNT.load(Ordering::Relaxed);
        transaction(COUNTED)?;
        let count = COUNT.load(Ordering::Relaxed) - before;
        println!("{name}: {:.2} allocations, budget {budget}", count as f64 / COUNTED as f64);
        // What is due once in a while (a timer's slot, a buffer that grows) is not a transaction's.
        let over = count / COUNTED > *budget;
        good &= !over;
        if over || explains {
            TRACING.store(true, Ordering::Relaxed);
            transaction(TRACED)?;
            TRACING.store(false, Ordering::Relaxed);
            print_places();
        }
    }
    Ok(good)
}

/// Where the traced allocations were made: the innermost line of pgyard's.
fn print_places() {
    let traces = std::mem::take(&mut *TRACES.lock().unwrap_or_else(PoisonError::into_inner));
    let mut places: BTreeMap<String, u64> = BTreeMap::new();
    for trace in &traces {
        *places.entry(place_of(&trace.to_string())).or_default() += 1;
    }
    for (place, count) in places {
        println!("    {:.1} at {place}", count as f64 / TRACED as f64);
    }
}

fn place_of(trace: &str) -> String {
    let files = trace.lines().filter_map(|line| line.trim().strip_prefix("at "));
    let own =
        files.filter_map(|file| file.strip_prefix("./").or_else(|| file.strip_prefix(concat!(env!("CARGO_MANIFEST_DIR"), "/"))));
    let mut own = own.filter(|file| file.starts_with("src/"));
    own.next().unwrap_or("an unknown place").to_owned()
}

/// Starts a fake server and a pgyard with one relay thread; returns its port once it is ready.
fn start_pgyard() -> Result<u16, Failure> {
    let server = TcpListener::bind("127.0.0.1:0")?;
    let server_port = server.local_addr()?.port();
    std::thread::spawn(move || serve(&server, FakeRole::Primary));
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let text = format!(
        "listen = '127.0.0.1:{port}'\nhttp = 'off'\nworkers = 1\n[log]\nlevel = 'error'\n[databases.bench]\nuser = 'bench'\n\
         password = 'bench'\nsslmode = 'disable'\nauth = 'trust'\nprimary = '127.0.0.1:{server_port}'\npool_size = 1\n"
    );
    let loaded = parse(&text, "allocations.toml", &|_: &str| None).map_err(|report| report.to_string())?;
    let log = logging::start(&loaded.settings.log)?;
    // Ends with the process.
    std::thread::spawn(move || {
        if let Err(error) = yard::serve(loaded.settings, None, log, || {}) {
            eprintln!("allocations: {error}");
        }
    });
    let since = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if since.elapsed() > START_LIMIT {
            return Err("pgyard does not listen".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(port)
}

fn log_in(port: u16) -> Result<TcpStream, Failure> {
    let mut client = TcpStream::connect(("127.0.0.1", port))?;
    client.set_nodelay(true)?;
    client.set_read_timeout(Some(START_LIMIT))?;
    let body = b"\0\x03\0\0user\0bench\0database\0bench\0\0";
    client.write_all(&[&(body.len() as u32 + 4).to_be_bytes()[..], body].concat())?;
    until_ready(&mut client)?;
    Ok(client)
}

fn send(client: &mut TcpStream, messages: &[Message]) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    for (tag, body) in messages {
        bytes.push(*tag);
        bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        bytes.extend_from_slice(body);
    }
    client.write_all(&bytes).map_err(Failure::from)
}

fn ask(client: &mut TcpStream, messages: &[Message]) -> Result<(), Failure> {
    send(client, messages)?;
    until_ready(client)
}

/// Reads up to ReadyForQuery; an error is a failure, for what is counted then is something else.
fn until_ready(client: &mut TcpStream) -> Result<(), Failure> {
    loop {
        let mut head = [0; 5];
        client.read_exact(&mut head)?;
        let mut body = vec![0; u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4];
        client.read_exact(&mut body)?;
        match head[0] {
            b'Z' => return Ok(()),
            b'E' => return Err(String::from_utf8_lossy(&body).into_owned().into()),
            _ => {}
        }
    }
}
