//! The fields of the portal's response: as received, without those that the portal may not set, and with ours added. What to
//! change is decided in `portal_answers`.
//!
//! HTTP/1 forwards them line by line, which costs less than parsing and writing each.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use super::{caching, clear_site_data, cookies, service_worker};
use crate::http1::{
    fields::{self, Block},
    head::{Field, FieldSpans, MalformedHead, is_text},
};

/// Room for fields that are added to the portal's.
const MORE: usize = 5;

/// The fields of one response.
#[derive(Debug)]
pub struct PortalFields {
    head: Bytes,
    fields: Vec<Field>,
    /// Fields after those of the head: not received as lines, or changed.
    more: Vec<(HeaderName, HeaderValue)>,
    topics: Topics,
    ours: Option<Ours>,
    /// The portal's.
    version: Version,
}

/// The fields that we add.
#[derive(Clone, Debug)]
pub struct Ours {
    /// Fields of all responses.
    pub fields: Rc<Block>,
    /// The `Cache-Control` of responses without one.
    pub caching: Option<&'static str>,
}

/// What happens to a field.
#[derive(Debug)]
pub enum Fate {
    Stays,
    Goes,
    Becomes(HeaderValue),
}

/// Which kinds of fields are present that may have to be changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Topics(u8);

impl Topics {
    pub const COOKIES: Self = Self(1);
    pub const CACHING: Self = Self(1 << 1);
    pub const SHARED_CACHES: Self = Self(1 << 2);
    /// URLs that the browser or a script follows.
    pub const URLS: Self = Self(1 << 3);
    pub const HSTS: Self = Self(1 << 4);
    pub const CLEARING: Self = Self(1 << 5);
    pub const WORKERS: Self = Self(1 << 6);

    pub fn has(self, topic: Self) -> bool {
        self.0 & topic.0 != 0
    }

    /// Whether there are kinds other than cookies and caching.
    pub fn is_unusual(self) -> bool {
        self.0 & !(Self::COOKIES.0 | Self::CACHING.0) != 0
    }

    pub fn of(name: &HeaderName) -> Self {
        match *name {
            header::CONTENT_TYPE
            | header::CONTENT_LENGTH
            | header::CONTENT_ENCODING
            | header::DATE
            | header::SERVER
            | header::ETAG
            | header::LAST_MODIFIED
            | header::ACCEPT_RANGES
            | header::VARY => Self(0),
            header::SET_COOKIE => Self::COOKIES,
            header::CACHE_CONTROL | header::EXPIRES | header::PRAGMA => Self::CACHING,
            header::LOCATION | header::CONTENT_LOCATION | header::REFRESH | header::LINK => Self::URLS,
            header::STRICT_TRANSPORT_SECURITY => Self::HSTS,
            _ => Self::of_other(name),
        }
    }

    fn of_other(name: &HeaderName) -> Self {
        // Redirects for scripts: HX-Redirect, Turbolinks-Location, X-PJAX-URL and the like.
        let is_url = |name: &str| ["-location", "-redirect", "-url"].iter().any(|end| name.ends_with(end));
        match name {
            name if name == clear_site_data::NAME => Self::CLEARING,
            name if name == service_worker::ALLOWED => Self::WORKERS,
            name if caching::is_for_shared_caches(name) => Self::SHARED_CACHES,
            name if is_url(name.as_str()) => Self::URLS,
            _ => Self(0),
        }
    }
}

impl PortalFields {
    /// Reads the fields of `head` and checks that all are well-formed; `note` decides which are kept.
    pub fn read<E: From<MalformedHead>>(
        head: Bytes,
        fields: &FieldSpans,
        version: Version,
        mut note: impl FnMut(&HeaderName, &[u8]) -> Result<bool, E>,
    ) -> Result<Self, E> {
        let mut kept = Vec::with_capacity(fields.count());
        let mut topics = 0;
        fields.each::<E>(&head, |field| {
            let value = field.value(&head);
            if !is_text(value) {
                return Err(MalformedHead::Field.into());
            }
            if note(&field.name, value)? && may_pass(&field.name, value) {
                topics |= Topics::of(&field.name).0;
                kept.push(field);
            }
            Ok(())
        })?;
        Ok(Self { head, fields: kept, more: Vec::new(), topics: Topics(topics), ours: None, version })
    }

    /// The same for a head that is a map.
    pub fn of_map(headers: HeaderMap, version: Version) -> Self {
        let mut more = Vec::with_capacity(headers.len());
        let (mut topics, mut name) = (0, None);
        for (next, value) in headers {
            // A map returns the name with its first value only.
            name = next.or(name);
            if let Some(name) = name.as_ref().filter(|name| may_pass(name, value.as_bytes())) {
                topics |= Topics::of(name).0;
                more.push((name.clone(), value));
            }
        }
        let (head, fields) = (Bytes::new(), Vec::new());
        Self { head, fields, more, topics: Topics(topics), ours: None, version }
    }

    /// The kinds of fields that were received; some may have been removed since.
    pub fn topics(&self) -> Topics {
        self.topics
    }

    /// Removes all fields of this name.
    pub fn drop_all(&mut self, name: &HeaderName) {
        self.drop_where(|field| field == name);
    }

    pub fn drop_where(&mut self, is_dropped: impl Fn(&HeaderName) -> bool) {
        self.fields.retain(|field| !is_dropped(&field.name));
        self.more.retain(|(name, _)| !is_dropped(name));
    }

    /// The first value of this name.
    pub fn get<'a>(&'a self, name: &'a HeaderName) -> Option<&'a [u8]> {
        self.values(name).next()
    }

    /// All values of this name, in order.
    pub fn values<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        let as_lines = self.fields.iter().filter(move |field| field.name == *name);
        let others = self.more.iter().filter(move |(other, _)| other == name);
        as_lines.map(|field| field.value(&self.head)).chain(others.map(|(_, value)| value.as_bytes()))
    }

    /// Appends a field.
    pub fn append(&mut self, name: HeaderName, value: HeaderValue) {
        self.more.push((name, value));
    }

    /// Replaces all fields of this name.
    pub fn replace(&mut self, name: &HeaderName, value: HeaderValue) {
        self.drop_all(name);
        self.append(name.clone(), value);
    }

    /// Changes fields; those of one name keep their order.
    pub fn change(
        &mut self,
        concerns: impl Fn(&HeaderName) -> bool,
        fate: impl Fn(&HeaderName, &[u8]) -> Fate,
    ) {
        let as_lines = self.fields.iter().map(|field| (&field.name, field.value(&self.head)));
        let others = self.more.iter().map(|(name, value)| (name, value.as_bytes()));
        let mut changed = as_lines.chain(others).filter(|(name, _)| concerns(name));
        if changed.all(|(name, value)| matches!(fate(name, value), Fate::Stays)) {
            return;
        }
        let (fields, more) = (std::mem::take(&mut self.fields), std::mem::take(&mut self.more));
        for field in fields {
            if concerns(&field.name) {
                let value = HeaderValue::from_maybe_shared(field.value_of(&self.head));
                // It was checked when it was read.
                self.more.extend(value.ok().map(|value| (field.name, value)));
            } else {
                self.fields.push(field);
            }
        }
        self.more.extend(more);
        self.more.retain_mut(|(name, value)| {
            match if concerns(name) { fate(name, value.as_bytes()) } else { Fate::Stays } {
                Fate::Stays => true,
                Fate::Goes => false,
                Fate::Becomes(other) => {
                    *value = other;
                    true
                }
            }
        });
    }

    /// Adds our fields.
    pub fn add_ours(&mut self, ours: Ours) {
        self.ours = Some(ours);
    }

    /// Appends the fields to a map.
    pub fn add_to(self, headers: &mut HeaderMap) {
        headers.reserve(self.fields.len() + self.more.len() + MORE);
        for field in self.fields {
            // It was checked when it was read.
            if let Ok(value) = HeaderValue::from_maybe_shared(field.value_of(&self.head)) {
                headers.append(field.name, value);
            }
        }
        let mut add = |name, value| {
            headers.append(name, value);
        };
        self.more.into_iter().for_each(|(name, value)| add(name, value));
        if let Some(ours) = self.ours {
            ours.fields.fields().iter().for_each(|(name, value)| add(name.clone(), value.clone()));
            ours.caching
                .into_iter()
                .for_each(|word| add(header::CACHE_CONTROL, HeaderValue::from_static(word)));
            add(header::VIA, fields::via(self.version));
        }
    }

    /// Writes the fields in the wire form of HTTP/1.
    pub fn write(&self, wire: &mut Vec<u8>, leaves_out: impl Fn(&HeaderName) -> bool) {
        for field in self.fields.iter().filter(|field| !leaves_out(&field.name)) {
            wire.extend_from_slice(field.line(&self.head));
            wire.extend_from_slice(b"\r\n");
        }
        for (name, value) in self.more.iter().filter(|(name, _)| !leaves_out(name)) {
            fields::write(wire, name, value.as_bytes());
        }
        if let Some(ours) = &self.ours {
            wire.extend_from_slice(ours.fields.wire());
            if let Some(word) = ours.caching {
                fields::write(wire, &header::CACHE_CONTROL, word.as_bytes());
            }
            fields::write(wire, &header::VIA, fields::via(self.version).as_bytes());
        }
    }
}

/// Whether the portal may set this field at all.
fn may_pass(name: &HeaderName, value: &[u8]) -> bool {
    match *name {
        // It would lead browsers to another port, around the wall.
        header::ALT_SVC => false,
        header::SET_COOKIE => !cookies::sets_ours(value),
        _ => true,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::http1::head::Lines;

    /// The fields of a head without a status line.
    pub(crate) fn read(text: &str) -> Result<PortalFields, MalformedHead> {
        let head = Bytes::from(format!("{text}\r\n"));
        let mut fields = FieldSpans::default();
        assert!(Lines::of(&head, 0, true).find(&mut fields, 100)?);
        PortalFields::read(head, &fields, Version::HTTP_10, |name, _| Ok::<_, MalformedHead>(name != "x-hop"))
    }

    pub(crate) fn ours() -> Ours {
        let block =
            Block::new(vec![(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=1"))]);
        Ours { fields: Rc::new(block), caching: Some(caching::PRIVATE) }
    }

    fn as_map(fields: PortalFields) -> Vec<String> {
        let mut head = HeaderMap::new();
        fields.add_to(&mut head);
        head.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    const SAID: &str = "Content-Type:text/html\r\nX-Hop: 1\r\nSet-Cookie: a=b\r\nAlt-Svc: h3=\":8443\"\n\
        set-cookie: __host-PORTCULLIS=x; Path=/\r\nX-A: \t1 \r\nset-cookie:  c=d\t\r\n";

    #[test]
    fn they_go_on_line_by_line_as_they_came() {
        let mut wire = Vec::new();
        let mut fields = read(SAID).unwrap();
        fields.write(&mut wire, |name| name == "x-a");
        let plain = "Content-Type:text/html\r\nSet-Cookie: a=b\r\nset-cookie:  c=d\r\n";
        assert_eq!(String::from_utf8(wire).unwrap(), plain);
        fields.add_ours(ours());
        let mut wire = Vec::new();
        fields.write(&mut wire, |name| name == "x-a");
        assert_eq!(
            String::from_utf8(wire).unwrap(),
            format!(
                "{plain}Strict-Transport-Security: max-age=1\r\ncache-control: private\r\nvia: 1.0 portcullis\r\n"
            )
        );
    }

    #[test]
    fn as_a_map_they_are_the_same_however_they_came() {
        let mut fields = read(SAID).unwrap();
        assert_eq!(fields.get(&header::CONTENT_TYPE), Some(&b"text/html"[..]));
        assert_eq!(fields.get(&header::ALT_SVC), None);
        fields.add_ours(ours());
        let shown = as_map(fields);
        assert_eq!(
            shown,
            [
                "content-type: text/html",
                "set-cookie: a=b",
                "set-cookie: c=d",
                "x-a: 1",
                "strict-transport-security: max-age=1",
                "cache-control: private",
                "via: 1.0 portcullis"
            ]
        );
        let mut map = HeaderMap::new();
        for line in SAID.lines().filter(|line| !line.starts_with("X-Hop")) {
            let (name, value) = line.split_once(':').unwrap();
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_str(value.trim()).unwrap());
        }
        let mut fields = PortalFields::of_map(map, Version::HTTP_10);
        fields.add_ours(ours());
        assert_eq!(as_map(fields), shown);
    }

    #[test]
    fn what_is_changed_keeps_its_place_among_its_like() {
        let mut fields = read("X-A: 1\r\nX-B: 1\r\nX-A: 2\r\nX-A: 3\r\n").unwrap();
        let concerns = |name: &HeaderName| name == "x-a";
        fields.change(concerns, |_, _| Fate::Stays);
        assert!(fields.more.is_empty());
        fields.change(concerns, |_, value| match value {
            b"1" => Fate::Goes,
            b"2" => Fate::Becomes(HeaderValue::from_static("two")),
            _ => Fate::Stays,
        });
        fields.append(HeaderName::from_static("x-c"), HeaderValue::from_static("1"));
        assert_eq!(fields.values(&HeaderName::from_static("x-a")).collect::<Vec<_>>(), [&b"two"[..], b"3"]);
        let mut wire = Vec::new();
        fields.write(&mut wire, |_| false);
        assert_eq!(wire, b"X-B: 1\r\nx-a: two\r\nx-a: 3\r\nx-c: 1\r\n");
        assert_eq!(as_map(fields), ["x-b: 1", "x-a: two", "x-a: 3", "x-c: 1"]);
    }

    #[test]
    fn what_must_not_stand_in_a_line_is_refused() {
        for text in
            ["X: a\0b\r\n", "X: a\rb\r\n", "X: \x7f\r\n", "X : a\r\n", "X: \x0c1\r\n", " X: a\r\n", ": a\r\n"]
        {
            assert_eq!(read(text).unwrap_err(), MalformedHead::Field, "{text:?}");
        }
        assert!(read("X:\r\nX: \u{e9}\t\u{e9}\r\n").is_ok());
    }
}
