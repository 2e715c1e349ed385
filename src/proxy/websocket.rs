//! WebSockets from HTTP/2 clients (RFC 8441) to the portal over HTTP/1.1: the gateway makes and checks the handshake
//! that the client does not make.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, Method, StatusCode, header};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{
    random::Random,
    web::{gate::CanonicalRequest, portal_fields::PortalFields},
};

/// The handshake with the portal.
#[derive(Debug)]
pub(super) struct Handshake {
    accept: String,
}

impl Handshake {
    /// Turns the request into an upgrade, if it is a WebSocket over HTTP/2.
    pub(super) fn begin<B>(request: &mut CanonicalRequest<B>, random: &dyn Random) -> Option<Self> {
        if *request.method() != Method::CONNECT {
            return None;
        }
        let key = STANDARD.encode(random.bytes::<16>());
        let accept = derive_accept_key(key.as_bytes());
        request.become_handshake(HeaderValue::try_from(key).ok()?);
        Some(Self { accept })
    }

    /// Turns the portal's 101 into a success for HTTP/2, whose stream is the tunnel. `None` if the portal has not
    /// answered our key.
    pub(super) fn finish(&self, fields: &mut PortalFields) -> Option<StatusCode> {
        if fields.get(&header::SEC_WEBSOCKET_ACCEPT)? != self.accept.as_bytes() {
            return None;
        }
        let names =
            [header::SEC_WEBSOCKET_ACCEPT, header::CONNECTION, header::UPGRADE, header::CONTENT_LENGTH];
        fields.drop_where(|name| names.contains(name));
        Some(StatusCode::OK)
    }
}
