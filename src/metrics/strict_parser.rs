//! A small parser of Prometheus' text format that accepts nothing doubtful: what the tests read our output with.

use std::collections::{BTreeMap, BTreeSet};

/// Label names and values, in the order of the text.
pub(crate) type ParsedLabels = Vec<(String, String)>;

/// One metric with its samples.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ParsedFamily {
    pub(crate) kind: String,
    pub(crate) help: String,
    /// By sample name (with `_bucket`, `_sum`, `_count`) and labels in the order of the text.
    pub(crate) samples: BTreeMap<(String, ParsedLabels), f64>,
}

impl ParsedFamily {
    /// The sample with this name and these labels, in this order.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }
}

/// Parses a whole scrape, or says what is wrong with which line.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<String, ParsedFamily>, String> {
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("the last line has no line feed".to_owned());
    }
    let mut families = BTreeMap::new();
    let mut lines = text.lines().peekable();
    while let Some(help) = lines.next() {
        let (name, help) =
            help.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')).ok_or(format!("HELP expected: {help}"))?;
        let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} ")));
        let kind = kind
            .filter(|kind| ["counter", "gauge", "histogram"].contains(kind))
            .ok_or(format!("TYPE expected after HELP {name}"))?;
        if !is_name(name, true) {
            return Err(format!("not a metric name: {name}"));
        }
        let mut family = ParsedFamily { kind: kind.to_owned(), help: help.to_owned(), ..ParsedFamily::default() };
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let (sample, value) = parse_sample(line).ok_or(format!("not a sample: {line}"))?;
            let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            if !suffixes.iter().any(|suffix| sample.0 == format!("{name}{suffix}")) {
                return Err(format!("under {name}: {line}"));
            }
            if kind == "counter" && !(value >= 0.0 && value.is_finite() && name.ends_with("_total")) {
                return Err(format!("not a counter: {line}"));
            }
            if family.samples.insert(sample, value).is_some() {
                return Err(format!("stands twice: {line}"));
            }
        }
        if kind == "histogram" {
            check_histogram(name, &family)?;
        }
        if families.insert(name.to_owned(), family).is_some() {
            return Err(format!("{name} stands twice"));
        }
    }
    Ok(families)
}

type ParsedSample = ((String, ParsedLabels), f64);

fn parse_sample(line: &str) -> Option<ParsedSample> {
    let name_end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_end);
    let (labels, value) = match rest.strip_prefix('{') {
        Some(labels) => parse_labels(labels)?,
        None => (Vec::new(), rest),
    };
    let value = value.strip_prefix(' ').filter(|value| !value.contains(' '))?;
    let number = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        _ if value.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)) => value.parse().ok()?,
        _ => return None,
    };
    is_name(name, true).then_some(((name.to_owned(), labels), number))
}

/// The labels up to the closing brace, and what follows it.
fn parse_labels(mut rest: &str) -> Option<(ParsedLabels, &str)> {
    let mut labels: ParsedLabels = Vec::new();
    loop {
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next()? {
                (position, '"') => break position,
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    escaped @ ('\\' | '"') => escaped,
                    _ => return None,
                }),
                (_, character) => value.push(character),
            }
        };
        if !is_name(name, false) || labels.iter().any(|(other, _)| other == name) {
            return None;
        }
        labels.push((name.to_owned(), value));
        rest = &after[end + 1..];
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        rest = rest.strip_prefix(',')?;
    }
}

fn is_name(name: &str, colons: bool) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || (colons && byte == b':');
    name.bytes().all(fits) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

/// Buckets rise in bound and count, end in +Inf, and agree with `_count`; `_sum` is there.
fn check_histogram(name: &str, family: &ParsedFamily) -> Result<(), String> {
    let mut series: BTreeMap<ParsedLabels, Vec<(f64, f64)>> = BTreeMap::new();
    let mut others: BTreeMap<&str, BTreeSet<ParsedLabels>> = BTreeMap::new();
    for ((sample, labels), value) in &family.samples {
        let Some(suffix) = sample.strip_prefix(name) else { continue };
        if suffix != "_bucket" {
            others.entry(suffix).or_default().insert(labels.clone());
            continue;
        }
        let (rest, le): (Vec<_>, Vec<_>) = labels.iter().cloned().partition(|(label, _)| label != "le");
        let bound = le.first().map(|(_, bound)| if bound == "+Inf" { "inf" } else { bound }).and_then(|bound| bound.parse().ok());
        series.entry(rest).or_default().push((bound.ok_or(format!("{name}: a bucket without a bound"))?, *value));
    }
    for (labels, mut buckets) in series {
        buckets.sort_by(|left, right| left.0.total_cmp(&right.0));
        let rising = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        let count = family.samples.get(&(format!("{name}_count"), labels.clone()));
        if !rising || buckets.last().map(|last| last.0) != Some(f64::INFINITY) || buckets.last().map(|last| &last.1) != count {
            return Err(format!("{name}{labels:?}: {buckets:?}, count {count:?}"));
        }
        for suffix in ["_sum", "_count"] {
            if !others.get_mut(suffix).is_some_and(|labels_seen| labels_seen.remove(&labels)) {
                return Err(format!("{name}{labels:?} has no {suffix}"));
            }
        }
    }
    match others.values().all(BTreeSet::is_empty) {
        true => Ok(()),
        false => Err(format!("{name}: a sum or count without buckets")),
    }
}

#[test]
fn accepts_only_the_format() {
    let head = "# HELP a_total x.\n# TYPE a_total counter\n";
    let histogram = "# HELP h x.\n# TYPE h histogram\n";
    for (body, accepted) in [
        ("a_total 1\n", true),
        ("a_total{b=\"c\\\\\\\"\\n,}\"} 1\n", true),
        ("a_total 1", false),
        ("a_total -1\n", false),
        ("a_total  1\n", false),
        ("a_total inf\n", false),
        ("a_total{} 1\n", false),
        ("a_total{b=\"c\"}1\n", false),
        ("a_total{b=\"\\x\"} 1\n", false),
        ("a_total{b=\"c\",b=\"d\"} 1\n", false),
        ("a_total{1b=\"c\"} 1\n", false),
        ("a_total{b=\"c} 1\n", false),
        ("b_total 1\n", false),
        ("a_total 1\na_total 2\n", false),
        ("\n", false),
        ("# HELP a_total x.\n# TYPE a_total counter\n", false),
    ] {
        assert_eq!(parse(&format!("{head}{body}")).is_ok(), accepted, "{body}");
    }
    for (body, accepted) in [
        ("h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n", true),
        ("h_bucket{le=\"1\"} 3\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n", false),
        ("h_bucket{le=\"1\"} 1\nh_sum 3\nh_count 1\n", false),
        ("h_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 1\n", false),
        ("h_bucket{le=\"+Inf\"} 2\nh_count 2\n", false),
        ("h_sum 3\nh_count 2\n", false),
        ("h 3\n", false),
    ] {
        assert_eq!(parse(&format!("{histogram}{body}")).is_ok(), accepted, "{body}");
    }
}
