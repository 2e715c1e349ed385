//! Our own URLs: login, enrolment, recovery codes, errors.

pub mod assets;
pub mod qr;
pub mod templates;
pub mod texts;
pub mod views;

#[cfg(test)]
mod tests;

/// What our pages say about the portal.
#[derive(Clone, Debug)]
pub struct Config {
    /// The portal's name, in headings and titles.
    pub portal_name: String,
    /// Where users find help: a `mailto:`, `tel:` or `https:` URL.
    pub support: Option<String>,
}
