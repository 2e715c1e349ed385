//! Binds sockets: one listener per worker on the same address; the kernel spreads connections over them.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// The length of the kernel's queue of connections that no worker has accepted yet.
const BACKLOG: i32 = 1024;

pub(super) struct Listeners {
    pub(super) address: SocketAddr,
    pub(super) listeners: Vec<TcpListener>,
}

/// Binds `address` `count` times.
///
/// The first bind is exclusive: a second gateway started by mistake gets a clear error instead of half of the
/// connections.
pub(super) fn bind(address: SocketAddr, count: usize) -> io::Result<Listeners> {
    let alone = open(address, false)?;
    let address = alone.local_addr()?.as_socket().unwrap_or(address);
    drop(alone);
    let listeners = (0..count).map(|_| open(address, true).map(Into::into)).collect::<io::Result<_>>()?;
    Ok(Listeners { address, listeners })
}

fn open(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` takes IPv4 too, as operators expect.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_a_port_and_a_second_gateway_gets_an_error() {
        let bound = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        assert_ne!(bound.address.port(), 0);
        assert_eq!(bound.listeners.len(), 3);
        assert!(bind(bound.address, 1).is_err());
    }
}
