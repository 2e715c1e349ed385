//! The regular expressions of all rules, in one automaton: a path is looked at once, in linear time.

use regex_automata::{
    Input, PatternSet,
    meta::{Config, Regex},
    util::syntax,
};

use super::{
    AccessRule,
    pattern::{Fit, with_other_end},
};

/// Bytes that they may take when compiled, all together.
const MOST_BYTES: usize = 32 << 20;

/// Compiled.
#[derive(Debug)]
pub(super) struct Regexes {
    /// All, without telling case; none: there are none.
    loose: Option<Regex>,
    exact: Vec<Regex>,
    /// The rule of each.
    rules: Vec<usize>,
}

/// How one reading of a path fits them. Found out when it is first asked for.
pub(super) struct Fits<'a> {
    regexes: &'a Regexes,
    path: Option<&'a [u8]>,
    found: Option<Vec<Fit>>,
}

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
        let exact =
            wholes.iter().map(|one| compile(std::slice::from_ref(one), false)).collect::<Result<_, _>>()?;
        Ok(Self { loose, exact, rules })
    }

    fn fits(&self, path: &[u8]) -> Vec<Fit> {
        let mut fits = vec![Fit::No; self.rules.last().map_or(0, |last| last + 1)];
        let Some(loose) = &self.loose else { return fits };
        let mut found = PatternSet::new(loose.pattern_len());
        loose.which_overlapping_matches(&Input::new(path), &mut found);
        loose.which_overlapping_matches(&Input::new(&with_other_end(path)), &mut found);
        for pattern in found.iter() {
            let is_exact = self.exact.get(pattern.as_usize()).is_some_and(|exact| exact.is_match(path));
            let fit = if is_exact { Fit::Exactly } else { Fit::Loosely };
            if let Some(known) = self.rules.get(pattern.as_usize()).and_then(|rule| fits.get_mut(*rule)) {
                *known = fit.max(*known);
            }
        }
        fits
    }
}

impl<'a> Fits<'a> {
    pub(super) fn new(regexes: &'a Regexes, path: Option<&'a [u8]>) -> Self {
        Self { regexes, path, found: None }
    }

    /// How it fits those of a rule; none: the rule has none that it could fit.
    pub(super) fn of(&mut self, rule: usize) -> Option<Fit> {
        self.regexes.rules.binary_search(&rule).ok()?;
        let path = self.path?;
        self.found.get_or_insert_with(|| self.regexes.fits(path)).get(rule).copied()
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
        let mut fits = Fits::new(&regexes, Some(path.as_bytes()));
        assert_eq!(fits.of(0), None);
        fits.of(1).unwrap()
    }

    #[test]
    fn an_expression_is_about_the_whole_path() {
        use Fit::{Exactly, Loosely, No};
        for (pattern, path, expected) in [
            ("/v[0-9]+/health", "/v2/health", Exactly),
            ("^/v[0-9]+/health$", "/v2/health", Exactly),
            ("/v[0-9]+/health", "/v2/health/", Loosely),
            ("/v[0-9]+/health", "/V2/Health", Loosely),
            ("/v[0-9]+/health", "/v2/healthz", No),
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
