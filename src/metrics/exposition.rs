//! Prometheus' text format.
//!
//! Spec: Prometheus documentation, "Exposition formats", text-based format, version 0.0.4.

use super::catalogue::{self, MetricEntry};
use super::histogram::HistogramSnapshot;
use super::registry::LabelValues;
use metrics_exporter_prometheus::formatting;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The value of one series at one scrape.
#[derive(Debug)]
pub(super) enum SeriesValue {
    Count(u64),
    Number(f64),
    Histogram(HistogramSnapshot),
}

/// The text of a scrape: every entry of the catalogue with its series, sorted by label values.
pub(super) fn render(families: &BTreeMap<&'static str, BTreeMap<LabelValues, SeriesValue>>) -> String {
    let mut text = String::with_capacity(64 * 1024);
    for entry in catalogue::ALL {
        formatting::write_help_line(&mut text, entry.name, None, None, entry.help);
        formatting::write_type_line(&mut text, entry.name, None, None, entry.kind.word());
        for (values, value) in families.get(entry.name).into_iter().flatten() {
            render_series(&mut text, entry, values, value);
        }
    }
    text
}

fn render_series(text: &mut String, entry: &MetricEntry, values: &LabelValues, value: &SeriesValue) {
    let labels = label_pairs(entry.labels, values);
    match value {
        SeriesValue::Count(count) => write_sample(text, entry.name, "", &labels, count),
        SeriesValue::Number(number) => write_sample(text, entry.name, "", &labels, &number_text(*number)),
        SeriesValue::Histogram(snapshot) => {
            let separator = if labels.is_empty() { "" } else { "," };
            let bucket = |le: &str| format!("{labels}{separator}le=\"{le}\"");
            for (bound, count) in snapshot.shown() {
                write_sample(text, entry.name, "_bucket", &bucket(&bound.to_string()), &count);
            }
            let count = snapshot.count();
            write_sample(text, entry.name, "_bucket", &bucket("+Inf"), &count);
            write_sample(text, entry.name, "_sum", &labels, &number_text(snapshot.sum().as_secs_f64()));
            write_sample(text, entry.name, "_count", &labels, &count);
        }
    }
}

fn write_sample(text: &mut String, name: &str, suffix: &str, labels: &str, value: &dyn std::fmt::Display) {
    // Writing to a String cannot fail.
    let _ = match labels {
        "" => writeln!(text, "{name}{suffix} {value}"),
        _ => writeln!(text, "{name}{suffix}{{{labels}}} {value}"),
    };
}

fn label_pairs(names: &[&str], values: &LabelValues) -> String {
    let mut pairs = String::new();
    for (name, value) in names.iter().zip(values) {
        let separator = if pairs.is_empty() { "" } else { "," };
        let _ = write!(pairs, "{separator}{name}=\"");
        push_escaped(&mut pairs, value);
        pairs.push('"');
    }
    pairs
}

/// Different values stay different: two series with the same text would cost the whole scrape.
fn push_escaped(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            _ => text.push(character),
        }
    }
}

fn number_text(number: f64) -> String {
    match number {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        _ => number.to_string(),
    }
}
