//! A real PostgreSQL of a test's own; the same one that the library's own tests start.

#[path = "../../../src/database/test_server.rs"]
#[expect(dead_code, reason = "the library's tests need more of it")]
mod test_server;

pub(crate) use test_server::PostgresServer;

/// The URL of a new, empty database.
pub(crate) fn new_database(server: &PostgresServer) -> String {
    let (user, port, name) = (PostgresServer::USER, server.port(), server.create_database());
    format!("postgres://{user}@127.0.0.1:{port}/{name}?sslmode=disable")
}
