//! Client certificates: whether they count, and whom they stand for.
//!
//! The handshake only proves that the client has the key. Everything else is checked here, for each request: a certificate that
//! has expired or been revoked since the handshake, or since the one that a ticket resumes, no longer counts.

mod shows;
#[cfg(test)]
mod tests;
mod trust;
mod x509;

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    CertificateError, DistinguishedName,
    pki_types::{CertificateDer, UnixTime},
};
use tokio::sync::Notify;

pub use self::{
    shows::{AltName, ID, ShownCertificate, Shows},
    trust::{Files, TrustError},
};
use self::{
    trust::{CERTIFICATE, Seen, Trust, read, seen},
    x509::CertificateFacts,
};
use crate::{clock::Timestamp, errors::Chain, users::CanonicalName};

/// Which certificates count, and for whom.
#[derive(Clone, Debug)]
pub struct Config {
    pub files: Files,
    /// The first entry that matches a certificate applies.
    pub clients: Vec<Mapping>,
}

/// Whom a certificate stands for.
#[derive(Clone, Debug)]
pub struct Mapping {
    pub shows: Shows,
    pub role: Role,
    /// Hosts, with the port unless it is 443; empty: all.
    pub sites: Vec<String>,
}

/// What it counts as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// A machine: the service of this name.
    Service(String),
    /// A machine that acts for a user.
    Machine(CanonicalName),
    /// The user's first factor, in place of a password.
    FirstFactor(CanonicalName),
}

/// Proof that a certificate counts now, for one of the clients.
#[derive(Clone, Debug)]
pub struct VerifiedCertificate {
    client: Arc<Mapping>,
    /// The index of the client.
    pub index: usize,
    /// When it has to be checked again.
    pub ends: Timestamp,
    pub generation: u64,
}

impl VerifiedCertificate {
    pub fn client(&self) -> &Mapping {
        &self.client
    }

    /// The user whose first factor it is at a site.
    pub fn first_factor_at(&self, authority: &str) -> Option<&CanonicalName> {
        match &self.client.role {
            Role::FirstFactor(name) if self.client.is_at(authority) => Some(name),
            _ => None,
        }
    }
}

impl Mapping {
    fn is_at(&self, authority: &str) -> bool {
        self.sites.is_empty() || self.sites.iter().any(|site| site.eq_ignore_ascii_case(authority))
    }
}

/// Why a certificate does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Uncounted {
    #[error("{0}")]
    Invalid(&'static str),
    #[error("it is nobody's in tls.clients")]
    Stranger,
}

/// The trusted authorities and the clients that certificates stand for.
#[derive(Debug)]
pub struct ClientCertificates {
    files: Files,
    clients: Vec<Arc<Mapping>>,
    trust: ArcSwap<Trust>,
    watched: Mutex<Watched>,
    /// When a refusal was last logged, in milliseconds.
    told_at: AtomicI64,
    changed: Notify,
}

#[derive(Debug)]
struct Watched {
    seen: Seen,
    /// The problems that were last logged.
    told: Vec<String>,
}

impl ClientCertificates {
    pub fn new(config: &Config) -> Result<Self, TrustError> {
        let watched = Mutex::new(Watched { seen: seen(&config.files), told: Vec::new() });
        let trust = ArcSwap::from_pointee(Trust::read(&config.files, 0)?);
        let clients = config.clients.iter().cloned().map(Arc::new).collect();
        let files = config.files.clone();
        let (told_at, changed) = (AtomicI64::new(0), Notify::new());
        Ok(Self { files, clients, trust, watched, told_at, changed })
    }

    /// Whether clients of a host are asked for a certificate. A client that names no host is asked.
    pub fn asks(&self, host: Option<&str>) -> bool {
        let Some(host) = host else { return true };
        let is_here = |site: &String| host_of(site).eq_ignore_ascii_case(host_of(host));
        self.clients.iter().any(|client| client.sites.is_empty() || client.sites.iter().any(is_here))
    }

    /// The names of the authorities, sent to clients so that they offer the right certificate.
    pub fn authorities(&self) -> Vec<DistinguishedName> {
        self.trust.load().names().into_iter().cloned().collect()
    }

    /// Grows when authorities or revocation lists change, which may change earlier decisions.
    pub fn generation(&self) -> u64 {
        self.trust.load().generation
    }

    /// Waits until they change. For a single waiter.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether a certificate is already known not to count, so that it need not be verified again.
    pub fn is_strange(&self, shown: &ShownCertificate) -> bool {
        shown.is_strange(self.generation())
    }

    /// The client that a certificate stands for, if it counts now.
    pub fn judge(&self, shown: &ShownCertificate, now: Timestamp) -> Result<VerifiedCertificate, Uncounted> {
        let trust = self.trust.load();
        if shown.is_strange(trust.generation) {
            return Err(Uncounted::Stranger);
        }
        let judged = self.judge_by(&trust, shown, now);
        if let Err(refused) = &judged {
            if matches!(refused, Uncounted::Stranger | Uncounted::Invalid(UNKNOWN_ISSUER)) {
                shown.be_strange(trust.generation);
            }
            self.tell(refused, shown, now);
        }
        judged
    }

    /// Logs why a certificate does not count: once for each connection, and once a second over all.
    fn tell(&self, refused: &Uncounted, shown: &ShownCertificate, now: Timestamp) {
        let (now, told) = (now.unix_millis(), self.told_at.load(Relaxed));
        let is_due = now.saturating_sub(told).unsigned_abs() >= 1000;
        if is_due && shown.tells() && self.told_at.compare_exchange(told, now, Relaxed, Relaxed).is_ok() {
            let certificate = Shows::Fingerprint(shown.fingerprint());
            tracing::info!(%certificate, reason = %refused, "the certificate of a client does not count");
        }
    }

    fn judge_by(
        &self,
        trust: &Trust,
        shown: &ShownCertificate,
        now: Timestamp,
    ) -> Result<VerifiedCertificate, Uncounted> {
        let (first, rest) = shown.chain.split_first().ok_or(Uncounted::Stranger)?;
        let seconds =
            u64::try_from(now.unix_seconds()).map_err(|_| Uncounted::Invalid("the time is not known"))?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let authorities =
            trust.verify(first, rest, at).map_err(|error| Uncounted::Invalid(reason(&error)))?;
        let facts: Option<Vec<_>> =
            shown.chain.iter().map(|certificate| CertificateFacts::of(certificate)).collect();
        let facts = facts.ok_or(Uncounted::Invalid("it cannot be read"))?;
        let (own, beside) = facts.split_first().ok_or(Uncounted::Stranger)?;
        let mut ends = authorities.ends(own);
        for above in beside.iter().filter(|one| facts.iter().any(|other| other.issuer == one.subject)) {
            if !above.may_sign {
                return Err(Uncounted::Invalid("one that was sent with it may not sign certificates"));
            }
            ends = ends.min(authorities.ends(above));
        }
        if ends <= now {
            return Err(Uncounted::Invalid("one that was sent with it, or its revocation list, has expired"));
        }
        let fits = |client: &Mapping| match &client.shows {
            Shows::Name(name) => own.names.contains(name),
            Shows::Fingerprint(fingerprint) => *fingerprint == shown.fingerprint(),
        };
        let found = self.clients.iter().enumerate().find(|(_, client)| fits(client));
        let (index, client) = found.ok_or(Uncounted::Stranger)?;
        let (client, generation) = (Arc::clone(client), trust.generation);
        Ok(VerifiedCertificate { client, index, ends, generation })
    }

    /// Reads the files again if they have changed. Unless both are good, both stay as they were. True: the authorities differ.
    #[must_use]
    pub fn look(&self, now: Timestamp) -> bool {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.trust.load();
        let current = seen(&self.files);
        let mut has_others = false;
        if current != watched.seen {
            watched.seen = current;
            match Trust::read(&self.files, before.generation + 1) {
                Ok(trust) => {
                    has_others = trust.has_other_names(&before);
                    self.trust.store(Arc::new(trust));
                    self.changed.notify_one();
                    tracing::info!("the authorities of clients and their revocation lists were reloaded");
                }
                Err(error) => {
                    let error = Chain(&error);
                    tracing::error!(%error, "new authorities or revocation lists are refused, the old ones stay in force");
                }
            }
        }
        let warnings = self.warnings(now);
        for warning in warnings.iter().filter(|warning| !watched.told.contains(warning)) {
            tracing::error!("{warning}");
        }
        watched.told = warnings;
        has_others
    }

    /// The problems that keep good certificates out.
    pub fn warnings(&self, now: Timestamp) -> Vec<String> {
        let trust = self.trust.load();
        let over = trust.over(now).map(|end| format!("{OVER} (expired on {end})"));
        let unlisted = (trust.unlisted > 0).then(|| UNLISTED.to_owned());
        over.chain(unlisted).collect()
    }
}

impl ShownCertificate {
    /// Reads a PEM file: a certificate and its intermediates.
    pub fn read(file: &Path) -> Result<Self, TrustError> {
        let chain = read::<CertificateDer<'static>>(file, CERTIFICATE)?;
        Self::new(&chain).ok_or_else(|| TrustError::Malformed { what: CERTIFICATE, path: file.into() })
    }
}

const OVER: &str = "a revocation list in tls.client_crl has expired: no certificate of its authority is accepted until there is a \
                    newer one";

const UNLISTED: &str =
    "tls.client_crl has no list of an authority in tls.client_ca: none of its certificates is accepted";

const UNKNOWN_ISSUER: &str = "no authority in tls.client_ca has signed it";

/// A host without its port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.ends_with(':') => host,
        _ => authority,
    }
}

/// Why the library refuses a certificate, in a few words that do not change between releases.
fn reason(error: &rustls::Error) -> &'static str {
    let error = match error {
        rustls::Error::InvalidCertificate(error) => error,
        rustls::Error::InvalidCertRevocationList(_) => {
            return "the revocation list of its authority is not valid";
        }
        _ => return "it cannot be checked",
    };
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "it is not valid yet",
        CertificateError::Revoked => "it has been revoked",
        CertificateError::UnknownIssuer => UNKNOWN_ISSUER,
        CertificateError::UnknownRevocationStatus => "tls.client_crl has no list of its authority",
        CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
            "the revocation list of its authority has expired"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not for clients"
        }
        _ => "it is not valid",
    }
}
