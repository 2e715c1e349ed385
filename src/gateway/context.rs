//! What is kept of one connection, so that its next request need not be asked the same again, and so that one client does
//! not have us hold much for it.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use super::Site;
use crate::{
    proxy::ForwardedFields, server::Door, telemetry::metrics::OpenConnection, upstream::Tie,
    web::cookies::Jar,
};

/// Forms under way at once on one connection. A head of 16 KiB each is what an attacker has us hold meanwhile.
const MOST_FORMS: u32 = 8;
/// Forms to be saved that wait for those: with them, those of ten tabs.
const MOST_WAITING: u32 = 4;
/// Pages of ours at once that one client of HTTP/2 has asked for and not taken yet: one is some kilobytes.
const MOST_UNREAD: u32 = 16;
/// How long it waits for more of either.
const TAKES: Duration = Duration::from_secs(5);

/// One connection.
pub struct ConnectionContext {
    _open: OpenConnection,
    pub(super) cookies: RefCell<Jar>,
    /// The last client at the last site: always the same, except behind a trusted proxy, which sends requests of many.
    pub(super) forwarded: RefCell<Option<(IpAddr, Rc<Site>, Rc<ForwardedFields>)>>,
    /// What it has at the portal for itself.
    pub(super) tie: Rc<Tie>,
    forms: Rc<Count>,
    waiting: Rc<Count>,
    unread: Rc<Count>,
    streams: Rc<Count>,
    /// Of a trusted proxy, which shares it between many and limits those itself: nothing is limited here.
    shared: bool,
    /// Where it has come in.
    door: Door,
}

#[derive(Default)]
struct Count {
    held: Cell<u32>,
    freed: Notify,
}

/// One of the things that are counted, until it is dropped.
pub(super) struct Held(Rc<Count>);

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
        }
    }

    /// Whether it is that of a proxy which is believed.
    pub(super) fn is_of_trusted_proxy(&self) -> bool {
        self.shared
    }

    /// Whether a proxy asks here what it may let pass, instead of passing it on.
    pub(super) fn is_for_questions(&self) -> bool {
        self.door == Door::Proxies
    }

    /// Counts a form until it has been dealt with; none if there are too many.
    pub(super) fn form(&self) -> Option<Held> {
        self.hold(&self.forms, MOST_FORMS)
    }

    /// The same, and waits a while for the others, unless too many do.
    pub(super) async fn form_in_time(&self) -> Option<Held> {
        if let Some(form) = self.form() {
            return Some(form);
        }
        let _waits = self.hold(&self.waiting, MOST_WAITING)?;
        self.hold_in_time(&self.forms, MOST_FORMS).await
    }

    /// Counts an answer of our own until it has been taken; none when there are too many.
    pub(super) fn unread(&self) -> Option<Held> {
        self.hold(&self.unread, MOST_UNREAD)
    }

    /// The same, and waits a while for the client to take one: the tabs of a browser that opens all of them again ask at once.
    pub(super) async fn unread_in_time(&self) -> Option<Held> {
        self.hold_in_time(&self.unread, MOST_UNREAD).await
    }

    /// Counts a WebSocket or a stream of events until it ends; none when there are `most` on this connection.
    pub(super) fn stream(&self, most: u32) -> Option<Held> {
        self.hold(&self.streams, most)
    }

    async fn hold_in_time(&self, count: &Rc<Count>, most: u32) -> Option<Held> {
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

    fn hold(&self, count: &Rc<Count>, most: u32) -> Option<Held> {
        (self.shared || count.held.get() < most).then(|| {
            count.held.set(count.held.get() + 1);
            Held(Rc::clone(count))
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.set(self.0.held.get() - 1);
        self.0.freed.notify_one();
    }
}
