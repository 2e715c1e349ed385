//! The known keys, and suggestions for unknown ones.
//!
//! The deserializer itself is asked: its error for an unknown key lists the known ones.

use figment::{
    error::Kind,
    value::{Dict, Value},
};
use serde::de::DeserializeOwned;

/// The prefix of our environment variables; `__` separates the levels of a key.
pub(super) const PREFIX: &str = "PORTCULLIS_";
/// A key that is unknown everywhere.
const PROBE: &str = "\0";

/// What to write in place of the unknown key `name`; `known` are the keys of its table. `variable` is the environment
/// variable that sets it, if one does.
pub(super) fn instead_of<T: DeserializeOwned>(name: &str, known: &[&str], variable: Option<&str>) -> String {
    let all = every_key::<T>(&[]);
    if let Some(words) = variable.and_then(words) {
        if let Some(key) = all.iter().find(|key| key.join("_") == words) {
            return format!("write {}, with two underscores between the levels", as_variable(key));
        }
        // The key was written without its table.
        let mut meant = all.iter().filter(|key| key.last().is_some_and(|last| *last == words));
        if let (Some(key), None) = (meant.next(), meant.next()) {
            return format!("write {}", as_variable(key));
        }
    }
    let mut elsewhere = all.iter().filter(|key| key.last().is_some_and(|last| *last == name));
    if let (Some([table @ .., _]), None) = (elsewhere.next().map(Vec::as_slice), elsewhere.next())
        && !table.is_empty()
    {
        return format!("it belongs in `[{}]`", table.join("."));
    }
    suggestion(name, known)
}

/// The known name that was probably meant, or all of them.
pub(super) fn suggestion(name: &str, known: &[&str]) -> String {
    let likeness = |candidate: &&&str| strsim::jaro_winkler(name, candidate);
    let closest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match closest {
        Some(closest) if likeness(&closest) > 0.8 => format!("did you mean `{closest}`?"),
        _ => format!("expected one of `{}`", known.join("`, `")),
    }
}

/// The words of a variable of ours, whatever separates them.
fn words(variable: &str) -> Option<String> {
    let rest = variable.strip_prefix(PREFIX)?.to_lowercase();
    let words: Vec<&str> =
        rest.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    Some(words.join("_"))
}

fn as_variable(key: &[&str]) -> String {
    format!("{PREFIX}{}", key.join("__").to_uppercase())
}

/// The paths of all keys and tables below a path.
fn every_key<T: DeserializeOwned>(path: &[&'static str]) -> Vec<Vec<&'static str>> {
    let mut keys = Vec::new();
    for name in keys_at::<T>(path) {
        let key = [path, &[*name]].concat();
        keys.extend(every_key::<T>(&key));
        keys.push(key);
    }
    keys
}

fn keys_at<T: DeserializeOwned>(path: &[&str]) -> &'static [&'static str] {
    let probe = Value::from(Dict::from([(PROBE.to_owned(), Value::from(true))]));
    let probe =
        path.iter().rev().fold(probe, |inner, step| Value::from(Dict::from([((*step).to_owned(), inner)])));
    match T::deserialize(&probe).map_err(|error| error.kind) {
        Err(Kind::UnknownField(name, known)) if name == PROBE => known,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Document, *};

    #[test]
    fn a_slip_of_the_keyboard_is_recognised_and_nonsense_is_not() {
        let known = ["listen", "public_url"];
        assert_eq!(suggestion("lisen", &known), "did you mean `listen`?");
        assert_eq!(suggestion("frobnicate", &known), "expected one of `listen`, `public_url`");
    }

    #[test]
    fn a_variable_with_other_underscores_is_recognised() {
        for (variable, says) in [
            ("PORTCULLIS_SERVER_LISTEN", "write PORTCULLIS_SERVER__LISTEN, with two"),
            ("PORTCULLIS__SERVER__LISTEN", "write PORTCULLIS_SERVER__LISTEN, with two"),
            ("PORTCULLIS_SERVER___LISTEN", "write PORTCULLIS_SERVER__LISTEN, with two"),
            ("PORTCULLIS_SERVER.LISTEN", "write PORTCULLIS_SERVER__LISTEN, with two"),
            (
                "PORTCULLIS_SERVER_TIMEOUTS_FIRST_BYTE",
                "write PORTCULLIS_SERVER__TIMEOUTS__FIRST_BYTE, with two",
            ),
            (
                "PORTCULLIS_SECOND_FACTOR_MANDATORY_FROM",
                "write PORTCULLIS_SECOND_FACTOR__MANDATORY_FROM, with two",
            ),
            ("PORTCULLIS_PUBLIC_URL", "write PORTCULLIS_SERVER__PUBLIC_URL"),
            ("PORTCULLIS_NONSENSE", "expected one of `server`"),
        ] {
            let said = instead_of::<Document>("x", &["server", "tls"], Some(variable));
            assert!(said.starts_with(says), "{variable}: {said}");
        }
    }

    #[test]
    fn a_key_in_the_wrong_table_is_sent_to_its_own() {
        let known = ["server", "portal"];
        assert_eq!(instead_of::<Document>("public_url", &known, None), "it belongs in `[server]`");
        assert_eq!(instead_of::<Document>("max_retries", &known, None), "it belongs in `[login.throttle]`");
        // More than one table has a key with this name.
        assert!(instead_of::<Document>("key", &known, None).starts_with("expected one of"));
    }
}
