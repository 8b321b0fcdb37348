//! `consistency = "monotonic"`: a session never reads an older state than it has read before.

use super::harness::client::{Protocol, bind, execute, parse, sync};
use super::harness::{Pgyard, config, own_fleet};

const FLUSH: [u8; 5] = [b'H', 0, 0, 0, 4];

#[test]
fn what_a_lost_transaction_has_read_is_not_taken_back() {
    let fleet = own_fleet(1);
    let primary = fleet.primary();
    primary.sql("SET ROLE app; CREATE TABLE t AS SELECT 0 AS n").unwrap();
    let settings = "consistency = \"monotonic\"\nmax_lag = \"off\"\n";
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, None, settings));
    yard.wait_for_replicas(&["replica1"]);
    fleet.wait_for_replay(primary, &fleet.replicas()[0]).unwrap();
    fleet.replicas()[0].pause_replay().unwrap();
    let end_backend = |pid: &str| drop(primary.sql(&format!("SELECT pg_terminate_backend({pid}, 10000)")).unwrap());
    for (round, pipelined) in [(1, false), (2, true)] {
        // Not through pgyard: the session has written nothing.
        primary.sql("UPDATE t SET n = n + 1").unwrap();
        let (mut client, newest) = (yard.client(), round.to_string());
        assert_eq!(client.column("SELECT n FROM t").unwrap(), ["0"], "a new session reads the replica");
        if pipelined {
            let sql = "/* pgyard: primary */ SELECT n || ':' || pg_backend_pid() FROM t";
            let unit = [parse("", sql), bind("", ""), execute(""), FLUSH.to_vec()].concat();
            client.send(&unit).unwrap();
            let row = std::iter::from_fn(|| client.receive().unwrap()).find(|reply| reply.tag == b'D').expect("a row");
            // Two bytes of columns, four of the length.
            let text = String::from_utf8(row.body[6..].to_vec()).unwrap();
            let (n, pid) = text.split_once(':').expect("both");
            assert_eq!(n, newest);
            end_backend(pid);
            client.send(&sync()).unwrap();
            client.until_ready().unwrap();
        } else {
            client.run(Protocol::Simple, "BEGIN").unwrap();
            assert_eq!(
                client.column("SELECT n FROM t").unwrap(),
                std::slice::from_ref(&newest),
                "a transaction reads the primary"
            );
            let pid = client.column("SELECT pg_backend_pid()").unwrap().remove(0);
            end_backend(&pid);
            let replies = client.run(Protocol::Simple, "COMMIT").unwrap();
            assert!(replies.iter().any(|reply| reply.tag == b'E'), "{replies:?}");
        }
        for protocol in [Protocol::Simple, Protocol::Extended, Protocol::Named] {
            let replies = client.run(protocol, "SELECT n FROM t").unwrap();
            let row = replies.iter().find(|reply| reply.tag == b'D').expect("a row");
            assert_eq!(String::from_utf8_lossy(&row.body[6..]), newest, "it has read {newest} before (pipelined: {pipelined})");
        }
    }
}
