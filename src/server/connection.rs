//! One connection from its first byte to its last: handshake, protocol, drain.

use std::{
    convert::Infallible,
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::poll_immediate};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::TokioTimer;
use rustls::server::Acceptor;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::yield_now};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{
    Config, Service,
    counted::Counted,
    flow::Newest,
    gathered::Gathered,
    http1::Http1,
    io::WatchedIo,
    passage::{Passage, Tunnels},
    watch::Watch,
    worker::{Place, Worker},
};
use crate::web::{incoming::Incoming, socket::Socket};

/// How much longer a head of HTTP/2 is read than the gate lets it in, which can say in a page what was too much; hyper refuses
/// without one.
const READ_AHEAD: usize = 2;
/// Streams at once on one HTTP/2 connection, and on one that begins under strain.
const STREAMS: u32 = 64;
const STREAMS_UNDER_STRAIN: u32 = 8;
/// One in so many of them is for what is answered soon.
const SHORT_STREAMS: u32 = 8;
/// What a peer may send unasked, a stream and a connection of HTTP/2.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// What is held of one answer that an HTTP/2 peer does not take.
const SEND_BUFFER: usize = 64 * 1024;
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 52\r\nconnection: close\r\n\r\nThis port speaks HTTPS. Use https:// in the address.";
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What a service may know of the connection a request came on.
#[derive(Debug)]
pub struct Connection {
    peer: SocketAddr,
    /// Streams at once; absent on HTTP/1.
    streams: Option<u32>,
    watch: Arc<Watch>,
    drain: CancellationToken,
    tunnels: Tunnels,
}

impl Connection {
    /// The other end of the socket.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Lets what is in progress end, and takes no further request.
    pub fn finish(&self) {
        self.watch.drain();
    }

    /// Cancelled when the gateway stops: what is long-lived should end.
    pub fn drain(&self) -> &CancellationToken {
        &self.drain
    }

    /// What a tunnel holds of this connection, or of its stream of it.
    pub fn passage(&self) -> Passage {
        self.tunnels.begin(self.watch.begin())
    }

    pub(super) fn watch(&self) -> Arc<Watch> {
        Arc::clone(&self.watch)
    }

    /// How many of its streams may be WebSockets and streams of events. A client that has none left opens no further one and
    /// waits without a word (RFC 9113 §5.1.2), its pages included.
    pub fn most_lasting(&self) -> u32 {
        self.streams.map_or(u32::MAX, |streams| streams - streams.div_ceil(SHORT_STREAMS))
    }

    /// A way to send interim answers ahead of the final one; HTTP/2 has none here.
    pub fn interim(&self) -> Option<Interim> {
        self.streams.is_none().then(|| Interim(Arc::clone(&self.watch)))
    }
}

/// Sends interim answers (RFC 9110 §15.2) on an HTTP/1.1 connection.
#[derive(Clone, Debug)]
pub struct Interim(Arc<Watch>);

impl Interim {
    pub fn send(&self, status: StatusCode, headers: &HeaderMap) {
        let mut wire =
            format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or(""));
        for (name, value) in headers {
            if let Ok(value) = value.to_str() {
                wire.push_str(name.as_str());
                wire.push_str(": ");
                wire.push_str(value);
                wire.push_str("\r\n");
            }
        }
        wire.push_str("\r\n");
        self.0.leave_interim(wire.as_bytes());
    }
}

/// Serves one accepted socket until it is closed.
pub(super) async fn serve<S: Service>(
    worker: Rc<Worker<S>>,
    socket: TcpStream,
    peer: SocketAddr,
    place: Place,
) {
    let presence = Rc::new(worker.service.connected(place.is_trusted()));
    // Fails only for a socket that is gone already.
    let Ok(socket) = Socket::new(socket) else { return };
    let accept = Box::pin(accept(&worker, socket));
    let Ok(Some(stream)) = tokio::time::timeout(worker.config.handshake_timeout, accept).await else {
        return worker.service.handshake_failed();
    };
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let newest = is_http2.then(Newest::default);
    let streams = if worker.load.is_strained() { STREAMS_UNDER_STRAIN } else { STREAMS };
    let watch = worker.register();
    let connection = Rc::new(Connection {
        peer,
        streams: is_http2.then_some(streams),
        watch: Arc::clone(&watch),
        drain: worker.drain.clone(),
        tunnels: Tunnels::new(&worker, newest.clone(), place),
    });
    if let Some(newest) = newest {
        drive(serve_http2(&worker, stream, connection, presence, newest), &watch).await;
        return;
    }
    Box::pin(Http1::new(worker, connection, presence, Box::new(stream))).await;
}

/// Accepts TLS. Somebody who speaks plain HTTP instead is told so: their first byte is a letter, that of TLS is not.
async fn accept<S>(worker: &Worker<S>, mut socket: Socket) -> Option<TlsStream<Socket>> {
    if socket.first_byte().await.ok()?.is_ascii_uppercase() {
        // These few bytes fit into the socket's buffer.
        let _ = socket.try_write(PLAIN_HTTP);
        let _ = socket.shutdown().await;
        return None;
    }
    let hello = LazyConfigAcceptor::new(Acceptor::default(), socket).await.ok()?;
    // Here the keys are computed. Whoever comes next waits until what has arrived meanwhile was served.
    let turn = worker.handshake.acquire().await.ok()?;
    let mut handshake = pin!(hello.into_stream(worker.tls()));
    if let Some(done) = poll_immediate(handshake.as_mut()).await {
        return done.ok();
    }
    yield_now().await;
    drop(turn);
    handshake.await.ok()
}

fn serve_http2<S: Service>(
    worker: &Rc<Worker<S>>,
    stream: TlsStream<Socket>,
    connection: Rc<Connection>,
    presence: Rc<S::Presence>,
    newest: Newest,
) -> Served {
    let watch = &connection.watch;
    let io = Gathered::new(WatchedIo::new(stream, Arc::clone(watch)), Arc::clone(watch));
    let mut builder = http2::Builder::new(LocalTasks { newest: newest.clone() });
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(connection.streams)
        .max_header_list_size(u32::try_from(READ_AHEAD * worker.config.max_header_size).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .enable_connect_protocol()
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    Box::pin(builder.serve_connection(io, service(worker, connection, presence, newest)))
}

fn service<S: Service>(
    worker: &Rc<Worker<S>>,
    connection: Rc<Connection>,
    presence: Rc<S::Presence>,
    newest: Newest,
) -> impl hyper::service::Service<
    Request<hyper::body::Incoming>,
    Response = Response<Counted<S::Body>>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Counted<S::Body>>, Infallible>> + use<S>,
> + use<S> {
    let worker = Rc::clone(worker);
    service_fn(move |request: Request<hyper::body::Incoming>| {
        let busy = connection.watch.begin();
        let flow = worker.flows.begin();
        newest.put(Rc::clone(&flow));
        let request = Box::new(request.map(Incoming::of_http2));
        // Boxed, since a protocol moves it about. An async block would hold it twice over: as what it captures, and as what
        // it awaits.
        let answer =
            Box::pin(Rc::clone(&worker.service).call(request, Rc::clone(&connection), Rc::clone(&presence)));
        answer.map(|reply| Ok(reply.map(|body| Counted::new(body, busy, flow)).into()))
    })
}

/// A connection of HTTP/2. Boxed, and not held by any async function: those would hold it twice.
type Served = Pin<Box<dyn Drain>>;

/// A protocol that can be told to finish.
trait Drain: Future<Output = hyper::Result<()>> {
    fn drain(self: Pin<&mut Self>);
}

impl<I, S, B> Drain for http2::Connection<I, S, LocalTasks>
where
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: 'static,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn drain(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Runs it until it ends, its deadline passes, or a drain has run its course.
async fn drive(mut served: Served, watch: &Watch) {
    let mut told = false;
    poll_fn(|cx| {
        watch.wakes(cx.waker());
        if watch.is_draining() && !told {
            told = true;
            served.as_mut().drain();
        }
        let mut over = served.as_mut().poll(cx).is_ready();
        if watch.holds_back() && !over {
            // Every stream that had something to say has said it; now it goes out, all at once.
            watch.send_now(true);
            over = served.as_mut().poll(cx).is_ready();
            watch.send_now(false);
        }
        // How a client's connection ends is the client's affair: the access log has told what it got.
        if over || watch.is_expired() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Runs HTTP/2's own tasks, one a stream, on the worker that accepted the connection.
#[derive(Clone, Debug)]
struct LocalTasks {
    newest: Newest,
}

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalTasks {
    fn execute(&self, task: F) {
        // The service has been called for this stream just now, and for no other since; or a stream of it becomes a tunnel.
        let flow = self.newest.take();
        // What can be answered at once is: a client that sends many heads at a time has them refused one by one, and not
        // held all together first. Whoever has to wait says so again to the task's own waker.
        let mut task = Box::pin(task);
        if task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            let task = tokio::task::spawn_local(task);
            if let Some(flow) = flow {
                flow.runs_in(task.abort_handle());
            }
        }
    }
}

impl Config {
    /// The share of the connection limit that one worker enforces.
    pub(super) fn connections_per_worker(&self) -> usize {
        (self.max_connections / self.workers.max(1)).max(1)
    }
}
