//! What a run found.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value as Json, json};

use super::Costs;

/// Latencies from 1 microsecond to 2 minutes, to three digits.
const LATENCY_NANOS_MAX: u64 = 120_000_000_000;

/// The result of a run.
#[derive(Debug)]
pub struct Report {
    /// Replies that came while it was measured, error replies included.
    pub replies: u64,
    /// Error replies among them.
    pub errors: u64,
    /// The text of the first of them.
    pub first_error: Option<String>,
    /// How long was measured.
    pub elapsed: Duration,
    /// Nanoseconds from due (open loop) or sent (closed loop) to answered.
    pub latency: Histogram<u64>,
    /// Open loop: nanoseconds from due to noticed by the pacer.
    pub lag: Option<Histogram<u64>>,
    /// Open loop: requests that were due but still unanswered at the end.
    pub unanswered: u64,
    /// Processor time of the server.
    pub server_cpu: Option<Duration>,
    /// Processor time of the generator.
    pub generator_cpu: Option<Duration>,
}

/// What one client counts. It holds a histogram of some 200 KiB, so that many requests should share one.
#[derive(Debug)]
pub struct Tally {
    replies: u64,
    errors: u64,
    first_error: Option<String>,
    latency: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

impl Tally {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Tally { replies: 0, errors: 0, first_error: None, latency: histogram() }
    }

    /// Counts a reply, and its text if it was an error.
    pub fn count(&mut self, latency: Duration, error: Option<&[u8]>) {
        self.replies += 1;
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latency.saturating_record(nanos);
        if let Some(text) = error {
            self.errors += 1;
            self.first_error.get_or_insert_with(|| String::from_utf8_lossy(text).into_owned());
        }
    }
}

pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1000, LATENCY_NANOS_MAX, 3).expect("the bounds are constants that are allowed")
}

impl Report {
    /// Sums up what the clients counted in the time `elapsed`.
    ///
    /// # Errors
    /// If the histograms can't be added; those of [`Tally`] can.
    pub fn new(tallies: Vec<Tally>, elapsed: Duration, costs: Costs) -> Result<Self, String> {
        let mut latency = histogram();
        let (mut replies, mut errors, mut first_error) = (0, 0, None);
        for tally in tallies {
            latency.add(&tally.latency).map_err(|error| format!("cannot sum latencies: {error}"))?;
            replies += tally.replies;
            errors += tally.errors;
            first_error = first_error.or(tally.first_error);
        }
        Ok(Report {
            replies,
            errors,
            first_error,
            elapsed,
            latency,
            lag: None,
            unanswered: 0,
            server_cpu: costs.server,
            generator_cpu: costs.generator,
        })
    }

    /// Replies per second.
    pub fn rate(&self) -> f64 {
        self.replies as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Microseconds of the server's processor time per reply.
    pub fn server_micros(&self) -> Option<f64> {
        per_reply(self.server_cpu, self.replies)
    }

    /// Microseconds of the generator's processor time per reply.
    pub fn generator_micros(&self) -> Option<f64> {
        per_reply(self.generator_cpu, self.replies)
    }

    /// The latency below which this share of the requests stayed, in milliseconds.
    pub fn millis(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e6
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{:.0} requests/s ({} in {:.2} s)\nlatency ms: p50 {:.3}  p99 {:.3}  p99.9 {:.3}  max {:.3}\n",
            self.rate(),
            self.replies,
            self.elapsed.as_secs_f64(),
            self.millis(0.5),
            self.millis(0.99),
            self.millis(0.999),
            self.latency.max() as f64 / 1e6,
        );
        if let Some(lag) = &self.lag {
            let millis = |quantile| lag.value_at_quantile(quantile) as f64 / 1e6;
            text.push_str(&format!(
                "of which the generator was late: p50 {:.3}  p99 {:.3}; unanswered at the end: {}\n",
                millis(0.5),
                millis(0.99),
                self.unanswered
            ));
        }
        if let Some(micros) = self.server_micros() {
            text.push_str(&format!("server CPU: {micros:.2} us per request\n"));
        }
        if let Some(micros) = self.generator_micros() {
            text.push_str(&format!("generator CPU: {micros:.2} us per request\n"));
        }
        text.push_str(&format!("errors: {}", self.errors));
        if let Some(error) = &self.first_error {
            text.push_str(&format!(" (the first: {error})"));
        }
        text
    }

    /// The report for programs; times in milliseconds and microseconds as the names say.
    pub fn json(&self) -> Json {
        json!({
            "requests": self.replies,
            "seconds": self.elapsed.as_secs_f64(),
            "requests_per_second": self.rate(),
            "latency_ms": {
                "p50": self.millis(0.5), "p99": self.millis(0.99), "p999": self.millis(0.999),
                "max": self.latency.max() as f64 / 1e6,
            },
            "generator_lag_ms_p99": self.lag.as_ref().map(|lag| lag.value_at_quantile(0.99) as f64 / 1e6),
            "unanswered": self.unanswered,
            "errors": self.errors,
            "first_error": self.first_error,
            "server_cpu_us_per_request": self.server_micros(),
            "generator_cpu_us_per_request": self.generator_micros(),
        })
    }
}

fn per_reply(time: Option<Duration>, replies: u64) -> Option<f64> {
    (replies > 0).then(|| time.map(|time| time.as_secs_f64() * 1e6 / replies as f64)).flatten()
}
