//! Reloads certificates while the gateway runs: a good new pair replaces the old one, a bad one does not. Also warns of a
//! certificate that nobody renews before it expires.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use super::{Acceptance, Certificates, Config, PairFiles, TlsError, acceptance, load, read_pair};
use crate::{
    background::{BEAT, regularly},
    client_certificates::ClientCertificates,
    clock::Clock,
    errors::Chain,
};

/// How often the files are checked for changes. Renewals are weeks apart.
const INTERVAL: Duration = Duration::from_secs(5);

/// The pairs in force, and the files they come from.
#[derive(Debug)]
pub struct Reload {
    watched: Vec<(PairFiles, Fingerprint)>,
    clock: Arc<dyn Clock>,
    current: Arc<ArcSwap<Acceptance>>,
    /// Absent: no client is asked for a certificate.
    clients: Option<Arc<ClientCertificates>>,
    certificates: Arc<ArcSwap<Certificates>>,
    /// How close expiry was at the last warning.
    told: usize,
}

type Fingerprint = [Option<(SystemTime, u64)>; 2];

impl Reload {
    /// Loads all pairs at the start.
    pub fn new(
        config: &Config,
        clients: Option<Arc<ClientCertificates>>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TlsError> {
        let watched = config.pairs.iter().map(|files| (files.clone(), fingerprint(files))).collect();
        let certificates = load(config)?;
        Ok(Self {
            watched,
            clock,
            current: Arc::new(ArcSwap::from_pointee(acceptance(&certificates, clients.as_ref())?)),
            clients,
            certificates: Arc::new(ArcSwap::from_pointee(certificates)),
            told: 0,
        })
    }

    /// The TLS settings in force: those of the last good pairs.
    pub fn current(&self) -> Arc<ArcSwap<Acceptance>> {
        Arc::clone(&self.current)
    }

    /// The certificates in force.
    pub fn certificates(&self) -> Arc<ArcSwap<Certificates>> {
        Arc::clone(&self.certificates)
    }

    /// Watches the files until `stop` is cancelled.
    pub async fn watch(mut self, stop: CancellationToken) {
        self.judge();
        let (mut pairs, mut clients) = (regularly(INTERVAL), regularly(BEAT));
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = pairs.tick() => {
                    self.look();
                    self.remind();
                }
                _ = clients.tick(), if self.clients.is_some() => self.look_at_clients(),
            }
        }
    }

    /// Reloads each pair whose files have changed since the last check.
    fn look(&mut self) {
        for index in 0..self.watched.len() {
            let Some((files, seen)) = self.watched.get_mut(index) else { return };
            let now = fingerprint(files);
            if now == *seen {
                continue;
            }
            *seen = now;
            let files = files.clone();
            match self.take(index, &files) {
                Ok(true) => self.judge(),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(error = %Chain(&error), "the new certificate is refused, the old one stays in force");
                }
            }
        }
    }

    /// Puts a pair in force, unless more browsers would refuse it than the one before. Returns whether it is in force.
    fn take(&self, index: usize, files: &PairFiles) -> Result<bool, TlsError> {
        let before = self.certificates.load();
        let after = before.with(index, read_pair(files)?);
        let now = self.clock.now();
        let (faults, faults_before) = (after.faults(now), before.faults(now));
        if faults.len() > faults_before.len()
            && let Some(fault) = faults.iter().find(|fault| !faults_before.contains(fault))
        {
            tracing::error!(error = %fault, "the new certificate is refused, the old one stays in force");
            return Ok(false);
        }
        let expires = after.not_after();
        self.current.store(Arc::new(acceptance(&after, self.clients.as_ref())?));
        self.certificates.store(Arc::new(after));
        tracing::info!(certificate = %files.certificate.display(), %expires, "the certificate was reloaded");
        Ok(true)
    }

    /// Reloads the client authorities and their revocation lists. Handshakes name the authorities; tickets stay valid while these
    /// do not change.
    fn look_at_clients(&self) {
        let Some(clients) = &self.clients else { return };
        if !clients.look(self.clock.now()) {
            return;
        }
        match acceptance(&self.certificates.load(), Some(clients)) {
            Ok(current) => self.current.store(Arc::new(current)),
            Err(error) => {
                tracing::error!(error = %Chain(&error), "clients are still told of the old authorities");
            }
        }
    }

    /// Logs what is wrong with the certificates that came into force.
    fn judge(&mut self) {
        let (certificates, now) = (self.certificates.load(), self.clock.now());
        for fault in certificates.faults(now) {
            tracing::error!(error = %fault, "browsers refuse the certificate");
        }
        for warning in certificates.warnings(now).into_iter().chain(certificates.strangers(now)) {
            tracing::warn!("{warning}");
        }
        self.told = certificates.stage(now);
    }

    /// Logs a warning each time expiry has come a step closer.
    fn remind(&mut self) {
        let (certificates, now) = (self.certificates.load(), self.clock.now());
        let stage = certificates.stage(now);
        if stage > self.told {
            let warnings = certificates.warnings(now);
            for warning in &warnings {
                tracing::warn!("{warning}");
            }
            if warnings.is_empty() || !certificates.faults(now).is_empty() {
                tracing::error!("{}", certificates.state(now));
            }
        }
        self.told = stage;
    }
}

fn fingerprint(files: &PairFiles) -> Fingerprint {
    let of = |path: &Path| {
        let facts = std::fs::metadata(path).ok()?;
        Some((facts.modified().ok()?, facts.len()))
    };
    [of(&files.certificate), of(&files.key)]
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;
    use crate::clock::{ManualClock, Timestamp};

    const DAY: Duration = Duration::from_hours(24);
    /// A day of the first of the certificates.
    const TODAY: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

    fn write(config: &Config, age: u64) {
        write_for(&config.pairs[0], age, "localhost", 2040);
    }

    /// A pair for a host that expires on the first day of this year.
    fn write_for(config: &PairFiles, age: u64, host: &str, year: i32) {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        for (path, text) in [(&config.certificate, certificate.pem()), (&config.key, key.serialize_pem())] {
            std::fs::write(path, text).unwrap();
            let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(age);
            std::fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
        }
    }

    #[test]
    fn a_good_pair_is_taken_and_a_bad_one_leaves_the_old_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder);
        write(&config, 1000);
        let mut reload = Reload::new(&config, None, Arc::new(ManualClock::at(TODAY))).unwrap();
        let first = reload.current().load_full();
        reload.look();
        assert!(Arc::ptr_eq(&first, &reload.current().load_full()));

        write(&config, 2000);
        reload.look();
        let second = reload.current().load_full();
        assert!(!Arc::ptr_eq(&first, &second));

        std::fs::write(&config.pairs[0].key, "half a file").unwrap();
        reload.look();
        assert!(Arc::ptr_eq(&second, &reload.current().load_full()));

        write(&config, 3000);
        reload.look();
        assert!(!Arc::ptr_eq(&second, &reload.current().load_full()));
    }

    fn config(folder: &tempfile::TempDir) -> Config {
        let file = |name: &str| folder.path().join(name);
        let pair = PairFiles { certificate: file("c.pem"), key: file("k.pem") };
        Config { pairs: vec![pair], hosts: vec!["localhost".to_owned()] }
    }

    #[test]
    fn each_of_several_pairs_is_taken_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder);
        let file = |name: &str| folder.path().join(name);
        config.pairs.push(PairFiles { certificate: file("c2.pem"), key: file("k2.pem") });
        config.hosts.push("b.example".to_owned());
        let [one, two] = &config.pairs[..] else { panic!() };
        write_for(one, 1000, "localhost", 2040);
        write_for(two, 1000, "b.example", 2040);
        let clock = Arc::new(ManualClock::at(TODAY));
        let mut reload = Reload::new(&config, None, clock).unwrap();
        assert_eq!(reload.certificates().load().faults(TODAY), []);
        let before = reload.current().load_full();
        // An unusable pair does not keep another from being renewed.
        std::fs::write(&one.key, "half a file").unwrap();
        write_for(two, 2000, "b.example", 2041);
        reload.look();
        assert!(!Arc::ptr_eq(&before, &reload.current().load_full()));
        let before = reload.current().load_full();
        write_for(two, 3000, "c.example", 2041);
        reload.look();
        assert!(Arc::ptr_eq(&before, &reload.current().load_full()), "b.example would be left without one");
        assert_eq!(reload.certificates().load().faults(TODAY), []);
        write_for(one, 4000, "localhost", 2042);
        reload.look();
        assert!(!Arc::ptr_eq(&before, &reload.current().load_full()));
        assert_eq!(reload.certificates().load().not_after().to_string(), "2041-01-01T00:00:00Z");
    }

    #[test]
    fn what_browsers_refuse_takes_the_place_of_nothing_better() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder);
        write(&config, 1000);
        let clock = Arc::new(ManualClock::at(TODAY));
        let mut reload = Reload::new(&config, None, clock.clone()).unwrap();
        let good = reload.current().load_full();
        for (age, host, year) in [(2000, "other.example", 2040), (3000, "localhost", 2020)] {
            write_for(&config.pairs[0], age, host, year);
            reload.look();
            assert!(Arc::ptr_eq(&good, &reload.current().load_full()), "{host} {year}");
        }
        // Once the old one has expired, a pair with another fault is no worse.
        clock.advance(5000 * DAY);
        write_for(&config.pairs[0], 4000, "other.example", 2060);
        reload.look();
        assert!(!Arc::ptr_eq(&good, &reload.current().load_full()));
        assert!(reload.certificates().load().state(clock.now()).contains("is for other.example"));
    }

    #[test]
    fn the_end_is_told_as_it_comes_nearer_and_once_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder);
        write_for(&config.pairs[0], 1000, "localhost", 2040);
        let end = Timestamp::from_unix_seconds(2_208_988_800);
        let clock = Arc::new(ManualClock::at(end.minus(40 * DAY)));
        let mut reload = Reload::new(&config, None, clock.clone()).unwrap();
        assert_eq!(reload.certificates().load().not_after(), end);
        let mut stages = Vec::new();
        for days_left in (0..40).rev() {
            clock.set(end.minus(days_left * DAY));
            reload.remind();
            stages.push(reload.told);
        }
        let mut told = stages.clone();
        told.dedup();
        assert_eq!(told, [0, 1, 2, 3, 4]);
        clock.advance(Duration::from_secs(1));
        reload.remind();
        assert_eq!(reload.told, 5);
    }
}
