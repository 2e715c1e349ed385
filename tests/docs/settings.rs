//! Blocks of TOML are accepted by `portcullis check`, every key that a page names exists, and the reference has them all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use portcullis::access::{AccessLevel, Preset};

use crate::{
    PROGRAM, expect_none,
    page::{Page, root},
};

/// What every configuration has to say.
const LEAST: &str = "[server]\npublic_url = \"https://iot.example.com\"\n[tls]\ncertificate = \"tls/fullchain.pem\"\n\
                     key = \"tls/privkey.pem\"\n[portal]\nname = \"IoT\"\nupstreams = [\"http://127.0.0.1:3000\"]\n";

#[test]
fn every_block_of_toml_is_a_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (out, host) in [("tls", "iot.example.com"), ("tls/crm", "crm.example.com")] {
        let mut certificate = Command::new(root().join("certs/make-dev-certs.sh"));
        let made = certificate.arg("--out").arg(at(out)).arg(host).output().unwrap();
        assert!(made.status.success(), "{made:?}");
    }
    for (from, to) in [("tls", "tls/iot"), ("tls/crm", "tls/crm")] {
        fs::copy(at(from).join("fullchain.pem"), at(to).with_extension("pem")).unwrap();
        fs::copy(at(from).join("privkey.pem"), at(to).with_extension("key")).unwrap();
    }
    for (name, from) in [
        ("postgres-password", None),
        ("redis-password", None),
        ("postgres-ca.pem", Some("tls/authority.pem")),
    ] {
        fs::write(at(name), from.map_or_else(|| b"secret\n".to_vec(), |from| fs::read(at(from)).unwrap()))
            .unwrap();
    }
    let mut breaches = Vec::new();
    let blocks = Page::all()
        .iter()
        .flat_map(Page::blocks)
        .filter(|block| block.language == "toml")
        .collect::<Vec<_>>();
    for block in &blocks {
        // The one certificate and several of them exclude each other.
        let one = "[tls]\ncertificate = \"tls/fullchain.pem\"\nkey = \"tls/privkey.pem\"\n";
        let several = block.text.contains("certificates = [");
        fs::write(at("least.toml"), if several { LEAST.replace(one, "") } else { LEAST.to_owned() }).unwrap();
        fs::write(at("block.toml"), block.text.replace("/etc/portcullis/", "")).unwrap();
        let mut check = Command::new(PROGRAM);
        check.arg("--config").arg(at("least.toml")).arg("--config").arg(at("block.toml")).arg("check");
        let checked = check.env_remove("CREDENTIALS_DIRECTORY").output().unwrap();
        if !checked.status.success() {
            breaches.push(format!("{}: {}", block.place, String::from_utf8_lossy(&checked.stderr)));
        }
    }
    expect_none(&breaches, "a block of TOML is a configuration");
    assert!(blocks.len() > 3, "only {} blocks were found", blocks.len());
}

/// Every key there is with its value, and every table: `config/portcullis.toml` has them all, as a test of the library sees
/// to.
fn known() -> (BTreeMap<String, String>, BTreeSet<String>) {
    let shipped = fs::read_to_string(root().join("config/portcullis.toml")).unwrap();
    let (mut keys, mut tables, mut table) = (BTreeMap::new(), BTreeSet::new(), String::new());
    for line in shipped.lines().map(|line| line.strip_prefix('#').unwrap_or(line)) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            // That of one element of a list has two brackets.
            name.0.trim_start_matches('[').clone_into(&mut table);
            tables.insert(table.clone());
        } else if let Some((key, value)) =
            line.split_once(" = ").filter(|(key, _)| !key.is_empty() && key.bytes().all(in_key))
        {
            keys.insert(format!("{table}.{key}"), value.to_owned());
        }
    }
    (keys, tables)
}

const fn in_key(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'
}

#[test]
fn every_key_of_a_page_exists() {
    let (keys, tables) = known();
    // Events of the audit trail have dots as well.
    let events = fs::read_to_string(root().join("src/audit/mod.rs")).unwrap();
    let exists = |path: &str| {
        let mut above = path.match_indices('.').map(|(at, _)| &path[..at]);
        keys.contains_key(path) || tables.contains(path) || above.any(|above| keys.contains_key(above))
    };
    let mut breaches = Vec::new();
    let mut count = 0;
    for page in Page::all().into_iter().filter(|page| !page.path.starts_with("benches")) {
        for (line, code) in page.quoted() {
            let path = code.split_once(" = ").map_or(code, |(path, _)| path);
            let steps: Vec<_> = path.split('.').collect();
            let is_path = steps.len() > 1 && tables.contains(steps[0]);
            if !is_path || !steps.iter().all(|step| !step.is_empty() && step.bytes().all(in_key)) {
                continue;
            }
            count += 1;
            if !exists(path) && !events.contains(&format!("\"{path}\"")) {
                breaches.push(format!("{}:{line}: {path}", page.path.display()));
            }
        }
    }
    expect_none(&breaches, "a key that a page names is one");
    assert!(count > 100, "only {count} keys were found");
}

#[test]
fn the_reference_has_every_key_with_its_default() {
    let page = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let (keys, _) = known();
    // Several keys of one table may share a row: `` `identity.headers.user` `.email` ``.
    let rows = page.lines().filter(|line| line.starts_with("| `")).map(|line| line.split(" | "));
    let (mut listed, mut breaches) = (BTreeSet::new(), Vec::new());
    for mut row in rows {
        let (cell, default) = (row.next().unwrap_or_default(), row.next().unwrap_or_default());
        let mut table = String::new();
        for code in cell.split('`').skip(1).step_by(2) {
            let path = if code.starts_with('.') { format!("{table}{code}") } else { code.to_owned() };
            path.rsplit_once('.').map_or("", |(table, _)| table).clone_into(&mut table);
            // The keys of an inline table are listed one by one.
            let path =
                path.replace("identity.headers.", "identity.headers|").split('|').next().unwrap().to_owned();
            let default = default.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
            match (keys.get(&path), default) {
                (None, _) => breaches.push(format!("{path} does not exist")),
                // The default of some is the value of another, and the shipped file has an example.
                (Some(value), Some(default))
                    if value != default && !value.ends_with("# example") && !keys.contains_key(default) =>
                {
                    breaches.push(format!("{path} is {value}, not {default}"));
                }
                _ => {}
            }
            listed.insert(path);
        }
    }
    breaches.extend(keys.keys().filter(|key| !listed.contains(*key)).map(|key| format!("{key} is missing")));
    expect_none(&breaches, "docs/configuration.md has every key with its default");
    assert!(keys.len() > 60, "only {} keys", keys.len());
}

#[test]
fn every_access_level_and_preset_is_explained_where_it_can_be_chosen() {
    let (levels, presets) = (AccessLevel::ALL.map(AccessLevel::as_str), Preset::ALL.map(Preset::as_str));
    let mut breaches = Vec::new();
    for (place, in_a_row) in
        [("docs/access.md", true), ("docs/configuration.md", false), ("config/portcullis.toml", false)]
    {
        let text = fs::read_to_string(root().join(place)).unwrap();
        for name in levels.iter().chain(&presets) {
            let wanted = if in_a_row { format!("\n| `{name}` |") } else { format!("\"{name}\"") };
            if !text.contains(&wanted) {
                breaches.push(format!("{place} lacks {name}"));
            }
        }
    }
    expect_none(&breaches, "every access level and preset is explained where it can be chosen");
}
