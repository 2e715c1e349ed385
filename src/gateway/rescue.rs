//! Turns errors into responses. Whatever went wrong, the response lets nobody in and removes no cookie.

use std::{cell::Cell, rc::Rc, time::Duration};

use http::{HeaderValue, StatusCode, header};

use super::{
    Gateway, Site,
    body::RequestRecord,
    failure::{Blame, Failure, FailureProfile},
};
use crate::{
    errors::Chain,
    gate::BASIC,
    login::LoginError,
    pages::PageError,
    tokens::{TokenFault, TokenRefusal},
    web::{
        answer::{self, Answer, ProblemDetails},
        gate::{ALLOWED, Refusal},
        grpc,
    },
};

/// How often the log reports rejected sign-ins, so that a flood of them does not flood the log.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Sign-ins rejected for lack of capacity on one worker, and when the log last reported them.
#[derive(Debug, Default)]
pub(super) struct TurnedAway {
    unsaid: Cell<u64>,
    said: Cell<Option<Duration>>,
}

impl TurnedAway {
    /// Counts one. When a line is due: how many there have been since the last.
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

/// Who reads the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    Person,
    /// A person who sees it inside a page of the portal.
    Frame,
    Script,
    /// A gRPC client.
    Call,
}

impl Gateway {
    /// The response to a request that failed: a page for a person, a problem document for a script.
    pub(super) fn rescue(&self, failure: &Failure, audience: Audience, record: &mut RequestRecord) -> Answer {
        let profile = failure.profile();
        let site = Rc::clone(&record.site);
        let status = profile.status;
        record.closes = profile.closes;
        record.outcome = profile.outcome;
        if let Failure::Refused(Refusal::Misdirected(asked)) = failure {
            record.asked_host = Some(shown(&asked.host).into());
        }
        self.report(failure, profile.blame, record);
        if matches!(failure, Failure::TooManyPages) {
            // Such a client would make us hold pages.
            let mut answer = answer::empty(status);
            profile.retry_after.into_iter().for_each(|wait| answer::retry_after(&mut answer, wait));
            return answer;
        }
        // A malformed HTTP request gets an HTTP status.
        if audience == Audience::Call && !matches!(failure, Failure::Refused(_)) {
            let word = refusal_of_token(failure).map_or_else(|| word(profile), TokenRefusal::detail);
            return grpc::refusal(grpc::status_like(status), word);
        }
        // A client with a token is a program, whatever it accepts.
        let reads_pages = matches!(audience, Audience::Person | Audience::Frame)
            && !matches!(failure, Failure::Token { .. });
        let mut answer = if reads_pages {
            let mut page = match failure {
                Failure::Unsent(id, _) => site.shared.pages.form_waits(id, status, record.request_id()),
                _ => match profile.trouble {
                    Some(trouble) => site.shared.pages.trouble_page(trouble, status, record.request_id()),
                    None => site.shared.pages.message_page(status, record.request_id()),
                },
            };
            if audience == Audience::Frame {
                answer::allow_framing(&mut page);
            }
            page
        } else {
            let detail = detail(failure, profile.blame, &site);
            answer::problem(&ProblemDetails {
                kind: refusal_of_token(failure).map_or("about:blank", TokenRefusal::kind),
                title: status.canonical_reason().unwrap_or("Error"),
                status: status.as_u16(),
                detail: detail.as_deref(),
                login_url: None,
                request_id: Some(record.request_id()),
            })
        };
        if let Some(wait) = profile.retry_after {
            answer::retry_after(&mut answer, wait);
        }
        if status == StatusCode::UNAUTHORIZED {
            let way_in = match refusal_of_token(failure) {
                Some(refusal) => challenge_of_token(refusal),
                None => site.shared.challenger.authenticate(),
            };
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, way_in);
            if matches!(failure, Failure::Token { is_basic: true, .. }) {
                answer.headers_mut().append(header::WWW_AUTHENTICATE, BASIC);
            }
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            answer.headers_mut().insert(header::ALLOW, ALLOWED);
        }
        answer
    }

    /// Writes one log line, by who caused the failure: loud for operators' problems, quiet for clients'.
    fn report(&self, failure: &Failure, blame: Blame, record: &RequestRecord) {
        let request_id = record.request_id();
        match blame {
            Blame::Client => report_refusal(failure, record),
            Blame::User(limit) => self.held_back(limit, record),
            Blame::Load if matches!(failure, Failure::Page(PageError::Login(LoginError::Busy))) => {
                if let Some(turned_away) = self.turned_away.tells(self.shared.clock.elapsed()) {
                    tracing::warn!(
                        request.id = request_id,
                        turned_away,
                        "too many passwords to check at once: turned sign-ins away"
                    );
                }
            }
            // The change of the load level has been logged.
            Blame::Load => {}
            Blame::Portal(kind) => {
                self.shared.metrics.upstream_error(kind);
                tracing::warn!(request.id = request_id, error = %Chain(failure), "the portal did not answer");
            }
            Blame::Store => {
                self.shared.metrics.store_error();
                tracing::error!(request.id = request_id, error = %Chain(failure), "a store did not answer");
            }
            Blame::Gateway => {
                tracing::error!(request.id = request_id, error = %Chain(failure), "cannot answer a request");
            }
        }
    }
}

/// Refusals that an operator may have to act on are logged at `info`, the rest at `debug`.
fn report_refusal(failure: &Failure, record: &RequestRecord) {
    let request_id = record.request_id();
    match failure {
        Failure::Refused(Refusal::Misdirected(asked)) => tracing::info!(
            request.id = request_id,
            client.ip = %record.client_ip,
            asked = shown(&asked.host),
            x_forwarded_host = asked.forwarded.as_deref().map(shown),
            ours = record.site.authority(),
            "refused a request for another host than server.public_url; if it came through a load balancer, have it \
             pass on the Host of the client, or list it in server.trusted_proxies and set server.client_host to \
             x-forwarded-host"
        ),
        Failure::Question(unclear) => {
            tracing::info!(request.id = request_id, client.ip = %record.client_ip, "refused what a proxy asked: {unclear}");
        }
        Failure::ServiceWorker => {
            tracing::info!(request.id = request_id, "refused the script of a service worker: {failure}");
        }
        Failure::Page(_) => {
            tracing::debug!(request.id = request_id, error = %Chain(failure), "refused a form");
        }
        _ => tracing::debug!(request.id = request_id, error = %Chain(failure), "refused a request"),
    }
}

fn refusal_of_token(failure: &Failure) -> Option<TokenRefusal> {
    match failure {
        Failure::Token { fault: TokenFault::Refused(refusal), .. } => Some(*refusal),
        _ => None,
    }
}

/// The challenge for a refused token, in the words of RFC 6750 §3.
fn challenge_of_token(refusal: TokenRefusal) -> HeaderValue {
    let error = if refusal == TokenRefusal::OutOfScope { "insufficient_scope" } else { "invalid_token" };
    let text =
        format!("Bearer realm=\"portal\", error=\"{error}\", error_description=\"{}\"", refusal.word());
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("Bearer"))
}

/// The `detail` of the problem document.
fn detail(failure: &Failure, blame: Blame, site: &Site) -> Option<String> {
    Some(match (blame, failure) {
        (Blame::User(limit), _) => limit.detail().to_owned(),
        // The names of the sites are not public.
        (_, Failure::Refused(Refusal::Misdirected(_))) if site.shared.requests.is_some() => {
            "this gateway has no site at this host".to_owned()
        }
        (_, Failure::Refused(Refusal::Misdirected(_))) => {
            format!("this gateway answers for {} only", site.origin())
        }
        (_, Failure::Refused(refusal)) => refusal.to_string(),
        (_, Failure::Question(unclear)) => unclear.to_string(),
        (_, Failure::Token { fault: TokenFault::Refused(refusal), .. }) => refusal.detail().to_owned(),
        (_, Failure::Token { fault: TokenFault::Throttled(_), .. }) => {
            "Too many unknown tokens came from your network. Wait before you try again.".to_owned()
        }
        (_, Failure::Denied(_)) => "This is not open to you here.".to_owned(),
        (_, Failure::ServiceWorker) => "No service worker may be registered for this scope.".to_owned(),
        _ => return None,
    })
}

/// The message of a gRPC status.
fn word(profile: FailureProfile) -> &'static str {
    match (profile.status, profile.blame) {
        (StatusCode::UNAUTHORIZED, _) => "the session has ended",
        (StatusCode::FORBIDDEN, _) => "not allowed",
        (StatusCode::GATEWAY_TIMEOUT, _) => "the portal did not answer in time",
        (_, Blame::Portal(_)) => "the portal did not answer",
        _ => "the gateway cannot answer",
    }
}

/// The requested host, without a label that is too long for a host name and may be a misplaced secret.
fn shown(host: &str) -> String {
    const LONGEST: usize = 40;
    let labels = host.split('.').take(16).map(|label| if label.len() > LONGEST { "…" } else { label });
    labels.collect::<Vec<_>>().join(".")
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
