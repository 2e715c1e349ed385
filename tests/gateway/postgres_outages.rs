//! What becomes of PostgreSQL: down, cut off, hung, locked, read-only, full, out of connections. Nobody gets in, nobody is
//! logged out, and what needs no PostgreSQL goes on.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use tokio::time::Instant;

use crate::support::{
    ADA, Browser, PASSWORD, PATIENCE, TestGateway,
    chaos::{Chaos, Way},
    postgres::{PostgresServer, new_database},
    soon,
};

const SECOND: Duration = Duration::from_secs(1);

struct World {
    gateway: TestGateway,
    browser: Browser,
    chaos: Chaos,
    server: Arc<PostgresServer>,
    name: String,
}

impl World {
    async fn new() -> Self {
        Self::on(PostgresServer::start(&[])).await
    }

    async fn on(server: PostgresServer) -> Self {
        let chaos = Chaos::before(server.port()).await;
        let url = new_database(&server).replace(&server.port().to_string(), &chaos.port().to_string());
        let name = url.rsplit('/').next().unwrap().split('?').next().unwrap().to_owned();
        let (gateway, browser) = TestGateway::builder().set("storage.database", &url).start().await;
        gateway.add_user(ADA).await;
        browser.log_in(ADA).await;
        let world = Self { gateway, browser, chaos, server: Arc::new(server), name };
        // What the login changed has been heard of, and the session is known once more.
        let start = Instant::now();
        while start.elapsed() < SECOND {
            assert_eq!(world.status().await, StatusCode::OK);
        }
        world
    }

    async fn status(&self) -> StatusCode {
        self.browser.get("/sims").await.status
    }

    /// Whoever is signed in goes on, for longer than anything is believed without asking.
    async fn users_go_on(&self) {
        let start = Instant::now();
        while start.elapsed() < 2 * SECOND {
            assert_eq!(self.status().await, StatusCode::OK, "after {:?}", start.elapsed());
        }
    }

    async fn nobody_gets_in(&self) {
        let login = self.gateway.browser().submit_password(ADA, PASSWORD).await;
        assert_eq!(login.status, StatusCode::SERVICE_UNAVAILABLE, "{}", login.text());
        assert!(login.header("retry-after").parse::<u64>().is_ok_and(|wait| (1..=60).contains(&wait)));
        assert!(!login.starts_session());
    }

    /// Whether `/ready` gives this reason why nobody can log in, and counts the gateway as ready all the same.
    async fn says_of_logins(&self, reason: &str) -> bool {
        let ready: serde_json::Value = serde_json::from_str(&self.ready().await).unwrap();
        let metrics = self.gateway.admin("/metrics").await;
        let up = if reason == "ok" { "portcullis_logins_up 1" } else { "portcullis_logins_up 0" };
        ready["ready"] == true
            && ready["logins"].as_str().is_some_and(|said| said.contains(reason))
            && metrics.contains(up)
    }

    async fn ready(&self) -> String {
        let answer = self.gateway.admin("/ready").await;
        answer[answer.find('{').unwrap_or_default()..].to_owned()
    }

    fn sql(&self, statements: &str) -> String {
        // The gateway lives on this runtime as well.
        tokio::task::block_in_place(|| self.server.sql(&self.name, statements))
    }

    /// Holds a lock on a table until the guard is dropped.
    fn lock(&self, table: &str) -> Lock {
        let (server, name) = (Arc::clone(&self.server), self.name.clone());
        let statements = format!("BEGIN; LOCK TABLE {table}; SELECT pg_sleep(600)");
        let held = std::thread::spawn(move || server.psql(&name, &statements).output());
        let locked = format!(
            "SELECT COUNT(*) FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock' AND relation = '{table}'::regclass"
        );
        while !self.server.says(&self.name, &locked, "1") {
            std::thread::yield_now();
        }
        Lock { server: Arc::clone(&self.server), name: self.name.clone(), held: Some(held) }
    }

    /// Lets every change fail as it does when a table cannot grow.
    fn fill(&self) {
        self.sql(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$; \
             DO $$ DECLARE name TEXT; BEGIN FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP \
             EXECUTE format('CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON %I EXECUTE FUNCTION full_disk()', name); \
             END LOOP; END $$",
        );
    }

    fn make_room(&self) {
        self.sql("DROP FUNCTION full_disk CASCADE");
    }

    async fn is_back(&self) {
        soon(2 * SECOND, "it is back", async || self.status().await == StatusCode::OK).await;
        let newcomer = self.gateway.browser();
        newcomer.log_in_to("/sims", ADA).await;
        assert_eq!(newcomer.get("/sims").await.status, StatusCode::OK);
    }
}

struct Lock {
    server: Arc<PostgresServer>,
    name: String,
    held: Option<std::thread::JoinHandle<std::io::Result<std::process::Output>>>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%' \
                   AND pid <> pg_backend_pid()";
        self.server.sql(&self.name, end);
        let _ = self.held.take().map(std::thread::JoinHandle::join);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn down_cut_or_hung_postgres_is_503_and_back_in_a_second() {
    let world = World::new().await;
    for way in [Way::Refusing, Way::Cut, Way::HalfOpen] {
        world.chaos.set(way);
        soon(4 * SECOND, "the gateway notices", async || {
            world.status().await == StatusCode::SERVICE_UNAVAILABLE
        })
        .await;
        world.nobody_gets_in().await;
        let asked = world.gateway.upstream.requests().len();
        for _ in 0..10 {
            let answer = world.browser.get("/sims").await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{way:?}");
            assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|wait| (1..=60).contains(&wait)));
            assert_eq!(answer.set_cookies().len(), 0);
        }
        assert_eq!(world.gateway.upstream.requests().len(), asked, "nothing went to the portal");
        soon(2 * SECOND, "it is said", async || {
            world.gateway.admin("/ready").await.contains("\"database\":\"unavailable\"")
        })
        .await;
        world.chaos.set(Way::Open);
        soon(SECOND + SECOND / 2, "it is back", async || world.status().await == StatusCode::OK).await;
        world.is_back().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_two_lines_in_the_log_with_the_address_and_the_reason() {
    let log = crate::support::log::listen();
    let world = World::new().await;
    let port = world.chaos.port().to_string();
    world.chaos.set(Way::Refusing);
    soon(4 * SECOND, "the gateway notices", async || world.status().await == StatusCode::SERVICE_UNAVAILABLE)
        .await;
    for _ in 0..50 {
        world.nobody_gets_in().await;
    }
    world.chaos.set(Way::Open);
    world.is_back().await;
    let back = "WARN portcullis::database::postgres: the database is back";
    soon(PATIENCE, back, async || log.text().contains(back)).await;
    let text = log.text();
    let about: Vec<_> =
        text.lines().filter(|line| line.contains("the database is away") && line.contains(&port)).collect();
    assert_eq!(about.len(), 1, "{about:?}");
    assert_eq!(about[0].matches("onnection refused").count(), 1, "{about:?}");
    assert!(!text.lines().any(|line| line.contains("ERROR sqlx")), "the driver is silent");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_sessions_are_locked_users_go_on_and_strangers_are_bounded() {
    let world = World::new().await;
    assert_eq!(world.status().await, StatusCode::OK);
    // The harness has connections of its own.
    world.gateway.stores().database.close().await;
    let lock = world.lock("sessions");
    let strangers: Vec<_> = (0..24)
        .map(|number| {
            let stranger = world.gateway.browser();
            let name = "__Host-portcullis";
            stranger.set_cookie(name, &format!("{:A<43}", format!("x{number}x")));
            tokio::spawn(async move {
                let mut seen = Vec::new();
                for _ in 0..3 {
                    seen.push(stranger.get("/sims").await.status);
                }
                seen
            })
        })
        .collect();
    let backends = "SELECT state, wait_event, query_start, left(query, 60) FROM pg_stat_activity WHERE application_name = 'portcullis'";
    let start = Instant::now();
    while start.elapsed() < 3 * SECOND {
        assert_eq!(world.status().await, StatusCode::OK, "after {:?}", start.elapsed());
        let backends = world.sql(backends);
        assert!(backends.lines().count() <= 8, "{backends}");
    }
    assert!(world.gateway.admin("/ready").await.contains("\"database\":\"ok\""));
    assert!(world.says_of_logins("the table sessions is locked").await);
    for stranger in strangers {
        for status in stranger.await.unwrap() {
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        }
    }
    drop(lock);
    world.is_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_is_read_only_users_go_on_and_nobody_gets_in() {
    let log = crate::support::log::listen();
    let world = World::new().await;
    assert_eq!(world.status().await, StatusCode::OK);
    world.sql("ALTER SYSTEM SET default_transaction_read_only = on");
    world.sql("SELECT pg_reload_conf()");
    soon(5 * SECOND, "it is read-only", async || {
        let login = world.gateway.browser().submit_password(ADA, PASSWORD).await;
        login.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    world.nobody_gets_in().await;
    assert!(world.says_of_logins("read-only").await);
    world.users_go_on().await;
    assert!(!log.text().lines().any(|line| line.contains("ERROR sqlx")), "no reconnecting");
    world.sql("ALTER SYSTEM RESET default_transaction_read_only");
    world.sql("SELECT pg_reload_conf()");
    soon(5 * SECOND, "it takes changes", async || {
        let login = world.gateway.browser().submit_password(ADA, PASSWORD).await;
        login.status != StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    world.is_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_has_no_room_users_go_on_and_nothing_half_is_kept() {
    let log = crate::support::log::listen();
    let world = World::new().await;
    let gateway = &world.gateway;
    soon(3 * SECOND, "all is well", async || world.says_of_logins("ok").await).await;
    // Eve has scanned her code, and Ada is about to give one in another browser.
    gateway.add_user("eve@example.com").await;
    let eve = gateway.browser();
    let page = eve.visit("/sims").await;
    let enrol = eve.sign_in(&page, "eve@example.com").await;
    let phone = eve.scan(&enrol, "eve@example.com");
    let other = gateway.browser();
    other.submit_password(ADA, PASSWORD).await;
    let form = other.get("/.portcullis/code").await;
    let code = gateway.phone(ADA).fresh_code();
    // This gateway has not seen Ada's session yet.
    let (twin, _) = gateway.twin().await;
    let newcomer = world.browser.copy().moved_to(twin.surroundings());

    world.fill();
    soon(5 * SECOND, "it is said", async || world.says_of_logins("No space left on device").await).await;
    assert!(world.ready().await.contains(&format!("PostgreSQL at 127.0.0.1:{}", world.chaos.port())));
    assert_eq!(newcomer.get("/sims").await.status, StatusCode::OK);
    for _ in 0..3 {
        world.nobody_gets_in().await;
        let enrols = eve.fill(&enrol, &[("code", &*phone.code()), ("device_name", "Phone")]).await;
        assert_eq!(enrols.status, StatusCode::SERVICE_UNAVAILABLE, "{}", enrols.text());
        assert!(!enrols.header("retry-after").is_empty() && !enrols.starts_session());
        let logs_in = other.fill(&form, &[("code", &code)]).await;
        assert_eq!(logs_in.status, StatusCode::SERVICE_UNAVAILABLE, "{}", logs_in.text());
        assert!(!logs_in.header("retry-after").is_empty() && !logs_in.starts_session());
    }
    world.users_go_on().await;
    let at = format!("(PostgreSQL at 127.0.0.1:{})", world.chaos.port());
    let said = |line: &&str| line.contains("No space left on device") && line.contains(&at);
    assert!(log.text().lines().find(said).is_some_and(|line| line.matches("No space").count() == 1));

    world.make_room();
    assert!(other.fill(&form, &[("code", &code)]).await.starts_session(), "the code was not used");
    let devices =
        async || gateway.administration().user_details("eve@example.com").await.unwrap().devices.len();
    assert_eq!(devices().await, 0);
    let enrols = eve.fill(&enrol, &[("code", &*phone.code()), ("device_name", "Phone")]).await;
    assert!(enrols.starts_session(), "{}", enrols.text());
    assert_eq!(devices().await, 1);
    world.is_back().await;
    soon(5 * SECOND, "all is well again", async || world.says_of_logins("ok").await).await;
}

/// Strangers' logins wait for a lock; whoever is signed in, and not known to this gateway yet, is looked up all the same.
#[tokio::test(flavor = "multi_thread")]
async fn while_logins_wait_for_the_database_sessions_are_looked_up() {
    let world = World::new().await;
    let users: Vec<_> = (0..6).map(|_| world.gateway.browser()).collect();
    for user in &users {
        user.log_in_to("/sims", ADA).await;
    }
    let mut begun = Vec::new();
    for other in ["eve@example.com", "bob@example.com"] {
        world.gateway.add_user(other).await;
        world.gateway.browser().log_in(other).await;
        for _ in 0..10 {
            let stranger = world.gateway.browser();
            stranger.submit_password(other, PASSWORD).await;
            let form = stranger.get("/.portcullis/code").await;
            begun.push((stranger, form));
        }
    }
    let (twin, _) = world.gateway.twin().await;
    // The harness has connections of its own.
    twin.stores().database.close().await;
    let lock = world.lock("failed_logins");
    let surroundings = Arc::clone(twin.surroundings());
    let strangers: Vec<_> = begun
        .into_iter()
        .map(|(stranger, form)| {
            let stranger = stranger.moved_to(&surroundings);
            tokio::spawn(async move { stranger.fill(&form, &[("code", "000000")]).await.status })
        })
        .collect();
    let waits =
        "SELECT COUNT(*) >= 6 FROM pg_locks WHERE NOT granted AND relation = 'failed_logins'::regclass";
    soon(PATIENCE, "they wait in the server", async || world.sql(waits) == "t\n").await;
    for user in users {
        let user = user.moved_to(&surroundings);
        assert_eq!(user.get("/sims").await.status, StatusCode::OK);
        assert_eq!(user.level().await, "two_factor");
    }
    drop(lock);
    for stranger in strangers {
        let status = stranger.await.unwrap().as_u16();
        assert!(matches!(status, 401 | 429 | 503), "{status}");
    }
    world.is_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_users_are_locked_whoever_is_in_goes_on_and_ready_says_why_nobody_gets_in() {
    let world = World::new().await;
    assert_eq!(world.status().await, StatusCode::OK);
    soon(3 * SECOND, "all is well", async || world.says_of_logins("ok").await).await;
    let lock = world.lock("users");
    soon(5 * SECOND, "it is said", async || world.says_of_logins("the table users is locked").await).await;
    world.nobody_gets_in().await;
    world.users_go_on().await;
    drop(lock);
    world.is_back().await;
    soon(5 * SECOND, "all is well again", async || world.says_of_logins("ok").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_has_no_connection_left_the_gateway_goes_on_with_its_own() {
    let world =
        World::on(PostgresServer::start(&["max_connections=12", "superuser_reserved_connections=0"])).await;
    assert_eq!(world.status().await, StatusCode::OK);
    let hogs: Vec<_> = (0..12)
        .map(|_| {
            let mut hog = world.server.psql("postgres", "SELECT pg_sleep(600)");
            hog.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
        })
        .collect();
    soon(5 * SECOND, "the server is full", async || {
        world.server.psql("postgres", "SELECT 1").output().is_ok_and(|said| !said.status.success())
    })
    .await;
    world.users_go_on().await;
    let newcomer = world.gateway.browser();
    newcomer.log_in_to("/sims", ADA).await;
    assert_eq!(newcomer.get("/sims").await.status, StatusCode::OK);
    for mut hog in hogs {
        let _ = hog.kill();
        let _ = hog.wait();
    }
}
