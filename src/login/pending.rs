//! Logins in progress, between the first factor and the session. They never count as a session.
//!
//! The browser has a random token; the durable store has the rest, sealed, under the token's hash. An unfinished login
//! is remembered for a day, so that its QR code need not be scanned again.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Row as _};
use zeroize::Zeroizing;

use crate::{
    clock::{Clock, Timestamp},
    credentials::TotpSecret,
    database::{Database, DatabaseError, Transaction},
    random::Random,
    sealing::{MarkedTokens, Sealer},
    secret::{Token, TokenHash},
    sessions::FirstFactor,
    users::UserId,
};

/// Long enough to install an authenticator app on the way.
const LIFETIME: Duration = Duration::from_mins(30);
/// How long the QR code of a login is remembered.
const MEMORY: Duration = Duration::from_hours(24);
/// How long a replaced cookie of a login stays valid: the tabs of one browser may submit their forms this far apart.
const AT_ONCE: Duration = Duration::from_secs(10);
/// Maximum number of one user's remembered logins.
const MOST_OF_A_USER: i64 = 20;

/// The next step of a login after the first factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// A code of one of the user's devices, or a recovery code.
    Code,
    /// The user's first device.
    Enrol,
}

/// Where a login begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// The login cookie of the browser, made by us.
    pub(super) cookie: Option<TokenHash>,
    pub(super) client_ip: IpAddr,
}

/// One login in progress.
pub struct Pending {
    /// The proof that it began with.
    pub first: FirstFactor,
    pub step: Step,
    /// The secret in the QR code: the same each time, so that nobody has to scan twice.
    seed: Option<Zeroizing<Vec<u8>>>,
    /// The same for all logins of one user in one browser.
    pub browser: TokenHash,
    /// Whether this browser was shown this QR code before, or one that this replaces.
    pub shown_before: Option<ShownBefore>,
    /// Whether the user asked, beside it, to be kept signed in.
    pub remember: bool,
}

/// The QR code of an earlier login in the same browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShownBefore {
    Same,
    Other,
}

/// The sealed part of a login in progress, besides the first factor.
#[derive(Serialize, Deserialize)]
struct Rest {
    step: Step,
    seed: Option<Zeroizing<Vec<u8>>>,
    network: IpAddr,
    shown_before: Option<ShownBefore>,
    remember: bool,
}

/// An earlier login of the same user in the same browser.
struct Earlier {
    rest: Rest,
    browser: TokenHash,
    begun_at: Timestamp,
    /// The browser sent its cookie, not just the one that it replaced.
    is_named: bool,
}

impl Pending {
    pub fn user(&self) -> &UserId {
        self.first.user()
    }

    /// The secret that is being bound, if this step binds one.
    pub fn secret(&self) -> Option<TotpSecret> {
        self.seed.as_deref().and_then(|seed| TotpSecret::from_bytes(seed))
    }
}

/// The store of logins in progress.
#[derive(Clone, Debug)]
pub struct PendingLogins {
    database: Database,
    sealer: Arc<Sealer>,
    cookies: MarkedTokens,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl PendingLogins {
    pub fn new(
        database: Database,
        sealer: Arc<Sealer>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let cookies = MarkedTokens::new(&sealer, "login cookies");
        Self { database, sealer, cookies, clock, random }
    }

    /// Makes the cookies of logins, even before anything was proved.
    pub fn cookies(&self) -> &MarkedTokens {
        &self.cookies
    }

    /// Begins a login under a new token.
    ///
    /// A first device gets the secret of an earlier, unfinished login of the same user in the same browser on the same
    /// network, so that its QR code is the same. The cookie alone does not identify the browser: a script of the portal
    /// could have set one that somebody else knows.
    pub(super) async fn begin(
        &self,
        first: &FirstFactor,
        step: Step,
        remember: bool,
        from: Arrival,
    ) -> Result<Token, DatabaseError> {
        let token = self.cookies.generate(&*self.random);
        let (id, now) = (token.hash(), self.clock.now());
        let user = first.user();
        let mut transaction = self.database.write().await?;
        self.queue(&mut transaction, user).await?;
        let earlier = match from.cookie {
            Some(cookie) => self.earlier(&mut transaction, user, cookie).await?,
            None => None,
        };
        let network = network(from.client_ip);
        let kept = earlier.as_ref().filter(|earlier| {
            let at_once = now.since(earlier.begun_at) <= AT_ONCE;
            earlier.rest.network == network && (earlier.is_named || at_once)
        });
        let browser = match (kept, from.cookie) {
            (Some(earlier), _) => earlier.browser,
            // The earlier visitor with this cookie may be somebody else.
            (None, Some(cookie)) if earlier.is_none() => cookie,
            (None, _) => TokenHash::from_bytes(self.random.bytes()),
        };
        let (seed, shown_before) = match step {
            Step::Code => (None, None),
            Step::Enrol => match kept.and_then(|earlier| earlier.rest.seed.clone()) {
                Some(seed) => (Some(seed), Some(ShownBefore::Same)),
                None => {
                    let seed = TotpSecret::generate(&*self.random).expose().to_vec();
                    let other =
                        earlier.is_some_and(|earlier| earlier.is_named && earlier.rest.seed.is_some());
                    (Some(Zeroizing::new(seed)), other.then_some(ShownBefore::Other))
                }
            },
        };
        let rest = Rest { step, seed, network, shown_before, remember };
        let record = first
            .seal_with(&self.sealer, &place(&id.to_hex()), &rest)
            .map_err(|_| DatabaseError::Corrupt("a pending login"))?;
        self.make_room(&mut transaction, user, &browser, now).await?;
        sqlx::query(
            "INSERT INTO pending_logins (id_hash, user_id, record, expires_at, browser, begun_at) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(id.as_bytes().to_vec())
        .bind(user.as_str().to_owned())
        .bind(record)
        .bind(now.plus(LIFETIME).unix_millis())
        .bind(browser.as_bytes().to_vec())
        .bind(now.unix_millis())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(token)
    }

    /// Serializes the logins of one user.
    async fn queue(&self, transaction: &mut Transaction, user: &UserId) -> Result<(), DatabaseError> {
        let one_by_one = format!("SELECT id FROM users WHERE id = $1{}", self.database.locking());
        sqlx::query(AssertSqlSafe(one_by_one))
            .bind(user.as_str().to_owned())
            .fetch_optional(&mut **transaction)
            .await?;
        Ok(())
    }

    async fn earlier(
        &self,
        transaction: &mut Transaction,
        user: &UserId,
        cookie: TokenHash,
    ) -> Result<Option<Earlier>, DatabaseError> {
        let row = sqlx::query(
            "SELECT id_hash, record, browser, begun_at FROM pending_logins \
             WHERE user_id = $1 AND (id_hash = $2 OR browser = $2) ORDER BY begun_at DESC LIMIT 1",
        )
        .bind(user.as_str().to_owned())
        .bind(cookie.as_bytes().to_vec())
        .fetch_optional(&mut **transaction)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let id = hash(row.try_get("id_hash")?)?;
        let (record, begun_at): (Vec<u8>, i64) = (row.try_get("record")?, row.try_get("begun_at")?);
        let Some(browser) = row.try_get::<Option<Vec<u8>>, _>("browser")? else { return Ok(None) };
        let browser = hash(browser)?;
        let opened = FirstFactor::open_with(&self.sealer, &place(&id.to_hex()), &record);
        Ok(opened.map(|(_, rest)| Earlier {
            rest,
            browser,
            begun_at: Timestamp::from_unix_millis(begun_at),
            is_named: id == cookie,
        }))
    }

    /// Deletes what is too old, what another login in the same browser has replaced, and the oldest of too many.
    async fn make_room(
        &self,
        transaction: &mut Transaction,
        user: &UserId,
        browser: &TokenHash,
        now: Timestamp,
    ) -> Result<(), DatabaseError> {
        let free = self.database.locking_free();
        let purge = format!(
            "DELETE FROM pending_logins WHERE id_hash IN \
             (SELECT id_hash FROM pending_logins WHERE expires_at <= $1{free})"
        );
        let forgotten = now.plus(LIFETIME).minus(MEMORY);
        sqlx::query(AssertSqlSafe(purge)).bind(forgotten.unix_millis()).execute(&mut **transaction).await?;
        sqlx::query("DELETE FROM pending_logins WHERE user_id = $1 AND browser = $2 AND begun_at <= $3")
            .bind(user.as_str().to_owned())
            .bind(browser.as_bytes().to_vec())
            .bind(now.minus(AT_ONCE).unix_millis())
            .execute(&mut **transaction)
            .await?;
        sqlx::query(
            "DELETE FROM pending_logins WHERE id_hash IN (SELECT id_hash FROM pending_logins \
             WHERE user_id = $1 ORDER BY begun_at DESC, id_hash LIMIT 1000 OFFSET $2)",
        )
        .bind(user.as_str().to_owned())
        .bind(MOST_OF_A_USER - 1)
        .execute(&mut **transaction)
        .await?;
        Ok(())
    }

    /// The login in progress under `id`, if there still is one.
    pub async fn load(&self, id: &TokenHash) -> Result<Option<Pending>, DatabaseError> {
        let row =
            sqlx::query("SELECT record, browser FROM pending_logins WHERE id_hash = $1 AND expires_at > $2")
                .bind(id.as_bytes().to_vec())
                .bind(self.clock.now().unix_millis())
                .fetch_optional(&self.database)
                .await?;
        let Some(row) = row else { return Ok(None) };
        let record: Vec<u8> = row.try_get("record")?;
        // An older gateway began it.
        let Some(browser) = row.try_get::<Option<Vec<u8>>, _>("browser")? else { return Ok(None) };
        let browser = hash(browser)?;
        // One that does not open was sealed with another key, and cannot continue.
        let opened = FirstFactor::open_with(&self.sealer, &place(&id.to_hex()), &record);
        Ok(opened.map(|(first, rest)| {
            let Rest { step, seed, network: _, shown_before, remember } = rest;
            Pending { first, step, seed, browser, shown_before, remember }
        }))
    }

    /// Ends one login. False if another request has ended it already.
    pub async fn remove(&self, id: &TokenHash) -> Result<bool, DatabaseError> {
        let removed = sqlx::query("DELETE FROM pending_logins WHERE id_hash = $1")
            .bind(id.as_bytes().to_vec())
            .execute(&self.database)
            .await?;
        Ok(removed.rows_affected() == 1)
    }

    /// Ends every login in progress once `transaction` commits.
    pub async fn remove_all(&self, transaction: &mut Transaction) -> Result<(), DatabaseError> {
        sqlx::query("DELETE FROM pending_logins").execute(&mut **transaction).await?;
        Ok(())
    }

    /// Ends every login in progress of one user.
    pub async fn remove_user(&self, user: &UserId) -> Result<(), DatabaseError> {
        sqlx::query("DELETE FROM pending_logins WHERE user_id = $1")
            .bind(user.as_str().to_owned())
            .execute(&self.database)
            .await?;
        Ok(())
    }
}

fn place(id: &str) -> [&str; 2] {
    ["pending_logins", id]
}

fn hash(bytes: Vec<u8>) -> Result<TokenHash, DatabaseError> {
    let bytes = bytes.try_into().map_err(|_| DatabaseError::Corrupt("a pending login's token"))?;
    Ok(TokenHash::from_bytes(bytes))
}

/// The network that a browser stays in while its user looks for the phone: the address, or its /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address @ IpAddr::V4(_) => address,
    }
}
