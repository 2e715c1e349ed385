//! Adds the store's name to the driver's errors, except to violations of constraints, which are the caller's to handle.

use std::{borrow::Cow, error::Error as StdError, fmt, io};

use sqlx::{
    Error,
    error::{DatabaseError, ErrorKind},
};

/// The same error, with the store's name at the end.
pub(super) fn named(error: Error, store: &impl fmt::Display) -> Error {
    match error {
        Error::Database(said) if matches!(said.kind(), ErrorKind::Other) => {
            Error::Database(Box::new(Named { said, store: store.to_string() }))
        }
        Error::Io(said) => Error::Io(io::Error::new(said.kind(), format!("{said} ({store})"))),
        other => other,
    }
}

/// An error of a database, and which database.
#[derive(Debug)]
struct Named {
    said: Box<dyn DatabaseError>,
    store: String,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { said, store } = self;
        write!(f, "{said} ({store})")
    }
}

impl StdError for Named {}

impl DatabaseError for Named {
    fn message(&self) -> &str {
        self.said.message()
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        self.said.code()
    }

    fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
        self
    }

    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}
