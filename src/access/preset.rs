//! Presets: rules that every site needs without a login, by name.

use http::Method;

use super::{AccessLevel, AccessPath, AccessRule};

/// A named set of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// RFC 8615.
    WellKnown,
    /// RFC 9309.
    Robots,
    /// The manifest of a web app, which browsers fetch without cookies.
    Manifest,
    Favicon,
    /// CORS preflight requests, which browsers send without cookies.
    Preflight,
    /// RFC 8555 §8.3: for a portal that gets its own certificate.
    Acme,
}

impl Preset {
    pub const ALL: [Self; 6] =
        [Self::WellKnown, Self::Robots, Self::Manifest, Self::Favicon, Self::Preflight, Self::Acme];

    /// The name in the configuration.
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

    /// The rule of this preset.
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
