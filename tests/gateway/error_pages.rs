//! What people are told when there is no page: a text for each reason, on a page that needs nothing else.

use http::{Request, StatusCode};
use tokio::net::TcpStream;

use crate::support::{
    ADA, Answer, Browser, Exchange, PATIENCE, TestGateway, Upstream, empty, logged_in, soon, two_logged_in,
    upstream::ordinary,
};

#[track_caller]
pub(crate) fn says(answer: &Answer, status: u16, heading: &str) {
    assert_eq!((answer.status.as_u16(), answer.heading().as_str()), (status, heading), "{}", answer.text());
    let text = answer.text();
    assert!(text.contains("<style>"), "{heading}");
    for needs in ["<script", "rel=\"stylesheet\"", "<img", "url(", "@import"] {
        assert!(!text.contains(needs), "{heading}: {needs}");
    }
    assert!(answer.set_cookies().is_empty(), "{heading}");
    assert_eq!(status == 503, answer.headers.contains_key("retry-after"), "{heading}");
}

/// A portal that answers what it is asked for: late, not at all, or not to the end.
fn portal() -> Upstream {
    Upstream::scripted(async |mut exchange: Exchange| match exchange.target().as_str() {
        "/none" => None,
        "/never" => {
            exchange.wire.fill().await.ok()?;
            None
        }
        "/download" => {
            exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome").await?;
            exchange.wire.fill().await.ok()?;
            None
        }
        _ => ordinary(exchange).await,
    })
}

fn at_host(host: &str) -> Request<crate::support::Body> {
    let request = Request::get("/").header("host", host).header("sec-fetch-mode", "navigate");
    request.body(empty()).unwrap()
}

#[tokio::test]
async fn whatever_the_portal_does_its_page_says_so() {
    let builder = TestGateway::builder().upstream(&portal()).set("portal.response_timeout", "300ms");
    let builder = builder.set("portal.max_connections", "1").set("portal.max_connections_per_user", "9");
    let (gateway, ada, eve) = two_logged_in(builder.set("portal.max_waiting", "0")).await;
    says(&ada.get("/none").await, 502, "The portal is not answering");
    says(&ada.get("/never").await, 504, "The portal is too slow");
    says(&ada.send(at_host("127.0.0.1")).await, 421, "This address doesn't work here");
    says(&ada.get("/.portcullis/none").await, 404, "Page not found");
    let download = ada.open(Request::get("/download").body(empty()).unwrap()).await;
    assert_eq!(download.status(), StatusCode::OK);
    says(&eve.get("/").await, 503, "IoT Connectivity is very busy");
    drop((download, gateway));
}

#[tokio::test]
async fn a_store_that_is_silent_has_another_page_for_who_is_in_and_for_who_wants_in() {
    let (gateway, browser) = logged_in(TestGateway::builder().redis()).await;
    let stranger = gateway.browser();
    let login = stranger.get("/.portcullis/login").await;
    gateway.redis.as_ref().unwrap().kill().await;
    let unknown = gateway.browser();
    unknown.set_cookie("__Host-portcullis", &"A".repeat(43));
    says(&unknown.get("/").await, 503, "Please try again in a minute");
    soon(PATIENCE, "its silence is noticed", async || browser.get("/").await.status != StatusCode::OK).await;
    says(&browser.get("/").await, 503, "Please try again in a minute");
    assert!(browser.get("/").await.text().contains("you&#x27;ll stay signed in"));
    let fields = [("email", ADA), ("password", crate::support::PASSWORD)];
    says(&stranger.fill(&login, &fields).await, 503, "You can't sign in right now");
}

#[tokio::test]
async fn under_strain_strangers_are_told_that_it_is_busy() {
    let builder = TestGateway::builder().set("server.max_connections", "10");
    let (gateway, _): (_, Browser) = builder.set("server.timeouts.handshake", "60s").start().await;
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(TcpStream::connect(gateway.address()).await.unwrap());
    }
    soon(PATIENCE, "the strain is noticed", async || {
        gateway.admin("/ready").await.contains("\"load\":\"strained\"")
    })
    .await;
    says(&gateway.browser().get("/").await, 503, "We're very busy right now");
}

/// What a script is told of the same.
#[track_caller]
fn tells(answer: &Answer, status: u16) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    assert_ne!(problem["request_id"].as_str().unwrap_or_default(), "");
    assert!(answer.set_cookies().is_empty());
}

#[tokio::test]
async fn a_session_that_ends_while_the_portal_works_has_a_page_that_warns_of_what_was_sent() {
    for as_person in [true, false] {
        let (gateway, ada) = logged_in(TestGateway::builder().upstream(&portal())).await;
        let asked = async { if as_person { ada.get("/never").await } else { ada.fetch("/never").await } };
        let ends = async {
            gateway.upstream.arrived(1).await;
            gateway.administration().revoke_user(ADA).await.unwrap();
        };
        let (answer, ()) = tokio::join!(asked, ends);
        assert!(answer.header("www-authenticate").contains("/.portcullis/login"));
        if as_person {
            says(&answer, 401, "Your session has ended");
            let text = answer.text();
            assert!(
                text.contains("before IoT Connectivity responded") && text.contains("Sign in again"),
                "{text}"
            );
            assert!(text.contains("check whether it was saved"), "{text}");
        } else {
            tells(&answer, 401);
        }
    }
}

#[tokio::test]
async fn a_fault_of_ours_is_said_to_be_ours_with_a_reference() {
    let log = crate::support::log::listen();
    let (gateway, ada) = TestGateway::builder().set("identity.encoding", "utf-8").start().await;
    gateway.add_user(ADA).await;
    // What no way in takes, and no header.
    let broken = "UPDATE users SET display_name = 'Ada' || char(10) || 'Lovelace'";
    sqlx::query(broken).execute(&gateway.stores().database).await.unwrap();
    ada.log_in(ADA).await;
    gateway.upstream.forget();
    let page = ada.get("/").await;
    says(&page, 500, "Something went wrong");
    assert!(page.text().contains("The fault is on our side, not yours"), "{}", page.text());
    let script = ada.fetch("/").await;
    tells(&script, 500);
    let reference = script.json()["request_id"].as_str().unwrap().to_owned();
    let text = log.text();
    let line = text.lines().find(|line| line.contains(&reference)).expect("the operator finds it");
    assert!(line.contains("ERROR") && line.contains("display name"), "{line}");
    assert_eq!(gateway.upstream.bytes(), 0);
}

#[tokio::test]
async fn a_loop_is_no_users_to_try_again_and_the_operator_is_told_which_key_is_wrong() {
    let log = crate::support::log::listen();
    let (gateway, ada) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    ada.log_in(ADA).await;
    let ours = gateway.upstream.requests().last().and_then(|request| request.value("forwarded")).unwrap();
    let again = |mode: &str| {
        let request = Request::get("/sims").header("forwarded", &ours).header("sec-fetch-mode", mode);
        request.body(empty()).unwrap()
    };
    let page = ada.send(again("navigate")).await;
    says(&page, 508, "This site isn't set up correctly");
    assert!(page.text().contains("Trying again won&#x27;t help"), "{}", page.text());
    assert!(!page.text().contains("Try again<"), "{}", page.text());
    let script = ada.send(again("cors")).await;
    tells(&script, 508);
    let text = log.text();
    let reference = script.json()["request_id"].as_str().unwrap().to_owned();
    let line = text.lines().find(|line| line.contains(&reference)).expect("the operator finds it");
    assert!(line.contains("ERROR") && line.contains("portal.upstreams"), "{line}");
}
