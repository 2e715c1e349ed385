//! The signed assertion: a JWT with the user's identity, which the portal can verify by itself (RFC 7519).
//!
//! Signed on the worker that needs it, then shared by all requests of the session until it is about to expire.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::HeaderValue;
use serde::Serialize;

use super::{
    AssertionConfig, GroupChoice, SigningKeys,
    signing_key::Unusable,
    wire_forms::{Perishable, SiteSlot, WireForms},
};
use crate::{
    clock::Timestamp,
    random::Random,
    sealing::Sealer,
    sessions::{Live, Session},
};

/// The minimum time that an assertion has left when the portal gets it; half of its lifetime if that is less.
const LEFT: Duration = Duration::from_mins(1);

/// Why there is no assertion: the request is refused rather than sent without one.
#[derive(Debug, thiserror::Error)]
pub enum Unsigned {
    #[error("there is no signing key")]
    NoKey,
    #[error("the session cannot hold an assertion")]
    NoPlace,
    #[error("cannot sign the assertion")]
    Key(#[from] Unusable),
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    /// The user's id, which no other user ever gets.
    sub: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
    jti: String,
    sid: String,
    email: &'a str,
    name: &'a str,
    groups: Vec<&'a str>,
    amr: Vec<&'static str>,
}

/// Makes assertions, and caches them with their sessions.
pub struct Assertions {
    keys: Arc<SigningKeys>,
    issuer: String,
    audience: String,
    /// In seconds.
    lifetime: i64,
    left: Duration,
    groups: GroupChoice,
    /// Derives a value from a session's id that finds nothing in a store.
    session_ids: hmac::Key,
    random: Arc<dyn Random>,
    site: SiteSlot,
}

impl Assertions {
    pub fn new(
        config: &AssertionConfig,
        groups: GroupChoice,
        keys: Arc<SigningKeys>,
        sealer: &Sealer,
        random: Arc<dyn Random>,
    ) -> Self {
        let session_ids = sealer.derive("the session ids of assertions");
        Self {
            keys,
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            lifetime: i64::try_from(config.lifetime.as_secs()).unwrap_or(i64::MAX).max(1),
            left: LEFT.min(config.lifetime / 2),
            groups,
            session_ids: hmac::Key::new(hmac::HMAC_SHA256, session_ids.as_slice()),
            random,
            site: SiteSlot::new(0, 1),
        }
    }

    /// The same for one of several sites.
    #[must_use]
    pub fn at_site(self, site: SiteSlot) -> Self {
        Self { site, ..self }
    }

    /// The session's assertion. Signed only if there is none yet or the last one is about to expire; two workers may
    /// then both sign, and both assertions are valid.
    pub fn of(&self, live: &Live, now: Timestamp) -> Result<HeaderValue, Unsigned> {
        let kept = WireForms::of(live, self.site).ok_or(Unsigned::NoPlace)?;
        self.current(&live.session, &kept.assertion, now)
    }

    fn current(
        &self,
        session: &Session,
        kept: &ArcSwapOption<Perishable>,
        now: Timestamp,
    ) -> Result<HeaderValue, Unsigned> {
        // Before the key is read: an assertion overtaken by a change of keys is made again.
        let generation = self.keys.generation();
        if let Some(made) = &*kept.load()
            && made.is_good(now, generation)
        {
            return Ok(made.value.clone());
        }
        let made = Arc::new(self.make(session, now, generation)?);
        kept.store(Some(Arc::clone(&made)));
        Ok(made.value.clone())
    }

    fn make(&self, session: &Session, now: Timestamp, generation: u64) -> Result<Perishable, Unsigned> {
        let signer = self.keys.signer(now).ok_or(Unsigned::NoKey)?;
        let iat = now.unix_seconds();
        let session_ends = session.expires_at.unix_seconds();
        // In whole seconds: in the last fraction of a second of a session its assertion has expired already.
        let exp = session_ends.min(iat.saturating_add(self.lifetime));
        let token = signer.key.sign(&Claims {
            iss: &self.issuer,
            sub: session.user.as_str(),
            aud: &self.audience,
            iat,
            exp,
            jti: BASE64_URL_SAFE_NO_PAD.encode(self.random.bytes::<16>()),
            sid: self.session_id(session),
            email: &session.email,
            name: &session.display_name,
            groups: self.groups.of(&session.groups).collect(),
            amr: session.amr.iter().map(|method| method.amr()).collect(),
        })?;
        // The characters are letters, digits, `-`, `_` and `.`.
        let mut value = HeaderValue::from_maybe_shared(Bytes::from(token)).map_err(|_| Unusable)?;
        value.set_sensitive(true);
        let end = Timestamp::from_unix_seconds(exp);
        // An assertion that ends with its session would only be renewed with the same end.
        let until = if exp < session_ends { end.minus(self.left) } else { end };
        let until = signer.retired_at.map_or(until, |retired_at| until.min(retired_at));
        Ok(Perishable { value, from: Timestamp::from_unix_seconds(iat), until, generation })
    }

    /// The same for all assertions of a session; half a hash, from which the session cannot be found.
    fn session_id(&self, session: &Session) -> String {
        let hash = hmac::sign(&self.session_ids, session.id.as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(&hash.as_ref()[..16])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        database::test_database::On,
        identity::tests::{KeyFixture, ROTATION, START},
        random::OsRandom,
        secret::TokenHash,
        sessions::{Method, Origin},
        users::UserId,
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn config() -> AssertionConfig {
        AssertionConfig {
            issuer: "https://iot.example.com".into(),
            audience: "the portal".into(),
            lifetime: Duration::from_mins(5),
            rotation: ROTATION,
        }
    }

    fn session() -> Session {
        Session {
            id: TokenHash::from_bytes([0x5e; 32]),
            user: UserId::of("u1"),
            name: "ada@example.com".into(),
            email: "Ada@Example.com".into(),
            display_name: "Ada Lovelace".into(),
            groups: vec!["ops".into(), "dev \"1\"".into()],
            amr: vec![Method::Password, Method::Totp],
            created_at: START,
            expires_at: START.plus(Duration::from_hours(12)),
            origin: Origin::new([127, 0, 0, 1].into(), ""),
            csrf: [0; 16],
            remembered: false,
            proved_at: None,
        }
    }

    struct Scene {
        fixture: KeyFixture,
        keys: Arc<SigningKeys>,
        assertions: Assertions,
        session: Session,
        kept: ArcSwapOption<Perishable>,
    }

    impl Scene {
        async fn new() -> Self {
            Self::with(&config()).await
        }

        async fn with(config: &AssertionConfig) -> Self {
            let fixture = KeyFixture::new(On::Sqlite).await;
            let keys = Arc::new(fixture.keys());
            keys.keep(START, ROTATION).await.unwrap();
            let random = Arc::new(OsRandom);
            let assertions =
                Assertions::new(config, GroupChoice::default(), Arc::clone(&keys), &fixture.sealer, random);
            Self { fixture, keys, assertions, session: session(), kept: ArcSwapOption::empty() }
        }

        fn at(&self, now: Timestamp) -> String {
            let value = self.assertions.current(&self.session, &self.kept, now).unwrap();
            value.to_str().unwrap().to_owned()
        }

        fn claims_at(&self, now: Timestamp) -> Value {
            part(&self.at(now), 1)
        }
    }

    fn part(token: &str, index: usize) -> Value {
        let part = token.split('.').nth(index).unwrap();
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn the_claims_say_who_it_is_and_for_whom_and_until_when() {
        let scene = Scene::new().await;
        let token = scene.at(START.plus(Duration::from_millis(1999)));
        let (header, claims) = (part(&token, 0), part(&token, 1));
        let iat = START.unix_seconds() + 1;
        let expected = json!({
            "iss": "https://iot.example.com",
            "sub": UserId::of("u1"),
            "aud": "the portal",
            "iat": iat,
            "exp": iat + 300,
            "jti": claims["jti"],
            "sid": claims["sid"],
            "email": "Ada@Example.com",
            "name": "Ada Lovelace",
            "groups": ["ops", "dev \"1\""],
            "amr": ["pwd", "otp"],
        });
        assert_eq!(claims, expected);
        assert_eq!(header["alg"], "ES256");
        assert_eq!(header["typ"], "JWT");
        assert_eq!(header["kid"].as_str(), Some(scene.keys.signer(START).unwrap().key.kid()));
        assert_eq!(claims["jti"].as_str().unwrap().len(), 22);
    }

    #[tokio::test]
    async fn one_factor_is_told_as_one() {
        let mut scene = Scene::new().await;
        scene.session.amr = vec![Method::Password];
        scene.session.groups.clear();
        scene.session.display_name.clear();
        let claims = scene.claims_at(START);
        assert_eq!(
            [&claims["amr"], &claims["groups"], &claims["name"]],
            [&json!(["pwd"]), &json!([]), &json!("")]
        );
    }

    #[tokio::test]
    async fn an_assertion_is_shared_until_it_has_a_minute_left() {
        let scene = Scene::new().await;
        let first = scene.at(START);
        let last_use = START.plus(Duration::from_mins(4)).minus(Duration::from_millis(1));
        for now in [START, START.plus(SECOND), last_use] {
            assert_eq!(scene.at(now), first);
        }
        let second = scene.at(START.plus(Duration::from_mins(4)));
        assert_ne!(second, first);
        assert_eq!(part(&second, 1)["exp"], START.unix_seconds() + 540);
        assert_ne!(part(&second, 1)["jti"], part(&first, 1)["jti"]);
        assert_eq!(part(&second, 1)["sid"], part(&first, 1)["sid"]);
        assert_eq!(scene.at(START.plus(Duration::from_mins(5))), second);
    }

    #[tokio::test]
    async fn a_short_one_is_made_again_at_half_its_life() {
        let scene = Scene::with(&AssertionConfig { lifetime: 90 * SECOND, ..config() }).await;
        let first = scene.at(START);
        assert_eq!(part(&first, 1)["exp"], START.unix_seconds() + 90);
        assert_eq!(scene.at(START.plus(44 * SECOND)), first);
        assert_ne!(scene.at(START.plus(45 * SECOND)), first);
    }

    #[tokio::test]
    async fn none_outlives_its_session() {
        let mut scene = Scene::new().await;
        let end = START.plus(Duration::from_millis(200_500));
        scene.session.expires_at = end;
        let first = scene.at(START);
        assert_eq!(part(&first, 1)["exp"], end.unix_seconds());
        // A new one would have the same end.
        assert_eq!(scene.at(START.plus(199 * SECOND)), first);
        for before in [500, 300, 1] {
            let claims = scene.claims_at(end.minus(Duration::from_millis(before)));
            assert!(claims["exp"].as_i64().unwrap() <= end.unix_seconds());
        }
    }

    #[tokio::test]
    async fn a_clock_that_is_set_back_makes_none_last_longer() {
        let scene = Scene::new().await;
        let first = scene.at(START);
        let back = START.minus(Duration::from_hours(1));
        let again = scene.at(back);
        assert_ne!(again, first);
        assert_eq!(part(&again, 1)["exp"], back.unix_seconds() + 300);
    }

    #[tokio::test]
    async fn the_session_id_leads_nowhere_and_is_the_same_at_every_gateway() {
        let scene = Scene::new().await;
        let sid = scene.claims_at(START)["sid"].as_str().unwrap().to_owned();
        assert_eq!(BASE64_URL_SAFE_NO_PAD.decode(&sid).unwrap().len(), 16);
        let id = scene.session.id;
        for known in [&id.as_bytes()[..], id.to_hex().as_bytes(), &crate::secret::sha256(id.as_bytes())] {
            let known = BASE64_URL_SAFE_NO_PAD.encode(known);
            assert!(!known.contains(&sid[..8]));
        }
        let other = Assertions::new(
            &config(),
            GroupChoice::default(),
            Arc::clone(&scene.keys),
            &scene.fixture.sealer,
            Arc::new(OsRandom),
        );
        assert_eq!(other.session_id(&scene.session), sid);
        // Whoever knows the id but not the key computes another value.
        let elsewhere = Sealer::from_key(&[8; 32]);
        let other = Assertions::new(
            &config(),
            GroupChoice::default(),
            Arc::clone(&scene.keys),
            &elsewhere,
            Arc::new(OsRandom),
        );
        assert_ne!(other.session_id(&scene.session), sid);
    }

    #[tokio::test]
    async fn a_change_of_keys_is_followed_and_compromised_ones_are_not_relied_on() {
        let scene = Scene::new().await;
        let kid = |token: &str| part(token, 0)["kid"].as_str().unwrap().to_owned();
        let first = scene.at(START);
        let new = scene.keys.replace_all(START).await.unwrap();
        scene.keys.keep(START, ROTATION).await.unwrap();
        // The old key signs until the new one is published everywhere, and what it signs is not cached beyond that.
        let handover = scene.at(START.plus(SECOND));
        assert_eq!(kid(&handover), kid(&first));
        assert_eq!(scene.at(START.plus(9 * SECOND)), handover);
        assert_eq!(kid(&scene.at(START.plus(10 * SECOND))), new.kid);
    }

    #[tokio::test]
    async fn without_a_key_nothing_is_vouched_for() {
        let fixture = KeyFixture::new(On::Sqlite).await;
        let assertions = Assertions::new(
            &config(),
            GroupChoice::default(),
            Arc::new(fixture.keys()),
            &fixture.sealer,
            Arc::new(OsRandom),
        );
        let refused = assertions.current(&session(), &ArcSwapOption::empty(), START);
        assert!(matches!(refused, Err(Unsigned::NoKey)));
    }

    #[tokio::test]
    async fn no_debug_output_shows_it() {
        let scene = Scene::new().await;
        let token = scene.at(START);
        let printed = format!("{:?} {:?}", scene.kept, scene.keys.signer(START).map(|signer| signer.key));
        assert!(!printed.contains(&token[..40]), "{printed}");
    }
}
