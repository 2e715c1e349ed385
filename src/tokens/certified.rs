//! Machines that show a certificate in place of a token. What is known of them is remembered, doubted and ended as tokens are;
//! what a token's row says, the configuration and the certificate say.

use std::sync::Arc;

use tokio::time::timeout;

use super::{
    ATTEMPTS, Holder, LiveToken, PATIENCE, Scope, TokenRecord, Tokens, TokensError, cache::TokenState,
};
use crate::{
    client_certificates::{ClientCertificates, Role, ShownCertificate},
    clock::{Moment, Timestamp},
    secret::TokenHash,
    sessions::Method,
    users::{User, UserId},
};

/// Which certificates stand for machines.
#[derive(Clone, Debug)]
pub struct Certified {
    pub certificates: Arc<ClientCertificates>,
    /// What each of its clients is good for, in their order.
    pub scopes: Vec<Scope>,
}

impl Tokens {
    /// What a certificate stands for, if this gateway knows for certain that it counts `at` this moment, since which nothing may
    /// have been waited for.
    pub fn cached_certificate(&self, shown: &ShownCertificate, at: &Moment) -> Option<Arc<LiveToken>> {
        let generation = self.generation()?;
        if !self.sessions.hears_of_changes_at(at) {
            return None;
        }
        let known = self.cache.get(shown.id())?;
        let is_current = known.generation == generation;
        (is_current && self.sessions.time_at(at) < known.live.session.expires_at).then_some(known)
    }

    /// The same, asked of everybody who could know. None: it stands for no machine.
    pub async fn load_certificate(
        &self,
        shown: &Arc<ShownCertificate>,
    ) -> Result<Option<Arc<LiveToken>>, TokensError> {
        timeout(PATIENCE, self.look_up_certificate(shown)).await.unwrap_or(Err(TokensError::Slow))
    }

    async fn look_up_certificate(
        &self,
        shown: &Arc<ShownCertificate>,
    ) -> Result<Option<Arc<LiveToken>>, TokensError> {
        // Strangers leave nothing behind.
        if self.certified(shown).await?.is_none() {
            return Ok(None);
        }
        for _ in 0..ATTEMPTS {
            let (held, epoch) = self.cache.enrol(shown.id());
            held.is_by(shown);
            let Some(found) = self.certified(shown).await? else { return Ok(None) };
            if !held.could_be_of(&found.holder_id()) {
                // The same name is another user's by now, to whom nothing belongs that is open.
                held.over.cancel();
                continue;
            }
            let Found { record, user, generation } = found;
            let made = self.make(record, user, held, Method::Certificate)?;
            let made = Arc::new(LiveToken { generation, is_own: false, ..made });
            if self.cache.keep(shown.id(), &made, epoch) {
                return Ok(Some(made));
            }
        }
        Err(TokensError::Unsettled)
    }

    /// When what a certificate stands for has to be asked again; none: it stands for nothing, or for somebody else.
    pub(super) async fn certificate_still_good(
        &self,
        shown: &Arc<ShownCertificate>,
        held: &TokenState,
    ) -> Result<Option<Timestamp>, TokensError> {
        let found = self.certified(shown).await?;
        Ok(found
            .filter(|found| held.could_be_of(&found.holder_id()))
            .and_then(|found| found.record.expires_at))
    }

    async fn certified(&self, shown: &Arc<ShownCertificate>) -> Result<Option<Found>, TokensError> {
        let Some(Certified { certificates, scopes }) = &self.certified else { return Ok(None) };
        let now = self.sessions.now();
        let Ok(verified) = certificates.judge(shown, now) else { return Ok(None) };
        let Some(scope) = scopes.get(verified.index).filter(|_| now < verified.ends) else { return Ok(None) };
        let (holder, user) = match &verified.client().role {
            Role::FirstFactor(_) => return Ok(None),
            Role::Service(name) => (Holder::Service(name.clone()), None),
            Role::Machine(name) => {
                let user = self.users.find(name).await?.filter(|user| !user.disabled);
                let Some(user) = user else { return Ok(None) };
                (Holder::User(user.id.clone()), Some(user))
            }
        };
        let record = TokenRecord {
            id: shown.id().to_owned(),
            name: verified.client().shows.to_string(),
            is_current: true,
            hash: TokenHash::from_bytes(shown.fingerprint()),
            holder,
            scope: scope.clone(),
            created_at: now,
            expires_at: Some(verified.ends),
            revoked_at: None,
            last_used_at: None,
        };
        Ok(Some(Found { record, user, generation: verified.generation }))
    }

    /// That of the certificates; none: there are none.
    pub(super) fn generation(&self) -> Option<u64> {
        self.certified.as_ref().map(|certified| certified.certificates.generation())
    }
}

struct Found {
    record: TokenRecord,
    user: Option<User>,
    generation: u64,
}

impl Found {
    fn holder_id(&self) -> UserId {
        match &self.record.holder {
            Holder::User(id) => id.clone(),
            Holder::Service(name) => UserId::of_service(name),
        }
    }
}
