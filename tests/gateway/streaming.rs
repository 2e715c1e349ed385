//! Bodies of any size pass through as they come: nothing is gathered, and whoever does not read is not written to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::Request;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::sync::{Mutex, mpsc};

use crate::support::{
    Body, Browser, Exchange, HOST, PATIENCE, TestGateway, Upstream,
    alone::{resident, run_alone},
    empty, logged_in_over_both,
    upstream::ordinary,
    within,
};

const PIECE: usize = 64 * 1024;
const LARGE: usize = 200 << 20;
/// What the whole process may grow by while four times that passes through it.
const MOST_GROWTH: usize = 30 << 20;
/// More than the kernel's buffers and ours on both hops together hold, and far less than is offered.
const MOST_IN_FLIGHT: usize = 64 << 20;

/// Swallows uploads, counting, and gives as many bytes as the target says.
fn bulk() -> Upstream {
    Upstream::scripted(async |mut exchange: Exchange| {
        let target = exchange.target();
        if let Some(size) = target.strip_prefix("/download/") {
            let size: usize = size.parse().unwrap();
            exchange.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")).await?;
            let piece = vec![b'x'; PIECE];
            let mut left = size;
            while left > 0 {
                let next = left.min(PIECE);
                exchange.write(&piece[..next]).await?;
                left -= next;
            }
            return Some(exchange);
        }
        if target != "/upload" {
            return ordinary(exchange).await;
        }
        let mut received = 0;
        while let Some(chunk) = exchange.wire.read_chunk().await.ok()? {
            received += chunk.len();
        }
        exchange.wire.read_until(b"\r\n").await.ok()?;
        let text = received.to_string();
        exchange.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())).await?;
        Some(exchange)
    })
}

/// A body of unknown length, which counts what was asked of it.
fn pieces(size: usize, taken: Arc<AtomicUsize>) -> Body {
    let pieces = stream::unfold(size, move |left| {
        let taken = Arc::clone(&taken);
        async move {
            let next = left.min(PIECE);
            taken.fetch_add(next, Ordering::SeqCst);
            (next > 0).then(|| (Ok(Frame::data(Bytes::from(vec![b'x'; next]))), left - next))
        }
    });
    StreamBody::new(pieces).boxed_unsync()
}

async fn upload(browser: &Browser, size: usize) {
    let request = Request::post("/upload").body(pieces(size, Arc::default())).unwrap();
    assert_eq!(browser.send(request).await.text(), size.to_string());
}

/// Reads and counts a download; answers the most memory that was in use meanwhile.
async fn download(browser: &Browser, size: usize) -> usize {
    let request = Request::get(format!("/download/{size}")).body(empty()).unwrap();
    let mut incoming = browser.open(request).await.into_body();
    let (mut received, mut most, mut next_look) = (0, resident(), 0);
    while let Some(frame) = within(PATIENCE, incoming.frame()).await {
        received += frame.unwrap().into_data().map_or(0, |data| data.len());
        if received >= next_look {
            most = most.max(resident());
            next_look += LARGE / 20;
        }
    }
    assert_eq!(received, size);
    most
}

#[tokio::test]
#[ignore = "measures the memory of a whole process; the test below runs it in one of its own"]
async fn large_bodies_alone_in_their_process() {
    let portal = bulk();
    let (_gateway, [browser, second]) = logged_in_over_both(TestGateway::builder().upstream(&portal)).await;
    for browser in [&browser, &second] {
        upload(browser, 8 << 20).await;
        download(browser, 8 << 20).await;
    }
    let before = resident();
    let mut most = before;
    for browser in [&browser, &second] {
        upload(browser, LARGE).await;
        most = most.max(resident()).max(download(browser, LARGE).await);
    }
    assert!(most < before + MOST_GROWTH, "grew from {before} to {most} bytes");
}

#[tokio::test]
async fn bodies_of_two_hundred_megabytes_pass_without_being_held() {
    run_alone("streaming::large_bodies_alone_in_their_process").await;
}

/// Waits until a count has stopped moving, and answers it.
async fn settled(count: &AtomicUsize) -> usize {
    let mut looks = tokio::time::interval(Duration::from_millis(300));
    let mut before = usize::MAX;
    loop {
        looks.tick().await;
        let now = count.load(Ordering::SeqCst);
        if now == before && now > 0 {
            return now;
        }
        before = now;
    }
}

#[tokio::test]
async fn an_upload_waits_for_a_portal_that_does_not_read() {
    let (release, held) = mpsc::channel::<()>(1);
    let held = Mutex::new(held);
    let portal = Upstream::scripted(async move |exchange: Exchange| {
        if exchange.target() != "/upload" {
            return ordinary(exchange).await;
        }
        held.lock().await.recv().await;
        ordinary(exchange).await
    });
    let (_gateway, [browser, second]) = logged_in_over_both(TestGateway::builder().upstream(&portal)).await;
    for browser in [&browser, &second] {
        let taken = Arc::new(AtomicUsize::new(0));
        let request = Request::post("/upload").body(pieces(LARGE, Arc::clone(&taken))).unwrap();
        let looking = async {
            let waiting = settled(&taken).await;
            assert!(waiting < MOST_IN_FLIGHT, "{waiting} bytes were taken from the client");
            release.send(()).await.unwrap();
        };
        let (answer, ()) = tokio::join!(browser.send(request), looking);
        assert_eq!(answer.status, 200);
        assert_eq!(taken.load(Ordering::SeqCst), LARGE);
    }
}

#[tokio::test]
async fn a_download_waits_for_a_client_that_does_not_read() {
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let portal = Upstream::scripted(async move |mut exchange: Exchange| {
        if exchange.target() != "/download" {
            return ordinary(exchange).await;
        }
        exchange.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n")).await?;
        let piece = vec![b'x'; PIECE];
        for _ in 0..LARGE / PIECE {
            exchange.write(&piece).await?;
            count.fetch_add(PIECE, Ordering::SeqCst);
        }
        Some(exchange)
    });
    let (_gateway, [browser, second]) = logged_in_over_both(TestGateway::builder().upstream(&portal)).await;
    for browser in [&browser, &second] {
        written.store(0, Ordering::SeqCst);
        let answer = browser.open(Request::get("/download").body(empty()).unwrap()).await;
        let waiting = settled(&written).await;
        assert!(waiting < MOST_IN_FLIGHT, "{waiting} bytes were taken from the portal");
        let body = within(Duration::from_secs(30), answer.into_body().collect()).await.unwrap();
        assert_eq!(body.to_bytes().len(), LARGE);
    }
}

#[tokio::test]
async fn an_event_reaches_the_client_before_the_stream_ends() {
    let (release, held) = mpsc::channel::<()>(1);
    let held = Mutex::new(held);
    let portal = Upstream::scripted(async move |mut exchange: Exchange| {
        if exchange.target() != "/events" {
            return ordinary(exchange).await;
        }
        exchange
            .write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await?;
        for number in 1..=3 {
            exchange.write(format!("9\r\ndata: {number}\n\n\r\n")).await?;
            held.lock().await.recv().await;
        }
        exchange.write("0\r\n\r\n").await?;
        Some(exchange)
    });
    let (_gateway, [browser, second]) = logged_in_over_both(TestGateway::builder().upstream(&portal)).await;
    for browser in [&browser, &second] {
        let mut events = browser.open(Request::get("/events").body(empty()).unwrap()).await.into_body();
        for number in 1..=3 {
            let event = within(PATIENCE, events.frame()).await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(event, format!("data: {number}\n\n"));
            release.send(()).await.unwrap();
        }
        let rest = within(PATIENCE, events.collect()).await.unwrap().to_bytes();
        assert_eq!(rest, "", "and then it ends");
    }
}

#[tokio::test]
async fn a_client_that_leaves_a_download_lets_the_portal_go() {
    let (hung_up, mut heard) = mpsc::unbounded_channel();
    let portal = Upstream::scripted(async move |mut exchange: Exchange| {
        if exchange.target() != "/endless" {
            return ordinary(exchange).await;
        }
        exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
        while exchange.write("1\r\nx\r\n").await.is_some() {}
        hung_up.send(()).unwrap();
        None
    });
    let (_gateway, [browser, second]) = logged_in_over_both(TestGateway::builder().upstream(&portal)).await;
    for browser in [browser, second] {
        let mut answer = browser.open(Request::get("/endless").body(empty()).unwrap()).await.into_body();
        within(PATIENCE, answer.frame()).await.unwrap().unwrap();
        drop(answer);
        drop(browser);
        within(PATIENCE, heard.recv()).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_its_answer_lets_the_portal_go() {
    let (hung_up, mut heard) = mpsc::unbounded_channel();
    let portal = Upstream::scripted(async move |mut exchange: Exchange| {
        if exchange.target() != "/never" {
            return ordinary(exchange).await;
        }
        let _ = exchange.read_content().await;
        // Nothing comes behind the request but its end.
        let _ = exchange.wire.fill().await;
        hung_up.send(()).unwrap();
        None
    });
    let (gateway, [browser, _second]) = logged_in_over_both(TestGateway::builder().upstream(&portal)).await;
    for rest in ["GET /never HTTP/1.1\r\n{H}\r\n", "PUT /never HTTP/1.1\r\n{H}Content-Length: 5\r\n\r\nhello"]
    {
        gateway.upstream.forget();
        let fields = format!("Host: {HOST}\r\nCookie: {}\r\n", browser.cookies());
        let connection = browser.raw(rest.replace("{H}", &fields)).await;
        gateway.upstream.arrived(1).await;
        drop(connection);
        within(PATIENCE, heard.recv()).await.unwrap();
    }
}

#[tokio::test]
async fn an_upload_goes_on_behind_an_answer_that_came_early() {
    let (release, held) = mpsc::channel::<()>(1);
    let held = Mutex::new(held);
    let portal = Upstream::scripted(async move |mut exchange: Exchange| {
        if exchange.target() != "/early" {
            return ordinary(exchange).await;
        }
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly").await?;
        held.lock().await.recv().await;
        exchange.read_content().await.ok()?;
        Some(exchange)
    });
    let (gateway, [browser, _second]) = logged_in_over_both(TestGateway::builder().upstream(&portal)).await;
    let size = 300_000;
    for framing in [format!("Content-Length: {size}"), "Transfer-Encoding: chunked".to_owned()] {
        gateway.upstream.forget();
        let fields = format!("Host: {HOST}\r\nCookie: {}\r\n", browser.cookies());
        let mut connection = browser.raw(format!("POST /early HTTP/1.1\r\n{fields}{framing}\r\n\r\n")).await;
        assert_eq!(connection.answer().await.text(), "early");
        release.send(()).await.unwrap();
        let body = "x".repeat(size);
        if framing.ends_with("chunked") {
            connection.send(format!("{size:x}\r\n{body}\r\n0\r\n\r\n")).await;
        } else {
            connection.send(body).await;
        }
        connection.send(format!("GET /next HTTP/1.1\r\n{fields}\r\n")).await;
        assert_eq!(connection.answer().await.text(), "the portal: GET /next\n");
        let read = async {
            while gateway.upstream.bytes() < size {
                tokio::task::yield_now().await;
            }
        };
        within(PATIENCE, read).await;
    }
}

#[tokio::test]
async fn whoever_sends_a_large_body_in_vain_is_told_why() {
    let (_gateway, browser) = TestGateway::start().await;
    for (path, kind, status) in [("/x", "text/plain", 401), ("/.portcullis/login", "text/plain", 415)] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {kind}\r\n");
        let mut connection = browser.raw(format!("{head}Content-Length: 900000\r\n\r\nstart")).await;
        let answer = connection.answer().await;
        assert_eq!((answer.status.as_u16(), answer.header("connection").as_str()), (status, "close"));
        assert!(connection.rest().await.is_empty());
        // Some look for the answer only when they have sent everything: a reset would take it away from them.
        let body = vec![b'x'; 64 * 1024];
        for _ in 0..10 {
            connection.wire.write(&body).await.unwrap();
        }
    }
}
