//! Every way in which a session ends, against everything that it may have open: at this gateway and at another one, over
//! both protocols, all is over within a second.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, future::LocalBoxFuture, stream};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use crate::support::{
    ADA, Browser, Exchange, HOST, PATIENCE, TestGateway, Upstream,
    browser::RawConnection,
    empty, logged_in,
    process::{Outcome, run},
    soon,
    upstream::ordinary,
    websocket::{self, Socket},
    within,
};

/// What is promised from the moment at which the session is ended, or the command that ends it has done so.
const BOUND: Duration = Duration::from_secs(1);
/// Two streams, an upload and a socket over each protocol, at each of two gateways.
const OPEN: usize = 4 * 2 * 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    OurLogOut,
    PortalsLogOut,
    OthersEndedByTheUser,
    OneLoginTooMany,
    /// A command, with the session's id in place of `ID`.
    Command(&'static [&'static str]),
}

/// A portal that keeps things open. Tells when an upload has begun, and when the gateway hung up on anything.
fn portal(began: UnboundedSender<()>, hung_up: UnboundedSender<String>) -> Upstream {
    Upstream::scripted(async move |mut exchange: Exchange| {
        const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nstart\r\n";
        const DOWNLOAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nstart";
        let target = exchange.target();
        match target.as_str() {
            "/events" => {
                exchange.write(EVENTS).await?;
                let _ = exchange.wire.fill().await;
            }
            "/download" => {
                exchange.write(DOWNLOAD).await?;
                let mut ticks = tokio::time::interval(Duration::from_millis(5));
                while exchange.write("more").await.is_some() {
                    ticks.tick().await;
                }
            }
            "/upload" => {
                let _ = exchange.wire.read_chunk().await;
                began.send(()).unwrap();
                while let Ok(Some(_)) = exchange.wire.read_chunk().await {}
            }
            "/socket" => {
                websocket::echo(exchange).await;
            }
            "/log-out" => {
                exchange.read_content().await.ok()?;
                exchange.write("HTTP/1.1 302 Found\r\nLocation: /bye\r\nContent-Length: 0\r\n\r\n").await?;
                return Some(exchange);
            }
            _ => return ordinary(exchange).await,
        }
        let _ = hung_up.send(target);
        None
    })
}

/// All that a session has open at one gateway.
struct Open {
    browsers: [Browser; 2],
    keep_alive: RawConnection,
    streams: Vec<Incoming>,
    sockets: Vec<Socket>,
    uploads: Vec<JoinHandle<hyper::Result<Response<Incoming>>>>,
}

impl Open {
    async fn at(gateway: &TestGateway, session: &str, began: &mut UnboundedReceiver<()>) -> Self {
        let browsers = [gateway.browser(), gateway.browser().http2()];
        let (mut streams, mut sockets, mut uploads) = (Vec::new(), Vec::new(), Vec::new());
        for browser in &browsers {
            browser.set_cookie("__Host-portcullis", session);
            for path in ["/events", "/download"] {
                let mut body = browser.open(Request::get(path).body(empty()).unwrap()).await.into_body();
                let first = within(PATIENCE, body.frame()).await.unwrap().unwrap().into_data().unwrap();
                assert!(first.starts_with(b"start"), "{path}");
                streams.push(body);
            }
            let mut socket = browser.socket("/socket").await;
            socket.send(Message::text("hello")).await.unwrap();
            assert_eq!(within(PATIENCE, socket.next()).await.unwrap().unwrap(), Message::text("hello"));
            sockets.push(socket);
            let tab = browser.copy();
            uploads.push(tokio::spawn(async move { tab.try_open(upload()).await }));
            within(PATIENCE, began.recv()).await.unwrap();
        }
        let keep_alive = browsers[0].raw_connection().await;
        let mut open = Self { browsers, keep_alive, streams, sockets, uploads };
        assert_eq!(open.ask_again().await, StatusCode::OK);
        open
    }

    /// The next request on a connection that stays open.
    async fn ask_again(&mut self) -> StatusCode {
        let cookies = self.browsers[0].cookies();
        let request = format!("GET /api HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookies}\r\n\r\n");
        self.keep_alive.send(request).await;
        self.keep_alive.answer().await.status
    }

    async fn is_over(&mut self) {
        for stream in &mut self.streams {
            let end = async {
                loop {
                    match stream.frame().await {
                        Some(Ok(_)) => {}
                        end => return end,
                    }
                }
            };
            assert!(within(PATIENCE, end).await.is_some(), "a stream ended as if it were whole");
        }
        for socket in &mut self.sockets {
            let mut close = None;
            while let Some(Ok(message)) = within(PATIENCE, socket.next()).await {
                if let Message::Close(frame) = message {
                    close = frame;
                }
            }
            assert_eq!(close.expect("a close frame").code, CloseCode::Policy);
        }
        for upload in &mut self.uploads {
            // A client that is still writing may find its connection closed before it reads.
            let answer = within(PATIENCE, upload).await.unwrap();
            assert!(answer.map_or(true, |answer| answer.status() == StatusCode::UNAUTHORIZED));
        }
        soon(BOUND, "the next request is refused", async || {
            self.ask_again().await == StatusCode::UNAUTHORIZED
        })
        .await;
        for browser in &self.browsers {
            assert_eq!(browser.fetch("/api").await.status, StatusCode::UNAUTHORIZED);
        }
    }
}

/// A body that goes on for as long as it is taken.
fn upload() -> Request<crate::support::Body> {
    let drops = stream::unfold(tokio::time::interval(Duration::from_millis(5)), async |mut ticks| {
        ticks.tick().await;
        Some((Ok(Frame::data(Bytes::from_static(b"drop"))), ticks))
    });
    Request::post("/upload").body(StreamBody::new(drops).boxed_unsync()).unwrap()
}

async fn command(gateway: &TestGateway, arguments: &[&str]) -> Outcome {
    let file = gateway.folder().join("portcullis.toml");
    let outcome =
        run(&[arguments, &["--config", file.to_str().unwrap()]].concat(), "another battery staple\n").await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    outcome
}

/// Ends the session of this browser. Answers when.
async fn end(way: Way, gateway: &TestGateway, browser: &Browser) -> Instant {
    let another = async || {
        gateway.clock.advance(Duration::from_secs(30));
        let another = gateway.browser();
        another.log_in_to("/", ADA).await;
        another
    };
    match way {
        Way::OurLogOut => {
            let account = browser.get("/.portcullis/account").await;
            let begun = Instant::now();
            browser.post_form("/.portcullis/logout", &[("csrf", &account.field("csrf"))]).await;
            begun
        }
        Way::PortalsLogOut => {
            let begun = Instant::now();
            assert_eq!(browser.get("/log-out").await.location(), "/bye");
            begun
        }
        Way::OthersEndedByTheUser => {
            let another = another().await;
            let csrf = another.get("/.portcullis/account").await.field("csrf");
            let begun = Instant::now();
            another.post_form("/.portcullis/account", &[("csrf", &csrf), ("end", "others")]).await;
            begun
        }
        Way::OneLoginTooMany => {
            another().await;
            Instant::now()
        }
        Way::Command(words) => {
            let listed = command(gateway, &["session", "list", ADA, "--json"]).await.json();
            let id = listed[0]["id"].as_str().unwrap();
            let words: Vec<&str> = words.iter().map(|word| if *word == "ID" { id } else { word }).collect();
            command(gateway, &words).await;
            Instant::now()
        }
    }
}

fn ends_everything(way: Way) -> LocalBoxFuture<'static, ()> {
    Box::pin(async move {
        for redis in [false, true] {
            let ((tell_begun, mut uploads), (tell_over, mut over)) =
                (unbounded_channel(), unbounded_channel());
            let portal = portal(tell_begun, tell_over);
            let mut builder = TestGateway::builder().upstream(&portal).set("portal.logout_paths", "/log-out");
            if way == Way::OneLoginTooMany {
                builder = builder.set("sessions.max_per_user", "1");
            }
            let (gateway, browser) = logged_in(if redis { builder.redis() } else { builder }).await;
            let (twin, _) = gateway.twin().await;
            let session = browser.session();
            let mut here = Open::at(&gateway, &session, &mut uploads).await;
            let mut there = Open::at(&twin, &session, &mut uploads).await;
            assert!(over.is_empty(), "{way:?}: all of it is open");
            let begun = end(way, &gateway, &browser).await;
            tokio::join!(here.is_over(), there.is_over());
            assert!(begun.elapsed() < BOUND, "{way:?}, redis: {redis}: it took {:?}", begun.elapsed());
            for _ in 0..OPEN {
                within(PATIENCE, over.recv()).await.expect("the portal is let go");
            }
        }
    })
}

#[tokio::test]
async fn signing_out_ends_everything() {
    ends_everything(Way::OurLogOut).await;
}

#[tokio::test]
async fn logging_out_of_the_portal_ends_everything() {
    ends_everything(Way::PortalsLogOut).await;
}

#[tokio::test]
async fn a_user_who_ends_the_other_sessions_ends_everything_of_theirs() {
    ends_everything(Way::OthersEndedByTheUser).await;
}

#[tokio::test]
async fn one_login_too_many_ends_everything_of_the_oldest() {
    ends_everything(Way::OneLoginTooMany).await;
}

#[tokio::test]
async fn a_revoked_session_ends_with_everything() {
    ends_everything(Way::Command(&["session", "revoke", "ID"])).await;
}

#[tokio::test]
async fn revoking_all_sessions_of_a_user_ends_everything() {
    ends_everything(Way::Command(&["session", "revoke", "--user", ADA])).await;
}

#[tokio::test]
async fn revoking_all_sessions_ends_everything() {
    ends_everything(Way::Command(&["session", "revoke", "--all", "--yes"])).await;
}

#[tokio::test]
async fn disabling_a_user_ends_everything() {
    ends_everything(Way::Command(&["user", "disable", ADA])).await;
}

#[tokio::test]
async fn removing_a_user_ends_everything() {
    ends_everything(Way::Command(&["user", "remove", ADA, "--yes"])).await;
}

#[tokio::test]
async fn a_new_password_ends_everything() {
    ends_everything(Way::Command(&["user", "set-password", ADA, "--password-stdin"])).await;
}

#[tokio::test]
async fn removing_a_device_ends_everything() {
    ends_everything(Way::Command(&["device", "remove", ADA, "Phone", "--yes"])).await;
}
