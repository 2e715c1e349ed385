//! The source of the sealing keys: a file, a systemd credential, or the configuration itself.
//!
//! Only a file of our own is made and changed; the others are only read.

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::keys::{Keys, SecretKey};
use crate::{
    permission::{Need, explained},
    random::Random,
    secret::hex,
};

/// The folder of systemd's credentials.
const CREDENTIALS: &str = "/run/credentials";

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
    #[error("the key file {} must contain 64 hexadecimal digits, or lines of `id:digits`", path.display())]
    Malformed { path: PathBuf },
    #[error("the key file {} belongs to another installation", path.display())]
    OtherRoot { path: PathBuf },
    #[error("this command cannot write {0}")]
    ReadOnly(String),
}

/// The source of the keys.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// A file of our own, made with a new key if it does not exist.
    File(PathBuf),
    /// A file that systemd provides for one service. It is readable by a group without other members.
    Credential(PathBuf),
    /// The keys themselves, from the environment or a configuration file.
    Given(Keys),
}

impl KeySource {
    /// The file at this path, which may be a systemd credential.
    pub fn file(path: PathBuf) -> Self {
        if path.starts_with(CREDENTIALS) { Self::Credential(path) } else { Self::File(path) }
    }

    /// The keys. `None` if a file is to be made on first use.
    pub fn read(&self) -> Result<Option<Keys>, KeyError> {
        match (self, self.keys()) {
            (Self::File(_), Err(KeyError::Read { source, .. }))
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            (_, keys) => keys.map(Some),
        }
    }

    pub(super) fn keys(&self) -> Result<Keys, KeyError> {
        match self {
            Self::File(path) => read(path, 0o077),
            Self::Credential(path) => read(path, 0o037),
            Self::Given(keys) => Ok(keys.clone()),
        }
    }

    /// The keys. Makes a file with a new key if there is none.
    pub(super) fn keys_or_new(&self, random: &dyn Random) -> Result<Keys, KeyError> {
        let (Self::File(path), None) = (self, self.read()?) else { return self.keys() };
        let key = Zeroizing::new(random.bytes::<32>());
        match create(path, &key) {
            Ok(()) => Ok(Keys::one(key)),
            // Another process made it between the look and the attempt: its key is used.
            Err(raced) if raced.kind() == io::ErrorKind::AlreadyExists => self.keys(),
            Err(source) => Err(not_made(path, source)),
        }
    }

    /// Replaces the file atomically: a reader gets the old keys or the new ones.
    pub fn write(&self, keys: &Keys) -> Result<(), KeyError> {
        let Self::File(path) = self else { return Err(KeyError::ReadOnly(self.to_string())) };
        replace(path, &keys.text()).map_err(|source| not_made(path, source))
    }

    /// The file that may change while a gateway runs.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) | Self::Credential(path) => Some(path),
            Self::Given(_) => None,
        }
    }
}

/// For the middle of a sentence.
impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the key file {}", path.display()),
            Self::Credential(path) => write!(f, "the credential {}", path.display()),
            Self::Given(_) => f.write_str("the key in `storage.key`"),
        }
    }
}

/// Reads a file that has none of these permissions, so that nobody else can read it.
fn read(path: &Path, forbidden: u32) -> Result<Keys, KeyError> {
    let failed = |source| KeyError::Read { path: path.into(), source: explained(path, Need::Write, source) };
    let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
    if fs::metadata(path).map_err(failed)?.permissions().mode() & forbidden != 0 {
        return Err(KeyError::Permissions { path: path.into() });
    }
    Keys::parse(&text).ok_or_else(|| KeyError::Malformed { path: path.into() })
}

fn not_made(path: &Path, source: io::Error) -> KeyError {
    KeyError::Create { path: path.into(), source: explained(path, Need::Write, source) }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let draft = draft(path, text)?;
    // The gateway's user can still read it, whoever runs the command.
    let owner = fs::metadata(path)?;
    std::os::unix::fs::chown(&draft, Some(owner.uid()), Some(owner.gid()))?;
    fs::rename(&draft, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// Writes the whole key to a temporary file and links it into place: a crash leaves no partial key.
fn create(path: &Path, key: &SecretKey) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let digits = Zeroizing::new(hex(key.as_slice()));
    let draft = draft(path, &format!("{}\n", digits.as_str()))?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    linked
}

/// The complete temporary file, readable by nobody else.
fn draft(path: &Path, text: &str) -> io::Result<PathBuf> {
    let draft = path.with_extension(format!("draft-{}", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(draft)
}
