//! What a session is made from: the proof that a first factor was given, kept from its check to the login's end.
//!
//! Nothing else makes one than a password that was right, a certificate that counts as one, a session that rests on either, and a
//! record that we sealed.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::session::{Method, Session};
use crate::{
    client_certificates::VerifiedCertificate,
    clock::Timestamp,
    credentials::VerifiedPassword,
    sealing::Sealer,
    users::{User, UserId},
};

/// Proof that the password of a user was given, or a certificate in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstFactor {
    user: UserId,
    since: Option<Timestamp>,
    by: By,
}

/// What was given. The names are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum By {
    #[default]
    #[serde(rename = "pwd")]
    Password,
    #[serde(rename = "swk")]
    Certificate,
}

/// The sealed form of a proof, with the values stored beside it.
#[derive(Serialize, Deserialize)]
struct Record<T> {
    user: UserId,
    since: Option<Timestamp>,
    /// Records without it are of before there was another.
    #[serde(default)]
    by: By,
    rest: T,
}

impl FirstFactor {
    /// Of a user whose certificate counts in place of the password at a site. None: it does not, or is another user's.
    pub fn by_certificate(certificate: &VerifiedCertificate, authority: &str, user: &User) -> Option<Self> {
        let is_theirs = certificate.first_factor_at(authority)? == &user.name;
        is_theirs.then(|| Self { user: user.id.clone(), since: None, by: By::Certificate })
    }

    /// Whose it was.
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// When it was given, if it comes from a session; `None`: in this login.
    pub fn since(&self) -> Option<Timestamp> {
        self.since
    }

    /// What it was.
    pub fn method(&self) -> Method {
        match self.by {
            By::Password => Method::Password,
            By::Certificate => Method::Certificate,
        }
    }

    /// Seals the proof and `rest` for one place. An error: `rest` has no JSON form.
    pub fn seal_with<T: Serialize>(
        &self,
        sealer: &Sealer,
        place: &[&str],
        rest: &T,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let record = Record { user: self.user.clone(), since: self.since, by: self.by, rest };
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
        let Record { user, since, by, rest } = serde_json::from_slice(&plain).ok()?;
        Some((Self { user, since, by }, rest))
    }
}

impl From<VerifiedPassword> for FirstFactor {
    fn from(verified: VerifiedPassword) -> Self {
        Self { user: verified.user().clone(), since: None, by: By::Password }
    }
}

impl Session {
    /// The proof of the first factor that this session began with.
    pub fn first_factor(&self) -> Option<FirstFactor> {
        let by = self.amr.iter().find_map(|method| match method {
            Method::Password => Some(By::Password),
            Method::Certificate => Some(By::Certificate),
            Method::Totp | Method::Recovery | Method::Token => None,
        })?;
        Some(FirstFactor { user: self.user.clone(), since: Some(self.created_at), by })
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
        let proof =
            FirstFactor { user: ada(), since: Some(Timestamp::from_unix_seconds(7)), by: By::Certificate };
        let record = proof.seal_with(&sealer, &["here"], &"beside").unwrap();
        let open = |sealer: &Sealer, place: &str, record: &[u8]| {
            FirstFactor::open_with::<String>(sealer, &[place], record)
        };
        assert_eq!(open(&sealer, "here", &record), Some((proof, "beside".to_owned())));
        assert_eq!(open(&sealer, "there", &record), None);
        assert_eq!(open(&Sealer::from_key(&[2; 32]), "here", &record), None);
        let plain = format!("{{\"user\":\"{}\",\"since\":null,\"rest\":\"beside\"}}", ada());
        assert_eq!(open(&sealer, "here", plain.as_bytes()), None);
    }

    #[test]
    fn a_record_of_before_certificates_is_of_a_password() {
        let sealer = Sealer::from_key(&[1; 32]);
        let plain = format!("{{\"user\":\"{}\",\"since\":null,\"rest\":1}}", ada());
        let record = sealer.seal(&["here"], plain.as_bytes());
        let (proof, _) = FirstFactor::open_with::<u8>(&sealer, &["here"], &record).unwrap();
        assert_eq!(proof.method(), Method::Password);
    }

    #[test]
    fn a_session_stands_in_for_a_first_factor_only_if_it_began_with_one() {
        let session = |amr: &[Method]| Session { user: ada(), amr: amr.to_vec(), ..session::nobody() };
        let at = Some(Timestamp::from_unix_seconds(1));
        for (amr, by) in [
            (&[Method::Password, Method::Totp][..], Some(By::Password)),
            (&[Method::Certificate, Method::Totp], Some(By::Certificate)),
            (&[Method::Totp, Method::Recovery], None),
            (&[Method::Token], None),
            (&[], None),
        ] {
            let expected = by.map(|by| FirstFactor { user: ada(), since: at, by });
            assert_eq!(session(amr).first_factor(), expected, "{amr:?}");
        }
    }
}
