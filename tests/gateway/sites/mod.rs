//! Two portals behind one gateway, each at a host of its own.

mod expiry;
mod hand_over;
mod routes;
mod walk;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::StatusCode;

use self::walk::Person;
use crate::support::{
    ADA, Browser, Exchange, HOST, OTHER_HOST, PATIENCE, TestGateway, Upstream, soon, test_gateway::Builder,
    upstream::Recorded,
};

/// A gateway with a second site, whose portal is the other of these.
pub(crate) struct TwoSites {
    pub(crate) gateway: TestGateway,
    pub(crate) portals: [Upstream; 2],
}

/// A portal that says which one it is.
fn portal(name: &'static str) -> Upstream {
    Upstream::scripted(async move |mut exchange: Exchange| {
        exchange.read_content().await.ok()?;
        let length = name.len();
        exchange.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}")).await?;
        Some(exchange)
    })
}

impl TwoSites {
    /// With `more` said of the second one, in TOML.
    pub(crate) async fn start(builder: Builder, more: &str) -> Self {
        Self::before([portal("first"), portal("second")], builder, more).await
    }

    /// The same before other portals.
    pub(crate) async fn before(portals: [Upstream; 2], builder: Builder, more: &str) -> Self {
        let site = format!(
            "[{{ public_url = \"https://{OTHER_HOST}\", name = \"Customers\", upstreams = [\"{}\"]{more} }}]",
            portals[1].url()
        );
        let (gateway, _) = builder.upstream(&portals[0]).set("sites", &site).start().await;
        Self { gateway, portals }
    }

    /// One browser, as it is at each site.
    pub(crate) fn browsers(&self) -> [Browser; 2] {
        [self.gateway.browser(), self.gateway.browser().at(OTHER_HOST)]
    }
}

/// The claims of the assertion in a request.
fn claims(request: &Recorded) -> serde_json::Value {
    let assertion = request.value("x-portcullis-jwt-assertion").expect("there is an assertion");
    let claims = assertion.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

#[tokio::test]
async fn each_host_leads_to_its_portal_by_its_own_rules_and_names() {
    let more = ", support = \"https://help.example.com/\", access = { rules = [{ path = \"/open\", level = \"bypass\" }] }, \
                identity = { headers = { user = \"X-Who\" } }";
    let builder = TestGateway::builder()
        .set("access.rules", "[{ path = \"/health\", level = \"bypass\" }]")
        .set("identity.headers.email", "X-Mail");
    let sites = TwoSites::start(builder, more).await;
    sites.gateway.add_user(ADA).await;
    let [first, second] = sites.browsers();

    for (browser, path, status) in [
        (&first, "/health", StatusCode::OK),
        (&first, "/open", StatusCode::FOUND),
        (&second, "/health", StatusCode::FOUND),
        (&second, "/open", StatusCode::OK),
    ] {
        assert_eq!(browser.get(path).await.status, status, "{path}");
    }
    let Person { first, second } = sites.signed_in().await;
    let page = first.get("/.portcullis/account").await.text();
    assert!(page.contains("IoT Connectivity"), "{page}");
    // Twice, since what is told of a session is made once and kept with it.
    for (browser, portal, (name, host, user, other)) in [
        (&first, &sites.portals[0], ("first", HOST, "remote-user", "x-who")),
        (&second, &sites.portals[1], ("second", OTHER_HOST, "x-who", "remote-user")),
        (&first, &sites.portals[0], ("first", HOST, "remote-user", "x-who")),
        (&second, &sites.portals[1], ("second", OTHER_HOST, "x-who", "remote-user")),
    ] {
        portal.forget();
        assert_eq!(browser.get("/a").await.text(), name);
        let asked = portal.only_request();
        assert_eq!(asked.value(user).as_deref(), Some(ADA));
        assert_eq!(asked.value(other), None);
        assert_eq!(
            asked.value("x-mail").as_deref(),
            Some(ADA),
            "what is not said of a site is as at the first"
        );
        assert_eq!(asked.value("x-forwarded-host").as_deref(), Some(host));
        let claims = claims(&asked);
        let origin = format!("https://{host}");
        assert_eq!((claims["aud"].as_str(), claims["iss"].as_str()), (Some(&*origin), Some(&*origin)));
    }
}

#[tokio::test]
async fn a_cookie_of_one_site_is_none_of_the_other() {
    for builder in [TestGateway::builder(), TestGateway::builder().redis()] {
        let sites = TwoSites::start(builder, "").await;
        sites.gateway.add_user(ADA).await;
        let Person { first, second } = sites.signed_in().await;
        let cookies = [first.session(), second.session()];
        assert_ne!(cookies[0], cookies[1]);
        let [thief, other_thief] = sites.browsers();
        thief.set_cookie("__Host-portcullis", &cookies[1]);
        other_thief.set_cookie("__Host-portcullis", &cookies[0]);
        for browser in [&thief, &other_thief] {
            assert_eq!(browser.fetch("/").await.status, StatusCode::UNAUTHORIZED);
        }
        // On one connection a browser's cookies of one site are not read as those of the other.
        let request = |host: &str, cookie: &str| {
            format!("GET / HTTP/1.1\r\nHost: {host}\r\nCookie: __Host-portcullis={cookie}\r\n\r\n")
        };
        let mut connection = thief.raw_connection().await;
        for (host, cookie, status) in [
            (HOST, &cookies[0], StatusCode::OK),
            (OTHER_HOST, &cookies[0], StatusCode::UNAUTHORIZED),
            (OTHER_HOST, &cookies[1], StatusCode::OK),
            (HOST, &cookies[1], StatusCode::UNAUTHORIZED),
            (HOST, &cookies[0], StatusCode::OK),
        ] {
            connection.send(request(host, cookie)).await;
            assert_eq!(connection.answer().await.status, status, "{host}");
        }
    }
}

#[tokio::test]
async fn one_connection_carries_requests_of_both_sites() {
    let sites = TwoSites::start(TestGateway::builder(), "").await;
    sites.gateway.add_user(ADA).await;
    let Person { first, second } = sites.signed_in().await;
    // Browsers do so over HTTP/2 when one certificate is for both hosts (RFC 9113, 9.1.1).
    let first = first.http2();
    let coalesced = first.copy().at(OTHER_HOST);
    coalesced.set_cookie("__Host-portcullis", &second.session());
    drop(second);
    for _ in 0..3 {
        assert_eq!(first.get("/").await.text(), "first");
        assert_eq!(coalesced.get("/").await.text(), "second");
    }
    soon(PATIENCE, "each site is counted and logged", async || {
        let metrics = sites.gateway.admin("/metrics").await;
        let has =
            |host: &str| metrics.contains(&format!("portcullis_site_requests_total{{site=\"{host}\"}}"));
        let log = sites.gateway.access_log();
        has(HOST) && has(OTHER_HOST) && log.contains(" host=crm.example.com path=/ ")
    })
    .await;
    soon(PATIENCE, "both go over one connection", async || {
        sites.gateway.admin("/metrics").await.contains("portcullis_connections 1\n")
    })
    .await;
}

#[tokio::test]
async fn a_page_of_one_site_acts_for_nobody_at_the_other() {
    let sites = TwoSites::start(TestGateway::builder(), "").await;
    sites.gateway.add_user(ADA).await;
    let Person { second, .. } = sites.signed_in().await;
    let (other, own) = (format!("https://{HOST}"), format!("https://{OTHER_HOST}"));
    let refused = second.try_tunnel("/live", &[("Host", OTHER_HOST), ("Origin", &other)]).await;
    assert_eq!(refused.err().unwrap().status, StatusCode::FORBIDDEN);
    // That the portal takes it is another matter.
    let passed = second.try_tunnel("/live", &[("Host", OTHER_HOST), ("Origin", &own)]).await;
    assert_ne!(passed.err().unwrap().status, StatusCode::FORBIDDEN);
    let mut out = second.form_request("/.portcullis/logout", &[("csrf", "x")]);
    out.headers_mut().insert("origin", other.parse().unwrap());
    out.headers_mut().insert("sec-fetch-site", "same-site".parse().unwrap());
    assert_eq!(second.send(out).await.status, StatusCode::FORBIDDEN);
    assert_eq!(second.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_host_that_is_no_site_is_refused() {
    let sites = TwoSites::start(TestGateway::builder(), "").await;
    for host in ["www.example.com", "example.com", "crm.example.com.evil.example", "crm.example.com:8443"] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let answer = sites.gateway.browser().raw(request).await.answer().await;
        assert_eq!(answer.status, StatusCode::MISDIRECTED_REQUEST, "{host}");
    }
    let request = "GET /x HTTP/1.1\r\nHost: CRM.example.com:443\r\nAccept: text/html\r\n\r\n";
    let answer = sites.gateway.browser().raw(request).await.answer().await;
    assert_eq!((answer.status, &*answer.location()), (StatusCode::FOUND, "/.portcullis/login?rd=/x"));
}
