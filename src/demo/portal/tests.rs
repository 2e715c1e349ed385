//! The portal over a real socket, as browsers and programs see it.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_tungstenite::{client_async, tungstenite::Message};
use tokio_util::sync::CancellationToken;

use super::*;

/// A portal on its own port.
struct TestPortal {
    address: std::net::SocketAddr,
    shutdown: CancellationToken,
    serving: JoinHandle<io::Result<()>>,
}

impl TestPortal {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, shutdown.clone()));
        Self { address, shutdown, serving }
    }

    async fn send(&self, request: http::request::Builder, body: impl Into<Bytes>) -> Response<Incoming> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = request.header(header::HOST, "portal.test").body(Full::new(body.into())).unwrap();
        sender.send_request(request).await.unwrap()
    }

    /// The page that a browser gets.
    async fn page(&self, path: &str) -> String {
        let answer = self.send(Request::get(path).header(header::ACCEPT, "text/html"), "").await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        text(answer).await
    }

    async fn json(&self, path: &str) -> Value {
        let answer = self.send(Request::get(path), "").await;
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json");
        serde_json::from_str(&text(answer).await).unwrap()
    }

    async fn post(&self, path: &str, form: &'static str) -> Response<Incoming> {
        let request = Request::post(path)
            .header(header::ACCEPT, "text/html")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.send(request, form).await
    }

    async fn first_iccid(&self) -> String {
        self.json("/api/sims").await[0]["iccid"].as_str().unwrap().to_owned()
    }
}

async fn text(answer: Response<Incoming>) -> String {
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().into()).unwrap()
}

#[tokio::test]
async fn every_page_shows_who_is_signed_in() {
    let portal = TestPortal::start().await;
    let sim = format!("/sims/{}", portal.first_iccid().await);
    for path in ["/", "/sims", &sim, "/live", "/events", "/upload", "/preferences"] {
        let request = Request::get(path).header("remote-user", "ada").header("remote-name", "Ada <Lovelace>");
        let page = text(portal.send(request, "").await).await;
        assert!(page.contains("Signed in as <strong>Ada &lt;Lovelace&gt;</strong>"), "{path}: {page}");
        assert!(portal.page(path).await.contains("Not signed in"), "{path}");
    }
}

#[tokio::test]
async fn a_search_lists_only_what_matches_and_is_remembered_in_the_portals_own_cookie() {
    let portal = TestPortal::start().await;
    let answer =
        portal.send(Request::get("/sims?q=camera+Porto").header(header::ACCEPT, "text/html"), "").await;
    let cookie = answer.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
    assert_eq!(cookie, "northline_session=theme=auto&search=camera+Porto; Path=/; HttpOnly; SameSite=Lax");
    let page = text(answer).await;
    assert!(page.contains("Yard camera Porto") && !page.contains("Water meter"), "{page}");

    let pair = cookie.split(';').next().unwrap().to_owned();
    let answer = portal.send(Request::get("/sims").header(header::COOKIE, pair), "").await;
    assert!(!answer.headers().contains_key(header::SET_COOKIE), "nothing changed, so nothing is set");
    assert!(text(answer).await.contains(r#"<a href="/sims?q=camera+Porto">camera Porto</a>"#));
    assert_eq!(portal.json("/api/sims").await.as_array().unwrap().len(), 60);
    assert!(portal.page("/sims?q=nowhere").await.contains("No SIM contains"));
}

#[tokio::test]
async fn a_posted_rename_sends_the_browser_back_to_the_sim() {
    let portal = TestPortal::start().await;
    let iccid = portal.first_iccid().await;
    let answer = portal.post(&format!("/sims/{iccid}"), "action=rename&name=Pump+%C3%A5+1").await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    assert_eq!(answer.headers()[header::LOCATION], format!("/sims/{iccid}"));
    assert_eq!(portal.json(&format!("/api/sims/{iccid}")).await["name"], "Pump å 1");
}

#[tokio::test]
async fn a_sim_can_be_suspended_and_activated() {
    let portal = TestPortal::start().await;
    let path = format!("/sims/{}", portal.first_iccid().await);
    for (form, status) in [("action=suspend", "suspended"), ("action=activate", "active")] {
        assert_eq!(portal.post(&path, form).await.status(), StatusCode::SEE_OTHER);
        assert_eq!(portal.json(&format!("/api{path}")).await["status"], status);
    }
}

#[tokio::test]
async fn a_hostile_sim_name_is_shown_as_text() {
    let portal = TestPortal::start().await;
    let path = format!("/sims/{}", portal.first_iccid().await);
    let hostile = "action=rename&name=%22%3E%3Cscript%3Ealert(1)%3C/script%3E%27%26";
    assert_eq!(portal.post(&path, hostile).await.status(), StatusCode::SEE_OTHER);
    for path in [path.as_str(), "/sims", "/sims?q=%22%3E%3Cscript%3E", "/"] {
        let page = portal.page(path).await;
        assert!(!page.contains("<script>alert"), "{path}: {page}");
        assert!(path == "/" || page.contains("&quot;&gt;&lt;script&gt;"), "{path}: {page}");
    }
}

#[tokio::test]
async fn refusals_have_their_status_and_suit_who_asks() {
    let portal = TestPortal::start().await;
    let sim = format!("/sims/{}", portal.first_iccid().await);
    for (path, form, status) in [
        (sim.as_str(), "action=explode", StatusCode::BAD_REQUEST),
        ("/sims/1", "action=activate", StatusCode::NOT_FOUND),
        ("/live", "", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let answer = portal.post(path, form).await;
        assert_eq!(answer.status(), status, "{path}");
        assert!(text(answer).await.starts_with("<!doctype html>"), "{path}");
    }
    let answer = portal.send(Request::get("/api/sims/1"), "").await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert_eq!(text(answer).await, r#"{"error":"There is no such page or SIM."}"#);
    let answer = portal.send(Request::post(&sim), vec![b'a'; LARGEST_FORM + 1]).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let answer = portal.send(Request::delete("/sims"), "").await;
    assert_eq!(answer.headers()[header::ALLOW], "GET, HEAD");
}

#[tokio::test]
async fn whoami_and_echo_show_the_identity_that_arrived() {
    let portal = TestPortal::start().await;
    let request = || {
        Request::get("/api/whoami")
            .header("remote-user", "ada@example.com")
            .header("remote-email", "ada@example.com")
            .header("remote-groups", "ops,billing")
    };
    let who: Value = serde_json::from_str(&text(portal.send(request(), "").await).await).unwrap();
    let expected = json!({"user": "ada@example.com", "email": "ada@example.com", "name": null, "groups": ["ops", "billing"]});
    assert_eq!(who, expected);

    let request = request().uri("/echo/a?b=c").method("PUT").header(header::COOKIE, "a=1");
    let head: Value = serde_json::from_str(&text(portal.send(request, "body").await).await).unwrap();
    assert_eq!((&head["method"], &head["target"]), (&json!("PUT"), &json!("/echo/a?b=c")));
    let headers = head["headers"].as_array().unwrap();
    assert!(headers.contains(&json!(["remote-user", "ada@example.com"])), "{head}");
    assert!(headers.contains(&json!(["cookie", "a=1"])), "{head}");
}

#[tokio::test]
async fn a_theme_is_kept_in_the_cookie() {
    let portal = TestPortal::start().await;
    let answer = portal.post("/preferences", "theme=dark").await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    let cookie = answer.headers()[header::SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    let page = text(portal.send(Request::get("/").header(header::COOKIE, cookie), "").await).await;
    assert!(page.contains(r#"<html lang="en" data-theme="dark">"#), "{page}");
}

#[tokio::test]
async fn a_websocket_sends_samples_and_obeys_the_filter() {
    let portal = TestPortal::start().await;
    let stream = TcpStream::connect(portal.address).await.unwrap();
    let (mut socket, _) = client_async("ws://portal.test/ws/usage", stream).await.unwrap();
    let sample = |message: Message| serde_json::from_str::<Value>(message.to_text().unwrap()).unwrap();
    let first = sample(socket.next().await.unwrap().unwrap());
    assert_eq!(first["tick"], 0);
    assert_eq!(first["sims"].as_array().unwrap().len(), 12);

    socket.send(Message::text("camera Brno")).await.unwrap();
    let found = loop {
        let sample = sample(socket.next().await.unwrap().unwrap());
        if sample["sims"].as_array().unwrap().len() == 1 {
            break sample;
        }
    };
    assert_eq!(found["sims"][0]["name"], "Yard camera Brno");

    portal.shutdown.cancel();
    let last = loop {
        if let Message::Close(frame) = socket.next().await.unwrap().unwrap() {
            break frame.unwrap();
        }
    };
    assert_eq!(u16::from(last.code), 1001);
}

#[tokio::test]
async fn a_request_that_is_no_websocket_handshake_is_refused_there() {
    let portal = TestPortal::start().await;
    let answer = portal.send(Request::get("/ws/usage"), "").await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_event_arrives_while_the_stream_is_open_and_the_stream_ends_with_the_portal() {
    let portal = TestPortal::start().await;
    let answer = portal.send(Request::get("/sse/usage"), "").await;
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/event-stream");
    let mut body = answer.into_body();
    let event = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(event.starts_with(b"event: usage\nid: 0\ndata: {\"tick\":0,"), "{event:?}");
    assert!(event.ends_with(b"}\n\n"));

    portal.shutdown.cancel();
    while let Some(frame) = body.frame().await {
        frame.unwrap();
    }
    portal.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_upload_of_five_megabytes_is_counted_and_hashed() {
    let portal = TestPortal::start().await;
    let file = vec![b'a'; 5_000_000];
    // The output of `head -c 5000000 /dev/zero | tr '\0' a | sha256sum`.
    let sha256 = "7f4a285193573e707fcb6398222c00f044745cd2930e41d28d30da87d6ca183f";
    let answer = portal.send(Request::post("/upload"), file.clone()).await;
    let receipt: Value = serde_json::from_str(&text(answer).await).unwrap();
    assert_eq!(receipt, json!({"file_name": null, "bytes": 5_000_000, "sha256": sha256}));

    let mut form =
        b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"<a>.bin\"\r\n\r\n".to_vec();
    form.extend_from_slice(&file);
    form.extend_from_slice(b"\r\n--b--\r\n");
    let request = Request::post("/upload")
        .header(header::ACCEPT, "text/html")
        .header(header::CONTENT_TYPE, "multipart/form-data; boundary=b");
    let page = text(portal.send(request, form).await).await;
    assert!(page.contains("5000000 bytes (5.0 MB)") && page.contains(sha256), "{page}");
    assert!(page.contains("&lt;a&gt;.bin"), "{page}");
}

#[tokio::test]
async fn a_download_has_the_length_asked_for() {
    let portal = TestPortal::start().await;
    let answer = portal.send(Request::get("/download?bytes=3000001"), "").await;
    assert_eq!(answer.headers()[header::CONTENT_LENGTH], "3000001");
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len(), 3_000_001);

    for (path, length) in [("/download", "104857600"), ("/download?bytes=17179869184", "17179869184")] {
        let answer = portal.send(Request::head(path), "").await;
        assert_eq!(answer.headers()[header::CONTENT_LENGTH], length);
    }
    let answer = portal.send(Request::get("/download?bytes=17179869185"), "").await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_slow_answer_takes_its_time() {
    let portal = TestPortal::start().await;
    let asked = tokio::time::Instant::now();
    assert_eq!(portal.json("/slow?ms=30").await, json!({"waited_ms": 30}));
    assert!(asked.elapsed() >= Duration::from_millis(30));
}

#[tokio::test]
async fn assets_are_served_and_nothing_else() {
    let portal = TestPortal::start().await;
    assert!(portal.page("/assets/style.css").await.contains("--accent"));
    let answer = portal.send(Request::get("/assets/..%2fmod.rs"), "").await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
}
