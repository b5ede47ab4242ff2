//! What a run came to: for people, and as JSON.

use hdrhistogram::Histogram;
use serde_json::json;
use std::fmt;
use std::time::Duration;

pub struct Report {
    pub seconds: f64,
    pub errors: u64,
    /// Nanoseconds of requests that were answered well.
    pub latencies: Histogram<u64>,
    first_error: Option<String>,
}

impl Default for Report {
    fn default() -> Report {
        let latencies = Histogram::new_with_max(LONGEST.as_nanos() as u64, 3)
            .expect("invariant: three digits and an hour are allowed");
        Report { seconds: 0.0, errors: 0, latencies, first_error: None }
    }
}

/// A longer latency counts as this one.
const LONGEST: Duration = Duration::from_secs(3_600);

const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

impl Report {
    pub fn note(&mut self, latency: Duration, error: Option<&[u8]>) {
        match error {
            None => self.latencies.saturating_record(latency.as_nanos() as u64),
            Some(error) => {
                self.errors += 1;
                self.first_error.get_or_insert_with(|| String::from_utf8_lossy(error).into_owned());
            }
        }
    }

    /// Adds what another thread measured.
    pub fn add(&mut self, other: Report) -> Result<(), String> {
        self.latencies.add(other.latencies).map_err(|error| error.to_string())?;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        Ok(())
    }

    fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds
    }

    fn microseconds(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1_000.0
    }

    pub fn json(&self) -> serde_json::Value {
        let quantiles = QUANTILES.map(|(name, quantile)| (name, self.microseconds(quantile)));
        json!({
            "requests": self.latencies.len(),
            "errors": self.errors,
            "first_error": self.first_error,
            "seconds": self.seconds,
            "per_second": self.rate(),
            "latency_us": quantiles.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let count = self.latencies.len();
        writeln!(f, "{count} requests in {:.2} s, {:.0} a second", self.seconds, self.rate())?;
        for (name, quantile) in QUANTILES {
            write!(f, "{name} {:.1} us  ", self.microseconds(quantile))?;
        }
        match &self.first_error {
            Some(error) => write!(f, "\n{} errors, the first: {error}", self.errors),
            None => Ok(()),
        }
    }
}
