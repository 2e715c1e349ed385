//! Secrets at rest: one key in a file of mode 0600, and records that open only in the place they were sealed for.
//!
//! AES-256-GCM-SIV with a random nonce; the place (table, row, column) is authenticated, so that a record moved to
//! another user's row does not open.

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    hmac,
};
use zeroize::Zeroizing;

use crate::{random::Random, secret::hex};

/// The first byte of every sealed record: the layout and key generation it was written with.
const VERSION: u8 = 1;

/// Why there is no sealing key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read the key file {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot make the key file {}", path.display())]
    Create {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the key file {} can be read by others: run `chmod 600 {}`", path.display(), path.display())]
    Permissions { path: PathBuf },
    #[error("the key file {} does not hold 64 hexadecimal digits", path.display())]
    Malformed { path: PathBuf },
}

/// A sealed record that does not open: another key, another place, or damage.
#[derive(Debug, thiserror::Error)]
#[error("a sealed record does not open with this key in this place")]
pub struct Unsealable;

/// Seals and opens records, and derives the keys of other uses.
pub struct Sealer {
    aead: RandomizedNonceKey,
    derive: hmac::Key,
}

impl Sealer {
    /// Reads the key, making the file with a fresh one when there is none.
    pub fn from_file(path: &Path, random: &dyn Random) -> Result<Self, KeyError> {
        match fs::read_to_string(path) {
            Ok(text) => {
                let text = Zeroizing::new(text);
                let mode = fs::metadata(path)
                    .map_err(|source| KeyError::Read { path: path.into(), source })?
                    .permissions()
                    .mode();
                if mode & 0o077 != 0 {
                    return Err(KeyError::Permissions { path: path.into() });
                }
                let key = parse_key(text.trim()).ok_or_else(|| KeyError::Malformed { path: path.into() })?;
                Ok(Self::from_key(&key))
            }
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                let key = Zeroizing::new(random.bytes::<32>());
                match create(path, &key) {
                    Ok(()) => Ok(Self::from_key(&key)),
                    // Another process made it between our look and our try: theirs is the key.
                    Err(raced) if raced.kind() == io::ErrorKind::AlreadyExists => {
                        Self::from_file(path, random)
                    }
                    Err(source) => Err(KeyError::Create { path: path.into(), source }),
                }
            }
            Err(source) => Err(KeyError::Read { path: path.into(), source }),
        }
    }

    /// Uses a key that lives nowhere else.
    pub fn from_key(key: &[u8; 32]) -> Self {
        let derive = hmac::Key::new(hmac::HMAC_SHA256, key);
        let aead_key = Zeroizing::new(derive_from(&derive, "seal"));
        // A 32-byte key is the only thing this constructor asks for.
        #[expect(clippy::unwrap_used, reason = "the key length is right by its type")]
        let aead = RandomizedNonceKey::new(&AES_256_GCM_SIV, aead_key.as_slice()).unwrap();
        Self { aead, derive }
    }

    /// A key for another use, fixed by `label`.
    pub fn derive(&self, label: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(derive_from(&self.derive, label))
    }

    /// Seals `plain` for `place`, a path such as `["devices", user, device, "secret"]`.
    pub fn seal(&self, place: &[&str], plain: &[u8]) -> Vec<u8> {
        let mut sealed = plain.to_vec();
        // Fails only for inputs beyond 2^36 bytes.
        #[expect(clippy::unwrap_used, reason = "no record of ours is near the length limit of the cipher")]
        let nonce = self.aead.seal_in_place_append_tag(Aad::from(aad(place)), &mut sealed).unwrap();
        let mut record = Vec::with_capacity(1 + NONCE_LEN + sealed.len());
        record.push(VERSION);
        record.extend_from_slice(nonce.as_ref());
        record.append(&mut sealed);
        record
    }

    /// Opens what [`Self::seal`] made for the same place.
    pub fn open(&self, place: &[&str], record: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
        let (&version, rest) = record.split_first().ok_or(Unsealable)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().ok_or(Unsealable)?;
        if version != VERSION {
            return Err(Unsealable);
        }
        let mut plain = Zeroizing::new(sealed.to_vec());
        let length = self
            .aead
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad(place)), &mut plain)
            .map_err(|_| Unsealable)?
            .len();
        plain.truncate(length);
        Ok(plain)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(…)")
    }
}

/// Each part with its length before it, so that no two places read the same.
fn aad(place: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in place {
        bytes.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

fn derive_from(key: &hmac::Key, label: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(hmac::sign(key, format!("portcullis key for {label}").as_bytes()).as_ref());
    out
}

fn parse_key(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0; 32]);
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(key)
}

/// Writes the whole key to a neighbour and links it into place: a crash leaves no half key behind.
fn create(path: &Path, key: &[u8; 32]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let draft = path.with_extension(format!("draft-{}", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    let text = Zeroizing::new(hex(key));
    writeln!(file, "{}", text.as_str())?;
    file.sync_all()?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    linked
}

#[cfg(test)]
mod tests {
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
        let record = Sealer::from_file(&path, &OsRandom).unwrap().seal(&["x"], b"y");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            Sealer::from_file(&path, &OsRandom).unwrap().open(&["x"], &record).unwrap().as_slice(),
            b"y"
        );

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Sealer::from_file(&path, &OsRandom), Err(KeyError::Permissions { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "not a key").unwrap();
        assert!(matches!(Sealer::from_file(&path, &OsRandom), Err(KeyError::Malformed { .. })));
    }
}
