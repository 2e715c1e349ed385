//! The trusted authorities and their revocation lists: two files, read again when they change.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::x509::{CertificateFacts, ListFacts};
use crate::{
    clock::Timestamp,
    permission::{Need, explained},
};

/// The paths of the files.
#[derive(Clone, Debug)]
pub struct Files {
    /// PEM: certificates of authorities.
    pub authorities: PathBuf,
    /// PEM: their revocation lists; absent: nothing is ever revoked.
    pub revoked: Option<PathBuf>,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("cannot read {} from {}", what, path.display())]
    Read {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} holds no readable {what} in PEM form", path.display())]
    Malformed { what: &'static str, path: PathBuf },
    #[error("{} holds a certificate that cannot be an authority's", path.display())]
    NoAuthority {
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("{} holds a revocation list that cannot be used", path.display())]
    NoList {
        path: PathBuf,
        #[source]
        source: rustls::server::VerifierBuilderError,
    },
    #[error("{} holds a revocation list that its authority has not signed", path.display())]
    Forged { path: PathBuf },
}

/// Both files, parsed.
#[derive(Debug)]
pub(super) struct Trust {
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    /// The issuer of each list, and when it expires.
    lists: Vec<(Vec<u8>, Timestamp)>,
    /// The number of authorities without a list, if there are lists at all.
    pub(super) unlisted: usize,
    /// Grows with each change.
    pub(super) generation: u64,
}

impl Trust {
    pub(super) fn read(files: &Files, generation: u64) -> Result<Self, TrustError> {
        const LIST: &str = "revocation list";
        let mut roots = RootCertStore::empty();
        for authority in read::<CertificateDer<'static>>(&files.authorities, CERTIFICATE)? {
            let path = || files.authorities.clone();
            roots.add(authority).map_err(|source| TrustError::NoAuthority { path: path(), source })?;
        }
        let lists = match &files.revoked {
            Some(path) => read::<CertificateRevocationListDer<'static>>(path, LIST)?,
            None => Vec::new(),
        };
        let path = || files.revoked.clone().unwrap_or_default();
        let facts: Option<Vec<_>> = lists.iter().map(|list| ListFacts::of(list)).collect();
        let facts = facts.ok_or_else(|| TrustError::Malformed { what: LIST, path: path() })?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let known = provider.signature_verification_algorithms.all;
        // Lists of intermediates, which are not in the file, are checked when a certificate of theirs is.
        for list in &facts {
            let mut theirs = roots.roots.iter().filter(|root| *root.subject == *list.issuer).peekable();
            if theirs.peek().is_some()
                && !theirs.any(|root| list.is_signed_by(&root.subject_public_key_info, known))
            {
                return Err(TrustError::Forged { path: path() });
            }
        }
        let is_unlisted = |root: &&TrustAnchor<'_>| facts.iter().all(|list| *root.subject != *list.issuer);
        let unlisted = roots.roots.iter().filter(|_| files.revoked.is_some()).filter(is_unlisted).count();
        let facts = facts.iter().map(|list| (list.issuer.to_owned(), list.ends)).collect();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .with_crls(lists)
            // An attacker who can withhold the next list would keep a revoked certificate alive.
            .enforce_revocation_expiration()
            .build()
            .map_err(|source| TrustError::NoList { path: path(), source })?;
        Ok(Self { verifier, lists: facts, unlisted, generation })
    }

    /// Their names, as sent to clients.
    pub(super) fn authorities(&self) -> Vec<&[u8]> {
        self.verifier.root_hint_subjects().iter().map(AsRef::as_ref).collect()
    }

    /// When a certificate has to be checked again: at its expiry, or at that of a revocation list on its chain.
    pub(super) fn ends(&self, facts: &CertificateFacts<'_>) -> Timestamp {
        let lists = self.lists.iter().filter(|(whose, _)| whose == facts.issuer).map(|(_, end)| *end);
        lists.fold(facts.not_after, Timestamp::min)
    }

    /// When lists expired that have.
    pub(super) fn over(&self, now: Timestamp) -> impl Iterator<Item = Timestamp> {
        self.lists.iter().map(|(_, end)| *end).filter(move |end| *end <= now)
    }
}

pub(super) const CERTIFICATE: &str = "certificate";

/// All PEM items of one kind in a file; at least one.
pub(super) fn read<T: PemObject>(path: &Path, what: &'static str) -> Result<Vec<T>, TrustError> {
    let bytes = std::fs::read(path).map_err(|source| {
        let source = explained(path, Need::Read, source);
        TrustError::Read { what, path: path.into(), source }
    })?;
    let found = T::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    let found = found.ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| TrustError::Malformed { what, path: path.into() })
}

/// What changes when a file does.
pub(super) type Seen = [Option<(SystemTime, u64)>; 2];

pub(super) fn seen(files: &Files) -> Seen {
    let of = |path: &Path| {
        let facts = std::fs::metadata(path).ok()?;
        Some((facts.modified().ok()?, facts.len()))
    };
    [of(&files.authorities), files.revoked.as_deref().and_then(of)]
}
