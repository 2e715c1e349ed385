//! The configuration from the outside: files, variables and flags in, a `Config` or every problem out.

mod access;
mod clients;
mod newcomers;
mod portal;
mod sealing_key;
mod server;
mod sessions;
mod shipped;
mod sites;
mod waves;

use std::{
    ffi::OsString,
    fs,
    net::SocketAddr,
    os::unix::{ffi::OsStringExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use http::HeaderName;
use secrecy::ExposeSecret as _;

use super::{Config, Flag, Location, Problem, Problems};
use crate::{clock::Timestamp, server::ListenAddress, sessions::Store, telemetry::log::Format};

/// A file with only the keys that have no default; a test's own lines begin at line 7.
const LEAST: &str = r#"[server]
public_url = "https://iot.example.com"
[portal]
name = "IoT Connectivity"
upstreams = ["http://127.0.0.1:3000"]

"#;

/// A folder with configuration files.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn load(text: &str) -> Result<Config, Problems> {
    load_with(text, &[])
}

fn load_with(text: &str, variables: &[(&str, &str)]) -> Result<Config, Problems> {
    let folder = Folder::new();
    let file = folder.file("portcullis.toml", text);
    Config::load(&[file], environment(variables), &[])
}

fn environment(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn line(problem: &Problem) -> Option<usize> {
    match &problem.place {
        Location::File { position, .. } => position.as_ref().map(|position| position.line),
        Location::Setting(_) | Location::Nowhere => None,
    }
}

fn expect_faults(text: &str, expected: &[(&str, usize, &str)]) {
    let problems = load(text).expect_err(text);
    let found: Vec<_> = problems.iter().collect();
    assert_eq!(found.len(), expected.len(), "{text}\n{problems}");
    for (problem, (key, at, words)) in found.iter().zip(expected) {
        assert_eq!(problem.key, *key, "{problems}");
        assert_eq!(line(problem), Some(*at), "{problems}");
        assert!(problem.message.contains(words), "`{words}` is not in:\n{problems}");
    }
}

/// The faults in one added text: each with its key, its line in that text, and some words of it.
fn expect_faults_in(added: &str, expected: &[(&str, usize, &str)]) {
    let shifted: Vec<_> = expected.iter().map(|(key, line, words)| (*key, line + 6, *words)).collect();
    expect_faults(&format!("{LEAST}{added}"), &shifted);
}

#[test]
fn every_impossible_value_is_refused_where_it_stands() {
    for (added, key, words) in [
        ("[tls]\ncertificate = \"\"", "tls.certificate", "the path of a file"),
        ("[tls]\nkey = 5", "tls.key", "found a whole number"),
        ("[storage]\ndatabase = \"postgres://h/db\"", "storage.database", "names no user"),
        ("[storage]\ndatabase = \"postgres://u@h\"", "storage.database", "a user and a database"),
        ("[storage]\ndatabase = \"postgres://u@h:x/db\"", "storage.database", "invalid port"),
        ("[storage]\ndatabase = \"postgres://u@/db\"", "storage.database", "no host"),
        ("[storage]\ndatabase = \"postgres://u@h/db?sslmode=prefer\"", "storage.database", "verify-full"),
        ("[storage]\ndatabase = \"postgres://u@h/db?sslrootcert=x\"", "storage.database", "storage.ca"),
        (
            "[storage]\ndatabase = \"postgres://u@h/db?target_session_attrs=any\"",
            "storage.database",
            "read-write",
        ),
        (
            "[storage]\ndatabase = \"postgres://u:a@h/db\"\npassword = \"b\"",
            "storage.database",
            "one of the two",
        ),
        ("[storage]\ndatabase = \"mysql://h/db\"", "storage.database", "expected `sqlite:PATH`"),
        ("[storage]\ndatabase = \"sqlite::memory:\"", "storage.database", "must name a file"),
        ("[sessions]\ninactivity = \"0s\"", "sessions.inactivity", "longer than zero"),
        ("[sessions]\ninactivity = 3600", "sessions.inactivity", "expected a duration"),
        ("[sessions]\nexpiration = \"soon\"", "sessions.expiration", "`soon` is not a duration"),
        (
            "[sessions]\nexpiration = \"30m\"",
            "sessions.expiration",
            "must not be longer than `expiration` (30m)",
        ),
        (
            "[sessions]\ninactivity = \"13h\"",
            "sessions.inactivity",
            "must not be longer than `expiration` (12h)",
        ),
        ("[sessions]\nexpiration = \"1000years\"", "sessions.expiration", "at most 365 days"),
        ("[sessions]\nstore = \"memcached://h\"", "sessions.store", "`redis://host:port/number`"),
        ("[sessions]\nstore = \"redis://h/users\"", "sessions.store", "database number"),
        (
            "[sessions]\nclear_on_sign_out = [\"cookies\"]",
            "sessions.clear_on_sign_out[0]",
            "`cache` or `storage`",
        ),
        ("[sessions]\noutage_grace = \"61s\"", "sessions.outage_grace", "at most 60s"),
        ("[sessions]\nstore = \"redis+sentinel://h\"", "sessions.store", "name the master"),
        ("[sessions]\nstore = \"redis+cluster://h/1\"", "sessions.store", "no numbered databases"),
        ("[sessions]\nstore = \"redis://a,b\"", "sessions.store", "several hosts"),
        ("[sessions]\nredis.key = \"k\"\nstore = \"redis://h\"", "sessions.redis.key", "needs `certificate`"),
        ("[sessions.redis]\nkey_prefix = \"a b\"", "sessions.redis.key_prefix", "one word"),
        ("[sessions.redis]\npassword = 1234", "sessions.redis.password", "secret in quotes"),
        (
            "[sessions]\nredis.password_file = \"absent\"\nstore = \"redis://h\"",
            "sessions.redis.password_file",
            "No such",
        ),
    ] {
        expect_faults_in(added, &[(key, 2, words)]);
    }
}

#[test]
fn every_impossible_rule_of_login_is_refused_where_it_stands() {
    for (added, key, words) in [
        ("[login]\nsource = \"ldap\"", "login.source", "not in this version"),
        ("[login]\nsource = \"portal\"", "login.source", "not in this version"),
        ("[login]\nsource = \"magic\"", "login.source", "expected `local`"),
        ("[login]\npassword_min_length = 7", "login.password_min_length", "at least 8"),
        ("[login]\npassword_max_length = 20", "login.password_max_length", "between 64 and 4096"),
        (
            "[login]\npassword_min_length = 300",
            "login.password_min_length",
            "more than `password_max_length`",
        ),
        ("[login]\npassword_min_length = -9", "login.password_min_length", "found a negative number"),
        ("[login.throttle]\nmax_retries = 4294967296", "login.throttle.max_retries", "up to 4294967295"),
        (
            "[server.timeouts]\nidle = 99999999999999999999",
            "server.timeouts.idle",
            "found a number too large",
        ),
        ("[login.throttle]\nmax_retries = 0", "login.throttle.max_retries", "at least 1"),
        ("[login.throttle]\nmax_retries = 60", "login.throttle.max_retries", "must not be less"),
        ("[login.throttle]\nban_time = false", "login.throttle.ban_time", "found true or false"),
        ("[second_factor]\nissuer = \"a:b\"", "second_factor.issuer", "colon"),
        (
            "[second_factor]\nmandatory_from = 2026-03-02T00:00:00",
            "second_factor.mandatory_from",
            "`Z` for UTC",
        ),
        ("[second_factor]\nmandatory_from = 2026-03-02", "second_factor.mandatory_from", "time zone"),
        ("[identity]\npreset = \"remot\"", "identity.preset", "did you mean `remote`?"),
        ("[identity]\nheaders = { user = \"Host\" }", "identity.headers.user", "meaning of its own"),
        ("[identity]\nheaders = { email = \"Remote_Email\" }", "identity.headers.email", "underscore"),
        (
            "[identity]\nheaders = { email = \"remote-user\" }",
            "identity.headers.email",
            "both `user` and `email`",
        ),
        (
            "[identity]\nheaders = { user = \"Remote-Name\" }",
            "identity.headers.user",
            "both `user` and `name`",
        ),
        ("[identity]\nencoding = \"latin1\"", "identity.encoding", "`percent`, `utf-8`"),
        ("[identity]\ngroups = [\"a*b\"]", "identity.groups[0]", "is not a group"),
        ("[log]\nlevel = \"loud\"", "log.level", "`loud` is not a level"),
        ("[log]\nlevel = \"info,portcullis=\"", "log.level", "is not a level"),
        ("[log]\nformat = \"yaml\"", "log.format", "`text`, `json`"),
        ("[log]\naccess = \"yes\"", "log.access", "expected true or false, found text"),
        ("[log]\nacess = true", "log.acess", "did you mean `access`?"),
    ] {
        expect_faults_in(added, &[(key, 2, words)]);
    }
}

#[test]
fn every_impossible_server_and_portal_is_refused_where_it_stands() {
    for (from, to, key, at, words) in [
        ("https://iot", "http://iot", "server.public_url", 2, "must begin with `https://`"),
        ("example.com", "example.com/app", "server.public_url", 2, "without a path"),
        ("example.com", "example.com/?a", "server.public_url", 2, "without a path"),
        ("https://iot", "https://u:secret@iot", "server.public_url", 2, "user name"),
        ("[portal]", "workers = 0\n[portal]", "server.workers", 3, "at least 1"),
        ("[portal]", "workers = 1.5\n[portal]", "server.workers", 3, "found a number that is not whole"),
        ("[portal]", "max_connections = 0\n[portal]", "server.max_connections", 3, "at least 1"),
        ("[portal]", "max_memory = \"0MiB\"\n[portal]", "server.max_memory", 3, "more than nothing"),
        ("[portal]", "max_memory = \"2 GB\"\n[portal]", "server.max_memory", 3, "such as `512MiB`"),
        (
            "[portal]",
            "max_connections_per_network = 0\n[portal]",
            "server.max_connections_per_network",
            3,
            "at least 1",
        ),
        ("[portal]", "listen = []\n[portal]", "server.listen", 3, "is empty"),
        (
            "[portal]",
            "listen = [\"[::]:1\", 1]\n[portal]",
            "server.listen[1]",
            3,
            "expected an address and port",
        ),
        ("[portal]", "listen = [\"[::]:1\", \"[::]:1\"]\n[portal]", "server.listen", 3, "twice"),
        (
            "[portal]",
            "listen = \"127.0.0.1:9180\"\n[portal]",
            "server.admin_listen",
            1,
            "also in `server.listen`",
        ),
        ("[portal]", "admin_listen = \"on\"\n[portal]", "server.admin_listen", 3, "nor `off`"),
        ("[portal]", "trusted_proxies = [\"10/8\"]\n[portal]", "server.trusted_proxies[0]", 3, "10.0.0.0/8"),
        ("[portal]", "timeouts = 5\n[portal]", "server.timeouts", 3, "expected a table"),
        ("[portal]", "timeouts.idle = \"1\"\n[portal]", "server.timeouts.idle", 3, "is not a duration"),
        ("http://127", "ftp://127", "portal.upstreams[0]", 5, "`http://` or `https://`"),
        (":3000", ":3000/app", "portal.upstreams[0]", 5, "without a path"),
        ("\"http://127.0.0.1:3000\"", "", "portal.upstreams", 5, "is empty"),
        ("IoT Connectivity", " ", "portal.name", 4, "is empty"),
        ("IoT Connectivity", "IoT: all", "portal.name", 4, "second_factor.issuer"),
        ("upstreams", "support = \"mail me\"\nupstreams", "portal.support", 5, "mailto:"),
    ] {
        expect_faults(&LEAST.replacen(from, to, 1), &[(key, at, words)]);
    }
}

#[test]
fn all_faults_of_a_file_are_reported_at_once_and_in_its_order() {
    let added = r#"[login]
password_min_length = "many"
sorce = "local"
throttle = { max_retries = -1, find_time = "2 moons", ban_tme = "5m" }
[log]
format = "xml"
[server.timeouts]
idle = "never"
[colours]
"#;
    expect_faults_in(
        added,
        &[
            ("login.password_min_length", 2, "expected a whole number"),
            ("login.sorce", 3, "did you mean `source`?"),
            ("login.throttle.max_retries", 4, "found a negative number"),
            ("login.throttle.find_time", 4, "is not a duration"),
            ("login.throttle.ban_tme", 4, "did you mean `ban_time`?"),
            ("log.format", 6, "expected one of `text`, `json`"),
            ("server.timeouts.idle", 8, "is not a duration"),
            ("colours", 9, "expected one of `server`, `tls`"),
        ],
    );
}

#[test]
fn every_bad_element_of_a_list_is_reported_with_its_index() {
    let text = LEAST.replace("[portal]", "listen = [\n\"a\",\n\"[::]:1\",\n2,\n\"b\",\n]\n[portal]");
    expect_faults(
        &text,
        &[
            ("server.listen[0]", 4, "`a` is not"),
            ("server.listen[2]", 6, "found a whole number"),
            ("server.listen[3]", 7, "`b` is not"),
        ],
    );
}

#[test]
fn what_is_missing_is_reported_at_its_table() {
    expect_faults(
        "[portal]\nname = \"IoT\"\n[server]\n",
        &[("portal.upstreams", 1, "http://127.0.0.1:3000"), ("server.public_url", 3, "is missing")],
    );
    let problems = Config::load(&[], environment(&[]), &[]).unwrap_err();
    assert_eq!(problems.iter().count(), 3, "{problems}");
    assert!(problems.iter().all(|problem| problem.place == Location::Nowhere));
}

#[test]
fn every_syntax_error_is_reported_and_nothing_invented_because_of_it() {
    let text = "[server]\npublic_url = https://iot\nworkers = \"two\"\n[login]\npassword_min_length = 08\n";
    expect_faults(
        text,
        &[
            ("", 2, "text must be quoted: write `public_url = \"…\"`"),
            ("server.workers", 3, "expected a whole number"),
            ("", 5, "unexpected leading zero"),
        ],
    );
    expect_faults(
        &LEAST.replace("upstreams", "name = \"a\"\nupstreams"),
        &[("", 5, "`name` is there twice, for the first time in line 4; keep one")],
    );
    let unclosed = format!("{LEAST}[server.timeouts]\nidle = soon\n[log\nlevel = \"info\"\nformat = 3\n");
    expect_faults(&unclosed, &[("", 8, "must be quoted"), ("", 9, "unclosed table")]);
    expect_faults(&LEAST.replace("3000\"]", "3000\"\n[log]\nlevel = 3"), &[("", 6, "missing comma")]);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let absent = Folder::new().path("absent.toml");
    let problems = Config::load(std::slice::from_ref(&absent), environment(&[]), &[]).unwrap_err();
    assert_eq!(problems.iter().count(), 1, "{problems}");
    let first = problems.iter().next().unwrap();
    assert_eq!(first.place, Location::File { path: absent.clone(), position: None });
    assert!(problems.to_string().contains(absent.to_str().unwrap()), "{problems}");
    assert!(first.message.contains("No such file"), "{problems}");
}

#[test]
fn the_report_shows_the_line_and_points_into_it() {
    let problems = load(&format!("{LEAST}[log]\nlevle = \"info\"\nformat = \"xml\"\n")).unwrap_err();
    let report = problems.render(false);
    assert!(report.contains("error: log.levle: unknown key; did you mean `level`?"), "{report}");
    assert!(report.contains("portcullis.toml:8:1"), "{report}");
    assert!(report.contains("8 | levle = ******\n  | ^^^^^"), "{report}");
    assert!(report.contains("portcullis.toml:9:10"), "{report}");
    assert!(!report.contains('\x1b'), "{report}");
    assert!(problems.render(true).contains('\x1b'));
}

#[test]
fn no_report_holds_a_secret() {
    let added = "[sessions]\nstore = \"redis://u:canary@h/x\"\nredis = { password = \"canary\", password_file = \"x\", \
                 usr = 1 }\n[log]\nlevel = 1\n";
    let problems = load(&format!("{LEAST}{added}")).unwrap_err();
    assert_eq!(problems.iter().count(), 3, "{problems}");
    let unclosed =
        load(&format!("{LEAST}[sessions.redis]\npassword = \"canary\nuser = \"a\"\n")).unwrap_err();
    let misspelt =
        load(&format!("{LEAST}[sessions.redis]\npasword = \"canary\"\nüser = '''canary'''\n")).unwrap_err();
    let variable = load_with(LEAST, &[("PORTCULLIS_SESSIONS__STORE", "redis://u:canary@h/x")]).unwrap_err();
    for problems in [problems, unclosed, misspelt, variable] {
        assert!(!format!("{problems} {problems:?}").contains("canary"), "{problems}");
    }
}

#[test]
fn a_variable_goes_over_the_file_and_a_flag_over_the_variable() {
    let folder = Folder::new();
    let first = folder.file("first.toml", &format!("{LEAST}[log]\nlevel = \"warn\"\nformat = \"json\"\n"));
    let second = folder.file("second.toml", "[log]\nlevel = \"error\"\n[server]\nlisten = [\"[::]:2\"]\n");
    let variables =
        [("PORTCULLIS_SERVER__LISTEN", "[::]:3, 127.0.0.1:4"), ("PORTCULLIS_SERVER__WORKERS", "7")];
    let flag = Flag { name: "--listen".into(), key: "server.listen".into(), value: "[\"[::]:5\"]".into() };
    let files = [first, second];

    let config = Config::load(&files, environment(&variables), &[]).unwrap();
    assert_eq!((config.log.level.as_str(), config.log.format), ("error", Format::Json));
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    assert_eq!(config.server.listen, [address("[::]:3"), address("127.0.0.1:4")].map(ListenAddress::Tcp));
    assert_eq!(config.server.workers, 7);

    let config = Config::load(&files, environment(&variables), &[flag]).unwrap();
    assert_eq!(config.server.listen, [ListenAddress::Tcp(address("[::]:5"))]);
}

#[test]
fn a_fault_in_a_variable_or_flag_names_it() {
    let folder = Folder::new();
    let file = folder.file("portcullis.toml", LEAST);
    let mut variables = environment(&[
        ("PORTCULLIS_SERVER__WORKERS", "many"),
        ("PORTCULLIS_LOG__LEVLE", "info"),
        ("PORTCULLIS_SERVER__LISTEN", "[\"[::]:1\", \"x\"]"),
        ("PORTCULLIS_IDENTITY__HEADERS", "{ user = \"Host\" }"),
        ("HOME", "/nowhere"),
    ]);
    variables.push(("PORTCULLIS_PORTAL__NAME".into(), OsString::from_vec(vec![0xff])));
    let flag = Flag { name: "--admin".into(), key: "server.admin_listen".into(), value: "x".into() };
    let problems = Config::load(&[file], variables, &[flag]).unwrap_err();
    let found: Vec<_> =
        problems.iter().map(|problem| (problem.key.as_str(), problem.place.clone())).collect();
    let named = |name: &str| Location::Setting(name.into());
    for expected in [
        ("server.workers", named("PORTCULLIS_SERVER__WORKERS")),
        ("log.levle", named("PORTCULLIS_LOG__LEVLE")),
        ("server.listen[1]", named("PORTCULLIS_SERVER__LISTEN")),
        ("identity.headers.user", named("PORTCULLIS_IDENTITY__HEADERS")),
        ("portal.name", named("PORTCULLIS_PORTAL__NAME")),
        ("server.admin_listen", named("--admin")),
    ] {
        assert!(found.contains(&expected), "{expected:?} is not in:\n{problems}");
    }
    assert_eq!(found.len(), 6, "{problems}");
    assert!(problems.to_string().contains("set by PORTCULLIS_SERVER__WORKERS"), "{problems}");
}

#[test]
fn a_password_of_digits_survives_the_environment() {
    let variables = [
        ("PORTCULLIS_SESSIONS__STORE", "rediss://redis.example.com/2"),
        ("PORTCULLIS_SESSIONS__REDIS__PASSWORD", "0012345678"),
        ("PORTCULLIS_SESSIONS__REDIS__USER", "true"),
        ("PORTCULLIS_SECOND_FACTOR__MANDATORY_FROM", "2026-03-02T01:00:00+01:00"),
        ("PORTCULLIS_LOG__ACCESS", "false"),
    ];
    let config = load_with(LEAST, &variables).unwrap();
    let Store::Redis(redis) = config.sessions.store else { panic!("{:?}", config.sessions.store) };
    assert_eq!(redis.password.unwrap().expose_secret(), "0012345678");
    assert_eq!(redis.user.as_deref(), Some("true"));
    assert_eq!(redis.url.expose_secret(), "rediss://redis.example.com/2");
    assert_eq!(config.rollout.mandatory_from, Some(Timestamp::from_unix_seconds(1_772_409_600)));
    assert!(!config.access_log);
}

#[test]
fn a_secret_comes_from_the_file_that_its_twin_names() {
    let folder = Folder::new();
    let secret = folder.file("secret", " hunter2\r\n");
    let added = "[sessions]\nstore = \"redis://h\"\n[sessions.redis]\npassword_file = \"secret\"\n";
    let file = folder.file("portcullis.toml", &format!("{LEAST}{added}"));
    let load = || Config::load(std::slice::from_ref(&file), environment(&[]), &[]);

    fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
    let config = load().unwrap();
    let Store::Redis(redis) = config.sessions.store else { panic!("{:?}", config.sessions.store) };
    assert_eq!(redis.password.unwrap().expose_secret(), " hunter2");
    assert!(config.warnings.is_empty());

    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = load().unwrap().warnings.to_string();
    assert!(
        warnings.contains("warning: sessions.redis.password_file: everyone on this machine"),
        "{warnings}"
    );

    fs::write(&secret, "\n").unwrap();
    assert!(load().unwrap_err().to_string().contains("is empty"));
}

#[test]
fn a_secret_given_twice_is_refused() {
    let added = "[sessions]\nstore = \"redis://h\"\nredis = { password = \"a\", password_file = \"b\" }\n";
    expect_faults_in(added, &[("sessions.redis.password_file", 3, "keep one of the two")]);
}

#[test]
fn a_relative_path_is_meant_from_where_it_is_written() {
    let folder = Folder::new();
    let added =
        "[tls]\ncertificate = \"a.pem\"\nkey = \"/b.pem\"\n[storage]\ndatabase = \"sqlite:c.db?mode=rw\"\n";
    let file = folder.file("portcullis.toml", &format!("{LEAST}{added}"));
    let variables = environment(&[("PORTCULLIS_PORTAL__CA", "d.pem")]);
    let config = Config::load(&[file], variables, &[]).unwrap();
    assert_eq!(config.tls.pairs[0].certificate, folder.path("a.pem"));
    assert_eq!(config.tls.pairs[0].key, Path::new("/b.pem"));
    assert_eq!(config.database.to_string(), format!("sqlite:{}?mode=rw", folder.path("c.db").display()));
    assert_eq!(config.upstream.ca.as_deref(), Some(Path::new("d.pem")));
    assert_eq!(
        config.key.to_string(),
        format!("the key file {}", folder.path("data/portcullis.key").display())
    );
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let server = "admin_listen = \"0.0.0.0:1\"\ntrusted_proxies = [\"10.1.2.3\", \"::/0\"]\n[portal]";
    let added = "[sessions]\nexpiration = \"25h\"\nremember_me = \"30d\"\n[sessions.redis]\nuser = \"a\"\n";
    let config = load(&format!("{}{added}", LEAST.replace("[portal]", server))).unwrap();
    let warned: Vec<_> = config.warnings.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(
        warned,
        [
            "server.admin_listen",
            "server.trusted_proxies[1]",
            "sessions.expiration",
            "sessions.remember_me",
            "sessions.redis"
        ]
    );
    assert_eq!(config.web.trusted_proxies[0], "10.1.2.3/32".parse().unwrap());
}

#[test]
fn the_admin_listener_can_be_off() {
    let config = load(&LEAST.replace("[portal]", "admin_listen = \"off\"\n[portal]")).unwrap();
    assert_eq!(config.admin_listen, None);
}

#[test]
fn the_identity_headers_follow_the_preset_and_single_names_replace_it() {
    let added = "[identity]\npreset = \"x-forwarded\"\nheaders = { name = \"X-Forwarded-Name\" }\n";
    let headers = load(&format!("{LEAST}{added}")).unwrap().identity.headers;
    let names = ["x-forwarded-user", "x-forwarded-email", "x-forwarded-name", "x-forwarded-groups"];
    assert_eq!(headers.all().map(|name| name.unwrap().as_str()), names);
    let added = "[identity]\nheaders = { email = \"off\", groups = \"off\" }\n";
    let headers = load(&format!("{LEAST}{added}")).unwrap().identity.headers;
    assert_eq!(
        headers.all().map(|name| name.map(HeaderName::as_str)),
        [Some("remote-user"), None, Some("remote-name"), None]
    );
}

#[test]
fn a_client_cannot_be_let_say_what_the_gateway_says() {
    let with = |name: &str| {
        let least = LEAST.replace("[portal]", &format!("[portal]\npass_headers = [\"{name}\"]"));
        load(&least).map(|config| config.warnings.to_string())
    };
    for name in ["Remote-User", "X-Forwarded-For", "Forwarded", "Host", "X-Portcullis-Jwt-Assertion"] {
        assert!(with(name).unwrap_err().to_string().contains("no client can set it"), "{name}");
    }
    for (name, words) in [("Connection", "two servers"), ("X_Method", "underscore"), ("a b", "not the name")]
    {
        assert!(with(name).unwrap_err().to_string().contains(words), "{name}");
    }
    assert_eq!(with("X-HTTP-Method-Override").unwrap(), "");
    assert!(with("X-Api-Key").unwrap().contains("is never removed"));
}

#[test]
fn every_impossible_assertion_is_refused_where_it_stands() {
    for (line, key, words) in [
        ("enabled = \"no\"", "enabled", "true or false"),
        ("audience = \"\"", "audience", "a name or URL of at most 255 bytes"),
        ("audience = \"the portal\"", "audience", "without spaces"),
        ("lifetime = \"6m\"", "lifetime", "between 1m and 5m"),
        ("lifetime = \"59s\"", "lifetime", "between 1m and 5m"),
        ("lifetime = 300", "lifetime", "expected a duration"),
        ("rotation = \"23h\"", "rotation", "at least 1d"),
        ("rotation = \"2years\"", "rotation", "at most 365 days"),
        ("algorithm = \"none\"", "algorithm", "unknown key"),
    ] {
        let added = format!("[identity.assertion]\n{line}");
        expect_faults_in(&added, &[(&format!("identity.assertion.{key}"), 2, words)]);
    }
}

#[test]
fn the_assertion_is_on_and_for_the_public_url_unless_something_else_is_said() {
    let assertion = |added: &str| load(&format!("{LEAST}{added}")).unwrap().identity.assertion;
    let usual = assertion("").unwrap();
    assert_eq!((&*usual.issuer, &*usual.audience), ("https://iot.example.com", "https://iot.example.com"));
    assert_eq!((usual.lifetime, usual.rotation), (Duration::from_mins(5), Duration::from_hours(720)));
    let other = assertion("[identity.assertion]\naudience = \"portal\"\n").unwrap();
    assert_eq!((&*other.issuer, &*other.audience), ("https://iot.example.com", "portal"));
    let short = assertion("[sessions]\ninactivity = \"90s\"\n").unwrap();
    assert_eq!(short.lifetime, Duration::from_secs(90));
    assert!(assertion("[identity.assertion]\nenabled = false\n").is_none());
    let off = load(&format!("{LEAST}[identity.assertion]\nenabled = false\nlifetime = \"2m\"\n")).unwrap();
    assert_eq!(
        off.warnings.iter().map(|problem| &*problem.key).collect::<Vec<_>>(),
        ["identity.assertion.lifetime"]
    );
}

#[test]
fn the_documented_defaults_hold() {
    let config = load(LEAST).unwrap();
    assert!(config.warnings.is_empty());
    assert_eq!(config.server.listen, [ListenAddress::Tcp("[::]:8443".parse().unwrap())]);
    assert_eq!(config.admin_listen, Some("127.0.0.1:9180".parse().unwrap()));
    assert_eq!(config.sessions.inactivity, Duration::from_hours(1));
    assert_eq!(config.sessions.expiration, Duration::from_hours(12));
    assert!(matches!(config.sessions.store, Store::Database));
    assert_eq!(config.credentials.issuer, "IoT Connectivity");
    assert_eq!(config.credentials.password_min_length, 15);
    assert_eq!(config.credentials.password_max_length, 256);
    assert_eq!((config.sessions.remember_me, config.rollout.mandatory_from), (None, None));
    assert_eq!((config.throttle.max_retries, config.throttle.network_max_retries), (5, 50));
    assert_eq!(config.identity.headers.groups.unwrap().name.as_str(), "remote-groups");
}
