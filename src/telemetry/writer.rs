//! The writer to standard output: a bounded queue and one thread, so that logging never waits for a disk or a pipe.
//!
//! Lines that do not fit into the queue are dropped and counted.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
    thread,
    time::Duration,
};

/// Maximum number of queued lines: a second of a very busy gateway.
const QUEUE: usize = 8192;
/// Lines are written in batches of about this many bytes.
const BATCH: usize = 64 * 1024;
/// When the queue is empty the thread sleeps, so that lines collect. Waking a thread that blocks on the queue costs
/// more than the line itself; a sleeping one need not be woken.
const REST: Duration = Duration::from_millis(5);

/// A handle to the queue; clones share it. When the last is dropped, the thread writes the remaining lines and ends.
#[derive(Clone, Debug)]
pub struct LogWriter {
    queue: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Entry {
    Line(String),
    /// Answered once everything before it has been written.
    Flush(SyncSender<()>),
}

impl LogWriter {
    /// Starts the thread that writes to `sink`.
    pub fn start(sink: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, entries) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        thread::Builder::new().name("log".into()).spawn(move || write_all(&entries, sink, &counter))?;
        Ok(Self { queue, dropped })
    }

    /// Queues a line, including its newline. Never waits.
    pub fn line(&self, line: String) {
        if self.queue.try_send(Entry::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines lost so far, because the queue was full or the write failed.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything queued before has been written, at most for `patience`. Returns whether it has.
    pub fn flush(&self, patience: Duration) -> bool {
        let (done, written) = sync_channel(1);
        self.queue.try_send(Entry::Flush(done)).is_ok() && written.recv_timeout(patience).is_ok()
    }
}

fn write_all(entries: &Receiver<Entry>, mut sink: impl Write, dropped: &AtomicU64) {
    let mut batch = Vec::with_capacity(BATCH);
    while let Ok(first) = entries.recv() {
        let mut next = Some(first);
        while let Some(entry) = next {
            let (lines, waiting) = gather(entry, entries, &mut batch);
            // A sink that fails may recover later: a full disk, a reader that comes back.
            if sink.write_all(&batch).and_then(|()| sink.flush()).is_err() {
                dropped.fetch_add(lines, Ordering::Relaxed);
            }
            let drained = batch.len() < BATCH;
            batch.clear();
            for done in waiting {
                // The caller may have stopped waiting.
                let _ = done.send(());
            }
            if drained {
                thread::park_timeout(REST);
            }
            next = entries.try_recv().ok();
        }
    }
}

/// Fills the batch with queued lines. Returns their number, and the flushes that wait for them.
fn gather(first: Entry, entries: &Receiver<Entry>, batch: &mut Vec<u8>) -> (u64, Vec<SyncSender<()>>) {
    let (mut lines, mut waiting) = (0, Vec::new());
    let mut next = Ok(first);
    loop {
        match next {
            Ok(Entry::Line(line)) => {
                batch.extend_from_slice(line.as_bytes());
                lines += 1;
            }
            Ok(Entry::Flush(done)) => waiting.push(done),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return (lines, waiting),
        }
        if batch.len() >= BATCH {
            return (lines, waiting);
        }
        next = entries.try_recv();
    }
}

/// Whether a character could end a line early or change how the rest of it is displayed: control characters, line
/// separators, and marks that reverse the direction of text.
pub(super) fn is_disruptive(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{
        Mutex,
        mpsc::{Receiver, channel},
    };

    use super::*;

    pub(in crate::telemetry) const PATIENCE: Duration = Duration::from_secs(30);

    /// Stores what is written to it.
    #[derive(Clone, Default)]
    pub(in crate::telemetry) struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Memory {
        pub(in crate::telemetry) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Blocks until the test releases it.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_arrive_in_order() {
        let memory = Memory::default();
        let writer = LogWriter::start(memory.clone()).unwrap();
        let lines: Vec<_> = (0..1000).map(|number| format!("{number}\n")).collect();
        for line in &lines {
            writer.line(line.clone());
        }
        assert!(writer.flush(PATIENCE));
        assert_eq!(memory.text(), lines.concat());
        assert_eq!(writer.dropped(), 0);
    }

    #[test]
    fn a_sink_that_stands_still_costs_lines_but_nobodys_time() {
        let (let_go, held) = channel();
        let writer = LogWriter::start(Stuck(held)).unwrap();
        let (sent, taken) = (QUEUE * 2 + BATCH / 2, QUEUE + BATCH / 2);
        for _ in 0..sent {
            writer.line("x\n".into());
        }
        assert!(!writer.flush(Duration::ZERO));
        // The queue is full, and the blocked batch contains at most one batch of lines.
        let dropped = usize::try_from(writer.dropped()).unwrap();
        assert!((sent - taken..=sent - QUEUE).contains(&dropped), "{dropped} of {sent}");
        drop(let_go);
        // A flush needs space in the queue, which the released sink makes.
        while !writer.flush(PATIENCE) {
            thread::yield_now();
        }
        assert_eq!(writer.dropped(), u64::try_from(dropped).unwrap());
    }

    #[test]
    fn a_line_that_cannot_be_written_is_counted() {
        let writer = LogWriter::start(Full).unwrap();
        writer.line("x\n".into());
        writer.line("y\n".into());
        assert!(writer.flush(PATIENCE));
        assert_eq!(writer.dropped(), 2);
    }
}
