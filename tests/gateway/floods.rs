//! Frames of HTTP/2 that cost the sender nothing and ask for nothing are not answered for ever.

use std::time::{Duration, Instant};

use crate::support::{
    Browser, HOST, PATIENCE, TestGateway,
    alone::{resident, run_alone},
    empty,
    forged::{Forgery, frame, literal, owned},
    wire::Wire,
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

/// The most that twenty connections of sixty-four requests each may make this process grow by.
const MOST_GROWTH: usize = 64 << 20;

/// Requests whose long field is sent once and then referred to, one octet each; the body that they announce never comes.
async fn bomb(browser: &Browser) -> Wire {
    let mut wire = Wire::new(browser.tls(&["h2"]).await);
    let mut start: Vec<u8> = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", HOST),
        (":path", "/.portcullis/login"),
        ("content-type", "application/x-www-form-urlencoded"),
    ]
    .iter()
    .flat_map(|(name, value)| literal(0, name, value))
    .collect();
    let mut frames = [PREFACE, &frame(4, 0, 0, &[])].concat();
    let first = [start.clone(), literal(0x40, "x", &"y".repeat(3900))].concat();
    frames.extend(frame(1, 4, 1, &first));
    // A reference to index 62 (0x3e), the newest of what the other side remembers.
    start.extend([0x80 | 0x3e; 3]);
    for number in 1..64 {
        frames.extend(frame(1, 4, 2 * number + 1, &start));
    }
    frames.extend(frame(6, 0, 0, b"all read"));
    wire.write(&frames).await.unwrap();
    loop {
        let head = within(PATIENCE, wire.read_exactly(9)).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let payload = wire.read_exactly(usize::try_from(length).unwrap()).await.unwrap();
        if payload == b"all read" {
            return wire;
        }
        assert!(matches!(head[3], 4 | 6 | 8), "the requests are still waited for: {head:?}");
    }
}

#[tokio::test]
#[ignore = "measures the memory of a whole process; the test below runs it in one of its own"]
async fn header_bombs_alone_in_their_process() {
    let (_gateway, browser) = TestGateway::start().await;
    let _warm = bomb(&browser).await;
    let before = resident();
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(bomb(&browser).await);
    }
    let after = resident();
    assert!(after < before + MOST_GROWTH, "grew from {before} to {after} bytes");
}

#[tokio::test]
async fn header_bombs_do_not_fill_the_memory() {
    run_alone("floods::header_bombs_alone_in_their_process").await;
}
