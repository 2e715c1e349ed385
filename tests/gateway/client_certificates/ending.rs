//! When a certificate counts no more: what is new is refused, what is open ends, and no ticket carries it on.

use std::process::{Child, Stdio};

use super::{
    authority::{Authority, Identity, curl, curl_command, email, s_client, text, uri, year},
    builder,
};
use crate::support::{
    ADA, EVE, HOST, PATIENCE, TestGateway,
    postgres::{PostgresServer, new_database},
    soon,
};

const CI: &str = "spiffe://example.com/ci";
const SERVICE: &str = r#"[{ san = "URI:spiffe://example.com/ci", service = "ci" }]"#;
const USER: &str = r#"[{ san = "email:ada@example.com", user = "ada@example.com" }]"#;

/// A stream of events that curl reads.
struct Events(Child);

impl Events {
    async fn open(gateway: &TestGateway, identity: &Identity, version: &str) -> Self {
        let seen = gateway.upstream.requests().len();
        let mut command = curl_command(gateway, Some(identity), &["-N", version]);
        command.arg(format!("https://{HOST}/events")).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        soon(PATIENCE, "the portal has been asked", async || gateway.upstream.requests().len() > seen).await;
        Self(child)
    }

    fn is_open(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    async fn ends(mut self) {
        soon(PATIENCE, "the stream has ended", async || !self.is_open()).await;
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn what_is_revoked_ends_with_what_it_has_open() {
    let authority = Authority::new("Clients");
    authority.revoke(&[], 2040);
    let list = text(&authority.list());
    let (gateway, _) = builder(&authority, SERVICE).set("tls.client_crl", &list).start().await;
    let [bad, good] = [1, 2].map(|serial| authority.sign(serial, vec![uri(CI)]));
    let mut open = Vec::new();
    for version in ["--http1.1", "--http2"] {
        open.push(Events::open(&gateway, &bad, version).await);
    }
    let mut kept = Events::open(&gateway, &good, "--http1.1").await;
    authority.revoke(&[bad.serial], 2040);
    soon(PATIENCE, "it is refused", async || curl(&gateway, Some(&bad), "/", &[]).await.status == 401).await;
    for events in open {
        events.ends().await;
    }
    assert!(kept.is_open());
    assert_eq!(curl(&gateway, Some(&good), "/", &[]).await.status, 200);
}

#[tokio::test]
async fn an_expired_list_or_certificate_lets_nobody_in_and_ends_what_is_open() {
    for (until, not_after) in [(2030, 2040), (2040, 2030)] {
        let authority = Authority::new("Clients");
        authority.revoke(&[], until);
        let list = text(&authority.list());
        let (gateway, _) = builder(&authority, SERVICE).set("tls.client_crl", &list).start().await;
        let ci = authority.sign_as(1, vec![uri(CI)], |params| {
            params.not_after = rcgen::date_time_ymd(not_after, 1, 1);
        });
        let events = Events::open(&gateway, &ci, "--http1.1").await;
        assert_eq!(curl(&gateway, Some(&ci), "/", &[]).await.status, 200);
        gateway.clock.set(year(2030).plus(std::time::Duration::from_secs(1)));
        assert_eq!(curl(&gateway, Some(&ci), "/", &[]).await.status, 401);
        events.ends().await;
    }
}

#[tokio::test]
async fn an_authority_that_is_taken_out_ends_what_its_certificates_have_open() {
    let (authority, other) = (Authority::new("Clients"), Authority::new("Clients"));
    let (gateway, _) = builder(&authority, SERVICE).start().await;
    let file = authority.file();
    let replace = |pem: &str| {
        std::fs::write(file.with_extension("new"), pem).unwrap();
        std::fs::rename(file.with_extension("new"), &file).unwrap();
    };
    let [old, new] = [&authority, &other].map(|authority| authority.sign(1, vec![uri(CI)]));
    let both = authority.pem() + &other.pem();
    replace(&both);
    soon(PATIENCE, "the new one counts", async || curl(&gateway, Some(&new), "/", &[]).await.status == 200)
        .await;
    let (events, mut kept) =
        (Events::open(&gateway, &old, "--http2").await, Events::open(&gateway, &new, "--http2").await);
    replace(&other.pem());
    soon(PATIENCE, "the old one is out", async || curl(&gateway, Some(&old), "/", &[]).await.status == 401)
        .await;
    events.ends().await;
    // What cannot be read changes nothing.
    replace("rubbish");
    for _ in 0..3 {
        assert_eq!(curl(&gateway, Some(&new), "/", &[]).await.status, 200);
    }
    assert!(kept.is_open());
}

#[tokio::test]
async fn it_ends_with_its_user_and_follows_the_user_s_groups() {
    let authority = Authority::new("Clients");
    let (gateway, _) = builder(&authority, USER).start().await;
    its_user_ends_it(&authority, &gateway, &gateway).await;
}

#[tokio::test]
async fn so_it_is_on_postgresql() {
    let authority = Authority::new("Clients");
    let server = PostgresServer::start(&[]);
    let builder = builder(&authority, USER).set("storage.database", &new_database(&server));
    let (here, _) = builder.start().await;
    let (there, _) = here.twin().await;
    its_user_ends_it(&authority, &here, &there).await;
}

#[tokio::test]
async fn so_it_is_with_sessions_in_redis() {
    let authority = Authority::new("Clients");
    let (here, _) = builder(&authority, USER).redis().start().await;
    let (there, _) = here.twin().await;
    its_user_ends_it(&authority, &here, &there).await;
    // A certificate is no session: without Redis it goes on.
    let ada = authority.sign(2, vec![email(ADA)]);
    assert_eq!(curl(&there, Some(&ada), "/", &[]).await.status, 200);
    here.redis.as_ref().unwrap().kill().await;
    assert_eq!(curl(&there, Some(&ada), "/", &[]).await.status, 200);
}

/// What is changed `here` holds where the certificate is shown.
async fn its_user_ends_it(authority: &Authority, here: &TestGateway, gateway: &TestGateway) {
    let ada = authority.sign(1, vec![email(ADA)]);
    // Nobody of that name: like no certificate, and nothing that would be remembered.
    let status = async || curl(gateway, Some(&ada), "/", &[]).await.status;
    assert_eq!(status().await, 401);
    here.add_user(ADA).await;
    let mut events = Events::open(gateway, &ada, "--http2").await;
    let groups = || gateway.upstream.requests().last().unwrap().value("remote-groups").unwrap_or_default();
    assert_eq!(status().await, 200);
    let before = groups();
    here.administration().set_groups(ADA, vec!["dev".to_owned()]).await.unwrap();
    soon(PATIENCE, "the groups are new", async || {
        assert_eq!(status().await, 200);
        groups() == "dev"
    })
    .await;
    assert_ne!(before, "dev");
    assert!(events.is_open());
    here.administration().set_disabled(ADA, true).await.unwrap();
    soon(PATIENCE, "the user is out", async || status().await == 401).await;
    events.ends().await;
    here.administration().set_disabled(ADA, false).await.unwrap();
    soon(PATIENCE, "the user is in again", async || status().await == 200).await;
    let events = Events::open(gateway, &ada, "--http1.1").await;
    here.administration().set_email(ADA, EVE).await.unwrap();
    soon(PATIENCE, "nobody has the name", async || status().await == 401).await;
    events.ends().await;
    here.administration().set_email(EVE, ADA).await.unwrap();
    soon(PATIENCE, "the user has it again", async || status().await == 200).await;
    // Somebody else of the same name has nothing of what was open.
    let events = Events::open(gateway, &ada, "--http1.1").await;
    here.administration().remove_user(ADA).await.unwrap();
    here.add_user(ADA).await;
    events.ends().await;
    soon(PATIENCE, "it is the new user's", async || status().await == 200).await;
}

#[tokio::test]
async fn a_ticket_does_not_carry_a_certificate_past_its_end_or_revocation() {
    for version in ["-tls1_3", "-tls1_2"] {
        let authority = Authority::new("Clients");
        authority.revoke(&[], 2040);
        let list = text(&authority.list());
        let (gateway, _) = builder(&authority, SERVICE).set("tls.client_crl", &list).start().await;
        let ci = authority.sign(1, vec![uri(CI)]);
        let ticket = text(&gateway.folder().join("ticket.pem"));
        let at = (HOST, HOST, "/api");
        let first = s_client(&gateway, Some(&ci), at, &[version, "-sess_out", &ticket]).await;
        assert!(first.contains("HTTP/1.1 200 "), "{first}");
        // Whoever has the ticket and its secret needs no certificate any more.
        let again = s_client(&gateway, None, at, &[version, "-sess_in", &ticket]).await;
        assert!(again.contains("Reused") && again.contains("HTTP/1.1 200 "), "{again}");
        let resumed = async || s_client(&gateway, None, at, &[version, "-sess_in", &ticket]).await;
        for (revoked, status) in [(&[1][..], "401"), (&[], "200")] {
            authority.revoke(revoked, 2040);
            soon(PATIENCE, "the list holds", async || {
                let said = resumed().await;
                assert!(said.contains("Reused"), "{said}");
                said.contains(&format!("HTTP/1.1 {status} "))
            })
            .await;
        }
        gateway.clock.set(year(2040).plus(std::time::Duration::from_secs(1)));
        let expired = resumed().await;
        assert!(expired.contains("HTTP/1.1 401 "), "{expired}");
    }
}
