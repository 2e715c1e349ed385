//! A connection that has switched protocols: bytes both ways until one side ends, the session ends, or we do.

use std::io;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional_with_sizes;
use tokio_util::sync::CancellationToken;

/// What is held of each direction.
const BUFFER: usize = 8 * 1024;

/// The two halves of a tunnel before the client has seen the portal's 101.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) client: OnUpgrade,
    pub(super) portal: OnUpgrade,
    /// Cancelled when the session is over.
    pub(super) ended: CancellationToken,
    /// Cancelled when the gateway stops.
    pub(super) drain: CancellationToken,
}

impl Tunnel {
    /// Copies until it is over. Both sockets are closed on return.
    pub(super) async fn run(self) -> io::Result<()> {
        let (client, portal) = tokio::try_join!(self.client, self.portal).map_err(io::Error::other)?;
        tokio::select! {
            biased;
            () = self.ended.cancelled() => Ok(()),
            () = self.drain.cancelled() => Ok(()),
            copied = copy(client, portal) => copied,
        }
    }
}

async fn copy(client: Upgraded, portal: Upgraded) -> io::Result<()> {
    let (mut client, mut portal) = (TokioIo::new(client), TokioIo::new(portal));
    copy_bidirectional_with_sizes(&mut client, &mut portal, BUFFER, BUFFER).await.map(|_| ())
}
