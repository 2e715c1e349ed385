//! Tokens that end: revoked, expired, replaced, and what is open with them.

use std::time::Duration;

use http::{Request, StatusCode};
use portcullis::{administration::For, tokens::Scope};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{BOUND, bearer, builder, paths, refusal, service};
use crate::support::{
    Browser, PATIENCE, TestGateway, empty,
    postgres::{PostgresServer, new_database},
    soon, websocket, within,
};

/// What is open with a token: a socket, a stream of events, and a request whose body is still on its way.
async fn open_streams(
    browser: &Browser,
    token: &str,
) -> (websocket::Bytes, http::Response<hyper::body::Incoming>) {
    let authorization = format!("Bearer {token}");
    let mut socket = browser.try_tunnel("/live", &[("authorization", &authorization)]).await.unwrap();
    socket.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    within(PATIENCE, socket.read_exact(&mut echo)).await.unwrap();
    let request = Request::get("/events").header("authorization", &authorization);
    let events = browser.open(request.body(empty()).unwrap()).await;
    assert_eq!(events.status(), StatusCode::OK);
    (socket, events)
}

async fn have_ended((mut socket, events): (websocket::Bytes, http::Response<hyper::body::Incoming>)) {
    use http_body_util::BodyExt as _;
    let mut rest = Vec::new();
    let _ = within(PATIENCE, socket.read_to_end(&mut rest)).await;
    let mut events = events.into_body();
    while let Some(Ok(_)) = within(PATIENCE, events.frame()).await {}
}

async fn a_revocation_is_heard_of(here: &TestGateway, there: &TestGateway) {
    let browser = there.browser();
    let token = service(here, "t", Scope::default()).await;
    let kept = service(here, "kept", Scope::default()).await;
    let streams = [open_streams(&browser, &token).await, open_streams(&browser.copy().http2(), &token).await];
    let (mut others, _events) = open_streams(&browser, &kept).await;
    here.administration().revoke_token("t").await.unwrap();
    soon(BOUND, "the token is over", async || refusal(&bearer(&browser, "/", &token).await) == "revoked")
        .await;
    for streams in streams {
        have_ended(streams).await;
    }
    others.write_all(b"still").await.unwrap();
    let mut echo = [0; 5];
    within(PATIENCE, others.read_exact(&mut echo)).await.unwrap();
}

#[tokio::test]
async fn a_revoked_token_is_over_everywhere_with_all_that_it_has_open() {
    let (here, _) = builder().start().await;
    let (there, _) = here.twin().await;
    a_revocation_is_heard_of(&here, &there).await;
}

#[tokio::test]
async fn so_it_is_on_postgresql() {
    let server = PostgresServer::start(&[]);
    let (here, _) = builder().set("storage.database", &new_database(&server)).start().await;
    let (there, _) = here.twin().await;
    a_revocation_is_heard_of(&here, &there).await;
}

#[tokio::test]
async fn so_it_is_with_sessions_in_redis() {
    let (here, _) = builder().redis().start().await;
    let (there, _) = here.twin().await;
    a_revocation_is_heard_of(&here, &there).await;
    // Tokens are the database's: without Redis they go on.
    let token = service(&here, "on", Scope::default()).await;
    let browser = there.browser();
    assert_eq!(refusal(&bearer(&browser, "/", &token).await), "");
    here.redis.as_ref().unwrap().kill().await;
    assert_eq!(refusal(&bearer(&browser, "/", &token).await), "");
}

#[tokio::test]
async fn an_expired_token_ends_what_it_has_open() {
    let (gateway, browser) = builder().start().await;
    let end = portcullis::clock::Clock::now(&*gateway.clock).plus(Duration::from_mins(1));
    let made =
        gateway.administration().create_token("t", For::Service("ci"), Scope::default(), Some(end)).await;
    let token = made.unwrap().0;
    let streams = open_streams(&browser, &token).await;
    gateway.clock.advance(Duration::from_mins(1));
    have_ended(streams).await;
    assert_eq!(refusal(&bearer(&browser, "/", &token).await), "expired");
}

#[tokio::test]
async fn a_replaced_token_is_good_for_its_overlap_and_what_it_has_open_goes_on() {
    let (gateway, browser) = builder().start().await;
    let old = service(&gateway, "t", paths(&["/*"])).await;
    let (mut socket, events) = open_streams(&browser, &old).await;
    let overlap = Duration::from_mins(10);
    let (new, record) = gateway.administration().rotate_token("t", None, overlap).await.unwrap();
    assert_eq!(record.scope, paths(&["/*"]));
    for token in [&old, &new] {
        assert_eq!(refusal(&bearer(&browser, "/", token).await), "");
    }
    socket.write_all(b"still").await.unwrap();
    let mut echo = [0; 5];
    within(PATIENCE, socket.read_exact(&mut echo)).await.unwrap();
    gateway.clock.advance(overlap);
    have_ended((socket, events)).await;
    assert_eq!(refusal(&bearer(&browser, "/", &old).await), "expired");
    assert_eq!(refusal(&bearer(&browser, "/", &new).await), "");
    // At once, when nothing else is said; and revoking takes all of a name.
    let (newest, _) = gateway.administration().rotate_token("t", None, Duration::ZERO).await.unwrap();
    soon(BOUND, "it is over", async || refusal(&bearer(&browser, "/", &new).await) == "expired").await;
    let (last, _) = gateway.administration().rotate_token("t", None, overlap).await.unwrap();
    assert_eq!(gateway.administration().revoke_token("t").await.unwrap(), 2);
    for token in [&newest, &last] {
        soon(BOUND, "it is over", async || refusal(&bearer(&browser, "/", token).await) == "revoked").await;
    }
}
