//! Raw requests over TCP, good ones and bad ones.

use super::server::{CLOSING_TIMEOUT, CONNECTION_LIFETIME, CONNECTIONS_MAX, HEADERS_BYTES_MAX, HEADERS_TIMEOUT};
use super::*;
use crate::metrics::{Registry, strict_parser};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A fleet of one host that is well until told otherwise.
#[derive(Default)]
struct FakeSource {
    starting: AtomicBool,
    failed: AtomicBool,
    broken_status: AtomicBool,
}

impl HealthSource for FakeSource {
    fn readiness(&self) -> Readiness {
        match self.failed.load(Ordering::Relaxed) {
            false => Readiness::Ready,
            true => Readiness::NotReady { reasons: vec!["database app: no host is reachable".to_owned()] },
        }
    }

    fn started(&self) -> bool {
        !self.starting.load(Ordering::Relaxed)
    }

    fn components(&self) -> Vec<ComponentHealth> {
        let latency = Some(Duration::from_millis(2));
        let healthy = ComponentHealth { name: "app/primary".to_owned(), healthy: true, latency, detail: "primary".to_owned() };
        let down = ComponentHealth {
            name: "app/\"</script>".to_owned(),
            healthy: !self.failed.load(Ordering::Relaxed),
            latency: None,
            detail: String::new(),
        };
        vec![healthy, down]
    }

    fn status(&self) -> StatusReport {
        assert!(!self.broken_status.load(Ordering::Relaxed), "a fault of the source");
        let pool = PoolStatus {
            host: "primary".to_owned(),
            user: "alice".to_owned(),
            size_limit: 20,
            active: 1,
            idle: 2,
            waiting: 3,
            oldest_wait: Duration::from_millis(40),
        };
        let host = HostStatus {
            name: "primary".to_owned(),
            address: "10.0.0.1:5432".to_owned(),
            role: "primary".to_owned(),
            eligible: true,
            standing: "eligible".to_owned(),
            lag: None,
            lag_bytes: Some(7),
            lsn: Some("0/16B3748".to_owned()),
            in_flight: 1,
            probe_latency: Some(Duration::from_micros(500)),
            circuit: "closed".to_owned(),
        };
        let database = DatabaseStatus {
            name: "app".to_owned(),
            max_lag: Some(Duration::from_secs(1)),
            hosts: vec![host],
            pools: vec![pool],
            clients: ClientCounts { connected: 5, waiting: 3, pinned: 1 },
            routes: Vec::new(),
            durations: DurationQuantiles::default(),
        };
        StatusReport { version: "0.0.0".to_owned(), uptime: Duration::from_millis(1500), databases: vec![database] }
    }
}

struct Server {
    address: std::net::SocketAddr,
    source: Arc<FakeSource>,
    registry: Registry,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let source = Arc::new(FakeSource::default());
        let registry = Registry::new(1);
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(serve(listener, Arc::clone(&source) as Arc<dyn HealthSource>, registry.clone(), stopped));
        Server { address, source, registry, stop, task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// What comes back until the server closes.
    async fn exchange(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The server may close before it has read all of a bad request.
        let _ = stream.write_all(request).await;
        read_to_end(&mut stream).await
    }

    /// Status, headers and body of a GET.
    async fn get(&self, path: &str) -> (u16, String, String) {
        let reply = self.exchange(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await;
        let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{path}: {reply:?}"));
        (status_of(&reply), head.to_ascii_lowercase(), body.to_owned())
    }

    async fn json(&self, path: &str) -> (u16, serde_json::Value) {
        let (status, head, body) = self.get(path).await;
        assert!(head.contains("content-type: application/json"), "{head}");
        (status, serde_json::from_str(&body).unwrap())
    }
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut reply = Vec::new();
    let mut part = [0; 4096];
    // A reset ends it as well as an end does: what came before counts.
    while let Ok(count @ 1..) = stream.read(&mut part).await {
        reply.extend_from_slice(&part[..count]);
    }
    String::from_utf8_lossy(&reply).into_owned()
}

fn status_of(reply: &str) -> u16 {
    reply.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn metrics_are_in_the_text_format_and_count_their_requests() {
    let server = Server::start().await;
    for path in ["/metrics", "/metrics?x=1", "/no/such/path", "/readyz"] {
        server.get(path).await;
    }
    let (status, head, body) = server.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    let families = strict_parser::parse(&body).unwrap();
    let requests = |path, status| {
        families["pgyard_http_requests_total"].value("pgyard_http_requests_total", &[("path", path), ("status", status)])
    };
    assert_eq!(requests("/metrics", "200"), Some(2.0));
    assert_eq!(requests("other", "404"), Some(1.0));
    assert_eq!(requests("/readyz", "200"), Some(1.0));
}

#[tokio::test]
async fn health_endpoints_say_what_is_wrong() {
    let server = Server::start().await;
    assert_eq!(server.json("/livez").await, (200, serde_json::json!({"alive": true})));
    assert_eq!(server.json("/readyz").await, (200, serde_json::json!({"ready": true})));
    assert_eq!(server.json("/startupz").await, (200, serde_json::json!({"started": true})));
    let (status, health) = server.json("/health").await;
    assert_eq!((status, health["status"].as_str()), (200, Some("ok")));
    assert_eq!(health["components"][0]["latency_seconds"], 0.002);
    assert_eq!(health["components"][1]["name"], "app/\"</script>");

    server.source.failed.store(true, Ordering::Relaxed);
    server.source.starting.store(true, Ordering::Relaxed);
    let reasons = serde_json::json!(["database app: no host is reachable"]);
    assert_eq!(server.json("/livez").await.0, 200);
    assert_eq!(server.json("/readyz").await, (503, serde_json::json!({"ready": false, "reasons": reasons})));
    assert_eq!(server.json("/startupz").await, (503, serde_json::json!({"started": false})));
    let (status, health) = server.json("/health").await;
    assert_eq!((status, &health["status"], &health["reasons"]), (503, &"failed".into(), &reasons));
    assert_eq!(health["components"][1]["latency_seconds"], serde_json::Value::Null);
}

#[tokio::test]
async fn the_status_has_units_in_its_names() {
    let server = Server::start().await;
    let (status, report) = server.json("/status.json").await;
    assert_eq!((status, &report["uptime_seconds"]), (200, &1.5.into()));
    let database = &report["databases"][0];
    assert_eq!(database["max_lag_seconds"], 1.0);
    assert_eq!(database["hosts"][0]["probe_latency_seconds"], 0.0005);
    assert_eq!(database["hosts"][0]["lag_seconds"], serde_json::Value::Null);
    assert_eq!(database["pools"][0]["oldest_wait_seconds"], 0.04);
    assert_eq!(database["clients"], serde_json::json!({"connected": 5, "waiting": 3, "pinned": 1}));
}

#[tokio::test]
async fn the_page_comes_with_its_policy() {
    let server = Server::start().await;
    let (status, head, body) = server.get("/").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/html") && head.contains("content-security-policy: default-src 'none'"), "{head}");
    assert!(body.starts_with("<!doctype html>") && body.ends_with("</html>\n"));
}

#[tokio::test]
async fn only_get_and_head_and_known_paths() {
    let server = Server::start().await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        let reply = server.exchange(format!("{method} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert_eq!(status_of(&reply), 405, "{reply}");
        assert!(reply.to_ascii_lowercase().contains("allow: get, head"), "{reply}");
    }
    for path in ["/x", "/metrics/", "//", "/../metrics", "/%6detrics"] {
        let (status, _, body) = server.get(path).await;
        assert_eq!(status, 404, "{path}");
        for known in ["/metrics", "/livez", "/readyz", "/startupz", "/health", "/status.json"] {
            assert!(body.contains(known), "{body}");
        }
    }
    let reply = server.exchange(b"HEAD /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status_of(&reply), 200);
    assert!(reply.to_ascii_lowercase().contains("content-length: 15") && reply.ends_with("\r\n\r\n"), "{reply:?}");
}

#[tokio::test]
async fn a_connection_serves_several_requests() {
    let server = Server::start().await;
    let request = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    let last = "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let reply = server.exchange(format!("{request}{request}{last}").as_bytes()).await;
    assert_eq!(reply.matches("HTTP/1.1 200").count(), 3, "{reply}");
}

#[tokio::test]
async fn bad_bytes_end_their_connection_and_nothing_else() {
    let server = Server::start().await;
    let long_path = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(HEADERS_BYTES_MAX));
    let long_header = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(HEADERS_BYTES_MAX));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(1000));
    let tls_hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3, 0xFF, 0xFE];
    let startup_message = b"\0\0\0\x08\x04\xd2\x16\x2f";
    let requests: [(&[u8], std::ops::RangeInclusive<u16>); 12] = [
        (b"\r\n\r\n\0\0\0\0\r\n\r\n", 400..=400),
        (b"GET\r\n\r\n", 400..=400),
        (b"GET / HTTP/9.9\r\n\r\n", 400..=400),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400..=400),
        (b"GET / HTTP/1.1\r\nx: \0\r\n\r\n", 400..=400),
        (b"GET /\xFF\xFE HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400..=404),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0..=505),
        (long_path.as_bytes(), 414..=431),
        (long_header.as_bytes(), 431..=431),
        (many_headers.as_bytes(), 431..=431),
        (&tls_hello, 400..=400),
        (startup_message, 400..=400),
    ];
    for (request, expect) in requests {
        let mut stream = server.connect().await;
        let _ = stream.write_all(request).await;
        stream.shutdown().await.unwrap_or(());
        let reply = read_to_end(&mut stream).await;
        let shown = String::from_utf8_lossy(&request[..request.len().min(40)]);
        assert!(expect.contains(&status_of(&reply)), "{shown:?}: {reply:?}");
    }
    // A body is not wanted, whatever its length pretends to be.
    let reply = server.exchange(b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nabc").await;
    assert_eq!(status_of(&reply), 200);
    assert_eq!(server.get("/livez").await.0, 200);
}

#[tokio::test]
async fn a_fault_of_the_source_ends_one_connection() {
    let server = Server::start().await;
    server.source.broken_status.store(true, Ordering::Relaxed);
    assert_eq!(server.exchange(b"GET /status.json HTTP/1.1\r\nHost: x\r\n\r\n").await, "");
    assert_eq!(server.get("/livez").await.0, 200);
}

#[tokio::test]
async fn connections_over_the_limit_are_told_so() {
    let server = Server::start().await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert_ne!(stream.read(&mut [0; 4096]).await.unwrap(), 0);
        held.push(stream);
    }
    let refusal = read_to_end(&mut server.connect().await).await;
    assert_eq!(status_of(&refusal), 503);
    assert!(refusal.ends_with("\r\n\r\ntoo many connections are open\n"), "{refusal:?}");
    assert!(refusal.contains("Content-Length: 30\r\n"));
    assert!(server.registry.render().contains("pgyard_http_connections_refused_total 1\n"));

    drop(held.pop());
    // The place is free once the server has seen the end; until then it refuses.
    while status_of(&server.exchange(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await) != 200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn slow_headers_and_idle_connections_are_closed() {
    let server = Server::start().await;
    for sent in ["", "GET /livez HTT", "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut stream = server.connect().await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        let begun = tokio::time::Instant::now();
        read_to_end(&mut stream).await;
        let waited = begun.elapsed();
        assert!(waited >= HEADERS_TIMEOUT - Duration::from_secs(1) && waited <= 2 * HEADERS_TIMEOUT, "{sent:?}: {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_drips_or_does_not_read_is_closed_in_the_end() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    let begun = tokio::time::Instant::now();
    // Requests without end, none of whose answers is read.
    let flood = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    let closed = async { while stream.write_all(flood.as_bytes()).await.is_ok() {} };
    tokio::time::timeout(CONNECTION_LIFETIME + 2 * CLOSING_TIMEOUT, closed).await.unwrap();
    assert!(begun.elapsed() >= CONNECTION_LIFETIME, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn stopping_ends_idle_connections_and_the_listener() {
    let server = Server::start().await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_ne!(idle.read(&mut [0; 4096]).await.unwrap(), 0);
    server.stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(5), server.task).await.unwrap().unwrap();
    assert_eq!(read_to_end(&mut idle).await, "");
    assert!(TcpStream::connect(server.address).await.is_err());
}

/// The metrics layer cannot name these types; here both sides are in view.
#[test]
fn metric_labels_are_those_of_the_layers_that_count() {
    use crate::metrics::{PinCause, QueryReason};
    use crate::sql::facts::{Pins, WriteReason};
    assert_eq!(PinCause::ALL.map(PinCause::label), Pins::ALL.map(|(_, label)| label));
    for (bit, (pin, _)) in Pins::ALL.into_iter().enumerate() {
        assert_eq!(pin.0, 1 << bit);
    }
    let reasons = [
        WriteReason::Command,
        WriteReason::Utility,
        WriteReason::Nested,
        WriteReason::Lock,
        WriteReason::VolatileFunction,
        WriteReason::UnknownFunction,
        WriteReason::SuspectObject,
        WriteReason::SessionBound,
        WriteReason::SeveralStatements,
        WriteReason::Unparsed,
        WriteReason::UnsafeLexing,
        WriteReason::ServerFile,
    ];
    for reason in reasons {
        assert!(QueryReason::from_label(reason.label()).is_some(), "{}", reason.label());
    }
}
