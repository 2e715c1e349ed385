//! A request that is admitted names our host and no other, carries one reading of its framing, and keeps its target byte
//! for byte; so does the URL that a browser would make of it.

use http::{HeaderValue, Method, Request, Version, header};
use percent_encoding::percent_decode_str;
use portcullis::web::gate::{Named, RequestGate};
use url::Url;

const OURS: &str = "https://iot.example.com";

struct Ours;

impl Named for Ours {
    fn authority(&self) -> &'static str {
        "iot.example.com"
    }
}

pub(crate) fn holds(data: &[u8]) {
    let Some((&choice, text)) = data.split_first() else { return };
    let version = if choice & 1 == 0 { Version::HTTP_11 } else { Version::HTTP_2 };
    let Some(request) = parse(text, version) else { return };
    let origin = Url::parse(OURS).expect("a URL");
    let asked = request.uri().clone();
    let gate = RequestGate::new(Ours, vec![]);
    let Ok((admitted, _)) = gate.admit(Box::new(request), choice & 2 != 0) else { return };

    assert!(asked.authority().is_none_or(|named| is_ours(named.as_str())), "{asked}");
    assert!(asked.scheme_str().is_none_or(|scheme| scheme == "https"), "{asked}");
    let headers = admitted.headers();
    assert!(headers.get_all(header::HOST).iter().count() <= 1);
    assert!(headers.get(header::HOST).is_none_or(|host| host.to_str().is_ok_and(is_ours)), "{headers:?}");
    assert!(asked.authority().is_some() || headers.contains_key(header::HOST));
    assert!(headers.get_all(header::CONTENT_LENGTH).iter().count() <= 1);
    let framed_twice =
        headers.contains_key(header::CONTENT_LENGTH) && headers.contains_key(header::TRANSFER_ENCODING);
    assert!(!framed_twice, "{headers:?}");
    assert!(headers.keys().all(|name| !name.as_str().contains('_')), "{headers:?}");
    assert!(!matches!(*admitted.method(), Method::CONNECT | Method::TRACE));

    let target = admitted.target().to_owned();
    assert_eq!(Some(target.as_str()), asked.path_and_query().map(http::uri::PathAndQuery::as_str));
    let url = Url::parse(&format!("{OURS}{target}")).expect("what is admitted makes a URL");
    let decoded = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
    assert_eq!(url.host_str(), origin.host_str(), "{target}");
    assert_eq!(decoded(url.path()), decoded(admitted.path()), "{target}");
    assert_eq!(url.query().map(decoded), admitted.query().map(decoded), "{target}");
    let request = admitted.into_request();
    assert!(request.uri().authority().is_none() && request.uri().scheme().is_none());
}

fn is_ours(host: &str) -> bool {
    ["iot.example.com", "iot.example.com:443"].iter().any(|ours| host.eq_ignore_ascii_case(ours))
}

/// The request as hyper makes one of these bytes.
fn parse(text: &[u8], version: Version) -> Option<Request<()>> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut fields);
    parsed.parse(text).ok()?.is_complete().then_some(())?;
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
    *request.uri_mut() = parsed.path?.parse().ok()?;
    *request.version_mut() = version;
    for field in parsed.headers.iter() {
        let name = header::HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        request.headers_mut().append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some(request)
}
