//! Opens the durable state of an installation: the stores and everything built on them.

use std::{error::Error, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use aws_lc_rs::hmac;
use futures_util::future::BoxFuture;

use crate::{
    administration::Administration,
    agreement::{Agreement, Asked},
    audit::Audit,
    by_mail::ByMail,
    client_certificates::ClientCertificates,
    clock::{Clock, SharedClock, Watermark},
    config::Config,
    credentials::{Devices, Hashing, LoginQueue, Passwords, RecoveryCodes, SecondFactor, Tries},
    database::Database,
    errors::Chain,
    hand_overs::HandOvers,
    identity::SigningKeys,
    links::Links,
    login::{KnownBrowsers, Login, PendingLogins},
    mail::Outbox,
    notices::Notices,
    random::{OsRandom, Random},
    redis_pool::RedisPool,
    saved_forms::SavedForms,
    sealing::Sealer,
    sessions::{
        self, AccountStatus, Dependencies, Profile, RedisSessions, RevocationLog, SessionStore, Sessions,
        SqlSessions,
    },
    telemetry::metrics::Metrics,
    throttle::{RedisThrottle, SqlThrottle, Throttle, ThrottleStore},
    tokens::{Certified, TokenStore, Tokens},
    users::{UserId, Users},
};

/// What the stores need besides the configuration.
#[derive(Clone, Debug)]
pub struct Environment {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub metrics: Arc<Metrics>,
}

impl Environment {
    /// The clock and randomness of the machine.
    pub fn system(metrics: Metrics) -> Self {
        Self {
            clock: Arc::new(SharedClock::default()),
            random: Arc::new(OsRandom),
            metrics: Arc::new(metrics),
        }
    }
}

/// The stores, and the services on top of them that know no HTTP.
pub struct Stores {
    pub administration: Administration,
    pub database: Database,
    pub sealer: Arc<Sealer>,
    pub hashing: Arc<Hashing>,
    pub signing_keys: Arc<SigningKeys>,
    pub agreement: Arc<Agreement>,
    pub hand_overs: HandOvers,
    second_factor: SecondFactor,
    failures: Arc<dyn ThrottleStore>,
}

impl Stores {
    /// Opens existing stores, perhaps beside a running gateway. Fails if they do not exist.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let database = Database::open_existing(&config.database).await?;
        if config.key.read()?.is_none() {
            bail!("{} is missing, and {} was sealed with it: restore it", config.key, config.database);
        }
        Self::open_with(database, config, &Environment::system(Metrics::new())).await
    }

    /// Opens the stores, and makes those that do not exist.
    pub async fn open_or_make(config: &Config) -> anyhow::Result<Self> {
        Self::open_in(config, &Environment::system(Metrics::new())).await
    }

    /// The same with a given clock, randomness and metrics.
    pub async fn open_in(config: &Config, environment: &Environment) -> anyhow::Result<Self> {
        Self::open_with(Database::open(&config.database).await?, config, environment).await
    }

    async fn open_with(
        database: Database,
        config: &Config,
        environment: &Environment,
    ) -> anyhow::Result<Self> {
        let Environment { clock, random, metrics } = environment;
        let sealer = Arc::new(open_key(&database, config, &**random).await?);
        let users = Users::new(database.clone(), Arc::clone(clock), Arc::clone(random));
        renew_names(&users).await;
        let mut agreement = Agreement::new(Arc::clone(clock), time_of(&database));
        let (store, failures) =
            shared_stores(config, environment, &database, &sealer, &mut agreement).await?;
        // Before anything is made that depends on the time.
        agreement.compare().await;
        let watermark = Arc::new(Watermark::new(Arc::clone(clock)));
        let dependencies = Dependencies {
            store,
            database: database.for_sessions(),
            status: status_of_users(&database, environment),
            rollout: config.rollout.clone(),
            sealer: Arc::clone(&sealer),
            clock: Arc::clone(clock),
            watermark: Arc::clone(&watermark),
            random: Arc::clone(random),
        };
        let sessions = Arc::new(Sessions::new(&config.sessions, dependencies));
        let threads = Hashing::default_threads();
        let hashing = Arc::new(Hashing::start(threads, Arc::clone(random)).context("cannot start hashing")?);
        let counted = Arc::clone(metrics);
        let (d, s, c, r) = (database.clone(), Arc::clone(&sealer), Arc::clone(clock), Arc::clone(random));
        let administration = Administration {
            database: database.clone(),
            users,
            passwords: Arc::new(Passwords::new(
                d.clone(),
                Arc::clone(&hashing),
                Arc::clone(&c),
                &config.credentials,
            )),
            devices: Devices::new(
                d.clone(),
                Arc::clone(&s),
                Arc::clone(&c),
                Arc::clone(&watermark),
                Arc::clone(&r),
            ),
            recovery_codes: RecoveryCodes::new(d.clone(), Arc::clone(&s), Arc::clone(&c), Arc::clone(&r)),
            sessions,
            pending: PendingLogins::new(d.clone(), Arc::clone(&s), Arc::clone(&c), Arc::clone(&r)),
            saved_forms: SavedForms::new(
                config.saved_forms,
                d.clone(),
                Arc::clone(&s),
                Arc::clone(&c),
                Arc::clone(&r),
            ),
            tokens: TokenStore::new(d.clone(), Arc::clone(&c), Arc::clone(&r)),
            audit: Arc::new(Audit::new(Box::new(move |event| counted.audit_event(event)))),
            notices: notices(config, &database, &sealer, environment),
            policy: config.credentials.clone(),
            rollout: config.rollout.clone(),
            clock: Arc::clone(&c),
            context_words: context_words(config),
        };
        let signing_keys = SigningKeys::new(d.clone(), Arc::clone(&s), Arc::clone(&administration.audit));
        let hand_overs = HandOvers::new(d.clone(), &s, Arc::clone(&c), Arc::clone(random));
        Ok(Self {
            administration,
            database,
            sealer,
            hashing,
            signing_keys: Arc::new(signing_keys),
            hand_overs,
            second_factor: SecondFactor::new(d, s, c, watermark),
            failures,
            agreement: Arc::new(agreement),
        })
    }

    /// Tokens as a gateway sees them; like sessions, they are looked up on connections that sign-ins never take.
    pub(super) fn tokens(
        &self,
        config: &Config,
        certificates: Option<Arc<ClientCertificates>>,
        environment: &Environment,
    ) -> Arc<Tokens> {
        let Environment { clock, random, .. } = environment;
        let database = self.database.for_sessions();
        let scopes = config.client_scopes.clone();
        Tokens::new(
            TokenStore::new(database.clone(), Arc::clone(clock), Arc::clone(random)),
            Users::new(database, Arc::clone(clock), Arc::clone(random)),
            Arc::clone(&self.administration.sessions),
            self.throttle(config, environment),
            certificates.map(|certificates| Certified { certificates, scopes }),
        )
    }

    fn throttle(&self, config: &Config, environment: &Environment) -> Throttle {
        Throttle::new(&config.throttle, Arc::clone(&self.failures), Arc::clone(&environment.clock))
    }

    /// What users do by mail.
    pub(super) fn by_mail(&self, config: &Config, environment: &Environment) -> ByMail {
        ByMail { administration: self.administration.clone(), throttle: self.throttle(config, environment) }
    }

    /// `certificates` do in place of a password; absent: nothing does.
    pub(super) fn login(
        &self,
        config: &Config,
        certificates: Option<Arc<ClientCertificates>>,
        environment: &Environment,
    ) -> Login {
        let administration = &self.administration;
        Login {
            users: administration.users.clone(),
            passwords: Arc::clone(&administration.passwords),
            certificates,
            devices: administration.devices.clone(),
            second_factor: self.second_factor.clone(),
            recovery_codes: administration.recovery_codes.clone(),
            sessions: Arc::clone(&administration.sessions),
            pending: administration.pending.clone(),
            throttle: self.throttle(config, environment),
            queue: LoginQueue::new(Hashing::default_threads()),
            tries: Tries::new(self.database.clone(), Arc::clone(&environment.clock)),
            known: KnownBrowsers::new(&self.sealer),
            names: hmac::Key::new(hmac::HMAC_SHA256, self.sealer.derive("names in the log").as_slice()),
            audit: Arc::clone(&administration.audit),
            notices: administration.notices.clone(),
            rollout: config.rollout.clone(),
            seeds: hmac::Key::new(hmac::HMAC_SHA256, self.sealer.derive("devices of sessions").as_slice()),
            clock: Arc::clone(&environment.clock),
            random: Arc::clone(&environment.random),
        }
    }
}

fn notices(config: &Config, database: &Database, sealer: &Arc<Sealer>, environment: &Environment) -> Notices {
    let Environment { clock, random, .. } = environment;
    let (c, r) = (|| Arc::clone(clock), || Arc::clone(random));
    let mail = config.mail.as_ref();
    Notices {
        outbox: Outbox::new(database.clone(), Arc::clone(sealer), c(), r(), mail.is_some()),
        links: Links::new(database.clone(), c(), r()),
        portal_name: config.pages.portal_name.clone(),
        origin: config.web.public_url.origin().ascii_serialization(),
        operator: mail.and_then(|mail| mail.operator.clone()),
    }
}

/// Not urgent: users who cannot log in because of it are named in the log at the next start as well.
async fn renew_names(users: &Users) {
    if let Err(error) = users.renew_names().await {
        tracing::warn!(error = %Chain(&error), "cannot bring the names of users into their canonical form");
    }
}

/// How to ask the database for its time.
fn time_of(database: &Database) -> Asked {
    let database = database.clone();
    Box::new(move || {
        let database = database.clone();
        Box::pin(async move { database.time().await.ok().flatten() })
    })
}

/// Opens the store of sessions and failed logins, which all gateways share.
async fn shared_stores(
    config: &Config,
    environment: &Environment,
    database: &Database,
    sealer: &Arc<Sealer>,
    agreement: &mut Agreement,
) -> anyhow::Result<(Arc<dyn SessionStore>, Arc<dyn ThrottleStore>)> {
    let Environment { clock, random, .. } = environment;
    let names = hmac::Key::new(hmac::HMAC_SHA256, sealer.derive("failed logins").as_slice());
    match &config.sessions.store {
        sessions::Store::Database => Ok((
            Arc::new(SqlSessions::new(
                database.clone(),
                longest(config.sessions.inactivity, config),
                Arc::clone(clock),
            )),
            Arc::new(SqlThrottle::new(database.clone(), names, Arc::clone(clock))),
        )),
        sessions::Store::Redis(redis) => {
            let pool = Arc::new(RedisPool::open(redis, Arc::clone(random)).await?);
            let theirs = Arc::clone(&pool);
            agreement.add(
                "redis",
                Box::new(move || {
                    let theirs = Arc::clone(&theirs);
                    Box::pin(async move { theirs.time().await.ok() })
                }),
            );
            let expiration = longest(config.sessions.expiration, config);
            let revocations = RevocationLog::new(database.for_sessions(), Arc::clone(clock), expiration);
            Ok((
                Arc::new(RedisSessions::new(
                    Arc::clone(&pool),
                    revocations,
                    Arc::clone(sealer),
                    worth_keeping(config),
                )),
                Arc::new(RedisThrottle::new(pool, names)),
            ))
        }
    }
}

/// Loads the sealing key. Makes one only for a database in which nothing has been sealed yet.
///
/// A wrong key would make every user's device useless, one by one and at the worst moment.
async fn open_key(database: &Database, config: &Config, random: &dyn Random) -> anyhow::Result<Sealer> {
    const FACT: &str = "key_check";
    let place = ["facts", FACT];
    let key = &config.key;
    let check = database.fact(FACT).await?;
    if check.is_some() && key.read()?.is_none() {
        bail!("{key} is missing, and {} was sealed with it: restore it", config.database);
    }
    let sealer = Sealer::with_keys_of(key, random)?;
    match check {
        Some(record) if sealer.open(&place, &record).is_err() => {
            bail!("{key} does not fit {}: restore the one it was sealed with", config.database)
        }
        Some(_) => {}
        None => {
            database.note_fact(FACT, &sealer.seal(&place, b"")).await?;
            // If two gateways start at once with new keys, the other one may have been first.
            let noted = database.fact(FACT).await?.unwrap_or_default();
            if sealer.open(&place, &noted).is_err() {
                bail!(
                    "another gateway has just begun to use {} with another key than {key}: give both the same",
                    config.database
                )
            }
        }
    }
    Ok(sealer)
}

/// How long Redis keeps an unused session. A late form still needs it to find its user.
fn worth_keeping(config: &Config) -> Duration {
    let sessions = &config.sessions;
    longest(if config.saved_forms.max == 0 { sessions.inactivity } else { sessions.expiration }, config)
}

/// The longer of a session limit and `remember_me`: a store cannot tell the two kinds of session apart.
fn longest(limit: Duration, config: &Config) -> Duration {
    config.sessions.remember_me.map_or(limit, |remembered| limit.max(remembered))
}

/// Words that no password may be made of.
fn context_words(config: &Config) -> Vec<String> {
    let host = config.web.public_url.host_str().unwrap_or_default();
    vec!["portcullis".to_owned(), host.to_owned(), config.pages.portal_name.clone()]
}

fn status_of_users(database: &Database, environment: &Environment) -> Arc<dyn AccountStatus> {
    let Environment { clock, random, .. } = environment;
    let users = Users::new(database.for_sessions(), Arc::clone(clock), Arc::clone(random));
    Arc::new(StatusOfUsers(users))
}

/// A session is valid only as long as its user is.
struct StatusOfUsers(Users);

impl AccountStatus for StatusOfUsers {
    fn of<'a>(
        &'a self,
        user: &'a UserId,
    ) -> BoxFuture<'a, Result<Option<Profile>, Box<dyn Error + Send + Sync>>> {
        Box::pin(async move {
            let user = self.0.with_devices(user).await?.filter(|(user, _)| !user.disabled);
            Ok(user.map(|(user, devices)| Profile {
                has_device: devices > 0,
                name: user.name.as_str().to_owned(),
                email: user.email,
                display_name: user.display_name,
                groups: user.groups,
                first_login_at: user.first_login_at,
            }))
        })
    }
}
