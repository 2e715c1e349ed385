//! After the cut no reader of cookies finds one of ours, and every other is where it was; the portal sets none of ours.

use http::{HeaderMap, HeaderValue, header};
use portcullis::web::cookies;

pub(crate) fn holds(data: &[u8]) {
    let lines: Vec<HeaderValue> =
        data.split(|&byte| byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()).collect();
    cut(&lines);
    set(lines);
}

fn cut(lines: &[HeaderValue]) {
    let mut headers: HeaderMap = lines.iter().map(|line| (header::COOKIE, line.clone())).collect();
    let kept: Vec<Vec<u8>> = pairs(&headers).into_iter().filter(|pair| !is_ours(pair)).collect();
    let found = cookies::token(&headers, cookies::SESSION);
    let exact = |pair: &&Vec<u8>| pair.starts_with(b"__Host-portcullis=");
    let spelt = pairs(&headers).iter().filter(exact).count();
    assert!(found.is_none() || spelt <= 1, "{lines:?}");
    cookies::cut_ours(&mut headers);
    assert_eq!(pairs(&headers), kept, "{lines:?}");
    assert!(headers.get_all(header::COOKIE).iter().count() <= 1, "{lines:?}");
    assert_eq!(cookies::token(&headers, cookies::SESSION), None);
    assert_eq!(cookies::token(&headers, cookies::LOGIN), None);
}

fn pairs(headers: &HeaderMap) -> Vec<Vec<u8>> {
    let lines = headers.get_all(header::COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b';')).map(<[u8]>::trim_ascii);
    pairs.filter(|pair| !pair.is_empty()).map(<[u8]>::to_vec).collect()
}

fn is_ours(pair: &[u8]) -> bool {
    pair.contains(&b'=') && pair.to_ascii_lowercase().starts_with(b"__host-portcullis")
}

fn set(lines: Vec<HeaderValue>) {
    let mut headers: HeaderMap = lines.into_iter().map(|line| (header::SET_COOKIE, line)).collect();
    cookies::drop_set_ours(&mut headers);
    for line in headers.get_all(header::SET_COOKIE) {
        let Some(cookie) = line.to_str().ok().and_then(|line| cookie::Cookie::parse(line).ok()) else {
            continue;
        };
        let name = cookie.name().to_ascii_lowercase();
        assert!(!name.starts_with("__host-portcullis"), "{line:?}");
    }
}
