//! HTTP/2 towards clients: hyper reads and writes it, on the worker that accepted the connection.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body::Body;
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::TokioTimer;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Service, client::Connection, counted::Counted, flow::Newest, gathered::Gathered, io::WatchedIo,
    load::Load, state::Worker, watch::Watch,
};
use crate::web::incoming::Incoming;

/// How much longer a head of HTTP/2 is read than the gate lets it in, which can say in a page what was too much; hyper refuses
/// without one.
const READ_AHEAD: usize = 2;
/// Streams at once on one HTTP/2 connection, and on one that begins under strain.
const STREAMS: u32 = 64;
const STREAMS_UNDER_STRAIN: u32 = 8;
/// What a peer may send unasked, a stream and a connection of HTTP/2.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// What is held of one answer that an HTTP/2 peer does not take.
const SEND_BUFFER: usize = 64 * 1024;
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How many streams a connection that begins now gets.
pub(super) fn streams(load: &Load) -> u32 {
    if load.is_strained() { STREAMS_UNDER_STRAIN } else { STREAMS }
}

/// Serves one connection until it ends, its deadline passes, or a drain has run its course.
pub(super) fn serve<S: Service, T: AsyncRead + AsyncWrite + Unpin + 'static>(
    worker: &Rc<Worker<S>>,
    stream: T,
    connection: Rc<Connection>,
    presence: Rc<S::Presence>,
    newest: Newest,
) -> impl Future<Output = ()> + use<S, T> {
    let watch = Arc::clone(connection.watch());
    let io = Gathered::new(WatchedIo::new(stream, Arc::clone(&watch)), Arc::clone(&watch));
    let mut builder = http2::Builder::new(LocalTasks { newest: newest.clone() });
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(connection.streams())
        .max_header_list_size(u32::try_from(READ_AHEAD * worker.config.max_header_size).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .enable_connect_protocol()
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    drive(Box::pin(builder.serve_connection(io, service(worker, connection, presence, newest))), watch)
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
        let busy = connection.watch().begin();
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

async fn drive(mut served: Served, watch: Arc<Watch>) {
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
