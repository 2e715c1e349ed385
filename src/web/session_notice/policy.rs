//! Content security policies (CSP 3) of pages that get our script. A policy that would not let it run, or ask about the
//! session, gets exactly these two addresses added; what it forbids everything else stays forbidden. Where that is not
//! enough, the page is left alone.

use http::HeaderValue;

/// What our script needs of a page's policies.
#[derive(Clone, Debug)]
pub(super) struct Needs {
    /// `https://` and the authority.
    pub origin: String,
    /// The script's path.
    pub script: String,
    /// The path that it asks.
    pub asks: [&'static str; 2],
}

/// What the page's policies become.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fitted {
    /// The lines that replace the policies'; absent: they stay.
    pub enforced: Option<Vec<HeaderValue>>,
    pub reported: Option<Vec<HeaderValue>>,
    /// The nonce that our tag bears. It is one of the page's own.
    pub nonce: Option<String>,
}

/// Fits the lines of `Content-Security-Policy` and of `Content-Security-Policy-Report-Only` to our script. `None`: the page is
/// to be left alone.
pub(super) fn fit<'a>(
    enforced: impl Iterator<Item = &'a [u8]>,
    reported: impl Iterator<Item = &'a [u8]>,
    needs: &Needs,
) -> Option<Fitted> {
    let enforced = policies(enforced)?;
    let reported = policies(reported).unwrap_or_default();
    // A sandbox has another origin, and perhaps no scripts or windows.
    if enforced.iter().any(|policy| policy.has("sandbox")) {
        return None;
    }
    let nonce = match (Nonce::of(&enforced, needs), Nonce::of(&reported, needs)) {
        (Nonce::Missing, _) => return None,
        (Nonce::Known(nonce), _) | (Nonce::Needless, Nonce::Known(nonce)) => Some(nonce),
        (Nonce::Needless, Nonce::Needless | Nonce::Missing) => None,
    };
    let (fitted, changes) = fit_all(&enforced, nonce, needs)?;
    let reports = fit_all(&reported, nonce, needs);
    Some(Fitted {
        enforced: changes.then(|| lines(&fitted)).flatten(),
        // What only reports keeps nothing from running.
        reported: reports.filter(|(_, changes)| *changes).and_then(|(fitted, _)| lines(&fitted)),
        nonce: nonce.map(str::to_owned),
    })
}

/// The nonce that several policies take.
#[derive(Clone, Copy)]
enum Nonce<'a> {
    Needless,
    /// Every policy knows it that asks for one.
    Known(&'a str),
    Missing,
}

impl<'a> Nonce<'a> {
    fn of(policies: &[Policy<'a>], needs: &Needs) -> Self {
        let mut asking = policies.iter().filter(|policy| policy.asks_for_nonce(needs));
        let Some(first) = asking.next() else { return Self::Needless };
        let others: Vec<_> = asking.collect();
        let known = |nonce: &&str| others.iter().all(|other| other.nonces().any(|known| known == *nonce));
        let nonce = first.nonces().find(known);
        nonce.map_or(Self::Missing, Self::Known)
    }
}

fn fit_all<'a>(
    policies: &[Policy<'a>],
    nonce: Option<&str>,
    needs: &Needs,
) -> Option<(Vec<Policy<'a>>, bool)> {
    let mut changes = false;
    let mut fitted = policies.to_vec();
    for policy in &mut fitted {
        changes |= policy.admit_script(nonce, needs)?;
        changes |= policy.admit_questions(needs);
    }
    Some((fitted, changes))
}

fn lines(policies: &[Policy<'_>]) -> Option<Vec<HeaderValue>> {
    policies.iter().map(|policy| HeaderValue::from_str(&policy.to_text()).ok()).collect()
}

/// Reads all policies of these lines. `None`: what is in them is not for us to read.
fn policies<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<Vec<Policy<'a>>> {
    let mut all = Vec::new();
    for line in lines {
        let line = std::str::from_utf8(line).ok().filter(|line| line.is_ascii())?;
        all.extend(line.split(',').map(Policy::parse).filter(|policy| !policy.directives.is_empty()));
    }
    Some(all)
}

/// One policy: its directives, each with its name in small letters.
#[derive(Clone, Debug)]
struct Policy<'a> {
    directives: Vec<Directive<'a>>,
}

#[derive(Clone, Debug)]
struct Directive<'a> {
    name: String,
    words: Vec<&'a str>,
    /// An address of ours behind the words.
    added: Vec<String>,
}

impl<'a> Policy<'a> {
    fn parse(text: &'a str) -> Self {
        let mut directives: Vec<Directive<'a>> = Vec::new();
        for directive in text.split(';') {
            let mut words = directive.split_ascii_whitespace();
            let Some(name) = words.next().map(str::to_ascii_lowercase) else { continue };
            // The first of a name counts.
            if !directives.iter().any(|known| known.name == name) {
                directives.push(Directive { name, words: words.collect(), added: Vec::new() });
            }
        }
        Self { directives }
    }

    fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn find(&self, name: &str) -> Option<&Directive<'a>> {
        self.directives.iter().find(|directive| directive.name == name)
    }

    /// What it says of elements `<script>`; absent: nothing.
    fn of_scripts(&self) -> Option<&Directive<'a>> {
        ["script-src-elem", "script-src", "default-src"].into_iter().find_map(|name| self.find(name))
    }

    fn nonces(&self) -> impl Iterator<Item = &'a str> {
        self.of_scripts().into_iter().flat_map(Directive::nonces)
    }

    /// Whether our script does not run by its address, and there are nonces.
    fn asks_for_nonce(&self, needs: &Needs) -> bool {
        self.of_scripts().is_some_and(|scripts| {
            !scripts.admits(&needs.origin, &needs.script) && scripts.nonces().next().is_some()
        })
    }

    /// Lets our script run. Answers whether that has changed something; `None`: it cannot.
    fn admit_script(&mut self, nonce: Option<&str>, needs: &Needs) -> Option<bool> {
        let Some(scripts) = self.of_scripts() else { return Some(false) };
        if scripts.admits(&needs.origin, &needs.script)
            || nonce.is_some_and(|nonce| scripts.nonces().any(|known| known == nonce))
        {
            return Some(false);
        }
        // Addresses do not count there, and whatever counts admits more than one script.
        if scripts.trusts_by_descent() {
            return None;
        }
        let name = if scripts.name == "default-src" { "script-src-elem" } else { &*scripts.name }.to_owned();
        let words = scripts.words.clone();
        self.add(name, words, &[&needs.script], needs);
        Some(true)
    }

    /// Lets our script ask about the session.
    fn admit_questions(&mut self, needs: &Needs) -> bool {
        let Some(asked) = ["connect-src", "default-src"].into_iter().find_map(|name| self.find(name)) else {
            return false;
        };
        if needs.asks.iter().all(|path| asked.admits(&needs.origin, path)) {
            return false;
        }
        let words = asked.words.clone();
        self.add("connect-src".to_owned(), words, &needs.asks, needs);
        true
    }

    /// Adds addresses of ours to a directive, which is made of `words` where there is none.
    fn add(&mut self, name: String, words: Vec<&'a str>, paths: &[&str], needs: &Needs) {
        let added: Vec<_> = paths.iter().map(|path| format!("{}{path}", needs.origin)).collect();
        // `'none'` counts alone only.
        let words: Vec<_> = words.into_iter().filter(|word| !word.eq_ignore_ascii_case("'none'")).collect();
        match self.directives.iter_mut().find(|directive| directive.name == name) {
            Some(directive) => (directive.words, directive.added) = (words, added),
            None => self.directives.push(Directive { name, words, added }),
        }
    }

    fn to_text(&self) -> String {
        let directive = |Directive { name, words, added }: &Directive<'_>| {
            let words = words.iter().copied().chain(added.iter().map(String::as_str));
            std::iter::once(name.as_str()).chain(words).collect::<Vec<_>>().join(" ")
        };
        self.directives.iter().map(directive).collect::<Vec<_>>().join("; ")
    }
}

impl<'a> Directive<'a> {
    /// Nonces that an attribute can hold.
    fn nonces(&self) -> impl Iterator<Item = &'a str> {
        let is_base64 = |nonce: &&str| {
            !nonce.is_empty()
                && nonce.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte))
        };
        self.words.clone().into_iter().filter_map(|word| inside(word, "'nonce-")).filter(is_base64)
    }

    /// Whether scripts run for who loads them and not for where they are.
    fn trusts_by_descent(&self) -> bool {
        self.words.iter().any(|word| word.eq_ignore_ascii_case("'strict-dynamic'"))
    }

    /// Whether this address passes. Whoever doubts, says no.
    fn admits(&self, origin: &str, path: &str) -> bool {
        !self.trusts_by_descent()
            && self.words.iter().any(|word| {
                let word = word.to_ascii_lowercase();
                let bare = word.strip_prefix("https://").unwrap_or(&word);
                let host = origin.strip_prefix("https://").unwrap_or(origin);
                matches!(&*word, "'self'" | "*" | "https:")
                    || bare == host
                    || bare.strip_suffix('/') == Some(host)
                    || bare == format!("{host}{path}").to_ascii_lowercase()
            })
    }
}

/// What stands between `prefix`, in letters of any case, and a quote.
fn inside<'a>(word: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = word.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then(|| rest.strip_suffix('\''))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs() -> Needs {
        let asks = ["/.portcullis/session", "/.portcullis/stay"];
        Needs { origin: "https://iot.example.com".into(), script: "/.portcullis/n.js".into(), asks }
    }

    const SCRIPT: &str = "https://iot.example.com/.portcullis/n.js";
    const ASKS: &str = "https://iot.example.com/.portcullis/session https://iot.example.com/.portcullis/stay";

    fn fitted(enforced: &[&str], reported: &[&str]) -> Option<Fitted> {
        let bytes = |lines: &[&str]| lines.iter().map(|line| line.as_bytes().to_vec()).collect::<Vec<_>>();
        let (enforced, reported) = (bytes(enforced), bytes(reported));
        fit(enforced.iter().map(Vec::as_slice), reported.iter().map(Vec::as_slice), &needs())
    }

    fn text(lines: Option<Vec<HeaderValue>>) -> Option<Vec<String>> {
        lines.map(|lines| lines.iter().map(|line| line.to_str().unwrap().to_owned()).collect())
    }

    #[test]
    fn what_lets_our_script_run_stays_as_it_is() {
        for policy in [
            "",
            ";",
            "default-src 'self'",
            "DEFAULT-SRC 'SELF'",
            "img-src 'none'",
            "script-src 'self' https://cdn.example; object-src 'none'",
            "default-src 'none'; script-src https:; connect-src *",
            "script-src-elem iot.example.com; script-src 'none'",
            "default-src https://iot.example.com/",
            "default-src 'none'; script-src 'self'; connect-src 'self'",
            "require-trusted-types-for 'script'; trusted-types none",
            "upgrade-insecure-requests",
            "frame-ancestors 'none'",
            "default-src 'self', img-src *, script-src * 'unsafe-inline'",
        ] {
            let fitted = fitted(&[policy], &[policy]).unwrap_or_else(|| panic!("{policy}"));
            assert_eq!(fitted, Fitted { enforced: None, reported: None, nonce: None }, "{policy}");
        }
    }

    #[test]
    fn nothing_but_our_addresses_is_added() {
        for (policy, becomes) in [
            ("script-src https://cdn.example", format!("script-src https://cdn.example {SCRIPT}")),
            ("script-src 'none'; img-src *", format!("script-src {SCRIPT}; img-src *")),
            ("script-src 'sha256-abc='", format!("script-src 'sha256-abc=' {SCRIPT}")),
            (
                "script-src-elem a.example; script-src 'self'",
                format!("script-src-elem a.example {SCRIPT}; script-src 'self'"),
            ),
            (
                "default-src a.example",
                format!(
                    "default-src a.example; script-src-elem a.example {SCRIPT}; connect-src a.example {ASKS}"
                ),
            ),
            (
                "default-src 'none'",
                format!("default-src 'none'; script-src-elem {SCRIPT}; connect-src {ASKS}"),
            ),
            ("script-src", format!("script-src {SCRIPT}")),
            ("connect-src wss://live.example", format!("connect-src wss://live.example {ASKS}")),
            (
                "script-src 'self'; default-src 'none'",
                format!("script-src 'self'; default-src 'none'; connect-src {ASKS}"),
            ),
            // The first of a name counts.
            ("script-src a.example; script-src 'self'", format!("script-src a.example {SCRIPT}")),
            // Another host, scheme, port or path.
            (
                "script-src https://iot.example.com:8443",
                format!("script-src https://iot.example.com:8443 {SCRIPT}"),
            ),
            ("script-src http:", format!("script-src http: {SCRIPT}")),
            (
                "script-src https://iot.example.com/static/",
                format!("script-src https://iot.example.com/static/ {SCRIPT}"),
            ),
        ] {
            let fitted = fitted(&[policy], &[policy]).unwrap();
            assert_eq!(text(fitted.enforced), Some(vec![becomes.clone()]), "{policy}");
            assert_eq!(text(fitted.reported), Some(vec![becomes]), "{policy}");
            assert_eq!(fitted.nonce, None);
        }
    }

    #[test]
    fn each_of_several_policies_is_fitted() {
        let fitted =
            fitted(&["default-src 'self', script-src a.example", "connect-src 'none'"], &[]).unwrap();
        let expected = [
            "default-src 'self'".into(),
            format!("script-src a.example {SCRIPT}"),
            format!("connect-src {ASKS}"),
        ];
        assert_eq!(text(fitted.enforced), Some(expected.to_vec()));
        assert_eq!(fitted.reported, None);
    }

    #[test]
    fn a_nonce_of_the_page_is_used() {
        for policies in [
            &["script-src 'nonce-aB+/9='"][..],
            &["script-src 'strict-dynamic' 'nonce-aB+/9=' https:"],
            &["default-src 'NONCE-aB+/9='; connect-src 'self'"],
            &["script-src 'nonce-aB+/9='", "script-src 'self'"],
            &["script-src 'nonce-x' 'nonce-aB+/9='", "script-src 'strict-dynamic' 'nonce-aB+/9='"],
        ] {
            let fitted = fitted(policies, &[]).unwrap();
            assert_eq!(
                fitted,
                Fitted { enforced: None, reported: None, nonce: Some("aB+/9=".into()) },
                "{policies:?}"
            );
        }
        let fitted = fitted(&["default-src 'self'"], &["script-src 'nonce-aB' 'strict-dynamic'"]).unwrap();
        assert_eq!((fitted.reported, fitted.nonce.as_deref()), (None, Some("aB")));
    }

    #[test]
    fn a_page_that_takes_more_is_left_alone() {
        for policies in [
            &["sandbox"][..],
            &["sandbox allow-scripts allow-same-origin"],
            &["default-src 'self'", "img-src *; SANDBOX allow-scripts"],
            &["script-src 'strict-dynamic'"],
            &["script-src 'strict-dynamic' 'sha256-abc=' https:"],
            &["script-src 'nonce-a'", "script-src 'nonce-b'"],
            &["script-src 'nonce-a'", "script-src 'strict-dynamic'"],
            &["script-src 'strict-dynamic' 'nonce-a\"b'"],
            &["script-src 'self'; report-uri /\u{e9}"],
        ] {
            assert_eq!(fitted(policies, &[]), None, "{policies:?}");
        }
        // What only reports stops nothing.
        assert!(fitted(&[], &["sandbox; script-src 'strict-dynamic'"]).is_some());
    }
}
