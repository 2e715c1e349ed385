//! HTTP/2 requests that no client library would send: their frames are written here, octet by octet, and put in place of
//! the ones that a well-behaved client writes. That client reads the answer.

use std::io;

use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};

use super::{Answer, Browser, HOST, PATIENCE, within};

const PREFACE: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// The largest payload that every peer takes.
const LARGEST: usize = 16_384;

/// One frame of any kind.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The frames of one request on stream 1.
#[derive(Clone, Debug, Default)]
pub(crate) struct Forgery {
    pub(crate) fields: Vec<(String, String)>,
    /// `None`: the stream ends with the head.
    pub(crate) body: Option<String>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Forgery {
    /// A request of these fields, with no more than that.
    pub(crate) fn of(fields: &[(&str, &str)]) -> Self {
        Self { fields: owned(fields), ..Self::default() }
    }

    /// The whole request on a stream.
    pub(crate) fn frames_on(&self, stream: u32) -> Vec<u8> {
        let mut frames = self.head_on(stream);
        if let Some(body) = &self.body {
            let end = if self.trailers.is_empty() { END_STREAM } else { 0 };
            frames.extend(frame(DATA, end, stream, body.as_bytes()));
        }
        if !self.trailers.is_empty() {
            frames.extend(head(&self.trailers, stream, true));
        }
        frames
    }

    /// What comes before its body.
    pub(crate) fn head_on(&self, stream: u32) -> Vec<u8> {
        head(&self.fields, stream, self.body.is_none() && self.trailers.is_empty())
    }
}

pub(crate) fn owned(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A head of literals that are neither indexed nor compressed (RFC 7541 §6.2.2).
fn head(fields: &[(String, String)], stream: u32, ends: bool) -> Vec<u8> {
    let block: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(0, name, value)).collect();
    let mut pieces = block.chunks(LARGEST).peekable();
    let (mut frames, mut kind) = (Vec::new(), HEADERS);
    while let Some(piece) = pieces.next() {
        let end_headers = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        let end_stream = if kind == HEADERS && ends { END_STREAM } else { 0 };
        frames.extend(frame(kind, end_headers | end_stream, stream, piece));
        kind = CONTINUATION;
    }
    frames
}

/// One field whose name and value are spelt out. The first octet says what the other side is to remember of it:
/// nothing (0), or all (0x40).
pub(crate) fn literal(first: u8, name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![first];
    for text in [name, value] {
        // Characters stand for bytes, so that a test can write any.
        let bytes: Vec<u8> = text.chars().map(|letter| u8::try_from(u32::from(letter)).unwrap()).collect();
        push_length(&mut field, bytes.len());
        field.extend(bytes);
    }
    field
}

/// An integer with a prefix of seven bits (RFC 7541 §5.1).
fn push_length(block: &mut Vec<u8>, length: usize) {
    if length < 127 {
        block.push(u8::try_from(length).unwrap());
        return;
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}

impl Browser {
    /// Sends a forged request on a connection of its own. An error is a stream or connection that was reset.
    pub(crate) async fn forge(&self, forgery: &Forgery) -> Result<Answer, h2::Error> {
        let (client, ours) = tokio::io::duplex(256 * 1024);
        let (from_client, mut to_client) = tokio::io::split(ours);
        let (mut from_gateway, to_gateway) = tokio::io::split(self.tls(&["h2"]).await);
        let frames = forgery.frames_on(1);
        let pump = tokio::spawn(async move { replace_heads(from_client, to_gateway, &frames).await });
        let back = tokio::spawn(async move {
            let _ = tokio::io::copy(&mut from_gateway, &mut to_client).await;
            // The client has to see the end.
            let _ = to_client.shutdown().await;
        });
        let answer = within(PATIENCE, exchange(client)).await;
        pump.abort();
        back.abort();
        answer
    }
}

async fn exchange(client: tokio::io::DuplexStream) -> Result<Answer, h2::Error> {
    let (sender, connection) = h2::client::handshake(client).await?;
    let connection = tokio::spawn(connection);
    let mut sender = sender.ready().await?;
    let request = Request::get(format!("https://{HOST}/placeholder")).body(()).unwrap();
    let (answer, _) = sender.send_request(request, true)?;
    let (parts, mut stream) = answer.await?.into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        let _ = stream.flow_control().release_capacity(data.len());
        body.extend(data);
    }
    let trailers = stream.trailers().await?;
    connection.abort();
    Ok(Answer {
        status: parts.status,
        version: parts.version,
        headers: parts.headers,
        body: Bytes::from(body),
        trailers,
    })
}

/// Passes everything on, with `forged` in place of the first head.
async fn replace_heads(
    mut from: ReadHalf<impl AsyncRead + AsyncWrite>,
    mut to: WriteHalf<impl AsyncRead + AsyncWrite>,
    forged: &[u8],
) -> io::Result<()> {
    let mut preface = [0; PREFACE];
    from.read_exact(&mut preface).await?;
    to.write_all(&preface).await?;
    loop {
        let mut start = [0; 9];
        from.read_exact(&mut start).await?;
        let length = u32::from_be_bytes([0, start[0], start[1], start[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        from.read_exact(&mut payload).await?;
        if start[3] == HEADERS {
            to.write_all(forged).await?;
        } else {
            to.write_all(&start).await?;
            to.write_all(&payload).await?;
        }
        to.flush().await?;
    }
}
