//! Prometheus' text format, version 0.0.4: families of samples, each with its help and its type.
//! Names and helps are the program's own; label values may be anything and are escaped.

use std::fmt::{Display, Write};

/// The content type.
pub const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Default)]
pub struct Text(String);

/// The samples of one family are added to it.
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Text {
    pub fn counter(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "counter", help)
    }

    pub fn gauge(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "gauge", help)
    }

    pub fn histogram(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "histogram", help)
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        let text = &mut self.0;
        put(text, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Family { text, name }
    }

    pub fn finish(self) -> String {
        self.0
    }
}

impl Family<'_> {
    pub fn value(&mut self, value: impl Display) {
        self.with(&[], value);
    }

    pub fn with(&mut self, labels: &[(&str, &str)], value: impl Display) {
        sample(self.text, self.name, "", labels, value);
    }

    /// `bounds` and `sum` in microseconds; there is one count more than there are bounds.
    pub fn times(&mut self, bounds: &[u64], counts: &[u64], sum: u64) {
        let mut all = 0;
        let bounds = bounds.iter().map(|bound| seconds(*bound).to_string());
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(counts) {
            all += count;
            sample(self.text, self.name, "_bucket", &[("le", &bound)], all);
        }
        sample(self.text, self.name, "_sum", &[], seconds(sum));
        sample(self.text, self.name, "_count", &[], all);
    }
}

fn seconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1e6
}

fn sample(
    text: &mut String,
    name: &str,
    ending: &str,
    labels: &[(&str, &str)],
    value: impl Display,
) {
    put(text, format_args!("{name}{ending}"));
    for (n, (label, value)) in labels.iter().enumerate() {
        let before = if n == 0 { '{' } else { ',' };
        put(text, format_args!("{before}{label}=\"{}\"", escaped(value)));
    }
    let end = if labels.is_empty() { "" } else { "}" };
    put(text, format_args!("{end} {value}\n"));
}

fn put(text: &mut String, arguments: std::fmt::Arguments) {
    text.write_fmt(arguments).expect("invariant: a String takes every text");
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_stand_below_their_help_and_type_with_labels_escaped() {
        let mut text = Text::default();
        let mut family = text.counter("a_total", "What it is.");
        family.value(7);
        family.with(&[("why", "a\\b \"c\"\n"), ("n", "1")], 0.5);
        let expected = "# HELP a_total What it is.\n# TYPE a_total counter\na_total 7\n\
            a_total{why=\"a\\\\b \\\"c\\\"\\n\",n=\"1\"} 0.5\n";
        assert_eq!(text.finish(), expected);
    }

    #[test]
    fn a_histogram_ends_with_the_bucket_that_holds_all_of_them() {
        let mut text = Text::default();
        text.histogram("t_seconds", "Times.").times(
            &[250, 5_000, 1_000_000],
            &[1, 0, 2, 1],
            12_500_000,
        );
        let expected = "# HELP t_seconds Times.\n# TYPE t_seconds histogram\n\
            t_seconds_bucket{le=\"0.00025\"} 1\nt_seconds_bucket{le=\"0.005\"} 1\n\
            t_seconds_bucket{le=\"1\"} 3\nt_seconds_bucket{le=\"+Inf\"} 4\n\
            t_seconds_sum 12.5\nt_seconds_count 4\n";
        assert_eq!(text.finish(), expected);
    }
}
