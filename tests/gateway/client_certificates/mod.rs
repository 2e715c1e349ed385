//! Certificates of clients: as what they count, when they count no more, and what they never do. The clients are curl and openssl.

mod attacks;
pub(crate) mod authority;
mod ending;
mod first_factor;
mod machines;

use self::authority::{Authority, text};
use crate::support::{Exchange, TestGateway, Upstream, test_gateway::Builder, upstream::ordinary};

/// A portal with a stream of events that ends when we end it.
fn portal() -> Upstream {
    Upstream::scripted(async |mut exchange: Exchange| {
        if exchange.target().ends_with("/events") {
            exchange.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n").await?;
            let _ = exchange.wire.read_some().await;
            return None;
        }
        ordinary(exchange).await
    })
}

/// A gateway that trusts an authority; `clients` is in TOML.
fn builder(authority: &Authority, clients: &str) -> Builder {
    let builder = TestGateway::builder().upstream(&portal());
    builder.set("tls.client_ca", &text(&authority.file())).set("tls.clients", clients)
}
