//! Metrics of incoming requests.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, core::Collector,
    proto::MetricFamily,
};

use crate::stats::BUCKETS;

/// Requests answered. Counter. Labels: `route` (the pattern, never the path), `method`, `status`.
pub(super) const REQUESTS: &str = "http_server_requests_total";
/// Seconds until the head of the answer was made. Histogram. Label: `route`.
pub(super) const DURATION: &str = "http_server_request_duration_seconds";
/// Requests refused because as many as allowed were being worked on. Counter.
pub(super) const SHED: &str = "http_server_shed_total";
/// Requests being worked on. Gauge.
pub(super) const ACTIVE: &str = "http_server_active_requests";

/// Counters of incoming requests.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    answered: IntCounterVec,
    duration: HistogramVec,
    active: IntGauge,
    shed: IntCounter,
}

impl Requests {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let duration = HistogramOpts::new(DURATION, "Seconds until the head of the answer was made.");
        Ok(Self {
            answered: IntCounterVec::new(
                Opts::new(REQUESTS, "Requests answered."),
                &["route", "method", "status"],
            )?,
            duration: HistogramVec::new(duration.buckets(BUCKETS.to_vec()), &["route"])?,
            active: IntGauge::new(ACTIVE, "Requests being worked on.")?,
            shed: IntCounter::new(SHED, "Requests refused because enough were being worked on.")?,
        })
    }

    pub(super) fn answered(&self, route: &str, method: &str, status: u16, took: Duration) {
        self.answered.with_label_values(&[route, method, &status.to_string()]).inc();
        let histogram: Histogram = self.duration.with_label_values(&[route]);
        histogram.observe(took.as_secs_f64());
    }

    pub(super) fn shed(&self) {
        self.shed.inc();
    }

    pub(super) fn families(&self, active: u32) -> Vec<MetricFamily> {
        self.active.set(i64::from(active));
        let families =
            [self.answered.collect(), self.duration.collect(), self.active.collect(), self.shed.collect()];
        families.into_iter().flatten().filter(|family| !family.get_metric().is_empty()).collect()
    }
}
