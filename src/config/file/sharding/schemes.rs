//! How the rows of sharded tables are spread.

use super::tables::shard_number;
use super::tables_of;
use crate::config::codec::{Codec, Complaint, Count, Flag, RawValue};
use crate::config::file::reader::{Reader, Section, Span};
use crate::config::file::unknown::check_unknown;
use crate::config::keys::{self, plain_names};
use crate::config::problem::ProblemKind;
use crate::shard::ring::{RING_POINTS_MAX, VIRTUAL_NODES_DEFAULT};
use crate::shard::{
    KeyColumn, KeyRange, KeySession, KeyTexts, KeyType, KeyUse, KeyValue, ListScheme, RangeProblem, RangeScheme, Ring, Scheme,
};
use toml::Spanned;
use toml::de::DeValue;

/// The schemes, each with the keys that only it has.
const SCHEMES: [(&str, &[&str]); 4] =
    [("hash", &[]), ("range", &["ranges"]), ("list", &["lists"]), ("ring", &["weights", "virtual_nodes"])];
/// How bounds are read: they mean the same for every session.
const SESSION: KeySession = KeySession { utc: false, texts: KeyTexts::AsSent };

/// The key columns as far as the settings say.
pub(super) struct Columns {
    pub(super) count: usize,
    pub(super) types: Option<Vec<KeyType>>,
}

/// Reads the scheme of an entry; `None` where something is wrong with it.
pub(super) fn read(reader: &mut Reader, entry: Section, shards: &[String], columns: &Columns) -> Option<Scheme> {
    let (scheme, span) = match entry.get("scheme") {
        None => ("hash".to_owned(), 0..0),
        Some(_) => reader.text_of(entry, "scheme")?,
    };
    let Some((_, own)) = SCHEMES.iter().find(|(name, _)| *name == scheme) else {
        let complaint =
            Complaint::new(format!("the scheme `{scheme}` is not known"), "write \"hash\", \"range\", \"list\" or \"ring\"");
        reader.error(ProblemKind::BadValue, span, complaint);
        return None;
    };
    for (other, keys) in SCHEMES.iter().filter(|(name, _)| *name != scheme) {
        for (key, span) in keys.iter().filter_map(|key| Some((key, entry.key_span(key)?))) {
            let message = format!("{key} has no effect: the scheme is \"{scheme}\"");
            reader.error(
                ProblemKind::Contradiction,
                span,
                Complaint::new(message, format!("write scheme = \"{other}\", or take it out")),
            );
        }
    }
    match scheme.as_str() {
        "ring" => read_ring(reader, entry, shards),
        "range" | "list" => {
            let list = entry.get(own[0]);
            let place = entry.entries().first().map_or(0..0, |(_, span, _)| span.clone());
            if list.is_none() {
                let complaint = Complaint::new(format!("these tables have no `{}`", own[0]), "say which shard has which keys");
                reader.error(ProblemKind::MissingKey, place.clone(), complaint);
            }
            if columns.types.is_none() && entry.get("key_type").is_none() {
                let help = "write such as key_type = \"int8\": keys are compared as values of this type";
                reader.error(ProblemKind::MissingKey, place, Complaint::new("these tables have no `key_type`", help));
            }
            let (list, types) = (list?, columns.types.as_deref().filter(|types| types.len() == columns.count)?);
            if scheme == "range" { read_ranges(reader, list, shards, types) } else { read_lists(reader, list, shards, types) }
        }
        _ => Some(Scheme::Hash { shards: shards.len() }),
    }
}

fn read_ring(reader: &mut Reader, entry: Section, shards: &[String]) -> Option<Scheme> {
    let mut weights: Vec<(&str, usize)> = shards.iter().map(|name| (name.as_str(), 1)).collect();
    if let Some(section) = crate::config::file::section(reader, entry, "weights", "weights") {
        for (name, span, value) in section.entries() {
            let shard = shard_number(reader, shards, name, span);
            let weight = reader
                .raw(value)
                .and_then(|raw| reader.accept(ProblemKind::BadValue, &value.span(), Count::<0, 1000>::read(&raw)));
            if let (Some(shard), Some(weight)) = (shard, weight) {
                weights[shard].1 = weight;
            }
        }
    }
    let mut virtual_nodes = VIRTUAL_NODES_DEFAULT;
    if let Some(value) = entry.get("virtual_nodes") {
        let raw = reader.raw(value)?;
        virtual_nodes = reader.accept(ProblemKind::BadValue, &value.span(), Count::<1, 10_000>::read(&raw))?;
    }
    let span = entry.get("weights").map_or_else(|| entry.get("virtual_nodes").map_or(0..0, Spanned::span), Spanned::span);
    let points = weights.iter().map(|(_, weight)| weight).sum::<usize>().saturating_mul(virtual_nodes);
    if points == 0 {
        reader.error(ProblemKind::Contradiction, span, Complaint::new("every shard has weight 0", "give one a weight of 1"));
        return None;
    }
    if points > RING_POINTS_MAX {
        let message = format!("the ring would have {points} points; at most {RING_POINTS_MAX} are possible");
        reader.error(ProblemKind::BadValue, span, Complaint::new(message, "lower virtual_nodes or the weights"));
        return None;
    }
    Some(Scheme::Ring(Ring::new(&weights, virtual_nodes)))
}

/// The default shard of a scheme, which one entry may name.
#[derive(Default)]
struct DefaultShard(Option<usize>);

impl DefaultShard {
    /// Reads `default = true` of an entry; whether the entry says so.
    fn read(&mut self, reader: &mut Reader, entry: Section, shard: Option<usize>) -> bool {
        let Some(value) = entry.get("default") else { return false };
        let raw = reader.raw(value);
        let said = raw.and_then(|raw| reader.accept(ProblemKind::BadValue, &value.span(), Flag::read(&raw)));
        if said != Some(true) {
            return false;
        }
        if self.0.is_some() {
            let complaint = Complaint::new("there are two defaults", "one shard has all keys that no other takes");
            reader.error(ProblemKind::Contradiction, value.span(), complaint);
        }
        self.0 = shard;
        true
    }
}

/// The shard that an entry names.
fn shard_of(reader: &mut Reader, entry: Section, shards: &[String], span: &Span) -> Option<usize> {
    match reader.text_of(entry, "shard") {
        Some((name, span)) => shard_number(reader, shards, &name, span),
        None => {
            if entry.get("shard").is_none() {
                let complaint = Complaint::new("this entry has no `shard`", "write such as { shard = \"s0\", ... }");
                reader.error(ProblemKind::MissingKey, span.clone(), complaint);
            }
            None
        }
    }
}

fn read_ranges(reader: &mut Reader, list: &Spanned<DeValue>, shards: &[String], types: &[KeyType]) -> Option<Scheme> {
    let help = "write such as ranges = [{ shard = \"s0\", to = 1000 }, { shard = \"s1\", from = 1000 }]";
    let (mut ranges, mut places, mut default) = (Vec::new(), Vec::new(), DefaultShard::default());
    let mut whole = true;
    for (table, span) in tables_of(reader, list, "ranges", help) {
        let entry = Section { table, title: "a range" };
        check_unknown(reader, entry, &plain_names(keys::RANGE).collect::<Vec<_>>());
        let shard = shard_of(reader, entry, shards, &span);
        let bounds = ["from", "to"].map(|key| entry.get(key).map(|value| read_key(reader, value, types)));
        if default.read(reader, entry, shard) && bounds.iter().all(Option::is_none) {
            continue;
        }
        let [from, to] = bounds;
        match (shard, from.map_or(Some(None), |key| key.map(Some)), to.map_or(Some(None), |key| key.map(Some))) {
            (Some(shard), Some(from), Some(to)) => {
                ranges.push(KeyRange { from, to, shard });
                places.push(span);
            }
            _ => whole = false,
        }
    }
    let (scheme, problems) = RangeScheme::new(ranges.clone(), default.0);
    // With a range missing, gaps are no news.
    for problem in problems.iter().filter(|problem| whole || !problem.is_gap()) {
        tell_range_problem(reader, *problem, &places, &ranges, shards);
    }
    (whole && problems.iter().all(|problem| problem.is_gap())).then_some(Scheme::Range(scheme))
}

fn tell_range_problem(reader: &mut Reader, problem: RangeProblem, places: &[Span], ranges: &[KeyRange], shards: &[String]) {
    let name = |place: usize| shards[ranges[place].shard].as_str();
    let refused = "keys there are refused: add a range, or an entry with default = true";
    let error = |reader: &mut Reader, place: usize, message: String, help: &str| {
        reader.error(ProblemKind::Contradiction, places[place].clone(), Complaint::new(message, help));
    };
    match problem {
        RangeProblem::Empty(place) => {
            error(reader, place, "this range is empty".to_owned(), "`from` is the first key in it, `to` the first behind it");
        }
        RangeProblem::Overlap(one, two) => {
            let message = format!("this range overlaps that of `{}`", name(one));
            error(reader, two, message, "a key belongs to one shard: `to` is the first key behind a range");
        }
        RangeProblem::Gap(one, two) => {
            reader.warn(
                places[two].clone(),
                format!("there is a gap between the range of `{}` and this one", name(one)),
                refused,
            );
        }
        RangeProblem::OpenBelow(place) => reader.warn(places[place].clone(), "no range takes the keys below this one", refused),
        RangeProblem::OpenAbove(place) => reader.warn(places[place].clone(), "no range takes the keys above this one", refused),
    }
}

fn read_lists(reader: &mut Reader, list: &Spanned<DeValue>, shards: &[String], types: &[KeyType]) -> Option<Scheme> {
    let help = "write such as lists = [{ shard = \"s0\", values = [\"eu\"] }, { shard = \"s1\", default = true }]";
    let (mut keys_of_shards, mut default) = (Vec::new(), DefaultShard::default());
    let mut whole = true;
    for (table, span) in tables_of(reader, list, "lists", help) {
        let entry = Section { table, title: "a list" };
        check_unknown(reader, entry, &plain_names(keys::LIST).collect::<Vec<_>>());
        let shard = shard_of(reader, entry, shards, &span);
        let is_default = default.read(reader, entry, shard);
        whole &= shard.is_some();
        match entry.get("values").map(|value| (value, value.get_ref())) {
            Some((_, DeValue::Array(values))) => {
                for value in values {
                    match read_key(reader, value, types) {
                        Some(key) => keys_of_shards.push((key, shard, value.span())),
                        None => whole = false,
                    }
                }
            }
            Some((value, _)) => {
                reader.error(
                    ProblemKind::BadValue,
                    value.span(),
                    Complaint::new("values has to be a list", "put brackets around it"),
                );
            }
            None if is_default => {}
            None => reader.error(ProblemKind::MissingKey, span, Complaint::new("this list has no `values`", help)),
        }
    }
    let mut scheme = ListScheme::new(default.0);
    for (key, shard, span) in keys_of_shards {
        // A shard that is not known was told already.
        let other = shard.and_then(|shard| scheme.insert(key, shard));
        if let Some(other) = other {
            let complaint = Complaint::new(format!("`{}` has this key already", shards[other]), "a key belongs to one shard");
            reader.error(ProblemKind::Contradiction, span, complaint);
        }
    }
    whole.then_some(Scheme::List(scheme))
}

/// A key: one value, or a list of one for each column.
fn read_key(reader: &mut Reader, value: &Spanned<DeValue>, types: &[KeyType]) -> Option<Vec<KeyValue>> {
    let values = match reader.raw(value)? {
        RawValue::List(values) => values,
        value => vec![value],
    };
    if values.len() != types.len() {
        let message = format!("this key has {} values, but there are {} key columns", values.len(), types.len());
        reader.error(
            ProblemKind::BadValue,
            value.span(),
            Complaint::new(message, "write [first, second, ...] with one for each column"),
        );
        return None;
    }
    let read = |(raw, kind): (&RawValue, &KeyType)| {
        let text = match raw {
            RawValue::Text(text) | RawValue::Float(text) => Some(text.clone()),
            RawValue::Integer(number) => Some(number.to_string()),
            _ => None,
        };
        let read = text.and_then(|text| KeyColumn::from(*kind).constant(Some(&text), None, KeyUse::Stored, SESSION));
        read.filter(|key| key.in_range_of(*kind)).ok_or_else(|| {
            let help = match kind {
                KeyType::Date => "write it in quotes, as \"2026-01-31\"",
                KeyType::Timestamp => "write it in quotes, as \"2026-01-31 12:00:00\"",
                KeyType::Timestamptz => "write it in quotes and with its offset, as \"2026-01-31 12:00:00+01\"",
                _ => "write it as PostgreSQL prints it, in quotes unless it is a number",
            };
            Complaint::new(format!("{} can't be read as {}", raw.describe(), kind.name()), help)
        })
    };
    let read: Result<Vec<KeyValue>, Complaint> = values.iter().zip(types).map(read).collect();
    reader.accept(ProblemKind::BadValue, &value.span(), read)
}
