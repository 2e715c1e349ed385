//! The proof that a password was given, kept from its check to the end of the login.
//!
//! Only a correct password, a session that was made with one, and a record that we sealed make such a proof.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::session::{Method, Session};
use crate::{clock::Timestamp, credentials::VerifiedPassword, sealing::Sealer, users::UserId};

/// Proof that a user's password was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordProof {
    user: UserId,
    since: Option<Timestamp>,
}

/// The sealed form of a proof, with the values stored beside it.
#[derive(Serialize, Deserialize)]
struct Record<T> {
    user: UserId,
    since: Option<Timestamp>,
    rest: T,
}

impl PasswordProof {
    /// The user of the password.
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// When it was given, if it comes from a session; `None`: in this login.
    pub fn since(&self) -> Option<Timestamp> {
        self.since
    }

    /// Seals the proof and `rest` for one context. Fails if `rest` has no JSON form.
    pub fn seal_with<T: Serialize>(
        &self,
        sealer: &Sealer,
        place: &[&str],
        rest: &T,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let record = Record { user: self.user.clone(), since: self.since, rest };
        let plain = Zeroizing::new(serde_json::to_vec(&record)?);
        Ok(sealer.seal(place, &plain))
    }

    /// Opens the result of [`Self::seal_with`] for the same context; `None` for anything else.
    pub fn open_with<T: DeserializeOwned>(
        sealer: &Sealer,
        place: &[&str],
        record: &[u8],
    ) -> Option<(Self, T)> {
        let plain = sealer.open(place, record).ok()?;
        let Record { user, since, rest } = serde_json::from_slice(&plain).ok()?;
        Some((Self { user, since }, rest))
    }
}

impl From<VerifiedPassword> for PasswordProof {
    fn from(verified: VerifiedPassword) -> Self {
        Self { user: verified.user().clone(), since: None }
    }
}

impl Session {
    /// The proof of the password that this session was made with.
    pub fn password(&self) -> Option<PasswordProof> {
        let user = self.user.clone();
        self.amr.contains(&Method::Password).then_some(PasswordProof { user, since: Some(self.created_at) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{random::SeededRandom, sessions::session};

    fn ada() -> UserId {
        UserId::generate(&SeededRandom::new(1))
    }

    #[test]
    fn a_proof_is_read_again_from_its_own_sealed_record_alone() {
        let sealer = Sealer::from_key(&[1; 32]);
        let proof = PasswordProof { user: ada(), since: Some(Timestamp::from_unix_seconds(7)) };
        let record = proof.seal_with(&sealer, &["here"], &"beside").unwrap();
        let open = |sealer: &Sealer, place: &str, record: &[u8]| {
            PasswordProof::open_with::<String>(sealer, &[place], record)
        };
        assert_eq!(open(&sealer, "here", &record), Some((proof, "beside".to_owned())));
        assert_eq!(open(&sealer, "there", &record), None);
        assert_eq!(open(&Sealer::from_key(&[2; 32]), "here", &record), None);
        let plain = format!("{{\"user\":\"{}\",\"since\":null,\"rest\":\"beside\"}}", ada());
        assert_eq!(open(&sealer, "here", plain.as_bytes()), None);
    }

    #[test]
    fn a_session_stands_in_for_a_password_only_if_it_began_with_one() {
        let session = |amr: &[Method]| Session { user: ada(), amr: amr.to_vec(), ..session::nobody() };
        let proof = session(&[Method::Password, Method::Totp]).password();
        assert_eq!(proof, Some(PasswordProof { user: ada(), since: Some(Timestamp::from_unix_seconds(1)) }));
        assert_eq!(session(&[Method::Totp, Method::Recovery]).password(), None);
        assert_eq!(session(&[]).password(), None);
    }
}
