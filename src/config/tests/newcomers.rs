//! The mistakes of people who write a configuration for the first time, and the messages that they get.

use super::{Folder, LEAST, environment, load, load_with};
use crate::config::Config;

/// The only problem of a text, without the excerpt of it.
fn told(text: &str) -> String {
    let problems = load(text).expect_err(text);
    let messages: Vec<_> = problems.iter().map(|problem| problem.message.clone()).collect();
    assert_eq!(messages.len(), 1, "{text}\n{problems}");
    messages.concat()
}

#[test]
fn a_line_that_is_no_toml_is_answered_with_what_to_write() {
    for (line, says) in [
        ("name = IoT", "text must be quoted: write `name = \"…\"`"),
        ("name = IoT Connectivity", "text must be quoted: write `name = \"…\"`"),
        ("name = info", "text must be quoted"),
        ("name = nano # why", "text must be quoted"),
        ("name = tea", "text must be quoted"),
        ("name = 2nd", "text must be quoted"),
        ("name = iot.example.com", "text must be quoted"),
        ("name = “IoT”", "typographic"),
        ("name = „IoT“", "typographic"),
        ("name: IoT", "write `name = …`, with an equals sign"),
        ("name: \"IoT\"", "write `name = …`, with an equals sign"),
        ("name = 'IoT", "the quote at the end is missing"),
        ("name = \"IoT", "the quote at the end is missing"),
        ("name = \"\\certs\"", "backslash"),
        ("name =", "`name` has no value"),
        ("name = # later", "`name` has no value"),
        ("name = True", "write `true` or `false`, in lower case"),
        ("name = Yes", "write `true` or `false`"),
        ("name = \"a\" // why", "a comment begins with `#`"),
        ("name = \"a\"\nname = \"b\"", "`name` is there twice, for the first time in line 4"),
    ] {
        let text = LEAST.replace("name = \"IoT Connectivity\"", line);
        let told = told(&text);
        assert!(told.contains(says), "{line}: {told}");
    }
    let twice = told(&format!("{LEAST}[server]\nworkers = 1\n"));
    assert!(twice.contains("`server` is there twice, for the first time in line 1"), "{twice}");
    let list = LEAST.replace("[\"http://127.0.0.1:3000\"]", "[http://127.0.0.1:3000]");
    assert_eq!(told(&list), "text must be quoted: write `\"…\"`");
    assert!(told("{ \"server\": { \"public_url\": \"https://a\" } }").contains("this is JSON"));
}

#[test]
fn no_answer_repeats_a_value_that_may_be_a_secret() {
    for line in ["password = hunter2", "password: hunter2", "password = “hunter2”", "password = 'hunter2"]
    {
        let problems = load(&format!("{LEAST}[storage]\n{line}\n")).expect_err(line);
        assert!(!problems.to_string().contains("hunter2"), "{problems}");
    }
}

#[test]
fn line_ends_tabs_and_byte_order_marks_of_any_editor_will_do() {
    let text = format!("{LEAST}[log]\nlevel = \"warn\"\n");
    for written in [
        text.replace('\n', "\r\n"),
        format!("\u{feff}{text}"),
        format!("\u{feff}{}", text.replace('\n', "\r\n")),
        text.replace(" = ", "\t=\t"),
        text.trim_end().to_owned(),
    ] {
        let config = load(&written).unwrap_or_else(|problems| panic!("{written:?}\n{problems}"));
        assert_eq!(config.log.level, "warn");
    }
    let utf16: Vec<u8> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (bytes, says) in
        [(utf16, "it is in UTF-16; save it as UTF-8"), (b"# caf\xe9".to_vec(), "save it as UTF-8")]
    {
        let folder = Folder::new();
        std::fs::write(folder.path("a.toml"), bytes).unwrap();
        let problems = Config::load(&[folder.path("a.toml")], environment(&[]), &[]).unwrap_err();
        assert!(problems.to_string().contains(says), "{problems}");
    }
}

#[test]
fn a_key_in_the_wrong_place_or_with_other_underscores_is_recognised() {
    for (text, says) in [
        (format!("admin_listen = \"off\"\n{LEAST}"), "unknown key; it belongs in `[server]`"),
        (format!("{LEAST}inactivity = \"5m\"\n"), "unknown key; it belongs in `[sessions]`"),
        (
            LEAST.replace("[portal]", "idle = \"5s\"\n[portal]"),
            "unknown key; it belongs in `[server.timeouts]`",
        ),
        (format!("{LEAST}suport = \"mailto:a@b.example\"\n"), "did you mean `support`?"),
        (LEAST.replace("https://", ""), "does not say how to reach it; expected `https://host`"),
    ] {
        assert!(told(&text).contains(says), "{}", told(&text));
    }
    for (name, says) in [
        ("PORTCULLIS_SERVER_LISTEN", "write PORTCULLIS_SERVER__LISTEN, with two underscores"),
        ("PORTCULLIS_LOG_LEVEL", "write PORTCULLIS_LOG__LEVEL, with two underscores"),
        ("PORTCULLIS_LISTEN", "write PORTCULLIS_SERVER__LISTEN"),
    ] {
        let problems = load_with(LEAST, &[(name, "[::]:443")]).expect_err(name).to_string();
        assert!(problems.contains(says) && problems.contains(&format!("set by {name}")), "{problems}");
    }
}

#[test]
fn the_environment_alone_is_a_configuration() {
    let folder = Folder::new();
    let password = folder.file("password", "hunter2\n");
    let variables = [
        ("PORTCULLIS_SERVER__PUBLIC_URL", "https://iot.example.com"),
        ("PORTCULLIS_SERVER__LISTEN", "[::]:443,0.0.0.0:8443"),
        ("PORTCULLIS_SERVER__TRUSTED_PROXIES", "[\"10.0.0.0/8\", \"::1\"]"),
        ("PORTCULLIS_SERVER__TIMEOUTS", "{ idle = \"5s\", head = \"6s\" }"),
        ("PORTCULLIS_PORTAL__NAME", "IoT"),
        ("PORTCULLIS_PORTAL__UPSTREAMS", "http://a.example:3000, http://b.example:3000"),
        ("PORTCULLIS_STORAGE__DATABASE", "postgres://iot@db.example/iot"),
        ("PORTCULLIS_STORAGE__PASSWORD_FILE", password.to_str().unwrap()),
        ("PORTCULLIS_IDENTITY__HEADERS__USER", "X-User"),
        ("PORTCULLIS_LOG__ACCESS", "false"),
        ("PATH", "/bin"),
    ];
    let config =
        Config::load(&[], environment(&variables), &[]).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!((config.server.listen.len(), config.web.trusted_proxies.len()), (2, 2));
    assert_eq!(config.server.idle_timeout, std::time::Duration::from_secs(5));
    assert_eq!(config.upstream.upstreams.len(), 2);
    assert!(format!("{:?}", config.identity).to_lowercase().contains("x-user"));
    assert!(!config.access_log && config.files.is_empty());
    assert_eq!(config.tls.pairs[0].certificate, std::path::Path::new("certs/fullchain.pem"));
    let crate::database::Config::Postgres(postgres) = &config.database else {
        panic!("{:?}", config.database)
    };
    assert_eq!(secrecy::ExposeSecret::expose_secret(postgres.password.as_ref().unwrap()), "hunter2");
}
