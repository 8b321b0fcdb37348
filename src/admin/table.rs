//! Result tables: text columns, whose binary form is the same bytes.

use crate::wire::frame::{put_message, put_string};
use crate::wire::reply::put_text_row;
use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Type `text`.
const TEXT_OID: i32 = 25;

/// One value; `None` is NULL.
pub(super) type Cell = Option<String>;

/// Columns and rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ResultTable {
    /// The columns' names.
    pub(super) columns: Vec<Cow<'static, str>>,
    /// The rows; each has as many cells as there are columns.
    pub(super) rows: Vec<Vec<Cell>>,
}

impl ResultTable {
    /// A table without rows.
    pub(super) fn new(columns: &[&'static str]) -> Self {
        ResultTable { columns: columns.iter().map(|name| Cow::Borrowed(*name)).collect(), rows: Vec::new() }
    }

    /// Adds a row; one of another length is cut or filled with NULL, so that every row fits its heading.
    pub(super) fn push(&mut self, mut row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.columns.len(), "{:?}", self.columns);
        row.resize(self.columns.len(), None);
        self.rows.push(row);
    }
}

/// A value that is there.
pub(super) fn cell(value: impl ToString) -> Cell {
    Some(value.to_string())
}

/// A value that may not be there.
pub(super) fn maybe(value: Option<impl ToString>) -> Cell {
    value.map(|value| value.to_string())
}

/// `yes` or `no`.
pub(super) fn yes_no(value: bool) -> Cell {
    cell(if value { "yes" } else { "no" })
}

/// Milliseconds with three decimals.
pub(super) fn milliseconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64() * 1000.0)
}

/// As PgBouncer shows a time: `2026-01-31 12:00:00 UTC`.
pub(super) fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// The Gregorian date of a day counted from 1970-01-01: 400 years are 146,097 days, and a year that begins in March has its leap
/// day at its end.
fn civil(days: u64) -> (u64, u64, u64) {
    let since_march_0000 = days + 719_468;
    let (era, day_of_era) = (since_march_0000 / 146_097, since_march_0000 % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Appends a RowDescription; `binary` says for each column whether the client asked for its binary form.
///
/// Spec: "Message Formats", RowDescription (B).
pub(super) fn put_columns(out: &mut Vec<u8>, columns: &[Cow<'static, str>], binary: impl Fn(usize) -> bool) {
    put_message(out, b'T', |body| {
        body.extend_from_slice(&(columns.len() as i16).to_be_bytes());
        for (index, name) in columns.iter().enumerate() {
            put_string(body, name.replace('\0', "\u{fffd}").as_bytes());
            body.extend_from_slice(&[0; 6]);
            body.extend_from_slice(&TEXT_OID.to_be_bytes());
            body.extend_from_slice(&(-1_i16).to_be_bytes());
            body.extend_from_slice(&(-1_i32).to_be_bytes());
            body.extend_from_slice(&i16::from(binary(index)).to_be_bytes());
        }
    });
}

/// Appends a DataRow.
pub(super) fn put_row(out: &mut Vec<u8>, row: &[Cell]) {
    let values: Vec<Option<&str>> = row.iter().map(Option::as_deref).collect();
    put_text_row(out, &values);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_utc() {
        let check = |seconds, expect| assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), expect);
        check(0, "1970-01-01 00:00:00 UTC");
        check(951_782_399, "2000-02-28 23:59:59 UTC");
        check(951_782_400, "2000-02-29 00:00:00 UTC");
        check(951_868_800, "2000-03-01 00:00:00 UTC");
        check(1_735_689_599, "2024-12-31 23:59:59 UTC");
        check(4_107_542_400, "2100-03-01 00:00:00 UTC");
    }

    #[test]
    fn headings_are_as_pgwire_encodes_them() {
        let (mut own, mut theirs) = (Vec::new(), Vec::new());
        put_columns(&mut own, &["a".into(), "lag_ms".into()], |_| false);
        crate::wire::reply::put_text_columns(&mut theirs, &["a", "lag_ms"]);
        assert_eq!(own, theirs);
        put_columns(&mut own, &["a".into()], |_| true);
        assert_eq!(own.last(), Some(&1));
    }
}
