//! A portal whose answers are more, or less, than one answer.

use super::scene;
use crate::support::{Exchange, Upstream, upstream::ordinary};

/// A portal that says more than it was asked.
#[tokio::test]
async fn what_the_portal_says_beyond_an_answer_is_nobodys() {
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let portal = Upstream::scripted(async move |mut exchange: Exchange| {
        let extra = match exchange.target().as_str() {
            "/two-answers" => format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{poison}"),
            "/too-long" => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more".to_owned(),
            "/head" => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{poison}", poison.len()),
            "/no-content" => format!("HTTP/1.1 204 No Content\r\n\r\n{poison}"),
            "/not-modified" => {
                format!("HTTP/1.1 304 Not Modified\r\nContent-Length: {}\r\n\r\n{poison}", poison.len())
            }
            "/after-chunks" => {
                format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{poison}")
            }
            _ => return ordinary(exchange).await,
        };
        exchange.write(extra).await?;
        Some(exchange)
    });
    let mut scene = scene(&portal).await;
    for (method, path) in [
        ("GET", "/two-answers"),
        ("GET", "/too-long"),
        ("HEAD", "/head"),
        ("GET", "/no-content"),
        ("GET", "/not-modified"),
        ("GET", "/after-chunks"),
    ] {
        for _ in 0..10 {
            let answers = scene.attack(&format!("{method} {path} HTTP/1.1\r\n{{H}}\r\n")).await;
            assert!(!answers.contains("poison"), "{path}: {answers}");
        }
    }
}

/// An answer whose own framing is ambiguous is none.
#[tokio::test]
async fn an_answer_that_can_be_read_in_two_ways_is_not_passed_on() {
    let portal = Upstream::scripted(async |mut exchange: Exchange| {
        let answer = match exchange.target().as_str() {
            "/lengths" => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\noks",
            "/list" => "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\noks",
            "/sign" => "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
            "/no-number" => "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok",
            "/coding" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked, gzip\r\n\r\nok",
            "/junk" => "junk\r\n\r\n",
            "/version" => "HTTP/3.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            _ => return ordinary(exchange).await,
        };
        exchange.write(answer).await?;
        None
    });
    let mut scene = scene(&portal).await;
    for path in ["/lengths", "/list", "/sign", "/no-number", "/junk", "/version"] {
        let answers = scene.attack(&format!("GET {path} HTTP/1.1\r\n{{H}}\r\n")).await;
        assert!(answers.starts_with("HTTP/1.1 502 "), "{path}: {answers}");
    }
    // Without a last chunk, such a body lasts until the connection ends, and the client is told so in its own framing.
    let answers = scene.attack("GET /coding HTTP/1.1\r\n{H}\r\n").await;
    assert!(answers.starts_with("HTTP/1.1 200 ") || answers.starts_with("HTTP/1.1 502 "), "{answers}");
}
