//! The style sheet, the scripts and the icon, built into the program.
//!
//! Each file name contains a hash of the content, so a browser may cache it for ever and still gets a new version at
//! once. This module answers no request: the handler looks a name up and sends what it finds.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Serialize;

use crate::secret;

/// The path below which the handler serves [`Assets::find`].
pub const PREFIX: &str = "/.portcullis/assets/";

/// The content behind a name never changes (RFC 8246).
pub const CACHE_CONTROL: &str = "public, max-age=31536000, immutable";

/// A file, ready to be served.
#[derive(Debug)]
pub struct Asset {
    /// `<hash>-<name>`: the part of its URL after [`PREFIX`].
    pub file: String,
    pub content_type: &'static str,
    pub body: &'static [u8],
}

/// All files that our pages load.
#[derive(Debug)]
pub struct Assets {
    style: Asset,
    script: Asset,
    icon: Asset,
    notice: Asset,
}

/// The URLs for the templates.
#[derive(Serialize)]
pub(super) struct Urls {
    style: String,
    script: String,
    icon: String,
}

impl Assets {
    pub fn embedded() -> Self {
        Self {
            style: Asset::new(
                "portcullis.css",
                "text/css; charset=utf-8",
                include_bytes!("assets/portcullis.css"),
            ),
            script: Asset::new(
                "portcullis.js",
                "text/javascript; charset=utf-8",
                include_bytes!("assets/portcullis.js"),
            ),
            icon: Asset::new("icon.svg", "image/svg+xml", include_bytes!("assets/icon.svg")),
            notice: Asset::new(
                "session-notice.js",
                "text/javascript; charset=utf-8",
                include_bytes!("assets/session-notice.js"),
            ),
        }
    }

    /// Finds a file by the part of its URL after [`PREFIX`]. A name with the hash of another version is unknown.
    pub fn find(&self, file: &str) -> Option<&Asset> {
        [&self.style, &self.script, &self.icon, &self.notice].into_iter().find(|asset| asset.file == file)
    }

    /// The script in the portal's pages: its path, and what is there.
    pub fn notice(&self) -> (String, &'static [u8]) {
        (self.notice.url(), self.notice.body)
    }

    /// The style sheet itself, for pages that inline it.
    pub(super) fn style(&self) -> &'static str {
        std::str::from_utf8(self.style.body).unwrap_or_default()
    }

    /// The source expression of that style sheet in a content security policy (CSP 3 §2.3.1).
    pub(super) fn style_digest(&self) -> String {
        format!("sha256-{}", BASE64_STANDARD.encode(secret::sha256(self.style.body)))
    }

    pub(super) fn urls(&self) -> Urls {
        Urls { style: self.style.url(), script: self.script.url(), icon: self.icon.url() }
    }
}

impl Asset {
    fn new(name: &str, content_type: &'static str, body: &'static [u8]) -> Self {
        let hash = secret::hex(&secret::sha256(body)[..8]);
        Self { file: format!("{hash}-{name}"), content_type, body }
    }

    fn url(&self) -> String {
        format!("{PREFIX}{}", self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_url_in_the_pages_is_found_under_its_hashed_name_alone() {
        let assets = Assets::embedded();
        let urls = assets.urls();
        for (url, name, kind) in [
            (&urls.style, "portcullis.css", "text/css; charset=utf-8"),
            (&urls.script, "portcullis.js", "text/javascript; charset=utf-8"),
            (&urls.icon, "icon.svg", "image/svg+xml"),
            (&assets.notice().0, "session-notice.js", "text/javascript; charset=utf-8"),
        ] {
            let asset = assets.find(url.strip_prefix(PREFIX).unwrap()).unwrap();
            assert_eq!(asset.content_type, kind);
            assert!(!asset.body.is_empty());
            assert!(assets.find(name).is_none());
            assert!(assets.find(&format!("0000000000000000-{name}")).is_none());
        }
        assert!(assets.find("").is_none());
        assert!(assets.find("../templates/base.html").is_none());
    }

    #[test]
    fn other_content_gets_another_name() {
        assert_ne!(Asset::new("a", "text/css", b"1").file, Asset::new("a", "text/css", b"2").file);
    }

    #[test]
    fn the_assets_load_nothing_from_anywhere() {
        for body in [
            include_str!("assets/portcullis.css"),
            include_str!("assets/portcullis.js"),
            include_str!("assets/icon.svg"),
            include_str!("assets/session-notice.js"),
        ] {
            let body = body.replace(r#"xmlns="http://www.w3.org/2000/svg""#, "");
            let body = body.replace("fetch(\"/.portcullis/whoami\"", "");
            for reach in ["http:", "https:", "//cdn", "url(", "@import", "fetch(", "eval(", "innerHTML"] {
                assert!(!body.contains(reach), "{reach}");
            }
        }
    }
}
