//! Redirects that leave the site after one of our forms. `form-action` restricts our forms to this site, and browsers
//! apply it to every redirect that follows: the login would never reach a portal whose first page redirects to an
//! identity provider. So such a redirect becomes a page, which ends the chain and leads on from there.

use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use url::Url;

use super::{BodySource, Site, body::own};
use crate::web::{portal_fields::PortalFields, reply::Reply};

/// How long after a login a redirect of the portal may still belong to it.
pub(super) const LONGEST_AFTER_LOGIN: Duration = Duration::from_mins(5);

/// The page in place of a redirect to another site.
pub(super) fn instead(status: StatusCode, fields: &PortalFields, site: &Site) -> Option<Reply<BodySource>> {
    // The other statuses repeat the POST, which a page cannot do.
    if ![StatusCode::MOVED_PERMANENTLY, StatusCode::FOUND, StatusCode::SEE_OTHER].contains(&status) {
        return None;
    }
    let to = fields.get(&header::LOCATION).and_then(|to| std::str::from_utf8(to).ok())?;
    let mut page = site.shared.pages.leaving(&elsewhere(to, site.origin())?);
    for cookie in fields.values(&header::SET_COOKIE) {
        if let Ok(cookie) = HeaderValue::from_bytes(cookie) {
            page.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
    Some(own(page))
}

/// The whole address, if it is on another site.
fn elsewhere(location: &str, origin: &str) -> Option<Url> {
    let here = Url::parse(origin).ok()?;
    let to = here.join(location).ok()?;
    (matches!(to.scheme(), "http" | "https") && to.origin() != here.origin()).then_some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_here_needs_no_page() {
        for (location, leads) in [
            ("/app", None),
            ("https://iot.example.com/app", None),
            ("https://iot.example.com:443/app", None),
            ("app?next=https://idp.example", None),
            ("myapp://open", None),
            ("javascript:alert(1)", None),
            ("https://idp.example/authorize?a=b", Some("https://idp.example/authorize?a=b")),
            ("//www.example.com/", Some("https://www.example.com/")),
            ("http://iot.example.com/app", Some("http://iot.example.com/app")),
            ("https://iot.example.com:8443/", Some("https://iot.example.com:8443/")),
        ] {
            let found = elsewhere(location, "https://iot.example.com").map(String::from);
            assert_eq!(found.as_deref(), leads, "{location}");
        }
    }
}
