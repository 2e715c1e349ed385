//! The scope of a token: paths, methods, networks and sites, and the groups it acts with. An empty list does not limit.

use http::Method;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::access::{AccessLevel, AccessPath, AccessRequest, AccessRule, AccessRules, Config};

/// The scope as requested and stored. An unknown limit makes the record unreadable, not wider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scope {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<IpNet>,
    /// For a service: its groups. For a user: those of the user's groups that the token keeps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Hosts, with the port if it is not the default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<String>,
}

/// A compiled scope.
#[derive(Debug)]
pub(super) struct Limits {
    rules: AccessRules,
    sites: Vec<String>,
}

impl Scope {
    /// The error says what to write instead.
    pub(super) fn limits(&self) -> Result<Limits, String> {
        let paths = self.paths.iter().map(|path| AccessPath::parse(path)).collect::<Result<_, _>>()?;
        let methods = self.methods.iter().map(|method| read_method(method)).collect::<Result<_, _>>()?;
        let networks = self.networks.clone();
        // The same readings of paths and methods as in the access rules: the strictest counts.
        let rule =
            AccessRule { paths, methods, networks, level: AccessLevel::Bypass, ..AccessRule::default() };
        let rules = AccessRules::new(&Config { default: AccessLevel::Deny, rules: vec![rule] })?;
        Ok(Limits { rules, sites: self.sites.clone() })
    }

    /// The error says what would be right.
    pub fn check(&self) -> Result<(), String> {
        self.limits().map(drop)
    }

    /// Whether a request of a site lies within.
    pub fn admits(&self, request: &AccessRequest<'_>, authority: &str) -> bool {
        self.limits().is_ok_and(|limits| limits.admit(request, authority))
    }

    /// The groups of a user's token, if the user is in `groups`.
    pub fn groups_of_user(&self, groups: Vec<String>) -> Vec<String> {
        if self.groups.is_empty() {
            return groups;
        }
        groups.into_iter().filter(|group| self.groups.contains(group)).collect()
    }
}

fn read_method(text: &str) -> Result<Method, String> {
    let is_upper = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    match Method::from_bytes(text.as_bytes()) {
        Ok(method) if is_upper => Ok(method),
        _ => Err(format!("`{text}` is not a method such as `GET`")),
    }
}

impl Limits {
    /// Whether a request to a site is within the scope.
    pub(super) fn admit(&self, request: &AccessRequest<'_>, authority: &str) -> bool {
        let is_here =
            self.sites.is_empty() || self.sites.iter().any(|site| site.eq_ignore_ascii_case(authority));
        is_here && self.rules.of(request).level == AccessLevel::Bypass
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn scope(json: &str) -> Scope {
        serde_json::from_str(json).unwrap()
    }

    fn admits(scope: &Scope, method: &str, target: &str, from: &str) -> bool {
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let (method, headers) = (method.parse().unwrap(), HeaderMap::new());
        let request = AccessRequest::new(&method, &headers, path, query, from.parse().unwrap());
        scope.limits().unwrap().admit(&request, "iot.example.com")
    }

    #[test]
    fn a_scope_admits_what_it_names_in_every_reading_and_no_more() {
        let api = scope(r#"{"paths":["/api/*","/health"],"methods":["GET"],"networks":["10.0.0.0/8"]}"#);
        for (method, target, from, expected) in [
            ("GET", "/api/sims", "10.1.2.3", true),
            ("GET", "/api/sims?a=/x", "10.1.2.3", true),
            ("GET", "/health", "10.1.2.3", true),
            ("GET", "/%61pi/sims", "10.1.2.3", true),
            ("POST", "/api/sims", "10.1.2.3", false),
            ("GET", "/api/sims", "192.0.2.1", false),
            ("GET", "/api", "10.1.2.3", false),
            ("GET", "/API/sims", "10.1.2.3", false),
            ("GET", "/apis", "10.1.2.3", false),
            ("GET", "/", "10.1.2.3", false),
            ("GET", "/api/..%2fadmin", "10.1.2.3", false),
            ("GET", "/api/%2e%2e/admin", "10.1.2.3", false),
            ("GET", "/api/..;/admin", "10.1.2.3", false),
            ("GET", "/api//../admin", "10.1.2.3", false),
            ("GET", "/api/%252e%252e/admin", "10.1.2.3", false),
            ("GET", "/api\\..\\admin", "10.1.2.3", false),
            ("GET", "/admin?x=/api/", "10.1.2.3", false),
        ] {
            assert_eq!(admits(&api, method, target, from), expected, "{method} {target} {from}");
        }
        assert!(admits(&Scope::default(), "DELETE", "/any", "192.0.2.1"));
    }

    #[test]
    fn a_method_that_a_field_puts_in_place_of_another_counts_as_well() {
        let reads = scope(r#"{"methods":["POST"]}"#);
        let mut headers = HeaderMap::new();
        headers.insert("x-http-method-override", http::HeaderValue::from_static("DELETE"));
        let request = AccessRequest::new(&Method::POST, &headers, "/a", None, [10, 0, 0, 1].into());
        assert!(!reads.limits().unwrap().admit(&request, "iot.example.com"));
    }

    #[test]
    fn a_token_of_another_site_is_none_here() {
        for (sites, expected) in [
            (&[][..], true),
            (&["IOT.example.com"], true),
            (&["other.example"], false),
            (&["iot.example.com:8443"], false),
        ] {
            let scope =
                Scope { sites: sites.iter().map(|&site| site.to_owned()).collect(), ..Scope::default() };
            assert_eq!(admits(&scope, "GET", "/", "10.0.0.1"), expected, "{sites:?}");
        }
    }

    #[test]
    fn a_user_token_has_no_group_that_its_user_has_not() {
        let groups = |list: &[&str]| list.iter().map(|&group| group.to_owned()).collect::<Vec<_>>();
        let some = Scope { groups: groups(&["ops", "root"]), ..Scope::default() };
        assert_eq!(some.groups_of_user(groups(&["dev", "ops"])), groups(&["ops"]));
        assert_eq!(some.groups_of_user(groups(&["dev"])), groups(&[]));
        assert_eq!(Scope::default().groups_of_user(groups(&["dev"])), groups(&["dev"]));
    }

    #[test]
    fn what_cannot_be_understood_is_no_scope() {
        assert!(serde_json::from_str::<Scope>(r#"{"hours":["9-17"]}"#).is_err());
        for (paths, methods) in
            [(vec!["api"], vec![]), (vec!["/a/../b"], vec![]), (vec![], vec!["get"]), (vec![], vec![""])]
        {
            let text = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect();
            let scope = Scope { paths: text(paths), methods: text(methods), ..Scope::default() };
            assert!(scope.limits().is_err(), "{scope:?}");
        }
    }
}
