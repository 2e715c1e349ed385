//! Service workers: scripts of the portal that a browser runs between its pages and this host. One whose scope includes our
//! pages could respond in place of the login, and read what is typed there.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use url::Url;

use super::answer::{self, Answer};

pub static ALLOWED: HeaderName = HeaderName::from_static("service-worker-allowed");
pub static ASKS: HeaderName = HeaderName::from_static("service-worker");
static SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// The prefix of our pages.
const OURS: [&str; 2] = ["/.portcullis/", "/.well-known/portcullis/"];

/// The policy for workers whose scope includes our pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    #[default]
    Refuse,
    /// They run, but do not see requests for our pages.
    Allow,
}

/// Unregisters itself and reloads the pages that its predecessor controlled. A new worker controls none, so no page reloads for
/// ever.
const FAREWELL: &str = "// Portcullis: there is no session, so there is no service worker either.
addEventListener(\"install\", () => skipWaiting());
addEventListener(\"activate\", (event) => event.waitUntil((async () => {
  await registration.unregister();
  const pages = await clients.matchAll({ type: \"window\" });
  await Promise.allSettled(pages.map((page) => page.navigate(page.url)));
})()));
";

/// The prelude of the portal's worker, which hides requests for our pages from it. Later redefinitions do not affect it. Static
/// routes would bypass every listener, so they are disabled.
const GUARD: &str = "(() => {
  const bound = (method) => Function.prototype.call.bind(method);
  const getter = (type, name) => bound(Object.getOwnPropertyDescriptor(type.prototype, name).get);
  const request = getter(FetchEvent, \"request\"), url = getter(Request, \"url\");
  const stop = bound(Event.prototype.stopImmediatePropagation), begins = bound(String.prototype.startsWith);
  const [pages, keys] = [\"/.portcullis/\", \"/.well-known/portcullis/\"].map((path) => location.origin + path);
  addEventListener(\"fetch\", (event) => {
    const address = url(request(event));
    if (begins(address, pages) || begins(address, keys)) stop(event);
  });
  if (typeof InstallEvent === \"function\") delete InstallEvent.prototype.addRoutes;
})();
";

/// Whether a browser requests a worker's script.
pub fn asks(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::GET && headers.contains_key(&ASKS)
}

/// The same, or a module that it imports.
pub fn asks_for_part(method: &Method, headers: &HeaderMap) -> bool {
    asks(method, headers) || headers.get(&SEC_FETCH_DEST).is_some_and(|dest| dest == "serviceworker")
}

/// Whether the default scope of a script at this path, its own folder, includes our pages.
pub fn reaches_ours(path: &str) -> bool {
    let folder = path.rfind('/').and_then(|at| path.get(..=at)).unwrap_or("/");
    covers_ours(folder)
}

/// Whether this `Service-Worker-Allowed` of a script at `path` would widen its scope to our pages.
pub fn widens_to_ours(path: &str, allowed: &[u8]) -> bool {
    let resolved = || {
        let script = Url::parse("https://portal.invalid").ok()?.join(path).ok()?;
        script.join(std::str::from_utf8(allowed).ok()?.trim()).ok()
    };
    resolved().is_none_or(|scope| covers_ours(scope.path()))
}

/// A scope is a prefix of URLs.
fn covers_ours(scope: &str) -> bool {
    OURS.iter().any(|ours| ours.starts_with(scope) || scope.starts_with(ours))
}

/// The response to a worker's script without a session. It replaces the worker, wherever that was allowed.
pub fn farewell() -> Answer {
    let mut answer = answer::empty(StatusCode::OK);
    *answer.body_mut() = Bytes::from_static(FAREWELL.as_bytes());
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/javascript; charset=utf-8"));
    headers.insert(ALLOWED.clone(), HeaderValue::from_static("/"));
    answer
}

/// The prelude of the portal's script.
pub fn guard() -> Bytes {
    Bytes::from_static(GUARD.as_bytes())
}

/// Request fields that could get a partial or encoded script.
pub const PARTIAL: [HeaderName; 6] = [
    header::ACCEPT_ENCODING,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::RANGE,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_in_charge_of_its_folder() {
        for path in
            ["/", "/sw.js", "/service-worker.js", "/app%2Fsw.js", "/.well-known/sw.js", "/.portcullis/sw.js"]
        {
            assert!(reaches_ours(path), "{path}");
        }
        for path in [
            "/app/sw.js",
            "/.portcullis-app/sw.js",
            "/.well-known/app/sw.js",
            "//sw.js",
            "/a/.portcullis/sw.js",
        ] {
            assert!(!reaches_ours(path), "{path}");
        }
    }

    #[test]
    fn a_wider_scope_is_read_as_browsers_read_it() {
        for allowed in [
            "/",
            " / ",
            "/.",
            "/.p",
            "/.portcullis/",
            "/.portcullis/login",
            "..",
            "../../",
            "/x/..",
            "\\",
            "https://iot.example.com/",
            "https://[",
            "//other.example",
        ] {
            assert!(widens_to_ours("/app/sw.js", allowed.as_bytes()), "{allowed}");
        }
        for allowed in ["/app", "/app/", "./", "", "/p", "/static/js/", "/.well-known/app/"] {
            assert!(!widens_to_ours("/app/js/sw.js", allowed.as_bytes()), "{allowed}");
        }
    }
}
