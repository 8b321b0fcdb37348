//! Commits over two shards whose way to a server is cut in the middle: what one shard has, the other has.

use super::super::harness::programs::psql;
use super::super::harness::way::{pass, way_to};
use super::super::harness::{Pgyard, eventually};
use super::stage::{SHARDS, app_url, config, server, shard_url, wait_for_decisions};
use super::{error_of, run};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What each of the two shards does in a commit, as pgyard words it.
const PREPARES: &str = "PREPARE TRANSACTION";
const DECIDES: &str = ", true); COMMIT";
const FOLLOWS: &str = "COMMIT PREPARED";

/// Where a way is cut.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// The server never hears of it.
    Before,
    /// The server has done it, and its answer is lost.
    Behind,
}

/// A TCP way to a server that ends where it is told to, once.
struct Way {
    port: u16,
    cut: Arc<Mutex<Option<(&'static str, Cut)>>>,
}

impl Way {
    fn to(server: u16) -> Way {
        let cut: Arc<Mutex<Option<(&'static str, Cut)>>> = Arc::default();
        let shared = cut.clone();
        let port = way_to(server, move || {
            let (cut, is_last) = (shared.clone(), Arc::new(AtomicBool::new(false)));
            let answer_is_lost = is_last.clone();
            let requests = move |piece: &[u8], to: &mut TcpStream| {
                let said = String::from_utf8_lossy(piece);
                let here = cut.lock().unwrap().take_if(|(words, _)| said.contains(*words)).map(|(_, cut)| cut);
                is_last.fetch_or(here.is_some(), Ordering::SeqCst);
                !matches!(here, Some(Cut::Before)) && pass(piece, to)
            };
            let answers = move |piece: &[u8], to: &mut TcpStream| !answer_is_lost.load(Ordering::SeqCst) && pass(piece, to);
            (requests, answers)
        });
        Way { port, cut }
    }

    fn cut_at(&self, words: &'static str, cut: Cut) {
        *self.cut.lock().unwrap() = Some((words, cut));
    }
}

#[test]
fn a_commit_whose_way_is_cut_is_whole() {
    let fleet = server();
    for shard in SHARDS {
        psql(&app_url(&fleet, shard), "CREATE TABLE money (id int PRIMARY KEY, v bigint); INSERT INTO money VALUES (1, 1000)");
    }
    let port = fleet.primary().port();
    let ways: Vec<Way> = SHARDS.iter().map(|_| Way::to(port)).collect();
    let mut text = config(&fleet, "");
    for (shard, way) in SHARDS.iter().zip(&ways) {
        let straight = shard_url(&fleet, shard);
        text = text.replace(&straight, &straight.replace(&format!(":{port}/"), &format!(":{}/", way.port)));
    }
    assert!(!text.contains(&format!(":{port}/")), "every shard is behind its way");
    let yard = Pgyard::start_with_config(&fleet, &text);
    wait_for_decisions(&fleet);
    let money = |shard: &str| psql(&app_url(&fleet, shard), "SELECT v FROM money").parse::<i64>().unwrap();
    let prepared = || psql(&shard_url(&fleet, "s0"), "SELECT count(*) FROM pg_prepared_xacts");
    let mut given = 0;
    // s0 has the lowest number, and so decides.
    for (shard, words, cut, told, happens) in [
        (1, PREPARES, Cut::Before, Some("57P01"), false),
        (1, PREPARES, Cut::Behind, Some("57P01"), false),
        (0, DECIDES, Cut::Before, Some("08007"), false),
        (0, DECIDES, Cut::Behind, Some("08007"), true),
        (1, FOLLOWS, Cut::Before, None, true),
        (1, FOLLOWS, Cut::Behind, None, true),
    ] {
        let mut client = yard.client();
        for step in [
            "BEGIN",
            "SET LOCAL pgyard.shard = 's1'",
            "UPDATE money SET v = v + 1",
            "SET LOCAL pgyard.shard = 's0'",
            "UPDATE money SET v = v - 1",
        ] {
            assert_eq!(error_of(&run(&mut client, step)), None, "{step}");
        }
        ways[shard].cut_at(words, cut);
        let end = run(&mut client, "COMMIT");
        assert_eq!(error_of(&end).map(|(state, _)| state).as_deref(), told, "{words} {cut:?}: {end:?}");
        assert!(ways[shard].cut.lock().unwrap().is_none(), "{words}: its way was cut");
        assert_eq!(end.last().unwrap().body, b"I", "the session goes on");
        given += i64::from(happens);
        eventually("recovery has ended what was left", Duration::from_secs(20), || prepared() == "0");
        assert_eq!((money("s0"), money("s1")), (1000 - given, 1000 + given), "{words} {cut:?}");
    }
}
