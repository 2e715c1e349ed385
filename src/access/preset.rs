//! What every site needs without a login, by one word each.

use http::Method;

use super::{AccessLevel, AccessPath, AccessRule};

/// A set of rules with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// RFC 8615.
    WellKnown,
    /// RFC 9309.
    Robots,
    /// What makes a site an app; browsers ask for it without cookies.
    Manifest,
    Favicon,
    /// What browsers ask before a request to another site, without cookies.
    Preflight,
    /// RFC 8555 §8.3: for a portal that gets its certificate itself.
    Acme,
}

impl Preset {
    pub const ALL: [Self; 6] =
        [Self::WellKnown, Self::Robots, Self::Manifest, Self::Favicon, Self::Preflight, Self::Acme];

    /// As the configuration has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WellKnown => "well-known",
            Self::Robots => "robots",
            Self::Manifest => "manifest",
            Self::Favicon => "favicon",
            Self::Preflight => "preflight",
            Self::Acme => "acme",
        }
    }

    /// The rule that it stands for.
    pub fn rule(self) -> AccessRule {
        let (paths, regex): (&[&str], Option<&str>) = match self {
            Self::WellKnown => (&["/.well-known/*"], None),
            Self::Robots => (&["/robots.txt"], None),
            Self::Manifest => (&["/manifest.json", "/manifest.webmanifest", "/site.webmanifest"], None),
            Self::Favicon => (
                &[],
                Some(
                    r"/(?-u:favicon(?:-\d+x\d+)?\.(?:ico|png|svg)|apple-touch-icon(?:-\d+x\d+)?(?:-precomposed)?\.png)",
                ),
            ),
            Self::Preflight => (&[], None),
            Self::Acme => (&[], Some(r"/\.well-known/acme-challenge/[A-Za-z0-9_-]+")),
        };
        let is_preflight = self == Self::Preflight;
        AccessRule {
            paths: paths.iter().filter_map(|path| AccessPath::parse(path).ok()).collect(),
            regexes: regex.map(str::to_owned).into_iter().collect(),
            methods: if is_preflight { vec![Method::OPTIONS] } else { vec![Method::GET, Method::HEAD] },
            preflight: is_preflight,
            level: AccessLevel::Bypass,
            anonymous: true,
            place: format!("access.presets: {}", self.as_str()),
            ..AccessRule::default()
        }
    }
}
