//! The shipped file: it explains every key, and states every default.

use std::fs;

use super::{Folder, LEAST, environment, load};
use crate::config::Config;

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/portcullis.toml");

/// The shipped file with every key and table that is commented out there.
fn shipped_uncommented(examples: bool) -> String {
    let shipped = fs::read_to_string(SHIPPED).unwrap();
    let lines = shipped.lines().filter(|line| examples || !line.ends_with("# example"));
    // Prose has a space after its `#`; a key or a table has not.
    let in_force = |line| str::strip_prefix(line, "#").filter(|rest| !rest.starts_with(' ')).unwrap_or(line);
    lines.map(in_force).collect::<Vec<_>>().join("\n")
}

/// All settings of a text, with the paths as written.
fn effect(text: &str) -> String {
    let folder = Folder::new();
    let file = folder.file("portcullis.toml", text);
    let config = Config::load(&[file], environment(&[]), &[]).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(config.warnings.is_empty(), "{}", config.warnings);
    let text = format!("{config:#?}").replace(&format!("{}/", folder.0.path().display()), "");
    text[..text.find("warnings").unwrap()].to_owned()
}

#[test]
fn the_shipped_file_says_what_holds_without_it() {
    let without = effect(LEAST);
    assert_eq!(effect(&fs::read_to_string(SHIPPED).unwrap()), without);
    assert_eq!(effect(&shipped_uncommented(false)), without);
}

#[test]
fn the_shipped_file_explains_every_key_there_is() {
    let shipped = toml::Value::Table(shipped_uncommented(true).parse().unwrap());
    let keys = every_key("");
    assert!(keys.contains(&"server.timeouts.idle".to_owned()), "{keys:?}");
    let explained =
        |key: &&String| key.split('.').try_fold(&shipped, |value, step| value.get(step)).is_some();
    let unexplained: Vec<_> = keys.iter().filter(|key| !explained(key)).collect();
    assert!(unexplained.is_empty(), "config/portcullis.toml says nothing about {unexplained:?}");
}

/// Asks the deserializer: its error for an unknown key lists the known ones.
fn every_key(table: &str) -> Vec<String> {
    let path = |key: &str| if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
    let probe = path("zzzzzzzz");
    let problems = load(&format!("{probe} = 1\n")).unwrap_err();
    let answer = problems.iter().find(|problem| problem.key == probe).map(|problem| problem.message.as_str());
    let Some(known) = answer.and_then(|answer| answer.strip_prefix("unknown key; expected one of ")) else {
        return Vec::new();
    };
    let here = known.split(", ").map(|key| path(key.trim_matches('`')));
    here.flat_map(|key| [every_key(&key), vec![key]].concat()).collect()
}
