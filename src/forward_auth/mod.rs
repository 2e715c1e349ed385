//! Questions of other proxies: whether a request that they hold may pass, and as whom.
//!
//! Each proxy asks in a dialect of its own. Here a question becomes the request that it is about, read by the one reader that reads
//! those of clients; and what was decided becomes an answer that the proxy acts on. Nothing is decided here.

mod answer;
mod question;

use http::{HeaderName, Request};

pub use self::{
    answer::{allowance, dress},
    question::{forged, read},
};
use crate::{http1::request_head::MalformedRequest, web::incoming::Incoming};

/// How a proxy asks, and what it makes of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// A subrequest, of whose answer only 2xx, 401 and 403 have a meaning.
    Nginx,
    /// What nginx shows in place of the page that it may not.
    NginxAnswer,
    /// The answer goes to the client as it is, unless it is 2xx. Caddy and HAProxy ask like this as well.
    Traefik,
    /// The same, asked at the path that it is about.
    Envoy,
}

/// What a proxy wants to know of the request that it holds.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    pub dialect: Dialect,
    /// It has been let pass.
    pub passes: bool,
}

/// What has come on the port for proxies.
#[derive(Debug)]
pub enum ProxyRequest {
    About(Dialect, Box<Request<Incoming>>),
    /// A page of ours, which the proxy passes on.
    Page(Box<Request<Incoming>>),
}

/// Why a question has no answer. All of them let nobody pass.
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
