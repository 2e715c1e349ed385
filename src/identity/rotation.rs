//! When each signing key signs, and for how long it is published. Pure: every gateway computes the same from the same
//! terms, so that a change-over needs no message.

use std::time::Duration;

use crate::clock::Timestamp;

/// How long a key is published before and after it signs: portals cache what they fetched.
pub const NOTICE: Duration = Duration::from_hours(1);
/// How long compromised keys still sign, until every gateway publishes the new one.
pub const HANDOVER: Duration = Duration::from_secs(10);
/// How long useless keys are kept: a gateway with a wrong clock must not delete what others still publish.
const GRACE: Duration = Duration::from_hours(24);

/// The term of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    pub kid: String,
    pub created_at: Timestamp,
    pub signs_from: Timestamp,
    /// From then on it neither signs nor is published; only set for compromised keys.
    pub retired_at: Option<Timestamp>,
}

/// The state of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Published, so that it is known when it begins to sign.
    Next,
    Signing,
    /// Published for what it has signed.
    Past,
    /// No longer published.
    Retired,
}

impl State {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Signing => "signing",
            Self::Past => "past",
            Self::Retired => "retired",
        }
    }
}

impl Term {
    fn is_retired(&self, now: Timestamp) -> bool {
        self.retired_at.is_some_and(|at| at <= now)
    }

    const fn is_compromised(&self) -> bool {
        self.retired_at.is_some()
    }
}

/// The terms of all keys, in the order in which they sign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Schedule(Vec<Term>);

impl Schedule {
    pub(super) fn new(mut terms: Vec<Term>) -> Self {
        terms.sort_by(|a, b| (a.signs_from, &a.kid).cmp(&(b.signs_from, &b.kid)));
        Self(terms)
    }

    pub(super) fn terms(&self) -> &[Term] {
        &self.0
    }

    /// The key that signs: the last one that has begun. `None` only without any good key.
    pub(super) fn signer(&self, now: Timestamp) -> Option<&Term> {
        let begun = self.0.iter().rfind(|term| term.signs_from <= now && !term.is_retired(now));
        // With a clock that was set back or is slow, none has begun: the published key is still the right one.
        begun.or_else(|| self.good().next())
    }

    pub(super) fn published(&self, now: Timestamp) -> impl Iterator<Item = &Term> {
        self.0.iter().filter(move |term| self.published_until(term).is_none_or(|until| now < until))
    }

    /// `None` as long as no other key is to follow.
    pub(super) fn published_until(&self, term: &Term) -> Option<Timestamp> {
        let follows = |other: &&Term| (other.signs_from, &other.kid) > (term.signs_from, &term.kid);
        let retired = term.retired_at;
        retired.or_else(|| self.good().find(follows).map(|next| next.signs_from.plus(NOTICE)))
    }

    pub(super) fn state(&self, term: &Term, now: Timestamp) -> State {
        if self.published_until(term).is_some_and(|until| until <= now) {
            State::Retired
        } else if self.signer(now) == Some(term) {
            State::Signing
        } else if term.signs_from > now {
            State::Next
        } else {
            State::Past
        }
    }

    /// When a new key is to sign, if it is time to make one.
    pub(super) fn due(&self, now: Timestamp, rotation: Duration) -> Option<Timestamp> {
        if self.good().next().is_none() {
            return Some(now);
        }
        // A key that begins later than that was made by a wrong clock.
        let newest = self.good().rfind(|term| term.signs_from <= now.plus(2 * NOTICE))?;
        let begins = now.plus(NOTICE);
        (begins >= newest.signs_from.plus(rotation)).then_some(begins)
    }

    /// The key that has been made already and does not sign yet.
    pub(super) fn waiting(&self, now: Timestamp) -> Option<&Term> {
        self.good().rfind(|term| term.signs_from > now && term.signs_from <= now.plus(2 * NOTICE))
    }

    /// Keys that nobody needs any more.
    pub(super) fn useless(&self, now: Timestamp) -> impl Iterator<Item = &Term> {
        let kept = move |term: &Term| self.published_until(term).is_none_or(|until| now < until.plus(GRACE));
        self.0.iter().filter(move |term| !kept(term))
    }

    fn good(&self) -> impl DoubleEndedIterator<Item = &Term> {
        self.0.iter().filter(|term| !term.is_compromised())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 60;
    const ROTATION: Duration = Duration::from_hours(30 * 24);

    /// Minutes.
    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000 + minutes * 60)
    }

    fn term(kid: &str, signs_from: i64, retired_at: Option<i64>) -> Term {
        let created_at = at(signs_from).minus(NOTICE);
        Term { kid: kid.into(), created_at, signs_from: at(signs_from), retired_at: retired_at.map(at) }
    }

    fn schedule(terms: &[Term]) -> Schedule {
        Schedule::new(terms.to_vec())
    }

    fn kids<'a>(terms: impl Iterator<Item = &'a Term>) -> String {
        terms.map(|term| term.kid.as_str()).collect()
    }

    /// A month of key `a`, then `b`.
    fn succession() -> Schedule {
        schedule(&[term("b", 30 * DAY, None), term("a", 0, None)])
    }

    #[test]
    fn keys_overlap_for_an_hour_before_and_after_the_change() {
        let change = 30 * DAY;
        for (now, signer, published, states) in [
            (0, "a", "ab", [State::Signing, State::Next]),
            (change - 60, "a", "ab", [State::Signing, State::Next]),
            (change - 1, "a", "ab", [State::Signing, State::Next]),
            (change, "b", "ab", [State::Past, State::Signing]),
            (change + 59, "b", "ab", [State::Past, State::Signing]),
            (change + 60, "b", "b", [State::Retired, State::Signing]),
            (change + 400 * DAY, "b", "b", [State::Retired, State::Signing]),
        ] {
            let (schedule, now) = (succession(), at(now));
            assert_eq!(schedule.signer(now).unwrap().kid, signer, "{now}");
            assert_eq!(kids(schedule.published(now)), published, "{now}");
            assert_eq!([0, 1].map(|key| schedule.state(&schedule.0[key], now)), states, "{now}");
        }
    }

    #[test]
    fn a_new_key_is_due_an_hour_before_it_signs() {
        let change = 30 * DAY;
        let one = [term("a", 0, None)];
        let two = [term("a", 0, None), term("b", change, None)];
        for (terms, now, due) in [
            (&[][..], 7, Some(7)),
            (&one, 0, None),
            (&one, change - 61, None),
            (&one, change - 60, Some(change)),
            // The gateway was off for a year.
            (&one, 365 * DAY, Some(365 * DAY + 60)),
            (&two, change - 60, None),
            (&two, change, None),
            (&two, 2 * change - 60, Some(2 * change)),
            // All are compromised.
            (&[term("a", 0, Some(5))], 3, Some(3)),
            // A clock before all keys, or a key far in the future: no reason to hurry.
            (&[term("a", 90 * DAY, None)], 0, None),
            (&[term("a", 0, None), term("f", 900 * DAY, None)], change - 60, Some(change)),
        ] {
            assert_eq!(schedule(terms).due(at(now), ROTATION), due.map(at), "{now} {terms:?}");
        }
    }

    #[test]
    fn compromised_keys_go_without_delay_and_the_new_one_is_never_alone_unknown() {
        let terms = [
            term("a", 0, Some(100)),
            term("b", 150, Some(100)),
            term("past", -500, Some(100)),
            term("c", 100, None),
        ];
        for (now, signer, published) in
            [(90, "a", "pastacb"), (99, "a", "pastacb"), (100, "c", "c"), (150, "c", "c"), (1000, "c", "c")]
        {
            let schedule = schedule(&terms);
            assert_eq!(schedule.signer(at(now)).unwrap().kid, signer, "{now}");
            assert_eq!(kids(schedule.published(at(now))), published, "{now}");
        }
    }

    #[test]
    fn there_is_a_signer_whatever_the_clock_says() {
        let schedule = succession();
        for now in [i64::MIN, -1, 0, 1, i64::MAX] {
            assert!(schedule.signer(Timestamp::from_unix_millis(now)).is_some(), "{now}");
        }
        assert_eq!(schedule.signer(at(-DAY)).unwrap().kid, "a");
        assert_eq!(Schedule::default().signer(at(0)), None);
    }

    #[test]
    fn a_key_is_erased_a_day_after_it_was_last_published() {
        let change = 30 * DAY;
        for (now, useless) in [(change + 60, ""), (change + 60 + DAY - 1, ""), (change + 60 + DAY, "a")] {
            assert_eq!(kids(succession().useless(at(now))), useless, "{now}");
        }
        let compromised = schedule(&[term("a", 0, Some(100)), term("b", 100, None)]);
        assert_eq!(kids(compromised.useless(at(100 + DAY))), "a");
    }

    #[test]
    fn what_waits_is_found_and_what_is_absurd_is_not() {
        let waiting = |terms: &[Term]| schedule(terms).waiting(at(0)).map(|term| term.kid.clone());
        assert_eq!(waiting(&[term("a", -5, None), term("b", 60, None)]).as_deref(), Some("b"));
        assert_eq!(waiting(&[term("a", 0, None)]), None);
        assert_eq!(waiting(&[term("a", 0, None), term("b", 60, Some(1))]), None);
        assert_eq!(waiting(&[term("a", 0, None), term("b", 121, None)]), None);
    }
}
