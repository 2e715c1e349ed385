//! WebSockets as their two ends see them, over HTTP/1.1 and over HTTP/2 alike: every frame passes untouched, and each end
//! learns of the other's.

use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use http::{Request, StatusCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{
        CloseFrame,
        frame::{
            Frame,
            coding::{CloseCode, Data, OpCode},
        },
    },
};

use crate::support::{
    Browser, Exchange, HOST, PATIENCE, TestGateway, Upstream, empty,
    forged::Forgery,
    logged_in_over_both,
    upstream::ordinary,
    websocket::{self, Bytes, Socket},
    within,
};

/// A portal that echoes at `/echo`, answers ordinarily at `/`, and elsewhere does as `script` says.
fn portal(script: impl AsyncFn(Exchange) -> Option<Exchange> + Send + 'static) -> Upstream {
    Upstream::scripted(async move |exchange: Exchange| match exchange.target().as_str() {
        "/" => ordinary(exchange).await,
        "/echo" => {
            websocket::echo(exchange).await;
            None
        }
        _ => script(exchange).await,
    })
}

async fn before(portal: &Upstream) -> (TestGateway, [Browser; 2]) {
    logged_in_over_both(TestGateway::builder().upstream(portal)).await
}

async fn next(socket: &mut Socket) -> Message {
    within(PATIENCE, socket.next()).await.expect("the socket is open").expect("it carries")
}

/// The close frame that ends the socket; `None` when there is none.
async fn ending(socket: &mut Socket) -> Option<CloseFrame> {
    let mut close = None;
    while let Some(Ok(message)) = within(PATIENCE, socket.next()).await {
        if let Message::Close(frame) = message {
            close = frame;
        }
    }
    close
}

async fn rest(bytes: &mut Bytes) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = within(PATIENCE, bytes.read_to_end(&mut rest)).await;
    rest
}

#[tokio::test]
async fn messages_of_every_kind_pass_both_ways() {
    let (_gateway, browsers) = before(&portal(ordinary)).await;
    for browser in &browsers {
        let mut socket = browser.socket("/echo").await;
        let large = Message::binary(vec![7; 1 << 20]);
        for message in [Message::text("hello"), Message::binary(vec![0, 255, 10]), large] {
            socket.send(message.clone()).await.unwrap();
            assert!(next(&mut socket).await == message);
        }
        socket.send(Message::Ping("beat".into())).await.unwrap();
        assert_eq!(next(&mut socket).await, Message::Pong("beat".into()));
        // One message in three fragments, and a ping between them.
        for (text, code, last) in
            [("one ", Data::Text, false), ("two ", Data::Continue, false), ("three", Data::Continue, true)]
        {
            socket.send(Message::Frame(Frame::message(text, OpCode::Data(code), last))).await.unwrap();
            if !last {
                socket.send(Message::Ping(text.into())).await.unwrap();
                assert_eq!(next(&mut socket).await, Message::Pong(text.into()));
            }
        }
        assert_eq!(next(&mut socket).await, Message::text("one two three"));
        socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "done".into() })).await.unwrap();
        assert_eq!(ending(&mut socket).await.map(|close| close.code), Some(CloseCode::Normal));
    }
}

#[tokio::test]
async fn many_sockets_share_a_connection_of_http_2_with_requests() {
    let (_gateway, [_, browser]) = before(&portal(ordinary)).await;
    let mut sockets = Vec::new();
    for _ in 0..10 {
        sockets.push(browser.socket("/echo").await);
    }
    for (number, socket) in sockets.iter_mut().enumerate() {
        socket.send(Message::text(number.to_string())).await.unwrap();
    }
    for (number, socket) in sockets.iter_mut().enumerate() {
        assert_eq!(next(socket).await, Message::text(number.to_string()));
        assert_eq!(browser.fetch("/").await.status, StatusCode::OK);
    }
}

/// What the portal is told by a handshake of ours.
#[tokio::test]
async fn a_socket_of_http_2_is_a_handshake_of_http_1_1_for_the_portal() {
    let portal = portal(async |exchange: Exchange| {
        let fields = "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
                      Set-Cookie: theirs=1\r\nAlt-Svc: h3=\":443\"\r\n";
        websocket::accept(exchange, fields).await;
        None
    });
    let (gateway, [_, browser]) = before(&portal).await;
    browser.fetch("/.portcullis/whoami").await;
    let fields = [
        ("sec-websocket-protocol", "chat, superchat"),
        ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
        ("remote-user", "eve"),
        ("sec-websocket-key", "theirs"),
    ];
    let answer = browser.open(websocket::connect("/chat?room=1", &fields)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
    assert_eq!(answer.headers()["sec-websocket-extensions"], "permessage-deflate");
    assert!(!answer.headers().contains_key("alt-svc"));
    let head = gateway.upstream.only_request();
    assert_eq!(head.first_line(), "GET /chat?room=1 HTTP/1.1");
    let key = head.value("sec-websocket-key").unwrap();
    assert!(key.len() == 24 && key.ends_with("=="), "{key}");
    for (name, value) in [
        ("host", Some(HOST)),
        ("connection", Some("upgrade")),
        ("upgrade", Some("websocket")),
        ("sec-websocket-version", Some("13")),
        ("sec-websocket-protocol", Some("chat, superchat")),
        ("sec-websocket-extensions", Some("permessage-deflate; client_max_window_bits")),
        ("origin", Some("https://iot.example.com")),
        ("remote-user", Some("ada@example.com")),
        ("cookie", None),
        ("transfer-encoding", None),
        ("content-length", None),
    ] {
        assert_eq!(head.value(name).as_deref(), value, "{name}");
    }
}

#[tokio::test]
async fn without_a_session_or_from_another_site_there_is_no_socket_on_http_2() {
    let (gateway, [_, browser]) = before(&portal(ordinary)).await;
    for cookies in ["", "__Host-portcullis=x", "other=1"] {
        // As gRPC it would be told with a success, which is the word for a tunnel here.
        for kind in ["application/grpc", "text/html"] {
            let fields = [("cookie", cookies), ("content-type", kind)];
            let answer = browser.try_tunnel("/echo", &fields).await.err().expect("no tunnel");
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
            answer.assert_secure();
        }
    }
    for origin in ["", "null", "https://evil.example.com", "http://iot.example.com"] {
        let answer = browser.try_tunnel("/echo", &[("origin", origin)]).await.err().expect("no tunnel");
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{origin:?}");
        answer.assert_secure();
    }
    for path in ["/.portcullis/login", "/.portcullis/account", "/.well-known/portcullis/x"] {
        let answer = browser.try_tunnel(path, &[]).await.err().expect("no tunnel");
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    assert_eq!(gateway.upstream.bytes(), 0);
    assert_eq!(browser.fetch("/").await.status, StatusCode::OK, "the connection goes on");
}

#[tokio::test]
async fn a_connect_that_is_no_socket_is_refused() {
    let (gateway, [_, browser]) = before(&portal(ordinary)).await;
    let cookies = browser.cookies();
    let forgery = |protocol: &str, changes: &[(&str, &str)]| {
        let mut fields = vec![
            (":method", "CONNECT"),
            (":protocol", protocol),
            (":scheme", "https"),
            (":authority", HOST),
            (":path", "/echo"),
            ("cookie", &cookies),
            ("origin", "https://iot.example.com"),
            ("sec-websocket-version", "13"),
        ];
        for (name, value) in &mut fields {
            if let Some((_, changed)) = changes.iter().find(|(changed, _)| changed == name) {
                *value = changed;
            }
        }
        fields.retain(|(_, value)| *value != "-");
        Forgery::of(&fields)
    };
    for (forgery, status) in [
        (forgery("connect-udp", &[]), Some(501)),
        (forgery("webtransport", &[]), Some(501)),
        (forgery("", &[]), Some(501)),
        (forgery("websocket", &[("sec-websocket-version", "8")]), Some(400)),
        (forgery("websocket", &[("sec-websocket-version", "-")]), Some(400)),
        (forgery("websocket", &[(":scheme", "http")]), Some(400)),
        (forgery("websocket", &[(":authority", "evil.example.com")]), Some(421)),
        (forgery("websocket", &[(":path", "/a/../echo")]), Some(400)),
        (forgery("websocket", &[(":path", "*")]), Some(400)),
        (forgery("websocket", &[(":path", "-")]), None),
        (forgery("websocket", &[(":scheme", "-")]), None),
        (forgery("websocket", &[(":method", "GET")]), None),
        (forgery("-", &[(":scheme", "-"), (":path", "-")]), Some(405)),
    ] {
        let answer = browser.forge(&forgery).await;
        assert_eq!(
            answer.as_ref().ok().map(|answer| answer.status.as_u16()),
            status,
            "{forgery:?}: {answer:?}"
        );
        if let Ok(answer) = answer {
            answer.assert_secure();
        }
    }
    assert_eq!(gateway.upstream.bytes(), 0, "{:?}", gateway.upstream.requests());
}

#[tokio::test]
async fn a_portal_that_does_not_switch_is_quoted_or_a_502_on_http_2() {
    let portal = portal(async |mut exchange: Exchange| {
        let answer = match exchange.target().as_str() {
            "/refused" => "HTTP/1.1 426 Upgrade Required\r\nUpgrade: other\r\nContent-Length: 3\r\n\r\nno\n",
            "/elsewhere" => "HTTP/1.1 302 Found\r\nLocation: /sign-in\r\nContent-Length: 0\r\n\r\n",
            "/ignored" => "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n",
            "/wrong-key" => {
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
            }
            "/no-key" => {
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            }
            _ => "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\nraw bytes",
        };
        exchange.write(answer).await?;
        None
    });
    let (_gateway, [_, browser]) = before(&portal).await;
    for (path, status, text) in [
        ("/refused", 426, "no\n"),
        ("/elsewhere", 302, ""),
        ("/ignored", 502, ""),
        ("/wrong-key", 502, ""),
        ("/no-key", 502, ""),
        ("/other", 502, ""),
    ] {
        let answer = browser.try_tunnel(path, &[]).await.err().expect("no tunnel");
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert!(status == 502 || answer.text() == text);
        assert!(!answer.text().contains("raw bytes"));
    }
}

#[tokio::test]
async fn codes_of_closing_pass_both_ways() {
    let (report, mut codes) = mpsc::unbounded_channel();
    let portal = portal(async move |exchange: Exchange| {
        let speaks = exchange.target() == "/leave";
        let mut socket = websocket::accept_socket(exchange).await?;
        if speaks {
            let close = CloseFrame { code: CloseCode::Library(4001), reason: "enough".into() };
            socket.close(Some(close)).await.ok()?;
        }
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Close(Some(close)) = message {
                report.send((u16::from(close.code), close.reason.to_string())).unwrap();
            }
        }
        None
    });
    let (_gateway, browsers) = before(&portal).await;
    for browser in &browsers {
        let mut socket = browser.socket("/stay").await;
        let close = CloseFrame { code: CloseCode::Library(3000), reason: "bye".into() };
        socket.close(Some(close)).await.unwrap();
        assert_eq!(within(PATIENCE, codes.recv()).await.unwrap(), (3000, "bye".to_owned()));
        ending(&mut socket).await;

        let mut socket = browser.socket("/leave").await;
        let close = ending(&mut socket).await.unwrap();
        assert_eq!((u16::from(close.code), close.reason.as_str()), (4001, "enough"));
        assert_eq!(within(PATIENCE, codes.recv()).await.unwrap().0, 4001, "the client's answer to it");
    }
}

/// A compressed message (RFC 7692), whose reserved bit only the two ends know how to read.
#[tokio::test]
async fn what_an_extension_makes_of_frames_passes_untouched() {
    let portal = portal(async |exchange: Exchange| {
        let mut bytes =
            websocket::accept(exchange, "Sec-WebSocket-Extensions: permessage-deflate\r\n").await?;
        let mut frame = [0; 13];
        bytes.read_exact(&mut frame).await.ok()?;
        bytes.write_all(&frame).await.ok()?;
        bytes.flush().await.ok()?;
        None
    });
    let (gateway, browsers) = before(&portal).await;
    for browser in &browsers {
        gateway.upstream.forget();
        let offer = [("sec-websocket-extensions", "permessage-deflate")];
        let mut bytes = browser.try_tunnel("/deflate", &offer).await.expect("a tunnel");
        let offered = gateway.upstream.only_request().value("sec-websocket-extensions");
        assert_eq!(offered.as_deref(), Some("permessage-deflate"));
        let frame = b"\xc1\x87\x01\x02\x03\x04\xf2\x48\xcd\xc9\xc9\x07\x00";
        bytes.write_all(frame).await.unwrap();
        bytes.flush().await.unwrap();
        assert_eq!(rest(&mut bytes).await, frame);
    }
}

#[tokio::test]
async fn a_client_that_has_finished_still_hears_the_portal() {
    let portal = portal(async |exchange: Exchange| {
        let mut bytes = websocket::accept(exchange, "").await?;
        let mut heard = Vec::new();
        bytes.read_to_end(&mut heard).await.ok()?;
        bytes.write_all(format!("heard {}", heard.len()).as_bytes()).await.ok()?;
        bytes.flush().await.ok()?;
        None
    });
    let (_gateway, browsers) = before(&portal).await;
    for browser in &browsers {
        let mut bytes = browser.tunnel("/listen").await;
        bytes.write_all(&vec![1; 300_000]).await.unwrap();
        bytes.shutdown().await.unwrap();
        assert_eq!(rest(&mut bytes).await, b"heard 300000");
    }
}

/// A portal that says nothing, and tells when it hears the end of a socket.
fn patient() -> (Upstream, mpsc::UnboundedReceiver<()>) {
    let (hung_up, ends) = mpsc::unbounded_channel();
    let portal = portal(async move |exchange: Exchange| {
        let mut bytes = websocket::accept(exchange, "").await?;
        let mut rest = Vec::new();
        let _ = bytes.read_to_end(&mut rest).await;
        // It does not hang up by itself.
        hung_up.send(()).unwrap();
        while bytes.write_all(b"\x89\x00").await.is_ok() && bytes.flush().await.is_ok() {
            tokio::task::yield_now().await;
        }
        hung_up.send(()).unwrap();
        None
    });
    (portal, ends)
}

#[tokio::test]
async fn a_client_that_vanishes_lets_the_portal_go() {
    let (portal, mut ends) = patient();
    let (_gateway, browsers) = before(&portal).await;
    for browser in browsers {
        let bytes = browser.tunnel("/patient").await;
        drop(bytes);
        drop(browser);
        for _ in 0..2 {
            within(PATIENCE, ends.recv()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_reset_ends_its_tunnel_and_no_other() {
    let (portal, mut ends) = patient();
    let (_gateway, [_, browser]) = before(&portal).await;
    let mut other = browser.socket("/echo").await;
    let (sender, connection) = h2::client::handshake(browser.tls(&["h2"]).await).await.unwrap();
    tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    let ask = Request::get(format!("https://{HOST}/")).header("cookie", browser.cookies()).body(()).unwrap();
    within(PATIENCE, sender.send_request(ask, true).unwrap().0).await.unwrap();
    let mut connect = Request::builder()
        .method("CONNECT")
        .uri(format!("https://{HOST}/patient"))
        .header("cookie", browser.cookies())
        .header("origin", format!("https://{HOST}"))
        .header("sec-websocket-version", "13")
        .body(())
        .unwrap();
    connect.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let (answer, mut stream) = sender.send_request(connect, false).unwrap();
    assert_eq!(within(PATIENCE, answer).await.unwrap().status(), StatusCode::OK);
    stream.send_reset(h2::Reason::CANCEL);
    within(PATIENCE, ends.recv()).await.unwrap();
    other.send(Message::text("still here")).await.unwrap();
    assert_eq!(next(&mut other).await, Message::text("still here"));
}

#[tokio::test]
async fn a_portal_that_vanishes_lets_the_client_go() {
    let portal = portal(async |exchange: Exchange| {
        let mut bytes = websocket::accept(exchange, "").await?;
        // In the middle of a frame.
        bytes.write_all(b"\x82\x7epart").await.ok()?;
        bytes.flush().await.ok()?;
        None
    });
    let (_gateway, browsers) = before(&portal).await;
    for browser in &browsers {
        assert_eq!(rest(&mut browser.tunnel("/vanish").await).await, b"\x82\x7epart");
        assert_eq!(browser.fetch("/").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn an_ended_session_is_told_between_two_frames_with_1008() {
    let (gateway, browsers) = before(&portal(ordinary)).await;
    let mut sockets = Vec::new();
    for browser in &browsers {
        let mut socket = browser.socket("/echo").await;
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(next(&mut socket).await, Message::text("hello"));
        sockets.push(socket);
    }
    let begun = Instant::now();
    gateway.administration().set_disabled("ada@example.com", true).await.unwrap();
    for socket in &mut sockets {
        let close = ending(socket).await.expect("a close frame");
        assert_eq!((close.code, close.reason.as_str()), (CloseCode::Policy, "the session has ended"));
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
    // The connection of HTTP/2 itself is as good as before.
    assert_eq!(browsers[1].fetch("/").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn within_a_frame_an_ended_session_is_a_cut() {
    let frames: &[u8] = b"\x81\x02ok\x82\x7e\x01\x00the beginning";
    let portal = portal(async move |exchange: Exchange| {
        let mut bytes = websocket::accept(exchange, "").await?;
        bytes.write_all(frames).await.ok()?;
        bytes.flush().await.ok()?;
        let mut rest = Vec::new();
        bytes.read_to_end(&mut rest).await.ok()?;
        None
    });
    let (gateway, browsers) = before(&portal).await;
    let mut tunnels = Vec::new();
    for browser in &browsers {
        let mut bytes = browser.tunnel("/half").await;
        let mut seen = vec![0; frames.len()];
        within(PATIENCE, bytes.read_exact(&mut seen)).await.unwrap();
        tunnels.push(bytes);
    }
    gateway.administration().set_disabled("ada@example.com", true).await.unwrap();
    for bytes in &mut tunnels {
        assert!(rest(bytes).await.is_empty(), "nothing of ours within a frame of the portal's");
    }
}

#[tokio::test]
async fn a_drain_is_told_with_1001() {
    let builder = TestGateway::builder().upstream(&portal(ordinary)).set("server.timeouts.drain", "60s");
    let (gateway, browsers) = logged_in_over_both(builder).await;
    let mut sockets = [browsers[0].socket("/echo").await, browsers[1].socket("/echo").await];
    let begun = Instant::now();
    gateway.drain();
    for socket in &mut sockets {
        assert_eq!(ending(socket).await.expect("a close frame").code, CloseCode::Away);
    }
    drop(sockets);
    drop(browsers);
    gateway.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
}

#[tokio::test]
async fn an_idle_tunnel_is_no_idle_connection() {
    let builder = TestGateway::builder()
        .upstream(&portal(ordinary))
        .set("server.timeouts.idle", "300ms")
        .set("server.timeouts.stall", "300ms");
    let (_gateway, browsers) = logged_in_over_both(builder).await;
    let mut sockets = [browsers[0].socket("/echo").await, browsers[1].socket("/echo").await];
    for socket in &mut sockets {
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(next(socket).await, Message::text("hello"));
    }
    // An idle connection that was opened later is closed; the tunnels are not.
    let mut idle = browsers[0].raw(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    idle.answer().await;
    idle.rest().await;
    for socket in &mut sockets {
        socket.send(Message::text("still here")).await.unwrap();
        assert_eq!(next(socket).await, Message::text("still here"));
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_and_the_portal_is_let_go() {
    let (hung_up, mut ends) = mpsc::unbounded_channel();
    let portal = portal(async move |exchange: Exchange| {
        let mut bytes = websocket::accept(exchange, "").await?;
        let frame = [b"\x82\x7e\x40\x00", vec![b'x'; 16 * 1024].as_slice()].concat();
        while bytes.write_all(&frame).await.is_ok() {}
        hung_up.send(()).unwrap();
        None
    });
    let builder = TestGateway::builder().upstream(&portal).set("server.timeouts.stall", "300ms");
    let (_gateway, browsers) = logged_in_over_both(builder).await;
    for browser in &browsers {
        let _unread = browser.tunnel("/endless").await;
        within(PATIENCE, ends.recv()).await.unwrap();
        assert_eq!(browser.fetch("/").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_session_that_ends_cuts_a_client_that_takes_nothing() {
    let (hung_up, mut ends) = mpsc::unbounded_channel();
    let portal = portal(async move |exchange: Exchange| {
        let mut bytes = websocket::accept(exchange, "").await?;
        while bytes.write_all(&[0x89, 0].repeat(8 * 1024)).await.is_ok() {}
        hung_up.send(()).unwrap();
        None
    });
    let (gateway, browsers) = before(&portal).await;
    let _unread = [browsers[0].tunnel("/endless").await, browsers[1].tunnel("/endless").await];
    let begun = Instant::now();
    gateway.administration().set_disabled("ada@example.com", true).await.unwrap();
    for _ in 0..2 {
        within(PATIENCE, ends.recv()).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
    // Their streams are reset, and no room of the connection is lost to them.
    let answer = browsers[1].open(Request::get("/.portcullis/login").body(empty()).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_tunnel_counts_as_the_connection_that_it_is() {
    let builder = TestGateway::builder().upstream(&portal(ordinary)).set("server.max_connections", "2");
    let (gateway, login) = builder.start().await;
    gateway.add_user("ada@example.com").await;
    login.log_in("ada@example.com").await;
    let browser = gateway.browser();
    browser.set_cookie("__Host-portcullis", &login.session());
    drop(login);
    let (first, _second) = (browser.socket("/echo").await, browser.socket("/echo").await);
    let third = browser.tls(&["http/1.1"]);
    tokio::pin!(third);
    let early = tokio::time::timeout(Duration::from_millis(300), third.as_mut()).await;
    assert!(early.is_err(), "the third is not served beside the two");
    drop(first);
    third.await;
}
