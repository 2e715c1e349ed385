//! An attacker and an innocent share a connection to the portal. Whatever the attacker sends, the innocent gets, byte for
//! byte, what they would have got without.

mod answers;
mod early;
mod http1;
mod http2;
mod unread;

use crate::support::{Browser, HOST, RawConnection, TestGateway, Upstream, wire::Head};

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
        // Characters stand for bytes, so that an attack can have any.
        let bytes = bytes.replace("{H}", &fields);
        let bytes: Vec<u8> = bytes.chars().map(|byte| u8::try_from(u32::from(byte)).unwrap()).collect();
        self.attacker.raw(bytes).await
    }

    /// What came of an attack, whose answers are given, to everybody else.
    async fn outcome(&mut self, attack: &str, answers: &[u8]) -> String {
        self.innocent.assert_unharmed(attack).await;
        for request in self.gateway.upstream.requests() {
            let line = request.first_line();
            assert!(!line.contains("smuggled"), "{attack:?} became {line:?}");
            let framings =
                request.head.values("content-length").len() + request.head.values("transfer-encoding").len();
            assert!(framings <= 1, "{attack:?} became {:?}", request.head);
        }
        String::from_utf8_lossy(answers).into_owned()
    }
}
