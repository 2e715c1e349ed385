//! What an answer of the portal may say to a browser, and what becomes of the rest: the one place where that is decided. The
//! fields themselves are kept in `portal_fields`.

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
};
use crate::http1::fields::Block;

/// What the operator wants of the portal's answers, and of how requests name us to it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether requests name the portal's own origin in place of ours.
    pub inner_origin: bool,
    /// Whether addresses of the portal's inside become addresses of the gateway.
    pub rewrite_redirects: bool,
    pub hsts: Hsts,
    /// Whether browsers are told to load by `https` what pages name by `http`.
    pub upgrade_insecure_requests: bool,
    pub service_worker: Policy,
    /// Answers from here are the same for all users: any cache may keep them that the portal lets.
    pub cacheable_paths: Vec<PathPattern>,
}

/// What browsers are told about this host and plain HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hsts {
    Says(HeaderValue),
    /// What the portal says, and nothing on our own pages.
    Portal,
    Off,
}

/// What the rules are made of.
#[derive(Clone, Debug)]
pub struct Parts {
    pub config: Config,
    pub public_url: Url,
    pub upstreams: Vec<Url>,
    /// What `Host` says to them, where that is not the host of `public_url`.
    pub named: Vec<Authority>,
}

/// What an answer is to.
#[derive(Clone, Copy, Debug)]
pub struct RequestInfo<'a> {
    pub path: &'a str,
    /// The portal's cookies that came with the request.
    pub cookies: Option<&'a HeaderValue>,
    /// It was made for a user who is signed in.
    pub is_personal: bool,
    /// The session ends with it, and with that goes what the portal wants to go.
    pub signs_off: bool,
}

/// The rules, for one worker.
#[derive(Debug)]
pub struct PortalAnswers {
    /// Absent: addresses stay as they are.
    origins: Option<Origins>,
    inner_origin: Option<InnerOrigin>,
    host: String,
    hsts: Hsts,
    ours: Rc<Block>,
    service_worker: Policy,
    cacheable_paths: Vec<PathPattern>,
}

impl PortalAnswers {
    pub fn new(Parts { config, public_url: public, upstreams, named }: &Parts) -> Self {
        let mut ours = Vec::new();
        if let Hsts::Says(value) = &config.hsts {
            ours.push((header::STRICT_TRANSPORT_SECURITY, value.clone()));
        }
        if config.upgrade_insecure_requests {
            // Beside what the portal says: of several policies each holds (CSP3 §8.1).
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
            cacheable_paths: config.cacheable_paths.clone(),
        }
    }

    /// How requests name us; absent: as browsers do.
    pub fn inner_origin(&self) -> Option<&InnerOrigin> {
        self.inner_origin.as_ref()
    }

    /// What our own pages say of plain HTTP.
    pub fn own_hsts(&self) -> Option<&HeaderValue> {
        match &self.hsts {
            Hsts::Says(value) => Some(value),
            Hsts::Portal | Hsts::Off => None,
        }
    }

    /// Whether the script of a worker at this path is kept from browsers.
    pub fn refuses_worker(&self, path: &str) -> bool {
        self.service_worker == Policy::Refuse && service_worker::reaches_ours(path)
    }

    /// Whether scripts of workers go out with what hides our pages from them.
    pub fn guards_workers(&self) -> bool {
        self.service_worker == Policy::Allow
    }

    /// Makes of the portal's fields what the client gets.
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

    /// What few answers have.
    #[cold]
    fn apply_rare(&self, fields: &mut PortalFields, is_personal: bool, request: &RequestInfo<'_>) {
        let topics = fields.topics();
        if topics.has(Topics::HSTS) && self.hsts != Hsts::Portal {
            fields.drop_all(&header::STRICT_TRANSPORT_SECURITY);
        }
        if topics.has(Topics::SHARED_CACHES) && is_personal {
            fields.drop_where(caching::is_for_shared_caches);
        }
        if topics.has(Topics::PLACES)
            && let Some(origins) = &self.origins
        {
            let is_place = |name: &HeaderName| Topics::of(name).has(Topics::PLACES);
            fields.change(is_place, |name, value| {
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

/// Keeps an answer out of caches that many share. Answers what is to be said where the portal says nothing.
fn for_one_user(fields: &mut PortalFields, status: StatusCode) -> Option<&'static str> {
    let topics = fields.topics();
    if !topics.has(Topics::CACHING) {
        // What a 304 says nothing about stays as the browser keeps it.
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
