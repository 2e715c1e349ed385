//! The access log: one line per request, in text or JSON, written without `tracing`.
//!
//! Contains no query string, cookie or token: a query is only mentioned, and a session is named by a prefix of its
//! hash.

use std::{cell::RefCell, fmt::Write as _, net::IpAddr, time::Duration};

use super::{
    Outcome,
    log::Format,
    writer::{LogWriter, is_disruptive},
};
use crate::{clock::Timestamp, secret::TokenHash};

/// Maximum length of one field in bytes; the rest is cut off and marked.
const LONGEST: usize = 2048;
/// A length that most lines stay below.
const USUAL: usize = 512;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// A finished request.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// When the request ended.
    pub time: Timestamp,
    pub request_id: &'a str,
    pub client_ip: IpAddr,
    pub method: &'a str,
    pub host: &'a str,
    /// The requested path and query; only the presence of a query is logged.
    pub target: &'a str,
    /// `HTTP/1.1`, `HTTP/2`.
    pub protocol: &'a str,
    /// The protocol that the client wants to switch to, such as `websocket`.
    pub upgrade: Option<&'a str>,
    pub status: u16,
    /// From the end of the request's head to the end of the response.
    pub duration: Duration,
    /// Bytes of the request body.
    pub bytes_in: u64,
    /// Bytes of the response body.
    pub bytes_out: u64,
    pub user: Option<&'a str>,
    pub session: Option<TokenHash>,
    /// The name of the token, if the request has one.
    pub token: Option<&'a str>,
    /// The gateway's decision.
    pub outcome: Outcome,
    /// The server of the portal that responded.
    pub upstream: Option<&'a str>,
    /// The time until the head of its response.
    pub upstream_duration: Option<Duration>,
}

/// The sink of access-log lines; clones share the writer.
#[derive(Clone, Debug)]
pub struct AccessLog {
    format: Format,
    writer: Option<LogWriter>,
}

/// The path of the pages that links in mail open.
const LINK: &str = "/.portcullis/link/";

impl AccessLog {
    pub fn new(format: Format, enabled: bool, writer: LogWriter) -> Self {
        Self { format, writer: enabled.then_some(writer) }
    }

    /// No access log.
    pub const fn off() -> Self {
        Self { format: Format::Text, writer: None }
    }

    /// Whether lines are written; if not, the caller need not collect them.
    pub const fn is_enabled(&self) -> bool {
        self.writer.is_some()
    }

    /// Queues the line. Never waits.
    pub fn write(&self, line: &Line<'_>) {
        if let Some(writer) = &self.writer {
            writer.line(line.render(self.format));
        }
    }
}

impl Line<'_> {
    fn render(&self, format: Format) -> String {
        let mut fields = Fields { text: String::with_capacity(USUAL), format };
        let (path, query) = match self.target.split_once('?') {
            Some((path, _)) => (path, true),
            None => (self.target, false),
        };
        fields.begin(self.time);
        fields.string("request.id", self.request_id);
        fields.address("client.ip", self.client_ip);
        fields.string("method", self.method);
        fields.string("host", self.host);
        // What follows is a secret, in a mail of ours.
        let path = if path.starts_with(LINK) { LINK } else { path };
        fields.string("path", path);
        fields.truth("query", query);
        fields.string("protocol", self.protocol);
        if let Some(upgrade) = self.upgrade {
            fields.string("upgrade", upgrade);
        }
        fields.number("status", self.status.into());
        fields.number("duration_us", micros(self.duration));
        fields.number("bytes_in", self.bytes_in);
        fields.number("bytes_out", self.bytes_out);
        if let Some(user) = self.user {
            fields.string("user.name", user);
        }
        if let Some(session) = self.session {
            fields.session("session.id", session);
        }
        if let Some(token) = self.token {
            fields.string("token.name", token);
        }
        fields.string("decision", self.outcome.as_str());
        if let Some(upstream) = self.upstream {
            fields.string("upstream", upstream);
        }
        if let Some(duration) = self.upstream_duration {
            fields.number("upstream_duration_us", micros(duration));
        }
        fields.end()
    }
}

/// A line under construction. Writing to a `String` cannot fail, so results are ignored.
struct Fields {
    text: String,
    format: Format,
}

impl Fields {
    fn begin(&mut self, time: Timestamp) {
        let (before, after) = match self.format {
            Format::Text => ("", "  ACCESS"),
            Format::Json => ("{\"timestamp\":\"", "\",\"level\":\"ACCESS\""),
        };
        self.text.push_str(before);
        self.time(time);
        self.text.push_str(after);
    }

    /// RFC 3339 in UTC, to the millisecond. The calendar is computed only once per second.
    fn time(&mut self, time: Timestamp) {
        thread_local! {
            static SECOND: RefCell<(Timestamp, String)> =
                const { RefCell::new((Timestamp::from_unix_millis(i64::MIN), String::new())) };
        }
        SECOND.with_borrow_mut(|(second, shown)| {
            if second.unix_seconds() != time.unix_seconds() {
                *second = time;
                *shown = time.to_string();
                shown.truncate(shown.trim_end_matches('Z').len());
            }
            self.text.push_str(shown);
        });
        let millis = time.unix_millis().rem_euclid(1000).unsigned_abs();
        self.text.push('.');
        self.digits(millis, 3);
        self.text.push('Z');
    }

    fn name(&mut self, name: &str) {
        match self.format {
            Format::Text => self.text.extend([" ", name, "="]),
            Format::Json => self.text.extend([",\"", name, "\":"]),
        }
    }

    fn truth(&mut self, name: &str, value: bool) {
        self.name(name);
        self.text.push_str(if value { "true" } else { "false" });
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        self.digits(value, 1);
    }

    /// Decimal digits, at least this many. `fmt` would take several times as long.
    fn digits(&mut self, mut value: u64, least: usize) {
        let mut digits = [b'0'; 20];
        let mut start = digits.len();
        while value > 0 || digits.len() - start < least {
            start -= 1;
            digits[start] += (value % 10) as u8;
            value /= 10;
        }
        self.ascii(&digits[start..]);
    }

    fn ascii(&mut self, bytes: &[u8]) {
        self.text.push_str(str::from_utf8(bytes).unwrap_or_default());
    }

    fn quote(&mut self) {
        if self.format == Format::Json {
            self.text.push('"');
        }
    }

    fn address(&mut self, name: &str, address: IpAddr) {
        self.name(name);
        self.quote();
        let _ = write!(self.text, "{address}");
        self.quote();
    }

    /// A prefix of a session's hash, as in [`TokenHash::short`].
    fn session(&mut self, name: &str, session: TokenHash) {
        self.name(name);
        self.quote();
        for byte in &session.as_bytes()[..8] {
            self.ascii(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        self.quote();
    }

    fn string(&mut self, name: &str, value: &str) {
        self.name(name);
        let short = &value[..value.floor_char_boundary(LONGEST)];
        let simple = !short.is_empty() && all(short, is_simple);
        let quoted = self.format == Format::Json || !simple;
        if quoted {
            self.text.push('"');
        }
        if simple {
            self.text.push_str(short);
        } else {
            short.chars().for_each(|character| self.escaped(character));
        }
        if short.len() < value.len() {
            self.text.push('…');
        }
        if quoted {
            self.text.push('"');
        }
    }

    /// Escapes as in JSON, in both formats.
    fn escaped(&mut self, character: char) {
        if matches!(character, '"' | '\\') {
            self.text.push('\\');
        }
        if is_disruptive(character) {
            // Every disruptive character is in the first plane: no surrogates.
            let _ = write!(self.text, "\\u{:04x}", u32::from(character));
        } else {
            self.text.push(character);
        }
    }

    fn end(mut self) -> String {
        self.text.push_str(match self.format {
            Format::Text => "\n",
            Format::Json => "}\n",
        });
        self.text
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Checks every byte even after one that fails: without an early exit the compiler vectorises the loop.
fn all(text: &str, fits: impl Fn(u8) -> bool) -> bool {
    text.bytes().fold(true, |so_far, byte| so_far & fits(byte))
}

/// Whether a byte needs neither quotes nor escapes.
const fn is_simple(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'=')
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::{
        super::writer::tests::{Memory, PATIENCE},
        *,
    };

    fn line() -> Line<'static> {
        Line {
            time: Timestamp::from_unix_millis(1_772_409_600_040),
            request_id: "0a1b",
            client_ip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            method: "GET",
            host: "iot.example.com",
            target: "/sims?token=canary",
            protocol: "HTTP/2",
            upgrade: Some("websocket"),
            status: 200,
            duration: Duration::from_micros(1234),
            bytes_in: 0,
            bytes_out: 5120,
            user: Some("ada@example.com"),
            session: Some(TokenHash::from_bytes([0xab; 32])),
            token: None,
            outcome: Outcome::Allow,
            upstream: Some("http://127.0.0.1:3000"),
            upstream_duration: Some(Duration::from_micros(987)),
        }
    }

    #[test]
    fn a_text_line_reads_in_one_glance() {
        assert_eq!(
            line().render(Format::Text),
            "2026-03-02T00:00:00.040Z  ACCESS request.id=0a1b client.ip=192.0.2.1 method=GET host=iot.example.com \
             path=/sims query=true protocol=HTTP/2 upgrade=websocket status=200 duration_us=1234 bytes_in=0 bytes_out=5120 \
             user.name=ada@example.com session.id=abababababababab decision=allow upstream=http://127.0.0.1:3000 \
             upstream_duration_us=987\n"
        );
    }

    #[test]
    fn a_json_line_is_an_object_and_absent_fields_are_absent() {
        let mut line = line();
        (line.user, line.session, line.upstream, line.upstream_duration) = (None, None, None, None);
        line.upgrade = None;
        line.target = "/";
        let object: serde_json::Value = serde_json::from_str(&line.render(Format::Json)).unwrap();
        let expected = serde_json::json!({
            "timestamp": "2026-03-02T00:00:00.040Z", "level": "ACCESS", "request.id": "0a1b",
            "client.ip": "192.0.2.1", "method": "GET", "host": "iot.example.com", "path": "/", "query": false,
            "protocol": "HTTP/2", "status": 200, "duration_us": 1234, "bytes_in": 0, "bytes_out": 5120,
            "decision": "allow",
        });
        assert_eq!(object, expected);
    }

    #[test]
    fn the_session_is_named_as_everywhere_else() {
        let session = TokenHash::from_bytes(std::array::from_fn(|index| 0x9f ^ u8::try_from(index).unwrap()));
        let text = Line { session: Some(session), ..line() }.render(Format::Text);
        assert!(text.contains(&format!("session.id={} ", session.short())), "{text}");
    }

    #[test]
    fn times_and_numbers_are_written_as_everywhere_else() {
        for millis in [0, 1, 999, 1000, 59_999, -1, 1_772_409_599_999, 1_772_409_600_000, 4_102_444_800_123] {
            let time = Timestamp::from_unix_millis(millis);
            let text = Line { time, bytes_out: millis.unsigned_abs(), ..line() }.render(Format::Text);
            let expected = format!("{:.3}", jiff::Timestamp::from_millisecond(millis).unwrap());
            assert_eq!(text.split_once(' ').unwrap().0, expected);
            assert!(text.contains(&format!("bytes_out={} ", millis.unsigned_abs())), "{text}");
        }
        assert!(Line { bytes_in: u64::MAX, ..line() }.render(Format::Json).contains(&u64::MAX.to_string()));
    }

    #[test]
    fn a_query_string_is_never_logged() {
        for target in ["/sims?token=canary", "/?canary?canary", "?canary"] {
            for format in [Format::Text, Format::Json] {
                let text = Line { target, ..line() }.render(format);
                assert!(!text.contains("canary"), "{text}");
            }
        }
    }

    #[test]
    fn what_a_client_sends_cannot_forge_a_field_or_a_line() {
        let evil = "a\" status=200\r\n\t\0\\ \x1b[31m\u{7f}\u{85}\u{2028}\u{202e}é";
        let line = Line { host: evil, user: Some(evil), target: evil, request_id: "", ..line() };
        let object: serde_json::Value = serde_json::from_str(&line.render(Format::Json)).unwrap();
        assert_eq!((&object["host"], &object["user.name"]), (&evil.into(), &evil.into()));
        let text = line.render(Format::Text);
        assert!(
            text.contains(r#"host="a\" status=200\u000d\u000a\u0009\u0000\\ \u001b[31m\u007f"#),
            "{text}"
        );
        assert!(text.contains(r#" request.id="" "#), "{text}");
        assert_eq!(text.trim_end_matches('\n').chars().find(|&c| is_disruptive(c)), None, "{text:?}");
        assert!(Line { host: "a=b", ..line }.render(Format::Text).contains("host=\"a=b\""));
    }

    #[test]
    fn an_endless_field_is_cut_off() {
        let target = "é".repeat(5000);
        let text = Line { target: &target, ..line() }.render(Format::Text);
        assert!(text.contains("é…\""), "{text}");
        assert!(text.len() < LONGEST + 500, "{}", text.len());
    }

    #[test]
    fn lines_are_written_only_when_wanted() {
        let memory = Memory::default();
        let writer = LogWriter::start(memory.clone()).unwrap();
        AccessLog::new(Format::Text, false, writer.clone()).write(&line());
        AccessLog::off().write(&line());
        assert!(writer.flush(PATIENCE));
        assert_eq!(memory.text(), "");
        let log = AccessLog::new(Format::Json, true, writer.clone());
        assert!(log.is_enabled());
        log.write(&line());
        assert!(writer.flush(PATIENCE));
        assert_eq!(memory.text(), line().render(Format::Json));
    }
}
