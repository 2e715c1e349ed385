//! A download of any size: usage records generated while they are sent, with constant memory.

use std::{
    convert::Infallible,
    fmt::Write,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, header};
use http_body::{Body, Frame, SizeHint};

use super::{
    answer::{self, DemoResponse, Error},
    sims,
};

/// The default size: 100 MiB.
pub(super) const DEFAULT: u64 = 100 << 20;

/// The maximum size: 16 GiB.
pub(super) const MOST: u64 = 16 << 30;

/// Records in the block that is sent repeatedly; about 64 KiB.
const RECORDS: u64 = 1400;

/// Serves `/download?bytes=`.
pub(super) fn answer(bytes: Option<&str>, block: &Bytes) -> Result<DemoResponse, Error> {
    let bytes = match bytes {
        None => DEFAULT,
        Some(text) => text
            .parse()
            .ok()
            .filter(|bytes| *bytes <= MOST)
            .ok_or(Error::Malformed("A download has 0 to 17179869184 bytes."))?,
    };
    let mut answer =
        answer::with_body("text/csv; charset=utf-8", Records { block: block.clone(), remaining: bytes });
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    headers.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=\"usage-records.csv\""),
    );
    Ok(answer)
}

/// The block of records that all downloads share.
pub(super) fn block() -> Bytes {
    let mut block = String::new();
    for record in 0..RECORDS {
        let random = sims::mix(record);
        // Writing to a string cannot fail.
        let _ = writeln!(block, "{record:06},89999014{:011},{:08},up", random % 100_000, random >> 40);
    }
    Bytes::from(block)
}

/// `remaining` bytes of records: the same block repeatedly, by reference count.
struct Records {
    block: Bytes,
    remaining: u64,
}

impl Body for Records {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.remaining == 0 {
            return Poll::Ready(None);
        }
        let length = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(self.block.len());
        self.remaining -= length as u64;
        Poll::Ready(Some(Ok(Frame::data(self.block.slice(..length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}
