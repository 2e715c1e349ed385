//! What the gateways of this process log, kept only while a test listens.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, Once, Weak},
};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

static LISTENERS: Mutex<Vec<Weak<Memory>>> = Mutex::new(Vec::new());

/// Text that was written, whoever wrote it.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<Vec<u8>>);

impl Memory {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    pub(super) fn append(&self, bytes: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(bytes);
    }
}

/// Writes into a memory, as an access log does.
#[derive(Clone, Debug)]
pub(crate) struct Sink(pub(crate) Arc<Memory>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.append(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hears every event of this process from now on, down to `trace` of our own: other tests' too.
pub(crate) fn listen() -> Arc<Memory> {
    static SET_UP: Once = Once::new();
    SET_UP.call_once(|| {
        let filter = EnvFilter::new("debug,portcullis=trace,h2=info");
        let subscriber =
            tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(ToListeners);
        tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
    });
    let memory = Arc::new(Memory::default());
    LISTENERS.lock().unwrap().push(Arc::downgrade(&memory));
    memory
}

struct ToListeners;

impl Write for ToListeners {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LISTENERS
            .lock()
            .unwrap()
            .retain(|listener| listener.upgrade().inspect(|memory| memory.append(bytes)).is_some());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for ToListeners {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}
