//! Renders views to HTML. All templates are built in and compiled at start; every value is escaped, and an undefined
//! variable is an error instead of a gap.

use minijinja::{Environment, UndefinedBehavior, Value, context, value::Serde};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Serialize;
use url::Url;

use super::{
    Config,
    assets::Assets,
    views::{DEVICE_NAME_LIMIT, View},
};
use crate::errors::Chain;

/// The names and sources of the built-in templates. The suffix `.html` enables escaping.
pub(super) const SOURCES: [(&str, &str); 24] = [
    ("base.html", include_str!("templates/base.html")),
    ("parts.html", include_str!("templates/parts.html")),
    ("login.html", include_str!("templates/login.html")),
    ("code.html", include_str!("templates/code.html")),
    ("recovery.html", include_str!("templates/recovery.html")),
    ("enrol.html", include_str!("templates/enrol.html")),
    ("new_recovery_codes.html", include_str!("templates/new_recovery_codes.html")),
    ("first_code.html", include_str!("templates/first_code.html")),
    ("forgot.html", include_str!("templates/forgot.html")),
    ("set_password.html", include_str!("templates/set_password.html")),
    ("not_me.html", include_str!("templates/not_me.html")),
    ("told.html", include_str!("templates/told.html")),
    ("wrong_tries.html", include_str!("templates/wrong_tries.html")),
    ("recovered.html", include_str!("templates/recovered.html")),
    ("recovery_codes.html", include_str!("templates/recovery_codes.html")),
    ("account.html", include_str!("templates/account.html")),
    ("new_token.html", include_str!("templates/new_token.html")),
    ("token_made.html", include_str!("templates/token_made.html")),
    ("saved_form.html", include_str!("templates/saved_form.html")),
    ("once_more.html", include_str!("templates/once_more.html")),
    ("leaving.html", include_str!("templates/leaving.html")),
    ("signed_in.html", include_str!("templates/signed_in.html")),
    ("signed_out.html", include_str!("templates/signed_out.html")),
    ("message.html", include_str!("templates/message.html")),
];

/// The page in place of one that could not be rendered; says nothing of the reason.
const BROKEN: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Error: Something went wrong</title></head>
<body><main><h1>Something went wrong</h1><p>The fault is on our side, not yours. Please try again in a minute.</p></main></body></html>
"#;

/// Why the templates cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TemplatesError {
    #[error("cannot parse the template {name}")]
    Template {
        name: &'static str,
        #[source]
        source: minijinja::Error,
    },
    #[error("the support contact is not a URL")]
    SupportUrl(#[source] url::ParseError),
    #[error("the support contact must begin with mailto:, tel: or https:, not {scheme}:")]
    SupportScheme { scheme: String },
}

/// All templates, ready to render.
#[derive(Debug)]
pub struct Templates {
    environment: Environment<'static>,
}

impl Templates {
    pub fn new(config: &Config) -> Result<Self, TemplatesError> {
        let support = config.support.as_deref().map(Support::parse).transpose()?;
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        // Otherwise a template error would write the values of the page to the log, including seeds and codes.
        environment.set_debug(false);
        environment.add_global(
            "portal",
            context! { name => config.portal_name.as_str(), support => Serde(support) },
        );
        let assets = Assets::embedded();
        environment.add_global("assets", Value::from(Serde(assets.urls())));
        environment.add_global("style", Value::from_safe_string(assets.style().to_owned()));
        environment.add_global("device_name_limit", DEVICE_NAME_LIMIT);
        for (name, source) in SOURCES {
            environment
                .add_template(name, source)
                .map_err(|source| TemplatesError::Template { name, source })?;
        }
        Ok(Self { environment })
    }

    /// Renders a page. If a template fails, the error is logged and the reader sees a plain error page.
    pub fn render(&self, view: &View<'_>) -> String {
        let name = view.template();
        let context =
            context! { page => Serde(view), failed => view.failed(), rd_query => rd_query(view.rd()) };
        match self.environment.get_template(name).and_then(|template| template.render(context)) {
            Ok(html) => html,
            Err(error) => {
                tracing::error!(page = name, error = %Chain(&error), "a page could not be rendered");
                BROKEN.to_owned()
            }
        }
    }
}

/// A contact for help, as a safe link.
#[derive(Serialize)]
struct Support {
    href: String,
    label: String,
}

impl Support {
    fn parse(text: &str) -> Result<Self, TemplatesError> {
        let url = Url::parse(text).map_err(TemplatesError::SupportUrl)?;
        let label = match url.scheme() {
            "mailto" | "tel" => percent_decode_str(url.path()).decode_utf8_lossy().into_owned(),
            "https" => format!("{}{}", url.host_str().unwrap_or_default(), url.path().trim_end_matches('/')),
            scheme => return Err(TemplatesError::SupportScheme { scheme: scheme.to_owned() }),
        };
        Ok(Self { href: url.into(), label })
    }
}

/// `?rd=…`, or nothing if there is no page to return to.
fn rd_query(rd: Option<&str>) -> String {
    rd.map(|rd| format!("?rd={}", utf8_percent_encode(rd, NON_ALPHANUMERIC))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::views::LoginPage;

    #[test]
    fn a_template_that_fails_shows_a_plain_page_and_keeps_the_values_to_itself() {
        let config = Config { portal_name: "Portal".into(), support: None };
        let mut templates = Templates::new(&config).unwrap();
        templates.environment.add_template("login.html", "{{ page.email }}{{ page.absent }}").unwrap();
        let email = "ada@example.com";
        let (error, notice, remember, rd) = (None, None, None, None);
        let view = View::Login(LoginPage {
            certificate: None,
            email,
            error,
            notice,
            csrf: "c",
            again: false,
            code_first: false,
            forgot: false,
            remember,
            rd,
        });
        assert_eq!(templates.render(&view), BROKEN);

        let template = templates.environment.get_template("login.html").unwrap();
        let error = template.render(context! { page => Serde(&view) }).unwrap_err();
        assert!(!format!("{error:#} {error:?} {}", Chain(&error)).contains(email));
    }
}
