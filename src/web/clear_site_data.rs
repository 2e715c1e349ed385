//! `Clear-Site-Data`: the portal's is limited to the portal's data. Told to clear cookies, a browser would delete ours too, and
//! those of every site under the same domain.

use http::{HeaderName, HeaderValue};
use url::Host;

pub static NAME: HeaderName = HeaderName::from_static("clear-site-data");

/// Everything but the cookies, in place of `*`.
const ALL_BUT_COOKIES: &str =
    "\"cache\", \"clientHints\", \"executionContexts\", \"prefetchCache\", \"prerenderCache\", \"storage\"";
/// Most cookies that one response deletes.
const MOST_COOKIES: usize = 150;

/// The narrowed value, where the portal's included cookies. Absent: nothing is left of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Narrowed(pub Option<HeaderValue>);

/// Narrows these lines. `None`: they do not clear cookies.
pub fn narrow<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<Narrowed> {
    let (mut kept, mut drops_cookies) = (Vec::new(), false);
    for item in lines.flat_map(|line| line.split(|&byte| byte == b',')).map(<[u8]>::trim_ascii) {
        // Anything that a lenient parser could take for one of the two.
        let word = item.iter().copied().filter(|byte| !b"\"' \t".contains(byte)).collect::<Vec<_>>();
        let everything = word == b"*";
        if !everything && !word.to_ascii_lowercase().starts_with(b"cookies") {
            kept.push(item);
            continue;
        }
        drops_cookies = true;
        if everything {
            kept.push(ALL_BUT_COOKIES.as_bytes());
        }
    }
    let value = HeaderValue::from_bytes(&kept.join(&b", "[..])).ok().filter(|_| !kept.is_empty());
    drops_cookies.then_some(Narrowed(value))
}

/// The `Set-Cookie` values that delete the portal's cookies one by one: those sent with a request for `path`, for each path and
/// domain that they can have. `host` is ours.
pub fn farewells(cookies: &HeaderValue, path: &str, host: &str) -> Vec<HeaderValue> {
    let mut names: Vec<&[u8]> = cookies
        .as_bytes()
        .split(|&byte| byte == b';')
        .filter_map(|pair| pair.split(|&byte| byte == b'=').next())
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty())
        .collect();
    names.sort_unstable();
    names.dedup();
    let domain = matches!(Host::parse(host), Ok(Host::Domain(_))).then(|| format!("; Domain={host}"));
    let mut farewells = Vec::new();
    for path in paths(path) {
        for domain in
            ["", domain.as_deref().unwrap_or_default()].iter().take(1 + usize::from(domain.is_some()))
        {
            for name in &names {
                let end = format!("=; Max-Age=0; Path={path}{domain}; Secure");
                farewells.extend(HeaderValue::from_bytes(&[name, end.as_bytes()].concat()).ok());
            }
        }
    }
    farewells.truncate(MOST_COOKIES);
    farewells
}

/// The paths of cookies that come with a request for `path` (RFC 6265 §5.1.4), the usual ones first.
fn paths(path: &str) -> Vec<&str> {
    let mut paths = vec!["/"];
    for (at, _) in path.match_indices('/').skip(1) {
        paths.extend([path.get(..at), path.get(..=at)].into_iter().flatten());
    }
    paths.push(path);
    paths.retain(|path| !path.contains(';'));
    paths.dedup();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_not_the_portals_to_clear_and_the_rest_is() {
        let narrowed = |said: &[&'static str]| {
            narrow(said.iter().map(|line| line.as_bytes())).map(|Narrowed(value)| {
                value.map_or(String::new(), |value| value.to_str().unwrap().to_owned())
            })
        };
        for (said, left) in [
            (&["\"cache\", \"storage\""][..], None),
            (&["\"executionContexts\""], None),
            (&["\"cookies\""], Some("")),
            (&["\"cache\", \"cookies\""], Some("\"cache\"")),
            (&["\"cookies\"", "\"storage\""], Some("\"storage\"")),
            (&["cookies"], Some("")),
            (&["\"Cookies\" , \"storage\""], Some("\"storage\"")),
            (&["\"cookies:bucket\""], Some("")),
            (&["\"*\""], Some(ALL_BUT_COOKIES)),
            (&["*"], Some(ALL_BUT_COOKIES)),
        ] {
            assert_eq!(narrowed(said).as_deref(), left, "{said:?}");
        }
    }

    #[test]
    fn the_portals_cookies_go_from_wherever_they_may_have_been_set() {
        let lines = |cookies, path, host| {
            let farewells = farewells(&HeaderValue::from_static(cookies), path, host);
            farewells.iter().map(|line| line.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            lines("a=b; a=c; sid=x=y", "/app/logout", "localhost"),
            [
                "a=; Max-Age=0; Path=/; Secure",
                "sid=; Max-Age=0; Path=/; Secure",
                "a=; Max-Age=0; Path=/; Domain=localhost; Secure",
                "sid=; Max-Age=0; Path=/; Domain=localhost; Secure",
                "a=; Max-Age=0; Path=/app; Secure",
                "sid=; Max-Age=0; Path=/app; Secure",
                "a=; Max-Age=0; Path=/app; Domain=localhost; Secure",
                "sid=; Max-Age=0; Path=/app; Domain=localhost; Secure",
                "a=; Max-Age=0; Path=/app/; Secure",
                "sid=; Max-Age=0; Path=/app/; Secure",
                "a=; Max-Age=0; Path=/app/; Domain=localhost; Secure",
                "sid=; Max-Age=0; Path=/app/; Domain=localhost; Secure",
                "a=; Max-Age=0; Path=/app/logout; Secure",
                "sid=; Max-Age=0; Path=/app/logout; Secure",
                "a=; Max-Age=0; Path=/app/logout; Domain=localhost; Secure",
                "sid=; Max-Age=0; Path=/app/logout; Domain=localhost; Secure",
            ]
        );
        assert_eq!(lines("a=b", "/", "127.0.0.1"), ["a=; Max-Age=0; Path=/; Secure"]);
        let many = (0..400).map(|number| format!("c{number}=x")).collect::<Vec<_>>().join("; ");
        let farewells = farewells(&HeaderValue::try_from(many).unwrap(), "/a/b", "localhost");
        assert_eq!(farewells.len(), MOST_COOKIES);
    }
}
