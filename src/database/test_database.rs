//! An empty store of each kind for tests.

use std::sync::OnceLock;

use super::{
    Config, Database,
    postgres::{self, Host},
    test_server::PostgresServer,
};

/// The kind of database that a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    Sqlite,
    Postgres,
}

/// Runs each of the named tests, an async function of [`On`], on every kind of database. The compiler reports one that
/// is not named as unused.
macro_rules! on_each_database {
    ($($test:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() {
                super::$test(crate::database::test_database::On::Sqlite).await;
            })+
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() {
                super::$test(crate::database::test_database::On::Postgres).await;
            })+
        }
    };
}
pub(crate) use on_each_database;

pub(crate) struct TestDatabase {
    pub(crate) config: Config,
    _folder: Option<tempfile::TempDir>,
}

impl TestDatabase {
    /// Without a schema.
    pub(crate) fn empty(on: On) -> Self {
        match on {
            On::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                let url = format!("sqlite:{}", folder.path().join("data/portcullis.db").display());
                Self { config: Config::Sqlite { url }, _folder: Some(folder) }
            }
            On::Postgres => {
                let server = shared_server();
                Self { config: Config::Postgres(config(&[server], server.create_database())), _folder: None }
            }
        }
    }

    pub(crate) async fn new(on: On) -> (Self, Database) {
        let store = Self::empty(on);
        let database = store.open().await;
        (store, database)
    }

    /// A second handle; the store goes with the first.
    pub(crate) fn again(&self) -> Self {
        Self { config: self.config.clone(), _folder: None }
    }

    /// Opened by one more process.
    pub(crate) async fn open(&self) -> Database {
        Database::open(&self.config).await.unwrap()
    }
}

/// One server for all tests of this process.
pub(crate) fn shared_server() -> &'static PostgresServer {
    static SERVER: OnceLock<PostgresServer> = OnceLock::new();
    SERVER.get_or_init(|| PostgresServer::start(&[]))
}

pub(crate) fn config(servers: &[&PostgresServer], name: String) -> postgres::Config {
    let host = |server: &&PostgresServer| Host { name: "127.0.0.1".into(), port: server.port() };
    postgres::Config {
        hosts: servers.iter().map(host).collect(),
        user: PostgresServer::USER.into(),
        password: None,
        name,
        tls: "disable".into(),
        ca: None,
        client_certificate: None,
        max_connections: 8,
    }
}
