//! A way to a server that can be made slow, cut, half-open or refusing. Knows nothing of what passes.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::AbortHandle,
};

/// How the way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Open,
    /// Each piece that comes back is late by so much.
    Slow(Duration),
    /// What is open breaks off, and whoever comes is hung up on.
    Cut,
    /// Connections are made and stay, and nothing passes.
    HalfOpen,
    /// Nobody listens.
    Refusing,
}

pub(crate) struct Chaos {
    address: SocketAddr,
    way: Arc<watch::Sender<Way>>,
    accepting: AbortHandle,
}

impl Chaos {
    pub(crate) async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = Arc::new(watch::Sender::new(Way::Open));
        let accepting = tokio::spawn(accept(listener, port, Arc::clone(&way))).abort_handle();
        Self { address, way, accepting }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, port: u16, way: Arc<watch::Sender<Way>>) {
    let address = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    let mut ways = way.subscribe();
    loop {
        if *ways.borrow_and_update() == Way::Refusing {
            listener = None;
            ways.changed().await.unwrap();
            continue;
        }
        let open = listener.get_or_insert_with(|| listen(address));
        tokio::select! {
            accepted = open.accept() => {
                let (client, _) = accepted.unwrap();
                tokio::spawn(carry(client, port, way.subscribe()));
            }
            changed = ways.changed() => changed.unwrap(),
        }
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    // Of what was cut some linger.
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(128).unwrap()
}

/// Carries one connection until an end closes or the way is cut.
async fn carry(client: TcpStream, port: u16, mut ways: watch::Receiver<Way>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (there, back) = (ways.clone(), ways.clone());
    tokio::select! {
        () = pass(from_client, to_server, there, false) => {}
        () = pass(from_server, to_client, back, true) => {}
        _ = ways.wait_for(|way| matches!(way, Way::Cut | Way::Refusing)) => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut ways: watch::Receiver<Way>, back: bool) {
    let mut piece = vec![0; 16 << 10];
    loop {
        let Ok(length @ 1..) = from.read(&mut piece).await else { return };
        if ways.wait_for(|way| *way != Way::HalfOpen).await.is_err() {
            return;
        }
        let way = *ways.borrow();
        if let (Way::Slow(delay), true) = (way, back) {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}
