//! The groups that the portal is told. The groups of the roll-out are not affected.

/// One group, or all with a common prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupPattern {
    Exact(String),
    Prefix(String),
}

/// The selection of groups; the default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupChoice(pub Option<Vec<GroupPattern>>);

impl GroupChoice {
    /// The selected ones of `groups`, in their order.
    pub(super) fn of<'a>(&'a self, groups: &'a [String]) -> impl Iterator<Item = &'a str> {
        let chosen = move |group: &&str| match &self.0 {
            None => true,
            Some(patterns) => patterns.iter().any(|pattern| match pattern {
                GroupPattern::Exact(name) => group == name,
                GroupPattern::Prefix(start) => group.starts_with(start.as_str()),
            }),
        };
        groups.iter().map(String::as_str).filter(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_chosen_by_name_or_by_how_they_begin() {
        let groups = ["ops", "iot-admins", "iot-readers", "iot", "Ops"].map(str::to_owned);
        let chosen = |patterns: Option<&[GroupPattern]>| {
            GroupChoice(patterns.map(<[_]>::to_vec)).of(&groups).collect::<Vec<_>>().join(",")
        };
        let (exact, prefix) = (GroupPattern::Exact("ops".into()), GroupPattern::Prefix("iot-".into()));
        assert_eq!(chosen(None), "ops,iot-admins,iot-readers,iot,Ops");
        assert_eq!(chosen(Some(&[])), "");
        assert_eq!(chosen(Some(&[prefix, exact])), "ops,iot-admins,iot-readers");
    }
}
