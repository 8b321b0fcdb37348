//! From a request to its answer: no I/O.

use super::page;
use super::report::{HealthSource, Readiness};
use crate::metrics::Registry;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Response, StatusCode};
use serde_json::json;

/// What is served. The first field is the path, the second says what it is to somebody who asked for another one.
const PATHS: [(&str, Endpoint, &str); 7] = [
    ("/", Endpoint::Page, "the status page"),
    ("/metrics", Endpoint::Metrics, "metrics for Prometheus"),
    ("/livez", Endpoint::Live, "200 while the process answers"),
    ("/readyz", Endpoint::Ready, "200 while clients can be served"),
    ("/startupz", Endpoint::Started, "200 once the start is done"),
    ("/health", Endpoint::Health, "every component with its latency"),
    ("/status.json", Endpoint::Status, "what the status page shows"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Page,
    Metrics,
    Live,
    Ready,
    Started,
    Health,
    Status,
}

/// The content types that are served.
#[derive(Clone, Copy)]
enum BodyType {
    Html,
    Json,
    Metrics,
    Text,
}

impl BodyType {
    const fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            BodyType::Html => "text/html; charset=utf-8",
            BodyType::Json => "application/json",
            BodyType::Metrics => "text/plain; version=0.0.4; charset=utf-8",
            BodyType::Text => "text/plain; charset=utf-8",
        })
    }
}

/// The path as a metric label: one of those that are served, else `other`.
pub(super) fn path_label(path: &str) -> &'static str {
    PATHS.iter().find(|(known, ..)| *known == path).map_or("other", |(known, ..)| known)
}

/// The answer to `method` on `path`. The body is there for HEAD too: hyper leaves it out and keeps its length.
pub(super) fn answer(method: &Method, path: &str, source: &dyn HealthSource, registry: &Registry) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, BodyType::Text, "only GET and HEAD are served here\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match PATHS.iter().find(|(known, ..)| *known == path) {
        Some((_, endpoint, _)) => serve_endpoint(*endpoint, source, registry),
        None => response(StatusCode::NOT_FOUND, BodyType::Text, not_found_text()),
    }
}

fn serve_endpoint(endpoint: Endpoint, source: &dyn HealthSource, registry: &Registry) -> Response<Full<Bytes>> {
    match endpoint {
        Endpoint::Page => {
            let mut page = response(StatusCode::OK, BodyType::Html, page::HTML);
            page.headers_mut().insert(CONTENT_SECURITY_POLICY, page::content_security_policy());
            page
        }
        Endpoint::Metrics => response(StatusCode::OK, BodyType::Metrics, registry.render()),
        Endpoint::Live => json_response(StatusCode::OK, &json!({"alive": true})),
        Endpoint::Ready => match source.readiness() {
            Readiness::Ready => json_response(StatusCode::OK, &json!({"ready": true})),
            Readiness::NotReady { reasons } => {
                json_response(StatusCode::SERVICE_UNAVAILABLE, &json!({"ready": false, "reasons": reasons}))
            }
        },
        Endpoint::Started => {
            let started = source.started();
            json_response(status_if(started), &json!({"started": started}))
        }
        Endpoint::Health => health(source),
        Endpoint::Status => json_response(StatusCode::OK, &source.status()),
    }
}

/// A replica that is down degrades pgyard; only what keeps clients from being served makes it fail.
fn health(source: &dyn HealthSource) -> Response<Full<Bytes>> {
    let components = source.components();
    let (ready, reasons) = match source.readiness() {
        Readiness::Ready => (true, Vec::new()),
        Readiness::NotReady { reasons } => (false, reasons),
    };
    let status = match (ready, components.iter().all(|component| component.healthy)) {
        (true, true) => "ok",
        (true, false) => "degraded",
        (false, _) => "failed",
    };
    json_response(status_if(ready), &json!({"status": status, "reasons": reasons, "components": components}))
}

fn status_if(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn not_found_text() -> String {
    let list = PATHS.iter().map(|(path, _, meaning)| format!("{path:<14}{meaning}\n"));
    format!("there is no such path; there are\n{}", list.collect::<String>())
}

fn json_response(status: StatusCode, value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(mut json) => {
            json.push(b'\n');
            response(status, BodyType::Json, json)
        }
        Err(error) => {
            tracing::error!(%error, "status could not be written as JSON");
            response(StatusCode::INTERNAL_SERVER_ERROR, BodyType::Text, "the answer could not be written as JSON\n")
        }
    }
}

fn response(status: StatusCode, body_type: BodyType, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, body_type.header());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
