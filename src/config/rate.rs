//! Rates as people write them: `100/s`, `600/min`, `100/s burst 500`.

use super::codec::{Codec, Complaint, RawValue};
use crate::types::Rate;
use std::time::Duration;

/// Units with their names; the first of each is the one that is printed.
const PERIODS: [(&[&str], u64); 3] = [(&["s", "sec", "second"], 1), (&["min", "m", "minute"], 60), (&["h", "hour"], 3600)];
/// The most that may be counted or come at once.
const COUNT_MAX: u32 = 1_000_000;

/// A rate, or `off`, which is `None`.
pub(super) struct RateOrOff;

impl Codec for RateOrOff {
    type Value = Option<Rate>;

    fn kind() -> String {
        "rate or `\"off\"`".to_owned()
    }

    fn read(raw: &RawValue) -> Result<Self::Value, Complaint> {
        if raw.is_off() {
            return Ok(None);
        }
        let parsed = match raw {
            RawValue::Text(text) => parse_rate(text),
            _ => None,
        };
        let help = "write \"100/s\", \"600/min\" or \"1000/h\", with \"burst 500\" behind it for more at once; or \"off\"";
        parsed.map(Some).ok_or_else(|| Complaint::new(format!("{} is not a rate", raw.describe()), help))
    }

    fn show(value: &Self::Value) -> String {
        value.as_ref().map_or("off".to_owned(), format_rate)
    }
}

fn parse_rate(text: &str) -> Option<Rate> {
    let number = |text: &str| text.trim().parse().ok().filter(|number| (1..=COUNT_MAX).contains(number));
    let (count, rest) = text.split_once('/')?;
    let count = number(count)?;
    let mut words = rest.split_whitespace();
    let unit = words.next()?;
    let (_, seconds) = PERIODS.iter().find(|(names, _)| names.contains(&unit))?;
    let burst = match (words.next(), words.next(), words.next()) {
        (None, ..) => count,
        (Some("burst"), Some(burst), None) => number(burst)?,
        _ => return None,
    };
    Some(Rate { count, period: Duration::from_secs(*seconds), burst })
}

/// Prints a rate as it could be written; the burst only where it is not the count itself.
pub fn format_rate(rate: &Rate) -> String {
    let unit = PERIODS.iter().find(|(_, seconds)| *seconds == rate.period.as_secs()).map_or("s", |(names, _)| names[0]);
    match rate.burst == rate.count {
        true => format!("{}/{unit}", rate.count),
        false => format!("{}/{unit} burst {}", rate.count, rate.burst),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let check = |text: &str, expect: Option<&str>| {
            let read = RateOrOff::read(&RawValue::Text(text.to_owned()));
            assert_eq!(read.ok().map(|rate| RateOrOff::show(&rate)).as_deref(), expect, "{text}");
        };
        check("100/s", Some("100/s"));
        check(" 100 / s ", Some("100/s"));
        check("600/minute burst 50", Some("600/min burst 50"));
        check("1/h", Some("1/h"));
        check("5/s burst 5", Some("5/s"));
        check("off", Some("off"));
        for wrong in
            ["", "100", "100/", "/s", "0/s", "-1/s", "1.5/s", "2000000/s", "100/d", "1/s burst", "1/s burst 0", "1/s burst 2 3"]
        {
            check(wrong, None);
        }
        assert_eq!(RateOrOff::read(&RawValue::Boolean(false)), Ok(None));
        assert!(RateOrOff::read(&RawValue::Integer(100)).is_err());
    }
}
