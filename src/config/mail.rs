//! `[mail]`: the server that sends mail, and in whose name.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use url::{Host, Url};

use super::{
    layers::Layers,
    values::{ConfigValue, Parsed, Secret},
};
use crate::mail::{self, MailServer, Tls};

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Section {
    /// The mail server: `smtps://user@host`, or `smtp://user@host` for STARTTLS. Absent: no mail is sent.
    url: Option<Parsed<MailUrl>>,
    /// The password of the user in the URL.
    password: Option<Parsed<Secret>>,
    /// A file with the password; a final newline is cut off.
    password_file: Option<Parsed<PathBuf>>,
    /// PEM file with the authority that signed the server's certificate. Absent: the public authorities.
    ca: Option<Parsed<PathBuf>>,
    /// The sender: an address, perhaps with a name.
    from: Option<Parsed<Mailbox>>,
    /// Where replies go. Absent: to the sender.
    reply_to: Option<Parsed<Mailbox>>,
    /// Who is told when a user says "this was not me". Absent: the log.
    operator: Option<Parsed<OneAddress>>,
}

impl Section {
    /// `site` and `portal_name` are `None` if they are missing, which is a fault already.
    pub(super) fn validate(
        self,
        site: Option<&Url>,
        portal_name: Option<&str>,
        layers: &mut Layers,
    ) -> Option<mail::Config> {
        let password = layers.secret("mail.password", self.password, self.password_file);
        let ca = self.ca.map(|Parsed(ca)| layers.resolve("mail.ca", &ca));
        let Some(Parsed(MailUrl { server, user })) = self.url else {
            for key in ["password", "password_file", "ca", "from", "reply_to", "operator"] {
                let key = format!("mail.{key}");
                if layers.says(&key) && layers.sound(&["mail.url"]) {
                    layers.warn(&key, "has no effect: `mail.url` is not set, so no mail is sent");
                }
            }
            return None;
        };
        let both = layers.sound(&["mail.password", "mail.password_file"]);
        match (&user, &password) {
            (Some(_), None) if both => {
                layers.fault("mail.url", "names a user; set `mail.password_file` as well");
            }
            (None, Some(_)) => layers.fault("mail.url", "names no user, and there is a password"),
            (Some(_), Some(_)) if server.tls == Tls::Never && !is_near(&server.host) => {
                layers.fault("mail.url", "would send the password unencrypted: leave `tls=none` out");
            }
            _ => {}
        }
        if self.from.is_none() {
            layers.missing("mail.from", "set the sender, such as \"IoT <no-reply@example.com>\"");
        }
        let Parsed(Mailbox(from)) = self.from?;
        Some(mail::Config {
            server,
            user,
            password,
            ca,
            from,
            reply_to: self.reply_to.map(|Parsed(Mailbox(address))| address),
            operator: self.operator.map(|Parsed(OneAddress(address))| address),
            host: site.and_then(Url::host_str).unwrap_or("localhost").to_owned(),
            portal_name: portal_name.unwrap_or_default().to_owned(),
        })
    }
}

fn is_near(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

struct MailUrl {
    server: MailServer,
    user: Option<String>,
}

impl ConfigValue for MailUrl {
    const EXPECTED: &'static str =
        "a URL such as `smtps://user@mail.example.com`, or `smtp://…` for STARTTLS";

    fn read(text: &str) -> Result<Self, String> {
        let (scheme, _) = text.split_once("://").ok_or_else(|| format!("is not {}", Self::EXPECTED))?;
        let (implicit, port) = match scheme {
            "smtps" => (true, 465),
            "smtp" => (false, 587),
            _ => return Err("must begin with `smtps://`, or with `smtp://` for STARTTLS".into()),
        };
        let url = Url::parse(text).map_err(|reason| format!("is not a URL ({reason})"))?;
        if url.password().is_some() {
            return Err("must not hold a password; set `mail.password_file` instead".into());
        }
        let host = match url.host() {
            Some(Host::Ipv6(address)) => format!("[{address}]"),
            Some(host) => host.to_string(),
            None => return Err(format!("has no host; expected {}", Self::EXPECTED)),
        };
        if host.is_empty() || !matches!(url.path(), "" | "/") || url.fragment().is_some() {
            return Err(format!("must end after the host and port; expected {}", Self::EXPECTED));
        }
        let user = percent_decode_str(url.username()).decode_utf8();
        let user = user.map_err(|_| "has a user that is not UTF-8 once decoded")?.into_owned();
        if user.contains(['\0', '\r', '\n']) {
            return Err("has a user with control characters".into());
        }
        let tls = match (implicit, url.query()) {
            (true, None) => Tls::Implicit,
            (false, Some("tls=required")) => Tls::StartTls,
            (false, Some("tls=none")) => Tls::Never,
            (false, None) => {
                if is_near(&host) {
                    Tls::Never
                } else {
                    Tls::StartTls
                }
            }
            (true, Some(_)) => {
                return Err("takes no parameters: `smtps://` is encrypted from the start".into());
            }
            (false, Some(_)) => return Err("takes `?tls=required` or `?tls=none` and nothing else".into()),
        };
        let server = MailServer { host, port: url.port().unwrap_or(port), tls };
        Ok(Self { server, user: Some(user).filter(|user| !user.is_empty()) })
    }
}

/// An address, perhaps with a name.
struct Mailbox(String);

impl ConfigValue for Mailbox {
    const EXPECTED: &'static str = "an address such as `IoT <no-reply@example.com>`";

    fn read(text: &str) -> Result<Self, String> {
        if !mail::is_mailbox(text) || text.contains(char::is_control) {
            return Err(format!("`{text}` is not {}", Self::EXPECTED));
        }
        Ok(Self(text.to_owned()))
    }
}

/// An address without a name.
struct OneAddress(String);

impl ConfigValue for OneAddress {
    const EXPECTED: &'static str = "an address such as `ops@example.com`";

    fn read(text: &str) -> Result<Self, String> {
        if !mail::is_address(text) {
            return Err(format!("`{text}` is not {}", Self::EXPECTED));
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_how_the_connection_is_encrypted() {
        for (url, server, tls, user) in [
            ("smtps://mail.example.com", "mail.example.com:465", Tls::Implicit, None),
            ("smtps://a%40b@mail.example.com:1465", "mail.example.com:1465", Tls::Implicit, Some("a@b")),
            ("smtp://gate@mail.example.com", "mail.example.com:587", Tls::StartTls, Some("gate")),
            ("smtp://mail.example.com:25?tls=none", "mail.example.com:25", Tls::Never, None),
            ("smtp://localhost:25", "localhost:25", Tls::Never, None),
            ("smtp://127.0.0.1:25?tls=required", "127.0.0.1:25", Tls::StartTls, None),
            ("smtp://[::1]:25", "[::1]:25", Tls::Never, None),
            ("smtp://[2001:db8::1]", "[2001:db8::1]:587", Tls::StartTls, None),
        ] {
            let read = MailUrl::read(url).unwrap_or_else(|reason| panic!("{url}: {reason}"));
            assert_eq!((read.server.to_string().as_str(), read.server.tls), (server, tls), "{url}");
            assert_eq!(read.user.as_deref(), user, "{url}");
        }
        for bad in [
            "mail.example.com",
            "smtps://",
            "https://mail.example.com",
            "smtps://user:secret@mail.example.com",
            "smtps://mail.example.com/inbox",
            "smtps://mail.example.com?tls=none",
            "smtp://mail.example.com?tls=prefer",
            "smtp://a%0d%0ab@mail.example.com",
            "smtp://mail.example.com#x",
        ] {
            let Err(reason) = MailUrl::read(bad) else { panic!("{bad} is accepted") };
            assert!(!reason.contains("secret"), "{reason}");
        }
    }
}
