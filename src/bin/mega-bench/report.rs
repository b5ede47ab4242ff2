//! What a run came to: for people, and as JSON.

use hdrhistogram::Histogram;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A longer latency counts as this one.
const LONGEST: Duration = Duration::from_secs(3_600);

/// So many errors are told apart, the rest are counted together.
const KINDS: usize = 16;

const REST: &str = "others";

const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

pub struct Report {
    pub seconds: f64,
    /// How many requests got each error.
    errors: BTreeMap<String, u64>,
    /// Why the run ended before its time.
    pub broke: Option<String>,
    /// Nanoseconds of requests that were answered well.
    latencies: Histogram<u64>,
    answered: u64,
    /// The latency last noted, and how often: those of one turn are often the same.
    last: (Duration, u64),
}

impl Default for Report {
    fn default() -> Report {
        let latencies = Histogram::new_with_max(LONGEST.as_nanos() as u64, 3)
            .expect("invariant: three digits and an hour are allowed");
        Report {
            seconds: 0.0,
            errors: BTreeMap::new(),
            broke: None,
            latencies,
            answered: 0,
            last: (Duration::ZERO, 0),
        }
    }
}

impl Report {
    pub fn note(&mut self, latency: Duration, error: Option<&[u8]>) {
        self.answered += 1;
        match error {
            None if latency == self.last.0 => self.last.1 += 1,
            None => {
                self.settle();
                self.last = (latency, 1);
            }
            Some(error) => self.count(String::from_utf8_lossy(error).into_owned(), 1),
        }
    }

    /// Answers so far, good ones and errors.
    pub fn answered(&self) -> u64 {
        self.answered
    }

    pub fn failed(&self) -> bool {
        !self.errors.is_empty() || self.broke.is_some()
    }

    fn settle(&mut self) {
        let (latency, count) = std::mem::take(&mut self.last);
        self.latencies.saturating_record_n(latency.as_nanos() as u64, count);
    }

    fn count(&mut self, error: String, count: u64) {
        let known = self.errors.len() < KINDS || self.errors.contains_key(&error);
        *self.errors.entry(if known { error } else { REST.into() }).or_default() += count;
    }

    /// Adds what another thread measured.
    pub fn add(&mut self, mut other: Report) -> Result<(), String> {
        other.settle();
        self.latencies.add(other.latencies).map_err(|error| error.to_string())?;
        self.answered += other.answered;
        for (error, count) in other.errors {
            self.count(error, count);
        }
        self.broke = self.broke.take().or(other.broke);
        Ok(())
    }

    fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds
    }

    fn microseconds(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1_000.0
    }

    /// The run has ended: for people, or as JSON.
    pub fn text(mut self, json: bool) -> String {
        self.settle();
        if json { self.json().to_string() } else { self.to_string() }
    }

    fn json(&self) -> serde_json::Value {
        let quantiles = QUANTILES.map(|(name, quantile)| (name, self.microseconds(quantile)));
        json!({
            "requests": self.latencies.len(),
            "errors": self.errors.values().sum::<u64>(),
            "errors_by_answer": self.errors,
            "broke": self.broke,
            "seconds": self.seconds,
            "per_second": self.rate(),
            "latency_us": quantiles.into_iter().collect::<BTreeMap<_, _>>(),
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
        for (error, count) in &self.errors {
            write!(f, "\n{count} errors: {error}")?;
        }
        match &self.broke {
            Some(why) => write!(f, "\nended before its time: {why}"),
            None => Ok(()),
        }
    }
}
