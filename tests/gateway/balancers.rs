//! Behind a load balancer: who the client is, which host was asked for, and whether the gateway is well.

use http::StatusCode;

use crate::support::{
    Answer, Browser, HOST, TestGateway,
    forged::Forgery,
    log, logged_in,
    process::{Served, run_command},
    test_gateway::Builder,
};

/// The address of the client as the portal and the access log have it, for a request with these fields.
async fn client(gateway: &TestGateway, browser: &Browser, fields: &str) -> String {
    gateway.upstream.forget();
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\n{fields}\r\n", browser.cookies());
    assert_eq!(browser.raw(request).await.answer().await.status, StatusCode::OK);
    let request = gateway.upstream.only_request();
    let address = request.value("x-forwarded-for").unwrap();
    let node = if address.contains(':') { format!("\"[{address}]\"") } else { address.clone() };
    assert!(request.value("forwarded").unwrap().starts_with(&format!("for={node};")), "{request:?}");
    let log = gateway.access_log();
    assert!(log.lines().last().unwrap().contains(&format!(" client.ip={address} ")), "{log}");
    address
}

fn behind(proxies: &str) -> Builder {
    TestGateway::builder().set("server.trusted_proxies", proxies)
}

#[tokio::test]
async fn only_the_header_that_the_balancer_writes_says_who_the_client_is() {
    const BOTH: &str = "Forwarded: for=192.0.2.1\r\nX-Forwarded-For: 198.51.100.7\r\n";
    for (setting, addresses) in [
        ("", ["198.51.100.7", "127.0.0.1", "198.51.100.7"]),
        ("x-forwarded-for", ["198.51.100.7", "127.0.0.1", "198.51.100.7"]),
        ("forwarded", ["192.0.2.1", "192.0.2.1", "127.0.0.1"]),
        ("peer", ["127.0.0.1"; 3]),
    ] {
        let builder = behind("127.0.0.1");
        let builder =
            if setting.is_empty() { builder } else { builder.set("server.client_address", setting) };
        let (gateway, browser) = logged_in(builder).await;
        let asked = [BOTH, "Forwarded: for=192.0.2.1\r\n", "X-Forwarded-For: 198.51.100.7\r\n"];
        for (fields, address) in asked.into_iter().zip(addresses) {
            assert_eq!(client(&gateway, &browser, fields).await, address, "{setting}: {fields}");
        }
    }
}

#[tokio::test]
async fn addresses_have_one_form_however_they_are_written() {
    for proxies in ["::ffff:127.0.0.1", "::ffff:127.0.0.0/104", "127.0.0.0/8", "10.0.0.1, 127.0.0.1"] {
        let (gateway, browser) = logged_in(behind(proxies)).await;
        for (written, address) in [
            ("198.51.100.7", "198.51.100.7"),
            ("::ffff:198.51.100.7", "198.51.100.7"),
            ("[::ffff:198.51.100.7]:4711", "198.51.100.7"),
            ("198.51.100.7:4711", "198.51.100.7"),
            ("192.0.2.1, , 198.51.100.7, ,", "198.51.100.7"),
            ("192.0.2.1, 198.51.100.7, 127.0.0.1, ::ffff:127.0.0.1", "198.51.100.7"),
            ("[2001:DB8:0::7%eth0]:443", "2001:db8::7"),
        ] {
            let fields = format!("X-Forwarded-For: {written}\r\n");
            assert_eq!(client(&gateway, &browser, &fields).await, address, "{proxies}: {written}");
        }
    }
}

async fn asked_for(browser: &Browser, fields: &str) -> Answer {
    browser.raw(format!("GET / HTTP/1.1\r\n{fields}\r\n")).await.answer().await
}

#[tokio::test]
async fn the_host_that_a_trusted_balancer_names_counts_when_the_operator_says_so() {
    let inner = "Host: 10.0.0.5:8443\r\nX-Forwarded-Host: iot.example.com\r\n";
    let builder = behind("127.0.0.1").set("server.client_host", "x-forwarded-host");
    let (gateway, browser) = logged_in(builder).await;
    let cookie = format!("Cookie: {}\r\n", browser.cookies());
    assert_eq!(asked_for(&browser, &format!("{inner}{cookie}")).await.status, StatusCode::OK);
    let request = gateway.upstream.only_request();
    assert_eq!(
        (request.value("host").as_deref(), request.value("x-forwarded-host").as_deref()),
        (Some(HOST), Some(HOST))
    );
    let forgery = Forgery::of(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "10.0.0.5:8443"),
        (":path", "/"),
        ("x-forwarded-host", HOST),
        ("cookie", &browser.cookies()),
    ]);
    assert_eq!(browser.forge(&forgery).await.unwrap().status, StatusCode::OK);
    for other in [
        "Host: iot.example.com\r\nX-Forwarded-Host: evil.example.com\r\n",
        "Host: 10.0.0.5\r\nX-Forwarded-Host: iot.example.com, evil.example.com\r\n",
        "Host: 10.0.0.5\r\n",
    ] {
        assert_eq!(asked_for(&browser, other).await.status, StatusCode::MISDIRECTED_REQUEST, "{other}");
    }

    // Nobody else's word, and no word that was not asked for.
    for builder in [behind("192.0.2.1").set("server.client_host", "x-forwarded-host"), behind("127.0.0.1")] {
        let (gateway, browser) = builder.start().await;
        assert_eq!(asked_for(&browser, inner).await.status, StatusCode::MISDIRECTED_REQUEST);
        assert_eq!(gateway.upstream.bytes(), 0);
    }
}

#[tokio::test]
async fn a_wrong_host_is_logged_as_it_came_with_what_to_set() {
    let (gateway, browser) = TestGateway::start().await;
    let listener = log::listen();
    let answer =
        asked_for(&browser, "Host: a-balancer.internal:8443\r\nX-Forwarded-Host: iot.example.com\r\n").await;
    assert_eq!(answer.status, StatusCode::MISDIRECTED_REQUEST);
    let text = listener.text();
    let line =
        text.lines().find(|line| line.contains("a-balancer.internal:8443")).expect("the host that came");
    for word in [
        "ours=\"iot.example.com\"",
        "x_forwarded_host=\"iot.example.com\"",
        "server.client_host",
        "client.ip=127.0.0.1",
    ] {
        assert!(line.contains(word), "{word}: {line}");
    }
    let access = gateway.access_log();
    assert!(
        access.contains(" host=a-balancer.internal:8443 ") && access.contains(" status=421 "),
        "{access}"
    );

    // Nothing in it can end a line or pass for another field.
    let odd = "evil!$&'(status=200);.example";
    assert_eq!(
        asked_for(&browser, &format!("Host: {odd}\r\n")).await.status,
        StatusCode::MISDIRECTED_REQUEST
    );
    let access = gateway.access_log();
    assert!(access.lines().last().unwrap().contains(&format!(" host=\"{odd}\" ")), "{access}");
    let long = format!("{}.example", "x".repeat(5000));
    asked_for(&browser, &format!("Host: {long}\r\n")).await;
    assert!(listener.text().lines().all(|line| !line.contains(&long)));
}

#[tokio::test]
async fn a_probe_that_knows_the_gateway_by_address_alone_is_answered_and_nothing_else() {
    let (gateway, browser) = TestGateway::builder().set("server.health_path", "/healthz").start().await;
    for request in [
        "GET /healthz HTTP/1.1\r\nHost: 10.0.0.5:8443\r\n\r\n",
        "GET /healthz HTTP/1.0\r\n\r\n",
        "GET /healthz?x=1 HTTP/1.1\r\nHost: iot.example.com\r\n\r\n",
    ] {
        let answer = browser.raw(request).await.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "ok\n"), "{request}");
        answer.assert_secure();
        assert!(!answer.headers.contains_key("set-cookie"));
    }
    let forgery = |path| {
        Forgery::of(&[(":method", "GET"), (":scheme", "https"), (":authority", "10.0.0.5"), (":path", path)])
    };
    assert_eq!(browser.forge(&forgery("/healthz")).await.unwrap().text(), "ok\n");
    assert_eq!(browser.forge(&forgery("/")).await.unwrap().status, StatusCode::MISDIRECTED_REQUEST);
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: 10.0.0.5:8443\r\n\r\n", 421),
        ("GET /healthz/x HTTP/1.1\r\nHost: 10.0.0.5:8443\r\n\r\n", 421),
        ("GET /%68ealthz HTTP/1.1\r\nHost: 10.0.0.5:8443\r\n\r\n", 421),
        ("POST /healthz HTTP/1.1\r\nHost: 10.0.0.5:8443\r\nContent-Length: 0\r\n\r\n", 421),
        ("GET /healthz HTTP/1.1\r\nHost: 10.0.0.5\r\nHost: 10.0.0.5\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nHost: iot.example.com\r\nX_Y: 1\r\n\r\n", 400),
    ] {
        assert_eq!(browser.raw(request).await.answer().await.status, status, "{request}");
    }
    assert_eq!(gateway.upstream.bytes(), 0, "the portal hears of none of it");

    // Without the setting the path is the portal's.
    let (_gateway, browser) = TestGateway::start().await;
    assert_eq!(asked_for(&browser, "Host: iot.example.com\r\n").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_container_can_ask_whether_its_gateway_is_healthy() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = format!("0.0.0.0:{port}");
    let served = Served::start_with("", &[("PORTCULLIS_SERVER__ADMIN_LISTEN", &listen)]).await;
    let ask = |arguments: &[&str], listen: &str| {
        let mut command = std::process::Command::new(crate::support::process::PROGRAM);
        command.args(["healthcheck", "--config"]).arg(served.file()).args(arguments);
        command.env("PORTCULLIS_SERVER__ADMIN_LISTEN", listen);
        run_command(command, "")
    };
    for arguments in [&[][..], &["--ready"], &["--json"]] {
        let outcome = ask(arguments, &listen).await;
        assert_eq!(outcome.code, 0, "{outcome:?}");
    }
    assert_eq!(ask(&["--json"], &listen).await.json()["healthy"], true);
    let nowhere = ask(&[], "off").await;
    assert!(nowhere.code == 1 && nowhere.err.contains("server.admin_listen"), "{nowhere:?}");
    let silent = ask(&[], "127.0.0.1:1").await;
    assert!(silent.code == 1 && silent.err.contains("127.0.0.1:1"), "{silent:?}");
}
