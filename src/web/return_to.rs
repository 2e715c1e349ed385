//! Where a finished login may lead: a path of this site, and nothing else.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::path::{self, Territory};

/// What is left alone in a query value.
const QUERY_VALUE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
/// The longest path that is remembered.
const LONGEST: usize = 2048;
/// Pages of ours that a login may lead back to, in this very spelling: looking at them changes nothing.
const OWN: [&str; 2] = ["/.portcullis/account", "/.portcullis/enrol"];

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
        if OWN.contains(&text) || is_kept_form(text) || (plain && path::check(path) == Ok(Territory::Portal))
        {
            Self(text.to_owned())
        } else {
            Self::default()
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path, unless it is just `/`, where a login leads without being told.
    pub fn unless_start(&self) -> Option<&str> {
        Some(self.as_str()).filter(|&path| path != "/")
    }

    /// `base`, and the path as its parameter `rd` unless it is just `/`.
    pub fn append_to(&self, base: &str) -> String {
        match self.unless_start() {
            Some(path) => format!("{base}?rd={}", utf8_percent_encode(path, QUERY_VALUE)),
            None => base.to_owned(),
        }
    }
}

/// The page on which a kept form is sent: its name follows.
pub const KEPT_FORM: &str = "/.portcullis/kept/";

fn is_kept_form(text: &str) -> bool {
    text.strip_prefix(KEPT_FORM).is_some_and(|name| {
        name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
