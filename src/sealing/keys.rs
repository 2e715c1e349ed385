//! The sealing keys in text form: `id:key` in hexadecimal digits, the first of which seals; and `derive:key`, from
//! which other keys are derived for ever. A single key may be just its 64 digits.
//!
//! Does not know where they are stored, or what they have sealed.

use std::fmt;

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::{
    random::Random,
    secret::{hex, unhex},
};

pub type SecretKey = Zeroizing<[u8; 32]>;

/// The name of a key, computed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub(super) [u8; 4]);

impl KeyId {
    pub fn parse(text: &str) -> Option<Self> {
        Some(Self(u32::from_str_radix(text, 16).ok().filter(|_| text.len() == 8)?.to_be_bytes()))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// The keys that open records, the first of which seals, and the key that others are derived from.
#[derive(Clone)]
pub struct Keys {
    keys: Vec<SecretKey>,
    root: SecretKey,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl Keys {
    /// A single key, as in every new installation.
    pub(super) fn one(key: SecretKey) -> Self {
        Self { keys: vec![key.clone()], root: key }
    }

    /// Parses the output of [`Self::text`]. Spaces separate as well as lines do: not every place can have several
    /// lines.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(key) = parse_key(text.trim()) {
            return Some(Self::one(key));
        }
        let (mut keys, mut root) = (Vec::new(), None);
        for line in text.split_whitespace() {
            let (name, digits) = line.split_once(':')?;
            let key = parse_key(digits)?;
            if name == "derive" {
                if root.replace(key).is_some() {
                    return None;
                }
            } else if KeyId::parse(name)? == id(&key) && !keys.contains(&key) {
                keys.push(key);
            } else {
                // Truncated, mixed up, or repeated.
                return None;
            }
        }
        let (false, Some(root)) = (keys.is_empty(), root) else { return None };
        Some(Self { keys, root })
    }

    pub(super) fn keys(&self) -> &[SecretKey] {
        &self.keys
    }

    pub(super) fn root(&self) -> &SecretKey {
        &self.root
    }

    /// The names of the keys; the first one seals.
    pub fn ids(&self) -> Vec<KeyId> {
        self.keys.iter().map(|key| id(key)).collect()
    }

    /// Adds a key that opens records, but does not seal yet.
    pub fn prepare(&mut self, random: &dyn Random) -> KeyId {
        let key = Zeroizing::new(random.bytes::<32>());
        let added = id(&key);
        self.keys.push(key);
        added
    }

    /// Makes the latest added key the sealing one. `None` if there is no other key.
    pub fn activate(&mut self) -> Option<KeyId> {
        if self.keys.len() < 2 {
            return None;
        }
        let key = self.keys.pop()?;
        let activated = id(&key);
        self.keys.insert(0, key);
        Some(activated)
    }

    /// Removes a key, unless it seals or does not exist.
    pub fn remove(&mut self, unwanted: KeyId) -> bool {
        let Some(at) = self.ids().iter().position(|id| *id == unwanted).filter(|&at| at > 0) else {
            return false;
        };
        self.keys.remove(at);
        true
    }

    /// The line of one key, as in [`Self::text`].
    pub fn line(&self, wanted: KeyId) -> Option<Zeroizing<String>> {
        let key = self.keys.iter().find(|key| id(key) == wanted)?;
        Some(format_line(&wanted.to_string(), key))
    }

    /// The form that [`Self::parse`] reads.
    pub fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::new());
        for key in &self.keys {
            text.push_str(&format_line(&id(key).to_string(), key));
        }
        text.push_str(&format_line("derive", &self.root));
        text
    }
}

/// The name of a key.
pub(super) fn id(key: &[u8; 32]) -> KeyId {
    let derived = derive_from(&hmac::Key::new(hmac::HMAC_SHA256, key), "its id");
    KeyId([derived[0], derived[1], derived[2], derived[3]])
}

pub(super) fn derive_from(key: &hmac::Key, label: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(hmac::sign(key, format!("portcullis key for {label}").as_bytes()).as_ref());
    out
}

fn parse_key(text: &str) -> Option<SecretKey> {
    let mut key = Zeroizing::new([0; 32]);
    unhex(text, key.as_mut_slice())?;
    Some(key)
}

fn format_line(name: &str, key: &SecretKey) -> Zeroizing<String> {
    let digits = Zeroizing::new(hex(key.as_slice()));
    Zeroizing::new(format!("{name}:{}\n", digits.as_str()))
}
