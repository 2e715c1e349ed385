//! Requests of HTTP/2 that would be another, or two, once they are written down as HTTP/1.

use super::{HIDDEN, Scene, scene};
use crate::support::{
    HOST, Upstream,
    forged::{Forgery, owned},
};

/// An ordinary upload with some of its fields replaced, and others behind them.
fn upload(scene: &Scene, changes: &[(&str, &str)], body: &str, trailers: &[(&str, &str)]) -> Forgery {
    let cookies = scene.attacker.cookies();
    let ordinary = [(":method", "POST"), (":scheme", "https"), (":authority", HOST), (":path", "/h2")];
    let mut fields = owned(&ordinary);
    fields.push(("cookie".to_owned(), cookies));
    for (name, value) in changes {
        match fields.iter_mut().find(|(known, _)| name.starts_with(':') && known == name) {
            Some(field) => (*value).clone_into(&mut field.1),
            None => fields.push(((*name).to_owned(), (*value).to_owned())),
        }
    }
    Forgery { fields, body: Some(body.to_owned()), trailers: owned(trailers) }
}

impl Scene {
    /// Sends a forgery; whatever arrives of it at the portal, and arrives whole, is the one upload with its body.
    async fn forge(&mut self, forgery: &Forgery) -> String {
        self.gateway.upstream.forget();
        let answer = self.attacker.forge(forgery).await;
        let shown = format!(
            "{:?} {:?} {:?}: {answer:?}",
            &forgery.fields[..4],
            &forgery.fields[5..],
            forgery.trailers
        );
        self.outcome(&shown, b"").await;
        for request in self.gateway.upstream.requests() {
            let body = String::from_utf8_lossy(&request.content.body);
            let innocent = request.first_line() == "GET /innocent HTTP/1.1";
            let whole =
                Some(&*body) == forgery.body.as_deref() && request.first_line().ends_with("/h2 HTTP/1.1");
            let broken_off = body.is_empty();
            assert!(innocent || whole || broken_off, "{shown} became {request:?}");
        }
        shown
    }
}

#[tokio::test]
async fn a_body_of_http_2_is_a_body() {
    let mut scene = scene(&Upstream::start()).await;
    let length = HIDDEN.len().to_string();
    for (method, length) in
        [("POST", None), ("POST", Some(&*length)), ("GET", None), ("DELETE", Some(&*length))]
    {
        let mut changes = vec![(":method", method)];
        changes.extend(length.map(|length| ("content-length", length)));
        let shown = scene.forge(&upload(&scene, &changes, HIDDEN, &[])).await;
        let seen = scene.gateway.upstream.requests();
        assert_eq!(String::from_utf8_lossy(&seen[0].content.body), HIDDEN, "{shown}");
    }
}

#[tokio::test]
async fn a_length_of_http_2_that_is_not_that_of_its_body_hides_nothing() {
    let mut scene = scene(&Upstream::start()).await;
    let (length, more) = (HIDDEN.len().to_string(), (HIDDEN.len() + 1).to_string());
    let edges = [format!(" {length}"), format!("{length}\t"), format!("+{length}"), format!("0x{length}")];
    let mut lengths: Vec<&str> = edges.iter().map(String::as_str).collect();
    lengths.extend(["0", "1", &more, "18446744073709551616", "", "x"]);
    for claimed in lengths {
        scene.forge(&upload(&scene, &[("content-length", claimed)], HIDDEN, &[])).await;
    }
    let mut bodiless = upload(&scene, &[("content-length", &length)], "", &[]);
    bodiless.body = None;
    scene.forge(&bodiless).await;
    assert_eq!(scene.gateway.upstream.requests().len(), 1, "the innocent's alone");
    for (first, second) in [("0", &*length), (&*length, "0"), (&*length, &*length)] {
        scene
            .forge(&upload(&scene, &[("content-length", first), ("content-length", second)], HIDDEN, &[]))
            .await;
    }
}

#[tokio::test]
async fn a_field_of_http_2_never_becomes_framing() {
    let mut scene = scene(&Upstream::start()).await;
    let zero = format!("0\r\n\r\n{HIDDEN}");
    let behind = format!("a\r\n\r\n{HIDDEN}");
    for field in [
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("transfer-encoding", " chunked"),
        ("Transfer-Encoding", "chunked"),
        ("transfer-encoding ", "chunked"),
        (" transfer-encoding", "chunked"),
        ("transfer_encoding", "chunked"),
        ("transfer-encoding: chunked\r\nx", "y"),
        ("x: y\r\ntransfer-encoding", "chunked"),
        ("x", "y\r\ntransfer-encoding: chunked"),
        ("x", "y\ntransfer-encoding: chunked"),
        ("x", "y\rtransfer-encoding: chunked"),
        ("x", "y\0z"),
        ("x", "y\r"),
        ("x", "\ny"),
        ("x", &*behind),
        ("", "transfer-encoding: chunked"),
        ("", ""),
        (":", "x"),
        ("x:", "y"),
        ("connection", "transfer-encoding"),
        ("connection", "keep-alive, content-length"),
        ("proxy-connection", "keep-alive"),
        ("upgrade", "h2c"),
        ("te", "chunked"),
        ("expect", "100-continue\r\n"),
        ("host", "iot.example.com\r\ntransfer-encoding: chunked"),
        ("cookie", "a=b\r\ntransfer-encoding: chunked"),
    ] {
        scene.forge(&upload(&scene, &[field], &zero, &[])).await;
    }
}

#[tokio::test]
async fn a_pseudo_field_never_becomes_a_line() {
    let mut scene = scene(&Upstream::start()).await;
    let two = format!("/ HTTP/1.1\r\nHost: {HOST}\r\n\r\nGET /smuggled");
    let method = format!("GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\nPOST");
    let authority = format!("{HOST}\r\n\r\n{HIDDEN}");
    for change in [
        (":path", &*two),
        (":path", "/h2 HTTP/1.1\r\ntransfer-encoding: chunked\r\nx: y"),
        (":path", "/h2\nx: y"),
        (":path", "/smuggled HTTP/1.1"),
        (":path", "/h2\0"),
        (":path", "smuggled"),
        (":path", ""),
        (":path", "*"),
        (":method", &*method),
        (":method", "GET /smuggled"),
        (":method", "GET\t/smuggled"),
        (":method", ""),
        (":authority", &*authority),
        (":authority", "iot.example.com\r\ntransfer-encoding: chunked"),
        (":authority", "iot.example.com/smuggled"),
        (":authority", " iot.example.com"),
        (":scheme", "https://iot.example.com/smuggled?"),
        (":scheme", "http"),
        (":status", "200"),
        (":protocol", "websocket"),
        (":smuggled", "x"),
    ] {
        scene.forge(&upload(&scene, &[change], HIDDEN, &[])).await;
    }
}

#[tokio::test]
async fn a_trailer_of_http_2_frames_nothing() {
    let mut scene = scene(&Upstream::start()).await;
    for trailer in [
        ("content-length", "1000"),
        ("transfer-encoding", "chunked"),
        ("host", "evil.example.com"),
        ("connection", "close"),
        ("x", "y\r\n\r\nGET /smuggled HTTP/1.1"),
        ("x\r\n\r\nget /smuggled http/1.1\r\ny", "z"),
        (":path", "/smuggled"),
        ("Upper", "x"),
        ("x\"y", "z"),
        ("", "x"),
    ] {
        scene.forge(&upload(&scene, &[("trailer", trailer.0.trim())], "A", &[trailer])).await;
        let kept = scene.gateway.upstream.requests();
        let trailers: Vec<_> = kept.iter().map(|request| &request.content.trailers).collect();
        assert!(trailers.iter().all(|trailers| trailers.is_empty()), "{trailer:?}: {trailers:?}");
    }
}
