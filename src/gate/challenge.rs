//! The response without a sufficient session: a way to log in, in a form that the client can use.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::Missing;
use crate::web::{
    answer::{self, Answer, ProblemDetails},
    client::{self, Destination},
    grpc,
    return_to::{ReturnTo, Returns, SAVED_FORM},
    service_worker,
};

/// The login page.
const LOGIN: &str = "/.portcullis/login";
/// The enrolment page.
const ENROL: &str = "/.portcullis/enrol";
/// Makes the login page ask a signed-in user again.
const AGAIN: &str = "again=1";

/// What the form of the response depends on.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'a> {
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    /// The requested path and query.
    pub target: &'a str,
    /// Whether the browser has or had a session: it sent a cookie of ours, or comes from a page of this site.
    pub has_been_in: bool,
    /// Whether the client may be a program that sends a token as a Basic password when asked for one.
    pub offers_basic: bool,
}

/// The challenge for such a program (RFC 7617).
pub const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"portal\", charset=\"UTF-8\"");

/// Makes the responses.
#[derive(Clone, Debug)]
pub struct Challenger {
    origin: String,
    authenticate: HeaderValue,
    returns: Returns,
}

impl Challenger {
    /// `origin` is the public one, without a trailing slash.
    pub fn new(origin: &str, returns: Returns) -> Self {
        let text = format!("Portcullis realm=\"portal\", login_url=\"{origin}{LOGIN}\"");
        let authenticate = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("Portcullis"));
        Self { origin: origin.to_owned(), authenticate, returns }
    }

    /// The challenge in a 401 (RFC 9110 §11.6.1).
    pub fn authenticate(&self) -> HeaderValue {
        self.authenticate.clone()
    }

    /// The return paths that a login may lead to.
    pub fn returns(&self) -> &Returns {
        &self.returns
    }

    /// The response to a request that has to prove something first.
    pub fn challenge(&self, missing: Missing, visitor: Visitor<'_>) -> Answer {
        // Single-page applications show this text, and often nothing else.
        let detail = match missing {
            Missing::Session if visitor.has_been_in => "Your session has ended. Reload this page to sign in.",
            Missing::Session => "Sign in to use this portal.",
            Missing::Device => "You need to set up an authenticator app. Reload this page to do it now.",
            Missing::FreshCode => {
                "This needs a fresh code from your authenticator app. Reload this page to sign in once more."
            }
        };
        self.send_to(missing, detail, visitor)
    }

    /// The response to a script that asks about a session that does not exist.
    pub fn no_session(&self, request_id: &str) -> Answer {
        self.unauthorized("There is no session.", LOGIN, Some(request_id))
    }

    /// The response to a form saved under this name: the login, and then the form.
    pub fn to_saved_form(&self, name: &str, missing: Missing) -> Answer {
        answer::see_other(&way_to_prove(missing, &ReturnTo::parse(&format!("{SAVED_FORM}{name}"))))
    }

    /// The login link for a page that has made this request, with that page as the target: the request itself is not a
    /// page.
    pub fn from_page(&self, visitor: Visitor<'_>, missing: Missing) -> String {
        way_to_prove(missing, &self.returns.to_referer(visitor.headers))
    }

    fn send_to(&self, missing: Missing, detail: &str, visitor: Visitor<'_>) -> Answer {
        if client::destination(visitor.method, visitor.headers) == Destination::Window {
            // A POST cannot be repeated with GET: the target is the start page.
            return if matches!(*visitor.method, Method::GET | Method::HEAD) {
                let path = way_to_prove(missing, &self.returns.to(visitor.target));
                answer::redirect(StatusCode::FOUND, &path)
            } else {
                answer::see_other(&way_to_prove(missing, &ReturnTo::default()))
            };
        }
        if grpc::is_call(visitor.method, visitor.headers) {
            let what = match missing {
                Missing::FreshCode => "enter a fresh code first",
                Missing::Session | Missing::Device => "sign in first",
            };
            return grpc::refusal(grpc::UNAUTHENTICATED, what);
        }
        // A service worker would go on answering from its cache, in place of the login.
        if service_worker::asks(visitor.method, visitor.headers) {
            return service_worker::farewell();
        }
        let mut answer = self.unauthorized(detail, &self.from_page(visitor, missing), None);
        if visitor.offers_basic {
            answer.headers_mut().append(header::WWW_AUTHENTICATE, BASIC);
        }
        answer
    }

    /// The response to a script: what is missing, and the path of the page for it.
    fn unauthorized(&self, detail: &str, path: &str, request_id: Option<&str>) -> Answer {
        let mut answer = answer::problem(&ProblemDetails {
            kind: "about:blank",
            title: "Unauthorized",
            status: StatusCode::UNAUTHORIZED.as_u16(),
            detail: Some(detail),
            login_url: Some(format!("{}{path}", self.origin)),
            request_id,
        });
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, self.authenticate());
        answer
    }
}

/// The path of the page that proves what is missing, with `return_to` as the target after it.
fn way_to_prove(missing: Missing, return_to: &ReturnTo) -> String {
    match missing {
        Missing::Session => return_to.append_to(LOGIN),
        Missing::Device => return_to.append_to(ENROL),
        Missing::FreshCode => {
            let path = return_to.append_to(LOGIN);
            format!("{path}{}{AGAIN}", if path.contains('?') { '&' } else { '?' })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::logout::LogoutPaths;

    fn ask(method: &Method, fields: &[(&'static str, &'static str)]) -> Answer {
        ask_for(Missing::Session, method, fields)
    }

    fn ask_for(missing: Missing, method: &Method, fields: &[(&'static str, &'static str)]) -> Answer {
        let headers: HeaderMap = fields
            .iter()
            .map(|&(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let has_been_in = headers.contains_key("cookie");
        let visitor =
            Visitor { method, headers: &headers, target: "/sims?q=a", has_been_in, offers_basic: false };
        let origin = "https://iot.example.com";
        let returns = Returns::new(&url::Url::parse(origin).unwrap(), LogoutPaths::default());
        Challenger::new(origin, returns).challenge(missing, visitor)
    }

    fn body(answer: &Answer) -> serde_json::Value {
        serde_json::from_slice(answer.body()).unwrap()
    }

    #[test]
    fn pages_are_sent_to_the_login_and_scripts_get_a_problem() {
        let page = ask(&Method::GET, &[("sec-fetch-mode", "navigate")]);
        assert_eq!(page.status(), StatusCode::FOUND);
        assert_eq!(page.headers()[header::LOCATION], "/.portcullis/login?rd=/sims%3Fq%3Da");

        let form = ask(&Method::POST, &[("accept", "text/html")]);
        assert_eq!(form.status(), StatusCode::SEE_OTHER);
        assert_eq!(form.headers()[header::LOCATION], "/.portcullis/login");

        let script = ask(&Method::GET, &[("accept", "application/json")]);
        assert_eq!(script.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(script.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert!(script.headers().contains_key(header::WWW_AUTHENTICATE));
        assert_eq!(body(&script)["login_url"], "https://iot.example.com/.portcullis/login");

        let grpc = ask(&Method::POST, &[("content-type", "application/grpc+proto")]);
        assert_eq!(
            (grpc.status(), &grpc.headers()["grpc-status"]),
            (StatusCode::OK, &HeaderValue::from_static("16"))
        );
    }
    #[test]
    fn a_script_is_led_to_the_page_it_runs_in_and_told_what_the_user_can_do() {
        let page = ("referer", "https://iot.example.com/app?tab=1");
        let script = ask(&Method::GET, &[("sec-fetch-mode", "cors"), page, ("cookie", "x")]);
        assert_eq!(body(&script)["login_url"], "https://iot.example.com/.portcullis/login?rd=/app%3Ftab%3D1");
        assert_eq!(body(&script)["detail"], "Your session has ended. Reload this page to sign in.");
        let elsewhere = ask(&Method::POST, &[("referer", "https://evil.example/app")]);
        assert_eq!(body(&elsewhere)["login_url"], "https://iot.example.com/.portcullis/login");
        assert_eq!(body(&elsewhere)["detail"], "Sign in to use this portal.");
    }

    #[test]
    fn a_fresh_code_is_asked_for_where_the_session_goes_on() {
        let page = ask_for(Missing::FreshCode, &Method::GET, &[("sec-fetch-mode", "navigate")]);
        assert_eq!(page.headers()[header::LOCATION], "/.portcullis/login?rd=/sims%3Fq%3Da&again=1");
        let form = ask_for(Missing::FreshCode, &Method::POST, &[("accept", "text/html")]);
        assert_eq!(form.headers()[header::LOCATION], "/.portcullis/login?again=1");
        let script = ask_for(Missing::FreshCode, &Method::GET, &[("accept", "application/json")]);
        assert_eq!(script.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(body(&script)["login_url"], "https://iot.example.com/.portcullis/login?again=1");
        assert!(body(&script)["detail"].as_str().unwrap().contains("fresh code"));
    }

    #[test]
    fn a_download_is_not_given_a_page() {
        let download =
            [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "empty"), ("accept", "text/html,*/*;q=0.8")];
        assert_eq!(ask(&Method::GET, &download).status(), StatusCode::UNAUTHORIZED);
    }
}
