//! The page on which users make their own tokens, and the page that shows a new token once.

use std::time::Duration;

use http::StatusCode;

use super::{
    PageError, Pages,
    enrolment::date,
    route::paths,
    sign_in::prove_again,
    texts,
    views::{LifetimeChoice, Message, NewTokenErrors, NewTokenPage, TokenMadePage, TokenRow, View},
    visit::Visit,
};
use crate::{
    access::AccessPath,
    account::AccountError,
    sessions::{Level, Session},
    tokens::{NewOwnToken, TokenRecord, TokensError, own_name},
    web::{
        answer::{self, Answer},
        form::Form,
        return_to::ReturnTo,
    },
};

const DAY: Duration = Duration::from_hours(24);
/// The lifetimes on offer in days, as far as the operator allows them.
const LIFETIMES: [u32; 4] = [7, 30, 90, 365];
/// The default lifetime.
const USUAL: Duration = Duration::from_hours(30 * 24);
/// Maximum number of path lines, and of characters in one.
const MOST_PATHS: usize = 20;
const LONGEST_PATH: usize = 256;

/// The typed values, and the errors in them.
#[derive(Default)]
struct NewTokenForm<'a> {
    name: &'a str,
    paths: &'a str,
    /// In seconds; `None`: the default.
    lifetime: Option<Duration>,
    errors: NewTokenErrors,
}

impl Pages {
    pub(super) fn show_new_token(&self, visit: &Visit) -> Answer {
        match self.may_make_tokens(visit) {
            Ok(session) if self.login.is_fresh(session) => {
                self.new_token_page(session, StatusCode::OK, NewTokenForm::default())
            }
            Ok(_) => prove_again(&ReturnTo::parse(paths::NEW_TOKEN)),
            Err(answer) => *answer,
        }
    }

    pub(super) async fn post_new_token(&self, visit: Visit, form: &Form) -> Result<Answer, PageError> {
        let session = match self.may_make_tokens(&visit) {
            Ok(session) => session,
            Err(answer) => return Ok(*answer),
        };
        let csrf = form.value("csrf");
        let chosen = form.value("lifetime").parse().ok().map(Duration::from_secs);
        let mut page = NewTokenForm {
            name: form.value("name"),
            paths: form.value("paths"),
            lifetime: chosen,
            errors: NewTokenErrors::default(),
        };
        if !self.is_session_form(&session.id, csrf) {
            page.errors.form = Some(texts::FORM_OUT_OF_DATE);
            return Ok(self.new_token_page(session, StatusCode::FORBIDDEN, page));
        }
        if !self.was_shown_in_time(session, csrf) {
            return Ok(prove_again(&ReturnTo::parse(paths::NEW_TOKEN)));
        }
        let name = own_name(page.name);
        let lifetime = chosen.filter(|chosen| self.lifetimes().contains(chosen));
        let (Some(name), Some(lifetime), Ok(paths)) = (&name, lifetime, read_paths(page.paths)) else {
            page.errors.name = name.is_none().then_some(texts::TOKEN_NAME_WRONG);
            page.errors.paths = read_paths(page.paths).err();
            page.errors.lifetime = lifetime.is_none().then_some(texts::TOKEN_LIFETIME_MISSING);
            return Ok(self.new_token_page(session, StatusCode::UNPROCESSABLE_ENTITY, page));
        };
        let expires_at = self.clock.now().plus(lifetime);
        let new = NewOwnToken { name: name.clone(), paths, expires_at };
        match self.accounts.create_token(session, new, &visit.source()).await {
            Ok((token, record)) => Ok(self.token_page(&token, &record)),
            Err(AccountError::Tokens(error)) => {
                let errors = &mut page.errors;
                match error {
                    TokensError::Exists(_) => errors.name = Some(texts::TOKEN_NAME_TAKEN),
                    TokensError::TooMany => errors.form = Some(texts::TOO_MANY_TOKENS),
                    error => return Err(AccountError::Tokens(error).into()),
                }
                Ok(self.new_token_page(session, StatusCode::UNPROCESSABLE_ENTITY, page))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The session, if it may make tokens; otherwise the response.
    fn may_make_tokens<'a>(&self, visit: &'a Visit) -> Result<&'a Session, Box<Answer>> {
        if !self.own_tokens.self_service {
            return Err(self.message_page(StatusCode::NOT_FOUND, &visit.request_id).into());
        }
        match &visit.session {
            None => Err(answer::see_other(&ReturnTo::parse(paths::NEW_TOKEN).append_to(paths::LOGIN)).into()),
            Some(live) if live.session.level() == Level::One => {
                Err(self.message(Message::takes_a_second_factor(&visit.request_id)).into())
            }
            Some(live) => Ok(&live.session),
        }
    }

    fn new_token_page(&self, session: &Session, status: StatusCode, form: NewTokenForm<'_>) -> Answer {
        let lifetimes = self.lifetimes();
        let usual = lifetimes.iter().rev().find(|&&lifetime| lifetime <= USUAL).or_else(|| lifetimes.first());
        let chosen = form.lifetime.or_else(|| usual.copied());
        let lifetimes: Vec<_> = lifetimes
            .iter()
            .map(|&lifetime| LifetimeChoice {
                seconds: lifetime.as_secs(),
                label: texts::days_or_hours(lifetime),
                chosen: chosen == Some(lifetime),
            })
            .collect();
        let view = View::NewToken(NewTokenPage {
            name: form.name,
            paths: form.paths,
            lifetimes: &lifetimes,
            errors: form.errors,
            csrf: &self.csrf.token(&session.id),
        });
        answer::html(status, self.templates.render(&view))
    }

    /// From the shortest to the longest that the operator allows.
    fn lifetimes(&self) -> Vec<Duration> {
        let longest = self.own_tokens.max_lifetime;
        let offered = LIFETIMES.iter().map(|&days| days * DAY).filter(|&offered| offered < longest);
        offered.chain([longest]).collect()
    }

    fn token_page(&self, token: &str, record: &TokenRecord) -> Answer {
        let view = View::TokenMade(TokenMadePage { token, row: &token_row(record, false) });
        answer::html(StatusCode::OK, self.templates.render(&view))
    }

    /// The tokens on the account page. If users may not make any, only those that they have made.
    pub(super) async fn token_rows(&self, session: &Session) -> Result<Vec<TokenRow>, PageError> {
        let now = self.clock.now();
        let may_make = self.own_tokens.self_service;
        let tokens = self.accounts.tokens(session).await?;
        let shown = tokens.iter().filter(|record| may_make || record.is_own());
        Ok(shown.map(|record| token_row(record, record.is_over(now).is_some())).collect())
    }
}

fn token_row(record: &TokenRecord, is_over: bool) -> TokenRow {
    TokenRow {
        id: record.id.clone(),
        name: record.own_name().to_owned(),
        made: date(record.created_at),
        last_used: record.last_used_at.map(date),
        expires: record.expires_at.map(date),
        is_over,
        is_own: record.is_own(),
        limits: record.scope.paths.join(", "),
    }
}

/// One path per line.
fn read_paths(typed: &str) -> Result<Vec<String>, &'static str> {
    let lines = typed.lines().map(str::trim).filter(|line| !line.is_empty());
    let paths: Vec<_> = lines.map(str::to_owned).collect();
    if paths.len() > MOST_PATHS {
        return Err(texts::TOO_MANY_TOKEN_PATHS);
    }
    if paths.iter().any(|path| path.chars().count() > LONGEST_PATH || AccessPath::parse(path).is_err()) {
        return Err(texts::TOKEN_PATH_WRONG);
    }
    Ok(paths)
}
