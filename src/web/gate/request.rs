//! A request that has passed the gate.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header,
    uri::{Authority, PathAndQuery},
};

use super::{check_target, refusal::Refusal};
use crate::{
    http1::fields,
    web::{field_set::FieldSet, incoming::Incoming, path, upgraded::OnUpgrade},
};

/// A request that has one meaning. Only the [`RequestGate`](super::RequestGate) makes one.
#[derive(Debug)]
pub struct CanonicalRequest<B> {
    /// Boxed: it is handed on through every stage, and each would keep a copy of its place.
    request: Box<Request<B>>,
    upgrade: Option<HeaderValue>,
    ours: bool,
    health: bool,
    field_set: FieldSet,
}

impl<B> CanonicalRequest<B> {
    /// Only the gate says so of a request.
    pub(super) fn new(
        request: Box<Request<B>>,
        upgrade: Option<HeaderValue>,
        ours: bool,
        health: bool,
        field_set: FieldSet,
    ) -> Self {
        Self { request, upgrade, ours, health, field_set }
    }

    pub fn method(&self) -> &Method {
        self.request.method()
    }

    pub fn headers(&self) -> &HeaderMap {
        self.request.headers()
    }

    pub fn field_set(&self) -> FieldSet {
        self.field_set
    }

    /// The path as the client sent it, byte for byte.
    pub fn path(&self) -> &str {
        self.request.uri().path()
    }

    pub fn query(&self) -> Option<&str> {
        self.request.uri().query()
    }

    /// Path and query as the client sent them.
    pub fn target(&self) -> &str {
        self.request.uri().path_and_query().map_or("/", PathAndQuery::as_str)
    }

    /// The target as a whole URI at this authority.
    pub fn uri_at(&self, authority: &HeaderValue) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.authority = Authority::try_from(authority.as_bytes()).ok();
        parts.path_and_query = self.request.uri().path_and_query().cloned();
        parts.scheme = Some(http::uri::Scheme::HTTPS);
        Uri::from_parts(parts).unwrap_or_default()
    }

    pub fn version(&self) -> Version {
        self.request.version()
    }

    /// The protocol that the client offers to switch to.
    pub fn upgrade(&self) -> Option<&HeaderValue> {
        self.upgrade.as_ref()
    }

    /// Whether the path lies under one of our reserved prefixes, in any spelling.
    pub fn is_ours(&self) -> bool {
        self.ours
    }

    /// Whether it asks how the gateway is, by whatever name.
    pub fn is_health(&self) -> bool {
        self.health
    }

    /// Turns the WebSocket of an HTTP/2 client into the handshake that HTTP/1.1 has for it (RFC 8441 §5). `key` is ours: that
    /// client has none.
    pub fn become_handshake(&mut self, key: HeaderValue) {
        *self.request.method_mut() = Method::GET;
        self.request.headers_mut().insert(header::SEC_WEBSOCKET_KEY, key);
    }

    /// The body, to be read before the request goes on.
    pub fn body_mut(&mut self) -> &mut B {
        self.request.body_mut()
    }

    /// Makes it a request for `target`, which goes to the portal. It is checked as one that came from outside.
    pub fn lead_to(&mut self, target: PathAndQuery) -> Result<(), Refusal> {
        match check_target(target.path(), target.query())? {
            path::Territory::Portal if !self.ours => *self.request.uri_mut() = Uri::from(target),
            path::Territory::Portal | path::Territory::Ours => return Err(Refusal::Path),
        }
        Ok(())
    }

    /// Takes fields out of the head.
    pub fn leave_out(&mut self, names: &[HeaderName]) {
        let headers = self.request.headers_mut();
        for name in names {
            headers.remove(name);
        }
    }

    /// Says of the head that it is for `target`, and that another body follows it: one of `length` bytes that the caller
    /// has.
    pub fn announce(
        &mut self,
        target: PathAndQuery,
        content_type: HeaderValue,
        referer: Option<HeaderValue>,
        length: usize,
    ) -> Result<(), Refusal> {
        self.lead_to(target)?;
        let headers = self.request.headers_mut();
        for replaced in
            [header::TRANSFER_ENCODING, header::CONTENT_ENCODING, header::TRAILER, header::REFERER]
        {
            headers.remove(replaced);
        }
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        self.field_set.note(&header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, content_type);
        if let Some(referer) = referer {
            headers.insert(header::REFERER, referer);
        }
        Ok(())
    }

    /// What `Content-Length` says, if it is there.
    pub fn length(&self) -> Option<u64> {
        let length = self
            .field_set
            .may_have(&header::CONTENT_LENGTH)
            .then(|| self.headers().get(header::CONTENT_LENGTH))??;
        fields::content_length(length.as_bytes())
    }

    /// Whether a body follows the head.
    pub fn has_body(&self) -> bool
    where
        B: http_body::Body,
    {
        !self.request.body().is_end_stream()
    }

    /// Says how many hops are left, of a request that says so itself.
    pub(super) fn set_hops(&mut self, left: HeaderValue) {
        self.request.headers_mut().insert(header::MAX_FORWARDS, left);
    }

    /// Gives the request out, to be answered or rebuilt for the portal.
    pub fn into_request(self) -> Request<B> {
        *self.request
    }
}

impl CanonicalRequest<Incoming> {
    /// The head as the client of HTTP/1 sent it.
    pub fn sent_head(&self) -> &[u8] {
        self.request.body().head()
    }

    /// The client's side of the connection, once both sides have switched protocols.
    pub fn on_upgrade(&mut self) -> OnUpgrade {
        match self.request.body_mut().switching() {
            Some(switching) => switching,
            None => OnUpgrade::of_http2(hyper::upgrade::on(&mut *self.request)),
        }
    }
}
