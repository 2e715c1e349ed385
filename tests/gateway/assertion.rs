//! The signed assertion: on every way to the portal, as libraries that are not ours see it, and through every change of
//! its keys.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{Method, Request, StatusCode};
use portcullis::{
    clock::{Clock as _, Timestamp},
    identity::{HANDOVER, NOTICE, Rotation},
};
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::support::{
    ADA, Browser, Exchange, HOST, TestGateway, Upstream, empty,
    forged::Forgery,
    logged_in, now, soon,
    upstream::ordinary,
    verifier::{ISSUER, Library, Verifier},
    websocket,
};

const HEADER: &str = "x-portcullis-jwt-assertion";
const JWKS: &str = "/.well-known/portcullis/jwks.json";
const SECOND: Duration = Duration::from_secs(1);

/// The assertion that the portal gets with a request of this browser's.
async fn assertion(gateway: &TestGateway, browser: &Browser) -> String {
    gateway.upstream.forget();
    assert_eq!(browser.get("/sims").await.status, StatusCode::OK);
    gateway.upstream.only_request().value(HEADER).expect("the portal got an assertion")
}

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn claims(token: &str) -> Value {
    part(token, 1)
}

fn kid(token: &str) -> String {
    part(token, 0)["kid"].as_str().unwrap().to_owned()
}

/// Whom and which session it is about: the same in every assertion of a session.
fn about(token: &str) -> [Value; 2] {
    let claims = claims(token);
    ["sub", "sid"].map(|name| claims[name].clone())
}

/// The names of the keys that a gateway publishes, to somebody without a session.
async fn published(gateway: &TestGateway) -> Vec<String> {
    let answer = gateway.browser().fetch(JWKS).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let keys = answer.json()["keys"].as_array().unwrap().clone();
    keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn it_says_who_the_user_is_and_lasts_five_minutes() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    let token = assertion(&gateway, &browser).await;
    let claims = claims(&token);
    let user = gateway.administration().users().await.unwrap().remove(0);
    let whoami = browser.fetch("/.portcullis/whoami").await.json();
    let iat = claims["iat"].as_i64().unwrap();
    let expected = json!({
        "iss": ISSUER, "aud": ISSUER, "sub": user.id.to_string(), "email": ADA, "name": "Ada Lovelace",
        "groups": ["ops"], "amr": whoami["amr"], "iat": iat, "exp": iat + 300,
        "jti": claims["jti"], "sid": claims["sid"],
    });
    assert_eq!(claims, expected);
    assert_eq!(claims["amr"], json!(["pwd", "otp"]));
    assert_eq!(published(&gateway).await, [kid(&token)]);
    // The session can be found by none of what is in it.
    let listed = gateway.administration().sessions(None).await.unwrap();
    assert!(!token.contains(&browser.session()));
    assert!(
        !claims.to_string().contains(&browser.session())
            && !claims.to_string().contains(&listed[0].id.short())
    );
}

#[tokio::test]
async fn a_session_of_one_factor_has_one_that_says_so() {
    let tomorrow = now().plus(Duration::from_hours(24));
    let (gateway, browser) = TestGateway::builder().mandatory_from(tomorrow).start().await;
    gateway.add_user(ADA).await;
    let page = browser.visit("/").await;
    let page = browser.sign_in(&page, ADA).await;
    browser.submit(&page, &[("skip", "1")]).await;
    assert_eq!(claims(&assertion(&gateway, &browser).await)["amr"], json!(["pwd"]));
}

#[tokio::test]
async fn every_way_to_the_portal_carries_it() {
    let portal = Upstream::scripted(async |exchange: Exchange| {
        if exchange.target() == "/echo" {
            websocket::echo(exchange).await;
            return None;
        }
        ordinary(exchange).await
    });
    let (gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let http2 = gateway.browser().http2();
    http2.set_cookie("__Host-portcullis", &browser.session());
    let expected = about(&assertion(&gateway, &browser).await);
    let sent = || gateway.upstream.only_request().value(HEADER).map(|token| about(&token));
    for browser in [&browser, &http2] {
        for method in [Method::GET, Method::HEAD, Method::POST, Method::DELETE, Method::OPTIONS] {
            gateway.upstream.forget();
            let request = Request::builder().method(method).uri("/x").body(empty()).unwrap();
            assert_eq!(browser.send(request).await.status, StatusCode::OK);
            assert_eq!(sent().as_ref(), Some(&expected));
        }
        gateway.upstream.forget();
        let _socket = browser.socket("/echo").await;
        assert_eq!(sent().as_ref(), Some(&expected));
    }
}

#[tokio::test]
async fn one_assertion_serves_until_it_has_a_minute_left() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    let first = gateway.administration().sessions(None).await.unwrap().remove(0);
    let other = gateway.browser();
    other.log_in(ADA).await;
    let one = assertion(&gateway, &browser).await;
    let others = assertion(&gateway, &other).await;
    assert_ne!(about(&one), about(&others));
    // Changes are told in their order: whoever has heard of this one has heard of what the logins changed.
    let all = gateway.administration().sessions(None).await.unwrap();
    let second = all.iter().find(|session| session.id != first.id).unwrap();
    gateway.administration().revoke_session(&second.id.to_hex()).await.unwrap();
    let is_out = async || other.get("/sims").await.status == StatusCode::FOUND;
    soon(2 * SECOND, "the other session has ended", is_out).await;

    let first = assertion(&gateway, &browser).await;
    let due = Timestamp::from_unix_seconds(claims(&first)["exp"].as_i64().unwrap() - 60);
    gateway.clock.set(due.minus(SECOND));
    assert_eq!(assertion(&gateway, &browser).await, first);
    gateway.clock.set(due);
    let second = assertion(&gateway, &browser).await;
    assert_ne!(claims(&second)["jti"], claims(&first)["jti"]);
    assert_eq!(claims(&second)["sid"], claims(&first)["sid"]);
    let left = claims(&second)["exp"].as_i64().unwrap() - gateway.clock.now().unix_seconds();
    assert_eq!(left, 300);
}

#[tokio::test]
async fn none_outlives_its_session() {
    let builder = TestGateway::builder().set("sessions.expiration", "7m").set("sessions.inactivity", "2m");
    let (gateway, browser) = logged_in(builder).await;
    let listed = gateway.administration().sessions(None).await.unwrap();
    let end = listed[0].expires_at;
    while gateway.clock.now() < end {
        let claims = claims(&assertion(&gateway, &browser).await);
        let (iat, exp) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
        assert!(exp - iat <= 120, "not longer than an idle session either");
        assert!(Timestamp::from_unix_seconds(exp) <= end);
        gateway.clock.advance(29 * SECOND);
    }
    assert_eq!(browser.fetch("/sims").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn switched_off_nothing_is_sent_and_nothing_forged_passes() {
    let builder = TestGateway::builder().set("identity.assertion.enabled", "false");
    let (gateway, browser) = logged_in(builder).await;
    for name in ["X-Portcullis-Jwt-Assertion", "x.portcullis.jwt.assertion"] {
        gateway.upstream.forget();
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\n{name}: forged\r\n\r\n",
            browser.cookies()
        );
        assert_eq!(browser.raw(request).await.answer().await.status, StatusCode::OK);
        let head = format!("{:?}", gateway.upstream.only_request().head);
        assert!(!head.contains("forged") && !head.to_lowercase().contains(HEADER), "{head}");
    }
    assert_eq!(browser.fetch(JWKS).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_keys_are_public_and_hold_nothing_private() {
    let (gateway, browser) = TestGateway::start().await;
    let answer = browser.fetch(JWKS).await;
    answer.assert_secure_and_kept("public, max-age=300");
    assert_eq!(answer.header("content-type"), "application/json");
    assert!(answer.set_cookies().is_empty());
    let keys = answer.json()["keys"].as_array().unwrap().clone();
    assert_eq!(keys.len(), 1);
    let mut members: Vec<_> = keys[0].as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"]);

    let head = Request::head(JWKS).body(empty()).unwrap();
    let head = browser.send(head).await;
    assert_eq!((head.status, head.text().as_str()), (StatusCode::OK, ""));
    let post = Request::post(JWKS).body(empty()).unwrap();
    let post = browser.send(post).await;
    assert_eq!((post.status, post.header("allow").as_str()), (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"));
    for near in [
        "/.well-known/portcullis/",
        "/.well-known/portcullis/jwks.json/",
        "/.well-known/Portcullis/jwks.json",
    ] {
        assert_eq!(browser.fetch(near).await.status, StatusCode::NOT_FOUND, "{near}");
    }
    // As HTTP/2, as a page of another site, with a cookie that is no session.
    let http2 = gateway.browser().http2();
    http2.set_cookie("__Host-portcullis", &"A".repeat(43));
    let embedded =
        Request::get(JWKS).header("sec-fetch-dest", "script").header("sec-fetch-site", "cross-site");
    assert_eq!(http2.send(embedded.body(empty()).unwrap()).await.status, StatusCode::OK);
    assert_eq!(gateway.upstream.bytes(), 0);
}

#[tokio::test]
async fn gateways_on_one_store_share_their_keys_and_outlive_a_restart() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    let (twin, other) = gateway.twin().await;
    other.set_cookie("__Host-portcullis", &browser.session());
    let (first, second) = (assertion(&gateway, &browser).await, assertion(&twin, &other).await);
    assert_eq!(kid(&first), kid(&second));
    assert_eq!(claims(&first)["sid"], claims(&second)["sid"]);
    assert_eq!(published(&gateway).await, published(&twin).await);
    drop(twin);
    let gateway = gateway.restart().await;
    let browser = browser.moved_to(gateway.surroundings());
    assert_eq!(kid(&assertion(&gateway, &browser).await), kid(&first));
}

#[tokio::test]
async fn keys_go_on_without_their_store() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    let first = assertion(&gateway, &browser).await;
    let url = format!("sqlite:{}", gateway.database_file().display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::query("ALTER TABLE signing_keys RENAME TO gone").execute(&mut connection).await.unwrap();
    gateway.clock.advance(Duration::from_mins(10));
    let second = assertion(&gateway, &browser).await;
    assert_ne!(second, first);
    assert_eq!(kid(&second), kid(&first));
    assert_eq!(published(&gateway).await, [kid(&first)]);
}

#[tokio::test]
async fn compromised_keys_are_replaced_on_every_gateway_within_seconds() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    let (twin, other) = gateway.twin().await;
    other.set_cookie("__Host-portcullis", &browser.session());
    let old = assertion(&gateway, &browser).await;
    let new = gateway.stores().signing_keys.replace_all(gateway.clock.now()).await.unwrap();
    for gateway in [&gateway, &twin] {
        // Every gateway publishes it before any signs with it.
        soon(5 * SECOND, "the new key is published", async || published(gateway).await.contains(&new.kid))
            .await;
    }
    let handover = assertion(&gateway, &browser).await;
    assert_eq!(kid(&handover), kid(&old));
    gateway.clock.advance(HANDOVER);
    for (gateway, browser) in [(&gateway, &browser), (&twin, &other)] {
        assert_eq!(kid(&assertion(gateway, browser).await), new.kid);
        assert_eq!(published(gateway).await, std::slice::from_ref(&new.kid));
    }
}

/// What a portal that verifies sees, from the first key to the third, on its own clock.
async fn is_verified_by(library: Library) {
    // So that what is signed at the end of this test is signed just now, and what was signed at its beginning has ended.
    // A login may turn the clock a little.
    let start = now().minus(NOTICE).minus(90 * SECOND);
    let (gateway, early) = logged_in(TestGateway::builder().clock(start)).await;
    let keys = &gateway.stores().signing_keys;
    let expired = assertion(&gateway, &early).await;
    let Rotation::Made(next) = keys.rotate(gateway.clock.now()).await.unwrap() else { panic!("it is there") };
    soon(5 * SECOND, "the next key is published", async || published(&gateway).await.len() == 2).await;

    let verifier = Verifier::start(library, &gateway, ISSUER);
    gateway.clock.set(next.signs_from.minus(SECOND));
    let first = assertion(&gateway, &early).await;
    let accepted = verifier.verify(&first).await.unwrap();
    assert_eq!(accepted, claims(&first));
    assert_eq!(accepted["email"], ADA);

    // The next key takes over; nobody has to fetch anything.
    gateway.clock.set(next.signs_from);
    let late = gateway.browser();
    late.log_in(ADA).await;
    let second = assertion(&gateway, &late).await;
    assert_ne!(kid(&first), next.kid);
    assert_eq!(kid(&second), next.kid);
    for token in [&first, &second] {
        assert_eq!(verifier.verify(token).await.unwrap(), claims(token));
    }

    let reason = |refused: Result<Value, String>| refused.expect_err("it does not hold");
    let names = match library {
        Library::PyJwt => ["ExpiredSignatureError", "InvalidSignatureError", "InvalidAudienceError"],
        Library::Jose => {
            ["ERR_JWT_EXPIRED", "ERR_JWS_SIGNATURE_VERIFICATION_FAILED", "ERR_JWT_CLAIM_VALIDATION_FAILED"]
        }
    };
    assert_eq!(reason(verifier.verify(&expired).await), names[0]);
    for tampered in tampered(&second, &first) {
        assert_eq!(reason(verifier.verify(&tampered).await), names[1], "{tampered}");
    }
    let elsewhere = Verifier::start(library, &gateway, "https://other.example.com");
    assert_eq!(reason(elsewhere.verify(&second).await), names[2]);

    // Given up, the old keys are no more for whoever fetches now.
    let new = keys.replace_all(gateway.clock.now()).await.unwrap();
    soon(5 * SECOND, "the new key is published", async || published(&gateway).await.contains(&new.kid)).await;
    gateway.clock.advance(HANDOVER);
    let restarted = Verifier::start(library, &gateway, ISSUER);
    let third = assertion(&gateway, &late).await;
    assert_eq!(restarted.verify(&third).await.unwrap(), claims(&third));
    reason(restarted.verify(&second).await);
}

/// With other claims, with the signature of another token, and with one that is a little different.
fn tampered(token: &str, other: &str) -> [String; 3] {
    let parts: Vec<_> = token.split('.').collect();
    let mut claims = claims(token);
    claims["groups"] = json!(["administrators"]);
    let claims = BASE64_URL_SAFE_NO_PAD.encode(claims.to_string());
    let mut signature = BASE64_URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
    signature[40] ^= 1;
    let signature = BASE64_URL_SAFE_NO_PAD.encode(signature);
    let strange = other.split('.').nth(2).unwrap();
    [(&*claims, parts[2]), (parts[1], strange), (parts[1], &signature)]
        .map(|(claims, signature)| format!("{}.{claims}.{signature}", parts[0]))
}

#[tokio::test]
async fn pyjwt_verifies_it_through_every_change_of_keys() {
    is_verified_by(Library::PyJwt).await;
}

#[tokio::test]
async fn jose_verifies_it_through_every_change_of_keys() {
    is_verified_by(Library::Jose).await;
}

#[tokio::test]
async fn whoever_has_no_session_gets_nothing_signed() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    let token = assertion(&gateway, &browser).await;
    gateway.upstream.forget();
    // An assertion is for the portal; at the gateway it opens nothing.
    let nobody = gateway.browser();
    for (name, value) in [(HEADER, token.clone()), ("authorization", format!("Bearer {token}"))] {
        let request = Request::get("/sims").header(name, &value).body(empty()).unwrap();
        assert_eq!(nobody.send(request).await.status, StatusCode::UNAUTHORIZED);
    }
    let mut forgery =
        Forgery::of(&[(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/sims")]);
    forgery.fields.push((HEADER.into(), token));
    assert_eq!(nobody.forge(&forgery).await.unwrap().status, StatusCode::UNAUTHORIZED);
    assert_eq!(gateway.upstream.requests().len(), 0);
}
