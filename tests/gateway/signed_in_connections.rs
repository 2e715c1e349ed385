//! Portals that sign in a connection and not a request (NTLM, Negotiate): it is one client's, and nobody else's.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use tokio::net::TcpListener;

use crate::support::{
    Browser, HOST, RawConnection, TestGateway, Upstream, logged_in, soon, two_logged_in, wire::Wire,
};

/// A portal that asks for such a sign-in, and believes a connection from then on. Says how many are somebody's.
fn portal(challenge: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let open = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&open);
    tokio::spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        while let Ok((socket, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut user = None;
                let _ = serve(Wire::new(socket), challenge, &mut user, &counted).await;
                if user.is_some() {
                    counted.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
    (url, open)
}

/// First `SCHEME hello`, then on the same connection `SCHEME name`, and the connection is theirs.
async fn serve(
    mut wire: Wire,
    challenge: &str,
    user: &mut Option<String>,
    counted: &AtomicUsize,
) -> std::io::Result<()> {
    let mut greeted = false;
    while let Some(head) = wire.read_head().await? {
        wire.read_content(&head, false).await?;
        let credentials = head.values("authorization");
        let word = credentials.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
        if head.first_line().contains("/open") {
            wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nopen").await?;
            continue;
        }
        match word {
            "hello" => greeted = true,
            "" => {}
            name if greeted => {
                let is_new = user.replace(name.to_owned()).is_none();
                counted.fetch_add(usize::from(is_new), Ordering::SeqCst);
            }
            _ => {}
        }
        let answer = match user {
            Some(user) => {
                let text = format!("the page of {user}");
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
            }
            None => format!("HTTP/1.1 401 Unauthorized\r\n{challenge}\r\nContent-Length: 0\r\n\r\n"),
        };
        wire.write(answer.as_bytes()).await?;
    }
    Ok(())
}

/// One client's connection to the gateway.
struct Client {
    connection: RawConnection,
    cookies: String,
}

impl Client {
    async fn of(browser: &Browser) -> Self {
        Self { connection: browser.raw_connection().await, cookies: browser.cookies() }
    }

    async fn ask(&mut self, path: &str, fields: &str) -> (StatusCode, String) {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\n{fields}\r\n", self.cookies);
        self.connection.send(request).await;
        let answer = self.connection.answer().await;
        (answer.status, answer.text())
    }

    async fn sign_in(&mut self, scheme: &str, name: &str) {
        assert_eq!(self.ask("/", "").await.0, StatusCode::UNAUTHORIZED);
        let hello = format!("Authorization: {scheme} hello\r\n");
        assert_eq!(self.ask("/", &hello).await.0, StatusCode::UNAUTHORIZED);
        let name_it = format!("Authorization: {scheme} {name}\r\n");
        assert_eq!(self.ask("/", &name_it).await, (StatusCode::OK, format!("the page of {name}")));
    }
}

async fn ada_and_eve(url: &str, settings: &[(&str, &str)]) -> (TestGateway, Browser, Browser) {
    let mut builder = TestGateway::builder().upstream_url(url);
    for (key, value) in settings {
        builder = builder.set(key, value);
    }
    two_logged_in(builder).await
}

#[tokio::test]
async fn who_signs_in_on_a_connection_has_it_alone_whatever_the_scheme_is_called() {
    for (scheme, challenge) in [
        ("NTLM", "WWW-Authenticate: NTLM"),
        ("negotiate", "www-authenticate: Negotiate"),
        ("Kerberos", "WWW-Authenticate: Basic realm=\"a, b\", kerberos"),
        ("nTLM", "WWW-Authenticate: Basic realm=x\r\nWWW-Authenticate: ntlm"),
        ("Negotiate", "Proxy-Authenticate: Negotiate"),
        // Nothing but the request says so.
        ("NTLM", "X-None: 1"),
    ] {
        let (url, _) = portal(challenge);
        let (_gateway, ada, eve) = ada_and_eve(&url, &[]).await;
        let (mut first, mut second) = (Client::of(&ada).await, Client::of(&eve).await);
        first.sign_in(scheme, "ada").await;
        for _ in 0..20 {
            let (status, text) = second.ask("/", "").await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{challenge}: {text}");
            assert_eq!(first.ask("/", "").await.1, "the page of ada", "the login lasts");
        }
        second.sign_in(scheme, "eve").await;
        assert_eq!(first.ask("/", "").await.1, "the page of ada");
        assert_eq!(second.ask("/open", "").await.1, "open");
        // Another connection of the same browser is another client.
        assert_eq!(Client::of(&ada).await.ask("/", "").await.0, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn it_is_closed_with_the_connection_of_its_client() {
    let (url, open) = portal("WWW-Authenticate: NTLM");
    let (_gateway, ada, _) = ada_and_eve(&url, &[]).await;
    let mut client = Client::of(&ada).await;
    client.sign_in("NTLM", "ada").await;
    assert_eq!(open.load(Ordering::SeqCst), 1);
    drop(client);
    // Long before an idle one would be closed for its own sake.
    soon(Duration::from_secs(2), "it is closed", async || {
        tokio::task::yield_now().await;
        open.load(Ordering::SeqCst) == 0
    })
    .await;
}

#[tokio::test]
async fn another_session_on_the_same_connection_does_not_get_it() {
    let (url, _) = portal("WWW-Authenticate: Negotiate");
    let trusted = ("server.trusted_proxies", "[\"127.0.0.1\"]");
    let (gateway, ada, eve) = ada_and_eve(&url, &[trusted]).await;
    let mut client = Client::of(&ada).await;
    client.sign_in("Negotiate", "ada").await;
    client.cookies = eve.cookies();
    assert_eq!(client.ask("/", "").await.0, StatusCode::UNAUTHORIZED);
    client.cookies = ada.cookies();
    assert_eq!(client.ask("/", "").await.0, StatusCode::UNAUTHORIZED, "it is gone");
    // Streams of one connection of HTTP/2 are as good as connections.
    let cookies: HashMap<&str, String> = [("ada", ada.cookies()), ("eve", eve.cookies())].into();
    let (sender, connection) = h2::client::handshake(ada.tls(&["h2"]).await).await.unwrap();
    let connection = tokio::spawn(connection);
    let statuses = Mutex::new(Vec::new());
    for (who, credentials) in [
        ("ada", Some("Negotiate hello")),
        ("ada", Some("Negotiate ada")),
        ("ada", None),
        ("eve", None),
        ("ada", None),
    ] {
        let mut request =
            http::Request::get(format!("https://{HOST}/")).header("cookie", cookies[who].as_str());
        if let Some(credentials) = credentials {
            request = request.header("authorization", credentials);
        }
        let mut sender = sender.clone().ready().await.unwrap();
        let (answer, _) = sender.send_request(request.body(()).unwrap(), true).unwrap();
        let answer = answer.await.unwrap();
        statuses.lock().unwrap().push(answer.status().as_u16());
        let mut content = answer.into_body();
        while content.data().await.is_some() {}
    }
    assert_eq!(*statuses.lock().unwrap(), [401, 200, 200, 401, 401]);
    connection.abort();
    drop(gateway);
}

#[tokio::test]
async fn those_that_rest_keep_nobody_waiting() {
    let (url, _) = portal("WWW-Authenticate: NTLM");
    let limit = [("portal.max_connections", "2"), ("portal.connect_timeout", "1s")];
    let (_gateway, ada, eve) = ada_and_eve(&url, &limit).await;
    let mut resting = Vec::new();
    for _ in 0..5 {
        let mut client = Client::of(&eve).await;
        client.sign_in("NTLM", "eve").await;
        resting.push(client);
    }
    for _ in 0..5 {
        assert_eq!(ada.fetch("/open").await.text(), "open");
    }
}

#[tokio::test]
async fn an_ordinary_sign_in_shares_its_connection() {
    let (gateway, browser) = logged_in(TestGateway::builder().upstream(&Upstream::start())).await;
    let mut client = Client::of(&browser).await;
    client.ask("/", "").await;
    let before = gateway.upstream.connections();
    for credentials in ["Basic bnRsbTp4", "Bearer negotiate", "Digest username=\"ntlm\""] {
        client.ask("/", &format!("Authorization: {credentials}\r\n")).await;
        assert_eq!(Client::of(&browser).await.ask("/", "").await.0, StatusCode::OK);
    }
    assert_eq!(gateway.upstream.connections(), before);
}

#[tokio::test]
async fn it_is_kept_while_the_client_asks_other_servers_and_never_asked_in_their_place() {
    let (url, open) = portal("WWW-Authenticate: NTLM");
    let api = Upstream::start();
    let route = format!("[{{ path = \"/api/*\", upstreams = [\"{}\"] }}]", api.url());
    let (_gateway, ada, _) = ada_and_eve(&url, &[("portal.routes", &route)]).await;
    let mut client = Client::of(&ada).await;
    client.sign_in("NTLM", "ada").await;
    for times in 1..3 {
        assert_eq!(client.ask("/api/a", "").await.0, StatusCode::OK);
        assert_eq!(api.requests().len(), times, "they have been asked themselves");
        assert_eq!(client.ask("/", "").await.1, "the page of ada");
    }
    assert_eq!(open.load(Ordering::SeqCst), 1);
}
