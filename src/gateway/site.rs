//! A site: one portal at one public address, and everything that differs between portals.
//!
//! The request gate finds it by the host. Everything after that gets it as an argument.

use std::{rc::Rc, sync::Arc};

use http::HeaderValue;
use url::Url;

use super::Bounds;
use crate::{
    access::{AccessRules, PathRoutes},
    gate::Challenger,
    identity::{Assertions, IdentityHeaders},
    pages::Pages,
    proxy::Proxy,
    telemetry::metrics::SiteRequests,
    web::{cookies, gate::Named, logout::LogoutPaths, path::PathPattern, portal_answers::PortalAnswers},
};

/// The part of a site that all workers share.
pub struct SharedSite {
    pub address: SiteAddress,
    /// The access rules.
    pub access: AccessRules,
    pub cookies: cookies::CookieNames,
    pub challenger: Challenger,
    pub pages: Arc<Pages>,
    pub identity: IdentityHeaders,
    /// Signs for this site's audience; `None`: no assertions.
    pub assertions: Option<Assertions>,
    /// The paths that go to other servers.
    pub routes: PathRoutes,
    /// Counts its requests; `None` if there is only one site.
    pub requests: Option<SiteRequests>,
    /// The paths where the portal logs out.
    pub logout_paths: LogoutPaths,
    /// Requests to these paths do not count as use of a session.
    pub passive_paths: Vec<PathPattern>,
}

/// A site as one worker serves it.
pub struct Site {
    pub(super) shared: Arc<SharedSite>,
    pub(super) answers: PortalAnswers,
    /// The servers of everything without a route.
    rest: Backend,
    /// The servers of each route, in their order.
    routed: Vec<Backend>,
}

/// Servers of the portal: one worker's connections to them, and the limits of each user there.
pub struct Backend {
    pub proxy: Proxy,
    pub bounds: Bounds,
}

impl Site {
    /// `routed` are the servers of each route.
    pub fn new(
        shared: Arc<SharedSite>,
        answers: PortalAnswers,
        rest: Backend,
        routed: Vec<Backend>,
    ) -> Rc<Self> {
        Rc::new(Self { shared, answers, rest, routed })
    }

    /// The servers of a route, or those of everything else.
    pub(super) fn servers(&self, route: Option<usize>) -> &Backend {
        route.and_then(|route| self.routed.get(route)).unwrap_or(&self.rest)
    }

    pub(super) fn authority(&self) -> &str {
        self.shared.address.authority()
    }

    pub(super) fn origin(&self) -> &str {
        &self.shared.address.origin
    }

    /// The authority as a header value.
    pub(super) fn host(&self) -> &HeaderValue {
        &self.shared.address.host
    }
}

impl Named for Rc<Site> {
    fn authority(&self) -> &str {
        Site::authority(self)
    }
}

/// The public address of a site.
#[derive(Clone, Debug)]
pub struct SiteAddress {
    /// Host and port as in the `Host` field: without the default port.
    authority: String,
    /// `https://` and the authority.
    origin: String,
    host: HeaderValue,
}

impl SiteAddress {
    pub fn new(public_url: &Url) -> Self {
        let host = public_url.host_str().unwrap_or_default();
        let authority = public_url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        // A host that parsed as part of a URL is a valid header value.
        let host = HeaderValue::from_str(&authority).unwrap_or(HeaderValue::from_static("localhost"));
        Self { origin: format!("https://{authority}"), authority, host }
    }

    pub fn origin(&self) -> &str {
        &self.origin
    }

    pub fn authority(&self) -> &str {
        &self.authority
    }
}
