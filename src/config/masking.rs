//! Masks the secrets of a configuration file before any of its lines is shown.
//!
//! Works on text rather than on parsed TOML, so that it also works for a file with a syntax error; it masks too much
//! rather than too little. No byte changes its position.

use std::ops::Range;

/// The keys of secrets end in one of these words. `password_file` does not; `tls.key` does and is not a secret.
const SECRET_KEYS: [&str; 2] = ["password", "key"];

/// The text with every secret, and every range in `hidden`, replaced by asterisks, byte for byte.
pub(super) fn mask(text: &str, hidden: &[Range<usize>]) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut open = None;
    for line in text.split_inclusive('\n') {
        let (kept, secret) = match open {
            Some(_) => ("", line),
            None => line.split_at(secret_start(line).unwrap_or(line.len())),
        };
        blot_credentials(kept, &mut masked);
        blot(secret, &mut masked);
        open = match open {
            None => ["\"\"\"", "'''"].into_iter().find(|quotes| secret.matches(quotes).count() == 1),
            Some(quotes) => Some(quotes).filter(|quotes| !secret.contains(quotes)),
        };
    }
    for range in hidden {
        let mut blotted = String::new();
        blot(text.get(range.clone()).unwrap_or_default(), &mut blotted);
        masked.replace_range(range.clone(), &blotted);
    }
    masked
}

/// Where the value of a secret key begins in a line.
fn secret_start(line: &str) -> Option<usize> {
    let starts = SECRET_KEYS.iter().filter_map(|key| {
        line.match_indices(key).find_map(|(at, word)| {
            let after = &line[at + word.len()..];
            let value = after.trim_start_matches(['"', '\'', ' ', '\t']).strip_prefix(['=', ':'])?;
            Some(line.len() - value.len())
        })
    });
    starts.min()
}

/// Copies text, with the part between `://` and `@` masked: the credentials of a URL.
fn blot_credentials(text: &str, masked: &mut String) {
    let mut rest = text;
    while let Some(start) = rest.find("://").map(|at| at + 3) {
        let (before, after) = rest.split_at(start);
        let end = after.find(['"', '\'', '\n']).unwrap_or(after.len());
        let credentials = after[..end].rfind('@').unwrap_or(0);
        masked.push_str(before);
        blot(&after[..credentials], masked);
        rest = &after[credentials..];
    }
    masked.push_str(rest);
}

fn blot(secret: &str, masked: &mut String) {
    masked.extend(secret.bytes().map(|byte| match byte {
        b'\n' | b'\r' | b' ' => char::from(byte),
        _ => '*',
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_blotted_out_byte_for_byte() {
        for (text, masked) in [
            ("password = \"hunter2\"\nuser = \"a\"\n", "password = *********\nuser = \"a\"\n"),
            ("password=\"ü\"", "password=****"),
            // Not TOML, and still a secret.
            ("password: x", "password: *"),
            ("{\"password\": \"x\"}", "{\"password\": ****"),
            ("redis.\"password\" = 'x' # why", "redis.\"password\" = *** * ***"),
            ("redis = { password = \"x\", ca = \"y\" }", "redis = { password = **** ** * *** *"),
            ("password = \"\"\"\nabc\nd\"\"\"\nca = 1", "password = ***\n***\n****\nca = 1"),
            ("password = \"unclosed\nca = 1", "password = *********\nca = 1"),
            ("storage.key = 'ab'\n\"key\"='cd' ", "storage.key = ****\n\"key\"=**** "),
            ("storage = { key = 'ab', key_file = 'cd' }", "storage = { key = ***** ******** * **** *"),
            ("key_file = \"a\"\nkeys = 1", "key_file = \"a\"\nkeys = 1"),
            ("store = \"redis://u:p@ss@host/0\"", "store = \"redis://******@host/0\""),
            ("a = \"http://h\" # mail x@y", "a = \"http://h\" # mail x@y"),
            ("password_file = \"run/secret\"", "password_file = \"run/secret\""),
        ] {
            assert_eq!(mask(text, &[]), masked, "{text}");
            assert_eq!(mask(text, &[]).len(), text.len(), "{text}");
        }
        assert_eq!(mask("é = \"ü\" # é", std::slice::from_ref(&(5..9))), "é = **** # é");
    }
}
