//! `[[sites]]`: own and inherited settings, and the faults in either, each with its line.

use super::{Folder, LEAST, environment, expect_faults_in, line, load, load_with};
use crate::{access::AccessLevel, config::Config, upstream::Sharing};

const SITE: &str = "[[sites]]\npublic_url = \"https://crm.example.com\"\nname = \"Customers\"\nupstreams = [\"http://127.0.0.1:4000\"]\n";

#[test]
fn a_site_has_from_the_first_what_it_does_not_say() {
    let text = LEAST.replace("[portal]", "[portal]\nhost = \"inner.example\"\nconnections = \"user\"\nlogout_paths = [\"/out\"]\nconnect_timeout = \"7s\"");
    let config = load(&format!(
        "{text}[identity]\npreset = \"x-forwarded\"\n[identity.headers]\nuser = \"X-Me\"\n[identity.assertion]\naudience = \"iot\"\nlifetime = \"2m\"\n\
         [access]\ndefault = \"one_factor\"\npresets = [\"robots\"]\n[[access.rules]]\npath = \"/a\"\nsites = \"iot.example.com\"\nlevel = \"bypass\"\n\
         [[access.rules]]\npath = \"/b\"\nsites = \"crm.example.com\"\nlevel = \"bypass\"\n[[access.rules]]\npath = \"/c\"\n\
         {SITE}connect_timeout = \"3s\"\n[sites.identity.headers]\nemail = \"X-Mail\"\n\
         [[sites]]\npublic_url = \"https://other.example.com:8443\"\nname = \"Other\"\nupstreams = [\"http://127.0.0.1:5000\"]\n\
         [sites.access]\npresets = []\n[[sites.access.rules]]\npath = \"/d\"\n"
    ))
    .unwrap();
    assert!(config.warnings.is_empty(), "{}", config.warnings);
    let [first, crm, other] = &config.sites()[..] else { panic!() };
    let paths = |site: &crate::config::SiteConfig| {
        format!("{:?}", site.access.rules.iter().map(|rule| rule.paths.clone()).collect::<Vec<_>>())
    };
    assert_eq!(paths(first), "[[/a], [/c], [/robots.txt]]");
    assert_eq!(paths(crm), "[[/b], [/c], [/robots.txt]]");
    assert_eq!(paths(other), "[[/d]]");
    assert!(other.access.rules[0].place.ends_with(":44"), "{}", other.access.rules[0].place);
    assert!([first, crm, other].iter().all(|site| site.access.default == AccessLevel::OneFactor));
    assert_eq!((first.upstream.connect_timeout.as_secs(), crm.upstream.connect_timeout.as_secs()), (7, 3));
    assert_eq!(crm.upstream.sharing, Sharing::User);
    assert_eq!(format!("{:?}", crm.logout_paths), format!("{:?}", first.logout_paths));
    assert_eq!(format!("{:?}", crm.upstream.host), "Public", "the name of other servers is none of these");
    let names = |site: &crate::config::SiteConfig| {
        let headers = &site.identity.headers;
        [&headers.user, &headers.email, &headers.groups].map(|name| name.as_ref().unwrap().name.to_string())
    };
    assert_eq!(names(first), ["x-me", "x-forwarded-email", "x-forwarded-groups"]);
    assert_eq!(names(crm), ["x-me", "x-mail", "x-forwarded-groups"]);
    let audience = |site: &crate::config::SiteConfig| {
        let assertion = site.identity.assertion.clone().unwrap();
        (assertion.audience, assertion.issuer, assertion.lifetime.as_secs())
    };
    let own = |url: &str| (url.to_owned(), url.to_owned(), 120);
    assert_eq!(audience(first), ("iot".to_owned(), "https://iot.example.com".to_owned(), 120));
    assert_eq!(audience(crm), own("https://crm.example.com"));
    assert_eq!(audience(other), own("https://other.example.com:8443"));
    assert_eq!(config.tls.hosts, ["iot.example.com", "crm.example.com", "other.example.com"]);
}

#[test]
fn sites_can_be_set_by_a_variable() {
    let sites = "[{public_url = \"https://crm.example.com\", name = \"C\", upstreams = [\"http://c\"], ca = \"x.pem\"}]";
    let config = load_with(LEAST, &[("PORTCULLIS_SITES", sites)]).unwrap();
    assert_eq!(config.others[0].pages.portal_name, "C");
    assert_eq!(config.others[0].upstream.ca.as_deref(), Some(std::path::Path::new("x.pem")));
}

#[test]
fn every_fault_of_a_site_is_told_where_it_stands() {
    for (added, key, at, words) in [
        ("max_waiting = \"many\"", "max_waiting", 5, "(site crm.example.com)"),
        ("max_connections = 0", "max_connections", 5, "at least 1 (site crm.example.com)"),
        ("publc_url = 1", "publc_url", 5, "did you mean `public_url`?"),
        ("supprt = \"x\"", "supprt", 5, "did you mean `support`?"),
        ("[sites.access]\nlevel = 1", "access.level", 6, "expected one of `default`"),
        ("[[sites.access.rules]]\nlevel = \"none\"", "access.rules[0].level", 6, "`one_factor`"),
        (
            "[sites.access]\nrules = [{sites = \"x.example\"}]",
            "access.rules[0].sites",
            6,
            "expected `iot.example.com` or `crm.example.com`",
        ),
        ("[sites.identity.headers]\nuser = \"Remote-Email\"", "identity.headers.user", 6, "would carry both"),
        ("[sites.identity.assertion]\nrotation = \"2d\"", "identity.assertion.rotation", 6, "for all sites"),
        ("pass_headers = [\"Remote-User\"]", "pass_headers[0]", 5, "what the gateway tells the portal"),
        ("connect_timeout = \"x\"", "connect_timeout", 5, "a duration"),
    ] {
        expect_faults_in(&format!("{SITE}{added}"), &[(&format!("sites[0].{key}"), at, words)]);
    }
    expect_faults_in(
        "[[sites]]\nsupport = \"x\"\n",
        &[
            ("sites[0].public_url", 1, "is missing"),
            ("sites[0].name", 1, "is missing"),
            ("sites[0].upstreams", 1, "list the portal's servers"),
            ("sites[0].support", 2, "is not a link"),
        ],
    );
}

#[test]
fn a_fault_that_a_site_has_from_the_first_is_told_once() {
    let text = LEAST.replace("[portal]", "[portal]\nmax_connections = 0\nsupprt = 1");
    let problems = load(&format!("{text}[identity.assertion]\nlifetime = \"1h\"\n{SITE}")).unwrap_err();
    let keys: Vec<_> = problems.iter().map(|problem| problem.key.clone()).collect();
    assert_eq!(keys, ["portal.max_connections", "portal.supprt", "identity.assertion.lifetime"]);
}

#[test]
fn two_sites_of_one_address_shadow_each_other() {
    for (url, shadows) in [
        ("https://iot.example.com", true),
        ("https://IOT.example.com:443/", true),
        ("https://iot.example.com:8443", false),
        ("https://www.iot.example.com", false),
    ] {
        let site = SITE.replace("https://crm.example.com", url);
        let loaded = load(&format!("{LEAST}{site}"));
        let Err(problems) = loaded else {
            assert!(!shadows, "{url}");
            continue;
        };
        let problem = problems.iter().next().unwrap();
        assert!(shadows && problem.message.contains("another site's already"), "{url}: {problems}");
        assert_eq!((&*problem.key, line(problem)), ("sites[0].public_url", Some(8)));
    }
}

#[test]
fn paths_of_a_site_are_meant_from_the_folder_of_its_file() {
    let folder = Folder::new();
    let site = SITE.replace("http://127.0.0.1:4000", "https://c.internal");
    let file = folder.file("portcullis.toml", &format!("{LEAST}{site}ca = \"ca.pem\"\n"));
    let config = Config::load(&[file], environment(&[]), &[]).unwrap();
    assert_eq!(config.others[0].upstream.ca, Some(folder.path("ca.pem")));
}

#[test]
fn each_certificate_is_named_with_its_key() {
    let config = load(&format!("{LEAST}[tls]\ncertificates = [{{ certificate = \"/a.pem\", key = \"/a.key\" }}, {{ certificate = \"/b.pem\", key = \"/b.key\" }}]")).unwrap();
    let files: Vec<_> = config.tls.pairs.iter().map(|pair| pair.certificate.display().to_string()).collect();
    assert_eq!(files, ["/a.pem", "/b.pem"]);
    for (added, key, words) in [
        ("certificates = []", "tls.certificates", "is empty"),
        ("certificates = [{ certificate = \"a\" }]", "tls.certificates[0].key", "is missing"),
        (
            "certificates = [{ certificate = \"a\", key = \"b\", ca = \"c\" }]",
            "tls.certificates[0].ca",
            "unknown key",
        ),
        (
            "key = \"k\"\ncertificates = [{ certificate = \"a\", key = \"b\" }]",
            "tls.key",
            "keep one of the two",
        ),
    ] {
        expect_faults_in(&format!("[tls]\n{added}"), &[(key, 2, words)]);
    }
}

#[test]
fn routes_are_read_and_every_fault_of_them_is_told() {
    let config = load(&format!(
        "{LEAST}ca = \"/ca.pem\"\n[[portal.routes]]\npath = \"/api/*\"\nupstreams = \"https://a.internal\"\n{SITE}[[sites.routes]]\npath = [\"/x\", \"/y\"]\nupstreams = [\"http://b\", \"http://c\"]\n"
    ))
    .unwrap();
    assert!(config.warnings.is_empty(), "{}", config.warnings);
    assert_eq!(config.routes[0].upstream.upstreams[0].as_str(), "https://a.internal/");
    assert_eq!(config.routes[0].upstream.ca, config.upstream.ca);
    let [site] = &config.others[..] else { panic!() };
    assert_eq!(
        (site.routes.len(), site.routes[0].paths.len(), site.routes[0].upstream.upstreams.len()),
        (1, 2, 2)
    );
    for (added, key, at, words) in [
        ("path = \"/a\"", "upstreams", 1, "list the portal's servers"),
        ("upstreams = \"http://a\"", "path", 1, "is missing"),
        ("path = []\nupstreams = \"http://a\"", "path", 2, "say which paths"),
        ("path = \"a\"\nupstreams = \"http://a\"", "path", 2, "begin with `/`"),
        ("path = \"/a\"\nupstreams = [\"http://a\", \"http://a\"]", "upstreams", 3, "twice"),
        ("path = \"/a\"\nupstreams = []", "upstreams", 3, "is empty"),
        ("path = \"/a\"\nupstreams = \"ftp://a\"", "upstreams", 3, "`http://`"),
        ("path = \"/a\"\nupstreams = \"http://a\"\nhost = \"x\"", "host", 4, "unknown key"),
    ] {
        expect_faults_in(
            &format!("[[portal.routes]]\n{added}"),
            &[(&format!("portal.routes[0].{key}"), at, words)],
        );
        expect_faults_in(
            &format!("{SITE}[[sites.routes]]\n{added}"),
            &[(&format!("sites[0].routes[0].{key}"), at + 4, words)],
        );
    }
    let shadowed = load(&format!(
        "{LEAST}[[portal.routes]]\npath = \"/a/*\"\nupstreams = \"http://a\"\n[[portal.routes]]\npath = \"/a/b\"\nupstreams = \"http://b\"\n"
    ))
    .unwrap();
    let warning = shadowed.warnings.iter().next().unwrap();
    assert_eq!((&*warning.key, line(warning)), ("portal.routes[1]", Some(10)));
    assert!(warning.message.contains("portcullis.toml:7 comes first"), "{}", warning.message);
}
