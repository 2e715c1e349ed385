//! A real redis-server of a test's own; the same one that the library's own tests start.

use portcullis::redis_pool::Config;

#[path = "../../../src/redis_pool/test_server.rs"]
#[expect(dead_code, reason = "the library's tests need more of it")]
mod test_server;

pub(crate) use test_server::RedisServer;
