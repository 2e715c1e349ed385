//! The request gate, right after the HTTP parser: requests with two readings are refused before anything else sees them. Knows
//! nothing about sessions or rights.

mod max_forwards;
pub mod method;
mod refusal;
mod request;
mod upgrade;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header, uri::Authority};

use self::upgrade::{extended_connect, upgrade};
pub use self::{
    max_forwards::ALLOWED,
    refusal::{Refusal, RequestedHost},
    request::CanonicalRequest,
};
use super::{field_set::FieldSet, path};
use crate::http1::{framing::BodyLength, head::MOST_FIELDS, request_head::MOST_HEAD_BYTES};

static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// A site with a host name.
pub trait Named {
    /// Host and port as in `Host`: without the scheme's default port.
    fn authority(&self) -> &str;
}

/// Checks requests, and finds the site of each by its host.
#[derive(Clone, Debug)]
pub struct RequestGate<S> {
    /// The default for requests without a host.
    first: S,
    others: Vec<S>,
    /// The path of the health check, which is answered for any host.
    health: Option<String>,
    /// Largest request head, in bytes.
    max_head: usize,
}

impl<S: Named> RequestGate<S> {
    pub fn new(first: S, others: Vec<S>) -> Self {
        Self { first, others, health: None, max_head: MOST_HEAD_BYTES }
    }

    /// Sets the path of the health check: load balancers request it by address.
    #[must_use]
    pub fn with_health(self, path: Option<String>) -> Self {
        Self { health: path, ..self }
    }

    /// Sets the largest head, in bytes.
    #[must_use]
    pub fn with_max_head(self, max_head: usize) -> Self {
        Self { max_head, ..self }
    }

    /// The default site, for requests without a host.
    pub fn first(&self) -> &S {
        &self.first
    }

    fn sites(&self) -> impl Iterator<Item = &S> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The site of this authority, ignoring case.
    fn of(&self, authority: &str) -> Option<&S> {
        self.sites().find(|site| site.authority().eq_ignore_ascii_case(authority))
    }

    /// Admits a request with a single reading, and finds its site. `body_follows`: the head announced a body.
    pub fn admit<B>(
        &self,
        mut request: Box<Request<B>>,
        body_follows: bool,
    ) -> Result<(CanonicalRequest<B>, &S), Refusal> {
        let connects = match *request.method() {
            Method::TRACE => return Err(Refusal::Method),
            Method::CONNECT => Some(extended_connect(&request)?),
            Method::GET
            | Method::POST
            | Method::HEAD
            | Method::PUT
            | Method::PATCH
            | Method::DELETE
            | Method::OPTIONS => None,
            _ if method::is_misspelt(request.method()) => return Err(Refusal::MethodCase),
            _ => None,
        };
        let health = self.health.as_deref().is_some_and(|path| is_probe(&request, path));
        let site = match self.site_of(&request) {
            Ok(site) => site,
            Err(Refusal::Misdirected(_)) if health => &self.first,
            // HTTP/1.0 has no `Host`.
            Err(Refusal::Host) if health && !request.headers().contains_key(header::HOST) => &self.first,
            Err(refusal) => return Err(refusal),
        };
        let field_set = check_fields(request.headers(), request.version(), self.max_head)?;
        max_forwards::check(request.method(), request.headers())?;
        let upgrade = match connects {
            None if field_set.may_have(&header::UPGRADE) => upgrade(&request, body_follows)?,
            connects => connects,
        };
        if request.uri().authority().is_some() {
            let origin_form = request.uri().path_and_query().cloned().ok_or(Refusal::Target)?;
            *request.uri_mut() = path::origin_form(origin_form, request.version()).ok_or(Refusal::Target)?;
        }
        let ours = match check_target(request.uri().path(), request.uri().query())? {
            // Our pages are no tunnels.
            path::Territory::Ours if *request.method() == Method::CONNECT => return Err(Refusal::Method),
            path::Territory::Ours => true,
            path::Territory::Portal => false,
        };
        Ok((CanonicalRequest::new(request, upgrade, ours, health, field_set), site))
    }

    /// The site of the request's authority, which must be the same wherever it is written (RFC 9112 §3.2, RFC 9113 §8.3.1).
    fn site_of<B>(&self, request: &Request<B>) -> Result<&S, Refusal> {
        let uri = request.uri();
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let (host, None) = (hosts.next(), hosts.next()) else { return Err(Refusal::Host) };
        let host = match host {
            Some(value) => Some(value.to_str().map_err(|_| Refusal::Host)?),
            None => None,
        };
        let target = uri.authority().map(Authority::as_str);
        if target.is_some() && uri.scheme_str() != Some("https") {
            return Err(Refusal::Target);
        }
        if target.is_none() && !uri.path().starts_with('/') {
            return Err(Refusal::Target);
        }
        let named = match (target, host, request.version()) {
            (Some(target), None, Version::HTTP_2) => target,
            (Some(target), Some(host), _) if target.eq_ignore_ascii_case(host) => target,
            (Some(_) | None, None, _) | (Some(_), Some(_), _) | (None, Some(_), Version::HTTP_2) => {
                return Err(Refusal::Host);
            }
            (None, Some(host), _) => host,
        };
        self.site_named(named, request.headers())
    }

    fn site_named(&self, named: &str, headers: &HeaderMap) -> Result<&S, Refusal> {
        if let Some(site) = self.of(named) {
            return Ok(site);
        }
        // `host:443` is `host`. Other valid hosts are misdirected, invalid ones malformed.
        let authority: Authority = named.parse().map_err(|_| Refusal::Host)?;
        let port = named.strip_prefix(authority.host()).and_then(|rest| rest.strip_prefix(':'));
        let port_is_junk =
            port.is_some_and(|port| port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()));
        if named.contains('@') || authority.host().is_empty() || port_is_junk {
            return Err(Refusal::Host);
        }
        named.strip_suffix(":443").and_then(|host| self.of(host)).ok_or_else(|| {
            Refusal::Misdirected(Box::new(RequestedHost {
                host: named.to_owned(),
                forwarded: forwarded_host(headers).map(str::to_owned),
            }))
        })
    }

    /// Replaces the request's host by the one in `X-Forwarded-Host`, if a trusted proxy sent it.
    pub fn adopt_host<B>(&self, request: &mut Request<B>) {
        let Some(named) = forwarded_host(request.headers()) else { return };
        // Proxies send the port in a separate header, or not at all.
        let is_meant = |site: &&S| {
            let bare = site.authority().rsplit_once(':').map_or_else(|| site.authority(), |(host, _)| host);
            named.eq_ignore_ascii_case(bare)
        };
        let named = match self.of(named).or_else(|| self.sites().find(is_meant)) {
            Some(site) => site.authority(),
            None => named,
        };
        let (Ok(authority), Ok(value)) = (named.parse::<Authority>(), HeaderValue::from_str(named)) else {
            return;
        };
        if request.headers().get_all(header::HOST).iter().count() > 1 {
            return;
        }
        if request.uri().authority().is_some() {
            let mut parts = std::mem::take(request.uri_mut()).into_parts();
            parts.authority = Some(authority);
            *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        }
        if request.headers().contains_key(header::HOST) {
            request.headers_mut().insert(header::HOST, value);
        }
    }
}

impl<S: Named> RequestGate<S> {
    /// Gives a request of plain HTTP the authority that its site has over HTTPS: of the site whose host it names, whatever the
    /// port, or of the first. Nothing that it names itself is left. What has two readings stays, to be refused.
    pub fn readdress<B>(&self, request: &mut Request<B>) {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let named: Option<Authority> = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().ok().and_then(|host| host.parse().ok()),
            (None, None) if request.version() == Version::HTTP_10 => self.first.authority().parse().ok(),
            _ => None,
        };
        let uri = request.uri();
        let is_plain =
            |target: &Authority| uri.scheme_str() == Some("http") && named.as_ref() == Some(target);
        let Some(named) = named.as_ref().filter(|named| !named.as_str().contains('@')) else { return };
        if !uri.authority().is_none_or(is_plain) {
            return;
        }
        let is_meant = |site: &&S| {
            let authority: Option<Authority> = site.authority().parse().ok();
            authority.is_some_and(|authority| authority.host().eq_ignore_ascii_case(named.host()))
        };
        let site = self.sites().find(is_meant).unwrap_or(&self.first);
        let Ok(host) = HeaderValue::from_str(site.authority()) else { return };
        if uri.authority().is_some()
            && let Some(origin_form) = uri.path_and_query().cloned()
        {
            *request.uri_mut() = origin_form.into();
        }
        request.headers_mut().insert(header::HOST, host);
    }
}

/// Whether a target is ours or the portal's, if it has a single reading.
fn check_target(path: &str, query: Option<&str>) -> Result<path::Territory, Refusal> {
    let territory = path::check(path).map_err(|path::NotCanonical| Refusal::Path)?;
    if query.is_none_or(path::is_clean_query) { Ok(territory) } else { Err(Refusal::Target) }
}

/// The host that the nearest proxy received: the last element of the list.
fn forwarded_host(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(&X_FORWARDED_HOST).iter().rev();
    let mut elements = lines.flat_map(|line| line.to_str().unwrap_or("?").rsplit(',')).map(str::trim);
    elements.find(|element| !element.is_empty())
}

fn is_probe<B>(request: &Request<B>, path: &str) -> bool {
    request.uri().path() == path && matches!(*request.method(), Method::GET | Method::HEAD)
}

fn check_fields(headers: &HeaderMap, version: Version, max_head: usize) -> Result<FieldSet, Refusal> {
    if headers.len() > MOST_FIELDS {
        return Err(Refusal::TooLarge);
    }
    let mut bytes = 0;
    let mut field_set = FieldSet::default();
    for (name, value) in headers {
        field_set.note(name);
        // Names that CGI-style environments map to another field's name, and names that are not tokens although HTTP/2 parsers
        // accept them (RFC 9110 §5.6.2).
        if memchr::memchr2(b'_', b'"', name.as_str().as_bytes()).is_some() {
            return Err(Refusal::Field);
        }
        let value = value.as_bytes();
        // HTTP/1 parsing trims; HTTP/2 delivers what was sent (RFC 9113 §8.2.1).
        if value.trim_ascii().len() != value.len() {
            return Err(Refusal::Field);
        }
        bytes += name.as_str().len() + value.len() + 4;
    }
    if bytes > max_head {
        return Err(Refusal::TooLarge);
    }
    if field_set.may_have(&header::EXPECT) {
        let mut expectations = headers.get_all(header::EXPECT).iter();
        let first = expectations.next().map(HeaderValue::as_bytes).unwrap_or_default();
        if expectations.next().is_some() || !first.eq_ignore_ascii_case(b"100-continue") {
            return Err(Refusal::Expectation);
        }
    }
    if field_set.may_have(&header::CONTENT_LENGTH) || field_set.may_have(&header::TRANSFER_ENCODING) {
        check_framing(headers, version)?;
    }
    Ok(field_set)
}

fn check_framing(headers: &HeaderMap, version: Version) -> Result<(), Refusal> {
    let mut length = BodyLength::default();
    for coding in headers.get_all(header::TRANSFER_ENCODING) {
        length.transfer_encoding(coding.as_bytes(), version).map_err(|_| Refusal::Framing)?;
    }
    for number in headers.get_all(header::CONTENT_LENGTH) {
        length.content_length(number.as_bytes()).map_err(|_| Refusal::Framing)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
