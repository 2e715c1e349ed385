//! `kill -9` at any moment of enrolment and login: after a restart on the same files the same browser finds the state of
//! before or the state of after, never half of it, and a code that has been used stays used.

use std::{fs, time::Duration};

use http::StatusCode;
use portcullis::{
    administration::UserDetails,
    random::{OsRandom, Random},
};

use crate::support::{Answer, Browser, now, phone::Phone, process::Served, test_gateway::add_user};

const STEP: Duration = Duration::from_secs(30);
/// How many pieces of the database's log are written before the power is cut: from none at all, over all places within
/// and between the transactions of one request, to never, when the answer is there first.
const WRITES: [usize; 12] = [0, 1, 2, 4, 6, 8, 10, 12, 15, 18, 24, usize::MAX];

/// Cuts the power, and finds the same browser before the site again.
async fn power_cut(served: &mut Served, browser: Browser) -> Browser {
    served.kill();
    served.restart().await;
    browser.moved_to(&served.surroundings())
}

/// The code of the step before, which leaves this step's for the next login.
fn earlier_code(phone: &Phone) -> String {
    phone.code_at(now().minus(STEP))
}

/// Presses Save until the code has not become too old on the way.
async fn save(browser: &Browser, page: &Answer, phone: &Phone) -> Answer {
    for _ in 0..3 {
        let code = earlier_code(phone);
        let answer = browser.fill(page, &[("code", &code), ("device_name", "Phone")]).await;
        if answer.status != StatusCode::UNPROCESSABLE_ENTITY {
            return browser.follow(answer).await;
        }
    }
    panic!("the code is never right");
}

async fn user_details(served: &Served, email: &str) -> UserDetails {
    served.administration().user_details(email).await.unwrap()
}

/// A user's enrolment is there with all that belongs to it, or not at all.
fn is_enrolled(details: &UserDetails) -> bool {
    let enrolled = !details.devices.is_empty();
    assert_eq!((details.devices.len(), details.recovery_left), if enrolled { (1, 10) } else { (0, 0) });
    enrolled
}

#[tokio::test]
async fn killed_between_any_two_steps_it_goes_on_where_it_was() {
    let email = "ada@example.com";
    let mut served = Served::start().await;
    add_user(served.administration(), email).await;
    let browser = served.browser();
    let login = browser.visit("/sims?page=2").await;
    let browser = power_cut(&mut served, browser).await;
    let enrol = browser.sign_in(&login, email).await;
    assert_eq!(enrol.heading(), "Set up your authenticator app");
    let phone = browser.scan(&enrol, email);

    let browser = power_cut(&mut served, browser).await;
    assert_eq!(
        browser.get("/.portcullis/enrol").await.text_of("key"),
        enrol.text_of("key"),
        "nobody scans twice"
    );
    let wrong = browser.submit(&enrol, &[("code", "000000"), ("device_name", "Phone")]).await;
    assert_eq!(wrong.text_of("key"), enrol.text_of("key"));
    assert!(!is_enrolled(&user_details(&served, email).await));

    let browser = power_cut(&mut served, browser).await;
    let codes = save(&browser, &wrong, &phone).await;
    assert_eq!(codes.heading(), "Save your recovery codes");
    let browser = power_cut(&mut served, browser).await;
    let page = browser.get("/.portcullis/recovery-codes?rd=/sims%3Fpage%3D2").await;
    assert_eq!(page.text_of("codes"), codes.text_of("codes"), "the same codes, still to be confirmed");
    assert_eq!(browser.submit(&page, &[]).await.text(), "the portal: GET /sims?page=2\n");
    let browser = power_cut(&mut served, browser).await;
    assert_eq!(browser.level().await, "two_factor");
    assert_eq!(browser.get("/.portcullis/recovery-codes").await.location(), "/", "confirmed once");

    let other = served.browser();
    let login = other.visit("/alarms").await;
    let other = power_cut(&mut served, other).await;
    let page = other.sign_in(&login, email).await;
    assert_eq!(page.heading(), "Enter your code");
    let other = power_cut(&mut served, other).await;
    let code = phone.code_at(now());
    assert_eq!(other.submit(&page, &[("code", &code)]).await.text(), "the portal: GET /alarms\n");

    let other = power_cut(&mut served, other).await;
    assert_eq!(other.level().await, "two_factor");
    let thief = served.browser();
    let page = thief.visit("/").await;
    let page = thief.sign_in(&page, email).await;
    let answer = thief.fill(&page, &[("code", &code)]).await;
    assert_eq!((answer.status, answer.starts_session()), (StatusCode::UNAUTHORIZED, false), "a used code");
    let browser = browser.moved_to(&served.surroundings());
    assert_eq!(browser.level().await, "two_factor", "the first session has survived it all");
    let account = browser.get("/.portcullis/account").await;
    browser.post_form("/.portcullis/logout", &[("csrf", &account.field("csrf"))]).await;
    let browser = power_cut(&mut served, browser).await;
    assert_eq!(browser.level().await, "none", "and what was ended does not come back");
    assert_eq!(user_details(&served, email).await.sessions.len(), 1);
}

/// Sends a form, and cuts the power once the database has been written to so many times. The browser keeps what cookies
/// it was given until then.
async fn cut_during(
    served: &mut Served,
    browser: &Browser,
    page: &Answer,
    fields: &[(&str, &str)],
    writes: usize,
) {
    let names: Vec<&str> = fields.iter().map(|&(name, _)| name).collect();
    let form = page.form(&names);
    let request = browser.form_request(&form.action, &form.filled(fields));
    let log = served.write_ahead_log();
    let stamp = || fs::metadata(&log).map(|facts| (facts.len(), facts.modified().unwrap())).ok();
    let written = async {
        let mut last = stamp();
        for _ in 0..writes {
            while stamp() == last {
                tokio::task::yield_now().await;
            }
            last = stamp();
        }
    };
    tokio::select! {
        // An answer that came first is one that the browser has.
        _ = browser.try_open(request) => {}
        () = written => {}
    }
    served.kill();
}

#[tokio::test]
async fn killed_while_saving_a_device_all_of_it_is_there_or_nothing() {
    let mut served = Served::start().await;
    for writes in WRITES {
        kill_while_saving(&mut served, writes).await;
    }
}

/// Run by `cargo test --release --test gateway kill:: -- --ignored --nocapture`; takes some minutes.
#[tokio::test]
#[ignore = "the same as above, a thousand times"]
async fn a_thousand_power_cuts_at_random_moments_leave_nothing_half() {
    let mut served = Served::start().await;
    for cut in 1..=500 {
        let [saving, checking] = (&OsRandom as &dyn Random).bytes().map(|byte| usize::from(byte % 32));
        kill_while_saving(&mut served, saving).await;
        kill_while_checking(&mut served, checking).await;
        if cut % 50 == 0 {
            println!("{} power cuts", 2 * cut);
        }
    }
}

/// Somebody who has just scanned the QR code.
struct Newcomer {
    email: String,
    browser: Browser,
    enrol: Answer,
    phone: Phone,
}

async fn newcomer(served: &Served, writes: usize) -> Newcomer {
    let email = format!("user-{writes}-{}@example.com", served.restarts());
    add_user(served.administration(), &email).await;
    let browser = served.browser();
    let page = browser.visit("/sims").await;
    let enrol = browser.sign_in(&page, &email).await;
    let phone = browser.scan(&enrol, &email);
    Newcomer { email, browser, enrol, phone }
}

async fn kill_while_saving(served: &mut Served, writes: usize) {
    let Newcomer { email, browser, enrol, phone } = newcomer(served, writes).await;
    let code = earlier_code(&phone);
    cut_during(served, &browser, &enrol, &[("code", &code), ("device_name", "Phone")], writes).await;
    served.restart().await;
    let browser = browser.moved_to(&served.surroundings());

    let enrolled = is_enrolled(&user_details(served, &email).await);
    let page = browser.visit("/.portcullis/enrol?rd=/sims").await;
    let end = match page.heading().as_str() {
        "Set up your authenticator app" if !enrolled => {
            assert_eq!(page.text_of("key"), enrol.text_of("key"), "nobody scans twice");
            let page = save(&browser, &page, &phone).await;
            browser.submit(&page, &[]).await
        }
        "Enter your code" if enrolled => {
            let page = browser.submit(&page, &[("code", &phone.code_at(now()))]).await;
            assert_eq!(page.heading(), "Save your recovery codes");
            browser.submit(&page, &[]).await
        }
        // The login in progress is used up, and the session was not handed over: once more.
        "Sign in" if enrolled => {
            let page = browser.sign_in(&page, &email).await;
            let page = browser.submit(&page, &[("code", &phone.code_at(now()))]).await;
            browser.submit(&page, &[]).await
        }
        // The answer was faster than the power cut.
        "" if enrolled => page,
        other => panic!("{writes}: {enrolled} {other}: {}", page.text()),
    };
    assert_eq!(end.text(), "the portal: GET /sims\n", "{writes}");
    assert!(is_enrolled(&user_details(served, &email).await));
}

#[tokio::test]
async fn killed_while_checking_a_code_it_is_used_up_or_not_but_never_good_twice() {
    let mut served = Served::start().await;
    for writes in WRITES {
        kill_while_checking(&mut served, writes).await;
    }
}

async fn kill_while_checking(served: &mut Served, writes: usize) {
    let Newcomer { email, browser, enrol, phone } = newcomer(served, writes).await;
    let page = save(&browser, &enrol, &phone).await;
    browser.submit(&page, &[]).await;

    let last_used = |facts: &UserDetails| facts.devices.first().and_then(|device| device.last_used_at);
    // Enrolment is the first use of a device.
    let before = last_used(&user_details(served, &email).await);

    let browser = served.browser();
    let page = browser.visit("/sims").await;
    let page = browser.sign_in(&page, &email).await;
    let code = phone.code_at(now());
    cut_during(served, &browser, &page, &[("code", &code)], writes).await;
    served.restart().await;
    let browser = browser.moved_to(&served.surroundings());

    let facts = user_details(served, &email).await;
    let used = last_used(&facts) != before;
    assert!(used || facts.sessions.len() == 1, "no session without a used code: {:?}", facts.sessions);
    let got_in = browser.level().await == "two_factor";
    assert!(used || !got_in);
    let again = served.browser();
    let page = again.visit("/sims").await;
    let page = again.sign_in(&page, &email).await;
    let answer = again.fill(&page, &[("code", &code)]).await;
    assert_eq!(answer.starts_session(), !used, "{writes}: {}", answer.text());
    let sessions = user_details(served, &email).await.sessions.len();
    assert!((1..=2).contains(&sessions), "the enrolment's, and at most one more: {sessions}");
}
