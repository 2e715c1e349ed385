//! Forwards gRPC calls: over HTTP/2 all the way, since gRPC needs trailers and full duplex.

use std::{rc::Rc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header, uri::Authority};
use hyper::client::conn::TrySendError;

use super::{
    Additions, FOR_EVER, Followed, ForwardError, Forwarded, PortalBody, Proxy,
    call_body::{CallAnswer, CallBody},
    request::{self, CallFields},
    request_body::{Progress, RequestBody},
    session_bound_body::SessionBoundBody,
};
use crate::{
    gate::Identity,
    upstream::http2::{Sender, was_refused},
    web::{
        body::{BodyError, Stream},
        bound,
        gate::CanonicalRequest,
        grpc,
        incoming::Incoming,
        portal_fields::PortalFields,
    },
};

/// The head of a call, without the portal's authority.
#[derive(Clone)]
struct CallHead {
    request: Request<()>,
    /// Fields that contain the portal's origin, and the text after it.
    at_portal: Vec<(HeaderName, Vec<u8>)>,
}

type Answer = (Response<hyper::body::Incoming>, Rc<str>);

impl Proxy {
    /// Sends a call to the portal; a second time only if the server has certainly not processed the first.
    pub(super) fn call<'a>(
        &'a self,
        request: CanonicalRequest<Incoming>,
        identity: &'a Identity,
        additions: &Additions<'_>,
    ) -> impl Future<Output = Result<Forwarded, ForwardError>> + use<'a> {
        let deadline = grpc::timeout(request.headers());
        let head = self.head_of_call(&request, additions);
        let binds = request::binds_connection(&request);
        let progress = Progress::begin();
        let body = RequestBody::Stream {
            // Each side may be silent for as long as the call lasts.
            body: SessionBoundBody::new(
                Stream::new(request.into_request().into_body().without_head(), FOR_EVER),
                identity.clone(),
            ),
            reserved: Rc::clone(&self.reserved),
            progress: Rc::clone(&progress),
        };
        async move {
            let (answer, server) = tokio::select! {
                biased;
                answer = self.send_call(head, body, binds) => answer?,
                () = identity.end() => return Err(ForwardError::SessionEnded),
                passed = passes(deadline) => return Err(ForwardError::Timeout(passed)),
            };
            let (mut parts, incoming) = answer.into_parts();
            if parts.status == StatusCode::NO_CONTENT {
                parts.headers.remove(header::CONTENT_LENGTH);
            }
            let fields = PortalFields::of_map(parts.headers, parts.version);
            let body = SessionBoundBody::new(Stream::new(incoming, FOR_EVER), identity.clone());
            let body = PortalBody::of_call(CallAnswer::new(body), server, progress);
            Ok(Forwarded { status: parts.status, fields, followed: Followed::Body(body), is_stream: false })
        }
    }

    /// `binds` says that the request authenticates its connection, which then nobody else gets.
    async fn send_call(
        &self,
        head: CallHead,
        body: RequestBody,
        binds: bool,
    ) -> Result<Answer, ForwardError> {
        let (body, replay) = CallBody::new(body);
        let sender = self.http2.sender(binds).await?;
        let failed = match send(&sender, head.clone(), body).await {
            Ok(answer) => return Ok(self.received(answer, sender)),
            Err(failed) => failed,
        };
        let (unsent, error) = unsent(failed);
        let body = match unsent {
            Some(body) => body,
            None if was_refused(&error) => replay.again().ok_or(ForwardError::Call(error))?,
            None => return Err(classify(error)),
        };
        self.http2.retire(&sender);
        let sender = self.http2.sender(binds).await?;
        match send(&sender, head, body).await {
            Ok(answer) => Ok(self.received(answer, sender)),
            Err(failed) => Err(classify(failed.into_error())),
        }
    }

    /// A connection whose server demands such authentication gets no other request.
    fn received(&self, answer: Response<hyper::body::Incoming>, sender: Sender<CallBody>) -> Answer {
        let mut challenges = answer.headers().get_all(header::WWW_AUTHENTICATE).iter();
        if challenges.any(|challenge| bound::binds_connection(challenge.as_bytes())) {
            self.http2.retire(&sender);
        }
        (answer, sender.label)
    }

    fn head_of_call(&self, request: &CanonicalRequest<Incoming>, additions: &Additions<'_>) -> CallHead {
        let map = HeaderMap::with_capacity(request.headers().len() + 16);
        let mut fields = CallFields { map, at_portal: Vec::new() };
        request::rebuild(request, &self.reserved, additions, &mut fields);
        let CallFields { map: mut fields, at_portal } = fields;
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
        if let Some(length) = request.length() {
            fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        let mut head = Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri_at(additions.authority);
        *head.headers_mut() = fields;
        CallHead { request: head, at_portal }
    }
}

async fn passes(deadline: Option<Duration>) -> Duration {
    match deadline {
        Some(deadline) => {
            tokio::time::sleep(deadline).await;
            deadline
        }
        None => std::future::pending().await,
    }
}

async fn send(
    sender: &Sender<CallBody>,
    head: CallHead,
    body: CallBody,
) -> Result<Response<hyper::body::Incoming>, TrySendError<Request<CallBody>>> {
    let CallHead { request, at_portal } = head;
    let mut request = request.map(|()| body);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = sender.scheme.parse().ok();
    if let Some(named) = &sender.named {
        parts.authority = Some(named.clone());
    }
    let origin = format!("{}://{}", sender.scheme, parts.authority.as_ref().map_or("", Authority::as_str));
    for (name, rest) in at_portal {
        if let Ok(value) = HeaderValue::try_from([origin.as_bytes(), &rest].concat()) {
            request.headers_mut().append(name, value);
        }
    }
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    sender.sender.clone().try_send_request(request).await
}

fn unsent(mut failed: TrySendError<Request<CallBody>>) -> (Option<CallBody>, hyper::Error) {
    (failed.take_message().map(Request::into_body), failed.into_error())
}

fn classify(error: hyper::Error) -> ForwardError {
    use std::error::Error as _;
    let cause = error.source().and_then(|source| source.downcast_ref::<BodyError>());
    if matches!(cause, Some(BodyError::SessionEnded)) {
        ForwardError::SessionEnded
    } else {
        ForwardError::Call(error)
    }
}
