//! How each type of setting is read from a value of the file, printed, and described in the documentation.

use super::choice::NamedChoice;
use super::duration::{DurationParseError, format_duration, parse_duration};
use super::file::suggest::closest;
use super::size::{format_size, parse_size};
use std::marker::PhantomData;
use std::time::Duration;

/// A value of the file with its environment variables filled in.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum RawValue {
    Text(String),
    Integer(i64),
    Float(String),
    Boolean(bool),
    List(Vec<RawValue>),
    /// Something no setting takes, named for people.
    Other(&'static str),
}

/// What is wrong with a value and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    pub(super) message: String,
    pub(super) help: String,
}

/// Reads, prints and describes one type of setting.
pub(super) trait Codec {
    /// What the setting holds.
    type Value;
    /// The type in the words of the documentation.
    fn kind() -> String;
    /// Reads a value of the file.
    fn read(raw: &RawValue) -> Result<Self::Value, Complaint>;
    /// Prints it as it could be written in the file, without quotes.
    fn show(value: &Self::Value) -> String;
}

impl Complaint {
    /// A complaint.
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Complaint { message: message.into(), help: help.into() }
    }
}

impl RawValue {
    /// The value as people would name it in a sentence.
    pub(super) fn describe(&self) -> String {
        match self {
            RawValue::Text(text) => format!("`{text}`"),
            RawValue::Integer(number) => format!("`{number}`"),
            RawValue::Float(number) => format!("`{number}`"),
            RawValue::Boolean(value) => format!("`{value}`"),
            RawValue::List(_) => "a list".to_owned(),
            RawValue::Other(name) => (*name).to_owned(),
        }
    }

    /// Whether it says that something is not wanted.
    pub(super) fn is_off(&self) -> bool {
        match self {
            RawValue::Boolean(value) => !value,
            RawValue::Text(text) => {
                ["off", "never", "none", "no", "false", "disabled"].contains(&text.trim().to_ascii_lowercase().as_str())
            }
            _ => false,
        }
    }
}

/// No timer may be longer: run-times count milliseconds, and a year is for ever.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// A duration of at least `MINIMUM_MS` milliseconds.
pub(super) struct Span<const MINIMUM_MS: u64>;

impl<const MINIMUM_MS: u64> Codec for Span<MINIMUM_MS> {
    type Value = Duration;

    fn kind() -> String {
        "duration".to_owned()
    }

    fn read(raw: &RawValue) -> Result<Duration, Complaint> {
        let example = "write a number with a unit, such as \"250ms\", \"1.5s\", \"2min\" or \"1h\"";
        let duration = match raw {
            RawValue::Text(text) => parse_duration(text).map_err(|error| {
                let help = match (error, text.trim()) {
                    (DurationParseError::MissingUnit, number) => unit_help(number),
                    _ => example.to_owned(),
                };
                Complaint::new(format!("`{text}` {error}"), help)
            })?,
            RawValue::Integer(0) => Duration::ZERO,
            RawValue::Integer(number) if *number > 0 => {
                return Err(Complaint::new(format!("`{number}` has no unit"), unit_help(&number.to_string())));
            }
            RawValue::Float(number) => return Err(Complaint::new(format!("`{number}` has no unit"), unit_help(number))),
            other => return Err(Complaint::new(format!("{} is not a duration", other.describe()), example)),
        };
        let minimum = Duration::from_millis(MINIMUM_MS);
        if duration < minimum {
            let least = format_duration(minimum);
            return Err(Complaint::new(format!("{} is too short", raw.describe()), format!("the least is \"{least}\"")));
        }
        if duration > LONGEST {
            return Err(Complaint::new(format!("{} is too long", raw.describe()), "the most is \"365d\""));
        }
        Ok(duration)
    }

    fn show(value: &Duration) -> String {
        format_duration(*value)
    }
}

fn unit_help(number: &str) -> String {
    format!("durations need a unit: \"{number}s\", \"{number}ms\" or \"{number}min\"")
}

/// A duration, or `off`, which is `None`.
pub(super) struct SpanOrOff<const MINIMUM_MS: u64>;

impl<const MINIMUM_MS: u64> Codec for SpanOrOff<MINIMUM_MS> {
    type Value = Option<Duration>;

    fn kind() -> String {
        "duration or `\"off\"`".to_owned()
    }

    fn read(raw: &RawValue) -> Result<Self::Value, Complaint> {
        if raw.is_off() {
            return Ok(None);
        }
        Span::<MINIMUM_MS>::read(raw).map(Some).map_err(or_off)
    }

    fn show(value: &Self::Value) -> String {
        value.map_or("off".to_owned(), format_duration)
    }
}

/// A duration, or `off`, which is zero.
pub(super) struct SpanOrNever;

impl Codec for SpanOrNever {
    type Value = Duration;

    fn kind() -> String {
        "duration or `\"off\"`".to_owned()
    }

    fn read(raw: &RawValue) -> Result<Duration, Complaint> {
        if raw.is_off() {
            return Ok(Duration::ZERO);
        }
        Span::<0>::read(raw).map_err(or_off)
    }

    fn show(value: &Duration) -> String {
        if value.is_zero() { "off".to_owned() } else { format_duration(*value) }
    }
}

fn or_off(complaint: Complaint) -> Complaint {
    Complaint { help: format!("{}; or \"off\"", complaint.help), ..complaint }
}

/// A size in bytes from `MINIMUM` to `MAXIMUM`.
pub(super) struct Bytes<const MINIMUM: u64, const MAXIMUM: u64>;

impl<const MINIMUM: u64, const MAXIMUM: u64> Codec for Bytes<MINIMUM, MAXIMUM> {
    type Value = usize;

    fn kind() -> String {
        "size".to_owned()
    }

    fn read(raw: &RawValue) -> Result<usize, Complaint> {
        let bytes = read_bytes(raw)?;
        if !(MINIMUM..=MAXIMUM).contains(&bytes) {
            let help = format!("from \"{}\" to \"{}\"", format_size(MINIMUM), format_size(MAXIMUM));
            return Err(Complaint::new(format!("{} is out of range", raw.describe()), help));
        }
        usize::try_from(bytes).map_err(|_| Complaint::new("does not fit this machine", "write a smaller size"))
    }

    fn show(value: &usize) -> String {
        format_size(*value as u64)
    }
}

/// A size in bytes, or `off`, which is `None`.
pub(super) struct BytesOrOff;

impl Codec for BytesOrOff {
    type Value = Option<u64>;

    fn kind() -> String {
        "size or `\"off\"`".to_owned()
    }

    fn read(raw: &RawValue) -> Result<Self::Value, Complaint> {
        if raw.is_off() {
            return Ok(None);
        }
        read_bytes(raw).map(Some).map_err(or_off)
    }

    fn show(value: &Self::Value) -> String {
        value.map_or("off".to_owned(), format_size)
    }
}

fn read_bytes(raw: &RawValue) -> Result<u64, Complaint> {
    let example = "write a number with a unit, such as \"64KiB\", \"16MB\" or \"1GB\"";
    match raw {
        RawValue::Text(text) => parse_size(text).map_err(|error| Complaint::new(format!("`{text}` {error}"), example)),
        RawValue::Integer(number) if *number >= 0 => Ok(number.unsigned_abs()),
        other => Err(Complaint::new(format!("{} is not a size", other.describe()), example)),
    }
}

/// A whole number from `MINIMUM` to `MAXIMUM`.
pub(super) struct Count<const MINIMUM: i64, const MAXIMUM: i64>;

impl<const MINIMUM: i64, const MAXIMUM: i64> Codec for Count<MINIMUM, MAXIMUM> {
    type Value = usize;

    fn kind() -> String {
        "integer".to_owned()
    }

    fn read(raw: &RawValue) -> Result<usize, Complaint> {
        let help = format!("write a whole number from {MINIMUM} to {MAXIMUM}");
        let number = match raw {
            RawValue::Integer(number) => Some(*number),
            // A number in quotes is how an environment variable comes.
            RawValue::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            return Err(Complaint::new(format!("{} is not a whole number", raw.describe()), help));
        };
        if !(MINIMUM..=MAXIMUM).contains(&number) {
            return Err(Complaint::new(format!("{} is out of range", raw.describe()), help));
        }
        usize::try_from(number).map_err(|_| Complaint::new("does not fit this machine", help))
    }

    fn show(value: &usize) -> String {
        value.to_string()
    }
}

/// True or false.
pub(super) struct Flag;

impl Codec for Flag {
    type Value = bool;

    fn kind() -> String {
        "`true` or `false`".to_owned()
    }

    fn read(raw: &RawValue) -> Result<bool, Complaint> {
        match raw {
            RawValue::Boolean(value) => Ok(*value),
            RawValue::Text(text) if ["true", "on", "yes"].contains(&text.trim()) => Ok(true),
            RawValue::Text(text) if ["false", "off", "no"].contains(&text.trim()) => Ok(false),
            other => Err(Complaint::new(format!("{} is neither true nor false", other.describe()), "write true or false")),
        }
    }

    fn show(value: &bool) -> String {
        value.to_string()
    }
}

/// One of the words of `C`.
pub(super) struct Choice<C>(PhantomData<C>);

impl<C: NamedChoice> Codec for Choice<C> {
    type Value = C;

    fn kind() -> String {
        C::CHOICES.iter().map(|(name, _)| format!("`\"{name}\"`")).collect::<Vec<_>>().join(", ")
    }

    fn read(raw: &RawValue) -> Result<C, Complaint> {
        let names: Vec<&str> = C::CHOICES.iter().map(|(name, _)| *name).collect();
        let listed = format!("one of \"{}\"", names.join("\", \""));
        let text = match raw {
            RawValue::Text(text) => text.as_str(),
            // `off` and `on` are words of several settings; written as booleans they mean the same.
            RawValue::Boolean(false) => "off",
            RawValue::Boolean(true) => "on",
            other => return Err(Complaint::new(format!("{} is not a word", other.describe()), format!("write {listed}"))),
        };
        C::from_name(text).ok_or_else(|| {
            let help = match closest(text, &names) {
                Some(name) => format!("did you mean \"{name}\"? It is {listed}"),
                None => format!("write {listed}"),
            };
            Complaint::new(format!("{} is not known", raw.describe()), help)
        })
    }

    fn show(value: &C) -> String {
        value.name().to_owned()
    }
}

/// `C`, or nothing, which means what the database has.
pub(super) struct Inherited<C>(PhantomData<C>);

impl<C: Codec> Codec for Inherited<C> {
    type Value = Option<C::Value>;

    fn kind() -> String {
        C::kind()
    }

    fn read(raw: &RawValue) -> Result<Self::Value, Complaint> {
        C::read(raw).map(Some)
    }

    fn show(value: &Self::Value) -> String {
        value.as_ref().map_or("the database's".to_owned(), C::show)
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::{Balance, ReuseUnnamed};
    use super::*;

    fn text(text: &str) -> RawValue {
        RawValue::Text(text.to_owned())
    }

    fn check<C: Codec>(raw: RawValue, expect: &str) {
        let got = match C::read(&raw) {
            Ok(value) => C::show(&value),
            Err(complaint) => format!("{} / {}", complaint.message, complaint.help),
        };
        assert_eq!(got, expect, "{raw:?}");
    }

    #[test]
    fn durations() {
        check::<Span<1>>(text("1500ms"), "1.5s");
        check::<Span<1>>(RawValue::Integer(5), "`5` has no unit / durations need a unit: \"5s\", \"5ms\" or \"5min\"");
        check::<Span<1>>(text("5"), "`5` has no unit / durations need a unit: \"5s\", \"5ms\" or \"5min\"");
        check::<Span<1>>(
            RawValue::Float("1.5".into()),
            "`1.5` has no unit / durations need a unit: \"1.5s\", \"1.5ms\" or \"1.5min\"",
        );
        check::<Span<10>>(text("5ms"), "`5ms` is too short / the least is \"10ms\"");
        check::<Span<1>>(text("800d"), "`800d` is too long / the most is \"365d\"");
        check::<Span<0>>(RawValue::Integer(0), "0s");
        check::<SpanOrOff<1>>(RawValue::Boolean(false), "off");
        check::<SpanOrOff<1>>(text("off"), "off");
        check::<SpanOrOff<1>>(text("1s"), "1s");
        check::<SpanOrNever>(text("0s"), "off");
        check::<SpanOrNever>(text("never"), "off");
        check::<Span<1>>(
            RawValue::Boolean(true),
            "`true` is not a duration / write a number with a unit, such as \"250ms\", \"1.5s\", \"2min\" or \"1h\"",
        );
    }

    #[test]
    fn sizes_numbers_and_flags() {
        check::<Bytes<0, 1024>>(text("1kB"), "1KiB");
        check::<Bytes<0, 1024>>(RawValue::Integer(1024), "1KiB");
        check::<Bytes<1024, 2048>>(text("1MB"), "`1MB` is out of range / from \"1KiB\" to \"2KiB\"");
        check::<BytesOrOff>(text("off"), "off");
        check::<BytesOrOff>(text("16MB"), "16MiB");
        check::<Count<1, 5>>(RawValue::Integer(5), "5");
        check::<Count<1, 5>>(text("3"), "3");
        check::<Count<1, 5>>(RawValue::Integer(6), "`6` is out of range / write a whole number from 1 to 5");
        check::<Count<1, 5>>(text("x"), "`x` is not a whole number / write a whole number from 1 to 5");
        check::<Flag>(RawValue::Boolean(true), "true");
        check::<Flag>(text("no"), "false");
        check::<Flag>(RawValue::Integer(1), "`1` is neither true nor false / write true or false");
    }

    #[test]
    fn words() {
        check::<Choice<Balance>>(text("weighted"), "weighted");
        check::<Choice<Balance>>(
            text("round_robbin"),
            "`round_robbin` is not known / did you mean \"round_robin\"? It is one of \"round_robin\", \"least_connections\", \"weighted\", \"random\", \"ip_hash\", \"peak_ewma\"",
        );
        check::<Choice<ReuseUnnamed>>(RawValue::Boolean(true), "on");
        check::<Choice<ReuseUnnamed>>(RawValue::Integer(7), "`7` is not a word / write one of \"off\", \"on\", \"custom_plans\"");
    }
}
