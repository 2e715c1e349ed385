//! Counts the frames of an HTTP/2 connection that neither ask for anything nor carry anything.
//!
//! The protocol answers or discards each of them without limit. It follows the framing only (RFC 9113 §4.1), and judges
//! nothing: how many are too many is for the watch to say.

const PREFACE: u64 = 24;
/// Length, type, flags, stream.
const HEAD: usize = 9;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
/// The last of the types that the standard knows; others are skipped by whoever reads them.
const CONTINUATION: u8 = 9;

/// The frames of one connection.
#[derive(Debug)]
pub struct RawFrames {
    /// Bytes that belong to no head: the preface at first, then the current frame's payload.
    skip: u64,
    head: [u8; HEAD],
    have: usize,
}

impl Default for RawFrames {
    fn default() -> Self {
        Self { skip: PREFACE, head: [0; HEAD], have: 0 }
    }
}

impl RawFrames {
    /// Takes the bytes of one read, and says how many idle frames began in them.
    ///
    /// A download at full speed needs thousands of `WINDOW_UPDATE` a second; they are not counted, nor is what the
    /// protocol limits by itself: resets, continuations and empty data.
    pub fn watch(&mut self, mut bytes: &[u8]) -> u32 {
        let mut idle = 0;
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                self.skip -= skipped;
                bytes = bytes.get(usize::try_from(skipped).unwrap_or(usize::MAX)..).unwrap_or_default();
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(HEAD - self.have));
            if let Some(room) = self.head.get_mut(self.have..self.have + now.len()) {
                room.copy_from_slice(now);
            }
            self.have += now.len();
            bytes = later;
            if self.have == HEAD {
                let [high, middle, low, kind, ..] = self.head;
                self.skip = u64::from(u32::from_be_bytes([0, high, middle, low]));
                self.have = 0;
                idle += u32::from(matches!(kind, PRIORITY | SETTINGS | PING) || kind > CONTINUATION);
            }
        }
        idle
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
        assert_eq!(RawFrames::default().watch(&wire), 5);
        for size in 1..40 {
            let mut frames = RawFrames::default();
            assert_eq!(wire.chunks(size).map(|piece| frames.watch(piece)).sum::<u32>(), 5, "{size}");
        }
    }
}
