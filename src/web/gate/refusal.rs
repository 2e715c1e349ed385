//! Why the gate refuses a request, and with which status.

use http::StatusCode;

use crate::http1::{head::MalformedHead, request_head::MalformedRequest};

/// Why the gate refuses a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("malformed request head")]
    Head,
    #[error("the request needs exactly one valid Host")]
    Host,
    #[error("the request is for another host")]
    Misdirected(Box<RequestedHost>),
    /// Its client has been asked for no certificate there.
    #[error("this site needs a connection of its own, opened with its host name (SNI)")]
    Connection,
    #[error("this form of request target is not allowed")]
    Target,
    #[error("the path is not in canonical form")]
    Path,
    #[error("the method is not allowed")]
    Method,
    #[error("the method is not known: methods are told by their case")]
    MethodCase,
    #[error("a header field is malformed")]
    Field,
    #[error("too many header fields, or too large")]
    TooLarge,
    #[error("the framing of the body is ambiguous")]
    Framing,
    #[error("malformed upgrade")]
    Upgrade,
    #[error("unknown expectation")]
    Expectation,
    #[error("CONNECT to this protocol is not offered")]
    Protocol,
}

/// The host of a misdirected request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestedHost {
    pub host: String,
    /// The last of `X-Forwarded-Host`.
    pub forwarded: Option<String>,
}

impl Refusal {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Misdirected(_) | Self::Connection => StatusCode::MISDIRECTED_REQUEST,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            // RFC 9110 §9.1.
            Self::Protocol | Self::MethodCase => StatusCode::NOT_IMPLEMENTED,
            Self::Head
            | Self::Host
            | Self::Target
            | Self::Path
            | Self::Field
            | Self::Framing
            | Self::Upgrade => StatusCode::BAD_REQUEST,
        }
    }
}

impl From<MalformedRequest> for Refusal {
    fn from(malformed: MalformedRequest) -> Self {
        match malformed {
            MalformedRequest::Line | MalformedRequest::Head(MalformedHead::Line) => Self::Head,
            MalformedRequest::Head(MalformedHead::Field) => Self::Field,
            MalformedRequest::Head(MalformedHead::TooLarge) => Self::TooLarge,
            MalformedRequest::Target => Self::Target,
            MalformedRequest::Framing(_) => Self::Framing,
        }
    }
}
