//! A certificate that changes under a running gateway: the new pair is taken when it is good, else the old one stays. And
//! one that does not change, although its end comes near.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use super::{Certificate, Config, Loaded, TlsError, load};
use crate::{clock::Clock, errors::Chain};

/// How often the files are looked at. Their renewal is a matter of weeks.
const INTERVAL: Duration = Duration::from_secs(5);

/// The pair in force, and how it is kept up to date.
#[derive(Debug)]
pub struct Reload {
    config: Config,
    clock: Arc<dyn Clock>,
    current: Arc<ArcSwap<ServerConfig>>,
    certificate: Arc<ArcSwap<Certificate>>,
    seen: Fingerprint,
    /// How near the end was when it was last told.
    told: usize,
}

type Fingerprint = [Option<(SystemTime, u64)>; 2];

impl Reload {
    /// Loads the pair for the first time.
    pub fn new(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        let seen = fingerprint(config);
        let Loaded { server, certificate } = load(config)?;
        Ok(Self {
            config: config.clone(),
            clock,
            current: Arc::new(ArcSwap::from_pointee(server)),
            certificate: Arc::new(ArcSwap::from_pointee(certificate)),
            seen,
            told: 0,
        })
    }

    /// What is accepted with, always the last good pair.
    pub fn current(&self) -> Arc<ArcSwap<ServerConfig>> {
        Arc::clone(&self.current)
    }

    /// The certificate that is accepted with.
    pub fn certificate(&self) -> Arc<ArcSwap<Certificate>> {
        Arc::clone(&self.certificate)
    }

    /// Follows the files until `stop` is cancelled.
    pub async fn watch(mut self, stop: CancellationToken) {
        self.judge();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {
                    self.look();
                    self.remind();
                }
            }
        }
    }

    /// Takes the files when they have changed since the last look. What every browser would refuse does not take the
    /// place of what none refuses.
    fn look(&mut self) {
        let seen = fingerprint(&self.config);
        if seen == self.seen {
            return;
        }
        self.seen = seen;
        let Loaded { server, certificate } = match load(&self.config) {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!(error = %Chain(&error), "the new certificate is refused, the old one stays in force");
                return;
            }
        };
        let now = self.clock.now();
        if let Some(fault) = certificate.faults(now).first()
            && self.certificate.load().faults(now).is_empty()
        {
            tracing::error!(error = %fault, "the new certificate is refused, the old one stays in force");
            return;
        }
        let expires = certificate.not_after();
        self.current.store(Arc::new(server));
        self.certificate.store(Arc::new(certificate));
        tracing::info!(certificate = %self.config.certificate.display(), %expires, "the certificate was reloaded");
        self.judge();
    }

    /// Says what is wrong with the certificate that came into force.
    fn judge(&mut self) {
        let (certificate, now) = (self.certificate.load(), self.clock.now());
        for fault in certificate.faults(now) {
            tracing::error!(error = %fault, "browsers refuse the certificate");
        }
        for warning in certificate.warning(now).into_iter().chain(certificate.stranger(now)) {
            tracing::warn!("{warning}");
        }
        self.told = certificate.stage(now);
    }

    /// Says so each time that the end has come nearer.
    fn remind(&mut self) {
        let (certificate, now) = (self.certificate.load(), self.clock.now());
        let stage = certificate.stage(now);
        if stage > self.told {
            match certificate.warning(now) {
                Some(warning) => tracing::warn!("{warning}"),
                None => tracing::error!("{}", certificate.state(now)),
            }
        }
        self.told = stage;
    }
}

fn fingerprint(config: &Config) -> Fingerprint {
    let of = |path: &Path| {
        let facts = std::fs::metadata(path).ok()?;
        Some((facts.modified().ok()?, facts.len()))
    };
    [of(&config.certificate), of(&config.key)]
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
        write_for(config, age, "localhost", 2040);
    }

    /// A pair for a host, that ends with this year's first day.
    fn write_for(config: &Config, age: u64, host: &str, year: i32) {
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
        let mut reload = Reload::new(&config, Arc::new(ManualClock::at(TODAY))).unwrap();
        let first = reload.current().load_full();
        reload.look();
        assert!(Arc::ptr_eq(&first, &reload.current().load_full()));

        write(&config, 2000);
        reload.look();
        let second = reload.current().load_full();
        assert!(!Arc::ptr_eq(&first, &second));

        std::fs::write(&config.key, "half a file").unwrap();
        reload.look();
        assert!(Arc::ptr_eq(&second, &reload.current().load_full()));

        write(&config, 3000);
        reload.look();
        assert!(!Arc::ptr_eq(&second, &reload.current().load_full()));
    }

    fn config(folder: &tempfile::TempDir) -> Config {
        let file = |name: &str| folder.path().join(name);
        Config { certificate: file("c.pem"), key: file("k.pem"), host: "localhost".to_owned() }
    }

    #[test]
    fn what_browsers_refuse_takes_the_place_of_nothing_better() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder);
        write(&config, 1000);
        let clock = Arc::new(ManualClock::at(TODAY));
        let mut reload = Reload::new(&config, clock.clone()).unwrap();
        let good = reload.current().load_full();
        for (age, host, year) in [(2000, "other.example", 2040), (3000, "localhost", 2020)] {
            write_for(&config, age, host, year);
            reload.look();
            assert!(Arc::ptr_eq(&good, &reload.current().load_full()), "{host} {year}");
        }
        // Once the old one has expired, what is wrong in another way is as good as any.
        clock.advance(5000 * DAY);
        write_for(&config, 4000, "other.example", 2060);
        reload.look();
        assert!(!Arc::ptr_eq(&good, &reload.current().load_full()));
        assert!(reload.certificate().load().state(clock.now()).contains("is for other.example"));
    }

    #[test]
    fn the_end_is_told_as_it_comes_nearer_and_once_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder);
        write_for(&config, 1000, "localhost", 2040);
        let end = Timestamp::from_unix_seconds(2_208_988_800);
        let clock = Arc::new(ManualClock::at(end.minus(40 * DAY)));
        let mut reload = Reload::new(&config, clock.clone()).unwrap();
        assert_eq!(reload.certificate().load().not_after(), end);
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
