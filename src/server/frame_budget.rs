//! Limits floods of HTTP/2 frames that neither ask for anything nor carry anything, and the time that a head may take.

use std::cell::Cell;

use super::timeouts::{Ticks, Timeouts};

/// Most idle frames between two sweeps, far more than a client needs.
pub(super) const MOST_IDLE_FRAMES: u32 = 1000;
/// Bytes written per further idle frame: a download needs window updates.
const BYTES_PER_IDLE_FRAME: u32 = 256;
/// Further idle frames per part of a body: gRPC clients update the windows of stream and connection with each message.
const IDLE_FRAMES_PER_PART: u32 = 2;

/// The counts of one connection since the last sweep.
#[derive(Debug, Default)]
pub(super) struct FrameBudget {
    idle_frames: Cell<u32>,
    /// Bytes written.
    written: Cell<u32>,
    /// Body parts sent.
    parts: Cell<u32>,
    /// When an incomplete head started; zero outside of heads. No other frame may come in between.
    head_since: Cell<u32>,
}

impl FrameBudget {
    /// `bytes` have been written.
    pub(super) fn wrote(&self, bytes: u32) {
        add(&self.written, bytes);
    }

    /// A part of a response body is sent.
    pub(super) fn gave_part(&self) {
        add(&self.parts, 1);
    }

    /// Idle frames have arrived: they neither ask for anything nor carry anything.
    pub(super) fn received_idle(&self, frames: u32) {
        add(&self.idle_frames, frames);
    }

    /// Whether the bytes so far end in the middle of a head.
    pub(super) fn received_part_of_head(&self, part: bool, ticks: &Ticks) {
        if !part {
            self.head_since.set(0);
        } else if self.head_since.get() == 0 {
            self.head_since.set(ticks.now());
        }
    }

    /// Whether there were too many idle frames for what the client read, or a head takes too long. Resets the counts.
    pub(super) fn is_exceeded(&self, timeouts: Timeouts, ticks: &Ticks) -> bool {
        let taken = (self.written.take() / BYTES_PER_IDLE_FRAME)
            .saturating_add(self.parts.take().saturating_mul(IDLE_FRAMES_PER_PART));
        let flooded = self.idle_frames.take() > MOST_IDLE_FRAMES.saturating_add(taken);
        flooded || ticks.since(self.head_since.get()) >= timeouts.head
    }
}

fn add(count: &Cell<u32>, more: u32) {
    count.set(count.get().saturating_add(more));
}
