//! Prints a chain of errors in one line. Our errors do not repeat the text of their source.

use std::{error::Error, fmt};

/// Displays an error and its sources, joined by `: `. A foreign error that already ends in its source's text is not
/// repeated.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !said.ends_with(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("it failed")]
    struct Plain(#[source] Repeating);

    #[derive(Debug, thiserror::Error)]
    #[error("error of the driver: {0}")]
    struct Repeating(#[source] io::Error);

    #[test]
    fn each_cause_is_said_once() {
        let error = Plain(Repeating(io::Error::other(Repeating(io::Error::other("locked")))));
        assert_eq!(Chain(&error).to_string(), "it failed: error of the driver: error of the driver: locked");
        assert_eq!(Chain(&io::Error::other("a")).to_string(), "a");
    }
}
