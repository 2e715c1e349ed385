//! What became of a request, in one word: for the access log and the metrics.

/// The words, each with its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Forwarded to the portal.
    Allow,
    /// The same where no session is needed.
    Bypass,
    /// Sent to sign in, or to bind a device.
    Challenge,
    /// Answered with a page of ours.
    Own,
    /// Malformed, for another host, or too much of something.
    Refuse,
    /// Well-formed, and forbidden.
    Deny,
    /// Turned away under load, for want of a session.
    Shed,
    /// Something that the answer needs did not work.
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

    /// Its place in [`Self::ALL`].
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
