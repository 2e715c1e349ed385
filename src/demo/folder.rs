//! A private temporary folder, removed when it is dropped.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use crate::{random::Random, secret::hex};

/// A temporary folder of mode 0700.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn create(random: &dyn Random) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("portcullis-demo-{}", hex(&random.bytes::<8>())));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // If it cannot be removed, the system clears the parent folder.
        let _ = fs::remove_dir_all(&self.0);
    }
}
