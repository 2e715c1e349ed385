//! `[portal]`: its sign-out paths, and the headers for it and from it.

use http::{HeaderMap, Method};

use super::{LEAST, load_with};

#[test]
fn a_way_out_is_a_path_perhaps_with_a_method_and_a_query() {
    let config = |paths: &str| load_with(LEAST, &[("PORTCULLIS_PORTAL__LOGOUT_PATHS", paths)]);
    let said = config("/logout, /auth/*, GET /wp-login.php?action=logout, DELETE /api/%73ession").unwrap();
    for (method, path, query, leads_out) in [
        (Method::GET, "/logout", None, true),
        (Method::POST, "/auth/out", Some("x=y"), true),
        (Method::GET, "/wp-login.php", Some("action=logout"), true),
        (Method::GET, "/wp-login.php", None, false),
        (Method::DELETE, "/api/session", None, true),
        (Method::POST, "/api/session", None, false),
    ] {
        let attempt = said.logout_paths.attempt(&method, &HeaderMap::new(), path, query);
        assert_eq!(attempt.is_some(), leads_out, "{method} {path}");
    }
    for bad in ["logout", "get /logout", "GET", "GET logout", "/a*", "/*", "/logout#x", "GET POST /logout"] {
        let problems = config(bad).unwrap_err().to_string();
        assert!(
            problems.contains("a path such as `/logout` or `/auth/*`, or `GET /wp-login"),
            "{bad}: {problems}"
        );
    }
}

#[test]
fn what_browsers_remember_of_plain_http_is_a_value_or_a_word() {
    let config = |said: &str| load_with(LEAST, &[("PORTCULLIS_PORTAL__HSTS", said)]);
    for said in ["portal", "off", "max-age=0", "max-age=31536000; includeSubDomains; preload", "Max-Age=1"] {
        assert!(config(said).is_ok(), "{said}");
    }
    for bad in [
        "on",
        "max-age",
        "max-age=",
        "max-age=1y",
        "includeSubDomains",
        "max-age=1; x",
        "max-age=1; max-age=2",
    ] {
        let problems = config(bad).unwrap_err().to_string();
        assert!(problems.contains("`portal`, `off` or a value such as"), "{bad}: {problems}");
    }
}

#[test]
fn the_portals_origin_is_one() {
    let config = |upstreams: &str| {
        let upstreams = ("PORTCULLIS_PORTAL__UPSTREAMS", upstreams);
        load_with(LEAST, &[("PORTCULLIS_PORTAL__ORIGIN", "upstream"), upstreams])
    };
    assert!(config("http://10.0.0.1, http://10.0.0.2").unwrap().warnings.is_empty());
    let warned = config("https://10.0.0.1").unwrap().warnings.to_string();
    assert!(warned.contains("portal.origin") && warned.contains("has no effect"), "{warned}");
    let refused = config("http://10.0.0.1, https://10.0.0.2").unwrap_err().to_string();
    assert!(refused.contains("portal.origin") && refused.contains("all `http`"), "{refused}");
    // With another host name, each has its own origin.
    for (host, upstreams) in
        [("upstream", "http://10.0.0.1, https://10.0.0.2"), ("a.internal", "https://10.0.0.1")]
    {
        let settings = [
            ("PORTCULLIS_PORTAL__ORIGIN", "upstream"),
            ("PORTCULLIS_PORTAL__HOST", host),
            ("PORTCULLIS_PORTAL__UPSTREAMS", upstreams),
        ];
        assert!(load_with(LEAST, &settings).unwrap().warnings.is_empty(), "{host}");
    }
}

#[test]
fn a_browser_finds_room_on_each_worker_unless_the_configuration_says_how_much() {
    let most = |variables: &[(&str, &str)]| load_with(LEAST, variables).unwrap().upstream.limits.connections;
    for (workers, connections) in [("1", 256), ("2", 256), ("16", 2048)] {
        let workers = ("PORTCULLIS_SERVER__WORKERS", workers);
        assert_eq!(most(&[workers]), connections);
        assert_eq!(most(&[workers, ("PORTCULLIS_PORTAL__MAX_CONNECTIONS", "20")]), 20);
    }
}

#[test]
fn one_user_leaves_room_to_others_unless_the_configuration_lets_them_have_everything() {
    let limits =
        |variables: &[(&str, &str)]| load_with(LEAST, variables).map(|config| config.upstream.per_user);
    let unset = limits(&[]).unwrap();
    assert_eq!((unset.connections, unset.leaves_room, unset.streams), (u32::MAX, true, 200));
    let set = limits(&[
        ("PORTCULLIS_PORTAL__MAX_CONNECTIONS_PER_USER", "7"),
        ("PORTCULLIS_PORTAL__MAX_STREAMS_PER_USER", "0"),
    ]);
    let set = set.unwrap();
    assert_eq!((set.connections, set.leaves_room, set.streams), (7, true, 0));
    let all = limits(&[
        ("PORTCULLIS_PORTAL__MAX_CONNECTIONS", "7"),
        ("PORTCULLIS_PORTAL__MAX_CONNECTIONS_PER_USER", "7"),
    ]);
    assert!(!all.unwrap().leaves_room);
    for bad in ["0", "-1", "many"] {
        let problems = limits(&[("PORTCULLIS_PORTAL__MAX_CONNECTIONS_PER_USER", bad)]).unwrap_err();
        assert!(problems.to_string().contains("portal.max_connections_per_user"), "{problems}");
    }
}

#[test]
fn connections_that_are_too_few_for_the_workers_are_refused_and_few_are_warned_of() {
    for (connections, workers, wrong, warned) in [
        ("7", "8", Some("must be at least 8, one for each worker; or set `server.workers` to 7"), None),
        ("1", "2", Some("must be at least 2"), None),
        ("0", "2", Some("must be at least 1"), None),
        (
            "8",
            "8",
            None,
            Some(
                "leaves each worker 1 (of 8 workers): a user's downloads can hold up everybody's pages; raise it to 64",
            ),
        ),
        (
            "63",
            "8",
            None,
            Some("leaves each worker 7 (of 8 workers): a user's downloads can hold up that user's pages"),
        ),
        ("1", "1", None, Some("leaves each worker 1 (of 1")),
        ("64", "8", None, None),
    ] {
        let said = load_with(
            LEAST,
            &[("PORTCULLIS_PORTAL__MAX_CONNECTIONS", connections), ("PORTCULLIS_SERVER__WORKERS", workers)],
        );
        let (warnings, problems) = match said {
            Ok(config) => (config.warnings.to_string(), None),
            Err(problems) => (String::new(), Some(problems.to_string())),
        };
        assert_eq!(problems.is_some(), wrong.is_some(), "{connections} {workers}: {problems:?}");
        assert!(problems.unwrap_or_default().contains(wrong.unwrap_or_default()), "{connections} {workers}");
        assert_eq!(warnings.contains("portal.max_connections"), warned.is_some(), "{warnings}");
        assert!(warnings.contains(warned.unwrap_or_default()), "{warnings}");
    }
}
