//! Common mistakes in lines that are not TOML: says what to write, rather than what a parser expects.
//!
//! Repeats no value: it may be a secret.

/// Explains a syntax error at this position of a text.
pub(super) fn explained(text: &str, at: usize, parser: &str) -> String {
    let (before, rest) = text.split_at(text.floor_char_boundary(at));
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    let rest = rest.lines().next().unwrap_or_default();
    let slip = if text.trim_start().starts_with('{') {
        Some("this is JSON; write TOML, as in `[server]` and `key = \"value\"`".to_owned())
    } else {
        slip(line, rest, parser, &text[..start])
    };
    slip.unwrap_or_else(|| format!("not TOML: {parser}"))
}

fn slip(line: &str, rest: &str, parser: &str, above: &str) -> Option<String> {
    let is = |words: &str| parser.starts_with(words);
    let key = line.split(['=', ':']).next().unwrap_or_default().trim();
    if is("invalid unquoted key") || is("key with no value") {
        let colon = line.find(':').filter(|colon| line.find('=').is_none_or(|equals| *colon < equals));
        return colon.map(|_| format!("write `{key} = …`, with an equals sign"));
    }
    if is("invalid float") || is("invalid boolean") || is("string values must be quoted") {
        let value = rest.trim();
        if value.is_empty() || value.starts_with('#') {
            return Some(format!("`{key}` has no value"));
        }
        if value.starts_with(['“', '”', '„', '‘', '’', '«', '»']) {
            return Some("these quotes are typographic; use straight ones: `\"`".to_owned());
        }
        let word = value.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
        if ["true", "false", "yes", "no", "on", "off"].contains(&word.to_ascii_lowercase().as_str()) {
            return Some("write `true` or `false`, in lower case, or text in quotes: `\"…\"`".to_owned());
        }
        // In a list a key has several values.
        let example = if rest.starts_with(line.split('=').nth(1).unwrap_or_default().trim_start()) {
            format!("`{key} = \"…\"`")
        } else {
            "`\"…\"`".to_owned()
        };
        return Some(format!("text must be quoted: write {example}"));
    }
    if is("missing escaped value") || is("invalid escape") {
        return Some(
            "a backslash has a meaning of its own in `\"…\"`; write `'…'`, or two backslashes".to_owned(),
        );
    }
    if is("invalid literal string") || is("invalid basic string") {
        return Some("the quote at the end is missing".to_owned());
    }
    if is("unexpected key or value") && (rest.starts_with("//") || rest.starts_with(';')) {
        return Some("a comment begins with `#`".to_owned());
    }
    if is("duplicate key") {
        let same = |earlier: &str| {
            let earlier = earlier.trim();
            earlier == line.trim()
                || (!line.trim().starts_with('[')
                    && earlier.split('=').next().is_some_and(|k| k.trim() == key))
        };
        let first = above.lines().position(same)? + 1;
        let name = key.trim_start_matches('[').split(']').next().unwrap_or(key);
        return Some(format!("`{name}` is there twice, for the first time in line {first}; keep one"));
    }
    None
}
