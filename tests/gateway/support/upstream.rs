//! A portal that writes down every byte it is sent, and answers as the test says.
//!
//! It speaks HTTP/1 by hand, so that it can also do what no proper server does: stop in the middle, switch protocols
//! unasked, or answer before it has read.

use std::{
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    PATIENCE, certificate, websocket,
    wire::{Content, Head, Wire},
};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    /// Which connection it came on, counted from zero.
    pub(crate) connection: usize,
    pub(crate) head: Head,
    /// What had been read of the body when the test looked.
    pub(crate) content: Content,
}

impl Recorded {
    /// Method, target and version.
    pub(crate) fn first_line(&self) -> String {
        self.head.first_line()
    }

    /// The only value of a field. Fails when there are several.
    #[track_caller]
    pub(crate) fn value(&self, name: &str) -> Option<String> {
        let mut values = self.head.values(name);
        assert!(values.len() <= 1, "{name} came {} times: {:?}", values.len(), self.head);
        values.pop()
    }
}

#[derive(Debug, Default)]
struct Record {
    requests: Mutex<Vec<Recorded>>,
    connections: AtomicUsize,
    bytes: AtomicUsize,
    changed: tokio::sync::Notify,
}

/// One server of the portal. Clones are the same server; it stops with the last of them.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    /// PEM, when it speaks TLS.
    certificate: Option<String>,
    record: Arc<Record>,
    _running: Arc<Running>,
}

#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A request whose head has been read, and the connection it came on.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) wire: Wire,
    pub(crate) head: Head,
    record: Arc<Record>,
    index: usize,
    connection: usize,
}

impl Upstream {
    /// Answers everything with 200 and a line that names the request.
    pub(crate) fn start() -> Self {
        Self::scripted(ordinary)
    }

    /// Hands each request to `script`, which gives the exchange back to keep the connection, or `None` to close it.
    pub(crate) fn scripted(script: impl AsyncFn(Exchange) -> Option<Exchange> + Send + 'static) -> Self {
        Self::launch(None, script)
    }

    /// The ordinary portal over TLS, with a certificate for `name`.
    pub(crate) fn encrypted(name: &str) -> Self {
        Self::launch(Some(certificate(name)), ordinary)
    }

    /// The ordinary portal over TLS, with a certificate and key in PEM.
    pub(crate) fn with_pair(pair: (String, String)) -> Self {
        Self::launch(Some(pair), ordinary)
    }

    fn launch(
        pair: Option<(String, String)>,
        script: impl AsyncFn(Exchange) -> Option<Exchange> + Send + 'static,
    ) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (record, stop) = (Arc::new(Record::default()), CancellationToken::new());
        let tls = pair.as_ref().map(|(certificate, key)| acceptor(certificate, key));
        let (inner, until) = (Arc::clone(&record), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::LocalRuntime::new().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = accept(listener, tls, inner, Rc::new(script)) => {}
                    () = until.cancelled() => {}
                }
            });
        });
        Self {
            address,
            certificate: pair.map(|(certificate, _)| certificate),
            record,
            _running: Arc::new(Running { stop, thread: Some(thread) }),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that it shows, in PEM.
    pub(crate) fn certificate(&self) -> Option<&str> {
        self.certificate.as_deref()
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// All requests so far, in the order in which their heads arrived.
    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.record.requests.lock().unwrap().clone()
    }

    /// The only request there was.
    #[track_caller]
    pub(crate) fn only_request(&self) -> Recorded {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.remove(0)
    }

    /// Forgets what was recorded, connections aside.
    pub(crate) fn forget(&self) {
        self.record.requests.lock().unwrap().clear();
        self.record.bytes.store(0, Ordering::SeqCst);
    }

    /// How many connections have been opened to it.
    pub(crate) fn connections(&self) -> usize {
        self.record.connections.load(Ordering::SeqCst)
    }

    /// How many bytes have arrived in heads and bodies.
    pub(crate) fn bytes(&self) -> usize {
        self.record.bytes.load(Ordering::SeqCst)
    }

    /// Waits until so many requests have arrived.
    #[track_caller]
    pub(crate) fn arrived(&self, count: usize) -> impl Future<Output = Vec<Recorded>> {
        let place = std::panic::Location::caller();
        async move {
            let arrived = async {
                loop {
                    let changed = self.record.changed.notified();
                    let requests = self.requests();
                    if requests.len() >= count {
                        return requests;
                    }
                    changed.await;
                }
            };
            let requests = tokio::time::timeout(PATIENCE, arrived).await;
            requests.unwrap_or_else(|_| panic!("{place}: fewer than {count} requests: {:?}", self.requests()))
        }
    }
}

async fn accept<S>(listener: TcpListener, tls: Option<TlsAcceptor>, record: Arc<Record>, script: Rc<S>)
where
    S: AsyncFn(Exchange) -> Option<Exchange> + 'static,
{
    while let Ok((socket, _)) = listener.accept().await {
        let connection = record.connections.fetch_add(1, Ordering::SeqCst);
        let (tls, record, script) = (tls.clone(), Arc::clone(&record), Rc::clone(&script));
        tokio::task::spawn_local(async move {
            if let Some(wire) = secure(socket, tls).await {
                serve(wire, connection, record, &*script).await;
            }
        });
    }
}

async fn secure(socket: TcpStream, tls: Option<TlsAcceptor>) -> Option<Wire> {
    socket.set_nodelay(true).ok()?;
    match tls {
        None => Some(Wire::new(socket)),
        Some(tls) => Some(Wire::new(tls.accept(socket).await.ok()?)),
    }
}

async fn serve<S>(mut wire: Wire, connection: usize, record: Arc<Record>, script: &S)
where
    S: AsyncFn(Exchange) -> Option<Exchange>,
{
    while let Ok(Some(head)) = wire.read_head().await {
        let index = {
            let mut requests = record.requests.lock().unwrap();
            requests.push(Recorded { connection, head: head.clone(), content: Content::default() });
            requests.len() - 1
        };
        record.bytes.fetch_add(head.0.len(), Ordering::SeqCst);
        record.changed.notify_waiters();
        let exchange = Exchange { wire, head, record: Arc::clone(&record), index, connection };
        match script(exchange).await {
            Some(exchange) => wire = exchange.wire,
            None => return,
        }
    }
}

impl Exchange {
    /// Reads the body to its end and writes it down.
    pub(crate) async fn read_content(&mut self) -> io::Result<Content> {
        let content = self.wire.read_content(&self.head, false).await?;
        self.record.bytes.fetch_add(content.body.len() + content.trailers.len(), Ordering::SeqCst);
        if let Some(recorded) = self.record.requests.lock().unwrap().get_mut(self.index) {
            recorded.content = content.clone();
        }
        self.record.changed.notify_waiters();
        Ok(content)
    }

    /// Counts bytes that the script reads by itself.
    pub(crate) fn count(&self, bytes: usize) {
        self.record.bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Which connection it came on, counted from zero.
    pub(crate) fn connection(&self) -> usize {
        self.connection
    }

    /// How many requests have come on its connection, this one included.
    pub(crate) fn seen_on_connection(&self) -> usize {
        let requests = self.record.requests.lock().unwrap();
        requests.iter().filter(|request| request.connection == self.connection).count()
    }

    pub(crate) fn method(&self) -> String {
        self.head.first_line().split(' ').next().unwrap_or_default().to_owned()
    }

    pub(crate) fn target(&self) -> String {
        self.head.first_line().split(' ').nth(1).unwrap_or_default().to_owned()
    }

    /// Writes bytes; `None` when the gateway has hung up.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) -> Option<()> {
        self.wire.write(bytes.as_ref()).await.ok()
    }
}

/// A portal that keeps a WebSocket open, which echoes, a stream of events and a download: at `live`, `events` and `download` in
/// any folder.
pub(crate) fn keeping_open() -> Upstream {
    Upstream::scripted(async |mut exchange: Exchange| {
        let target = exchange.target();
        let head = match target.rsplit('/').next().unwrap_or_default() {
            "live" => {
                let mut tunnel = websocket::accept(exchange, "").await?;
                let mut bytes = [0; 64];
                while let Ok(read @ 1..) = tunnel.read(&mut bytes).await {
                    tunnel.write_all(&bytes[..read]).await.ok()?;
                }
                return None;
            }
            "events" => "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n",
            "download" => "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome",
            _ => return ordinary(exchange).await,
        };
        exchange.write(head).await?;
        let _ = exchange.wire.read_some().await;
        None
    })
}

/// The ordinary portal: reads everything, then says what it was asked.
pub(crate) async fn ordinary(mut exchange: Exchange) -> Option<Exchange> {
    exchange.read_content().await.ok()?;
    let text = format!("the portal: {} {}\n", exchange.method(), exchange.target());
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", text.len());
    let body = if exchange.method() == "HEAD" { "" } else { &text };
    exchange.write(format!("{head}{body}")).await?;
    Some(exchange)
}

/// The ordinary portal, but that its `/events` begins with `start` and goes on until the gateway leaves.
pub(crate) fn streaming() -> Upstream {
    Upstream::scripted(async |mut exchange: Exchange| {
        if exchange.target() != "/events" {
            return ordinary(exchange).await;
        }
        exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nstart\r\n").await?;
        let _ = exchange.wire.fill().await;
        None
    })
}

pub(crate) fn acceptor(certificate: &str, key: &str) -> TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}
