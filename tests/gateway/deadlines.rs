//! Nobody holds a connection by doing nothing: every stage has its own deadline, on both protocols.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http::Request;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::{io::AsyncReadExt as _, net::TcpStream, sync::mpsc};

use crate::support::{
    Body, Browser, Exchange, HOST, PATIENCE, TestGateway, Upstream, forged::frame, test_gateway::Builder,
    upstream::ordinary, wire::Wire, within,
};

/// Deadlines that this test waits for are short, all others far longer than the test.
fn only(deadline: &str) -> Builder {
    let mut builder = TestGateway::builder();
    for name in ["handshake", "first_byte", "head", "stall", "idle"] {
        let value = if name == deadline { "300ms" } else { "60s" };
        builder = builder.set(&format!("server.timeouts.{name}"), value);
    }
    builder
}

/// Waits for the gateway to close, and checks that it did not do so before the deadline.
async fn closes_in_time(begun: Instant, mut wire: Wire) {
    let mut rest = Vec::new();
    while let Ok(bytes) = within(PATIENCE, wire.read_some()).await
        && !bytes.is_empty()
    {
        rest.extend(bytes);
    }
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_millis(50), "closed after {waited:?}: {rest:?}");
    assert!(waited < Duration::from_secs(5), "closed after {waited:?}");
}

async fn cookies_of_login(gateway: &TestGateway, browser: &Browser) -> String {
    gateway.add_user("ada@example.com").await;
    browser.log_in("ada@example.com").await;
    gateway.upstream.forget();
    browser.cookies()
}

#[tokio::test]
async fn a_client_that_does_not_finish_the_handshake_is_closed() {
    let (gateway, _) = only("handshake").start().await;
    let begun = Instant::now();
    let mut silent = TcpStream::connect(gateway.address()).await.unwrap();
    within(PATIENCE, silent.read(&mut [0; 1])).await.ok();
    assert!(begun.elapsed() < Duration::from_secs(5));
    // The first bytes of a handshake buy no more time.
    let begun = Instant::now();
    let mut wire = Wire::new(TcpStream::connect(gateway.address()).await.unwrap());
    wire.write(&[22, 3, 1, 2, 0]).await.unwrap();
    closes_in_time(begun, wire).await;
}

#[tokio::test]
async fn a_connection_without_a_first_byte_is_closed() {
    let (_gateway, browser) = only("first_byte").start().await;
    for protocol in ["http/1.1", "h2"] {
        let begun = Instant::now();
        closes_in_time(begun, Wire::new(browser.tls(&[protocol]).await)).await;
    }
}

#[tokio::test]
async fn a_head_that_comes_in_drops_is_cut_at_its_deadline() {
    let (gateway, browser) = only("head").start().await;
    let begun = Instant::now();
    let mut connection = browser.raw("GET / HTTP/1.1\r\nHost: iot.example.com\r\nX: ").await;
    let mut drops = tokio::time::interval(Duration::from_millis(50));
    loop {
        tokio::select! {
            _ = drops.tick() => connection.send("x").await,
            more = connection.wire.fill() => if !more.unwrap_or(false) { break },
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "every drop bought more time");
    }
    assert_eq!(gateway.upstream.bytes(), 0);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let (_gateway, browser) = only("idle").start().await;
    let mut connection = browser.raw("GET / HTTP/1.1\r\nHost: iot.example.com\r\n\r\n").await;
    connection.answer().await;
    closes_in_time(Instant::now(), connection.wire).await;

    // HTTP/2: the preface and settings are no request.
    let mut wire = Wire::new(browser.tls(&["h2"]).await);
    wire.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    wire.write(&frame(4, 0, 0, &[])).await.unwrap();
    closes_in_time(Instant::now(), wire).await;
}

#[tokio::test]
async fn a_request_in_progress_is_not_idle() {
    let (release, held) = mpsc::channel::<()>(1);
    let held = tokio::sync::Mutex::new(held);
    let portal = Upstream::scripted(async move |mut exchange: Exchange| {
        if exchange.target() == "/slow" {
            held.lock().await.recv().await;
        }
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").await?;
        Some(exchange)
    });
    let (gateway, browser) = only("idle").upstream(&portal).start().await;
    let cookies = cookies_of_login(&gateway, &browser).await;
    let request = format!("GET /slow HTTP/1.1\r\nHost: iot.example.com\r\nCookie: {cookies}\r\n\r\n");
    let mut slow = browser.raw(request).await;
    gateway.upstream.arrived(1).await;
    // An idle connection that was opened later is closed first.
    let mut idle = browser.raw("GET / HTTP/1.1\r\nHost: iot.example.com\r\n\r\n").await;
    idle.answer().await;
    idle.rest().await;
    release.send(()).await.unwrap();
    assert_eq!(slow.answer().await.text(), "late");
}

#[tokio::test]
async fn an_upload_that_stops_is_cut_and_the_portal_never_takes_it_for_whole() {
    let (gateway, browser) = only("stall").start().await;
    let cookies = cookies_of_login(&gateway, &browser).await;
    for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        gateway.upstream.forget();
        let request = format!(
            "POST /upload HTTP/1.1\r\nHost: iot.example.com\r\nCookie: {cookies}\r\n{framing}\r\n\r\n5\r\nhello\r\n"
        );
        let begun = Instant::now();
        let mut connection = browser.raw(request).await;
        gateway.upstream.arrived(1).await;
        let answer = connection.answer().await;
        assert_eq!((answer.status.as_u16(), answer.header("connection").as_str()), (400, "close"));
        answer.assert_secure();
        closes_in_time(begun, connection.wire).await;
        assert_eq!(gateway.upstream.only_request().content.body, b"", "the body never ended");
    }
}

#[tokio::test]
async fn an_upload_that_stops_behind_its_answer_is_cut() {
    let portal = Upstream::scripted(async |mut exchange: Exchange| {
        if exchange.target() != "/early" {
            return ordinary(exchange).await;
        }
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly").await?;
        exchange.read_content().await.ok()?;
        Some(exchange)
    });
    let (gateway, browser) = only("stall").upstream(&portal).start().await;
    let cookies = cookies_of_login(&gateway, &browser).await;
    let head =
        format!("POST /early HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookies}\r\nContent-Length: 100\r\n");
    let begun = Instant::now();
    let mut connection = browser.raw(format!("{head}\r\nhello")).await;
    assert_eq!(connection.answer().await.text(), "early");
    closes_in_time(begun, connection.wire).await;
}

#[tokio::test]
async fn what_nobody_reads_is_listened_to_for_a_while_and_no_longer() {
    let (_gateway, browser) = only("head").start().await;
    let head = format!("POST /x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000\r\n\r\n");
    let mut connection = browser.raw(head).await;
    assert_eq!(connection.answer().await.status, 401);
    assert!(connection.rest().await.is_empty());
    let begun = Instant::now();
    // A write fails once the gateway has gone.
    while connection.wire.write(b"x").await.is_ok() {
        assert!(begun.elapsed() < PATIENCE, "still listening");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_upload_that_stops_on_http_2_is_cut_without_the_connection() {
    let (gateway, browser) = only("stall").start().await;
    cookies_of_login(&gateway, &browser).await;
    let browser = {
        let other = gateway.browser().http2();
        other.set_cookie("__Host-portcullis", &browser.session());
        other
    };
    let first = Ok(Frame::data(Bytes::from_static(b"hello")));
    let never = stream::iter([first]).chain_pending();
    let request = Request::post("/upload").body(never).unwrap();
    let answer = browser.send(request).await;
    assert_eq!(answer.status, 400);
    assert_eq!(browser.get("/next").await.text(), "the portal: GET /next\n");
    assert_eq!(gateway.upstream.requests()[0].content.body, b"");
}

/// Ends a stream of frames in silence rather than with an end.
trait ChainPending {
    fn chain_pending(self) -> Body;
}

impl<S> ChainPending for S
where
    S: stream::Stream<Item = Result<Frame<Bytes>, crate::support::BoxError>> + Send + 'static,
{
    fn chain_pending(self) -> Body {
        StreamBody::new(stream::StreamExt::chain(self, stream::pending())).boxed_unsync()
    }
}

/// A portal that sends without end, and tells when it could not go on.
fn endless() -> (Upstream, mpsc::UnboundedReceiver<()>) {
    let (hung_up, until) = mpsc::unbounded_channel();
    let portal = Upstream::scripted(async move |mut exchange: Exchange| {
        if exchange.target() != "/endless" {
            exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await?;
            return Some(exchange);
        }
        exchange.write("HTTP/1.1 200 OK\r\n\r\n").await?;
        let piece = vec![b'x'; 16 * 1024];
        while exchange.write(&piece).await.is_some() {}
        hung_up.send(()).unwrap();
        None
    });
    (portal, until)
}

#[tokio::test]
async fn a_client_that_reads_no_more_is_cut_and_the_portal_is_let_go() {
    let (portal, mut hung_up) = endless();
    let (gateway, browser) = only("stall").upstream(&portal).start().await;
    let cookies = cookies_of_login(&gateway, &browser).await;
    let request = format!("GET /endless HTTP/1.1\r\nHost: iot.example.com\r\nCookie: {cookies}\r\n\r\n");
    let _unread = browser.raw(request).await;
    within(PATIENCE, hung_up.recv()).await.unwrap();
}

#[tokio::test]
async fn a_stream_of_http_2_that_is_read_no_more_is_cut_and_the_portal_is_let_go() {
    let (portal, mut hung_up) = endless();
    let (gateway, browser) = only("stall").upstream(&portal).start().await;
    cookies_of_login(&gateway, &browser).await;
    let other = gateway.browser().http2();
    other.set_cookie("__Host-portcullis", &browser.session());
    // The connection is alive and answers pings; only the window of this stream stays shut.
    let unread = other.open(Request::get("/endless").body(crate::support::empty()).unwrap()).await;
    within(PATIENCE, hung_up.recv()).await.unwrap();
    drop(unread);
    assert_eq!(other.get("/").await.status, 200);
}

/// After a second without a request the gateway lets go of everything but the socket; the client notices nothing.
#[tokio::test]
async fn a_connection_that_has_rested_goes_on_as_if_it_had_not() {
    let (gateway, browser) = TestGateway::start().await;
    let cookies = cookies_of_login(&gateway, &browser).await;
    let request = |method: &str, more: &str| {
        format!("{method} /rest HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookies}\r\n{more}")
    };
    let mut connection = browser.raw(request("GET", "\r\n")).await;
    assert_eq!(connection.answer().await.status, 200);
    for _ in 0..2 {
        let silence = tokio::time::timeout(Duration::from_millis(1700), connection.wire.fill()).await;
        assert!(silence.is_err(), "the gateway neither speaks nor closes: {silence:?}");
        // A head in two parts, and a body behind it.
        connection.send(request("POST", "Content-Le")).await;
        connection.send("ngth: 4\r\n\r\nbo").await;
        connection.send("dy").await;
        assert_eq!(connection.answer().await.status, 200);
        // Two at once.
        connection.send([request("GET", "\r\n"), request("GET", "\r\n")].concat()).await;
        assert_eq!(connection.answer().await.status, 200);
        assert_eq!(connection.answer().await.status, 200);
    }
    assert_eq!(gateway.upstream.requests().len(), 7);
    // The end of a resting connection is noticed.
    let silence = tokio::time::timeout(Duration::from_millis(1700), connection.wire.fill()).await;
    assert!(silence.is_err());
    connection.wire.finish().await.unwrap();
    within(PATIENCE, connection.wire.read_to_end()).await.unwrap();
}

/// Sends a part again and again until the gateway has closed, and says for how long that went on.
async fn until_closed(connection: &mut crate::support::RawConnection, part: &str) -> Duration {
    let begun = Instant::now();
    let mut parts = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            _ = parts.tick() => {
                // A write to what has been closed may fail before the end is read.
                let _ = connection.wire.write(part.as_bytes()).await;
            }
            more = connection.wire.fill() => if !more.unwrap_or(false) { return begun.elapsed() },
        }
        assert!(begun.elapsed() < PATIENCE, "every part bought more time");
    }
}

#[tokio::test]
async fn an_upload_in_drops_is_cut_and_a_slow_but_steady_one_is_not() {
    // 600 bytes in any 600 milliseconds of waiting.
    let builder = TestGateway::builder().set("server.timeouts.stall", "600ms").set("server.min_rate", "1000");
    let (gateway, browser) = builder.start().await;
    let cookies = cookies_of_login(&gateway, &browser).await;
    let head = |length: usize| {
        format!(
            "POST /upload HTTP/1.1\r\nHost: iot.example.com\r\nCookie: {cookies}\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let mut drops = browser.raw(head(1000)).await;
    let lasted = until_closed(&mut drops, "x").await;
    assert!(lasted >= Duration::from_millis(500), "cut after {lasted:?}");
    assert_eq!(gateway.upstream.only_request().content.body, b"");

    gateway.upstream.forget();
    let mut steady = browser.raw(head(20 * 600)).await;
    let mut parts = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..20 {
        parts.tick().await;
        steady.send(&"x".repeat(600)).await;
    }
    assert_eq!(steady.answer().await.status, 200, "two seconds are more than three times the deadline");
    assert_eq!(gateway.upstream.only_request().content.body.len(), 20 * 600);
}

#[tokio::test]
async fn a_form_in_drops_is_cut() {
    let (_gateway, browser) = TestGateway::start().await;
    let mut drops = browser
        .raw(
            "POST /.portcullis/login HTTP/1.1\r\nHost: iot.example.com\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\n",
        )
        .await;
    let begun = Instant::now();
    let mut parts = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = parts.tick() => drop(drops.wire.write(b"x").await),
            more = drops.wire.fill() => if !more.unwrap_or(false) { break },
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "every drop bought more time");
    }
}

#[tokio::test]
async fn a_head_of_http_2_that_stops_is_cut_at_its_deadline() {
    let (gateway, browser) = only("head").start().await;
    let mut wire = Wire::new(browser.tls(&["h2"]).await);
    wire.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let begun = Instant::now();
    // HEADERS without its end, and nothing behind it.
    wire.write(&[frame(4, 0, 0, &[]), frame(1, 0, 1, &[0x82])].concat()).await.unwrap();
    closes_in_time(begun, wire).await;
    assert_eq!(gateway.upstream.bytes(), 0);
}
