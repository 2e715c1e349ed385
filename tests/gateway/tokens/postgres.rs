//! Tokens in PostgreSQL: how they get there, and what becomes of them when it does not answer.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use portcullis::tokens::Scope;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::Instant,
};

use super::{BOUND, bearer, builder, paths, refusal, service};
use crate::support::{
    Browser, PATIENCE, TestGateway,
    chaos::{Chaos, Way},
    postgres::{PostgresServer, new_database},
    process::run,
    soon, websocket, within,
};

#[tokio::test]
async fn tokens_move_from_an_embedded_store_with_their_limits_and_ends() {
    let server = PostgresServer::start(&[]);
    let (gateway, _) = builder().start().await;
    let administration = gateway.administration();
    let limited = service(&gateway, "limited", paths(&["/api/*"])).await;
    let old = service(&gateway, "replaced", Scope::default()).await;
    let (new, _) = administration.rotate_token("replaced", None, Duration::from_hours(1)).await.unwrap();
    let revoked = service(&gateway, "revoked", Scope::default()).await;
    administration.revoke_token("revoked").await.unwrap();
    let all = async |gateway: &TestGateway| {
        let mut all = gateway.administration().all_tokens().await.unwrap();
        all.sort_by(|(one, _), (other, _)| one.id.cmp(&other.id));
        all
    };
    let kept = all(&gateway).await;
    let (url, file) = (new_database(&server), gateway.folder().join("portcullis.toml"));
    let copied =
        run(&["store", "copy", "--yes", "--to", &url, "--json", "--config", file.to_str().unwrap()], "")
            .await;
    assert_eq!(copied.code, 0, "{copied:?}");

    let builder = gateway.its_builder();
    gateway.drain();
    let (moved, browser) = builder.set("storage.database", &url).start().await;
    assert_eq!(all(&moved).await, kept);
    for (token, path, why) in [
        (&limited, "/api/a", ""),
        (&limited, "/", "out_of_scope"),
        (&old, "/", ""),
        (&new, "/", ""),
        (&revoked, "/", "revoked"),
    ] {
        assert_eq!(refusal(&bearer(&browser, path, token).await), why, "{path}");
    }
    moved.clock.advance(Duration::from_hours(1));
    assert_eq!(refusal(&bearer(&browser, "/", &old).await), "expired");
    assert_eq!(refusal(&bearer(&browser, "/", &new).await), "");
    assert_eq!(moved.administration().revoke_token("limited").await.unwrap(), 1);
}

/// Two gateways on one PostgreSQL, of which `here` reaches it by a way that can be cut.
struct World {
    here: TestGateway,
    there: TestGateway,
    browser: Browser,
    chaos: Chaos,
    server: Arc<PostgresServer>,
    name: String,
}

impl World {
    async fn new() -> Self {
        let server = PostgresServer::start(&[]);
        let chaos = Chaos::before(server.port()).await;
        let url = new_database(&server);
        let name = url.rsplit('/').next().unwrap().split('?').next().unwrap().to_owned();
        let (there, _) = builder().set("storage.database", &url).start().await;
        let cut = url.replace(&server.port().to_string(), &chaos.port().to_string());
        let (here, browser) = there.its_builder().set("storage.database", &cut).start().await;
        Self { here, there, browser, chaos, server: Arc::new(server), name }
    }

    async fn status(&self, token: &str) -> StatusCode {
        bearer(&self.browser, "/", token).await.status
    }

    fn sql(&self, statements: &str) {
        // The gateways live on this runtime as well.
        tokio::task::block_in_place(|| self.server.sql(&self.name, statements));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nobody_can_look_a_token_up_those_that_are_known_go_on() {
    let world = World::new().await;
    let [known, fresh] = [
        service(&world.there, "known", Scope::default()).await,
        service(&world.there, "fresh", Scope::default()).await,
    ];
    assert_eq!(world.status(&known).await, StatusCode::OK);
    // The server answers, and tells of changes; the table of tokens is out of reach.
    world.sql("ALTER TABLE tokens RENAME TO gone");
    let start = Instant::now();
    while start.elapsed() < 2 * BOUND {
        assert_eq!(world.status(&known).await, StatusCode::OK, "after {:?}", start.elapsed());
    }
    let answer = bearer(&world.browser, "/", &fresh).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
    assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|wait| (1..=60).contains(&wait)));
    world.sql("ALTER TABLE gone RENAME TO tokens");
    assert_eq!(world.status(&fresh).await, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_passes_a_gateway_that_hears_nothing_and_what_is_open_stays_open() {
    let world = World::new().await;
    let [known, revoked, fresh] = [
        service(&world.there, "known", Scope::default()).await,
        service(&world.there, "revoked", Scope::default()).await,
        service(&world.there, "fresh", Scope::default()).await,
    ];
    for way in [Way::Refusing, Way::Cut, Way::HalfOpen] {
        for token in [&known, &revoked] {
            soon(PATIENCE, "it passes", async || world.status(token).await == StatusCode::OK).await;
        }
        let mut socket = open(&world.browser, &known).await;
        world.chaos.set(way);
        for token in [&known, &revoked, &fresh] {
            soon(PATIENCE, "it is stopped", async || {
                world.status(token).await == StatusCode::SERVICE_UNAVAILABLE
            })
            .await;
        }
        let asked = world.here.upstream.requests().len();
        for token in [&known, &fresh] {
            let answer = bearer(&world.browser, "/", token).await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{way:?}");
            assert!(!answer.header("retry-after").is_empty());
        }
        assert_eq!(world.here.upstream.requests().len(), asked, "nothing went to the portal");
        echoes(&mut socket).await;
        world.chaos.set(Way::Open);
        for token in [&known, &fresh] {
            soon(PATIENCE, "it is back", async || world.status(token).await == StatusCode::OK).await;
        }
        echoes(&mut socket).await;
    }
    // What ends meanwhile is over when the gateway hears again, with all that it has open.
    let mut socket = open(&world.browser, &revoked).await;
    world.chaos.set(Way::Cut);
    soon(PATIENCE, "it is stopped", async || world.status(&revoked).await != StatusCode::OK).await;
    world.there.administration().revoke_token("revoked").await.unwrap();
    world.chaos.set(Way::Open);
    soon(PATIENCE, "it is back", async || world.status(&known).await == StatusCode::OK).await;
    assert_eq!(refusal(&bearer(&world.browser, "/", &revoked).await), "revoked");
    let mut rest = Vec::new();
    let _ = within(PATIENCE, socket.read_to_end(&mut rest)).await;
}

async fn open(browser: &Browser, token: &str) -> websocket::Bytes {
    let authorization = format!("Bearer {token}");
    let mut socket = browser.try_tunnel("/live", &[("authorization", &authorization)]).await.unwrap();
    echoes(&mut socket).await;
    socket
}

async fn echoes(socket: &mut websocket::Bytes) {
    socket.write_all(b"still").await.unwrap();
    let mut echo = [0; 5];
    within(PATIENCE, socket.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"still");
}
