//! Empties the outbox, one mail after the other over one connection.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    MailTransport, Outbox, SmtpError,
    outbox::Taken,
    smtp::{MailFault, MailStep, Smtp},
};
use crate::{
    audit::{Audit, AuditEvent, Context},
    background::{BEAT, regularly},
    database::DatabaseError,
    errors::Chain,
    telemetry::metrics::Metrics,
};

/// How long the server is left alone when it does not answer.
const PAUSE: Duration = Duration::from_secs(30);
/// How often it is looked whether something is due that nobody has announced.
const LOOK: Duration = Duration::from_mins(1);
/// How often old mail is forgotten.
const TIDY: Duration = Duration::from_hours(1);

/// Sends what is in the outbox.
pub struct MailSender {
    pub outbox: Outbox,
    pub transport: MailTransport,
    pub audit: Arc<Audit>,
    pub metrics: Arc<Metrics>,
}

/// How a round of sending ended.
enum Round {
    /// Nothing more is due.
    Empty,
    /// The server is of no use at the moment.
    Trouble,
}

impl MailSender {
    /// Sends until `stop`, whenever mail is announced or due.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = regularly(BEAT);
        let clock = Arc::clone(&self.outbox.clock);
        // By the shared clock; nothing is sent before the first, and everything looked at from the second.
        let (mut not_before, mut next) = (clock.now(), clock.now());
        let (mut looked, mut tidied) = (clock.elapsed(), None);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.outbox.database.mail_announced() => next = clock.now(),
                _ = ticks.tick() => {}
            }
            let (now, elapsed) = (clock.now(), clock.elapsed());
            if now < not_before || (now < next && elapsed.saturating_sub(looked) < LOOK) {
                continue;
            }
            looked = elapsed;
            match self.round(&stop).await {
                Ok(Round::Empty) => not_before = now,
                Ok(Round::Trouble) => not_before = now.plus(PAUSE),
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "cannot read or change the outbox");
                    not_before = now.plus(PAUSE);
                }
            }
            let far = now.plus(TIDY);
            next = self.outbox.next_due().await.ok().flatten().unwrap_or(far);
            if tidied.is_none_or(|tidied| elapsed.saturating_sub(tidied) >= TIDY) {
                tidied = Some(elapsed);
                if let Err(error) = self.outbox.purge().await {
                    tracing::warn!(error = %Chain(&error), "cannot purge old mail");
                }
            }
        }
    }

    /// Sends all that is due.
    async fn round(&self, stop: &CancellationToken) -> Result<Round, DatabaseError> {
        let mut connection = None;
        while !stop.is_cancelled() {
            let Some(mail) = self.outbox.take(false).await? else { break };
            match self.send(&mail, &mut connection).await {
                Ok(()) => {
                    self.metrics.mail("sent");
                    tracing::info!(mail = mail.id, kind = mail.kind, to = mail.to, "mail sent");
                    self.outbox.sent(&mail).await?;
                }
                Err(error) => {
                    // What the server thinks of the connection is unknown.
                    connection = None;
                    self.failed(&mail, &error).await?;
                    if error.is_of_the_server() {
                        self.give_up_overdue(&error).await?;
                        return Ok(Round::Trouble);
                    }
                }
            }
        }
        if let Some(connection) = connection {
            connection.quit().await;
        }
        Ok(Round::Empty)
    }

    async fn send<'a>(&'a self, mail: &Taken, connection: &mut Option<Smtp<'a>>) -> Result<(), SmtpError> {
        let bad = |reason| SmtpError { step: MailStep::Message, fault: MailFault::Message(reason) };
        let to = mail.to.parse().map_err(|reason: lettre::address::AddressError| bad(reason.into()))?;
        let letter = mail.letter.as_ref().ok_or_else(|| bad("it cannot be unsealed".into()))?;
        let message = letter.message(self.transport.config(), &mail.id, &to, mail.made_at).map_err(bad)?;
        let open = match connection {
            Some(open) => open,
            None => connection.insert(self.transport.connect(|_| ()).await?),
        };
        open.send(&to, &message, |_| ()).await
    }

    async fn failed(&self, mail: &Taken, error: &SmtpError) -> Result<(), DatabaseError> {
        self.metrics.mail("failed");
        let reason = Chain(error).to_string();
        if self.outbox.failed(mail, &reason, error.is_final()).await? {
            tracing::warn!(
                mail = mail.id,
                kind = mail.kind,
                to = mail.to,
                error = reason,
                "mail not sent yet"
            );
        } else {
            self.given_up(mail, &reason);
        }
        Ok(())
    }

    /// Without asking the server again for each of them.
    async fn give_up_overdue(&self, error: &SmtpError) -> Result<(), DatabaseError> {
        let reason = Chain(error).to_string();
        while let Some(mail) = self.outbox.take(true).await? {
            self.outbox.failed(&mail, &reason, true).await?;
            self.given_up(&mail, &reason);
        }
        Ok(())
    }

    fn given_up(&self, mail: &Taken, reason: &str) {
        self.metrics.mail("given_up");
        tracing::error!(mail = mail.id, kind = mail.kind, to = mail.to, error = reason, "mail given up");
        self.audit.record(AuditEvent::MailGivenUp, &Context { user: Some(&mail.to), ..Context::default() });
    }
}
