//! A site: one portal under one public address, and everything that another portal would have differently.
//!
//! The request gate finds it by the host of a request. What follows is given it, and looks nowhere else.

use std::{rc::Rc, sync::Arc};

use http::HeaderValue;
use url::Url;

use super::Bounds;
use crate::{
    access::AccessRules,
    gate::Challenger,
    identity::{Assertions, IdentityHeaders},
    pages::Pages,
    proxy::Proxy,
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
    /// Where the portal logs out.
    pub logout_paths: LogoutPaths,
    /// Requests to these do not count as use of a session.
    pub passive_paths: Vec<PathPattern>,
}

/// A site as one worker serves it.
pub struct Site {
    pub(super) shared: Arc<SharedSite>,
    /// The way to the portal, on connections of this worker's.
    pub(super) proxy: Proxy,
    pub(super) answers: PortalAnswers,
    pub(super) bounds: Bounds,
}

impl Site {
    pub fn new(shared: Arc<SharedSite>, proxy: Proxy, answers: PortalAnswers, bounds: Bounds) -> Rc<Self> {
        Rc::new(Self { shared, proxy, answers, bounds })
    }

    pub(super) fn authority(&self) -> &str {
        &self.shared.address.authority
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
}
