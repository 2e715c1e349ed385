//! The sealed form of a session, which no store can read, alter, or pass off as another session's.

use super::{Session, StoredSession};
use crate::sealing::Sealer;

/// The first byte under the seal: the format of the rest.
const FORMAT: u8 = 1;

pub(super) fn seal(sealer: &Sealer, session: &Session) -> Vec<u8> {
    let mut plain = vec![FORMAT];
    // Writing to memory does not fail, and everything in a session has a JSON form.
    #[expect(clippy::unwrap_used, reason = "a session is strings, numbers and lists of them")]
    serde_json::to_writer(&mut plain, session).unwrap();
    sealer.seal(&["sessions", &session.id.to_hex()], &plain)
}

/// `None` for another key, another session's record, another user's id, damage, or the format of another version of
/// this program.
pub(super) fn open(sealer: &Sealer, stored: &StoredSession) -> Option<Session> {
    let plain = sealer.open(&["sessions", &stored.id.to_hex()], &stored.record).ok()?;
    match plain.split_first() {
        Some((&FORMAT, json)) => {
            let session: Session = serde_json::from_slice(json).ok()?;
            (session.user == stored.user).then_some(Session { id: stored.id, ..session })
        }
        _ => None,
    }
}
