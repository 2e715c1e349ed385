//! The stages of a connection, and their deadlines.

use std::cell::Cell;

use super::timeouts::{Ticks, Timeouts};

/// Milliseconds after which an idle HTTP/1 connection gives up its buffers.
const REST: u32 = 1000;

/// The stage a connection is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No byte has arrived yet.
    FirstByte,
    /// Part of a head has arrived.
    Head,
    /// A request is being answered.
    Busy,
    /// Between requests.
    Idle,
    /// A request has been answered while its body is still arriving.
    Behind,
}

/// The stage of one connection, and when it began.
#[derive(Debug)]
pub(super) struct Deadlines {
    stage: Cell<Stage>,
    since: Cell<u32>,
    /// Requests in progress.
    active: Cell<u32>,
    rests: Cell<bool>,
}

impl Deadlines {
    pub(super) fn new(ticks: &Ticks) -> Self {
        Self {
            stage: Cell::new(Stage::FirstByte),
            since: Cell::new(ticks.now()),
            active: Cell::new(0),
            rests: Cell::new(false),
        }
    }

    fn enter(&self, stage: Stage, ticks: &Ticks) {
        self.stage.set(stage);
        self.since.set(ticks.now());
    }

    /// Bytes have arrived. `heads`: they start a head, as they do between requests on HTTP/1.
    pub(super) fn received(&self, heads: bool, ticks: &Ticks) {
        match self.stage.get() {
            Stage::Behind => self.enter(Stage::Behind, ticks),
            Stage::FirstByte | Stage::Idle => {
                self.rests.set(false);
                self.enter(if heads { Stage::Head } else { Stage::Idle }, ticks);
            }
            Stage::Head | Stage::Busy => {}
        }
    }

    /// A request begins.
    pub(super) fn begin(&self, ticks: &Ticks) {
        self.active.set(self.active.get().saturating_add(1));
        self.enter(Stage::Busy, ticks);
    }

    /// The request in progress has been answered, but its body is still being read.
    pub(super) fn answered(&self, ticks: &Ticks) {
        if self.stage.get() == Stage::Busy {
            self.enter(Stage::Behind, ticks);
        }
    }

    /// A request has ended.
    pub(super) fn end(&self, ticks: &Ticks) {
        self.active.set(self.active.get().saturating_sub(1));
        if self.active.get() == 0 {
            self.enter(Stage::Idle, ticks);
        }
    }

    /// Whether the stage has lasted too long.
    pub(super) fn have_passed(&self, timeouts: Timeouts, ticks: &Ticks) -> bool {
        let limit = match self.stage.get() {
            Stage::FirstByte => timeouts.first_byte,
            Stage::Head => timeouts.head,
            Stage::Idle => timeouts.idle,
            Stage::Behind => timeouts.stall,
            // Requests have no deadline here; their bodies have their own.
            Stage::Busy => u32::MAX,
        };
        ticks.since(self.since.get()) >= limit
    }

    /// Whether the connection has become idle for long enough since the last call.
    pub(super) fn comes_to_rest(&self, ticks: &Ticks) -> bool {
        let rests = self.stage.get() == Stage::Idle && ticks.since(self.since.get()) >= REST;
        rests && !self.rests.replace(true)
    }

    /// Whether the connection has been idle for long enough to give up its buffers.
    pub(super) fn rests(&self) -> bool {
        self.rests.get() && self.stage.get() == Stage::Idle
    }

    /// Since when the connection is idle, if it is.
    pub(super) fn idle_since(&self) -> Option<u32> {
        (self.stage.get() == Stage::Idle).then(|| self.since.get())
    }
}
