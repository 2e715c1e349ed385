//! Changes that ride in another module's transaction: made together with its own, or not at all.
//!
//! What a change brings with it, such as a notice by mail, is written by whoever knows about it; the module that makes
//! the change runs it, and need not know what it is.

use std::fmt;

use super::{Change, Database, DatabaseError, Transaction};
use crate::clock::Timestamp;

/// A value of a statement.
#[derive(Clone)]
pub enum BoundValue {
    Text(String),
    Number(i64),
    Bytes(Vec<u8>),
}

#[derive(Clone)]
struct Statement {
    sql: &'static str,
    values: Vec<BoundValue>,
    /// Whether the whole transaction fails if this changes no row.
    is_required: bool,
}

/// Statements to be made in one transaction with others.
#[derive(Clone, Default)]
pub struct Alongside {
    statements: Vec<Statement>,
    change: Option<Change>,
}

impl Alongside {
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Adds a statement in the form that both kinds of store run.
    pub fn add(&mut self, sql: &'static str, values: Vec<BoundValue>) {
        self.statements.push(Statement { sql, values, is_required: false });
    }

    /// The same; if it changes no row, nothing of the transaction happens.
    pub fn require(&mut self, sql: &'static str, values: Vec<BoundValue>) {
        self.statements.push(Statement { sql, values, is_required: true });
    }

    /// Announces `change` as well.
    pub fn announcing(&mut self, change: Change) {
        self.change = Some(change);
    }

    /// This and another.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.statements.extend(other.statements);
        self.change = self.change.or(other.change);
        self
    }
}

impl fmt::Debug for Alongside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Alongside({})", self.statements.len())
    }
}

impl Database {
    /// Makes these changes in the transaction of others, in the order in which they lock. What they announce is
    /// [`Self::announce_with`] them.
    pub async fn make_alongside(
        &self,
        transaction: &mut Transaction,
        alongside: &Alongside,
    ) -> Result<(), DatabaseError> {
        for Statement { sql, values, is_required } in &alongside.statements {
            let query = values.iter().fold(sqlx::query(*sql), |query, value| match value {
                BoundValue::Text(text) => query.bind(text.clone()),
                BoundValue::Number(number) => query.bind(*number),
                BoundValue::Bytes(bytes) => query.bind(bytes.clone()),
            });
            let changed = query.execute(&mut **transaction).await?.rows_affected();
            if *is_required && changed == 0 {
                return Err(DatabaseError::Overtaken);
            }
        }
        Ok(())
    }

    /// Announces what came alongside, just before the commit.
    pub async fn announce_alongside(
        &self,
        transaction: &mut Transaction,
        alongside: &Alongside,
        now: Timestamp,
    ) -> Result<(), DatabaseError> {
        match &alongside.change {
            Some(change) => self.announce(transaction, change, now).await,
            None => Ok(()),
        }
    }

    /// [`Self::announce`]s a change and what came alongside.
    pub async fn announce_with(
        &self,
        transaction: &mut Transaction,
        change: &Change,
        alongside: &Alongside,
        now: Timestamp,
    ) -> Result<(), DatabaseError> {
        self.announce(transaction, change, now).await?;
        self.announce_alongside(transaction, alongside, now).await
    }

    /// Makes these changes in a transaction of their own.
    pub async fn make(&self, alongside: &Alongside, now: Timestamp) -> Result<(), DatabaseError> {
        if alongside.statements.is_empty() {
            return Ok(());
        }
        let mut transaction = self.write().await?;
        self.make_alongside(&mut transaction, alongside).await?;
        self.announce_alongside(&mut transaction, alongside, now).await?;
        transaction.commit().await
    }
}
