//! Our cookies: read without ambiguity, and removed from what the portal receives.

use std::time::Duration;

use cookie::{Cookie, SameSite, time};
use http::{HeaderMap, HeaderValue, Response, header};
use url::Url;

use super::site_tokens::SiteTokens;
use crate::secret::{Token, TokenHash};

/// The prefix of our cookies' names, for all gateways of this host.
const PREFIX: &str = "__Host-portcullis";

/// The names of our cookies. Cookies are not separated by port: if `public_url` has one, it is part of the names, so that two
/// gateways on one host do not overwrite each other's.
#[derive(Clone, Debug)]
pub struct CookieNames {
    /// Which of the gateway's sites they are for.
    site: usize,
    tokens: SiteTokens,
    /// The session.
    pub session: String,
    /// A pending login, and before that the browser's half of the form token.
    pub login: String,
    /// Proves that this browser submitted a saved form.
    pub forms: String,
    /// The users that know this browser.
    pub known: String,
    /// Proves that it is this browser which asked another site who it is.
    pub asked: String,
}

impl CookieNames {
    pub fn new(public_url: &Url) -> Self {
        let port = public_url.port().map(|port| format!("-{port}")).unwrap_or_default();
        let named = |what: &str| format!("{PREFIX}{what}{port}");
        Self {
            site: 0,
            tokens: SiteTokens::of_first(),
            session: named(""),
            login: named("-login"),
            forms: named("-forms"),
            known: named("-known"),
            asked: named("-asked"),
        }
    }

    /// Those of one of several sites, where sessions go by tokens of its own.
    #[must_use]
    pub fn at_site(self, site: usize, tokens: SiteTokens) -> Self {
        Self { site, tokens, ..self }
    }

    /// What a browser is given at this site of a session, or of the token by which it is recognised when it sends a saved form.
    pub fn given(&self, token: &Token) -> Token {
        self.tokens.given(token)
    }

    /// The token of the session that a browser shows, which may be none of ours.
    pub fn session_token(&self, headers: &HeaderMap) -> Option<Token> {
        token(headers, &self.session).map(|given| self.tokens.taken(&given))
    }

    /// The token of the browser that saved forms, which may be none of ours.
    pub fn forms_token(&self, headers: &HeaderMap) -> Option<Token> {
        token(headers, &self.forms).map(|given| self.tokens.taken(&given))
    }
}

/// Sets one of our cookies.
pub fn set<B>(answer: &mut Response<B>, name: &str, token: &Token) {
    append(answer, &base(name, token.expose()));
}

/// The same for one that outlives the browser session.
pub fn set_for<B>(answer: &mut Response<B>, name: &str, token: &Token, lasts: Duration) {
    set_text_for(answer, name, token.expose(), lasts);
}

/// The same for one that contains text, in base64url.
pub fn set_text_for<B>(answer: &mut Response<B>, name: &str, text: String, lasts: Duration) {
    let mut cookie = base(name, text);
    cookie.set_max_age(time::Duration::seconds(i64::try_from(lasts.as_secs()).unwrap_or(i64::MAX)));
    append(answer, &cookie);
}

/// Deletes one of our cookies.
pub fn clear<B>(answer: &mut Response<B>, name: &str) {
    if let Some(value) = cleared(name) {
        answer.headers_mut().append(header::SET_COOKIE, value);
    }
}

/// The `Set-Cookie` that deletes one of our cookies.
pub fn cleared(name: &str) -> Option<HeaderValue> {
    let mut cookie = base(name, String::new());
    cookie.set_max_age(time::Duration::ZERO);
    HeaderValue::from_str(&cookie.to_string()).ok()
}

fn base(name: &str, value: String) -> Cookie<'_> {
    Cookie::build((name, value)).secure(true).http_only(true).same_site(SameSite::Lax).path("/").build()
}

fn append<B>(answer: &mut Response<B>, cookie: &Cookie<'_>) {
    // Names are ours and values base64url.
    if let Ok(value) = HeaderValue::from_str(&cookie.to_string()) {
        answer.headers_mut().append(header::SET_COOKIE, value);
    }
}

/// The token in the cookie `name`. `None` if there are two, or it is malformed.
pub fn token(headers: &HeaderMap, name: &str) -> Option<Token> {
    Token::parse(text(headers, name)?)
}

/// The text in the cookie `name`. `None` if there are two.
pub fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut found = None;
    for (key, value) in pairs(headers) {
        if key == name.as_bytes() && found.replace(value).is_some() {
            return None;
        }
    }
    std::str::from_utf8(found?).ok()
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers.get_all(header::COOKIE).iter().flat_map(|line| Crumbs(Some(line.as_bytes()))).map(split_pair)
}

/// The pieces between semicolons.
struct Crumbs<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Crumbs<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.0?;
        match memchr::memchr(b';', rest) {
            Some(at) => {
                self.0 = rest.get(at + 1..);
                rest.get(..at)
            }
            None => self.0.take(),
        }
    }
}

fn split_pair(pair: &[u8]) -> (&[u8], &[u8]) {
    let pair = pair.trim_ascii();
    match memchr::memchr(b'=', pair) {
        Some(at) => (pair.get(..at).unwrap_or_default().trim_ascii(), pair.get(at + 1..).unwrap_or_default()),
        None => (b"", pair),
    }
}

/// Whether a cookie is ours in any spelling, or of another gateway on this host: browsers ignore the case of the prefix
/// (RFC 6265bis §4.1.3).
fn is_ours(name: &[u8]) -> bool {
    name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX.as_bytes()))
}

/// The parsed cookies of a request.
#[derive(Clone, Debug, Default)]
pub struct Cookies {
    /// The key of the browser's session, not verified.
    pub session: Option<TokenHash>,
    /// Whether there is a cookie of that name at all, even one that cannot be a session's, or two.
    pub shows_session: bool,
    /// The one `Cookie` field that the portal gets: every pair that is not ours, crumbs of HTTP/2 joined
    /// (RFC 9113 §8.2.3).
    pub others: Option<HeaderValue>,
}

impl Cookies {
    pub fn of(headers: &HeaderMap, names: &CookieNames) -> Self {
        let session = names.session_token(headers).map(|token| token.hash());
        let shows_session = pairs(headers).any(|(name, _)| name == names.session.as_bytes());
        Self { session, shows_session, others: without_ours(headers) }
    }
}

/// The cookies of a connection's last request. Browsers send the same ones with every request, so they are parsed once.
///
/// To find out by the time that the comparison takes what another request carried, one would have to guess half a token.
#[derive(Debug, Default)]
pub struct Jar {
    /// One connection may carry requests for several sites, which read the same cookie differently.
    site: usize,
    lines: Vec<HeaderValue>,
    cookies: Cookies,
}

impl Jar {
    /// Longer cookies are parsed each time, so that idle connections stay small.
    const MOST_BYTES: usize = 2048;

    pub fn open(&mut self, headers: &HeaderMap, names: &CookieNames) -> Cookies {
        let lines = headers.get_all(header::COOKIE);
        if self.site == names.site && lines.iter().eq(&self.lines) {
            return self.cookies.clone();
        }
        // The empty jar is that of a request without cookies.
        *self = Self { site: names.site, ..Self::default() };
        let cookies = Cookies::of(headers, names);
        if lines.iter().map(HeaderValue::len).sum::<usize>() <= Self::MOST_BYTES {
            self.cookies = cookies.clone();
            // Copied, since the value keeps its whole head alive.
            let copies = lines.iter().filter_map(|line| HeaderValue::from_bytes(line.as_bytes()).ok());
            self.lines.extend(copies);
        }
        cookies
    }
}

/// Every pair that is not ours.
fn without_ours(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut kept = Vec::new();
    for line in headers.get_all(header::COOKIE) {
        for pair in Crumbs(Some(line.as_bytes())) {
            let pair = pair.trim_ascii();
            if pair.is_empty() || is_ours(split_pair(pair).0) {
                continue;
            }
            if !kept.is_empty() {
                kept.extend_from_slice(b"; ");
            }
            kept.extend_from_slice(pair);
        }
    }
    // Parts of valid values make a valid value.
    HeaderValue::from_bytes(&kept).ok().filter(|_| !kept.is_empty())
}

/// Whether a `Set-Cookie` of the portal would set a cookie of ours.
pub fn sets_ours(value: &[u8]) -> bool {
    let pair = value.split(|&byte| byte == b';').next().unwrap_or_default();
    let (name, value) = split_pair(pair);
    // A nameless cookie is read back as its bare value, which could spell a pair of ours.
    is_ours(name) || (name.is_empty() && is_ours(split_pair(value).0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    const SESSION: &str = PREFIX;

    fn names(public_url: &str) -> CookieNames {
        CookieNames::new(&Url::parse(public_url).unwrap())
    }

    fn cookies(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (header::COOKIE, HeaderValue::from_str(line).unwrap())).collect()
    }

    #[test]
    fn one_well_formed_cookie_is_found_and_two_are_none() {
        let token = Token::generate(&SeededRandom::new(1));
        let pair = format!("{SESSION}={}", token.expose());
        assert_eq!(super::token(&cookies(&[&format!("a=b; {pair};c=d")]), SESSION), Some(token));
        for bad in [
            vec![format!("{pair}; {pair}")],
            vec![pair.clone(), pair.clone()],
            vec![format!("{SESSION}=short")],
            vec![format!("{SESSION}=\"{}\"", "x".repeat(43))],
            vec![pair.to_lowercase().replace("__host", "__HOST")],
            vec![String::new()],
        ] {
            let lines: Vec<&str> = bad.iter().map(String::as_str).collect();
            assert_eq!(super::token(&cookies(&lines), SESSION), None, "{bad:?}");
        }
    }

    #[test]
    fn the_names_carry_the_port_where_the_public_address_has_one() {
        for usual in ["https://iot.example.com", "https://iot.example.com:443", "https://[::1]/"] {
            let names = names(usual);
            assert_eq!(names.session, "__Host-portcullis", "{usual}");
            assert_eq!(names.login, "__Host-portcullis-login", "{usual}");
            assert_eq!(names.forms, "__Host-portcullis-forms", "{usual}");
        }
        let [here, there] = ["https://iot.example.com:8443", "https://iot.example.com:9443"].map(names);
        assert_eq!(here.session, "__Host-portcullis-8443");
        assert_eq!(here.login, "__Host-portcullis-login-8443");
        assert_eq!(here.forms, "__Host-portcullis-forms-8443");
        let [ours, theirs] = [1, 2].map(|seed| Token::generate(&SeededRandom::new(seed)));
        let both = format!("{}={}; {}={}", here.session, ours.expose(), there.session, theirs.expose());
        assert_eq!(Cookies::of(&cookies(&[&both]), &here).session, Some(ours.hash()));
        assert_eq!(Cookies::of(&cookies(&[&both]), &there).session, Some(theirs.hash()));
    }

    #[test]
    fn a_cookie_that_lasts_differs_from_one_that_does_not_in_its_age_alone() {
        let token = Token::generate(&SeededRandom::new(1));
        let written = |put: &dyn Fn(&mut Response<()>)| {
            let mut answer = Response::new(());
            put(&mut answer);
            answer.headers()[header::SET_COOKIE].to_str().unwrap().to_owned()
        };
        let usual = written(&|answer| set(answer, SESSION, &token));
        assert_eq!(
            usual,
            format!("__Host-portcullis={}; HttpOnly; SameSite=Lax; Secure; Path=/", token.expose())
        );
        let lasting = written(&|answer| set_for(answer, SESSION, &token, Duration::from_hours(24)));
        assert_eq!(lasting, usual + "; Max-Age=86400");
    }

    #[test]
    fn ours_are_cut_in_every_spelling_and_crumbs_are_joined() {
        for (lines, left) in [
            (vec!["a=b"], Some("a=b")),
            (vec!["a=b; __Host-portcullis=x; c=d"], Some("a=b; c=d")),
            (vec!["__Host-portcullis=x"], None),
            (vec!["__host-PORTCULLIS-login=x; __Host-portcullis"], Some("__Host-portcullis")),
            (vec!["a=b", "__HOST-portcullis=x", "c=d"], Some("a=b; c=d")),
            (vec!["__Host-portcullis-8443=x; a=b; __Host-portcullis-login-9443=y"], Some("a=b")),
        ] {
            let headers = cookies(&lines);
            let others = Cookies::of(&headers, &names("https://iot.example.com")).others;
            assert_eq!(others.as_ref().map(|value| value.to_str().unwrap()), left, "{lines:?}");
        }
    }

    #[test]
    fn a_jar_never_gives_out_what_an_earlier_request_carried() {
        let [ada, bob] = [1, 2].map(|seed| Token::generate(&SeededRandom::new(seed)));
        let pair = |token: &Token| format!("{SESSION}={}", token.expose());
        let long = format!("{}; a={}", pair(&ada), "x".repeat(Jar::MOST_BYTES));
        let (mut jar, names) = (Jar::default(), names("https://iot.example.com"));
        for (lines, session, others) in [
            (vec![], None, None),
            (vec![pair(&ada)], Some(ada.hash()), None),
            (vec![pair(&ada)], Some(ada.hash()), None),
            (vec![pair(&ada), "a=b".to_owned()], Some(ada.hash()), Some("a=b")),
            (vec!["a=b".to_owned()], None, Some("a=b")),
            (vec![pair(&bob)], Some(bob.hash()), None),
            (vec![long.clone()], Some(ada.hash()), long.split("; ").nth(1)),
            (vec![], None, None),
            (vec![pair(&bob), pair(&bob)], None, None),
            (vec![pair(&bob)], Some(bob.hash()), None),
        ] {
            let headers = cookies(&lines.iter().map(String::as_str).collect::<Vec<_>>());
            let found = jar.open(&headers, &names);
            assert_eq!(found.session, session, "{lines:?}");
            assert_eq!(found.others.as_ref().map(|value| value.to_str().unwrap()), others, "{lines:?}");
        }
    }

    #[test]
    fn the_portal_cannot_set_ours() {
        for (value, ours) in [
            ("a=b; Path=/", false),
            ("__Host-portcullis=x; Path=/", true),
            ("__HOST-Portcullis-login=", true),
            ("=__Host-portcullis=x", true),
            ("__Host-portcullis-8443=x; Path=/", true),
        ] {
            assert_eq!(sets_ours(value.as_bytes()), ours, "{value}");
        }
    }
}
