//! The identity as request headers: which names are its own in any spelling, and what we set.

use http::{HeaderName, HeaderValue};

use super::HeaderNames;
use crate::{
    sessions::{Live, Session},
    web::fields::Block,
};

/// Names under which some portal or framework somewhere believes what a proxy says, the configured ones aside.
const RESERVED: &[&str] = &[
    "remote-user",
    "remote-email",
    "remote-name",
    "remote-groups",
    "remote-sub",
    "x-remote-user",
    "x-remote-email",
    "x-remote-name",
    "x-remote-groups",
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
    "x-forwarded-access-token",
    "x-auth-request-user",
    "x-auth-request-email",
    "x-auth-request-groups",
    "x-auth-request-preferred-username",
    "x-auth-request-access-token",
    "x-auth-request-redirect",
    "x-portcullis-jwt-assertion",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-protocol",
    "x-forwarded-scheme",
    "x-forwarded-ssl",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-forwarded-uri",
    "x-forwarded-url",
    "x-forwarded-method",
    "x-forwarded-prefix",
    "x-forwarded-by",
    "x-original-url",
    "x-original-uri",
    "x-original-method",
    "x-original-host",
    "x-rewrite-url",
    "x-url-scheme",
    "front-end-https",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "x-request-id",
];

/// Longer names are nobody's.
const LONGEST: usize = 63;

/// A value that cannot stand in a header: the request is refused rather than sent without it.
#[derive(Debug, thiserror::Error)]
#[error("the {0} of the user cannot stand in a header")]
pub struct Unrepresentable(&'static str);

/// Knows what claims to be an identity, and makes what is one.
#[derive(Clone, Debug)]
pub struct IdentityHeaders {
    user: HeaderName,
    email: HeaderName,
    name: HeaderName,
    groups: HeaderName,
    /// Reserved names in their normal form, by length.
    reserved: Vec<Vec<Box<[u8]>>>,
}

impl IdentityHeaders {
    /// `None` when a configured name is no header name; the configuration has been checked for that.
    pub fn new(names: &HeaderNames) -> Option<Self> {
        let parse = |name: &str| HeaderName::try_from(name).ok();
        let mut reserved = vec![Vec::new(); LONGEST + 1];
        let configured = [&names.user, &names.email, &names.name, &names.groups].map(String::as_str);
        for name in RESERVED.iter().copied().chain(configured) {
            let normal: Box<[u8]> = name.bytes().map(normal).collect();
            if let Some(same_length) = reserved.get_mut(normal.len())
                && !same_length.contains(&normal)
            {
                same_length.push(normal);
            }
        }
        Some(Self {
            user: parse(&names.user)?,
            email: parse(&names.email)?,
            name: parse(&names.name)?,
            groups: parse(&names.groups)?,
            reserved,
        })
    }

    /// Whether a portal could read `name` as one of the identity's, or of the forwarding's, in any spelling.
    pub fn is_reserved(&self, name: &HeaderName) -> bool {
        let name = name.as_str().as_bytes();
        self.reserved.get(name.len()).is_some_and(|same_length| {
            same_length.iter().any(|reserved| name.iter().copied().map(normal).eq(reserved.iter().copied()))
        })
    }

    /// The headers of one session, made once.
    pub fn of<'a>(&self, live: &'a Live) -> Result<&'a Block, Unrepresentable> {
        if let Some(prepared) = live.prepared.get() {
            return Ok(prepared);
        }
        let prepared = self.prepare(&live.session)?;
        Ok(live.prepared.get_or_init(|| prepared))
    }

    fn prepare(&self, session: &Session) -> Result<Block, Unrepresentable> {
        let value =
            |text: &str, what| HeaderValue::from_bytes(text.as_bytes()).map_err(|_| Unrepresentable(what));
        Ok(Block::new(vec![
            (self.user.clone(), value(&session.name, "name")?),
            (self.email.clone(), value(&session.email, "e-mail")?),
            (self.name.clone(), value(&session.display_name, "display name")?),
            (self.groups.clone(), value(&session.groups.join(","), "groups")?),
        ]))
    }
}

/// CGI, WSGI, PHP and Rack all read a header's name in upper case with `_` for whatever is not a letter or digit.
const fn normal(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'_' }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_name_is_known_in_every_spelling() {
        let identity =
            IdentityHeaders::new(&HeaderNames { user: "X-Portal-Login".into(), ..Default::default() })
                .unwrap();
        let reserved = RESERVED.iter().copied().chain(["x-portal-login"]);
        for name in reserved {
            // Each separator in turn as every other character that a header name may hold.
            for separator in "-_.~!#$%&'*+^`|".chars() {
                let spelling = name.replace('-', &separator.to_string());
                for spelling in [spelling.clone(), spelling.to_uppercase()] {
                    let name = HeaderName::try_from(spelling.as_str()).unwrap();
                    assert!(identity.is_reserved(&name), "{spelling}");
                }
            }
        }
        for innocent in ["x-remote-control", "remote-use", "remote-users", &"a".repeat(200)] {
            assert!(!identity.is_reserved(&HeaderName::try_from(innocent).unwrap()), "{innocent}");
        }
    }
}
