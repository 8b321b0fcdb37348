//! Dates and times as PostgreSQL stores them, from ISO text: what it prints under `DateStyle = ISO`, and what means the same to it
//! under every setting. Anything else (month names, two-digit years, zone names, `now`) is not read.

use super::decimal::is_space;
use std::fmt;

/// Microseconds of a day.
pub const DAY: i64 = 86_400_000_000;
/// Days from PostgreSQL's first day, the 24th of November 4714 BC, to its epoch, the 1st of January 2000.
const EPOCH_JULIAN: i64 = 2_451_545;
/// The first day after the last date.
const DATE_END: i64 = 2_147_483_494 - EPOCH_JULIAN;
/// The first day after the last timestamp, the 1st of January 294277.
const TIMESTAMP_END: i64 = 106_751_983;

/// A point in time as it stands in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrittenTime {
    /// Microseconds from 2000-01-01 00:00 to the date and time as they are written, whatever zone they are of.
    pub local: i64,
    /// Seconds east of Greenwich, if the text says; 0 for infinity, which has no zone.
    pub offset: Option<i32>,
}

impl WrittenTime {
    /// The point in time, if the zone is known.
    pub fn instant(self) -> Option<i64> {
        if self.local == i64::MAX || self.local == i64::MIN {
            return Some(self.local);
        }
        Some(self.local - i64::from(self.offset?) * 1_000_000)
    }
}

/// Days since 2000-01-01 of an ISO date, with `infinity` and `-infinity` as PostgreSQL stores them.
pub fn read_date(text: &str) -> Option<i32> {
    let text = text.trim_matches(is_space);
    if let Some(above) = infinity(text) {
        return Some(if above { i32::MAX } else { i32::MIN });
    }
    let (text, before_christ) = era(text);
    let days = days_of(text, before_christ)?;
    i32::try_from(days).ok()
}

/// An ISO timestamp, with or without a time and an offset.
pub fn read_timestamp(text: &str) -> Option<WrittenTime> {
    let text = text.trim_matches(is_space);
    if let Some(above) = infinity(text) {
        return Some(WrittenTime { local: if above { i64::MAX } else { i64::MIN }, offset: Some(0) });
    }
    let (text, before_christ) = era(text);
    let (date, rest) = match text.find([' ', 'T']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let days = days_of(date, before_christ)?;
    let (time, offset) = match rest {
        None => (0, None),
        Some(rest) => {
            let (time, offset) = split_offset(rest);
            let offset = match offset {
                Some(offset) => Some(read_offset(offset)?),
                None => None,
            };
            (read_time(time)?, offset)
        }
    };
    // Times a day from either end could leave the type's range by their zone.
    if !(1 - EPOCH_JULIAN..TIMESTAMP_END - 1).contains(&days) {
        return None;
    }
    Some(WrittenTime { local: days * DAY + time, offset })
}

/// Microseconds since midnight of `HH:MM[:SS[.ffffff]]`, below 24:00.
pub fn read_time(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, ':');
    let hours = two_digits(parts.next()?)?;
    let minutes = two_digits(parts.next()?)?;
    let (seconds, micros) = match parts.next() {
        None => (0, 0),
        Some(rest) => {
            let (seconds, fraction) = rest.split_once('.').unwrap_or((rest, ""));
            (two_digits(seconds)?, micros_of(fraction)?)
        }
    };
    if hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
}

/// Writes days since 2000-01-01 as an ISO date.
pub fn write_date(f: &mut fmt::Formatter<'_>, days: i32) -> fmt::Result {
    match days {
        i32::MAX => f.write_str("infinity"),
        i32::MIN => f.write_str("-infinity"),
        days => write_point(f, i64::from(days), ""),
    }
}

/// Writes microseconds since 2000-01-01 as an ISO timestamp without a zone.
pub fn write_timestamp(f: &mut fmt::Formatter<'_>, time: i64) -> fmt::Result {
    if time == i64::MAX || time == i64::MIN {
        return f.write_str(if time == i64::MAX { "infinity" } else { "-infinity" });
    }
    let (days, of_day) = (time.div_euclid(DAY), time.rem_euclid(DAY));
    let (seconds, micros) = (of_day / 1_000_000, of_day % 1_000_000);
    let mut text = format!(" {:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if micros > 0 {
        text.push_str(format!(".{micros:06}").trim_end_matches('0'));
    }
    write_point(f, days, &text)
}

fn write_point(f: &mut fmt::Formatter<'_>, days: i64, time: &str) -> fmt::Result {
    let (year, month, day) = civil_from_days(days);
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    write!(f, "{year:04}-{month:02}-{day:02}{time}{era}")
}

/// The other way round: year, month and day.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 730_425;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// The days from 2000-01-01 to a day of the proleptic Gregorian calendar; the year 0 is 1 BC.
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 730_425
}

fn infinity(text: &str) -> Option<bool> {
    match text {
        _ if text.eq_ignore_ascii_case("infinity") => Some(true),
        _ if text.eq_ignore_ascii_case("-infinity") => Some(false),
        _ => None,
    }
}

fn era(text: &str) -> (&str, bool) {
    match text.strip_suffix(" BC") {
        Some(text) => (text, true),
        None => (text, false),
    }
}

fn days_of(date: &str, before_christ: bool) -> Option<i64> {
    let mut parts = date.splitn(3, '-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    // Shorter years mean different things under different settings.
    if !(4..=7).contains(&year.len()) || !year.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (year, month, day): (i64, i64, i64) = (year.parse().ok()?, two_digits(month)?, two_digits(day)?);
    if year == 0 || !(1..=12).contains(&month) {
        return None;
    }
    let year = if before_christ { 1 - year } else { year };
    let leap = year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let days = days_from_civil(year, month, day);
    ((1..=length).contains(&day) && (-EPOCH_JULIAN..DATE_END).contains(&days)).then_some(days)
}

fn two_digits(text: &str) -> Option<i64> {
    (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// More than six digits would be rounded.
fn micros_of(fraction: &str) -> Option<i64> {
    if fraction.len() > 6 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    fraction.bytes().chain(std::iter::repeat(b'0')).take(6).try_fold(0, |sum, digit| Some(sum * 10 + i64::from(digit - b'0')))
}

/// The time and the offset behind it, as `+02`, `-05:30`, `+00:19:32` or `Z`.
fn split_offset(text: &str) -> (&str, Option<&str>) {
    match text.find(['+', '-', 'Z']) {
        Some(at) => (text[..at].trim_end_matches(' '), Some(&text[at..])),
        None => (text, None),
    }
}

fn read_offset(text: &str) -> Option<i32> {
    if text == "Z" {
        return Some(0);
    }
    let (sign, text) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        _ => (-1, &text[1..]),
    };
    let mut parts = text.splitn(3, ':');
    let hours = two_digits(parts.next()?)?;
    let minutes = parts.next().map_or(Some(0), two_digits)?;
    let seconds = parts.next().map_or(Some(0), two_digits)?;
    if hours > 15 || minutes > 59 || seconds > 59 {
        return None;
    }
    i32::try_from(sign * ((hours * 60 + minutes) * 60 + seconds)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates() {
        let check = |text: &str, days: Option<i32>| assert_eq!(read_date(text), days, "{text}");
        check("2000-01-01", Some(0));
        check(" 1999-12-31 ", Some(-1));
        check("2000-02-29", Some(59));
        check("2000-03-01", Some(60));
        check("1970-01-01", Some(-10_957));
        check("1900-02-29", None);
        check("0001-01-01", Some(-730_119));
        check("0001-12-31 BC", Some(-730_120));
        check("4714-11-24 BC", Some(-2_451_545));
        check("4714-11-23 BC", None);
        check("5874897-12-31", Some(2_145_031_948));
        check("5874898-01-01", None);
        check("infinity", Some(i32::MAX));
        check("-Infinity", Some(i32::MIN));
        for bad in
            ["", "now", "today", "0000-01-01", "20-01-01", "2020-1-1", "2020-13-01", "2020-04-31", "01/02/2020", "2020-01-01x"]
        {
            check(bad, None);
        }
    }

    #[test]
    fn timestamps() {
        let check = |text: &str, local: i64, offset: Option<i32>| {
            assert_eq!(read_timestamp(text), Some(WrittenTime { local, offset }), "{text}");
        };
        check("2000-01-01", 0, None);
        check("2000-01-01 ", 0, None);
        check("2000-01-01 00:00:00", 0, None);
        check("2000-01-02T01:02:03.5", DAY + 3_723_500_000, None);
        check("2000-01-01 00:00:00.000001+02", 1, Some(7200));
        check("2000-01-01 00:00:00 -05:30", 0, Some(-19_800));
        check("2000-01-01 00:00:00+00:19:32", 0, Some(1172));
        check("2000-01-01T00:00:00Z", 0, Some(0));
        check("1999-12-31 23:59:59.999999", -1, None);
        check("0001-12-31 12:00:00+00 BC", -730_120 * DAY + DAY / 2, Some(0));
        check("infinity", i64::MAX, Some(0));
        for bad in [
            "",
            "2000-01-01 24:00:00",
            "2000-01-01 00:00:60",
            "2000-01-01 00:60:00",
            "2000-01-01 00:00:00.1234567",
            "2000-01-01 10",
            "2000-01-01 00:00:00 UTC",
            "2000-01-01 00:00:00 Europe/Paris",
            "2000-01-01 00:00:00+2",
            "294277-01-01",
            "2000-01-01 10:00 PM",
            "epoch",
            "2000-01-01 00:00:00+0200",
        ] {
            assert_eq!(read_timestamp(bad), None, "{bad}");
        }
        assert_eq!(read_timestamp("2000-01-01 02:00:00+02").and_then(WrittenTime::instant), Some(0));
        assert_eq!(read_timestamp("2000-01-01 02:00:00").and_then(WrittenTime::instant), None);
        assert_eq!(read_timestamp("-infinity").and_then(WrittenTime::instant), Some(i64::MIN));
    }

    #[test]
    fn days_count_up() {
        let mut expect = days_from_civil(-5, 1, 1);
        for year in -5..2200 {
            for month in 1..=12 {
                for day in 1..=31 {
                    let text = if year > 0 {
                        format!("{year:04}-{month:02}-{day:02}")
                    } else {
                        format!("{:04}-{month:02}-{day:02} BC", 1 - year)
                    };
                    if let Some(days) = read_date(&text) {
                        assert_eq!(i64::from(days), expect, "{text}");
                        assert_eq!(civil_from_days(expect), (year, month, day), "{text}");
                        expect += 1;
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn no_text_causes_a_panic(text: String) {
            let _ = (read_date(&text), read_timestamp(&text), read_time(&text));
        }
    }
}
