//! What each page shows, as one typed struct a page.
//!
//! Handlers fill these with facts; [`Templates`](super::templates::Templates) turns them into HTML. Text is plain
//! text here and escaped there. Views carry seeds, codes and form tokens, hence no `Debug`.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

use super::qr::QrSvg;

/// The longest device name, in characters, that the enrolment page lets in.
pub const DEVICE_NAME_LIMIT: usize = 64;

/// A page and what it shows.
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
    WrongTries(WrongTriesPage<'a>),
    /// The end of a login beside another page.
    SignedIn,
    SignedOut,
    Message(Message<'a>),
}

/// E-mail and password.
#[derive(Serialize)]
pub struct LoginPage<'a> {
    /// What was typed before, or empty.
    pub email: &'a str,
    pub error: Option<&'a str>,
    /// Why the user is here, when that is no fault of what was typed.
    pub notice: Option<&'a str>,
    pub csrf: &'a str,
    /// Whether somebody who is signed in proves it once more.
    pub again: bool,
    /// Whether the way in by a code before the password is offered.
    pub code_first: bool,
    /// Absent where nobody can ask to be kept signed in.
    pub remember: Option<Remember>,
    /// The page first asked for, as in every view that has it.
    pub rd: Option<&'a str>,
}

/// The offer to be kept signed in.
#[derive(Serialize)]
pub struct Remember {
    /// For how long, in words.
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

/// Binding an authenticator app: scan, code, name, Save.
#[derive(Serialize)]
pub struct EnrolPage<'a> {
    pub account: &'a str,
    pub issuer: &'a str,
    pub qr_svg: &'a QrSvg,
    /// The base32 key, cut into groups for reading.
    pub key_groups: &'a [String],
    /// For an app on the same device. Shown only if it is an `otpauth:` URI.
    #[serde(serialize_with = "only_otpauth")]
    pub otpauth_uri: &'a str,
    /// What there is to know of a QR code that was shown before.
    pub notice: Option<&'a str>,
    pub errors: EnrolErrors<'a>,
    pub csrf: &'a str,
    pub rd: Option<&'a str>,
    /// What was typed before, or a suggestion, or empty.
    pub device_name: &'a str,
    /// Present while enrolment may still be put off.
    pub invite: Option<Invite>,
    /// On the way to a session, which somebody else may want to go instead.
    pub signing_in: bool,
}

/// What is wrong, by the place where the page says so.
#[derive(Default, Serialize)]
pub struct EnrolErrors<'a> {
    pub code: Option<Cow<'a, str>>,
    pub device_name: Option<Cow<'a, str>>,
    /// What belongs to no field, such as a form out of date.
    pub form: Option<Cow<'a, str>>,
}

/// Until when a second factor is a choice.
#[derive(Serialize)]
pub struct Invite {
    /// The first mandatory day, in words; with the time where it does not begin at midnight.
    pub date: String,
    /// Zero on that day.
    pub days_left: u32,
}

/// The codes, shown this once.
#[derive(Serialize)]
pub struct RecoveryCodesPage<'a> {
    pub codes: &'a [String],
    pub error: Option<&'a str>,
    pub csrf: &'a str,
    pub rd: Option<&'a str>,
}

/// The question whether recovery codes are to be replaced.
#[derive(Serialize)]
pub struct NewRecoveryCodesPage<'a> {
    pub left: u32,
    pub csrf: &'a str,
}

/// After a login with a recovery code.
#[derive(Serialize)]
pub struct RecoveredPage<'a> {
    pub left: u32,
    /// The page first asked for.
    #[serde(serialize_with = "own_path_or_start")]
    pub path: &'a str,
}

/// A user's own devices, recovery codes and sessions. Times are in words.
#[derive(Serialize)]
pub struct AccountPage<'a> {
    pub email: &'a str,
    pub signed_in_since: &'a str,
    pub devices: &'a [DeviceRow],
    pub recovery_left: u32,
    pub sessions: &'a [SessionRow],
    /// Whether there are others than the one that asks.
    pub others: bool,
    /// Whether the one that asks has proved both factors: one factor ends no other session.
    pub full: bool,
    /// Those that act as the user.
    pub tokens: &'a [TokenRow],
    /// Whether users may make some.
    pub makes_tokens: bool,
    pub csrf: &'a str,
}

/// A token of a user. Times are in words.
#[derive(Serialize)]
pub struct TokenRow {
    /// What names it when it is to be revoked.
    pub id: String,
    pub name: String,
    pub made: String,
    pub last_used: Option<String>,
    /// `None`: never.
    pub expires: Option<String>,
    pub is_over: bool,
    /// Whether its user has made it.
    pub is_own: bool,
    /// The paths that it is for, or empty.
    pub limits: String,
}

/// What a new token is to be.
#[derive(Serialize)]
pub struct NewTokenPage<'a> {
    /// What was typed before, or empty.
    pub name: &'a str,
    pub paths: &'a str,
    pub lifetimes: &'a [LifetimeChoice],
    pub errors: NewTokenErrors,
    pub csrf: &'a str,
}

/// What is wrong, by the place where the page says so.
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

/// A new token, shown this once.
#[derive(Serialize)]
pub struct TokenMadePage<'a> {
    pub token: &'a str,
    pub row: &'a TokenRow,
}

#[derive(Serialize)]
pub struct DeviceRow {
    pub name: String,
    pub added: String,
    /// `None` until its first login.
    pub last_used: Option<String>,
}

#[derive(Serialize)]
pub struct SessionRow {
    pub when: String,
    /// The last use.
    pub seen: String,
    /// What names it when it is to be ended.
    pub id: String,
    /// A network address or a place; `where` is a keyword.
    #[serde(rename = "where")]
    pub where_: String,
    /// The browser, in words.
    pub agent: String,
    /// Whether it is the session that asks.
    pub current: bool,
    /// Until when its user is kept signed in, when that was asked for.
    pub kept_until: Option<String>,
    /// The sites where it was used; empty where there is only one.
    pub sites: Vec<String>,
}

/// A form that came when there was no session any more.
#[derive(Serialize)]
pub struct SavedFormPage<'a> {
    /// Where it was sent to, for the user to recognise it by.
    pub path: &'a str,
    /// How long ago, in words.
    pub when: &'a str,
    /// Where its sending is asked for.
    #[serde(serialize_with = "own_path_or_start")]
    pub action: &'a str,
    /// Where it is dropped.
    #[serde(serialize_with = "own_path_or_start")]
    pub discard: &'a str,
    pub csrf: &'a str,
}

/// A form that another site has sent, to be sent from here.
#[derive(Serialize)]
pub struct OnceMorePage<'a> {
    /// The host of the site, if its browser tells.
    pub from: Option<&'a str>,
    pub path: &'a str,
    #[serde(serialize_with = "own_path_or_start")]
    pub action: &'a str,
    pub fields: &'a [(String, String)],
}

/// The way on to another site, where the portal leads.
#[derive(Serialize)]
pub struct LeavingPage<'a> {
    pub host: &'a str,
    /// An `http` or `https` URL.
    pub to: &'a str,
}

/// A code before the password.
#[derive(Serialize)]
pub struct FirstCodePage<'a> {
    /// What was typed before, or empty.
    pub email: &'a str,
    pub error: Option<&'a str>,
    pub csrf: &'a str,
    pub rd: Option<&'a str>,
}

/// Wrong passwords and codes since the last login.
#[derive(Serialize)]
pub struct WrongTriesPage<'a> {
    pub email: &'a str,
    pub rows: &'a [WrongTriesRow],
    /// Whether there were wrong codes, for which somebody had the password.
    pub codes: bool,
    /// The last of them, in Unix milliseconds: what the user has been told of.
    pub until: i64,
    pub error: Option<&'a str>,
    pub csrf: &'a str,
    pub rd: Option<&'a str>,
}

#[derive(Serialize)]
pub struct WrongTriesRow {
    /// How many, in words.
    pub what: String,
    /// A network address or a range of them.
    pub from: String,
    pub last: String,
}

/// Any answer without a page of its own; see [`Message::for_status`].
#[derive(Serialize)]
pub struct Message<'a> {
    pub title: &'a str,
    pub text: Cow<'a, str>,
    pub status: u16,
    /// What support can search the log for.
    pub request_id: Option<&'a str>,
    /// Offers to load the same address again.
    pub retry: bool,
    pub action: Option<Action<'a>>,
}

/// A way on from a [`Message`].
#[derive(Serialize)]
pub struct Action<'a> {
    pub label: &'a str,
    /// A path on this site; anything else becomes the start page.
    #[serde(serialize_with = "own_path_or_start")]
    pub path: &'a str,
    /// Another window, which leaves this page where it is; or the whole one, of which this page is a part.
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
            Self::SavedForm(_) => "kept.html",
            Self::OnceMore(_) => "once_more.html",
            Self::Leaving(_) => "leaving.html",
            Self::FirstCode(_) => "first_code.html",
            Self::WrongTries(_) => "wrong_tries.html",
            Self::SignedIn => "signed_in.html",
            Self::SignedOut => "signed_out.html",
            Self::Message(_) => "message.html",
        }
    }

    /// Whether the page's title begins with "Error".
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
            | Self::SignedIn
            | Self::SignedOut => false,
            Self::Message(page) => page.status >= 400,
        }
    }

    /// The page first asked for, which links and form actions carry on.
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
    // Browsers read `//` and `/\` as the start of another host, and drop tabs and line breaks first.
    let own = path.starts_with('/')
        && !path.starts_with("//")
        && !path.contains('\\')
        && !path.chars().any(char::is_control);
    serializer.serialize_str(if own { path } else { "/" })
}
