//! Connections and their limits.

use super::endpoints;
use super::report::HealthSource;
use crate::metrics::{Counter, Registry, catalogue};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

/// Connections at once. A scraper and a few people need a handful.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// A request's line and headers together, in bytes.
pub(super) const HEADERS_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// For a request's headers to arrive, also for the next ones on a connection that is kept: an idle one closes.
pub(super) const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);
/// For a connection as a whole, so that one that does not read its answer gives its place back.
pub(super) const CONNECTION_LIFETIME: Duration = Duration::from_secs(120);
/// For the answer in progress when a connection has to end.
pub(super) const CLOSING_TIMEOUT: Duration = Duration::from_secs(2);
/// After an accept that failed for want of file descriptors: they do not come back at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 30\r\nConnection: close\r\nRetry-After: 1\r\n\r\ntoo many connections are open\n";

/// Serves until `shutdown` becomes true or its sender is gone; then lets the answers in progress end, for at most two seconds.
/// A drain should keep this running to its end, so that `/readyz` can say that it drains.
///
/// # Cancel safety
/// Dropping the future closes every connection at once.
pub async fn serve(
    listener: TcpListener,
    source: Arc<dyn HealthSource>,
    registry: Registry,
    mut shutdown: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let refused = registry.counter(&catalogue::HTTP_REFUSED, &[]);
    let site = Arc::new(Site { source, registry });
    let mut connections = JoinSet::new();
    let connection_shutdown = shutdown.clone();
    let mut stopping = pin!(shutdown.wait_for(|stop| *stop));
    loop {
        let accepted = tokio::select! {
            _ = &mut stopping => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "http connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => {
                connections.spawn(serve_connection(stream, place, Arc::clone(&site), connection_shutdown.clone()));
            }
            Err(_) => refuse(&stream, &refused),
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(CLOSING_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await;
}

/// What every connection needs.
struct Site {
    source: Arc<dyn HealthSource>,
    registry: Registry,
}

impl Site {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let response = endpoints::answer(request.method(), path, &*self.source, &self.registry);
        let status = response.status();
        let labels = &[endpoints::path_label(path), status.as_str()];
        self.registry.counter(&catalogue::HTTP_REQUESTS, labels).increment();
        response
    }
}

/// Says so if that takes no waiting, and closes.
fn refuse(stream: &TcpStream, refused: &Counter) {
    refused.increment();
    if let Err(error) = stream.try_write(BUSY) {
        tracing::debug!(%error, "http connection refused without an answer");
    }
}

async fn serve_connection(stream: TcpStream, _place: OwnedSemaphorePermit, site: Arc<Site>, mut shutdown: watch::Receiver<bool>) {
    let service = service_fn(|request| {
        let response = site.answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEADERS_BYTES_MAX)
        .max_buf_size(2 * HEADERS_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = shutdown.wait_for(|stop| *stop) => None,
        () = tokio::time::sleep(CONNECTION_LIFETIME) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(CLOSING_TIMEOUT, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        // Mostly bad bytes, and clients that leave: of interest to nobody but who looks for exactly that.
        tracing::debug!(%error, "http connection ended");
    }
}
