//! Clients that write all the time and note what they were told. In the end the database must say the same.

use super::super::harness::client::{Protocol, Reply, bind, execute, parse, sync};
use super::super::harness::{Pgyard, RawClient, eventually};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What is there before them.
pub const FIXTURE: &str = "INSERT INTO accounts SELECT i, 1000 FROM generate_series(0, 29) i;
 INSERT INTO rates SELECT 'w' || i, 0 FROM generate_series(0, 9) i;
 INSERT INTO items SELECT -i, repeat('old', 10) FROM generate_series(1, 2000) i";
/// Items that are there before.
const OLD_ITEMS: usize = 2000;
const ACCOUNTS: u64 = 30;

/// What one writer was told.
#[derive(Default)]
struct Told {
    items: BTreeMap<i64, String>,
    /// Transfers by number: from, to, amount.
    journal: BTreeMap<i64, (u64, u64, i64)>,
    rates: u64,
}

struct Shared {
    stop: AtomicBool,
    rounds: Vec<AtomicU64>,
    longest_us: AtomicU64,
    errors: Mutex<Vec<String>>,
}

/// Writers at work.
pub struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Told>>,
}

impl Writers {
    /// Starts `count` of them.
    pub fn start(yard: &Pgyard, count: usize) -> Writers {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            rounds: (0..count).map(|_| AtomicU64::new(0)).collect(),
            longest_us: AtomicU64::new(0),
            errors: Mutex::default(),
        });
        let start = |number: usize| {
            let writer = Writer { number, client: yard.client(), shared: shared.clone(), told: Told::default() };
            std::thread::spawn(move || writer.work())
        };
        let threads = (0..count).map(start).collect();
        Writers { shared, threads }
    }

    /// Waits until each has done this many more rounds.
    pub fn go_on(&self, rounds: u64) {
        let now = |number: usize| self.shared.rounds[number].load(Ordering::Relaxed);
        let goals: Vec<u64> = (0..self.shared.rounds.len()).map(|number| now(number) + rounds).collect();
        eventually("every writer goes on", Duration::from_secs(120), || {
            let errors = self.shared.errors.lock().unwrap();
            assert!(errors.is_empty(), "clients were told of errors: {errors:?}");
            goals.iter().enumerate().all(|(number, goal)| now(number) >= *goal)
        });
    }

    /// The longest that a client waited for an answer.
    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.shared.longest_us.load(Ordering::Relaxed))
    }

    /// Ends them, and compares what they were told with what is there.
    pub fn finish(self, yard: &Pgyard) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let told: Vec<Told> = self.threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let errors = self.shared.errors.lock().unwrap();
        assert!(errors.is_empty(), "clients were told of errors: {errors:?}");
        let mut client = yard.client();
        let mut column = |sql: &str| client.column(sql).unwrap();
        let items: Vec<String> =
            told.iter().flat_map(|told| told.items.iter().map(|(id, note)| format!("{id} {note}"))).collect();
        let mut found = column("SELECT id::text || ' ' || note FROM items WHERE id > 0");
        let mut expect = items;
        found.sort();
        expect.sort();
        assert_eq!(found, expect, "items that were lost, or came twice");
        assert_eq!(column("SELECT count(*)::text FROM items WHERE id < 0"), [OLD_ITEMS.to_string()]);
        let mut balances = vec![1000_i64; ACCOUNTS as usize];
        let transfers = told.iter().flat_map(|told| &told.journal);
        for (_, (from, to, amount)) in transfers.clone() {
            balances[*from as usize] -= amount;
            balances[*to as usize] += amount;
        }
        let found = column("SELECT balance::text FROM accounts ORDER BY id");
        assert_eq!(found, balances.iter().map(ToString::to_string).collect::<Vec<_>>(), "transfers in parts");
        assert_eq!(column("SELECT count(*)::text FROM journal"), [transfers.count().to_string()]);
        for (number, told) in told.iter().enumerate() {
            assert_eq!(column(&format!("SELECT v::text FROM rates WHERE code = 'w{number}'")), [told.rates.to_string()]);
        }
    }
}

struct Writer {
    number: usize,
    client: RawClient,
    shared: Arc<Shared>,
    told: Told,
}

impl Writer {
    fn work(mut self) -> Told {
        // What a session has set and prepared must be there after every move.
        let prepare = [parse("keep", &format!("UPDATE rates SET v = v + 1 WHERE code = 'w{}'", self.number)), sync()].concat();
        self.ask("prepare", |client| {
            client.send(&prepare)?;
            client.until_ready()
        });
        self.run(Protocol::Simple, "SET work_mem = '7MB'");
        let mut round = 0;
        while !self.shared.stop.load(Ordering::Relaxed) && self.shared.errors.lock().unwrap().is_empty() {
            round += 1;
            self.round(round);
            self.shared.rounds[self.number].store(round as u64, Ordering::Relaxed);
        }
        if self.shared.errors.lock().unwrap().is_empty() {
            assert_eq!(self.client.column("SHOW work_mem").unwrap(), ["7MB"]);
        }
        self.told
    }

    fn round(&mut self, round: i64) {
        let protocol = [Protocol::Simple, Protocol::Extended, Protocol::Named][round as usize % 3];
        let id = self.number as i64 * 1_000_000 + round;
        if self.run(protocol, &format!("INSERT INTO items VALUES ({id}, 'new')")) {
            self.told.items.insert(id, "new".to_owned());
        }
        if round % 2 == 0 && self.run(protocol, &format!("UPDATE items SET note = 'changed {round}' WHERE id = {}", id - 1)) {
            self.told.items.insert(id - 1, format!("changed {round}"));
        }
        if round % 5 == 0 && self.run(protocol, &format!("DELETE FROM items WHERE id = {}", id - 2)) {
            self.told.items.remove(&(id - 2));
        }
        self.transfer(id, round as u64);
        let again = [bind("", "keep"), execute(""), sync()].concat();
        let done = self.ask("keep", |client| {
            client.send(&again)?;
            client.until_ready()
        });
        self.told.rates += u64::from(done);
        self.run(Protocol::Extended, &format!("SELECT note FROM items WHERE id = {id}"));
    }

    /// From one account to a later one, so that no two transfers wait for each other.
    fn transfer(&mut self, id: i64, round: u64) {
        let from = (round * 7 + self.number as u64) % (ACCOUNTS - 1);
        let to = from + 1 + round % (ACCOUNTS - 1 - from);
        let amount = round as i64 % 13 + 1;
        let done = self.run(Protocol::Simple, "BEGIN")
            && self.run(Protocol::Extended, &format!("UPDATE accounts SET balance = balance - {amount} WHERE id = {from}"))
            && self.run(Protocol::Simple, &format!("UPDATE accounts SET balance = balance + {amount} WHERE id = {to}"))
            && self.run(Protocol::Simple, &format!("INSERT INTO journal VALUES ({id}, {from}, {to}, {amount})"))
            && self.run(Protocol::Simple, "COMMIT");
        if done {
            self.told.journal.insert(id, (from, to, amount));
        }
    }

    fn run(&mut self, protocol: Protocol, sql: &str) -> bool {
        self.ask(sql, |client| client.run(protocol, sql))
    }

    /// Whether it was done; any error is noted.
    fn ask(&mut self, what: &str, ask: impl FnOnce(&mut RawClient) -> std::io::Result<Vec<Reply>>) -> bool {
        let began = Instant::now();
        let answer = ask(&mut self.client);
        self.shared.longest_us.fetch_max(began.elapsed().as_micros() as u64, Ordering::Relaxed);
        let error = match answer {
            Err(error) => Some(error.to_string()),
            Ok(replies) => replies
                .iter()
                .find(|reply| reply.tag == b'E')
                .map(|reply| format!("{} {}", reply.field(b'C').unwrap_or_default(), reply.field(b'M').unwrap_or_default())),
        };
        if let Some(error) = &error {
            self.shared.errors.lock().unwrap().push(format!("writer {}, {what}: {error}", self.number));
        }
        error.is_none()
    }
}
