//! Paths of one site that go to other servers: with the same session, rules and identity.

use http::StatusCode;

use super::portal;
use crate::support::{ADA, TestGateway, Upstream, logged_in};

#[tokio::test]
async fn paths_go_to_their_servers_with_the_same_session_and_rules() {
    let (rest, api, status) = (portal("rest"), portal("api"), portal("status"));
    let route = |paths: &str, to: &Upstream| format!("{{ path = {paths}, upstreams = [\"{}\"] }}", to.url());
    let routes = [route("[\"/status\", \"/api/status/*\"]", &status), route("\"/api/*\"", &api)].join(", ");
    let builder = TestGateway::builder().upstream(&rest).set("portal.routes", &format!("[{routes}]")).set(
        "access.rules",
        "[{ path = \"/api/closed/*\", level = \"deny\" }, { path = \"/status\", level = \"bypass\" }]",
    );
    let (gateway, browser) = logged_in(builder).await;
    for (path, name) in [
        ("/", "rest"),
        ("/api", "rest"),
        ("/apis/a", "rest"),
        ("/api/a?b=c", "api"),
        ("/api/", "api"),
        ("/api/status/a", "status"),
        ("/status", "status"),
        ("/api/a;b=c", "api"),
        ("/api/a%2fb", "api"),
        ("/%61pi/a", "api"),
        // What could be another path goes where everything goes.
        ("/api%2fa", "rest"),
        ("//api/a", "rest"),
        ("/API/a", "rest"),
        ("/api;v=2/a", "rest"),
        ("/x//api/a", "rest"),
    ] {
        for portal in [&rest, &api, &status] {
            portal.forget();
        }
        let answer = browser.get(path).await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, name), "{path}");
        let asked = [&rest, &api, &status].into_iter().flat_map(Upstream::requests).collect::<Vec<_>>();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].first_line(), format!("GET {path} HTTP/1.1"), "unchanged");
        assert_eq!(asked[0].value("remote-user").as_deref(), Some(ADA), "{path}");
        assert!(asked[0].value("x-portcullis-jwt-assertion").is_some());
        assert_eq!(asked[0].value("cookie"), None);
    }
    // Rules are of the site, whatever server is behind.
    for path in ["/api/closed/a", "/API/closed/a", "/api//closed/a"] {
        assert_eq!(browser.get(path).await.status, StatusCode::FORBIDDEN, "{path}");
    }
    let stranger = gateway.browser();
    assert_eq!(stranger.get("/api/a").await.status, StatusCode::FOUND);
    assert_eq!(stranger.get("/status").await.text(), "status");
    // The log says which server it was.
    assert!(
        gateway
            .access_log()
            .lines()
            .any(|line| line.contains(" path=/api/status/a ") && line.contains(&status.url()))
    );
}

#[tokio::test]
async fn a_route_whose_server_is_gone_takes_nothing_with_it() {
    let rest = portal("rest");
    let gone = "[{ path = \"/api/*\", upstreams = [\"http://127.0.0.1:1\"] }]";
    let (_gateway, browser) =
        logged_in(TestGateway::builder().upstream(&rest).set("portal.routes", gone)).await;
    assert_eq!(browser.get("/api/a").await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(browser.get("/a").await.text(), "rest");
}
