//! The operator's own listener: `/live`, `/ready`, `/metrics`. Plain HTTP, on loopback unless configured otherwise;
//! nothing of it is on the public port.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    database::Database,
    sessions::Sessions,
    telemetry::metrics::{self, Metrics},
};

/// How long a store may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a scraper may take over its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What the answers are made from.
pub struct Admin {
    pub database: Database,
    pub sessions: Arc<Sessions>,
    pub metrics: Arc<Metrics>,
    /// Cancelled while the gateway stops: it is alive, and no longer ready.
    pub drain: CancellationToken,
}

/// What `/ready` says of each thing that serving depends on.
#[derive(Serialize)]
struct Readiness {
    ready: bool,
    database: &'static str,
    sessions: &'static str,
    draining: bool,
}

impl Admin {
    /// Serves until `stop`, which comes after the drain: whoever asks meanwhile has to hear of it.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let Ok((socket, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let admin = Arc::clone(&self);
            tasks.spawn(async move {
                let service = service_fn(move |request| {
                    let admin = Arc::clone(&admin);
                    async move { Ok::<_, Infallible>(admin.answer(&request).await) }
                });
                // A scraper that goes away is its own affair.
                let _ = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .serve_connection(TokioIo::new(socket), service)
                    .await;
            });
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer =
                text(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", "GET or HEAD\n");
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match request.uri().path() {
            "/live" => text(StatusCode::OK, "text/plain; charset=utf-8", "alive\n"),
            "/ready" => self.ready().await,
            "/metrics" => text(StatusCode::OK, metrics::CONTENT_TYPE, self.metrics.render()),
            _ => text(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "/live, /ready or /metrics\n"),
        }
    }

    async fn ready(&self) -> Response<Full<Bytes>> {
        let (database, sessions) = tokio::join!(
            tokio::time::timeout(PATIENCE, self.database.ping()),
            tokio::time::timeout(PATIENCE, self.sessions.ping()),
        );
        let word = |well: bool| if well { "ok" } else { "unavailable" };
        let (database, sessions) = (matches!(database, Ok(Ok(()))), matches!(sessions, Ok(Ok(()))));
        let draining = self.drain.is_cancelled();
        let ready = database && sessions && !draining;
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let facts = Readiness { ready, database: word(database), sessions: word(sessions), draining };
        text(status, "application/json", serde_json::to_vec(&facts).unwrap_or_default())
    }
}

fn text(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Binds the admin listener.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}
