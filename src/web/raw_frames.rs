//! Counts the frames of an HTTP/2 connection that neither ask for anything nor carry anything.
//!
//! The protocol answers or discards each of them without limit. It follows the framing only (RFC 9113 §4.1), and judges
//! nothing: how many are too many is for the watch to say.

const PREFACE: u64 = 24;
/// Length, type, flags, stream.
const START: usize = 9;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 4;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
/// The last of the types that the standard knows; others are skipped by whoever reads them.
const CONTINUATION: u8 = 9;

/// The frames of one connection.
#[derive(Debug)]
pub struct RawFrames {
    /// Bytes that belong to no head: the preface at first, then the current frame's payload.
    skip: u64,
    start: [u8; START],
    have: usize,
    head_is: Head,
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
        Self { skip: PREFACE, start: [0; START], have: 0, head_is: Head::Whole }
    }
}

impl RawFrames {
    /// Takes the bytes of one read, and says how many idle frames began in them.
    ///
    /// What the protocol limits by itself is not counted: resets, continuations and empty data.
    pub fn watch(&mut self, mut bytes: &[u8]) -> u32 {
        let mut idle = 0;
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                self.skip -= skipped;
                bytes = bytes.get(usize::try_from(skipped).unwrap_or(usize::MAX)..).unwrap_or_default();
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(START - self.have));
            if let Some(room) = self.start.get_mut(self.have..self.have + now.len()) {
                room.copy_from_slice(now);
            }
            self.have += now.len();
            bytes = later;
            if self.have == START {
                let [high, middle, low, kind, flags, ..] = self.start;
                self.skip = u64::from(u32::from_be_bytes([0, high, middle, low]));
                self.have = 0;
                idle += u32::from(
                    matches!(kind, PRIORITY | SETTINGS | PING | WINDOW_UPDATE) || kind > CONTINUATION,
                );
                self.head_is = match kind {
                    HEADERS | CONTINUATION if flags & END_HEADERS == 0 => Head::Open,
                    HEADERS | CONTINUATION => Head::Last,
                    _ => Head::Whole,
                };
            }
        }
        idle
    }

    /// Whether the bytes so far end in the middle of a request's head.
    pub fn is_in_head(&self) -> bool {
        match self.head_is {
            Head::Whole => false,
            Head::Open => true,
            Head::Last => self.skip > 0,
        }
    }
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
        assert_eq!(RawFrames::default().watch(&wire), 6);
        for size in 1..40 {
            let mut frames = RawFrames::default();
            assert_eq!(wire.chunks(size).map(|piece| frames.watch(piece)).sum::<u32>(), 6, "{size}");
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
            .iter()
            .enumerate()
            .filter_map(|(at, octet)| {
                frames.watch(&[*octet]);
                frames.is_in_head().then_some(at)
            })
            .collect();
        // The first is known by the nine octets that begin it; the second ends with its last.
        let [first, second] = [24 + 11 + 8..24 + 33 - 1, 24 + 44 + 8..24 + 55 - 1];
        assert_eq!(inside, first.chain(second).collect::<Vec<_>>());
    }
}
