//! The rules for the portal's response fields: which reach the browser, and how they are changed. The fields themselves are in
//! `portal_fields`.

use std::rc::Rc;

use http::{HeaderName, HeaderValue, StatusCode, header, uri::Authority};
use url::Url;

use super::{
    caching::{self, PRIVATE, PRIVATE_AND_ASKED_FOR},
    clear_site_data::{self, Narrowed},
    path::PathPattern,
    portal_fields::{Fate, Ours, PortalFields, Topics},
    portal_origin::{InnerOrigin, Origins},
    service_worker::{self, Policy},
    session_notice::{InPages, SessionNotice},
};
use crate::http1::fields::Block;

/// The configured rules for the portal's responses, and how requests name us to the portal.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether requests have the portal's own origin in place of ours.
    pub inner_origin: bool,
    /// Whether internal addresses of the portal are replaced by the gateway's.
    pub rewrite_redirects: bool,
    pub hsts: Hsts,
    /// Whether browsers are told to load `http` resources by `https`.
    pub upgrade_insecure_requests: bool,
    pub service_worker: Policy,
    /// Whether pages that are opened get the notice of a session's end.
    pub session_notice: InPages,
    /// Responses here are the same for all users: shared caches may store them if the portal allows it.
    pub cacheable_paths: Vec<PathPattern>,
}

/// The HSTS policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hsts {
    Says(HeaderValue),
    /// The portal's own, and none on our pages.
    Portal,
    Off,
}

/// The inputs of the rules.
#[derive(Clone, Debug)]
pub struct Parts {
    pub config: Config,
    /// The notice for pages; absent: they get none.
    pub session_notice: Option<SessionNotice>,
    pub public_url: Url,
    pub upstreams: Vec<Url>,
    /// The values of `Host` towards them, where that is not the public host.
    pub named: Vec<Authority>,
}

/// What the rules need to know about the request.
#[derive(Clone, Copy, Debug)]
pub struct RequestInfo<'a> {
    pub path: &'a str,
    /// The portal's cookies in the request.
    pub cookies: Option<&'a HeaderValue>,
    /// It came from a signed-in user.
    pub is_personal: bool,
    /// It logs the user out, so the portal's `Clear-Site-Data` applies in full.
    pub signs_off: bool,
}

/// The rules, for one worker.
#[derive(Debug)]
pub struct PortalAnswers {
    /// Absent: addresses are not changed.
    origins: Option<Origins>,
    inner_origin: Option<InnerOrigin>,
    host: String,
    hsts: Hsts,
    ours: Rc<Block>,
    service_worker: Policy,
    session_notice: Option<SessionNotice>,
    cacheable_paths: Vec<PathPattern>,
}

impl PortalAnswers {
    pub fn new(Parts { config, session_notice, public_url: public, upstreams, named }: &Parts) -> Self {
        let mut ours = Vec::new();
        if let Hsts::Says(value) = &config.hsts {
            ours.push((header::STRICT_TRANSPORT_SECURITY, value.clone()));
        }
        if config.upgrade_insecure_requests {
            // In addition to the portal's: all policies apply (CSP3 §8.1).
            let policy = HeaderValue::from_static("upgrade-insecure-requests");
            ours.push((header::CONTENT_SECURITY_POLICY, policy));
        }
        Self {
            origins: config.rewrite_redirects.then(|| Origins::new(public, upstreams, named)),
            inner_origin: config
                .inner_origin
                .then(|| InnerOrigin::new(public.authority(), upstreams, named))
                .flatten(),
            host: public.host_str().unwrap_or_default().to_owned(),
            hsts: config.hsts.clone(),
            ours: Rc::new(Block::new(ours)),
            service_worker: config.service_worker,
            session_notice: session_notice.clone(),
            cacheable_paths: config.cacheable_paths.clone(),
        }
    }

    /// The origin that replaces ours in requests; absent: none does.
    pub fn inner_origin(&self) -> Option<&InnerOrigin> {
        self.inner_origin.as_ref()
    }

    /// The `Strict-Transport-Security` of our own pages.
    pub fn own_hsts(&self) -> Option<&HeaderValue> {
        match &self.hsts {
            Hsts::Says(value) => Some(value),
            Hsts::Portal | Hsts::Off => None,
        }
    }

    /// Whether a service worker's script at this path is refused.
    pub fn refuses_worker(&self, path: &str) -> bool {
        self.service_worker == Policy::Refuse && service_worker::reaches_ours(path)
    }

    /// Whether service workers' scripts get the prelude that hides our pages from them.
    pub fn guards_workers(&self) -> bool {
        self.service_worker == Policy::Allow
    }

    /// What puts a notice of the session's end into pages; absent: nothing does.
    pub fn session_notice(&self) -> Option<&SessionNotice> {
        self.session_notice.as_ref()
    }

    /// Applies the rules to the portal's fields.
    pub fn apply(&self, fields: &mut PortalFields, status: StatusCode, request: &RequestInfo<'_>) {
        let topics = fields.topics();
        let is_personal =
            request.is_personal && !self.cacheable_paths.iter().any(|known| known.matches(request.path));
        let caching = if is_personal { for_one_user(fields, status) } else { None };
        fields.add_ours(Ours { fields: Rc::clone(&self.ours), caching });
        if topics.has(Topics::COOKIES)
            && let Some(origins) = &self.origins
        {
            fields.change(
                |name| *name == header::SET_COOKIE,
                |_, cookie| changed(origins.without_inner_domain(cookie)),
            );
        }
        if topics.is_unusual() {
            self.apply_rare(fields, is_personal, request);
        }
    }

    /// The rules for unusual fields.
    #[cold]
    fn apply_rare(&self, fields: &mut PortalFields, is_personal: bool, request: &RequestInfo<'_>) {
        let topics = fields.topics();
        if topics.has(Topics::HSTS) && self.hsts != Hsts::Portal {
            fields.drop_all(&header::STRICT_TRANSPORT_SECURITY);
        }
        if topics.has(Topics::SHARED_CACHES) && is_personal {
            fields.drop_where(caching::is_for_shared_caches);
        }
        if topics.has(Topics::URLS)
            && let Some(origins) = &self.origins
        {
            let is_url = |name: &HeaderName| Topics::of(name).has(Topics::URLS);
            fields.change(is_url, |name, value| {
                changed(match *name {
                    header::LINK => origins.published_in_link(value),
                    header::REFRESH => origins.published_in_refresh(value),
                    _ => origins.published(value),
                })
            });
        }
        if topics.has(Topics::WORKERS) && self.service_worker == Policy::Refuse {
            let widens = |value: &[u8]| service_worker::widens_to_ours(request.path, value);
            fields.change(
                |name| *name == service_worker::ALLOWED,
                |_, value| if widens(value) { Fate::Goes } else { Fate::Stays },
            );
        }
        if topics.has(Topics::CLEARING) && !request.signs_off {
            self.narrow_clearing(fields, request);
        }
    }

    fn narrow_clearing(&self, fields: &mut PortalFields, request: &RequestInfo<'_>) {
        let name = &clear_site_data::NAME;
        let Some(Narrowed(left)) = clear_site_data::narrow(fields.values(name)) else { return };
        fields.drop_all(name);
        if let Some(left) = left {
            fields.append(name.clone(), left);
        }
        if let Some(cookies) = request.cookies {
            for farewell in clear_site_data::farewells(cookies, request.path, &self.host) {
                fields.append(header::SET_COOKIE, farewell);
            }
        }
    }
}

fn changed(value: Option<HeaderValue>) -> Fate {
    value.map_or(Fate::Stays, Fate::Becomes)
}

/// Keeps a response out of shared caches. Returns the `Cache-Control` to use if the portal has none.
fn for_one_user(fields: &mut PortalFields, status: StatusCode) -> Option<&'static str> {
    let topics = fields.topics();
    if !topics.has(Topics::CACHING) {
        // A 304 leaves other stored fields as they are.
        if status == StatusCode::NOT_MODIFIED || status.is_informational() {
            return None;
        }
        let kind = fields.get(&header::CONTENT_TYPE).unwrap_or_default();
        return Some(if caching::is_document(kind) { PRIVATE_AND_ASKED_FOR } else { PRIVATE });
    }
    if fields.get(&header::CACHE_CONTROL).is_none() {
        let is_asked_for =
            fields.get(&header::PRAGMA).is_some_and(|said| said.eq_ignore_ascii_case(b"no-cache"));
        return Some(if is_asked_for { PRIVATE_AND_ASKED_FOR } else { PRIVATE });
    }
    if let Some(value) = caching::for_one_user(fields.values(&header::CACHE_CONTROL)) {
        fields.replace(&header::CACHE_CONTROL, value);
    }
    None
}
