//! The target after a login: a path of this site, and nothing else.

use std::borrow::Cow;

use http::{HeaderMap, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use super::{
    logout::LogoutPaths,
    path::{self, Territory},
};

/// Characters that are not encoded in a query value.
const QUERY_VALUE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
/// The longest path, in bytes.
const LONGEST: usize = 2048;
/// Our pages that a login may return to, in this exact spelling: viewing them changes nothing.
const OWN: [&str; 4] =
    ["/.portcullis/account", "/.portcullis/enrol", "/.portcullis/tokens", "/.portcullis/signed-in"];

/// Where somebody who has signed in goes on to the site that sent them.
pub const HAND_OVER: &str = "/.portcullis/hand-over";
/// The longest of these, which has another target in it.
const LONGEST_HAND_OVER: usize = 4 * LONGEST;

/// A path, perhaps with a query, on this site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnTo(String);

impl Default for ReturnTo {
    fn default() -> Self {
        Self("/".to_owned())
    }
}

impl ReturnTo {
    /// Takes what a browser sent. Whatever is neither a plain path of the portal nor one of our own pages that may be
    /// returned to becomes `/`.
    ///
    /// `//host` and `/\host` are other sites to a browser; so are control characters that it strips first.
    pub fn parse(text: &str) -> Self {
        let plain = text.len() <= LONGEST
            && text.starts_with('/')
            && !text.starts_with("//")
            && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'#');
        let path = text.split('?').next().unwrap_or_default();
        if OWN.contains(&text)
            || is_saved_form(text)
            || is_hand_over(text)
            || (plain && path::check(path) == Ok(Territory::Portal))
        {
            Self(text.to_owned())
        } else {
            Self::default()
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the page on which a form that was kept is sent.
    pub fn is_saved_form(&self) -> bool {
        is_saved_form(&self.0)
    }

    /// The path, unless it is just `/`, the default.
    pub fn unless_start(&self) -> Option<&str> {
        Some(self.as_str()).filter(|&path| path != "/")
    }

    /// `base`, and the path as its parameter `rd` unless it is just `/`.
    pub fn append_to(&self, base: &str) -> String {
        let join = if base.contains('?') { '&' } else { '?' };
        match self.unless_start() {
            Some(path) => format!("{base}{join}rd={}", utf8_percent_encode(path, QUERY_VALUE)),
            None => base.to_owned(),
        }
    }
}

/// Whether it is a hand-over to another site, in the one spelling that we give it.
fn is_hand_over(text: &str) -> bool {
    text.len() <= LONGEST_HAND_OVER
        && text.strip_prefix(HAND_OVER).and_then(|rest| rest.strip_prefix('?')).is_some_and(|query| {
            query.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"=&%-._~/:[]".contains(&byte))
        })
}

/// The targets allowed after a login.
#[derive(Clone, Debug)]
pub struct Returns {
    /// The authorities of this site.
    authorities: Vec<String>,
    logout_paths: LogoutPaths,
}

impl Returns {
    pub fn new(public_url: &Url, logout_paths: LogoutPaths) -> Self {
        let host = public_url.host_str().unwrap_or_default();
        let authorities = match public_url.port() {
            Some(port) => vec![format!("{host}:{port}")],
            None => vec![host.to_owned(), format!("{host}:443")],
        };
        Self { authorities, logout_paths }
    }

    /// Takes a path, or the whole address of a page here. Any other origin becomes `/`, and so does where the portal logs
    /// out: a login that leads there has been for nothing.
    pub fn to(&self, text: &str) -> ReturnTo {
        let target = self.of_own_address(text);
        let target = target.as_deref().unwrap_or(text);
        if self.logout_paths.lead_out(target) { ReturnTo::default() } else { ReturnTo::parse(target) }
    }

    /// The page of this site that a request comes from, if the browser says.
    pub fn to_referer(&self, headers: &HeaderMap) -> ReturnTo {
        let referer = headers.get(header::REFERER).and_then(|value| value.to_str().ok());
        referer
            .filter(|url| self.of_own_address(url).is_some())
            .map_or_else(ReturnTo::default, |url| self.to(url))
    }

    /// Path and query of an address at this very origin. Read narrowly: what a browser would have to mend is another origin.
    fn of_own_address<'a>(&self, text: &'a str) -> Option<Cow<'a, str>> {
        const SCHEME: &str = "https://";
        let (scheme, rest) = text.split_at_checked(SCHEME.len())?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let is_own = scheme.eq_ignore_ascii_case(SCHEME)
            && self.authorities.iter().any(|own| own.eq_ignore_ascii_case(authority));
        is_own.then(|| {
            if target.starts_with('/') { Cow::Borrowed(target) } else { Cow::Owned(format!("/{target}")) }
        })
    }
}

/// The page on which a saved form is sent: its name follows.
pub const SAVED_FORM: &str = "/.portcullis/kept/";

/// What a link in a mail opens: its token follows, which is a secret.
pub const LINK: &str = "/.portcullis/link/";

fn is_saved_form(text: &str) -> bool {
    text.strip_prefix(SAVED_FORM).is_some_and(|name| {
        name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::web::{logout::LogoutPath, path::PathPattern};

    #[test]
    fn only_paths_of_this_site_are_remembered() {
        for good in [
            "/",
            "/sims",
            "/sims?q=a&b=%2F%2Fevil",
            "/a//b",
            "/~me/x;y=1",
            OWN[0],
            OWN[1],
            "/.portcullis/kept/aZ-_0",
            "/.portcullis/hand-over?site=b.example:8443&for=00ff&rd=/a%3Fb%3Dc",
            "/.portcullis/hand-over?site=[::1]:8443&for=00ff",
        ] {
            assert_eq!(ReturnTo::parse(good).as_str(), good);
        }
        for bad in [
            "",
            "sims",
            "//evil.example",
            "/\\evil.example",
            "\\/evil.example",
            "https://evil.example/",
            "/\t/evil",
            "/\n/evil",
            " /x",
            "/x y",
            "javascript:alert(1)",
            "/a/../b",
            "/%2e%2e/",
            "/.portcullis/logout",
            "/.portcullis/login?rd=/x",
            "/.portcullis/enrol?rd=/x",
            "/.portcullis/enrol/",
            "/.portcullis/hand-over",
            "/.portcullis/hand-over/?site=a",
            "/.portcullis/hand-over?site=a#b",
            "/.portcullis/hand-over?site=a\\b",
            "/.portcullis/hand-over?site=a\tb",
            "/.portcullis/arrive?code=a",
            "/.portcullis/Enrol",
            "/.portcullis/%65nrol",
            "//.portcullis/enrol",
            "/x/../.portcullis/enrol",
            "/x\u{2028}",
            "/x#y",
            "///evil.example",
            "/é",
        ] {
            assert_eq!(ReturnTo::parse(bad).as_str(), "/", "{bad:?}");
        }
        assert_eq!(ReturnTo::parse(&format!("/{}", "x".repeat(LONGEST))).as_str(), "/");
    }

    #[test]
    fn the_parameter_is_encoded() {
        assert_eq!(ReturnTo::default().append_to("/l"), "/l");
        assert_eq!(ReturnTo::parse("/a?b=c&d=%20").append_to("/l"), "/l?rd=/a%3Fb%3Dc%26d%3D%2520");
    }
    fn returns(authority: &str) -> Returns {
        let out = LogoutPath { method: None, path: PathPattern::Exact("/logout".into()), query: Vec::new() };
        Returns::new(&Url::parse(&format!("https://{authority}")).unwrap(), LogoutPaths::new(vec![out]))
    }

    #[test]
    fn a_whole_address_counts_when_its_origin_is_this_one() {
        for (asked, led) in [
            ("/dash", "/dash"),
            ("https://iot.example.com/dash", "/dash"),
            ("https://iot.example.com/dash?a=b&c=https://evil.example", "/dash?a=b&c=https://evil.example"),
            ("https://iot.example.com:443/dash", "/dash"),
            ("HTTPS://IOT.Example.COM/Dash", "/Dash"),
            ("https://iot.example.com", "/"),
            ("https://iot.example.com?a=b", "/?a=b"),
            ("https://iot.example.com/.portcullis/account", "/.portcullis/account"),
            ("https://iot.example.com/.portcullis/logout", "/"),
            ("https://iot.example.com//evil.example", "/"),
            ("https://iot.example.com/\\evil.example", "/"),
            ("https://iot.example.com/../x", "/"),
            ("https://iot.example.com/dash#/x", "/"),
            ("https://iot.example.com#/x", "/"),
            ("https://iot.example.com:8443/dash", "/"),
            ("https://iot.example.com:/dash", "/"),
            ("https://iot.example.com:0443/dash", "/"),
            ("https://iot.example.com./dash", "/"),
            ("https://iot.example.com.evil.example/dash", "/"),
            ("https://iot.example.com@evil.example/dash", "/"),
            ("https://evil.example@iot.example.com/dash", "/"),
            ("https://iot.example.com%2f@evil.example/dash", "/"),
            ("https://evil.example/dash", "/"),
            ("https://evil.example\\@iot.example.com/dash", "/"),
            ("https:\\\\iot.example.com\\dash", "/"),
            ("https:iot.example.com/dash", "/"),
            ("https:/iot.example.com/dash", "/"),
            ("https:///iot.example.com/dash", "/"),
            ("http://iot.example.com/dash", "/"),
            ("//iot.example.com/dash", "/"),
            (" https://iot.example.com/dash", "/"),
            ("https://iot.example.com/\tdash", "/"),
            ("https%3A%2F%2Fiot.example.com/dash", "/"),
            ("https://xn--iot-example-com/dash", "/"),
            ("https://iot\u{3002}example\u{3002}com/dash", "/"),
            ("https://\u{456}ot.example.com/dash", "/"),
            ("javascript://iot.example.com/%0aalert(1)", "/"),
        ] {
            assert_eq!(returns("iot.example.com").to(asked).as_str(), led, "{asked:?}");
        }
        for (asked, led) in [
            ("https://iot.example.com:8443/dash", "/dash"),
            ("https://iot.example.com/dash", "/"),
            ("https://iot.example.com:443/dash", "/"),
            ("https://iot.example.com:8443:443/dash", "/"),
        ] {
            assert_eq!(returns("iot.example.com:8443").to(asked).as_str(), led, "{asked:?}");
        }
    }

    #[test]
    fn a_way_out_is_never_where_a_login_leads() {
        for out in ["/logout", "/logout?x=y", "/%6cogout", "https://iot.example.com/logout"] {
            assert_eq!(returns("iot.example.com").to(out).as_str(), "/", "{out}");
        }
        assert_eq!(returns("iot.example.com").to("/logouts").as_str(), "/logouts");
    }

    #[test]
    fn the_page_that_a_script_asks_from_is_told_by_a_referer_of_this_site() {
        for (referer, led) in [
            ("https://iot.example.com/app?tab=1", "/app?tab=1"),
            ("https://iot.example.com/", "/"),
            ("https://iot.example.com/.portcullis/login?rd=/x", "/"),
            ("https://evil.example/app", "/"),
            ("/app", "/"),
        ] {
            let headers = HeaderMap::from_iter([(header::REFERER, HeaderValue::from_static(referer))]);
            assert_eq!(returns("iot.example.com").to_referer(&headers).as_str(), led, "{referer}");
        }
        assert_eq!(returns("iot.example.com").to_referer(&HeaderMap::new()), ReturnTo::default());
    }
}
