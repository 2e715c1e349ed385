//! Northline Connect: a small IoT connectivity portal, the application that `portcullis demo` protects.
//!
//! It knows nothing of the gateway: it has no login, uses plain HTTP, and trusts any `Remote-User` that it receives.
//! Its state is in memory and is lost at a restart.

mod answer;
mod assets;
mod download;
mod echo;
mod live;
mod page;
mod sims;
mod upload;
mod visitor;

#[cfg(test)]
mod tests;

use std::{cmp::Reverse, convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::form_urlencoded;

use self::{
    answer::{DemoResponse, Error},
    page::DemoPages,
    sims::{Fleet, SimChange},
    visitor::{DemoVisitor, Theme},
};
use crate::errors::Chain;

/// For the head of a request, and between two requests on a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// From the signal to stop until open connections are closed.
const GRACE: Duration = Duration::from_secs(2);

/// Before the next attempt after a failed accept, for example for lack of file descriptors.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);

/// Maximum size of a form of text fields.
const LARGEST_FORM: usize = 64 << 10;

/// Maximum delay of `/slow`.
const SLOWEST_MILLIS: u64 = 120_000;

/// SIMs on the overview page.
const BUSIEST: usize = 5;

/// Serves the portal until `shutdown`; then ends the live streams, and closes what is still open after two seconds.
///
/// # Errors
///
/// If a template cannot be parsed.
///
/// | path | what |
/// |---|---|
/// | `/`, `/sims?q=`, `/sims/{iccid}` | overview, search, one SIM; POST `action` (`rename`, `activate`, `suspend`) and `name` |
/// | `/live`, `/ws/usage` | live usage over a WebSocket |
/// | `/events`, `/sse/usage` | live usage as server-sent events |
/// | `/upload`, `/download?bytes=` | counts and hashes a file of any size; sends one |
/// | `/api/sims?q=`, `/api/sims/{iccid}`, `/api/whoami` | JSON |
/// | `/preferences` | POST `theme`; kept in the portal's own cookie |
/// | `/echo`, `/slow?ms=` | the request's head as received; an answer that takes its time |
pub async fn serve(listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
    let portal = Arc::new(Portal {
        pages: DemoPages::parse().map_err(io::Error::other)?,
        fleet: Fleet::sample(),
        records: download::block(),
        tasks: TaskTracker::new(),
        shutdown,
    });
    loop {
        let accepted = tokio::select! {
            () = portal.shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                portal.tasks.spawn(serve_connection(Arc::clone(&portal), stream));
            }
            Err(error) => {
                tracing::warn!(%error, "the sample portal could not accept a connection");
                sleep(ACCEPT_BACK_OFF).await;
            }
        }
    }
    portal.tasks.close();
    portal.tasks.wait().await;
    Ok(())
}

async fn serve_connection(portal: Arc<Portal>, stream: TcpStream) {
    // Only costs latency if it fails.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let portal = Arc::clone(&portal);
        async move { Ok::<_, Infallible>(portal.answer(request).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = portal.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = portal.cut_off() => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %Chain(&error), "a connection to the sample portal failed");
    }
}

/// The running portal.
#[derive(Debug)]
struct Portal {
    pages: DemoPages,
    fleet: Fleet,
    /// The content of downloads.
    records: Bytes,
    /// Connections and WebSockets.
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Portal {
    /// Answers every request; an error gets its page.
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> DemoResponse {
        let mut visitor = DemoVisitor::of(request.headers());
        let wants_page = answer::wants_page(request.headers());
        let mut answer = match self.route(request, &mut visitor).await {
            Ok(answer) => answer,
            Err(error) => self.refuse(&error, &visitor, wants_page),
        };
        if let Some(cookie) = visitor.changed_cookie() {
            answer.headers_mut().insert(header::SET_COOKIE, cookie);
        }
        answer
    }

    async fn route(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        visitor: &mut DemoVisitor,
    ) -> Result<DemoResponse, Error> {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().map(str::to_owned);
        let wish = |name| field(query.as_deref().unwrap_or_default().as_bytes(), name);
        // hyper sends no body in a response to HEAD.
        let method = if request.method() == "HEAD" { "GET" } else { request.method().as_str() };
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match (method, segments.as_slice()) {
            ("GET", [""]) => self.overview(visitor),
            ("GET", ["sims"]) => self.search(visitor, wish("q")),
            ("GET", ["sims", iccid]) => {
                let sim = self.fleet.find(iccid).ok_or(Error::NotFound)?;
                Ok(answer::html(self.pages.sim(visitor, &sim)?))
            }
            ("POST", ["sims", iccid]) => self.change(iccid, request).await,
            ("GET", ["live"]) => Ok(answer::html(self.pages.live(visitor)?)),
            ("GET", ["ws", "usage"]) => live::web_socket(Arc::clone(self), &mut request),
            ("GET", ["events"]) => Ok(answer::html(self.pages.events(visitor)?)),
            ("GET", ["sse", "usage"]) => Ok(live::events(Arc::clone(self))),
            ("GET", ["upload"]) => Ok(answer::html(self.pages.files(visitor, None)?)),
            ("POST", ["upload"]) => self.upload(visitor, request).await,
            ("GET", ["download"]) => download::answer(wish("bytes").as_deref(), &self.records),
            ("GET", ["preferences"]) => Ok(answer::html(self.pages.preferences(visitor)?)),
            ("POST", ["preferences"]) => {
                let form = read_form(request).await?;
                visitor.preferences.theme = Theme::from_word(&field(&form, "theme").unwrap_or_default());
                Ok(answer::see_other("/preferences"))
            }
            ("GET", ["api", "sims"]) => answer::json(&self.fleet.search(&wish("q").unwrap_or_default())),
            ("GET", ["api", "sims", iccid]) => answer::json(&self.fleet.find(iccid).ok_or(Error::NotFound)?),
            ("GET", ["api", "whoami"]) => answer::json(&visitor.identity),
            (_, ["echo", ..]) => echo::answer(&request),
            ("GET", ["slow"]) => self.slow(wish("ms").as_deref()).await,
            ("GET", ["assets", name]) => assets::answer(name),
            (_, ["sims", _] | ["upload" | "preferences"]) => {
                Err(Error::WrongMethod { allowed: "GET, HEAD, POST" })
            }
            (
                _,
                ["" | "sims" | "live" | "events" | "download" | "slow"]
                | ["ws" | "sse" | "api" | "assets", _],
            ) => Err(Error::WrongMethod { allowed: "GET, HEAD" }),
            _ => Err(Error::NotFound),
        }
    }

    /// Completes when everything that is still open has to end.
    async fn cut_off(&self) {
        self.shutdown.cancelled().await;
        sleep(GRACE).await;
    }

    fn overview(&self, visitor: &DemoVisitor) -> Result<DemoResponse, Error> {
        let mut sims = self.fleet.search("");
        sims.sort_by_key(|sim| Reverse(sim.used));
        sims.truncate(BUSIEST);
        Ok(answer::html(self.pages.overview(visitor, &self.fleet.summary(), &sims)?))
    }

    fn search(&self, visitor: &mut DemoVisitor, query: Option<String>) -> Result<DemoResponse, Error> {
        if let Some(query) = query.as_deref().filter(|query| !query.trim().is_empty()) {
            visitor.preferences.remember_search(query);
        }
        let query = query.unwrap_or_default();
        Ok(answer::html(self.pages.sims(visitor, &query, &self.fleet.search(&query))?))
    }

    async fn change(&self, iccid: &str, request: Request<Incoming>) -> Result<DemoResponse, Error> {
        let form = read_form(request).await?;
        let action = field(&form, "action").unwrap_or_default();
        let name = field(&form, "name").unwrap_or_default();
        self.fleet.change(iccid, SimChange::from_form(&action, &name)?)?;
        Ok(answer::see_other(&format!("/sims/{iccid}")))
    }

    async fn upload(&self, visitor: &DemoVisitor, request: Request<Incoming>) -> Result<DemoResponse, Error> {
        let (head, body) = request.into_parts();
        let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let receipt = upload::receive(content_type, body).await?;
        if answer::wants_page(&head.headers) {
            Ok(answer::html(self.pages.files(visitor, Some(&receipt))?))
        } else {
            answer::json(&receipt)
        }
    }

    async fn slow(&self, millis: Option<&str>) -> Result<DemoResponse, Error> {
        let millis: u64 =
            millis.unwrap_or("1000").parse().map_err(|_| Error::Malformed("ms is a number."))?;
        let millis = millis.min(SLOWEST_MILLIS);
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = sleep(Duration::from_millis(millis)) => {}
        }
        answer::json(&serde_json::json!({ "waited_ms": millis }))
    }

    fn refuse(&self, error: &Error, visitor: &DemoVisitor, wants_page: bool) -> DemoResponse {
        if error.status().is_server_error() {
            tracing::error!(error = %Chain(error), "the sample portal failed");
        }
        let answer = if wants_page {
            self.pages.error(visitor, error).map(answer::html)
        } else {
            answer::json(&serde_json::json!({ "error": error.to_string() }))
        };
        let mut answer = answer.unwrap_or_else(|_| answer::text("text/plain", error.to_string()));
        *answer.status_mut() = error.status();
        if let Error::WrongMethod { allowed } = error {
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        answer
    }
}

/// Reads a form of text fields.
async fn read_form(request: Request<Incoming>) -> Result<Bytes, Error> {
    let body = Limited::new(request.into_body(), LARGEST_FORM);
    // If the connection breaks meanwhile, nobody reads this response.
    Ok(body.collect().await.map_err(|_| Error::TooLarge)?.to_bytes())
}

/// The first field of this name in a form or a query.
fn field(form: &[u8], name: &str) -> Option<String> {
    form_urlencoded::parse(form).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}
