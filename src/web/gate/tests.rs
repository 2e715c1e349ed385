//! What passes the gate, and what does not.

use http::uri::PathAndQuery;

use super::*;

/// Another host than ours.
fn misdirected(host: &str) -> Refusal {
    Refusal::Misdirected(Box::new(RequestedHost { host: host.to_owned(), forwarded: None }))
}

impl Named for &str {
    fn authority(&self) -> &str {
        self
    }
}

fn gate() -> RequestGate<&'static str> {
    RequestGate::new("iot.example.com", vec![])
}

/// Each case: version, method, target, fields, whether a body follows.
type Case = (Version, &'static str, &'static str, &'static [(&'static str, &'static str)], bool);

fn admit(case: &Case) -> Result<(String, bool), Refusal> {
    let (version, method, target, fields, body) = case;
    let mut request = Request::builder().version(*version).method(*method).uri(*target);
    for (name, value) in *fields {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        request = request.header(*name, value);
    }
    gate()
        .admit(Box::new(request.body(()).unwrap()), *body)
        .map(|(ok, _)| (ok.target().to_owned(), ok.is_ours()))
}

const H1: Version = Version::HTTP_11;
const H2: Version = Version::HTTP_2;
const HOST: (&str, &str) = ("host", "iot.example.com");

#[test]
fn requests_with_one_meaning_pass_unchanged() {
    let cases: &[(Case, &str, bool)] = &[
        ((H1, "GET", "/sims?q=a%20b", &[HOST], false), "/sims?q=a%20b", false),
        ((H1, "GET", "https://iot.example.com/x?y", &[HOST], false), "/x?y", false),
        ((H1, "PROPFIND", "/", &[("host", "IOT.example.com:443")], false), "/", false),
        ((H2, "GET", "https://iot.example.com/", &[], false), "/", false),
        (
            (H2, "GET", "https://iot.example.com/", &[HOST, ("cookie", "a=b"), ("cookie", "c=d")], false),
            "/",
            false,
        ),
        ((H1, "POST", "/", &[HOST, ("expect", "100-continue"), ("content-length", "5")], true), "/", false),
        ((H1, "GET", "/.portcullis/login", &[HOST], false), "/.portcullis/login", true),
        ((H1, "GET", "//.PORTCULLIS/login", &[HOST], false), "//.PORTCULLIS/login", true),
        ((H1, "GET", "/%2eportcullis", &[HOST], false), "/%2eportcullis", true),
    ];
    for (case, target, ours) in cases {
        assert_eq!(admit(case), Ok(((*target).to_owned(), *ours)), "{case:?}");
    }
}

#[test]
fn an_admitted_request_is_led_only_to_what_would_be_admitted() {
    let led = |from: &'static str, to: &'static str| {
        let request = Request::builder().uri(from).header(HOST.0, HOST.1).body(()).unwrap();
        let gate = gate();
        let (mut request, _) = gate.admit(Box::new(request), false).unwrap();
        let result = request.lead_to(PathAndQuery::from_static(to));
        (result, request.target().to_owned())
    };
    assert_eq!(led("/sims?a", "/sims?b"), (Ok(()), "/sims?b".to_owned()));
    for (to, refusal) in [
        ("/.portcullis/logout", Refusal::Path),
        ("/%2Eportcullis/logout", Refusal::Path),
        ("/a/../b", Refusal::Path),
        ("/a/%2e%2e/b", Refusal::Path),
        ("/a%00", Refusal::Path),
    ] {
        assert_eq!(led("/sims?a", to), (Err(refusal), "/sims?a".to_owned()), "{to}");
    }
    let ours = (Err(Refusal::Path), "/.portcullis/login".to_owned());
    assert_eq!(led("/.portcullis/login", "/sims"), ours, "what was for us stays with us");
}

#[test]
fn ambiguous_requests_are_refused() {
    use Refusal as R;
    const WS: &[(&str, &str)] = &[
        HOST,
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ];
    let cases: &[(Case, R)] = &[
        ((H1, "GET", "/", &[], false), R::Host),
        ((H1, "GET", "/", &[HOST, HOST], false), R::Host),
        ((H1, "GET", "/", &[("host", "")], false), R::Host),
        ((H1, "GET", "/", &[("host", "a b")], false), R::Host),
        ((H1, "GET", "/", &[("host", "iot.example.com:")], false), R::Host),
        ((H1, "GET", "/", &[("host", "iot.example.com:443x")], false), R::Host),
        ((H1, "GET", "/", &[("host", "evil.example.com:+80")], false), R::Host),
        ((H1, "GET", "/", &[("host", "x@iot.example.com")], false), R::Host),
        ((H1, "GET", "/", &[("host", "evil.example.com")], false), misdirected("evil.example.com")),
        ((H1, "GET", "/", &[("host", "iot.example.com:8443")], false), misdirected("iot.example.com:8443")),
        ((H1, "GET", "/", &[("host", "iot.example.com.")], false), misdirected("iot.example.com.")),
        ((H1, "GET", "https://evil.example.com/", &[HOST], false), R::Host),
        ((H1, "GET", "https://iot.example.com/", &[], false), R::Host),
        ((H1, "GET", "http://iot.example.com/", &[HOST], false), R::Target),
        ((H1, "GET", "*", &[HOST], false), R::Target),
        ((H1, "OPTIONS", "*", &[HOST], false), R::Target),
        ((H1, "CONNECT", "iot.example.com:443", &[HOST], false), R::Method),
        ((H1, "TRACE", "/", &[HOST], false), R::Method),
        ((H1, "get", "/", &[HOST], false), R::MethodCase),
        ((H1, "Post", "/", &[HOST], true), R::MethodCase),
        ((H2, "propFind", "https://iot.example.com/", &[], false), R::MethodCase),
        ((H2, "GET", "/", &[HOST], false), R::Host),
        ((H2, "GET", "https://iot.example.com/", &[("host", "other.example.com")], false), R::Host),
        ((H2, "GET", "https://me@iot.example.com/", &[], false), R::Host),
        ((H2, "GET", "ftp://iot.example.com/", &[], false), R::Target),
        ((H2, "GET", "https://iot.example.com/", &[("x-edge", " a")], false), R::Field),
        ((H2, "GET", "https://iot.example.com/", &[("x-edge", "a\t")], false), R::Field),
        ((H1, "GET", "/", &[HOST, ("remote_user", "admin")], false), R::Field),
        ((H1, "POST", "/", &[HOST, ("expect", "200-ok")], true), R::Expectation),
        (
            (H1, "POST", "/", &[HOST, ("expect", "100-continue"), ("expect", "100-continue")], true),
            R::Expectation,
        ),
        ((H1, "POST", "/", &[HOST, ("transfer-encoding", "gzip, chunked")], true), R::Framing),
        (
            (H1, "POST", "/", &[HOST, ("transfer-encoding", "chunked"), ("content-length", "1")], true),
            R::Framing,
        ),
        ((H1, "POST", "/", &[HOST, ("content-length", "1"), ("content-length", "1")], true), R::Framing),
        ((H1, "POST", "/", &[HOST, ("content-length", "+1")], true), R::Framing),
        ((H1, "POST", "/", &[HOST, ("content-length", "18446744073709551616")], true), R::Framing),
        ((H1, "GET", "/", WS, true), R::Upgrade),
        ((H1, "POST", "/", WS, false), R::Upgrade),
        ((H1, "GET", "/", &[HOST, ("upgrade", "websocket")], false), R::Upgrade),
        ((H1, "GET", "/", &[HOST, ("connection", "upgrade"), ("upgrade", "websocket")], false), R::Upgrade),
        ((H1, "GET", "/", &[HOST, ("connection", "upgrade"), ("upgrade", "h2c")], false), R::Upgrade),
        ((H1, "GET", "/", &[HOST, ("connection", "upgrade"), ("upgrade", "a, b")], false), R::Upgrade),
        ((H1, "GET", "/", &[HOST, ("connection", "upgrade"), ("upgrade", "HTTP/2.0")], false), R::Upgrade),
        ((H1, "GET", "/a/../b", &[HOST], false), R::Path),
        ((H1, "GET", "/a/%2e%2E/b", &[HOST], false), R::Path),
        ((H1, "GET", "/a%00", &[HOST], false), R::Path),
    ];
    for (case, refusal) in cases {
        assert_eq!(admit(case).as_ref(), Err(refusal), "{case:?}");
    }
    assert!(admit(&(H1, "GET", "/", WS, false)).is_ok());
}

#[test]
fn heads_beyond_the_limits_are_refused() {
    let mut many = Request::builder().uri("/").header("host", "iot.example.com");
    for _ in 0..MOST_FIELDS {
        many = many.header("x-a", "b");
    }
    assert_eq!(gate().admit(Box::new(many.body(()).unwrap()), false).unwrap_err(), Refusal::TooLarge);
    let large = Request::builder()
        .uri("/")
        .header("host", "iot.example.com")
        .header("x-a", "b".repeat(MOST_HEAD_BYTES))
        .body(())
        .unwrap();
    assert_eq!(gate().admit(Box::new(large), false).unwrap_err(), Refusal::TooLarge);
}

#[test]
fn a_port_of_our_own_must_be_named() {
    let gate = RequestGate::new("localhost:8443", vec![]);
    let ask = |host: &str| {
        gate.admit(Box::new(Request::builder().uri("/").header("host", host).body(()).unwrap()), false)
            .map(|_| ())
    };
    assert_eq!(ask("localhost:8443"), Ok(()));
    assert_eq!(ask("localhost"), Err(misdirected("localhost")));
    assert_eq!(ask("localhost:443"), Err(misdirected("localhost:443")));
}

#[test]
fn each_host_leads_to_its_own_site() {
    let gate = RequestGate::new("iot.example.com", vec!["crm.example.com", "iot.example.com:8443"]);
    let asked = |host: &str, forwarded: Option<&str>| {
        let mut request = Request::builder().uri("/").header("host", host);
        if let Some(forwarded) = forwarded {
            request = request.header("x-forwarded-host", forwarded);
        }
        let mut request = Box::new(request.body(()).unwrap());
        gate.adopt_host(&mut request);
        gate.admit(request, false).map(|(_, site)| *site)
    };
    for (host, site) in [
        ("iot.example.com", "iot.example.com"),
        ("CRM.example.com:443", "crm.example.com"),
        ("iot.example.com:8443", "iot.example.com:8443"),
    ] {
        assert_eq!(asked(host, None), Ok(site), "{host}");
        assert_eq!(asked("10.0.0.5", Some(host)), Ok(site), "{host}");
    }
    assert_eq!(asked("crm.example.com:8443", None), Err(misdirected("crm.example.com:8443")));
    assert_eq!(*gate.first(), "iot.example.com");
}

#[test]
fn a_probe_needs_no_name_and_nothing_else_profits() {
    let gate = gate().with_health(Some("/healthz".to_owned()));
    let ask = |method: &str, target: &str, version: Version, hosts: &[&str]| {
        let mut request = Request::builder().method(method).uri(target).version(version);
        for host in hosts {
            request = request.header("host", *host);
        }
        gate.admit(Box::new(request.body(()).unwrap()), false).map(|(request, _)| request.is_health())
    };
    for hosts in [&["10.0.0.5:8443"][..], &["[::1]"], &["iot.example.com"], &[]] {
        assert_eq!(ask("GET", "/healthz", Version::HTTP_10, hosts), Ok(true), "{hosts:?}");
        assert_eq!(ask("HEAD", "/healthz?from=lb", H1, hosts), Ok(true), "{hosts:?}");
    }
    assert_eq!(ask("GET", "https://10.0.0.5/healthz", H2, &[]), Ok(true));
    for (method, path, hosts) in [
        ("GET", "/healthz/", &["10.0.0.5"][..]),
        ("GET", "/%68ealthz", &["10.0.0.5"]),
        ("POST", "/healthz", &["10.0.0.5"]),
        ("GET", "/healthz", &["10.0.0.5", "10.0.0.5"]),
        ("GET", "/healthz", &["a b"]),
        ("GET", "/", &[]),
    ] {
        assert!(ask(method, path, H1, hosts).is_err(), "{method} {path} {hosts:?}");
    }
    assert_eq!(ask("POST", "/healthz", H1, &["iot.example.com"]), Ok(false));
}

#[test]
fn the_host_that_a_proxy_names_is_the_last_of_its_list() {
    const INNER: (&str, &str) = ("host", "10.0.0.5:8443");
    const XFH: &str = "x-forwarded-host";
    let ask = |gate: &RequestGate<&str>, target: &str, hosts: &[(&str, &str)]| {
        let mut request = Request::builder().uri(target);
        if target.starts_with("https") {
            request = request.version(Version::HTTP_2);
        }
        for (name, value) in hosts {
            request = request.header(*name, *value);
        }
        let mut request = Box::new(request.body(()).unwrap());
        gate.adopt_host(&mut request);
        gate.admit(request, false).map(drop)
    };
    let ours = gate();
    for fields in [
        &[INNER, (XFH, "iot.example.com")][..],
        &[INNER, (XFH, "IOT.example.com:443")],
        &[INNER, (XFH, "evil.example.com, iot.example.com")],
        &[INNER, (XFH, "evil.example.com"), (XFH, "iot.example.com,")],
        &[("host", "iot.example.com")],
    ] {
        assert_eq!(ask(&ours, "/", fields), Ok(()), "{fields:?}");
    }
    assert_eq!(ask(&ours, "https://10.0.0.5/", &[(XFH, "iot.example.com")]), Ok(()));
    for fields in [
        &[INNER, (XFH, "iot.example.com, evil.example.com")][..],
        &[("host", "iot.example.com"), (XFH, "evil.example.com")],
        &[INNER, (XFH, "x@iot.example.com")],
        &[INNER, (XFH, "iot.example.com/")],
        &[INNER, INNER, (XFH, "iot.example.com")],
        &[INNER],
    ] {
        assert!(ask(&ours, "/", fields).is_err(), "{fields:?}");
    }
    let with_port = RequestGate::new("localhost:8443", vec![]);
    assert_eq!(ask(&with_port, "/", &[INNER, (XFH, "localhost")]), Ok(()));
    assert!(ask(&with_port, "/", &[INNER, (XFH, "localhost:9443")]).is_err());
}
