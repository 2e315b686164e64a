//! Instants and durations as Prometheus writes them.

use std::fmt;
use std::time::Duration;

/// Milliseconds since 1970-01-01 UTC; may be negative.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub const MIN: Self = Self(i64::MIN);
    pub const MAX: Self = Self(i64::MAX);

    /// This instant moved by `delta_ms`, stopping at the ends of the range.
    #[must_use]
    pub fn plus_ms(self, delta_ms: i64) -> Self {
        Self(self.0.saturating_add(delta_ms))
    }

    /// Seconds since 1970 as a float, as Prometheus' JSON shows it.
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("empty duration string")]
    Empty,
    #[error("not a valid duration string: {0:?}")]
    Malformed(String),
    #[error("duration out of range: {0:?}")]
    OutOfRange(String),
}

/// Units from large to small, with their milliseconds; a duration names each at most once, in
/// this order (Prometheus, `model.ParseDuration`).
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Parses `1h30m`, `15s`, `0`: the form of Prometheus' flags, configuration and PromQL.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let malformed = || DurationError::Malformed(text.to_owned());
    match text {
        "" => return Err(DurationError::Empty),
        "0" => return Ok(Duration::ZERO),
        _ => {}
    }
    let mut rest = text;
    let mut units_left = &UNITS[..];
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.len()
            - tail
                .trim_start_matches(|c: char| c.is_ascii_alphabetic())
                .len();
        let (unit, tail) = tail.split_at(letters);
        let at = units_left
            .iter()
            .position(|(name, _)| *name == unit)
            .ok_or_else(malformed)?;
        if number.is_empty() {
            return Err(malformed());
        }
        let out_of_range = || DurationError::OutOfRange(text.to_owned());
        let count: u64 = number.parse().map_err(|_| out_of_range())?;
        let ms = count
            .checked_mul(units_left[at].1)
            .ok_or_else(out_of_range)?;
        total_ms = total_ms
            .checked_add(ms)
            .filter(|&ms| ms <= i64::MAX as u64 / 1_000_000)
            .ok_or_else(out_of_range)?;
        units_left = &units_left[at + 1..];
        rest = tail;
    }
    Ok(Duration::from_millis(total_ms))
}

/// Writes a duration as Prometheus does: `1h30m`, `15s`, `0s`. Years and weeks only when they
/// divide what is left: 36 hours are `1d12h`, ten days `10d`.
pub fn format_duration(duration: Duration) -> String {
    let mut ms = duration.as_millis() as u64;
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, unit_ms) in UNITS {
        let exact = matches!(unit, "y" | "w");
        if exact && !ms.is_multiple_of(unit_ms) {
            continue;
        }
        let count = ms / unit_ms;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
            ms -= count * unit_ms;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_prometheus_reads_them() {
        for (text, ms) in [
            ("0", 0),
            ("324ms", 324),
            ("3s", 3_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("4d1h", 349_200_000),
            ("1y", 31_536_000_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(ms)),
                "{text}"
            );
        }
        for text in ["", "1", "m", "1m1h", "1s1s", "-1s", "1.5h", "1 s", "294y"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_write_as_prometheus_writes_them() {
        for text in [
            "0s", "324ms", "15s", "5m", "1h30m", "1d", "1d12h", "8d", "2w", "1y", "90s",
        ] {
            let written = format_duration(parse_duration(text).unwrap());
            let expected = if text == "90s" { "1m30s" } else { text };
            assert_eq!(written, expected);
        }
        assert_eq!(format_duration(Duration::from_secs(15 * 86_400)), "15d");
    }
}
