//! The texts of our pages: kind, concrete, in simple English, and the same whether or not an account exists.
//!
//! Handlers choose among these and write no text of their own. A page's fixed text is in its template.

use super::{
    route::paths,
    views::{Action, Message},
};
use crate::{gate::Missing, saved_forms::NoRoom};

/// Why a form is not saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSaved {
    /// It is larger than this many bytes.
    TooLarge(usize),
    /// One user has too many saved forms, or all users together.
    TooMany(NoRoom),
}

pub const WRONG_CREDENTIALS: &str = "That e-mail and password do not match. Please check both and try again.";

pub const CERTIFICATE_REFUSED: &str =
    "You can't sign in with this certificate. Use your e-mail and password, or ask for help.";

pub const WRONG_CODE: &str = "That code did not work. Please enter the six digits your app shows now.";

/// Below the QR code, whose secret stays the same.
pub const WRONG_CODE_AT_ENROLMENT: &str = "That code did not work. Please enter the six digits your app shows now. There is no need to scan again: the QR code is still the same.";

/// The same whether or not the account exists or has a device.
pub const WRONG_FIRST_CODE: &str =
    "That e-mail and code do not match. Please enter the six digits your app shows now.";

/// On the login page, after a code before the password.
pub const CODE_FIRST_ACCEPTED: &str = "Your code was right. Now enter your password. You'll need one more code after it: wait for your app to show the next one.";

/// In place of an address, if there are too many.
pub const OTHER_NETWORKS: &str = "other networks";

/// Next to the QR code of an earlier, unfinished login.
pub const SAME_QR_CODE: &str =
    "This is the same QR code as before. If you've already scanned it, just enter the code your app shows.";

/// Next to a QR code that differs from that of an earlier login.
pub const OTHER_QR_CODE: &str = "This is a new QR code. If you scanned an earlier one, delete that entry from your app and scan this one.";

pub const CODE_ALREADY_USED: &str =
    "That code has been used already. Please wait for your app to show the next one.";

pub const WRONG_RECOVERY_CODE: &str = "That recovery code did not work. Please check it, or use another one from your list: each of them works once.";

/// On the login page, after too much time between password and code.
pub const LOGIN_TIMED_OUT: &str =
    "Signing in took too long, so we stopped it to keep your account safe. Please sign in again.";

/// On the login page, after the session has ended.
pub const SESSION_ENDED: &str = "Your session has ended. Sign in to continue.";

/// On the login page, after a form arrived without a session and was saved.
pub const FORM_IS_SAFE: &str =
    "Your session ended, but what you sent is safe. Sign in, and you can submit it.";

/// On the login page, for a user who signed in a while ago and wants to add a device or see recovery codes.
pub const SIGN_IN_AGAIN: &str = "You signed in a while ago. To go on, please sign in once more.";

/// The same with a form that was saved meanwhile.
pub const FORM_IS_SAFE_AGAIN: &str =
    "You signed in a while ago. What you sent is safe: sign in once more, and you can submit it.";

/// The form's token is missing, old or from another browser.
pub const FORM_OUT_OF_DATE: &str =
    "This form was out of date, so nothing has been sent. Please fill it in again.";

pub const DEVICE_NAME_MISSING: &str = "Please give this device a name, for example “Work phone”.";

/// The limit is [`DEVICE_NAME_LIMIT`](super::views::DEVICE_NAME_LIMIT).
pub const DEVICE_NAME_TOO_LONG: &str = "That name is too long. Please use at most 64 characters.";

pub const DEVICE_NAME_TAKEN: &str =
    "You already have a device with that name. Please choose another, for example “Work phone 2”.";

pub const TOKEN_NAME_WRONG: &str =
    "Please use up to 64 letters, digits, spaces, dots, hyphens and underscores.";

pub const TOKEN_NAME_TAKEN: &str =
    "You already have a token with that name. Please choose another one, or revoke the old token first.";

pub const TOKEN_PATH_WRONG: &str =
    "Please enter one path per line, such as /api/sims, or /api/* for everything below it.";

pub const TOO_MANY_TOKEN_PATHS: &str = "Please use at most 20 paths.";

pub const TOKEN_LIFETIME_MISSING: &str = "Please choose when the token expires.";

pub const TOO_MANY_TOKENS: &str =
    "You've reached the limit of 20 tokens. Revoke one you no longer use, or contact support.";

pub const STORE_UNAVAILABLE: &str = "We can't check sign-ins right now. If you were already signed in, you'll stay signed in and nothing has been lost. Please try again in a minute.";

/// On the login page, if the cookie that it set does not come back.
pub const COOKIES_BLOCKED: &str =
    "Your browser is blocking cookies, so you can't sign in. Allow cookies for this site, then try again.";

/// Why there is no page, where the status does not say it all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Overloaded: only requests with a session are served.
    Overload,
    /// Too many passwords to check.
    ManySignIns,
    /// A store that logins need does not answer.
    NoSignIns,
    /// The portal has no free connection.
    PortalBusy,
    /// One user has too many requests at the portal.
    ManyRequests,
    /// One user has too many WebSockets and event streams open.
    ManyStreams,
    /// One user requests our pages too often.
    ManyPages,
    /// An access rule denies the page.
    NoAccess,
}

pub const TOO_MANY_DEVICES: &str =
    "You already have 10 devices, which is the limit. Ask support to remove one you no longer use.";

pub const TOO_MANY_DEVICES_LATELY: &str =
    "You've added several devices in the last hour. Please wait an hour, then try again.";

/// Too many wrong codes in a row by somebody with the password.
pub const DEVICES_OFF: &str = "Too many incorrect codes were entered, so authenticator sign-in is blocked for this account. Contact support to unblock it.";

/// Too many wrong recovery codes in a row.
pub const RECOVERY_CODES_OFF: &str = "Too many incorrect recovery codes were entered, so recovery codes are blocked for this account. Use your authenticator app, or contact support.";

/// Skipping enrolment is no longer possible after the mandatory date.
pub const MANDATORY_NOW: &str =
    "You can't skip this step any more: an authenticator app is now required. Please set yours up.";

/// Too many tries. The same whether or not the account exists.
pub fn throttled(minutes: u32) -> String {
    match minutes {
        0 | 1 => "There have been too many tries. Please wait a minute, then try again.".to_owned(),
        _ => format!("There have been too many tries. Please wait {minutes} minutes, then try again."),
    }
}

/// After a request for a link. The same whether or not there is an account.
pub const LINK_SENT: [&str; 2] = [
    "If there is an account with this e-mail, we've sent it a link. It works once, for 15 minutes.",
    "Nothing there? Look in your spam folder and check the spelling, or try again in a few minutes.",
];
pub const LINK_GONE: [&str; 1] =
    ["It has expired, was already used, or your password or e-mail has changed since."];
pub const ACCOUNT_BLOCKED: [&str; 2] = [
    "Everybody has been signed out, and nobody can sign in to it any more.",
    "Contact support to get it back.",
];
pub const PASSWORD_SET: &str = "Your password is set. Sign in with it now.";

/// The number of wrong passwords and codes, at least one.
pub fn wrong_tries(passwords: u32, codes: u32) -> String {
    let count = |number: u32, what: &str| match number {
        0 => None,
        1 => Some(format!("1 wrong {what}")),
        _ => Some(format!("{number} wrong {what}s")),
    };
    let said: Vec<_> = [count(passwords, "password"), count(codes, "code")].into_iter().flatten().collect();
    said.join(" and ")
}

/// A duration in whole days, or else in hours.
pub fn days_or_hours(duration: std::time::Duration) -> String {
    let (amount, unit) = match duration.as_secs().div_ceil(3600) {
        hours if hours % 24 == 0 => (hours / 24, "day"),
        hours => (hours, "hour"),
    };
    format!("{amount} {unit}{}", if amount == 1 { "" } else { "s" })
}

/// How long ago a form was sent.
pub fn sent_ago(minutes: u64) -> String {
    match minutes {
        0 => "a moment ago".to_owned(),
        1 => "a minute ago".to_owned(),
        _ => format!("{minutes} minutes ago"),
    }
}

fn size_in_words(bytes: usize) -> String {
    match bytes {
        ..1024 => format!("{bytes}\u{a0}bytes"),
        1024..1_048_576 => format!("{}\u{a0}KB", bytes / 1024),
        _ => format!("{}\u{a0}MB", bytes / 1_048_576),
    }
}

impl<'a> Message<'a> {
    /// A sign-out form that was not made for this session.
    pub(super) fn still_signed_in(request_id: &'a str) -> Self {
        Self {
            title: "You are still signed in",
            text:
                "That form was out of date, so nothing has been sent. You can sign out on your account page."
                    .into(),
            status: 403,
            request_id: Some(request_id),
            retry: false,
            action: Some(Action { label: "Go to your account", path: paths::ACCOUNT, target: None }),
        }
    }

    /// A hand-over that failed: it took too long, or its code was used already.
    pub(super) fn not_handed_over(request_id: &'a str) -> Self {
        Self {
            title: "Sign in to {portal}",
            text: "The way here took too long, was used before, or began in another browser. You haven't been signed in here.".into(),
            status: 401,
            request_id: Some(request_id),
            retry: false,
            action: Some(Action { label: "Sign in", path: paths::LOGIN, target: None }),
        }
    }

    /// A form of a login that was replaced by another in the same browser, as the user with this e-mail.
    pub(super) fn other_login(email: &str, path: &'a str, request_id: &'a str) -> Self {
        Self {
            title: "This page is out of date",
            text: format!(
                "After you opened it, {email} signed in or began to sign in with this browser. Nothing has been sent. To use another account, sign out first or start over on the login page."
            )
            .into(),
            status: 403,
            request_id: Some(request_id),
            retry: false,
            action: Some(Action { label: "Continue with that account", path, target: None }),
        }
    }

    /// An action that requires a second factor.
    pub(super) fn takes_a_second_factor(request_id: &'a str) -> Self {
        Self {
            title: "Set up your authenticator app first",
            text: "You signed in with your password alone. Changes here take a code as well, so set up your authenticator app first."
                .into(),
            status: 403,
            request_id: Some(request_id),
            retry: false,
            action: Some(Action { label: "Set it up", path: paths::ENROL, target: None }),
        }
    }

    /// A login beyond the maximum number of its user's sessions.
    pub(super) fn full(others: usize, request_id: &'a str) -> Self {
        let places = match others {
            1 => "one other device".to_owned(),
            _ => format!("{others} other devices"),
        };
        Self {
            title: "You're signed in elsewhere",
            text: format!(
                "Your details are correct, but you're already signed in on {places}, and that is the limit. Sign out there, then sign in here again. If you can't get to it, ask support to end your other sessions."
            )
            .into(),
            status: 403,
            request_id: Some(request_id),
            retry: false,
            action: Some(Action { label: "Sign in again", path: paths::LOGIN, target: None }),
        }
    }

    /// In a frame of the portal, in place of the portal's page.
    pub(super) fn in_frame(way_in: &'a str, missing: Missing, was_sent: bool, request_id: &'a str) -> Self {
        let (title, what, label) = match missing {
            Missing::Session => ("Your session has ended", "Sign in to continue.", "Sign in"),
            Missing::Device => (
                "One more step",
                "You need to set up an authenticator app before you can continue.",
                "Set it up",
            ),
            Missing::FreshCode => {
                ("One more step", "This page needs a fresh code from your authenticator app.", "Continue")
            }
        };
        let lost = " What you just sent was not delivered: you will have to send it again.";
        Self {
            title,
            text: format!("{what}{}", if was_sent { lost } else { "" }).into(),
            status: 401,
            request_id: Some(request_id),
            retry: false,
            action: Some(Action { label, path: way_in, target: Some("_top") }),
        }
    }

    /// A form that arrived without a session and is not saved.
    pub(super) fn not_saved(why: NotSaved, request_id: &'a str) -> Self {
        let (status, reason) = match why {
            NotSaved::TooLarge(max) => {
                (413, format!("it is larger than the {} that we can keep", size_in_words(max)))
            }
            NotSaved::TooMany(NoRoom::User) => (
                429,
                "as many of your forms as we can keep are waiting for you already. Sign in, and send or discard one of them"
                    .to_owned(),
            ),
            NotSaved::TooMany(NoRoom::Everybody) => {
                (503, "too many forms are waiting to be sent already".to_owned())
            }
        };
        Self {
            title: "Your form has not been sent",
            text: format!(
                "Your session had ended when you sent it, and {reason}. What you typed is still in your browser. Sign in in a new window first. Then come back to this one, go back one page and send the form again."
            )
            .into(),
            status,
            request_id: Some(request_id),
            retry: false,
            action: Some(Action { label: "Sign in in a new window", path: paths::LOGIN, target: Some("_blank") }),
        }
    }

    /// A saved form requested by an outdated page.
    pub(super) fn not_sent(page: &'a str, request_id: &'a str) -> Self {
        Self {
            title: "Your form is still here",
            text: "That page was out of date, so nothing has been sent. Please look at your form once more."
                .into(),
            status: 403,
            request_id: Some(request_id),
            retry: false,
            action: Some(Action { label: "Go to your form", path: page, target: None }),
        }
    }

    /// A saved form that the portal did not take.
    pub(super) fn form_waits(page: &'a str, status: u16, request_id: &'a str) -> Self {
        Self {
            title: "Your form is still here",
            text: "The portal is not answering, so nothing has been sent. Please try again in a minute."
                .into(),
            status,
            request_id: Some(request_id),
            retry: false,
            action: Some(Action { label: "Go to your form", path: page, target: None }),
        }
    }

    /// A saved form that was sent or discarded, or is too old.
    pub(super) fn form_is_gone(request_id: &'a str) -> Self {
        Self {
            title: "This form is no longer kept",
            text: "This form was already sent, was discarded, or expired after 30 minutes. Nothing was sent this time.".into(),
            status: 410,
            request_id: Some(request_id),
            retry: false,
            action: Some(Action { label: "Go to the start page", path: "/", target: None }),
        }
    }

    /// The page for a trouble.
    pub(super) fn for_trouble(trouble: Trouble, status: u16, request_id: &'a str) -> Self {
        let (title, text) = match trouble {
            Trouble::Overload => (
                "We're very busy right now",
                "More people want in than we can serve. Please try again in a minute.",
            ),
            Trouble::ManySignIns => (
                "Many people are signing in",
                "We couldn't check your password yet. Please try again in a few seconds.",
            ),
            Trouble::NoSignIns => (
                "You can't sign in right now",
                "Something we need for signing in isn't working. Please try again in a minute. Anyone already signed in stays signed in.",
            ),
            Trouble::ManyRequests => (
                "Too much at once",
                "You have many requests to {portal} in progress, such as uploads or downloads. Wait until some of them have finished, then try again.",
            ),
            Trouble::ManyStreams => (
                "Too many live pages",
                "You have too many pages of {portal} open that update themselves. Close some of them, also on your other devices, then try again.",
            ),
            Trouble::ManyPages => (
                "Please slow down",
                "Your sign-in and account pages were opened very often in a short time. Wait a few seconds, then try again.",
            ),
            Trouble::NoAccess => (
                "You don't have access",
                "This page isn't open to you here. If you need it, please ask support.",
            ),
            Trouble::PortalBusy => (
                "{portal} is very busy",
                "Your sign-in is fine, but {portal} can't take more requests right now. Please try again in a minute.",
            ),
        };
        Self { title, text: text.into(), ..Self::for_status(status, Some(request_id)) }
    }

    /// The page for a status without a page of its own. An unlisted status gets the text of its class.
    ///
    /// For a `429` with a known end, replace `text` by [`throttled`].
    pub fn for_status(status: u16, request_id: Option<&'a str>) -> Self {
        let (title, text, retry) = match status {
            // The session ended while the portal was still working: a request without a session leads to the login
            // instead.
            401 => (
                "Your session has ended",
                "Your session ended before {portal} responded. Sign in again to continue. If you were saving something, check whether it was saved.",
                true,
            ),
            403 => (
                "You don't have access",
                "You are signed in, but your account may not open this page. If you need it, please ask support.",
                false,
            ),
            404 => (
                "Page not found",
                "There is no page at this address. The link may be old, or a letter may be missing.",
                false,
            ),
            405 => ("That doesn't work here", "This page can't be used in that way.", false),
            421 => (
                "This address doesn't work here",
                "This isn't the right address for {portal}. Please use the link or bookmark you were given.",
                false,
            ),
            429 => (
                "Please wait a moment",
                "There have been too many tries. Please wait a few minutes, then try again.",
                true,
            ),
            431 => (
                "Too many cookies",
                "Your browser sent more cookies than we can accept. Delete the cookies for this site in your browser's settings, then try again. You'll have to sign in again.",
                true,
            ),
            502 => (
                "The portal is not answering",
                "Your sign-in is fine, but {portal} can't be reached. Please try again in a minute.",
                true,
            ),
            503 => ("Please try again in a minute", STORE_UNAVAILABLE, true),
            504 => (
                "The portal is too slow",
                "Your sign-in is fine, but {portal} took too long to answer. If you were saving something, check whether it was saved before you try again.",
                true,
            ),
            508 => (
                "This site isn't set up correctly",
                "It sends requests for {portal} back to itself, so this page can't be shown. Trying again won't help. Please tell support the reference below.",
                false,
            ),
            500..=599 => (
                "Something went wrong",
                "The fault is on our side, not yours. Please try again. If it happens again, tell support the reference below.",
                true,
            ),
            _ => (
                "We couldn't read that request",
                "Your browser sent something we don't understand. Please go back and try again.",
                false,
            ),
        };
        let home = Action { label: "Go to the start page", path: "/", target: None };
        Self {
            title,
            text: text.into(),
            status,
            request_id,
            retry,
            // No page of the portal would open either.
            action: (!retry && !matches!(status, 421 | 508)).then_some(home),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::views::DEVICE_NAME_LIMIT;

    #[test]
    fn waiting_times_read_like_english() {
        assert!(throttled(0).contains("wait a minute,"));
        assert!(throttled(1).contains("wait a minute,"));
        assert!(throttled(15).contains("wait 15 minutes,"));
    }

    #[test]
    fn days_are_told_in_days() {
        let words = |hours| days_or_hours(std::time::Duration::from_hours(hours));
        assert_eq!([1, 12, 24, 36, 720].map(words), ["1 hour", "12 hours", "1 day", "36 hours", "30 days"]);
    }

    #[test]
    fn the_name_limit_is_the_one_in_the_text() {
        assert!(DEVICE_NAME_TOO_LONG.contains(&format!("at most {DEVICE_NAME_LIMIT} characters")));
    }

    #[test]
    fn every_status_has_words_and_a_way_on() {
        for status in [400, 401, 403, 404, 405, 418, 429, 431, 500, 502, 503, 504, 599] {
            let message = Message::for_status(status, None);
            assert_eq!(message.status, status);
            assert!(!message.title.is_empty() && !message.text.is_empty());
            assert_ne!(message.retry, message.action.is_some(), "{status}");
        }
    }

    #[test]
    fn a_slow_portal_warns_before_something_is_sent_twice() {
        assert!(Message::for_status(504, None).text.contains("check whether it was saved"));
    }
}
