//! The outcome of a request in one word, for the access log and the metrics.

/// The outcomes, each with its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Forwarded to the portal.
    Allow,
    /// The same without a session.
    Bypass,
    /// Redirected to sign in, or to bind a device.
    Challenge,
    /// A page of ours.
    Own,
    /// Malformed, for another host, or over a limit.
    Refuse,
    /// Well-formed, but forbidden.
    Deny,
    /// Turned away under load, for lack of a session.
    Shed,
    /// Something failed that the response needs.
    Error,
}

impl Outcome {
    pub const ALL: [Self; 8] = [
        Self::Allow,
        Self::Bypass,
        Self::Challenge,
        Self::Own,
        Self::Refuse,
        Self::Deny,
        Self::Shed,
        Self::Error,
    ];

    /// The value of `decision` in the access log and in the metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Bypass => "bypass",
            Self::Challenge => "challenge",
            Self::Own => "own",
            Self::Refuse => "refuse",
            Self::Deny => "deny",
            Self::Shed => "shed",
            Self::Error => "error",
        }
    }

    /// The index in [`Self::ALL`].
    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_word_and_a_place_of_its_own() {
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome.index(), place, "{outcome:?}");
            let named = Outcome::ALL.iter().filter(|other| other.as_str() == outcome.as_str());
            assert_eq!(named.count(), 1, "{outcome:?}");
        }
    }
}
