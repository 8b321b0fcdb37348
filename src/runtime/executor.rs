//! The tasks of a relay thread, and its loop: poll what is ready, look at the sockets, and again.

use super::outbox::Outbox;
use super::prefetch::prefetch;
use super::readiness::Watched;
use super::remote::{Note, Remote};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// Tasks polled between two looks at the sockets, and events taken at one look, at most. What is left comes with the next.
const TURN: (usize, usize) = (61, 1024);
/// The same where there are many tasks. What the tasks of a turn send goes at its end: servers are not to idle while others' requests
/// are read that can only wait. And what the kernel touches to tell of an event should still be in the caches when it is read.
const CROWDED_TURN: (usize, usize) = (16, 32);
/// Tasks of a thread that stay in the caches from turn to turn; with more of them it is crowded.
const CACHED_MAX: usize = 64;
/// On a crowded thread a task's memory is fetched when its turn is so many away.
const AHEAD: usize = 3;
/// Announces notes of other threads.
const NOTES: mio::Token = mio::Token(usize::MAX);
/// The number of no thread.
const NO_THREAD: u32 = 0;

type Job = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    static THREAD: Cell<u32> = const { Cell::new(NO_THREAD) };
    static CURRENT: Cell<Current> = const { Cell::new(Current { waker: (0, 0), task: 0 }) };
    static HERE: RefCell<Option<Rc<Here>>> = const { RefCell::new(None) };
}

/// The task that is being polled.
#[derive(Clone, Copy)]
pub(super) struct Current {
    /// Its waker's data and functions; nobody's are at address 0.
    waker: (usize, usize),
    task: u32,
}

fn identity(waker: &Waker) -> (usize, usize) {
    (waker.data().addr(), std::ptr::from_ref(waker.vtable()).addr())
}

impl Current {
    /// The number of the task that is being polled, if `cx` wakes it and not something within it.
    #[inline]
    pub(super) fn number(cx: &Context<'_>) -> Option<u32> {
        let current = CURRENT.get();
        (identity(cx.waker()) == current.waker).then_some(current.task)
    }
}

/// The calling thread's number; 0 if it is no relay thread.
#[inline]
pub(super) fn thread_number() -> u32 {
    THREAD.get()
}

/// Whether the caller is on a relay thread.
#[inline]
pub fn is_relay_thread() -> bool {
    thread_number() != NO_THREAD
}

/// The calling thread's run-time, if it is a relay thread.
pub(super) fn here() -> Option<Rc<Here>> {
    HERE.try_with(|here| here.borrow().clone()).ok().flatten()
}

/// What a task's wakers know of it.
#[derive(Debug)]
struct Handle {
    number: u32,
    thread: u32,
    remote: Arc<Remote>,
    /// It is in its thread's queue. Only its thread comes here.
    queued: AtomicBool,
    /// A note about it is on its way.
    noted: AtomicBool,
}

impl Wake for Handle {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if thread_number() == self.thread {
            if let Some(here) = here() {
                here.put_into_queue(self);
            }
        } else if !self.noted.swap(true, Ordering::AcqRel) {
            self.remote.tell(Note::Wake(self.number));
        }
    }
}

/// A task, of which the future is elsewhere while it is polled.
#[derive(Debug)]
struct Task {
    handle: Arc<Handle>,
    parts: Option<Parts>,
}

struct Parts {
    job: Job,
    waker: Waker,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a task's future")
    }
}

/// A relay thread's run-time.
#[derive(Debug)]
pub(super) struct Here {
    thread: u32,
    remote: Arc<Remote>,
    tasks: RefCell<slab::Slab<Task>>,
    watched: RefCell<slab::Slab<Arc<Watched>>>,
    /// Tasks that are ready.
    queue: RefCell<VecDeque<u32>>,
    /// Tasks that are ready once the sockets were looked at.
    after_sockets: RefCell<Vec<u32>>,
    notes: RefCell<Vec<Note>>,
    /// Not tasks of this run-time but things within them.
    foreign: RefCell<Vec<Waker>>,
    outbox: RefCell<Outbox>,
    /// No task is started any more.
    is_ending: Cell<bool>,
}

impl Here {
    pub(super) fn remote(&self) -> &Arc<Remote> {
        &self.remote
    }

    /// Has a socket watched, and returns its number.
    pub(super) fn watch(&self, socket: Arc<Watched>) -> io::Result<u32> {
        let mut watched = self.watched.borrow_mut();
        let entry = watched.vacant_entry();
        let number = u32::try_from(entry.key()).map_err(io::Error::other)?;
        let interest = mio::Interest::READABLE | mio::Interest::WRITABLE;
        let fd = socket.as_fd().as_raw_fd();
        self.remote.registry().register(&mut mio::unix::SourceFd(&fd), mio::Token(entry.key()), interest)?;
        entry.insert(socket);
        Ok(number)
    }

    /// The socket of this number is gone.
    pub(super) fn forget(&self, number: u32) {
        // Dropped when nothing is borrowed: with it go the wakers of who waited.
        let gone = self.watched.borrow_mut().try_remove(number as usize);
        drop(gone);
    }

    /// Takes over a send to `socket`, which has none here.
    #[inline]
    pub(super) fn defer(&self, socket: &Arc<Watched>, bytes: &[u8]) {
        self.outbox.borrow_mut().put(socket.clone(), bytes);
    }

    /// Sends what was deferred.
    #[inline]
    pub(super) fn flush(&self) {
        self.outbox.borrow_mut().flush();
    }

    /// The task of this number is to be polled; nothing if there is none.
    #[inline]
    pub(super) fn enqueue(&self, number: u32) {
        if let Some(task) = self.tasks.borrow().get(number as usize) {
            self.put_into_queue(&task.handle);
        }
    }

    #[inline]
    fn put_into_queue(&self, handle: &Handle) {
        if !handle.queued.load(Ordering::Relaxed) {
            handle.queued.store(true, Ordering::Relaxed);
            let mut queue = self.queue.borrow_mut();
            queue.push_back(handle.number);
            if queue.len() < AHEAD {
                self.fetch(handle.number);
            }
        }
    }

    /// Has a task's memory fetched, which is polled soon, where that is worth it.
    #[inline]
    fn fetch(&self, number: u32) {
        if let Ok(tasks) = self.tasks.try_borrow()
            && is_crowded(&tasks)
            && let Some(Task { parts: Some(parts), .. }) = tasks.get(number as usize)
        {
            prefetch(&*parts.job);
        }
    }

    /// Takes the task that is next, and has that fetched which is a few places behind it.
    #[inline]
    fn next(&self) -> Option<u32> {
        let mut queue = self.queue.borrow_mut();
        let number = queue.pop_front()?;
        if let Some(later) = queue.get(AHEAD - 2) {
            self.fetch(*later);
        }
        Some(number)
    }

    /// Wakes it once all events were noticed: what a waker does, and what is dropped with it, is not known here.
    #[cold]
    pub(super) fn wake_later(&self, waker: Waker) {
        self.foreign.borrow_mut().push(waker);
    }

    fn spawn(&self, job: Job) {
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        let number = u32::try_from(entry.key()).unwrap_or(u32::MAX);
        let (queued, noted) = (AtomicBool::new(false), AtomicBool::new(false));
        let handle = Arc::new(Handle { number, thread: self.thread, remote: self.remote.clone(), queued, noted });
        let waker = Waker::from(handle.clone());
        self.put_into_queue(&handle);
        entry.insert(Task { handle, parts: Some(Parts { job, waker }) });
    }

    /// Polls a task. A panic ends this task only.
    fn poll(&self, number: u32) {
        let taken = self.tasks.borrow_mut().get_mut(number as usize).and_then(|task| {
            task.handle.queued.store(false, Ordering::Relaxed);
            task.parts.take()
        });
        // It has ended since it was woken.
        let Some(mut parts) = taken else { return };
        CURRENT.set(Current { waker: identity(&parts.waker), task: number });
        let poll = catch_unwind(AssertUnwindSafe(|| parts.job.as_mut().poll(&mut Context::from_waker(&parts.waker))));
        CURRENT.set(Current { waker: (0, 0), task: 0 });
        if matches!(poll, Ok(Poll::Pending)) {
            if let Some(task) = self.tasks.borrow_mut().get_mut(number as usize) {
                task.parts = Some(parts);
            }
        } else {
            drop(self.tasks.borrow_mut().try_remove(number as usize));
            end(parts);
        }
    }

    /// Looks at the sockets, and waits for them if no task is ready.
    fn look(&self, poll: &mut mio::Poll, events: &mut mio::Events) -> io::Result<()> {
        let waits = self.queue.borrow().is_empty() && self.after_sockets.borrow().is_empty();
        match poll.poll(events, if waits { None } else { Some(Duration::ZERO) }) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &*events {
            if event.token() == NOTES {
                self.read_notes();
            } else if let Some(watched) = self.watched.borrow().get(event.token().0) {
                watched.notice(event, self);
            }
        }
        loop {
            let next = self.foreign.borrow_mut().pop();
            let Some(waker) = next else { break };
            waker.wake();
        }
        for number in self.after_sockets.borrow_mut().drain(..) {
            self.enqueue(number);
        }
        Ok(())
    }

    #[cold]
    fn read_notes(&self) {
        let mut notes = self.notes.borrow_mut();
        self.remote.take(&mut notes);
        for note in notes.drain(..) {
            match note {
                Note::Forget(number) => self.forget(number),
                Note::Wake(number) => {
                    if let Some(task) = self.tasks.borrow().get(number as usize) {
                        // What the other thread did before it woke the task is seen when that is polled.
                        task.handle.noted.swap(false, Ordering::AcqRel);
                        self.put_into_queue(&task.handle);
                    }
                }
            }
        }
    }
}

/// Whether there are more tasks than stay in the caches.
#[inline]
fn is_crowded(tasks: &slab::Slab<Task>) -> bool {
    tasks.len() > CACHED_MAX
}

/// Drops a future; if that panics, it is its own affair.
fn end(parts: Parts) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(parts)));
}

/// Ends what is left when the loop ends, however it does.
struct Ending(Rc<Here>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.is_ending.set(true);
        loop {
            let next = self.0.tasks.borrow().iter().next().map(|(number, _)| number);
            let Some(number) = next else { break };
            let task = self.0.tasks.borrow_mut().try_remove(number);
            task.and_then(|task| task.parts).into_iter().for_each(end);
        }
        self.0.remote.close();
        HERE.with(|here| *here.borrow_mut() = None);
        THREAD.set(NO_THREAD);
    }
}

/// Makes the calling thread a relay thread until `main` has ended; then what was spawned on it is dropped. `sends_together`: by
/// io_uring, where the kernel allows it.
///
/// # Errors
/// The kernel's means to watch sockets could not be had.
pub fn run(main: impl Future<Output = ()> + 'static, sends_together: bool) -> io::Result<()> {
    static THREADS: AtomicU32 = AtomicU32::new(NO_THREAD + 1);
    let mut poll = mio::Poll::new()?;
    let [mut events, mut few_events] = [TURN, CROWDED_TURN].map(|(_, events)| mio::Events::with_capacity(events));
    let here = Rc::new(Here {
        thread: THREADS.fetch_add(1, Ordering::Relaxed),
        remote: Arc::new(Remote::new(&poll, NOTES)?),
        tasks: RefCell::default(),
        watched: RefCell::default(),
        queue: RefCell::default(),
        after_sockets: RefCell::default(),
        notes: RefCell::default(),
        foreign: RefCell::default(),
        outbox: RefCell::new(Outbox::new(sends_together)),
        is_ending: Cell::new(false),
    });
    THREAD.set(here.thread);
    HERE.with(|place| *place.borrow_mut() = Some(here.clone()));
    let ending = Ending(here.clone());
    let ended = Rc::new(Cell::new(false));
    let at_end = SetOnDrop(ended.clone());
    here.spawn(Box::pin(async move {
        let _at_end = at_end;
        main.await;
    }));
    loop {
        let is_crowded = is_crowded(&here.tasks.borrow());
        let ((polls_max, _), events) = if is_crowded { (CROWDED_TURN, &mut few_events) } else { (TURN, &mut events) };
        for _ in 0..polls_max {
            let Some(number) = here.next() else { break };
            here.poll(number);
        }
        here.flush();
        if ended.get() {
            drop(ending);
            return Ok(());
        }
        here.look(&mut poll, events)?;
    }
}

/// Says that the main task is over, also where it panics.
struct SetOnDrop(Rc<Cell<bool>>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

/// Whether [`spawn`] would start a task: on a relay thread until it ends, elsewhere where there is a run-time of tokio's.
pub fn can_spawn() -> bool {
    here().map_or_else(|| tokio::runtime::Handle::try_current().is_ok(), |here| !here.is_ending.get())
}

/// Starts a task on the calling thread: on a relay thread it stays there, elsewhere it is tokio's. When the thread is ending the task
/// is dropped.
pub fn spawn(job: impl Future<Output = ()> + Send + 'static) {
    match here() {
        Some(here) if here.is_ending.get() => drop(job),
        Some(here) => here.spawn(Box::pin(job)),
        None => drop(tokio::spawn(job)),
    }
}

/// Lets the thread's other tasks and sockets have a turn.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| if std::mem::replace(&mut yielded, true) { Poll::Ready(()) } else { yield_turn(cx) }).await;
}

/// Ends a turn: the sockets of the thread's other tasks are looked at before this one is polled again.
pub fn yield_turn<T>(cx: &mut Context<'_>) -> Poll<T> {
    match (here(), Current::number(cx)) {
        (Some(here), Some(number)) => {
            // Small answers do not wait for more than one long turn.
            here.flush();
            here.after_sockets.borrow_mut().push(number);
        }
        // Waking it here and now would put it into tokio's queue of those that are ready, and while that is not empty the sockets
        // are looked at at every 61st turn only.
        _ => {
            let waiting = pin!(tokio::task::yield_now()).poll(cx).is_pending();
            debug_assert!(waiting, "a yield ends when the task is woken");
        }
    }
    Poll::Pending
}
