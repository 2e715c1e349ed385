//! What somebody without a sufficient session gets: a way to log in, in the form that the client can use.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::web::{
    answer::{self, Answer, Problem},
    client, grpc,
    return_to::{KEPT_FORM, ReturnTo},
};

/// The login page.
const LOGIN: &str = "/.portcullis/login";
/// The page on which a device is bound.
const ENROL: &str = "/.portcullis/enrol";

/// What the form of the answer depends on.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'a> {
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    /// Path and query that were asked for.
    pub target: &'a str,
}

/// Makes the answers.
#[derive(Clone, Debug)]
pub struct Challenger {
    origin: String,
    authenticate: HeaderValue,
}

impl Challenger {
    /// `origin` is the public one, without a slash at its end.
    pub fn new(origin: &str) -> Self {
        let text = format!("Portcullis realm=\"portal\", login_url=\"{origin}{LOGIN}\"");
        let authenticate = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("Portcullis"));
        Self { origin: origin.to_owned(), authenticate }
    }

    /// What a 401 names as the way in (RFC 9110 §11.6.1).
    pub fn authenticate(&self) -> HeaderValue {
        self.authenticate.clone()
    }

    /// For whoever has no session.
    pub fn log_in(&self, visitor: Visitor<'_>) -> Answer {
        self.send_to(LOGIN, "Sign in to use this portal.", visitor)
    }

    /// For a script that asks about a session that is not there.
    pub fn no_session(&self, request_id: &str) -> Answer {
        self.unauthorized("There is no session.", LOGIN, Some(request_id))
    }

    /// For whoever has a session without a second factor when one is mandatory.
    pub fn bind_device(&self, visitor: Visitor<'_>) -> Answer {
        self.send_to(ENROL, "A second factor is mandatory now: bind a device to go on.", visitor)
    }

    /// For whoever sent the form that is kept under this name: the way in, and then to it.
    pub fn keep(&self, name: &str, has_session: bool) -> Answer {
        let page = if has_session { ENROL } else { LOGIN };
        answer::see_other(&ReturnTo::parse(&format!("{KEPT_FORM}{name}")).append_to(page))
    }

    fn send_to(&self, page: &str, detail: &str, visitor: Visitor<'_>) -> Answer {
        let safe = matches!(*visitor.method, Method::GET | Method::HEAD);
        // A form that was posted cannot be asked for again with GET: the way back leads to the start.
        let return_to = if safe { ReturnTo::parse(visitor.target) } else { ReturnTo::default() };
        let path = return_to.append_to(page);
        if client::is_navigation(visitor.method, visitor.headers) {
            return answer::redirect(if safe { StatusCode::FOUND } else { StatusCode::SEE_OTHER }, &path);
        }
        if grpc::is_call(visitor.method, visitor.headers) {
            return grpc::refusal(grpc::UNAUTHENTICATED, "sign in first");
        }
        self.unauthorized(detail, &path, None)
    }

    /// For a script: what is missing, and at which path of ours to get it.
    fn unauthorized(&self, detail: &str, path: &str, request_id: Option<&str>) -> Answer {
        let mut answer = answer::problem(&Problem {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &Method, fields: &[(&'static str, &'static str)]) -> Answer {
        let headers: HeaderMap = fields
            .iter()
            .map(|&(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let visitor = Visitor { method, headers: &headers, target: "/sims?q=a" };
        Challenger::new("https://iot.example.com").log_in(visitor)
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
        let body: serde_json::Value = serde_json::from_slice(script.body()).unwrap();
        assert_eq!(body["login_url"], "https://iot.example.com/.portcullis/login?rd=/sims%3Fq%3Da");

        let grpc = ask(&Method::POST, &[("content-type", "application/grpc+proto")]);
        assert_eq!(
            (grpc.status(), &grpc.headers()["grpc-status"]),
            (StatusCode::OK, &HeaderValue::from_static("16"))
        );
    }
}
