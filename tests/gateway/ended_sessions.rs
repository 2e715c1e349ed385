//! What becomes of answers whose session ends while they are on their way, or still awaited. All the ways to end one, and
//! all else that it may have open, are in `every_ending`.

use std::time::{Duration, Instant};

use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use crate::support::{
    Browser, Exchange, PATIENCE, TestGateway, Upstream, empty, logged_in_over_both, upstream::ordinary,
    within,
};

/// What is promised from the moment at which the revocation begins.
const BOUND: Duration = Duration::from_secs(1);

/// A portal that keeps things open, and tells when the gateway hung up on it.
fn portal() -> (Upstream, mpsc::UnboundedReceiver<String>) {
    let (hung_up, heard) = mpsc::unbounded_channel();
    let portal = Upstream::scripted(async move |mut exchange: Exchange| {
        const START: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nstart\r\n";
        let target = exchange.target();
        match target.as_str() {
            "/quiet" => {
                exchange.write(START).await?;
                let _ = exchange.wire.fill().await;
            }
            "/busy" => {
                exchange.write(START).await?;
                let mut ticks = tokio::time::interval(Duration::from_millis(5));
                while exchange.write("4\r\nmore\r\n").await.is_some() {
                    ticks.tick().await;
                }
            }
            "/long-poll" => {
                let _ = exchange.wire.fill().await;
            }
            _ => return ordinary(exchange).await,
        }
        hung_up.send(target).unwrap();
        None
    });
    (portal, heard)
}

async fn revoke(gateway: &TestGateway) -> Instant {
    let begun = Instant::now();
    assert_eq!(gateway.administration().revoke_user("ada@example.com").await.unwrap(), 1);
    begun
}

fn get(path: &str) -> Request<crate::support::Body> {
    Request::get(path).body(empty()).unwrap()
}

/// Opens a stream, and waits for its first part.
async fn open(browser: &Browser, path: &str) -> Incoming {
    let mut body = browser.open(get(path)).await.into_body();
    let first = within(PATIENCE, body.frame()).await.unwrap().unwrap().into_data().unwrap();
    assert!(first.starts_with(b"start"));
    body
}

/// Waits for the end of a stream, which must be no proper one.
async fn is_cut(body: &mut Incoming) {
    let end = async {
        loop {
            match body.frame().await {
                Some(Ok(_)) => {}
                other => return other,
            }
        }
    };
    assert!(within(PATIENCE, end).await.is_some(), "the stream ended as if it were whole");
}

#[tokio::test]
async fn streams_are_cut_whether_they_carry_something_or_not() {
    let (portal, mut heard) = portal();
    let (gateway, browsers) = logged_in_over_both(TestGateway::builder().upstream(&portal)).await;
    let mut streams = Vec::new();
    for browser in &browsers {
        for path in ["/quiet", "/busy"] {
            streams.push(open(browser, path).await);
        }
    }
    let begun = revoke(&gateway).await;
    for stream in &mut streams {
        is_cut(stream).await;
    }
    assert!(begun.elapsed() < BOUND, "it took {:?}", begun.elapsed());
    for _ in &streams {
        within(PATIENCE, heard.recv()).await.expect("the portal is let go");
    }
}

#[tokio::test]
async fn an_answer_that_is_still_awaited_is_given_up() {
    let (portal, mut heard) = portal();
    let (gateway, [first, second]) = logged_in_over_both(TestGateway::builder().upstream(&portal)).await;
    let revoking = async {
        gateway.upstream.arrived(2).await;
        revoke(&gateway).await
    };
    let (one, two, begun) =
        tokio::join!(first.send(get("/long-poll")), second.send(get("/long-poll")), revoking);
    assert!(begun.elapsed() < BOUND, "it took {:?}", begun.elapsed());
    for answer in [one, two] {
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(answer.header("www-authenticate").starts_with("Portcullis "));
        answer.assert_secure();
        within(PATIENCE, heard.recv()).await.expect("the portal is let go");
    }
}

#[tokio::test]
async fn another_session_of_the_same_user_keeps_its_streams() {
    let (portal, _heard) = portal();
    let (gateway, [browser, _]) = logged_in_over_both(TestGateway::builder().upstream(&portal)).await;
    let other = gateway.browser();
    other.log_in("ada@example.com").await;
    let (mut ended, mut kept) = (open(&browser, "/busy").await, open(&other, "/busy").await);
    let account = browser.get("/.portcullis/account").await;
    browser.post_form("/.portcullis/logout", &[("csrf", &account.field("csrf"))]).await;
    is_cut(&mut ended).await;
    let mut more = 0;
    while more < 1000 {
        more += within(PATIENCE, kept.frame()).await.unwrap().unwrap().into_data().unwrap().len();
    }
}
