//! Monitors one connection and decides when it has to be closed.
//!
//! There is no timer per request: a connection notes its progress against a coarse clock, and its worker sweeps all connections
//! a few times per second. Everything here stays on the worker's thread.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Waker,
};

use super::{
    deadlines::Deadlines,
    frame_budget::FrameBudget,
    slow_reader::SlowReader,
    timeouts::{Ticks, Timeouts},
};

/// The state of one connection, shared by its IO, its service and the sweep.
#[derive(Debug)]
pub(super) struct ConnectionMonitor {
    ticks: Rc<Ticks>,
    deadlines: Deadlines,
    slow_reader: SlowReader,
    /// HTTP/2 only.
    frames: FrameBudget,
    expired: Cell<bool>,
    draining: Cell<bool>,
    /// The connection's task.
    waker: RefCell<Option<Waker>>,
}

impl ConnectionMonitor {
    pub(super) fn new(ticks: Rc<Ticks>) -> Rc<Self> {
        Rc::new(Self {
            deadlines: Deadlines::new(&ticks),
            ticks,
            slow_reader: SlowReader::default(),
            frames: FrameBudget::default(),
            expired: Cell::new(false),
            draining: Cell::new(false),
            waker: RefCell::new(None),
        })
    }

    /// Bytes have arrived. `heads`: they start a head, as they do between requests on HTTP/1.
    pub(super) fn received(&self, heads: bool) {
        self.deadlines.received(heads, &self.ticks);
    }

    /// Whether the connection has been idle for long enough to give up its buffers.
    pub(super) fn rests(&self) -> bool {
        self.deadlines.rests()
    }

    /// A request is in progress until the guard is dropped.
    pub(super) fn begin(self: &Rc<Self>) -> ActiveRequest {
        self.deadlines.begin(&self.ticks);
        ActiveRequest(Rc::clone(self))
    }

    /// The request in progress has been answered, but its body is still being read.
    pub(super) fn answered(&self) {
        self.deadlines.answered(&self.ticks);
    }

    /// The socket's buffer is full.
    pub(super) fn blocked(&self) {
        self.slow_reader.block(&self.ticks);
    }

    /// The socket took `bytes`.
    pub(super) fn took(&self, bytes: usize) {
        self.slow_reader.take(u32::try_from(bytes).unwrap_or(u32::MAX), &self.ticks);
    }

    /// `bytes` have been written on HTTP/2.
    pub(super) fn wrote(&self, bytes: usize) {
        self.frames.wrote(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Whether the HTTP/2 bytes so far end in the middle of a head.
    pub(super) fn received_part_of_head(&self, part: bool) {
        self.frames.received_part_of_head(part, &self.ticks);
    }

    /// Idle HTTP/2 frames have arrived: they neither ask for anything nor carry anything.
    pub(super) fn received_idle_frames(&self, count: u32) {
        self.frames.received_idle(count);
    }

    /// Closes the connection when a deadline has passed, the client reads too slowly or floods us with frames.
    pub(super) fn check(&self, timeouts: Timeouts) {
        if self.deadlines.comes_to_rest(&self.ticks) {
            self.wake();
        }
        // All three are called, since each resets its counts.
        let late = self.deadlines.have_passed(timeouts, &self.ticks);
        let slow = self.slow_reader.is_too_slow(timeouts, &self.ticks);
        let floods = self.frames.is_exceeded(timeouts, &self.ticks);
        if late || slow || floods {
            self.expire();
        }
    }

    /// Closes the connection.
    pub(super) fn expire(&self) {
        self.expired.set(true);
        self.wake();
    }

    /// Since when the connection is idle; `None` when it is busy or about to be closed.
    pub(super) fn idle_since(&self) -> Option<u32> {
        self.deadlines.idle_since().filter(|_| !self.is_expired())
    }

    /// Registers the waker of the connection's task.
    pub(super) fn wakes(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        match &mut *known {
            Some(known) => known.clone_from(waker),
            None => *known = Some(waker.clone()),
        }
    }

    /// Wakes the connection's task.
    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Whether the connection is to be closed.
    pub(super) fn is_expired(&self) -> bool {
        self.expired.get()
    }

    /// Asks the connection to finish its requests and close.
    pub(super) fn drain(&self) {
        if !self.draining.replace(true) {
            self.wake();
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }
}

/// One request in progress.
#[derive(Debug)]
pub(super) struct ActiveRequest(Rc<ConnectionMonitor>);

impl ActiveRequest {
    /// A part of its response body is sent on HTTP/2.
    pub(super) fn gave_part(&self) {
        self.0.frames.gave_part();
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.deadlines.end(&self.0.ticks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::frame_budget::MOST_IDLE_FRAMES;

    const TIMEOUTS: Timeouts = Timeouts { first_byte: 50, head: 100, idle: 1000, stall: 300, least: 1000 };

    fn expired(monitor: &ConnectionMonitor, at: u32) -> bool {
        monitor.ticks.advance_to(at);
        monitor.check(TIMEOUTS);
        monitor.is_expired()
    }

    #[test]
    fn each_stage_has_its_own_deadline() {
        let silent = ConnectionMonitor::new(Rc::new(Ticks::new()));
        assert!(!expired(&silent, 50));
        assert!(expired(&silent, 51));

        let slow_head = ConnectionMonitor::new(Rc::new(Ticks::new()));
        slow_head.received(true);
        slow_head.ticks.advance_to(90);
        // More bytes of the same head do not start the stage anew.
        slow_head.received(true);
        assert!(!expired(&slow_head, 100));
        assert!(expired(&slow_head, 101));

        let idle = ConnectionMonitor::new(Rc::new(Ticks::new()));
        idle.received(true);
        let request = idle.begin();
        assert!(!expired(&idle, 1_000_000));
        drop(request);
        assert!(!expired(&idle, 1_000_999));
        assert!(expired(&idle, 1_001_000));

        let behind = ConnectionMonitor::new(Rc::new(Ticks::new()));
        let request = behind.begin();
        behind.ticks.advance_to(1000);
        behind.answered();
        assert!(!expired(&behind, 1299));
        // Here progress counts.
        behind.received(true);
        behind.answered();
        assert!(!expired(&behind, 1598));
        assert!(expired(&behind, 1599));
        drop(request);
    }

    #[test]
    fn a_connection_rests_only_when_it_has_had_nothing_to_do_for_a_while() {
        let rests = |monitor: &ConnectionMonitor, at: u32| {
            monitor.ticks.advance_to(at);
            monitor.check(Timeouts { idle: 1_000_000, ..TIMEOUTS });
            monitor.rests()
        };
        let monitor = ConnectionMonitor::new(Rc::new(Ticks::new()));
        monitor.received(true);
        let request = monitor.begin();
        assert!(!rests(&monitor, 5000));
        drop(request);
        assert!(!rests(&monitor, 5999));
        assert!(rests(&monitor, 6000));
        monitor.received(true);
        assert!(!monitor.rests(), "a request has begun");
        drop(monitor.begin());
        assert!(!rests(&monitor, 6900));
        assert!(rests(&monitor, 7001));
    }

    #[test]
    fn a_flood_of_idle_frames_is_cut_and_a_trickle_is_not() {
        let monitor = ConnectionMonitor::new(Rc::new(Ticks::new()));
        let _request = monitor.begin();
        for sweep in 1..10 {
            monitor.received_idle_frames(MOST_IDLE_FRAMES);
            assert!(!expired(&monitor, sweep));
        }
        monitor.received_idle_frames(MOST_IDLE_FRAMES);
        monitor.received_idle_frames(1);
        assert!(expired(&monitor, 10));
    }

    #[test]
    fn window_updates_are_worth_what_is_taken() {
        let monitor = ConnectionMonitor::new(Rc::new(Ticks::new()));
        let _request = monitor.begin();
        monitor.wrote(16 << 20);
        monitor.received_idle_frames(60_000);
        assert!(!expired(&monitor, 1));
        monitor.wrote(1 << 20);
        monitor.received_idle_frames(60_000);
        assert!(expired(&monitor, 2));
    }

    #[test]
    fn a_stream_of_small_messages_may_be_answered_message_by_message() {
        let monitor = ConnectionMonitor::new(Rc::new(Ticks::new()));
        let request = monitor.begin();
        for _ in 0..5000 {
            request.gave_part();
        }
        monitor.wrote(5000 * 18);
        monitor.received_idle_frames(10_000);
        assert!(!expired(&monitor, 1));
        // It is worth so much once.
        monitor.received_idle_frames(10_000);
        assert!(expired(&monitor, 2));
    }

    #[test]
    fn a_head_of_http_2_that_does_not_end_is_cut_whatever_else_is_in_progress() {
        let monitor = ConnectionMonitor::new(Rc::new(Ticks::new()));
        let _request = monitor.begin();
        monitor.received_part_of_head(true);
        monitor.ticks.advance_to(90);
        monitor.received_part_of_head(false);
        monitor.received_part_of_head(true);
        monitor.ticks.advance_to(150);
        monitor.received_part_of_head(true);
        assert!(!expired(&monitor, 189));
        assert!(expired(&monitor, 190));
    }

    #[test]
    fn a_peer_that_takes_nothing_is_closed_and_so_is_one_that_takes_too_little() {
        let monitor = ConnectionMonitor::new(Rc::new(Ticks::new()));
        let _request = monitor.begin();
        monitor.blocked();
        assert!(!expired(&monitor, 300));
        // Enough buys the whole time again.
        monitor.took(1000);
        monitor.blocked();
        assert!(!expired(&monitor, 599));
        monitor.took(999);
        monitor.blocked();
        assert!(expired(&monitor, 600), "299 of 300 milliseconds were used up");

        let monitor = ConnectionMonitor::new(Rc::new(Ticks::new()));
        let _request = monitor.begin();
        monitor.blocked();
        monitor.ticks.advance_to(200);
        monitor.took(1);
        // To wait for us is no fault of the client's.
        assert!(!expired(&monitor, 100_000));
        monitor.blocked();
        assert!(!expired(&monitor, 100_100));
        assert!(expired(&monitor, 100_101));
    }
}
