//! The file with the sealing keys: one `id:key` a line in hexadecimal digits, of which the first seals; and `derive:key`,
//! which what is derived comes from for ever. A file with one key alone may be just its 64 digits.
//!
//! Does not know what has been sealed with them.

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::{
    random::Random,
    secret::{hex, unhex},
};

/// Where systemd keeps the credentials of services. It makes them readable by a group that has nobody else in it.
const CREDENTIALS: &str = "/run/credentials";

pub type SecretKey = Zeroizing<[u8; 32]>;

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
    #[error("the key file {} does not hold 64 hexadecimal digits, or lines of `id:digits`", path.display())]
    Malformed { path: PathBuf },
    #[error("the key file {} is of another installation", path.display())]
    OtherRoot { path: PathBuf },
}

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

/// What is in the file.
pub struct KeyFile {
    keys: Vec<SecretKey>,
    root: SecretKey,
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyFile(…)")
    }
}

impl KeyFile {
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Read { path: path.into(), source };
        let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
        let others = if path.starts_with(CREDENTIALS) { 0o037 } else { 0o077 };
        if mode & others != 0 {
            return Err(KeyError::Permissions { path: path.into() });
        }
        Self::parse(&text).ok_or_else(|| KeyError::Malformed { path: path.into() })
    }

    /// The same, making the file with a fresh key when there is none.
    pub(super) fn read_or_create(path: &Path, random: &dyn Random) -> Result<Self, KeyError> {
        match Self::read(path) {
            Err(KeyError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let key = Zeroizing::new(random.bytes::<32>());
                match create(path, &key) {
                    Ok(()) => Ok(Self { keys: vec![key.clone()], root: key }),
                    // Another process made it between our look and our try: theirs is the key.
                    Err(raced) if raced.kind() == io::ErrorKind::AlreadyExists => Self::read(path),
                    Err(source) => Err(KeyError::Create { path: path.into(), source }),
                }
            }
            read => read,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if let Some(key) = parse_key(text.trim()) {
            return Some(Self { keys: vec![key.clone()], root: key });
        }
        let (mut keys, mut root) = (Vec::new(), None);
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, digits) = line.split_once(':')?;
            let key = parse_key(digits)?;
            if name == "derive" {
                if root.replace(key).is_some() {
                    return None;
                }
            } else if KeyId::parse(name)? == id(&key) && !keys.contains(&key) {
                keys.push(key);
            } else {
                // Cut, mixed up, or there twice.
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

    /// The keys by name; the first one seals.
    pub fn ids(&self) -> Vec<KeyId> {
        self.keys.iter().map(|key| id(key)).collect()
    }

    /// Adds a key that opens, and does not seal yet.
    pub fn prepare(&mut self, random: &dyn Random) -> KeyId {
        let key = Zeroizing::new(random.bytes::<32>());
        let added = id(&key);
        self.keys.push(key);
        added
    }

    /// Lets the key that was added last seal. None when there is no other than the one that does.
    pub fn activate(&mut self) -> Option<KeyId> {
        if self.keys.len() < 2 {
            return None;
        }
        let key = self.keys.pop()?;
        let activated = id(&key);
        self.keys.insert(0, key);
        Some(activated)
    }

    /// Takes a key away, unless it is the one that seals or not there.
    pub fn remove(&mut self, unwanted: KeyId) -> bool {
        let Some(at) = self.ids().iter().position(|id| *id == unwanted).filter(|&at| at > 0) else {
            return false;
        };
        self.keys.remove(at);
        true
    }

    /// Replaces the file: whoever reads it finds the old keys or the new ones.
    pub fn write(&self, path: &Path) -> Result<(), KeyError> {
        let failed = |source| KeyError::Create { path: path.into(), source };
        let mut text = Zeroizing::new(String::new());
        for key in &self.keys {
            text.push_str(&format_line(&id(key).to_string(), key));
        }
        text.push_str(&format_line("derive", &self.root));
        let draft = draft(path, &text).map_err(failed)?;
        // The gateway's own user goes on reading it, whoever runs the command.
        let owner = fs::metadata(path).map_err(failed)?;
        let given = std::os::unix::fs::chown(
            &draft,
            Some(std::os::unix::fs::MetadataExt::uid(&owner)),
            Some(std::os::unix::fs::MetadataExt::gid(&owner)),
        );
        given.and_then(|()| fs::rename(&draft, path)).map_err(failed)?;
        let folder =
            path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
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

/// Writes the whole key to a neighbour and links it into place: a crash leaves no half key behind.
fn create(path: &Path, key: &[u8; 32]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let digits = Zeroizing::new(hex(key));
    let draft = draft(path, &format!("{}\n", digits.as_str()))?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    linked
}

/// The neighbour, complete and for nobody else to read.
fn draft(path: &Path, text: &str) -> io::Result<PathBuf> {
    let draft = path.with_extension(format!("draft-{}", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(draft)
}
