//! Instants in RFC 3339, read as Go's `time.Parse` reads them and written as Go writes them; and
//! in HTTP's own form.
//!
//! Promise: any text is an instant or `None`. Not here: time zones by name, leap seconds.

use model::Timestamp;

const DAY_MS: i64 = 86_400_000;

/// `2024-01-01T00:00:00.5+02:00`; digits behind the millisecond are cut off (towards 1970).
pub fn parse(text: &str) -> Option<Timestamp> {
    let mut rest = text;
    let year = digits(&mut rest, 4, 4)?;
    let month = preceded(&mut rest, '-', 2, 2)?;
    let day = preceded(&mut rest, '-', 2, 2)?;
    // Go takes an hour of one digit.
    let hour = preceded(&mut rest, 'T', 1, 2)?;
    let minute = preceded(&mut rest, ':', 2, 2)?;
    let second = preceded(&mut rest, ':', 2, 2)?;
    let micros = fraction_micros(&mut rest)?;
    let offset_minutes = offset(rest)?;
    let in_range = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !in_range {
        return None;
    }
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second
        - offset_minutes * 60;
    Some(Timestamp((seconds * 1_000_000 + micros) / 1000))
}

/// `2026-11-21T03:56:20.224Z`, without trailing zeros; years 0 to 9999.
pub fn format(at: Timestamp) -> String {
    let ms = within_calendar(at);
    let (year, month, day) = civil_from_days(ms.div_euclid(DAY_MS));
    let of_day = ms.rem_euclid(DAY_MS);
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60);
    let fraction = match of_day % 1000 {
        0 => String::new(),
        ms => format!(".{ms:03}").trim_end_matches('0').to_owned(),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// As [`format`], with three decimals always.
pub fn format_millis(at: Timestamp) -> String {
    let ms = within_calendar(at);
    let second = format(Timestamp(ms.div_euclid(1000) * 1000));
    let whole = second.trim_end_matches('Z');
    format!("{whole}.{:03}Z", ms.rem_euclid(1000))
}

/// `Sat, 21 Nov 2026 03:56:20 GMT` (RFC 9110, 5.6.7); years 0 to 9999.
pub fn format_http(at: Timestamp) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let ms = within_calendar(at);
    let days = ms.div_euclid(DAY_MS);
    let (year, month, day) = civil_from_days(days);
    let of_day = ms.rem_euclid(DAY_MS) / 1000;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let weekday = DAYS[days.rem_euclid(7) as usize];
    let month = MONTHS[month as usize - 1];
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Milliseconds between the years 0 and 9999, which have four digits.
fn within_calendar(at: Timestamp) -> i64 {
    let first = days_from_civil(0, 1, 1) * DAY_MS;
    let last = days_from_civil(10_000, 1, 1) * DAY_MS - 1;
    at.0.clamp(first, last)
}

/// A number of `min..=max` digits at the front of `rest`.
fn digits(rest: &mut &str, min: usize, max: usize) -> Option<i64> {
    let count = rest
        .bytes()
        .take(max)
        .take_while(u8::is_ascii_digit)
        .count();
    if count < min {
        return None;
    }
    let (number, tail) = rest.split_at(count);
    *rest = tail;
    number.parse().ok()
}

fn preceded(rest: &mut &str, mark: char, min: usize, max: usize) -> Option<i64> {
    *rest = rest.strip_prefix(mark)?;
    digits(rest, min, max)
}

/// Behind `.` or `,`; digits beyond the sixth are dropped.
fn fraction_micros(rest: &mut &str) -> Option<i64> {
    let Some(tail) = rest.strip_prefix(['.', ',']) else {
        return Some(0);
    };
    let count = tail.bytes().take_while(u8::is_ascii_digit).count();
    let (fraction, tail) = tail.split_at(count);
    *rest = tail;
    let mut micros = 0;
    for at in 0..6 {
        let digit = fraction.as_bytes().get(at).map_or(0, |b| b - b'0');
        micros = micros * 10 + i64::from(digit);
    }
    (count > 0).then_some(micros)
}

/// `Z`, `+02:00`; all of `text`.
fn offset(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+')?),
    };
    let hours = digits(&mut rest, 2, 2)?;
    let minutes = preceded(&mut rest, ':', 2, 2)?;
    (rest.is_empty() && hours <= 24 && minutes < 60).then_some(sign * (hours * 60 + minutes))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar. Years begin in March, so that the
/// leap day is a year's last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let mut year = days * 400 / 146_097;
    // The estimate is off by at most one year in either direction.
    while days_from_civil(year + 1, 3, 1) + 719_468 <= days {
        year += 1;
    }
    while days_from_civil(year, 3, 1) + 719_468 > days {
        year -= 1;
    }
    let day_of_year = days - (days_from_civil(year, 3, 1) + 719_468);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let civil_month = (month + 2) % 12 + 1;
    let year = if civil_month <= 2 { year + 1 } else { year };
    (year, civil_month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Results of `/api/v1/query?query=1&time=…` at Prometheus 3.5.3.
    #[test]
    fn instants_read_as_prometheus_reads_them() {
        for (text, ms) in [
            ("2024-01-01T00:00:00Z", 1_704_067_200_000),
            ("2024-01-01T00:00:00.5+02:00", 1_704_060_000_500),
            ("2024-01-01T00:00:00,5Z", 1_704_067_200_500),
            ("2024-01-01T00:00:00.1234567891Z", 1_704_067_200_123),
            ("2024-01-01T00:00:00.0009Z", 1_704_067_200_000),
            ("2024-01-01T00:00:00+24:00", 1_703_980_800_000),
            ("2024-01-01T1:00:00Z", 1_704_070_800_000),
            ("1969-12-31T23:59:59.9999Z", 0),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000),
            ("0000-01-01T00:00:00Z", -62_167_219_200_000),
        ] {
            assert_eq!(parse(text), Some(Timestamp(ms)), "{text}");
        }
        for text in [
            "2024-01-01 00:00:00Z",
            "2024-01-01T00:00:00",
            "2024-1-1T00:00:00Z",
            "2024-02-30T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T23:59:60Z",
            "2024-01-01t00:00:00z",
            "2024-01-01T00:00:00+2:00",
            "2024-01-01T00:00:00.Z",
            "+2024-01-01T00:00:00Z",
            "",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn instants_write_as_go_writes_them() {
        for text in [
            "2026-11-21T03:56:20.224Z",
            "2026-11-21T03:54:49Z",
            "1970-01-01T00:00:00.5Z",
            "1969-12-31T23:59:59.999Z",
            "0000-03-01T00:00:00Z",
        ] {
            // 1969-12-31T23:59:59.999 reads as itself: it has whole milliseconds.
            assert_eq!(format(parse(text).unwrap()), text);
        }
        assert_eq!(format(Timestamp::MIN), "0000-01-01T00:00:00Z");
        assert_eq!(format(Timestamp::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn http_has_its_own_form() {
        for (text, http) in [
            ("2026-11-21T03:54:53Z", "Sat, 21 Nov 2026 03:54:53 GMT"),
            ("1994-11-06T08:49:37Z", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("1969-12-31T23:59:59Z", "Wed, 31 Dec 1969 23:59:59 GMT"),
        ] {
            assert_eq!(format_http(parse(text).unwrap()), http);
        }
        format_http(Timestamp::MIN);
        format_http(Timestamp::MAX);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(ms in -62_167_219_200_000i64..253_402_300_800_000) {
            prop_assert_eq!(parse(&format(Timestamp(ms))), Some(Timestamp(ms)));
        }

        #[test]
        fn any_text_is_an_instant_or_none(text in "\\PC{0,40}|[0-9TZ:+.-]{0,40}") {
            parse(&text);
        }
    }
}
