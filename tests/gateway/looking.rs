//! Looking at our own pages writes nothing, and neither does a form that is not one of ours: each of them is asked for while
//! somebody else holds the only lock for writing.

use std::{collections::BTreeMap, time::Duration};

use http::{Request, StatusCode};

use crate::support::{
    ADA, BOB, Browser, EVE, HOST, OWN_PAGES, PASSWORD, TestGateway, body, empty, now, test_gateway::Builder,
};

const DORA: &str = "dora@example.com";
const FORMS: &str = "__Host-portcullis-forms";
/// Has a form of Ada's kept, and says where and for which browser.
async fn kept(gateway: &TestGateway) -> (String, String) {
    let browser = gateway.browser();
    browser.log_in(ADA).await;
    gateway.clock.advance(Duration::from_hours(1));
    let answer = browser.post_form("/sims/new", &[("name", "SIM 1")]).await;
    let to = answer.location();
    let page = to.strip_prefix("/.portcullis/login?rd=").unwrap_or_else(|| panic!("{answer:?}")).to_owned();
    (page, browser.cookie(FORMS).unwrap())
}

/// A browser in every state that matters to a page, all of them the one in which Ada's form was kept.
async fn everybody(builder: Builder) -> (TestGateway, Vec<(&'static str, Browser)>, String) {
    // Passive: a use of a session is written down some time, whatever it was.
    let builder = builder
        .mandatory_from(now().plus(Duration::from_mins(75)))
        .set("sessions.passive_paths", "[\"/\", \"/.portcullis/*\"]")
        .set("portal.session_notice", "true");
    let (gateway, nobody) = builder.start().await;
    for email in [ADA, BOB, DORA, EVE] {
        gateway.add_user(email).await;
    }
    let (page, held) = kept(&gateway).await;
    let open = || gateway.browser();
    let (coding, enrolling, one, two, adding, unsaved) = (open(), open(), open(), open(), open(), open());
    for (browser, email) in [(&coding, ADA), (&enrolling, BOB), (&one, EVE), (&unsaved, DORA)] {
        let login = browser.visit("/").await;
        let step = browser.sign_in(&login, email).await;
        match email {
            EVE => drop(browser.submit(&step, &[("skip", "1")]).await),
            DORA => drop(browser.bind(&step, DORA, "Phone").await),
            _ => {}
        }
    }
    two.log_in(ADA).await;
    adding.log_in(ADA).await;
    let again = adding.visit("/.portcullis/login?again=1").await;
    adding.sign_in(&again, ADA).await;
    let states = vec![
        ("nobody", nobody),
        ("before a code", coding),
        ("before a first device", enrolling),
        ("one factor", one),
        ("two factors", two),
        ("two factors, proved once more", adding),
        ("two factors, recovery codes to be saved", unsaved),
    ];
    for (_, browser) in &states {
        browser.set_cookie(FORMS, &held);
    }
    (gateway, states, page)
}

/// What there is in Redis, if sessions are there.
async fn in_redis(gateway: &TestGateway) -> BTreeMap<String, Vec<u8>> {
    let Some(redis) = &gateway.redis else { return BTreeMap::new() };
    let mut all = BTreeMap::new();
    for key in redis.command::<Vec<String>>(&["KEYS", "*"]).await {
        let value = redis.command::<Vec<u8>>(&["DUMP", &key]).await;
        all.insert(key, value);
    }
    all
}

/// Everything that a form of ours could want, with this token or with none.
fn forged(path: &str, csrf: Option<&str>, same_origin: bool) -> Request<crate::support::Body> {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in [
        ("email", ADA),
        ("password", PASSWORD),
        ("code", "000000"),
        ("recovery_code", "x"),
        ("device_name", "Phone 2"),
        ("skip", "1"),
        ("new", "1"),
        ("end", "others"),
        ("cancel", "1"),
    ] {
        form.append_pair(name, value);
    }
    if let Some(csrf) = csrf {
        form.append_pair("csrf", csrf);
    }
    let request = Request::post(path)
        .header("sec-fetch-mode", "navigate")
        .header("sec-fetch-site", if same_origin { "same-origin" } else { "cross-site" })
        .header("origin", if same_origin { format!("https://{HOST}") } else { "https://x.example".into() })
        .header("accept", "text/html")
        .header("content-type", "application/x-www-form-urlencoded");
    request.body(body(form.finish())).unwrap()
}

fn look(method: &str, path: &str) -> Request<crate::support::Body> {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("sec-fetch-mode", "navigate").header("accept", "text/html");
    request.body(empty()).unwrap()
}

/// Asks for every page in every way that is to change nothing.
async fn look_at_all(states: &[(&str, Browser)], kept: &str, theirs: &str) -> usize {
    let mut paths: Vec<String> = OWN_PAGES.iter().map(|page| format!("/.portcullis/{page}")).collect();
    paths.push(kept.to_owned());
    paths.push(format!("/.portcullis/kept/{}", "x".repeat(22)));
    let marked = format!("/sims/new?.portcullis-form={}", kept.rsplit('/').next().unwrap());
    let mut asked = 0;
    for (state, browser) in states {
        for path in &paths {
            let mut requests = Vec::new();
            for query in ["", "?rd=/x", "?again=1", "?new=1"] {
                requests.extend(["GET", "HEAD"].map(|method| look(method, &format!("{path}{query}"))));
            }
            requests.extend([None, Some("x")].map(|csrf| forged(path, csrf, true)));
            requests.push(forged(path, Some(theirs), false));
            for request in requests {
                let told = format!("{state}: {} {}", request.method(), request.uri());
                let answer = browser.copy().send(request).await;
                assert!(!answer.status.is_server_error(), "{told}: {}", answer.heading());
                let gets_in =
                    |cookie: &String| cookie.starts_with("__Host-portcullis=") && !cookie.contains("=;");
                assert!(!answer.set_cookies().iter().any(gets_in), "{told}");
                asked += 1;
            }
        }
        let answer = browser.copy().post_form(&marked, &[("csrf", "x")]).await;
        assert!(!answer.status.is_server_error(), "{state}: {}", answer.heading());
    }
    asked
}

#[tokio::test]
async fn looking_at_a_page_writes_nothing_and_neither_does_a_form_that_is_not_ours() {
    for builder in [TestGateway::builder(), TestGateway::builder().redis()] {
        let (gateway, states, kept) = everybody(builder).await;
        let (_, full) = states.iter().find(|(state, _)| *state == "two factors").unwrap();
        let elsewhere = gateway.browser();
        elsewhere.log_in(ADA).await;
        let theirs = elsewhere.get("/.portcullis/account").await.field("csrf");
        let rows = format!("{:?}", gateway.stores().database.rows().await.unwrap());
        for later in [0, 16] {
            // Then one factor is not enough any more, and the proofs are old.
            gateway.clock.advance(Duration::from_mins(later));
            let redis = in_redis(&gateway).await;
            let lock = gateway.stores().database.write().await.unwrap();
            assert_eq!(look_at_all(&states, &kept, &theirs).await, 7 * 13 * 11);
            assert_eq!(in_redis(&gateway).await, redis);
            drop(lock);
        }
        assert_eq!(format!("{:?}", gateway.stores().database.rows().await.unwrap()), rows);
        // What does write is held up by the lock.
        let lock = gateway.stores().database.write().await.unwrap();
        let csrf = full.get("/.portcullis/account").await.field("csrf");
        let answer = full.post_form("/.portcullis/logout", &[("csrf", &csrf)]).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        drop(lock);
    }
}
