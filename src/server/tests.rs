//! Workers with a service of the tests' own, which does what a real one must not: it panics, and it hangs.

use std::{
    rc::Rc,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, ServerName},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

use super::*;

/// Only a fault ever waits this long.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Does what the path says.
struct Misbehaving {
    /// Tells that a request hangs, and waits here.
    hangs: Sender<()>,
    release: Rc<Receiver<()>>,
}

impl Service for Misbehaving {
    type Body = Full<Bytes>;
    type Context = ();

    async fn call(
        self: Rc<Self>,
        request: Box<Request<Incoming>>,
        _: Rc<ConnectionHandle>,
        _: Rc<()>,
    ) -> Reply<Full<Bytes>> {
        match request.uri().path() {
            "/panic" => panic!("on purpose"),
            "/hang" => {
                self.hangs.send(()).unwrap();
                self.release.recv().unwrap();
            }
            _ => {}
        }
        Response::new(Full::from("served")).into()
    }

    fn refuse(self: Rc<Self>, refusal: Refusal, _: &[u8], _: SocketAddr) -> Reply<Full<Bytes>> {
        let mut answer = Response::new(Full::from(refusal.to_string()));
        *answer.status_mut() = refusal.status();
        answer.into()
    }

    fn connected(&self, _: bool, _: Door) {}

    fn handshake_failed(&self) {}

    fn refused(&self, _: Refused) {}
}

struct Running {
    address: SocketAddr,
    health: Arc<Health>,
    served: JoinHandle<Result<(), ServerError>>,
    drain: CancellationToken,
    client: Arc<ClientConfig>,
}

pub(super) fn config(workers: usize) -> Config {
    Config {
        listen: vec![ListenAddress::Tcp("127.0.0.1:0".parse().unwrap())],
        socket_mode: 0,
        redirect_listen: Vec::new(),
        proxies_listen: None,
        workers,
        handshake_timeout: PATIENCE,
        first_byte_timeout: PATIENCE,
        head_timeout: PATIENCE,
        stall_timeout: PATIENCE,
        min_rate: 0,
        max_header_size: 16 << 10,
        idle_timeout: PATIENCE,
        drain_timeout: Duration::from_millis(100),
        max_connections: 100,
        max_connections_per_network: 100,
        trusted_proxies: Vec::new(),
        proxy_protocol: Vec::new(),
        max_memory: Some(u64::MAX),
    }
}

pub(super) fn tls() -> (ServerConfig, ClientConfig) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let certificate = made.cert.der().clone();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (server, client)
}

impl Running {
    fn start<S: Service>(workers: usize, service: impl Fn() -> S + Clone + Send + 'static) -> Self {
        let (identity, client) = tls();
        let bound = Bound::new(&config(workers)).unwrap();
        let (address, health, drain) =
            (bound.addresses()[0].tcp().unwrap(), bound.health(), CancellationToken::new());
        let tls = Arc::new(ArcSwap::from_pointee(identity.into()));
        let served = tokio::spawn(bound.serve(tls, drain.clone(), service));
        Self { address, health, served, drain, client: Arc::new(client) }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let socket = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::clone(&self.client)).connect(name, socket).await.unwrap()
    }

    /// Everything that comes back; nothing when the connection is closed without an answer.
    async fn ask(&self, path: &str) -> String {
        let mut stream = self.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // How a connection that is cut ends is not the point.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap();
        answer
    }

    async fn end(self) -> Result<(), ServerError> {
        self.drain.cancel();
        tokio::time::timeout(PATIENCE, self.served).await.unwrap().unwrap()
    }
}

fn misbehaving() -> (impl Fn() -> Misbehaving + Clone + Send + 'static, Receiver<()>, Sender<()>) {
    let (hangs, hanging) = channel();
    let (free, release) = channel();
    let release = Arc::new(std::sync::Mutex::new(Some(release)));
    let make = move || Misbehaving {
        hangs: hangs.clone(),
        release: Rc::new(release.lock().unwrap().take().unwrap_or_else(|| channel().1)),
    };
    (make, hanging, free)
}

#[tokio::test]
async fn a_panic_in_one_request_closes_its_connection_and_the_worker_goes_on() {
    let (service, _hanging, _free) = misbehaving();
    let running = Running::start(1, service);
    let mut bystander = running.connect().await;
    assert_eq!(running.ask("/panic").await, "");
    assert!(running.ask("/").await.ends_with("served"));
    bystander.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let _ = bystander.read_to_string(&mut answer).await;
    assert!(answer.ends_with("served"), "{answer:?}");
    running.end().await.unwrap();
}

#[tokio::test]
async fn no_huge_page_is_cleared_while_a_request_waits() {
    let (service, _hanging, _free) = misbehaving();
    let running = Running::start(1, service);
    assert!(running.ask("/").await.ends_with("served"));
    assert!(rustix::thread::transparent_huge_pages_are_disabled().unwrap());
    running.end().await.unwrap();
}

#[tokio::test]
async fn handshakes_that_are_left_half_done_or_come_all_at_once_keep_nobody_out() {
    let (service, _hanging, _free) = misbehaving();
    let running = Running::start(1, service);
    let mut half = Vec::new();
    for left_open in [true, false] {
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::clone(&running.client), name).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        let mut socket = TcpStream::connect(running.address).await.unwrap();
        socket.write_all(&hello).await.unwrap();
        if left_open {
            // Its keys are computed: the server has answered.
            tokio::time::timeout(PATIENCE, socket.read_u8()).await.unwrap().unwrap();
            half.push(socket);
        }
    }
    let all_at_once = (0..50).map(|_| running.ask("/"));
    for answer in futures_util::future::join_all(all_at_once).await {
        assert!(answer.ends_with("served"), "{answer:?}");
    }
    running.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_hangs_is_named_and_is_well_again_when_it_turns() {
    let (service, hanging, free) = misbehaving();
    let running = Running::start(1, service);
    let (health, mut stuck) = (Arc::clone(&running.health), running.connect().await);
    stuck.write_all(b"GET /hang HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    tokio::task::spawn_blocking(move || hanging.recv_timeout(PATIENCE)).await.unwrap().unwrap();
    assert_eq!(health.hung(), []);
    (0..21).for_each(|_| health.look(1));
    // The control runtime is one that these looks in a row make seem hung.
    assert!(health.hung().iter().any(|hung| hung.name == "worker-0"), "{:?}", health.hung());
    free.send(()).unwrap();
    let well = async {
        while health.hung().iter().any(|hung| hung.name == "worker-0") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, well).await.unwrap();
    running.end().await.unwrap();
}

#[tokio::test]
async fn a_worker_that_dies_ends_the_others_and_the_whole_server() {
    let (make, _hanging, _free) = misbehaving();
    let first = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let running = Running::start(2, move || {
        assert!(!first.swap(false, std::sync::atomic::Ordering::Relaxed), "on purpose");
        make()
    });
    let served = tokio::time::timeout(PATIENCE, running.served).await.unwrap().unwrap();
    assert!(matches!(served, Err(ServerError::WorkerLost)), "{served:?}");
    assert!(TcpStream::connect(running.address).await.is_err(), "the other worker's listener is closed too");
}
