//! Instants as the API's parameters name them, with the reach and the overflows of Go's `time.Time`.
//!
//! Promise: any text is a moment or an error in Prometheus' words. Prometheus turns a moment into
//! milliseconds in two ways that part where nanoseconds no longer fit into 64 bits: queries count
//! from there on anew, the rest of the API does not. So does this.

use model::{Timestamp, number};

use super::instant;
use super::params::{MAX_TIME, MIN_TIME, quote};

/// Seconds since 1970, and nanoseconds within one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    seconds: i64,
    nanos: i64,
}

/// From year 1 to 1970, where Go's own count begins.
const SECONDS_TO_1970: i64 = 62_135_596_800;
const SECOND: i64 = 1_000_000_000;
/// The texts for "since ever" and "for ever".
const FIRST: &str = "-292273086-05-16T16:47:06Z";
const LAST: &str = "292277025-08-18T07:12:54.999999999Z";

impl Moment {
    /// Seconds since 1970 as a float, RFC 3339, or one of the two texts for the ends of time.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(seconds) = number::parse_literal(text) {
            return Ok(Self::of_seconds(seconds));
        }
        match text {
            FIRST => Ok(Self {
                seconds: i64::MIN / 1000 + SECONDS_TO_1970 + 1,
                nanos: 0,
            }),
            LAST => Ok(Self {
                seconds: i64::MAX / 1000 - SECONDS_TO_1970 - 1,
                nanos: SECOND - 1,
            }),
            _ => match instant::parse(text) {
                Some(at) => Ok(at.into()),
                None => Err(format!("cannot parse {} to a valid timestamp", quote(text))),
            },
        }
    }

    /// Rounded to milliseconds, whole seconds apart; what is no count becomes the smallest one.
    fn of_seconds(seconds: f64) -> Self {
        // An infinite number has a fraction that is none.
        let fraction = seconds - seconds.trunc();
        let nanos = cut((fraction * 1000.0).round() / 1000.0 * 1e9);
        let carried = nanos.div_euclid(SECOND);
        Self {
            seconds: cut(seconds.trunc()).wrapping_add(carried),
            nanos: nanos.rem_euclid(SECOND),
        }
    }

    /// Milliseconds, by way of nanoseconds: where a query looks.
    pub fn of_query(self) -> Timestamp {
        let nanos = self.seconds.wrapping_mul(SECOND).wrapping_add(self.nanos);
        Timestamp(nanos / 1_000_000)
    }

    /// Milliseconds.
    pub fn timestamp(self) -> Timestamp {
        let ms = self.seconds.wrapping_mul(1000);
        let ms = ms.wrapping_add(self.nanos / 1_000_000);
        Timestamp(ms.clamp(MIN_TIME.0, MAX_TIME.0))
    }

    pub fn is_before(self, other: Self) -> bool {
        self.place() < other.place()
    }

    /// Nanoseconds from `earlier` on, as many as there can be at most.
    pub fn since(self, earlier: Self) -> i64 {
        let nanos = |(seconds, nanos): (i64, i64)| {
            i128::from(seconds) * i128::from(SECOND) + i128::from(nanos)
        };
        let span = nanos(self.place()) - nanos(earlier.place());
        span.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }

    /// As Go orders them.
    fn place(self) -> (i64, i64) {
        (self.seconds.wrapping_add(SECONDS_TO_1970), self.nanos)
    }
}

impl From<Timestamp> for Moment {
    fn from(at: Timestamp) -> Self {
        Self {
            seconds: at.0.div_euclid(1000),
            nanos: at.0.rem_euclid(1000) * 1_000_000,
        }
    }
}

/// A float as amd64 makes an integer of it: whatever does not fit is the smallest.
fn cut(value: f64) -> i64 {
    const END: f64 = 9_223_372_036_854_775_808.0;
    match (-END..END).contains(&value) {
        true => value as i64,
        false => i64::MIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prometheus 3.5.3: `curl ':9090/api/v1/query?query=time()&time=…'`.
    #[test]
    fn queries_count_anew_where_nanoseconds_end() {
        for (text, ms) in [
            ("1.0005", 1000),
            ("-1.0005", -1000),
            ("0x1p4", 16_000),
            ("1e10", -8_446_744_073_709),
            ("1e11", 7_766_279_631_452),
            ("-1e11", -7_766_279_631_452),
            ("9007199254740993", 4_611_686_018_427),
            ("1e16", 1_590_897_978_359),
            ("9223372036854775", 192),
            ("1e17", -2_537_764_290_115),
            ("Inf", -9_223_372_036_854),
            ("-inf", -9_223_372_036_854),
            ("nan", -9_223_372_036_854),
            ("9999-12-31T23:59:59Z", -4_852_116_232_933),
            (LAST, -6_795_364_579_679),
            (FIRST, 6_795_364_580_679),
        ] {
            let moment = Moment::parse(text).unwrap();
            assert_eq!(moment.of_query(), Timestamp(ms), "{text}");
        }
    }

    #[test]
    fn the_rest_of_the_api_reaches_further() {
        for (text, ms) in [
            ("1.2345", 1234),
            ("-5.5", -5500),
            ("1e11", 100_000_000_000_000),
            ("1e15", 1_000_000_000_000_000_000),
            ("1e16", -8_446_744_073_709_551_616),
            (FIRST, MIN_TIME.0),
            (LAST, MAX_TIME.0),
        ] {
            let moment = Moment::parse(text).unwrap();
            assert_eq!(moment.timestamp(), Timestamp(ms), "{text}");
        }
    }

    #[test]
    fn moments_are_ordered_as_go_orders_them() {
        let of = |text| Moment::parse(text).unwrap();
        assert!(of("1").is_before(of("1.001")));
        assert!(of("Inf").is_before(of("0")));
        assert_eq!(of("5").since(of("3.5")), 1_500_000_000);
        assert_eq!(of("1e11").since(of("0")), i64::MAX);
        assert_eq!(of("0").since(of("1e11")), i64::MIN);
    }
}
