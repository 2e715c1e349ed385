//! The regular expressions of all rules in one automaton: one linear scan of a path.

use regex_automata::{
    Input, MatchKind, PatternSet,
    meta::{BuildError, Config, Regex},
};
use regex_syntax::{
    ParserBuilder,
    hir::{Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind},
};

use super::{AccessRule, pattern::Fit};

/// Paths up to this length are scanned without an allocation.
const USUAL_PATH: usize = 256;

/// Maximum size of all compiled expressions, in bytes.
const MOST_BYTES: usize = 32 << 20;

/// The compiled expressions.
#[derive(Debug)]
pub(super) struct Regexes {
    /// All in one automaton, ignoring letter case. `None` if there are no expressions.
    loose: Option<Regex>,
    exact: Vec<Regex>,
    /// The rule of each expression.
    rules: Vec<usize>,
}

/// How one reading of a path fits the expressions, by rule. Empty if it fits none of them.
pub(super) struct Fits(Vec<Fit>);

/// Checks an expression. The error says what is wrong with it.
pub fn check(pattern: &str) -> Result<(), String> {
    // On its own first, so that the anchors around it cannot change its meaning.
    compile(&[parse(pattern)?])?;
    compile(&[in_any_case(parse(&whole(pattern))?)]).map(drop)
}

impl Regexes {
    pub(super) fn new(rules: &[AccessRule]) -> Result<Self, String> {
        let each = rules
            .iter()
            .enumerate()
            .flat_map(|(index, rule)| rule.regexes.iter().map(move |one| (index, one)));
        let (mut of_rules, mut loose, mut exact) = (Vec::new(), Vec::new(), Vec::new());
        for (index, one) in each {
            let whole = parse(&whole(one))?;
            exact.push(compile(std::slice::from_ref(&whole))?);
            loose.push(in_any_case(whole));
            of_rules.push(index);
        }
        let loose = if loose.is_empty() { None } else { Some(compile(&loose)?) };
        Ok(Self { loose, exact, rules: of_rules })
    }

    /// How a path fits the expressions. Most paths fit none, which one scan shows.
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

    /// How the path fits the expressions of a rule.
    pub(super) fn of(&self, rule: usize) -> Fit {
        self.0.get(rule).copied().unwrap_or(Fit::No)
    }
}

/// The path with its trailing slash removed or added.
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

/// Anchors an expression at both ends of the path.
fn whole(pattern: &str) -> String {
    format!(r"\A(?:{pattern})\z")
}

fn parse(pattern: &str) -> Result<Hir, String> {
    let parsed = ParserBuilder::new().utf8(false).dot_matches_new_line(true).build().parse(pattern);
    parsed.map_err(|error| format!("is no regular expression: {}", last_line(&error.to_string())))
}

/// An expression that matches every text that differs only in letter case from a match of `hir`, even where `hir`
/// excludes letters.
fn in_any_case(hir: Hir) -> Hir {
    match hir.into_kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Look(look) => Hir::look(look),
        HirKind::Literal(literal) => {
            let chunks = literal.0.utf8_chunks().flat_map(|chunk| {
                let letters = chunk.valid().chars().map(|letter| {
                    let mut class = ClassUnicode::new([ClassUnicodeRange::new(letter, letter)]);
                    class.case_fold_simple();
                    Hir::class(Class::Unicode(class))
                });
                let broken = (!chunk.invalid().is_empty()).then(|| Hir::literal(chunk.invalid()));
                letters.chain(broken).collect::<Vec<_>>()
            });
            Hir::concat(chunks.collect())
        }
        HirKind::Class(Class::Unicode(mut class)) => {
            class.case_fold_simple();
            Hir::class(Class::Unicode(class))
        }
        HirKind::Class(Class::Bytes(mut class)) => {
            class.case_fold_simple();
            Hir::class(Class::Bytes(class))
        }
        HirKind::Repetition(mut repetition) => {
            repetition.sub = Box::new(in_any_case(*repetition.sub));
            Hir::repetition(repetition)
        }
        HirKind::Capture(mut capture) => {
            capture.sub = Box::new(in_any_case(*capture.sub));
            Hir::capture(capture)
        }
        HirKind::Concat(all) => Hir::concat(all.into_iter().map(in_any_case).collect()),
        HirKind::Alternation(all) => Hir::alternation(all.into_iter().map(in_any_case).collect()),
    }
}

fn compile(patterns: &[Hir]) -> Result<Regex, String> {
    // Reports every expression that matches.
    let config = Config::new().utf8_empty(false).nfa_size_limit(Some(MOST_BYTES)).match_kind(MatchKind::All);
    let built = Regex::builder().configure(config).build_many_from_hir(patterns);
    built.map_err(|error: BuildError| match error.size_limit() {
        Some(_) => "is too large when compiled; use paths, or a shorter expression".to_owned(),
        None => format!("cannot be used: {error}"),
    })
}

/// The message without the drawing above it.
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
    fn what_excludes_letters_is_about_every_case_of_the_others() {
        use Fit::{Exactly, Loosely, No};
        for (pattern, path, expected) in [
            ("/[^a-z]+", "/ADMIN", Exactly),
            ("/[^a-z]+", "/A1", Exactly),
            ("/[^a-z]+", "/admin", Loosely),
            ("/[^a-z]+", "/aDMIN", Loosely),
            ("/[^/]+", "/admin", Exactly),
            ("/[^a-z]+", "/a/", Loosely),
            (r"/\P{Lu}+", "/admin", Exactly),
            (r"/\P{Lu}+", "/ADMIN", Loosely),
            (r"/[^\d]+", "/123", No),
            ("/x(?:[^a]|b{2,3})", "/XA", Loosely),
            ("/größe", "/GRÖSSE", No),
            ("/größe", "/GRÖßE", Loosely),
        ] {
            assert_eq!(fit(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn of_several_that_match_each_is_known() {
        let patterns = ["/v[0-9]+/admin(/.*)?", "/V.*", "/v[0-9]+/admin(/.*)?", "/x", ".*"];
        let rules = patterns.map(|one| AccessRule { regexes: vec![one.into()], ..AccessRule::default() });
        let fits = Regexes::new(&rules).unwrap().fits(b"/v2/admin/x");
        let found: Vec<_> = (0..patterns.len()).map(|rule| fits.of(rule)).collect();
        assert_eq!(found, [Fit::Exactly, Fit::Loosely, Fit::Exactly, Fit::No, Fit::Exactly]);
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
