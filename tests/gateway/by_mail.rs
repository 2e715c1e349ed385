//! What users do by mail: a forgotten password, an invitation, "this was not me"; and the notices that lead there.

use std::time::Duration;

use http::{Method, Request, StatusCode};
use portcullis::links::LinkPurpose;

use crate::support::{
    ADA, Answer, BOB, Browser, PASSWORD, PATIENCE, TestGateway, empty,
    process::{Outcome, run},
    smtp::{Mail, SmtpServer},
    soon,
};

const NEW: &str = "seven purple kettles dancing";

async fn with_mail() -> (SmtpServer, TestGateway, Browser) {
    let server = SmtpServer::start("plain").await;
    let (gateway, browser) = server.used_by(TestGateway::builder()).start().await;
    gateway.add_user(ADA).await;
    (server, gateway, browser)
}

async fn ask_for_link(browser: &Browser, email: &str) -> Answer {
    let page = browser.visit("/.portcullis/login").await;
    assert!(page.text().contains("href=\"/.portcullis/forgot\""), "{}", page.text());
    let page = browser.visit("/.portcullis/forgot").await;
    browser.fill(&page, &[("email", email)]).await
}

/// The only link of a mail, and its page.
async fn opened(browser: &Browser, mail: &Mail) -> (String, Answer) {
    let links = mail.links();
    assert_eq!(links.len(), 1, "{}", mail.text());
    let page = browser.get(&links[0]).await;
    (links[0].clone(), page)
}

async fn set(browser: &Browser, page: &Answer, password: &str) -> Answer {
    browser.fill(page, &[("password", password), ("csrf", &page.field("csrf"))]).await
}

async fn is_gone(gateway: &TestGateway, link: &str) -> bool {
    let answer = gateway.browser().get(link).await;
    answer.status == StatusCode::GONE && answer.heading() == "This link no longer works"
}

/// Whether the password is right.
async fn opens(gateway: &TestGateway, password: &str) -> bool {
    gateway.browser().submit_password(ADA, password).await.status == StatusCode::SEE_OTHER
}

async fn command(gateway: &TestGateway, words: &[&str]) -> Outcome {
    let file = gateway.folder().join("portcullis.toml").display().to_string();
    let outcome = run(&[words, &["--config", &file]].concat(), "").await;
    // The command goes by the machine's clock, which is ahead of a gateway's that stands still.
    gateway.clock.advance(Duration::from_mins(1));
    outcome
}

#[tokio::test]
async fn a_forgotten_password_is_replaced_and_the_second_factor_still_stands() {
    let (mut server, gateway, browser) = with_mail().await;
    browser.log_in(ADA).await;
    assert_eq!(server.mail().await.subject(), "A new device for IoT Connectivity");
    gateway.clock.advance(Duration::from_mins(1));
    let other = gateway.browser();
    let sent = ask_for_link(&other, &ADA.to_uppercase()).await;
    assert_eq!((sent.status, sent.heading().as_str()), (StatusCode::OK, "Check your e-mail"));
    let mail = server.mail().await;
    assert_eq!((mail.to(), mail.subject()), (ADA, "Set a new password for IoT Connectivity"));
    let (link, page) = opened(&other, &mail).await;
    assert_eq!((page.status, page.heading().as_str()), (StatusCode::OK, "Set a new password"));
    assert_eq!(page.header("referrer-policy"), "no-referrer");
    assert_eq!(page.header("cache-control"), "no-store");

    // Programs that check mail open every link, several times and in their own way.
    for method in [Method::GET, Method::HEAD, Method::GET] {
        let request = Request::builder().method(method).uri(&link).body(empty()).unwrap();
        assert_eq!(gateway.browser().send(request).await.status, StatusCode::OK);
    }
    // A form without its page is nobody's.
    let stray = gateway.browser().post_form(&link, &[("password", NEW)]).await;
    assert_eq!(stray.status, StatusCode::FORBIDDEN);
    for (weak, says) in [("short", "at least 15"), ("iot.example.com rules", "Leave out")] {
        let refused = set(&other, &page, weak).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(refused.text().contains(says) && !refused.text().contains(weak), "{}", refused.text());
        assert_eq!(refused.header("referrer-policy"), "no-referrer");
    }
    assert!(opens(&gateway, PASSWORD).await, "nothing has changed so far");
    assert_eq!(browser.level().await, "two_factor");
    let done = set(&other, &page, NEW).await;
    assert_eq!(
        (done.status, done.location().as_str()),
        (StatusCode::SEE_OTHER, "/.portcullis/login?password=1")
    );
    assert!(!done.starts_session());
    assert_eq!(browser.level().await, "none", "the old session is over");
    assert!(is_gone(&gateway, &link).await && set(&other, &page, NEW).await.status == StatusCode::GONE);
    assert!(!opens(&gateway, PASSWORD).await);

    // The new password alone opens nothing.
    let login = other.follow(done).await;
    assert!(login.text().contains("Your password is set."), "{}", login.text());
    let code = other.submit(&login, &[("email", ADA), ("password", NEW)]).await;
    assert!(code.has_form("code"), "{}", code.text());
    assert_eq!(other.level().await, "none");
    other.submit(&code, &[("code", &gateway.phone(ADA).fresh_code())]).await;
    assert_eq!(other.level().await, "two_factor");
    let notice = server.mail().await;
    assert_eq!(notice.subject(), "Your password for IoT Connectivity was changed");
    assert!(!gateway.access_log().contains(link.rsplit_once('/').unwrap().1));
}

#[tokio::test]
async fn one_answer_whether_or_not_there_is_an_account_and_five_links_an_hour() {
    let (mut server, gateway, browser) = with_mail().await;
    gateway.administration().set_disabled(ADA, true).await.unwrap();
    gateway.add_user(BOB).await;
    let plain = |answer: &Answer| (answer.status, answer.text());
    let known = ask_for_link(&browser, BOB).await;
    for email in ["nobody@example.com", ADA, "", "not an address", "a@b\r\nBcc: eve@example.com"] {
        let unknown = ask_for_link(&gateway.browser(), email).await;
        assert_eq!(plain(&unknown), plain(&known), "{email}");
    }
    for _ in 0..9 {
        assert_eq!(plain(&ask_for_link(&gateway.browser(), BOB).await), plain(&known));
    }
    let outbox = &gateway.administration().notices.outbox;
    soon(PATIENCE, "five are written", async || outbox.list(Some(BOB)).await.unwrap().len() == 5).await;
    for _ in 0..5 {
        assert_eq!(server.mail().await.to(), BOB);
    }
    assert_eq!(outbox.list(None).await.unwrap().len(), 5);
    // Of one network only so many are answered.
    let mut status = StatusCode::OK;
    for _ in 0..60 {
        status = ask_for_link(&gateway.browser(), "nobody@example.com").await.status;
        if status != StatusCode::OK {
            break;
        }
    }
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    // That costs no login anything.
    assert_eq!(gateway.browser().submit_password(BOB, PASSWORD).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_link_is_dead_late_after_a_change_and_for_another_purpose() {
    let (mut server, gateway, browser) = with_mail().await;
    let link = async |server: &mut SmtpServer| {
        gateway.clock.advance(Duration::from_hours(2));
        ask_for_link(&browser, ADA).await;
        let mail = server.mail().await;
        let (link, page) = opened(&browser, &mail).await;
        assert_eq!(page.status, StatusCode::OK);
        (link, page)
    };
    let (late, page) = link(&mut server).await;
    gateway.clock.advance(Duration::from_mins(15));
    assert!(is_gone(&gateway, &late).await && set(&browser, &page, NEW).await.status == StatusCode::GONE);

    let (before, page) = link(&mut server).await;
    gateway.clock.advance(Duration::from_secs(1));
    gateway.administration().set_password(ADA, PASSWORD.into()).await.unwrap();
    assert_eq!(server.mail().await.subject(), "Your password for IoT Connectivity was changed");
    assert!(is_gone(&gateway, &before).await && set(&browser, &page, NEW).await.status == StatusCode::GONE);

    // Of two links the second is void once the first has been used.
    let (first, page) = link(&mut server).await;
    ask_for_link(&browser, ADA).await;
    let (second, _) = opened(&browser, &server.mail().await).await;
    gateway.clock.advance(Duration::from_secs(1));
    assert_eq!(set(&browser, &page, NEW).await.status, StatusCode::SEE_OTHER);
    assert!(is_gone(&gateway, &first).await && is_gone(&gateway, &second).await);
    assert_eq!(server.mail().await.subject(), "Your password for IoT Connectivity was changed");

    let (before, _) = link(&mut server).await;
    gateway.administration().set_email(ADA, "ada@example.org").await.unwrap();
    assert!(is_gone(&gateway, &before).await);
    let mut told = [server.mail().await.to().to_owned(), server.mail().await.to().to_owned()];
    told.sort();
    assert_eq!(told, [ADA, "ada@example.org"]);
    gateway.administration().set_email("ada@example.org", ADA).await.unwrap();
    let notice = server.mail().await;
    server.mail().await;

    // A link of one purpose is of no use for another, and no other text is one.
    let (not_me, page) = opened(&browser, &notice).await;
    assert_eq!(page.heading(), "Block your account?");
    let answer = browser.post_form(&not_me, &[("password", NEW), ("csrf", &page.field("csrf"))]).await;
    assert_eq!(answer.heading(), "Your account is blocked", "whatever else the form has");
    assert!(!opens(&gateway, NEW).await);
    for text in ["", "x", &"A".repeat(43), "..", &format!("{}x", &not_me[18..])] {
        let answer = gateway.browser().get(&format!("/.portcullis/link/{text}")).await;
        assert!(matches!(answer.status.as_u16(), 404 | 410 | 400), "{text}: {answer:?}");
    }
    assert_eq!(LinkPurpose::Password.lasts(), Duration::from_mins(15));
}

#[tokio::test]
async fn of_many_who_use_a_link_at_once_one_wins() {
    let (mut server, gateway, browser) = with_mail().await;
    ask_for_link(&browser, ADA).await;
    let (_, page) = opened(&browser, &server.mail().await).await;
    gateway.clock.advance(Duration::from_secs(1));
    let words = ["one", "two", "three", "four", "five", "six"].map(|word| format!("{word} {NEW}"));
    let answers = futures_util::future::join_all(words.iter().map(|word| set(&browser, &page, word))).await;
    let won: Vec<_> = answers.iter().map(|answer| answer.status == StatusCode::SEE_OTHER).collect();
    assert_eq!(won.iter().filter(|won| **won).count(), 1, "{answers:?}");
    for (word, won) in words.iter().zip(won) {
        assert_eq!(opens(&gateway, word).await, won);
    }
}

#[tokio::test]
async fn an_invitation_leads_to_a_password_then_to_the_usual_login_and_enrolment() {
    let (mut server, gateway, browser) = with_mail().await;
    let administration = gateway.administration();
    let new = portcullis::users::NewUser { email: BOB.into(), ..Default::default() };
    let user = administration.add_user(new, None).await.unwrap();
    administration.invite(&user).await.unwrap();
    let mail = server.mail().await;
    assert_eq!((mail.to(), mail.subject()), (BOB, "Your access to IoT Connectivity"));
    gateway.clock.advance(Duration::from_hours(6 * 24));
    let (link, page) = opened(&browser, &mail).await;
    assert_eq!(page.heading(), "Set your password");
    let login = set(&browser, &page, NEW).await;
    let login = browser.follow(login).await;
    let page = browser.submit(&login, &[("email", BOB), ("password", NEW)]).await;
    assert_eq!(page.heading(), "Set up your authenticator app");
    let page = browser.bind(&page, BOB, "Phone").await;
    browser.submit(&page, &[]).await;
    assert_eq!(browser.level().await, "two_factor");
    assert!(is_gone(&gateway, &link).await);
    let notice = server.mail().await;
    assert_eq!((notice.to(), notice.subject()), (BOB, "A new device for IoT Connectivity"));
    assert!(administration.users.without_password().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_command_invites_some_or_all_who_have_no_password() {
    let (mut server, gateway, _) = with_mail().await;
    let file = gateway.folder().join("portcullis.toml");
    let refused = command(&gateway, &["user", "invite", ADA]).await;
    assert!(refused.code == 1 && refused.err.contains("mail.url is not set"), "{refused:?}");
    let text = std::fs::read_to_string(&file).unwrap();
    let mail = format!("[mail]\nurl = \"{}\"\nfrom = \"no-reply@example.com\"\n", server.url());
    std::fs::write(&file, text + &mail).unwrap();
    let added = command(&gateway, &["user", "add", BOB, "--invite"]).await;
    assert!(added.code == 0, "{added:?}");
    assert_eq!(server.mail().await.to(), BOB);
    let new = portcullis::users::NewUser { email: "cyd".into(), ..Default::default() };
    gateway.administration().add_user(new, None).await.unwrap();
    let all = command(&gateway, &["user", "invite", "--all-without-password", "--json"]).await;
    assert_eq!(all.json()["invited"], serde_json::json!([BOB]), "{all:?}");
    assert_eq!(all.json()["without_address"], serde_json::json!(["cyd"]));
    assert_eq!(server.mail().await.to(), BOB);
    let none = command(&gateway, &["user", "invite", ADA, "nobody@example.com"]).await;
    assert!(none.code == 1 && none.err.contains("there is no user nobody@example.com"), "{none:?}");
    let one = command(&gateway, &["user", "invite", ADA]).await;
    assert!(one.code == 0 && one.out.contains("Invited ada@example.com."), "{one:?}");
    assert_eq!(server.mail().await.to(), ADA);
    assert_eq!(command(&gateway, &["user", "invite"]).await.code, 2);
}

#[tokio::test]
async fn this_was_not_me_blocks_the_account_until_an_operator_enables_it() {
    let server = SmtpServer::start("plain").await;
    let builder = server.used_by(TestGateway::builder()).set("mail.operator", "ops@example.com");
    let (mut server, (gateway, thief)) = (server, builder.start().await);
    gateway.add_user(ADA).await;
    thief.log_in(ADA).await;
    let notice = server.mail().await;
    let owner = gateway.browser();
    let (link, page) = opened(&owner, &notice).await;
    assert_eq!(
        (page.heading().as_str(), page.header("referrer-policy").as_str()),
        ("Block your account?", "no-referrer")
    );
    // A thief who changes the password does not make it void.
    gateway.clock.advance(Duration::from_secs(1));
    gateway
        .administration()
        .passwords
        .set(&gateway.administration().find(ADA).await.unwrap().unwrap().id, NEW.into())
        .await
        .unwrap();
    assert_eq!(thief.level().await, "two_factor", "to look changes nothing");
    let blocked = owner.fill(&page, &[("csrf", &page.field("csrf"))]).await;
    assert_eq!((blocked.status, blocked.heading().as_str()), (StatusCode::OK, "Your account is blocked"));
    soon(PATIENCE, "the session ends", async || thief.level().await == "none").await;
    assert!(!opens(&gateway, NEW).await && is_gone(&gateway, &link).await);
    let told = server.mail().await;
    assert_eq!(
        (told.to(), told.subject()),
        ("ops@example.com", "Account blocked by its user: ada@example.com")
    );
    assert_eq!(told.links(), [""; 0]);
    let user = gateway.administration().find(ADA).await.unwrap().unwrap();
    assert!(user.disabled && user.frozen);
    assert!(command(&gateway, &["user", "list"]).await.out.contains("blocked by its user"));
    gateway.administration().set_disabled(ADA, false).await.unwrap();
    assert!(opens(&gateway, NEW).await);
}

#[tokio::test]
async fn each_change_is_told_once_with_time_place_browser_and_a_way_out() {
    let (mut server, gateway, browser) = with_mail().await;
    let administration = gateway.administration();
    let told = async |server: &mut SmtpServer, subject: &str| {
        let mail = server.mail().await;
        assert_eq!((mail.subject(), mail.to()), (subject, ADA));
        assert_eq!(mail.links().len(), 1, "{}", mail.text());
        assert!(mail.text().contains("  Time: ") && mail.text().contains(" UTC"), "{}", mail.text());
        mail
    };
    let page = browser.visit("/").await;
    let page = browser.sign_in(&page, ADA).await;
    let page = browser.bind(&page, ADA, "My <phone>").await;
    let mail = told(&mut server, "A new device for IoT Connectivity").await;
    assert!(mail.text().contains("“My <phone>”") && mail.html().contains("“My &lt;phone&gt;”"));
    assert!(mail.text().contains("  Network: 127.0.0.1"), "{}", mail.text());
    let code = page.text_of("codes").split_whitespace().next().unwrap().to_owned();
    browser.submit(&page, &[]).await;
    // The same browser is no news.
    gateway.clock.advance(Duration::from_mins(1));
    browser.remove_cookie("__Host-portcullis");
    browser.log_in_to("/", ADA).await;
    gateway.clock.advance(Duration::from_mins(1));
    let other = gateway.browser();
    other.log_in_to("/", ADA).await;
    told(&mut server, "New sign-in to IoT Connectivity").await;

    gateway.clock.advance(Duration::from_mins(1));
    let lost = gateway.browser();
    let page = lost.visit("/").await;
    lost.sign_in(&page, ADA).await;
    let page = lost.visit("/.portcullis/recovery").await;
    lost.submit(&page, &[("recovery_code", code.as_str())]).await;
    let mut both = [server.mail().await, server.mail().await];
    both.sort_by_key(|mail| mail.subject().to_owned());
    let subjects = both.each_ref().map(Mail::subject);
    assert_eq!(
        subjects,
        ["A recovery code was used for IoT Connectivity", "New sign-in to IoT Connectivity"]
    );
    assert!(!both[0].text().contains(code.as_str()));
    let page = lost.visit("/.portcullis/recovery-codes?new=1").await;
    lost.submit(&page, &[]).await;
    told(&mut server, "New recovery codes for IoT Connectivity").await;

    administration.revoke_user(ADA).await.unwrap();
    let mail = told(&mut server, "You've been signed out of IoT Connectivity").await;
    assert!(mail.text().contains("  By: an operator of IoT Connectivity"), "{}", mail.text());
    // Who has no session is told nothing.
    administration.revoke_user(ADA).await.unwrap();
    administration.remove_device(ADA, "My <phone>").await.unwrap();
    told(&mut server, "A device was removed from IoT Connectivity").await;
    administration.set_password(ADA, NEW.into()).await.unwrap();
    told(&mut server, "Your password for IoT Connectivity was changed").await;
    // A change that failed is told to nobody.
    assert!(administration.set_password(ADA, "short".into()).await.is_err());
    assert!(administration.set_email(ADA, "not an address").await.is_err());
    administration.set_email(ADA, "ada@example.org").await.unwrap();
    let mut both = [server.mail().await, server.mail().await];
    both.sort_by_key(|mail| mail.to().to_owned());
    assert_eq!([both[0].to(), both[1].to()], [ADA, "ada@example.org"]);
    assert!(both.iter().all(|mail| mail.subject() == "Your e-mail for IoT Connectivity was changed"));
}

#[tokio::test]
async fn without_a_mail_server_nothing_of_it_is_there() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    assert!(!browser.visit("/.portcullis/login").await.text().contains("Forgot"));
    assert_eq!(browser.get("/.portcullis/forgot").await.status, StatusCode::NOT_FOUND);
    browser.log_in(ADA).await;
    assert!(gateway.administration().notices.outbox.list(None).await.unwrap().is_empty());
}

#[tokio::test]
async fn whoever_has_no_device_is_reminded_of_their_own_date() {
    let mut server = SmtpServer::start("plain").await;
    let builder = server.used_by(TestGateway::builder());
    let (gateway, _) = builder.set("second_factor.mandatory_from", "2090-03-02T00:00:00+01:00").start().await;
    gateway.add_user(ADA).await;
    let done = command(&gateway, &["rollout", "remind", "--dry-run", "--json"]).await;
    assert_eq!(done.json()["reminded"], serde_json::json!([ADA]), "{done:?}");
    let ada = gateway.administration().find(ADA).await.unwrap().unwrap();
    // Twice within an hour is one mail too many.
    for _ in 0..2 {
        gateway.administration().remind(&ada).await.unwrap();
    }
    let mail = server.mail().await;
    assert_eq!((mail.to(), mail.subject()), (ADA, "Set up your phone for IoT Connectivity"));
    assert!(mail.text().contains("From 2 March 2090, you'll need a code"), "{}", mail.text());
    assert_eq!(mail.links(), ["/.portcullis/enrol"], "{}", mail.text());
    gateway.browser().log_in(ADA).await;
    assert_eq!(server.mail().await.subject(), "A new device for IoT Connectivity");
    let done = command(&gateway, &["rollout", "remind", "--dry-run", "--json"]).await;
    assert_eq!(done.json()["reminded"], serde_json::json!([]), "who has a device is left in peace: {done:?}");
}
