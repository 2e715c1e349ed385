//! Both ends of a WebSocket: the browser's over either protocol, and the portal's.

use futures_util::{SinkExt as _, StreamExt as _};
use http::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

use super::{
    Answer, Body, Browser, Exchange, HOST, PATIENCE, browser::Protocol, empty, wire::Stream, within,
};

/// The bytes of a tunnel.
pub(crate) type Bytes = Box<dyn Stream>;
pub(crate) type Socket = WebSocketStream<Bytes>;

pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A handshake of HTTP/1.1 as text, with `changes` in place of the fields of the same name, or behind them.
pub(crate) fn handshake(path: &str, cookies: &str, changes: &[(&str, &str)]) -> String {
    let origin = format!("https://{HOST}");
    let ordinary = [
        ("Host", HOST),
        ("Cookie", cookies),
        ("Origin", &origin),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
    ];
    let more = changes.iter().filter(|(name, _)| !ordinary.iter().any(|(known, _)| known == name));
    let fields = ordinary.iter().map(|&(name, value)| {
        let other = changes.iter().find(|(known, _)| *known == name);
        (name, other.map_or(value, |(_, value)| value))
    });
    let fields: Vec<String> = fields
        .chain(more.copied())
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    format!("GET {path} HTTP/1.1\r\n{}\r\n", fields.concat())
}

/// The same over HTTP/2 (RFC 8441).
pub(crate) fn connect(path: &str, changes: &[(&str, &str)]) -> Request<Body> {
    let origin = format!("https://{HOST}");
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(path)
        .extension(hyper::ext::Protocol::from_static("websocket"));
    for (name, value) in [("origin", origin.as_str()), ("sec-websocket-version", "13")] {
        let value = changes.iter().find(|(changed, _)| *changed == name).map_or(value, |(_, value)| value);
        if !value.is_empty() {
            request = request.header(name, value);
        }
    }
    let more = changes.iter().filter(|(name, _)| !matches!(*name, "origin" | "sec-websocket-version"));
    more.fold(request, |request, (name, value)| request.header(*name, *value)).body(empty()).unwrap()
}

impl Browser {
    /// Opens a tunnel, or says what was answered instead. Fields are given in lower case.
    pub(crate) async fn try_tunnel(&self, path: &str, fields: &[(&str, &str)]) -> Result<Bytes, Answer> {
        match self.protocol() {
            Protocol::Http1 => {
                let mut connection = self.raw(handshake(path, &self.cookies(), fields)).await;
                let answer = connection.answer_to(&Method::GET).await.expect("there is an answer");
                if answer.status != StatusCode::SWITCHING_PROTOCOLS {
                    return Err(answer);
                }
                assert_eq!(answer.header("sec-websocket-accept"), derive_accept_key(KEY.as_bytes()));
                Ok(connection.wire.into_stream())
            }
            Protocol::Http2 => {
                // The gateway's settings have to be known.
                self.fetch("/.portcullis/whoami").await;
                let answer = self.open(connect(path, fields)).await;
                if answer.status() != StatusCode::OK {
                    return Err(super::browser::read(answer).await);
                }
                for absent in ["sec-websocket-accept", "upgrade", "connection", "content-length"] {
                    assert!(!answer.headers().contains_key(absent), "{answer:?}");
                }
                let upgraded = within(PATIENCE, hyper::upgrade::on(answer)).await.unwrap();
                Ok(Box::new(TokioIo::new(upgraded)))
            }
        }
    }

    pub(crate) async fn tunnel(&self, path: &str) -> Bytes {
        match self.try_tunnel(path, &[]).await {
            Ok(tunnel) => tunnel,
            Err(answer) => panic!("no tunnel to {path}: {answer:?}"),
        }
    }

    pub(crate) async fn socket(&self, path: &str) -> Socket {
        WebSocketStream::from_raw_socket(self.tunnel(path).await, Role::Client, None).await
    }
}

/// Accepts a WebSocket as a portal does, with more fields in the answer.
pub(crate) async fn accept(mut exchange: Exchange, fields: &str) -> Option<Bytes> {
    let accept = derive_accept_key(exchange.head.values("sec-websocket-key").first()?.as_bytes());
    exchange
        .write(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{fields}\r\n"
        ))
        .await?;
    Some(exchange.wire.into_stream())
}

/// The portal's end of a socket.
pub(crate) async fn accept_socket(exchange: Exchange) -> Option<Socket> {
    Some(WebSocketStream::from_raw_socket(accept(exchange, "").await?, Role::Server, None).await)
}

/// Says every message again until the client has enough.
pub(crate) async fn echo(exchange: Exchange) -> Option<()> {
    let mut socket = accept_socket(exchange).await?;
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() || message.is_binary() {
            socket.send(message).await.ok()?;
        }
    }
    Some(())
}
