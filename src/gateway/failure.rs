//! Every reason why a request gets no regular response, and what follows from each, in one table.

use std::time::Duration;

use http::StatusCode;
use http_body_util::LengthLimitError;

use super::limits::Limit;
use crate::{
    database::DatabaseError,
    forward_auth::Unclear,
    identity::{Unrepresentable, Unsigned},
    login::LoginError,
    pages::{PageError, Trouble},
    proxy::ForwardError,
    saved_forms::FormId,
    sessions::SessionError,
    telemetry::Outcome,
    tokens::TokenFault,
    upstream::ConnectError,
    web::gate::Refusal,
};

/// When to try again, as far as can be known.
const SOON: Duration = Duration::from_secs(5);
/// The same for a password: hashing one takes less than a second.
const PASSWORD_SOON: Duration = Duration::from_secs(2);

/// Every reason why a request gets no regular response.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the request was refused")]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Question(#[from] Unclear),
    #[error("the request has come back to this gateway: `portal.upstreams` leads here")]
    Loop,
    #[error("a page of another site asked for a connection")]
    ForeignOrigin,
    #[error("a service worker could answer in place of the login: `portal.service_worker` forbids it")]
    ServiceWorker,
    #[error("denied by {0}")]
    Denied(Box<str>),
    #[error("cannot go on with the token that was shown")]
    Token {
        #[source]
        fault: TokenFault,
        /// It was sent as a Basic password.
        is_basic: bool,
    },
    #[error("overloaded: serving signed-in users only")]
    Overload,
    #[error("too many pages requested at once on one connection")]
    TooManyPages,
    #[error("the user has too much under way: {0:?}")]
    TooMuch(Limit),
    #[error("cannot check the session")]
    Session(#[from] SessionError),
    #[error("cannot reach the portal")]
    Forward(#[from] ForwardError),
    #[error("cannot serve a page of our own")]
    Page(#[from] PageError),
    #[error("cannot put the identity into headers")]
    Identity(#[from] Unrepresentable),
    #[error("cannot sign the assertion")]
    Assertion(#[from] Unsigned),
    #[error("cannot save or load a form")]
    SavedForm(#[from] DatabaseError),
    #[error("cannot send the saved form; it stays saved")]
    Unsent(FormId, #[source] ConnectError),
    #[error("a task working on the request was cancelled or panicked")]
    Lost(#[source] tokio::task::JoinError),
}

/// Who caused a failure, which decides the level in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    Client,
    /// The user has reached a limit.
    User(Limit),
    /// The gateway is overloaded.
    Load,
    /// With the label in `portcullis_upstream_errors`.
    Portal(&'static str),
    Store,
    Gateway,
}

/// The consequences of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FailureProfile {
    pub(super) status: StatusCode,
    pub(super) outcome: Outcome,
    pub(super) blame: Blame,
    /// The following bytes of the connection may be misread.
    pub(super) closes: bool,
    pub(super) retry_after: Option<Duration>,
    /// The text on the page, if the status does not say it all.
    pub(super) trouble: Option<Trouble>,
}

impl FailureProfile {
    fn new(status: StatusCode, outcome: Outcome, blame: Blame) -> Self {
        let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(SOON);
        Self { status, outcome, blame, closes: false, retry_after, trouble: None }
    }

    fn closing(self) -> Self {
        Self { closes: true, ..self }
    }

    fn after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    fn told(self, trouble: Trouble) -> Self {
        Self { trouble: Some(trouble), ..self }
    }

    fn of_gateway(status: StatusCode) -> Self {
        Self::new(status, Outcome::Error, Blame::Gateway)
    }

    fn of_store() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Outcome::Error, Blame::Store)
    }

    fn too_much(limit: Limit, wait: Duration) -> Self {
        let trouble = match limit {
            Limit::Requests => Trouble::ManyRequests,
            Limit::Streams | Limit::Connection => Trouble::ManyStreams,
            Limit::Pages => Trouble::ManyPages,
        };
        let refused = Self::new(StatusCode::TOO_MANY_REQUESTS, Outcome::Refuse, Blame::User(limit));
        refused.after(wait).told(trouble)
    }

    /// The portal has not responded.
    fn unanswered(status: StatusCode, kind: &'static str) -> Self {
        Self::new(status, Outcome::Error, Blame::Portal(kind))
    }

    fn portal_busy() -> Self {
        Self::unanswered(StatusCode::SERVICE_UNAVAILABLE, "busy").told(Trouble::PortalBusy)
    }

    fn unreached(error: &ConnectError) -> Self {
        if error.is_busy() {
            Self::portal_busy()
        } else {
            Self::unanswered(StatusCode::BAD_GATEWAY, "connect")
        }
    }

    fn of_forward(error: &ForwardError) -> Self {
        let of_client = |status| Self::new(status, Outcome::Error, Blame::Client).closing();
        match error {
            ForwardError::Connect(error) => Self::unreached(error),
            ForwardError::Streams => Self::portal_busy(),
            ForwardError::Timeout(_) => Self::unanswered(StatusCode::GATEWAY_TIMEOUT, "timeout"),
            ForwardError::Answer(_)
            | ForwardError::Call(_)
            | ForwardError::Lost
            | ForwardError::Switch
            | ForwardError::Handshake => Self::unanswered(StatusCode::BAD_GATEWAY, "answer"),
            ForwardError::RequestBody(_) => of_client(StatusCode::BAD_REQUEST),
            ForwardError::SessionEnded => of_client(StatusCode::UNAUTHORIZED),
        }
    }

    fn of_token(fault: &TokenFault) -> Self {
        match fault {
            TokenFault::Refused(_) => Self::new(StatusCode::UNAUTHORIZED, Outcome::Deny, Blame::Client),
            TokenFault::Throttled(wait) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, Outcome::Refuse, Blame::Client).after(*wait)
            }
            TokenFault::Store(_) | TokenFault::Throttle(_) => Self::of_store(),
        }
    }

    fn of_page(error: &PageError) -> Self {
        let of_form = |status| Self::new(status, Outcome::Own, Blame::Client);
        match error {
            PageError::FormType => of_form(StatusCode::UNSUPPORTED_MEDIA_TYPE).closing(),
            PageError::FormBody(error) if error.is::<LengthLimitError>() => {
                of_form(StatusCode::PAYLOAD_TOO_LARGE).closing()
            }
            PageError::FormBody(_) => of_form(StatusCode::BAD_REQUEST).closing(),
            PageError::Form(_) => of_form(StatusCode::BAD_REQUEST),
            PageError::Login(LoginError::Busy) => {
                let busy = Self::new(StatusCode::SERVICE_UNAVAILABLE, Outcome::Error, Blame::Load);
                busy.after(PASSWORD_SOON).told(Trouble::ManySignIns)
            }
            PageError::Login(
                LoginError::Users(_)
                | LoginError::Credentials(_)
                | LoginError::Throttle(_)
                | LoginError::Pending(_)
                | LoginError::Sessions(_)
                | LoginError::Proofs(_)
                | LoginError::Password(_),
            )
            | PageError::Account(_)
            | PageError::ByMail(_) => Self::of_store().told(Trouble::NoSignIns),
            PageError::SavedForm(_) | PageError::HandOver(_) => Self::of_store(),
            PageError::TooOften(wait) => Self::too_much(Limit::Pages, *wait),
            PageError::Qr(_) => Self::of_gateway(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

impl Failure {
    /// The consequences of this failure. A new failure goes here, and nowhere else.
    pub(super) fn profile(&self) -> FailureProfile {
        match self {
            Self::Refused(refusal) => {
                FailureProfile::new(refusal.status(), Outcome::Refuse, Blame::Client).closing()
            }
            Self::Question(unclear) => FailureProfile::new(
                if *unclear == Unclear::NotHere { StatusCode::NOT_FOUND } else { StatusCode::BAD_REQUEST },
                Outcome::Refuse,
                Blame::Client,
            ),
            Self::ForeignOrigin | Self::ServiceWorker => {
                FailureProfile::new(StatusCode::FORBIDDEN, Outcome::Deny, Blame::Client)
            }
            Self::Denied(_) => {
                let denied = FailureProfile::new(StatusCode::FORBIDDEN, Outcome::Deny, Blame::Client);
                denied.told(Trouble::NoAccess)
            }
            Self::Token { fault, .. } => FailureProfile::of_token(fault),
            Self::Overload => {
                let shed = FailureProfile::new(StatusCode::SERVICE_UNAVAILABLE, Outcome::Shed, Blame::Load);
                shed.closing().told(Trouble::Overload)
            }
            Self::TooManyPages => {
                FailureProfile::new(StatusCode::SERVICE_UNAVAILABLE, Outcome::Refuse, Blame::Client)
            }
            Self::TooMuch(limit) => FailureProfile::too_much(*limit, SOON),
            Self::Session(_) | Self::SavedForm(_) => FailureProfile::of_store(),
            Self::Forward(error) => FailureProfile::of_forward(error),
            Self::Unsent(_, error) => FailureProfile::unreached(error),
            Self::Page(error) => FailureProfile::of_page(error),
            Self::Loop => FailureProfile::of_gateway(StatusCode::LOOP_DETECTED),
            Self::Identity(_) | Self::Assertion(_) | Self::Lost(_) => {
                FailureProfile::of_gateway(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use http_body_util::{BodyExt as _, Full, Limited};

    use super::*;
    use crate::{
        account::AccountError,
        tokens::{TokenRefusal, TokensError},
    };

    type Row = (Failure, u16, Outcome, Blame, bool, Option<u64>);

    fn too_large() -> Box<dyn std::error::Error + Send + Sync> {
        let body = Limited::new(Full::new(Bytes::from_static(b"x")), 0);
        body.collect().now_or_never().unwrap().unwrap_err()
    }

    fn rows() -> Vec<Row> {
        use Blame::{Client, Gateway, Load, Portal, Store, User};
        use Outcome::{Deny, Error, Own, Refuse, Shed};
        let full = || ConnectError::Full;
        let page = |error| Failure::Page(error);
        let store = || DatabaseError::Aborted;
        let wait = Duration::from_secs(7);
        let token = |fault| Failure::Token { fault, is_basic: false };
        vec![
            (Refusal::Path.into(), 400, Refuse, Client, true, None),
            (Refusal::Misdirected(Box::default()).into(), 421, Refuse, Client, true, None),
            (Failure::Loop, 508, Error, Gateway, false, None),
            (Failure::ForeignOrigin, 403, Deny, Client, false, None),
            (Failure::ServiceWorker, 403, Deny, Client, false, None),
            (Failure::Denied("access.default".into()), 403, Deny, Client, false, None),
            (token(TokenFault::Refused(TokenRefusal::Expired)), 401, Deny, Client, false, None),
            (token(TokenFault::Throttled(wait)), 429, Refuse, Client, false, Some(7)),
            (token(TokenFault::Store(TokensError::Slow)), 503, Error, Store, false, Some(5)),
            (Failure::Overload, 503, Shed, Load, true, Some(5)),
            (Failure::TooManyPages, 503, Refuse, Client, false, Some(5)),
            (Failure::TooMuch(Limit::Requests), 429, Refuse, User(Limit::Requests), false, Some(5)),
            (Failure::SavedForm(store()), 503, Error, Store, false, Some(5)),
            (ForwardError::Connect(full()).into(), 503, Error, Portal("busy"), false, Some(5)),
            (ForwardError::Streams.into(), 503, Error, Portal("busy"), false, Some(5)),
            (ForwardError::Timeout(wait).into(), 504, Error, Portal("timeout"), false, None),
            (ForwardError::Lost.into(), 502, Error, Portal("answer"), false, None),
            (ForwardError::SessionEnded.into(), 401, Error, Client, true, None),
            (page(PageError::FormType), 415, Own, Client, true, None),
            (page(PageError::FormBody(too_large())), 413, Own, Client, true, None),
            (page(PageError::FormBody("cut".into())), 400, Own, Client, true, None),
            (page(LoginError::Busy.into()), 503, Error, Load, false, Some(2)),
            (page(AccountError::Pending(store()).into()), 503, Error, Store, false, Some(5)),
            (page(PageError::SavedForm(store())), 503, Error, Store, false, Some(5)),
            (page(PageError::HandOver(store())), 503, Error, Store, false, Some(5)),
            (page(PageError::TooOften(wait)), 429, Refuse, User(Limit::Pages), false, Some(7)),
        ]
    }

    #[test]
    fn each_failure_is_answered_logged_and_counted_as_what_it_is() {
        for (failure, status, outcome, blame, closes, retry_after) in rows() {
            let profile = failure.profile();
            assert_eq!(profile.status.as_u16(), status, "{failure:?}");
            assert_eq!(
                (profile.outcome, profile.blame, profile.closes),
                (outcome, blame, closes),
                "{failure:?}"
            );
            assert_eq!(profile.retry_after.map(|wait| wait.as_secs()), retry_after, "{failure:?}");
        }
    }
}
