//! What a peer may send on HTTP/2 that neither asks for anything nor carries anything, and how long a head of it may take.

use std::cell::Cell;

use super::timeouts::{Ticks, Timeouts};

/// Most idle frames between two sweeps: far more than any client has use for.
pub(super) const MOST_IDLE_FRAMES: u32 = 1000;
/// A client that takes so many bytes may send one more, such as the window updates of a download.
const BYTES_PER_IDLE_FRAME: u32 = 256;
/// And for each part of a body, however small, two: clients of gRPC widen the windows of stream and connection message by message.
const IDLE_FRAMES_PER_PART: u32 = 2;

/// The counts of one connection since the last sweep.
#[derive(Debug, Default)]
pub(super) struct FrameBudget {
    idle_frames: Cell<u32>,
    /// Bytes written.
    written: Cell<u32>,
    /// Parts of bodies given.
    parts: Cell<u32>,
    /// When a head began that is not whole yet, during which nothing else can come; zero outside of heads.
    head_since: Cell<u32>,
}

impl FrameBudget {
    /// So many bytes have been written.
    pub(super) fn wrote(&self, bytes: u32) {
        add(&self.written, bytes);
    }

    /// A part of an answer's body goes out.
    pub(super) fn gave_part(&self) {
        add(&self.parts, 1);
    }

    /// Frames have come that neither ask for anything nor carry anything.
    pub(super) fn received_idle(&self, frames: u32) {
        add(&self.idle_frames, frames);
    }

    /// Whether what has come ends in the middle of a head.
    pub(super) fn received_part_of_head(&self, part: bool, ticks: &Ticks) {
        if !part {
            self.head_since.set(0);
        } else if self.head_since.get() == 0 {
            self.head_since.set(ticks.now());
        }
    }

    /// Whether more idle frames have come than what the peer took is worth, or a head takes too long. Counts anew from here.
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
