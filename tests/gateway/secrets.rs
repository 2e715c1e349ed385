//! Secrets stay where they belong: no password, seed, code, token, recovery code or assertion is in a log, a metric, an
//! address, a page that does not show it on purpose, or in clear in a store, whatever goes wrong.

use std::{path::Path, sync::Arc};

use http::StatusCode;
use secrecy::SecretString;
use sqlx::Connection as _;

use crate::support::{
    Answer, Browser, HOST, TestGateway,
    log::{self, Memory},
    phone::Phone,
};

const USER: &str = "ada@example.com";
const PASSWORD: &str = "Kanarienvogel-singt-um-7-Uhr";
const WRONG_PASSWORD: &str = "Kanarienvogel-schweigt-um-8-Uhr";
const WRONG_RECOVERY: &str = "ABCD-EFGH-JKMN-PQRS";

/// What was secret in the course of a test.
#[derive(Default)]
struct Canaries(Vec<(&'static str, String)>);

impl Canaries {
    fn add(&mut self, what: &'static str, secret: impl Into<String>) {
        let secret = secret.into();
        assert!(secret.len() >= 6, "{what} is too short to be looked for");
        self.0.push((what, secret));
    }

    /// Nowhere in a text; a code only where it stands by itself, since digits are many.
    #[track_caller]
    fn assert_absent(&self, place: &str, text: &str) {
        for (what, secret) in &self.0 {
            let mut found = text.match_indices(secret.as_str()).map(|(at, _)| at);
            let alone = |at: usize| {
                let around = [text[..at].chars().next_back(), text[at + secret.len()..].chars().next()];
                !around.into_iter().flatten().any(|letter| letter.is_ascii_digit())
            };
            let hit = if *what == "code" { found.find(|&at| alone(at)) } else { found.next() };
            assert_eq!(hit.map(|at| around(text, at)), None, "{what} is in {place}");
        }
    }

    /// Nowhere in a file, in the forms in which it could be stored. Codes are derived, not stored.
    #[track_caller]
    fn assert_absent_from_file(&self, path: &Path) {
        let bytes = std::fs::read(path).unwrap_or_default();
        for (what, secret) in self.0.iter().filter(|(what, _)| *what != "code") {
            let found =
                bytes.windows(secret.len()).any(|window| window.eq_ignore_ascii_case(secret.as_bytes()));
            assert!(!found, "{what} is in {}", path.display());
        }
    }
}

fn around(text: &str, at: usize) -> String {
    text.chars().skip(text[..at].chars().count().saturating_sub(60)).take(200).collect()
}

struct Scene {
    gateway: TestGateway,
    browser: Browser,
    log: Arc<Memory>,
    canaries: Canaries,
    /// Every answer that shows no secret on purpose.
    answers: Vec<Answer>,
}

impl Scene {
    async fn new(redis: bool) -> Self {
        let log = log::listen();
        let builder = TestGateway::builder().set("log.level", "trace");
        let (gateway, browser) = if redis { builder.redis() } else { builder }.start().await;
        let new =
            portcullis::users::NewUser { email: USER.into(), display_name: "Ada".into(), groups: Vec::new() };
        gateway.administration().add_user(new, Some(SecretString::from(PASSWORD))).await.unwrap();
        let mut canaries = Canaries::default();
        canaries.add("password", PASSWORD);
        canaries.add("wrong password", WRONG_PASSWORD);
        canaries.add("wrong recovery code", WRONG_RECOVERY);
        Self { gateway, browser, log, canaries, answers: Vec::new() }
    }

    fn keep(&mut self, answer: Answer) -> Answer {
        self.answers.push(answer.clone());
        answer
    }

    /// Everything that a first login can go through, mistakes included.
    async fn enrol(&mut self) {
        let refused = self.browser.submit_password(USER, WRONG_PASSWORD).await;
        assert_eq!(self.keep(refused).status, StatusCode::UNAUTHORIZED);
        let accepted = self.browser.submit_password(USER, PASSWORD).await;
        let enrol = self.keep(accepted).location();
        self.canaries.add("login token", self.browser.cookie("__Host-portcullis-login").unwrap());
        let page = self.browser.get(&enrol).await;
        let csrf = page.field("csrf");
        let wrong = [("code", "000000"), ("device_name", "Phone"), ("csrf", &csrf)];
        // The page shows the key again, on purpose.
        self.browser.post_form(&enrol, &wrong).await;
        let done = self.browser.enrol(USER, &enrol).await;
        self.keep(done);
        let phone = self.gateway.phone(USER);
        self.note_seed(&phone);
        self.canaries.add("code", phone.code());
        self.canaries.add("session token", self.browser.session());
        let codes = self.browser.get("/.portcullis/recovery-codes").await;
        for code in codes.text_of("codes").split_whitespace() {
            self.canaries.add("recovery code", code);
            self.canaries.add("recovery code", code.replace('-', ""));
        }
        assert!(self.canaries.0.iter().filter(|(what, _)| *what == "recovery code").count() >= 20);
        let stored =
            self.browser.post_form("/.portcullis/recovery-codes", &[("csrf", &codes.field("csrf"))]).await;
        self.keep(stored);
    }

    fn note_seed(&mut self, phone: &Phone) {
        let key = phone.key().to_owned();
        let hex: String = phone.seed().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        self.canaries.add("seed", key);
        self.canaries.add("seed in hexadecimal", hex);
    }

    /// A second login with a wrong code first, then with a recovery code.
    async fn log_in_again(&mut self) {
        let other = self.gateway.browser();
        let next = other.submit_password(USER, PASSWORD).await;
        self.keep(next);
        self.canaries.add("login token", other.cookie("__Host-portcullis-login").unwrap());
        let wrong = other.submit_code("000001").await;
        assert_eq!(self.keep(wrong).status, StatusCode::UNAUTHORIZED);
        let code = self.gateway.phone(USER).fresh_code();
        self.canaries.add("code", &code);
        let right = other.submit_code(&code).await;
        assert_eq!(self.keep(right).status, StatusCode::SEE_OTHER);
        self.canaries.add("session token", other.session());

        let third = self.gateway.browser();
        third.submit_password(USER, PASSWORD).await;
        let page = third.get("/.portcullis/recovery").await;
        let code = self.canaries.0.iter().find(|(what, _)| *what == "recovery code").unwrap().1.clone();
        for code in [WRONG_RECOVERY, &code] {
            let fields = [("recovery_code", code), ("csrf", &page.field("csrf"))];
            let answer = third.post_form("/.portcullis/recovery", &fields).await;
            self.keep(answer);
        }
        self.canaries.add("session token", third.session());
        for browser in [other, third] {
            let answer = browser.get("/.portcullis/account").await;
            self.keep(answer);
            let answer = browser.get("/sims?q=1").await;
            self.keep(answer);
        }
    }

    /// Requests that put secrets where they do not belong.
    async fn misplace(&mut self) {
        let session = self.browser.session();
        for request in [
            format!(
                "GET /../{session} HTTP/1.1\r\nHost: {HOST}\r\nCookie: __Host-portcullis={session}\r\n\r\n"
            ),
            format!("GET / HTTP/1.1\r\nHost: {session}.example.com\r\n\r\n"),
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-{PASSWORD}: \x01\r\n\r\n"),
            format!(
                "POST /.portcullis/login HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\npassword={PASSWORD}&password={PASSWORD}",
                19 + 2 * PASSWORD.len()
            ),
        ] {
            let answer = self.browser.raw(request).await.answer().await;
            // The first two paths are in the access log, where an operator looks for them; they are not checked there.
            self.answers.push(answer);
        }
    }

    /// The assertions that the portal was sent, which may be nowhere else; not even a part that says nothing alone.
    fn assertions(&self) -> Canaries {
        let mut assertions = Canaries::default();
        for request in self.gateway.upstream.requests() {
            let assertion = request.value("x-portcullis-jwt-assertion").expect("every request has one");
            for part in assertion.split('.').skip(1) {
                assertions.add("assertion", part);
            }
        }
        assert!(!assertions.0.is_empty());
        assertions
    }

    async fn assert_kept(&self) {
        let metrics = self.gateway.admin("/metrics").await;
        let assertions = self.assertions();
        for secrets in [&self.canaries, &assertions] {
            secrets.assert_absent("the metrics", &metrics);
            secrets.assert_absent("the access log", &self.gateway.access_log());
            secrets.assert_absent("the log", &self.log.text());
        }
        for answer in &self.answers {
            self.canaries.assert_absent("a page", &answer.text());
            assertions.assert_absent("an answer", &format!("{:?} {}", answer.headers, answer.text()));
            let location = answer.headers.get("location").map_or("", |value| value.to_str().unwrap());
            self.canaries.assert_absent("an address", location);
        }
        for request in self.gateway.upstream.requests() {
            self.canaries.assert_absent("what the portal got", &format!("{request:?}"));
        }
        let logged = self.log.text();
        assert!(logged.contains("login.finished"), "the log was heard: {logged}");
    }

    fn assert_sealed(&self) {
        let seed = self.gateway.phone(USER).seed();
        let mut files = 0;
        for entry in std::fs::read_dir(self.gateway.folder()).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("portcullis.db")) {
                files += 1;
                self.canaries.assert_absent_from_file(&path);
                self.assertions().assert_absent_from_file(&path);
                let bytes = std::fs::read(&path).unwrap();
                assert!(!bytes.windows(seed.len()).any(|window| window == seed), "the seed is in clear");
            }
        }
        assert!(files >= 1);
    }

    async fn damage(&self, statement: String) {
        let url = format!("sqlite:{}", self.gateway.database_file().display());
        let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_login_with_every_mistake_gives_no_secret_away() {
    let mut scene = Scene::new(false).await;
    scene.enrol().await;
    scene.log_in_again().await;
    scene.assert_kept().await;
    scene.assert_sealed();
}

#[tokio::test]
async fn requests_that_misplace_secrets_are_not_quoted() {
    let mut scene = Scene::new(false).await;
    scene.enrol().await;
    let before = scene.gateway.access_log().len();
    scene.misplace().await;
    let misplaced = scene.gateway.access_log()[before..].to_owned();
    assert!(!misplaced.contains(PASSWORD), "{misplaced}");
    for answer in &scene.answers {
        scene.canaries.assert_absent("a page", &answer.text());
    }
    scene.canaries.assert_absent("the log", &scene.log.text());
}

#[tokio::test]
async fn a_database_that_fails_at_any_step_gives_no_secret_away() {
    let mut scene = Scene::new(false).await;
    scene.enrol().await;
    // Each table in turn is gone in the middle of things.
    for table in
        ["users", "passwords", "devices", "second_factors", "sessions", "recovery_codes", "pending_logins"]
    {
        let other = scene.gateway.browser();
        other.submit_password(USER, PASSWORD).await;
        let code_page = other.get("/.portcullis/code").await;
        let recovery_page = other.get("/.portcullis/recovery").await;
        scene.damage(format!("ALTER TABLE {table} RENAME TO gone")).await;

        let code = scene.gateway.phone(USER).fresh_code();
        scene.canaries.add("code", &code);
        let recovery = scene.canaries.0.iter().rfind(|(what, _)| *what == "recovery code").unwrap().1.clone();
        let recovery = [("recovery_code", &*recovery), ("csrf", &*recovery_page.field("csrf"))];
        let code = [("code", &*code), ("csrf", &*code_page.field("csrf"))];
        let mut statuses = Vec::new();
        for answer in [
            scene.gateway.browser().submit_password(USER, PASSWORD).await,
            other.post_form("/.portcullis/recovery", &recovery).await,
            other.post_form("/.portcullis/code", &code).await,
            scene.browser.get("/.portcullis/account").await,
            scene.browser.get("/").await,
        ] {
            statuses.push(answer.status.as_u16());
            scene.keep(answer);
        }
        assert!(statuses.contains(&503), "{table}: {statuses:?}");
        scene.damage(format!("ALTER TABLE gone RENAME TO {table}")).await;
    }
    scene.assert_kept().await;
    scene.assert_sealed();
}

#[tokio::test]
async fn a_redis_that_dies_gives_no_secret_away_and_holds_none() {
    let mut scene = Scene::new(true).await;
    scene.enrol().await;
    scene.log_in_again().await;
    let redis = Arc::clone(scene.gateway.redis.as_ref().unwrap());
    let keys: Vec<String> = redis.command(&["KEYS", "*"]).await;
    assert!(!keys.is_empty());
    for key in &keys {
        scene.canaries.assert_absent("a key", key);
        let kind: String = redis.command(&["TYPE", key]).await;
        let value: redis::Value = match kind.as_str() {
            "string" => redis.command(&["GET", key]).await,
            "hash" => redis.command(&["HGETALL", key]).await,
            "set" => redis.command(&["SMEMBERS", key]).await,
            "zset" => redis.command(&["ZRANGE", key, "0", "-1"]).await,
            "list" => redis.command(&["LRANGE", key, "0", "-1"]).await,
            "stream" => redis.command(&["XRANGE", key, "-", "+"]).await,
            other => panic!("{key} is a {other}"),
        };
        scene.canaries.assert_absent("a value", &String::from_utf8_lossy(&flat(&value)));
    }
    redis.freeze().await;
    for path in ["/", "/.portcullis/account", "/.portcullis/whoami"] {
        let answer = scene.browser.get(path).await;
        scene.keep(answer);
    }
    let answer = scene.gateway.browser().submit_password(USER, PASSWORD).await;
    scene.keep(answer);
    redis.thaw().await;
    scene.assert_kept().await;
    scene.assert_sealed();
}

/// All bytes that a value is made of.
fn flat(value: &redis::Value) -> Vec<u8> {
    match value {
        redis::Value::BulkString(bytes) => bytes.clone(),
        redis::Value::SimpleString(text) => text.clone().into_bytes(),
        redis::Value::Array(values) | redis::Value::Set(values) => values.iter().flat_map(flat).collect(),
        redis::Value::Map(pairs) => {
            pairs.iter().flat_map(|(key, value)| [flat(key), flat(value)].concat()).collect()
        }
        _ => Vec::new(),
    }
}
