//! Names of all metrics of this crate, and their text for Prometheus.
//!
//! Everything is made from [`Snapshot`]s at scrape time: there is no second set of counters to disagree with.

use prometheus::{
    Encoder, TextEncoder,
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};

use crate::{
    health::HealthState,
    registry::Registry,
    stats::{BUCKETS, HistogramSnapshot, Sample, SampleKind, Snapshot},
    tasks,
};

/// Connections. Gauge. Labels: `pool`, `state` (`in_use`, `idle`, `opening`).
pub const CONNECTIONS: &str = "pools_connections";
/// Most connections allowed. Gauge. Label: `pool`.
pub const LIMIT: &str = "pools_connections_limit";
/// Callers waiting for a lease. Gauge. Label: `pool`.
pub const WAITING: &str = "pools_waiting";
/// 1 when the pool's server answered last time. Gauge. Label: `pool`.
pub const UP: &str = "pools_up";
/// Connections opened. Counter. Label: `pool`.
pub const OPENED: &str = "pools_opened_total";
/// Opens that failed. Counter. Label: `pool`.
pub const OPEN_FAILURES: &str = "pools_open_failures_total";
/// Connections closed. Counter. Labels: `pool`, `reason`.
pub const CLOSED: &str = "pools_closed_total";
/// Acquires. Counter. Labels: `pool`, `outcome`.
pub const ACQUIRES: &str = "pools_acquires_total";
/// Seconds a caller waited for a lease. Histogram. Label: `pool`.
pub const WAIT_SECONDS: &str = "pools_wait_seconds";
/// Seconds an open took. Histogram. Label: `pool`.
pub const OPEN_SECONDS: &str = "pools_open_seconds";
/// Seconds a lease was out. Histogram. Label: `pool`.
pub const USE_SECONDS: &str = "pools_use_seconds";
/// Background tasks that panicked. Counter.
pub const TASK_PANICS: &str = "pools_task_panics_total";
/// QueuePool's overflow counter: live connections minus size, negative below it. Gauge.
pub const POSTGRES_OVERFLOW: &str = "pools_postgres_overflow";
/// Connections that were cleaned after an unfinished use. Counter.
pub const POSTGRES_CLEANED: &str = "pools_postgres_cleaned_total";
/// Connections that were cut off, so that their server process may have outlived them. Counter.
pub const POSTGRES_CUT_OFF: &str = "pools_postgres_cut_off_total";
/// Connections that their holders took out of the pool, outside its bound. Gauge.
pub const POSTGRES_DETACHED: &str = "pools_postgres_detached";

/// The Prometheus text of all pools and other sources of `registry`, followed by `own`, families that the
/// caller keeps with the prometheus crate.
///
/// # Errors
/// A family is malformed, such as two of one name.
pub fn render(registry: &Registry, own: &[MetricFamily]) -> Result<String, prometheus::Error> {
    let snapshots = registry.snapshots();
    let mut families = pool_families(&snapshots);
    let samples = snapshots.iter().flat_map(|snapshot| snapshot.samples.clone());
    sample_families(&mut families, samples.chain(registry.samples()));
    families.extend_from_slice(own);
    // A service without pools, such as ml-api without a database, has families without a value, which the encoder refuses.
    families.retain(|family| !family.get_metric().is_empty());
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text)?;
    String::from_utf8(text).map_err(|cause| prometheus::Error::Msg(cause.to_string()))
}

/// Values of one family: label name (empty for none), label value, number.
type Values<N> = Vec<(&'static str, &'static str, N)>;

fn pool_families(snapshots: &[Snapshot]) -> Vec<MetricFamily> {
    let gauges = |name, help, values: &dyn Fn(&Snapshot) -> Values<f64>| {
        family(name, help, MetricType::GAUGE, snapshots, &|snapshot| {
            values(snapshot)
                .into_iter()
                .map(|(key, label, value)| gauge(snapshot, key, label, value))
                .collect()
        })
    };
    let counters = |name, help, values: &dyn Fn(&Snapshot) -> Values<u64>| {
        family(name, help, MetricType::COUNTER, snapshots, &|snapshot| {
            values(snapshot)
                .into_iter()
                .map(|(key, label, value)| counter(snapshot, key, label, value))
                .collect()
        })
    };
    let histograms = |name, help, values: &dyn Fn(&Snapshot) -> HistogramSnapshot| {
        family(name, help, MetricType::HISTOGRAM, snapshots, &|snapshot| {
            vec![histogram(snapshot, &values(snapshot))]
        })
    };
    vec![
        gauges(CONNECTIONS, "Connections by state.", &|s| {
            let states = [("in_use", s.in_use()), ("idle", s.idle()), ("opening", s.opening())];
            states.into_iter().map(|(state, count)| ("state", state, f64::from(count))).collect()
        }),
        gauges(LIMIT, "Most connections allowed.", &|s| vec![("", "", f64::from(s.limit))]),
        gauges(WAITING, "Callers waiting for a lease.", &|s| vec![("", "", f64::from(s.waiting()))]),
        gauges(UP, "Whether the pool's server answered last time.", &|s| {
            vec![("", "", f64::from(u8::from(s.health.state == HealthState::Up)))]
        }),
        counters(OPENED, "Connections opened.", &|s| vec![("", "", s.totals.opened)]),
        counters(OPEN_FAILURES, "Opens that failed.", &|s| vec![("", "", s.totals.open_failures)]),
        counters(CLOSED, "Connections closed by reason.", &|s| {
            s.totals.closed.iter().map(|(reason, count)| ("reason", *reason, *count)).collect()
        }),
        counters(ACQUIRES, "Acquires by outcome.", &|s| {
            s.totals.acquires.iter().map(|(outcome, count)| ("outcome", *outcome, *count)).collect()
        }),
        histograms(WAIT_SECONDS, "Seconds waited for a lease.", &|s| s.totals.wait.clone()),
        histograms(OPEN_SECONDS, "Seconds an open took.", &|s| s.totals.open.clone()),
        histograms(USE_SECONDS, "Seconds a lease was out.", &|s| s.totals.usage.clone()),
    ]
}

fn sample_families(families: &mut Vec<MetricFamily>, samples: impl Iterator<Item = Sample>) {
    #[expect(clippy::cast_precision_loss, reason = "a process does not live for 2^53 panics")]
    let panics = Sample {
        name: TASK_PANICS,
        help: "Background tasks that panicked.",
        kind: SampleKind::Counter,
        labels: Vec::new(),
        value: tasks::panics() as f64,
    };
    for sample in samples.chain([panics]) {
        let mut metric =
            Metric::from_label(sample.labels.iter().map(|(name, value)| label(name, value)).collect());
        let kind = match sample.kind {
            SampleKind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(sample.value);
                metric.set_counter(counter);
                MetricType::COUNTER
            }
            SampleKind::Gauge => {
                let mut gauge = Gauge::default();
                gauge.set_value(sample.value);
                metric.set_gauge(gauge);
                MetricType::GAUGE
            }
        };
        match families.iter_mut().find(|family| family.name() == sample.name) {
            Some(family) => family.mut_metric().push(metric),
            None => families.push(new_family(sample.name, sample.help, kind, vec![metric])),
        }
    }
}

fn family(
    name: &str,
    help: &str,
    kind: MetricType,
    snapshots: &[Snapshot],
    metrics: &dyn Fn(&Snapshot) -> Vec<Metric>,
) -> MetricFamily {
    new_family(name, help, kind, snapshots.iter().flat_map(metrics).collect())
}

fn new_family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

fn labelled(snapshot: &Snapshot, key: &str, value: &str) -> Metric {
    let mut labels = vec![label("pool", &snapshot.pool.to_string())];
    if !key.is_empty() {
        labels.push(label(key, value));
    }
    Metric::from_label(labels)
}

fn gauge(snapshot: &Snapshot, key: &str, value: &str, number: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(number);
    let mut metric = labelled(snapshot, key, value);
    metric.set_gauge(gauge);
    metric
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has no integers")]
fn counter(snapshot: &Snapshot, key: &str, value: &str, number: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(number as f64);
    let mut metric = labelled(snapshot, key, value);
    metric.set_counter(counter);
    metric
}

fn histogram(snapshot: &Snapshot, counts: &HistogramSnapshot) -> Metric {
    let buckets = BUCKETS.iter().zip(&counts.cumulative).map(|(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(*count);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(counts.cumulative.last().copied().unwrap_or_default());
    histogram.set_sample_sum(counts.sum);
    let mut metric = labelled(snapshot, "", "");
    metric.set_histogram(histogram);
    metric
}
