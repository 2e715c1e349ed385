//! Single facts about the whole store, by name.

use sqlx::Row as _;

use super::{Database, DatabaseError};

impl Database {
    /// The fact of this name, if it has been noted.
    pub async fn fact(&self, name: &str) -> Result<Option<Vec<u8>>, DatabaseError> {
        let row = sqlx::query("SELECT value FROM facts WHERE name = $1")
            .bind(name.to_owned())
            .fetch_optional(self)
            .await?;
        row.map(|row| row.try_get("value")).transpose().map_err(DatabaseError::from)
    }

    /// Notes a fact, unless there is one of the name already.
    pub async fn note_fact(&self, name: &str, value: &[u8]) -> Result<(), DatabaseError> {
        sqlx::query("INSERT INTO facts (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
            .bind(name.to_owned())
            .bind(value.to_vec())
            .execute(self)
            .await?;
        Ok(())
    }
}
