use super::{Readiness, is_relay_thread, run, spawn, yield_now};
use futures_util::future::join_all;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Runs `main` on a relay thread of its own; its outcome.
fn on_a_relay_thread<T: Send + 'static, F: Future<Output = T> + 'static>(main: impl FnOnce() -> F + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        run(
            async move {
                let outcome = main().await;
                sender.send(outcome).expect("it is waited for");
            },
            true,
        )
    });
    let outcome = receiver.recv_timeout(Duration::from_secs(60));
    thread.join().expect("no panic").expect("a reactor");
    outcome.expect("it ends")
}

#[test]
fn the_main_task_ends_it_and_drops_the_others() {
    struct Counts(Arc<AtomicUsize>);
    impl Drop for Counts {
        fn drop(&mut self) {
            assert!(is_relay_thread(), "also then it is one");
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let counted = dropped.clone();
    on_a_relay_thread(move || async move {
        assert!(is_relay_thread());
        for _ in 0..5 {
            let counts = Counts(counted.clone());
            spawn(async move {
                let _counts = counts;
                std::future::pending::<()>().await;
            });
        }
        yield_now().await;
    });
    assert_eq!(dropped.load(Ordering::Relaxed), 5);
    assert!(!is_relay_thread());
}

#[test]
fn a_panic_is_the_tasks_own() {
    let survived = on_a_relay_thread(|| async {
        let (sender, mut receiver) = mpsc::channel(1);
        spawn(async { panic!("of a test") });
        spawn(async move { sender.send(7).await.expect("it is waited for") });
        receiver.recv().await
    });
    assert_eq!(survived, Some(7));
}

#[test]
fn tasks_are_polled_once_however_often_they_are_woken_and_none_is_forgotten() {
    let polls = on_a_relay_thread(|| async {
        let (polls, wakers) = (Rc::new(Cell::new(0)), Arc::new(Mutex::new(Vec::<Waker>::new())));
        for _ in 0..10 {
            let (wakers, (sender, mut receiver)) = (wakers.clone(), mpsc::channel::<()>(1));
            spawn(async move {
                let _sender = sender;
                poll_fn(|cx| {
                    wakers.lock().unwrap().push(cx.waker().clone());
                    receiver.poll_recv(cx)
                })
                .await;
            });
        }
        yield_now().await;
        for _ in 0..3 {
            wakers.lock().unwrap().clone().iter().for_each(Waker::wake_by_ref);
        }
        yield_now().await;
        polls.set(wakers.lock().unwrap().len());
        polls.get()
    });
    assert_eq!(polls, 20);
}

/// Tasks of two relay threads hand numbers round in a ring, with a thread that is none in between: a wake-up that is lost stops it.
#[test]
fn no_wake_up_of_another_thread_is_lost() {
    const ROUNDS: usize = 20_000;
    const RINGS: usize = 4;
    let ends: Vec<_> = (0..RINGS).map(|_| (mpsc::channel(1), mpsc::channel(1), std::sync::mpsc::sync_channel(1))).collect();
    let (mut firsts, mut seconds, mut threads) = (Vec::new(), Vec::new(), Vec::new());
    for ((to_second, from_first), (to_thread, mut from_second), (to_first, from_thread)) in ends {
        firsts.push((to_second, from_thread));
        seconds.push((from_first, to_thread));
        threads.push(std::thread::spawn(move || {
            while let Some(number) = from_second.blocking_recv() {
                let _: Result<(), _> = to_first.send(number);
            }
        }));
    }
    let second = std::thread::spawn(move || {
        on_a_relay_thread(move || async move {
            let pass = |(mut from, to): (mpsc::Receiver<usize>, mpsc::Sender<usize>)| async move {
                while let Some(number) = from.recv().await {
                    to.send(number).await.expect("it is read");
                }
            };
            join_all(seconds.into_iter().map(pass)).await;
        });
    });
    let begun = Instant::now();
    on_a_relay_thread(move || async move {
        let tasks = firsts.into_iter().map(|(to_second, from_thread)| async move {
            for number in 0..ROUNDS {
                to_second.send(number).await.expect("it is read");
                // Looked for and not waited for: another task's turn comes in between.
                let found = loop {
                    match from_thread.try_recv() {
                        Ok(found) => break found,
                        Err(_) => yield_now().await,
                    }
                };
                assert_eq!(found, number);
            }
        });
        join_all(tasks.map(|task| Box::pin(task) as Pin<Box<dyn Future<Output = ()>>>)).await;
    });
    second.join().expect("no panic");
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    assert!(begun.elapsed() < Duration::from_secs(50), "{:?}", begun.elapsed());
}

#[test]
fn timers_are_those_of_the_run_time_that_was_entered() {
    let control = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a run-time");
    let handle = control.handle().clone();
    let waited = on_a_relay_thread(move || async move {
        let _entered = handle.enter();
        let begun = Instant::now();
        let slept = tokio::time::timeout(Duration::from_millis(20), std::future::pending::<()>()).await;
        assert!(slept.is_err());
        begun.elapsed()
    });
    assert!(waited >= Duration::from_millis(20), "{waited:?}");
}

/// More sockets than are told of at one look become ready at the same moment, each once.
#[test]
fn every_socket_that_became_ready_is_told_of() {
    const SOCKETS: usize = 200;
    let ended = on_a_relay_thread(|| async {
        let (ended, mut others) = (Arc::new(AtomicUsize::new(0)), Vec::new());
        for _ in 0..SOCKETS {
            let (own, other) = UnixStream::pair().expect("a pair of sockets");
            own.set_nonblocking(true).expect("it is a socket");
            others.push(other);
            let (ended, readiness) = (ended.clone(), Readiness::new(own.into()).expect("it is watched"));
            spawn(async move {
                poll_fn(|cx| match rustix::io::read(&readiness, &mut [0_u8; 8][..]) {
                    Ok(count) => {
                        assert_eq!(count, 1);
                        Poll::Ready(())
                    }
                    Err(error) => {
                        assert_eq!(error, rustix::io::Errno::AGAIN);
                        readiness.wait_to_read(cx);
                        Poll::Pending
                    }
                })
                .await;
                ended.fetch_add(1, Ordering::Relaxed);
            });
        }
        // All of them wait by now.
        for _ in 0..SOCKETS {
            yield_now().await;
        }
        assert_eq!(ended.load(Ordering::Relaxed), 0);
        others.iter_mut().for_each(|other| other.write_all(b"x").expect("it is connected"));
        for _ in 0..SOCKETS {
            yield_now().await;
        }
        ended.load(Ordering::Relaxed)
    });
    assert_eq!(ended, SOCKETS);
}
