//! A server connection from one session to the next.

use super::{BenchError, HotPath, Run};
use crate::fake::{FakeRole, serve};
use arc_swap::ArcSwap;
use pgyard::auth::{KeyCache, ServerCredential};
use pgyard::config::{ServerTlsMode, ServerTlsSettings};
use pgyard::net::tls::ServerTls;
use pgyard::pool::{Connector, HostPermits, Pool, PoolKey, PoolLimits, WaitSlot};
use pgyard::server::ServerTarget;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::runtime::Runtime;

pub const PATHS: &[HotPath] = &[HotPath::new("pool_checkout_idle", checkout_idle), HotPath::new("pool_hand_off", hand_off)];

/// The run-time that a relay thread has.
pub fn runtime() -> Result<Runtime, BenchError> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// A pool of one connection, to a fake server in this process.
pub fn pool() -> Result<Arc<Pool>, BenchError> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    // Ends with the process.
    std::thread::spawn(move || serve(&listener, FakeRole::Primary));
    let tls = ServerTls::load(&ServerTlsSettings { mode: ServerTlsMode::Disable, ca: None, certificate: None, content: 0 })?;
    let second = Duration::from_secs(1);
    let (address, keepalive, connect_timeout) = ("127.0.0.1".to_owned(), second * 60, second * 5);
    let connector = Connector {
        target: Arc::new(ArcSwap::from_pointee(ServerTarget {
            address,
            port,
            tls,
            keepalive,
            options: String::new(),
            connect_timeout,
        })),
        database: "bench".to_owned(),
        role: "bench".to_owned(),
        credential: Arc::new(ArcSwap::from_pointee(ServerCredential::None)),
        keys: Arc::new(KeyCache::new(1)),
        identity: None,
        defaults: Arc::default(),
    };
    let key = PoolKey { host_id: 0, host: "fake".into(), database: "bench".into(), role: "bench".into() };
    let limits = PoolLimits {
        size: 1,
        min_idle: 0,
        max_waiting: 100,
        checkout_timeout: second * 60,
        idle_timeout: Duration::ZERO,
        max_age: Duration::ZERO,
    };
    Ok(Pool::new(key, connector, Arc::new(HostPermits::new(1)), limits, 2, Box::new(|_| {})))
}

/// Taken and given back while nobody else wants it.
fn checkout_idle() -> Run {
    let (runtime, pool) = (runtime()?, pool()?);
    let connection = runtime.block_on(pool.checkout(&Arc::default(), 0))?;
    pool.give_back(connection);
    Ok(Box::new(move || {
        let _entered = runtime.enter();
        if let Some(connection) = pool.try_checkout(0) {
            pool.give_back(connection);
        }
    }))
}

/// Given back while another session waits, which gets it. With the wait's timer, without the wake-up of a task.
fn hand_off() -> Run {
    let (runtime, pool) = (runtime()?, pool()?);
    let slots: [Arc<WaitSlot>; 2] = Default::default();
    let mut held = Some(runtime.block_on(pool.checkout(&slots[0], 0))?);
    let mut turn = 0;
    Ok(Box::new(move || {
        let _entered = runtime.enter();
        let mut cx = Context::from_waker(Waker::noop());
        turn ^= 1;
        let mut waiting = pin!(pool.checkout(&slots[turn], 0));
        assert!(waiting.as_mut().poll(&mut cx).is_pending(), "the only connection is in use");
        if let Some(connection) = held.take() {
            pool.give_back(connection);
        }
        match waiting.poll(&mut cx) {
            std::task::Poll::Ready(Ok(connection)) => held = Some(connection),
            other => panic!("the connection was not handed over: {other:?}"),
        }
    }))
}
