//! Who a request is from, and how the portal is told.

mod headers;

pub use headers::{IdentityHeaders, Unrepresentable};

/// How the portal wants to be told who the user is.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Names of the headers that carry the identity.
    pub headers: HeaderNames,
}

/// The header of each fact; the defaults are what Authelia's users know.
#[derive(Clone, Debug)]
pub struct HeaderNames {
    pub user: String,
    pub email: String,
    pub name: String,
    pub groups: String,
}

impl Default for HeaderNames {
    fn default() -> Self {
        Self {
            user: "Remote-User".into(),
            email: "Remote-Email".into(),
            name: "Remote-Name".into(),
            groups: "Remote-Groups".into(),
        }
    }
}
