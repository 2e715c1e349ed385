//! The portal's style sheet, scripts and icon, built into the binary. Loads nothing from elsewhere.

use http::{HeaderValue, header};

use super::answer::{self, DemoResponse, Error};

/// Serves `/assets/…`.
pub(super) fn answer(name: &str) -> Result<DemoResponse, Error> {
    let (content_type, content) = match name {
        "style.css" => ("text/css; charset=utf-8", include_str!("static/style.css")),
        "live.js" => ("text/javascript; charset=utf-8", include_str!("static/live.js")),
        "events.js" => ("text/javascript; charset=utf-8", include_str!("static/events.js")),
        "icon.svg" => ("image/svg+xml", include_str!("static/icon.svg")),
        _ => return Err(Error::NotFound),
    };
    let mut answer = answer::text(content_type, content);
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
    Ok(answer)
}
