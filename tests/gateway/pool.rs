//! The connections to the portal: no more than the limits allow, a queue with an end and a deadline, and nobody who keeps the
//! others waiting for good.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::{Method, Request, StatusCode};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};

use crate::support::{
    Answer, Browser, Exchange, HOST, PATIENCE, TestGateway, Upstream, body, empty, logged_in, soon,
    test_gateway::Builder, two_logged_in, upstream::ordinary, websocket, wire::Wire, within,
};

/// A portal whose `/slow` waits until it is let go, once for each message.
fn slow() -> (Upstream, mpsc::UnboundedSender<()>) {
    let (release, held) = mpsc::unbounded_channel();
    let held = tokio::sync::Mutex::new(held);
    let portal = Upstream::scripted(async move |mut exchange: Exchange| match exchange.target().as_str() {
        "/slow" => {
            held.lock().await.recv().await;
            ordinary(exchange).await
        }
        "/events" => {
            exchange.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n").await?;
            exchange.wire.fill().await.ok()?;
            None
        }
        "/echo" => {
            websocket::echo(exchange).await;
            None
        }
        "/close" => {
            exchange.write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await?;
            None
        }
        _ => ordinary(exchange).await,
    });
    (portal, release)
}

fn limited(portal: &Upstream, connections: &str, waiting: &str) -> Builder {
    TestGateway::builder()
        .upstream(portal)
        .set("portal.max_connections", connections)
        .set("portal.max_waiting", waiting)
        // What is tried here are everybody's limits, by one user.
        .set("portal.max_connections_per_user", "1000")
}

async fn get(browser: &Browser, path: &str) -> Answer {
    browser.send(Request::get(path).body(empty()).unwrap()).await
}

#[track_caller]
fn assert_busy(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
    assert_eq!(answer.header("retry-after"), "5");
    answer.assert_secure();
}

#[tokio::test]
async fn beyond_the_limit_requests_wait_for_a_connection() {
    let (portal, release) = slow();
    let (gateway, browser) = logged_in(limited(&portal, "2", "100")).await;
    let before = portal.connections();
    let all = join_all((0..10).map(|_| get(&browser, "/slow")));
    let letting_go = async {
        gateway.upstream.arrived(2).await;
        for _ in 0..10 {
            release.send(()).unwrap();
        }
    };
    let (answers, ()) = tokio::join!(all, letting_go);
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
    assert!(portal.connections() - before <= 2, "{} connections", portal.connections() - before);
}

#[tokio::test]
async fn a_full_queue_and_a_long_wait_are_a_503() {
    let (portal, release) = slow();
    let builder = limited(&portal, "1", "1").set("portal.connect_timeout", "500ms");
    let (gateway, browser) = logged_in(builder).await;
    let first = get(&browser, "/slow");
    let others = async {
        gateway.upstream.arrived(1).await;
        let begun = Instant::now();
        let (one, two) = tokio::join!(get(&browser, "/"), get(&browser, "/"));
        for answer in [&one, &two] {
            assert_busy(answer);
        }
        assert!(begun.elapsed() >= Duration::from_millis(500), "one of them waited");
        assert!(begun.elapsed() < Duration::from_secs(2));
        release.send(()).unwrap();
    };
    let (first, ()) = tokio::join!(first, others);
    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(get(&browser, "/").await.status, StatusCode::OK);
    let metrics = gateway.admin("/metrics").await;
    let busy = metrics.lines().find(|line| line.contains("\"busy\"")).unwrap_or(&metrics);
    assert!(busy.ends_with(" 2"), "{busy}");
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_frees_its_place() {
    let (portal, release) = slow();
    let builder = limited(&portal, "1", "1").set("portal.connect_timeout", "60s");
    let (gateway, browser) = logged_in(builder).await;
    let first = get(&browser, "/slow");
    let others = async {
        gateway.upstream.arrived(1).await;
        for _ in 0..3 {
            let text = format!("GET /left HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\n\r\n", browser.cookies());
            let left = browser.raw(text).await;
            // It waits: the next one finds the queue full.
            soon(PATIENCE, "the queue is full", async || {
                let asked = tokio::time::timeout(Duration::from_millis(200), get(&browser, "/full")).await;
                asked.is_ok_and(|answer| answer.status == StatusCode::SERVICE_UNAVAILABLE)
            })
            .await;
            drop(left);
        }
        let last = get(&browser, "/last");
        tokio::pin!(last);
        // The gateway may still have to hear of the one that left.
        loop {
            match tokio::time::timeout(Duration::from_millis(500), last.as_mut()).await {
                Err(_) => break,
                Ok(answer) => assert_busy(&answer),
            }
            last.set(get(&browser, "/last"));
        }
        release.send(()).unwrap();
        assert_eq!(within(PATIENCE, last).await.status, StatusCode::OK);
    };
    let (first, ()) = tokio::join!(first, others);
    assert_eq!(first.status, StatusCode::OK);
    assert!(!gateway.upstream.requests().iter().any(|request| request.first_line().contains("/left")));
}

#[tokio::test]
async fn sockets_and_events_keep_no_request_waiting() {
    let (portal, _release) = slow();
    let builder = limited(&portal, "1", "1").set("portal.max_streams", "3");
    let (_gateway, browser) = logged_in(builder).await;
    let mut sockets = Vec::new();
    for _ in 0..2 {
        sockets.push(browser.tunnel("/echo").await);
    }
    let events = browser.open(Request::get("/events").body(empty()).unwrap()).await;
    assert_eq!(events.status(), StatusCode::OK);
    for _ in 0..5 {
        assert_eq!(get(&browser, "/").await.status, StatusCode::OK);
    }
    // Of their own kind there are no more.
    assert_busy(&browser.try_tunnel("/echo", &[]).await.err().expect("no tunnel"));
    assert_busy(&get(&browser, "/events").await);
    sockets.pop();
    soon(PATIENCE, "there is room again", async || browser.try_tunnel("/echo", &[]).await.is_ok()).await;
    drop(events);
    assert_eq!(get(&browser, "/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_connection_that_ends_gives_its_place_away() {
    let (portal, _release) = slow();
    let (_gateway, browser) = logged_in(limited(&portal, "1", "100")).await;
    for path in ["/close", "/", "/close", "/close", "/"] {
        let answers = join_all((0..5).map(|_| get(&browser, path))).await;
        assert!(answers.iter().all(|answer| answer.status == StatusCode::OK), "{path}: {answers:?}");
    }
}

/// A server that can be killed, with all its connections. It takes a little for each answer.
fn mortal() -> (String, tokio::task::AbortHandle) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let living = tokio::spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut wire = Wire::new(socket);
                while let Ok(Some(head)) = wire.read_head().await {
                    if wire.read_content(&head, false).await.is_err()
                        || wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.is_err()
                    {
                        return;
                    }
                }
            });
        }
    });
    (url, living.abort_handle())
}

#[tokio::test]
async fn one_server_of_three_that_dies_costs_next_to_nothing() {
    let servers = [mortal(), mortal(), mortal()];
    let builder = servers.iter().fold(TestGateway::builder(), |builder, (url, _)| builder.upstream_url(url));
    let (_gateway, browser) = logged_in(builder).await;
    let mut failures = 0;
    for round in 0..125 {
        if round == 25 {
            servers[1].1.abort();
        }
        let requests = (0..8).map(|number| {
            let method = if number % 2 == 0 { Method::GET } else { Method::POST };
            let sent = if number % 2 == 0 { empty() } else { body("x") };
            browser.send(Request::builder().method(method).uri("/").body(sent).unwrap())
        });
        failures += join_all(requests).await.iter().filter(|answer| answer.status != StatusCode::OK).count();
    }
    assert!(failures <= 10, "{failures} of 1000 failed");
}

/// Who used which connection: the user's name and the connection's number.
async fn used(gateway: &TestGateway, asks: &[(&Browser, Method)]) -> Vec<(String, usize, bool)> {
    gateway.upstream.forget();
    for (browser, method) in asks {
        let request = Request::builder().method(method).uri("/").body(empty()).unwrap();
        assert_eq!(browser.send(request).await.status, StatusCode::OK);
    }
    let seen = gateway.upstream.requests().into_iter();
    seen.map(|request| {
        let closes = request.value("connection").as_deref() == Some("close");
        (request.value("remote-user").unwrap(), request.connection, closes)
    })
    .collect()
}

async fn two_users(connections: &str) -> (TestGateway, Browser, Browser) {
    two_logged_in(TestGateway::builder().set("portal.connections", connections)).await
}

#[tokio::test]
async fn a_connection_can_be_kept_for_one_user() {
    let (gateway, ada, eve) = two_users("user").await;
    let asks = [
        (&ada, Method::GET),
        (&eve, Method::GET),
        (&ada, Method::POST),
        (&eve, Method::DELETE),
        (&ada, Method::GET),
    ];
    let used = used(&gateway, &asks).await;
    let connection = |at: usize| used[at].1;
    assert!(connection(0) == connection(2) && connection(2) == connection(4), "{used:?}");
    assert!(connection(1) == connection(3) && connection(0) != connection(1), "{used:?}");
    assert!(used.iter().all(|(_, _, closes)| !closes), "{used:?}");
}

#[tokio::test]
async fn what_is_kept_for_one_user_keeps_no_other_waiting() {
    let builder = TestGateway::builder()
        .set("portal.connections", "user")
        .set("portal.max_connections", "1")
        .set("portal.connect_timeout", "1s");
    let (gateway, ada) = logged_in(builder).await;
    gateway.add_user("eve@example.com").await;
    let eve = gateway.browser();
    eve.log_in("eve@example.com").await;
    for _ in 0..5 {
        let (one, two) = tokio::join!(get(&ada, "/"), get(&eve, "/"));
        assert_eq!((one.status, two.status), (StatusCode::OK, StatusCode::OK));
    }
}

#[tokio::test]
async fn a_connection_can_be_used_once_alone() {
    let (gateway, ada, eve) = two_users("once").await;
    let asks = [(&ada, Method::GET), (&ada, Method::POST), (&eve, Method::GET)];
    let used = used(&gateway, &asks).await;
    let mut connections: Vec<usize> = used.iter().map(|&(_, connection, _)| connection).collect();
    connections.dedup();
    assert_eq!(connections.len(), 3, "{used:?}");
    assert!(used.iter().all(|&(_, _, closes)| closes), "the portal is told: {used:?}");
}

/// It closes when the next request comes, and has not said so.
#[tokio::test]
async fn a_portal_that_closes_unannounced_costs_one_request_and_no_more() {
    let portal =
        Upstream::scripted(
            async |exchange: Exchange| {
                if exchange.seen_on_connection() > 1 { None } else { ordinary(exchange).await }
            },
        );
    let (_gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let mut lost = 0;
    for number in 0..20 {
        let method = if number % 3 == 0 { Method::GET } else { Method::POST };
        let request = Request::builder().method(&method).uri("/").body(empty()).unwrap();
        let status = browser.send(request).await.status;
        assert!(status == StatusCode::OK || method == Method::POST, "a GET is sent again");
        lost += usize::from(status != StatusCode::OK);
    }
    assert!(lost <= 1, "{lost} were lost");
}

#[tokio::test]
async fn a_connection_gets_no_older_than_the_operator_wants() {
    let builder = TestGateway::builder().set("portal.max_connection_age", "1s");
    let (gateway, browser) = logged_in(builder).await;
    let before = gateway.upstream.connections();
    soon(PATIENCE, "another connection is opened although one is in use all the time", async || {
        assert_eq!(get(&browser, "/").await.status, StatusCode::OK);
        gateway.upstream.connections() > before + 1
    })
    .await;
}
