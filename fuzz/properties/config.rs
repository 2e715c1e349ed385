//! Whatever a configuration file says, the reader says what is wrong, all of it printable, and never shows the secret.

use std::{fs, sync::OnceLock};

use portcullis::config::Config;
use tempfile::TempDir;

/// Stands where a password may stand; too odd to come about otherwise.
const SECRET: &str = "Zq7-xK2-wV9-pL4";

pub(crate) fn holds(data: &[u8]) {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a folder"));
    let file = folder.path().join(format!("{:?}.toml", std::thread::current().id()));
    fs::write(&file, data).expect("a file can be written");
    let environment = [("PORTCULLIS_STORAGE__DATABASE", &*format!("postgres://p:{SECRET}@127.0.0.1/p"))]
        .map(|(name, value)| (name.into(), value.into()));
    let said = match Config::load(&[file], environment, &[]) {
        Ok(config) => format!("{config:?} {}", config.warnings),
        Err(problems) => {
            let said = problems.to_string();
            assert!(!said.is_empty(), "refused without a word");
            said
        }
    };
    assert!(!said.contains(SECRET), "{said}");
}
