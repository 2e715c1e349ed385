//! Marks the fragments in the `:path` fields of an HTTP/2 connection, whose parser drops them unseen.
//!
//! A `:path` has no fragment (RFC 9113 §8.3.1), yet `http` silently removes one. So the first `#` becomes `>` in the
//! compressed head, before anybody reads it: that is as long in either coding of HPACK (RFC 7541), occurs in no path and
//! no query, and is refused as malformed. An entry of the dynamic table is marked as it is made. Reads nothing else of a head.

const COMPRESSED: u8 = 0x80;
const NAME: &[u8] = b":path";
const NAME_COMPRESSED: &[u8] = &[0xb9, 0x58, 0xd3, 0x3f];
/// Entries of the static table; two of them are `:path`.
const STATIC: u32 = 61;
const STATIC_PATHS: [u32; 2] = [4, 5];
const HASH: u8 = b'#';
const MARK: u8 = b'>';
/// The code of `#`; that of `>` is the next.
const HASH_CODE: u64 = 0xffa;
const HASH_BITS: u8 = 12;

/// The lengths of the codes (RFC 7541 appendix B), and where those of each length end when shifted to the top of 32 bits. A
/// longer code is a larger number.
const LENGTHS: [(u8, u64); 21] = {
    let counts = [
        (5, 10),
        (6, 26),
        (7, 32),
        (8, 6),
        (10, 5),
        (11, 3),
        (12, 2),
        (13, 6),
        (14, 2),
        (15, 3),
        (19, 3),
        (20, 8),
        (21, 13),
        (22, 26),
        (23, 29),
        (24, 12),
        (25, 4),
        (26, 15),
        (27, 19),
        (28, 29),
        (30, 4),
    ];
    let mut lengths = [(0, 0); 21];
    let (mut end, mut at) = (0, 0);
    while at < counts.len() {
        let (length, count) = counts[at];
        end += count << (32 - length);
        lengths[at] = (length, end);
        at += 1;
    }
    lengths
};

/// A head that its readers may understand differently: no client sends one in good faith.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// What the heads of one connection have said so far.
#[derive(Debug)]
pub struct RawPaths {
    /// Which entries of the dynamic table are named `:path`, the newest in the lowest bit. How many of them are still there
    /// does not matter: at most 124 fit in, and a number beyond is an error to the reader.
    entries: u128,
    step: Step,
    /// The field is to become an entry.
    is_kept: bool,
    is_path: bool,
    /// The text: whether it is in Huffman's code, and the octets of it to come.
    is_compressed: bool,
    left: u32,
    /// Bits of the text that are no whole code yet, and how many.
    bits: u64,
    held: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A field begins.
    Field,
    /// The length of a text begins.
    Length(Text),
    /// An integer goes on (RFC 7541 §5.1).
    Number {
        of: Number,
        value: u32,
        shift: u8,
    },
    Text(Text),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Name,
    Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    /// Of a whole field, or a size of the table.
    Done,
    /// Of a name, zero for one that follows.
    Name,
    Length(Text),
}

impl Default for RawPaths {
    fn default() -> Self {
        Self {
            entries: 0,
            step: Step::Field,
            is_kept: false,
            is_path: false,
            is_compressed: false,
            left: 0,
            bits: 0,
            held: 0,
        }
    }
}

impl RawPaths {
    /// A head begins.
    pub fn begin(&mut self) {
        self.step = Step::Field;
    }

    /// Takes the next octets of a head, and marks the fragments in them.
    pub fn mark(&mut self, mut block: &mut [u8]) -> Result<(), Unreadable> {
        loop {
            if self.step == Step::Field {
                // Nearly every field is one octet: the number of an entry, which was looked at when it was made.
                let known = block.iter().take_while(|octet| matches!(octet, 0x80..=0xfe)).count();
                block = block.get_mut(known..).unwrap_or_default();
            }
            if let Step::Text(text) = self.step {
                let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(block.len());
                let (now, later) = block.split_at_mut(here);
                self.take_text(text, now);
                block = later;
                if self.left > 0 {
                    return Ok(());
                }
                self.end_text(text);
            }
            let Some((octet, later)) = block.split_first_mut() else { return Ok(()) };
            let octet = *octet;
            block = later;
            match self.step {
                Step::Field => {
                    let (of, prefix) = match octet {
                        0x80.. => (Number::Done, 0x7f),
                        0x40.. => (Number::Name, 0x3f),
                        0x20.. => (Number::Done, 0x1f),
                        _ => (Number::Name, 0x0f),
                    };
                    self.is_kept = octet & 0xc0 == 0x40;
                    self.start_number(of, octet, prefix)?;
                }
                Step::Length(text) => {
                    self.is_compressed = octet & COMPRESSED != 0;
                    self.start_number(Number::Length(text), octet, 0x7f)?;
                }
                Step::Number { of, value, shift } => {
                    let value = value + (u32::from(octet & 0x7f) << shift);
                    match (octet & 0x80 == 0, shift) {
                        (true, _) => self.end_number(of, value)?,
                        // Longer than the reader takes.
                        (false, 21..) => return Err(Unreadable),
                        (false, _) => self.step = Step::Number { of, value, shift: shift + 7 },
                    }
                }
                // Taken above.
                Step::Text(_) => {}
            }
        }
    }

    fn start_number(&mut self, of: Number, octet: u8, prefix: u8) -> Result<(), Unreadable> {
        let value = u32::from(octet & prefix);
        if value < u32::from(prefix) {
            return self.end_number(of, value);
        }
        self.step = Step::Number { of, value, shift: 0 };
        Ok(())
    }

    fn end_number(&mut self, of: Number, value: u32) -> Result<(), Unreadable> {
        self.step = match of {
            Number::Done => Step::Field,
            Number::Name if value == 0 => Step::Length(Text::Name),
            Number::Name => {
                self.is_path = self.is_path_at(value);
                Step::Length(Text::Value)
            }
            // The reader loses its place when such a head comes in several frames.
            Number::Length(Text::Name) if value == 0 => return Err(Unreadable),
            Number::Length(text) => {
                self.left = value;
                (self.bits, self.held) = (0, 0);
                if text == Text::Name {
                    self.is_path = u32::try_from(self.name().len()) == Ok(value);
                }
                Step::Text(text)
            }
        };
        Ok(())
    }

    fn is_path_at(&self, number: u32) -> bool {
        match number.checked_sub(STATIC + 1) {
            Some(entry) => self.entries.checked_shr(entry).is_some_and(|entries| entries & 1 == 1),
            None => STATIC_PATHS.contains(&number),
        }
    }

    /// How `:path` is spelled in the coding of the text.
    fn name(&self) -> &'static [u8] {
        if self.is_compressed { NAME_COMPRESSED } else { NAME }
    }

    fn take_text(&mut self, text: Text, octets: &mut [u8]) {
        let wanted = self.name();
        match (text, self.is_path) {
            (_, false) => {}
            (Text::Name, true) => {
                let from = wanted.len().saturating_sub(usize::try_from(self.left).unwrap_or_default());
                self.is_path = wanted.get(from..).is_some_and(|wanted| wanted.starts_with(octets));
            }
            (Text::Value, true) if self.is_compressed => self.mark_compressed(octets),
            (Text::Value, true) => {
                if let Some(hash) = octets.iter_mut().find(|octet| **octet == HASH) {
                    *hash = MARK;
                }
            }
        }
        self.left = self.left.saturating_sub(u32::try_from(octets.len()).unwrap_or(u32::MAX));
    }

    fn mark_compressed(&mut self, octets: &mut [u8]) {
        for octet in octets {
            self.bits = self.bits << 8 | u64::from(*octet);
            self.held += 8;
            while let Some(length) = self.whole_code() {
                self.held -= length;
                let code = self.bits >> self.held;
                self.bits &= (1 << self.held) - 1;
                if length == HASH_BITS && code == HASH_CODE {
                    // Its last bit is in this octet, or the code would have been whole before.
                    *octet |= 1 << self.held;
                }
            }
        }
    }

    /// The length of the first code in the bits that are held, if it is whole.
    fn whole_code(&self) -> Option<u8> {
        // Zeros in place of bits to come make it no longer than it is.
        let window =
            if self.held <= 32 { self.bits << (32 - self.held) } else { self.bits >> (self.held - 32) };
        let &(length, _) = LENGTHS.iter().find(|(_, end)| window < *end)?;
        (length <= self.held).then_some(length)
    }

    fn end_text(&mut self, text: Text) {
        if text == Text::Name {
            self.step = Step::Length(Text::Value);
            return;
        }
        if self.is_kept {
            self.entries = self.entries << 1 | u128::from(self.is_path);
        }
        self.step = Step::Field;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::web::raw_frames::RawFrames;

    /// Letters of the tests, with their codes and how many bits these have.
    const CODES: [(char, u32, u32); 14] = [
        ('/', 0x18, 6),
        ('a', 0x3, 5),
        ('t', 0x9, 5),
        ('h', 0x27, 6),
        ('p', 0x2b, 6),
        (':', 0x5c, 7),
        ('x', 0x79, 7),
        ('Z', 0xfd, 8),
        ('?', 0x3fc, 10),
        ('+', 0x7fb, 11),
        ('#', 0xffa, 12),
        ('@', 0x1ffa, 13),
        ('{', 0x7ffe, 15),
        ('\\', 0x7_fff0, 19),
    ];

    /// What the last request of a connection says.
    const LAST: &str = "last";

    struct Dice(u64);

    impl Dice {
        fn below(&mut self, sides: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 >> 33).unwrap() % sides
        }

        fn text(&mut self, start: &str) -> String {
            let length = self.below(9);
            let letters = (0..length).map(|_| CODES[self.below(CODES.len())].0);
            start.chars().chain(letters).collect()
        }
    }

    /// A client that spells its fields in every way there is.
    struct Spelling {
        dice: Dice,
        table: Vec<(String, String)>,
        room: usize,
    }

    impl Spelling {
        fn head(&mut self, path: &str, other: &str) -> Vec<u8> {
            let mut block = Vec::new();
            if self.dice.below(4) == 0 {
                self.room = [0, 64, 200, 4096][self.dice.below(4)];
                number(&mut block, 0x20, 0x1f, self.room);
                self.evict();
            }
            let fields = [
                (":method", "GET"),
                (":scheme", "https"),
                (":authority", "x"),
                (":path", path),
                ("x", other),
            ];
            for (name, value) in fields {
                self.field(&mut block, name, value);
            }
            block
        }

        fn field(&mut self, block: &mut Vec<u8>, name: &str, value: &str) {
            let whole = self.table.iter().position(|(n, v)| n == name && v == value);
            if let Some(at) = whole.filter(|_| self.dice.below(3) > 0) {
                return number(block, 0x80, 0x7f, 62 + at);
            }
            let (first, prefix) = [(0, 0x0f), (0x10, 0x0f), (0x40, 0x3f)][self.dice.below(3)];
            let fixed = [":authority", ":method", "", ":path", ":path", "", ":scheme"];
            let mut known: Vec<usize> = (1..=fixed.len()).filter(|at| fixed[at - 1] == name).collect();
            known.extend((0..self.table.len()).filter(|&at| self.table[at].0 == name).map(|at| 62 + at));
            match self.dice.below(known.len() + 1) {
                0 => {
                    number(block, first, prefix, 0);
                    self.spell(block, name);
                }
                which => number(block, first, prefix, known[which - 1]),
            }
            self.spell(block, value);
            if first == 0x40 {
                self.table.insert(0, (name.to_owned(), value.to_owned()));
                self.evict();
            }
        }

        fn evict(&mut self) {
            let size =
                |table: &[(String, String)]| table.iter().map(|(n, v)| 32 + n.len() + v.len()).sum::<usize>();
            while size(&self.table) > self.room {
                self.table.pop();
            }
        }

        fn spell(&mut self, block: &mut Vec<u8>, text: &str) {
            let codes: Option<Vec<_>> =
                text.chars().map(|letter| CODES.iter().find(|(known, ..)| *known == letter)).collect();
            let Some(codes) = codes.filter(|_| self.dice.below(2) == 0) else {
                number(block, 0, 0x7f, text.len());
                return block.extend(text.bytes());
            };
            let digits =
                codes.iter().flat_map(|(_, code, length)| (0..*length).rev().map(move |at| code >> at & 1));
            let mut bits: String = digits.map(|digit| if digit == 1 { '1' } else { '0' }).collect();
            bits.extend(std::iter::repeat_n('1', bits.len().next_multiple_of(8) - bits.len()));
            number(block, 0x80, 0x7f, bits.len() / 8);
            block.extend(
                bits.as_bytes()
                    .chunks(8)
                    .map(|bits| u8::from_str_radix(str::from_utf8(bits).unwrap(), 2).unwrap()),
            );
        }

        /// The frames of a head, with padding and a priority or without, in one piece or in several.
        fn frames(&mut self, stream: u32, block: &[u8]) -> Vec<u8> {
            let cut = self.dice.below(block.len() + 1);
            let (now, later) = block.split_at(if self.dice.below(2) == 0 { cut } else { block.len() });
            let (mut flags, mut payload) = (1, Vec::new());
            let padding = self.dice.below(20);
            if padding > 9 {
                (flags, payload) = (flags | 8, vec![u8::try_from(padding).unwrap()]);
            }
            if self.dice.below(3) == 0 {
                flags |= 0x20;
                payload.extend([0x80, 0, 0, 0, 16]);
            }
            payload.extend(now);
            payload.extend(std::iter::repeat_n(0, if padding > 9 { padding } else { 0 }));
            let is_whole = later.is_empty();
            let mut frames = frame(1, flags | if is_whole { 4 } else { 0 }, stream, &payload);
            if !is_whole {
                let (one, two) = later.split_at(self.dice.below(later.len()));
                frames.extend(frame(9, 0, stream, one));
                frames.extend(frame(9, 4, stream, two));
            }
            frames
        }
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    fn number(block: &mut Vec<u8>, first: u8, prefix: u8, value: usize) {
        let Some(mut rest) = value.checked_sub(prefix.into()) else {
            return block.push(first | u8::try_from(value).unwrap());
        };
        block.push(first | prefix);
        while rest >= 128 {
            block.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        block.push(u8::try_from(rest).unwrap());
    }

    fn preface() -> Vec<u8> {
        [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat()
    }

    /// The targets and the other field of the requests that `h2` reads in these bytes.
    async fn read(wire: &[u8]) -> Vec<(String, String)> {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(wire).await.unwrap();
        let mut connection = h2::server::handshake(server).await.unwrap();
        let mut seen = Vec::new();
        while let Some(Ok((request, _))) = connection.accept().await {
            let other = request.headers().get("x").unwrap().to_str().unwrap();
            seen.push((request.uri().path_and_query().unwrap().to_string(), other.to_owned()));
            if other == LAST {
                break;
            }
        }
        seen
    }

    #[tokio::test]
    async fn a_fragment_is_refused_however_it_is_spelled_and_nothing_else_is() {
        let mut refused = 0;
        for seed in 1..400 {
            let dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (seed << 20));
            let mut client = Spelling { dice, table: Vec::new(), room: 4096 };
            let (mut wire, mut due) = (preface(), Vec::new());
            let paths: Vec<String> = (0..5).map(|_| client.dice.text("/")).collect();
            for number in 0..20 {
                let (path, other) = match number {
                    19 => ("/", LAST.to_owned()),
                    _ => (&*paths[client.dice.below(5)], client.dice.text("/")),
                };
                if client.dice.below(6) == 0 {
                    // On a stream that depends on itself, where it makes no entry.
                    let stream: u32 = 4 * number + 1;
                    let head = [&stream.to_be_bytes()[..], b"\x09\x44\x02/a"].concat();
                    wire.extend(frame(1, 0x25, stream, &head));
                }
                let block = client.head(path, &other);
                wire.extend(client.frames(4 * number + 3, &block));
                if path.contains('#') {
                    refused += 1;
                } else {
                    due.push((path.to_owned(), other));
                }
            }
            let mut frames = RawFrames::default();
            let mut rest = &mut wire[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at_mut((1 + client.dice.below(60)).min(rest.len()));
                frames.watch(now).unwrap();
                rest = later;
            }
            assert_eq!(read(&wire).await, due, "{seed}: {paths:?}");
        }
        assert!(refused > 1000, "{refused}");
    }

    #[test]
    fn heads_in_which_the_reader_loses_its_place_end_the_connection() {
        let nameless = [&[0x40, 0, 0x82][..], b"\x44\x02/a"].concat();
        let endless = [0x7f, 0x80, 0x80, 0x80, 0x80, 0];
        for (kind, block) in [(1, &nameless[..]), (1, &endless), (9, &nameless), (5, b"\0\0\0\x02\x82")] {
            let mut wire = [preface(), frame(kind, 0, 1, block)].concat();
            assert_eq!(RawFrames::default().watch(&mut wire), Err(Unreadable), "{kind}: {block:?}");
        }
    }

    #[test]
    fn the_codes_fill_their_space() {
        assert_eq!(LENGTHS.last().unwrap().1, 1 << 32);
    }
}
