//! HTTP/1 as bytes, read just far enough to know where a message ends. Judges nothing and changes nothing: what a test
//! sees is what was on the wire.

use std::{fmt, io};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// One end of a connection.
pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

/// The head of a message, byte for byte.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Head(pub(crate) Vec<u8>);

/// A body and what came after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) body: Vec<u8>,
    /// The trailer section as it was on the wire.
    pub(crate) trailers: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), buffer: Vec::new() }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Gives out the connection itself, with what has been read of it and not been asked for.
    pub(crate) fn into_stream(self) -> Box<dyn Stream> {
        if self.buffer.is_empty() {
            return self.stream;
        }
        let (from, to) = tokio::io::split(self.stream);
        Box::new(tokio::io::join(io::Cursor::new(self.buffer).chain(from), to))
    }

    /// Says that nothing more will be written.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// What has been read from the connection and not been asked for yet.
    pub(crate) fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// Reads more; false at the end.
    pub(crate) async fn fill(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    async fn need(&mut self) -> io::Result<()> {
        if self.fill().await? { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Everything up to and including `mark`.
    pub(crate) async fn read_until(&mut self, mark: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            let found = self.buffer.windows(mark.len()).position(|window| window == mark);
            if let Some(at) = found {
                return Ok(self.take(at + mark.len()));
            }
            self.need().await?;
        }
    }

    pub(crate) async fn read_exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.need().await?;
        }
        Ok(self.take(count))
    }

    /// The next bytes, whatever they are; none at the end.
    pub(crate) async fn read_some(&mut self) -> io::Result<Vec<u8>> {
        if self.buffer.is_empty() {
            self.fill().await?;
        }
        Ok(self.take(self.buffer.len()))
    }

    pub(crate) async fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        while self.fill().await? {}
        Ok(self.take(self.buffer.len()))
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(count);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// The next head; `None` when the connection ends before one begins.
    pub(crate) async fn read_head(&mut self) -> io::Result<Option<Head>> {
        if self.buffer.is_empty() && !self.fill().await? {
            return Ok(None);
        }
        Ok(Some(Head(self.read_until(b"\r\n\r\n").await?)))
    }

    /// The body that `head` announces. What announces none has none, unless `to_end` says that it lasts until the end.
    pub(crate) async fn read_content(&mut self, head: &Head, to_end: bool) -> io::Result<Content> {
        if head.values("transfer-encoding").last().is_some_and(|coding| coding.ends_with("chunked")) {
            return self.read_chunked().await;
        }
        let body = match head.values("content-length").first() {
            Some(length) => self.read_exactly(length.parse().map_err(io::Error::other)?).await?,
            None if to_end => self.read_to_end().await?,
            None => Vec::new(),
        };
        Ok(Content { body, trailers: Vec::new() })
    }

    async fn read_chunked(&mut self) -> io::Result<Content> {
        let mut content = Content::default();
        loop {
            let Some(chunk) = self.read_chunk().await? else { break };
            content.body.extend_from_slice(&chunk);
        }
        loop {
            let line = self.read_until(b"\r\n").await?;
            if line == b"\r\n" {
                return Ok(content);
            }
            content.trailers.extend_from_slice(&line);
        }
    }

    /// The next chunk's data; `None` for the last one, after which the trailers follow.
    pub(crate) async fn read_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.read_until(b"\r\n").await?;
        let digits = String::from_utf8_lossy(&line);
        let digits = digits.trim().split(';').next().unwrap_or_default().to_owned();
        let size = usize::from_str_radix(&digits, 16).map_err(io::Error::other)?;
        if size == 0 {
            return Ok(None);
        }
        let mut data = self.read_exactly(size + 2).await?;
        data.truncate(size);
        Ok(Some(data))
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("buffered", &self.buffer.len()).finish_non_exhaustive()
    }
}

impl Head {
    pub(crate) fn first_line(&self) -> String {
        self.lines().swap_remove(0)
    }

    fn lines(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.0).split("\r\n").map(str::to_owned).collect()
    }

    /// Names as they are spelt, with their values, in their order.
    pub(crate) fn fields(&self) -> Vec<(String, String)> {
        let pairs = self.lines().into_iter().skip(1).filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        });
        pairs.collect()
    }

    /// All values of one field; `name` is in lower case.
    pub(crate) fn values(&self, name: &str) -> Vec<String> {
        let fields = self.fields().into_iter();
        fields.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}
