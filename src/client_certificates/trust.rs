//! The trusted authorities and their revocation lists: two files, read again when they change.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    CertificateError, DistinguishedName, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime, pem::PemObject},
    server::{VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier},
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
        source: VerifierBuilderError,
    },
    #[error("{} holds a revocation list that its authority has not signed", path.display())]
    Forged { path: PathBuf },
}

/// Both files, parsed.
#[derive(Debug)]
pub(super) struct Trust {
    authorities: Vec<Authorities>,
    /// The number of authorities without a list, if there are lists at all.
    pub(super) unlisted: usize,
    /// Grows with each change.
    pub(super) generation: u64,
}

/// Authorities of which no two have the same name, and their revocation lists. An authority that has changed its key has the name
/// of the one before, and the library tells lists apart by names alone.
#[derive(Debug)]
pub(super) struct Authorities {
    verifier: Arc<dyn ClientCertVerifier>,
    /// The issuer of each list in force, and when it expires.
    lists: Vec<(Vec<u8>, Timestamp)>,
    /// The number of those without one.
    unlisted: usize,
}

impl Trust {
    pub(super) fn read(files: &Files, generation: u64) -> Result<Self, TrustError> {
        const LIST: &str = "revocation list";
        let groups = grouped(read(&files.authorities, CERTIFICATE)?)
            .map_err(|source| TrustError::NoAuthority { path: files.authorities.clone(), source })?;
        let lists = match &files.revoked {
            Some(path) => read::<CertificateRevocationListDer<'static>>(path, LIST)?,
            None => Vec::new(),
        };
        let path = || files.revoked.clone().unwrap_or_default();
        let facts: Option<Vec<_>> = lists.iter().map(|list| Some((ListFacts::of(list)?, list))).collect();
        let facts = facts.ok_or_else(|| TrustError::Malformed { what: LIST, path: path() })?;
        // Lists of intermediates, which are not in the file, are checked when a certificate of theirs is.
        for (list, _) in &facts {
            let mut named = groups.iter().flat_map(|group| &group.roots).filter(|root| has_name(root, list));
            if named.clone().next().is_some() && !named.any(|root| has_signed(root, list)) {
                return Err(TrustError::Forged { path: path() });
            }
        }
        let authorities = groups.into_iter().map(|group| Authorities::new(group, &facts));
        let authorities = authorities
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| TrustError::NoList { path: path(), source })?;
        let unlisted = authorities.iter().map(|some| some.unlisted).sum();
        let unlisted = if files.revoked.is_some() { unlisted } else { 0 };
        Ok(Self { authorities, unlisted, generation })
    }

    /// Those by which a certificate counts, with what it came with.
    pub(super) fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        beside: &[CertificateDer<'_>],
        at: UnixTime,
    ) -> Result<&Authorities, rustls::Error> {
        let mut error = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        for authorities in &self.authorities {
            match authorities.verifier.verify_client_cert(certificate, beside, at) {
                Ok(_) => return Ok(authorities),
                // One that has only the name of its authority has nothing to say.
                Err(other) if is_by_others(&error) => error = other,
                Err(_) => {}
            }
        }
        Err(error)
    }

    /// Their names, as sent to clients: each once.
    pub(super) fn names(&self) -> Vec<&DistinguishedName> {
        let mut names: Vec<&DistinguishedName> = Vec::new();
        for name in self.authorities.iter().flat_map(|some| some.verifier.root_hint_subjects()) {
            if names.iter().all(|other| other.as_ref() != name.as_ref()) {
                names.push(name);
            }
        }
        names
    }

    pub(super) fn has_other_names(&self, before: &Self) -> bool {
        !self.names().iter().map(AsRef::as_ref).eq(before.names().iter().map(AsRef::as_ref))
    }

    /// When lists expired that have.
    pub(super) fn over(&self, now: Timestamp) -> impl Iterator<Item = Timestamp> {
        let lists = self.authorities.iter().flat_map(|some| &some.lists);
        lists.map(|(_, end)| *end).filter(move |end| *end <= now)
    }
}

impl Authorities {
    /// The library takes the first list that has the name: theirs come first, the last that was made before the others. None is
    /// left out, since without any list it takes every certificate for one that is not revoked.
    fn new(
        group: RootCertStore,
        lists: &[(ListFacts<'_>, &CertificateRevocationListDer<'static>)],
    ) -> Result<Self, VerifierBuilderError> {
        let is_theirs = |list: &ListFacts<'_>| {
            group.roots.iter().filter(|root| has_name(root, list)).all(|root| has_signed(root, list))
        };
        let mut ordered: Vec<_> =
            lists.iter().map(|(facts, list)| (is_theirs(facts), facts, *list)).collect();
        ordered.sort_by(|(theirs, list, _), (others, other, _)| {
            others.cmp(theirs).then_with(|| other.made.cmp(&list.made))
        });
        let theirs = || ordered.iter().filter(|(theirs, ..)| *theirs).map(|(_, list, _)| *list);
        let in_force = || theirs().filter(|list| !theirs().any(|other| other.replaces(list)));
        let unlisted = group.roots.iter().filter(|root| !in_force().any(|list| has_name(root, list))).count();
        let in_force = in_force().map(|list| (list.issuer.to_owned(), list.ends)).collect();
        let lists = ordered.iter().map(|(_, _, list)| (*list).clone());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(group), provider)
            .with_crls(lists)
            // An attacker who can withhold the next list would keep a revoked certificate alive.
            .enforce_revocation_expiration()
            .build()?;
        Ok(Self { verifier, lists: in_force, unlisted })
    }

    /// When a certificate has to be checked again: at its expiry, or at that of a revocation list on its chain.
    pub(super) fn ends(&self, facts: &CertificateFacts<'_>) -> Timestamp {
        let lists = self.lists.iter().filter(|(whose, _)| whose == facts.issuer).map(|(_, end)| *end);
        lists.fold(facts.not_after, Timestamp::min)
    }
}

/// The authorities, in groups in which no two have one name: one group, unless some do.
fn grouped(authorities: Vec<CertificateDer<'static>>) -> Result<Vec<RootCertStore>, rustls::Error> {
    let mut groups: Vec<RootCertStore> = Vec::new();
    for authority in authorities {
        let mut alone = RootCertStore::empty();
        alone.add(authority)?;
        let is_free = |group: &&mut RootCertStore| {
            let names = || group.roots.iter().map(|root| &root.subject);
            alone.roots.iter().all(|root| names().all(|name| *name != root.subject))
        };
        match groups.iter_mut().find(is_free) {
            Some(group) => group.extend(alone.roots),
            None => groups.push(alone),
        }
    }
    Ok(groups)
}

fn has_name(root: &TrustAnchor<'_>, list: &ListFacts<'_>) -> bool {
    *root.subject == *list.issuer
}

fn has_signed(root: &TrustAnchor<'_>, list: &ListFacts<'_>) -> bool {
    let known = aws_lc_rs::default_provider().signature_verification_algorithms.all;
    list.is_signed_by(&root.subject_public_key_info, known)
}

/// Whether it is said of a certificate that no authority here has signed.
fn is_by_others(error: &rustls::Error) -> bool {
    use CertificateError::{BadSignature, UnknownIssuer};
    matches!(error, rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature))
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
