//! Our own URLs: the page of a path, and the methods and conditions of each page.

use http::Method;

use super::assets;
use crate::web::return_to::{LINK, SAVED_FORM};

/// A page or resource of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    Login,
    Code,
    Recovery,
    FirstCode,
    WrongTries,
    Enrol,
    RecoveryCodes,
    Account,
    NewToken,
    Logout,
    /// At the first site, on to another.
    HandOver,
    /// At another site, with the code of the first.
    Arrive,
    /// A saved form, by its name.
    SavedForm(&'a str),
    WhoAmI,
    /// How long the session lasts, for the notice in the portal's pages.
    Session,
    /// A use of it.
    Stay,
    /// A forgotten password.
    Forgot,
    /// What a link in a mail opens, by its token.
    Link(&'a str),
    /// The end of a login beside such a page.
    SignedIn,
    Jwks,
    Asset(&'a str),
}

/// One of the two second-factor pages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Factor {
    Code,
    Recovery,
}

impl<'a> Route<'a> {
    /// `None` for any other path, including one that merely resembles ours.
    pub fn parse(path: &'a str) -> Option<Self> {
        if let Some(file) = path.strip_prefix(assets::PREFIX) {
            return Some(Self::Asset(file));
        }
        if let Some(name) = path.strip_prefix(SAVED_FORM) {
            return Some(Self::SavedForm(name));
        }
        if let Some(token) = path.strip_prefix(LINK) {
            return Some(Self::Link(token));
        }
        if path == "/.well-known/portcullis/jwks.json" {
            return Some(Self::Jwks);
        }
        Some(match path.strip_prefix("/.portcullis/")? {
            "login" => Self::Login,
            "code" => Self::Code,
            "recovery" => Self::Recovery,
            "code-first" => Self::FirstCode,
            "wrong-tries" => Self::WrongTries,
            "enrol" => Self::Enrol,
            "recovery-codes" => Self::RecoveryCodes,
            "account" => Self::Account,
            "tokens" => Self::NewToken,
            "logout" => Self::Logout,
            "forgot" => Self::Forgot,
            "hand-over" => Self::HandOver,
            "arrive" => Self::Arrive,
            "whoami" => Self::WhoAmI,
            "session" => Self::Session,
            "stay" => Self::Stay,
            "signed-in" => Self::SignedIn,
            _ => return None,
        })
    }

    /// The allowed methods, as in the `Allow` field.
    pub(super) fn allowed(self) -> &'static str {
        match self {
            Self::Login
            | Self::Code
            | Self::Recovery
            | Self::FirstCode
            | Self::WrongTries
            | Self::Enrol
            | Self::RecoveryCodes
            | Self::Account
            | Self::NewToken
            | Self::Logout
            | Self::Forgot
            | Self::Link(_)
            | Self::SavedForm(_) => "GET, HEAD, POST",
            Self::Stay => "POST",
            Self::WhoAmI | Self::Session | Self::SignedIn | Self::Jwks | Self::Asset(_) => "GET, HEAD",
            // Each of them takes effect, once.
            Self::HandOver | Self::Arrive => "GET",
        }
    }

    pub(super) fn allows(self, method: &Method) -> bool {
        self.allowed().split(", ").any(|allowed| allowed == method.as_str())
    }

    /// Whether it is a page for people.
    pub(super) fn is_page(self) -> bool {
        !matches!(self, Self::WhoAmI | Self::Session | Self::Stay | Self::Jwks | Self::Asset(_))
    }

    /// Whether it is there only where pages of the portal get the notice.
    pub(super) fn is_for_notices(self) -> bool {
        matches!(self, Self::Session | Self::Stay | Self::SignedIn)
    }

    /// Whether a user's requests for it, or those of a login in progress, queue for each other and are counted. Signing
    /// out never queues, nor does a page that asks no store.
    pub(super) fn takes_turns(self) -> bool {
        self.is_page() && !matches!(self, Self::Logout | Self::SignedIn)
    }

    /// Whether a login in progress continues with it. The pages that begin a login are limited by what they check.
    pub(super) fn goes_on(self) -> bool {
        self.takes_turns()
            && !matches!(
                self,
                Self::Login | Self::FirstCode | Self::HandOver | Self::Arrive | Self::Forgot | Self::Link(_)
            )
    }

    /// Whether it belongs to signing in or to the account, which all sites leave to the first.
    pub(super) fn is_of_first_site(self) -> bool {
        matches!(
            self,
            Self::Login
                | Self::Code
                | Self::Recovery
                | Self::FirstCode
                | Self::WrongTries
                | Self::Enrol
                | Self::RecoveryCodes
                | Self::Account
                | Self::NewToken
                | Self::Forgot
                | Self::Link(_)
        )
    }

    /// Whether it shows something that suffices to sign in.
    pub(super) fn shows_secrets(self) -> bool {
        matches!(self, Self::Enrol | Self::RecoveryCodes | Self::NewToken)
    }

    /// Whether it depends on the session.
    pub fn wants_session(self) -> bool {
        !matches!(self, Self::Jwks | Self::Asset(_))
    }
}

/// The paths of the pages, for redirects.
pub(super) mod paths {
    pub(in crate::pages) const LOGIN: &str = "/.portcullis/login";
    pub(in crate::pages) const CODE: &str = "/.portcullis/code";
    pub(in crate::pages) const RECOVERY: &str = "/.portcullis/recovery";
    pub(in crate::pages) const WRONG_TRIES: &str = "/.portcullis/wrong-tries";
    pub(in crate::pages) const ENROL: &str = "/.portcullis/enrol";
    pub(in crate::pages) const RECOVERY_CODES: &str = "/.portcullis/recovery-codes";
    pub(in crate::pages) const LOGOUT: &str = "/.portcullis/logout";
    pub(in crate::pages) const SIGNED_IN: &str = "/.portcullis/signed-in";
    pub(in crate::pages) const ACCOUNT: &str = "/.portcullis/account";
    pub(in crate::pages) const NEW_TOKEN: &str = "/.portcullis/tokens";
    pub(in crate::pages) const FORGOT: &str = "/.portcullis/forgot";
    pub(in crate::pages) const ARRIVE: &str = "/.portcullis/arrive";
}
