//! Machines with a certificate instead of a token. They share the tokens' cache and endings; the configuration and the
//! certificate take the place of a token's row.

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

/// The certificates that stand for machines.
#[derive(Clone, Debug)]
pub struct Certified {
    pub certificates: Arc<ClientCertificates>,
    /// The scope of each client, in their order.
    pub scopes: Vec<Scope>,
}

impl Tokens {
    /// The machine of a certificate, if this gateway is certain that it counts `at` this moment. The caller must not have awaited
    /// anything since then.
    pub fn cached_certificate(&self, shown: &ShownCertificate, at: &Moment) -> Option<Arc<LiveToken>> {
        let generation = self.generation()?;
        if !self.sessions.hears_of_changes_at(at) {
            return None;
        }
        let known = self.cache.get(shown.id())?;
        let is_current = known.generation == generation;
        (is_current && self.sessions.time_at(at) < known.live.session.expires_at).then_some(known)
    }

    /// The same, verified and looked up in the store. None: it stands for no machine.
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
        // A certificate that does not count is not cached.
        if self.certified(shown).await?.is_none() {
            return Ok(None);
        }
        for _ in 0..ATTEMPTS {
            let (held, epoch) = self.cache.enrol(shown.id());
            held.is_by(shown);
            let Some(found) = self.certified(shown).await? else { return Ok(None) };
            if !held.could_be_of(&found.holder_id()) {
                // The name belongs to another user by now, who has nothing open.
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

    /// When a certificate has to be checked again; none: it does not count, or stands for somebody else.
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
