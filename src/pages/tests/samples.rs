//! A sample of every page, written to `target/pages-preview/` to be viewed in a browser.

use std::{fs, path::Path};

use super::{
    super::{
        NotSaved,
        assets::Assets,
        qr::QrSvg,
        texts,
        views::{
            AccountPage, Action, CodePage, DeviceRow, EnrolErrors, EnrolPage, FirstCodePage, ForgotPage,
            Invite, LoginPage, Message, NewRecoveryCodesPage, NotMePage, RecoveredPage, RecoveryCodesPage,
            RecoveryPage, Remember, SavedFormPage, SessionRow, SetPasswordPage, TokenRow, ToldPage, View,
            WrongTriesPage, WrongTriesRow,
        },
    },
    URI, enrol, key_groups, templates, token_row,
};

/// Those of links in mail.
fn by_mail() -> Vec<(&'static str, View<'static>)> {
    let (email, csrf) = ("ada.lovelace@example.com", "csrf");
    let set_password = |first, error| {
        let (min_length, token) = (15, "token");
        View::SetPassword(SetPasswordPage { email, first, min_length, error, token, csrf })
    };
    let told = |title, texts| {
        let action = Some(Action { label: "Back to sign in", path: "/", target: None });
        View::Told(ToldPage { title, texts, action })
    };
    vec![
        ("forgot", View::Forgot(ForgotPage { email: "", error: None, csrf })),
        ("set-password", set_password(false, None)),
        ("set-password-error", set_password(true, Some("Use at least 15 characters."))),
        ("not-me", View::NotMe(NotMePage { email, error: None, token: "token", csrf })),
        ("link-sent", told("Check your e-mail", &texts::LINK_SENT)),
        ("link-gone", told("This link no longer works", &texts::LINK_GONE)),
    ]
}

/// The samples, each with the name of its preview.
fn samples<'a>(qr: &'a QrSvg, filling: &'a Samples) -> Vec<(&'static str, View<'a>)> {
    let email = "ada.lovelace@example.com";
    let rd = Some("/sims?page=2");
    let csrf = "csrf";
    let login = |email, error: Option<_>, notice| {
        let remember = Some(Remember { lasts: "30 days".into(), chosen: error.is_some() });
        View::Login(LoginPage {
            certificate: None,
            email,
            error,
            notice,
            csrf,
            again: false,
            code_first: error.is_some(),
            forgot: true,
            remember,
            rd,
        })
    };
    let code = |error| View::Code(CodePage { email, error, csrf, rd });
    let recovery = |error| View::Recovery(RecoveryPage { email, error, csrf, rd });
    let invite = || Some(Invite { date: "2 March 2026".into(), days_left: 12, skips_left: None });
    let wrong_tries = |rows, codes| {
        View::WrongTries(WrongTriesPage { email, rows, codes, until: 0, error: None, csrf, rd })
    };
    let message = |status| View::Message(Message::for_status(status, Some("01J9Z6T4QK8F")));
    let wrong = EnrolErrors { code: Some(texts::WRONG_CODE_AT_ENROLMENT.into()), ..EnrolErrors::default() };
    let unnamed =
        EnrolErrors { device_name: Some(texts::DEVICE_NAME_TAKEN.into()), ..EnrolErrors::default() };
    let page = || enrol(qr, &filling.groups);
    let codes = RecoveryCodesPage { codes: &filling.codes, error: None, csrf, rd };
    vec![
        ("login", login("", None, None)),
        ("login-error", login(email, Some(texts::WRONG_CREDENTIALS), None)),
        ("login-notice", login(email, None, Some(texts::LOGIN_TIMED_OUT))),
        ("new-codes", View::NewRecoveryCodes(NewRecoveryCodesPage { left: 7, csrf })),
        ("recovered", View::Recovered(RecoveredPage { left: 9, path: "/sims" })),
        ("login-again", login("", None, Some(texts::SIGN_IN_AGAIN))),
        ("code", code(None)),
        ("code-error", code(Some(texts::CODE_ALREADY_USED))),
        ("recovery", recovery(None)),
        ("recovery-error", recovery(Some(texts::WRONG_RECOVERY_CODE))),
        ("enrol", View::Enrol(page())),
        ("enrol-error", View::Enrol(EnrolPage { errors: wrong, device_name: "Work phone", ..page() })),
        ("enrol-name-error", View::Enrol(EnrolPage { errors: unnamed, device_name: "Work phone", ..page() })),
        ("enrol-invite", View::Enrol(EnrolPage { invite: invite(), ..page() })),
        ("recovery-codes", View::RecoveryCodes(codes)),
        ("account", account(filling, &filling.devices, 2, 8)),
        (
            "saved-form",
            View::SavedForm(SavedFormPage {
                path: "/sims/new",
                when: "a moment ago",
                action: "/sims/new",
                discard: "/",
                csrf,
            }),
        ),
        ("form-too-large", View::Message(Message::not_saved(NotSaved::TooLarge(65536), "4f1c"))),
        ("form-gone", View::Message(Message::form_is_gone("4f1c"))),
        ("code-first", View::FirstCode(FirstCodePage { email, error: None, csrf, rd })),
        ("wrong-tries", wrong_tries(&filling.wrong_tries, true)),
        ("account-bare", account(filling, &[], 1, 2)),
        ("signed-in", View::SignedIn),
        ("signed-out", View::SignedOut),
        ("message-403", message(403)),
        ("message-404", message(404)),
        ("message-504", message(504)),
    ]
}

fn account<'a>(
    filling: &'a Samples,
    devices: &'a [DeviceRow],
    sessions: usize,
    recovery_left: u32,
) -> View<'a> {
    View::Account(AccountPage {
        email: "ada.lovelace@example.com",
        signed_in_since: "09:12 today",
        devices,
        recovery_left,
        others: sessions > 1,
        full: true,
        sessions: &filling.sessions[..sessions],
        tokens: &filling.tokens,
        makes_tokens: true,
        csrf: "Y3NyZg",
    })
}

struct Samples {
    groups: Vec<String>,
    codes: Vec<String>,
    devices: Vec<DeviceRow>,
    sessions: Vec<SessionRow>,
    tokens: Vec<TokenRow>,
    wrong_tries: Vec<WrongTriesRow>,
}

impl Samples {
    fn new() -> Self {
        let device = |name: &str, used: Option<&str>| DeviceRow {
            name: name.into(),
            added: "12 January 2026".into(),
            last_used: used.map(str::to_owned),
        };
        let session = |agent: &str, when: &str, current: bool| SessionRow {
            sites: Vec::new(),
            kept_until: (!current).then(|| "11 February 2026, 17:40 UTC".to_owned()),
            when: when.into(),
            seen: "09:40 today".into(),
            id: "0123456789abcdef".into(),
            where_: "192.0.2.17".into(),
            agent: agent.into(),
            current,
        };
        Self {
            groups: key_groups(),
            codes: (0..10).map(|n| format!("k7q{n}-9fwm-x2ta-c{n}h6")).collect(),
            devices: vec![device("Work phone", Some("today, 09:12")), device("Tablet at home", None)],
            sessions: vec![
                session("Firefox on Linux", "since 09:12 today", true),
                session("Safari on iPhone", "since yesterday, 17:40", false),
            ],
            tokens: [(true, false), (true, true), (false, false)].map(token_row).into(),
            wrong_tries: [
                ("4 wrong passwords", "203.0.113.7"),
                ("2 wrong passwords and 3 wrong codes", "2001:db8:4:2::/64"),
            ]
            .map(|(what, from)| WrongTriesRow {
                what: what.into(),
                from: from.into(),
                last: "30 November 2026, 03:12 UTC".into(),
            })
            .into(),
        }
    }
}

#[test]
fn the_samples_render_and_can_be_looked_at() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/pages-preview");
    fs::create_dir_all(folder.join("assets")).unwrap();
    let templates = templates("IoT Connectivity", Some("mailto:support@example.com"));
    let (qr, filling) = (QrSvg::draw(URI, "QR code for your authenticator app").unwrap(), Samples::new());
    let assets = Assets::embedded();
    for (name, view) in samples(&qr, &filling).into_iter().chain(by_mail()) {
        let html = templates.render(&view);
        assert!(html.contains("IoT Connectivity</span>"), "{name} is not the page asked for");
        let html = html.replace("&#x2f;.portcullis&#x2f;assets&#x2f;", "assets/");
        for url in html.split('"').filter(|part| part.starts_with("assets/")) {
            let asset = assets.find(&url["assets/".len()..]).unwrap();
            fs::write(folder.join(url), asset.body).unwrap();
        }
        fs::write(folder.join(format!("{name}.html")), html).unwrap();
    }
}
