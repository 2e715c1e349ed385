//! The portal's pages: templates and their values. The template engine escapes every value, including names of SIMs.

use minijinja::{Environment, Value, context, value::Serde};
use url::form_urlencoded;

use super::{
    answer::Error,
    download,
    sims::{Sim, Summary},
    upload::Receipt,
    visitor::DemoVisitor,
};

/// The parsed templates.
#[derive(Debug)]
pub(super) struct DemoPages(Environment<'static>);

impl DemoPages {
    pub(super) fn parse() -> Result<Self, Error> {
        let mut environment = Environment::new();
        // The suffix `.html` enables escaping.
        for (name, source) in [
            ("layout.html", include_str!("templates/layout.html")),
            ("overview.html", include_str!("templates/overview.html")),
            ("sims.html", include_str!("templates/sims.html")),
            ("sim.html", include_str!("templates/sim.html")),
            ("live.html", include_str!("templates/live.html")),
            ("events.html", include_str!("templates/events.html")),
            ("files.html", include_str!("templates/files.html")),
            ("preferences.html", include_str!("templates/preferences.html")),
            ("error.html", include_str!("templates/error.html")),
        ] {
            environment.add_template(name, source)?;
        }
        environment.add_filter("amount", amount);
        environment.add_filter("query", query);
        Ok(Self(environment))
    }

    pub(super) fn overview(
        &self,
        visitor: &DemoVisitor,
        summary: &Summary,
        busiest: &[Sim],
    ) -> Result<String, Error> {
        self.render(
            "overview.html",
            visitor,
            context! { summary => Serde(summary), busiest => Serde(busiest) },
        )
    }

    pub(super) fn sims(&self, visitor: &DemoVisitor, query: &str, sims: &[Sim]) -> Result<String, Error> {
        let last_search = visitor.preferences.last_search.as_str();
        self.render("sims.html", visitor, context! { query, sims => Serde(sims), last_search })
    }

    pub(super) fn sim(&self, visitor: &DemoVisitor, sim: &Sim) -> Result<String, Error> {
        self.render("sim.html", visitor, context! { sim => Serde(sim) })
    }

    pub(super) fn live(&self, visitor: &DemoVisitor) -> Result<String, Error> {
        self.render("live.html", visitor, context! {})
    }

    pub(super) fn events(&self, visitor: &DemoVisitor) -> Result<String, Error> {
        self.render("events.html", visitor, context! {})
    }

    /// With the receipt of the upload, if this page is the response to one.
    pub(super) fn files(&self, visitor: &DemoVisitor, receipt: Option<&Receipt>) -> Result<String, Error> {
        let content = context! {
            receipt => receipt.map(Serde),
            default_bytes => download::DEFAULT,
            most_bytes => download::MOST,
        };
        self.render("files.html", visitor, content)
    }

    pub(super) fn preferences(&self, visitor: &DemoVisitor) -> Result<String, Error> {
        self.render("preferences.html", visitor, context! { preferences => Serde(&visitor.preferences) })
    }

    pub(super) fn error(&self, visitor: &DemoVisitor, error: &Error) -> Result<String, Error> {
        let status = error.status();
        let content = context! {
            code => status.as_u16(),
            reason => status.canonical_reason(),
            text => error.to_string(),
        };
        self.render("error.html", visitor, content)
    }

    /// Adds the values of the layout.
    fn render(&self, template: &str, visitor: &DemoVisitor, content: Value) -> Result<String, Error> {
        let identity = &visitor.identity;
        let everywhere = context! {
            theme => visitor.preferences.theme.word(),
            signed_in_as => identity.name.as_deref().or(identity.user.as_deref()),
            page => template,
        };
        Ok(self.0.get_template(template)?.render(context! { ..content, ..everywhere })?)
    }
}

/// Bytes for people, in powers of ten, as traffic is billed.
fn amount(bytes: u64) -> String {
    for (unit, name) in [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")] {
        if bytes >= unit {
            return format!("{}.{} {name}", bytes / unit, bytes % unit / (unit / 10));
        }
    }
    format!("{bytes} B")
}

/// Encodes text as the value of a query parameter.
fn query(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_shown_in_powers_of_ten() {
        for (bytes, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (1_990_000, "1.9 MB"),
            (10_400_000_000, "10.4 GB"),
        ] {
            assert_eq!(amount(bytes), shown);
        }
    }
}
