//! Binds sockets: one listener per worker on the same address; the kernel spreads connections over them.

use std::{
    fmt,
    fs::{self, File, Permissions},
    io,
    net::{Ipv6Addr, SocketAddr},
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use socket2::{Domain, Protocol, SockAddr, Socket as RawSocket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::web::socket::Socket;

/// The length of the kernel's queue of connections that no worker has accepted yet.
const BACKLOG: i32 = 1024;

/// What the peers of a Unix socket have for an address: no client on a network has it.
pub const NO_ADDRESS: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

/// Where the gateway listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    /// A Unix socket of this path.
    Unix(PathBuf),
}

impl ListenAddress {
    /// The address on a network, if it has one.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What has been bound on one address.
pub(super) struct Listeners {
    pub(super) address: ListenAddress,
    pub(super) sockets: Vec<Listening>,
    /// Of a Unix socket.
    pub(super) file: Option<SocketFile>,
}

/// One listener.
#[derive(Debug)]
pub(super) enum Listening {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// The same within a runtime.
pub(super) enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listening {
    pub(super) fn begin(self) -> io::Result<Accepting> {
        Ok(match self {
            Self::Tcp(listener) => Accepting::Tcp(TcpListener::from_std(listener)?),
            Self::Unix(listener) => Accepting::Unix(UnixListener::from_std(listener)?),
        })
    }
}

impl Accepting {
    /// The next connection and its peer's address; no socket if the peer has gone already.
    pub(super) async fn accept(&self) -> io::Result<(Option<Socket>, SocketAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Socket::new(stream).ok(), peer))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Some(Socket::of_unix(stream)), SocketAddr::from((NO_ADDRESS, 0))))
            }
        }
    }
}

/// Binds `address` `count` times. A Unix socket gets this mode.
///
/// The first bind is exclusive: a second gateway started by mistake gets a clear error instead of half of the
/// connections.
pub(super) fn bind(address: &ListenAddress, mode: u32, count: usize) -> io::Result<Listeners> {
    match address {
        ListenAddress::Tcp(address) => {
            let alone = open(*address, false)?;
            let address = alone.local_addr()?.as_socket().unwrap_or(*address);
            drop(alone);
            let listeners = (0..count).map(|_| Ok(Listening::Tcp(open(address, true)?.into())));
            let listeners = listeners.collect::<io::Result<_>>()?;
            Ok(Listeners { address: ListenAddress::Tcp(address), sockets: listeners, file: None })
        }
        ListenAddress::Unix(path) => {
            let (socket, file) = open_unix(path, mode)?;
            let listeners = (0..count).map(|_| Ok(Listening::Unix(socket.try_clone()?.into())));
            let listeners = listeners.collect::<io::Result<_>>()?;
            Ok(Listeners { address: address.clone(), sockets: listeners, file: Some(file) })
        }
    }
}

fn open(address: SocketAddr, shared: bool) -> io::Result<RawSocket> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
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

/// Takes the place of a file that was left over; never of one where somebody listens, nor of anything that is no socket.
fn open_unix(path: &Path, mode: u32) -> io::Result<(RawSocket, SocketFile)> {
    let _alone = lock_folder(path)?;
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Ok(_) if is_left_over(path)? => fs::remove_file(path)?,
        Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
        Err(_) => {}
    }
    let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile(path.to_owned());
    // Nobody can connect before it listens.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok((socket, file))
}

/// Whether nobody listens there. Does not wait for whoever does.
fn is_left_over(path: &Path) -> io::Result<bool> {
    let probe = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
        Ok(()) => Ok(false),
    }
}

/// Keeps other gateways from doing the same at once.
fn lock_folder(path: &Path) -> io::Result<File> {
    let folder = File::open(path.parent().unwrap_or_else(|| Path::new("/")))?;
    folder.lock()?;
    Ok(folder)
}

/// The file of a Unix socket, removed after its listeners unless another gateway listens there by then.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _alone = lock_folder(&self.0);
        if is_left_over(&self.0).is_ok_and(|left_over| left_over) {
            let _ = fs::remove_file(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn tcp(address: SocketAddr, count: usize) -> io::Result<Listeners> {
        bind(&ListenAddress::Tcp(address), 0, count)
    }

    #[test]
    fn workers_share_a_port_and_a_second_gateway_gets_an_error() {
        let bound = tcp("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let address = bound.address.tcp().unwrap();
        assert_ne!(address.port(), 0);
        assert_eq!(bound.sockets.len(), 3);
        assert!(tcp(address, 1).is_err());
    }

    #[test]
    fn a_socket_takes_the_place_of_one_that_is_left_over_and_of_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.sock");
        let address = ListenAddress::Unix(path.clone());
        let bound = bind(&address, 0o660, 2).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o7777, 0o660);
        assert!(UnixStream::connect(&path).is_ok());
        assert_eq!(bind(&address, 0o660, 1).err().unwrap().kind(), io::ErrorKind::AddrInUse);
        assert!(UnixStream::connect(&path).is_ok(), "the first one goes on");

        // As after a crash: the file stays, and nobody listens.
        let Listeners { sockets, file, .. } = bound;
        let left = file.unwrap();
        drop(sockets);
        assert!(UnixStream::connect(&path).is_err() && path.exists());
        let second = bind(&address, 0o600, 1).unwrap();
        drop(left);
        assert!(UnixStream::connect(&path).is_ok(), "it is the second one's file now");
        drop(second);
        assert!(!path.exists());

        fs::write(&path, "precious").unwrap();
        assert!(bind(&address, 0o660, 1).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
        assert!(bind(&address, 0o660, 1).is_err());
    }
}
