//! Nobody can choose the address that they are known by: what they write themselves stands to the left of what a trusted
//! proxy adds, and is never reached.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use ipnet::IpNet;
use portcullis::web::client::{self, AddressField};

pub(crate) fn holds(data: &[u8]) {
    let mut lines = data.split(|&byte| byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let trusted: [IpNet; 2] = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().expect("a network"));
    let proxy = IpAddr::from([10, 0, 0, 1]);
    let stranger = IpAddr::from([203, 0, 113, 9]);
    let (name, field) = if first.first() == Some(&b'f') {
        ("forwarded", AddressField::Forwarded)
    } else {
        ("x-forwarded-for", AddressField::XForwardedFor)
    };
    let name = HeaderName::from_static(name);
    let mut headers = HeaderMap::new();
    for line in lines {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(&name, value.clone());
            headers.append(header::ACCEPT, value);
        }
    }
    assert_eq!(client::address(stranger, &headers, &trusted, field), stranger);
    assert_eq!(client::address(proxy, &headers, &[], field), proxy);
    client::is_navigation(&Method::GET, &headers);

    let address = client::address(proxy, &headers, &trusted, field);
    assert_eq!(address, address.to_canonical());
    let forgeries = ["198.51.100.66", "for=198.51.100.66", "10.9.9.9", "\"", "x;for=\"[::1]\""];
    for lie in forgeries {
        let mut forged: HeaderMap = HeaderMap::new();
        forged.append(&name, HeaderValue::from_static(lie));
        for value in headers.get_all(&name) {
            forged.append(&name, value.clone());
        }
        let seen = client::address(proxy, &forged, &trusted, field);
        let vouched = trusted.iter().any(|network| network.contains(&address));
        assert!(seen == address || vouched, "{lie} made {seen} of {address}: {headers:?}");
    }
    // What the proxy adds at the right is always what counts.
    let said = if name == "forwarded" { "for=198.51.100.7" } else { "198.51.100.7" };
    headers.append(&name, HeaderValue::from_static(said));
    let seen = client::address(proxy, &headers, &trusted, field);
    assert_eq!(seen, IpAddr::from([198, 51, 100, 7]), "{headers:?}");
}
