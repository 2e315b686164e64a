//! Floats as text, digit for digit as Go's `strconv` prints and reads them, since every surface
//! of Prometheus shows them that way.
//!
//! Promise: the digits are the shortest that read back to the same bits (Ryū, Adams 2018); only
//! their layout differs between the forms. Not here: timestamps, durations.

mod hexadecimal;

/// The NaN that stands for every NaN read from text (Prometheus, `value.NormalNaN`), so that
/// equal texts are equal bits.
pub const NORMAL_NAN: f64 = f64::from_bits(0x7ff8_0000_0000_0001);

/// A value as the exposition formats of client_golang write it: `0` (also for -0), `1.5`,
/// `1e+06`, `+Inf`, `NaN`.
pub fn write_exposition(out: &mut String, value: f64) {
    if value == 0.0 {
        return out.push('0');
    }
    write(out, value, Layout::General);
}

/// [`write_exposition`] into a new text; Go's `'g'`, -1.
pub fn exposition(value: f64) -> String {
    let mut out = String::new();
    write_exposition(&mut out, value);
    out
}

/// A value as Prometheus' JSON shows it: plain from 1e-6 up to 1e21, else `1e-07`, `1e+21`.
/// Without the quotes.
pub fn write_json(out: &mut String, value: f64) {
    let size = value.abs();
    if size < WHOLE_MAX && size.fract() == 0.0 {
        if value.is_sign_negative() {
            out.push('-');
        }
        return write_whole(out, size as u64);
    }
    let plain = size == 0.0 || (1e-6..1e21).contains(&size);
    let layout = if plain {
        Layout::Plain
    } else {
        Layout::Exponent
    };
    write(out, value, layout);
}

/// Whole numbers below this are floats, each of their own.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// A whole number, in decimal.
pub fn write_whole(out: &mut String, mut value: u64) {
    let mut digits = [b'0'; 20];
    let mut from = digits.len();
    loop {
        from -= 1;
        digits[from] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.push_str(std::str::from_utf8(&digits[from..]).expect("digits are ASCII"));
}

/// [`write_json`] into a new text.
pub fn json(value: f64) -> String {
    let mut out = String::new();
    write_json(&mut out, value);
    out
}

/// A value without any exponent, however long; Go's `'f'`, -1 (PromQL's `count_values` labels).
pub fn plain(value: f64) -> String {
    let mut out = String::new();
    write(&mut out, value, Layout::Plain);
    out
}

/// A value of the `le` and `quantile` labels in OpenMetrics' canonical form: as
/// [`write_exposition`], with `.0` behind whole numbers.
pub fn bound(value: f64) -> String {
    let mut out = exposition(value);
    if value.is_finite() && !out.contains(['.', 'e']) {
        out.push_str(".0");
    }
    out
}

/// Reads a decimal number, `Inf`, `Infinity` (signed or not) or `NaN`, in any case, as Prometheus
/// and Pushgateway read a sample's value. `None` for everything else, for hexadecimal and `_`
/// (they keep to the forms before Go 1.13) and for finite texts beyond the range of a double.
pub fn parse(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    if value.is_nan() {
        return (!text.starts_with(['+', '-'])).then_some(NORMAL_NAN);
    }
    let finite_text = text.ends_with(|c: char| c.is_ascii_digit() || c == '.');
    (value.is_finite() || !finite_text).then_some(value)
}

/// As [`parse`], with `_` between digits and hexadecimal (`0x1.8p3`): what Go's `ParseFloat` takes
/// today, which reads the API's times and the bounds of buckets.
pub fn parse_literal(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let hexadecimal = unsigned
        .strip_prefix("0x")
        .or_else(|| unsigned.strip_prefix("0X"));
    if text.contains('_') && !is_separated(unsigned, hexadecimal.is_some()) {
        return None;
    }
    match hexadecimal {
        Some(digits) => {
            let size = hexadecimal::parse(&digits.replace('_', ""))?;
            Some(if text.starts_with('-') { -size } else { size })
        }
        None if text.contains('_') => parse(&text.replace('_', "")),
        None => parse(text),
    }
}

/// Whether each `_` stands between digits, of which a base's prefix is one.
fn is_separated(unsigned: &str, is_hexadecimal: bool) -> bool {
    let bytes = unsigned.as_bytes();
    let is_digit = |at: usize| match bytes.get(at) {
        Some(byte) if is_hexadecimal => at == 1 || byte.is_ascii_hexdigit(),
        Some(byte) => byte.is_ascii_digit(),
        None => false,
    };
    let mut separators = unsigned.match_indices('_').map(|(at, _)| at);
    separators.all(|at| at > 0 && is_digit(at - 1) && is_digit(at + 1))
}

#[derive(Clone, Copy)]
enum Layout {
    /// Exponent below 1e-4 and from 1e6.
    General,
    Plain,
    Exponent,
}

fn write(out: &mut String, value: f64, layout: Layout) {
    if value.is_nan() {
        return out.push_str("NaN");
    }
    if value.is_infinite() {
        return out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    }
    if value.is_sign_negative() {
        out.push('-');
    }
    let digits = Digits::of(value.abs());
    let exponent = digits.point - 1;
    match layout {
        Layout::General if !(-4..6).contains(&exponent) => digits.write_exponent(out),
        Layout::General | Layout::Plain => digits.write_plain(out),
        Layout::Exponent => digits.write_exponent(out),
    }
}

/// `0.d1d2d3… × 10^point`, no zero in front or behind; zero is the single digit `0`, point 1.
struct Digits {
    digits: [u8; 24],
    len: usize,
    point: i32,
}

impl Digits {
    fn of(value: f64) -> Self {
        let mut buffer = ryu::Buffer::new();
        let text = buffer.format_finite(value);
        let (mantissa, exponent) = match text.split_once('e') {
            Some((m, e)) => (m, e.parse().expect("ryu writes a whole exponent")),
            None => (text, 0),
        };
        let mut it = Self {
            digits: [0; 24],
            len: 0,
            point: exponent,
        };
        let mut behind_point = false;
        for byte in mantissa.bytes() {
            if byte == b'.' {
                behind_point = true;
                continue;
            }
            let leading = it.len == 0 && byte == b'0';
            it.point += match (behind_point, leading) {
                (false, false) => 1,
                (true, true) => -1,
                _ => 0,
            };
            if !leading {
                it.digits[it.len] = byte;
                it.len += 1;
            }
        }
        while it.len > 0 && it.digits[it.len - 1] == b'0' {
            it.len -= 1;
        }
        if it.len == 0 {
            (it.digits[0], it.len, it.point) = (b'0', 1, 1);
        }
        it
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.digits[..self.len]).expect("digits are ASCII")
    }

    fn write_plain(&self, out: &mut String) {
        let text = self.text();
        let zeros = |out: &mut String, count: usize| out.extend(std::iter::repeat_n('0', count));
        match usize::try_from(self.point) {
            Ok(point) if point >= text.len() => {
                out.push_str(text);
                zeros(out, point - text.len());
            }
            Ok(point) if point > 0 => {
                out.push_str(&text[..point]);
                out.push('.');
                out.push_str(&text[point..]);
            }
            _ => {
                out.push_str("0.");
                zeros(out, self.point.unsigned_abs() as usize);
                out.push_str(text);
            }
        }
    }

    fn write_exponent(&self, out: &mut String) {
        let (first, rest) = self.text().split_at(1);
        out.push_str(first);
        if !rest.is_empty() {
            out.push('.');
            out.push_str(rest);
        }
        let exponent = if self.text() == "0" {
            0
        } else {
            self.point - 1
        };
        out.push_str(if exponent < 0 { "e-" } else { "e+" });
        out.push_str(&format!("{:02}", exponent.unsigned_abs()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Texts as prometheus 3.5.3 and pushgateway 1.11.2 print them.
    #[test]
    fn forms_are_those_of_go() {
        for (value, in_exposition, in_json, as_bound) in [
            (0.0, "0", "0", "0.0"),
            (-0.0, "0", "-0", "0.0"),
            (1.0, "1", "1", "1.0"),
            (-1.5, "-1.5", "-1.5", "-1.5"),
            (100_000.0, "100000", "100000", "100000.0"),
            (999_999.5, "999999.5", "999999.5", "999999.5"),
            (1e6, "1e+06", "1000000", "1e+06"),
            (
                123_456_789.0,
                "1.23456789e+08",
                "123456789",
                "1.23456789e+08",
            ),
            (0.0001, "0.0001", "0.0001", "0.0001"),
            (0.000_012, "1.2e-05", "0.000012", "1.2e-05"),
            (1e-7, "1e-07", "1e-07", "1e-07"),
            (1e20, "1e+20", "100000000000000000000", "1e+20"),
            (1e21, "1e+21", "1e+21", "1e+21"),
            (5e-324, "5e-324", "5e-324", "5e-324"),
            (
                f64::MAX,
                "1.7976931348623157e+308",
                "1.7976931348623157e+308",
                "1.7976931348623157e+308",
            ),
            (f64::NAN, "NaN", "NaN", "NaN"),
            (f64::INFINITY, "+Inf", "+Inf", "+Inf"),
            (f64::NEG_INFINITY, "-Inf", "-Inf", "-Inf"),
        ] {
            assert_eq!(exposition(value), in_exposition);
            assert_eq!(json(value), in_json);
            assert_eq!(bound(value), as_bound);
        }
        assert_eq!(plain(1e22), "10000000000000000000000");
    }

    #[test]
    fn only_decimal_texts_are_numbers() {
        for (text, value) in [
            ("1", 1.0),
            ("+.5", 0.5),
            ("5.", 5.0),
            ("1E3", 1000.0),
            ("1e-400", 0.0),
            ("+inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
        ] {
            assert_eq!(parse(text), Some(value), "{text}");
        }
        for text in ["nan", "NaN"] {
            assert_eq!(parse(text).map(f64::to_bits), Some(NORMAL_NAN.to_bits()));
        }
        for text in [
            "", ".", "-", "e1", "1e", "0x10", "0x1p3", "1_0", "+nan", "1e400", "infi", " 1",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    /// Prometheus 3.5.3: `curl ':9090/api/v1/query?query=time()&time=…'`.
    #[test]
    fn literals_are_those_of_go() {
        for (text, value) in [
            ("1_000", 1000.0),
            ("-1_0.0_5e1_0", -1.005e11),
            ("2", 2.0),
            ("0x1p4", 16.0),
            ("-0X_1.8P+1", -3.0),
            ("0x.8p1_0", 512.0),
            ("0xf_fp0", 255.0),
        ] {
            assert_eq!(parse_literal(text), Some(value), "{text}");
        }
        for text in [
            "_1", "1_", "1__0", "1_.5", "1._5", "1e_5", "_", "n_an", "1 0", "0x", "0x10", "0xp1",
            "0x1p", "0x1_p1", "0_x1p1", "0x1p_1", "0b1", "0o7", "--1", "0x-1p1",
        ] {
            assert_eq!(parse_literal(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn whole_numbers_are_written_as_any_other(whole in any::<i64>()) {
            for value in [whole, whole >> 10, whole >> 40] {
                let value = value as f64;
                let mut slow = String::new();
                write(&mut slow, value, Layout::Plain);
                prop_assert_eq!(json(value), slow);
            }
        }
    }

    proptest! {
        #[test]
        fn every_form_reads_back_to_the_same_bits(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite() && value != 0.0);
            for text in [exposition(value), json(value), plain(value), bound(value)] {
                prop_assert_eq!(parse(&text).map(f64::to_bits), Some(bits), "{}", text);
            }
        }
    }
}
