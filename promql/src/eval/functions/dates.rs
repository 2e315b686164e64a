//! Parts of a date, in UTC, from seconds since 1970.

/// Date functions by name; they take whole seconds.
pub(super) fn of_one_instant(name: &str) -> Option<fn(i64) -> f64> {
    Some(match name {
        "minute" => |s| (s.div_euclid(60).rem_euclid(60)) as f64,
        "hour" => |s| (s.div_euclid(3600).rem_euclid(24)) as f64,
        // 1970-01-01 was a Thursday.
        "day_of_week" => |s| (day(s) + 4).rem_euclid(7) as f64,
        "day_of_month" => |s| date(s).day as f64,
        "day_of_year" => |s| (day(s) - first_day(date(s).year) + 1) as f64,
        "days_in_month" => |s| {
            let date = date(s);
            days_in_month(date.year, date.month) as f64
        },
        "month" => |s| date(s).month as f64,
        "year" => |s| date(s).year as f64,
        _ => return None,
    })
}

/// What NaN, infinities and other numbers that are no 64-bit count of seconds give: the parts of
/// the instant that Prometheus (on amd64) converts them all to.
pub(super) fn of_no_instant(name: &str) -> f64 {
    match name {
        "minute" => 30.0,
        "hour" => 15.0,
        "day_of_week" => 0.0,
        "day_of_month" => 4.0,
        "day_of_year" => 339.0,
        "days_in_month" => 31.0,
        "month" => 12.0,
        _ => 292_277_026_596.0,
    }
}

struct Date {
    year: i64,
    month: i64,
    day: i64,
}

fn day(seconds: i64) -> i64 {
    seconds.div_euclid(86_400)
}

fn is_leap(year: i64) -> bool {
    year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to the first of January of `year`.
fn first_day(year: i64) -> i64 {
    let before = year - 1;
    let leaps = |y: i64| y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400);
    365 * (year - 1970) + leaps(before) - leaps(1969)
}

fn date(seconds: i64) -> Date {
    let day = day(seconds);
    // 146,097 days in 400 years; the guess is at most a year off.
    let mut year = 1970 + (i128::from(day) * 400).div_euclid(146_097) as i64;
    while first_day(year) > day {
        year -= 1;
    }
    while first_day(year + 1) <= day {
        year += 1;
    }
    let mut left = day - first_day(year);
    let mut month = 1;
    while left >= days_in_month(year, month) {
        left -= days_in_month(year, month);
        month += 1;
    }
    Date {
        year,
        month,
        day: left + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_dates() {
        let part = |name: &str, seconds| of_one_instant(name).unwrap()(seconds);
        // 2016-02-29 23:59:59, a Monday.
        let names = [
            "year",
            "month",
            "day_of_month",
            "day_of_year",
            "day_of_week",
        ];
        let parts = names.map(|name| part(name, 1_456_790_399));
        assert_eq!(parts, [2016.0, 2.0, 29.0, 60.0, 1.0]);
        assert_eq!(part("hour", 1_456_790_399), 23.0);
        assert_eq!(part("minute", 1_456_790_399), 59.0);
        assert_eq!(part("days_in_month", 1_456_790_399), 29.0);
        // 1969-12-31 23:59:59
        let parts = names.map(|name| part(name, -1));
        assert_eq!(parts, [1969.0, 12.0, 31.0, 365.0, 3.0]);
        assert_eq!(part("day_of_year", 1_483_191_420), 366.0);
    }

    #[test]
    fn no_second_is_too_far() {
        for seconds in [i64::MIN, i64::MAX] {
            for name in ["year", "month", "day_of_month", "day_of_year", "hour"] {
                assert!(of_one_instant(name).unwrap()(seconds).is_finite());
            }
        }
    }
}
