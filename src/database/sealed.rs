//! The sealed records in the store, and how to replace them one by one while gateways are running.
//!
//! Opens no record: the caller decides what happens to each.

use sqlx::{AssertSqlSafe, Row as _};

use super::{Database, DatabaseError, tables::Column};
use crate::secret::hex;

/// Records per query.
const BATCH: usize = 200;

/// A column of sealed records.
pub(super) struct Sealed {
    pub(super) table: &'static str,
    pub(super) column: &'static str,
    key: Column,
    /// A condition for the rows; empty: all rows.
    only: &'static str,
    /// The context that a record is sealed for: words, and columns in braces.
    place: &'static [&'static str],
    /// A column in the context besides the key.
    beside: Option<&'static str>,
}

use Column::{Bytes, Text};

pub(super) const SEALED: &[Sealed] = &[
    Sealed {
        table: "devices",
        column: "secret",
        key: Text("id"),
        only: "",
        place: &["devices", "{beside}", "{key}", "secret"],
        beside: Some("user_id"),
    },
    Sealed {
        table: "second_factors",
        column: "unseen_codes",
        key: Text("user_id"),
        only: " AND unseen_codes IS NOT NULL",
        place: &["second_factors", "{key}", "unseen_codes"],
        beside: None,
    },
    Sealed {
        table: "sessions",
        column: "record",
        key: Bytes("id"),
        only: "",
        place: &["sessions", "{key}"],
        beside: None,
    },
    Sealed {
        table: "pending_logins",
        column: "record",
        key: Bytes("id_hash"),
        only: "",
        place: &["pending_logins", "{key}"],
        beside: None,
    },
    Sealed {
        table: "kept_forms",
        column: "record",
        key: Text("id"),
        only: " AND size > 0",
        place: &["kept_forms", "{key}", "{beside}"],
        beside: Some("user_id"),
    },
    Sealed {
        table: "outbox",
        column: "letter",
        key: Text("id"),
        only: " AND state = 'waiting'",
        place: &["outbox", "{key}", "letter"],
        beside: None,
    },
    Sealed {
        table: "signing_keys",
        column: "secret",
        key: Text("kid"),
        only: "",
        place: &["signing_keys", "{key}", "secret"],
        beside: None,
    },
    Sealed {
        table: "facts",
        column: "value",
        key: Text("name"),
        only: " AND name = 'key_check'",
        place: &["facts", "{key}"],
        beside: None,
    },
];

/// The key of a row.
enum Key {
    Text(String),
    Bytes(Vec<u8>),
}

impl Database {
    /// Calls `replacement` with every sealed record and its context, and stores the new form if it returns one, unless
    /// the record has changed meanwhile. Returns the number of replaced records.
    pub async fn visit_sealed(
        &self,
        mut replacement: impl FnMut(&[&str], &[u8]) -> Option<Vec<u8>>,
    ) -> Result<u64, DatabaseError> {
        let mut replaced = 0;
        for sealed in SEALED {
            let mut last = None;
            loop {
                let batch = self.sealed_after(sealed, last.as_ref()).await?;
                let count = batch.len();
                for (key, beside, record) in batch {
                    let shown = match &key {
                        Key::Text(text) => text.clone(),
                        Key::Bytes(bytes) => hex(bytes),
                    };
                    let part = |&part: &&'static str| match part {
                        "{key}" => shown.clone(),
                        "{beside}" => beside.clone(),
                        word => word.to_owned(),
                    };
                    let place: Vec<String> = sealed.place.iter().map(part).collect();
                    let place: Vec<&str> = place.iter().map(String::as_str).collect();
                    if let Some(new) = replacement(&place, &record) {
                        replaced += self.replace_sealed(sealed, &key, record, new).await?;
                    }
                    last = Some(key);
                }
                if count < BATCH {
                    break;
                }
            }
        }
        Ok(replaced)
    }

    async fn sealed_after(
        &self,
        sealed: &Sealed,
        last: Option<&Key>,
    ) -> Result<Vec<(Key, String, Vec<u8>)>, DatabaseError> {
        let Sealed { table, column, key, only, beside, .. } = sealed;
        let (key_name, beside) = (key.name(), beside.unwrap_or("''"));
        let after = if last.is_some() { format!("{key_name} > $1") } else { "1 = 1".to_owned() };
        let statement = format!(
            "SELECT {key_name} AS key, {beside} AS beside, {column} AS record FROM {table} \
             WHERE {after}{only} ORDER BY {key_name} LIMIT {BATCH}"
        );
        let mut query = sqlx::query(AssertSqlSafe(statement));
        query = match last {
            None => query,
            Some(Key::Text(text)) => query.bind(text.clone()),
            Some(Key::Bytes(bytes)) => query.bind(bytes.clone()),
        };
        let rows = query.fetch_all(self).await?;
        rows.iter()
            .map(|row| {
                let key = match key {
                    Bytes(_) => Key::Bytes(row.try_get("key")?),
                    _ => Key::Text(row.try_get("key")?),
                };
                Ok((key, row.try_get("beside")?, row.try_get("record")?))
            })
            .collect()
    }

    async fn replace_sealed(
        &self,
        sealed: &Sealed,
        key: &Key,
        old: Vec<u8>,
        new: Vec<u8>,
    ) -> Result<u64, DatabaseError> {
        let Sealed { table, column, key: key_column, .. } = sealed;
        let key_name = key_column.name();
        let statement = format!("UPDATE {table} SET {column} = $1 WHERE {key_name} = $2 AND {column} = $3");
        let query = sqlx::query(AssertSqlSafe(statement)).bind(new);
        let query = match key {
            Key::Text(text) => query.bind(text.clone()),
            Key::Bytes(bytes) => query.bind(bytes.clone()),
        };
        Ok(query.bind(old).execute(self).await?.rows_affected())
    }
}
