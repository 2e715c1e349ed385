//! Our own pages: login, enrolment, recovery codes, account, errors.

mod account;
pub mod assets;
mod by_mail;
mod csrf;
mod enrolment;
mod error;
mod guessing;
mod hand_over;
mod handle;
mod neighbours;
pub mod qr;
mod recovery_codes;
mod route;
mod saved_form;
mod session_notice;
mod sign_in;
pub mod templates;
pub mod texts;
mod tokens;
pub mod views;
mod visit;

#[cfg(test)]
mod tests;

pub use error::PageError;
pub use handle::{PageDependencies, Pages};
pub use neighbours::{Crossing, Neighbours};
pub use route::Route;
pub use texts::{NotSaved, Trouble};
pub use visit::Visit;

/// What our pages say about the portal.
#[derive(Clone, Debug)]
pub struct Config {
    /// The portal's name, in headings and titles.
    pub portal_name: String,
    /// Where users find help: a `mailto:`, `tel:` or `https:` URL.
    pub support: Option<String>,
}
