//! From errors to answers. Whatever went wrong, the answer lets nobody in and takes no cookie away.

use std::{cell::Cell, time::Duration};

use http::{StatusCode, header};
use http_body_util::LengthLimitError;

use super::{Gateway, body::Note, bounds::Limit};
use crate::{
    database::DatabaseError,
    errors::Chain,
    identity::{Unrepresentable, Unsigned},
    kept_forms::FormId,
    login::LoginError,
    pages::{PageError, Trouble},
    proxy::ForwardError,
    sessions::SessionError,
    upstream::ConnectError,
    web::{
        answer::{self, Answer, Problem},
        gate::Refusal,
        grpc,
        hops::ALLOWED,
    },
};

/// Everything that can keep a request from its answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the request was refused")]
    Refused(#[from] Refusal),
    #[error("the request has come back to this gateway: `portal.upstreams` leads here")]
    Loop,
    #[error("a page of another site asked for a connection")]
    ForeignOrigin,
    #[error("a service worker could answer in place of the login: `portal.service_worker` forbids it")]
    ServiceWorker,
    #[error("overloaded: serving signed-in users only")]
    Overload,
    #[error("the connection asks for too many of our pages at once")]
    Crowd,
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
    KeptForm(#[from] DatabaseError),
    #[error("cannot send the saved form, which is kept")]
    Unsent(FormId, #[source] ConnectError),
    #[error("the work on the request broke off")]
    Lost(#[source] tokio::task::JoinError),
}

/// How often a line in the log says that sign-ins are turned away: a flood of them is none of lines.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Sign-ins for which there was no place, on one worker, and when the log last said so.
#[derive(Debug, Default)]
pub(super) struct TurnedAway {
    unsaid: Cell<u64>,
    said: Cell<Option<Duration>>,
}

impl TurnedAway {
    /// Counts one. When it is time for a line: how many there have been since the last.
    fn tells(&self, now: Duration) -> Option<u64> {
        let unsaid = self.unsaid.get() + 1;
        if self.said.get().is_some_and(|said| now.saturating_sub(said) < TELL_EVERY) {
            self.unsaid.set(unsaid);
            return None;
        }
        self.said.set(Some(now));
        self.unsaid.set(0);
        Some(unsaid)
    }
}

/// Who is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Person,
    /// A person who sees it as a part of a page of the portal.
    Frame,
    Script,
    /// A client of gRPC.
    Call,
}

impl Failure {
    /// What a client of gRPC is told besides the status.
    fn word(&self) -> &'static str {
        match self {
            Self::Forward(ForwardError::SessionEnded) => "the session has ended",
            Self::Forward(ForwardError::Timeout(_)) => "the portal did not answer in time",
            Self::Forward(_) | Self::Unsent(..) => "the portal did not answer",
            _ => "the gateway cannot answer",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Refused(refusal) => refusal.status(),
            Self::ForeignOrigin | Self::ServiceWorker => StatusCode::FORBIDDEN,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::Overload
            | Self::Crowd
            | Self::Session(_)
            | Self::KeptForm(_)
            | Self::Page(PageError::Login(_) | PageError::KeptForm(_))
            | Self::Forward(ForwardError::Streams) => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooMuch(_) | Self::Page(PageError::TooOften(_)) => StatusCode::TOO_MANY_REQUESTS,
            Self::Forward(ForwardError::Timeout(_)) => StatusCode::GATEWAY_TIMEOUT,
            Self::Forward(ForwardError::SessionEnded) => StatusCode::UNAUTHORIZED,
            Self::Forward(ForwardError::RequestBody(_)) => StatusCode::BAD_REQUEST,
            Self::Forward(ForwardError::Connect(error)) | Self::Unsent(_, error) if error.is_busy() => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Forward(_) | Self::Unsent(..) => StatusCode::BAD_GATEWAY,
            Self::Page(PageError::FormType) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Page(PageError::FormBody(error)) if error.is::<LengthLimitError>() => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::Page(PageError::FormBody(_) | PageError::Form(_)) => StatusCode::BAD_REQUEST,
            Self::Page(PageError::Qr(_)) | Self::Identity(_) | Self::Assertion(_) | Self::Lost(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }

    /// What a person is told where the status does not say it all.
    fn trouble(&self) -> Option<Trouble> {
        Some(match self {
            Self::TooMuch(Limit::Requests) => Trouble::ManyRequests,
            Self::TooMuch(Limit::Streams | Limit::Connection) => Trouble::ManyStreams,
            Self::TooMuch(Limit::Pages) | Self::Page(PageError::TooOften(_)) => Trouble::ManyPages,
            Self::Overload => Trouble::Overload,
            Self::Page(PageError::Login(LoginError::Busy)) => Trouble::ManySignIns,
            Self::Page(PageError::Login(_)) => Trouble::NoSignIns,
            Self::Forward(ForwardError::Streams) => Trouble::PortalBusy,
            Self::Forward(ForwardError::Connect(error)) if error.is_busy() => Trouble::PortalBusy,
            _ => return None,
        })
    }

    /// The word for it in the access log.
    fn decision(&self) -> &'static str {
        match self {
            Self::Refused(_) | Self::Crowd | Self::TooMuch(_) | Self::Page(PageError::TooOften(_)) => {
                "refuse"
            }
            Self::ForeignOrigin | Self::ServiceWorker => "deny",
            Self::Overload => "shed",
            Self::Page(PageError::FormType | PageError::FormBody(_) | PageError::Form(_)) => "own",
            Self::Loop
            | Self::Session(_)
            | Self::KeptForm(_)
            | Self::Forward(_)
            | Self::Unsent(..)
            | Self::Page(_)
            | Self::Identity(_)
            | Self::Assertion(_)
            | Self::Lost(_) => "error",
        }
    }

    /// When it is worth asking again.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Page(PageError::Login(LoginError::Busy)) => Some(Duration::from_secs(2)),
            Self::Page(PageError::TooOften(wait)) => Some(*wait),
            Self::TooMuch(_) => Some(Duration::from_secs(5)),
            _ if self.status() == StatusCode::SERVICE_UNAVAILABLE => Some(Duration::from_secs(5)),
            _ => None,
        }
    }

    /// Whether the rest of the connection's bytes cannot be trusted to be what they seem.
    fn closes(&self) -> bool {
        matches!(
            self,
            Self::Refused(_)
                | Self::Overload
                | Self::Forward(ForwardError::RequestBody(_) | ForwardError::SessionEnded)
                | Self::Page(PageError::FormType | PageError::FormBody(_))
        )
    }
}

impl Gateway {
    /// The answer to a request that failed: a page for a person, a problem for a script.
    pub(super) fn rescue(&self, failure: &Failure, told: Told, note: &mut Note) -> Answer {
        let status = failure.status();
        note.closes = failure.closes();
        note.decision = failure.decision();
        if let Failure::Refused(Refusal::Misdirected(asked)) = failure {
            note.asked_host = Some(shown(&asked.host).into());
        }
        self.report(failure, note);
        if matches!(failure, Failure::Crowd) {
            // A page is what such a client would have us hold.
            let mut answer = answer::empty(status);
            failure.retry_after().into_iter().for_each(|wait| answer::retry_after(&mut answer, wait));
            return answer;
        }
        // What is wrong with HTTP itself is told in its own words.
        if told == Told::Call && !matches!(failure, Failure::Refused(_)) {
            return grpc::refusal(grpc::status_like(status), failure.word());
        }
        let mut answer = if matches!(told, Told::Person | Told::Frame) {
            let mut page = match failure {
                Failure::Unsent(id, _) => self.shared.pages.form_waits(id, status, note.request_id()),
                _ => match failure.trouble() {
                    Some(trouble) => self.shared.pages.trouble_page(trouble, status, note.request_id()),
                    None => self.shared.pages.message_page(status, note.request_id()),
                },
            };
            if told == Told::Frame {
                answer::allow_framing(&mut page);
            }
            page
        } else {
            let detail = match failure {
                Failure::Refused(Refusal::Misdirected(_)) => Some(format!(
                    "this gateway answers for https://{} only",
                    self.shared.request_gate.authority()
                )),
                Failure::Refused(refusal) => Some(refusal.to_string()),
                Failure::TooMuch(limit) => Some(limit.detail().to_owned()),
                Failure::Page(PageError::TooOften(_)) => Some(Limit::Pages.detail().to_owned()),
                Failure::ServiceWorker => {
                    Some("No service worker may be registered for this scope.".to_owned())
                }
                _ => None,
            };
            answer::problem(&Problem {
                kind: "about:blank",
                title: status.canonical_reason().unwrap_or("Error"),
                status: status.as_u16(),
                detail: detail.as_deref(),
                login_url: None,
                request_id: Some(note.request_id()),
            })
        };
        if let Some(wait) = failure.retry_after() {
            answer::retry_after(&mut answer, wait);
        }
        if status == StatusCode::UNAUTHORIZED {
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, self.shared.challenger.authenticate());
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            answer.headers_mut().insert(header::ALLOW, ALLOWED);
        }
        answer
    }

    /// One line in the log, by whose fault it is: the operator's things are loud, a client's quiet.
    fn report(&self, failure: &Failure, note: &Note) {
        let request_id = note.request_id();
        match failure {
            Failure::Refused(Refusal::Misdirected(asked)) => tracing::info!(
                request.id = request_id,
                client.ip = %note.client_ip,
                asked = shown(&asked.host),
                x_forwarded_host = asked.forwarded.as_deref().map(shown),
                ours = self.shared.request_gate.authority(),
                "refused a request for another host than server.public_url; if it came through a load balancer, have it \
                 pass on the Host of the client, or list it in server.trusted_proxies and set server.client_host to \
                 x-forwarded-host"
            ),
            Failure::ServiceWorker => {
                tracing::info!(request.id = request_id, "refused the script of a service worker: {failure}");
            }
            Failure::TooMuch(limit) => self.held_back(*limit, note),
            Failure::Page(PageError::TooOften(_)) => self.held_back(Limit::Pages, note),
            // The level of load has been logged when it changed.
            Failure::Overload => {}
            Failure::Loop => tracing::error!(request.id = request_id, error = %Chain(failure), "a loop"),
            Failure::Refused(_)
            | Failure::Crowd
            | Failure::ForeignOrigin
            | Failure::Forward(ForwardError::RequestBody(_) | ForwardError::SessionEnded) => {
                tracing::debug!(request.id = request_id, error = %Chain(failure), "refused a request");
            }
            Failure::Forward(error) => {
                self.shared.metrics.upstream_error(match error {
                    ForwardError::Streams => "busy",
                    ForwardError::Connect(error) => not_reached(error),
                    ForwardError::Timeout(_) => "timeout",
                    _ => "answer",
                });
                tracing::warn!(request.id = request_id, error = %Chain(failure), "the portal did not answer");
            }
            Failure::Unsent(_, error) => {
                self.shared.metrics.upstream_error(not_reached(error));
                tracing::warn!(request.id = request_id, error = %Chain(failure), "the portal did not answer");
            }
            Failure::Page(PageError::Login(LoginError::Busy)) => {
                if let Some(turned_away) = self.turned_away.tells(self.shared.clock.elapsed()) {
                    tracing::warn!(
                        request.id = request_id,
                        turned_away,
                        "too many passwords to check at once: turned sign-ins away"
                    );
                }
            }
            Failure::Session(_)
            | Failure::KeptForm(_)
            | Failure::Page(PageError::Login(_) | PageError::KeptForm(_)) => {
                self.shared.metrics.store_error();
                tracing::error!(request.id = request_id, error = %Chain(failure), "a store did not answer");
            }
            Failure::Page(PageError::FormType | PageError::FormBody(_) | PageError::Form(_)) => {
                tracing::debug!(request.id = request_id, error = %Chain(failure), "refused a form");
            }
            Failure::Page(PageError::Qr(_))
            | Failure::Identity(_)
            | Failure::Assertion(_)
            | Failure::Lost(_) => {
                tracing::error!(request.id = request_id, error = %Chain(failure), "cannot answer a request");
            }
        }
    }
}

/// A host as it came, less what is too long for a name of a host and may be a secret in the wrong place.
fn shown(host: &str) -> String {
    const LONGEST: usize = 40;
    let labels = host.split('.').take(16).map(|label| if label.len() > LONGEST { "…" } else { label });
    labels.collect::<Vec<_>>().join(".")
}

fn not_reached(error: &ConnectError) -> &'static str {
    if error.is_busy() { "busy" } else { "connect" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_sign_ins_is_one_line_in_ten_seconds() {
        let turned_away = TurnedAway::default();
        let said = |millis| turned_away.tells(Duration::from_millis(millis));
        assert_eq!(said(500), Some(1));
        for millis in 501..600 {
            assert_eq!(said(millis), None);
        }
        assert_eq!(said(10_499), None);
        assert_eq!(said(10_500), Some(101));
        assert_eq!(said(10_501), None);
        assert_eq!(said(30_000), Some(2));
    }
}
