//! Builds each site from its configuration.

use std::{
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use anyhow::anyhow;

use super::stores::{Environment, Stores};
use crate::{
    access::{AccessRules, PathRoutes},
    account::Accounts,
    background::{BEAT, regularly},
    client_certificates::ClientCertificates,
    config::{Config, SiteConfig},
    gate::Challenger,
    gateway::{Backend, Bounds, SharedSite, Site, SiteAddress},
    identity::{Assertions, IdentityHeaders, SiteSlot},
    pages::{self, Crossing, Neighbours, Pages, assets::Assets},
    proxy::{CallBody, ForwardTimeouts, Proxy},
    random::Random,
    sessions::Sessions,
    upstream::{self, Connector, Peer, PerUser, Pool, PoolLimits, Sharing, http2::Http2},
    web::{
        cookies::CookieNames,
        path::PathPattern,
        portal_answers::{self, PortalAnswers},
        return_to::Returns,
        session_notice::{self, InPages, SessionNotice},
        site_tokens::SiteTokens,
    },
};

/// A site, ready to be given to workers.
pub(super) struct OpenSite {
    shared: Arc<SharedSite>,
    rest: ServerGroup,
    /// The servers of each route, in their order.
    routed: Vec<ServerGroup>,
    answers: Box<portal_answers::Parts>,
    /// How long one key signs; `None`: no assertions.
    pub(super) rotation: Option<Duration>,
}

/// Interchangeable servers of the portal, and the way to reach them.
struct ServerGroup {
    /// The index of this group among all on this gateway: each group has its own lane in the per-user limits.
    lane: usize,
    peers: Vec<Peer>,
    connector: Connector,
    limits: PoolLimits,
    per_user: PerUser,
    sharing: Sharing,
    max_age: Duration,
    timeouts: ForwardTimeouts,
}

/// All sites, the first one first.
pub(super) async fn open(
    config: &Config,
    stores: &Stores,
    certificates: Option<&Arc<ClientCertificates>>,
    environment: &Environment,
) -> anyhow::Result<Vec<OpenSite>> {
    let sites = config.sites();
    let mut open = Vec::with_capacity(sites.len());
    let origins = sites.iter().map(|site| SiteAddress::new(&site.public_url).origin().to_owned()).collect();
    let mut lanes = 0..;
    let mut group = |upstream| ServerGroup::new(upstream, lanes.next().unwrap_or_default(), config);
    for (index, site) in sites.iter().enumerate() {
        let shared = shared((index, &origins), site, config, stores, certificates, environment);
        let shared = Box::pin(shared).await?;
        let rest = group(&site.upstream)?;
        let routed = site.routes.iter().map(|route| group(&route.upstream));
        let routed = routed.collect::<anyhow::Result<Vec<_>>>()?;
        let all = std::iter::once(&rest).chain(&routed);
        let upstreams = site.routes.iter().flat_map(|route| &route.upstream.upstreams);
        open.push(OpenSite {
            shared: Arc::new(shared),
            answers: Box::new(portal_answers::Parts {
                config: site.portal_answers.clone(),
                session_notice: has_notice(site).then(|| notice(site)),
                public_url: site.public_url.clone(),
                upstreams: site.upstream.upstreams.iter().chain(upstreams).cloned().collect(),
                named: all.flat_map(|group| &group.peers).filter_map(|peer| peer.named.clone()).collect(),
            }),
            rest,
            routed,
            rotation: site.identity.assertion.as_ref().map(|assertion| assertion.rotation),
        });
    }
    Ok(open)
}

impl OpenSite {
    /// The number of server groups.
    pub(super) fn groups(&self) -> usize {
        1 + self.routed.len()
    }

    /// The site for one worker.
    pub(super) fn of_worker(&self, worker: &ThisWorker<'_>) -> Rc<Site> {
        let reserved = Rc::new(self.shared.identity.clone());
        let open = |group: &ServerGroup| group.of_worker(worker, &reserved);
        let (rest, routed) = (open(&self.rest), self.routed.iter().map(open).collect());
        Site::new(Arc::clone(&self.shared), PortalAnswers::new(&self.answers), rest, routed)
    }
}

/// A worker, and what it needs to reach servers.
pub(super) struct ThisWorker<'a> {
    pub(super) number: usize,
    pub(super) of: usize,
    /// The number of server groups of all sites.
    pub(super) groups: usize,
    pub(super) sessions: &'a Arc<Sessions>,
    pub(super) random: &'a Arc<dyn Random>,
}

impl ServerGroup {
    fn new(upstream: &upstream::Config, lane: usize, config: &Config) -> anyhow::Result<Self> {
        let peers = upstream.upstreams.iter().filter_map(|url| Peer::configured(url, upstream));
        Ok(Self {
            lane,
            peers: peers.collect(),
            connector: Connector::new(upstream)?,
            limits: upstream.limits.share(config.server.workers),
            per_user: upstream.per_user,
            sharing: upstream.sharing,
            max_age: upstream.max_age,
            timeouts: ForwardTimeouts {
                response: upstream.response_timeout,
                stall: config.server.stall_timeout,
                min_rate: config.server.min_rate,
            },
        })
    }

    fn of_worker(&self, worker: &ThisWorker<'_>, reserved: &Rc<IdentityHeaders>) -> Backend {
        let Self { lane, peers, connector, limits, per_user, sharing, max_age, timeouts } = self;
        let pool = Pool::new(peers.clone(), connector.clone(), *limits, *sharing, *max_age);
        let http2 = Rc::new(Http2::new(peers.clone(), connector.clone(), *max_age));
        tokio::task::spawn_local(tidy(Rc::downgrade(&pool), Rc::downgrade(&http2)));
        let (lane, lanes) = (worker.number * worker.groups + lane, worker.of * worker.groups);
        let bounds = Bounds::new(lane, lanes, *per_user, Rc::clone(&pool));
        let (sessions, random) = (Arc::clone(worker.sessions), Arc::clone(worker.random));
        let proxy = Proxy::new(pool, http2, Rc::clone(reserved), sessions, random, *timeouts);
        Backend { proxy, bounds }
    }
}

async fn shared(
    (index, origins): (usize, &Arc<[String]>),
    site: &SiteConfig,
    config: &Config,
    stores: &Stores,
    certificates: Option<&Arc<ClientCertificates>>,
    environment: &Environment,
) -> anyhow::Result<SharedSite> {
    let slot = SiteSlot::new(index, origins.len());
    let public = &site.public_url;
    let address = SiteAddress::new(public);
    let tokens = match index {
        0 => SiteTokens::of_first(),
        _ => SiteTokens::new(stores.sealer.derive("site tokens").as_slice(), address.origin()),
    };
    let cookies = CookieNames::new(public).at_site(index, tokens);
    let challenger = Challenger::new(address.origin(), Returns::new(public, site.logout_paths.clone()));
    // Before the pages are made, which are large and would be held during this wait.
    let assertions = assertions(site, stores, environment).await?;
    let login = stores.login(config, certificates.cloned(), environment);
    let dependencies = pages::PageDependencies {
        accounts: Accounts::new(&login, stores.administration.tokens.clone()),
        by_mail: stores.by_mail(config, environment),
        own_tokens: config.tokens,
        login,
        challenger: challenger.clone(),
        saved_forms: stores.administration.saved_forms.clone(),
        clear_on_sign_out: config.clear_on_sign_out.clone(),
        clock: Arc::clone(&environment.clock),
        cookies: cookies.clone(),
        signing_keys: site.identity.assertion.is_some().then(|| Arc::clone(&stores.signing_keys)),
        issuer: config.credentials.issuer.clone(),
        notices: has_notice(site),
        origin: address.origin().to_owned(),
        crossing: Crossing {
            neighbours: Neighbours::new(Arc::clone(origins), index),
            hand_overs: stores.hand_overs.clone(),
        },
    };
    let several = origins.len() > 1;
    Ok(SharedSite {
        requests: several.then(|| environment.metrics.of_site(address.authority())),
        address,
        access: AccessRules::new(&site.access).map_err(|reason| anyhow!("access.rules: {reason}"))?,
        cookies,
        challenger,
        pages: Arc::new(Pages::new(&site.pages, dependencies, &stores.sealer)?),
        identity: IdentityHeaders::new(&site.identity).at_site(slot),
        assertions: assertions.map(|assertions| assertions.at_site(slot)),
        routes: PathRoutes::new(site.routes.iter().map(|route| route.paths.clone()).collect()),
        logout_paths: site.logout_paths.clone(),
        passive_paths: passive_paths(site, config),
    })
}

fn has_notice(site: &SiteConfig) -> bool {
    site.portal_answers.session_notice == InPages::Yes
}

/// What puts the notice of a session's end into this site's pages.
fn notice(site: &SiteConfig) -> SessionNotice {
    let (path, script) = Assets::embedded().notice();
    SessionNotice::new(SiteAddress::new(&site.public_url).origin().to_owned(), path, script)
}

/// The configured ones, and where open pages look how long their session lasts.
fn passive_paths(site: &SiteConfig, config: &Config) -> Vec<PathPattern> {
    let look = has_notice(site).then(|| PathPattern::Exact(session_notice::LOOK.to_owned()));
    config.passive_paths.iter().cloned().chain(look).collect()
}

/// Loads the signing keys, and makes the first one if there are none.
async fn assertions(
    site: &SiteConfig,
    stores: &Stores,
    environment: &Environment,
) -> anyhow::Result<Option<Assertions>> {
    let groups = site.identity.groups.clone();
    let Some(config) = &site.identity.assertion else { return Ok(None) };
    let keys = Arc::clone(&stores.signing_keys);
    keys.keep(environment.clock.now(), config.rotation).await?;
    Ok(Some(Assertions::new(config, groups, keys, &stores.sealer, Arc::clone(&environment.random))))
}

/// Closes idle connections as long as the pool is in use.
async fn tidy(pool: Weak<Pool>, http2: Weak<Http2<CallBody>>) {
    let mut ticks = regularly(BEAT);
    loop {
        ticks.tick().await;
        let Some((pool, http2)) = pool.upgrade().zip(http2.upgrade()) else { return };
        pool.tidy();
        http2.tidy();
    }
}
