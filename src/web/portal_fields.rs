//! The fields of the portal's answer on their way to the client: as they came, less what is not the portal's to say, plus
//! what is ours.
//!
//! They go to HTTP/1 line by line, which costs less than to take them apart and to put them together again.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, header};

use super::{
    answer::HSTS,
    cookies, fields,
    head::{Field, Fields, MalformedHead, is_text},
};

/// Fields that may come behind the portal's; room for them is made at once.
const MORE: usize = 5;

/// The fields of one answer.
#[derive(Debug)]
pub struct PortalFields {
    head: Bytes,
    fields: Vec<Field>,
    /// Of the portal.
    version: Version,
}

/// A body that may bring the fields of its answer with it, besides those in the answer's map.
pub trait BringsFields {
    /// Takes them out. Whoever sends the head has to, and whoever changes it.
    fn take_fields(&mut self) -> Option<PortalFields>;
}

/// Moves the fields that the body brings into the answer's map.
pub fn unpack(answer: &mut Response<impl BringsFields>) {
    if let Some(fields) = answer.body_mut().take_fields() {
        fields.add_all_to(answer.headers_mut());
    }
}

impl PortalFields {
    /// Reads them from `head`, all of which is well-formed then. `note` says which are kept.
    pub fn read<E: From<MalformedHead>>(
        head: Bytes,
        fields: &Fields,
        version: Version,
        mut note: impl FnMut(&HeaderName, &[u8]) -> Result<bool, E>,
    ) -> Result<Self, E> {
        let mut kept = Vec::with_capacity(fields.count());
        fields.each::<E>(&head, |field| {
            let value = field.value(&head);
            if !is_text(value) {
                return Err(MalformedHead::Field.into());
            }
            if note(&field.name, value)? && may_pass(&field.name, value) {
                kept.push(field);
            }
            Ok(())
        })?;
        Ok(Self { head, fields: kept, version })
    }

    /// Drops all fields of this name.
    pub fn drop_all(&mut self, name: &HeaderName) {
        self.fields.retain(|field| field.name != *name);
    }

    /// The first value of this name.
    pub fn get(&self, name: &HeaderName) -> Option<&[u8]> {
        self.fields.iter().find(|field| field.name == *name).map(|field| field.value(&self.head))
    }

    /// Puts those that are the portal's on a head.
    pub fn add_to(self, headers: &mut HeaderMap) {
        headers.reserve(self.fields.len() + MORE);
        for field in self.fields {
            // That it is a value was seen when it was read.
            if let Ok(value) = HeaderValue::from_maybe_shared(field.value_of(&self.head)) {
                headers.append(field.name, value);
            }
        }
    }

    /// Puts them on a head, with ours.
    pub fn add_all_to(self, headers: &mut HeaderMap) {
        let version = self.version;
        self.add_to(headers);
        add_ours(headers, version);
    }

    /// Writes them as they stand on the wire of HTTP/1, with ours.
    pub fn write(&self, wire: &mut Vec<u8>, leaves_out: impl Fn(&HeaderName) -> bool) {
        for field in self.fields.iter().filter(|field| !leaves_out(&field.name)) {
            wire.extend_from_slice(field.line(&self.head));
            wire.extend_from_slice(b"\r\n");
        }
        for (name, value) in ours(self.version) {
            fields::write(wire, &name, value.as_bytes());
        }
    }
}

/// What every answer of the portal gets. `received` is the version that it came in.
fn ours(received: Version) -> [(HeaderName, HeaderValue); 2] {
    [(header::STRICT_TRANSPORT_SECURITY, HSTS), (header::VIA, fields::via(received))]
}

/// Puts our fields on a head of the portal's.
fn add_ours(headers: &mut HeaderMap, received: Version) {
    for (name, value) in ours(received) {
        headers.append(name, value);
    }
}

/// Whether this is the portal's to say to a client.
fn may_pass(name: &HeaderName, value: &[u8]) -> bool {
    match *name {
        // The one would lead browsers to another port, around the wall; in the place of the other there is ours.
        header::ALT_SVC | header::STRICT_TRANSPORT_SECURITY => false,
        header::SET_COOKIE => !cookies::sets_ours(value),
        _ => true,
    }
}

/// Makes of a head of the portal's, which came as a map, what the client gets.
pub fn clean(status: StatusCode, headers: &mut HeaderMap, received: Version) {
    if status == StatusCode::NO_CONTENT {
        headers.remove(header::CONTENT_LENGTH);
    }
    let mut name = None;
    for (next, value) in std::mem::take(headers) {
        // The further values of a name come without it.
        name = next.or(name);
        if let Some(name) = name.as_ref().filter(|name| may_pass(name, value.as_bytes())) {
            headers.append(name, value);
        }
    }
    add_ours(headers, received);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{super::head::Lines, *};

    /// The fields of a head without its first line.
    pub(crate) fn read(text: &str) -> Result<PortalFields, MalformedHead> {
        let head = Bytes::from(format!("{text}\r\n"));
        let mut fields = Fields::default();
        assert!(Lines::of(&head, 0, true).find(&mut fields, 100)?);
        PortalFields::read(head, &fields, Version::HTTP_10, |name, _| Ok::<_, MalformedHead>(name != "x-hop"))
    }

    const SAID: &str = "Content-Type:text/html\r\nX-Hop: 1\r\nSet-Cookie: a=b\r\nAlt-Svc: h3=\":8443\"\n\
        set-cookie: __host-PORTCULLIS=x; Path=/\r\nX-A: \t1 \r\nStrict-Transport-Security: max-age=0\r\n\
        set-cookie:  c=d\t\r\n";

    #[test]
    fn they_go_on_line_by_line_as_they_came() {
        let mut wire = Vec::new();
        read(SAID).unwrap().write(&mut wire, |name| name == "x-a");
        assert_eq!(
            String::from_utf8(wire).unwrap(),
            "Content-Type:text/html\r\nSet-Cookie: a=b\r\nset-cookie:  c=d\r\n\
             strict-transport-security: max-age=31536000; includeSubDomains\r\nvia: 1.0 portcullis\r\n"
        );
    }

    #[test]
    fn as_a_map_they_are_the_same_however_they_came() {
        let fields = read(SAID).unwrap();
        assert_eq!(fields.get(&header::CONTENT_TYPE), Some(&b"text/html"[..]));
        assert_eq!(fields.get(&header::ALT_SVC), None);
        let mut head = HeaderMap::new();
        fields.add_all_to(&mut head);
        let shown: Vec<_> =
            head.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        assert_eq!(
            shown,
            [
                "content-type: text/html",
                "set-cookie: a=b",
                "set-cookie: c=d",
                "x-a: 1",
                "strict-transport-security: max-age=31536000; includeSubDomains",
                "via: 1.0 portcullis"
            ]
        );
        let mut map = HeaderMap::new();
        for line in SAID.lines().filter(|line| !line.starts_with("X-Hop")) {
            let (name, value) = line.split_once(':').unwrap();
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_str(value.trim()).unwrap());
        }
        clean(StatusCode::OK, &mut map, Version::HTTP_10);
        assert_eq!(map, head);
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
