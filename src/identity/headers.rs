//! The identity as request headers: the names that are reserved for it in any spelling, and the values that we set.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use quick_cache::sync::Cache;

use super::{
    Config, Encoding, GroupChoice,
    reserved::ReservedNames,
    wire_forms::{SiteSlot, WireForms},
};
use crate::{
    http1::{fields::Block, spelling::Spelled},
    sessions::{Live, Session},
    users::User,
};

/// The size of a user's headers above which the log warns: nginx accepts lines of 8 KiB, Node.js a head of 16 KiB.
const MUCH: usize = 4096;
/// Users for whom it is remembered that the log has warned.
const REMEMBERED: usize = 1024;
/// The estimated size of an assertion without the user's own values.
const ASSERTION: usize = 500;

/// A value that is not valid in a header: the request is refused rather than sent without it.
#[derive(Debug, thiserror::Error)]
#[error("the {0} of the user is not valid in a header")]
pub struct Unrepresentable(&'static str);

/// Recognises claims of an identity, and makes the headers of a real one.
#[derive(Clone, Debug)]
pub struct IdentityHeaders {
    /// `None`: not sent.
    user: Option<Spelled>,
    email: Option<Spelled>,
    name: Option<Spelled>,
    groups: Option<Spelled>,
    encoding: Encoding,
    choice: GroupChoice,
    /// Whether an assertion repeats everything.
    signs: bool,
    site: SiteSlot,
    reserved: ReservedNames,
    /// The users and sizes that the log has warned of: while a store is down, a session may be loaded for each request.
    told: Arc<Cache<(String, usize), ()>>,
}

impl IdentityHeaders {
    pub fn new(config: &Config) -> Self {
        let names = &config.headers;
        let ours = names.all().into_iter().flatten();
        Self {
            reserved: ReservedNames::new(ours.map(HeaderName::as_str), &config.pass_headers),
            user: names.user.clone(),
            email: names.email.clone(),
            name: names.name.clone(),
            groups: names.groups.clone(),
            encoding: config.encoding,
            choice: config.groups.clone(),
            signs: config.assertion.is_some(),
            site: SiteSlot::new(0, 1),
            told: Arc::new(Cache::new(REMEMBERED)),
        }
    }

    /// The same for one of several sites.
    #[must_use]
    pub fn at_site(self, site: SiteSlot) -> Self {
        Self { site, ..self }
    }

    /// Whether a portal could read `name`, in any spelling, as a header of the identity or of the forwarding.
    pub fn is_reserved(&self, name: &HeaderName) -> bool {
        self.reserved.has(name)
    }

    /// The headers of one session, made once.
    pub fn of<'a>(&self, live: &'a Live) -> Result<&'a Block, Unrepresentable> {
        let kept = &WireForms::of(live, self.site).ok_or(Unrepresentable("session"))?.headers;
        if let Some(headers) = kept.get() {
            return Ok(headers);
        }
        let headers = self.prepare(&live.session)?;
        Ok(kept.get_or_init(|| headers))
    }

    /// Every header of the identity, with its value from `block`; empty if the block has none.
    pub fn all<'a>(
        &'a self,
        block: Option<&'a Block>,
    ) -> impl Iterator<Item = (HeaderName, HeaderValue)> + 'a {
        let names = [&self.user, &self.email, &self.name, &self.groups];
        names.into_iter().flatten().map(move |spelled| {
            let set = block.and_then(|block| block.fields().iter().find(|(name, _)| *name == spelled.name));
            let value = set.map_or(HeaderValue::from_static(""), |(_, value)| value.clone());
            (spelled.name.clone(), value)
        })
    }

    /// The headers for a user who is signed in, by name and value.
    pub fn told(&self, user: &User) -> Result<Vec<(String, String)>, Unrepresentable> {
        let User { name, email, display_name, groups, .. } = user;
        let fields = self.fields([name.as_str(), email, display_name], groups)?;
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Ok(fields
            .iter()
            .map(|(header, value)| (String::from_utf8_lossy(header.as_bytes()).into_owned(), text(value)))
            .collect())
    }

    fn prepare(&self, session: &Session) -> Result<Block, Unrepresentable> {
        let Session { name, email, display_name, groups, .. } = session;
        let block = Block::spelled(self.fields([name, email, display_name], groups)?);
        self.warn_of_much(session, &block);
        Ok(block)
    }

    fn fields(
        &self,
        [name, email, display_name]: [&str; 3],
        groups: &[String],
    ) -> Result<Vec<(&Spelled, HeaderValue)>, Unrepresentable> {
        let groups: Vec<_> = self.choice.of(groups).map(|group| self.encoding.encode(group)).collect();
        let facts = [
            (&self.user, "name", self.encoding.encode(name)),
            (&self.email, "e-mail", self.encoding.encode(email)),
            (&self.name, "display name", self.encoding.encode(display_name)),
            (&self.groups, "groups", groups.join(",").into()),
        ];
        let mut fields = Vec::with_capacity(facts.len());
        for (header, what, text) in &facts {
            let value = HeaderValue::from_bytes(text.as_bytes()).map_err(|_| Unrepresentable(what))?;
            fields.extend(header.as_ref().map(|header| (header, value)));
        }
        Ok(fields)
    }

    fn warn_of_much(&self, session: &Session, block: &Block) {
        let groups = self.choice.of(&session.groups);
        let signed: usize = groups.map(|group| group.len() + 3).sum();
        let signed = if self.signs { ASSERTION + signed * 4 / 3 } else { 0 };
        let bytes = block.wire().len() + signed;
        if bytes > MUCH && self.is_news(session, bytes) {
            tracing::warn!(
                user.name = session.name,
                bytes,
                groups = session.groups.len(),
                "the headers that tell the portal about this user are large, and many servers refuse such requests with \
                 400 or 431: choose the groups that the portal needs with identity.groups"
            );
        }
    }
    fn is_news(&self, session: &Session, bytes: usize) -> bool {
        let key = (session.name.clone(), bytes);
        let news = self.told.get(&key).is_none();
        self.told.insert(key, ());
        news
    }
}
