//! `[portal]`: where it logs out.

use http::{HeaderMap, Method};

use super::{LEAST, load_with};

#[test]
fn a_way_out_is_a_path_perhaps_with_a_method_and_a_query() {
    let config = |paths: &str| load_with(LEAST, &[("PORTCULLIS_PORTAL__LOGOUT_PATHS", paths)]);
    let said = config("/logout, /auth/*, GET /wp-login.php?action=logout, DELETE /api/%73ession").unwrap();
    for (method, path, query, leads_out) in [
        (Method::GET, "/logout", None, true),
        (Method::POST, "/auth/out", Some("x=y"), true),
        (Method::GET, "/wp-login.php", Some("action=logout"), true),
        (Method::GET, "/wp-login.php", None, false),
        (Method::DELETE, "/api/session", None, true),
        (Method::POST, "/api/session", None, false),
    ] {
        let attempt = said.logout_paths.attempt(&method, &HeaderMap::new(), path, query);
        assert_eq!(attempt.is_some(), leads_out, "{method} {path}");
    }
    for bad in ["logout", "get /logout", "GET", "GET logout", "/a*", "/*", "/logout#x", "GET POST /logout"] {
        let problems = config(bad).unwrap_err().to_string();
        assert!(
            problems.contains("a path such as `/logout` or `/auth/*`, or `GET /wp-login"),
            "{bad}: {problems}"
        );
    }
}
