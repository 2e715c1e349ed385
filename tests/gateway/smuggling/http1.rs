//! Requests of HTTP/1 that hide another one where some reader would find it.

use super::{HIDDEN, scene};
use crate::support::{Exchange, HOST, Upstream, upstream::ordinary};

#[tokio::test]
async fn innocent_and_attacker_do_share_a_connection_to_the_portal() {
    let mut scene = scene(&Upstream::start()).await;
    let before = scene.gateway.upstream.connections();
    for _ in 0..3 {
        let answers = scene.attack("GET /ordinary HTTP/1.1\r\n{H}\r\n").await;
        assert!(answers.contains("the portal: GET /ordinary"), "{answers}");
    }
    assert_eq!(scene.gateway.upstream.connections(), before);
}

#[tokio::test]
async fn a_request_hidden_in_ambiguous_framing_is_never_seen() {
    let mut scene = scene(&Upstream::start()).await;
    let length = HIDDEN.len();
    let zero = format!("0\r\n\r\n{HIDDEN}");
    let both = zero.len();
    let hex = format!("{length:x}");
    let extension = "x".repeat(300);
    let attacks = [
        format!("POST / HTTP/1.1\r\n{{H}}Content-Length: {both}\r\nTransfer-Encoding: chunked\r\n\r\n{zero}"),
        format!("POST / HTTP/1.1\r\n{{H}}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n{zero}"),
        format!("POST / HTTP/1.1\r\n{{H}}Transfer-Encoding: xchunked\r\n\r\n{zero}"),
        format!("POST / HTTP/1.1\r\n{{H}}Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n{zero}"),
        format!("POST / HTTP/1.1\r\n{{H}}Transfer-Encoding : chunked\r\n\r\n{zero}"),
        format!("POST / HTTP/1.1\r\n{{H}}X: y\nTransfer-Encoding: chunked\r\n\r\n{zero}"),
        format!("POST / HTTP/1.1\r\n{{H}}Transfer-Encoding:\r\n chunked\r\n\r\n{zero}"),
        format!("POST / HTTP/1.1\r\n{{H}}Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"),
        format!("POST / HTTP/1.1\r\n{{H}}Content-Length: {length}\r\nContent-Length: 0\r\n\r\n{HIDDEN}"),
        format!("POST / HTTP/1.1\r\n{{H}}Content-Length: 0, {length}\r\n\r\n{HIDDEN}"),
        format!("POST / HTTP/1.1\r\n{{H}}Content-Length: +{length}\r\n\r\n{HIDDEN}"),
        format!("POST / HTTP/1.1\r\n{{H}}Content_Length: {length}\r\n\r\n{HIDDEN}"),
        format!("POST / HTTP/1.1\r\n{{H}}Content-Length\t: {length}\r\n\r\n{HIDDEN}"),
        format!("POST / HTTP/1.0\r\n{{H}}Transfer-Encoding: chunked\r\n\r\n{zero}"),
        format!("GET / HTTP/1.1\r\n{{H}}Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n{HIDDEN}"),
        // Chunks that other readers end elsewhere.
        format!("POST / HTTP/1.1\r\n{{H}}Transfer-Encoding: chunked\r\n\r\n0;\n\r\n{HIDDEN}"),
        format!("POST / HTTP/1.1\r\n{{H}}Transfer-Encoding: chunked\r\n\r\n1;x\nxx\r\n0\r\n\r\n{HIDDEN}"),
        format!("POST / HTTP/1.1\r\n{{H}}Transfer-Encoding: chunked\r\n\r\n0x{hex}\r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!("POST / HTTP/1.1\r\n{{H}}Transfer-Encoding: chunked\r\n\r\n1;{extension}\r\nA\r\n0\r\n\r\n"),
        format!("POST / HTTP/1.1\r\n{{H}}Transfer-Encoding: chunked\r\n\r\n-1\r\n{HIDDEN}"),
        format!("POST / HTTP/1.1\r\n{{H}}Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n{HIDDEN}"),
        format!("POST / HTTP/1.1\r\n{{H}}Transfer-Encoding: chunked\r\n\r\n1\nA\n0\n\n{HIDDEN}"),
        format!("POST / HTTP/1.1\r\n{{H}}Transfer-Encoding: chunked\r\n\r\n1\r\nA0\r\n\r\n{HIDDEN}"),
        format!("POST / HTTP/1.1\r\n{{H}}Transfer-Encoding: chunked\r\n\r\n1\r\nAB\r\n0\r\n\r\n{HIDDEN}"),
        format!("POST / HTTP/1.1\r\n{{H}}Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n{HIDDEN}"),
        format!("POST / HTTP/1.1\r\n{{H}}Transfer-Encoding: chunked\r\n\r\n0\r\n X: folded\r\n\r\n{HIDDEN}"),
    ];
    for attack in attacks {
        let answers = scene.attack(&attack).await;
        // The attack itself is refused or cut, and what stands behind it is not read any more.
        assert!(!answers.contains("HTTP/1.1 200"), "{attack:?}: {answers}");
        assert!(answers.matches("HTTP/1.1 ").count() <= 1, "{attack:?}: {answers}");
    }
}

/// Sends each attack; it is refused or cut, and what stands behind it is not read any more.
async fn expect_refused(attacks: impl IntoIterator<Item = String>) {
    let mut scene = scene(&Upstream::start()).await;
    for attack in attacks {
        let answers = scene.attack(&attack).await;
        assert!(!answers.contains("HTTP/1.1 200"), "{attack:?}: {answers}");
        assert!(answers.matches("HTTP/1.1 ").count() <= 1, "{attack:?}: {answers}");
    }
}

/// What one reader takes for a framing field and another does not.
#[tokio::test]
async fn a_framing_field_in_disguise_hides_nothing() {
    let zero = format!("0\r\n\r\n{HIDDEN}");
    let (length, both) = (HIDDEN.len(), zero.len());
    let codings = [
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding: chunked\x0b",
        "Transfer-Encoding: \x0cchunked",
        "Transfer-Encoding: chunked\x00",
        "Transfer-Encoding: \u{a0}chunked",
        "Transfer-Encoding: ch\u{fc}nked",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: , chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: chunked chunked",
        "Transfer-Encoding: 'chunked'",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: chunked\rX: y",
        "Transfer-Encoding\x00: chunked",
        "Transfer-Encoding\u{a0}: chunked",
        "Transfer\u{2d}Encoding\t: chunked",
        "Transfer_Encoding: chunked",
        "\x0bTransfer-Encoding: chunked",
        " Transfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "X: y\n Transfer-Encoding: chunked",
        "X: y\r\n\tTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\n\tidentity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\ntransfer-encoding: chunked",
        "TRANSFER-ENCODING: CHUNKED\r\nTransfer-Encoding:",
    ];
    // Each beside a length that says otherwise, and alone.
    let beside = codings
        .map(|coding| format!("POST / HTTP/1.1\r\n{{H}}{coding}\r\nContent-Length: {both}\r\n\r\n{zero}"));
    let alone = codings.map(|coding| format!("POST / HTTP/1.1\r\n{{H}}{coding}\r\n\r\n{zero}"));
    let lengths = [
        format!("-{length}"),
        format!("{length}.0"),
        format!("{length}e0"),
        format!("0x{length:x}"),
        format!("{length},0"),
        format!("0,{length}"),
        format!("{length} 0"),
        format!("\x0b{length}"),
        format!("{length}\x00"),
        format!("\u{a0}{length}"),
        format!("{length}\r\n 0"),
        format!("{length}\rX: y"),
        format!("0\nContent-Length: {length}"),
        format!("0\r\ncontent-length: {length}"),
        format!("{length}\r\nContent-Length: {length}"),
        "18446744073709551615".to_owned() + "0",
        "\u{b2}".to_owned(),
        String::new(),
    ];
    let lengths =
        lengths.map(|length| format!("POST / HTTP/1.1\r\n{{H}}Content-Length: {length}\r\n\r\n{HIDDEN}"));
    Box::pin(expect_refused(beside.into_iter().chain(alone).chain(lengths))).await;
}

/// Chunks that end elsewhere for a reader that forgives, or counts on.
#[tokio::test]
async fn a_chunk_in_disguise_hides_nothing() {
    let length = HIDDEN.len();
    let sizes = [
        format!("+{length:x}"),
        format!("0x{length:x}"),
        format!("{length:x} "),
        format!(" {length:x}"),
        format!("\t{length:x}"),
        format!("{length:x}\t;x"),
        format!("{length:x}g"),
        format!("{length:x},"),
        format!("{length:x}\x00"),
        format!("{length:x}\r"),
        format!("{length:x};x\ry"),
        format!("{length:x};x=\"\n\""),
        format!("1_{length:x}"),
        format!("{}{length:x}", "0".repeat(16)),
        format!("1{length:0>16x}"),
        ";x".to_owned(),
        String::new(),
    ];
    let sizes = sizes.map(|size| format!("{size}\r\n{HIDDEN}\r\n0\r\n\r\n"));
    let others = [
        format!("1\r\nA\n0\r\n\r\n{HIDDEN}"),
        format!("1\r\nA\r0\r\n\r\n{HIDDEN}"),
        format!("1\rA\r\n0\r\n\r\n{HIDDEN}"),
        format!("1\r\nA\r\n\r\n0\r\n\r\n{HIDDEN}"),
        format!("1\r\n\r\n0\r\n\r\n{HIDDEN}"),
        format!("0\r\n\n{HIDDEN}"),
        format!("0\r\n\r{HIDDEN}"),
        format!("0\r\n\rX: y\r\n\r\n{HIDDEN}"),
        format!("0\r\nno colon\r\n\r\n{HIDDEN}"),
        format!("0\r\nX : y\r\n\r\n{HIDDEN}"),
        format!("0\r\n: y\r\n\r\n{HIDDEN}"),
        format!("0\r\nX: a\x00b\r\n\r\n{HIDDEN}"),
        format!("0\r\nX: y\rZ: a\r\n\r\n{HIDDEN}"),
    ];
    let bodies = sizes.into_iter().chain(others);
    let requests =
        bodies.map(|body| format!("POST / HTTP/1.1\r\n{{H}}Transfer-Encoding: chunked\r\n\r\n{body}"));
    Box::pin(expect_refused(requests)).await;
}

/// Sizes near the ends of integers: whoever counts in fewer bits finds the end of the chunk in what follows.
#[tokio::test]
async fn a_chunk_larger_than_any_integer_swallows_what_follows_it() {
    let mut scene = scene(&Upstream::start()).await;
    let attack = |size: &str| {
        format!("POST /big HTTP/1.1\r\n{{H}}Transfer-Encoding: chunked\r\n\r\n{size}\r\n{HIDDEN}")
    };
    for size in ["fffffffffffffff", "7ffffffffffffff", "800000000000000", "100000000", "80000000"] {
        scene.gateway.upstream.forget();
        let answers = scene.break_off(&attack(size)).await;
        assert!(!answers.contains("HTTP/1.1 200"), "{size}: {answers}");
    }
    for size in ["ffffffffffffffff", "fffffffffffffffe", "8000000000000000", "7fffffffffffffff"] {
        let answers = scene.attack(&attack(size)).await;
        assert!(
            answers.starts_with("HTTP/1.1 400 ") && answers.matches("HTTP/1.1 ").count() == 1,
            "{size}: {answers}"
        );
    }
}

#[tokio::test]
async fn framing_fields_in_a_trailer_frame_nothing() {
    let mut scene = scene(&Upstream::start()).await;
    for field in [
        format!("Content-Length: {}", HIDDEN.len()),
        "Transfer-Encoding: chunked".to_owned(),
        "Host: evil.example.com".to_owned(),
        "Connection: close".to_owned(),
        "Trailer: Content-Length".to_owned(),
        "Upgrade: h2c".to_owned(),
        "Expect: 100-continue".to_owned(),
        "Cookie: a=b".to_owned(),
    ] {
        scene.gateway.upstream.forget();
        let name = field.split(':').next().unwrap();
        let answers = scene
            .attack(&format!(
                "POST /a HTTP/1.1\r\n{{H}}TE: trailers\r\nTrailer: X-Kept, {name}\r\n\
                 Transfer-Encoding: chunked\r\n\r\n1\r\nA\r\n0\r\n{field}\r\nX-Kept: y\r\n\r\n"
            ))
            .await;
        assert!(answers.contains("the portal: POST /a"), "{field}: {answers}");
        let sent = &scene.gateway.upstream.requests()[0].content;
        let trailers = String::from_utf8_lossy(&sent.trailers).to_lowercase();
        assert_eq!((sent.body.as_slice(), trailers.as_str()), (b"A".as_slice(), "x-kept: y\r\n"), "{field}");
    }
}

#[tokio::test]
async fn chunk_extensions_stay_behind() {
    let portal = Upstream::scripted(async |mut exchange: Exchange| {
        if !exchange.target().starts_with("/raw") {
            return ordinary(exchange).await;
        }
        let raw = exchange.wire.read_until(b"0\r\n\r\n").await.ok()?;
        exchange.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", raw.len())).await?;
        exchange.write(raw).await?;
        Some(exchange)
    });
    let mut scene = scene(&portal).await;
    let answers = scene
        .attack(
            "POST /raw HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n\
             2;a=b\r\nhi\r\n002;c=\";\"\r\nho\r\n000;d\r\n\r\n",
        )
        .await;
    assert!(answers.contains("\r\n\r\n2\r\nhi\r\n2\r\nho\r\n0\r\n\r\n"), "{answers}");
}

#[tokio::test]
async fn a_request_within_a_body_stays_a_body() {
    let mut scene = scene(&Upstream::start()).await;
    let length = HIDDEN.len();
    for attack in [
        format!("POST /a HTTP/1.1\r\n{{H}}Content-Length: {length}\r\n\r\n{HIDDEN}"),
        format!("GET /a HTTP/1.1\r\n{{H}}Content-Length: {length}\r\n\r\n{HIDDEN}"),
        format!("DELETE /a HTTP/1.1\r\n{{H}}Content-Length: {length}\r\n\r\n{HIDDEN}"),
        format!(
            "GET /a HTTP/1.1\r\n{{H}}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n"
        ),
        format!(
            "OPTIONS /a HTTP/1.1\r\n{{H}}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n"
        ),
        format!(
            "POST /a HTTP/1.1\r\n{{H}}Transfer-Encoding: chunked\r\n\r\n{length:X};ext=\"a b\"\r\n{HIDDEN}\r\n00\r\n\r\n"
        ),
        format!("POST /a HTTP/1.1\r\n{{H}}Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"),
        format!(
            "POST /a HTTP/1.1\r\n{{H}}Connection: Content-Length\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"
        ),
        format!(
            "POST /a HTTP/1.1\r\n{{H}}Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n"
        ),
    ] {
        scene.gateway.upstream.forget();
        let answers = scene.attack(&attack).await;
        let seen = scene.gateway.upstream.requests();
        assert_eq!(String::from_utf8_lossy(&seen[0].content.body), HIDDEN, "{attack:?}: {answers}");
        assert_eq!(seen.len(), 2, "the attacker's and the innocent's: {seen:?}");
    }
}

#[tokio::test]
async fn bytes_behind_an_upgrade_that_the_portal_refused_are_no_request() {
    let mut scene = scene(&Upstream::start()).await;
    let session = scene.attacker.cookies();
    let hidden = format!("GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\nCookie: {session}\r\n\r\n");
    scene.gateway.upstream.forget();
    let answers = scene
        .attack(&format!(
            "GET /ws HTTP/1.1\r\n{{H}}Origin: https://{HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n{hidden}"
        ))
        .await;
    assert!(answers.contains("the portal: GET /ws"), "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
    assert_eq!(scene.gateway.upstream.requests().len(), 2);
}

#[tokio::test]
async fn an_upload_that_breaks_off_ends_its_connection_to_the_portal() {
    let mut scene = scene(&Upstream::start()).await;
    for framing in
        ["Content-Length: 1000\r\n\r\nGET /smug", "Transfer-Encoding: chunked\r\n\r\n3e8\r\nGET /smug"]
    {
        scene.gateway.upstream.forget();
        let answers = scene.break_off(&format!("POST /half HTTP/1.1\r\n{{H}}{framing}")).await;
        assert!(!answers.contains("HTTP/1.1 200"), "{answers}");
        let seen = scene.gateway.upstream.requests();
        let half = seen.iter().find(|request| request.first_line().contains("/half")).unwrap();
        let innocent = seen.iter().find(|request| request.first_line().contains("/innocent")).unwrap();
        assert_ne!(half.connection, innocent.connection);
        assert_eq!(half.content.body, b"", "it never ended");
    }
}
