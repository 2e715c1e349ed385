//! Whatever is asked for, a login leads to a path of this very site, as browsers read it.

use portcullis::web::{form, return_to::ReturnTo};
use url::Url;

pub(crate) fn holds(data: &[u8]) {
    let Ok(asked) = std::str::from_utf8(data) else { return };
    let to = ReturnTo::parse(asked);
    let path = to.as_str();
    assert!(path == asked || path == "/", "{asked:?} became {path:?}");
    let page = Url::parse("https://iot.example.com/.portcullis/code?x=y").expect("a URL");
    let led = page.join(path).expect("a path of this site can be followed");
    assert_eq!(led.origin(), page.origin(), "{asked:?}");
    assert_eq!((led.username(), led.password(), led.fragment()), ("", None, None), "{asked:?}");
    assert!(!led.path().starts_with("//"), "{asked:?}");
    assert!(!led.path().starts_with("/.portcullis/log"), "{asked:?}");
    assert_eq!(ReturnTo::parse(path), to);
    let link = to.append_to("/.portcullis/login");
    match link.split_once('?') {
        Some((_, query)) => assert_eq!(form::query_value(query, "rd").as_deref(), Some(path)),
        None => assert_eq!(path, "/"),
    }
}
