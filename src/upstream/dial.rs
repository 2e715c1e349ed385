//! Connects to a host name with several addresses (Happy Eyeballs, RFC 8305): attempts start one after the other, alternating
//! address families, and the first to succeed is used. The name is resolved each time.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, sleep_until},
};

/// The delay before the next address is tried as well: maximum and minimum.
const MOST_PAUSE: Duration = Duration::from_millis(250);
const LEAST_PAUSE: Duration = Duration::from_millis(10);

/// Connects to the first address that accepts. All addresses are tried within `limit`, the caller's timeout.
pub(super) async fn dial(host: &str, port: u16, limit: Duration) -> io::Result<TcpStream> {
    first_of(in_turn(lookup_host((host, port)).await?), limit).await
}

/// Alternates address families, beginning with the first one.
fn in_turn(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut found: Vec<SocketAddr> = found.collect();
    let prefers_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (mut preferred, mut other) = (0, 0);
    // A stable sort: each family keeps the resolver's order.
    found.sort_by_cached_key(|address| {
        let is_preferred = address.is_ipv6() == prefers_v6;
        let place = if is_preferred { &mut preferred } else { &mut other };
        *place += 1;
        (*place, !is_preferred)
    });
    found
}

async fn first_of(addresses: Vec<SocketAddr>, limit: Duration) -> io::Result<TcpStream> {
    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    let pause = (limit / count.saturating_add(1)).clamp(LEAST_PAUSE, MOST_PAUSE);
    let mut addresses = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        match addresses.next() {
            Some(address) => attempts.push(TcpStream::connect(address)),
            None if attempts.is_empty() => return Err(error),
            None => {}
        }
        let next_at = Instant::now() + pause;
        let has_more = addresses.len() > 0;
        tokio::select! {
            Some(tried) = attempts.next() => match tried {
                Ok(stream) => return Ok(stream),
                Err(failed) => error = failed,
            },
            () = sleep_until(next_at), if has_more => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn families_take_turns_and_the_preferred_one_is_first() {
        let addresses =
            |texts: &[&str]| -> Vec<SocketAddr> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let found = ["[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3]:1", "192.0.2.1:1", "192.0.2.2:1"];
        let turns = ["[2001:db8::1]:1", "192.0.2.1:1", "[2001:db8::2]:1", "192.0.2.2:1", "[2001:db8::3]:1"];
        assert_eq!(in_turn(addresses(&found).into_iter()), addresses(&turns));
        let found = ["192.0.2.1:1", "[2001:db8::1]:1", "192.0.2.2:1"];
        assert_eq!(in_turn(addresses(&found).into_iter()), addresses(&found));
    }

    #[tokio::test]
    async fn an_address_that_refuses_or_is_silent_does_not_keep_the_next_one_waiting() {
        let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refusing = {
            let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        // Its queue is full, so that the kernel answers nobody.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(0).unwrap();
        let silent = socket.local_addr().unwrap().as_socket().unwrap();
        let mut filling = Vec::new();
        while let Ok(Ok(stream)) =
            tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(silent)).await
        {
            filling.push(stream);
        }
        let alive = alive.local_addr().unwrap();
        let limit = Duration::from_secs(2);
        for addresses in [vec![silent, refusing, alive], vec![refusing, alive], vec![silent, silent, alive]] {
            let connected = tokio::time::timeout(limit, first_of(addresses.clone(), limit)).await;
            assert_eq!(connected.unwrap().unwrap().peer_addr().unwrap(), alive, "{addresses:?}");
        }
        assert_eq!(
            first_of(vec![refusing, refusing], limit).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
        assert!(first_of(Vec::new(), limit).await.is_err());
    }
}
