//! Copies a whole store into an empty one, in one transaction: all of it is there at the end, or nothing.
//!
//! The source is only read, as of one moment.

use std::time::Duration;

use sqlx::{Any, AssertSqlSafe, Row as _, any::AnyRow, query::Query};

use super::{
    Connection, Database, DatabaseError, Dialect, Transaction,
    tables::{Column, TABLES, Table},
};

/// Rows per statement.
const BATCH: usize = 200;
/// Counting and committing millions of rows takes longer than a request may.
const PATIENCE: Duration = Duration::from_mins(10);

/// Why a store was not copied. The target is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("the target is not empty ({table} has {rows} rows): make a new database, or empty this one")]
    NotEmpty { table: &'static str, rows: i64 },
    #[error("row counts differ for {table}: {copied} copied, {held} in the source. The copy was rolled back")]
    Lost { table: &'static str, held: i64, copied: i64 },
    #[error(
        "the source has schema version {theirs}, this program needs {ours}: run `portcullis store migrate` first"
    )]
    Outdated { theirs: i64, ours: i64 },
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<sqlx::Error> for CopyError {
    fn from(error: sqlx::Error) -> Self {
        DatabaseError::from(error).into()
    }
}

/// The number of rows of one table, and how many of them have been copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableRows {
    pub table: &'static str,
    pub rows: i64,
    pub copied: i64,
}

impl Database {
    /// The number of rows of each table. Requires this program's schema.
    pub async fn rows(&self) -> Result<Vec<TableRows>, DatabaseError> {
        let patient = Self { patience: PATIENCE, ..self.clone() };
        let mut connection = patient.acquire().await?;
        let mut counted = Vec::with_capacity(TABLES.len());
        for table in TABLES {
            let rows = count(&mut connection, table).await?;
            counted.push(TableRows { table: table.name, rows, copied: 0 });
        }
        Ok(counted)
    }

    /// Copies everything into `target`, which needs the schema, and calls `progress` after each batch.
    pub async fn copy_into(
        &self,
        target: &Self,
        mut progress: impl FnMut(TableRows),
    ) -> Result<Vec<TableRows>, CopyError> {
        let (theirs, ours) = self.versions().await?;
        if theirs != ours {
            return Err(CopyError::Outdated { theirs, ours });
        }
        let source = Self { patience: PATIENCE, ..self.clone() };
        let target = Self { patience: PATIENCE, ..target.clone() };
        let mut from = source.snapshot().await?;
        let mut to = target.write().await?;
        target.take_alone(&mut to).await?;
        for table in TABLES {
            let rows = count(&mut to, table).await?;
            if rows > 0 {
                return Err(CopyError::NotEmpty { table: table.name, rows });
            }
        }
        let mut copied = Vec::with_capacity(TABLES.len());
        for table in TABLES {
            let mut done = TableRows { table: table.name, rows: count(&mut from, table).await?, copied: 0 };
            progress(done);
            let mut last: Option<AnyRow> = None;
            loop {
                let batch = read(&mut from, table, last.as_ref()).await?;
                if batch.is_empty() {
                    break;
                }
                write(&mut to, table, &batch).await?;
                done.copied += i64::try_from(batch.len()).unwrap_or(i64::MAX);
                progress(done);
                last = batch.into_iter().next_back();
            }
            let arrived = count(&mut to, table).await?;
            if arrived != done.rows {
                return Err(CopyError::Lost { table: table.name, held: done.rows, copied: arrived });
            }
            copied.push(done);
        }
        to.commit().await?;
        from.rollback().await?;
        Ok(copied)
    }

    /// A transaction that sees the store as of its first query, whatever others change meanwhile.
    async fn snapshot(&self) -> Result<Transaction, DatabaseError> {
        let statement = match self.dialect {
            Dialect::Sqlite => "BEGIN",
            Dialect::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        Transaction::begin(self.take(self.purpose).await?, statement).await
    }

    /// Keeps everybody else from writing until the transaction ends.
    async fn take_alone(&self, transaction: &mut Transaction) -> Result<(), DatabaseError> {
        if self.dialect == Dialect::Postgres {
            let tables: Vec<_> = TABLES.iter().map(|table| table.name).collect();
            // The source is read between two batches.
            let statement = format!(
                "SET LOCAL idle_in_transaction_session_timeout = 0; LOCK TABLE {} IN EXCLUSIVE MODE",
                tables.join(", ")
            );
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut **transaction).await?;
        }
        Ok(())
    }
}

async fn count(connection: &mut Connection, table: &Table) -> Result<i64, DatabaseError> {
    let query = format!("SELECT COUNT(*) FROM {}", table.name);
    Ok(sqlx::query(AssertSqlSafe(query)).fetch_one(connection).await?.try_get(0)?)
}

/// The next rows by key after `last`.
async fn read(
    connection: &mut Connection,
    table: &Table,
    last: Option<&AnyRow>,
) -> Result<Vec<AnyRow>, DatabaseError> {
    let names = names(table.columns);
    let key = &table.columns[..table.key];
    let keys = self::names(key);
    let after = if last.is_some() {
        let marks: Vec<_> = (1..=table.key).map(|at| format!("${at}")).collect();
        format!("WHERE ({keys}) > ({})", marks.join(", "))
    } else {
        String::new()
    };
    let statement = format!("SELECT {names} FROM {} {after} ORDER BY {keys} LIMIT {BATCH}", table.name);
    let mut query = sqlx::query(AssertSqlSafe(statement));
    if let Some(last) = last {
        for &column in key {
            query = bind(query, last, column)?;
        }
    }
    Ok(query.fetch_all(connection).await?)
}

async fn write(connection: &mut Connection, table: &Table, rows: &[AnyRow]) -> Result<(), DatabaseError> {
    let width = table.columns.len();
    let row = |at: usize| {
        let marks: Vec<_> = (1..=width).map(|column| format!("${}", at * width + column)).collect();
        format!("({})", marks.join(", "))
    };
    let values: Vec<_> = (0..rows.len()).map(row).collect();
    let statement =
        format!("INSERT INTO {} ({}) VALUES {}", table.name, names(table.columns), values.join(", "));
    let mut query = sqlx::query(AssertSqlSafe(statement));
    for row in rows {
        for &column in table.columns {
            query = bind(query, row, column)?;
        }
    }
    query.execute(connection).await?;
    Ok(())
}

type AnyQuery = Query<'static, Any, sqlx::any::AnyArguments>;

fn bind(query: AnyQuery, row: &AnyRow, column: Column) -> Result<AnyQuery, DatabaseError> {
    Ok(match column {
        Column::Text(name) => query.bind(row.try_get::<Option<String>, _>(name)?),
        Column::Number(name) => query.bind(row.try_get::<Option<i64>, _>(name)?),
        Column::Bytes(name) => query.bind(row.try_get::<Option<Vec<u8>>, _>(name)?),
    })
}

fn names(columns: &[Column]) -> String {
    columns.iter().map(|column| column.name()).collect::<Vec<_>>().join(", ")
}
