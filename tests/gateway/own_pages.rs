//! All of our own pages at once: which methods they take, what every answer of them bears, where they let themselves be
//! shown, and that looking at them changes nothing.

use http::{Method, Request, StatusCode, header};

use crate::support::{ADA, Answer, Browser, OWN_PAGES, TestGateway, body, empty};

fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header("accept", "text/html")
}

async fn ask(browser: &Browser, method: &str, path: &str) -> Answer {
    browser.send(request(method, path).body(empty()).unwrap()).await
}

/// One gateway and a browser in every state that matters to a page.
async fn in_every_state() -> (TestGateway, Vec<(&'static str, Browser)>) {
    let (gateway, nobody) = TestGateway::builder().set("portal.session_notice", "true").start().await;
    gateway.add_user(ADA).await;
    gateway.add_user("bob@example.com").await;
    let full = gateway.browser();
    full.log_in(ADA).await;
    let (coding, enrolling, adding) = (gateway.browser(), gateway.browser(), gateway.browser());
    let page = coding.visit("/").await;
    coding.sign_in(&page, ADA).await;
    let page = enrolling.visit("/").await;
    enrolling.sign_in(&page, "bob@example.com").await;
    adding.log_in_to("/.portcullis/enrol", ADA).await;
    let states = vec![
        ("nobody", nobody),
        ("coding", coding),
        ("enrolling", enrolling),
        ("full", full),
        ("adding", adding),
    ];
    (gateway, states)
}

/// What every answer of ours has to say, and what none may.
#[track_caller]
fn check(answer: &Answer, what: &str) {
    if answer.status == StatusCode::OK && answer.header("cache-control").contains("immutable") {
        assert!(answer.header("strict-transport-security").contains("max-age=31536000"), "{what}");
    } else if answer.status == StatusCode::OK && what.contains("/jwks.json") {
        answer.assert_secure_and_kept("public, max-age=300");
    } else {
        answer.assert_secure();
    }
    for (name, part) in [
        ("content-security-policy", "default-src 'none'"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("permissions-policy", "camera=()"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert!(answer.header(name).contains(part), "{what}: {name} is {:?}", answer.header(name));
    }
    assert!(!answer.headers.contains_key("x-powered-by") && !answer.headers.contains_key("via"), "{what}");
    assert!(!answer.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN), "{what}");
    let policy = answer.header("content-security-policy");
    assert!(!policy.contains("unsafe"), "{what}: {policy}");
    if !answer.body.is_empty() {
        let kind = answer.header("content-type");
        let known = ["text/html; charset=utf-8", "application/json", "application/problem+json"];
        let asset = ["text/css; charset=utf-8", "text/javascript; charset=utf-8", "image/svg+xml"];
        assert!(known.contains(&kind.as_str()) || asset.contains(&kind.as_str()), "{what}: {kind}");
    }
    match answer.status.as_u16() {
        401 => assert!(answer.headers.contains_key("www-authenticate"), "{what}"),
        405 => assert!(answer.headers.contains_key("allow"), "{what}"),
        429 | 503 => assert!(answer.headers.contains_key("retry-after"), "{what}"),
        status => assert!(status < 500, "{what}: {status}"),
    }
    for cookie in answer.set_cookies() {
        let (pair, attributes) = cookie.split_once(';').unwrap();
        let (name, value) = pair.split_once('=').unwrap();
        let ours = ["__Host-portcullis", "__Host-portcullis-login", "__Host-portcullis-forms"];
        assert!(ours.contains(&name), "{what}: {cookie}");
        assert!(matches!(value.len(), 0 | 43), "{what}: {cookie}");
        for part in ["Secure", "HttpOnly", "SameSite=Lax", "Path=/"] {
            assert!(attributes.split(';').any(|known| known.trim() == part), "{what}: {cookie}");
        }
        assert!(!attributes.contains("Domain") && !attributes.contains("Expires"), "{what}: {cookie}");
        assert!(
            value.is_empty() || !attributes.contains("Max-Age"),
            "{what}: gone with the browser: {cookie}"
        );
    }
}

/// Every path of ours, and some that only look like one.
fn paths() -> Vec<String> {
    let mut paths: Vec<String> = OWN_PAGES.iter().map(|page| format!("/.portcullis/{page}")).collect();
    for odd in [
        "/.portcullis",
        "/.portcullis/",
        "/.portcullis/nothing",
        "/.portcullis/login/",
        "/.portcullis/LOGIN",
        "/.portcullis/auth/nginx",
        "/.portcullis/admin",
        "/.portcullis/metrics",
        "/.portcullis/assets/",
        "/.portcullis/assets/nothing.css",
        "/.portcullis/assets/..%2f..%2fCargo.toml",
        "/.Portcullis/login",
        "/%2eportcullis/login",
        "//.portcullis/login",
        "/.portcullis//login",
        "/.portcullis%2flogin",
        "/.portcullis;x=y/login",
        "/.well-known/portcullis/jwks.json",
        "/.well-known/portcullis/../../x",
    ] {
        paths.push(odd.to_owned());
    }
    paths
}

#[tokio::test]
async fn every_answer_of_ours_is_secure_whatever_went_wrong() {
    let (gateway, states) = in_every_state().await;
    let asked = gateway.upstream.requests().len();
    for (state, browser) in &states {
        for path in paths() {
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
                for query in ["", "?rd=/x", "?rd=//evil.example&rd=/", "?expired=1&again=1&skip=1"] {
                    let browser = browser.copy();
                    let answer = ask(&browser, method, &format!("{path}{query}")).await;
                    check(&answer, &format!("{state}: {method} {path}{query}"));
                }
            }
            let browser = browser.copy();
            let form = request("POST", &path).header("content-type", "application/x-www-form-urlencoded");
            let answer = browser.send(form.body(body("csrf=x&code=1&email=a&skip=1")).unwrap()).await;
            check(&answer, &format!("{state}: POST {path}"));
            let answer = browser.fetch(&path).await;
            check(&answer, &format!("{state}: a script asks for {path}"));
        }
    }
    assert_eq!(gateway.upstream.requests().len(), asked, "nothing of it went to the portal");
}

#[tokio::test]
async fn no_page_asks_for_anything_but_what_a_login_takes() {
    // No hint, no question, no code by mail.
    let (_gateway, states) = in_every_state().await;
    let mut asked = std::collections::BTreeSet::new();
    for (_, browser) in &states {
        for page in [&OWN_PAGES[..], &["code-first", "recovery-codes?new=1"]].concat() {
            let text = browser.visit(&format!("/.portcullis/{page}")).await.text();
            for tag in text.split("<input ").skip(1) {
                let tag = tag.split('>').next().unwrap();
                if !tag.contains("type=\"hidden\"") {
                    asked.insert(tag.split("name=\"").nth(1).unwrap().split('"').next().unwrap().to_owned());
                }
            }
            assert!(!text.contains("<textarea") && !text.contains("<select"), "{page}");
        }
    }
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    assert_eq!(asked, ["code", "device_name", "email", "password", "recovery_code"]);
}

#[tokio::test]
async fn the_password_is_masked_and_may_be_pasted_or_filled_in() {
    let (_gateway, browser) = TestGateway::start().await;
    let text = browser.get("/.portcullis/login").await.text();
    let tag = |name: &str| {
        let tags = text.split("<input ").skip(1).map(|tag| tag.split('>').next().unwrap());
        tags.filter(|tag| tag.contains(&format!("name=\"{name}\""))).collect::<String>()
    };
    assert!(tag("email").contains("autocomplete=\"username\""), "{text}");
    for part in ["type=\"password\"", "autocomplete=\"current-password\""] {
        assert!(tag("password").contains(part), "{text}");
    }
    // Nothing cuts, refuses or watches what comes in.
    for part in ["maxlength", "pattern", "readonly", "onpaste"] {
        assert!(!tag("password").contains(part), "{text}");
    }
    let text = text.replace("&#x2f;", "/");
    let scripts: Vec<&str> = text
        .split('"')
        .filter(|part| part.starts_with("/.portcullis/assets/") && part.contains(".js"))
        .collect();
    assert!(!scripts.is_empty(), "{text}");
    for script in scripts {
        let script = ask(&browser, "GET", script).await.text();
        for event in ["\"paste\"", "\"beforeinput\"", "\"keydown\"", "\"keypress\""] {
            assert!(!script.contains(event), "{event}");
        }
    }
}

#[tokio::test]
async fn the_assets_of_every_page_are_there_and_may_be_kept() {
    let (_gateway, states) = in_every_state().await;
    let mut seen = std::collections::BTreeSet::new();
    for (_, browser) in &states {
        for page in OWN_PAGES {
            let text = browser.visit(&format!("/.portcullis/{page}")).await.text();
            let text = text.replace("&#x2f;", "/");
            seen.extend(
                text.split('"').filter(|part| part.starts_with("/.portcullis/assets/")).map(str::to_owned),
            );
            for part in
                text.split([' ', '\n']).filter(|part| part.starts_with("src=") || part.starts_with("href="))
            {
                let local = ["\"/", "\"\"", "\"mailto:support@example.com", "\"otpauth://totp/"];
                let to = part.split_once('=').unwrap().1;
                assert!(local.iter().any(|start| to.starts_with(start)), "{page} loads {part}");
            }
        }
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
    let stranger = &states[0].1;
    for path in &seen {
        for (method, dest) in [("GET", "style"), ("HEAD", "image"), ("GET", "script")] {
            let request = request(method, path).header("sec-fetch-dest", dest);
            let answer = stranger.send(request.body(empty()).unwrap()).await;
            assert_eq!(answer.status, StatusCode::OK, "{path}");
            assert_eq!(answer.header("cache-control"), "public, max-age=31536000, immutable");
            check(&answer, path);
        }
        let answer = ask(stranger, "POST", path).await;
        assert_eq!((answer.status.as_u16(), answer.header("allow").as_str()), (405, "GET, HEAD"));
    }
}

#[tokio::test]
async fn each_page_answers_to_its_own_methods_alone() {
    let (_gateway, states) = in_every_state().await;
    for (state, browser) in &states {
        for page in OWN_PAGES {
            let path = format!("/.portcullis/{page}");
            let allowed = match page {
                "whoami" | "session" | "signed-in" => "GET, HEAD",
                "stay" => "POST",
                _ => "GET, HEAD, POST",
            };
            for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "BREW"] {
                let answer = ask(&browser.copy(), method, &path).await;
                assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{state}: {method} {path}");
                assert_eq!(answer.header("allow"), allowed, "{method} {path}");
            }
            if !allowed.contains("POST") {
                let answer = ask(&browser.copy(), "POST", &path).await;
                assert_eq!(
                    (answer.status.as_u16(), answer.header("allow").as_str()),
                    (405, allowed),
                    "{path}"
                );
            }
            // HEAD is GET without the body.
            let (get, head) =
                (ask(&browser.copy(), "GET", &path).await, ask(&browser.copy(), "HEAD", &path).await);
            assert_eq!((head.status, head.body.len()), (get.status, 0), "{state}: {path}");
            for name in ["content-type", "location", "allow", "www-authenticate"] {
                assert_eq!(head.header(name), get.header(name), "{state}: {name} of {path}");
            }
        }
    }
}

#[tokio::test]
async fn no_page_of_ours_is_shown_inside_another() {
    let (_gateway, states) = in_every_state().await;
    for (state, browser) in &states {
        for page in OWN_PAGES {
            let path = format!("/.portcullis/{page}");
            for dest in
                ["image", "iframe", "frame", "script", "style", "object", "embed", "audio", "worker", "x"]
            {
                for method in [Method::GET, Method::POST] {
                    let other = match page {
                        "account" | "whoami" | "session" | "signed-in" => Some(Method::POST),
                        "stay" => Some(Method::GET),
                        _ => None,
                    };
                    if other.as_ref() == Some(&method) {
                        continue;
                    }
                    let browser = browser.copy();
                    let request = request(method.as_str(), &path)
                        .header("sec-fetch-dest", dest)
                        .header("content-type", "application/x-www-form-urlencoded");
                    let answer = browser.send(request.body(body("skip=1")).unwrap()).await;
                    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{state}: {method} {path} for {dest}");
                    assert!(answer.set_cookies().is_empty());
                }
            }
            for dest in ["document", "empty"] {
                let request = request("GET", &path).header("sec-fetch-dest", dest);
                let answer = browser.copy().send(request.body(empty()).unwrap()).await;
                assert_ne!(answer.status, StatusCode::FORBIDDEN, "{path} for {dest}");
            }
        }
    }
}

#[tokio::test]
async fn looking_at_pages_makes_no_session() {
    let (gateway, states) = in_every_state().await;
    let count = gateway.administration().sessions(None).await.unwrap().len();
    for (state, browser) in &states {
        let browser = browser.copy();
        let held = browser.cookie("__Host-portcullis");
        for page in OWN_PAGES {
            for method in ["GET", "HEAD"] {
                for query in [
                    format!("?email={ADA}&password=correct+horse+battery+staple&csrf=x"),
                    format!("?code={}&recovery_code=x&csrf=x", gateway.phone(ADA).code()),
                    "?skip=1&csrf=x&device_name=Phone".to_owned(),
                    "?again=1&rd=/.portcullis/enrol".to_owned(),
                ] {
                    ask(&browser, method, &format!("/.portcullis/{page}{query}")).await;
                }
            }
        }
        assert_eq!(browser.cookie("__Host-portcullis"), held, "{state}");
    }
    assert_eq!(gateway.administration().sessions(None).await.unwrap().len(), count);
    assert_eq!(gateway.administration().user_details("bob@example.com").await.unwrap().devices.len(), 0);
}

#[tokio::test]
async fn two_cookies_of_one_name_are_no_session_and_a_broken_one_is_none() {
    let (gateway, states) = in_every_state().await;
    let session = states[3].1.session();
    assert_eq!(states[3].1.level().await, "two_factor");
    for cookies in [
        format!("__Host-portcullis={session}; __Host-portcullis={session}"),
        format!("__Host-portcullis={session}; a=b; __Host-portcullis="),
        format!("__host-portcullis={session}"),
        format!("__Host-portcullis=\"{session}\""),
        format!("__Host-portcullis={session}x"),
        format!("__Host-portcullis={}", &session[1..]),
        format!("__Secure-portcullis={session}"),
        "__Host-portcullis=%00; =; ;;; __Host-portcullis".to_owned(),
    ] {
        let ask = async |path| {
            let asked = request("GET", path).header("cookie", &cookies);
            gateway.browser().send(asked.body(empty()).unwrap()).await
        };
        let answer = ask("/.portcullis/whoami").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{cookies}");
        let answer = ask("/sims").await;
        assert_eq!((answer.status, answer.set_cookies().len()), (StatusCode::FOUND, 0), "{cookies}");
    }
}
