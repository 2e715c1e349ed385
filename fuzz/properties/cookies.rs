//! After the cut no reader of cookies finds one of ours, and every other is where it was; the portal sets none of ours.

use http::{HeaderMap, HeaderValue, header};
use portcullis::web::cookies::{self, CookieNames, Cookies, Jar};
use url::Url;

pub(crate) fn holds(data: &[u8]) {
    let lines: Vec<HeaderValue> =
        data.split(|&byte| byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()).collect();
    cut(&lines);
    set(&lines);
}

fn cut(lines: &[HeaderValue]) {
    let headers: HeaderMap = lines.iter().map(|line| (header::COOKIE, line.clone())).collect();
    let kept: Vec<Vec<u8>> = pairs(&headers).into_iter().filter(|pair| !is_ours(pair)).collect();
    let names = CookieNames::new(&Url::parse("https://iot.example.com").expect("a URL"));
    let read = Cookies::of(&headers, &names);
    let spelt = pairs(&headers).iter().filter(|pair| pair.starts_with(b"__Host-portcullis=")).count();
    assert!(read.session.is_none() || spelt <= 1, "{lines:?}");

    let left: HeaderMap = read.others.iter().map(|line| (header::COOKIE, line.clone())).collect();
    assert_eq!(pairs(&left), kept, "{lines:?}");
    assert_eq!(cookies::token(&left, &names.session), None);
    assert_eq!(cookies::token(&left, &names.login), None);

    // What a connection remembers of one request is never taken for another's.
    let mut jar = Jar::default();
    for headers in [&headers, &left, &headers, &headers, &HeaderMap::new(), &left] {
        let (opened, read) = (jar.open(headers, &names), Cookies::of(headers, &names));
        assert_eq!((opened.session, opened.others), (read.session, read.others), "{lines:?}");
    }
}

fn pairs(headers: &HeaderMap) -> Vec<Vec<u8>> {
    let lines = headers.get_all(header::COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b';')).map(<[u8]>::trim_ascii);
    pairs.filter(|pair| !pair.is_empty()).map(<[u8]>::to_vec).collect()
}

fn is_ours(pair: &[u8]) -> bool {
    pair.contains(&b'=') && pair.to_ascii_lowercase().starts_with(b"__host-portcullis")
}

fn set(lines: &[HeaderValue]) {
    for line in lines.iter().filter(|line| !cookies::sets_ours(line.as_bytes())) {
        let Some(cookie) = line.to_str().ok().and_then(|line| cookie::Cookie::parse(line).ok()) else {
            continue;
        };
        let name = cookie.name().to_ascii_lowercase();
        assert!(!name.starts_with("__host-portcullis"), "{line:?}");
    }
}
