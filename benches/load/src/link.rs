//! One connection with one request under way: asks, and reads until the answer is whole.

use std::{
    borrow::Cow,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    time::Instant,
};

use rustls::{
    ClientConnection,
    pki_types::{InvalidDnsNameError, pem},
};

/// More than the head of any answer here.
const MOST_FIELDS: usize = 64;
const MOST_HEAD: usize = 16 * 1024;

/// What makes the figures worthless.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("the socket: {0}")]
    Socket(#[from] io::Error),
    #[error("the socket: {0}")]
    System(#[from] rustix::io::Errno),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the authority: {0}")]
    Pem(#[from] pem::Error),
    #[error("localhost is no name: {0}")]
    Name(#[from] InvalidDnsNameError),
    #[error("the file of cookies is empty")]
    NoCookies,
    #[error("nothing came for a long time")]
    Silence,
    #[error("{0}")]
    Answer(String),
}

/// A connection to the server.
pub struct Link {
    socket: TcpStream,
    tls: ClientConnection,
    asked: Instant,
    /// Of the answer's head, as long as it is not whole.
    head: Vec<u8>,
    /// Bytes of the answer's body to come, once its head is whole.
    left: Option<u64>,
    received: u64,
}

impl Link {
    pub fn new(socket: TcpStream, tls: ClientConnection) -> Self {
        Self { socket, tls, asked: Instant::now(), head: Vec::new(), left: None, received: 0 }
    }

    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Bytes of all answers, heads included.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Sends a request, which the socket takes whole: nothing else is under way.
    pub fn ask(&mut self, request: &[u8], now: Instant) -> Result<(), Failure> {
        self.asked = now;
        self.tls.writer().write_all(request)?;
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    /// Reads what has come; when that ends the answer, says when it was asked for.
    pub fn read(&mut self, space: &mut [u8]) -> Result<Option<Instant>, Failure> {
        if self.tls.read_tls(&mut self.socket)? == 0 {
            return Err(Failure::Answer("the connection was closed".into()));
        }
        self.tls.process_new_packets()?;
        loop {
            match self.tls.reader().read(space) {
                Ok(0) => return Err(Failure::Answer("the connection was ended".into())),
                Ok(count) => {
                    self.received += count as u64;
                    if self.take(space.get(..count).unwrap_or_default())? {
                        return Ok(Some(self.asked));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether the answer is whole with these bytes.
    fn take(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        let body = if self.left.is_some() {
            bytes.len()
        } else {
            // A usual head comes in one piece, and is not copied.
            let head: Cow<'_, [u8]> =
                if self.head.is_empty() { bytes.into() } else { [&self.head, bytes].concat().into() };
            let Some((start, length)) = body_of(&head)? else {
                self.head = head.into_owned();
                return Ok(false);
            };
            let body = head.len() - start;
            self.head = Vec::new();
            self.left = Some(length);
            body
        };
        let left = self.left.unwrap_or_default().checked_sub(body as u64);
        let left = left.ok_or_else(|| Failure::Answer("more came than the answer has".into()))?;
        self.left = (left > 0).then_some(left);
        Ok(left == 0)
    }
}

/// Where the body starts, and how long it is; `None` while the head is not whole.
fn body_of(bytes: &[u8]) -> Result<Option<(usize, u64)>, Failure> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut answer = httparse::Response::new(&mut fields);
    let wrong = |what: &str| {
        let start = String::from_utf8_lossy(bytes.get(..200).unwrap_or(bytes)).into_owned();
        Failure::Answer(format!("{what}: {start:?}"))
    };
    match answer.parse(bytes).map_err(|error| wrong(&error.to_string()))? {
        httparse::Status::Partial if bytes.len() > MOST_HEAD => Err(wrong("a head without end")),
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete(_) if answer.code != Some(200) => Err(wrong("no answer 200")),
        httparse::Status::Complete(start) => {
            let length =
                answer.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
            let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok());
            Ok(Some((start, length.ok_or_else(|| wrong("no Content-Length"))?)))
        }
    }
}
