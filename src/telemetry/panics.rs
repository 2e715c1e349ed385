//! Reports a panic with one line in the log and one count. Catches nothing: the runtime ends the task that panicked.

use std::{panic, sync::Arc, thread};

use super::metrics::Metrics;

/// Reports all panics of this process from now on.
///
/// The line says where, not what: the message may contain data from a request.
pub fn report(metrics: Arc<Metrics>) {
    panic::set_hook(Box::new(move |panic| {
        metrics.panicked();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        tracing::error!(
            place,
            thread,
            "a fault in the gateway: what was being done has ended, all else goes on"
        );
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_counted() {
        let metrics = Arc::new(Metrics::new());
        let before = panic::take_hook();
        report(Arc::clone(&metrics));
        let ended = thread::spawn(|| panic!("on purpose")).join();
        panic::set_hook(before);
        assert!(ended.is_err());
        assert!(!metrics.render().contains("portcullis_panics_total 0"));
    }
}
