//! Errors of the driver that say at which store they happened. What a constraint refused is left as it is: whoever made
//! the change answers for that.

use std::{borrow::Cow, error::Error as StdError, fmt, io};

use sqlx::{
    Error,
    error::{DatabaseError, ErrorKind},
};

/// The same error, which ends in the store's name.
pub(super) fn named(error: Error, store: &impl fmt::Display) -> Error {
    match error {
        Error::Database(said) if matches!(said.kind(), ErrorKind::Other) => {
            Error::Database(Box::new(Named { said, store: store.to_string() }))
        }
        Error::Io(said) => Error::Io(io::Error::new(said.kind(), format!("{said} ({store})"))),
        other => other,
    }
}

/// What a database has said, and which one.
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
