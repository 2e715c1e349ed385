//! What a certificate must not do: be another's, be more than its authority made it, reach further than its site, or be said by a
//! header.

use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType};

use super::{
    authority::{Authority, Identity, curl, curl_command, dns, email, got, run, s_client, uri},
    builder,
    machines::{CI, user},
};
use crate::support::{ADA, EVE, HOST, OTHER_HOST, PATIENCE, Upstream, front::Front, logged_in, soon};

const SERVICE: &str = r#"[{ san = "URI:spiffe://example.com/ci", service = "ci" }]"#;

#[tokio::test]
async fn what_an_intermediate_has_signed_counts_only_if_it_may_sign() {
    let root = Authority::new("Clients");
    let (gateway, _) = builder(&root, SERVICE).start().await;
    let between = root.below("Between", |_| {});
    let good = between.sign(1, vec![uri(CI)]);
    assert_eq!(curl(&gateway, Some(&good), "/", &[]).await.status, 200);
    assert_eq!(user(&gateway).as_deref(), Some("service:ci"));
    // A client that makes itself an authority.
    let client = root.below("ci", |params| {
        params.is_ca = rcgen::IsCa::NoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![uri("spiffe://example.com/other")];
    });
    let lists_only = root.below("Between", |params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let servers = root.below("Between", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    for authority in &[client, lists_only, servers] {
        let identity = authority.sign(1, vec![uri(CI)]);
        assert_eq!((curl(&gateway, Some(&identity), "/", &[]).await.status, user(&gateway)), (401, None));
    }
}

#[tokio::test]
async fn of_several_names_the_first_entry_counts_and_none_is_cut_short_or_joined() {
    let authority = Authority::new("Clients");
    let clients = r#"[{ san = "email:ada@example.com", user = "ada@example.com" },
        { san = "email:eve@example.com", user = "eve@example.com" }]"#;
    let (gateway, _) = builder(&authority, clients).start().await;
    for name in [ADA, EVE] {
        gateway.add_user(name).await;
    }
    // Both are its names; the order of the entries decides, not that of the certificate.
    for names in [vec![email(ADA), email(EVE)], vec![email(EVE), email(ADA)]] {
        assert_eq!(curl(&gateway, Some(&authority.sign(1, names)), "/", &[]).await.status, 200);
        assert_eq!(user(&gateway).as_deref(), Some(ADA));
    }
    for (serial, names) in [
        (2, vec![email("ada@example.com\0.evil.example")]),
        (3, vec![email("\0ada@example.com")]),
        (4, vec![email("ada@example.com ")]),
        (5, vec![email("ada@example.com,eve@example.com")]),
        (6, vec![email("*@example.com")]),
        (7, vec![email("evil@ada@example.com")]),
        (8, vec![email("example.com")]),
        (9, vec![uri("mailto:ada@example.com")]),
        (10, vec![dns("ada@example.com")]),
        // As directories write a user into a certificate (1.3.6.1.4.1.311.20.2.3).
        (11, vec![SanType::OtherName((vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3], ADA.into()))]),
    ] {
        let identity = authority.sign(serial, names.clone());
        assert_eq!(curl(&gateway, Some(&identity), "/", &[]).await.status, 401, "{names:?}");
        assert_eq!(user(&gateway), None, "{names:?}");
    }
}

#[tokio::test]
async fn a_connection_of_http_2_carries_a_certificate_no_further_than_its_entry() {
    let (authority, other) = (Authority::new("Clients"), Upstream::start());
    let clients = format!(
        r#"[{{ san = "URI:urn:here", service = "here", sites = "{HOST}" }},
            {{ san = "URI:urn:both", service = "both" }}]"#
    );
    let site = format!(
        r#"[{{ public_url = "https://{OTHER_HOST}", name = "Customers", upstreams = ["{}"] }}]"#,
        other.url()
    );
    let (gateway, _) = builder(&authority, &clients).set("sites", &site).start().await;
    let [here, both] =
        [(1, "urn:here"), (2, "urn:both")].map(|(serial, name)| authority.sign(serial, vec![uri(name)]));
    let asked_of_other = format!("Host: {OTHER_HOST}");
    for version in ["--http1.1", "--http2"] {
        for (identity, name, passes) in [(&here, "service:here", false), (&both, "service:both", true)] {
            assert_eq!(curl(&gateway, Some(identity), "/api", &[version]).await.status, 200);
            assert_eq!(user(&gateway).as_deref(), Some(name));
            let got = curl(&gateway, Some(identity), "/api", &[version, "-H", &asked_of_other]).await;
            let seen = other.requests().pop().and_then(|request| request.value("remote-user"));
            other.forget();
            let expected = if passes { (200, Some(name)) } else { (401, None) };
            assert_eq!((got.status, seen.as_deref()), expected, "{version} {name}");
            assert_eq!(user(&gateway), None);
        }
    }
}

#[tokio::test]
async fn over_http_2_a_site_that_asks_is_not_reached_by_a_connection_of_one_that_does_not() {
    let (authority, other) = (Authority::new("Clients"), Upstream::start());
    let clients = format!(r#"[{{ san = "URI:{CI}", service = "ci", sites = "{OTHER_HOST}" }}]"#);
    let site = format!(
        r#"[{{ public_url = "https://{OTHER_HOST}", name = "Customers", upstreams = ["{}"] }}]"#,
        other.url()
    );
    let (gateway, browser) = logged_in(builder(&authority, &clients).set("sites", &site)).await;
    let ci = authority.sign(1, vec![uri(CI)]);
    let (host, cookie) = (format!("Host: {OTHER_HOST}"), format!("Cookie: {}", browser.cookies()));
    for path in ["/api", "/.portcullis/login"] {
        let got = curl(&gateway, Some(&ci), path, &["--http2", "-H", &host]).await;
        assert_eq!(got.status, 421, "{path}");
    }
    // What that connection is for goes on as ever.
    assert_eq!(curl(&gateway, Some(&ci), "/api", &["--http2", "-H", &cookie]).await.status, 200);
    assert_eq!(user(&gateway).as_deref(), Some(ADA));
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn a_session_is_its_users_whoever_s_certificate_comes_with_it() {
    let authority = Authority::new("Clients");
    let clients = r#"[{ san = "email:eve@example.com", user = "eve@example.com" },
        { san = "URI:urn:eve", user = "eve@example.com", as = "first_factor" }]"#;
    let (gateway, browser) = logged_in(builder(&authority, clients)).await;
    gateway.add_user(EVE).await;
    let machine = authority.sign(1, vec![email(EVE)]);
    let first_factor = authority.sign(2, vec![uri("urn:eve")]);
    let cookie = format!("Cookie: {}", browser.cookies());
    for version in ["--http1.1", "--http2"] {
        for identity in [&machine, &first_factor] {
            let got = curl(&gateway, Some(identity), "/api", &[version, "-H", &cookie]).await;
            assert_eq!((got.status, user(&gateway).as_deref()), (200, Some(ADA)));
            let who = curl(&gateway, Some(identity), "/.portcullis/whoami", &[version, "-H", &cookie]).await;
            assert!(who.body.contains(ADA) && !who.body.contains(EVE), "{who:?}");
        }
    }
}

#[tokio::test]
async fn a_certificate_without_a_purpose_is_for_clients_and_one_that_is_too_large_ends_the_handshake() {
    let authority = Authority::new("Clients");
    let (gateway, _) = builder(&authority, SERVICE).start().await;
    let plain = authority.sign_as(1, vec![uri(CI)], |params| params.extended_key_usages.clear());
    assert_eq!(curl(&gateway, Some(&plain), "/", &[]).await.status, 200);
    let many = |count: usize| {
        (0..count).map(|number| uri(&format!("urn:{number:0>100}"))).chain([uri(CI)]).collect()
    };
    let large = authority.sign(2, many(120));
    assert_eq!(curl(&gateway, Some(&large), "/", &[]).await.status, 200);
    let too_large = authority.sign(3, many(200));
    for version in ["1.2", "1.3"] {
        let mut command = curl_command(&gateway, Some(&too_large), &["--tls-max", version]);
        command.arg(format!("https://{HOST}/"));
        assert!(!run(command, "").await.status.success());
    }
}

#[tokio::test]
async fn behind_a_balancer_that_passes_tcp_on_the_certificate_and_the_address_are_the_client_s() {
    let authority = Authority::new("Clients");
    let clients = r#"[{ san = "URI:spiffe://example.com/ci", service = "ci", networks = "127.0.0.5" }]"#;
    let builder = builder(&authority, clients).set("server.proxy_protocol", "127.0.0.1");
    let (gateway, _) = builder.start().await;
    let front = Front::haproxy(&gateway.address().to_string(), "send-proxy-v2 source 127.0.0.1").await;
    let ci = authority.sign(1, vec![uri(CI)]);
    let to = format!("{HOST}:443:{}", front.address);
    for (from, identity, status) in
        [("127.0.0.5", Some(&ci), 200), ("127.0.0.6", Some(&ci), 401), ("127.0.0.5", None, 401)]
    {
        let mut command = std::process::Command::new("curl");
        command.args(["-sS", "-i", "--max-time", "60", "--interface", from, "--connect-to", &to]);
        command.arg("--cacert").arg(gateway.folder().join("certificate.pem"));
        if let Some(Identity { certificate, key, .. }) = identity {
            command.arg("--cert").arg(certificate).arg("--key").arg(key);
        }
        command.arg(format!("https://{HOST}/api"));
        assert_eq!(got(run(command, "").await).status, status, "{from}");
        assert_eq!(user(&gateway).is_some(), status == 200, "{from}");
    }
}

#[tokio::test]
async fn the_certificate_of_a_proxy_with_many_clients_is_nobody_s() {
    let authority = Authority::new("Clients");
    let clients = r#"[{ san = "URI:spiffe://example.com/ci", service = "ci" },
        { san = "email:ada@example.com", user = "ada@example.com", as = "first_factor" }]"#;
    let (gateway, _) = builder(&authority, clients).set("server.trusted_proxies", "127.0.0.1").start().await;
    gateway.add_user(ADA).await;
    let (ci, ada) = (authority.sign(1, vec![uri(CI)]), authority.sign(2, vec![email(ADA)]));
    let forwarded = ["-H", "X-Forwarded-For: 198.51.100.7"];
    for words in [&[][..], &forwarded] {
        assert_eq!((curl(&gateway, Some(&ci), "/api", words).await.status, user(&gateway)), (401, None));
        let page = curl(&gateway, Some(&ada), "/.portcullis/login", words).await;
        assert!(page.status == 200 && !page.body.contains("certificate"), "{}", page.body);
    }
}

#[tokio::test]
async fn a_proxy_that_asks_cannot_say_that_there_was_a_certificate() {
    let authority = Authority::new("Clients");
    let builder = builder(&authority, SERVICE).set("server.forward_auth_listen", "127.0.0.1:0");
    let (gateway, _) = builder.set("server.trusted_proxies", "127.0.0.1").start().await;
    let pem = std::fs::read_to_string(authority.sign(1, vec![uri(CI)]).certificate).unwrap();
    let encoded = pem.replace('\n', "%0A").replace(' ', "%20").replace('+', "%2B");
    for field in [
        format!("X-SSL-Client-Cert: {encoded}"),
        format!("X-Forwarded-Tls-Client-Cert: {encoded}"),
        format!("X-Forwarded-Client-Cert: URI={CI}"),
        "X-SSL-Client-Verify: SUCCESS".to_owned(),
    ] {
        let address = gateway.proxies_address();
        let url = format!("X-Portcullis-URL: https://{HOST}/api");
        let mut command = std::process::Command::new("curl");
        command.args(["-sS", "-i", "--max-time", "60", "-H", "X-Portcullis-Method: GET", "-H", &url]);
        command.args(["-H", "X-Forwarded-For: 198.51.100.7", "-H", &field]);
        command.arg(format!("http://{address}/auth/nginx"));
        let got = got(run(command, "").await);
        assert!(matches!(got.status, 401 | 403), "{field}: {got:?}");
        assert_eq!(got.field("remote-user"), "");
    }
}

#[tokio::test]
async fn who_names_no_host_is_asked_and_an_address_is_no_host() {
    let authority = Authority::new("Clients");
    let (gateway, _) = builder(&authority, SERVICE).start().await;
    let ci = authority.sign(1, vec![uri(CI)]);
    let said = s_client(&gateway, Some(&ci), ("", HOST, "/api"), &[]).await;
    assert!(said.contains("HTTP/1.1 200 "), "{said}");
    soon(PATIENCE, "the request's line", async || gateway.access_log().contains("user.name=service:ci"))
        .await;
}
