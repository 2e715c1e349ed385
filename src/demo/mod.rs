//! `portcullis demo`: everything on one machine, with nothing to set up and nothing left behind.
//!
//! The gateway is the real one, with a configuration file like an operator's. The portal behind it knows nothing of it.

mod folder;
pub mod portal;

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener},
    path::Path,
};

use anyhow::Context as _;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::folder::Folder;
use crate::{
    app::App,
    config::Config,
    random::{OsRandom, Random},
    server::ServerError,
    telemetry::log,
    users::NewUser,
};

const EMAIL: &str = "ada@example.com";
/// How long flushing the log may take at the end.
const LAST_LINES: std::time::Duration = std::time::Duration::from_secs(2);

/// The arguments of the demonstration.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// The port that the wall listens on
    #[arg(long, default_value_t = 8443)]
    port: u16,
}

/// Runs the demonstration until `drain` is cancelled.
pub async fn run(arguments: &DemoArgs, drain: CancellationToken) -> anyhow::Result<()> {
    let folder = Folder::create(&OsRandom).context("cannot make a temporary folder")?;
    let portal =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("cannot start the sample portal")?;
    let config = configure(folder.path(), arguments.port, portal.local_addr()?)?;
    let lines = log::init(&config.log)?;
    let app = match Box::pin(App::build(config, &lines)).await {
        Err(error) if error.downcast_ref::<ServerError>().is_some() => {
            return Err(error).context("is another demo running? give this one another port with --port");
        }
        built => built?,
    };
    let password = passphrase(&OsRandom);
    let user = NewUser {
        email: EMAIL.into(),
        display_name: "Ada Lovelace".into(),
        groups: vec!["operators".into()],
    };
    app.stores().administration.add_user(user, Some(SecretString::from(password.clone()))).await?;

    greet(arguments.port, &password, app.admin_address());
    let portal = tokio::spawn(portal::serve(portal, drain.clone()));
    let served = app.serve(drain.clone()).await;
    // If serving failed, this stops the portal.
    drain.cancel();
    portal.await.context("the sample portal broke off")??;
    lines.flush(LAST_LINES);
    served
}

/// Writes a certificate and a configuration file, and loads the file like an operator's.
fn configure(folder: &Path, port: u16, portal: SocketAddr) -> anyhow::Result<Config> {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).context("cannot make a certificate")?;
    std::fs::write(folder.join("certificate.pem"), made.cert.pem())?;
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem())?;
    // Browsers try the IPv6 loopback first if there is one.
    let has_ipv6 = StdListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    let ipv6 = if has_ipv6 { format!(", \"[::1]:{port}\"") } else { String::new() };
    let listen = format!("\"127.0.0.1:{port}\"{ipv6}");
    let text = format!(
        r#"
[server]
listen = [{listen}]
public_url = "https://localhost:{port}"
admin_listen = "127.0.0.1:0"

[tls]
certificate = "certificate.pem"
key = "key.pem"

[portal]
name = "Northline Connect"
upstreams = ["http://{portal}"]
support = "mailto:support@example.com"

[storage]
database = "sqlite:portcullis.db"
key_file = "portcullis.key"

[log]
level = "warn,audit=off,portcullis::tls::reload=error"
access = false
"#
    );
    let file = folder.join("portcullis.toml");
    std::fs::write(&file, text)?;
    // Ignores the environment, so that the demonstration is the same everywhere.
    Config::load(&[file], [], &[]).map_err(|problems| anyhow::anyhow!("{}", problems.render(false)))
}

/// Five groups of four unambiguous letters, with more than 90 bits in all.
fn passphrase(random: &dyn Random) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let letters: Vec<char> =
        random.bytes::<20>().iter().map(|byte| char::from(LETTERS[usize::from(byte & 31)])).collect();
    letters.chunks(4).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join("-")
}

#[expect(clippy::print_stdout, reason = "the demonstration speaks to whoever started it")]
fn greet(port: u16, password: &str, admin: Option<SocketAddr>) {
    println!(
        "\nPortcullis is running in front of a sample connectivity portal.\n\n  \
         Open      https://localhost:{port}\n  \
         E-mail    {EMAIL}\n  \
         Password  {password}\n\n\
         What to do next:\n  \
         1. Open the address. The certificate was made for this run, so the browser warns once: go on.\n  \
         2. Sign in. A QR code appears: scan it with Microsoft Authenticator or Google Authenticator,\n     \
            enter the code, name the device, press Save. No phone at hand? `oathtool --totp -b KEY`\n     \
            turns the key beside the QR code into codes.\n  \
         3. Save the recovery codes, and you are in the portal. Sign out at /.portcullis/account."
    );
    if let Some(admin) = admin {
        println!("\nThe operator's side: http://{admin}/ready and http://{admin}/metrics");
    }
    println!("\nCtrl-C stops everything and leaves nothing behind.\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_of_the_demonstration_is_good() {
        let folder = Folder::create(&OsRandom).unwrap();
        let config = configure(folder.path(), 8443, "127.0.0.1:3000".parse().unwrap()).unwrap();
        assert!(config.warnings.is_empty());
        assert_eq!(config.pages.portal_name, "Northline Connect");
    }

    #[test]
    fn passphrases_are_long_enough_and_never_the_same() {
        let (a, b) = (passphrase(&OsRandom), passphrase(&OsRandom));
        assert_eq!(a.len(), 24);
        assert_ne!(a, b);
    }
}
