//! The admin listener: `/live`, `/ready`, `/metrics`. Plain HTTP, on loopback unless configured otherwise; none of it
//! is on the public port.

mod enrolments;
mod logins;

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{enrolments::Enrolments, logins::Logins};

use crate::{
    agreement::Agreement,
    background::Losses,
    clock::Clock,
    credentials,
    database::Database,
    mail::Outbox,
    rollout::Stage,
    server::{Health, Hung, Load},
    sessions::Sessions,
    telemetry::metrics::{self, Metrics},
    tls::Certificates,
};

/// The longest that a store may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// A thread that hangs for this long will not recover; whoever watches `/live` should restart the gateway.
const HOPELESS: Duration = Duration::from_secs(30);
/// The longest that a scraper may take to send its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Mail that has waited for this long has not just been written.
const MAIL_BACKLOG: Duration = Duration::from_mins(5);

/// The sources of the responses.
pub struct Monitoring {
    pub database: Database,
    pub sessions: Arc<Sessions>,
    pub logins: Logins,
    pub enrolments: Enrolments,
    pub agreement: Arc<Agreement>,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub load: Arc<Load>,
    pub certificates: Arc<ArcSwap<Certificates>>,
    pub clock: Arc<dyn Clock>,
    pub lost: Losses,
    pub outbox: Outbox,
    /// Cancelled while the gateway stops: it is alive, but no longer ready.
    pub drain: CancellationToken,
}

/// The parts of `/ready`.
#[derive(Serialize)]
struct Readiness {
    ready: bool,
    database: &'static str,
    sessions: &'static str,
    /// Why nobody can log in, although the stores may answer.
    logins: String,
    /// Whether the machine's clock was set back: sessions go on, and no one-time code is accepted until it has caught
    /// up.
    clock: &'static str,
    /// How far the machine's clock differs from those of the stores. A gateway uses the database's time, and is ready.
    clocks: String,
    draining: bool,
    /// A gateway whose certificate browsers refuse is ready: other instances have the same.
    certificate: String,
    /// Threads that hang.
    hung: Vec<String>,
    /// Background work that has ended: the gateway is about to stop.
    lost: Vec<&'static str>,
    /// An overloaded gateway is ready: requests with a session are served, and other instances would be no better off.
    load: String,
    /// Whether mail gets out. A gateway whose mail waits is ready: other instances have the same server.
    mail: String,
}

impl Monitoring {
    /// Serves until `stop`, which comes after the drain: the drain must be visible here.
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
                // A scraper that disconnects is not an error.
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
            "/live" => live(&self.health.hung()),
            "/ready" => self.ready().await,
            "/metrics" => {
                let (database, sessions) = self.stores().await;
                let up = [("database", database), ("sessions", sessions)];
                self.metrics.stores(&up, self.sessions.on_grace());
                self.metrics.logins_up(self.logins.state().await == "ok");
                if let Some(counts) = self.enrolments.counts().await {
                    let stages = Stage::ALL.map(|stage| (stage.name(), counts.at(stage)));
                    self.metrics.rollout(&stages, counts.blocked);
                }
                if self.outbox.is_on()
                    && let Ok(Ok(backlog)) = tokio::time::timeout(PATIENCE, self.outbox.backlog()).await
                {
                    self.metrics.mail_waiting(backlog.waiting);
                }
                self.metrics.clock_behind(self.sessions.clock_behind());
                self.metrics.clocks(self.agreement.differences());
                self.metrics.threads_hung(self.health.hung().len());
                self.metrics.certificate_expiry(self.certificates.load().not_after().unix_seconds());
                self.metrics.load(self.load.level() as u8, self.load.memory(), self.load.max_memory());
                text(StatusCode::OK, metrics::CONTENT_TYPE, self.metrics.render())
            }
            _ => text(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "/live, /ready or /metrics\n"),
        }
    }

    /// Whether the database and the session store answer.
    async fn stores(&self) -> (bool, bool) {
        // A store that has just announced changes need not be asked, and the question need not queue behind waiters for
        // a lock.
        let database = async { self.sessions.hear_of_changes() || self.database.ping().await.is_ok() };
        let sessions = async { self.sessions.store_tells() || self.sessions.ping().await.is_ok() };
        let (database, sessions) =
            tokio::join!(tokio::time::timeout(PATIENCE, database), tokio::time::timeout(PATIENCE, sessions),);
        (database.unwrap_or(false), sessions.unwrap_or(false))
    }

    async fn ready(&self) -> Response<Full<Bytes>> {
        let ((database, sessions), logins) = tokio::join!(self.stores(), self.logins.state());
        let word = |well: bool| if well { "ok" } else { "unavailable" };
        let grace = !sessions && self.sessions.on_grace();
        let draining = self.drain.is_cancelled();
        readiness(Readiness {
            ready: database && (sessions || grace) && !draining,
            database: word(database),
            sessions: if grace { "grace" } else { word(sessions) },
            logins,
            clock: if self.sessions.clock_behind() > credentials::TOLERANCE { "set back" } else { "ok" },
            clocks: self.agreement.state(),
            draining,
            certificate: self.certificates.load().state(self.clock.now()),
            hung: self.health.hung().iter().map(ToString::to_string).collect(),
            lost: self.lost.names(),
            load: self.load.level().to_string(),
            mail: self.mail().await,
        })
    }

    /// `off`, `ok`, or what waits and why.
    async fn mail(&self) -> String {
        if !self.outbox.is_on() {
            return "off".to_owned();
        }
        let Ok(Ok(backlog)) = tokio::time::timeout(PATIENCE, self.outbox.backlog()).await else {
            return "unknown: the database did not answer".to_owned();
        };
        let waited = backlog.since.map_or(Duration::ZERO, |since| self.clock.now().since(since));
        if waited < MAIL_BACKLOG {
            return "ok".to_owned();
        }
        format!(
            "{} waiting, the oldest for {} min: {}",
            backlog.waiting,
            waited.as_secs() / 60,
            backlog.last_error.as_deref().unwrap_or("not tried yet")
        )
    }
}

/// A gateway with a hanging thread still serves some connections, but not all.
fn readiness(mut facts: Readiness) -> Response<Full<Bytes>> {
    facts.ready &= facts.hung.is_empty() && facts.lost.is_empty();
    let status = if facts.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    text(status, "application/json", serde_json::to_vec(&facts).unwrap_or_default())
}

fn live(hung: &[Hung]) -> Response<Full<Bytes>> {
    let hopeless = hung.iter().find(|hung| hung.silence >= HOPELESS);
    let (status, word) = match hopeless {
        Some(hung) => (StatusCode::SERVICE_UNAVAILABLE, format!("{hung}\n")),
        None => (StatusCode::OK, "alive\n".to_owned()),
    };
    text(status, "text/plain; charset=utf-8", word)
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

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn said(answer: Response<Full<Bytes>>) -> (u16, String) {
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_thread_that_hangs_makes_the_gateway_unready_and_in_the_end_not_alive() {
        let facts = |hung| Readiness {
            ready: true,
            database: "ok",
            sessions: "ok",
            logins: "ok".into(),
            clock: "ok",
            clocks: "ok".into(),
            draining: false,
            certificate: "ok".into(),
            hung,
            lost: vec![],
            load: "strained".into(),
            mail: "off".into(),
        };
        assert_eq!(said(readiness(facts(vec![]))).await.0, 200);
        let (status, text) = said(readiness(facts(vec!["worker-1 has not turned for 6 s".into()]))).await;
        assert_eq!(status, 503);
        assert!(text.contains("\"ready\":false") && text.contains("worker-1"), "{text}");

        let hung = |seconds| Hung { name: "worker-1".into(), silence: Duration::from_secs(seconds) };
        assert_eq!(said(live(&[])).await, (200, "alive\n".into()));
        assert_eq!(said(live(&[hung(29)])).await.0, 200);
        assert_eq!(
            said(live(&[hung(6), hung(31)])).await,
            (503, "worker-1 has not turned for 31 s\n".into())
        );
    }
}
