//! The visitor: the identity headers that a proxy in front may set, and the preferences in the portal's own cookie.
//!
//! The portal has no login: it trusts these headers, as many portals do. The proxy in front must remove forged ones.

use http::{HeaderMap, HeaderValue, header};
use serde::{Deserialize, Serialize};
use url::form_urlencoded;

/// The portal's own cookie. It contains the preferences, so the portal stores nothing per visitor.
const COOKIE: &str = "northline_session";

/// Maximum length of a remembered search in characters.
const LONGEST_SEARCH: usize = 60;

/// The user according to the proxy in front; all fields are `None` without one.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct DemoIdentity {
    pub(super) user: Option<String>,
    pub(super) email: Option<String>,
    pub(super) name: Option<String>,
    pub(super) groups: Vec<String>,
}

impl DemoIdentity {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let groups = text(headers, "remote-groups").unwrap_or_default();
        Self {
            user: text(headers, "remote-user"),
            email: text(headers, "remote-email"),
            name: text(headers, "remote-name"),
            groups: groups
                .split(',')
                .map(str::trim)
                .filter(|group| !group.is_empty())
                .map(str::to_owned)
                .collect(),
        }
    }
}

/// A header's value. Names are UTF-8 in practice, although HTTP only promises visible ASCII.
fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Theme {
    /// As on the visitor's system.
    #[default]
    Auto,
    Light,
    Dark,
}

impl Theme {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    /// An unknown word means the default: the cookie comes from outside.
    pub(super) fn from_word(word: &str) -> Self {
        match word {
            "light" => Self::Light,
            "dark" => Self::Dark,
            _ => Self::Auto,
        }
    }
}

/// The content of the portal's cookie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Preferences {
    pub(super) theme: Theme,
    pub(super) last_search: String,
}

impl Preferences {
    /// `None` without our cookie.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        let value = cookies
            .flat_map(|value| value.split(';'))
            .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))?;
        let mut preferences = Self::default();
        for (key, value) in form_urlencoded::parse(value.as_bytes()) {
            match key.as_ref() {
                "theme" => preferences.theme = Theme::from_word(&value),
                "search" => preferences.remember_search(&value),
                _ => {}
            }
        }
        Some(preferences)
    }

    pub(super) fn remember_search(&mut self, query: &str) {
        self.last_search = query.chars().take(LONGEST_SEARCH).collect();
    }

    /// The `Set-Cookie` value. Form encoding produces only characters that a cookie may contain.
    pub(super) fn to_cookie(&self) -> Option<HeaderValue> {
        let value = form_urlencoded::Serializer::new(String::new())
            .append_pair("theme", self.theme.word())
            .append_pair("search", &self.last_search)
            .finish();
        HeaderValue::from_str(&format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Lax")).ok()
    }
}

/// One visitor, as one request describes them.
#[derive(Debug)]
pub(super) struct DemoVisitor {
    pub(super) identity: DemoIdentity,
    pub(super) preferences: Preferences,
    /// The received preferences; if they have changed since, the response sets the cookie again.
    received: Option<Preferences>,
}

impl DemoVisitor {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let received = Preferences::of(headers);
        Self {
            identity: DemoIdentity::of(headers),
            preferences: received.clone().unwrap_or_default(),
            received,
        }
    }

    /// The cookie to set with the response, if it has changed.
    pub(super) fn changed_cookie(&self) -> Option<HeaderValue> {
        if self.received.as_ref() == Some(&self.preferences) { None } else { self.preferences.to_cookie() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_survive_the_cookie_whatever_was_searched() {
        let mut preferences = Preferences { theme: Theme::Dark, ..Preferences::default() };
        preferences.remember_search("Malmö; a=b & \"c\", 100 %");
        let set_cookie = preferences.to_cookie().unwrap();
        let pair = set_cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_str(&format!("other=1; {pair}; last=2")).unwrap());
        assert_eq!(Preferences::of(&headers), Some(preferences));
    }

    #[test]
    fn a_cookie_whose_name_only_begins_like_ours_is_not_ours() {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_static("northline_session2=theme=dark"));
        assert_eq!(Preferences::of(&headers), None);
    }

    #[test]
    fn identity_is_read_from_the_headers_and_absent_without_them() {
        let mut headers = HeaderMap::new();
        assert_eq!(DemoIdentity::of(&headers), DemoIdentity::default());
        headers.insert("remote-user", HeaderValue::from_static("ada"));
        headers.insert("remote-name", HeaderValue::from_bytes("Ada Łovelace".as_bytes()).unwrap());
        headers.insert("remote-groups", HeaderValue::from_static("ops, billing"));
        let identity = DemoIdentity::of(&headers);
        assert_eq!(identity.user.as_deref(), Some("ada"));
        assert_eq!(identity.name.as_deref(), Some("Ada Łovelace"));
        assert_eq!(identity.groups, ["ops", "billing"]);
    }
}
