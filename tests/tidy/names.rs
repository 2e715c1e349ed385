//! One name, one meaning: no two public types share a name.

use std::collections::BTreeMap;

use super::{Source, expect_none, sources};

/// What each module has of its own, under a name that says so: `sessions::Config`, `tls::Config`.
const PATTERNS: [&str; 3] = ["Config", "Section", "Command"];

#[test]
fn no_two_public_types_share_a_name() {
    let sources = sources();
    let sources = sources.iter().filter(|source| source.module().is_some());
    expect_none(
        &shared(sources),
        "a name has one meaning; only `Config`, `Section` and `Command` are each module's own",
    );
}

/// Every name that several public types have, with where they are declared.
fn shared<'a>(sources: impl Iterator<Item = &'a Source>) -> Vec<String> {
    let mut places = BTreeMap::<&str, Vec<String>>::new();
    for Source { path, code, .. } in sources {
        for (line, declaration) in (1..).zip(code.lines()) {
            if let Some(name) = declared(declaration).filter(|name| !PATTERNS.contains(name)) {
                places.entry(name).or_default().push(format!("{path}:{line}"));
            }
        }
    }
    places.retain(|_, places| places.len() > 1);
    places.into_iter().map(|(name, places)| format!("`{name}`: {}", places.join(", "))).collect()
}

/// The name of the type that a line declares for others than its own module.
fn declared(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub")?;
    let rest = match rest.strip_prefix('(') {
        Some(rest) => rest.split_once(')')?.1,
        None => rest,
    };
    let mut words = rest.strip_prefix(' ')?.split_whitespace().skip_while(|word| *word == "unsafe");
    if !["struct", "enum", "union", "trait", "type"].contains(&words.next()?) {
        return None;
    }
    words.next()?.split(|c: char| !c.is_alphanumeric() && c != '_').next().filter(|name| !name.is_empty())
}

#[test]
fn the_reader_finds_what_is_declared_for_others() {
    for (line, name) in [
        ("pub struct Pool {", Some("Pool")),
        ("    pub(super) enum Http1<'a> {", Some("Http1")),
        ("pub(in crate::web) struct Head(Vec<u8>);", Some("Head")),
        ("pub unsafe trait Raw: Sized {", Some("Raw")),
        ("pub(crate) type Answer = Response<Bytes>;", Some("Answer")),
        ("struct Pool {", None),
        ("pub fn pool(enum_: Pool) -> Pool {", None),
        ("pub use pool::Pool;", None),
        ("published struct Pool {", None),
    ] {
        assert_eq!(declared(line), name, "{line}");
    }
    let file =
        |path: &str, code: &str| Source { path: path.to_owned(), text: String::new(), code: code.to_owned() };
    let found = shared(
        [
            file("src/a.rs", "pub struct Pool;\npub struct Config;\nstruct Own;"),
            file("src/b.rs", "\npub(super) enum Pool {}\npub struct Config;\npub struct Own;"),
        ]
        .iter(),
    );
    assert_eq!(found, ["`Pool`: src/a.rs:1, src/b.rs:2"]);
}
