//! Frames of HTTP/2 that cost the sender nothing and ask for nothing are not answered for ever.

use std::time::{Duration, Instant};

use crate::support::{
    Browser, HOST, TestGateway, empty,
    forged::{Forgery, frame, owned},
    within,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Sends frames without end, reading what comes back; says how many got through until the gateway closed.
async fn flood(browser: &Browser, mut next: impl FnMut(u32) -> Vec<u8>) -> u32 {
    let (mut from, mut to) = tokio::io::split(browser.tls(&["h2"]).await);
    let reading = tokio::spawn(async move { tokio::io::copy(&mut from, &mut tokio::io::sink()).await });
    let mut sent = 0;
    let sending = async {
        use tokio::io::AsyncWriteExt as _;
        to.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat()).await?;
        loop {
            let batch: Vec<u8> = (sent..sent + 100).flat_map(&mut next).collect();
            to.write_all(&batch).await?;
            sent += 100;
        }
    };
    let ended: std::io::Result<()> = within(Duration::from_secs(5), sending).await;
    assert!(ended.is_err());
    reading.abort();
    sent
}

#[tokio::test]
async fn control_frames_without_end_close_the_connection() {
    let (gateway, browser) = TestGateway::start().await;
    let floods: [(&str, fn(u32) -> Vec<u8>); 4] = [
        ("PING", |_| frame(6, 0, 0, &[0; 8])),
        ("SETTINGS", |_| frame(4, 0, 0, &[])),
        ("PRIORITY", |number| frame(2, 0, 2 * number + 1, &[0, 0, 0, 0, 1])),
        ("unknown", |_| frame(0xb7, 0, 0, &[0; 8])),
    ];
    for (name, next) in floods {
        let begun = Instant::now();
        let sent = flood(&browser, next).await;
        assert!(begun.elapsed() < Duration::from_secs(2), "{name}: {sent} in {:?}", begun.elapsed());
    }
    assert_eq!(gateway.browser().http2().get("/").await.status, 302);
}

#[tokio::test]
async fn requests_reset_at_once_reach_the_portal_at_most_a_hundred_times() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user("ada@example.com").await;
    browser.log_in("ada@example.com").await;
    gateway.upstream.forget();
    let head = Forgery {
        fields: owned(&[
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", HOST),
            (":path", "/"),
            ("cookie", &browser.cookies()),
        ]),
        ..Forgery::default()
    };
    flood(&browser, |number| {
        let stream = 2 * number + 1;
        [head.frames_on(stream), frame(3, 0, stream, &[0, 0, 0, 8])].concat()
    })
    .await;
    let reached = gateway.upstream.requests().len();
    assert!(reached <= 100, "{reached} requests reached the portal");
    assert_eq!(browser.send(http::Request::get("/").body(empty()).unwrap()).await.status, 200);
}

#[tokio::test]
async fn a_head_in_continuations_without_end_closes_the_connection() {
    let (gateway, browser) = TestGateway::start().await;
    flood(&browser, |number| match number {
        0 => frame(1, 0, 1, &[]),
        // A literal that is never indexed, of one byte.
        _ => frame(9, 0, 1, &[0x10, 1, b'x', 1, b'y']),
    })
    .await;
    assert_eq!(gateway.upstream.bytes(), 0);
}

#[tokio::test]
async fn empty_data_without_end_closes_the_connection() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user("ada@example.com").await;
    browser.log_in("ada@example.com").await;
    gateway.upstream.forget();
    let head = Forgery {
        fields: owned(&[
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", HOST),
            (":path", "/"),
            ("cookie", &browser.cookies()),
        ]),
        body: Some(String::new()),
        ..Forgery::default()
    };
    flood(&browser, |number| if number == 0 { head.head_on(1) } else { frame(0, 0, 1, &[]) }).await;
    assert!(gateway.upstream.requests().iter().all(|request| request.content.body.is_empty()));
}
