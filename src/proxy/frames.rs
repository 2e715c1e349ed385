//! Finds the frames of a WebSocket (RFC 6455 §5.2), so that a close frame of ours can be put between two of the
//! portal's, and tells data from control frames. Looks only at the heads of frames, and changes nothing.

/// Maximum length of a frame's head: two bytes, a length of eight, a mask of four.
const LONGEST_HEAD: usize = 14;
const CLOSE: u8 = 0x8;
/// The opcode bit of control frames.
const CONTROL: u8 = 0x8;

/// The frames of one direction.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; LONGEST_HEAD],
    have: usize,
    /// Remaining bytes of the current frame's payload.
    left: u64,
    /// Whether that is a control frame.
    is_control: bool,
    has_closed: bool,
}

impl Frames {
    /// Notes the bytes that have just passed. Returns whether any of them belong to a message, not to a ping, pong or
    /// close, which a browser sends by itself.
    pub(super) fn watch(&mut self, mut bytes: &[u8]) -> bool {
        let mut has_data = false;
        while !bytes.is_empty() {
            if self.left > 0 {
                has_data |= !self.is_control;
                let passed = self.left.min(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                self.left -= passed;
                bytes = bytes.get(usize::try_from(passed).unwrap_or(usize::MAX)..).unwrap_or_default();
                continue;
            }
            let wanted = self.head_length().saturating_sub(self.have);
            let (now, later) = bytes.split_at(bytes.len().min(wanted));
            if let Some(room) = self.head.get_mut(self.have..self.have + now.len()) {
                room.copy_from_slice(now);
            }
            self.have += now.len();
            bytes = later;
            if self.have >= 2 && self.have == self.head_length() {
                self.begin();
                has_data |= !self.is_control;
            }
        }
        has_data
    }

    /// The length of the current head, as far as its first two bytes are known.
    fn head_length(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let [_, second, ..] = self.head;
        let length = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + if second & 0x80 == 0 { 0 } else { 4 }
    }

    fn begin(&mut self) {
        let [first, second, length @ ..] = self.head;
        let [wide, ..] = length.as_chunks::<8>().0 else { return };
        self.left = match second & 0x7f {
            126 => u64::from_be_bytes(*wide) >> 48,
            127 => u64::from_be_bytes(*wide),
            short => u64::from(short),
        };
        self.is_control = first & CONTROL != 0;
        self.has_closed |= first & 0x0f == CLOSE;
        self.have = 0;
    }

    /// A close frame, if there is a place for it: between two frames, and before any other close frame.
    pub(super) fn close(&self, code: u16, reason: &str) -> Option<Vec<u8>> {
        // A control frame has at most 125 bytes.
        let reason = reason.as_bytes().get(..reason.len().min(123)).unwrap_or_default();
        let length = u8::try_from(reason.len() + 2).ok()?;
        let is_between = self.have == 0 && self.left == 0;
        (is_between && !self.has_closed).then(|| {
            let mut frame = vec![0x80 | CLOSE, length];
            frame.extend(code.to_be_bytes());
            frame.extend(reason);
            frame
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, length: usize, masked: bool) -> Vec<u8> {
        let mut frame = vec![opcode];
        let mask = if masked { 0x80 } else { 0 };
        match length {
            0..126 => frame.push(mask | u8::try_from(length).unwrap()),
            126..65536 => {
                frame.push(mask | 0x7e);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(mask | 0x7f);
                frame.extend(u64::try_from(length).unwrap().to_be_bytes());
            }
        }
        frame.extend(std::iter::repeat_n(0xff, length + if masked { 4 } else { 0 }));
        frame
    }

    #[test]
    fn there_is_room_between_frames_and_nowhere_else() {
        for length in [0, 1, 125, 126, 300, 70_000] {
            for masked in [false, true] {
                let wire = frame(0x82, length, masked);
                let mut frames = Frames::default();
                for (at, byte) in wire.iter().enumerate() {
                    assert_eq!(frames.close(1008, "over").is_some(), at == 0, "{length} at {at}");
                    frames.watch(&[*byte]);
                }
                assert_eq!(frames.close(1008, "over").unwrap(), b"\x88\x06\x03\xf0over");
            }
        }
    }

    #[test]
    fn it_does_not_matter_how_the_bytes_arrive() {
        let wire: Vec<u8> = [(1, 5), (0x80, 200), (0x89, 0), (0x82, 66_000)]
            .map(|(code, length)| frame(code, length, false))
            .concat();
        for size in [1, 2, 3, 7, 100, 8192, wire.len()] {
            let mut frames = Frames::default();
            wire.chunks(size).for_each(|piece| _ = frames.watch(piece));
            assert!(frames.close(1001, "").is_some(), "{size}");
            frames.watch(&[0x81]);
            assert!(frames.close(1001, "").is_none(), "{size}");
        }
    }

    #[test]
    fn only_messages_are_data_however_they_are_cut() {
        for (opcode, is_data) in
            [(0x1, true), (0x2, true), (0x80, true), (0x88, false), (0x89, false), (0x8a, false)]
        {
            for length in [0, 4, 125] {
                let wire = frame(opcode, length, true);
                for size in [1, 2, 5, wire.len()] {
                    let mut frames = Frames::default();
                    let data = wire.chunks(size).filter(|piece| frames.watch(piece)).count();
                    assert_eq!(data > 0, is_data, "{opcode:x} of {length} by {size}");
                }
            }
        }
        // A pong between two parts of a message, all at once.
        let mut frames = Frames::default();
        assert!(frames.watch(&[frame(0x8a, 2, true), frame(0x80, 1, true)].concat()));
        assert!(!frames.watch(&frame(0x8a, 0, true)));
    }

    #[test]
    fn after_a_close_there_is_none_of_ours() {
        let mut frames = Frames::default();
        frames.watch(&frame(0x88, 2, false));
        assert_eq!(frames.close(1008, ""), None);
    }
}
