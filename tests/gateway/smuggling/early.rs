//! Answers that come before the body of their request has been read: by the gateway, and by the portal.

use http::StatusCode;

use super::scene;
use crate::support::{Exchange, HOST, Upstream, upstream::ordinary};

#[tokio::test]
async fn a_body_that_was_not_read_is_never_taken_for_a_request() {
    let mut scene = scene(&Upstream::start()).await;
    let session = scene.attacker.cookies();
    let hidden = format!("GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\nCookie: {session}\r\n\r\n");
    let large = hidden.repeat(1_000_000 / hidden.len());
    for body in [hidden, large] {
        let length = body.len();
        for (start, status) in [
            // Answered at once, without looking at the body: no session, a foreign path, our own pages.
            (format!("POST /x HTTP/1.1\r\nHost: {HOST}\r\n"), "401"),
            (format!("POST /x HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/html\r\n"), "303"),
            (format!("POST /x HTTP/1.1\r\nHost: evil.example.com\r\nCookie: {session}\r\n"), "421"),
            (format!("POST /.portcullis/none HTTP/1.1\r\nHost: {HOST}\r\nCookie: {session}\r\n"), "404"),
            (
                format!("POST /.portcullis/login HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: text/plain\r\n"),
                "415",
            ),
            (format!("PUT /.portcullis/login HTTP/1.1\r\nHost: {HOST}\r\n"), "405"),
        ] {
            scene.gateway.upstream.forget();
            let answers = scene.attack(&format!("{start}Content-Length: {length}\r\n\r\n{body}")).await;
            assert!(answers.starts_with(&format!("HTTP/1.1 {status} ")), "{start:?}: {answers}");
            // The one in good faith behind it may be answered too, when the body could be skipped; nothing else may.
            let count = answers.matches("HTTP/1.1 ").count();
            assert!(count <= 2, "{start:?}: {count} answers: {answers}");
            assert_eq!(scene.gateway.upstream.requests().len(), 1, "the innocent's alone");
        }
    }
}

/// The body comes once the answer is there, as from a client that reads and writes at once.
#[tokio::test]
async fn a_body_that_comes_after_its_answer_is_never_taken_for_a_request() {
    let mut scene = scene(&Upstream::start()).await;
    let session = scene.attacker.cookies();
    let hidden = format!("GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\nCookie: {session}\r\n\r\n");
    let large = hidden.repeat(1_000_000 / hidden.len());
    for hidden in [&hidden, &large] {
        let chunk = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
        let length = format!("Content-Length: {}", hidden.len());
        for (framing, body) in [(&*length, hidden), ("Transfer-Encoding: chunked", &chunk)] {
            for (start, status) in [
                (format!("POST /x HTTP/1.1\r\nHost: {HOST}\r\n"), 401),
                (format!("POST /x HTTP/1.1\r\nHost: evil.example.com\r\nCookie: {session}\r\n"), 421),
                (format!("POST /a/../x HTTP/1.1\r\nHost: {HOST}\r\nCookie: {session}\r\n"), 400),
                (format!("TRACE /x HTTP/1.1\r\nHost: {HOST}\r\nCookie: {session}\r\n"), 405),
                (format!("POST /x HTTP/1.1\r\nHost: {HOST}\r\nCookie: {session}\r\nExpect: x\r\n"), 417),
                (format!("GET /.portcullis/login HTTP/1.1\r\nHost: {HOST}\r\n"), 200),
                (format!("POST /.portcullis/none HTTP/1.1\r\nHost: {HOST}\r\nCookie: {session}\r\n"), 404),
            ] {
                scene.gateway.upstream.forget();
                let attack = format!("{start}{framing}\r\n\r\n");
                let mut connection = scene.attacker.raw(&attack).await;
                let answer = connection.answer().await;
                assert_eq!(answer.status.as_u16(), status, "{attack:?}: {answer:?}");
                connection.send(body).await;
                let behind = format!("GET /behind HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
                connection.send(behind).await;
                let answers = scene.outcome(&attack, &connection.rest().await).await;
                assert!(answers.matches("HTTP/1.1 ").count() <= 1, "{attack:?}: {answers}");
                assert_eq!(scene.gateway.upstream.requests().len(), 1, "{attack:?}: the innocent's alone");
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_is_malformed_from_its_start_keeps_its_request_from_the_portal() {
    let scene = scene(&Upstream::start()).await;
    scene.gateway.upstream.forget();
    for chunk in ["x\r\n", "1 \r\na\r\n", "1\na", "-1\r\n"] {
        let attack = format!("POST /x HTTP/1.1\r\n{{H}}Transfer-Encoding: chunked\r\n\r\n{chunk}");
        let mut connection = scene.send(&attack).await;
        assert_eq!(connection.answer().await.status, StatusCode::BAD_REQUEST, "{chunk:?}");
        assert!(connection.rest().await.is_empty());
    }
    assert_eq!(scene.gateway.upstream.bytes(), 0);
}

#[tokio::test]
async fn a_short_body_goes_on_together_with_its_head() {
    let portal = Upstream::scripted(async |mut exchange: Exchange| {
        let together = exchange.wire.buffered().len();
        exchange.read_content().await.ok()?;
        exchange.write(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{together:02}")).await?;
        Some(exchange)
    });
    let scene = scene(&portal).await;
    for (framing, body, length) in
        [("Content-Length: 5", "hello", "05"), ("Transfer-Encoding: chunked", "1\r\na\r\n0\r\n\r\n", "11")]
    {
        let mut connection = scene.send(&format!("POST /x HTTP/1.1\r\n{{H}}{framing}\r\n\r\n{body}")).await;
        assert_eq!(connection.answer().await.text(), length);
    }
}

/// The portal is gone before it has read the body: the gateway's answer comes early too.
#[tokio::test]
async fn a_body_that_the_portal_left_unread_is_never_taken_for_a_request() {
    let portal = Upstream::scripted(async |exchange: Exchange| match exchange.target().as_str() {
        "/gone" => None,
        _ => ordinary(exchange).await,
    });
    let mut scene = scene(&portal).await;
    let session = scene.attacker.cookies();
    let hidden = format!("GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\nCookie: {session}\r\n\r\n");
    for body in [hidden.clone(), hidden.repeat(1_000_000 / hidden.len())] {
        for _ in 0..3 {
            let length = body.len();
            let answers = scene
                .attack(&format!("POST /gone HTTP/1.1\r\n{{H}}Content-Length: {length}\r\n\r\n{body}"))
                .await;
            // A client that is still writing when it is cut may lose even the answer.
            assert!(answers.is_empty() || answers.starts_with("HTTP/1.1 502 "), "{answers}");
        }
    }
}

#[tokio::test]
async fn a_portal_that_answers_before_an_upload_ended_does_not_mix_up_the_next_request() {
    let portal = Upstream::scripted(async |mut exchange: Exchange| {
        if exchange.target() != "/early" {
            return ordinary(exchange).await;
        }
        exchange.write("HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nlong").await?;
        // As a proper server does, it reads on until the body ends or breaks off.
        exchange.read_content().await.ok()?;
        Some(exchange)
    });
    let mut scene = scene(&portal).await;
    let cookies = scene.attacker.cookies();
    let request = format!(
        "POST /early HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookies}\r\nContent-Length: 1000\r\n\r\nhalf"
    );
    let mut connection = scene.attacker.raw(request).await;
    let answer = connection.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "long"));
    scene.innocent.assert_unharmed("an answer before the upload's end").await;
    drop(connection);
    scene.innocent.assert_unharmed("an upload that broke off after its answer").await;
    let seen = scene.gateway.upstream.requests();
    assert!(seen.iter().all(|request| !request.first_line().contains("half")), "{seen:?}");
}
