//! Methods in another case than the registered one. They are other methods (RFC 9110 §9.1), which some portals take for it.

use http::Method;

/// What is registered with IANA.
const REGISTERED: [&str; 40] = [
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "OPTIONS",
    "ORDERPATCH",
    "PATCH",
    "POST",
    "PRI",
    "PROPFIND",
    "PROPPATCH",
    "PUT",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "TRACE",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

/// Whether somebody could read it as a registered method that it is not.
pub fn is_misspelt(method: &Method) -> bool {
    let name = method.as_str();
    name.bytes().any(|byte| byte.is_ascii_lowercase())
        && REGISTERED.iter().any(|known| known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_registered_method_in_another_case_is_misspelt() {
        for name in ["get", "Post", "pUT", "Connect", "trace", "propFind", "version-control"] {
            assert!(is_misspelt(&name.parse().unwrap()), "{name}");
        }
        for name in ["GET", "PROPFIND", "TRACE", "PURGE", "purge", "getx", "M-SEARCH"] {
            assert!(!is_misspelt(&name.parse().unwrap()), "{name}");
        }
    }
}
