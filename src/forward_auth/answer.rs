//! Turns a decision into the response that the proxy acts on. To every proxy any 2xx means "let it pass", whatever else
//! it says: only [`allowance`] makes one.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::Dialect;
use crate::web::answer::{self, Answer};

/// The response for a request that may pass. `fields` replace the client's fields on the way to the portal; an empty
/// value removes a field, so that the client's own never gets through.
pub fn allowance(dialect: Dialect, fields: impl IntoIterator<Item = (HeaderName, HeaderValue)>) -> Answer {
    if dialect == Dialect::NginxAnswer {
        // The request was not allowed a moment ago.
        let mut answer = answer::empty(StatusCode::SERVICE_UNAVAILABLE);
        answer::retry_after(&mut answer, Duration::from_secs(1));
        return answer;
    }
    let mut answer = answer::empty(StatusCode::OK);
    for (name, value) in fields {
        answer.headers_mut().append(name, value);
    }
    answer
}

/// Turns a response for the client into one that the proxy treats as a refusal. `origin` is the site's origin.
pub fn dress(dialect: Dialect, status: &mut StatusCode, headers: &mut HeaderMap, origin: &str) {
    // Proxies resolve a bare path against this port.
    if let Some(location) = headers.get(header::LOCATION).filter(|value| value.as_bytes().starts_with(b"/")) {
        let absolute = [origin.as_bytes(), location.as_bytes()].concat();
        match HeaderValue::from_bytes(&absolute) {
            Ok(absolute) => headers.insert(header::LOCATION, absolute),
            Err(_) => headers.remove(header::LOCATION),
        };
    }
    // gRPC calls and service workers' scripts are refused with 200.
    if status.is_success() || status.is_informational() {
        *status = StatusCode::UNAUTHORIZED;
    }
    if dialect == Dialect::Nginx {
        *status = match *status {
            StatusCode::UNAUTHORIZED => StatusCode::UNAUTHORIZED,
            redirection if redirection.is_redirection() => StatusCode::UNAUTHORIZED,
            error if error.is_server_error() => error,
            _ => StatusCode::FORBIDDEN,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dressed(dialect: Dialect, status: u16, location: &'static str) -> (u16, String) {
        let mut status = StatusCode::from_u16(status).unwrap();
        let mut headers = HeaderMap::from_iter([(header::LOCATION, HeaderValue::from_static(location))]);
        dress(dialect, &mut status, &mut headers, "https://iot.example.com");
        (status.as_u16(), headers[header::LOCATION].to_str().unwrap().to_owned())
    }

    #[test]
    fn no_status_but_that_of_an_allowance_lets_pass() {
        for status in 100..600 {
            for dialect in [Dialect::Nginx, Dialect::NginxAnswer, Dialect::Traefik, Dialect::Envoy] {
                let (dressed, _) = dressed(dialect, status, "/a");
                assert!(dressed >= 300, "{dialect:?} {status}");
                let known = [401, 403].contains(&dressed) || dressed >= 500;
                assert!(dialect != Dialect::Nginx || known, "nginx has no meaning for {status}: {dressed}");
            }
        }
        let nothing = || std::iter::empty();
        assert_eq!(allowance(Dialect::Traefik, nothing()).status(), StatusCode::OK);
        assert_eq!(allowance(Dialect::NginxAnswer, nothing()).status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn the_way_to_the_login_is_a_whole_address() {
        let login = dressed(Dialect::Traefik, 302, "/.portcullis/login?rd=/a");
        assert_eq!(login, (302, "https://iot.example.com/.portcullis/login?rd=/a".to_owned()));
        assert_eq!(dressed(Dialect::Nginx, 303, "https://a.example/").1, "https://a.example/");
    }
}
