//! `[access]`: rules, or all faults in them, each with its line.

use super::{LEAST, expect_faults_in, line, load, load_with};
use crate::access::AccessLevel;

#[test]
fn rules_are_read_in_their_order_with_their_places() {
    let config = load(&format!(
        "{LEAST}[access]\ndefault = \"deny\"\npresets = [\"robots\", \"favicon\"]\n[[access.rules]]\n\
         path = [\"/webhooks/*\", \"/health\"]\nmethods = \"GET\"\nlevel = \"bypass\"\nanonymous = true\n\
         [[access.rules]]\npath = \"/a,b/*\"\nregex = '/v[0-9]{{1,3}}/x'\nnetworks = [\"10.0.0.0/8\", \"::1\"]\n\
         groups = [\"operators\"]\nusers = \"Ada@Example.com\"\nsites = [\"IOT.example.com\", \"iot.example.com:443\"]\n\
         clients = \"browser\"\nmax_age = \"15m\"\n"
    ))
    .unwrap();
    assert!(config.warnings.is_empty(), "{}", config.warnings);
    let [hooks, admin, robots, favicon] = &config.access.rules[..] else { panic!("{:?}", config.access) };
    assert_eq!(config.access.default, AccessLevel::Deny);
    assert_eq!(format!("{:?} {:?}", hooks.paths, hooks.methods), "[/webhooks/*, /health] [GET]");
    assert_eq!((hooks.level, hooks.anonymous), (AccessLevel::Bypass, true));
    assert!(hooks.place.ends_with("portcullis.toml:10"), "{}", hooks.place);
    assert_eq!(format!("{:?} {:?}", admin.paths, admin.regexes), "[/a,b/*] [\"/v[0-9]{1,3}/x\"]");
    assert_eq!(admin.users[0].as_str(), "ada@example.com");
    assert_eq!((admin.level, admin.max_age.unwrap().as_secs()), (AccessLevel::TwoFactor, 900));
    assert_eq!((&*robots.place, &*favicon.place), ("access.presets: robots", "access.presets: favicon"));
}

#[test]
fn rules_can_be_set_by_a_variable() {
    let rules = ("PORTCULLIS_ACCESS__RULES", "[{path = \"/health\", level = \"bypass\"}]");
    let config = load_with(LEAST, &[rules, ("PORTCULLIS_ACCESS__PRESETS", "robots,acme")]).unwrap();
    assert_eq!(config.access.rules.len(), 3);
    assert_eq!(config.access.rules[0].place, "PORTCULLIS_ACCESS__RULES");
}

#[test]
fn every_fault_of_every_rule_is_told_at_once_where_it_stands() {
    expect_faults_in(
        "[access]\ndefault = \"public\"\npresets = [\"robot\"]\n[[access.rules]]\npath = \"health\"\nlevel = \"bypass\"\n\
         [[access.rules]]\nmethods = [\"GET\", \"post\"]\nlevel = \"none\"\nnetworks = \"everywhere\"\n\
         [[access.rules]]\npaths = \"/a\"\nregex = [\"/a(\"]\nclients = \"robot\"\nmax_age = \"0s\"\n",
        &[
            ("access.default", 2, "`two_factor`"),
            ("access.presets[0]", 3, "`robots`"),
            ("access.rules[0].path", 5, "begin with `/`"),
            ("access.rules[1].methods[1]", 8, "write `POST`"),
            ("access.rules[1].level", 9, "`one_factor`"),
            ("access.rules[1].networks", 10, "is not a network"),
            ("access.rules[2].paths", 12, "did you mean `path`?"),
            ("access.rules[2].regex[0]", 13, "unclosed group"),
            ("access.rules[2].clients", 14, "`browser` or `token`"),
            ("access.rules[2].max_age", 15, "longer than zero"),
        ],
    );
    for (added, key, at, words) in [
        (
            "level = \"one_factor\"\nmax_age = \"5m\"",
            "max_age",
            3,
            "which only `level = \"two_factor\"` asks for",
        ),
        ("anonymous = true", "anonymous", 2, "needs `level = \"bypass\"`"),
        ("level = \"bypass\"\ngroups = \"a\"", "groups", 3, "needs a login to know who asks"),
        ("level = \"bypass\"\nusers = \"a\"", "users", 3, "needs a login to know who asks"),
        ("groups = []", "groups", 2, "leave it out"),
        ("path = []", "path", 2, "leave it out"),
        ("sites = \"crm.example.com\"", "sites", 2, "expected `iot.example.com`"),
        ("users = \" \"", "users", 2, "an e-mail or user name"),
        ("path = \"/.portcullis/login\"", "path", 2, "the gateway's own"),
        ("path = \"/a?b\"", "path", 2, "query and fragment never count"),
        ("methods = \"TRACE\"", "methods", 2, "never reaches a portal"),
        ("level = 2", "level", 2, "found a whole number"),
    ] {
        expect_faults_in(
            &format!("[[access.rules]]\n{added}"),
            &[(&format!("access.rules[0].{key}"), at, words)],
        );
    }
    expect_faults_in("[access]\nrules = \"none\"", &[("access.rules", 2, "a list")]);
}

#[test]
fn a_rule_that_never_matches_is_warned_of() {
    let warned = |added: &str| {
        let config = load(&format!("{LEAST}{added}")).unwrap();
        config
            .warnings
            .iter()
            .map(|one| (one.key.clone(), line(one), one.message.clone()))
            .collect::<Vec<_>>()
    };
    let shadowed = warned(
        "[[access.rules]]\npath = \"/a/*\"\n[[access.rules]]\npath = \"/b\"\n[[access.rules]]\npath = \"/a/b\"\nlevel = \"deny\"",
    );
    assert_eq!(shadowed.len(), 1, "{shadowed:?}");
    assert_eq!((&*shadowed[0].0, shadowed[0].1), ("access.rules[2]", Some(11)));
    assert!(shadowed[0].2.contains("portcullis.toml:7) comes first"), "{}", shadowed[0].2);
    let preset = warned("[access]\npresets = [\"robots\"]\n[[access.rules]]\npath = \"/*\"");
    assert_eq!(preset.len(), 1, "{preset:?}");
    assert!(preset[0].2.starts_with("`robots` never matches: access.rules[0]"), "{}", preset[0].2);
    // One preset may cover another.
    assert!(warned("[access]\npresets = [\"well-known\", \"acme\"]").is_empty());
    let open = warned("[access]\ndefault = \"bypass\"");
    assert!(open[0].2.contains("everybody in without a login"), "{open:?}");
    assert!(warned("[access]\ndefault = \"bypass\"\n[[access.rules]]\npath = \"/a\"").is_empty());
}
