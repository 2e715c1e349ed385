//! An index of the rules by the first path segment, so that two hundred rules cost little more than a few.

use std::collections::BTreeMap;

use super::{AccessRule, pattern::first_segment};

/// Bytes of a first segment that are compared.
const LOOKED_AT: usize = 64;

/// Rules by the first segment of their paths, in their order.
#[derive(Debug)]
pub(super) struct Index {
    segments: Vec<(Box<[u8]>, Vec<usize>)>,
    /// Rules whose paths may begin with any segment.
    anywhere: Vec<usize>,
    /// Those, and the rules with regular expressions.
    anywhere_or_regex: Vec<usize>,
    count: usize,
}

impl Index {
    pub(super) fn new(rules: &[AccessRule]) -> Self {
        let mut segments = BTreeMap::<Box<[u8]>, Vec<usize>>::new();
        let (mut anywhere, mut anywhere_or_regex) = (Vec::new(), Vec::new());
        for (index, rule) in rules.iter().enumerate() {
            let has_regex = !rule.regexes.is_empty();
            let firsts: Option<Vec<_>> = rule.paths.iter().map(|path| path.first_segments()).collect();
            match firsts.filter(|firsts| has_regex || !firsts.is_empty()) {
                Some(firsts) => {
                    for first in firsts.into_iter().flatten() {
                        let known = segments.entry(key(first, &mut [0; LOOKED_AT]).into()).or_default();
                        if known.last() != Some(&index) {
                            known.push(index);
                        }
                    }
                    anywhere_or_regex.extend(has_regex.then_some(index));
                }
                None => {
                    anywhere.push(index);
                    anywhere_or_regex.push(index);
                }
            }
        }
        let segments = segments.into_iter().collect();
        Self { segments, anywhere, anywhere_or_regex, count: rules.len() }
    }

    /// The rules that may match `path`, in their order; a rule with both paths and regular expressions may come twice.
    /// Without a path: all rules. `by_regex`: the path matches a regular expression of some rule.
    pub(super) fn candidates(&self, path: Option<&[u8]>, by_regex: bool) -> impl Iterator<Item = usize> {
        let anywhere = if by_regex { &self.anywhere_or_regex } else { &self.anywhere };
        let (mut here, mut anywhere, mut all) = (&[][..], &anywhere[..], 0..0);
        match path {
            Some(path) => {
                let mut buffer = [0; LOOKED_AT];
                let key = key(first_segment(path), &mut buffer);
                let found = self.segments.binary_search_by(|(segment, _)| (**segment).cmp(key));
                here = found.ok().and_then(|at| self.segments.get(at)).map_or(here, |(_, rules)| rules);
            }
            None => (anywhere, all) = (&[][..], 0..self.count),
        }
        std::iter::from_fn(move || {
            let from = match (here.first(), anywhere.first()) {
                (Some(first), Some(other)) if first < other => &mut here,
                (Some(_), None) => &mut here,
                (_, Some(_)) => &mut anywhere,
                (None, None) => return all.next(),
            };
            let (first, rest) = from.split_first()?;
            *from = rest;
            Some(*first)
        })
    }
}

/// The start of a segment, in lower case.
fn key<'b>(segment: &[u8], buffer: &'b mut [u8; LOOKED_AT]) -> &'b [u8] {
    let length = segment.len().min(LOOKED_AT);
    buffer[..length].copy_from_slice(&segment[..length]);
    buffer[..length].make_ascii_lowercase();
    &buffer[..length]
}

#[cfg(test)]
mod tests {
    use super::{super::AccessPath, *};

    #[test]
    fn only_rules_that_can_match_are_looked_at_and_in_their_order() {
        let rule = |paths: &[&str]| AccessRule {
            paths: paths.iter().map(|path| AccessPath::parse(path).unwrap()).collect(),
            ..AccessRule::default()
        };
        let long = format!("/{}", "a".repeat(100));
        let rules = [
            rule(&["/admin/*"]),
            rule(&["/health", "/b"]),
            rule(&[]),
            rule(&["/Admin/users", "/admin/x"]),
            rule(&["/*"]),
            rule(&["/"]),
            rule(&[&*long]),
            AccessRule { regexes: vec!["/x".into()], ..rule(&["/admin/y"]) },
            AccessRule { regexes: vec!["/x".into()], ..rule(&[]) },
        ];
        let index = Index::new(&rules);
        let found = |path: &str| index.candidates(Some(path.as_bytes()), false).collect::<Vec<_>>();
        assert_eq!(found("/ADMIN/users"), [0, 2, 3, 4, 7]);
        assert_eq!(found("/b"), [1, 2, 4]);
        assert_eq!(found("/nothing"), [2, 4]);
        assert_eq!(found("/"), [2, 4, 5]);
        assert_eq!(found(&long), [2, 4, 6]);
        let by_regex = |path: &str| index.candidates(Some(path.as_bytes()), true).collect::<Vec<_>>();
        assert_eq!(by_regex("/b"), [1, 2, 4, 7, 8]);
        assert_eq!(by_regex("/admin/users"), [0, 2, 3, 4, 7, 7, 8]);
        for by_regex in [false, true] {
            assert_eq!(index.candidates(None, by_regex).count(), rules.len());
        }
    }
}
