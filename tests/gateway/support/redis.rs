//! A real redis-server of a test's own; the same one that the library's own tests start. Whoever shares it may kill it.

use portcullis::redis_pool::Config;
use tokio::sync::Mutex;

#[path = "../../../src/redis_pool/test_server.rs"]
#[expect(dead_code, reason = "the library's tests need more of it")]
mod test_server;

pub(crate) struct RedisServer {
    server: Mutex<test_server::RedisServer>,
    config: Config,
}

impl RedisServer {
    pub(crate) async fn start() -> Self {
        let server = test_server::RedisServer::start().await;
        Self { config: server.config(), server: Mutex::new(server) }
    }

    /// How to reach it, also while it is dead.
    pub(crate) fn config(&self) -> Config {
        self.config.clone()
    }

    /// Runs one command in a connection of its own.
    pub(crate) async fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.server.lock().await.command(words).await
    }

    pub(crate) async fn kill(&self) {
        self.server.lock().await.kill();
    }

    /// Starts it again on the same port, empty.
    pub(crate) async fn restart(&self) {
        self.server.lock().await.restart().await;
    }

    /// Leaves it connected but silent, as a machine that hangs does.
    pub(crate) async fn freeze(&self) {
        self.server.lock().await.freeze();
    }

    pub(crate) async fn thaw(&self) {
        self.server.lock().await.thaw();
    }
}
