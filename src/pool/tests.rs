//! Pools against a server that only logs in.

use super::*;
use crate::auth::{KeyCache, ServerCredential};
use crate::config::{ServerTlsMode, ServerTlsSettings};
use crate::net::tls::ServerTls;
use crate::server::ServerTarget;
use arc_swap::ArcSwap;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

/// A role that the server turns away.
const NOBODY: &str = "nobody";

/// A role whose connections the server ends at once.
const SHORT_LIVED: &str = "short_lived";

/// A server for all tests; ends with the process.
fn server() -> u16 {
    static PORT: OnceLock<u16> = OnceLock::new();
    *PORT.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || log_in(stream));
            }
        });
        port
    })
}

fn log_in(mut stream: TcpStream) {
    let mut length = [0; 4];
    if stream.read_exact(&mut length).is_err() {
        return;
    }
    let mut packet = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut packet).unwrap();
    let turned_away = String::from_utf8_lossy(&packet).contains(NOBODY);
    let answer: &[u8] = match turned_away {
        true => b"E\0\0\0\x10C28000\0Mno\0\0",
        false => b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x01\0\0\0\x02Z\0\0\0\x05I",
    };
    stream.write_all(answer).unwrap();
    if String::from_utf8_lossy(&packet).contains(SHORT_LIVED) {
        return;
    }
    // Until the other side closes it.
    let _ = stream.read(&mut [0]);
}

fn limits(size: usize) -> PoolLimits {
    PoolLimits {
        size,
        min_idle: 0,
        max_waiting: 1000,
        checkout_timeout: LIMIT,
        idle_timeout: Duration::ZERO,
        max_age: Duration::ZERO,
    }
}

fn pool(role: &str, permits: &Arc<HostPermits>, limits: PoolLimits) -> Arc<Pool> {
    let tls = ServerTlsSettings { mode: ServerTlsMode::Disable, ca: None, certificate: None, content: 0 };
    let target = ServerTarget {
        address: "127.0.0.1".to_owned(),
        port: server(),
        tls: ServerTls::load(&tls).unwrap(),
        keepalive: Duration::ZERO,
        options: String::new(),
        connect_timeout: LIMIT,
    };
    let connector = Connector {
        target: Arc::new(ArcSwap::from_pointee(target)),
        database: "d".to_owned(),
        role: role.to_owned(),
        credential: Arc::new(ArcSwap::from_pointee(ServerCredential::None)),
        keys: Arc::new(KeyCache::new(1)),
        identity: None,
        defaults: Arc::default(),
    };
    let key = PoolKey { host_id: 0, host: "h".into(), database: "d".into(), role: role.into() };
    Pool::new(key, connector, permits.clone(), limits, 2, Box::new(|_| {}))
}

/// A session: takes a connection, uses it for a moment, gives it back. Answers how often until `stop`.
async fn use_until(pool: Arc<Pool>, worker: usize, stop: Arc<AtomicBool>) -> usize {
    let (slot, mut times) = (Arc::default(), 0);
    while !stop.load(Ordering::Relaxed) {
        let connection = pool.checkout(&slot, worker).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        pool.give_back(connection);
        times += 1;
    }
    times
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

#[tokio::test]
async fn many_sessions_of_one_role_do_not_keep_anothers_single_one_waiting() {
    let permits = Arc::new(HostPermits::new(3));
    let (greedy, modest) = (pool("greedy", &permits, limits(20)), pool("modest", &permits, limits(20)));
    let stop = Arc::new(AtomicBool::new(false));
    let crowd: Vec<_> = (0..200).map(|n| tokio::spawn(use_until(greedy.clone(), n, stop.clone()))).collect();
    let slot = Arc::default();
    for _ in 0..20 {
        // The crowd never lets the queue run empty.
        let connection = within("the single session's turn", modest.checkout(&slot, 0)).await.unwrap();
        assert!(greedy.stats().waiting > 100 && greedy.stats().open + modest.stats().open <= 3, "{greedy:?} {modest:?}");
        modest.give_back(connection);
    }
    stop.store(true, Ordering::Relaxed);
    let mut used = 0;
    for session in crowd {
        used += within("the crowd", session).await.unwrap();
    }
    assert!(used >= 200, "the crowd goes on: {used}");
    assert_eq!(permits.open(), greedy.stats().open + modest.stats().open);
}

#[tokio::test]
async fn pools_take_turns_where_there_are_fewer_places() {
    let permits = Arc::new(HostPermits::new(1));
    let stop = Arc::new(AtomicBool::new(false));
    let pools: Vec<_> = ["a", "b", "c"].iter().map(|role| pool(role, &permits, limits(5))).collect();
    let counts: Vec<Arc<AtomicUsize>> = pools.iter().map(|_| Arc::default()).collect();
    for (pool, count) in pools.iter().zip(&counts) {
        for _ in 0..10 {
            let (pool, count, stop) = (pool.clone(), count.clone(), stop.clone());
            tokio::spawn(async move {
                let slot = Arc::default();
                while !stop.load(Ordering::Relaxed) {
                    let connection = pool.checkout(&slot, 0).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    pool.give_back(connection);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    }
    let all_had_turns = async {
        while counts.iter().any(|count| count.load(Ordering::Relaxed) < 50) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("each pool gets its turns", all_had_turns).await;
    assert!(permits.open() <= 1);
    stop.store(true, Ordering::Relaxed);
}

#[tokio::test]
async fn a_place_that_was_never_used_goes_to_who_waits_for_it() {
    let permits = Arc::new(HostPermits::new(1));
    let (fails, waits) = (pool(NOBODY, &permits, limits(1)), pool("waits", &permits, limits(1)));
    let (one, two) = (Arc::default(), Arc::default());
    let (failed, got) = tokio::join!(fails.checkout(&one, 0), within("the place is passed on", waits.checkout(&two, 0)));
    assert!(matches!(failed, Err(CheckoutError::Connect(_))), "{failed:?}");
    waits.give_back(got.unwrap());
    assert_eq!((fails.stats().open, waits.stats().idle, permits.open()), (0, 1, 1));
}

#[tokio::test]
async fn a_place_of_no_pool_goes_to_who_waits_for_it() {
    let permits = Arc::new(HostPermits::new(1));
    let place = HostPlace::take(&permits).unwrap();
    let (waits, slot) = (pool("waits", &permits, limits(1)), Arc::default());
    let mut wait = std::pin::pin!(waits.checkout(&slot, 0));
    assert!(futures_util::poll!(wait.as_mut()).is_pending());
    assert!(HostPlace::take(&permits).is_none());
    drop(place);
    let connection = within("the place is passed on", wait).await.unwrap();
    waits.give_back(connection);
    // An idle connection makes room.
    assert!(HostPlace::take(&permits).is_some());
    assert_eq!(permits.open(), 0);
}

#[tokio::test]
async fn who_gives_up_waiting_leaves_the_queue() {
    let permits = Arc::new(HostPermits::new(1));
    let pool = pool("r", &permits, PoolLimits { max_waiting: 2, ..limits(1) });
    let slots: [Arc<WaitSlot>; 4] = Default::default();
    let held = pool.checkout(&slots[0], 0).await.unwrap();
    let mut stays = std::pin::pin!(pool.checkout(&slots[1], 1));
    assert!(futures_util::poll!(stays.as_mut()).is_pending());
    for _ in 0..10 {
        let mut leaves = std::pin::pin!(pool.checkout(&slots[2], 0));
        assert!(futures_util::poll!(leaves.as_mut()).is_pending(), "there is room for one more");
        let refused = pool.checkout(&slots[3], 0).await;
        assert!(matches!(refused, Err(CheckoutError::TooManyWaiting { waiting: 2, .. })), "{refused:?}");
    }
    assert_eq!((pool.stats().waiting, pool.stats().overflows), (1, 10));
    pool.give_back(held);
    pool.give_back(within("it is next", stays).await.unwrap());
}

#[test]
fn no_session_waits_beside_an_idle_connection() {
    let permits = Arc::new(HostPermits::new(1));
    let pool = pool("r", &permits, limits(1));
    let begun = std::time::Instant::now();
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let pool = &pool;
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let slot = Arc::default();
                    for _ in 0..20_000 {
                        let mut connection = pool.checkout(&slot, worker).await.unwrap();
                        connection.adopt(worker).unwrap();
                        pool.give_back(connection);
                    }
                });
            });
        }
    });
    // A wait that nobody ends would have lasted for the whole time-out.
    assert!(begun.elapsed() < LIMIT && pool.stats().timeouts == 0, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn connections_to_addresses_that_are_gone_are_closed() {
    let permits = Arc::new(HostPermits::new(2));
    let (pool, slots) = (pool("r", &permits, limits(2)), <[Arc<WaitSlot>; 2]>::default());
    let set = |texts: &[&str]| -> Arc<[IpAddr]> { texts.iter().map(|text| text.parse().unwrap()).collect() };
    let (used, idle) = (pool.checkout(&slots[0], 0).await.unwrap(), pool.checkout(&slots[1], 0).await.unwrap());
    pool.give_back(idle);
    pool.follow_addresses(&set(&["127.0.0.1", "127.0.0.2"]));
    assert_eq!(pool.stats().idle, 1);
    pool.give_back(used);
    assert_eq!(pool.stats().idle, 2, "its address is among them");
    let used = pool.checkout(&slots[0], 0).await.unwrap();
    pool.follow_addresses(&set(&["127.0.0.2"]));
    assert_eq!((pool.stats().idle, pool.stats().open), (0, 1));
    pool.give_back(used);
    assert_eq!((pool.stats().idle, pool.stats().open, permits.open()), (0, 0, 0));
}

#[tokio::test]
async fn old_connections_end_one_by_one_even_if_nobody_uses_them() {
    let permits = Arc::new(HostPermits::new(4));
    let hour = Duration::from_secs(3600);
    let (pool, slot) = (pool("r", &permits, PoolLimits { max_age: hour, ..limits(4) }), Arc::default());
    let mut connection = pool.checkout(&slot, 0).await.unwrap();
    let ages = [0, u32::MAX / 2, u32::MAX].map(|chance| {
        connection.age_from(hour, chance);
        connection.opened - connection.aged_from
    });
    assert!(ages[0].is_zero() && (355..365).contains(&ages[1].as_secs()) && ages[2] == hour / 5, "{ages:?}");
    connection.aged_from = connection.opened;
    pool.give_back(connection);
    pool.maintain();
    assert_eq!(pool.stats().idle, 1);
    let mut connection = pool.checkout(&slot, 0).await.unwrap();
    connection.age_from(hour * 6, u32::MAX);
    // Given back before its time, and old by the next look.
    pool.set_limits(PoolLimits { max_age: hour * 2, ..limits(4) });
    pool.give_back(connection);
    assert_eq!(pool.stats().idle, 1);
    pool.set_limits(PoolLimits { max_age: hour, ..limits(4) });
    pool.maintain();
    assert_eq!((pool.stats().idle, permits.open()), (0, 0));
}

#[tokio::test]
async fn what_is_kept_idle_takes_no_place_from_anybody() {
    let permits = Arc::new(HostPermits::new(2));
    let keeps = |role| pool(role, &permits, PoolLimits { min_idle: 2, ..limits(2) });
    let (one, two) = (keeps("one"), keeps("two"));
    one.maintain();
    let both_idle = async {
        while one.stats().idle < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within("the idle connections are made", both_idle).await;
    two.maintain();
    assert_eq!((one.stats().idle, two.stats().open), (2, 0));
    // A session that waits does take one.
    let connection = within("a place is made", two.checkout(&Arc::default(), 0)).await.unwrap();
    assert_eq!((one.stats().open, two.stats().open), (1, 1));
    two.give_back(connection);
}

#[tokio::test]
async fn a_connection_is_kept_for_its_session_as_long_as_others_can_do_without_it() {
    let permits = Arc::new(HostPermits::new(10));
    let (pool, slots) = (pool("r", &permits, limits(3)), <[Arc<WaitSlot>; 3]>::default());
    let (mut kept, free) = (pool.checkout(&slots[0], 0).await.unwrap(), pool.checkout(&slots[1], 1).await.unwrap());
    let (kept_id, free_id) = (kept.id, free.id);
    kept.is_kept = true;
    pool.give_back(free);
    pool.give_back(kept);
    let other = pool.try_checkout(0).expect("one is free");
    assert_eq!(other.id, free_id, "though the other was used last");
    assert!(pool.try_checkout(0).is_none(), "a new one is to be made");
    let made = within("a new one", pool.checkout(&slots[0], 0)).await.unwrap();
    assert!(made.id != kept_id && pool.stats().open == 3);
    // Its session finds it.
    let kept = pool.try_checkout_exactly(kept_id).expect("it was kept");
    pool.give_back(kept);
    // The pool is full, and the others are in use.
    let kept = within("it is given up", pool.checkout(&slots[2], 0)).await.unwrap();
    assert_eq!(kept.id, kept_id);
    pool.give_back(kept);
    pool.give_back(other);
    pool.give_back(made);
    assert_eq!((pool.stats().idle, pool.stats().open), (3, 3));
}

#[tokio::test]
async fn an_idle_connection_that_its_server_ends_is_closed() {
    let permits = Arc::new(HostPermits::new(1));
    let pool = pool(SHORT_LIVED, &permits, limits(1));
    let connection = pool.checkout(&Arc::default(), 0).await.unwrap();
    pool.give_back(connection);
    let is_closed = async {
        while pool.stats().open > 0 {
            pool.maintain();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within("nobody had to ask for it", is_closed).await;
    assert_eq!(permits.open(), 0);
}

#[tokio::test]
async fn a_new_connection_serves_somebody_however_short_its_life() {
    let permits = Arc::new(HostPermits::new(1));
    let (pool, slot) = (pool("r", &permits, PoolLimits { max_age: Duration::from_nanos(1), ..limits(1) }), Arc::default());
    for _ in 0..5 {
        let connection = within("a connection", pool.checkout(&slot, 0)).await.unwrap();
        pool.give_back(connection);
        assert_eq!(pool.stats().open, 0);
    }
}
