//! Parses the frames of an HTTP/2 connection (RFC 9113 §4.1): counts idle ones, which neither ask for anything nor carry
//! anything, and marks fragments in heads.
//!
//! hyper answers or discards idle frames without limit; the connection's monitor limits them.

use super::raw_paths::{RawPaths, Unreadable};

const PREFACE: u64 = 24;
/// Length, type, flags, stream.
const START: usize = 9;
/// The length of the padding, and the priority: what a head's frame may have in front of the head.
const MOST_IN_FRONT: usize = 6;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITISED: u8 = 0x20;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
/// The last frame type of the standard; unknown types are skipped.
const CONTINUATION: u8 = 9;
/// A stream's number: the bit above means nothing.
const STREAM: u32 = 0x7fff_ffff;

/// The frames of one connection.
#[derive(Debug)]
pub struct RawFrames {
    /// Octets that belong to no head: the preface at first, then a payload or the padding of a head.
    skip: u64,
    /// Octets of a head in this frame, which come before those to skip.
    block: u32,
    /// How the frame starts, with what its head has in front.
    start: [u8; START + MOST_IN_FRONT],
    have: usize,
    wanted: usize,
    head_is: Head,
    paths: RawPaths,
}

/// Where in a request's head the bytes end (RFC 9113 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    Whole,
    /// More frames of it follow.
    Open,
    /// The last frame of it has begun.
    Last,
}

impl Default for RawFrames {
    fn default() -> Self {
        Self {
            skip: PREFACE,
            block: 0,
            start: [0; START + MOST_IN_FRONT],
            have: 0,
            wanted: START,
            head_is: Head::Whole,
            paths: RawPaths::default(),
        }
    }
}

impl RawFrames {
    /// Takes the bytes of one read, marks the fragments in them, and says how many idle frames began in them.
    ///
    /// What the protocol limits by itself is not counted: resets, continuations and empty data. The connection has to end
    /// with an error.
    pub fn watch(&mut self, mut bytes: &mut [u8]) -> Result<u32, Unreadable> {
        let mut idle = 0;
        while !bytes.is_empty() {
            let (ahead, is_head) =
                if self.block > 0 { (self.block.into(), true) } else { (self.skip, false) };
            let ahead = usize::try_from(ahead).unwrap_or(usize::MAX);
            let here = if ahead > 0 { ahead } else { self.wanted - self.have }.min(bytes.len());
            let (now, later) = bytes.split_at_mut(here);
            bytes = later;
            if is_head {
                self.paths.mark(now)?;
                self.block = self.block.saturating_sub(u32::try_from(here).unwrap_or(u32::MAX));
            } else if ahead > 0 {
                self.skip = self.skip.saturating_sub(u64::try_from(here).unwrap_or(u64::MAX));
            } else {
                if let Some(room) = self.start.get_mut(self.have..self.have + here) {
                    room.copy_from_slice(now);
                }
                self.have += here;
                if self.have == self.wanted {
                    idle += u32::from(self.start()?);
                }
            }
        }
        Ok(idle)
    }

    /// Reads what has been gathered: how a frame starts, or what its head has in front. Says whether an idle one began.
    fn start(&mut self) -> Result<bool, Unreadable> {
        let [high, middle, low, kind, flags, ..] = self.start;
        let length = u32::from_be_bytes([0, high, middle, low]);
        if self.wanted > START {
            self.open(length, flags);
            return Ok(false);
        }
        if !matches!(kind, HEADERS | CONTINUATION) {
            self.have = 0;
            self.skip = length.into();
            self.head_is = Head::Whole;
            // No client may push (RFC 9113 §8.4), and what it does to the table is not followed here.
            return if kind == PUSH_PROMISE { Err(Unreadable) } else { Ok(is_idle(kind)) };
        }
        self.head_is = if flags & END_HEADERS == 0 { Head::Open } else { Head::Last };
        if kind == HEADERS {
            self.paths.begin();
            let in_front = in_front(flags);
            if in_front > 0 && u32::from(in_front) <= length {
                self.wanted += usize::from(in_front);
                return Ok(false);
            }
        }
        self.have = 0;
        self.block = length;
        Ok(false)
    }

    /// Reads what a head has in front.
    fn open(&mut self, length: u32, flags: u8) {
        let [_, _, _, _, _, stream_1, stream_2, stream_3, stream_4, front @ ..] = self.start;
        let (padding, parent) = match front {
            [padding, one, two, three, four, _] if flags & PADDED != 0 => (padding, [one, two, three, four]),
            [one, two, three, four, ..] => (0, [one, two, three, four]),
        };
        let stream = u32::from_be_bytes([stream_1, stream_2, stream_3, stream_4]) & STREAM;
        // The reader resets a stream that depends on itself, and does not read its head.
        let is_read = flags & PRIORITISED == 0 || u32::from_be_bytes(parent) & STREAM != stream;
        let rest = length.saturating_sub(in_front(flags).into());
        self.block = if is_read { rest.saturating_sub(padding.into()) } else { 0 };
        self.skip = u64::from(rest - self.block);
        self.have = 0;
        self.wanted = START;
    }

    /// Whether the bytes so far end in the middle of a request's head.
    pub fn is_in_head(&self) -> bool {
        match self.head_is {
            Head::Whole => false,
            Head::Open => true,
            Head::Last => self.skip > 0 || self.block > 0 || self.wanted > START,
        }
    }
}

/// How much a frame with these flags has in front of its head.
fn in_front(flags: u8) -> u8 {
    u8::from(flags & PADDED != 0) + 5 * u8::from(flags & PRIORITISED != 0)
}

fn is_idle(kind: u8) -> bool {
    matches!(kind, PRIORITY | SETTINGS | PING | WINDOW_UPDATE) || kind > CONTINUATION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_frames_are_counted_however_the_bytes_arrive() {
        let mut wire = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        for (kind, payload) in
            [(4, 6), (6, 8), (2, 5), (0, 300), (1, 70), (8, 4), (9, 3), (3, 4), (0xb7, 0), (6, 8)]
        {
            wire.extend([
                0,
                u8::try_from(payload / 256).unwrap(),
                u8::try_from(payload % 256).unwrap(),
                kind,
            ]);
            // A payload of pings is no ping.
            wire.extend(std::iter::repeat_n(6, 5 + payload));
        }
        assert_eq!(RawFrames::default().watch(&mut wire), Ok(6));
        for size in 1..40 {
            let mut frames = RawFrames::default();
            let idle: u32 = wire.chunks_mut(size).map(|piece| frames.watch(piece).unwrap()).sum();
            assert_eq!(idle, 6, "{size}");
        }
    }

    #[test]
    fn a_head_lasts_from_its_first_octet_to_its_last() {
        let frame = |kind: u8, flags: u8| [&[0, 0, 2, kind, flags, 0, 0, 0, 1][..], b"ab"].concat();
        let wire = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(SETTINGS, 0),
            frame(HEADERS, 0),
            frame(CONTINUATION, END_HEADERS),
            frame(0, 1),
            frame(HEADERS, END_HEADERS),
        ]
        .concat();
        let mut frames = RawFrames::default();
        let inside: Vec<usize> = wire
            .into_iter()
            .enumerate()
            .filter_map(|(at, octet)| {
                frames.watch(&mut [octet]).unwrap();
                frames.is_in_head().then_some(at)
            })
            .collect();
        // The first is known by the nine octets that begin it; the second ends with its last.
        let [first, second] = [24 + 11 + 8..24 + 33 - 1, 24 + 44 + 8..24 + 55 - 1];
        assert_eq!(inside, first.chain(second).collect::<Vec<_>>());
    }
}
