//! A client that sends bytes in pieces and reads the answers, each to its end.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    sync::Arc,
    time::Duration,
};

use portcullis::http1::head::MOST_FIELDS;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned, pki_types::ServerName,
};

use super::service::{Run, SERVER, identity};

/// Only what hangs takes this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// A final answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// The server's certificate, and a client that trusts it.
pub(super) fn tls() -> (ServerConfig, ClientConfig) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let certificate = made.cert.der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a root");
    let client = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (identity(made.signing_key.serialize_der(), certificate), client)
}

/// Sends `bytes` in pieces and reads answers to the end of the connection, which is the client's to make as soon as there
/// are as many as are `due`. `heads` tells which of the requests are HEAD.
pub(super) fn exchange(run: &Run, bytes: &[u8], size: usize, heads: &[bool], due: usize) -> Vec<Answer> {
    let socket = TcpStream::connect(SERVER.address).expect("the server listens");
    socket.set_nodelay(true).expect("no delay");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let port = socket.local_addr().expect("an address").port();
    run.serve(port);
    let name = ServerName::try_from("localhost").expect("a name");
    let client = ClientConnection::new(Arc::clone(&SERVER.client), name).expect("a client");
    let mut stream = StreamOwned::new(client, socket);
    for piece in bytes.chunks(size) {
        // It may have closed already, over what came before.
        if stream.write_all(piece).and_then(|()| stream.flush()).is_err() {
            break;
        }
    }
    let (mut answers, mut buffer) = (Vec::new(), Vec::new());
    loop {
        while let Some((answer, length)) = take(&buffer, heads.get(answers.len()).copied().unwrap_or(false)) {
            buffer.drain(..length);
            // Interim answers don't count.
            if answer.status >= 200 {
                answers.push(answer);
            }
        }
        if answers.len() >= due {
            // What is due is here. That there is no more is told by the end, which the server makes when the client does.
            stream.conn.send_close_notify();
            let _ = stream.flush().and_then(|()| stream.sock.shutdown(Shutdown::Write));
        }
        let mut space = [0; 4096];
        match stream.read(&mut space) {
            Ok(0) => break,
            Ok(count) => buffer.extend_from_slice(&space[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("hangs after {} of {due} answers", answers.len())
            }
            Err(_) => break,
        }
    }
    Run::forget(port);
    answers
}

/// Takes a whole answer off the front.
fn take(buffer: &[u8], is_head: bool) -> Option<(Answer, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    let head = match parsed.parse(buffer).expect("an answer of the gateway can be read") {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial => return None,
    };
    let status = parsed.code?;
    let value = |name: &str| {
        let field = parsed.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(field.value).ok()
    };
    if is_head || status < 200 {
        return Some((Answer { status, body: Vec::new() }, head));
    }
    let rest = &buffer[head..];
    if let Some(length) = value("content-length") {
        let length: usize = length.parse().expect("a length");
        let body = rest.get(..length)?.to_vec();
        return Some((Answer { status, body }, head + length));
    }
    if value("transfer-encoding").is_none() {
        // To HTTP/1.0 it goes on until the end of the connection, which is for the last answer alone.
        return Some((Answer { status, body: rest.to_vec() }, buffer.len()))
            .filter(|_| rest.starts_with(b"answer "));
    }
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let (line, size) = match httparse::parse_chunk_size(&rest[at..]).expect("a chunk of the gateway's") {
            httparse::Status::Complete((line, size)) => (line, usize::try_from(size).expect("a size")),
            httparse::Status::Partial => return None,
        };
        let from = at + line;
        body.extend_from_slice(rest.get(from..from + size)?);
        at = from + size + 2;
        if rest.len() < at {
            return None;
        }
        if size == 0 {
            return Some((Answer { status, body }, head + at));
        }
    }
}
