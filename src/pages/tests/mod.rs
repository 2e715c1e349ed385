//! Every page with sample values and with hostile ones, and what no template may contain.

mod samples;

use super::{
    Config,
    qr::QrSvg,
    templates::{SOURCES, Templates, TemplatesError},
    texts,
    views::{
        AccountPage, Action, CodePage, DeviceRow, EnrolErrors, EnrolPage, FirstCodePage, ForgotPage, Invite,
        LeavingPage, LifetimeChoice, LoginPage, Message, NewRecoveryCodesPage, NewTokenErrors, NewTokenPage,
        NotMePage, OnceMorePage, RecoveredPage, RecoveryCodesPage, RecoveryPage, Remember, SavedFormPage,
        SessionRow, SetPasswordPage, TokenMadePage, TokenRow, ToldPage, View, WrongTriesPage, WrongTriesRow,
    },
};

const HOSTILE: &str = r#""><svg/onload=1>' data-left=""#;
const URI: &str = "otpauth://totp/IoT%20Connectivity:ada.lovelace@example.com?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=IoT%20Connectivity&algorithm=SHA1&digits=6&period=30";

fn templates(portal_name: &str, support: Option<&str>) -> Templates {
    let config = Config { portal_name: portal_name.to_owned(), support: support.map(str::to_owned) };
    Templates::new(&config).unwrap()
}

/// One value for every text.
struct Filling {
    text: String,
    qr: QrSvg,
    list: Vec<String>,
    fields: Vec<(String, String)>,
    devices: Vec<DeviceRow>,
    sessions: Vec<SessionRow>,
    tokens: Vec<TokenRow>,
    lifetimes: Vec<LifetimeChoice>,
    wrong_tries: Vec<WrongTriesRow>,
}

impl Filling {
    fn new(text: &str) -> Self {
        let row = |current| SessionRow {
            kept_until: Some(text.into()),
            sites: vec![text.into(); 2],
            when: text.into(),
            seen: text.into(),
            id: text.into(),
            where_: text.into(),
            agent: text.into(),
            current,
        };
        Self {
            text: text.to_owned(),
            qr: QrSvg::draw(text, text).unwrap(),
            list: vec![text.to_owned(); 3],
            fields: vec![(text.to_owned(), text.to_owned()); 2],
            devices: vec![DeviceRow { name: text.into(), added: text.into(), last_used: Some(text.into()) }],
            sessions: vec![row(true), row(false)],
            tokens: vec![TokenRow {
                id: text.into(),
                name: text.into(),
                made: text.into(),
                last_used: Some(text.into()),
                expires: Some(text.into()),
                is_over: false,
                is_own: true,
                limits: text.into(),
            }],
            lifetimes: vec![LifetimeChoice { seconds: 86_400, label: text.into(), chosen: true }],
            wrong_tries: vec![WrongTriesRow { what: text.into(), from: text.into(), last: text.into() }],
        }
    }

    /// The pages of a signed-in user.
    fn account(&self) -> [View<'_>; 3] {
        let text = self.text.as_str();
        [
            View::Account(AccountPage {
                email: text,
                signed_in_since: text,
                devices: &self.devices,
                recovery_left: 2,
                sessions: &self.sessions,
                others: true,
                full: true,
                tokens: &self.tokens,
                makes_tokens: true,
                csrf: text,
            }),
            View::NewToken(NewTokenPage {
                name: text,
                paths: text,
                lifetimes: &self.lifetimes,
                errors: NewTokenErrors::default(),
                csrf: text,
            }),
            View::TokenMade(TokenMadePage { token: text, row: &self.tokens[0] }),
        ]
    }

    fn by_mail(&self) -> [View<'_>; 4] {
        let text = self.text.as_str();
        let some = Some(text);
        [
            View::Forgot(ForgotPage { email: text, error: some, csrf: text }),
            View::SetPassword(SetPasswordPage {
                email: text,
                first: false,
                min_length: 15,
                error: some,
                token: text,
                csrf: text,
            }),
            View::NotMe(NotMePage { email: text, error: some, token: text, csrf: text }),
            View::Told(ToldPage {
                title: text,
                texts: &["text"],
                action: Some(Action { label: text, path: text, target: None }),
            }),
        ]
    }

    fn views(&self) -> Vec<View<'_>> {
        let text = self.text.as_str();
        let some = Some(text);
        let mut views = vec![
            View::Login(LoginPage {
                certificate: None,
                email: text,
                error: some,
                notice: some,
                csrf: text,
                again: true,
                code_first: true,
                forgot: true,
                remember: Some(Remember { lasts: text.into(), chosen: true }),
                rd: some,
            }),
            View::Code(CodePage { email: text, error: some, csrf: text, rd: some }),
            View::Recovery(RecoveryPage { email: text, error: some, csrf: text, rd: some }),
            View::Enrol(EnrolPage {
                account: text,
                issuer: text,
                qr_svg: &self.qr,
                key_groups: &self.list,
                otpauth_uri: text,
                notice: some,
                errors: EnrolErrors {
                    code: Some(text.into()),
                    device_name: Some(text.into()),
                    form: Some(text.into()),
                },
                csrf: text,
                rd: some,
                device_name: text,
                invite: Some(Invite { date: text.into(), days_left: 3, skips_left: None }),
                signing_in: true,
            }),
            View::RecoveryCodes(RecoveryCodesPage { codes: &self.list, error: some, csrf: text, rd: some }),
            View::NewRecoveryCodes(NewRecoveryCodesPage { left: 2, csrf: text }),
            View::Recovered(RecoveredPage { left: 2, path: text }),
            View::SavedForm(SavedFormPage {
                path: text,
                when: text,
                action: text,
                discard: text,
                csrf: text,
            }),
            View::OnceMore(OnceMorePage { from: some, path: text, action: text, fields: &self.fields }),
            View::Leaving(LeavingPage { host: text, to: text }),
            View::FirstCode(FirstCodePage { email: text, error: some, csrf: text, rd: some }),
            View::WrongTries(WrongTriesPage {
                email: text,
                rows: &self.wrong_tries,
                codes: true,
                until: 1,
                error: some,
                csrf: text,
                rd: some,
            }),
            View::SignedIn,
            View::SignedOut,
            View::Message(Message {
                title: text,
                text: text.into(),
                status: 500,
                request_id: some,
                retry: true,
                action: Some(Action { label: text, path: text, target: Some("_blank") }),
            }),
        ];
        views.extend(self.account());
        views.extend(self.by_mail());
        views
    }
}

fn enrol<'a>(qr: &'a QrSvg, groups: &'a [String]) -> EnrolPage<'a> {
    EnrolPage {
        account: "ada.lovelace@example.com",
        issuer: "IoT Connectivity",
        qr_svg: qr,
        key_groups: groups,
        otpauth_uri: URI,
        notice: None,
        errors: EnrolErrors::default(),
        csrf: "csrf",
        rd: Some("/sims?page=2"),
        device_name: "",
        invite: None,
        signing_in: true,
    }
}

fn key_groups() -> Vec<String> {
    ["JBSW", "Y3DP", "EHPK", "3PXP"].repeat(2).into_iter().map(str::to_owned).collect()
}

fn token_row((is_own, is_over): (bool, bool)) -> TokenRow {
    TokenRow {
        id: "s84A2Ml1T2".into(),
        name: "backup-script".into(),
        made: "12 January 2026, 09:12 UTC".into(),
        last_used: (!is_over).then(|| "today, 09:12".to_owned()),
        expires: is_own.then(|| "11 February 2026, 17:40 UTC".to_owned()),
        is_over,
        is_own,
        limits: if is_over { String::new() } else { "/api/*, /health".into() },
    }
}

/// The lines of `html` that contain `needle`.
fn lines<'a>(html: &'a str, needle: &str) -> Vec<&'a str> {
    html.lines().filter(|line| line.contains(needle)).collect()
}

#[test]
fn hostile_text_stays_text_in_every_field() {
    let filling = Filling::new(HOSTILE);
    for view in filling.views() {
        let html = templates(HOSTILE, Some("mailto:help@example.com")).render(&view);
        assert!(html.contains("&quot;&gt;&lt;svg"), "{}: nothing was escaped", view.template());
        assert!(!html.contains("<svg/onload"), "{}", view.template());
        assert!(!html.contains(r#"data-left=""#), "{}: an attribute was left early", view.template());
    }
}

#[test]
fn no_value_of_a_view_goes_missing() {
    // A marker in each field: if a template left one out, its count would be lower.
    let marked = Filling::new("marker");
    let templates = templates("Portal", None);
    let counts: Vec<_> =
        marked.views().iter().map(|view| templates.render(view).matches("marker").count()).collect();
    for (view, count) in marked.views().iter().zip(counts) {
        let fewest = match view {
            View::Code(_)
            | View::Recovery(_)
            | View::FirstCode(_)
            | View::SavedForm(_)
            | View::NewToken(_)
            | View::TokenMade(_)
            | View::SetPassword(_)
            | View::NotMe(_) => 4,
            View::Enrol(_) => 14,
            View::Account(_) => 18,
            View::SignedIn | View::SignedOut | View::Recovered(_) => 0,
            View::NewRecoveryCodes(_) => 1,
            View::Leaving(_) | View::Forgot(_) | View::Told(_) => 3,
            View::OnceMore(_) => 6,
            View::WrongTries(_) => 7,
            View::Login(_) | View::RecoveryCodes(_) | View::Message(_) => 5,
        };
        assert!(count >= fewest, "{} holds {count} markers, not {fewest}", view.template());
    }
}

#[test]
fn only_an_otpauth_uri_becomes_the_link_for_the_same_phone() {
    let (qr, groups) = (QrSvg::draw("x", "QR code").unwrap(), key_groups());
    let templates = templates("Portal", None);
    let good = templates.render(&View::Enrol(enrol(&qr, &groups)));
    assert!(
        good.contains(r#"href="otpauth:&#x2f;&#x2f;totp&#x2f;"#),
        "{:?}",
        lines(&good, "Open the authenticator app")
    );
    for bad in ["javascript:alert(1)", "https://evil.example/", " otpauth://totp/x", "otpauth:x", ""] {
        let html = templates.render(&View::Enrol(EnrolPage { otpauth_uri: bad, ..enrol(&qr, &groups) }));
        assert!(!html.contains("Open the authenticator app"), "{bad}");
    }
}

#[test]
fn only_mail_phone_and_https_are_support_contacts() {
    for (support, label) in [
        ("mailto:help@example.com", "help@example.com"),
        ("mailto:help%2Bsims@example.com?subject=Login", "help+sims@example.com"),
        ("tel:+43-1-2345", "+43-1-2345"),
        ("https://help.example.com/sims/", "help.example.com/sims"),
    ] {
        let html = templates("Portal", Some(support)).render(&View::SignedOut);
        let link = lines(&html, "Need help?").concat().replace("&#x2f;", "/");
        assert!(link.contains(&format!("href=\"{support}\">{label}</a>")), "{link}");
    }
    for bad in ["javascript:alert(1)", "http://help.example.com/", "data:text/html,x", "ftp://example.com/"] {
        let config = Config { portal_name: "Portal".into(), support: Some(bad.into()) };
        assert!(matches!(Templates::new(&config), Err(TemplatesError::SupportScheme { .. })), "{bad}");
    }
    let config = Config { portal_name: "Portal".into(), support: Some("help@example.com".into()) };
    assert!(matches!(Templates::new(&config), Err(TemplatesError::SupportUrl(_))));
}

#[test]
fn every_page_says_where_to_find_help() {
    let filling = Filling::new("x");
    for view in filling.views() {
        assert!(templates("Portal", None).render(&view).contains("Need help? Ask the people"));
        assert!(templates("Portal", Some("tel:112")).render(&view).contains(r#"href="tel:112""#));
    }
}

#[test]
fn a_message_leads_nowhere_but_this_site() {
    for (path, expected) in [
        ("/sims", "&#x2f;sims"),
        ("//evil.example", "&#x2f;"),
        ("/\\evil.example", "&#x2f;"),
        ("/\t/evil.example", "&#x2f;"),
        ("https://evil.example", "&#x2f;"),
        ("javascript:alert(1)", "&#x2f;"),
        ("", "&#x2f;"),
    ] {
        let action = Some(Action { label: "Onwards", path, target: None });
        let html = templates("Portal", None)
            .render(&View::Message(Message { action, ..Message::for_status(404, None) }));
        assert!(html.contains(&format!(r#"href="{expected}">Onwards"#)), "{:?}", lines(&html, "Onwards"));
    }
}

#[test]
fn the_page_asked_for_is_carried_along_encoded() {
    let code = |rd| View::Code(CodePage { email: "a@example.com", error: None, csrf: "c", rd });
    let html = templates("Portal", None).render(&code(Some("/sims?page=2&x=\"é")));
    let query = "?rd=%2Fsims%3Fpage%3D2%26x%3D%22%C3%A9\"";
    for path in ["code", "recovery", "login"] {
        assert!(html.contains(&format!("\"/.portcullis/{path}{query}")), "{path}");
    }
    let html = templates("Portal", None).render(&code(None));
    assert!(!html.contains("rd="));
}

#[test]
fn the_title_says_when_something_is_wrong() {
    let templates = templates("Portal", None);
    let login = |error| {
        let (notice, remember, rd) = (None, None, None);
        View::Login(LoginPage {
            certificate: None,
            email: "",
            error,
            notice,
            csrf: "c",
            again: false,
            code_first: false,
            forgot: false,
            remember,
            rd,
        })
    };
    assert!(templates.render(&login(None)).contains("<title>Sign in – Portal</title>"));
    let failed = templates.render(&login(Some(texts::WRONG_CREDENTIALS)));
    assert!(failed.contains("<title>Error: Sign in – Portal</title>"));
    assert!(failed.contains(r#"id="login-problem" role="alert""#));
    assert_eq!(failed.matches(r#"aria-invalid="true" aria-describedby="login-problem""#).count(), 2);
}

#[test]
fn enrolment_puts_each_error_at_its_field_and_keeps_the_name() {
    let (qr, groups) = (QrSvg::draw(URI, "QR code").unwrap(), key_groups());
    let errors = EnrolErrors { code: Some(texts::WRONG_CODE_AT_ENROLMENT.into()), ..EnrolErrors::default() };
    let html = templates("Portal", None).render(&View::Enrol(EnrolPage {
        errors,
        device_name: "Work phone",
        ..enrol(&qr, &groups)
    }));
    assert!(lines(&html, r#"id="code" name="code""#).concat().contains(r#"aria-describedby="code-problem""#));
    let name = lines(&html, r#"id="device_name""#).concat();
    assert!(name.contains(r#"value="Work phone""#) && !name.contains("aria-invalid"));
}

#[test]
fn not_now_is_offered_only_with_an_invitation() {
    let (qr, groups) = (QrSvg::draw(URI, "QR code").unwrap(), key_groups());
    let page = |days_left: Option<u32>| {
        let invite =
            days_left.map(|days_left| Invite { date: "2 March 2026".into(), days_left, skips_left: None });
        templates("Portal", None).render(&View::Enrol(EnrolPage { invite, ..enrol(&qr, &groups) }))
    };
    assert!(!page(None).contains(r#"name="skip""#) && !page(None).contains("Not now"));
    for (days, words) in [(12, "You have 12 days left."), (1, "You have 1 day left."), (0, "That is today.")]
    {
        assert!(page(Some(days)).contains(r#"<input type="hidden" name="skip" value="1">"#));
        assert!(page(Some(days)).contains(words), "{days}");
    }
}

#[test]
fn no_template_needs_an_exception_from_a_strict_policy() {
    for (name, source) in SOURCES {
        // This style sheet is allowed by its digest.
        let source = source.to_ascii_lowercase().replace("<style>{{ style }}</style>", "");
        for banned in ["style=", "<style", "http://", "https://", "javascript:", "data:"] {
            assert!(!source.contains(banned), "{name} contains {banned}");
        }
        for script in source.split("<script").skip(1) {
            assert!(
                script.starts_with(" src=\"") && script.contains("></script>"),
                "{name} has an inline script"
            );
        }
        for (at, _) in source.match_indices(" on") {
            let word: String = source[at + 1..].chars().take_while(char::is_ascii_alphabetic).collect();
            assert!(!source[at + 1 + word.len()..].starts_with('='), "{name} has an {word} attribute");
        }
    }
}

#[test]
fn every_page_has_one_heading_a_language_and_landmarks() {
    let filling = Filling::new("x");
    for view in filling.views() {
        let html = templates("Portal", None).render(&view);
        for (part, count) in
            [("<h1", 1), ("<main", 1), ("<header", 1), ("<footer", 1), (r#"<html lang="en">"#, 1)]
        {
            assert_eq!(html.matches(part).count(), count, "{}: {part}", view.template());
        }
        assert!(html.starts_with("<!doctype html>"), "{}", view.template());
    }
}

#[test]
fn every_post_carries_the_form_token() {
    let filling = Filling::new("x");
    // Another site's form is sent to the portal, with only its own fields.
    for view in filling.views().into_iter().filter(|view| !matches!(view, View::OnceMore(_))) {
        let html = templates("Portal", None).render(&view);
        for form in html.split("<form").skip(1) {
            let form = form.split("</form>").next().unwrap();
            // A saved form is sent to its address at the portal.
            let is_saved =
                matches!(view, View::SavedForm(_)) && form.contains(r#"method="post" action="&#x2f;""#);
            let is_ours = form.contains(r#"method="post" action="/.portcullis/"#);
            assert!(is_ours || is_saved, "{}", view.template());
            assert!(form.contains(r#"<input type="hidden" name="csrf" value="x">"#), "{}", view.template());
        }
    }
}
