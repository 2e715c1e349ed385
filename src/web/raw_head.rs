//! Watches the bytes of an HTTP/1 connection before hyper reads them, for what hyper forgives and an intermediary must not.
//!
//! It follows framing only as far as it needs to know where each head begins, changes no byte, and answers nothing:
//! the first thing out of order is reported, and from there on it watches no more (RFC 9112 §2.2, §5, §6, §7.1).

use memchr::{memchr, memchr2};

/// The longest head that is watched; the parser behind refuses longer ones by itself.
const LONGEST_HEAD: usize = 64 * 1024;
/// The longest line of chunk framing, extension included.
const LONGEST_CHUNK_LINE: usize = 256;

/// Something that two readers of the same bytes could understand differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ambiguity {
    /// Before the head ended: the request can still be refused.
    Head,
    /// Within a body: the connection can only be cut.
    Body,
}

/// The watcher of one connection.
#[derive(Debug, Default)]
pub struct RawHead {
    state: State,
    /// The part of a head, or of a line of chunk framing, that came in earlier reads.
    held: Vec<u8>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    Body {
        left: u64,
    },
    ChunkSize,
    ChunkBody {
        left: u64,
    },
    ChunkEnd,
    Trailer,
    /// After an upgrade was asked for, or after an ambiguity: no framing to follow.
    Opaque,
}

impl RawHead {
    /// Takes the bytes of one read.
    pub fn watch(&mut self, mut bytes: &[u8]) -> Result<(), Ambiguity> {
        while !bytes.is_empty() {
            let taken = match self.state {
                State::Opaque => return Ok(()),
                State::Head => self.head(bytes),
                State::Body { left } => {
                    let taken = length(bytes).min(left);
                    self.state = if taken == left { State::Head } else { State::Body { left: left - taken } };
                    Ok(usize::try_from(taken).unwrap_or(bytes.len()))
                }
                State::ChunkBody { left } => {
                    let taken = length(bytes).min(left);
                    self.state =
                        if taken == left { State::ChunkEnd } else { State::ChunkBody { left: left - taken } };
                    Ok(usize::try_from(taken).unwrap_or(bytes.len()))
                }
                State::ChunkSize | State::ChunkEnd | State::Trailer => self.chunk_line(bytes),
            };
            match taken {
                Ok(taken) => bytes = bytes.get(taken..).unwrap_or_default(),
                Err(ambiguity) => {
                    self.state = State::Opaque;
                    return Err(ambiguity);
                }
            }
        }
        Ok(())
    }

    /// Whether the next byte begins a head: everything that has come was whole messages.
    pub fn is_between(&self) -> bool {
        self.state == State::Head && self.held.is_empty()
    }

    /// Takes what belongs to the current head; the usual head arrives in one read and is never copied.
    fn head(&mut self, bytes: &[u8]) -> Result<usize, Ambiguity> {
        if self.held.is_empty() {
            let Some((end, state)) = whole_head(bytes)? else {
                self.held.extend_from_slice(bytes);
                return Ok(bytes.len());
            };
            self.state = state;
            return Ok(end);
        }
        let before = self.held.len();
        self.held.extend_from_slice(bytes);
        match whole_head(&self.held)? {
            Some((end, state)) => {
                self.state = state;
                self.held = Vec::new();
                Ok(end.saturating_sub(before))
            }
            None if self.held.len() > LONGEST_HEAD => Err(Ambiguity::Head),
            None => Ok(bytes.len()),
        }
    }

    /// Takes one line of chunk framing: a size, the end of a chunk, or a trailer field.
    fn chunk_line(&mut self, bytes: &[u8]) -> Result<usize, Ambiguity> {
        let end = memchr(b'\n', bytes).map(|at| at + 1);
        let taken = end.unwrap_or(bytes.len());
        self.held.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        let longest = if self.state == State::Trailer { LONGEST_HEAD } else { LONGEST_CHUNK_LINE };
        let is_wrong_end = self.state == State::ChunkEnd && !b"\r\n".starts_with(&self.held);
        if is_wrong_end || self.held.len() > longest {
            return Err(Ambiguity::Body);
        }
        if end.is_none() {
            return Ok(taken);
        }
        let line = self.held.strip_suffix(b"\r\n").ok_or(Ambiguity::Body)?;
        self.state = match (&self.state, line) {
            (State::Trailer, b"") => State::Head,
            (State::Trailer, _) => State::Trailer,
            (State::ChunkEnd, _) => State::ChunkSize,
            (_, line) => match chunk_size(line).ok_or(Ambiguity::Body)? {
                0 => State::Trailer,
                left => State::ChunkBody { left },
            },
        };
        self.held.clear();
        Ok(taken)
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Where the head ends, if it does, and what comes behind it. Every line that has ended must have ended in CRLF.
fn whole_head(bytes: &[u8]) -> Result<Option<(usize, State)>, Ambiguity> {
    // One empty line before a request is tolerated (RFC 9112 §2.2), more are not.
    let mut rest = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let mut next = || {
        let Some((line, after)) = memchr(b'\n', rest).and_then(|end| rest.split_at_checked(end + 1)) else {
            return Ok(None);
        };
        rest = after;
        line.strip_suffix(b"\r\n").ok_or(Ambiguity::Head).map(|line| Some((line, after.len())))
    };
    let Some((request_line, _)) = next()? else { return Ok(None) };
    if request_line.is_empty() || memchr2(b'\r', b'#', request_line).is_some() {
        return Err(Ambiguity::Head);
    }
    let mut framing = Framing { is_old: request_line.ends_with(b"HTTP/1.0"), ..Framing::default() };
    while let Some((line, left)) = next()? {
        if line.is_empty() {
            return Ok(Some((bytes.len() - left, framing.state()?)));
        }
        framing.note(line)?;
    }
    Ok(None)
}

/// What a head says of its body.
#[derive(Default)]
struct Framing {
    /// HTTP/1.0 has no chunks.
    is_old: bool,
    content_length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl Framing {
    /// Notes one field, refusing all that can be read in two ways.
    fn note(&mut self, line: &[u8]) -> Result<(), Ambiguity> {
        // A bare CR, or a line that continues the one before it (obs-fold).
        if memchr(b'\r', line).is_some() || line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err(Ambiguity::Head);
        }
        let colon = memchr(b':', line).ok_or(Ambiguity::Head)?;
        let (name, value) = line.split_at(colon);
        let value = || value.get(1..).unwrap_or_default().trim_ascii();
        match name.len() {
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = decimal(value()).ok_or(Ambiguity::Head)?;
                if self.content_length.replace(length).is_some() {
                    return Err(Ambiguity::Head);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || !value().eq_ignore_ascii_case(b"chunked") {
                    return Err(Ambiguity::Head);
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn state(&self) -> Result<State, Ambiguity> {
        match (self.content_length, self.chunked) {
            (Some(_), true) => Err(Ambiguity::Head),
            (None, true) if self.is_old => Err(Ambiguity::Head),
            (None, true) => Ok(State::ChunkSize),
            (Some(0) | None, false) if self.upgrade => Ok(State::Opaque),
            (Some(0) | None, false) => Ok(State::Head),
            (Some(left), false) => Ok(State::Body { left }),
        }
    }
}

/// Digits only: no sign, no list, no space.
fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|&byte| byte == b';').next()?;
    let hex = !digits.is_empty() && digits.len() <= 16 && digits.iter().all(u8::is_ascii_hexdigit);
    let clean = memchr(b'\r', line).is_none();
    (hex && clean).then(|| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same answer whether the bytes come at once or one by one.
    fn watch(input: &str) -> Result<State, Ambiguity> {
        let mut at_once = RawHead::default();
        let whole = at_once.watch(input.as_bytes()).map(|()| at_once.state);
        let mut slowly = RawHead::default();
        let pieces =
            input.as_bytes().chunks(1).try_for_each(|byte| slowly.watch(byte)).map(|()| slowly.state);
        assert_eq!(whole, pieces, "{input:?}");
        whole
    }

    #[test]
    fn ordinary_requests_pass_and_the_next_head_is_found() {
        for input in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na\nbGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\na\nb\r\n0\r\nT: v\r\n\r\nGET / HTTP/1.0\r\n\r\n",
        ] {
            assert_eq!(watch(input), Ok(State::Head), "{input:?}");
        }
        assert_eq!(watch("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n\n\nanything"), Ok(State::Opaque));
    }

    #[test]
    fn ambiguous_heads_are_reported() {
        for input in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
            "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: \r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: \"chunked\"\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert_eq!(watch(input), Err(Ambiguity::Head), "{input:?}");
        }
    }

    #[test]
    fn ambiguous_chunks_are_reported() {
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for body in [
            "1\nab\r\n",
            "0x1\r\na\r\n",
            "-1\r\n",
            " 1\r\n",
            "\r\n",
            "1 \r\na",
            "0\r\nT: v\n\r\n",
            "fffffffffffffffff\r\n",
            "2\r\na\rb\n0\r\n",
            "1\r\naX\r\n",
            "1\r\na\n",
            "1\r\nab",
        ] {
            assert_eq!(watch(&format!("{head}{body}")), Err(Ambiguity::Body), "{body:?}");
        }
        let endless = format!("{head}1;{}", "x".repeat(LONGEST_CHUNK_LINE));
        assert_eq!(watch(&endless), Err(Ambiguity::Body));
    }

    #[test]
    fn after_an_ambiguity_nothing_more_is_read_from_the_bytes() {
        let mut head = RawHead::default();
        assert_eq!(head.watch(b"GET / HTTP/1.1\nHost: a\n\n"), Err(Ambiguity::Head));
        assert_eq!(head.watch(b"\n\n\n"), Ok(()));
    }
}
