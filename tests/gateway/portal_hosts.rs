//! The names by which the portal's servers are asked for: a portal may know another host than the one that users type, and
//! its certificate may bear a third.

use std::fs;

use http::{Request, StatusCode};

use crate::support::{
    Exchange, HOST, TestGateway, Upstream, body, certificate, empty, logged_in,
    origin::{Origin, readable_folder},
    test_gateway::Builder,
    upstream::ordinary,
    websocket,
};

/// A real Apache with two hosts on one port, each with a certificate of its own.
async fn apache() -> (tempfile::TempDir, Origin) {
    let root = readable_folder();
    let mut authorities = String::new();
    for host in ["localhost", "b.internal"] {
        let folder = root.path().join(host);
        fs::create_dir(&folder).unwrap();
        let (chain, key) = certificate(host);
        fs::write(folder.join("pair.pem"), chain.clone() + &key).unwrap();
        fs::write(folder.join("page"), format!("this is {host}")).unwrap();
        authorities += &chain;
    }
    fs::write(root.path().join("ca.pem"), authorities).unwrap();
    let server = Origin::start("apache-tls", root.path()).await;
    (root, server)
}

#[tokio::test]
async fn each_host_of_an_apache_is_reached_by_its_name_in_host_and_certificate() {
    let (root, server) = apache().await;
    let port = server.address.port();
    let ca = root.path().join("ca.pem");
    for (url, host, tls_name, text) in [
        ("localhost", "upstream", "", "this is localhost"),
        ("localhost", "b.internal", "b.internal", "this is b.internal"),
        ("127.0.0.1", "b.internal", "b.internal", "this is b.internal"),
        ("127.0.0.1", "localhost", "localhost", "this is localhost"),
    ] {
        let builder = TestGateway::builder()
            .upstream_url(&format!("https://{url}:{port}"))
            .set("portal.ca", ca.to_str().unwrap())
            .set("portal.host", host);
        let builder = if tls_name.is_empty() { builder } else { builder.set("portal.tls_name", tls_name) };
        let (_gateway, browser) = signed_in(builder).await;
        for browser in [browser.copy(), browser.http2()] {
            let answer = browser.get("/page").await;
            assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, text), "{url} {host}");
        }
    }
    // The certificate is checked against the name that was given, whatever the URL says.
    let builder = TestGateway::builder()
        .upstream_url(&format!("https://localhost:{port}"))
        .set("portal.ca", ca.to_str().unwrap())
        .set("portal.tls_name", "c.internal");
    let (_gateway, browser) = signed_in(builder).await;
    assert_eq!(browser.get("/page").await.status, StatusCode::BAD_GATEWAY);
}

/// The page after the login may be one that the portal does not have.
async fn signed_in(builder: Builder) -> (TestGateway, crate::support::Browser) {
    let (gateway, browser) = builder.start().await;
    gateway.add_user("ada@example.com").await;
    let answer = browser.submit_password("ada@example.com", crate::support::PASSWORD).await;
    browser.enrol("ada@example.com", &answer.location()).await;
    (gateway, browser)
}

/// A server that refuses every host but its address, as development servers do against DNS rebinding.
fn choosy() -> Upstream {
    Upstream::scripted(async |mut exchange: Exchange| {
        if !exchange.head.values("host").iter().all(|host| host.starts_with("127.0.0.1:")) {
            exchange.read_content().await.ok()?;
            exchange.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await?;
            return Some(exchange);
        }
        match exchange.target().as_str() {
            "/echo" => {
                websocket::echo(exchange).await;
                None
            }
            _ => ordinary(exchange).await,
        }
    })
}

#[tokio::test]
async fn servers_that_refuse_a_foreign_host_are_each_asked_by_their_own() {
    let servers = [choosy(), choosy()];
    let builder = TestGateway::builder().upstream(&servers[0]).upstream(&servers[1]);
    let (_gateway, browser) = logged_in(builder.set("portal.host", "upstream")).await;
    let second = browser.copy().http2();
    for browser in [&browser, &second] {
        for _ in 0..4 {
            assert_eq!(browser.get("/").await.status, StatusCode::OK);
            let posted = Request::post("/x").body(body("some text")).unwrap();
            assert_eq!(browser.send(posted).await.status, StatusCode::OK);
            assert_eq!(browser.send(Request::head("/").body(empty()).unwrap()).await.status, StatusCode::OK);
            drop(browser.socket("/echo").await);
        }
    }
    for server in &servers {
        assert!(server.requests().len() > 8, "both are asked");
        for request in server.requests() {
            assert_eq!(request.value("host"), Some(server.address().to_string()));
            // What the user typed is told all the same.
            assert_eq!(request.value("x-forwarded-host").as_deref(), Some(HOST));
            assert!(request.value("forwarded").unwrap().contains(&format!("host=\"{HOST}\"")));
        }
    }
    // As it is without the setting.
    let (_gateway, browser) = signed_in(TestGateway::builder().upstream(&servers[0])).await;
    assert_eq!(browser.get("/").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_page_comes_from_the_server_that_it_is_sent_to_and_a_forged_one_does_not() {
    let servers = [choosy(), choosy()];
    let builder = TestGateway::builder().upstream(&servers[0]).upstream(&servers[1]);
    let builder = builder.set("portal.host", "upstream").set("portal.origin", "upstream");
    let (_gateway, browser) = logged_in(builder).await;
    let second = browser.copy().http2();
    let named = |origin: &str, method: &str| {
        let request = Request::builder().method(method).uri("/x").header("origin", origin);
        request.header("referer", format!("{origin}/page?a=b")).header("destination", format!("{origin}/y"))
    };
    for browser in [&browser, &second] {
        for _ in 0..4 {
            let (ours, inside) = (format!("https://{HOST}"), format!("http://{}", servers[0].address()));
            browser.send(named(&ours, "POST").body(body("ours")).unwrap()).await;
            browser.send(named(&ours, "MOVE").body(empty()).unwrap()).await;
            browser.send(named("https://evil.example", "PUT").body(body("another's")).unwrap()).await;
            browser.send(named(&inside, "PATCH").body(body("forged")).unwrap()).await;
        }
        drop(browser.socket("/echo").await);
    }
    for server in &servers {
        let own = format!("http://{}", server.address());
        let of = |method: &str| {
            let requests =
                server.requests().into_iter().filter(|request| request.first_line().starts_with(method));
            requests.filter(|request| request.first_line().contains("/x")).collect::<Vec<_>>()
        };
        assert!(
            ["POST", "MOVE", "PUT", "PATCH"].iter().all(|method| !of(method).is_empty()),
            "each is asked"
        );
        for request in [of("POST"), of("MOVE")].concat() {
            assert_eq!(request.value("host"), Some(server.address().to_string()));
            assert_eq!(request.value("origin").as_ref(), Some(&own));
            assert_eq!(request.value("referer"), Some(format!("{own}/page?a=b")));
            assert_eq!(request.value("destination"), Some(format!("{own}/y")));
        }
        for request in of("PUT") {
            assert_eq!(request.value("origin").as_deref(), Some("https://evil.example"));
        }
        for request in of("PATCH") {
            assert_eq!(request.value("origin").as_deref(), Some("null"));
            assert_eq!(request.value("referer"), None);
        }
    }
}

#[tokio::test]
async fn a_name_of_the_operators_choice_is_sent_as_it_was_written() {
    for name in ["portal.internal", "Portal.Internal:8080", "[2001:db8::7]:3000"] {
        let (gateway, browser) = logged_in(TestGateway::builder().set("portal.host", name)).await;
        assert_eq!(browser.get("/sims?a=b").await.status, StatusCode::OK);
        let request = gateway.upstream.only_request();
        assert_eq!(request.value("host").as_deref(), Some(name));
        assert_eq!(request.first_line(), "GET /sims?a=b HTTP/1.1");
    }
}
