//! Rules that can never match, because an earlier rule matches every request they could match.

use super::{AccessPath, AccessRule, ClientKind, Ruling};

/// The indexes of each such rule and of the earlier rule.
pub fn covered(rules: &[AccessRule]) -> Vec<(usize, usize)> {
    let earlier = |(index, rule): (usize, &AccessRule)| {
        let before = rules.get(..index)?;
        let covers = |(at, earlier): &(usize, &AccessRule)| {
            // Where a rule for browsers asks for a login, a rule for every client does not let a token in.
            let is_passed_over = rule.client == Some(ClientKind::Token)
                && earlier.client.is_none()
                && Ruling::of(earlier, *at).takes_tokens()
                && before[..*at].iter().any(|first| first.client == Some(ClientKind::Browser));
            earlier.covers(rule) && !is_passed_over
        };
        let (cover, _) = before.iter().enumerate().find(covers)?;
        Some((index, cover))
    };
    rules.iter().enumerate().filter_map(earlier).collect()
}

impl AccessRule {
    /// Whether this rule matches every request that `other` matches.
    fn covers(&self, other: &Self) -> bool {
        let networks = |network: &ipnet::IpNet| self.networks.iter().any(|wide| wide.contains(network));
        self.covers_paths(other)
            && is_wider(&self.methods, &other.methods)
            && (self.networks.is_empty()
                || (!other.networks.is_empty() && other.networks.iter().all(networks)))
            && is_wider(&self.groups, &other.groups)
            && is_wider(&self.users, &other.users)
            && (self.client.is_none() || self.client == other.client)
            && (!self.preflight || other.preflight)
    }

    fn covers_paths(&self, other: &Self) -> bool {
        if self.paths.is_empty() && self.regexes.is_empty() {
            return true;
        }
        let all = self.paths.iter().any(AccessPath::is_everything);
        let names_paths = !other.paths.is_empty() || !other.regexes.is_empty();
        all || (names_paths
            && other.paths.iter().all(|path| self.paths.iter().any(|wide| wide.covers(path)))
            && other.regexes.iter().all(|regex| self.regexes.contains(regex)))
    }
}

/// Whether the criterion `wide` holds wherever `narrow` does. An empty criterion always holds.
fn is_wider<T: PartialEq>(wide: &[T], narrow: &[T]) -> bool {
    wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(|one| wide.contains(one)))
}
