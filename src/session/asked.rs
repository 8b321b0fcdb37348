//! What sessions ask for with `SET`, as values.

use crate::config::{Consistency, parse_duration};
use crate::sql::RouteHint;
use crate::types::{Lsn, Timeline};
use std::time::Duration;

/// What a session has asked its reads to show, with `SET`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AskedFreshness {
    /// `pgyard.min_lsn`: a point of the log, which another session may have seen.
    pub min_lsn: Option<(Timeline, Lsn)>,
    /// `pgyard.max_lag`: replicas further behind are not read.
    pub max_lag: Option<Duration>,
}

impl AskedFreshness {
    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.min_lsn.is_none() && self.max_lag.is_none()
    }
}

/// A value of `pgyard.min_lsn`, such as `1:0/16B3748`; the outer `None` is a value that it can't have.
pub fn min_lsn_setting(value: &str) -> Option<Option<(Timeline, Lsn)>> {
    if value.is_empty() {
        return Some(None);
    }
    let (timeline, lsn) = value.split_once(':')?;
    let digits = (1..=10).contains(&timeline.len()) && timeline.bytes().all(|byte| byte.is_ascii_digit());
    let timeline = timeline.parse().ok().filter(|timeline| digits && *timeline > 0)?;
    Some(Some((Timeline(timeline), lsn.parse().ok()?)))
}

/// A value of `pgyard.max_lag`; `None` is a value that it can't have.
pub fn max_lag_setting(value: &str) -> Option<Duration> {
    parse_duration(value).ok()
}

/// A value of `pgyard.route`; the outer `None` is a value that it can't have.
pub fn route_setting(value: &str) -> Option<Option<RouteHint>> {
    match value {
        "primary" => Some(Some(RouteHint::Primary)),
        "replica" => Some(Some(RouteHint::Replica)),
        "auto" | "default" | "" => Some(None),
        _ => None,
    }
}

/// A value of `pgyard.consistency`.
pub fn consistency_setting(value: &str) -> Option<Consistency> {
    match value {
        "eventual" => Some(Consistency::Eventual),
        "session" => Some(Consistency::Session),
        "monotonic" => Some(Consistency::Monotonic),
        "global" => Some(Consistency::Global),
        _ => None,
    }
}

/// Whether no multi-byte character of the encoding holds an ASCII byte. Those for which that is not so are client-only
/// encodings in PostgreSQL.
///
/// Spec: PostgreSQL documentation, "PostgreSQL Character Sets" (column "Server?").
pub(super) fn is_ascii_safe(encoding: &str) -> bool {
    let name: String = encoding.chars().filter(char::is_ascii_alphanumeric).collect();
    !matches!(
        name.as_str(),
        "sjis"
            | "mskanji"
            | "shiftjis"
            | "win932"
            | "windows932"
            | "shiftjis2004"
            | "big5"
            | "win950"
            | "windows950"
            | "gbk"
            | "win936"
            | "windows936"
            | "gb18030"
            | "johab"
            | "uhc"
            | "win949"
            | "windows949"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_and_bounds_are_read_strictly() {
        let check = |value, expect: Option<Option<(u32, u64)>>| {
            let expect = expect.map(|point| point.map(|(timeline, lsn)| (Timeline(timeline), Lsn(lsn))));
            assert_eq!(min_lsn_setting(value), expect, "{value}");
        };
        check("", Some(None));
        check("1:0/16b3748", Some(Some((1, 0x016B_3748))));
        check("4294967295:FFFFFFFF/FFFFFFFF", Some(Some((u32::MAX, u64::MAX))));
        for bad in
            ["0/16B3748", "1:", ":0/1", "0:0/1", "+1:0/1", "-1:0/1", "4294967296:0/1", "1:0/1 ", "1 :0/1", "1:0", "one:0/1"]
        {
            check(bad, None);
        }
        assert_eq!(max_lag_setting("100ms"), Some(Duration::from_millis(100)));
        assert!(["", "100", "-1s", "soon", "off"].into_iter().all(|bad| max_lag_setting(bad).is_none()));
    }

    #[test]
    fn encodings_that_hold_ascii_bytes_are_known() {
        assert!(is_ascii_safe("UTF8") && is_ascii_safe("latin1") && is_ascii_safe("EUC_JP"));
        assert!(!is_ascii_safe("shift_jis_2004") && !is_ascii_safe("gb18030"));
    }
}
