//! The timeouts of a connection's stages, and the coarse clock that measures them.

use std::{cell::Cell, time::Duration};

use super::Config;

/// A worker's coarse clock: milliseconds since its start, advanced by its sweep. It starts at one, so that zero can mean "not
/// running".
#[derive(Debug)]
pub(super) struct Ticks(Cell<u32>);

impl Ticks {
    pub(super) fn new() -> Self {
        Self(Cell::new(1))
    }

    pub(super) fn advance_to(&self, millis: u32) {
        self.0.set(millis.max(1));
    }

    pub(super) fn now(&self) -> u32 {
        self.0.get()
    }

    /// The time elapsed since `since`; zero if that is not running.
    pub(super) fn since(&self, since: u32) -> u32 {
        if since == 0 { 0 } else { self.now().saturating_sub(since) }
    }
}

/// How long each stage may last, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    pub(super) first_byte: u32,
    pub(super) head: u32,
    pub(super) idle: u32,
    pub(super) stall: u32,
    /// Bytes that a client has to take per `stall` of waiting for it.
    pub(super) least: u32,
}

impl Timeouts {
    /// Only what a flow needs.
    #[cfg(test)]
    pub(super) const fn with(stall: u32, least: u32) -> Self {
        Self { first_byte: 0, head: 0, idle: 0, stall, least }
    }

    pub(super) fn new(config: &Config) -> Self {
        let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
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
