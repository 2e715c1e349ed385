//! A response to the client, ours or the portal's: status, head and body in one value.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::portal_fields::PortalFields;

/// A response.
#[derive(Debug)]
pub struct Reply<B> {
    pub status: StatusCode,
    pub head: Head,
    pub body: B,
}

/// The fields of a response. They are read and changed only here.
#[derive(Debug)]
pub enum Head {
    Own(HeaderMap),
    /// As the portal sent them, so that HTTP/1 can forward them without parsing each.
    Portal(PortalFields),
}

impl Head {
    /// The first value of this name.
    pub fn get<'a>(&'a self, name: &'a HeaderName) -> Option<&'a [u8]> {
        match self {
            Self::Own(headers) => headers.get(name).map(HeaderValue::as_bytes),
            Self::Portal(fields) => fields.get(name),
        }
    }

    /// Replaces all fields of this name.
    pub fn set(&mut self, name: HeaderName, value: HeaderValue) {
        match self {
            Self::Own(headers) => {
                headers.insert(name, value);
            }
            Self::Portal(fields) => fields.replace(&name, value),
        }
    }
}

impl From<Head> for HeaderMap {
    fn from(head: Head) -> Self {
        match head {
            Head::Own(headers) => headers,
            Head::Portal(fields) => {
                let mut headers = Self::new();
                fields.add_to(&mut headers);
                headers
            }
        }
    }
}

impl<B> Reply<B> {
    pub fn map<C>(self, change: impl FnOnce(B) -> C) -> Reply<C> {
        Reply { status: self.status, head: self.head, body: change(self.body) }
    }
}

/// Our own response.
impl<B> From<Response<B>> for Reply<B> {
    fn from(answer: Response<B>) -> Self {
        let (parts, body) = answer.into_parts();
        Self { status: parts.status, head: Head::Own(parts.headers), body }
    }
}

impl<B> From<Reply<B>> for Response<B> {
    fn from(Reply { status, head, body }: Reply<B>) -> Self {
        let mut answer = Self::new(body);
        *answer.status_mut() = status;
        *answer.headers_mut() = head.into();
        answer
    }
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::{super::portal_fields::tests::read, *};

    #[test]
    fn a_field_is_read_and_set_whoever_made_the_head() {
        let portals = read("Content-Type: text/html\r\nX-A: 1\r\nX-A: 2\r\n").unwrap();
        let map = HeaderMap::from_iter([
            (header::CONTENT_TYPE, HeaderValue::from_static("text/html")),
            (HeaderName::from_static("x-a"), HeaderValue::from_static("1")),
        ]);
        for mut head in [Head::Own(map), Head::Portal(portals)] {
            let name = HeaderName::from_static("x-a");
            assert_eq!(head.get(&header::CONTENT_TYPE), Some(&b"text/html"[..]), "{head:?}");
            assert_eq!((head.get(&name), head.get(&header::DATE)), (Some(&b"1"[..]), None), "{head:?}");
            head.set(name.clone(), HeaderValue::from_static("3"));
            head.set(header::DATE, HeaderValue::from_static("now"));
            assert_eq!((head.get(&name), head.get(&header::DATE)), (Some(&b"3"[..]), Some(&b"now"[..])));
            let reply = Reply { status: StatusCode::NOT_FOUND, head, body: 7 }.map(|body| body + 1);
            let answer = Response::from(reply);
            assert_eq!((answer.status(), *answer.body()), (StatusCode::NOT_FOUND, 8));
            assert_eq!(answer.headers().get_all(&name).iter().collect::<Vec<_>>(), ["3"]);
            assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/html");
        }
    }
}
