//! gRPC from end to end: real clients and portals of it with the gateway between them, and portals that misbehave.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{broadcast, mpsc},
};
use tokio_util::task::AbortOnDropHandle;

use crate::support::{
    Answer, Body, Browser, HOST, PATIENCE, TestGateway, Upstream, body, certificate, forged::frame,
    python::Python, soon, test_gateway::Builder, within,
};

/// A gateway, and the same user's browser over HTTP/2.
async fn over_http2(builder: Builder) -> (TestGateway, Browser) {
    let (gateway, browser) = builder.start().await;
    gateway.add_user("ada@example.com").await;
    let answer = browser.submit_password("ada@example.com", crate::support::PASSWORD).await;
    browser.enrol("ada@example.com", &answer.location()).await;
    let second = gateway.browser().http2();
    second.set_cookie("__Host-portcullis", &browser.session());
    (gateway, second)
}

fn client(gateway: &TestGateway, cookies: &str, case: &str) -> Python {
    let authority = gateway.folder().join("certificate.pem");
    let address = gateway.address().to_string();
    Python::start("grpc.py", &["call", &address, authority.to_str().unwrap(), HOST, cookies, case])
}

async fn portal() -> (Python, String) {
    let mut portal = Python::start("grpc.py", &["serve"]);
    let port = portal.line().await;
    (portal, format!("http://127.0.0.1:{port}"))
}

#[tokio::test]
async fn every_kind_of_call_passes() {
    let (_portal, url) = portal().await;
    let (gateway, browser) = over_http2(TestGateway::builder().upstream_url(&url)).await;
    assert_eq!(client(&gateway, &browser.cookies(), "everything").line().await, "done");
    let log = gateway.access_log();
    assert!(log.contains("/portal.Sims/Chat") && log.contains(&url), "{log}");
}

#[tokio::test]
async fn every_kind_of_call_passes_to_a_portal_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = certificate("localhost");
    let [chain_file, key_file] = ["chain.pem", "key.pem"].map(|name| folder.path().join(name));
    std::fs::write(&chain_file, chain).unwrap();
    std::fs::write(&key_file, key).unwrap();
    let mut portal =
        Python::start("grpc.py", &["serve", chain_file.to_str().unwrap(), key_file.to_str().unwrap()]);
    let url = format!("https://localhost:{}", portal.line().await);
    let builder = TestGateway::builder().upstream_url(&url).set("portal.ca", chain_file.to_str().unwrap());
    let (gateway, browser) = over_http2(builder).await;
    assert_eq!(client(&gateway, &browser.cookies(), "everything").line().await, "done");
}

#[tokio::test]
async fn without_a_session_a_call_is_unauthenticated() {
    let (_portal, url) = portal().await;
    let (gateway, _) = over_http2(TestGateway::builder().upstream_url(&url)).await;
    assert_eq!(client(&gateway, "other=1", "once").line().await, "UNAUTHENTICATED sign in first");
}

#[tokio::test]
async fn where_a_rule_opens_a_service_nobody_in_particular_calls_it() {
    let (_portal, url) = portal().await;
    let rules = r#"[{path = "/portal.Sims/*", level = "bypass"}]"#;
    let builder = TestGateway::builder().upstream_url(&url).set("access.rules", rules);
    let (gateway, _) = builder.start().await;
    assert_eq!(client(&gateway, "other=1", "nobody").line().await, "done");
    let closed = r#"[{path = "/portal.Sims/*", level = "deny"}]"#;
    let (gateway, _) = TestGateway::builder().upstream_url(&url).set("access.rules", closed).start().await;
    assert_eq!(client(&gateway, "other=1", "once").line().await, "PERMISSION_DENIED not allowed");
}

#[tokio::test]
async fn a_deadline_that_passes_and_a_call_given_up_reach_the_portal() {
    let (mut portal, url) = portal().await;
    let (gateway, browser) = over_http2(TestGateway::builder().upstream_url(&url)).await;
    assert_eq!(client(&gateway, &browser.cookies(), "deadline").line().await, "DEADLINE_EXCEEDED");
    assert_eq!(portal.line().await, "ended slow");
    let mut client = client(&gateway, &browser.cookies(), "cancel");
    assert_eq!(client.line().await, "cancelled");
    assert_eq!(portal.line().await, "ended endless");
}

#[tokio::test]
async fn an_ended_session_ends_its_calls_with_a_status() {
    let (mut portal, url) = portal().await;
    let (gateway, browser) = over_http2(TestGateway::builder().upstream_url(&url)).await;
    let mut client = client(&gateway, &browser.cookies(), "endless");
    assert_eq!(client.line().await, "open");
    let begun = Instant::now();
    gateway.administration().set_disabled("ada@example.com", true).await.unwrap();
    assert_eq!(client.line().await, "UNAUTHENTICATED the session has ended");
    assert_eq!(portal.line().await, "ended endless");
    assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_portal_that_is_down_or_speaks_no_http_2_is_unavailable() {
    let plain = Upstream::start();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in [format!("http://{nobody}"), plain.url()] {
        let (gateway, browser) = over_http2(TestGateway::builder().upstream_url(&url)).await;
        let said = client(&gateway, &browser.cookies(), "once").line().await;
        assert_eq!(said, "UNAVAILABLE the portal did not answer");
    }
    let tls = Upstream::encrypted("localhost");
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca.pem");
    std::fs::write(&authority, tls.certificate().unwrap()).unwrap();
    let url = format!("https://localhost:{}", tls.address().port());
    let builder = TestGateway::builder().upstream_url(&url).set("portal.ca", authority.to_str().unwrap());
    let (gateway, browser) = over_http2(builder).await;
    let said = client(&gateway, &browser.cookies(), "once").line().await;
    assert_eq!(said, "UNAVAILABLE the portal did not answer");
    assert!(tls.requests().is_empty());
    let calls = plain.requests().iter().filter(|request| request.first_line().contains("Sims")).count();
    assert_eq!(calls, 0, "nobody asks in HTTP/1.1 instead");
}

// --- Portals that no library makes.

type Call = (Request<h2::RecvStream>, h2::server::SendResponse<Bytes>);

/// A portal of HTTP/2 whose connections `serve` runs, each with its number.
fn by_hand<F>(serve: impl Fn(usize, TcpStream) -> F + Send + 'static) -> (AbortOnDropHandle<()>, String)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let listening = tokio::spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        for number in 0.. {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(number, socket));
        }
    });
    (AbortOnDropHandle::new(listening), url)
}

async fn speak(socket: TcpStream) -> h2::server::Connection<TcpStream, Bytes> {
    h2::server::Builder::new().max_concurrent_streams(2).handshake(socket).await.unwrap()
}

async fn answer_all(socket: TcpStream) {
    let mut connection = speak(socket).await;
    while let Some(Ok(call)) = connection.accept().await {
        tokio::spawn(answer(call));
    }
}

async fn answer(call: Call) {
    let (request, mut respond) = call;
    let mut incoming = request.into_body();
    let mut message = Vec::new();
    while let Some(Ok(data)) = incoming.data().await {
        let _ = incoming.flow_control().release_capacity(data.len());
        message.extend(data);
    }
    let trailers = incoming.trailers().await.ok().flatten().unwrap_or_default();
    let mut out = respond.send_response(Response::new(()), false).unwrap();
    out.send_data(message.into(), false).unwrap();
    let mut ending = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
    let names: Vec<&str> = trailers.keys().map(http::HeaderName::as_str).collect();
    ending.insert("x-saw", names.join(",").parse().unwrap());
    ending.insert("set-cookie", HeaderValue::from_static("forged=1"));
    out.send_trailers(ending).unwrap();
}

fn call(sent: Body) -> Request<Body> {
    Request::post("/portal.Sims/Get")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(sent)
        .unwrap()
}

fn status(answer: &Answer) -> String {
    let trailers = answer.trailers.as_ref().unwrap_or(&answer.headers);
    String::from_utf8_lossy(trailers["grpc-status"].as_bytes()).into_owned()
}

#[tokio::test]
async fn trailers_pass_both_ways_but_for_forged_ones() {
    let (_portal, url) = by_hand(|_, socket| answer_all(socket));
    let (_gateway, browser) = over_http2(TestGateway::builder().upstream_url(&url)).await;
    let trailers = HeaderMap::from_iter(
        [("x-checksum", "1"), ("remote-user", "eve"), ("cookie", "a=b"), ("remote-groups", "admins")]
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))),
    );
    let frames = [Ok(Frame::data(Bytes::from_static(b"hello"))), Ok(Frame::trailers(trailers))];
    let answer = browser.send(call(StreamBody::new(stream::iter(frames)).boxed_unsync())).await;
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "hello"));
    let trailers = answer.trailers.unwrap();
    assert_eq!(
        (&trailers["grpc-status"], &trailers["x-saw"]),
        (&"0".parse().unwrap(), &"x-checksum".parse().unwrap())
    );
    assert!(!trailers.contains_key("set-cookie"));
}

#[tokio::test]
async fn all_calls_share_a_connection_within_the_portal_s_limit() {
    let (opened, mut connections) = mpsc::unbounded_channel();
    let (_portal, url) = by_hand(move |number, socket| {
        opened.send(number).unwrap();
        answer_all(socket)
    });
    let (_gateway, browser) = over_http2(TestGateway::builder().upstream_url(&url)).await;
    let calls = (0..30).map(|number| browser.send(call(body(number.to_string()))));
    for (number, answer) in futures_util::future::join_all(calls).await.into_iter().enumerate() {
        assert_eq!(answer.text(), number.to_string());
    }
    assert_eq!(connections.recv().await, Some(0));
    assert!(connections.try_recv().is_err(), "one is enough");
}

#[tokio::test]
async fn a_call_asks_for_the_host_that_the_portal_knows() {
    let (saw, mut seen) = mpsc::unbounded_channel();
    let (_portal, url) = by_hand(move |_, socket| {
        let saw = saw.clone();
        async move {
            let mut connection = speak(socket).await;
            while let Some(Ok((request, respond))) = connection.accept().await {
                saw.send((request.uri().to_string(), request.headers().clone())).unwrap();
                tokio::spawn(answer((request, respond)));
            }
        }
    });
    for (host, authority) in
        [("public", HOST), ("upstream", &url["http://".len()..]), ("b.internal", "b.internal")]
    {
        for as_portal in [false, true] {
            let builder = TestGateway::builder().upstream_url(&url).set("portal.host", host);
            let builder = if as_portal { builder.set("portal.origin", "upstream") } else { builder };
            let (_gateway, browser) = over_http2(builder).await;
            let ours = format!("https://{HOST}");
            let portals = if as_portal { format!("http://{authority}") } else { ours.clone() };
            let evil = "https://evil.example".to_owned();
            // What was the portal's own name already is nobody's, so that nobody passes for it.
            let inside = format!("http://{authority}");
            let nobody = if as_portal { "null".to_owned() } else { inside.clone() };
            for (origin, becomes) in [(&ours, &portals), (&evil, &evil), (&inside, &nobody)] {
                let mut request = call(body("x"));
                let fields = request.headers_mut();
                fields.insert("origin", origin.parse().unwrap());
                fields.insert("referer", format!("{origin}/page?a=b").parse().unwrap());
                assert_eq!(browser.send(request).await.status, StatusCode::OK);
                let (uri, headers) = seen.recv().await.unwrap();
                assert_eq!(uri, format!("http://{authority}/portal.Sims/Get"));
                assert!(!headers.contains_key("host"));
                assert_eq!(headers["x-forwarded-host"], HOST);
                assert_eq!(headers.get_all("origin").iter().count(), 1);
                assert_eq!(headers["origin"], becomes.as_str(), "{host}");
                let referer = headers.get("referer").map(|value| value.to_str().unwrap().to_owned());
                let expected = (becomes != "null").then(|| format!("{becomes}/page?a=b"));
                assert_eq!(referer, expected, "{host}");
            }
        }
    }
}

#[tokio::test]
async fn a_call_that_was_refused_untouched_is_sent_once_more() {
    let (seen, mut calls) = mpsc::unbounded_channel();
    let (_portal, url) = by_hand(move |number, socket| {
        let seen = seen.clone();
        async move {
            let mut connection = speak(socket).await;
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                seen.send(number).unwrap();
                match number {
                    0 => respond.send_reset(h2::Reason::REFUSED_STREAM),
                    _ => drop(tokio::spawn(answer((request, respond)))),
                }
            }
        }
    });
    let (_gateway, browser) = over_http2(TestGateway::builder().upstream_url(&url)).await;
    for _ in 0..3 {
        let answer = browser.send(call(body("hello"))).await;
        assert_eq!((answer.text().as_str(), status(&answer).as_str()), ("hello", "0"));
    }
    let on: Vec<usize> = std::iter::from_fn(|| calls.try_recv().ok()).collect();
    assert_eq!(on, [0, 1, 1, 1]);
}

#[tokio::test]
async fn a_call_that_came_too_late_for_a_server_that_goes_away_is_sent_once_more() {
    let (_portal, url) = by_hand(async |number, mut socket| {
        if number > 0 {
            return answer_all(socket).await;
        }
        socket.write_all(&frame(4, 0, 0, &[])).await.unwrap();
        // The client's words, until its request has come.
        let mut preface = [0; 24];
        socket.read_exact(&mut preface).await.unwrap();
        let mut head = [0; 9];
        while head[3] != 1 {
            socket.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            socket.read_exact(&mut payload).await.unwrap();
        }
        // The last stream that was looked at is none, and there is no error.
        socket.write_all(&frame(7, 0, 0, &[0; 8])).await.unwrap();
        let _ = socket.read_to_end(&mut Vec::new()).await;
    });
    let (_gateway, browser) = over_http2(TestGateway::builder().upstream_url(&url)).await;
    let large = "x".repeat(60_000);
    let answer = browser.send(call(body(large.clone()))).await;
    assert_eq!((answer.text() == large, status(&answer).as_str()), (true, "0"));
}

#[tokio::test]
async fn a_call_that_may_have_been_seen_is_not_sent_again() {
    for reason in [h2::Reason::INTERNAL_ERROR, h2::Reason::CANCEL] {
        let (seen, mut calls) = mpsc::unbounded_channel();
        let (_portal, url) = by_hand(move |_, socket| {
            let seen = seen.clone();
            async move {
                let mut connection = speak(socket).await;
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    seen.send(()).unwrap();
                    respond.send_reset(reason);
                }
            }
        });
        let (_gateway, browser) = over_http2(TestGateway::builder().upstream_url(&url)).await;
        let answer = browser.send(call(body("hello"))).await;
        assert_eq!(status(&answer), "14");
        assert!(calls.try_recv().is_ok() && calls.try_recv().is_err());
    }
}

#[tokio::test]
async fn a_connection_that_died_is_replaced() {
    let (kill, _) = broadcast::channel(1);
    let killer = kill.clone();
    let (_portal, url) = by_hand(move |_, socket| {
        let mut end = killer.subscribe();
        async move {
            tokio::select! {
                () = answer_all(socket) => {}
                _ = end.recv() => {}
            }
        }
    });
    let (_gateway, browser) = over_http2(TestGateway::builder().upstream_url(&url)).await;
    for number in 0..3 {
        let mut answers = Vec::new();
        // The call that meets the death may fail; the one after it finds a new connection.
        soon(PATIENCE, "a call succeeds", async || {
            answers.push(browser.send(call(body("hello"))).await);
            answers.last().is_some_and(|answer| status(answer) == "0")
        })
        .await;
        assert!(answers.len() <= 2, "{number}: {answers:?}");
        kill.send(()).unwrap();
    }
}

#[tokio::test]
async fn a_deadline_is_kept_for_a_client_that_does_not_keep_it_itself() {
    let (_portal, url) = by_hand(async |_, socket| {
        let mut connection = speak(socket).await;
        let mut held = Vec::new();
        while let Some(Ok(call)) = connection.accept().await {
            held.push(call);
        }
    });
    let (_gateway, browser) = over_http2(TestGateway::builder().upstream_url(&url)).await;
    let mut request = call(body("hello"));
    request.headers_mut().insert("grpc-timeout", HeaderValue::from_static("300m"));
    let begun = Instant::now();
    let answer = within(PATIENCE, browser.send(request)).await;
    assert_eq!((answer.status, status(&answer).as_str()), (StatusCode::OK, "4"));
    assert!(begun.elapsed() >= Duration::from_millis(300));
}
