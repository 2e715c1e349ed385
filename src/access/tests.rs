//! The rulings: first match, readings, users, networks.

use super::*;

const STRANGER: Option<(&str, &[&str])> = None;

fn rule(paths: &[&str], level: AccessLevel) -> AccessRule {
    AccessRule {
        paths: paths.iter().map(|path| AccessPath::parse(path).unwrap()).collect(),
        level,
        ..AccessRule::default()
    }
}

fn groups(names: &[&str], rule: AccessRule) -> AccessRule {
    AccessRule { groups: names.iter().map(|&name| name.to_owned()).collect(), ..rule }
}

fn rules(default: AccessLevel, rules: &[AccessRule]) -> AccessRules {
    AccessRules::new(&Config { default, rules: rules.to_vec() }).unwrap()
}

/// The ruling for a target and fields.
fn ruling(
    rules: &AccessRules,
    request: &str,
    fields: &[(&str, &str)],
    user: Option<(&str, &[&str])>,
) -> Ruling {
    let (method, target) = request.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let headers: HeaderMap = fields
        .iter()
        .map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap()))
        .collect();
    let groups: Vec<String> =
        user.map_or(&[][..], |(_, groups)| groups).iter().map(|&one| one.to_owned()).collect();
    let request = AccessRequest::new(&method.parse().unwrap(), &headers, path, query, [10, 0, 0, 1].into());
    rules.of(&match user {
        Some((name, _)) => request.by(SignedIn { name, groups: &groups }),
        None => request,
    })
}

fn level(rules: &AccessRules, request: &str) -> AccessLevel {
    ruling(rules, request, &[], STRANGER).level
}

use AccessLevel::{Bypass, Deny, OneFactor, TwoFactor};

#[test]
fn without_rules_everything_gets_the_default() {
    for default in AccessLevel::ALL {
        let rules = rules(default, &[]);
        assert!(rules.is_empty());
        assert_eq!((rules.default_ruling().level, level(&rules, "GET /%2f;x//")), (default, default));
    }
}

#[test]
fn the_first_rule_that_matches_wins() {
    let rules = rules(
        TwoFactor,
        &[rule(&["/a/login"], Bypass), rule(&["/a/*"], Deny), rule(&["/a/b", "/b"], OneFactor)],
    );
    for (path, expected) in [("/a/login", Bypass), ("/a/b", Deny), ("/b", OneFactor), ("/c", TwoFactor)] {
        assert_eq!(level(&rules, &format!("GET {path}")), expected, "{path}");
        assert_eq!(level(&rules, &format!("GET {path}?/a/login")), expected, "{path}");
    }
}

#[test]
fn what_could_be_read_differently_gets_the_strictest_level() {
    let public = rules(TwoFactor, &[rule(&["/health", "/pub/*"], Bypass)]);
    for path in ["/health", "/%68ealth", "/pub/", "/pub/a%20b", "/pub/A;b//c%2Fd", "/pub/%C3%BC", "/pub/x+y"]
    {
        assert_eq!(level(&public, &format!("GET {path}")), Bypass, "{path}");
    }
    for path in [
        "/health/",
        "/Health",
        "/health;",
        "/health;x=y",
        "/health%2e",
        "/health.",
        "/health%20",
        "/health%3f",
        "//health",
        "/%2fhealth",
        "/health%2f",
        "/health%252f",
        "/%2568ealth",
        "/health%c0%80",
        "/health%ff",
        "/pub",
        "/PUB/a",
        "/pub%2fa",
        "//pub/a",
        "/pub;x/a",
        "/pub%252fa",
        "/pub./a",
        "/pub%20/a",
        "/pub%c0%afa",
        "/pub/%c0%ae%c0%ae/a",
        "/pub/x%c0%af..%c0%af..%c0%afa",
        "/pub%ef%bc%8fa",
        "/%70%75%62%2f..%c0%af",
        "/pub/..;/a",
        "/pub/%252e%252e/a",
        "/pub/%25c0%25ae%25c0%25ae/a",
        "/p%C5%BFub/a",
    ] {
        assert_eq!(level(&public, &format!("GET {path}")), TwoFactor, "{path}");
    }
    let closed = rules(Bypass, &[rule(&["/admin/*"], Deny), rule(&["/account"], TwoFactor)]);
    for path in [
        "/admin",
        "/admin/",
        "/ADMIN/x",
        "//admin/x",
        "/admin;x/y",
        "/admin%2fx",
        "/%61dmin/x",
        "/admin%252fx",
        "/%2e/admin/x",
        "/x/%c0%ae%c0%ae/admin/x",
        "/admin./x",
        "/admin%20/x",
        "/%ef%bd%81dmin/x",
        "/ad%ffmin/",
        "/admin%3fx",
        "/%25u0061dmin/x",
        "/adm%00in",
    ] {
        assert_eq!(level(&closed, &format!("GET {path}")), Deny, "{path}");
    }
    for path in ["/account", "/account/", "/Account", "/account;x", "/account%2f", "/account%3f", "/account."]
    {
        assert_eq!(level(&closed, &format!("GET {path}")), TwoFactor, "{path}");
    }
    assert_eq!(level(&closed, "GET /administration"), Bypass);
    let endless = format!("GET /{}", "%2f;a.".repeat(2000));
    assert_eq!((level(&closed, &endless), level(&public, &endless)), (Deny, TwoFactor));
}

#[test]
fn a_method_gets_the_strictest_level_of_those_that_it_can_be_read_as() {
    let get = AccessRule { methods: vec![Method::GET], ..rule(&["/a"], Bypass) };
    let post = AccessRule { methods: vec![Method::POST], ..rule(&["/a"], Bypass) };
    let rules = rules(TwoFactor, &[get, post]);
    let with = |request: &str, fields: &[(&str, &str)]| ruling(&rules, request, fields, STRANGER).level;
    for (request, expected) in [
        ("GET /a", Bypass),
        ("POST /a", Bypass),
        ("PUT /a", TwoFactor),
        ("HEAD /a", TwoFactor),
        ("CONNECT /a", Bypass),
    ] {
        assert_eq!(with(request, &[]), expected, "{request}");
    }
    assert_eq!(with("POST /a", &[("x-http-method-override", "GET")]), Bypass);
    assert_eq!(with("POST /a", &[("x-http-method-override", "delete")]), TwoFactor);
    assert_eq!(with("POST /a?_method=DELETE", &[]), TwoFactor);
}

#[test]
fn a_regular_expression_and_a_network_are_criteria_like_any_other() {
    let near = AccessRule {
        regexes: vec!["/v[0-9]+/metrics".into()],
        networks: vec!["10.0.0.0/8".parse().unwrap()],
        ..rule(&["/metrics"], Bypass)
    };
    let far = AccessRule { networks: vec!["192.0.2.0/24".parse().unwrap()], ..near.clone() };
    let near = rules(TwoFactor, &[near]);
    for (path, expected) in [
        ("/metrics", Bypass),
        ("/v1/metrics", Bypass),
        ("/v1/metrics/", TwoFactor),
        ("/v1/Metrics", TwoFactor),
        ("/v/metrics", TwoFactor),
    ] {
        assert_eq!(level(&near, &format!("GET {path}")), expected, "{path}");
    }
    assert_eq!(level(&rules(TwoFactor, &[far]), "GET /metrics"), TwoFactor);
    let token = AccessRule { client: Some(ClientKind::Token), ..rule(&["/api/*"], Bypass) };
    assert_eq!(level(&rules(TwoFactor, &[token]), "GET /api/x"), TwoFactor);
    let browser = AccessRule { client: Some(ClientKind::Browser), ..rule(&["/api/*"], Bypass) };
    assert_eq!(level(&rules(TwoFactor, &[browser]), "GET /api/x"), Bypass);
}

#[test]
fn whose_fate_depends_on_who_they_are_is_asked_to_sign_in_unless_strangers_pass() {
    let staff = |level| groups(&["staff"], rule(&["/x"], level));
    let ada = Some(("ada", &["staff"][..]));
    let bob = Some(("bob", &["guests"][..]));
    for (listed, default, stranger, member, other) in [
        (vec![staff(TwoFactor)], Deny, TwoFactor, TwoFactor, Deny),
        (vec![staff(OneFactor)], Deny, OneFactor, OneFactor, Deny),
        (vec![staff(TwoFactor)], Bypass, Bypass, TwoFactor, Bypass),
        (vec![staff(TwoFactor)], OneFactor, OneFactor, TwoFactor, OneFactor),
        (vec![staff(Deny)], TwoFactor, TwoFactor, Deny, TwoFactor),
        (vec![staff(Deny)], Bypass, Bypass, Deny, Bypass),
        (vec![staff(Deny)], Deny, Deny, Deny, Deny),
        (vec![staff(Deny), staff(TwoFactor)], Deny, TwoFactor, Deny, Deny),
        (vec![rule(&["/x"], Deny), staff(TwoFactor)], TwoFactor, Deny, Deny, Deny),
        (vec![rule(&["/x"], Bypass), staff(Deny)], TwoFactor, Bypass, Bypass, Bypass),
    ] {
        let rules = rules(default, &listed);
        let of = |user| ruling(&rules, "GET /x", &[], user).level;
        assert_eq!((of(STRANGER), of(ada), of(bob)), (stranger, member, other), "{listed:?} {default}");
        // Whether the ruling depends on the user is known without knowing the user.
        let depends = ruling(&rules, "GET /x", &[], STRANGER).depends_on_user;
        assert_eq!(depends, listed[0].names_users(), "{listed:?}");
    }
    let by_name = AccessRule { users: vec![CanonicalName::parse("ada").unwrap()], ..staff(TwoFactor) };
    let rules = rules(Deny, &[by_name]);
    let of = |user| ruling(&rules, "GET /x", &[], Some(user)).level;
    assert_eq!(of(("ada", &["staff"])), TwoFactor);
    assert_eq!(of(("ada", &["guests"])), Deny, "all criteria must hold");
    assert_eq!(of(("bob", &["staff"])), Deny);
}

#[test]
fn the_youngest_code_of_all_readings_is_asked_for() {
    let minutes = |minutes| Some(Duration::from_mins(minutes));
    let aged = |path, age| AccessRule { max_age: minutes(age), ..rule(&[path], TwoFactor) };
    let rules = rules(TwoFactor, &[aged("/a/b", 15), aged("/a/*", 60), rule(&["/c"], Deny)]);
    let age = |path: &str| ruling(&rules, &format!("GET {path}"), &[], STRANGER).max_age;
    assert_eq!((age("/a/b"), age("/a/c"), age("/d")), (minutes(15), minutes(60), None));
    assert_eq!((age("/A/b"), age("/a/b/"), age("/C")), (minutes(15), minutes(15), None));
}

#[test]
fn presets_open_what_they_name_and_nothing_else() {
    let rules_of = |listed: &[AccessRule]| rules(TwoFactor, listed);
    let rules = rules_of(&Preset::ALL.map(Preset::rule));
    for request in [
        "GET /robots.txt",
        "HEAD /robots.txt",
        "GET /favicon.ico",
        "GET /favicon-32x32.png",
        "GET /apple-touch-icon-120x120-precomposed.png",
        "GET /site.webmanifest",
        "GET /.well-known/security.txt",
        "GET /.well-known/acme-challenge/abc_DEF-1",
    ] {
        let ruling = ruling(&rules, request, &[], STRANGER);
        assert_eq!((ruling.level, ruling.anonymous), (Bypass, true), "{request}");
    }
    for request in [
        "POST /robots.txt",
        "GET /robots.txt/x",
        "GET /Robots.txt",
        "GET /favicon.icox",
        "GET /x/favicon.ico",
        "GET /.well-known",
        "PUT /.well-known/x",
        "GET /manifest.json;x",
        "OPTIONS /x",
    ] {
        assert_eq!(level(&rules, request), TwoFactor, "{request}");
    }
    let asks = [("origin", "https://other.example"), ("access-control-request-method", "PUT")];
    assert_eq!(ruling(&rules, "OPTIONS /x", &asks, STRANGER).level, Bypass);
    for (request, fields) in [("OPTIONS /x", &asks[..1]), ("OPTIONS /x", &asks[1..]), ("GET /x", &asks[..])] {
        assert_eq!(ruling(&rules, request, fields, STRANGER).level, TwoFactor, "{request} {fields:?}");
    }
    let disguised = [asks[0], asks[1], ("x-http-method-override", "DELETE")];
    assert_eq!(ruling(&rules, "OPTIONS /x", &disguised, STRANGER).level, TwoFactor);
    let acme = rules_of(&[Preset::Acme.rule()]);
    for path in [
        "/.well-known/acme-challenge/",
        "/.well-known/acme-challenge/a/b",
        "/.well-known/acme-challenge/a%2fb",
    ] {
        assert_eq!(level(&acme, &format!("GET {path}")), TwoFactor, "{path}");
    }
}

#[test]
fn what_is_decisive_is_told() {
    let rules = rules(TwoFactor, &[AccessRule { place: "here:1".into(), ..rule(&["/a"], Deny) }]);
    let explain = |path| {
        let request = AccessRequest::new(&Method::GET, &HeaderMap::new(), path, None, [10, 0, 0, 1].into());
        let Explanation { ruling, path, is_reading, .. } = rules.explain(&request);
        (rules.place(&ruling).to_owned(), path, is_reading)
    };
    assert_eq!(explain("/a"), ("here:1".into(), "/a".into(), false));
    assert_eq!(explain("/%2561"), ("here:1".into(), "/a".into(), true));
    assert_eq!(explain("/b"), ("access.default".into(), "/b".into(), false));
}

#[test]
fn a_rule_that_an_earlier_one_covers_is_found() {
    let of =
        |earlier: &AccessRule, later: &AccessRule| !covered(&[earlier.clone(), later.clone()]).is_empty();
    let all = rule(&[], Bypass);
    let (wide, narrow) = (rule(&["/a/*"], Bypass), rule(&["/a/b", "/a/c/*"], Deny));
    let get = |rule: &AccessRule| AccessRule { methods: vec![Method::GET], ..rule.clone() };
    let near = |rule: &AccessRule, network: &str| AccessRule {
        networks: vec![network.parse().unwrap()],
        ..rule.clone()
    };
    for (earlier, later) in [
        (&all, &wide),
        (&rule(&["/*"], Bypass), &all),
        (&wide, &narrow),
        (&wide, &get(&narrow)),
        (&near(&wide, "10.0.0.0/8"), &near(&narrow, "10.1.0.0/16")),
        (&wide, &groups(&["a"], wide.clone())),
        (&groups(&["a", "b"], wide.clone()), &groups(&["a"], wide.clone())),
    ] {
        assert!(of(earlier, later), "{earlier:?} {later:?}");
    }
    for (earlier, later) in [
        (&wide, &all),
        (&narrow, &wide),
        (&get(&wide), &narrow),
        (&near(&wide, "10.0.0.0/8"), &narrow),
        (&near(&wide, "10.1.0.0/16"), &near(&narrow, "10.0.0.0/8")),
        (&groups(&["a"], wide.clone()), &narrow),
        (&Preset::Preflight.rule(), &rule(&["/a"], Bypass)),
    ] {
        assert!(!of(earlier, later), "{earlier:?} {later:?}");
    }
}

#[test]
fn rules_tell_tokens_from_browsers_and_what_is_for_browsers_is_not_left_to_tokens() {
    let of = |client, rule| AccessRule { client: Some(client), ..rule };
    let (browser, token) = (ClientKind::Browser, ClientKind::Token);
    let rules = rules(
        TwoFactor,
        &[
            of(token, rule(&["/first"], OneFactor)),
            of(browser, rule(&["/first", "/later", "/people/*", "/never"], TwoFactor)),
            of(token, rule(&["/later"], TwoFactor)),
            of(browser, rule(&["/open"], Bypass)),
            of(browser, rule(&["/shut"], Deny)),
            of(token, rule(&["/machines"], Bypass)),
            of(browser, rule(&["/api/*"], TwoFactor)),
            rule(&["/api/internal/*"], Deny),
            AccessRule { max_age: Some(Duration::from_mins(15)), ..rule(&["/api/fresh/*"], TwoFactor) },
            of(token, rule(&["/api/*"], TwoFactor)),
            rule(&["/people/*", "/machines", "/never"], OneFactor),
        ],
    );
    for (request, to_browser, to_token) in [
        ("GET /first", TwoFactor, OneFactor),
        ("GET /later", TwoFactor, TwoFactor),
        ("GET /people/a", TwoFactor, Deny),
        ("GET /PEOPLE/a", TwoFactor, Deny),
        ("GET /people", TwoFactor, Deny),
        ("GET /never", TwoFactor, Deny),
        ("GET /x/..%2fnever", TwoFactor, Deny),
        ("GET /open", Bypass, TwoFactor),
        ("GET /shut", Deny, TwoFactor),
        ("GET /machines", OneFactor, Bypass),
        ("GET /else", TwoFactor, TwoFactor),
        ("GET /api/a", TwoFactor, TwoFactor),
        ("GET /api/internal/x", TwoFactor, Deny),
    ] {
        let (method, path) = request.split_once(' ').unwrap();
        let (method, headers) = (method.parse().unwrap(), HeaderMap::new());
        let asked = || AccessRequest::new(&method, &headers, path, None, [10, 0, 0, 1].into());
        let found = (rules.of(&asked()).level, rules.of(&asked().with_token()).level);
        assert_eq!(found, (to_browser, to_token), "{request}");
    }
    let (method, headers) = (Method::GET, HeaderMap::new());
    let fresh = AccessRequest::new(&method, &headers, "/api/fresh/x", None, [10, 0, 0, 1].into());
    assert!(!rules.of(&fresh.with_token()).takes_tokens(), "a code that is fresh takes a person");
}

#[test]
fn a_rule_for_tokens_behind_one_that_does_not_let_them_in_is_not_called_covered() {
    let of = |client, level| AccessRule { client, ..rule(&["/api/*"], level) };
    let people = of(Some(ClientKind::Browser), TwoFactor);
    let machines = of(Some(ClientKind::Token), Bypass);
    let everybody = |level| of(None, level);
    assert_eq!(covered(&[people.clone(), everybody(OneFactor), machines.clone()]), []);
    assert_eq!(covered(&[people.clone(), everybody(Deny), machines.clone()]), [(2, 1)]);
    assert_eq!(covered(&[everybody(OneFactor), people, machines]), [(1, 0), (2, 0)]);
}

#[test]
fn a_second_expression_about_a_path_holds_where_the_first_is_not_for_the_user() {
    let regex = |text: &str, rule: AccessRule| AccessRule { regexes: vec![text.into()], ..rule };
    let rules = rules(
        TwoFactor,
        &[
            groups(&["staff"], regex("/v[0-9]+/admin(/.*)?", rule(&[], TwoFactor))),
            regex("/v[0-9]+/admin(/.*)?", rule(&[], Deny)),
            regex("/[^/]+/closed/.*", rule(&[], Deny)),
        ],
    );
    for (request, level) in [
        ("GET /v2/admin/x", Deny),
        ("GET /v2/admin", Deny),
        ("GET /v2/other", TwoFactor),
        ("GET /tenant/closed/x", Deny),
        ("GET /%ff/closed/x", Deny),
        ("GET /%c3/closed/x", Deny),
    ] {
        let bob = Some(("bob", &["users"][..]));
        assert_eq!(ruling(&rules, request, &[], bob).level, level, "{request}");
    }
}

#[test]
fn a_path_of_other_letters_than_asciis_is_opened_and_closed_as_it_is_written() {
    let rules = rules(
        TwoFactor,
        &[rule(&["/Über/*", "/straße", "/x/Übung", "/ünter/*"], Bypass), rule(&["/größe/*"], Deny)],
    );
    for (path, level) in [
        ("/%C3%9Cber/a", Bypass),
        ("/stra%C3%9Fe", Bypass),
        ("/x/%C3%9Cbung", Bypass),
        ("/%C3%BCnter/a", Bypass),
        // The reader that treats these as equal may not be the portal.
        ("/%C3%BCber/a", TwoFactor),
        ("/uber/a", TwoFactor),
        ("/strasse", TwoFactor),
        ("/gro%C3%9Fe/a", Deny),
        ("/GR%C3%96SSE/a", Deny),
        ("/grosse/a", Deny),
        ("/%C3%9Cber/..%2fgr%C3%B6%C3%9Fe/a", Deny),
    ] {
        assert_eq!(ruling(&rules, &format!("GET {path}"), &[], STRANGER).level, level, "{path}");
    }
}
