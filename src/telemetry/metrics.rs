//! Every metric, and the exposition as OpenMetrics text.
//!
//! Values that each request changes are counted in stripes, one per thread, and summed when somebody looks: a proxied
//! request takes no lock and shares no cache line. Labels are few and fixed; none contains a path, a user or a host
//! named by a client.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text},
    metrics::{MetricType, counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::Registry,
};

use super::{Outcome, writer::LogWriter};

/// The media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// Upper bounds in microseconds: the lowest resolve the gateway's own work, the highest a portal that hangs.
const BOUNDS: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];
/// More threads than this share stripes, which costs a little time and loses no count.
const STRIPES: usize = 16;

type Labels = [(&'static str, &'static str); 1];

/// All metrics of one gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    hot: Arc<Hot>,
    site_requests: Family<[(&'static str, String); 1], Counter>,
    audit_events: Family<Labels, Counter>,
    connections: Gauge,
    handshake_failures: Counter,
    connections_refused: Family<Labels, Counter>,
    users_limited: Family<Labels, Counter>,
    tokens_refused: Family<Labels, Counter>,
    upstream_errors: Family<Labels, Counter>,
    store_errors: Counter,
    store_up: Family<Labels, Gauge>,
    outage_grace: Gauge,
    logins_up: Gauge,
    clock_behind: Gauge,
    clock_difference: Family<Labels, Gauge<f64, AtomicU64>>,
    threads_hung: Gauge,
    certificate_expiry: Gauge,
    load: Gauge,
    memory: Gauge,
    max_memory: Gauge,
    rollout_users: Family<Labels, Gauge>,
    rollout_blocked: Gauge,
    panics: Counter,
    mail: Family<Labels, Counter>,
    mail_waiting: Gauge,
}

/// Counts the requests of one site.
#[derive(Clone, Debug)]
pub struct SiteRequests(Counter);

impl SiteRequests {
    /// Counts one request.
    pub fn count(&self) {
        self.0.inc();
    }
}

/// Counted as an open connection until it is dropped.
#[derive(Debug)]
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        Self::build(None)
    }

    /// Includes the lines that this log has lost.
    pub fn with_log(log: LogWriter) -> Self {
        Self::build(Some(log))
    }

    fn build(log: Option<LogWriter>) -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            hot: Arc::new(Hot { stripes: std::array::from_fn(|_| Stripe::default()), log }),
            site_requests: Family::default(),
            audit_events: Family::default(),
            connections: Gauge::default(),
            handshake_failures: Counter::default(),
            connections_refused: Family::default(),
            users_limited: Family::default(),
            tokens_refused: Family::default(),
            upstream_errors: Family::default(),
            store_errors: Counter::default(),
            store_up: Family::default(),
            outage_grace: Gauge::default(),
            logins_up: Gauge::default(),
            clock_behind: Gauge::default(),
            clock_difference: Family::default(),
            threads_hung: Gauge::default(),
            certificate_expiry: Gauge::default(),
            load: Gauge::default(),
            memory: Gauge::default(),
            max_memory: Gauge::default(),
            rollout_users: Family::default(),
            rollout_blocked: Gauge::default(),
            panics: Counter::default(),
            mail: Family::default(),
            mail_waiting: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    /// The encoder adds `_total` to counters and `_info` to the build.
    fn register(&mut self) {
        let registry = &mut self.registry;
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("portcullis_build", "What is running", build);
        registry.register_collector(Box::new(Arc::clone(&self.hot)));
        let (name, help) = ("portcullis_site_requests", "Requests, by site, where there are several");
        registry.register(name, help, self.site_requests.clone());
        let (name, help) = ("portcullis_audit_events", "Audited events");
        registry.register(name, help, self.audit_events.clone());
        let (name, help) = ("portcullis_connections", "Connections open now");
        registry.register(name, help, self.connections.clone());
        let (name, help) = ("portcullis_handshake_failures", "TLS handshakes that failed");
        registry.register(name, help, self.handshake_failures.clone());
        let (name, help) = ("portcullis_connections_refused", "Connections closed before their handshake");
        registry.register(name, help, self.connections_refused.clone());
        let (name, help) =
            ("portcullis_users_limited", "Requests refused because their user has too much in progress");
        registry.register(name, help, self.users_limited.clone());
        let (name, help) = ("portcullis_tokens_refused", "Requests refused for their token");
        registry.register(name, help, self.tokens_refused.clone());
        let (name, help) = ("portcullis_upstream_errors", "Requests that the portal did not answer");
        registry.register(name, help, self.upstream_errors.clone());
        let (name, help) = ("portcullis_store_errors", "Answers that a store failed to give");
        registry.register(name, help, self.store_errors.clone());
        let (name, help) = ("portcullis_store_up", "Whether a store answers");
        registry.register(name, help, self.store_up.clone());
        let (name, help) = ("portcullis_outage_grace", "Whether known sessions go on without their store");
        registry.register(name, help, self.outage_grace.clone());
        let (name, help) = ("portcullis_logins_up", "Whether the stores take what a login writes");
        registry.register(name, help, self.logins_up.clone());
        let (name, help) = ("portcullis_clock_behind_seconds", "How much the machine's clock was set back");
        registry.register(name, help, self.clock_behind.clone());
        let (name, help) =
            ("portcullis_clock_difference_seconds", "How much the machine's clock is behind a store's");
        registry.register(name, help, self.clock_difference.clone());
        let (name, help) = ("portcullis_threads_hung", "Threads that do not turn");
        registry.register(name, help, self.threads_hung.clone());
        let (name, help) =
            ("portcullis_certificate_expiry_timestamp_seconds", "When the certificate expires");
        registry.register(name, help, self.certificate_expiry.clone());
        let (name, help) = ("portcullis_load_level", "0 normal, 1 strained, 2 full");
        registry.register(name, help, self.load.clone());
        let (name, help) = ("portcullis_memory_bytes", "Resident memory");
        registry.register(name, help, self.memory.clone());
        let (name, help) = ("portcullis_max_memory_bytes", "The memory that the gateway may take");
        registry.register(name, help, self.max_memory.clone());
        let (name, help) = ("portcullis_rollout_users", "Users, by how far they are with their first device");
        registry.register(name, help, self.rollout_users.clone());
        let (name, help) =
            ("portcullis_rollout_blocked_users", "Users who get no further than setting up a device");
        registry.register(name, help, self.rollout_blocked.clone());
        let (name, help) = ("portcullis_panics", "Requests and tasks that ended in a fault of ours");
        registry.register(name, help, self.panics.clone());
        let (name, help) = ("portcullis_mail", "Attempts to send mail, and mail given up, by outcome");
        registry.register(name, help, self.mail.clone());
        let (name, help) = ("portcullis_mail_outbox_waiting", "Mail that waits to be sent");
        registry.register(name, help, self.mail_waiting.clone());
    }

    /// The counter of this site's requests.
    pub fn of_site(&self, site: &str) -> SiteRequests {
        SiteRequests(self.site_requests.get_or_create_owned(&[("site", site.to_owned())]))
    }

    /// A request has ended.
    pub fn request(&self, outcome: Outcome, status: u16, duration: Duration) {
        let class = usize::from(status / 100).clamp(1, STATUS_CLASSES.len()) - 1;
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let stripe = self.hot.stripe();
        stripe.requests[outcome.index()][class].fetch_add(1, Relaxed);
        stripe.durations[BOUNDS.partition_point(|bound| *bound < micros)].fetch_add(1, Relaxed);
        stripe.micros.fetch_add(micros, Relaxed);
    }

    pub fn session_cache_hit(&self) {
        self.hot.stripe().cache_hits.fetch_add(1, Relaxed);
    }

    pub fn session_cache_miss(&self) {
        self.hot.stripe().cache_misses.fetch_add(1, Relaxed);
    }

    /// `event` is the stable name of an audit event.
    pub fn audit_event(&self, event: &'static str) {
        self.audit_events.get_or_create(&[("event", event)]).inc();
    }

    /// A connection was accepted; it counts until the guard is dropped.
    pub fn connection(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection(self.connections.clone())
    }

    pub fn handshake_failed(&self) {
        self.handshake_failures.inc();
    }

    /// `reason`: why a connection was closed before its handshake: `network`, `overload`, `proxy_protocol`.
    pub fn connection_refused(&self, reason: &'static str) {
        self.connections_refused.get_or_create(&[("reason", reason)]).inc();
    }

    /// `limit`: the limit that a user has reached: `requests`, `streams`, `pages`.
    pub fn user_limited(&self, limit: &'static str) {
        self.users_limited.get_or_create(&[("limit", limit)]).inc();
    }

    /// `reason`: what is wrong with the token: `unknown`, `expired`, `revoked`, `out_of_scope`.
    pub fn token_refused(&self, reason: &'static str) {
        self.tokens_refused.get_or_create(&[("reason", reason)]).inc();
    }

    /// `kind`: what failed: `connect`, `timeout`, `reset`.
    pub fn upstream_error(&self, kind: &'static str) {
        self.upstream_errors.get_or_create(&[("kind", kind)]).inc();
    }

    pub fn store_error(&self) {
        self.store_errors.inc();
    }

    /// Whether each store answers, and whether sessions go on without their store.
    pub fn stores(&self, up: &[(&'static str, bool)], outage_grace: bool) {
        for &(store, up) in up {
            self.store_up.get_or_create(&[("store", store)]).set(up.into());
        }
        self.outage_grace.set(outage_grace.into());
    }

    /// Whether users can log in.
    pub fn logins_up(&self, up: bool) {
        self.logins_up.set(up.into());
    }

    /// By how much the machine's clock is behind its former value.
    pub fn clock_behind(&self, behind: Duration) {
        self.clock_behind.set(i64::try_from(behind.as_secs()).unwrap_or(i64::MAX));
    }

    /// By how many milliseconds the machine's clock is behind each store's.
    pub fn clocks(&self, behind: impl Iterator<Item = (&'static str, i64)>) {
        for (store, millis) in behind {
            let seconds = Duration::from_millis(millis.unsigned_abs()).as_secs_f64();
            self.clock_difference.get_or_create(&[("store", store)]).set(if millis < 0 {
                -seconds
            } else {
                seconds
            });
        }
    }

    /// The number of threads that hang now.
    pub fn threads_hung(&self, count: usize) {
        self.threads_hung.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// When the certificate expires, in Unix seconds.
    pub fn certificate_expiry(&self, at: i64) {
        self.certificate_expiry.set(at);
    }

    /// How many users are at each stage of the roll-out, and how many of them are blocked.
    pub fn rollout(&self, stages: &[(&'static str, u64)], blocked: u64) {
        for &(stage, users) in stages {
            self.rollout_users.get_or_create(&[("stage", stage)]).set(clip(users));
        }
        self.rollout_blocked.set(clip(blocked));
    }

    /// The load level, and the memory in use and allowed, in bytes.
    pub fn load(&self, level: u8, memory: u64, max_memory: u64) {
        self.load.set(level.into());
        self.memory.set(clip(memory));
        self.max_memory.set(clip(max_memory));
    }

    /// `outcome`: what became of an attempt to send a mail: `sent`, `failed`; or of the mail: `given_up`.
    pub fn mail(&self, outcome: &'static str) {
        self.mail.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// The number of mails in the outbox.
    pub fn mail_waiting(&self, count: u64) {
        self.mail_waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts a panic.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// All metrics as OpenMetrics text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` cannot fail, and all our metrics can be encoded.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

/// The counts of requests, and the lines that the log has lost.
#[derive(Debug)]
struct Hot {
    stripes: [Stripe; STRIPES],
    log: Option<LogWriter>,
}

/// The counts of one thread, or of a few. Aligned so that two stripes never share a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe {
    requests: [[AtomicU64; STATUS_CLASSES.len()]; Outcome::ALL.len()],
    /// One per bound, and one for everything above.
    durations: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
    cache_hits: AtomicU64,
    cache_misses: AtomicU64,
}

thread_local! {
    /// Threads get the stripes in turn.
    static STRIPE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Relaxed) % STRIPES
    };
}

impl Hot {
    fn stripe(&self) -> &Stripe {
        STRIPE.with(|index| &self.stripes[*index])
    }

    fn sum(&self, count: impl Fn(&Stripe) -> &AtomicU64) -> u64 {
        self.stripes.iter().map(|stripe| count(stripe).load(Relaxed)).sum()
    }

    fn encode_requests(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (name, help) = ("portcullis_requests", "Requests, by decision and status");
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for outcome in Outcome::ALL {
            for (class, digit) in STATUS_CLASSES.iter().enumerate() {
                let count = self.sum(|stripe| &stripe.requests[outcome.index()][class]);
                if count > 0 {
                    let labels = [("decision", outcome.as_str()), ("status_class", *digit)];
                    metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
                }
            }
        }
        Ok(())
    }

    fn encode_durations(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (name, help) = ("portcullis_request_duration_seconds", "Time from request head to end of answer");
        let counts: [u64; BOUNDS.len() + 1] =
            std::array::from_fn(|bucket| self.sum(|stripe| &stripe.durations[bucket]));
        let bounds = BOUNDS.iter().map(|bound| seconds(*bound)).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(counts).collect();
        let (sum, count) = (seconds(self.sum(|stripe| &stripe.micros)), counts.iter().sum());
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

impl Collector for Hot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_requests(&mut encoder)?;
        self.encode_durations(&mut encoder)?;
        for (name, help, count) in [
            (
                "portcullis_session_cache_hits",
                "Sessions found in memory",
                self.sum(|stripe| &stripe.cache_hits),
            ),
            (
                "portcullis_session_cache_misses",
                "Sessions asked of the store",
                self.sum(|stripe| &stripe.cache_misses),
            ),
            ("portcullis_log_dropped", "Log lines lost", self.log.as_ref().map_or(0, LogWriter::dropped)),
        ] {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            metric.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }
}

fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}

fn clip(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn expect_lines(metrics: &Metrics, lines: &[&str]) {
        let text = metrics.render();
        for line in lines {
            assert!(text.lines().any(|rendered| rendered == *line), "`{line}` is not in:\n{text}");
        }
    }

    #[test]
    fn every_metric_is_rendered_under_its_documented_name() {
        let metrics = Metrics::new();
        metrics.request(Outcome::Allow, 200, Duration::from_micros(400));
        metrics.request(Outcome::Allow, 204, Duration::from_millis(3));
        metrics.request(Outcome::Challenge, 302, Duration::from_secs(11));
        metrics.request(Outcome::Error, 999, Duration::from_micros(500));
        metrics.session_cache_hit();
        metrics.session_cache_miss();
        metrics.session_cache_miss();
        metrics.audit_event("login.succeeded");
        metrics.of_site("iot.example.com").count();
        metrics.of_site("iot.example.com").count();
        metrics.handshake_failed();
        metrics.connection_refused("network");
        metrics.upstream_error("timeout");
        metrics.store_error();
        metrics.stores(&[("sessions", false), ("database", true)], true);
        metrics.threads_hung(1);
        metrics.load(1, 2, 3);
        metrics.panicked();
        let one = metrics.connection();
        drop(metrics.connection());
        expect_lines(
            &metrics,
            &[
                concat!("portcullis_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
                "portcullis_requests_total{decision=\"allow\",status_class=\"2xx\"} 2",
                "portcullis_requests_total{decision=\"challenge\",status_class=\"3xx\"} 1",
                "portcullis_requests_total{decision=\"error\",status_class=\"5xx\"} 1",
                "portcullis_request_duration_seconds_bucket{le=\"0.0005\"} 2",
                "portcullis_request_duration_seconds_bucket{le=\"0.005\"} 3",
                "portcullis_request_duration_seconds_bucket{le=\"10.0\"} 3",
                "portcullis_request_duration_seconds_bucket{le=\"+Inf\"} 4",
                "portcullis_request_duration_seconds_count 4",
                "portcullis_request_duration_seconds_sum 11.0039",
                "portcullis_session_cache_hits_total 1",
                "portcullis_session_cache_misses_total 2",
                "portcullis_log_dropped_total 0",
                "portcullis_audit_events_total{event=\"login.succeeded\"} 1",
                "portcullis_site_requests_total{site=\"iot.example.com\"} 2",
                "portcullis_connections 1",
                "portcullis_handshake_failures_total 1",
                "portcullis_connections_refused_total{reason=\"network\"} 1",
                "portcullis_upstream_errors_total{kind=\"timeout\"} 1",
                "portcullis_store_errors_total 1",
                "portcullis_store_up{store=\"sessions\"} 0",
                "portcullis_store_up{store=\"database\"} 1",
                "portcullis_outage_grace 1",
                "portcullis_threads_hung 1",
                "portcullis_load_level 1",
                "portcullis_memory_bytes 2",
                "portcullis_max_memory_bytes 3",
                "portcullis_panics_total 1",
                "# TYPE portcullis_requests counter",
                "# EOF",
            ],
        );
        drop(one);
        expect_lines(&metrics, &["portcullis_connections 0"]);
    }

    #[test]
    fn no_count_is_lost_between_threads() {
        let metrics = Metrics::new();
        thread::scope(|scope| {
            for _ in 0..STRIPES * 2 {
                scope.spawn(|| (0..1000).for_each(|_| metrics.request(Outcome::Allow, 200, Duration::ZERO)));
            }
        });
        let total = STRIPES * 2 * 1000;
        expect_lines(
            &metrics,
            &[
                &format!("portcullis_requests_total{{decision=\"allow\",status_class=\"2xx\"}} {total}"),
                &format!("portcullis_request_duration_seconds_count {total}"),
            ],
        );
    }

    #[test]
    fn lines_lost_by_the_log_are_counted() {
        let (reader, sink) = std::io::pipe().unwrap();
        drop(reader);
        let log = LogWriter::start(sink).unwrap();
        log.line("x\n".into());
        assert!(log.flush(Duration::from_secs(30)));
        expect_lines(&Metrics::with_log(log), &["portcullis_log_dropped_total 1"]);
    }
}
