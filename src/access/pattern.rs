//! The path patterns of a rule, and how well a path fits one.

use super::readings::{Reader, folded, without_scripts};

/// How a path fits a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    No,
    /// Except for letter case or a trailing slash, which not every portal distinguishes.
    Loosely,
    Exactly,
}

/// A path, or all paths below one. Written decoded, as the portal sees it.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessPath {
    written: Name,
    /// For readers that skip scripts, if it differs.
    without_scripts: Option<Name>,
    /// Whether the pattern ends in `/*`; the slash is kept.
    below: bool,
}

#[derive(Clone, PartialEq, Eq)]
struct Name {
    exact: String,
    folded: String,
}

impl Name {
    fn new(path: &str) -> Self {
        Self { exact: path.to_owned(), folded: folded(path) }
    }
}

impl AccessPath {
    /// Parses a pattern such as `/health` or `/webhooks/*`. The error says what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (path, below) =
            text.strip_suffix("/*").map_or((text, false), |_| (&text[..text.len() - 1], true));
        if !path.starts_with('/') {
            return Err(format!("`{text}` must begin with `/`"));
        }
        if path.contains('*') {
            return Err(format!(
                "`{text}`: a `*` stands only at the end, after a slash, for all below; use `regex` for the rest"
            ));
        }
        if path.contains(['?', '#']) {
            return Err(format!("`{text}`: query and fragment never count; write the path alone"));
        }
        if escapes(path) {
            return Err(format!(
                "`{text}` is encoded; rules see paths decoded, so write the character itself"
            ));
        }
        if path.contains(['\\', ';']) || path.contains("//") || path.chars().any(char::is_control) {
            return Err(format!(
                "`{text}`: portals differ about doubled slashes, `;`, backslashes and control characters; write the plain path"
            ));
        }
        let ends_oddly = |segment: &str| segment.ends_with(['.', ' ']);
        if path.split('/').any(ends_oddly) {
            return Err(format!("`{text}`: portals differ about dots and spaces at the end of a name"));
        }
        let bare = String::from_utf8(without_scripts(path.as_bytes())).ok().filter(|bare| bare != path);
        Ok(Self { written: Name::new(path), without_scripts: bare.as_deref().map(Name::new), below })
    }

    /// How well a path fits for this reader.
    pub(super) fn fit(&self, path: &[u8], by: Reader) -> Fit {
        let name = match &self.without_scripts {
            Some(name) if by.skips_scripts => name,
            _ => &self.written,
        };
        let folded = name.folded.as_bytes();
        let exact = if by.folds { folded } else { name.exact.as_bytes() };
        if self.below {
            if path.starts_with(exact) {
                return Fit::Exactly;
            }
            let name = &folded[..folded.len() - 1];
            let is_below = path.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
                && path.get(name.len()).is_none_or(|&next| next == b'/');
            return if is_below { Fit::Loosely } else { Fit::No };
        }
        if path == exact {
            return Fit::Exactly;
        }
        if without_slash(path).eq_ignore_ascii_case(without_slash(folded)) { Fit::Loosely } else { Fit::No }
    }

    /// Whether every path that fits `other` exactly also fits this pattern exactly.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let (own, other_name) = (&self.written.exact, &other.written.exact);
        if self.below { other_name.starts_with(own) } else { !other.below && other_name == own }
    }

    /// Whether every path fits.
    pub(super) fn is_everything(&self) -> bool {
        self.below && self.written.folded == "/"
    }

    /// The first segments of all paths that fit: as written, and folded. `None`: any segment.
    pub(super) fn first_segments(&self) -> Option<impl Iterator<Item = &[u8]>> {
        let names = || std::iter::once(&self.written).chain(&self.without_scripts);
        let is_root = self.below && names().any(|name| name.folded == "/");
        let texts = names().flat_map(|name| [&name.exact, &name.folded]);
        (!is_root).then(|| texts.map(|path| first_segment(path.as_bytes())))
    }
}

impl std::fmt::Debug for AccessPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.written.exact, if self.below { "*" } else { "" })
    }
}

/// The first segment of a path.
pub(super) fn first_segment(path: &[u8]) -> &[u8] {
    path.split(|&byte| byte == b'/').nth(1).unwrap_or_default()
}

fn without_slash(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"/").unwrap_or(path)
}

/// Whether the path contains a percent-encoded byte.
fn escapes(path: &str) -> bool {
    let follows =
        |rest: &str| rest.as_bytes().get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    path.split('%').skip(1).any(follows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_fits_exactly_or_but_for_case_and_the_last_slash() {
        use Fit::{Exactly, Loosely, No};
        for (pattern, path, fit) in [
            ("/health", "/health", Exactly),
            ("/health", "/health/", Loosely),
            ("/health", "/Health", Loosely),
            ("/health", "/healthz", No),
            ("/health", "/health.json", No),
            ("/health", "/health/x", No),
            ("/health", "/", No),
            ("/", "/", Exactly),
            ("/", "/a", No),
            ("/a/", "/a/", Exactly),
            ("/a/", "/a", Loosely),
            ("/hooks/*", "/hooks/", Exactly),
            ("/hooks/*", "/hooks/a/b", Exactly),
            ("/hooks/*", "/hooks/A/B/", Exactly),
            ("/hooks/*", "/hooks", Loosely),
            ("/hooks/*", "/HOOKS", Loosely),
            ("/hooks/*", "/Hooks/a", Loosely),
            ("/hooks/*", "/hooksx", No),
            ("/hooks/*", "/hook", No),
            ("/hooks/*", "/x/hooks/a", No),
            ("/*", "/", Exactly),
            ("/*", "/a", Exactly),
            ("/Größe", "/Größe", Exactly),
            ("/Größe", "/grosse", Loosely),
            ("/a b", "/a b", Exactly),
        ] {
            assert_eq!(
                AccessPath::parse(pattern).unwrap().fit(path.as_bytes(), Reader::default()),
                fit,
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn a_pattern_with_the_program_in_it_fits_whoever_skips_that_as_well() {
        use Fit::{Exactly, Loosely, No};
        let skips = Reader { skips_scripts: true, ..Reader::default() };
        for (pattern, path, fit, fit_skipped) in [
            ("/index.php/apps/*", "/index.php/apps/x", Exactly, No),
            ("/index.php/apps/*", "/apps/x", No, Exactly),
            ("/index.php/apps/*", "/APPS/x", No, Loosely),
            ("/index.php/*", "/apps", No, Exactly),
            ("/index.php", "/index.php", Exactly, Exactly),
            ("/a/index.php/b", "/a/b", No, Exactly),
            ("/apps/*", "/apps/x", Exactly, Exactly),
        ] {
            let pattern = AccessPath::parse(pattern).unwrap();
            let fits = [Reader::default(), skips].map(|by| pattern.fit(path.as_bytes(), by));
            assert_eq!(fits, [fit, fit_skipped], "{pattern:?} {path}");
        }
    }

    #[test]
    fn what_no_rule_can_mean_is_refused_with_what_would_be_right() {
        for (text, says) in [
            ("health", "begin with `/`"),
            ("", "begin with `/`"),
            ("*", "begin with `/`"),
            ("/a*", "only at the end, after a slash"),
            ("/*/b", "use `regex`"),
            ("/a?b=c", "query and fragment never count"),
            ("/a#b", "query and fragment never count"),
            ("/a%20b", "write the character itself"),
            ("/a//b", "write the plain path"),
            ("/a;b", "write the plain path"),
            ("/a\\b", "write the plain path"),
            ("/a/../b", "dots and spaces"),
            ("/a./b", "dots and spaces"),
            ("/a /b", "dots and spaces"),
        ] {
            let error = AccessPath::parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        for text in ["/100%", "/.well-known/*", "/a.b", "/*", "/"] {
            assert!(AccessPath::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_wider_path_covers_a_narrower_one() {
        for (wide, narrow, covers) in [
            ("/*", "/a", true),
            ("/a/*", "/a/b", true),
            ("/a/*", "/a/b/*", true),
            ("/a/*", "/a", false),
            ("/a", "/a", true),
            ("/a", "/a/*", false),
            ("/a/*", "/ab", false),
        ] {
            let parse = |text| AccessPath::parse(text).unwrap();
            assert_eq!(parse(wide).covers(&parse(narrow)), covers, "{wide} {narrow}");
        }
    }
}
