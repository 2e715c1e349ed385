//! A certificate that changes under a running gateway: the new pair is taken when it is good, else the old one stays.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use super::{Config, TlsError, load};
use crate::errors::Chain;

/// How often the files are looked at. Their renewal is a matter of weeks.
const INTERVAL: Duration = Duration::from_secs(5);

/// The pair in force, and how it is kept up to date.
#[derive(Debug)]
pub struct Reload {
    config: Config,
    current: Arc<ArcSwap<ServerConfig>>,
    seen: Fingerprint,
}

type Fingerprint = [Option<(SystemTime, u64)>; 2];

impl Reload {
    /// Loads the pair for the first time.
    pub fn new(config: &Config) -> Result<Self, TlsError> {
        let seen = fingerprint(config);
        let current = Arc::new(ArcSwap::from_pointee(load(config)?));
        Ok(Self { config: config.clone(), current, seen })
    }

    /// What is accepted with, always the last good pair.
    pub fn current(&self) -> Arc<ArcSwap<ServerConfig>> {
        Arc::clone(&self.current)
    }

    /// Follows the files until `stop` is cancelled.
    pub async fn watch(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => self.look(),
            }
        }
    }

    /// Takes the files when they have changed since the last look.
    fn look(&mut self) {
        let now = fingerprint(&self.config);
        if now == self.seen {
            return;
        }
        match load(&self.config) {
            Ok(server) => {
                self.current.store(Arc::new(server));
                tracing::info!(certificate = %self.config.certificate.display(), "the certificate was reloaded");
            }
            Err(error) => {
                tracing::error!(error = %Chain(&error), "the new certificate is refused, the old one stays in force");
            }
        }
        self.seen = now;
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
    use rcgen::generate_simple_self_signed;

    use super::*;

    fn write(config: &Config, age: u64) {
        let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        for (path, text) in
            [(&config.certificate, made.cert.pem()), (&config.key, made.signing_key.serialize_pem())]
        {
            std::fs::write(path, text).unwrap();
            let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(age);
            std::fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
        }
    }

    #[test]
    fn a_good_pair_is_taken_and_a_bad_one_leaves_the_old_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { certificate: folder.path().join("c.pem"), key: folder.path().join("k.pem") };
        write(&config, 1000);
        let mut reload = Reload::new(&config).unwrap();
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
}
