//! What an intermediary owes both sides by the RFCs, as far as no other topic covers it. Where each rule is tested is in
//! `docs/conformance.md`; that each test named there exists is checked here.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use http::Request;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::support::{
    Exchange, HOST, PATIENCE, TestGateway, Upstream, empty, soon, upstream::ordinary, within,
};

/// RFC 9112 §8: what is incomplete never looks complete, and its connection carries nothing else.
#[tokio::test]
async fn an_upload_of_http_2_that_is_reset_ends_its_connection_to_the_portal() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user("ada@example.com").await;
    browser.log_in("ada@example.com").await;
    browser.get("/").await;
    gateway.upstream.forget();
    let (sender, connection) = h2::client::handshake(browser.tls(&["h2"]).await).await.unwrap();
    let connection = tokio::spawn(connection);
    for length in [None, Some("1000")] {
        gateway.upstream.forget();
        let mut request = Request::post(format!("https://{HOST}/half"))
            .header("cookie", browser.cookies())
            .body(())
            .unwrap();
        if let Some(length) = length {
            request.headers_mut().insert("content-length", length.parse().unwrap());
        }
        let mut sender = sender.clone().ready().await.unwrap();
        let (_answer, mut upload) = sender.send_request(request, false).unwrap();
        upload.send_data(Bytes::from_static(b"GET /smuggled HTTP/1.1\r\n\r\n"), false).unwrap();
        let half = gateway.upstream.arrived(1).await;
        upload.send_reset(h2::Reason::CANCEL);
        let opened = gateway.upstream.connections();
        // The next one may come before the reset has been heard of, and then gets another connection all the same.
        assert_eq!(browser.get("/whole").await.status, 200);
        let seen = gateway.upstream.requests();
        let whole = seen.iter().find(|request| request.first_line().contains("/whole")).unwrap();
        assert_ne!(whole.connection, half[0].connection, "{length:?}, {opened} connections: {seen:?}");
        assert!(seen.iter().all(|request| request.content.body.is_empty()), "{seen:?}");
        assert_eq!(seen.len(), 2, "{seen:?}");
    }
    connection.abort();
}

/// RFC 8470: what is sent before the handshake has ended could be sent again by somebody else.
#[tokio::test]
async fn a_resumed_connection_carries_no_early_data() {
    let (gateway, _) = TestGateway::start().await;
    let surroundings = gateway.surroundings();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&surroundings.certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.enable_early_data = true;
    let (config, address) = (Arc::new(config), surroundings.address);
    let connect = move || {
        let mut client = ClientConnection::new(Arc::clone(&config), HOST.try_into().unwrap()).unwrap();
        // Offered at the second connection, if the ticket of the first allowed it.
        assert!(client.early_data().is_none());
        let mut socket = TcpStream::connect(address).unwrap();
        let mut stream = rustls::Stream::new(&mut client, &mut socket);
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 401");
        client.handshake_kind()
    };
    let both = tokio::task::spawn_blocking(move || [connect(), connect()]);
    let kinds = within(PATIENCE, both).await.unwrap();
    assert_eq!(kinds, [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]);
}

#[test]
fn every_test_that_is_named_for_a_rule_exists() {
    let page = include_str!("../../docs/conformance.md");
    let (_, section) = page.split_once("\n## What an intermediary owes\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway");
    let names: Vec<&str> = section.split('`').skip(1).step_by(2).filter(|name| name.contains("::")).collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        let (module, test) = name.rsplit_once("::").unwrap();
        let file = root.join(module.replace("::", "/")).with_extension("rs");
        let source = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(source.contains(&format!("fn {test}()")), "{name} does not exist");
    }
}

#[tokio::test]
async fn a_request_that_comes_back_is_a_508_and_one_of_another_gateway_is_not() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user("ada@example.com").await;
    browser.log_in("ada@example.com").await;
    let ours = gateway.upstream.requests().last().and_then(|request| request.value("forwarded")).unwrap();
    gateway.upstream.forget();
    let second = gateway.browser().http2();
    second.set_cookie("__Host-portcullis", &browser.session());
    for (mark, status) in [
        (ours.as_str(), 508),
        (&format!("for=192.0.2.1;by=someone, {ours}"), 508),
        ("for=192.0.2.1;by=_portcullis", 200),
        ("for=192.0.2.1;by=_portcullis-00000000, by=someone", 200),
    ] {
        for (browser, knows) in [(&browser, true), (&second, true), (&gateway.browser(), false)] {
            let request = Request::get("/").header("forwarded", mark).body(empty()).unwrap();
            let answer = browser.send(request).await;
            // Our cookie does not come back with a request that does.
            let expected = if knows || status == 508 { status } else { 401 };
            assert_eq!(answer.status.as_u16(), expected, "{mark}: {}", answer.text());
        }
    }
    assert_eq!(gateway.upstream.requests().len(), 4);
    // Another process of the same deployment knows the name too.
    let (_twin, at_twin) = gateway.twin().await;
    let request = Request::get("/").header("forwarded", &ours).body(empty()).unwrap();
    assert_eq!(at_twin.send(request).await.status.as_u16(), 508);
}

#[tokio::test]
async fn hops_of_options_are_counted() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user("ada@example.com").await;
    browser.log_in("ada@example.com").await;
    let ask = async |method: &str, hops: &str| {
        gateway.upstream.forget();
        let request = Request::builder().method(method).uri("/").header("max-forwards", hops);
        browser.send(request.body(empty()).unwrap()).await
    };
    for (method, hops, status, arrives) in [
        ("OPTIONS", "0", 204, None),
        ("OPTIONS", "1", 200, Some("0")),
        ("OPTIONS", "10", 200, Some("9")),
        ("OPTIONS", "-1", 400, None),
        ("OPTIONS", "many", 400, None),
        ("OPTIONS", "1, 2", 400, None),
        ("GET", "0", 200, Some("0")),
        ("GET", "many", 200, Some("many")),
        ("TRACE", "0", 405, None),
    ] {
        let answer = ask(method, hops).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {hops}");
        let seen = gateway.upstream.requests().first().and_then(|request| request.value("max-forwards"));
        assert_eq!(seen.as_deref(), arrives, "{method} {hops}");
        if status == 204 {
            assert!(answer.header("allow").contains("OPTIONS"));
            answer.assert_secure();
        }
    }
    // Without a session there is nothing to learn.
    let stranger = gateway.browser();
    let request = Request::options("/").header("max-forwards", "0").body(empty());
    assert_eq!(stranger.send(request.unwrap()).await.status.as_u16(), 401);
}

/// RFC 9113 §6.8: what is in progress ends well, and nothing new begins.
#[tokio::test]
async fn a_drain_says_goodbye_on_http_2() {
    let (release, held) = tokio::sync::mpsc::channel::<()>(1);
    let held = tokio::sync::Mutex::new(held);
    let portal = Upstream::scripted(async move |exchange: Exchange| {
        if exchange.target() == "/slow" {
            held.lock().await.recv().await;
        }
        ordinary(exchange).await
    });
    let builder = TestGateway::builder().upstream(&portal).set("server.timeouts.drain", "60s");
    let (gateway, browser) = builder.start().await;
    gateway.add_user("ada@example.com").await;
    browser.log_in("ada@example.com").await;
    gateway.upstream.forget();
    let (sender, connection) = h2::client::handshake(browser.tls(&["h2"]).await).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    let ask = |path: &str| {
        let uri = format!("https://{HOST}{path}");
        Request::get(uri).header("cookie", browser.cookies()).body(()).unwrap()
    };
    let (slow, _) = sender.send_request(ask("/slow"), true).unwrap();
    gateway.upstream.arrived(1).await;
    gateway.drain();
    // The goodbye has come when the client opens no more streams.
    soon(PATIENCE, "the gateway says goodbye", async || match sender.clone().ready().await {
        Ok(mut ready) => match ready.send_request(ask("/new"), true) {
            Ok((answer, _)) => answer.await.is_err_and(|error| error.is_go_away()),
            Err(error) => error.is_go_away(),
        },
        Err(error) => error.is_go_away(),
    })
    .await;
    release.send(()).await.unwrap();
    let answer = within(PATIENCE, slow).await.expect("what was in progress ends well");
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    let mut text = Vec::new();
    while let Some(data) = within(PATIENCE, body.data()).await {
        text.extend(data.unwrap());
    }
    assert_eq!(text, b"the portal: GET /slow\n");
    drop((body, sender));
    within(PATIENCE, connection).await.unwrap().unwrap();
    drop(browser);
    gateway.stop().await;
}
