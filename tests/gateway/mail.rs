//! Mail: the outbox, a real server that takes, refuses, hangs and goes away, and the command that tries it.

use std::time::Duration;

use portcullis::{
    clock::Clock as _,
    mail::{Draft, Letter},
};

use crate::support::{
    ADA, PATIENCE, TestGateway,
    process::{Outcome, run},
    smtp::SmtpServer,
    soon,
};

const DAY: Duration = Duration::from_hours(24);

/// A gateway that sends its mail to a server of this kind.
async fn with_mail(mode: &'static str) -> (SmtpServer, TestGateway) {
    let server = SmtpServer::start(mode).await;
    let (gateway, _) = server.used_by(TestGateway::builder()).start().await;
    (server, gateway)
}

async fn write(gateway: &TestGateway, to: &str, letter: &Letter) {
    let outbox = &gateway.administration().notices.outbox;
    let draft = Draft { kind: "test", subject: to, to, letter, lasts: DAY, most_an_hour: 1000 };
    outbox.write(&outbox.draft(&draft)).await.unwrap();
}

async fn write_to(gateway: &TestGateway, to: &str) {
    write(gateway, to, &Letter::new("Hello").paragraph("Text.")).await;
}

/// While a gateway has a mail; docs/mail.md.
const LEASE: Duration = Duration::from_mins(3);

/// State, attempts and last error of the newest mail to this address.
async fn became_of(gateway: &TestGateway, to: &str) -> (String, i64, String) {
    let mail = gateway.administration().notices.outbox.list(Some(to)).await.unwrap().remove(0);
    (mail.state, mail.attempts, mail.last_error.unwrap_or_default())
}

async fn until(gateway: &TestGateway, to: &str, state: &str, attempts: i64) {
    soon(PATIENCE, state, async || {
        let mail = gateway.administration().notices.outbox.list(Some(to)).await.unwrap().remove(0);
        let is_taken = mail.due_at == gateway.clock.now().plus(LEASE);
        (mail.state.as_str(), mail.attempts) == (state, attempts) && (state != "waiting" || !is_taken)
    })
    .await;
}

async fn metric(gateway: &TestGateway, line: &str) -> bool {
    gateway.admin("/metrics").await.lines().any(|known| known == line)
}

async fn tested(gateway: &TestGateway, words: &[&str]) -> Outcome {
    let file = gateway.folder().join("portcullis.toml").display().to_string();
    run(&[&["mail"], words, &["--config", &file]].concat(), "").await
}

/// The command reads the file, not the flags that the gateway was started with.
fn configure(gateway: &TestGateway, server: &SmtpServer, more: &str) {
    let file = gateway.folder().join("portcullis.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    let before = before.split("[mail]").next().unwrap();
    let mail = format!("[mail]\nurl = \"{}\"\nfrom = \"IoT <no-reply@example.com>\"\n", server.url());
    std::fs::write(file, format!("{before}{mail}{more}")).unwrap();
}

fn secrets(server: &SmtpServer) -> String {
    format!("ca = {:?}\npassword_file = {:?}\n", server.ca(), server.password_file())
}

#[tokio::test]
async fn a_mail_arrives_over_each_kind_of_connection_and_is_well_formed() {
    for mode in ["plain", "starttls", "tls"] {
        let (mut server, gateway) = with_mail(mode).await;
        let letter = Letter::new("Grüße\r\nBcc: eve@example.com")
            .paragraph("<b>Zoë</b> & \u{65e5}\u{672c}\n.\nline")
            .facts(vec![("Place", "a\r\nb".to_owned())])
            .link("Open", "https://iot.example.com/.portcullis/link/abc?x=1&y=\"2\"");
        write(&gateway, ADA, &letter).await;
        let mail = server.mail().await;
        assert_eq!(
            (mail.0["tls"].as_bool(), mail.0["user"].as_str()),
            match mode {
                "plain" => (Some(false), None),
                _ => (Some(true), Some("gate")),
            }
        );
        assert_eq!((mail.to(), mail.0["from"].as_str()), (ADA, Some("no-reply@example.com")));
        assert_eq!(mail.0["defects"], serde_json::json!([]));
        assert_eq!(mail.0["type"], "multipart/alternative");
        assert!(mail.0["is_ascii"].as_bool().unwrap() && mail.0["longest_line"].as_u64().unwrap() < 999);
        assert_eq!(mail.subject(), "Grüße  Bcc: eve@example.com");
        assert_eq!(mail.header("bcc"), None);
        assert_eq!(mail.header("from"), Some("IoT <no-reply@example.com>"));
        assert_eq!(mail.header("to"), Some(ADA));
        assert_eq!(mail.header("auto-submitted"), Some("auto-generated"));
        assert!(mail.header("message-id").unwrap().ends_with("@iot.example.com>"));
        assert!(mail.text().contains("<b>Zoë</b> & \u{65e5}\u{672c}\n.\nline\n"), "{}", mail.text());
        assert!(mail.text().contains("  Place: a  b\n"), "{}", mail.text());
        assert!(mail.html().contains("&lt;b&gt;Zoë&lt;&#x2f;b&gt; &amp;"), "{}", mail.html());
        assert!(!mail.html().contains("y=\"2\""), "{}", mail.html());
        assert!(!mail.html().contains("<img") && !mail.html().contains("src="), "{}", mail.html());
        until(&gateway, ADA, "sent", 1).await;
    }
}

#[tokio::test]
async fn mail_for_a_dead_server_waits_is_told_of_and_arrives_when_it_is_back() {
    let server = SmtpServer::start("plain").await;
    let builder = server.used_by(TestGateway::builder());
    let stopped = server.stop();
    let (gateway, _) = builder.start().await;
    write_to(&gateway, ADA).await;
    until(&gateway, ADA, "waiting", 1).await;
    assert!(metric(&gateway, "portcullis_mail_outbox_waiting 1").await);
    assert!(metric(&gateway, "portcullis_mail_total{outcome=\"failed\"} 1").await);
    assert!(gateway.admin("/ready").await.contains("\"mail\":\"ok\""));
    gateway.clock.advance(Duration::from_secs(61));
    until(&gateway, ADA, "waiting", 2).await;
    gateway.clock.advance(Duration::from_mins(5));
    until(&gateway, ADA, "waiting", 3).await;
    let ready = gateway.admin("/ready").await;
    assert!(
        ready.starts_with("HTTP/1.1 200 ") && ready.contains("1 waiting, the oldest for 6 min: connect"),
        "{ready}"
    );

    // A restart of either loses nothing.
    let gateway = gateway.restart().await;
    let mut server = stopped.start().await;
    gateway.clock.advance(Duration::from_mins(15));
    assert_eq!(server.mail().await.to(), ADA);
    until(&gateway, ADA, "sent", 4).await;
    assert!(metric(&gateway, "portcullis_mail_outbox_waiting 0").await);
    assert!(gateway.admin("/ready").await.contains("\"mail\":\"ok\""));
}

#[tokio::test]
async fn a_mail_is_given_up_after_a_day_and_said_to_be() {
    let server = SmtpServer::start("plain").await;
    let builder = server.used_by(TestGateway::builder());
    drop(server);
    let (gateway, _) = builder.start().await;
    write_to(&gateway, ADA).await;
    until(&gateway, ADA, "waiting", 1).await;
    write_to(&gateway, "bob@example.com").await;
    gateway.clock.advance(DAY);
    soon(PATIENCE, "both are given up", async || {
        became_of(&gateway, ADA).await.0 == "failed"
            && became_of(&gateway, "bob@example.com").await.0 == "failed"
    })
    .await;
    assert!(metric(&gateway, "portcullis_mail_total{outcome=\"given_up\"} 2").await);
    assert!(metric(&gateway, "portcullis_audit_events_total{event=\"mail.given_up\"} 2").await);
}

#[tokio::test]
async fn one_recipient_that_is_refused_holds_nobody_up() {
    let (mut server, gateway) = with_mail("plain").await;
    for to in ["refused@example.com", "spam@example.com", "later@example.com", ADA] {
        write_to(&gateway, to).await;
    }
    assert_eq!(server.mail().await.to(), ADA);
    until(&gateway, "refused@example.com", "failed", 1).await;
    until(&gateway, "spam@example.com", "failed", 1).await;
    until(&gateway, "later@example.com", "waiting", 1).await;
    assert!(became_of(&gateway, "refused@example.com").await.2.contains("no such user"));
    gateway.clock.advance(Duration::from_secs(61));
    assert_eq!(server.mail().await.to(), "later@example.com");
    until(&gateway, "later@example.com", "sent", 2).await;
}

#[tokio::test]
async fn a_gateway_that_dies_before_its_note_sends_again_with_the_same_id() {
    let (mut server, gateway) = with_mail("plain").await;
    write_to(&gateway, "hang@example.com").await;
    let first = server.mail().await;
    let gateway = gateway.restart().await;
    // Until the lease is over it may still be on its way.
    assert_eq!(became_of(&gateway, "hang@example.com").await.0, "waiting");
    gateway.clock.advance(LEASE);
    let second = server.mail().await;
    assert_eq!(first.header("message-id"), second.header("message-id"));
    assert_eq!(first.header("date"), second.header("date"));
    until(&gateway, "hang@example.com", "sent", 2).await;
}

#[tokio::test]
async fn two_gateways_send_each_mail_once() {
    let (mut server, gateway) = with_mail("plain").await;
    let (twin, _) = gateway.twin().await;
    let all: Vec<String> = (0..40).map(|number| format!("user{number}@example.com")).collect();
    for to in &all {
        write_to(&gateway, to).await;
    }
    let mut arrived = Vec::new();
    for _ in &all {
        arrived.push(server.mail().await.to().to_owned());
    }
    for to in &all {
        until(&gateway, to, "sent", 1).await;
    }
    // What came later would have come before this one.
    write_to(&twin, ADA).await;
    assert_eq!(server.mail().await.to(), ADA);
    arrived.sort();
    arrived.dedup();
    assert_eq!(arrived.len(), all.len());
}

#[tokio::test]
async fn what_an_outbox_holds_can_be_read_by_nobody_and_is_gone_once_sent() {
    let server = SmtpServer::start("plain").await;
    let builder = server.used_by(TestGateway::builder());
    let stopped = server.stop();
    let (gateway, _) = builder.start().await;
    write(&gateway, ADA, &Letter::new("S").link("L", "https://iot.example.com/.portcullis/link/SECRET"))
        .await;
    until(&gateway, ADA, "waiting", 1).await;
    let letter = async || -> Vec<u8> {
        let row =
            sqlx::query("SELECT letter FROM outbox").fetch_one(&gateway.stores().database).await.unwrap();
        sqlx::Row::try_get(&row, 0).unwrap()
    };
    let sealed = letter().await;
    assert!(sealed.len() > 60 && !sealed.windows(6).any(|window| window == b"SECRET"));
    let mut server = stopped.start().await;
    gateway.clock.advance(Duration::from_secs(61));
    assert!(server.mail().await.text().contains("SECRET"));
    until(&gateway, ADA, "sent", 2).await;
    assert_eq!(letter().await, b"");
}

#[tokio::test]
async fn more_of_a_kind_than_allowed_in_an_hour_are_not_written() {
    let (_server, gateway) = with_mail("plain").await;
    let outbox = &gateway.administration().notices.outbox;
    let letter = Letter::new("S");
    let draft = |subject: &'static str, to: &'static str| {
        outbox.draft(&Draft { kind: "link", subject, to, letter: &letter, lasts: DAY, most_an_hour: 5 })
    };
    for _ in 0..9 {
        outbox.write(&draft("ada", ADA)).await.unwrap();
    }
    // Neither another address of the same user nor another user of the same address gets around it.
    outbox.write(&draft("ada", "ada@example.org")).await.unwrap();
    outbox.write(&draft("other", ADA)).await.unwrap();
    outbox.write(&draft("bob", "bob@example.com")).await.unwrap();
    assert_eq!(outbox.list(Some(ADA)).await.unwrap().len(), 5);
    assert_eq!(outbox.list(None).await.unwrap().len(), 6);
    gateway.clock.advance(Duration::from_mins(61));
    outbox.write(&draft("ada", ADA)).await.unwrap();
    assert_eq!(outbox.list(Some(ADA)).await.unwrap().len(), 6);
    // A user's name need not be an address.
    outbox.write(&draft("cyd", "cyd")).await.unwrap();
    assert_eq!(outbox.list(None).await.unwrap().len(), 7);
}

#[tokio::test]
async fn the_command_says_each_step_and_what_failed() {
    let (gateway, _) = TestGateway::start().await;
    let off = tested(&gateway, &["test", ADA]).await;
    assert!(off.code == 1 && off.err.contains("mail.url is not set"), "{off:?}");
    for (mode, steps) in [("plain", 4), ("starttls", 6), ("tls", 5)] {
        let mut server = SmtpServer::start(mode).await;
        configure(&gateway, &server, if mode == "plain" { String::new() } else { secrets(&server) }.as_str());
        let good = tested(&gateway, &["test", ADA]).await;
        assert!(good.code == 0 && good.out.contains("has accepted a mail to ada@example.com"), "{good:?}");
        assert_eq!(good.err.lines().filter(|line| line.ends_with(" ok")).count(), steps, "{good:?}");
        assert_eq!(server.mail().await.subject(), "Test mail from IoT Connectivity");
        let json = tested(&gateway, &["test", ADA, "--json"]).await;
        assert_eq!(json.json()["steps"].as_array().unwrap().len(), steps, "{json:?}");
        let refused = tested(&gateway, &["test", "refused@example.com"]).await;
        assert!(refused.code == 1 && refused.err.contains("recipient accepted   FAILED"), "{refused:?}");
        assert!(refused.err.contains("no such user") && refused.err.contains("hint: "), "{refused:?}");
    }
    let server = SmtpServer::start("starttls").await;
    std::fs::write(server.password_file(), "wrong").unwrap();
    configure(&gateway, &server, &secrets(&server));
    let refused = tested(&gateway, &["test", ADA]).await;
    assert!(refused.code == 1 && refused.err.contains("sign in              FAILED"), "{refused:?}");
    // Without the authority, the certificate is nobody's.
    configure(&gateway, &server, &format!("password_file = {:?}\n", server.password_file()));
    let refused = tested(&gateway, &["test", ADA]).await;
    assert!(refused.code == 1 && refused.err.contains("start TLS            FAILED"), "{refused:?}");
    configure(&gateway, &server, &secrets(&server));
    let stopped = server.stop();
    let refused = tested(&gateway, &["test", ADA]).await;
    assert!(refused.code == 1 && refused.err.contains("connect              FAILED"), "{refused:?}");
    let listed = tested(&gateway, &["list"]).await;
    assert!(listed.code == 0 && listed.out.contains("No mail in the last seven days."), "{listed:?}");
    drop(stopped);
}
