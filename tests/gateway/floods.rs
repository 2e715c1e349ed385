//! Frames of HTTP/2 that cost the sender nothing and ask for nothing are not answered for ever.

use std::time::{Duration, Instant};

use crate::support::{
    Browser, HOST, PATIENCE, TestGateway,
    alone::{resident, run_alone},
    empty,
    forged::{Forgery, frame, literal, owned},
    soon,
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
    let floods: [(&str, fn(u32) -> Vec<u8>); 6] = [
        ("PING", |_| frame(6, 0, 0, &[0; 8])),
        ("SETTINGS", |_| frame(4, 0, 0, &[])),
        ("PRIORITY", |number| frame(2, 0, 2 * number + 1, &[0, 0, 0, 0, 1])),
        ("unknown", |_| frame(0xb7, 0, 0, &[0; 8])),
        ("WINDOW_UPDATE of one", |_| frame(8, 0, 0, &[0, 0, 0, 1])),
        ("WINDOW_UPDATE of none", |_| frame(8, 0, 0, &[0; 4])),
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

/// What makes the gateway reset a stream, after a whole request on it: the second half of "MadeYouReset".
const FAULTS: [(&str, fn(u32) -> Vec<u8>); 3] = [
    ("a window update of none", |stream| frame(8, 0, stream, &[0; 4])),
    ("a window beyond all bounds", |stream| frame(8, 0, stream, &[0x7f, 0xff, 0xff, 0xff])),
    ("data after the end", |stream| frame(0, 0, stream, b"x")),
];

#[tokio::test]
async fn requests_that_make_the_gateway_reset_reach_the_portal_at_most_a_hundred_times() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user("ada@example.com").await;
    browser.log_in("ada@example.com").await;
    let mut fields = vec![(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/")];
    let cookies = browser.cookies();
    fields.push(("cookie", &cookies));
    let head = Forgery::of(&fields);
    for (name, fault) in FAULTS {
        gateway.upstream.forget();
        let begun = Instant::now();
        let sent = flood(&browser, |number| {
            let stream = 2 * number + 1;
            [head.frames_on(stream), fault(stream)].concat()
        })
        .await;
        assert!(begun.elapsed() < Duration::from_secs(2), "{name}: {sent} in {:?}", begun.elapsed());
        let reached = gateway.upstream.requests().len();
        assert!(reached <= 100, "{name}: {reached} requests reached the portal");
    }
    assert_eq!(browser.send(http::Request::get("/").body(empty()).unwrap()).await.status, 200);
}

/// Sends the heads of as many requests as a connection may have streams, and waits for so many heads of answers.
async fn fill(browser: &Browser, head: &Forgery, settings: &[u8], answers: usize) -> Wire {
    let mut wire = Wire::new(browser.tls(&["h2"]).await);
    let mut frames = [PREFACE, &frame(4, 0, 0, settings)].concat();
    for number in 0..64 {
        frames.extend(head.head_on(2 * number + 1));
    }
    wire.write(&frames).await.unwrap();
    heads(&mut wire, answers).await;
    wire
}

/// Waits for so many heads of answers.
async fn heads(wire: &mut Wire, count: usize) {
    let mut left = count;
    while left > 0 {
        let start = within(PATIENCE, wire.read_exactly(9)).await.unwrap();
        let length = u32::from_be_bytes([0, start[0], start[1], start[2]]);
        wire.read_exactly(usize::try_from(length).unwrap()).await.unwrap();
        left -= usize::from(start[3] == 1);
    }
}

/// How many requests the access log tells of with this status, once there are so many.
async fn answered(gateway: &TestGateway, status: u16, count: usize) {
    let status = format!(" status={status} ");
    let mut seen = 0;
    soon(PATIENCE, "the answers are in the log", async || {
        seen = gateway.access_log().matches(&status).count();
        seen >= count
    })
    .await;
    assert_eq!(seen, count);
}

#[tokio::test]
async fn a_connection_has_at_most_eight_forms_under_way() {
    let (gateway, browser) = TestGateway::start().await;
    let mut fields = vec![(":method", "POST"), (":scheme", "https"), (":authority", HOST)];
    fields.extend([(":path", "/.portcullis/login"), ("content-type", "application/x-www-form-urlencoded")]);
    let head = Forgery { body: Some(String::new()), ..Forgery::of(&fields) };
    let _held = fill(&browser, &head, &[], 56).await;
    answered(&gateway, 503, 56).await;
    assert_eq!(gateway.browser().http2().get("/.portcullis/login").await.status, 200);
}

#[tokio::test]
async fn forms_beyond_those_under_way_wait_for_them() {
    let (gateway, browser) = TestGateway::start().await;
    let mut fields = vec![(":method", "POST"), (":scheme", "https"), (":authority", HOST), (":path", "/x")];
    fields.extend([("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-dest", "document")]);
    fields.extend([("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]);
    let head = Forgery { body: Some(String::new()), ..Forgery::of(&fields) };
    let mut wire = Wire::new(browser.tls(&["h2"]).await);
    let mut frames = [PREFACE, &frame(4, 0, 0, &[]), &frame(8, 0, 0, &(1_u32 << 20).to_be_bytes())].concat();
    for number in 0..12 {
        frames.extend(head.head_on(2 * number + 1));
    }
    wire.write(&frames).await.unwrap();
    // Meanwhile all of them have been seen.
    assert_eq!(gateway.browser().get("/.portcullis/login").await.status, 200);
    let ends: Vec<u8> = (0..12).flat_map(|number| frame(0, 1, 2 * number + 1, &[])).collect();
    wire.write(&ends).await.unwrap();
    heads(&mut wire, 12).await;
    // Each is asked for once more.
    answered(&gateway, 200, 13).await;
    assert_eq!(gateway.access_log().matches(" status=503 ").count(), 0);
}

#[tokio::test]
async fn a_client_that_takes_no_page_is_given_sixteen() {
    let (gateway, browser) = TestGateway::start().await;
    let mut fields = vec![(":method", "GET"), (":scheme", "https"), (":authority", HOST)];
    fields.extend([(":path", "/.portcullis/login"), ("accept", "text/html")]);
    // SETTINGS_INITIAL_WINDOW_SIZE (4) of none.
    let _held = fill(&browser, &Forgery::of(&fields), &[0, 4, 0, 0, 0, 0], 64).await;
    answered(&gateway, 503, 48).await;
}

#[tokio::test]
async fn a_trusted_proxy_may_have_a_page_or_a_form_under_way_for_each_of_its_clients() {
    let builder = TestGateway::builder().set("server.trusted_proxies", "127.0.0.1");
    let (gateway, browser) = builder.start().await;
    let mut fields = vec![(":method", "GET"), (":scheme", "https"), (":authority", HOST)];
    fields.extend([(":path", "/.portcullis/login"), ("accept", "text/html")]);
    let untaken = fill(&browser, &Forgery::of(&fields), &[0, 4, 0, 0, 0, 0], 64).await;
    drop(untaken);
    answered(&gateway, 200, 64).await;
    fields[0].1 = "POST";
    fields[4] = ("content-type", "application/x-www-form-urlencoded");
    let head = Forgery { body: Some(String::new()), ..Forgery::of(&fields) };
    let mut forms = fill(&browser, &head, &[], 0).await;
    // WINDOW_UPDATE for the pages that answer, then the end of each form.
    forms.write(&frame(8, 0, 0, &(1_u32 << 20).to_be_bytes())).await.unwrap();
    let ends: Vec<u8> = (0..64).flat_map(|number| frame(0, 1, 2 * number + 1, &[])).collect();
    forms.write(&ends).await.unwrap();
    heads(&mut forms, 64).await;
    // Forms without a token: each has been read and turned down for that.
    answered(&gateway, 403, 64).await;
    assert_eq!(gateway.access_log().matches(" status=503 ").count(), 0);
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
const MOST_GROWTH: usize = 20 * (256 << 10);

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
