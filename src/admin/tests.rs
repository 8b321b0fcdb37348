//! The console as its clients see it: over a socket, by tokio-postgres and by bytes.

use super::*;
use crate::auth::KeyCache;
use crate::cluster::{Cluster, ClusterContext, fixtures};
use crate::config::{DatabaseSettings, HostSettings, ReloadPlan, Settings};
use crate::database::{Clients, Directory, NewClient, StopRequest, Upstream};
use crate::metrics::Registry;
use crate::net::Stream;
use crate::net::socket::Socket;
use crate::net::stream::Peer;
use crate::session::ClientSide;
use crate::wire::error_response::ErrorFields;
use crate::wire::frame::{put_message, put_string};
use crate::wire::frame_at;
use crate::wire::reply::{put_backend_key, put_ready};
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// Shows settings, reloads as told, and notes how it was shut down.
struct Actions {
    settings: Settings,
    reload: Result<ReloadPlan, String>,
    shutdown: Mutex<Option<ShutdownMode>>,
}

impl ConsoleActions for Actions {
    fn settings(&self) -> Arc<Settings> {
        Arc::new(self.settings.clone())
    }

    fn reload(&self) -> BoxFuture<'static, Result<ReloadPlan, String>> {
        Box::pin(std::future::ready(self.reload.clone()))
    }

    fn serve_by(&self, _database: String, _other: Option<String>) -> BoxFuture<'static, Result<(), String>> {
        Box::pin(std::future::ready(Err("no file".to_owned())))
    }

    fn shutdown(&self, mode: ShutdownMode) {
        *self.shutdown.lock().unwrap() = Some(mode);
    }
}

struct Yard {
    console: Console,
    context: ConsoleContext,
    actions: Arc<Actions>,
}

/// A yard whose hosts refuse every connection: nothing listens on port 1.
fn yard(databases: &[&str], reload: Result<ReloadPlan, String>) -> Yard {
    let registry = Registry::new(1);
    let context =
        ClusterContext { control: tokio::runtime::Handle::current(), tls: Arc::new(|_| None), host_ids: Arc::default() };
    let mut upstreams = HashMap::new();
    let mut all = Vec::new();
    for name in databases {
        let host = |name: &str| HostSettings { port: 1, ..fixtures::host_settings(name) };
        let hosts = vec![host("127.0.0.1"), host("127.0.0.2")];
        let settings = Arc::new(DatabaseSettings { name: (*name).to_owned(), ..fixtures::database(hosts) });
        let cluster = Cluster::start(settings.clone(), context.clone());
        let upstream = Upstream::new(cluster, settings.clone(), Arc::new(KeyCache::new(16)), 1, Duration::from_secs(60));
        upstreams.insert((*name).to_owned(), upstream);
        all.push(settings);
    }
    let settings = Settings { databases: all, drain_timeout: Duration::from_millis(100), ..Settings::default() };
    let actions = Arc::new(Actions { settings, reload, shutdown: Mutex::default() });
    let context = ConsoleContext {
        directory: Arc::new(Directory::new(upstreams, registry.clone())),
        clients: Arc::new(Clients::default()),
        registry,
        workers: 1,
        started: Instant::now(),
        actions: actions.clone(),
    };
    Yard { console: Console::new(context.clone()), context, actions }
}

impl Yard {
    /// A socket at whose other end the console begins with `greeting`.
    fn socket(&self, greeting: &[u8]) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut client = ClientSide::new(Stream::Plain(Socket::Unix(theirs)));
        client.outbox.push(greeting);
        tokio::spawn(self.console.serve(ConsoleClient { client, user: "pgyard".to_owned(), peer: Peer::Unix }));
        ours
    }

    /// A driver that has logged in.
    async fn driver(&self) -> tokio_postgres::Client {
        let mut greeting = vec![b'R', 0, 0, 0, 8, 0, 0, 0, 0];
        put_backend_key(&mut greeting, 0, &[0; 4]);
        put_ready(&mut greeting, b'I');
        let console = self.socket(&greeting);
        let (ours, theirs) = UnixStream::pair().unwrap();
        // The console's part begins behind the start-up packet.
        tokio::spawn(async move {
            let (mut theirs, mut console) = (theirs, console);
            let mut length = [0; 4];
            theirs.read_exact(&mut length).await.unwrap();
            let mut packet = vec![0; u32::from_be_bytes(length) as usize - 4];
            theirs.read_exact(&mut packet).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut theirs, &mut console).await;
        });
        let (client, connection) =
            tokio_postgres::Config::new().user("pgyard").dbname("pgyard").connect_raw(ours, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// What the console answers to these bytes, up to the end of the connection: type and body of each message.
    async fn raw(&self, bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut socket = self.socket(b"");
        // A console that has had enough may close before it has read all.
        let _ = socket.write_all(bytes).await;
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let read = socket.read_to_end(&mut answer);
        // Closing with bytes unread may look like a reset: what was said before counts.
        let _ = tokio::time::timeout(Duration::from_secs(10), read).await.expect("the console ends");
        let (mut rest, mut messages) = (answer.as_slice(), Vec::new());
        while let Ok(Some(frame)) = frame_at(rest) {
            messages.push((frame.tag, frame.body.to_vec()));
            rest = &rest[frame.total..];
        }
        assert!(rest.is_empty(), "half a message: {rest:?}");
        messages
    }

    /// The types of the answers, with SQLSTATE, tag or status.
    async fn script(&self, bytes: &[u8]) -> String {
        let word = |(tag, body): &(u8, Vec<u8>)| match tag {
            b'E' => format!("E:{}", ErrorFields::read(body).state),
            b'C' => format!("C:{}", String::from_utf8_lossy(&body[..body.len() - 1])),
            b'Z' => format!("Z:{}", body[0] as char),
            tag => (*tag as char).to_string(),
        };
        self.raw(bytes).await.iter().map(word).collect::<Vec<_>>().join(" ")
    }
}

fn plain() -> Yard {
    yard(&["app"], Ok(ReloadPlan::default()))
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_message(&mut out, tag, |into| into.extend_from_slice(body));
    out
}

fn query(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_message(&mut out, b'Q', |body| put_string(body, text.as_bytes()));
    out
}

fn parse(name: &str, text: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{text}\0\0\0").as_bytes())
}

fn bind(portal: &str, statement: &str) -> Vec<u8> {
    message(b'B', format!("{portal}\0{statement}\0\0\0\0\0\0\0").as_bytes())
}

fn execute(portal: &str, limit: u8) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), &[0, 0, 0, 0, limit]].concat())
}

const SYNC: [u8; 5] = [b'S', 0, 0, 0, 4];

async fn rows(client: &tokio_postgres::Client, text: &str) -> Vec<Vec<String>> {
    let messages = client.simple_query(text).await.unwrap();
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|index| row.get(index).unwrap_or("NULL").to_owned()).collect()),
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

#[tokio::test]
async fn every_show_is_answered_by_both_protocols() {
    let yard = plain();
    let entry = yard.context.clients.enter(NewClient {
        database: "app".into(),
        user: "alice".into(),
        peer: Peer::Tcp("10.0.0.9:4711".parse().unwrap()),
        tls: true,
        application_name: "shop".into(),
        key_len: 4,
        is_leg: false,
    });
    let client = yard.driver().await;
    let mut shown = 0;
    for (name, _) in command::COMMANDS.iter().filter(|(name, _)| name.starts_with("SHOW")) {
        let text = name.replace("'sql'", "'select 1'").replace("[IN database]", "IN app");
        let simple = rows(&client, &text).await;
        let prepared = client.prepare(&text).await.unwrap();
        assert!(prepared.params().is_empty(), "{text}");
        let extended = client.query(&prepared, &[]).await.unwrap();
        assert_eq!(simple.len(), extended.len(), "{text}");
        // Text in its binary form, which the driver asks for.
        let first: Option<Option<String>> = extended.first().map(|row| row.get(0));
        assert_eq!(simple.first().map(|row| row[0].clone()), first.flatten(), "{text}");
        assert!(extended.iter().all(|row| row.len() == prepared.columns().len()), "{text}");
        shown += simple.len();
    }
    assert!(shown > 50, "{shown} rows");
    let clients = client.query("SHOW CLIENTS", &[]).await.unwrap();
    let value = |column: &str| clients[0].get::<_, Option<&str>>(column).unwrap_or("NULL").to_owned();
    let expect = ["alice", "app", "idle", "10.0.0.9", "4711", "yes", "shop", "NULL"];
    let found = ["user", "database", "state", "addr", "port", "tls", "application_name", "host"].map(value);
    assert_eq!(found, expect);
    assert_eq!(value("id"), entry.process.to_string());
}

#[tokio::test]
async fn hosts_and_routes_are_explained() {
    let yard = plain();
    let upstream = yard.context.directory.upstreams()["app"].clone();
    while upstream.cluster.fleet().hosts.iter().any(|view| view.standing.label() != "unreachable") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let client = yard.driver().await;
    let hosts = client.query("show hosts", &[]).await.unwrap();
    assert_eq!(hosts.len(), 2);
    let value = |column: &str| hosts[0].get::<_, Option<&str>>(column).unwrap_or("NULL").to_owned();
    assert_eq!(
        ["database", "host", "address", "role", "standing", "reason", "lag_ms", "in_flight"].map(value),
        ["app", "127.0.0.1", "127.0.0.1:1", "unknown", "unreachable", "unreachable", "NULL", "0"]
    );
    assert!(["open", "half_open"].contains(&value("circuit").as_str()));
    let route = client.query_one("SHOW ROUTE FOR 'delete from t'", &[]).await.unwrap();
    assert_eq!((route.get::<_, &str>("route"), route.get::<_, &str>("reason")), ("primary", "catalogue"));
    assert!(route.get::<_, &str>("explanation").contains("no primary is available"), "{route:?}");
    let read = client.query_one("SHOW ROUTE FOR $$/* pgyard: replica */ select 'a'$$ IN app", &[]).await.unwrap();
    assert_eq!((read.get::<_, &str>("route"), read.get::<_, &str>("reason")), ("replica", "hint"));
    assert_eq!(read.get::<_, Option<&str>>("host"), None);
    assert!(read.get::<_, &str>("explanation").contains("no replica is available"), "{read:?}");
    let error = client.query("SHOW ROUTE FOR 'select 1' IN nothing", &[]).await.unwrap_err();
    assert_eq!(error.code().map(|code| code.code().to_owned()).as_deref(), Some("3D000"));
}

#[tokio::test]
async fn a_route_needs_its_database_where_there_are_several() {
    let several = yard(&["app", "shop"], Ok(ReloadPlan::default()));
    let error = several.driver().await.query("SHOW ROUTE FOR 'select 1'", &[]).await.unwrap_err();
    assert!(error.as_db_error().unwrap().detail().unwrap().contains("app, shop"), "{error:?}");
    let wildcard = yard(&["*"], Ok(ReloadPlan::default()));
    let row = wildcard.driver().await.query_one("SHOW ROUTE FOR 'select 1' IN anything", &[]).await.unwrap();
    assert_eq!((row.get::<_, &str>("database"), row.get::<_, &str>("route")), ("anything", "replica"));
    let row = wildcard.driver().await.query_one("SHOW ROUTE FOR 'delete from t'", &[]).await.unwrap();
    assert_eq!((row.get::<_, &str>("route"), row.get::<_, &str>("reason")), ("primary", "write"));
}

#[tokio::test]
async fn actions_reach_what_they_name() {
    let plan = ReloadPlan { changed: vec!["a: 1 -> 2".into()], needs_restart: vec!["listen: b -> c".into()] };
    let yard = yard(&["app"], Ok(plan));
    let client = yard.driver().await;
    assert_eq!(rows(&client, "RELOAD").await, [["a: 1 -> 2", "yes"], ["listen: b -> c", "after a restart"]]);

    let upstream = yard.context.directory.upstreams()["app"].clone();
    let drained = |index: usize| upstream.cluster.fleet().hosts[index].standing.label() == "drained";
    assert_eq!(rows(&client, "DRAIN 127.0.0.2:1 IN app").await, [["app", "127.0.0.2", "drained"]]);
    assert!(drained(1) && !drained(0));
    rows(&client, "UNDRAIN 127.0.0.2").await;
    assert!(!drained(1));
    for (text, hint) in [("DRAIN nobody", "Hosts: 127.0.0.1, 127.0.0.2."), ("DRAIN 127.0.0.1 IN nothing", "SHOW DATABASES")] {
        let error = client.simple_query(text).await.unwrap_err();
        assert!(error.as_db_error().unwrap().hint().unwrap().contains(hint), "{text}: {error:?}");
    }

    let database = yard.context.directory.find("app").unwrap();
    rows(&client, "PAUSE").await;
    assert!(database.is_paused());
    rows(&client, "RESUME app").await;
    assert!(!database.is_paused());
    for text in ["RESUME app", "RESUME nothing", "PAUSE nothing"] {
        assert!(client.simple_query(text).await.is_err(), "{text}");
    }

    let entry = yard.context.clients.enter(NewClient {
        database: "app".into(),
        user: "alice".into(),
        peer: Peer::Unix,
        tls: false,
        application_name: "".into(),
        key_len: 4,
        is_leg: false,
    });
    assert!(client.simple_query("KILL 1").await.is_err() || entry.process == 1);
    rows(&client, &format!("KILL {}", entry.process)).await;
    let stop = std::future::poll_fn(|cx| std::task::Poll::Ready(entry.stop_requested(cx))).await;
    assert_eq!(stop, StopRequest::Now);

    assert_eq!(*yard.actions.shutdown.lock().unwrap(), None);
    rows(&client, "SHUTDOWN").await;
    assert_eq!(*yard.actions.shutdown.lock().unwrap(), Some(ShutdownMode::Drain));
    rows(&client, "shutdown now").await;
    assert_eq!(*yard.actions.shutdown.lock().unwrap(), Some(ShutdownMode::Now));
}

#[tokio::test]
async fn a_refused_reload_says_why() {
    let yard = yard(&["app"], Err("pgyard.toml:3:1: error: unknown key".into()));
    let error = yard.driver().await.simple_query("RELOAD").await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!((error.code().code(), error.detail()), ("F0000", Some("pgyard.toml:3:1: error: unknown key")));
}

#[tokio::test]
async fn transactions_have_the_right_status_and_no_effect() {
    let yard = plain();
    let check = async |text: &str, expect: &str| assert_eq!(yard.script(&query(text)).await, expect, "{text}");
    check("", "I Z:I").await;
    check("BEGIN", "C:BEGIN Z:T").await;
    check("BEGIN; SELECT 1; COMMIT", "C:BEGIN T D C:SELECT 1 C:COMMIT Z:I").await;
    check("BEGIN; DRAIN nobody; SHOW VERSION", "C:BEGIN E:42704 Z:E").await;
    check("SHOW VERSION; nonsense", "E:42601 Z:I").await;
    check("SET a = 1; RESET a", "C:SET C:RESET Z:I").await;
    let steps = [query("BEGIN"), query("KILL 0"), query("SHOW VERSION"), query("COMMIT"), query("SELECT 1")].concat();
    assert_eq!(yard.script(&steps).await, "C:BEGIN Z:T E:42704 Z:E E:25P02 Z:E C:ROLLBACK Z:I T D C:SELECT 1 Z:I");
    let steps = [query("BEGIN; SAVEPOINT a"), query("KILL 0"), query("ROLLBACK TO a"), query("RELEASE a"), query("END")].concat();
    assert_eq!(yard.script(&steps).await, "C:BEGIN C:SAVEPOINT Z:T E:42704 Z:E C:ROLLBACK Z:T C:RELEASE Z:T C:COMMIT Z:I");
}

#[tokio::test]
async fn the_extended_protocol_is_spoken_in_full() {
    let yard = plain();
    let check = async |messages: &[Vec<u8>], expect: &str| assert_eq!(yard.script(&messages.concat()).await, expect);
    let (describe_s, describe_p) = (|name: &str| message(b'D', format!("S{name}\0").as_bytes()), message(b'D', b"P\0"));
    let sync = SYNC.to_vec();
    check(
        &[parse("", "SHOW VERSION"), describe_s(""), bind("", ""), describe_p.clone(), execute("", 0), sync.clone()],
        "1 t T 2 T D C:SHOW Z:I",
    )
    .await;
    check(
        &[parse("", "SET a = 1"), describe_s(""), bind("", ""), execute("", 0), execute("", 0), sync.clone(), query("")],
        "1 t n 2 C:SET E:55000 Z:I I Z:I",
    )
    .await;
    check(&[parse("", ""), bind("", ""), describe_p.clone(), execute("", 0), sync.clone()], "1 2 n I Z:I").await;
    // Row limits: two at a time of the 23 rows, then the rest.
    check(
        &[
            query("BEGIN"),
            parse("h", "SHOW HELP"),
            bind("p", "h"),
            execute("p", 2),
            sync.clone(),
            execute("p", 20),
            execute("p", 3),
            execute("p", 0),
            sync.clone(),
        ],
        &format!("C:BEGIN Z:T 1 2 D D s Z:T {}s D C:SHOW C:SHOW Z:T", "D ".repeat(20)),
    )
    .await;
    // Outside a transaction portals end with their Sync; statements stay until they are closed.
    let close = message(b'C', b"Sh\0");
    check(
        &[
            parse("h", "SHOW HELP"),
            bind("p", "h"),
            sync.clone(),
            execute("p", 1),
            sync.clone(),
            bind("", "h"),
            close,
            sync.clone(),
            bind("", "h"),
            sync.clone(),
        ],
        "1 2 Z:I E:34000 Z:I 2 3 Z:I E:26000 Z:I",
    )
    .await;
    check(
        &[
            parse("h", "SHOW HELP"),
            parse("h", "SHOW HELP"),
            sync.clone(),
            query("DEALLOCATE h"),
            parse("h", "SELECT 1"),
            sync.clone(),
        ],
        "1 E:42P05 Z:I C:DEALLOCATE Z:I 1 Z:I",
    )
    .await;
    // An error drops everything up to Sync; Flush answers without one.
    check(
        &[parse("", "SHOW NOTHING"), bind("", ""), execute("", 0), query("SELECT 1"), sync.clone(), query("SELECT 1")],
        "E:42601 Z:I T D C:SELECT 1 Z:I",
    )
    .await;
    check(
        &[parse("", "SELECT 1; SELECT 2"), sync.clone(), parse("", "KILL $1"), sync.clone(), message(b'H', b"")],
        "E:42601 Z:I E:0A000 Z:I",
    )
    .await;
    check(&[parse("a", "SELECT 1"), message(b'B', b"\0a\0\0\0\0\x01\0\0\0\x01x\0\0"), sync.clone()], "1 E:08P01 Z:I").await;
    check(&[parse("a", "SELECT 1"), message(b'B', b"\0a\0\0\0\0\0\0\x01\0\x07"), sync.clone()], "1 E:22023 Z:I").await;
    check(&[parse("a", "SHOW HELP"), message(b'B', b"\0a\0\0\0\0\0\0\x03\0\0\0\0\0\0"), sync.clone()], "1 E:08P01 Z:I").await;
    check(&[parse("a", "\u{1f}'"), sync.clone(), message(b'P', b"a\0\xff\0\0\0"), sync.clone()], "E:42601 Z:I E:22021 Z:I").await;
    check(&[message(b'F', b"\0\0\0\x01"), message(b'c', b""), query("SELECT 1")], "E:0A000 Z:I T D C:SELECT 1 Z:I").await;
}

#[tokio::test]
async fn a_session_has_limits() {
    let yard = plain();
    let many: Vec<u8> = (0..1001).flat_map(|index| parse(&format!("s{index}"), "SELECT 1")).collect();
    let said = yard.script(&[many, SYNC.to_vec()].concat()).await;
    assert!(said.ends_with("1 E:53400 Z:I"), "{}", &said[said.len() - 40..]);
    let portals: Vec<u8> = (0..101).flat_map(|index| bind(&format!("p{index}"), "")).collect();
    let said = yard.script(&[parse("", "SELECT 1"), portals, SYNC.to_vec()].concat()).await;
    assert!(said.ends_with("2 E:53400 Z:I"), "{said}");
    // A length that is claimed is not waited for, let alone allocated.
    assert_eq!(yard.script(&[b'Q', 0x3f, 0xff, 0xff, 0xff]).await, "E:54000");
    assert_eq!(yard.script(b"Q\0\0\0\x03").await, "E:08P01");
    assert_eq!(yard.script(b"!\0\0\0\x04").await, "E:08P01");
    assert_eq!(yard.script(&message(b'Q', b"no end")).await, "E:08P01");
    assert_eq!(yard.script(&message(b'X', b"")).await, "");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_make_it_panic(frames in proptest::collection::vec((prop::sample::select(b"QPBDECHSXFdcfp!".to_vec()), prop::collection::vec(any::<u8>(), 0..40), any::<bool>()), 0..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let yard = plain();
            let mut bytes = Vec::new();
            for (tag, body, whole) in frames {
                let mut frame = message(tag, &body);
                if !whole {
                    frame.truncate(frame.len() / 2 + 1);
                }
                bytes.extend(frame);
            }
            yard.raw(&bytes).await;
        });
    }
}

#[test]
fn the_documentation_has_every_command_and_column() {
    let document = include_str!("../../docs/console.md");
    for (name, _) in &command::COMMANDS[..command::COMMANDS.len() - 1] {
        assert!(document.contains(&format!("`{name}`")), "docs/console.md does not have {name}");
        let text = name
            .replace("'sql'", "'select 1'")
            .replace(['[', ']'], "")
            .replace("KILL client", "KILL 1")
            .replace("milliseconds", "100");
        let section = document.split(&format!("### `{name}`\n")).nth(1).map(|rest| rest.split("\n#").next().unwrap_or(rest));
        for command in command::parse(&text).unwrap() {
            for column in command.table().into_iter().flat_map(|table| table.columns) {
                let place = section.unwrap_or(document);
                assert!(place.contains(&format!("`{column}`")), "docs/console.md does not have {column} of {name}");
            }
        }
    }
}
