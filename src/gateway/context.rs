//! What a connection keeps for its next request, and the limits on what one client makes us hold in memory.

use std::{
    cell::{Cell, OnceCell, RefCell},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use super::Site;
use crate::{
    client_certificates::ShownCertificate, proxy::ForwardedFields, server::Door,
    telemetry::metrics::OpenConnection, upstream::Tie, web::cookies::Jar,
};

/// Concurrent forms on one connection. An attacker makes us hold a head of 16 KiB for each.
const MOST_FORMS: u32 = 8;
/// Forms to be saved that wait for one of those: together, the forms of ten tabs.
const MOST_WAITING: u32 = 4;
/// Pages of ours that one HTTP/2 client has requested and not read yet; a page has some kilobytes.
const MOST_UNREAD: u32 = 16;
/// How long a request over these limits waits.
const TAKES: Duration = Duration::from_secs(5);

/// The context of one connection.
pub struct ConnectionContext {
    _open: OpenConnection,
    pub(super) cookies: RefCell<Jar>,
    /// The last client at the last site: always the same, except behind a trusted proxy, which sends requests of many
    /// clients.
    pub(super) forwarded: RefCell<Option<(IpAddr, Rc<Site>, Rc<ForwardedFields>)>>,
    /// The connection to the portal that is reserved for it.
    pub(super) tie: Rc<Tie>,
    forms: Rc<Count>,
    waiting: Rc<Count>,
    unread: Rc<Count>,
    streams: Rc<Count>,
    /// Comes from a trusted proxy, which shares it between many clients and limits them itself: nothing is limited
    /// here.
    shared: bool,
    /// The listener that accepted it.
    door: Door,
    certificate: OnceCell<Arc<ShownCertificate>>,
    /// Whether it was asked for one.
    was_asked: Cell<bool>,
}

#[derive(Default)]
struct Count {
    held: Cell<u32>,
    freed: Notify,
}

/// One unit of a count, until it is dropped.
pub(super) struct Permit(Rc<Count>);

impl ConnectionContext {
    pub(super) fn new(open: OpenConnection, shared: bool, door: Door) -> Self {
        Self {
            _open: open,
            cookies: RefCell::default(),
            forwarded: RefCell::default(),
            tie: Rc::default(),
            forms: Rc::default(),
            waiting: Rc::default(),
            unread: Rc::default(),
            streams: Rc::default(),
            shared,
            door,
            certificate: OnceCell::new(),
            was_asked: Cell::new(false),
        }
    }

    /// That of a proxy is not its clients'.
    pub(super) fn has_shown(&self, certificate: Option<ShownCertificate>, was_asked: bool) {
        self.was_asked.set(was_asked);
        if let Some(certificate) = certificate.filter(|_| !self.shared) {
            let _ = self.certificate.set(Arc::new(certificate));
        }
    }

    /// What the client has the key of.
    pub(super) fn certificate(&self) -> Option<&Arc<ShownCertificate>> {
        self.certificate.get()
    }

    /// Whether it shows what it has, or could not whatever it was asked.
    pub(super) fn could_show(&self) -> bool {
        self.was_asked.get() || self.shared || self.door != Door::Public
    }

    /// Whether it comes from a trusted proxy.
    pub(super) fn is_of_trusted_proxy(&self) -> bool {
        self.shared
    }

    /// Whether it is on the port where other proxies ask.
    pub(super) fn is_for_questions(&self) -> bool {
        self.door == Door::Proxies
    }

    /// Counts a form until it has been handled; `None` if there are too many.
    pub(super) fn form(&self) -> Option<Permit> {
        self.hold(&self.forms, MOST_FORMS)
    }

    /// The same, but waits for a while, unless too many wait already.
    pub(super) async fn form_in_time(&self) -> Option<Permit> {
        if let Some(form) = self.form() {
            return Some(form);
        }
        let _waits = self.hold(&self.waiting, MOST_WAITING)?;
        self.hold_in_time(&self.forms, MOST_FORMS).await
    }

    /// Counts a response of ours until the client has read it; `None` if there are too many.
    pub(super) fn unread(&self) -> Option<Permit> {
        self.hold(&self.unread, MOST_UNREAD)
    }

    /// The same, but waits for a while: a browser that restores its tabs requests all pages at once.
    pub(super) async fn unread_in_time(&self) -> Option<Permit> {
        self.hold_in_time(&self.unread, MOST_UNREAD).await
    }

    /// Counts a WebSocket or an event stream until it ends; `None` if there are `most` on this connection.
    pub(super) fn stream(&self, most: u32) -> Option<Permit> {
        self.hold(&self.streams, most)
    }

    async fn hold_in_time(&self, count: &Rc<Count>, most: u32) -> Option<Permit> {
        let held = async {
            loop {
                match self.hold(count, most) {
                    Some(held) => return held,
                    None => count.freed.notified().await,
                }
            }
        };
        timeout(TAKES, held).await.ok()
    }

    fn hold(&self, count: &Rc<Count>, most: u32) -> Option<Permit> {
        (self.shared || count.held.get() < most).then(|| {
            count.held.set(count.held.get() + 1);
            Permit(Rc::clone(count))
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.held.set(self.0.held.get() - 1);
        self.0.freed.notify_one();
    }
}
