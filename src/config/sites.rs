//! `[[sites]]`: further portals behind the same gateway.
//!
//! A site lists its differences: keys of `[portal]` as they are, those of `[access]` and `[identity]` in tables of
//! these names. It inherits everything else from the first site, except what only one site can have.

use std::time::Duration;

use serde::Deserialize;
use url::Url;

use super::{
    Config, SiteConfig, access, identity, layers::Layers, portal, server::PublicUrl, site_scope::SiteScope,
    values::Parsed,
};

/// The keys of a site, in the form of a whole configuration.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Document {
    server: Address,
    portal: portal::Section,
    access: access::Section,
    identity: identity::Section,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Address {
    /// The `https` URL that users type, without a path. Required.
    public_url: Option<Parsed<PublicUrl>>,
}

/// One site, deserialized.
pub(super) struct SiteSection {
    scope: SiteScope,
    pub(super) public_url: Option<Url>,
    document: Document,
}

/// Reads all sites except the first.
pub(super) fn read(layers: &mut Layers) -> Vec<SiteSection> {
    let listed = layers.sites().into_iter().enumerate();
    let mut sites: Vec<SiteSection> = Vec::new();
    for (index, said) in listed.filter(|(_, said)| said.as_dict().is_some()) {
        let mut document: Document = layers.read_site(SiteScope::new(index, said));
        let public_url = document.server.public_url.take().map(|Parsed(PublicUrl(url))| url);
        if public_url.is_none() {
            layers.missing(
                "server.public_url",
                "set it to the URL that users type, such as `https://crm.example.com`",
            );
        }
        if let Some(scope) = layers.leave_site() {
            sites.push(SiteSection { scope, public_url, document });
        }
    }
    sites
}

/// The distinct hosts of these addresses.
pub(super) fn hosts(urls: &[Url]) -> Vec<String> {
    let mut hosts: Vec<String> = Vec::new();
    for host in urls.iter().filter_map(Url::host_str) {
        if !hosts.iter().any(|known| known == host) {
            hosts.push(host.to_owned());
        }
    }
    hosts
}

/// Checks that each site has its own address.
pub(super) fn check_addresses(first: Option<&Url>, sites: &[SiteSection], layers: &mut Layers) {
    let mut seen: Vec<&Url> = first.into_iter().collect();
    for site in sites {
        let Some(url) = &site.public_url else { continue };
        if seen.iter().any(|earlier| earlier.origin() == url.origin()) {
            let key = format!("sites.{}.public_url", site.scope.index());
            layers.fault(
                &key,
                format!(
                    "`{}` is another site's already: it would never be reached",
                    url.origin().ascii_serialization()
                ),
            );
        }
        seen.push(url);
    }
}

impl SiteSection {
    /// `all` are the addresses of all sites.
    pub(super) fn validate(
        self,
        all: &[Url],
        workers: usize,
        inactivity: Duration,
        layers: &mut Layers,
    ) -> Option<SiteConfig> {
        const ROTATION: &str = "identity.assertion.rotation";
        layers.enter_site(Some(self.scope));
        let portal = self.document.portal.validate(workers, layers);
        let origin = self.public_url.as_ref().map(|url| url.origin().ascii_serialization());
        if layers.locates_at_site(ROTATION) {
            layers.fault(
                ROTATION,
                "is for all sites, which sign with the same keys; set it in `[identity.assertion]`",
            );
        }
        let identity =
            self.document.identity.validate(origin.as_deref(), inactivity, portal.pass_headers, layers);
        let access = self.document.access.validate(self.public_url.as_ref(), all, layers);
        layers.leave_site();
        Some(SiteConfig {
            public_url: self.public_url?,
            upstream: portal.upstream,
            routes: portal.routes,
            pages: portal.pages?,
            portal_answers: portal.answers,
            logout_paths: portal.logout_paths,
            identity,
            access,
        })
    }
}

impl Config {
    /// All sites, the first one first.
    pub fn sites(&self) -> Vec<SiteConfig> {
        let first = SiteConfig {
            public_url: self.web.public_url.clone(),
            upstream: self.upstream.clone(),
            routes: self.routes.clone(),
            pages: self.pages.clone(),
            portal_answers: self.portal_answers.clone(),
            logout_paths: self.logout_paths.clone(),
            identity: self.identity.clone(),
            access: self.access.clone(),
        };
        std::iter::once(first).chain(self.others.iter().cloned()).collect()
    }
}
