//! The kinds of values, in the operator's words.

use figment::error::Actual;

/// Translates serde's name of a type.
pub(super) fn in_words(expected: &str) -> &str {
    match expected {
        "u32" => "a whole number up to 4294967295",
        "usize" => "a whole number",
        "a boolean" => "true or false",
        "a string" => "text in quotes",
        "a sequence" => "a list",
        expected if expected.starts_with("struct ") => "a table",
        expected => expected,
    }
}

/// The kind of the value found instead. Never the value itself, which may be a secret.
pub(super) fn kind_of(found: &Actual) -> &'static str {
    match found {
        Actual::Bool(_) => "true or false",
        Actual::Signed(number) if *number < 0 => "a negative number",
        Actual::Unsigned(_) | Actual::Signed(_) => "a whole number",
        Actual::Float(number) if number.is_infinite() => "a number too large",
        Actual::Float(_) => "a number that is not whole",
        Actual::Str(_) => "text",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        _ => "something else",
    }
}
