//! A certificate in place of a password: it begins a login, and no more.

use super::{
    authority::{Authority, Got, Identity, curl, email, text},
    builder,
};
use crate::support::{ADA, EVE, HOST, PATIENCE, TestGateway, now, soon};

const CLIENTS: &str = r#"[{ san = "email:ada@example.com", user = "ada@example.com", as = "first_factor" }]"#;
const BUTTON: &str = "Continue with the certificate";

/// A browser that is curl with a jar for its cookies.
struct Person<'a> {
    gateway: &'a TestGateway,
    identity: Option<Identity>,
    jar: String,
}

impl<'a> Person<'a> {
    fn new(gateway: &'a TestGateway, identity: Option<&Identity>, jar: &str) -> Self {
        Self { gateway, identity: identity.cloned(), jar: text(&gateway.folder().join(jar)) }
    }

    async fn get(&self, path: &str) -> Got {
        let words = ["-b", &self.jar, "-c", &self.jar, "-H", "Sec-Fetch-Mode: navigate"];
        curl(self.gateway, self.identity.as_ref(), path, &words).await
    }

    async fn post(&self, path: &str, form: &str) -> Got {
        let origin = format!("Origin: https://{HOST}");
        let fields = ["-H", "Sec-Fetch-Mode: navigate", "-H", "Sec-Fetch-Site: same-origin", "-H", &origin];
        let words = [&["-b", &self.jar, "-c", &self.jar, "-d", form][..], &fields].concat();
        curl(self.gateway, self.identity.as_ref(), path, &words).await
    }

    /// Presses the button for the certificate.
    async fn press(&self) -> Got {
        let page = self.get("/.portcullis/login?rd=/sims").await;
        self.post("/.portcullis/login", &format!("csrf={}&rd=/sims&certificate=1", csrf(&page))).await
    }

    async fn who_am_i(&self) -> serde_json::Value {
        let got = curl(self.gateway, None, "/.portcullis/whoami", &["-b", &self.jar]).await;
        serde_json::from_str(&got.body).unwrap_or_default()
    }
}

fn csrf(page: &Got) -> String {
    let (_, rest) = page.body.split_once("name=\"csrf\" value=\"").expect("the page has a form");
    rest.split_once('"').unwrap().0.to_owned()
}

#[tokio::test]
async fn a_certificate_and_a_code_make_a_session_of_two_factors() {
    let authority = Authority::new("Clients");
    let (gateway, browser) = builder(&authority, CLIENTS).start().await;
    gateway.add_user(ADA).await;
    browser.log_in(ADA).await;
    let certificate = authority.sign(1, vec![email(ADA)]);
    let ada = Person::new(&gateway, Some(&certificate), "ada");
    let page = ada.get("/.portcullis/login").await;
    assert!(page.body.contains(BUTTON) && page.body.contains(ADA), "{}", page.body);
    let pressed = ada.press().await;
    assert_eq!(pressed.status, 303, "{pressed:?}");
    assert!(pressed.field("location").starts_with("/.portcullis/code"), "{pressed:?}");
    // It is half of a login: the portal is as far away as before.
    gateway.upstream.forget();
    assert_eq!(ada.get("/sims").await.status, 302);
    assert_eq!(gateway.upstream.requests().len(), 0);
    let page = ada.get(&pressed.field("location")).await;
    let code = gateway.phone(ADA).fresh_code();
    let done = ada.post(&pressed.field("location"), &format!("csrf={}&code={code}", csrf(&page))).await;
    assert_eq!((done.status, done.field("location").as_str()), (303, "/sims"), "{done:?}");
    // The session is the browser's from here on, whatever certificate it shows.
    let who = ada.who_am_i().await;
    assert_eq!((&who["email"], &who["amr"]), (&ADA.into(), &serde_json::json!(["swk", "otp"])), "{who}");
    let got = Person { identity: None, ..Person::new(&gateway, None, "ada") }.get("/sims").await;
    assert_eq!(got.status, 200);
    let log = gateway.upstream.only_request();
    assert_eq!(log.value("remote-user").as_deref(), Some(ADA));
}

#[tokio::test]
async fn before_a_device_it_is_one_factor_and_never_lets_in_a_machine() {
    let authority = Authority::new("Clients");
    let later = now().plus(std::time::Duration::from_hours(48));
    let (gateway, _) = builder(&authority, CLIENTS).mandatory_from(later).start().await;
    gateway.add_user(ADA).await;
    let certificate = authority.sign(1, vec![email(ADA)]);
    assert_eq!(curl(&gateway, Some(&certificate), "/sims", &[]).await.status, 401, "it is no machine's");
    let ada = Person::new(&gateway, Some(&certificate), "ada");
    let pressed = ada.press().await;
    let enrol = pressed.field("location");
    assert!(enrol.starts_with("/.portcullis/enrol"), "{pressed:?}");
    let page = ada.get(&enrol).await;
    let done = ada.post(&enrol, &format!("csrf={}&skip=1", csrf(&page))).await;
    assert_eq!(done.status, 303, "{done:?}");
    let who = ada.who_am_i().await;
    assert_eq!(who["amr"], serde_json::json!(["swk"]), "{who}");
    assert_eq!(ada.get("/sims").await.status, 200);
}

#[tokio::test]
async fn a_stranger_s_page_is_everybody_s_and_says_nothing_of_who_exists() {
    let (authority, other) = (Authority::new("Clients"), Authority::new("Others"));
    let clients = r#"[{ san = "email:ada@example.com", user = "ada@example.com", as = "first_factor" },
        { san = "email:eve@example.com", user = "eve@example.com", as = "first_factor" },
        { san = "email:bot@example.com", service = "bot" }]"#;
    let (gateway, _) = builder(&authority, clients).start().await;
    gateway.add_user(ADA).await;
    gateway.administration().set_disabled(ADA, true).await.unwrap();
    let page = |got: Got| got.body.replace(&csrf(&got), "");
    let none = page(Person::new(&gateway, None, "none").get("/.portcullis/login").await);
    assert!(!none.contains(BUTTON));
    for (serial, identity) in [
        (1, other.sign(1, vec![email(ADA)])),
        (2, authority.sign(2, vec![email("nobody@example.com")])),
        (3, authority.sign(3, vec![email("bot@example.com")])),
    ] {
        let stranger = Person::new(&gateway, Some(&identity), &format!("stranger-{serial}"));
        assert_eq!(page(stranger.get("/.portcullis/login").await), none);
        let pressed = stranger.press().await;
        assert_eq!(pressed.status, 401);
        assert!(pressed.body.contains("You can&#x27;t sign in with this certificate"), "{}", pressed.body);
    }
    // One is disabled, the other is not there: their answers differ in the name that the certificate has.
    let answers =
        [(4, ADA), (5, EVE)].map(|(serial, name)| (authority.sign(serial, vec![email(name)]), name));
    let mut told = Vec::new();
    for (identity, name) in &answers {
        let person = Person::new(&gateway, Some(identity), name);
        let pressed = person.press().await;
        assert_eq!(pressed.status, 401);
        told.push(page(pressed).replace(name, "NAME"));
    }
    assert_eq!(told[0], told[1]);
}

#[tokio::test]
async fn the_button_needs_the_page_that_has_it() {
    let authority = Authority::new("Clients");
    let (gateway, _) = builder(&authority, CLIENTS).start().await;
    gateway.add_user(ADA).await;
    let certificate = authority.sign(1, vec![email(ADA)]);
    let ada = Person::new(&gateway, Some(&certificate), "ada");
    let eve = Person::new(&gateway, None, "eve");
    let hers = csrf(&eve.get("/.portcullis/login").await);
    let foreign = ["-H", "Sec-Fetch-Site: cross-site", "-H", "Origin: https://evil.example"];
    for form in ["certificate=1".to_owned(), format!("certificate=1&csrf={hers}")] {
        let words = [&["-d", &form, "-b", &ada.jar, "-c", &ada.jar][..], &foreign].concat();
        let got = curl(&gateway, Some(&certificate), "/.portcullis/login", &words).await;
        assert_eq!(got.status, 403, "{form}: {got:?}");
    }
}

#[tokio::test]
async fn a_login_goes_on_only_with_the_certificate_that_it_began_with() {
    let authority = Authority::new("Clients");
    authority.revoke(&[], 2040);
    let clients = CLIENTS.replace(
        ']',
        r#", { san = "email:eve@example.com", user = "eve@example.com", as = "first_factor" }]"#,
    );
    let later = now().plus(std::time::Duration::from_hours(48));
    let builder = builder(&authority, &clients).set("tls.client_crl", &text(&authority.list()));
    let (gateway, browser) = builder.mandatory_from(later).start().await;
    gateway.add_user(ADA).await;
    gateway.add_user(EVE).await;
    let (certificate, eves) = (authority.sign(1, vec![email(ADA)]), authority.sign(2, vec![email(EVE)]));
    for (jar, has_device) in [("skips", false), ("gives a code", true)] {
        if has_device {
            browser.log_in(ADA).await;
        }
        let with = |identity| Person::new(&gateway, identity, jar);
        let ada = with(Some(&certificate));
        let step = ada.press().await.field("location");
        let csrf = csrf(&ada.get(&step).await);
        let go_on = async |identity| {
            let proof = if has_device {
                format!("code={}", gateway.phone(ADA).fresh_code())
            } else {
                "skip=1".to_owned()
            };
            let got = with(identity).post(&step, &format!("csrf={csrf}&{proof}")).await;
            assert_eq!(got.status, 303, "{got:?}");
            (got.field("location").starts_with("/.portcullis/login?"), ada.who_am_i().await["email"] == ADA)
        };
        let over = (true, false);
        assert_eq!([go_on(None).await, go_on(Some(&eves)).await], [over, over]);
        assert!(with(None).get(&step).await.field("location").starts_with("/.portcullis/login?"));
        let counts = async |expected: bool| {
            let stranger = Person::new(&gateway, Some(&certificate), "stranger");
            let has_button = async || stranger.get("/.portcullis/login").await.body.contains(BUTTON);
            soon(PATIENCE, "the list is read", async || has_button().await == expected).await;
        };
        authority.revoke(&[certificate.serial], 2040);
        counts(false).await;
        assert_eq!(go_on(Some(&certificate)).await, over);
        authority.revoke(&[], 2040);
        counts(true).await;
        assert_eq!(go_on(Some(&certificate)).await, (false, true));
    }
}

#[tokio::test]
async fn a_session_outlives_the_certificate_that_it_began_with() {
    let authority = Authority::new("Clients");
    authority.revoke(&[], 2040);
    let later = now().plus(std::time::Duration::from_hours(48));
    let builder = builder(&authority, CLIENTS).set("tls.client_crl", &text(&authority.list()));
    let (gateway, _) = builder.mandatory_from(later).start().await;
    gateway.add_user(ADA).await;
    let certificate = authority.sign(1, vec![email(ADA)]);
    let ada = Person::new(&gateway, Some(&certificate), "ada");
    let enrol = ada.press().await.field("location");
    let page = ada.get(&enrol).await;
    assert_eq!(ada.post(&enrol, &format!("csrf={}&skip=1", csrf(&page))).await.status, 303);
    authority.revoke(&[certificate.serial], 2040);
    let other = Person::new(&gateway, Some(&certificate), "other");
    soon(PATIENCE, "the certificate is nothing", async || {
        !other.get("/.portcullis/login").await.body.contains(BUTTON)
    })
    .await;
    assert_eq!(other.press().await.status, 401);
    assert_eq!(ada.get("/sims").await.status, 200);
    gateway.administration().revoke_user(ADA).await.unwrap();
    soon(PATIENCE, "the session is over", async || ada.get("/sims").await.status == 302).await;
}
