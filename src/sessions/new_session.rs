//! What a session is made from at the end of a login: proofs for one user.

use std::time::Duration;

use super::{
    proof::FirstFactor,
    session::{Method, Origin, Profile, Session},
};
use crate::{
    clock::Timestamp,
    credentials::{CodeKind, VerifiedCode},
    secret::TokenHash,
    users::{User, UserId},
};

/// The result of a login. Only proofs make one.
#[derive(Clone, Debug)]
pub struct NewSession {
    pub(super) user: UserId,
    pub(super) profile: Profile,
    pub(super) amr: Vec<Method>,
    /// When the first factor was given, if another session remembers it; `None`: just now.
    pub(super) since: Option<Timestamp>,
    /// The last proof is no later than this.
    pub(super) proved_by: Option<Timestamp>,
    pub(super) remembered: bool,
}

/// The proofs for a new session are not all for its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the first factor and the code are of two different users")]
pub struct OtherUser;

impl NewSession {
    /// Of a user who has given a first factor and nothing else.
    pub fn one_factor(first: &FirstFactor, user: &User) -> Result<Self, OtherUser> {
        Self::with(first, None, user)
    }

    /// Of a user who has given a first factor and a code.
    #[expect(clippy::needless_pass_by_value, reason = "a code makes one session")]
    pub fn two_factor(first: &FirstFactor, code: VerifiedCode, user: &User) -> Result<Self, OtherUser> {
        Self::with(first, Some(&code), user)
    }

    fn with(first: &FirstFactor, code: Option<&VerifiedCode>, user: &User) -> Result<Self, OtherUser> {
        if *first.user() != user.id || code.is_some_and(|code| *code.user() != user.id) {
            return Err(OtherUser);
        }
        let second = code.map(|code| match code.kind() {
            CodeKind::Totp => Method::Totp,
            CodeKind::Recovery => Method::Recovery,
        });
        Ok(Self {
            user: user.id.clone(),
            profile: Profile {
                name: user.name.as_str().to_owned(),
                email: user.email.clone(),
                display_name: user.display_name.clone(),
                groups: user.groups.clone(),
                first_login_at: user.first_login_at,
                has_device: code.is_some(),
            },
            amr: [Some(first.method()), second].into_iter().flatten().collect(),
            since: first.since(),
            // A code is given now, a first factor alone when it was given.
            proved_by: first.since().filter(|_| code.is_none()),
            remembered: false,
        })
    }

    /// For a session that replaces `old` without a new proof.
    #[must_use]
    pub fn no_fresher_than(self, old: &Session) -> Self {
        Self { proved_by: Some(old.proved_at()), ..self }
    }

    /// The proof besides the first factor.
    pub fn second(&self) -> Option<Method> {
        self.amr.iter().copied().find(|method| matches!(method, Method::Totp | Method::Recovery))
    }

    /// Whether the user asked to be kept signed in.
    #[must_use]
    pub fn remembered(self, remembered: bool) -> Self {
        Self { remembered, ..self }
    }

    /// Without any proof: only for measurements, which need many sessions at once.
    #[cfg(feature = "seed")]
    pub fn unproved(user: &UserId, profile: Profile) -> Self {
        let amr = vec![Method::Password, Method::Totp];
        Self { user: user.clone(), profile, amr, since: None, proved_by: None, remembered: false }
    }
}

/// The properties of a new session that its login does not know.
pub(super) struct Beginning {
    pub(super) now: Timestamp,
    /// The maximum age of the session.
    pub(super) lifetime: Duration,
    pub(super) origin: Origin,
    pub(super) csrf: [u8; 16],
}

impl Session {
    /// Makes the session at the end of a login.
    pub(super) fn begin(id: TokenHash, new: NewSession, beginning: Beginning) -> Self {
        let NewSession { user, profile, amr, since, proved_by, remembered } = new;
        let Profile { name, email, display_name, groups, first_login_at: _, has_device: _ } = profile;
        let Beginning { now, lifetime, origin, csrf } = beginning;
        let created_at = since.map_or(now, |since| since.min(now));
        Self {
            id,
            user,
            name,
            email,
            display_name,
            groups,
            amr,
            created_at,
            expires_at: created_at.plus(lifetime),
            origin,
            csrf,
            remembered,
            proved_at: Some(proved_by.map_or(now, |proved_by| proved_by.min(now))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::session::nobody;

    #[test]
    fn proofs_of_two_users_make_no_session() {
        let users = [User::named("ada"), User::named("bob")];
        let passwords = users.each_ref().map(|user| {
            let session = Session { user: user.id.clone(), amr: vec![Method::Password], ..nobody() };
            session.first_factor().unwrap()
        });
        for user in &users {
            for password in &passwords {
                let fits = *password.user() == user.id;
                assert_eq!(NewSession::one_factor(password, user).is_ok(), fits);
                for other in &users {
                    let code = VerifiedCode::of(&other.id, CodeKind::Recovery);
                    let amr = NewSession::two_factor(password, code, user).map(|new| new.amr);
                    let fits = fits && other.id == user.id;
                    let expected = vec![Method::Password, Method::Recovery];
                    assert_eq!(amr, if fits { Ok(expected) } else { Err(OtherUser) });
                }
            }
        }
    }
}
