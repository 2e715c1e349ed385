//! A server of the gateway's own, with a service that reads all, some or nothing of a body, and answers early or late.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use portcullis::{
    server::{Bound, Config, ConnectionHandle, Door, ListenAddress, Refused, Service},
    web::{gate::Refusal, incoming::Incoming, reply::Reply},
};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What the service does with one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Behaviour(u8);

impl Behaviour {
    pub(super) fn of(byte: u8) -> Self {
        Self(byte)
    }

    /// Whether the body is read to its end, before the answer or along with it.
    pub(super) fn reads_all(self) -> bool {
        self.0.is_multiple_of(4)
    }

    /// Parts of the body that are read before the rest is given up.
    fn parts(self) -> usize {
        if self.0 % 4 == 1 { usize::from(self.0 >> 4 & 3) } else { 0 }
    }

    /// Whether the body that nobody reads is held on to until the answer has been sent.
    fn holds(self) -> bool {
        self.0 % 4 == 3
    }

    fn answers_first(self) -> bool {
        self.0 & 4 != 0
    }

    fn has_length(self) -> bool {
        self.0 & 8 != 0
    }

    /// Turns that the answer is late.
    fn late(self) -> usize {
        usize::from(self.0 >> 6) * 3
    }
}

/// What the service saw of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    /// The body came to its end.
    pub(super) ended: bool,
}

/// One connection's behaviours, and what was seen of it.
#[derive(Clone)]
pub(super) struct Run {
    script: Arc<Vec<Behaviour>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Run {
    pub(super) fn new(script: Vec<Behaviour>) -> Self {
        Self { script: Arc::new(script), seen: Arc::default() }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        lock(&self.seen).clone()
    }

    /// Serves the connection that comes from `port` by this run.
    pub(super) fn serve(&self, port: u16) {
        lock(&SERVER.runs).insert(port, self.clone());
    }

    pub(super) fn forget(port: u16) {
        lock(&SERVER.runs).remove(&port);
    }

    fn begin(&self, head: String) -> (usize, Behaviour) {
        let mut seen = lock(&self.seen);
        seen.push(Seen { head, ..Seen::default() });
        let number = seen.len() - 1;
        let behaviour = self.script.get(number % self.script.len().max(1)).copied();
        (number, behaviour.unwrap_or(Behaviour(0)))
    }

    fn note(
        &self,
        number: usize,
        frame: Option<Result<Frame<Bytes>, Box<dyn std::error::Error + Send + Sync>>>,
    ) -> bool {
        let mut seen = lock(&self.seen);
        let seen = &mut seen[number];
        match frame {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    seen.body.extend_from_slice(&data);
                }
                true
            }
            Some(Err(_)) => false,
            None => {
                seen.ended = true;
                false
            }
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the answer to the request of this number says.
pub(super) fn name(number: usize) -> Vec<u8> {
    format!("answer {number}").into_bytes()
}

/// Method, target and fields, to be compared.
pub(super) fn head_of<B>(request: &Request<B>) -> String {
    format!("{} {} {:?}", request.method(), request.uri(), request.headers())
}

pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) client: Arc<rustls::ClientConfig>,
    runs: Arc<Mutex<HashMap<u16, Run>>>,
}

/// One for all inputs: it serves until the process ends.
pub(super) static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let (identity, client) = super::client::tls();
    let runs = Arc::<Mutex<HashMap<u16, Run>>>::default();
    let bound = Bound::new(&config()).expect("a socket");
    let (address, known) = (bound.addresses()[0].tcp().expect("an address"), Arc::clone(&runs));
    let tls = Arc::new(ArcSwap::from_pointee(identity.into()));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let service = move || Scripted { runs: Arc::clone(&known) };
        let _ = runtime.block_on(async {
            // A Rust program ignores it, but a fuzzer's main function is not Rust's. Whoever listens once has it caught for good.
            let _pipe = signal(SignalKind::pipe()).expect("a signal");
            bound.serve(tls, CancellationToken::new(), service).await
        });
    });
    Server { address, client: Arc::new(client), runs }
});

pub(super) fn identity(
    key: Vec<u8>,
    certificate: rustls::pki_types::CertificateDer<'static>,
) -> ServerConfig {
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key.into()))
        .expect("a pair")
}

fn config() -> Config {
    /// Longer than a client of ours waits, so that what only a deadline ends is a fault.
    const PATIENCE: Duration = Duration::from_mins(1);
    Config {
        listen: vec![ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))],
        proxies_listen: None,
        workers: 1,
        handshake_timeout: PATIENCE,
        first_byte_timeout: PATIENCE,
        head_timeout: PATIENCE,
        stall_timeout: PATIENCE,
        min_rate: 0,
        max_header_size: 16 * 1024,
        idle_timeout: PATIENCE,
        drain_timeout: PATIENCE,
        max_connections: 10_000,
        max_connections_per_network: 10_000,
        socket_mode: 0,
        redirect_listen: Vec::new(),
        trusted_proxies: Vec::new(),
        proxy_protocol: Vec::new(),
        max_memory: Some(u64::MAX),
    }
}

struct Scripted {
    runs: Arc<Mutex<HashMap<u16, Run>>>,
}

impl Service for Scripted {
    type Body = Answer;
    type Context = ();

    async fn call(
        self: Rc<Self>,
        request: Box<Request<Incoming>>,
        connection: Rc<ConnectionHandle>,
        _: Rc<()>,
    ) -> Reply<Answer> {
        let run = lock(&self.runs).get(&connection.peer().port()).cloned();
        let run = run.unwrap_or_else(|| Run::new(Vec::new()));
        let (number, behaviour) = run.begin(head_of(&request));
        let mut body = request.into_body();
        if !behaviour.answers_first() {
            let mut parts = if behaviour.reads_all() { usize::MAX } else { behaviour.parts() };
            while parts > 0 {
                let frame = body.frame().await;
                if !run.note(number, frame) {
                    break;
                }
                parts -= 1;
            }
        }
        for _ in 0..behaviour.late() {
            tokio::task::yield_now().await;
        }
        let reads_on = behaviour.answers_first() && behaviour.reads_all();
        let kept = (reads_on || behaviour.holds()).then_some(body);
        let said = Bytes::from(name(number));
        let has_length = behaviour.has_length() && !reads_on;
        Response::new(Answer { run, number, kept, reads_on, has_length, said: Some(said) }).into()
    }

    fn refuse(self: Rc<Self>, refusal: Refusal, _: &[u8], _: SocketAddr) -> Reply<Answer> {
        let run = Run::new(Vec::new());
        let said = Some(Bytes::from_static(b"refused"));
        let answer = Answer { run, number: 0, kept: None, reads_on: false, has_length: true, said };
        let mut response = Response::new(answer);
        *response.status_mut() = refusal.status();
        response.into()
    }

    fn connected(&self, _: bool, _: Door) {}

    fn handshake_failed(&self) {}

    fn refused(&self, _: Refused) {}
}

/// An answer that may read the request's body first, or hold on to it.
pub(super) struct Answer {
    run: Run,
    number: usize,
    kept: Option<Incoming>,
    reads_on: bool,
    has_length: bool,
    said: Option<Bytes>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        while this.reads_on {
            let Some(body) = &mut this.kept else { break };
            let frame = ready!(Pin::new(body).poll_frame(cx));
            if !this.run.note(this.number, frame) {
                this.kept = None;
            }
        }
        Poll::Ready(this.said.take().map(|said| Ok(Frame::data(said))))
    }

    fn is_end_stream(&self) -> bool {
        self.said.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.said {
            Some(said) if self.has_length => SizeHint::with_exact(said.len() as u64),
            Some(_) => SizeHint::default(),
            None => SizeHint::with_exact(0),
        }
    }
}
