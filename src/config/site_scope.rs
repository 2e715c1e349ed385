//! One entry of `[[sites]]`: its own keys, and those that it inherits from the first site.

use figment::value::{Dict, Value};
use url::Url;

use super::key_path::{find, shown, steps};

/// Keys that no site inherits: its name, its servers, and how they are addressed.
const OWN: [&[&str]; 7] = [
    &["server", "public_url"],
    &["portal", "name"],
    &["portal", "upstreams"],
    &["portal", "host"],
    &["portal", "tls_name"],
    &["portal", "routes"],
    &["identity", "assertion", "audience"],
];

/// The keys of one site, and where they are written.
#[derive(Clone, Debug)]
pub(super) struct SiteScope {
    index: usize,
    /// Its host, or a placeholder for one.
    name: String,
    said: Value,
}

impl SiteScope {
    /// The keys of a site besides those of `[portal]`.
    pub(super) const KEYS: &'static [&'static str] = &["public_url", "access", "identity"];

    pub(super) fn new(index: usize, said: Value) -> Self {
        let url = find(&said, &steps("public_url")).0.as_str().and_then(|url| Url::parse(url).ok());
        let name = url.and_then(|url| url.host_str().map(str::to_owned));
        Self { name: name.unwrap_or_else(|| format!("number {}", index + 2)), index, said }
    }

    /// Its index in the list.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// The keys of a configuration in which this site is the first and only one.
    pub(super) fn values(&self, of_first: &Value) -> Value {
        let said = self.said.as_dict().cloned().unwrap_or_default();
        let (mut portal, mut all) = (Dict::new(), Dict::new());
        for (key, value) in said {
            match &*key {
                "public_url" => {
                    all.insert("server".into(), Value::from(Dict::from([(key, value)])));
                }
                "access" | "identity" => {
                    all.insert(key, value);
                }
                _ => {
                    portal.insert(key, value);
                }
            }
        }
        all.insert("portal".into(), Value::from(portal));
        let first = of_first.as_dict().cloned().unwrap_or_default();
        let shared = first.into_iter().filter(|(key, _)| ["portal", "access", "identity"].contains(&&**key));
        let mut below = Value::from(shared.collect::<Dict>());
        for key in OWN {
            take_out(&mut below, key);
        }
        over(below, Value::from(all))
    }

    /// The path of a key within `[[sites]]`. `None` if sites have no such key.
    fn own_path(path: &[String]) -> Option<Vec<String>> {
        let (table, rest) = path.split_first()?;
        match &**table {
            "portal" => Some(rest.to_vec()),
            "access" | "identity" => Some(path.to_vec()),
            "server" if rest.first().is_some_and(|key| key == "public_url") => Some(rest.to_vec()),
            _ => None,
        }
    }

    pub(super) fn says(&self, key: &str) -> bool {
        Self::own_path(&steps(key)).is_some_and(|path| self.has(&path))
    }

    fn has(&self, path: &[String]) -> bool {
        let (value, depth) = find(&self.said, path);
        depth == path.len() || (depth > 0 && !matches!(value, Value::Dict(..)))
    }

    /// Where a key is written, and whether the site inherits it.
    pub(super) fn locate(&self, path: Vec<String>) -> (Vec<String>, bool) {
        let Some(own) = Self::own_path(&path) else { return (path, true) };
        let is_own = OWN.iter().any(|key| path.iter().take(key.len()).eq(key.iter()));
        if !is_own && !self.has(&own) {
            return (path, true);
        }
        (["sites".to_owned(), self.index.to_string()].into_iter().chain(own).collect(), false)
    }

    /// A key as people write it, at this site and at the first.
    pub(super) fn both(&self, key: &str) -> Vec<String> {
        let path: Vec<String> =
            key.split(['.', '[']).map(|step| step.trim_end_matches(']').to_owned()).collect();
        let (located, inherited) = self.locate(path.clone());
        let own = Self::own_path(&path).map(|own| {
            shown(&["sites".to_owned(), self.index.to_string()].into_iter().chain(own).collect::<Vec<_>>())
        });
        own.into_iter().chain(inherited.then(|| shown(&located))).collect()
    }

    /// A message about a key, in the words of this site.
    pub(super) fn say(&self, message: &str) -> String {
        let message = message.replace("`server.public_url`", "its `public_url`").replace("`portal.", "its `");
        format!("{message} (site {})", self.name)
    }
}

/// Merges tables key by key; any other value is replaced.
fn over(below: Value, above: Value) -> Value {
    match (below, above) {
        (Value::Dict(_, mut below), Value::Dict(tag, above)) => {
            for (key, value) in above {
                let value = match below.remove(&key) {
                    Some(under) => over(under, value),
                    None => value,
                };
                below.insert(key, value);
            }
            Value::Dict(tag, below)
        }
        (_, above) => above,
    }
}

fn take_out(values: &mut Value, key: &[&str]) {
    let (Value::Dict(_, dict), Some((first, rest))) = (values, key.split_first()) else { return };
    if rest.is_empty() {
        dict.remove(*first);
    } else if let Some(inner) = dict.get_mut(*first) {
        take_out(inner, rest);
    }
}
