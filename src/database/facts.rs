//! Single facts about the whole store, by name.

use sqlx::Row as _;

use super::{Database, DatabaseError};

impl Database {
    /// The fact with this name, if there is one.
    pub async fn fact(&self, name: &str) -> Result<Option<Vec<u8>>, DatabaseError> {
        let row = sqlx::query("SELECT value FROM facts WHERE name = $1")
            .bind(name.to_owned())
            .fetch_optional(self)
            .await?;
        row.map(|row| row.try_get("value")).transpose().map_err(DatabaseError::from)
    }

    /// Stores a fact, unless there is one with this name already.
    pub async fn note_fact(&self, name: &str, value: &[u8]) -> Result<(), DatabaseError> {
        sqlx::query("INSERT INTO facts (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
            .bind(name.to_owned())
            .bind(value.to_vec())
            .execute(self)
            .await?;
        Ok(())
    }
}
