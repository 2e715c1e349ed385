//! The content of each page, as one typed struct per page.
//!
//! Handlers fill these with facts; [`Templates`](super::templates::Templates) renders them to HTML. Text is plain here
//! and escaped there. Views carry seeds, codes and form tokens, hence no `Debug`.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

use super::qr::QrSvg;

/// Maximum length of a device name in characters on the enrolment page.
pub const DEVICE_NAME_LIMIT: usize = 64;

/// A page and its content.
#[derive(Serialize)]
#[serde(untagged)]
pub enum View<'a> {
    Login(LoginPage<'a>),
    Code(CodePage<'a>),
    Recovery(RecoveryPage<'a>),
    Enrol(EnrolPage<'a>),
    RecoveryCodes(RecoveryCodesPage<'a>),
    NewRecoveryCodes(NewRecoveryCodesPage<'a>),
    Recovered(RecoveredPage<'a>),
    Account(AccountPage<'a>),
    NewToken(NewTokenPage<'a>),
    TokenMade(TokenMadePage<'a>),
    SavedForm(SavedFormPage<'a>),
    OnceMore(OnceMorePage<'a>),
    Leaving(LeavingPage<'a>),
    FirstCode(FirstCodePage<'a>),
    Forgot(ForgotPage<'a>),
    SetPassword(SetPasswordPage<'a>),
    NotMe(NotMePage<'a>),
    Told(ToldPage<'a>),
    WrongTries(WrongTriesPage<'a>),
    /// The end of a login beside another page.
    SignedIn,
    SignedOut,
    Message(Message<'a>),
}

/// E-mail and password.
#[derive(Serialize)]
pub struct LoginPage<'a> {
    /// The value typed before, or empty.
    pub email: &'a str,
    pub error: Option<&'a str>,
    /// Why the user is here, if it is not an error in what was typed.
    pub notice: Option<&'a str>,
    pub csrf: &'a str,
    /// Whether a signed-in user has to prove it again.
    pub again: bool,
    /// Whether to offer a code before the password.
    pub code_first: bool,
    /// Whether to offer a link for a forgotten password.
    pub forgot: bool,
    /// Whose certificate the browser has shown, which will do in place of a password.
    pub certificate: Option<&'a str>,
    /// `None` if users cannot ask to be kept signed in.
    pub remember: Option<Remember>,
    /// The requested page, as in every view that has this field.
    pub rd: Option<&'a str>,
}

/// The offer to be kept signed in.
#[derive(Serialize)]
pub struct Remember {
    /// The lifetime in words.
    pub lasts: String,
    pub chosen: bool,
}

/// The code of an authenticator app.
#[derive(Serialize)]
pub struct CodePage<'a> {
    pub email: &'a str,
    pub error: Option<&'a str>,
    pub csrf: &'a str,
    pub rd: Option<&'a str>,
}

/// A recovery code instead of a device.
#[derive(Serialize)]
pub struct RecoveryPage<'a> {
    pub email: &'a str,
    pub error: Option<&'a str>,
    pub csrf: &'a str,
    pub rd: Option<&'a str>,
}

/// Binding an authenticator app: scan, code, name, save.
#[derive(Serialize)]
pub struct EnrolPage<'a> {
    pub account: &'a str,
    pub issuer: &'a str,
    pub qr_svg: &'a QrSvg,
    /// The base32 key, in groups for reading.
    pub key_groups: &'a [String],
    /// For an app on the same device. Only shown if it is an `otpauth:` URI.
    #[serde(serialize_with = "only_otpauth")]
    pub otpauth_uri: &'a str,
    /// A notice about a QR code that was shown before.
    pub notice: Option<&'a str>,
    pub errors: EnrolErrors<'a>,
    pub csrf: &'a str,
    pub rd: Option<&'a str>,
    /// The value typed before, a suggestion, or empty.
    pub device_name: &'a str,
    /// Present while enrolment can be skipped.
    pub invite: Option<Invite>,
    /// During a login, which may turn out to be somebody else's.
    pub signing_in: bool,
}

/// The errors, by their place on the page.
#[derive(Default, Serialize)]
pub struct EnrolErrors<'a> {
    pub code: Option<Cow<'a, str>>,
    pub device_name: Option<Cow<'a, str>>,
    /// An error of no field, such as an outdated form.
    pub form: Option<Cow<'a, str>>,
}

/// The time left until a second factor is mandatory.
#[derive(Serialize)]
pub struct Invite {
    /// The first mandatory day in words; with the time if it does not begin at midnight.
    pub date: String,
    /// Zero on that day.
    pub days_left: u32,
    /// `None`: any number of times until then.
    pub skips_left: Option<u32>,
}

/// The codes, shown only this once.
#[derive(Serialize)]
pub struct RecoveryCodesPage<'a> {
    pub codes: &'a [String],
    pub error: Option<&'a str>,
    pub csrf: &'a str,
    pub rd: Option<&'a str>,
}

/// Asks whether to replace the recovery codes.
#[derive(Serialize)]
pub struct NewRecoveryCodesPage<'a> {
    pub left: u32,
    pub csrf: &'a str,
}

/// The page after a login with a recovery code.
#[derive(Serialize)]
pub struct RecoveredPage<'a> {
    pub left: u32,
    /// The requested page.
    #[serde(serialize_with = "own_path_or_start")]
    pub path: &'a str,
}

/// A user's devices, recovery codes, sessions and tokens. Times are in words.
#[derive(Serialize)]
pub struct AccountPage<'a> {
    pub email: &'a str,
    pub signed_in_since: &'a str,
    pub devices: &'a [DeviceRow],
    pub recovery_left: u32,
    pub sessions: &'a [SessionRow],
    /// Whether there are other sessions than this one.
    pub others: bool,
    /// Whether this session has proved both factors: otherwise it cannot end others.
    pub full: bool,
    /// The tokens that act as the user.
    pub tokens: &'a [TokenRow],
    /// Whether users may make tokens.
    pub makes_tokens: bool,
    pub csrf: &'a str,
}

/// A token of a user. Times are in words.
#[derive(Serialize)]
pub struct TokenRow {
    /// The id in the form that revokes it.
    pub id: String,
    pub name: String,
    pub made: String,
    pub last_used: Option<String>,
    /// `None` if it never expires.
    pub expires: Option<String>,
    pub is_over: bool,
    /// Whether the user has made it.
    pub is_own: bool,
    /// The paths that it is limited to, or empty.
    pub limits: String,
}

/// The form for a new token.
#[derive(Serialize)]
pub struct NewTokenPage<'a> {
    /// The value typed before, or empty.
    pub name: &'a str,
    pub paths: &'a str,
    pub lifetimes: &'a [LifetimeChoice],
    pub errors: NewTokenErrors,
    pub csrf: &'a str,
}

/// The errors, by their place on the page.
#[derive(Default, Serialize)]
pub struct NewTokenErrors {
    pub name: Option<&'static str>,
    pub paths: Option<&'static str>,
    pub lifetime: Option<&'static str>,
    pub form: Option<&'static str>,
}

#[derive(Serialize)]
pub struct LifetimeChoice {
    pub seconds: u64,
    pub label: String,
    pub chosen: bool,
}

/// A new token, shown only this once.
#[derive(Serialize)]
pub struct TokenMadePage<'a> {
    pub token: &'a str,
    pub row: &'a TokenRow,
}

#[derive(Serialize)]
pub struct DeviceRow {
    pub name: String,
    pub added: String,
    /// `None` before its first login.
    pub last_used: Option<String>,
}

#[derive(Serialize)]
pub struct SessionRow {
    pub when: String,
    /// The last use.
    pub seen: String,
    /// The id in the form that ends it.
    pub id: String,
    /// A network address or a location; `where` is a keyword.
    #[serde(rename = "where")]
    pub where_: String,
    /// The browser, in words.
    pub agent: String,
    /// Whether it is the current session.
    pub current: bool,
    /// Until when the user is kept signed in, if requested.
    pub kept_until: Option<String>,
    /// The sites where it was used; empty if there is only one.
    pub sites: Vec<String>,
}

/// A form that arrived after its session had ended.
#[derive(Serialize)]
pub struct SavedFormPage<'a> {
    /// Its path, by which the user recognises it.
    pub path: &'a str,
    /// How long ago, in words.
    pub when: &'a str,
    /// Where the form that sends it goes.
    #[serde(serialize_with = "own_path_or_start")]
    pub action: &'a str,
    /// Where the form that discards it goes.
    #[serde(serialize_with = "own_path_or_start")]
    pub discard: &'a str,
    pub csrf: &'a str,
}

/// Another site's form, to be submitted from here.
#[derive(Serialize)]
pub struct OnceMorePage<'a> {
    /// The host of that site, if the browser says so.
    pub from: Option<&'a str>,
    pub path: &'a str,
    #[serde(serialize_with = "own_path_or_start")]
    pub action: &'a str,
    pub fields: &'a [(String, String)],
}

/// A link to another site that the portal redirects to.
#[derive(Serialize)]
pub struct LeavingPage<'a> {
    pub host: &'a str,
    /// An `http` or `https` URL.
    pub to: &'a str,
}

/// A code before the password.
#[derive(Serialize)]
pub struct FirstCodePage<'a> {
    /// The value typed before, or empty.
    pub email: &'a str,
    pub error: Option<&'a str>,
    pub csrf: &'a str,
    pub rd: Option<&'a str>,
}

/// Asks where to send a link.
#[derive(Serialize)]
pub struct ForgotPage<'a> {
    /// The value typed before, or empty.
    pub email: &'a str,
    pub error: Option<&'a str>,
    pub csrf: &'a str,
}

/// A new password, by a link.
#[derive(Serialize)]
pub struct SetPasswordPage<'a> {
    pub email: &'a str,
    /// Whether the user has been invited.
    pub first: bool,
    pub min_length: usize,
    pub error: Option<&'a str>,
    /// The link's.
    pub token: &'a str,
    pub csrf: &'a str,
}

/// Asks whether to block the account, by a link.
#[derive(Serialize)]
pub struct NotMePage<'a> {
    pub email: &'a str,
    pub error: Option<&'a str>,
    /// The link's.
    pub token: &'a str,
    pub csrf: &'a str,
}

/// What has happened, or what to do now.
#[derive(Serialize)]
pub struct ToldPage<'a> {
    pub title: &'a str,
    pub texts: &'a [&'a str],
    pub action: Option<Action<'a>>,
}

/// Wrong passwords and codes since the last login.
#[derive(Serialize)]
pub struct WrongTriesPage<'a> {
    pub email: &'a str,
    pub rows: &'a [WrongTriesRow],
    /// Whether there were wrong codes, which only somebody with the password can try.
    pub codes: bool,
    /// The time of the last one in Unix milliseconds, for the form that confirms the report.
    pub until: i64,
    pub error: Option<&'a str>,
    pub csrf: &'a str,
    pub rd: Option<&'a str>,
}

#[derive(Serialize)]
pub struct WrongTriesRow {
    /// The number, in words.
    pub what: String,
    /// A network address, or a range of them.
    pub from: String,
    pub last: String,
}

/// Any page without a view of its own; see [`Message::for_status`].
#[derive(Serialize)]
pub struct Message<'a> {
    pub title: &'a str,
    pub text: Cow<'a, str>,
    pub status: u16,
    /// The id that support can search the log for.
    pub request_id: Option<&'a str>,
    /// Whether to offer a reload.
    pub retry: bool,
    pub action: Option<Action<'a>>,
}

/// A link in a [`Message`].
#[derive(Serialize)]
pub struct Action<'a> {
    pub label: &'a str,
    /// A path on this site; anything else becomes the start page.
    #[serde(serialize_with = "own_path_or_start")]
    pub path: &'a str,
    /// The link's target: a new window, or the whole window around a frame.
    pub target: Option<&'static str>,
}

impl View<'_> {
    pub(super) fn template(&self) -> &'static str {
        match self {
            Self::Login(_) => "login.html",
            Self::Code(_) => "code.html",
            Self::Recovery(_) => "recovery.html",
            Self::Enrol(_) => "enrol.html",
            Self::RecoveryCodes(_) => "recovery_codes.html",
            Self::NewRecoveryCodes(_) => "new_recovery_codes.html",
            Self::Recovered(_) => "recovered.html",
            Self::Account(_) => "account.html",
            Self::NewToken(_) => "new_token.html",
            Self::TokenMade(_) => "token_made.html",
            Self::SavedForm(_) => "saved_form.html",
            Self::OnceMore(_) => "once_more.html",
            Self::Leaving(_) => "leaving.html",
            Self::FirstCode(_) => "first_code.html",
            Self::Forgot(_) => "forgot.html",
            Self::SetPassword(_) => "set_password.html",
            Self::NotMe(_) => "not_me.html",
            Self::Told(_) => "told.html",
            Self::WrongTries(_) => "wrong_tries.html",
            Self::SignedIn => "signed_in.html",
            Self::SignedOut => "signed_out.html",
            Self::Message(_) => "message.html",
        }
    }

    /// Whether the title of the page begins with "Error".
    pub(super) fn failed(&self) -> bool {
        match self {
            Self::Login(page) => page.error.is_some(),
            Self::Code(page) => page.error.is_some(),
            Self::Recovery(page) => page.error.is_some(),
            Self::Enrol(page) => {
                let EnrolErrors { code, device_name, form } = &page.errors;
                code.is_some() || device_name.is_some() || form.is_some()
            }
            Self::RecoveryCodes(page) => page.error.is_some(),
            Self::FirstCode(page) => page.error.is_some(),
            Self::Forgot(page) => page.error.is_some(),
            Self::SetPassword(page) => page.error.is_some(),
            Self::NotMe(page) => page.error.is_some(),
            Self::WrongTries(page) => page.error.is_some(),
            Self::NewToken(page) => {
                let NewTokenErrors { name, paths, lifetime, form } = page.errors;
                [name, paths, lifetime, form].iter().any(Option::is_some)
            }
            Self::NewRecoveryCodes(_)
            | Self::Recovered(_)
            | Self::Account(_)
            | Self::TokenMade(_)
            | Self::SavedForm(_)
            | Self::OnceMore(_)
            | Self::Leaving(_)
            | Self::Told(_)
            | Self::SignedIn
            | Self::SignedOut => false,
            Self::Message(page) => page.status >= 400,
        }
    }

    /// The requested page, which links and form actions carry on.
    pub(super) fn rd(&self) -> Option<&str> {
        match self {
            Self::Login(page) => page.rd,
            Self::Code(page) => page.rd,
            Self::Recovery(page) => page.rd,
            Self::Enrol(page) => page.rd,
            Self::RecoveryCodes(page) => page.rd,
            Self::FirstCode(page) => page.rd,
            Self::WrongTries(page) => page.rd,
            Self::NewRecoveryCodes(_)
            | Self::Recovered(_)
            | Self::Account(_)
            | Self::NewToken(_)
            | Self::TokenMade(_)
            | Self::SavedForm(_)
            | Self::OnceMore(_)
            | Self::Leaving(_)
            | Self::Forgot(_)
            | Self::SetPassword(_)
            | Self::NotMe(_)
            | Self::Told(_)
            | Self::SignedIn
            | Self::SignedOut
            | Self::Message(_) => None,
        }
    }
}

fn only_otpauth<S: Serializer>(uri: &&str, serializer: S) -> Result<S::Ok, S::Error> {
    Some(*uri).filter(|uri| uri.starts_with("otpauth://")).serialize(serializer)
}

fn own_path_or_start<S: Serializer>(path: &&str, serializer: S) -> Result<S::Ok, S::Error> {
    // Browsers read `//` and `/\` as the start of another host, after dropping tabs and line breaks.
    let own = path.starts_with('/')
        && !path.starts_with("//")
        && !path.contains('\\')
        && !path.chars().any(char::is_control);
    serializer.serialize_str(if own { path } else { "/" })
}
