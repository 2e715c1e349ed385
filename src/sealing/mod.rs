//! Secrets at rest: keys that nobody else can read, and records that open only in the context they were sealed for.
//!
//! AES-256-GCM-SIV with a random nonce; the context (table, row, column) is authenticated, so a record moved to another
//! user's row does not open. Of several keys the first seals and all open.

mod key_source;
mod keys;
mod marked;

use std::{fmt, path::Path};

use arc_swap::ArcSwap;
use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    hmac,
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

pub use self::{
    key_source::{KeyError, KeySource},
    keys::{KeyId, Keys, SecretKey},
    marked::MarkedTokens,
};
use crate::{
    background::{BEAT, regularly},
    errors::Chain,
    random::Random,
};

/// The first byte of a record that does not name its key. Written as long as there is one key, so that programs from
/// before there could be several can read it.
const WITHOUT_ID: u8 = 1;
/// The first byte of a record whose next four bytes name its key.
const WITH_ID: u8 = 2;

/// A sealed record that does not open: another key, another context, or damage.
#[derive(Debug, thiserror::Error)]
#[error("a sealed record cannot be opened with this key")]
pub struct Unsealable;

/// Seals and opens records, and derives the keys of other uses.
pub struct Sealer {
    ring: ArcSwap<Ring>,
    /// Never changes: values derived from it are in users' open forms and cookies, and in hashes that cannot be
    /// computed again.
    derive: hmac::Key,
    source: Option<KeySource>,
}

/// The keys in force; the first one seals.
struct Ring(Vec<(KeyId, RandomizedNonceKey)>);

impl Ring {
    fn new(keys: &[SecretKey]) -> Self {
        Self(keys.iter().map(|key| (keys::id(key), aead(key))).collect())
    }

    fn open(&self, place: &[&str], record: &[u8]) -> Result<(KeyId, Zeroizing<Vec<u8>>), Unsealable> {
        let (&version, rest) = record.split_first().ok_or(Unsealable)?;
        let (wanted, rest) = match version {
            WITHOUT_ID => (None, rest),
            WITH_ID => {
                let (id, rest) = rest.split_first_chunk::<4>().ok_or(Unsealable)?;
                (Some(KeyId(*id)), rest)
            }
            _ => return Err(Unsealable),
        };
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().ok_or(Unsealable)?;
        let candidates = self.0.iter().filter(|(id, _)| wanted.is_none_or(|wanted| wanted == *id));
        for (id, aead) in candidates {
            let mut plain = Zeroizing::new(sealed.to_vec());
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let Ok(length) =
                aead.open_in_place(nonce, Aad::from(aad(place)), &mut plain).map(|plain| plain.len())
            else {
                continue;
            };
            plain.truncate(length);
            return Ok((*id, plain));
        }
        Err(Unsealable)
    }
}

impl Sealer {
    /// Loads the keys; makes a file with a new one if there is none.
    pub fn with_keys_of(source: &KeySource, random: &dyn Random) -> Result<Self, KeyError> {
        let keys = source.keys_or_new(random)?;
        Ok(Self {
            ring: ArcSwap::from_pointee(Ring::new(keys.keys())),
            derive: hmac::Key::new(hmac::HMAC_SHA256, keys.root().as_slice()),
            source: Some(source.clone()),
        })
    }

    /// Uses a key that is not stored.
    pub fn from_key(key: &[u8; 32]) -> Self {
        Self {
            ring: ArcSwap::from_pointee(Ring::new(&[Zeroizing::new(*key)])),
            derive: hmac::Key::new(hmac::HMAC_SHA256, key),
            source: None,
        }
    }

    /// Follows the key file until `stop`. An invalid file leaves the keys unchanged.
    pub async fn watch(&self, stop: CancellationToken) {
        let Some((source, path)) = self.source.as_ref().and_then(|source| Some((source, source.path()?)))
        else {
            // A key from the environment does not change.
            return stop.cancelled().await;
        };
        let fingerprint = || {
            let facts = std::fs::metadata(path).ok()?;
            Some((facts.modified().ok()?, facts.len()))
        };
        // It may have changed since it was read.
        let mut seen = None;
        let mut looks = regularly(BEAT);
        loop {
            let now = fingerprint();
            if now != seen {
                match source.keys().and_then(|keys| self.take(&keys, path)) {
                    Ok(()) => {}
                    Err(error) => tracing::error!(
                        error = %Chain(&error),
                        "the changed key file is refused, the keys before stay in force"
                    ),
                }
                seen = now;
            }
            // A prepared key is known within a second.
            if stop.run_until_cancelled(looks.tick()).await.is_none() {
                return;
            }
        }
    }

    /// Uses the keys that are now in the file.
    fn take(&self, keys: &Keys, path: &Path) -> Result<(), KeyError> {
        let root = hmac::Key::new(hmac::HMAC_SHA256, keys.root().as_slice());
        let same = |key: &hmac::Key| hmac::sign(key, b"root").as_ref().to_vec();
        if same(&root) != same(&self.derive) {
            return Err(KeyError::OtherRoot { path: path.into() });
        }
        let ring = Ring::new(keys.keys());
        let ids = |ring: &Ring| ring.0.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        if ids(&ring) != ids(&self.ring.load()) {
            tracing::info!(sealing = %ring.0[0].0, keys = ring.0.len(), "the sealing keys were reloaded");
            self.ring.store(ring.into());
        }
        Ok(())
    }

    /// A key for another use, determined by `label`.
    pub fn derive(&self, label: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(keys::derive_from(&self.derive, label))
    }

    /// Seals `plain` for `place`, a path such as `["devices", user, device, "secret"]`.
    pub fn seal(&self, place: &[&str], plain: &[u8]) -> Vec<u8> {
        let ring = self.ring.load();
        // A ring has at least one key.
        let (id, aead) = &ring.0[0];
        let mut sealed = plain.to_vec();
        // Fails only for inputs beyond 2^36 bytes.
        #[expect(clippy::unwrap_used, reason = "no record of ours is near the length limit of the cipher")]
        let nonce = aead.seal_in_place_append_tag(Aad::from(aad(place)), &mut sealed).unwrap();
        let mut record = Vec::with_capacity(5 + NONCE_LEN + sealed.len());
        if ring.0.len() == 1 {
            record.push(WITHOUT_ID);
        } else {
            record.push(WITH_ID);
            record.extend_from_slice(&id.0);
        }
        record.extend_from_slice(nonce.as_ref());
        record.append(&mut sealed);
        record
    }

    /// Opens the output of [`Self::seal`] for the same context.
    pub fn open(&self, place: &[&str], record: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
        self.ring.load().open(place, record).map(|(_, plain)| plain)
    }

    /// The key that a record opens with.
    pub fn key_of(&self, place: &[&str], record: &[u8]) -> Result<KeyId, Unsealable> {
        self.ring.load().open(place, record).map(|(id, _)| id)
    }

    /// The key that seals now.
    pub fn sealing_key(&self) -> KeyId {
        self.ring.load().0[0].0
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(…)")
    }
}

fn aead(key: &[u8; 32]) -> RandomizedNonceKey {
    let derive = hmac::Key::new(hmac::HMAC_SHA256, key);
    let aead_key = Zeroizing::new(keys::derive_from(&derive, "seal"));
    // The constructor requires only a key of 32 bytes.
    #[expect(clippy::unwrap_used, reason = "the key length is right by its type")]
    RandomizedNonceKey::new(&AES_256_GCM_SIV, aead_key.as_slice()).unwrap()
}

/// Each part is preceded by its length, so that no two contexts have the same encoding.
fn aad(place: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in place {
        bytes.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

    use super::*;
    use crate::random::OsRandom;

    #[test]
    fn a_record_opens_only_in_its_own_place() {
        let sealer = Sealer::from_key(&[1; 32]);
        let record = sealer.seal(&["devices", "u1", "secret"], b"seed");
        assert_eq!(sealer.open(&["devices", "u1", "secret"], &record).unwrap().as_slice(), b"seed");
        for place in
            [&["devices", "u2", "secret"][..], &["devices", "u1secret"], &["devicesu1", "", "secret"]]
        {
            assert!(sealer.open(place, &record).is_err());
        }
        assert!(Sealer::from_key(&[2; 32]).open(&["devices", "u1", "secret"], &record).is_err());
        for at in 0..record.len() {
            let mut damaged = record.clone();
            damaged[at] ^= 1;
            assert!(sealer.open(&["devices", "u1", "secret"], &damaged).is_err(), "byte {at}");
        }
        assert!(sealer.open(&[], &[]).is_err());
    }

    #[test]
    fn the_key_file_is_made_once_and_only_the_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/portcullis.key");
        let source = KeySource::File(path.clone());
        let record = Sealer::with_keys_of(&source, &OsRandom).unwrap().seal(&["x"], b"y");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            Sealer::with_keys_of(&source, &OsRandom).unwrap().open(&["x"], &record).unwrap().as_slice(),
            b"y"
        );

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Sealer::with_keys_of(&source, &OsRandom), Err(KeyError::Permissions { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "not a key").unwrap();
        assert!(matches!(Sealer::with_keys_of(&source, &OsRandom), Err(KeyError::Malformed { .. })));
    }

    /// The effect that a change of the file must have within a second on an idle machine.
    async fn until(state: impl Fn() -> bool) {
        let waiting = async {
            while !state() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("the file is noticed");
    }

    #[tokio::test]
    async fn a_rotation_in_two_steps_is_noticed_and_changes_nothing_that_was_derived() {
        let folder = tempfile::tempdir().unwrap();
        let source = KeySource::File(folder.path().join("portcullis.key"));
        let gateway = std::sync::Arc::new(Sealer::with_keys_of(&source, &OsRandom).unwrap());
        let stop = CancellationToken::new();
        let watching = tokio::spawn({
            let (gateway, stop) = (gateway.clone(), stop.clone());
            async move { gateway.watch(stop).await }
        });
        let place = ["devices", "u1", "secret"];
        let (old, derived) = (gateway.seal(&place, b"seed"), gateway.derive("forms"));
        assert_eq!(old[0], WITHOUT_ID, "a program that knows one key reads it");
        let first = gateway.sealing_key();

        // Every gateway has to open what one of them seals: the key must be everywhere before any gateway seals with
        // it.
        let mut file = source.keys().unwrap();
        let second = file.prepare(&OsRandom);
        source.write(&file).unwrap();
        until(|| gateway.ring.load().0.len() == 2).await;
        assert_eq!(gateway.sealing_key(), first);
        let mut file = source.keys().unwrap();
        let elsewhere = Sealer::with_keys_of(&source, &OsRandom).unwrap();
        assert_eq!(file.activate(), Some(second));
        source.write(&file).unwrap();
        let ahead = Sealer::with_keys_of(&source, &OsRandom).unwrap();
        let new = ahead.seal(&place, b"seed");
        assert_eq!((new[0], ahead.sealing_key()), (WITH_ID, second));
        for reader in [&*gateway, &elsewhere, &ahead] {
            assert_eq!(reader.open(&place, &new).unwrap().as_slice(), b"seed");
            assert_eq!(reader.open(&place, &old).unwrap().as_slice(), b"seed");
            assert_eq!(*reader.derive("forms"), *derived);
        }
        assert_eq!(
            (ahead.key_of(&place, &old).unwrap(), ahead.key_of(&place, &new).unwrap()),
            (first, second)
        );
        for at in 0..new.len() {
            let mut damaged = new.clone();
            damaged[at] ^= 1;
            assert!(ahead.open(&place, &damaged).is_err(), "byte {at}");
        }

        // An invalid file, and one of another installation, leave the keys unchanged.
        until(|| gateway.sealing_key() == second).await;
        let broken = folder.path().join("broken.key");
        for text in ["", "half a li", &"0".repeat(64)] {
            fs::write(&broken, text).unwrap();
            fs::set_permissions(&broken, fs::Permissions::from_mode(0o600)).unwrap();
            let read = KeySource::File(broken.clone()).keys();
            assert!(read.and_then(|keys| gateway.take(&keys, &broken)).is_err(), "{text:?}");
            assert_eq!(gateway.open(&place, &new).unwrap().as_slice(), b"seed");
        }
        assert!(!file.remove(second), "the one that seals");
        assert!(file.remove(first));
        source.write(&file).unwrap();
        until(|| gateway.open(&place, &old).is_err()).await;
        assert_eq!(gateway.open(&place, &new).unwrap().as_slice(), b"seed");
        assert_eq!(*gateway.derive("forms"), *derived);
        stop.cancel();
        watching.await.unwrap();
    }

    #[test]
    fn several_keys_fit_into_one_line_and_what_is_not_quite_them_is_refused() {
        let mut keys = Keys::parse(&"0".repeat(64)).unwrap();
        keys.prepare(&OsRandom);
        let (text, ids) = (keys.text(), keys.ids());
        let line = text.replace('\n', " ");
        for written in [&*text, &line, &format!("\n {line}\n"), &text.replace('\n', "\r\n")] {
            assert_eq!(Keys::parse(written).unwrap().ids(), ids, "{written:?}");
        }
        for wrong in [
            &*text.replace("derive:", "derive: "),
            &text.replace("derive:", "root:"),
            &text.replace(':', "="),
            &format!("{line}{line}"),
            &line.replace(&ids[0].to_string(), &ids[1].to_string()),
            &line[..line.len() - 2],
            &"0".repeat(63),
            &format!("0x{}", "0".repeat(62)),
            "",
        ] {
            assert!(Keys::parse(wrong).is_none(), "{wrong:?}");
        }
        assert!(!format!("{:?}", KeySource::Given(keys)).contains("000"));
    }

    #[test]
    fn only_a_file_of_ours_is_made_or_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sealing");
        let credential = KeySource::Credential(path.clone());
        assert!(matches!(Sealer::with_keys_of(&credential, &OsRandom), Err(KeyError::Read { .. })));
        assert!(!path.exists(), "a key that is missing is not made up");

        fs::write(&path, "1".repeat(64)).unwrap();
        for (mode, read) in [(0o400, true), (0o440, true), (0o444, false), (0o460, false), (0o600, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Sealer::with_keys_of(&credential, &OsRandom).is_ok(), read, "{mode:o}");
        }
        let keys = credential.keys().unwrap();
        for source in [&credential, &KeySource::Given(keys.clone())] {
            assert!(matches!(source.write(&keys), Err(KeyError::ReadOnly(_))), "{source}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "1".repeat(64));
        let of_systemd = KeySource::file("/run/credentials/portcullis.service/sealing".into());
        assert!(matches!(of_systemd, KeySource::Credential(_)));
    }
}
