//! An attacker and an innocent share a connection to the portal. Whatever the attacker sends, the innocent gets, byte for
//! byte, what they would have got without.

use http::StatusCode;

use crate::support::{
    Browser, Exchange, HOST, RawConnection, TestGateway, Upstream, upstream::ordinary, wire::Head,
};

/// What must never arrive at the portal, wherever it was hidden.
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: iot.example.com\r\n\r\n";

struct Scene {
    gateway: TestGateway,
    attacker: Browser,
    innocent: Innocent,
}

struct Innocent {
    connection: RawConnection,
    request: String,
    clean: (String, Vec<u8>),
}

impl Innocent {
    async fn ask(&mut self) -> (String, Vec<u8>) {
        self.connection.send(&self.request).await;
        let head = self.connection.head().await.expect("the innocent's connection stays open");
        let content = self.connection.wire.read_content(&head, false).await.unwrap();
        (without_date(&head), content.body)
    }

    async fn assert_unharmed(&mut self, attack: &str) {
        let got = self.ask().await;
        assert_eq!(got, self.clean, "after {attack:?}");
    }
}

fn without_date(head: &Head) -> String {
    String::from_utf8_lossy(&head.0)
        .lines()
        .filter(|line| !line.to_lowercase().starts_with("date:"))
        .collect()
}

async fn scene(portal: &Upstream) -> Scene {
    let (gateway, attacker) = TestGateway::builder().upstream(portal).start().await;
    gateway.add_user("eve@example.com").await;
    gateway.add_user("ada@example.com").await;
    attacker.log_in("eve@example.com").await;
    let browser = gateway.browser();
    browser.log_in("ada@example.com").await;
    let request = format!("GET /innocent HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\n\r\n", browser.cookies());
    let mut innocent =
        Innocent { connection: browser.raw_connection().await, request, clean: (String::new(), Vec::new()) };
    innocent.clean = innocent.ask().await;
    assert!(innocent.clean.0.starts_with("HTTP/1.1 200 OK"), "{:?}", innocent.clean);
    Scene { gateway, attacker, innocent }
}

impl Scene {
    /// Sends one attack to the end of its connection, then lets the innocent ask again.
    async fn attack(&mut self, bytes: &str) -> String {
        // What follows in good faith shows where the gateway believes the attack to end.
        let behind = format!("GET /behind HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        let mut connection = self.send(&format!("{bytes}{behind}")).await;
        self.outcome(bytes, &connection.rest().await).await
    }

    /// Sends the beginning of something and hangs up.
    async fn break_off(&mut self, bytes: &str) -> String {
        let mut connection = self.send(bytes).await;
        self.gateway.upstream.arrived(1).await;
        connection.wire.finish().await.unwrap();
        self.outcome(bytes, &connection.rest().await).await
    }

    async fn send(&self, bytes: &str) -> RawConnection {
        let fields = format!("Host: {HOST}\r\nCookie: {}\r\n", self.attacker.cookies());
        self.attacker.raw(bytes.replace("{H}", &fields)).await
    }

    async fn outcome(&mut self, attack: &str, answers: &[u8]) -> String {
        self.innocent.assert_unharmed(attack).await;
        for request in self.gateway.upstream.requests() {
            let line = request.first_line();
            assert!(!line.contains("smuggled"), "{attack:?} became {line:?}");
        }
        String::from_utf8_lossy(answers).into_owned()
    }
}

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

#[tokio::test]
async fn a_request_within_a_body_stays_a_body() {
    let mut scene = scene(&Upstream::start()).await;
    let length = HIDDEN.len();
    for attack in [
        format!("POST /a HTTP/1.1\r\n{{H}}Content-Length: {length}\r\n\r\n{HIDDEN}"),
        format!("GET /a HTTP/1.1\r\n{{H}}Content-Length: {length}\r\n\r\n{HIDDEN}"),
        format!("DELETE /a HTTP/1.1\r\n{{H}}Content-Length: {length}\r\n\r\n{HIDDEN}"),
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
