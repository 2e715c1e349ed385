//! The portal's own logout, as configured, and which requests to it a user made.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderMap, Method, StatusCode, header};
use percent_encoding::percent_decode_str;

use super::{client, path::PathPattern, portal_fields::PortalFields};

/// One logout of the portal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogoutPath {
    /// Absent: any method that a user action can have.
    pub method: Option<Method>,
    pub path: PathPattern,
    /// Parameters that the query must contain, among others.
    pub query: Vec<(String, String)>,
}

/// All logouts of the portal.
#[derive(Clone, Debug, Default)]
pub struct LogoutPaths(Arc<[LogoutPath]>);

/// A request to log out, and what the response must look like if it worked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogoutAttempt {
    /// Any success or redirect.
    Plain,
    /// A success with a page is not enough: it may ask "Log out?".
    MayBeAsked,
}

impl LogoutPaths {
    pub fn new(paths: Vec<LogoutPath>) -> Self {
        Self(paths.into())
    }

    /// Whether a user asks the portal to log out. Prefetches and subresources do not count.
    pub fn attempt(
        &self,
        method: &Method,
        headers: &HeaderMap,
        path: &str,
        query: Option<&str>,
    ) -> Option<LogoutAttempt> {
        if self.0.is_empty() {
            return None;
        }
        let path = canonical(path);
        let mut found = self.0.iter().filter(|known| known.leads_out(&path, query));
        let named = found.clone().any(|known| known.method.as_ref() == Some(method));
        let unnamed =
            found.any(|known| known.method.is_none()) && !matches!(*method, Method::HEAD | Method::OPTIONS);
        if !(named || unnamed) || client::is_prefetch(headers) || client::is_part_of_a_page(method, headers) {
            return None;
        }
        Some(if named || *method != Method::GET { LogoutAttempt::Plain } else { LogoutAttempt::MayBeAsked })
    }

    /// Whether a redirect to this path would log the user out, by any method.
    pub fn lead_out(&self, target: &str) -> bool {
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let path = if self.0.is_empty() { Cow::Borrowed(path) } else { canonical(path) };
        self.0.iter().any(|known| known.leads_out(&path, query))
    }
}

impl LogoutPath {
    /// `path` is canonical.
    fn leads_out(&self, path: &str, query: Option<&str>) -> bool {
        let has = |wanted: &(String, String)| {
            let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
            pairs.into_iter().any(|(name, value)| *name == wanted.0 && *value == wanted.1)
        };
        self.path.matches(path) && self.query.iter().all(has)
    }
}

impl LogoutAttempt {
    /// Whether the portal has logged the user out, judging by the response head.
    pub fn worked(self, status: StatusCode, fields: &PortalFields) -> bool {
        let shows_page = status.is_success()
            && fields.get(&header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with(b"text/html"));
        let asks = self == Self::MayBeAsked && shows_page && !takes_a_cookie_away(fields);
        (status.is_success() || status.is_redirection()) && !asks
    }
}

/// Whether a cookie is deleted: empty, or with an age or date in the past. Frameworks use the Unix epoch.
fn takes_a_cookie_away(fields: &PortalFields) -> bool {
    let mut cookies = fields.values(&header::SET_COOKIE).filter_map(|line| std::str::from_utf8(line).ok());
    cookies.any(|line| {
        let mut parts = line.split(';').map(str::trim);
        let is_empty = parts.next().is_some_and(|pair| pair.ends_with('=') || pair.ends_with("=\"\""));
        let has_passed = parts.any(|attribute| {
            let attribute = attribute.to_ascii_lowercase();
            match attribute.split_once('=') {
                Some(("max-age", age)) => age == "0" || age.starts_with('-'),
                Some(("expires", date)) => date.contains("1970") || date.contains("-70 "),
                _ => false,
            }
        });
        is_empty || has_passed
    })
}

/// The path as the portal is likely to read it: decoded, without segment parameters (`;x=y`) and empty segments.
pub fn canonical(path: &str) -> Cow<'_, str> {
    if !path.contains(['%', ';']) && !path.contains("//") {
        return Cow::Borrowed(path);
    }
    let mut plain = String::with_capacity(path.len());
    for segment in percent_decode_str(path).decode_utf8_lossy().split('/') {
        let name = segment.split(';').next().unwrap_or_default();
        if !name.is_empty() {
            plain.push('/');
            plain.push_str(name);
        }
    }
    if path.ends_with('/') || plain.is_empty() {
        plain.push('/');
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, Version};

    use super::*;

    fn paths() -> LogoutPaths {
        let entry = |method: Option<Method>, path: &str, query: &[(&str, &str)]| LogoutPath {
            method,
            path: PathPattern::Exact(path.to_owned()),
            query: query.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
        };
        LogoutPaths::new(vec![
            entry(None, "/logout", &[]),
            entry(Some(Method::GET), "/wp-login.php", &[("action", "logout")]),
            entry(Some(Method::DELETE), "/api/session", &[]),
        ])
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let fields = fields.iter();
        fields
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn only_what_a_person_asks_for_is_an_attempt() {
        let attempt = |method: &str, target: &str, fields: &[(&'static str, &'static str)]| {
            let (path, query) =
                target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
            paths().attempt(&Method::from_bytes(method.as_bytes()).unwrap(), &headers(fields), path, query)
        };
        for (method, target, expected) in [
            ("GET", "/logout", Some(LogoutAttempt::MayBeAsked)),
            ("POST", "/logout", Some(LogoutAttempt::Plain)),
            ("DELETE", "/logout", Some(LogoutAttempt::Plain)),
            ("HEAD", "/logout", None),
            ("OPTIONS", "/logout", None),
            ("GET", "/%6cogout", Some(LogoutAttempt::MayBeAsked)),
            ("GET", "/%6C%6fgout", Some(LogoutAttempt::MayBeAsked)),
            ("GET", "//logout", Some(LogoutAttempt::MayBeAsked)),
            ("GET", "/logout;jsessionid=x", Some(LogoutAttempt::MayBeAsked)),
            ("GET", "/logout?next=/", Some(LogoutAttempt::MayBeAsked)),
            ("GET", "/logout/", None),
            ("GET", "/Logout", None),
            ("GET", "/%256cogout", None),
            ("GET", "/x?y=/logout", None),
            ("GET", "/wp-login.php", None),
            ("GET", "/wp-login.php?action=lostpassword", None),
            ("GET", "/wp-login.php?action=logout&_wpnonce=1", Some(LogoutAttempt::Plain)),
            ("GET", "/wp-login.php?a=b&act%69on=log%6fut", Some(LogoutAttempt::Plain)),
            ("POST", "/wp-login.php?action=logout", None),
            ("HEAD", "/wp-login.php?action=logout", None),
            ("DELETE", "/api/session", Some(LogoutAttempt::Plain)),
            ("GET", "/api/session", None),
        ] {
            assert_eq!(attempt(method, target, &[]), expected, "{method} {target}");
        }
        for field in [
            ("sec-purpose", "prefetch"),
            ("sec-purpose", "prefetch;prerender"),
            ("purpose", "prefetch"),
            ("x-moz", "prefetch"),
            ("x-purpose", "preview"),
            ("sec-fetch-dest", "image"),
            ("sec-fetch-dest", "script"),
            ("sec-fetch-dest", "style"),
        ] {
            assert_eq!(attempt("GET", "/logout", &[field]), None, "{field:?}");
        }
        for dest in ["document", "iframe", "empty"] {
            assert!(attempt("GET", "/logout", &[("sec-fetch-dest", dest)]).is_some(), "{dest}");
        }
        assert_eq!(LogoutPaths::default().attempt(&Method::GET, &HeaderMap::new(), "/logout", None), None);
    }

    #[test]
    fn a_page_that_may_ask_first_has_not_logged_out_yet() {
        let html = ("content-type", "text/html; charset=utf-8");
        for (status, fields, plain, asked) in [
            (302, &[][..], true, true),
            (303, &[html], true, true),
            (200, &[], true, true),
            (204, &[], true, true),
            (200, &[("content-type", "application/json")], true, true),
            (200, &[html], true, false),
            (200, &[html, ("set-cookie", "theme=dark; Max-Age=3600")], true, false),
            (200, &[html, ("set-cookie", "sid=; Path=/")], true, true),
            (200, &[html, ("set-cookie", "sid=gone; Max-Age=0; Path=/")], true, true),
            (200, &[html, ("set-cookie", "sid=\"\"; expires=Thu, 01 Jan 1970 00:00:00 GMT")], true, true),
            (403, &[html], false, false),
            (500, &[], false, false),
        ] {
            let worked = |attempt: LogoutAttempt| {
                let fields = PortalFields::of_map(headers(fields), Version::HTTP_11);
                attempt.worked(StatusCode::from_u16(status).unwrap(), &fields)
            };
            assert_eq!(worked(LogoutAttempt::Plain), plain, "{status} {fields:?}");
            assert_eq!(worked(LogoutAttempt::MayBeAsked), asked, "{status} {fields:?}");
        }
    }

    #[test]
    fn nobody_is_led_back_to_a_way_out() {
        for out in ["/logout", "/logout?x=y", "/%6cogout", "/wp-login.php?action=logout", "/api/session"] {
            assert!(paths().lead_out(out), "{out}");
        }
        for elsewhere in ["/", "/logouts", "/wp-login.php", "/x?y=/logout"] {
            assert!(!paths().lead_out(elsewhere), "{elsewhere}");
        }
    }
}
