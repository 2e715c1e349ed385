//! The portal's responses: pages, JSON, redirects and errors. Does not know the content of any page.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use serde::Serialize;

/// A response whose body cannot fail: it is generated here.
pub(super) type DemoResponse = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Why a request failed; the text is shown to the user.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("There is no such page or SIM.")]
    NotFound,
    #[error("This page cannot be used that way.")]
    WrongMethod { allowed: &'static str },
    #[error("{0}")]
    Malformed(&'static str),
    #[error("{0}")]
    Conflict(&'static str),
    #[error("The form is too large.")]
    TooLarge,
    #[error("The upload ended before it was complete.")]
    Cut(#[source] hyper::Error),
    #[error("Something went wrong on our side.")]
    Template(#[from] minijinja::Error),
    #[error("Something went wrong on our side.")]
    Json(#[from] serde_json::Error),
}

impl Error {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::WrongMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Malformed(_) | Self::Cut(_) => StatusCode::BAD_REQUEST,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Template(_) | Self::Json(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// A response with a body of this type; `no-store` because every page names the user and shows live state.
pub(super) fn with_body(
    content_type: &'static str,
    body: impl Body<Data = Bytes, Error = Infallible> + Send + 'static,
) -> DemoResponse {
    let mut answer = Response::new(body.boxed_unsync());
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

pub(super) fn text(content_type: &'static str, text: impl Into<Bytes>) -> DemoResponse {
    with_body(content_type, Full::new(text.into()))
}

pub(super) fn html(page: String) -> DemoResponse {
    text("text/html; charset=utf-8", page)
}

pub(super) fn json(value: &impl Serialize) -> Result<DemoResponse, Error> {
    Ok(text("application/json", serde_json::to_vec(value)?))
}

/// After a form: 303, so that reloading the page does not post again. The path is one of our own, never a user's.
pub(super) fn see_other(path: &str) -> DemoResponse {
    let mut answer = Response::new(Empty::new().boxed_unsync());
    *answer.status_mut() = StatusCode::SEE_OTHER;
    if let Ok(location) = HeaderValue::from_str(path) {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    answer
}

/// Whether a browser will show the response; other clients get JSON.
pub(super) fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}
