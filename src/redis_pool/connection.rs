//! One connection to one server, until it fails, and how it is made.

use std::{fs, path::Path, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, FromRedisValue,
    IntoConnectionInfo as _, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, TlsCertificates,
    Value, aio::MultiplexedConnection,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Config, error::Reason, url::Address};

/// Commands in flight before callers wait.
const IN_FLIGHT: usize = 4096;

/// One connection, until it fails.
#[derive(Debug)]
pub(super) struct RedisConnection {
    connection: MultiplexedConnection,
    cut: CancellationToken,
    lost: Arc<Notify>,
}

impl RedisConnection {
    pub(super) fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }

    /// Takes the connection out of use.
    pub(super) fn cut(&self) {
        self.cut.cancel();
        self.lost.notify_one();
    }

    /// Sends one command; `asking`: also for a slot that is being moved here.
    pub(super) async fn send(&self, command: &Cmd, asking: bool) -> redis::RedisResult<Value> {
        let mut connection = self.connection.clone();
        if !asking {
            return command.query_async(&mut connection).await;
        }
        let mut both = redis::pipe();
        both.cmd("ASKING").ignore().add_command(command.clone());
        let [answer]: [Value; 1] = both.query_async(&mut connection).await?;
        Ok(answer)
    }

    /// Asks for the role rather than for a PONG: a demoted master still answers, with old data. Returns the number of
    /// replicas.
    pub(super) async fn check_role(&self) -> Result<usize, Reason> {
        let role = self.send(&redis::cmd("ROLE"), false).await.map_err(Reason::connecting)?;
        let (name, _offset, replicas): (String, Value, Value) =
            redis::from_redis_value(role).map_err(|_not_a_master| Reason::Replica)?;
        if name != "master" {
            return Err(Reason::Replica);
        }
        Ok(Vec::<Value>::from_redis_value(replicas).map_or(0, |replicas| replicas.len()))
    }
}

/// The user and the database.
pub(super) struct RedisCredentials<'a> {
    pub(super) user: Option<&'a str>,
    pub(super) password: Option<&'a SecretString>,
    pub(super) database: u32,
}

/// Makes connections.
pub(super) struct RedisConnector {
    settings: RedisConnectionInfo,
    encrypted: bool,
    certificates: TlsCertificates,
    pub(super) deadline: Duration,
    /// Notified when one of these connections is lost.
    pub(super) lost: Arc<Notify>,
}

impl RedisConnector {
    pub(super) fn new(
        config: &Config,
        encrypted: bool,
        credentials: &RedisCredentials<'_>,
    ) -> Result<Self, Reason> {
        // With RESP3 the driver reports a lost connection at once.
        let mut settings = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_db(credentials.database.into());
        if let Some(user) = credentials.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = credentials.password {
            settings = settings.set_password(password.expose_secret());
        }
        if encrypted {
            // The client uses the provider of the process; an existing one is fine.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let certificates = TlsCertificates {
            client_tls: config.certificate.as_deref().zip(config.key.as_deref()).map(identity).transpose()?,
            root_cert: config.ca.as_deref().map(certificate).transpose()?,
        };
        let (deadline, lost) = (config.timeout, Arc::default());
        Ok(Self { settings, encrypted, certificates, deadline, lost })
    }

    /// Connects and logs in.
    pub(super) async fn dial(&self, address: &Address) -> Result<Arc<RedisConnection>, Reason> {
        // A handshake takes several round trips where a command takes one.
        timeout(self.deadline * 2, self.connect(address)).await.unwrap_or(Err(Reason::Slow))
    }

    async fn connect(&self, address: &Address) -> Result<Arc<RedisConnection>, Reason> {
        let (cut, lost) = (CancellationToken::new(), Arc::clone(&self.lost));
        let (heard_cut, heard_lost) = (cut.clone(), Arc::clone(&lost));
        let options = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(IN_FLIGHT)
            .set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    heard_cut.cancel();
                    heard_lost.notify_one();
                }
                Ok::<(), redis::aio::SendError>(())
            });
        let client = self.client(address).map_err(Reason::Client)?;
        let connection = client
            .get_multiplexed_async_connection_with_config(&options)
            .await
            .map_err(Reason::connecting)?;
        Ok(Arc::new(RedisConnection { connection, cut, lost }))
    }

    fn client(&self, address: &Address) -> redis::RedisResult<Client> {
        let (host, port) = (address.host.clone(), address.port);
        let encrypted = self.encrypted;
        let address = if encrypted {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let info = address.into_connection_info()?.set_redis_settings(self.settings.clone());
        if encrypted { Client::build_with_tls(info, self.certificates.clone()) } else { Client::open(info) }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Reason> {
    fs::read(path).map_err(|source| Reason::File { path: path.into(), source })
}

fn certificate(path: &Path) -> Result<Vec<u8>, Reason> {
    let pem = read(path)?;
    match CertificateDer::pem_slice_iter(&pem).next() {
        Some(Ok(_)) => Ok(pem),
        _ => Err(Reason::NoCertificate { path: path.into() }),
    }
}

fn identity((chain, key): (&Path, &Path)) -> Result<ClientTlsConfig, Reason> {
    let client_cert = certificate(chain)?;
    let client_key = read(key)?;
    if PrivateKeyDer::from_pem_slice(&client_key).is_err() {
        return Err(Reason::NoKey { path: key.into() });
    }
    Ok(ClientTlsConfig { client_cert, client_key })
}
