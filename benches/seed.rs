//! Fills an installation's stores: many users, and sessions of theirs. For measurements only; nobody proves anything.
//!
//! `cargo run --release --features seed --example seed -- CONFIG USERS SESSIONS TOKENS` writes the cookie value, the id and the e-mail
//! of each session to the file TOKENS, one session a line.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    net::Ipv4Addr,
    path::PathBuf,
    time::Instant,
};

use anyhow::{Context as _, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use portcullis::{
    app::Stores,
    config::Config,
    random::OsRandom,
    sessions::{NewSession, Origin, Profile},
    users::UserId,
};

/// Rows of one transaction.
const BATCH: usize = 1000;
/// Sessions made at once.
const AT_ONCE: usize = 64;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [config, users, sessions, tokens] = words.as_slice() else {
        bail!("usage: seed CONFIG USERS SESSIONS TOKENS");
    };
    let config = match Config::load(&[PathBuf::from(config)], [], &[]) {
        Ok(config) => config,
        Err(problems) => bail!("{}", problems.render(false)),
    };
    let stores = Stores::open_or_make(&config).await?;
    let began = Instant::now();
    let users = add_users(&stores, users.parse()?).await?;
    let count: usize = sessions.parse()?;
    if users.is_empty() && count > 0 {
        bail!("sessions need a user");
    }
    let mut file = BufWriter::new(File::create(tokens).with_context(|| format!("cannot write {tokens}"))?);
    stream::iter((0..count).map(|number| users[number % users.len()].clone()))
        .map(|(id, email)| {
            let stores = &stores;
            async move {
                let profile = Profile {
                    name: email.clone(),
                    email: email.clone(),
                    display_name: String::new(),
                    groups: Vec::new(),
                    first_login_at: None,
                    has_device: false,
                };
                let new = NewSession::unproved(&id, profile);
                let origin = Origin::new(Ipv4Addr::LOCALHOST.into(), "seed");
                let token = stores.administration.sessions.create(new, origin).await?;
                anyhow::Ok((token, email))
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_for_each(|(token, email)| {
            let line = format!("{} {} {email}", token.expose(), token.hash().to_hex());
            std::future::ready(writeln!(file, "{line}").map_err(Into::into))
        })
        .await?;
    file.flush()?;
    let line =
        format!("{} users and {count} sessions in {:.1} s", users.len(), began.elapsed().as_secs_f64());
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

/// In one transaction a batch: one a user would wait for the disk each time.
async fn add_users(stores: &Stores, count: usize) -> anyhow::Result<Vec<(UserId, String)>> {
    let mut users = Vec::with_capacity(count);
    for first in (0..count).step_by(BATCH) {
        let mut transaction = stores.database.write().await?;
        for number in first..count.min(first + BATCH) {
            let (id, email) = (UserId::generate(&OsRandom), format!("user{number}@example.com"));
            sqlx::query(
                "INSERT INTO users (id, name, email, display_name, group_names, disabled, created_at) \
                 VALUES ($1, $2, $3, '', '', 0, 0)",
            )
            .bind(id.to_string())
            .bind(email.clone())
            .bind(email.clone())
            .execute(&mut *transaction)
            .await?;
            users.push((id, email));
        }
        transaction.commit().await?;
    }
    Ok(users)
}
