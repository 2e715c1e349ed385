//! A site: one portal under one public address, and everything that another portal would have differently.
//!
//! The request gate finds it by the host of a request. What follows is given it, and looks nowhere else.

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

/// What all workers share of a site.
pub struct SharedSite {
    pub address: SiteAddress,
    /// What it asks of whoever wants something of it.
    pub access: AccessRules,
    pub cookies: cookies::CookieNames,
    pub challenger: Challenger,
    pub pages: Arc<Pages>,
    pub identity: IdentityHeaders,
    /// Signs for this site's audience; absent: nothing is signed.
    pub assertions: Option<Assertions>,
    /// Which paths go to other servers.
    pub routes: PathRoutes,
    /// Counts its requests; absent: there is no other site.
    pub requests: Option<SiteRequests>,
    /// Where the portal logs out.
    pub logout_paths: LogoutPaths,
    /// Requests to these do not count as use of a session.
    pub passive_paths: Vec<PathPattern>,
}

/// A site as one worker serves it.
pub struct Site {
    pub(super) shared: Arc<SharedSite>,
    pub(super) answers: PortalAnswers,
    /// Where everything goes that takes no route.
    rest: Backend,
    /// In the order of the routes.
    routed: Vec<Backend>,
}

/// The way to servers of the portal, on connections of one worker's, and what users may have under way there.
pub struct Backend {
    pub proxy: Proxy,
    pub bounds: Bounds,
}

impl Site {
    /// `routed` are those of the routes.
    pub fn new(
        shared: Arc<SharedSite>,
        answers: PortalAnswers,
        rest: Backend,
        routed: Vec<Backend>,
    ) -> Rc<Self> {
        Rc::new(Self { shared, answers, rest, routed })
    }

    /// The servers of a route; those of the rest, when there is none.
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

/// Where users find a site.
#[derive(Clone, Debug)]
pub struct SiteAddress {
    /// Host and port as they stand in `Host`: without the port when it is the scheme's own.
    authority: String,
    /// `https://` and the authority.
    origin: String,
    host: HeaderValue,
}

impl SiteAddress {
    pub fn new(public_url: &Url) -> Self {
        let host = public_url.host_str().unwrap_or_default();
        let authority = public_url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        // A host that parsed as part of a URL is a header value too.
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
