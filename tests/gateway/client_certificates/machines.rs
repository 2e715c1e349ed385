//! A certificate as a machine: what it opens, what it does not, and that a stranger's is like none.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};

use super::{
    authority::{Authority, Identity, curl, dns, email, s_client, text, uri},
    builder,
};
use crate::support::{ADA, HOST, OTHER_HOST, PATIENCE, TestGateway, Upstream, log, logged_in, soon};

pub(super) const CI: &str = "spiffe://example.com/ci";
const SERVICE: &str = r#"[{ san = "URI:spiffe://example.com/ci", service = "ci", groups = ["deploy"] }]"#;

/// Whom the portal took a request for; none: it has seen none.
pub(super) fn user(gateway: &TestGateway) -> Option<String> {
    let requests = gateway.upstream.requests();
    gateway.upstream.forget();
    let [request] = &requests[..] else {
        assert!(requests.is_empty());
        return None;
    };
    Some(request.value("remote-user").unwrap_or_default())
}

#[tokio::test]
async fn a_service_is_known_to_the_portal_by_its_certificate() {
    let authority = Authority::new("Clients");
    let (gateway, _) = builder(&authority, SERVICE).start().await;
    let ci = authority.sign(1, vec![uri(CI)]);
    for version in ["--http1.1", "--http2"] {
        gateway.upstream.forget();
        let forged = ["-H", "Remote-User: root", "-H", "X-SSL-Client-Verify: SUCCESS"];
        let got = curl(&gateway, Some(&ci), "/api/sims", &[&[version][..], &forged].concat()).await;
        assert_eq!(got.status, 200, "{got:?}");
        assert_eq!(got.field("set-cookie"), "");
        let request = gateway.upstream.only_request();
        assert_eq!(request.value("remote-user").as_deref(), Some("service:ci"));
        assert_eq!(request.value("remote-groups").as_deref(), Some("deploy"));
        let assertion = request.value("x-portcullis-jwt-assertion").unwrap();
        let claims = BASE64_URL_SAFE_NO_PAD.decode(assertion.split('.').nth(1).unwrap()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!((&claims["sub"], &claims["amr"]), (&"service:ci".into(), &serde_json::json!(["swk"])));
    }
    soon(PATIENCE, "both lines", async || gateway.access_log().matches("user.name=service:ci").count() == 2)
        .await;
    let log = gateway.access_log();
    assert!(log.contains(&format!("token.name=URI:{CI}")) && !log.contains("session.id"), "{log}");
}

#[tokio::test]
async fn names_are_compared_as_they_are_and_fingerprints_too() {
    let authority = Authority::new("Clients");
    let pinned = authority.sign(1, vec![]);
    let fingerprint = pinned.fingerprint();
    let clients = format!(
        r#"[{{ fingerprint = "{fingerprint}", service = "pinned" }},
            {{ san = "DNS:host.example.com", service = "host" }},
            {{ san = "email:Bot@example.com", service = "mail" }},
            {{ san = "URI:spiffe://example.com/ci", service = "ci" }}]"#
    );
    let (gateway, _) = builder(&authority, &clients).start().await;
    for (serial, names, expected) in [
        (2, vec![dns("HOST.example.com")], Some("service:host")),
        (3, vec![dns("other.example.com"), dns("host.example.com")], Some("service:host")),
        (4, vec![email("Bot@EXAMPLE.com")], Some("service:mail")),
        (5, vec![uri(CI), dns("host.example.com")], Some("service:host")),
        (6, vec![email("bot@example.com")], None),
        (7, vec![dns("*.example.com")], None),
        (8, vec![dns("host.example.com.evil.example")], None),
        (9, vec![uri("spiffe://example.com/CI")], None),
        (10, vec![uri("spiffe://example.com/ci/")], None),
        (11, vec![uri("DNS:host.example.com")], None),
        (12, vec![dns("spiffe://example.com/ci")], None),
        (13, vec![], None),
    ] {
        let got = curl(&gateway, Some(&authority.sign(serial, names.clone())), "/", &[]).await;
        let status = if expected.is_some() { 200 } else { 401 };
        assert_eq!((got.status, user(&gateway).as_deref()), (status, expected), "{names:?}");
    }
    // What a certificate calls its subject counts for nothing.
    let named = authority.sign_as(14, vec![], |params| {
        params.distinguished_name.push(rcgen::DnType::CommonName, "host.example.com");
    });
    assert_eq!(curl(&gateway, Some(&named), "/", &[]).await.status, 401);
    assert_eq!(curl(&gateway, Some(&pinned), "/", &[]).await.status, 200);
    assert_eq!(user(&gateway).as_deref(), Some("service:pinned"));
}

#[tokio::test]
async fn a_certificate_that_does_not_count_gets_what_none_gets() {
    let (authority, other) = (Authority::new("Clients"), Authority::new("Clients"));
    authority.revoke(&[5], 2040);
    let (gateway, _) =
        builder(&authority, SERVICE).set("tls.client_crl", &text(&authority.list())).start().await;
    let name = || vec![uri(CI)];
    let of = |identity: Identity, what| (Some(identity), what);
    let strangers = [
        of(other.sign(1, name()), "of another authority of the same name"),
        of(authority.sign_as(2, name(), |params| params.not_after = date_time_ymd(2026, 2, 1)), "expired"),
        of(
            authority.sign_as(3, name(), |params| params.not_before = date_time_ymd(2039, 1, 1)),
            "not yet valid",
        ),
        of(
            authority.sign_as(4, name(), |params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }),
            "of a server",
        ),
        of(authority.sign(5, name()), "revoked"),
        of(authority.sign(6, vec![uri("spiffe://example.com/other")]), "nobody's"),
    ];
    for words in [&["--http1.1"][..], &["--http2"], &["-H", "Accept: text/html"], &["--tls-max", "1.2"]] {
        let none = curl(&gateway, None, "/api", words).await;
        assert!(matches!(none.status, 302 | 401), "{none:?}");
        for (identity, what) in &strangers {
            let got = curl(&gateway, identity.as_ref(), "/api", words).await;
            assert_eq!((got.status, &got.body), (none.status, &none.body), "{what} {words:?}");
            assert_eq!(got.field("www-authenticate"), none.field("www-authenticate"), "{what} {words:?}");
        }
    }
    // Without its key it is not even a certificate.
    let ci = authority.sign(7, name());
    let stolen = Identity { key: authority.sign(8, name()).key, ..ci.clone() };
    let mut command = super::authority::curl_command(&gateway, Some(&stolen), &[]);
    command.arg(format!("https://{HOST}/api"));
    assert!(!super::authority::run(command, "").await.status.success());
    assert_eq!(user(&gateway), None, "nobody has come through");
    assert_eq!(curl(&gateway, Some(&ci), "/api", &[]).await.status, 200);
}

#[tokio::test]
async fn a_certificate_opens_what_it_is_limited_to_and_what_the_rules_give_machines() {
    let authority = Authority::new("Clients");
    let clients = r#"[{ san = "URI:spiffe://example.com/ci", service = "ci", path = "/api/*", methods = ["GET"] },
        { san = "URI:far", service = "far", networks = ["192.0.2.0/24"] },
        { san = "URI:all:", user = "ada@example.com", groups = ["ops"] }]"#;
    let clients = clients.replace("URI:far", "URI:urn:far").replace("URI:all:", "URI:urn:all");
    let rules = r#"[{ path = "/people", clients = "browser" }, { path = "/fresh", max_age = "10m" },
        { path = "/machines", clients = "token" }, { path = "/machines", level = "deny" },
        { path = "/ci", users = ["service:ci"] }, { path = "/closed", level = "deny" }, { path = "/open", level = "bypass" }]"#;
    let (gateway, _) = builder(&authority, &clients).set("access.rules", rules).start().await;
    gateway.add_user(ADA).await;
    let ci = authority.sign(1, vec![uri(CI)]);
    let far = authority.sign(2, vec![uri("urn:far")]);
    let ada = authority.sign(3, vec![uri("urn:all")]);
    for (identity, method, path, expected) in [
        (&ci, "GET", "/api/sims", Ok("service:ci")),
        (&ci, "POST", "/api/sims", Err(401)),
        (&ci, "GET", "/api", Err(401)),
        (&ci, "GET", "/API/sims", Err(401)),
        (&ci, "GET", "/api/..%2fadmin", Err(400)),
        (&ci, "GET", "/open", Ok("")),
        (&far, "GET", "/api/sims", Err(401)),
        (&ada, "GET", "/any", Ok(ADA)),
        (&ada, "DELETE", "/any", Ok(ADA)),
        (&ada, "GET", "/open", Ok(ADA)),
        (&ada, "GET", "/machines", Ok(ADA)),
        (&ada, "GET", "/people", Err(401)),
        (&ada, "GET", "/fresh", Err(401)),
        (&ada, "GET", "/closed", Err(403)),
        (&ada, "GET", "/.portcullis/account", Err(302)),
        (&ada, "GET", "/.portcullis/whoami", Err(401)),
    ] {
        let words = ["-X", method, "--path-as-is"];
        let got = curl(&gateway, Some(identity), path, &words).await;
        let seen = user(&gateway);
        match expected {
            Ok(name) => assert_eq!((got.status, seen.as_deref()), (200, Some(name)), "{method} {path}"),
            Err(status) => assert_eq!((got.status, seen), (status, None), "{method} {path}: {got:?}"),
        }
    }
}

#[tokio::test]
async fn pages_of_other_sites_cannot_use_the_certificate_of_a_browser() {
    let authority = Authority::new("Clients");
    let (gateway, _) = builder(&authority, SERVICE).start().await;
    let ci = authority.sign(1, vec![uri(CI)]);
    for (words, passes) in [
        (&["-H", "Sec-Fetch-Site: same-origin"][..], true),
        (&["-H", "Sec-Fetch-Site: none"], true),
        (&["-H", "Origin: https://iot.example.com"], true),
        (&["-H", "Sec-Fetch-Site: cross-site"], false),
        (&["-H", "Sec-Fetch-Site: same-site"], false),
        (&["-H", "Origin: https://evil.example"], false),
        (&["-H", "Origin: null"], false),
        (&["-X", "POST", "-d", "x=1", "-H", "Origin: https://evil.example"], false),
    ] {
        let got = curl(&gateway, Some(&ci), "/api", words).await;
        let expected = if passes { Some("service:ci".to_owned()) } else { None };
        assert_eq!(user(&gateway), expected, "{words:?}: {got:?}");
    }
}

#[tokio::test]
async fn where_a_session_or_a_token_is_shown_that_is_what_counts() {
    let authority = Authority::new("Clients");
    let (gateway, browser) = logged_in(builder(&authority, SERVICE)).await;
    let ci = authority.sign(1, vec![uri(CI)]);
    let cookie = |session: &str| format!("Cookie: __Host-portcullis={session}");
    let got = curl(&gateway, Some(&ci), "/api", &["-H", &cookie(&browser.session())]).await;
    assert_eq!((got.status, user(&gateway).as_deref()), (200, Some(ADA)));
    let (over, here) = ("A".repeat(43), browser.session());
    let twice = format!("{here}; __Host-portcullis={here}");
    for shown in [&over, "AAAA", "", &format!("{here}="), &twice, &format!("{over}; __Host-portcullis=")] {
        for version in ["--http1.1", "--http2"] {
            let got = curl(&gateway, Some(&ci), "/api", &[version, "-H", &cookie(shown)]).await;
            assert_eq!(
                (got.status, user(&gateway)),
                (401, None),
                "what is no session is not made up for: {shown}"
            );
        }
    }
    for other in ["Cookie: a=b", "Cookie: __Host-portcullis-login=x", "Cookie: __Host-portcullis"] {
        let got = curl(&gateway, Some(&ci), "/api", &["-H", other]).await;
        assert_eq!((got.status, user(&gateway).as_deref()), (200, Some("service:ci")), "{other}");
    }
    let got = curl(&gateway, Some(&ci), "/api", &["-H", "X-Portcullis-Token: pcl_bad"]).await;
    assert_eq!((got.status, user(&gateway)), (401, None), "nor is a bad token");
}

#[tokio::test]
async fn headers_about_certificates_are_not_for_clients_to_send() {
    let authority = Authority::new("Clients");
    let (gateway, browser) = logged_in(builder(&authority, SERVICE)).await;
    let ci = authority.sign(1, vec![uri(CI)]);
    let names = [
        "X-Client-Cert",
        "X-Client-Certificate",
        "Client-Cert",
        "Client-Cert-Chain",
        "X-Forwarded-Client-Cert",
        "X-Forwarded-Tls-Client-Cert",
        "X-Forwarded-Tls-Client-Cert-Info",
        "X-SSL-Cert",
        "X-SSL-Client-Cert",
        "X-SSL-Client-S-DN",
        "X-SSL-Client-Verify",
        "SSL-Client-Cert",
        "X-TLS-Client-Subject",
        "X-Amzn-Mtls-Clientcert",
        "X-ARR-ClientCert",
        "X-Client-Dn",
        "X-Client-S-DN",
        "X-Client-Subject-DN",
        "X-Client-Issuer",
        "X-Client-CN",
        "X-Client-Verified",
        "X-Client-Verify",
    ];
    let forged: Vec<String> = names.iter().map(|name| format!("{name}: forged")).collect();
    let mut words: Vec<&str> = forged.iter().flat_map(|field| ["-H", field]).collect();
    let cookie = format!("Cookie: __Host-portcullis={}", browser.session());
    for identity in [Some(&ci), None] {
        if identity.is_none() {
            words.extend(["-H", &cookie]);
        }
        assert_eq!(curl(&gateway, identity, "/api", &words).await.status, 200);
        let head = String::from_utf8_lossy(&gateway.upstream.only_request().head.0).into_owned();
        assert!(!head.contains("forged"), "{head}");
        gateway.upstream.forget();
    }
}

#[tokio::test]
async fn a_connection_for_a_site_that_asks_nobody_is_not_used_for_one_that_asks() {
    let authority = Authority::new("Clients");
    let other = Upstream::start();
    let clients =
        format!(r#"[{{ san = "URI:spiffe://example.com/ci", service = "ci", sites = "{OTHER_HOST}" }}]"#);
    let site = format!(
        r#"[{{ public_url = "https://{OTHER_HOST}", name = "Customers", upstreams = ["{}"] }}]"#,
        other.url()
    );
    let (gateway, _) = builder(&authority, &clients).set("sites", &site).start().await;
    let ci = authority.sign(1, vec![uri(CI)]);
    let asks = "Acceptable client certificate CA names";
    for (server_name, host, is_asked, status) in [
        (OTHER_HOST, OTHER_HOST, true, "200"),
        (HOST, OTHER_HOST, false, "421"),
        (HOST, HOST, false, "401"),
        // It was asked, and what it has shown is nothing there.
        (OTHER_HOST, HOST, true, "401"),
    ] {
        let said = s_client(&gateway, Some(&ci), (server_name, host, "/api"), &["-tls1_2"]).await;
        assert_eq!(said.contains(asks), is_asked, "{server_name} {host}");
        assert!(said.contains(&format!("HTTP/1.1 {status} ")), "{server_name} {host}: {said}");
    }
    assert_eq!(other.only_request().value("remote-user").as_deref(), Some("service:ci"));
}

#[tokio::test]
async fn the_log_says_why_a_certificate_does_not_count_once_a_connection_and_once_a_second() {
    let (authority, other) = (Authority::new("Clients"), Authority::new("Others"));
    let (gateway, _) = builder(&authority, SERVICE).start().await;
    let stranger = other.sign(1, vec![uri(CI)]);
    let log = log::listen();
    let certificate = stranger.fingerprint().replace(':', "").to_lowercase();
    let line = format!(
        "certificate=SHA256:{} reason=no authority in tls.client_ca has signed it",
        &certificate[..16]
    );
    let told = || log.text().matches(&line).count();
    let ask = async || {
        // Two requests on one connection.
        let more = format!("https://{HOST}/more");
        let got = curl(&gateway, Some(&stranger), "/", &["-o", "/dev/null", &more]).await;
        assert_eq!(got.status, 401);
    };
    ask().await;
    assert_eq!(told(), 1);
    ask().await;
    assert_eq!(told(), 1, "it is the same second");
    gateway.clock.advance(std::time::Duration::from_secs(1));
    ask().await;
    assert_eq!(told(), 2);
}
