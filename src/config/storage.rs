//! `[storage]`: where users, devices and codes are kept, and the key that seals their secrets.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{
    layers::Layers,
    written::{Text, Written},
};
use crate::database;

/// What `[storage]` becomes.
pub(super) struct Settled {
    pub(super) database: database::Config,
    pub(super) key_file: PathBuf,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Section {
    /// The durable store: `sqlite:PATH`. Made on first start, with its folder.
    database: Text<DatabaseUrl>,
    /// The key that seals secrets at rest. Made on first start; without it nobody's second factor works any more.
    key_file: Text<PathBuf>,
}

impl Default for Section {
    fn default() -> Self {
        Self {
            database: Text(DatabaseUrl { path: "data/portcullis.db".into(), parameters: String::new() }),
            key_file: Text("data/portcullis.key".into()),
        }
    }
}

impl Section {
    pub(super) fn settle(self, layers: &Layers) -> Settled {
        let Text(DatabaseUrl { path, parameters }) = self.database;
        let path = layers.resolve("storage.database", Path::new(&path));
        Settled {
            database: database::Config { url: format!("sqlite:{}{parameters}", path.display()) },
            key_file: layers.resolve("storage.key_file", &self.key_file.0),
        }
    }
}

/// `sqlite:PATH`, perhaps with `?parameters`.
struct DatabaseUrl {
    path: String,
    /// With the question mark, or empty.
    parameters: String,
}

impl Written for DatabaseUrl {
    const EXPECTED: &'static str = "a URL such as `sqlite:data/portcullis.db`";

    fn read(text: &str) -> Result<Self, String> {
        if text.starts_with("postgres:") || text.starts_with("postgresql:") {
            return Err("PostgreSQL is not in this version; use `sqlite:PATH`".into());
        }
        let Some(rest) = text.strip_prefix("sqlite:") else {
            return Err(
                "is not a database; expected `sqlite:PATH`, such as `sqlite:data/portcullis.db`".into()
            );
        };
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (path, parameters) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
        if path.is_empty() || path == ":memory:" {
            return Err("must name a file: users and devices would not survive a restart".into());
        }
        Ok(Self { path: path.to_owned(), parameters: parameters.to_owned() })
    }
}
