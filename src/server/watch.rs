//! Keeps an eye on one connection: where it is in its life, since when, and whether it has overstayed.
//!
//! Nothing here sets a timer a request. A connection notes its progress in atomics against a coarse clock, and each
//! worker sweeps its connections a few times a second.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed},
    },
    task::Waker,
};

use futures_util::task::AtomicWaker;

use super::Config;

/// Most idle frames of HTTP/2 between two sweeps: far more than any client has use for.
const MOST_IDLE_FRAMES: u32 = 1000;
/// Whoever takes so many bytes of us may send one more, such as the window updates of a download.
const BYTES_PER_IDLE_FRAME: u32 = 256;
/// And for each part of a body, however small, two: clients of gRPC widen the windows of stream and connection message by message.
const IDLE_FRAMES_PER_PART: u32 = 2;

/// How long a connection of HTTP/1 has to be idle to be worth letting go of its protocol, in milliseconds.
const REST: u32 = 1000;

/// The worker's coarse clock: milliseconds since it started, moved by its sweep. It starts at one, so that zero can
/// mean "not running".
#[derive(Debug)]
pub(super) struct Ticks(AtomicU32);

impl Ticks {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(1))
    }

    pub(super) fn advance_to(&self, millis: u32) {
        self.0.store(millis.max(1), Relaxed);
    }

    pub(super) fn now(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// How long each stage may last, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    first_byte: u32,
    head: u32,
    idle: u32,
    pub(super) stall: u32,
    /// Bytes that a client has to take in `stall` of being waited for.
    pub(super) least: u32,
}

impl Patience {
    /// All that a flow looks at.
    #[cfg(test)]
    pub(super) const fn with(stall: u32, least: u32) -> Self {
        Self { first_byte: 0, head: 0, idle: 0, stall, least }
    }

    pub(super) fn new(config: &Config) -> Self {
        let millis = |duration: std::time::Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        Self {
            first_byte: millis(config.first_byte_timeout),
            head: millis(config.head_timeout),
            idle: millis(config.idle_timeout),
            stall: millis(config.stall_timeout),
            least: u32::try_from(
                u128::from(config.min_rate).saturating_mul(config.stall_timeout.as_millis()) / 1000,
            )
            .unwrap_or(u32::MAX),
        }
    }
}

/// The stage a connection is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    /// Nothing has come yet.
    FirstByte = 0,
    /// Part of a head has come.
    Head = 1,
    /// A request is being answered.
    Busy = 2,
    /// Between requests.
    Idle = 3,
    /// A request has been answered, and its body still comes.
    Behind = 4,
}

/// The notes of one connection, shared by its IO, its service and the sweep.
#[derive(Debug)]
pub(super) struct Watch {
    ticks: Arc<Ticks>,
    stage: AtomicU8,
    stage_since: AtomicU32,
    active: AtomicU32,
    /// When the peer stopped taking our bytes; zero while it takes them.
    blocked_since: AtomicU32,
    /// How long it had us wait before, and what it has taken since.
    blocked_for: AtomicU32,
    taken: AtomicU32,
    resting: AtomicBool,
    /// Something of HTTP/2 has been written and not been sent.
    holds_back: AtomicBool,
    /// What has been held back is to be sent now.
    sends: AtomicBool,
    /// Since the last sweep.
    idle_frames: AtomicU32,
    /// Written on HTTP/2 since the last sweep.
    written: AtomicU32,
    /// Parts of bodies given on HTTP/2 since the last sweep.
    parts: AtomicU32,
    /// When a head of HTTP/2 began that is not whole yet, during which nothing else can come; zero outside of heads.
    head_since: AtomicU32,
    expired: AtomicBool,
    draining: AtomicBool,
    waker: AtomicWaker,
    has_interim: AtomicBool,
    interim: Mutex<Vec<u8>>,
}

impl Watch {
    pub(super) fn new(ticks: Arc<Ticks>) -> Arc<Self> {
        let since = ticks.now();
        Arc::new(Self {
            ticks,
            stage: AtomicU8::new(Stage::FirstByte as u8),
            stage_since: AtomicU32::new(since),
            active: AtomicU32::new(0),
            blocked_since: AtomicU32::new(0),
            blocked_for: AtomicU32::new(0),
            taken: AtomicU32::new(0),
            resting: AtomicBool::new(false),
            holds_back: AtomicBool::new(false),
            sends: AtomicBool::new(false),
            idle_frames: AtomicU32::new(0),
            written: AtomicU32::new(0),
            parts: AtomicU32::new(0),
            head_since: AtomicU32::new(0),
            expired: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            has_interim: AtomicBool::new(false),
            interim: Mutex::new(Vec::new()),
        })
    }

    fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Relaxed);
        self.stage_since.store(self.ticks.now(), Relaxed);
    }

    fn is_in(&self, stage: Stage) -> bool {
        self.stage.load(Relaxed) == stage as u8
    }

    /// Bytes have come. `heads` says whether they start a head, as between requests of HTTP/1 they do.
    pub(super) fn received(&self, heads: bool) {
        if self.is_in(Stage::Behind) {
            self.enter(Stage::Behind);
        } else if self.is_in(Stage::FirstByte) || self.is_in(Stage::Idle) {
            self.resting.store(false, Relaxed);
            self.enter(if heads { Stage::Head } else { Stage::Idle });
        }
    }

    /// Whether the connection has nothing to do, and has had for a while.
    pub(super) fn rests(&self) -> bool {
        self.resting.load(Relaxed) && self.is_in(Stage::Idle)
    }

    /// A request is being answered until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.active.store(self.active.load(Relaxed).saturating_add(1), Relaxed);
        self.enter(Stage::Busy);
        Busy(Arc::clone(self))
    }

    /// The request in progress has been answered, and somebody reads on: from now on nothing but its body is waited for.
    pub(super) fn answered(&self) {
        if self.is_in(Stage::Busy) {
            self.enter(Stage::Behind);
        }
    }

    /// The socket did not take our bytes.
    pub(super) fn blocked(&self) {
        if self.blocked_since.load(Relaxed) == 0 {
            self.blocked_since.store(self.ticks.now(), Relaxed);
        }
    }

    /// Notes whether something has been written and not been sent.
    pub(super) fn hold_back(&self, something: bool) {
        self.holds_back.store(something, Relaxed);
    }

    pub(super) fn holds_back(&self) -> bool {
        self.holds_back.load(Relaxed)
    }

    /// Whether a flush is meant, as opposed to one more frame being written.
    pub(super) fn send_now(&self, now: bool) {
        self.sends.store(now, Relaxed);
    }

    pub(super) fn sends_now(&self) -> bool {
        self.sends.load(Relaxed)
    }

    /// The socket took so many of our bytes.
    pub(super) fn took(&self, bytes: usize) {
        let since = self.blocked_since.load(Relaxed);
        if since != 0 {
            self.blocked_since.store(0, Relaxed);
            add(&self.blocked_for, self.ticks.now().saturating_sub(since));
        }
        if self.blocked_for.load(Relaxed) != 0 {
            add(&self.taken, u32::try_from(bytes).unwrap_or(u32::MAX));
        }
    }

    /// So many bytes have been written on HTTP/2.
    pub(super) fn wrote(&self, bytes: usize) {
        add(&self.written, u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// A part of an answer's body goes out on HTTP/2.
    pub(super) fn gave_part(&self) {
        add(&self.parts, 1);
    }

    /// Whether what has come of HTTP/2 ends in the middle of a head.
    pub(super) fn received_part_of_head(&self, part: bool) {
        if !part {
            self.head_since.store(0, Relaxed);
        } else if self.head_since.load(Relaxed) == 0 {
            self.head_since.store(self.ticks.now(), Relaxed);
        }
    }

    /// Frames of HTTP/2 have come that neither ask for anything nor carry anything.
    pub(super) fn received_idle_frames(&self, count: u32) {
        if count > 0 {
            add(&self.idle_frames, count);
        }
    }

    /// Marks the connection for closing when a stage has lasted too long, or when it does nothing but keep us busy.
    pub(super) fn check(&self, patience: Patience) {
        let now = self.ticks.now();
        let stage_limit = match self.stage.load(Relaxed) {
            stage if stage == Stage::FirstByte as u8 => patience.first_byte,
            stage if stage == Stage::Head as u8 => patience.head,
            stage if stage == Stage::Idle as u8 => patience.idle,
            stage if stage == Stage::Behind as u8 => patience.stall,
            // A request may take its time; its bodies have deadlines of their own.
            _ => u32::MAX,
        };
        let lasts = |since: &AtomicU32| match since.load(Relaxed) {
            0 => 0,
            since => now.saturating_sub(since),
        };
        if self.taken.load(Relaxed) >= patience.least {
            self.taken.store(0, Relaxed);
            self.blocked_for.store(0, Relaxed);
        }
        let blocked = lasts(&self.blocked_since).saturating_add(self.blocked_for.load(Relaxed));
        let stalled = blocked >= patience.stall || lasts(&self.head_since) >= patience.head;
        let taken = (self.written.swap(0, Relaxed) / BYTES_PER_IDLE_FRAME)
            .saturating_add(self.parts.swap(0, Relaxed).saturating_mul(IDLE_FRAMES_PER_PART));
        let most_idle = MOST_IDLE_FRAMES.saturating_add(taken);
        let flooded = self.idle_frames.swap(0, Relaxed) > most_idle;
        if self.is_in(Stage::Idle)
            && now.saturating_sub(self.stage_since.load(Relaxed)) >= REST
            && !self.resting.swap(true, Relaxed)
        {
            self.waker.wake();
        }
        if flooded || stalled || now.saturating_sub(self.stage_since.load(Relaxed)) >= stage_limit {
            self.expire();
        }
    }

    /// Closes the connection.
    pub(super) fn expire(&self) {
        self.expired.store(true, Relaxed);
        self.waker.wake();
    }

    /// Since when it has been between two requests; none when it is not, or about to be closed anyway.
    pub(super) fn idle_since(&self) -> Option<u32> {
        (self.is_in(Stage::Idle) && !self.is_expired()).then(|| self.stage_since.load(Relaxed))
    }

    /// Wakes `waker` when there is something to look at besides the protocol.
    pub(super) fn wakes(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Whether the connection has overstayed and is to be closed.
    pub(super) fn is_expired(&self) -> bool {
        self.expired.load(Relaxed)
    }

    /// Asks the connection to finish what it is doing and end.
    pub(super) fn drain(&self) {
        if !self.draining.swap(true, Relaxed) {
            self.waker.wake();
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Leaves an interim answer (1xx) to be written before the final one.
    pub(super) fn leave_interim(&self, wire: &[u8]) {
        self.interim.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(wire);
        self.has_interim.store(true, Relaxed);
        self.waker.wake();
    }

    /// Takes what [`Self::leave_interim`] left.
    pub(super) fn take_interim(&self) -> Option<Vec<u8>> {
        if !self.has_interim.load(Relaxed) {
            return None;
        }
        self.has_interim.store(false, Relaxed);
        Some(std::mem::take(&mut *self.interim.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Adds without a locked instruction: only the connection's own thread writes, and the sweep is on it too.
fn add(count: &AtomicU32, more: u32) {
    count.store(count.load(Relaxed).saturating_add(more), Relaxed);
}

/// One request in progress.
#[derive(Debug)]
pub(super) struct Busy(Arc<Watch>);

impl Busy {
    /// A part of its answer's body goes out on HTTP/2.
    pub(super) fn gave_part(&self) {
        self.0.gave_part();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let left = self.0.active.load(Relaxed).saturating_sub(1);
        self.0.active.store(left, Relaxed);
        if left == 0 {
            self.0.enter(Stage::Idle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { first_byte: 50, head: 100, idle: 1000, stall: 300, least: 1000 };

    fn expired(watch: &Watch, at: u32) -> bool {
        watch.ticks.advance_to(at);
        watch.check(PATIENCE);
        watch.expired.load(Relaxed)
    }

    #[test]
    fn each_stage_has_its_own_deadline() {
        let silent = Watch::new(Arc::new(Ticks::new()));
        assert!(!expired(&silent, 50));
        assert!(expired(&silent, 51));

        let slow_head = Watch::new(Arc::new(Ticks::new()));
        slow_head.received(true);
        slow_head.ticks.advance_to(90);
        // More bytes of the same head do not start the stage anew.
        slow_head.received(true);
        assert!(!expired(&slow_head, 100));
        assert!(expired(&slow_head, 101));

        let idle = Watch::new(Arc::new(Ticks::new()));
        idle.received(true);
        let request = idle.begin();
        assert!(!expired(&idle, 1_000_000));
        drop(request);
        assert!(!expired(&idle, 1_000_999));
        assert!(expired(&idle, 1_001_000));

        let behind = Watch::new(Arc::new(Ticks::new()));
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
        let rests = |watch: &Watch, at: u32| {
            watch.ticks.advance_to(at);
            watch.check(Patience { idle: 1_000_000, ..PATIENCE });
            watch.rests()
        };
        let watch = Watch::new(Arc::new(Ticks::new()));
        watch.received(true);
        let request = watch.begin();
        assert!(!rests(&watch, 5000));
        drop(request);
        assert!(!rests(&watch, 5999));
        assert!(rests(&watch, 6000));
        watch.received(true);
        assert!(!watch.rests(), "a request has begun");
        drop(watch.begin());
        assert!(!rests(&watch, 6900));
        assert!(rests(&watch, 7001));
    }

    #[test]
    fn a_flood_of_idle_frames_is_cut_and_a_trickle_is_not() {
        let watch = Watch::new(Arc::new(Ticks::new()));
        let _request = watch.begin();
        for sweep in 1..10 {
            watch.received_idle_frames(MOST_IDLE_FRAMES);
            assert!(!expired(&watch, sweep));
        }
        watch.received_idle_frames(MOST_IDLE_FRAMES);
        watch.received_idle_frames(1);
        assert!(expired(&watch, 10));
    }

    #[test]
    fn window_updates_are_worth_what_is_taken() {
        let watch = Watch::new(Arc::new(Ticks::new()));
        let _request = watch.begin();
        watch.wrote(16 << 20);
        watch.received_idle_frames(60_000);
        assert!(!expired(&watch, 1));
        watch.wrote(1 << 20);
        watch.received_idle_frames(60_000);
        assert!(expired(&watch, 2));
    }

    #[test]
    fn a_stream_of_small_messages_may_be_answered_message_by_message() {
        let watch = Watch::new(Arc::new(Ticks::new()));
        let _request = watch.begin();
        for _ in 0..5000 {
            watch.gave_part();
        }
        watch.wrote(5000 * 18);
        watch.received_idle_frames(10_000);
        assert!(!expired(&watch, 1));
        // It is worth so much once.
        watch.received_idle_frames(10_000);
        assert!(expired(&watch, 2));
    }

    #[test]
    fn a_head_of_http_2_that_does_not_end_is_cut_whatever_else_is_in_progress() {
        let watch = Watch::new(Arc::new(Ticks::new()));
        let _request = watch.begin();
        watch.received_part_of_head(true);
        watch.ticks.advance_to(90);
        watch.received_part_of_head(false);
        watch.received_part_of_head(true);
        watch.ticks.advance_to(150);
        watch.received_part_of_head(true);
        assert!(!expired(&watch, 189));
        assert!(expired(&watch, 190));
    }

    #[test]
    fn a_peer_that_takes_nothing_is_closed_and_so_is_one_that_takes_too_little() {
        let watch = Watch::new(Arc::new(Ticks::new()));
        let _request = watch.begin();
        watch.blocked();
        assert!(!expired(&watch, 300));
        // Enough buys the whole time again.
        watch.took(1000);
        watch.blocked();
        assert!(!expired(&watch, 599));
        watch.took(999);
        watch.blocked();
        assert!(expired(&watch, 600), "299 of 300 milliseconds were used up");

        let watch = Watch::new(Arc::new(Ticks::new()));
        let _request = watch.begin();
        watch.blocked();
        watch.ticks.advance_to(200);
        watch.took(1);
        // To wait for us is no fault of the client's.
        assert!(!expired(&watch, 100_000));
        watch.blocked();
        assert!(!expired(&watch, 100_100));
        assert!(expired(&watch, 100_101));
    }
}
