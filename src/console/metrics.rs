//! The page for Prometheus. `docs/metrics.md` documents every name; a test holds it against a running broker.
//!
//! No recorder is global: a process may hold several terms. Counts and levels are put into a recorder that lives for one
//! page, so that what is gone leaves no line behind; only histograms need one that lives as long as the process.

use std::{fmt, io, time::Duration};

use metrics::{Histogram, Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::time::timeout;

use super::{TermView, View};
use crate::{
    broker::{DestinationStatistics, Statistics},
    engine::{Overview, StoreOverview},
    persistence::{CommitHistograms, Footprint, footprint},
    telemetry::Traffic,
    types::{Destination, DestinationKind, Role},
};

/// How long the engine may take to say how things are; a turn takes milliseconds.
const ENGINE_PATIENCE: Duration = Duration::from_secs(5);

/// Stands for all that is not told by name; no destination can be called so.
const OTHERS: &str = "*";

/// From a journal on a fast disk to a database that is in trouble. Unit: seconds.
const COMMIT_SECONDS: [f64; 14] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// From one message to a full batch. Unit: operations.
const BATCH_OPERATIONS: [f64; 8] = [1.0, 4.0, 16.0, 64.0, 256.0, 1_024.0, 4_096.0, 16_384.0];

const METADATA: Metadata<'static> = Metadata::new("batonmq", Level::INFO, None);

/// What a line of the page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows, until the term ends.
    Counter,
    /// What is at the moment.
    Gauge,
    /// How often which size occurred, since the process began.
    Histogram,
}

/// A name on the page.
#[derive(Debug)]
pub struct Metric {
    /// As Prometheus knows it; it ends with its unit, and a counter with `_total`.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// What it says.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident $kind:ident $name:literal $help:literal;)*) => {
        $(const $constant: Metric = Metric { name: $name, kind: MetricKind::$kind, help: $help };)*
        /// Every metric.
        pub const METRICS: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    BUILD Gauge "batonmq_build_info" "Always 1; its label is the version.";
    UPTIME Gauge "batonmq_uptime_seconds" "How long the process has run.";
    TASKS Gauge "batonmq_tasks" "Tasks that have not ended.";
    ROLE Gauge "batonmq_role" "1 for what the process is, 0 for what it is not.";
    TERMS Counter "batonmq_terms_total" "How often this process has become the master.";
    TERM Gauge "batonmq_term" "The number of the term that this process serves; it grows at each take-over.";
    CONNECTIONS Gauge "batonmq_connections" "Open connections.";
    ACCEPTED Counter "batonmq_connections_accepted_total" "Connections that got a place.";
    REFUSED Counter "batonmq_connections_refused_total" "Connections that got none.";
    SESSIONS Gauge "batonmq_sessions" "Clients that are connected, by the protocol they speak.";
    HELD Gauge "batonmq_held_sessions" "Clients whose SENDs wait because something is full.";
    RECEIVED Counter "batonmq_messages_received_total" "Messages taken from clients.";
    DELIVERED Counter "batonmq_messages_delivered_total" "Messages handed to consumers, redeliveries included.";
    REDELIVERED Counter "batonmq_messages_redelivered_total" "Deliveries that were marked as redelivered.";
    ACKNOWLEDGED Counter "batonmq_messages_acknowledged_total" "Messages that a consumer was done with.";
    EXPIRED Counter "batonmq_messages_expired_total" "Messages that were found to have expired.";
    DEAD_LETTERED Counter "batonmq_messages_dead_lettered_total" "Messages that became dead letters.";
    DESTINATIONS Gauge "batonmq_destinations" "Queues and topics, temporary ones included.";
    DURABLES Gauge "batonmq_durable_subscriptions" "Durable subscriptions, in use or not.";
    TRANSACTIONS Gauge "batonmq_open_transactions" "Transactions that were begun and not ended.";
    MESSAGES Gauge "batonmq_destination_messages" "Messages that wait or are in flight.";
    BYTES Gauge "batonmq_destination_bytes" "The size of these messages.";
    IN_FLIGHT Gauge "batonmq_destination_in_flight" "Messages that consumers have and have not acknowledged.";
    CONSUMERS Gauge "batonmq_destination_consumers" "Consumers.";
    ENQUEUED Counter "batonmq_destination_enqueued_total" "Messages that were put there.";
    DEQUEUED Counter "batonmq_destination_dequeued_total" "Messages that left for good.";
    DURABLE_MESSAGES Gauge "batonmq_durable_subscription_messages" "Messages that a durable subscription holds.";
    DURABLE_BYTES Gauge "batonmq_durable_subscription_bytes" "The size of these messages.";
    DURABLE_CONSUMERS Gauge "batonmq_durable_subscription_consumers" "1 while somebody consumes from it, else 0.";
    MEMORY Gauge "batonmq_memory_bytes" "What messages and buffers take in memory.";
    MEMORY_LIMIT Gauge "batonmq_memory_limit_bytes" "What they may take (limits.memory_bytes_max).";
    COMMIT_TIME Histogram "batonmq_store_commit_seconds" "How long the store took for a batch.";
    BATCH_SIZE Histogram "batonmq_store_batch_operations" "How many operations a batch had.";
    ANSWERS Counter "batonmq_store_answers_total" "What the store answered to batches.";
    STORE_FULL Gauge "batonmq_store_full" "1 while the store has no room, else 0.";
    UNDER_WAY Gauge "batonmq_store_batches_under_way" "Batches that the store has not answered.";
    WAITING Gauge "batonmq_store_waiting_bytes" "What waits for the next batch.";
    SEGMENTS Gauge "batonmq_journal_segments" "Segment files of the journal.";
    JOURNAL Gauge "batonmq_journal_bytes" "All files of the journal.";
    SPOOL Gauge "batonmq_spool_bytes" "All files of the spool.";
}

/// Histograms, which have to remember.
pub(super) struct Histories {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl Histories {
    pub(super) fn new() -> Self {
        let builder = [(COMMIT_TIME, &COMMIT_SECONDS[..]), (BATCH_SIZE, &BATCH_OPERATIONS[..])].into_iter().fold(
            PrometheusBuilder::new(),
            |builder, (metric, buckets)| {
                let named = Matcher::Full(metric.name.to_owned());
                builder.set_buckets_for_metric(named, buckets).expect("there are buckets")
            },
        );
        let recorder = builder.build_recorder();
        describe(&recorder, |kind| kind == MetricKind::Histogram);
        let handle = recorder.handle();
        Self { recorder, handle }
    }

    pub(super) fn commits(&self) -> CommitHistograms {
        CommitHistograms { seconds: self.histogram(&COMMIT_TIME), operations: self.histogram(&BATCH_SIZE) }
    }

    fn histogram(&self, metric: &Metric) -> Histogram {
        self.recorder.register_histogram(&Key::from_static_name(metric.name), &METADATA)
    }

    /// Adds up what was recorded, and gives back its memory.
    pub(super) fn gather(&self) {
        self.handle.run_upkeep();
    }
}

impl fmt::Debug for Histories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histories").finish_non_exhaustive()
    }
}

/// Everything at one moment; `None`: the engine does not answer.
pub(super) async fn page(role: Role, view: &View, tasks: usize, histories: &Histories) -> Option<String> {
    let page = Page::new();
    page.process(role, view, tasks);
    let term = view.terms.borrow().current.clone();
    if let Some(TermView { engine, traffic }) = term {
        page.traffic(&traffic);
        // A paused engine answers nobody (R24). A term that has ended meanwhile leaves its lines out.
        if role.is_serving()
            && let Ok(overview) = timeout(ENGINE_PATIENCE, engine.overview()).await.ok()?
        {
            page.overview(&overview);
        }
        page.footprint(footprint(&view.data));
    }
    Some(page.recorder.handle().render() + &histories.handle.render())
}

/// A recorder for one page.
struct Page {
    recorder: PrometheusRecorder,
}

impl Page {
    fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        describe(&recorder, |kind| kind != MetricKind::Histogram);
        Self { recorder }
    }

    fn process(&self, role: Role, view: &View, tasks: usize) {
        self.level(&BUILD, 1, &[("version", env!("CARGO_PKG_VERSION"))]);
        self.seconds(&UPTIME, view.clock.uptime());
        self.level(&TASKS, tasks, &[]);
        for name in Role::NAMES {
            self.level(&ROLE, usize::from(name == role.name()), &[("role", name)]);
        }
        self.count(&TERMS, view.terms.borrow().begun, &[]);
        if let Some(term) = role.term() {
            self.count_as_level(&TERM, term.0.into(), &[]);
        }
    }

    fn traffic(&self, traffic: &Traffic) {
        for connector in traffic.connectors() {
            let labels = [("connector", connector.name())];
            self.count_as_level(&CONNECTIONS, connector.open(), &labels);
            self.count(&ACCEPTED, connector.accepted(), &labels);
            self.count(&REFUSED, connector.refused(), &labels);
        }
        for ((protocol, version), open) in traffic.sessions() {
            self.count_as_level(&SESSIONS, open, &[("protocol", protocol), ("version", version)]);
        }
    }

    fn overview(&self, overview: &Overview) {
        self.level(&HELD, overview.held_sessions, &[]);
        self.level(&MEMORY, overview.memory_bytes, &[]);
        self.level(&MEMORY_LIMIT, overview.memory_bytes_max, &[]);
        self.store(&overview.store);
        self.messages(&overview.core);
        self.destinations(&overview.core);
        self.durables(&overview.core);
    }

    fn store(&self, store: &StoreOverview) {
        self.level(&STORE_FULL, usize::from(store.is_full), &[]);
        self.level(&UNDER_WAY, store.batches_under_way, &[]);
        self.level(&WAITING, store.waiting_bytes, &[]);
        let answers = store.answers;
        for (answer, count) in [
            ("committed", answers.committed),
            ("full", answers.full),
            ("again", answers.again),
            ("unknown", answers.unknown),
            ("refused", answers.refused),
        ] {
            self.count(&ANSWERS, count, &[("answer", answer)]);
        }
    }

    fn messages(&self, core: &Statistics) {
        let totals = core.totals;
        self.count(&RECEIVED, totals.received, &[]);
        self.count(&DELIVERED, totals.delivered, &[]);
        self.count(&REDELIVERED, totals.redelivered, &[]);
        self.count(&ACKNOWLEDGED, totals.acknowledged, &[]);
        self.count(&EXPIRED, totals.expired, &[]);
        self.count(&DEAD_LETTERED, totals.dead_lettered, &[]);
        self.level(&DESTINATIONS, core.destinations, &[]);
        self.level(&DURABLES, core.durable_subscriptions, &[]);
        self.level(&TRANSACTIONS, core.open_transactions, &[]);
    }

    fn destinations(&self, core: &Statistics) {
        for (destination, of) in &core.named {
            self.destination(kind_of(destination), destination.name(), of);
        }
        self.destination("queue", OTHERS, &core.other_queues);
        self.destination("topic", OTHERS, &core.other_topics);
    }

    fn destination(&self, kind: &'static str, name: &str, of: &DestinationStatistics) {
        let labels = [("kind", kind), ("destination", name)];
        self.level(&MESSAGES, of.messages, &labels);
        self.level(&BYTES, of.bytes, &labels);
        self.level(&IN_FLIGHT, of.in_flight, &labels);
        self.level(&CONSUMERS, of.consumers, &labels);
        self.count(&ENQUEUED, of.passed.enqueued, &labels);
        self.count(&DEQUEUED, of.passed.dequeued, &labels);
    }

    fn durables(&self, core: &Statistics) {
        for durable in &core.named_durables {
            self.durable(durable.client_id.as_str(), durable.name.as_str(), durable.topic.name(), &durable.of);
        }
        self.durable(OTHERS, OTHERS, OTHERS, &core.other_durables);
    }

    fn durable(&self, client_id: &str, name: &str, topic: &str, of: &DestinationStatistics) {
        let labels = [("client_id", client_id), ("subscription", name), ("topic", topic)];
        self.level(&DURABLE_MESSAGES, of.messages, &labels);
        self.level(&DURABLE_BYTES, of.bytes, &labels);
        self.level(&DURABLE_CONSUMERS, of.consumers, &labels);
    }

    fn footprint(&self, footprint: io::Result<Footprint>) {
        match footprint {
            Ok(footprint) => {
                self.count_as_level(&SEGMENTS, footprint.journal_segments, &[]);
                self.count_as_level(&JOURNAL, footprint.journal_bytes, &[]);
                self.count_as_level(&SPOOL, footprint.spool_bytes, &[]);
            }
            Err(error) => tracing::debug!(%error, "the data directory can't be looked at"),
        }
    }

    fn count(&self, metric: &Metric, count: u64, labels: &[(&'static str, &str)]) {
        debug_assert_eq!(metric.kind, MetricKind::Counter, "{}", metric.name);
        self.recorder.register_counter(&key(metric, labels), &METADATA).absolute(count);
    }

    fn level(&self, metric: &Metric, level: usize, labels: &[(&'static str, &str)]) {
        self.count_as_level(metric, level as u64, labels);
    }

    /// Levels are numbers as JavaScript has them: exact up to 2^53.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
    fn count_as_level(&self, metric: &Metric, level: u64, labels: &[(&'static str, &str)]) {
        debug_assert_eq!(metric.kind, MetricKind::Gauge, "{}", metric.name);
        self.recorder.register_gauge(&key(metric, labels), &METADATA).set(level as f64);
    }

    fn seconds(&self, metric: &Metric, time: Duration) {
        self.recorder.register_gauge(&key(metric, &[]), &METADATA).set(time.as_secs_f64());
    }
}

fn key(metric: &Metric, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<Label> = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    Key::from_parts(metric.name, labels)
}

fn describe(recorder: &PrometheusRecorder, of: impl Fn(MetricKind) -> bool) {
    for metric in METRICS.iter().filter(|metric| of(metric.kind)) {
        let name = KeyName::from_const_str(metric.name);
        match metric.kind {
            MetricKind::Counter => recorder.describe_counter(name, None, metric.help.into()),
            MetricKind::Gauge => recorder.describe_gauge(name, None, metric.help.into()),
            MetricKind::Histogram => recorder.describe_histogram(name, None, metric.help.into()),
        }
    }
}

fn kind_of(destination: &Destination) -> &'static str {
    match destination.kind() {
        DestinationKind::Queue | DestinationKind::TemporaryQueue => "queue",
        DestinationKind::Topic | DestinationKind::TemporaryTopic => "topic",
    }
}
