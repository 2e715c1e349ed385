//! The content of a mail, as text and as HTML from the same parts. Loads nothing from anywhere.

use lettre::{
    Address, Message,
    message::{
        Mailbox, MultiPart,
        header::{HeaderName, HeaderValue},
    },
};
use minijinja::HtmlEscape;
use serde::{Deserialize, Serialize};

use super::Config;
use crate::clock::Timestamp;

/// A mail before it has a recipient.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Letter {
    subject: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Part {
    Paragraph(String),
    /// Labels and values.
    Facts(Vec<(String, String)>),
    /// A label and a URL.
    Link(String, String),
}

impl Letter {
    pub fn new(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), parts: Vec::new() }
    }

    #[must_use]
    pub fn paragraph(mut self, text: impl Into<String>) -> Self {
        self.parts.push(Part::Paragraph(text.into()));
        self
    }

    #[must_use]
    pub fn facts(mut self, facts: Vec<(&str, String)>) -> Self {
        let facts = facts.into_iter().map(|(label, value)| (label.to_owned(), one_line(&value)));
        self.parts.push(Part::Facts(facts.collect()));
        self
    }

    /// The URL stands in the text by itself, so that every program makes a link of it.
    #[must_use]
    pub fn link(mut self, label: impl Into<String>, url: impl Into<String>) -> Self {
        self.parts.push(Part::Link(label.into(), url.into()));
        self
    }

    pub fn subject(&self) -> &str {
        &self.subject
    }

    fn text(&self, portal: &str) -> String {
        let parts = self.parts.iter().map(Part::text).collect::<String>();
        format!("{parts}-- \n{}\n", footer(portal))
    }

    fn html(&self, portal: &str) -> String {
        let parts = self.parts.iter().map(Part::html).collect::<String>();
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\"><title>{}</title></head>\n\
             <body style=\"font-family:system-ui,sans-serif;font-size:16px;line-height:1.5;max-width:34em;margin:0 auto;padding:16px\">\n\
             {parts}<p style=\"margin:24px 0 0;color:#6b7280;font-size:13px\">{}</p>\n</body></html>\n",
            HtmlEscape(&self.subject),
            HtmlEscape(&footer(portal))
        )
    }

    /// The whole mail. The same id and date each time, so that a mail that arrives twice is known for one.
    pub(super) fn message(
        &self,
        config: &Config,
        id: &str,
        to: &Address,
        made_at: Timestamp,
    ) -> Result<Message, Box<dyn std::error::Error + Send + Sync>> {
        let from: Mailbox = config.from.parse()?;
        let mut message = Message::builder()
            .from(from)
            // Without a name: nothing that a user is called gets into a header.
            .to(Mailbox::new(None, to.clone()))
            .subject(one_line(&self.subject))
            .message_id(Some(format!("<{id}@{}>", config.host)))
            .date(std::time::UNIX_EPOCH + made_at.since(Timestamp::from_unix_millis(0)));
        if let Some(reply_to) = &config.reply_to {
            message = message.reply_to(reply_to.parse()?);
        }
        // No holiday notice is to answer this (RFC 3834; Exchange reads the other one).
        for (name, value) in [("Auto-Submitted", "auto-generated"), ("X-Auto-Response-Suppress", "All")] {
            let name = HeaderName::new_from_ascii(name.to_owned())?;
            message = message.raw_header(HeaderValue::new(name, value.to_owned()));
        }
        let (text, html) = (self.text(&config.portal_name), self.html(&config.portal_name));
        Ok(message.multipart(MultiPart::alternative_plain_html(text, html))?)
    }
}

impl Part {
    fn text(&self) -> String {
        match self {
            Self::Paragraph(paragraph) => format!("{paragraph}\n\n"),
            Self::Facts(facts) => {
                let lines = facts.iter().map(|(label, value)| format!("  {label}: {value}\n"));
                lines.collect::<String>() + "\n"
            }
            Self::Link(label, url) => format!("{label}:\n{url}\n\n"),
        }
    }

    fn html(&self) -> String {
        match self {
            Self::Paragraph(text) => format!("<p style=\"margin:0 0 16px\">{}</p>\n", HtmlEscape(text)),
            Self::Facts(facts) => {
                let rows = facts.iter().map(|(label, value)| {
                    format!(
                        "<tr><td style=\"padding:2px 16px 2px 0;color:#6b7280\">{}</td><td>{}</td></tr>\n",
                        HtmlEscape(label),
                        HtmlEscape(value)
                    )
                });
                let rows = rows.collect::<String>();
                format!("<table role=\"presentation\" style=\"margin:0 0 16px\">\n{rows}</table>\n")
            }
            Self::Link(label, url) => format!(
                "<p style=\"margin:0 0 16px\"><a href=\"{0}\">{1}</a><br>\
                 <span style=\"color:#6b7280;font-size:13px;word-break:break-all\">{0}</span></p>\n",
                HtmlEscape(url),
                HtmlEscape(label)
            ),
        }
    }
}

fn footer(portal: &str) -> String {
    format!("Sent automatically by {portal}. Please don't reply to this message.")
}

/// In words, with the time.
pub fn date(instant: Timestamp) -> String {
    match jiff::Timestamp::from_millisecond(instant.unix_millis()) {
        Ok(instant) => instant.strftime("%-d %B %Y, %H:%M UTC").to_string(),
        Err(_) => instant.to_string(),
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
