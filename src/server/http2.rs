//! HTTP/2 towards clients, served by hyper on the worker that accepted the connection.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
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
    Service,
    client::ConnectionHandle,
    coalescing::{CoalescingWriter, FlushControl},
    flow::Newest,
    io::MonitoredIo,
    load::Load,
    monitor::ConnectionMonitor,
    state::Worker,
    tracked_body::TrackedBody,
    unread::Unread,
};
use crate::web::incoming::Incoming;

/// hyper reads heads of this many times the configured size: the gate refuses them with a page, hyper would without one.
const READ_AHEAD: usize = 2;
/// Concurrent streams of an HTTP/2 connection, and of one that is accepted under strain.
const STREAMS: u32 = 64;
const STREAMS_UNDER_STRAIN: u32 = 8;
/// Flow-control windows of a stream and of a connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Bytes buffered of a response that the client does not read.
const SEND_BUFFER: usize = 64 * 1024;
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The number of streams for a new connection.
pub(super) fn streams(load: &Load) -> u32 {
    if load.is_strained() { STREAMS_UNDER_STRAIN } else { STREAMS }
}

/// Serves one connection until it closes, a deadline passes, or a drain is complete.
pub(super) fn serve<S: Service, T: AsyncRead + AsyncWrite + Unpin + 'static>(
    worker: &Rc<Worker<S>>,
    stream: T,
    connection: Rc<ConnectionHandle>,
    context: Rc<S::Context>,
    newest: Newest,
) -> impl Future<Output = ()> + use<S, T> {
    let (monitor, flush) = (Rc::clone(connection.monitor()), Rc::<FlushControl>::default());
    let unread = Rc::<Unread>::default();
    let io = CoalescingWriter::new(MonitoredIo::new(stream, Rc::clone(&monitor)), Rc::clone(&flush));
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
    let service = service(worker, connection, context, (newest, Rc::clone(&unread)));
    drive(Box::pin(builder.serve_connection(io, service)), monitor, flush, unread)
}

fn service<S: Service>(
    worker: &Rc<Worker<S>>,
    connection: Rc<ConnectionHandle>,
    context: Rc<S::Context>,
    (newest, unread): (Newest, Rc<Unread>),
) -> impl hyper::service::Service<
    Request<hyper::body::Incoming>,
    Response = Response<TrackedBody<S::Body>>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<TrackedBody<S::Body>>, Infallible>> + use<S>,
> + use<S> {
    let worker = Rc::clone(worker);
    service_fn(move |request: Request<hyper::body::Incoming>| {
        let active = connection.monitor().begin();
        let flow = worker.flows.begin();
        newest.stream(Rc::clone(&flow));
        let (parts, body) = request.into_parts();
        let (body, rest) = Incoming::of_http2(body);
        let rest = rest.map(|rest| (rest, Rc::clone(&unread)));
        let request = Box::new(Request::from_parts(parts, body));
        // Boxed, since hyper moves it about. An async block would hold it twice: as a capture and as what it awaits.
        let answer =
            Box::pin(Rc::clone(&worker.service).call(request, Rc::clone(&connection), Rc::clone(&context)));
        answer.map(|reply| Ok(reply.map(|body| TrackedBody::new(body, active, flow, rest)).into()))
    })
}

/// An HTTP/2 connection. Boxed and not held by an async function, which would hold it twice.
type Served = Pin<Box<dyn Drain>>;

/// A connection that can be shut down gracefully.
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

async fn drive(
    mut served: Served,
    monitor: Rc<ConnectionMonitor>,
    flush: Rc<FlushControl>,
    unread: Rc<Unread>,
) {
    let mut told = false;
    poll_fn(|cx| {
        monitor.wakes(cx.waker());
        if monitor.is_draining() && !told {
            told = true;
            served.as_mut().drain();
        }
        let mut turn = || {
            let over = served.as_mut().poll(cx).is_ready();
            // All streams have written what was ready; now it is sent together.
            over || (flush.holds() && flush.end(|| served.as_mut().poll(cx)).is_ready())
        };
        // Resets go out behind the answers.
        let over = turn() || (unread.release() && turn());
        // Errors on a client's connection are not logged: the access log has what it received.
        if over || monitor.is_expired() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Runs hyper's tasks, one per stream, on the worker that accepted the connection.
#[derive(Clone, Debug)]
struct LocalTasks {
    newest: Newest,
}

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalTasks {
    fn execute(&self, task: F) {
        // hyper has just called the service for this stream, or is turning it into a tunnel: see `Newest`.
        let flow = self.newest.take();
        debug_assert!(flow.is_some(), "a task that no stream has announced");
        // Polled once right away: of a client that sends many heads at a time, each is refused before the next one is read.
        // A future that is pending registers the task's own waker when it is polled again.
        let mut task = Box::pin(task);
        if task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            let task = tokio::task::spawn_local(task);
            if let Some(flow) = flow {
                flow.runs_in(task.abort_handle());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, net::SocketAddr, sync::Arc};

    use http::Version;
    use http_body::Frame;
    use tokio::{
        sync::{Notify, Semaphore, mpsc},
        task::LocalSet,
    };
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        server::{
            Door, Refused,
            load::Load,
            networks::NetworkLimits,
            state::ConnectionPermit,
            tests::{PATIENCE, config, tls},
            timeouts::Timeouts,
            tunnel_guard::Tunnels,
        },
        web::{gate::Refusal, reply::Reply},
    };

    /// The parts of one answer, as the test gives them.
    struct Parts(mpsc::UnboundedReceiver<Bytes>);

    impl Body for Parts {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0.poll_recv(cx).map(|part| part.map(|part| Ok(Frame::data(part))))
        }
    }

    /// Answers `/0` and `/1` when it is told to.
    struct Paced {
        asked: mpsc::UnboundedSender<usize>,
        may_answer: [Notify; 2],
        bodies: [RefCell<Option<mpsc::UnboundedReceiver<Bytes>>>; 2],
    }

    impl Service for Paced {
        type Body = Parts;
        type Context = ();

        async fn call(
            self: Rc<Self>,
            request: Box<Request<Incoming>>,
            _: Rc<ConnectionHandle>,
            _: Rc<()>,
        ) -> Reply<Parts> {
            let which: usize = request.uri().path().trim_start_matches('/').parse().unwrap();
            self.asked.send(which).unwrap();
            self.may_answer[which].notified().await;
            Response::new(Parts(self.bodies[which].take().unwrap())).into()
        }

        fn refuse(self: Rc<Self>, _: Refusal, _: &[u8], _: SocketAddr) -> Reply<Parts> {
            unreachable!("hyper reads HTTP/2")
        }

        fn connected(&self, _: bool, _: Door) {}

        fn handshake_failed(&self) {}

        fn refused(&self, _: Refused) {}
    }

    fn worker<S>(service: S) -> Rc<Worker<S>> {
        let config = Arc::new(config(1));
        let load = Arc::new(Load::new(&config));
        let tls = Arc::new(arc_swap::ArcSwap::from_pointee(tls().0.into()));
        Worker::new(config, service, CancellationToken::new(), load, NetworkLimits::new(1, Vec::new()), tls)
    }

    /// Serves a connection of `worker`.
    fn serving<S, T>(worker: &Rc<Worker<S>>, io: T) -> impl Future<Output = ()> + use<S, T>
    where
        S: Service<Context = ()>,
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let permit = ConnectionPermit::new(permit, None, worker.load.open());
        let newest = Newest::default();
        let tunnels = Tunnels::new(worker, Some(newest.clone()), permit);
        let (peer, drain) = (([127, 0, 0, 1], 1).into(), CancellationToken::new());
        let connection =
            Rc::new(ConnectionHandle::new(peer, Some(STREAMS), worker.register(), drain, tunnels));
        serve(worker, io, connection, Rc::new(()), newest)
    }

    /// hyper tells no executor which stream a task is for: `Newest` pairs them by the order of its calls.
    #[tokio::test]
    async fn of_two_streams_only_that_is_reset_whose_client_takes_nothing() {
        // Whichever comes first, and whichever is answered first.
        for (slow, first) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let streams = tokio::time::timeout(PATIENCE, two_streams(slow, first));
            LocalSet::new().run_until(streams).await.unwrap();
        }
    }

    async fn two_streams(slow: usize, first: usize) {
        let (asked, mut asks) = mpsc::unbounded_channel();
        let (parts, bodies): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::unbounded_channel()).unzip();
        let mut bodies = bodies.into_iter().map(|body| RefCell::new(Some(body)));
        let service = Paced {
            asked,
            may_answer: [Notify::new(), Notify::new()],
            bodies: std::array::from_fn(|_| bodies.next().unwrap()),
        };
        let worker = worker(service);
        let (here, there) = tokio::io::duplex(1 << 20);
        tokio::task::spawn_local(serving(&worker, there));

        // What one stream does not take leaves the connection's window open for the other.
        let (mut client, running) = h2::client::Builder::new()
            .initial_connection_window_size(1 << 20)
            .handshake::<_, Bytes>(here)
            .await
            .unwrap();
        tokio::task::spawn_local(running);
        let mut answers = Vec::new();
        for which in 0..2 {
            let request =
                Request::get(format!("https://localhost/{which}")).version(Version::HTTP_2).body(()).unwrap();
            answers.push(client.send_request(request, true).unwrap().0);
        }
        // Both wait before either is answered.
        assert_eq!([asks.recv().await, asks.recv().await], [Some(0), Some(1)]);
        let mut received = [None, None];
        for which in [first, 1 - first] {
            worker.service.may_answer[which].notify_one();
            let mut body = (&mut answers[which]).await.unwrap().into_body();
            // The slow one has more than the window lets out: hyper takes one part beyond, and waits.
            for _ in 0..if which == slow { 10 } else { 1 } {
                parts[which].send(Bytes::from_static(&[b'x'; 16 * 1024])).unwrap();
            }
            assert!(!body.data().await.unwrap().unwrap().is_empty());
            received[which] = Some(body);
        }
        let [Some(zero), Some(one)] = received else { unreachable!() };
        let (mut taken, mut not_taken) = if slow == 0 { (one, zero) } else { (zero, one) };
        worker.ticks.advance_to(1000);
        worker.flows.check(Timeouts::with(300, 1));
        let reset = loop {
            // No window is given back.
            if let Err(error) = not_taken.data().await.unwrap() {
                break error;
            }
        };
        assert!(reset.is_reset(), "{reset}");
        parts[1 - slow].send(Bytes::from_static(b"more")).unwrap();
        drop(parts);
        assert_eq!(taken.data().await.unwrap().unwrap(), "more");
        // The end may come in a part of its own.
        while let Some(part) = taken.data().await {
            assert_eq!(part.unwrap(), "", "it ends as it should");
        }
    }
    /// Reads no body, and answers with a page.
    struct Refusing;

    impl Service for Refusing {
        type Body = http_body_util::Full<Bytes>;
        type Context = ();

        async fn call(
            self: Rc<Self>,
            _: Box<Request<Incoming>>,
            _: Rc<ConnectionHandle>,
            _: Rc<()>,
        ) -> Reply<Self::Body> {
            Response::new(Bytes::from_static(b"who are you?").into()).into()
        }

        fn refuse(self: Rc<Self>, _: Refusal, _: &[u8], _: SocketAddr) -> Reply<Self::Body> {
            unreachable!("hyper reads HTTP/2")
        }

        fn connected(&self, _: bool, _: Door) {}

        fn handshake_failed(&self) {}

        fn refused(&self, _: Refused) {}
    }

    /// Remembers each write.
    struct Recorded(tokio::io::DuplexStream, Rc<RefCell<Vec<Vec<u8>>>>);

    impl AsyncRead for Recorded {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Recorded {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<std::io::Result<usize>> {
            self.1.borrow_mut().push(bytes.to_vec());
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    #[tokio::test]
    async fn a_stream_whose_body_nobody_reads_is_reset_after_its_answer_in_a_write_of_its_own() {
        LocalSet::new().run_until(tokio::time::timeout(PATIENCE, unread_streams())).await.unwrap();
    }

    async fn unread_streams() {
        let worker = worker(Refusing);
        let (here, there) = tokio::io::duplex(1 << 20);
        let writes = Rc::<RefCell<Vec<Vec<u8>>>>::default();
        tokio::task::spawn_local(serving(&worker, Recorded(there, Rc::clone(&writes))));
        let (mut client, running) = h2::client::handshake(here).await.unwrap();
        tokio::task::spawn_local(running);
        for _ in 0..2 {
            writes.borrow_mut().clear();
            let request = Request::post("https://localhost/").version(Version::HTTP_2).body(()).unwrap();
            let (answer, mut upload) = client.send_request(request, false).unwrap();
            upload.send_data(Bytes::from_static(&[b'x'; 4096]), false).unwrap();
            let mut answer = answer.await.unwrap().into_body();
            assert_eq!(answer.data().await.unwrap().unwrap(), "who are you?");
            let reset = poll_fn(|cx| upload.poll_reset(cx)).await.unwrap();
            assert_eq!(reset, h2::Reason::NO_ERROR);
            // The type of a frame is its fourth byte.
            let is_reset = |write: &&Vec<u8>| write.len() == 13 && write[3] == 3;
            assert_eq!(writes.borrow().iter().filter(is_reset).count(), 1, "{writes:?}");
        }
    }
}
