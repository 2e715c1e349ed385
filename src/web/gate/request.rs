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

/// A request with a single reading. Only the [`RequestGate`](super::RequestGate) makes one.
#[derive(Debug)]
pub struct CanonicalRequest<B> {
    /// Boxed, since it moves through every stage, whose futures would each reserve space for it.
    request: Box<Request<B>>,
    upgrade: Option<HeaderValue>,
    ours: bool,
    health: bool,
    field_set: FieldSet,
}

impl<B> CanonicalRequest<B> {
    /// Only for the gate.
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

    /// The target as an absolute URI at this authority.
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

    /// The protocol that the client offers in `Upgrade`.
    pub fn upgrade(&self) -> Option<&HeaderValue> {
        self.upgrade.as_ref()
    }

    /// Whether the path is under one of our reserved prefixes, in any spelling.
    pub fn is_ours(&self) -> bool {
        self.ours
    }

    /// Whether it is a health check, under any host name.
    pub fn is_health(&self) -> bool {
        self.health
    }

    /// Turns an HTTP/2 client's WebSocket into an HTTP/1.1 handshake (RFC 8441 §5). `key` is ours, since HTTP/2 has none.
    pub fn become_handshake(&mut self, key: HeaderValue) {
        *self.request.method_mut() = Method::GET;
        self.request.headers_mut().insert(header::SEC_WEBSOCKET_KEY, key);
    }

    /// The body, to be read before the request goes on.
    pub fn body_mut(&mut self) -> &mut B {
        self.request.body_mut()
    }

    /// Changes the target. It is checked like one from outside, and must be the portal's.
    pub fn lead_to(&mut self, target: PathAndQuery) -> Result<(), Refusal> {
        match check_target(target.path(), target.query())? {
            path::Territory::Portal if !self.ours => *self.request.uri_mut() = Uri::from(target),
            path::Territory::Portal | path::Territory::Ours => return Err(Refusal::Path),
        }
        Ok(())
    }

    /// Removes fields.
    pub fn leave_out(&mut self, names: &[HeaderName]) {
        let headers = self.request.headers_mut();
        for name in names {
            headers.remove(name);
        }
    }

    /// Changes the target, and announces another body: its type and its length, and the page that it comes from.
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

    /// The value of `Content-Length`.
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

    /// Sets `Max-Forwards`.
    pub(super) fn set_hops(&mut self, left: HeaderValue) {
        self.request.headers_mut().insert(header::MAX_FORWARDS, left);
    }

    /// Unwraps the request.
    pub fn into_request(self) -> Request<B> {
        *self.request
    }
}

impl CanonicalRequest<Incoming> {
    /// The raw head of an HTTP/1 client.
    pub fn sent_head(&self) -> &[u8] {
        self.request.body().head()
    }

    /// The client's connection, once the upgrade is done.
    pub fn on_upgrade(&mut self) -> OnUpgrade {
        match self.request.body_mut().on_upgrade() {
            Some(switching) => switching,
            None => OnUpgrade::of_http2(hyper::upgrade::on(&mut *self.request)),
        }
    }
}
