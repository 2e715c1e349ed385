//! The rules of the house that no compiler checks: layers, sizes, names, first lines, words.
//!
//! Reads the source as text and knows just enough of Rust for that. Each rule says every breach at once.

mod circles;
mod names;
mod promises;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The layers that know nothing of HTTP's machinery.
const PURE: [&str; 2] = ["facts", "judgement"];

const LONGEST_FILE: usize = 600;
const LONGEST_FUNCTION: usize = 80;
const LONGEST_INTRODUCTION: usize = 5;
const VAGUE: [&str; 7] = ["util", "utils", "helper", "helpers", "common", "misc", "types"];

/// A source file, by its path from the root of the package.
struct Source {
    path: String,
    text: String,
    /// The text with comments and the insides of literals blanked out, line for line.
    code: String,
}

impl Source {
    /// The module at the top level of `src` that this file belongs to; none for the two crate roots.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let first = inside.split(['/', '.']).next()?;
        (!matches!(inside, "main.rs" | "lib.rs")).then_some(first)
    }

    /// The text before the tests.
    fn production(&self) -> &str {
        self.text.split("#[cfg(test)]").next().unwrap_or_default()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below these folders and files of the package that have one of these endings.
fn files(starts: &[&str], endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left: Vec<PathBuf> = starts.iter().map(|start| root().join(start)).collect();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            let hidden_or_built = |path: &Path| {
                path.file_name().is_some_and(|name| {
                    name == "node_modules" || name == "target" || name.to_string_lossy().starts_with('.')
                })
            };
            let entries = fs::read_dir(&path).expect("a folder can be listed");
            left.extend(entries.flatten().map(|entry| entry.path()).filter(|path| !hidden_or_built(path)));
        } else if path.extension().is_some_and(|ending| endings.iter().any(|known| ending == *known)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn sources() -> Vec<Source> {
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source file is text");
        Source { path: relative(&path), code: blank(&text), text }
    };
    let sources: Vec<_> =
        files(&["src", "tests", "benches", "fuzz"], &["rs"]).into_iter().map(read).collect();
    assert!(sources.len() > 10, "the source files were not found");
    sources
}

/// Every layer with its modules, lowest first, as the table of `src/lib.rs` has them: `//! | base | [`clock`] ... | words |`.
fn layers() -> Vec<(String, Vec<String>)> {
    let page = fs::read_to_string(root().join("src/lib.rs")).expect("the page is there");
    let row = |line: &str| {
        let mut cells = line.strip_prefix("//! | ")?.split(" | ");
        let (layer, modules) = (cells.next()?, cells.next()?);
        let named = modules.split("[`").skip(1).filter_map(|rest| rest.split_once("`]"));
        Some((layer.to_owned(), named.map(|(module, _)| module.to_owned()).collect()))
    };
    let layers: Vec<(String, Vec<String>)> =
        page.lines().filter_map(row).filter(|(_, modules): &(_, Vec<_>)| !modules.is_empty()).collect();
    assert_eq!(layers.len(), 6, "src/lib.rs has a table of six layers");
    layers
}

fn expect_none(breaches: &[String], rule: &str) {
    assert!(breaches.is_empty(), "{rule}:\n  {}", breaches.join("\n  "));
}

#[test]
fn every_file_begins_by_saying_what_it_is_for() {
    let mut breaches = Vec::new();
    for Source { path, text, .. } in sources() {
        let introduction = text.lines().take_while(|line| line.starts_with("//!"));
        let introduction = introduction.filter(|line| line.len() > "//!".len()).count();
        if introduction == 0 {
            breaches.push(path);
        } else if introduction > LONGEST_INTRODUCTION && path != "src/lib.rs" {
            breaches.push(format!("{path}: {introduction} lines"));
        }
    }
    expect_none(&breaches, "a file begins with one to five lines of `//!`");
}

#[test]
fn no_file_is_too_long() {
    let lengths = sources().into_iter().map(|source| (source.text.lines().count(), source.path));
    let breaches: Vec<_> = lengths
        .filter(|(length, _)| *length > LONGEST_FILE)
        .map(|(length, path)| format!("{path}: {length}"))
        .collect();
    expect_none(&breaches, "a file has at most 600 lines");
}

#[test]
fn no_function_is_too_long() {
    let mut breaches = Vec::new();
    for source in sources() {
        for (name, line, length) in functions(&source.code) {
            if length > LONGEST_FUNCTION {
                breaches.push(format!("{}:{line}: `{name}` has {length}", source.path));
            }
        }
    }
    expect_none(&breaches, "a function has at most 80 lines, empty ones and comments not counted");
}

#[test]
fn no_module_has_a_vague_name() {
    let vague = |source: &Source| source.path.split(['/', '.']).any(|step| VAGUE.contains(&step));
    let breaches: Vec<_> = sources().into_iter().filter(vague).map(|source| source.path).collect();
    expect_none(&breaches, "a module is named after what it does");
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let order: Vec<String> = layers().into_iter().flat_map(|(_, modules)| modules).collect();
    let rank = |module: &str| order.iter().position(|known| known == module);
    let mut breaches = BTreeSet::new();
    for source in sources() {
        let Some(module) = source.module() else { continue };
        let Some(own) = rank(module) else {
            breaches.insert(format!("{}: `{module}` has no place in the table of src/lib.rs", source.path));
            continue;
        };
        for used in uses(&source.code) {
            match rank(&used) {
                Some(lower) if lower <= own => {}
                Some(_) => _ = breaches.insert(format!("{}: `{module}` uses `{used}`", source.path)),
                None => _ = breaches.insert(format!("{}: `{used}` has no place there", source.path)),
            }
        }
    }
    expect_none(&Vec::from_iter(breaches), "a module uses only those before it in the table of src/lib.rs");
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let sources = sources();
    let files = circles::Files::new(sources.iter().map(|source| (&*source.path, &*source.code)));
    expect_none(&files.circles(), "of two files one uses the other, or neither");
}

#[test]
fn background_work_has_a_name_and_is_looked_after() {
    // The second and the fifth write one line and end, the third ends with what it watches for, the fourth is the sample portal's,
    // and the last two are told when theirs ends.
    let allowed = [
        "src/background.rs",
        "src/by_mail/mod.rs",
        "src/cli/serve.rs",
        "src/demo/mod.rs",
        "src/login/mod.rs",
        "src/redis_pool/mod.rs",
        "src/server/watchdog.rs",
    ];
    let bare = |source: &Source| {
        source.module().is_some()
            && !source.path.contains("/tests")
            && source.production().contains("tokio::spawn(")
    };
    let breaches: Vec<_> = sources()
        .into_iter()
        .filter(|source| bare(source) && !allowed.contains(&source.path.as_str()))
        .map(|source| source.path)
        .collect();
    expect_none(
        &breaches,
        "work beside the requests is started by `background`, not by a bare `tokio::spawn`",
    );
}

#[test]
fn facts_and_judgement_never_see_hyper() {
    let layers = layers();
    let pure = |module: &str| {
        layers.iter().any(|(layer, modules)| {
            PURE.contains(&layer.as_str()) && modules.iter().any(|known| known == module)
        })
    };
    let sees = |source: &Source| words(&source.code).any(|(_, word)| word == "hyper" || word == "hyper_util");
    let breaches: Vec<_> = sources()
        .into_iter()
        .filter(|source| source.module().is_some_and(&pure) && sees(source))
        .map(|source| source.path)
        .collect();
    expect_none(&breaches, "facts and judgement never see a hyper type");
}

#[test]
fn nothing_is_left_for_later() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
    let mut breaches = Vec::new();
    for source in sources() {
        for (line, text) in (1..).zip(source.text.lines()) {
            if words(text).any(|(_, word)| marks.contains(&word)) {
                breaches.push(format!("{}:{line}", source.path));
            }
        }
    }
    expect_none(&breaches, "what is left for later is not left in the source");
}

#[test]
fn no_code_is_commented_out() {
    let mut breaches = Vec::new();
    for source in sources() {
        // A `//` in a string is none of a comment: only lines that are blank without their comments count.
        for (line, (text, code)) in (1..).zip(source.text.lines().zip(source.code.lines())) {
            let comment = text.trim().strip_prefix("//").filter(|_| code.trim().is_empty());
            if comment.is_some_and(|comment| !comment.starts_with(['/', '!']) && is_code(comment.trim())) {
                breaches.push(format!("{}:{line}: {}", source.path, text.trim()));
            }
        }
    }
    expect_none(&breaches, "a comment gives reasons; code that is gone is in the history");
}

#[test]
fn every_audit_event_and_metric_is_explained() {
    let page = fs::read_to_string(root().join("docs/operations.md")).expect("the page is there");
    let mut breaches = Vec::new();
    for source in sources() {
        let names = match source.path.as_str() {
            "src/telemetry/metrics.rs" => metric_names(source.production()),
            path if path.starts_with("src/audit") => event_names(source.production()),
            _ => continue,
        };
        let unexplained = names.into_iter().filter(|name| !page.contains(name.as_str()));
        breaches.extend(unexplained.map(|name| format!("{name} ({})", source.path)));
    }
    expect_none(&breaches, "docs/operations.md explains every audit event and metric");
}

#[test]
fn every_text_speaks_of_the_product_alone() {
    // Split, so that this list does not find itself.
    let banned = [
        concat!("iss", "ue #"),
        concat!("/iss", "ues/"),
        concat!("/pu", "ll/"),
        concat!("/merge", "_requests/"),
        concat!("bug", " #"),
        concat!("fixes", " #"),
        concat!("closes", " #"),
        concat!("pr", " #"),
        concat!("tick", "et #"),
        concat!("work", "tree"),
        concat!("sub", "agent"),
        concat!("language", " model"),
    ];
    let starts = [
        "src",
        "tests",
        "config",
        "docs",
        "packaging",
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "Cargo.toml",
    ];
    let existing: Vec<_> = starts.into_iter().filter(|start| root().join(start).exists()).collect();
    let endings = ["rs", "md", "toml", "html", "css", "js", "sql", "sh", "txt", "py", "json"];
    let mut breaches = Vec::new();
    for path in files(&existing, &endings) {
        let text = fs::read_to_string(&path).expect("a text file is text").to_lowercase();
        for (line, text) in (1..).zip(text.lines()) {
            for words in banned.iter().filter(|words| text.contains(*words)) {
                breaches.push(format!("{}:{line}: {words}", relative(&path)));
            }
        }
    }
    expect_none(&breaches, "texts explain themselves, without a tracker or the way they came about");
}

/// Whether a comment reads as a statement rather than as a sentence. Prose quotes code in back-quotes.
fn is_code(comment: &str) -> bool {
    let begins = |starts: &[&str]| starts.iter().any(|start| comment.starts_with(start));
    let item =
        begins(&["let ", "use ", "pub ", "fn ", "impl ", "mod ", "return ", "async ", "const ", "struct "]);
    let block = begins(&["if ", "for ", "while ", "match ", "loop", "else", "}"]);
    let assigns = [" = ", " += ", " -= ", "::"].iter().any(|mark| comment.contains(mark));
    let calls = comment.match_indices('(').any(|(at, _)| comment[..at].ends_with(char::is_alphanumeric));
    let code = match comment.chars().next_back() {
        Some(';') => item || assigns || calls,
        Some('{') => item || block,
        Some('}' | ')' | ',') => !comment.contains(char::is_alphanumeric),
        _ => false,
    };
    (code || begins(&["#[", "#!["])) && !comment.contains('`')
}

/// Names given to metrics: whole literals that begin with the product's name.
fn metric_names(text: &str) -> Vec<String> {
    literals(text).filter(|name| name.starts_with("portcullis_") && name.bytes().all(is_name_byte)).collect()
}

/// Names given to events, after `=` or `=>` in whatever makes the enum.
fn event_names(text: &str) -> Vec<String> {
    let given = text.lines().filter_map(|line| line.split_once("= \"").or_else(|| line.split_once("=> \"")));
    let names = given.filter_map(|(_, rest)| rest.split_once('"')).map(|(name, _)| name.to_owned());
    names.filter(|name| name.bytes().all(|byte| is_name_byte(byte) || byte == b'.')).collect()
}

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte == b'_'
}

fn literals(text: &str) -> impl Iterator<Item = String> {
    text.split('"').skip(1).step_by(2).map(str::to_owned)
}

/// The identifiers of a text and where each begins.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.split(move |c| !part(c))
        .filter(|word| !word.is_empty())
        .map(|word| (word.as_ptr().addr() - text.as_ptr().addr(), word))
}

/// The top-level modules that code names by `crate::`, groups included.
fn uses(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, _) in words(code).filter(|(_, word)| *word == "crate") {
        let Some(path) = code[at + "crate".len()..].trim_start().strip_prefix("::") else { continue };
        let path = path.trim_start();
        let firsts = match path.strip_prefix('{') {
            Some(group) => elements(group),
            None => vec![path],
        };
        let module = |path: &str| words(path).next().map(|(_, word)| word.to_owned());
        used.extend(firsts.into_iter().filter_map(module).filter(|word| word != "self"));
    }
    used
}

/// The elements of a group up to its closing brace, nested groups kept whole.
fn elements(group: &str) -> Vec<&str> {
    let (mut elements, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                elements.push(&group[start..at]);
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    elements
}

/// Name, first line and length of every function that has a body.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in words(code).filter(|(_, word)| *word == "fn") {
        let rest = &code[at + "fn".len()..];
        // A type such as `fn(u8) -> bool` has no name.
        let Some((0, name)) =
            words(rest.trim_start()).next().filter(|_| rest.starts_with(char::is_whitespace))
        else {
            continue;
        };
        if let Some(end) = body_end(rest) {
            let body = &code[at..at + "fn".len() + end];
            let length = body.lines().filter(|line| !line.trim().is_empty()).count();
            found.push((name.to_owned(), code[..at].matches('\n').count() + 1, length));
        }
    }
    found
}

/// Where the body closes of a function whose signature begins the text; `None` for a mere declaration.
fn body_end(text: &str) -> Option<usize> {
    let (mut brackets, mut braces) = (0, 0);
    for (at, character) in text.char_indices() {
        match character {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            ';' if brackets == 0 && braces == 0 => return None,
            // A brace within brackets belongs to an array's length or the like.
            '{' if brackets == 0 => braces += 1,
            '}' if brackets == 0 => {
                braces -= 1;
                if braces == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// Replaces comments and the insides of literals by spaces; every line keeps its number.
fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let before = code.chars().next_back().unwrap_or(' ');
        let length = blank_length(rest, before);
        let (skipped, after) = rest.split_at(length.unwrap_or_else(|| character.len_utf8()));
        if length.is_some() {
            code.extend(skipped.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        } else {
            code.push_str(skipped);
        }
        rest = after;
    }
    code
}

/// How much of the text is a comment or a literal that begins right here.
fn blank_length(text: &str, before: char) -> Option<usize> {
    let in_word = before.is_alphanumeric() || before == '_';
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(block_comment(text));
    }
    if text.starts_with('"') {
        return Some(quoted(text, '"'));
    }
    if let Some(rest) = text.strip_prefix('\'') {
        let mut next = rest.chars();
        let (first, second) = (next.next()?, next.next()?);
        // Otherwise it is a lifetime.
        return (first == '\\' || second == '\'').then(|| quoted(text, '\''));
    }
    if !in_word && text.starts_with(['r', 'b', 'c']) {
        let prefix = ["br", "cr", "r"].into_iter().find(|prefix| text.starts_with(prefix))?;
        let hashes = text[prefix.len()..].bytes().take_while(|byte| *byte == b'#').count();
        let inside = text[prefix.len() + hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let start = text.len() - inside.len();
        return Some(inside.find(&end).map_or(text.len(), |at| start + at + end.len()));
    }
    None
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            end if end == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

#[test]
fn the_reader_is_not_fooled_by_braces_in_literals_and_comments() {
    let fooling = r##"
fn one<'a>(x: &'a str) -> [u8; 2] {
    let a = "}\"}"; // }
    let b = ['}', '\'', '\u{7d}', 'b'];
    /* } /* } */ } */
    let c = r#"}"}"#; let d = b"}"; let r#fn = br"}\"; let e = b'}';
    match x { _ => {} }
    [1, 2]
}
trait T { fn two(); fn three(f: fn(u8) -> [u8; { 1 }]) { } }
"##;
    let found = functions(&blank(fooling));
    assert_eq!(found, [("one".to_owned(), 2, 7), ("three".to_owned(), 10, 1)]);
}

#[test]
fn the_reader_finds_every_use_of_another_module() {
    let code = blank(
        "use crate::{web::{Context, cookie::{self, Cookie}}, clock::Clock, self};\n\
         use crate::random; // crate::config\n\
         pub(crate) fn f() -> crate :: tls::Config { \"crate::demo\"; super::x() }",
    );
    assert_eq!(Vec::from_iter(uses(&code)), ["clock", "random", "tls", "web"]);
}

#[test]
fn the_reader_tells_code_from_prose() {
    for code in [
        "let x = 5;",
        "foo.bar();",
        "return Err(e);",
        "}",
        "if x == y {",
        "self.count += 1;",
        "#[derive(A)]};",
    ] {
        assert!(is_code(code), "{code}");
    }
    for prose in [
        "It waits (for ever);",
        "RFC 9110, 7.6.1: these are hop-by-hop;",
        "Ends in a brace, `{`",
        "See `Config::load`.",
        "Two cookies of one name are no session; which is why",
    ] {
        assert!(!is_code(prose), "{prose}");
    }
}

#[test]
fn the_reader_finds_the_names_of_metrics_and_events() {
    let metrics = "let (name, help) = (\"portcullis_requests\", \"Requests of portcullis_x\");";
    assert_eq!(metric_names(metrics), ["portcullis_requests"]);
    let events = "    Logout = \"logout\", \"logged out\";\n    Self::Added => \"user.added\",\n";
    assert_eq!(event_names(events), ["logout", "user.added"]);
}
