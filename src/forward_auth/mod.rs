//! Forward auth: other proxies ask whether a request that they hold may pass, and as whom.
//!
//! Each proxy asks in its own dialect. A question becomes the request that it is about, read by the same reader as
//! clients' requests; a decision becomes a response that the proxy acts on. Nothing is decided here.

mod answer;
mod question;

use http::{HeaderName, Request};

pub use self::{
    answer::{allowance, dress},
    question::{forged, read},
};
use crate::{http1::request_head::MalformedRequest, web::incoming::Incoming};

/// How a proxy asks, and how it acts on the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// A subrequest; only the statuses 2xx, 401 and 403 have a meaning.
    Nginx,
    /// The page that nginx shows for a refused request.
    NginxAnswer,
    /// The client gets the response as it is, unless it is 2xx. Caddy and HAProxy ask in the same way.
    Traefik,
    /// The same, with the path of the request appended.
    Envoy,
}

/// A proxy's question about the request that it holds.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    pub dialect: Dialect,
    /// The proxy has let it pass already.
    pub passes: bool,
}

/// A request on the port for proxies.
#[derive(Debug)]
pub enum ProxyRequest {
    About(Dialect, Box<Request<Incoming>>),
    /// One of our pages, passed on by the proxy.
    Page(Box<Request<Incoming>>),
}

/// Why a question cannot be answered. The proxy lets no such request pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    #[error(
        "there is nothing at this path: proxies ask at /auth/nginx, /auth/traefik or /auth/envoy, and pass on /.portcullis/"
    )]
    NotHere,
    #[error("the proxy does not say {0}, or not once")]
    Missing(&'static str),
    #[error("{0} cannot be read in one way")]
    Malformed(&'static str),
    #[error("the request that the proxy holds did not come over https")]
    Scheme,
    #[error("the proxy does not say whose request it is: server.client_address names the header")]
    Client,
    #[error(
        "the client sent {0}, which a portal may believe: have the proxy remove it, or let it pass with portal.pass_headers"
    )]
    Forged(HeaderName),
    #[error("two Authorization fields")]
    Authorization,
    #[error("the path is the gateway's own: have the proxy pass it on to this port")]
    Own,
}

impl From<MalformedRequest> for Unclear {
    fn from(_: MalformedRequest) -> Self {
        Self::Malformed("the request that the proxy holds")
    }
}
