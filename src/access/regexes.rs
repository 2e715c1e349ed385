//! The regular expressions of all rules, in one automaton: a path is looked at once, in linear time.

use regex_automata::{
    Input, PatternSet,
    meta::{Config, Regex},
    util::syntax,
};

use super::{AccessRule, pattern::Fit};

/// Paths so long are looked at without an allocation.
const USUAL_PATH: usize = 256;

/// Bytes that they may take when compiled, all together.
const MOST_BYTES: usize = 32 << 20;

/// Compiled.
#[derive(Debug)]
pub(super) struct Regexes {
    /// All in one automaton, case-insensitive. `None` without any expression.
    loose: Option<Regex>,
    exact: Vec<Regex>,
    /// The rule of each.
    rules: Vec<usize>,
}

/// How one reading of a path fits them, by rule. Empty: it fits none.
pub(super) struct Fits(Vec<Fit>);

/// Says what is wrong with an expression.
pub fn check(pattern: &str) -> Result<(), String> {
    // Alone first, so that what is put around it cannot make it another one.
    compile(&[pattern.to_owned()], false)?;
    compile(&[whole(pattern)], true).map(drop)
}

impl Regexes {
    pub(super) fn new(rules: &[AccessRule]) -> Result<Self, String> {
        let each = rules
            .iter()
            .enumerate()
            .flat_map(|(index, rule)| rule.regexes.iter().map(move |one| (index, one)));
        let (rules, wholes): (Vec<_>, Vec<_>) = each.map(|(index, one)| (index, whole(one))).unzip();
        let loose = if wholes.is_empty() { None } else { Some(compile(&wholes, true)?) };
        let exact = wholes.iter().map(|one| compile(std::slice::from_ref(one), false));
        Ok(Self { loose, exact: exact.collect::<Result<_, _>>()?, rules })
    }

    /// How a path fits them. Most fit none, which one look shows.
    pub(super) fn fits(&self, path: &[u8]) -> Fits {
        let Some(loose) = &self.loose else { return Fits::none() };
        with_other_end(path, |other| {
            if !loose.is_match(path) && !loose.is_match(other) {
                return Fits::none();
            }
            let mut fits = vec![Fit::No; self.rules.last().map_or(0, |last| last + 1)];
            let mut found = PatternSet::new(loose.pattern_len());
            loose.which_overlapping_matches(&Input::new(path), &mut found);
            loose.which_overlapping_matches(&Input::new(other), &mut found);
            for pattern in found.iter() {
                let is_exact = self.exact.get(pattern.as_usize()).is_some_and(|exact| exact.is_match(path));
                let fit = if is_exact { Fit::Exactly } else { Fit::Loosely };
                if let Some(known) = self.rules.get(pattern.as_usize()).and_then(|rule| fits.get_mut(*rule)) {
                    *known = fit.max(*known);
                }
            }
            Fits(fits)
        })
    }
}

impl Fits {
    pub(super) const fn none() -> Self {
        Self(Vec::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How it fits those of a rule.
    pub(super) fn of(&self, rule: usize) -> Fit {
        self.0.get(rule).copied().unwrap_or(Fit::No)
    }
}

/// The path the other way about its last slash.
fn with_other_end<T>(path: &[u8], look: impl FnOnce(&[u8]) -> T) -> T {
    if let Some(shorter) = path.strip_suffix(b"/").filter(|shorter| !shorter.is_empty()) {
        return look(shorter);
    }
    let mut usual = [b'/'; USUAL_PATH];
    match usual.get_mut(..path.len()) {
        Some(start) if path.len() < USUAL_PATH => {
            start.copy_from_slice(path);
            look(&usual[..=path.len()])
        }
        _ => look(&[path, b"/"].concat()),
    }
}

/// Of a whole path, whatever the expression says about its ends.
fn whole(pattern: &str) -> String {
    format!(r"\A(?:{pattern})\z")
}

fn compile(patterns: &[String], any_case: bool) -> Result<Regex, String> {
    let syntax = syntax::Config::new().utf8(false).case_insensitive(any_case).dot_matches_new_line(true);
    let config = Config::new().utf8_empty(false).nfa_size_limit(Some(MOST_BYTES));
    let built = Regex::builder().configure(config).syntax(syntax).build_many(patterns);
    built.map_err(|error| match (error.syntax_error(), error.size_limit()) {
        (Some(syntax), _) => format!("is no regular expression: {}", last_line(&syntax.to_string())),
        (None, Some(_)) => "is too large when compiled; use paths, or a shorter expression".to_owned(),
        (None, None) => format!("cannot be used: {error}"),
    })
}

/// What is wrong, without the drawing above it.
fn last_line(text: &str) -> &str {
    let line = text.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(pattern: &str, path: &str) -> Fit {
        check(pattern).unwrap();
        let rules =
            [AccessRule::default(), AccessRule { regexes: vec![pattern.into()], ..AccessRule::default() }];
        let regexes = Regexes::new(&rules).unwrap();
        let fits = regexes.fits(path.as_bytes());
        assert_eq!(fits.of(0), Fit::No);
        fits.of(1)
    }

    #[test]
    fn an_expression_is_about_the_whole_path() {
        use Fit::{Exactly, Loosely, No};
        let long = format!("/{}", "a".repeat(USUAL_PATH));
        for (pattern, path, expected) in [
            ("/v[0-9]+/health", "/v2/health", Exactly),
            ("^/v[0-9]+/health$", "/v2/health", Exactly),
            ("/v[0-9]+/health", "/v2/health/", Loosely),
            ("/v[0-9]+/health", "/V2/Health", Loosely),
            ("/v[0-9]+/health", "/v2/healthz", No),
            ("/v[0-9]+/health/", "/v2/health", Loosely),
            ("/v[0-9]+/health/", "/v2/health//", Loosely),
            ("/v[0-9]+/health", "/v2/health//", No),
            ("/", "/", Exactly),
            ("/a+", &*long, Exactly),
            ("/a+/", &*long, Loosely),
            ("/b+", &*long, No),
            ("/v[0-9]+/health", "/x/v2/health", No),
            ("/admin/.*", "/admin", Loosely),
            ("/a|/b", "/b", Exactly),
            ("/a|/b", "/bc", No),
            ("/a|/b", "/a/b", No),
            ("(?m)^/a$", "/a\n/b", No),
            ("(?i)/a", "/A", Exactly),
            (".*", "/anything", Exactly),
        ] {
            assert_eq!(fit(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn what_is_wrong_with_an_expression_is_said() {
        for (pattern, says) in [
            ("/a(", "unclosed group"),
            ("/a)|(?:/b", "unopened group"),
            ("[", "unclosed character class"),
            (r"(a)\1", "backreferences are not supported"),
            ("(?=a)", "look-around"),
            ("(?:a{1000}){1000}", "too large"),
        ] {
            let error = check(pattern).unwrap_err();
            assert!(error.contains(says), "{pattern}: {error}");
        }
    }
}
