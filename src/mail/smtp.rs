//! A connection to the mail server, one named step after the other.

use std::{fmt, io, path::PathBuf, time::Duration};

use lettre::{
    Address, Message,
    message::Mailbox,
    transport::smtp::{
        self,
        authentication::{Credentials, Mechanism},
        client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters, TlsParametersBuilder},
        commands::{Data, Mail, Rcpt},
        extension::{ClientId, Extension, MailParameter},
    },
};
use secrecy::ExposeSecret as _;
use tokio::time::timeout;

use super::{Config, Tls};

/// The longest that one step may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How to reach the mail server.
pub struct MailTransport {
    config: Config,
    tls: Option<TlsParameters>,
    sender: Address,
}

/// Why no mail can be sent at all.
#[derive(Debug, thiserror::Error)]
pub enum MailTransportError {
    #[error("cannot read mail.ca, {}", path.display())]
    Ca {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("mail.ca has no certificate")]
    NoCertificate,
    #[error("cannot set up TLS for the mail server")]
    Tls(#[source] smtp::Error),
    #[error("mail.from is not an address")]
    From(#[source] lettre::address::AddressError),
}

/// A step towards a sent mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailStep {
    Connect,
    StartTls,
    SignIn,
    Sender,
    Recipient,
    Message,
}

impl MailStep {
    /// The step in words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::StartTls => "start TLS",
            Self::SignIn => "sign in",
            Self::Sender => "sender accepted",
            Self::Recipient => "recipient accepted",
            Self::Message => "message accepted",
        }
    }
}

/// What went wrong in a step.
#[derive(Debug, thiserror::Error)]
pub enum MailFault {
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Slow,
    #[error("the server offers no STARTTLS")]
    NoStartTls,
    #[error("the server takes no address that is not ASCII (SMTPUTF8)")]
    NoUtf8,
    #[error("the message cannot be put together")]
    Message(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Smtp(#[from] smtp::Error),
}

/// Why a mail was not sent.
#[derive(Debug, thiserror::Error)]
#[error("{}", step.words())]
pub struct SmtpError {
    pub step: MailStep,
    #[source]
    pub fault: MailFault,
}

impl SmtpError {
    /// Whether this mail will never be accepted, whenever it is tried.
    pub fn is_final(&self) -> bool {
        match (&self.fault, self.step) {
            (MailFault::Message(_) | MailFault::NoUtf8, _) => true,
            (MailFault::Smtp(error), MailStep::Recipient | MailStep::Message) => error.is_permanent(),
            _ => false,
        }
    }

    /// Whether other mail would fail in the same way.
    pub fn is_of_the_server(&self) -> bool {
        let answered = matches!(&self.fault, MailFault::Smtp(error) if error.status().is_some());
        let of_this_mail = answered && matches!(self.step, MailStep::Recipient | MailStep::Message);
        !self.is_final() && !of_this_mail
    }

    /// What an operator can do about it.
    pub fn advice(&self) -> Option<&'static str> {
        Some(match (self.step, &self.fault) {
            (MailStep::Connect, MailFault::Smtp(error)) if error.is_tls() => {
                "the TLS handshake failed. Compare the name in mail.url with the certificate, set mail.ca for a private authority, and \
                 use smtp:// where the server expects STARTTLS (usually port 587)"
            }
            (MailStep::Connect, _) => {
                "check host and port in mail.url, and whether a firewall lets the gateway out to it. smtps:// is for port 465, smtp:// for 587"
            }
            (MailStep::StartTls, MailFault::NoStartTls) => {
                "use smtps:// if the server expects TLS from the start, or add ?tls=none to mail.url on a network that you trust"
            }
            (MailStep::StartTls, _) => {
                "compare the name in mail.url with the certificate, and set mail.ca for a private authority"
            }
            (MailStep::SignIn, _) => "check the user in mail.url and mail.password_file",
            (MailStep::Sender, _) => {
                "the server doesn't accept mail.from: use an address that this account may send as"
            }
            (MailStep::Recipient, _) => {
                "the server doesn't accept this recipient: check the address, and whether the server relays for the gateway"
            }
            (MailStep::Message, _) => return None,
        })
    }
}

/// An open connection, ready for mail.
pub struct Smtp<'a> {
    connection: AsyncSmtpConnection,
    transport: &'a MailTransport,
}

impl MailTransport {
    pub fn new(config: &Config) -> Result<Self, MailTransportError> {
        let tls = match config.server.tls {
            Tls::Never => None,
            Tls::Implicit | Tls::StartTls => Some(tls(config)?),
        };
        let from: Mailbox = config.from.parse().map_err(MailTransportError::From)?;
        Ok(Self { config: config.clone(), tls, sender: from.email })
    }

    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Connects and signs in. `done` is called after each step.
    pub async fn connect(&self, mut done: impl FnMut(MailStep)) -> Result<Smtp<'_>, SmtpError> {
        let Config { server, user, password, host, .. } = &self.config;
        let hello = ClientId::Domain(host.clone());
        let tls = self.tls.clone();
        let at_once = tls.clone().filter(|_| server.tls == Tls::Implicit);
        let address = (server.host.trim_matches(['[', ']']), server.port);
        let connecting = AsyncSmtpConnection::connect_tokio1(address, Some(PATIENCE), &hello, at_once, None);
        let mut connection = step(MailStep::Connect, connecting).await?;
        done(MailStep::Connect);
        if let Some(tls) = tls.filter(|_| server.tls == Tls::StartTls) {
            if !connection.can_starttls() {
                connection.abort().await;
                return Err(SmtpError { step: MailStep::StartTls, fault: MailFault::NoStartTls });
            }
            step(MailStep::StartTls, connection.starttls(tls, &hello)).await?;
            done(MailStep::StartTls);
        }
        if let (Some(user), Some(password)) = (user, password) {
            let credentials = Credentials::new(user.clone(), password.expose_secret().to_owned());
            step(MailStep::SignIn, connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials))
                .await?;
            done(MailStep::SignIn);
        }
        Ok(Smtp { connection, transport: self })
    }
}

impl Smtp<'_> {
    /// Sends one mail. After an error the connection is of no more use.
    pub async fn send(
        &mut self,
        to: &Address,
        message: &Message,
        mut done: impl FnMut(MailStep),
    ) -> Result<(), SmtpError> {
        let connection = &mut self.connection;
        let sender = &self.transport.sender;
        let mut parameters = Vec::new();
        if !AsRef::<str>::as_ref(to).is_ascii() || !AsRef::<str>::as_ref(sender).is_ascii() {
            if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
                return Err(SmtpError { step: MailStep::Recipient, fault: MailFault::NoUtf8 });
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        step(MailStep::Sender, connection.command(Mail::new(Some(sender.clone()), parameters))).await?;
        done(MailStep::Sender);
        step(MailStep::Recipient, connection.command(Rcpt::new(to.clone(), Vec::new()))).await?;
        done(MailStep::Recipient);
        step(MailStep::Message, connection.command(Data)).await?;
        let bytes = message.formatted();
        step(MailStep::Message, connection.message(&bytes)).await?;
        done(MailStep::Message);
        Ok(())
    }

    /// Says goodbye; whether the server answers makes no difference.
    pub async fn quit(mut self) {
        let _ = timeout(PATIENCE, self.connection.quit()).await;
    }
}

impl fmt::Debug for Smtp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Smtp({})", self.transport.config.server)
    }
}

impl fmt::Debug for MailTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MailTransport({})", self.config.server)
    }
}

async fn step<T>(
    step: MailStep,
    doing: impl Future<Output = Result<T, smtp::Error>>,
) -> Result<T, SmtpError> {
    match timeout(PATIENCE, doing).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(SmtpError { step, fault: error.into() }),
        Err(_) => Err(SmtpError { step, fault: MailFault::Slow }),
    }
}

fn tls(config: &Config) -> Result<TlsParameters, MailTransportError> {
    let mut tls = TlsParametersBuilder::new(config.server.host.trim_matches(['[', ']']).to_owned());
    if let Some(path) = &config.ca {
        let pem =
            std::fs::read(path).map_err(|source| MailTransportError::Ca { path: path.clone(), source })?;
        if !pem.windows(11).any(|window| window == b"CERTIFICATE") {
            return Err(MailTransportError::NoCertificate);
        }
        let authority = Certificate::from_pem(&pem).map_err(MailTransportError::Tls)?;
        tls = tls.certificate_store(CertificateStore::None).add_root_certificate(authority);
    }
    tls.build_rustls().map_err(MailTransportError::Tls)
}
