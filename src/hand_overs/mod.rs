//! Hand-overs between sites: a code gets a user who is signed in at one site into another without a login.
//!
//! A code is valid once, for half a minute, at one site, and in the browser that asked there: the browser has had a
//! cookie of that site since. Whoever makes a code does not learn that cookie, and whoever has the cookie cannot make a
//! code. What a code opens is sealed with a key derived from it. No session is made: the existing one is used.

use std::{collections::HashMap, sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use sqlx::{AssertSqlSafe, Row as _};

use crate::{
    background::regularly,
    clock::{Clock, Timestamp},
    database::{Database, DatabaseError},
    errors::Chain,
    random::Random,
    sealing::{MarkedTokens, Sealer},
    secret::{Token, TokenHash, constant_time_eq},
};

/// The lifetime of a code, enough for a redirect.
pub const LIFETIME: Duration = Duration::from_secs(30);
/// How often expired codes are deleted.
const TIDY: Duration = Duration::from_mins(1);
const TOKEN: usize = 32;

/// Makes and redeems codes.
#[derive(Clone)]
pub struct HandOvers {
    database: Database,
    /// Shared, since this struct is cloned.
    key: Arc<hmac::Key>,
    codes: MarkedTokens,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

/// Who is to arrive where.
#[derive(Clone, Copy, Debug)]
pub struct HandOver<'a> {
    /// The host of the site, with the port if it is not the default.
    pub site: &'a str,
    /// The hash of the cookie that the browser has had since it asked there.
    pub browser: &'a TokenHash,
    /// The token of the session.
    pub session: &'a Token,
    /// The requested page.
    pub target: &'a str,
}

/// A user whose code was valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    pub session: Token,
    pub target: String,
}

impl HandOvers {
    pub fn new(database: Database, sealer: &Sealer, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, sealer.derive("hand-overs").as_slice());
        let codes = MarkedTokens::new(sealer, "hand-over codes");
        Self { database, key: Arc::new(key), codes, clock, random }
    }

    /// Makes a code.
    pub async fn make(&self, hand_over: HandOver<'_>) -> Result<Token, DatabaseError> {
        let code = self.codes.generate(&*self.random);
        let plain = [hand_over.session.as_bytes().as_slice(), hand_over.target.as_bytes()].concat();
        let record = self.sealer(&code).seal(&["hand-overs", hand_over.site], &plain);
        sqlx::query(
            "INSERT INTO hand_overs (id, browser, site, record, made_at) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(code.hash().to_hex())
        .bind(hand_over.browser.to_hex())
        .bind(hand_over.site.to_owned())
        .bind(record)
        .bind(self.clock.now().unix_millis())
        .execute(&self.database)
        .await?;
        Ok(code)
    }

    /// Redeems a code, which is invalid from then on, whoever has shown it.
    pub async fn take(
        &self,
        code: &Token,
        browser: &TokenHash,
        site: &str,
    ) -> Result<Option<Arrived>, DatabaseError> {
        // Whoever makes codes up has the store write nothing.
        if !self.codes.made(code) {
            return Ok(None);
        }
        let row =
            sqlx::query("DELETE FROM hand_overs WHERE id = $1 RETURNING browser, site, record, made_at")
                .bind(code.hash().to_hex())
                .fetch_optional(&self.database)
                .await?;
        let Some(row) = row else { return Ok(None) };
        let (of_browser, of_site): (String, String) = (row.try_get("browser")?, row.try_get("site")?);
        let record: Vec<u8> = row.try_get("record")?;
        let made_at = Timestamp::from_unix_millis(row.try_get("made_at")?);
        let is_fresh = self.clock.now().since(made_at) < LIFETIME;
        let is_meant =
            of_site == site && constant_time_eq(of_browser.as_bytes(), browser.to_hex().as_bytes());
        if !is_fresh || !is_meant {
            return Ok(None);
        }
        let Ok(plain) = self.sealer(code).open(&["hand-overs", site], &record) else { return Ok(None) };
        let Some((session, target)) = plain.split_first_chunk::<TOKEN>() else { return Ok(None) };
        let target = String::from_utf8(target.to_vec()).unwrap_or_else(|_| "/".to_owned());
        Ok(Some(Arrived { session: Token::from_bytes(*session), target }))
    }

    /// Records that a session is used at a site.
    pub async fn note(
        &self,
        session: &TokenHash,
        site: &str,
        expires_at: Timestamp,
    ) -> Result<(), DatabaseError> {
        sqlx::query(
            "INSERT INTO session_sites (session_id, site, since, expires_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (session_id, site) DO NOTHING",
        )
        .bind(session.to_hex())
        .bind(site.to_owned())
        .bind(self.clock.now().unix_millis())
        .bind(expires_at.unix_millis())
        .execute(&self.database)
        .await?;
        Ok(())
    }

    /// The other sites where each of these sessions has been used, in that order.
    pub async fn sites_of(
        &self,
        sessions: &[TokenHash],
    ) -> Result<HashMap<TokenHash, Vec<String>>, DatabaseError> {
        let mut sites: HashMap<TokenHash, Vec<String>> = HashMap::new();
        for few in sessions.chunks(100) {
            let places: Vec<String> = (1..=few.len()).map(|place| format!("${place}")).collect();
            let query = format!(
                "SELECT session_id, site FROM session_sites WHERE session_id IN ({}) ORDER BY since, site",
                places.join(", ")
            );
            let query = few
                .iter()
                .fold(sqlx::query(AssertSqlSafe(query)), |query, session| query.bind(session.to_hex()));
            for row in query.fetch_all(&self.database).await? {
                let (session, site): (String, String) = (row.try_get("session_id")?, row.try_get("site")?);
                if let Some(session) = TokenHash::from_hex(&session) {
                    sites.entry(session).or_default().push(site);
                }
            }
        }
        Ok(sites)
    }

    /// Deletes expired codes at intervals, for ever.
    pub async fn maintain(self) {
        let mut turns = regularly(TIDY);
        loop {
            turns.tick().await;
            if let Err(error) = self.purge().await {
                tracing::warn!(error = %Chain(&error), "cannot purge hand-overs between sites that are over");
            }
        }
    }

    async fn purge(&self) -> Result<(), DatabaseError> {
        let now = self.clock.now();
        sqlx::query("DELETE FROM hand_overs WHERE made_at <= $1")
            .bind(now.minus(LIFETIME).unix_millis())
            .execute(&self.database)
            .await?;
        sqlx::query("DELETE FROM session_sites WHERE expires_at <= $1")
            .bind(now.unix_millis())
            .execute(&self.database)
            .await?;
        Ok(())
    }

    fn sealer(&self, code: &Token) -> Sealer {
        let mut key = [0; 32];
        key.copy_from_slice(hmac::sign(&self.key, code.as_bytes()).as_ref());
        Sealer::from_key(&key)
    }
}

#[cfg(test)]
mod tests;
