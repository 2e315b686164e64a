//! What the text of a number, a duration, a string stands for.

use crate::ast::StringLiteral;
use crate::error::Span;
use model::quote::quote;

/// A number token's value: integers in any base, else a float.
pub(super) fn number(text: &str) -> Result<f64, String> {
    if text.ends_with('_') {
        return Err(unreadable(text, "invalid syntax"));
    }
    if let Some(integer) = integer(text) {
        return Ok(integer as f64);
    }
    let plain = text.replace('_', "");
    let value: f64 = match plain.to_ascii_lowercase().as_str() {
        "inf" => f64::INFINITY,
        "nan" => f64::NAN,
        _ => plain
            .parse()
            .map_err(|_| unreadable(text, "invalid syntax"))?,
    };
    if value.is_infinite() && plain.bytes().any(|b| b.is_ascii_digit()) {
        return Err(unreadable(text, "value out of range"));
    }
    Ok(value)
}

fn unreadable(text: &str, why: &str) -> String {
    format!(
        "error parsing number: strconv.ParseFloat: parsing {}: {why}",
        quote(text)
    )
}

/// `31`, `0x1f`, `037`, `0o37`, underscores between digits.
fn integer(text: &str) -> Option<i64> {
    let plain = text.replace('_', "").to_ascii_lowercase();
    if let Some(hex) = plain.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok();
    }
    match plain.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => i64::from_str_radix(octal, 8).ok(),
        _ => plain.parse().ok(),
    }
}

/// Units from large to small, in milliseconds.
const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The longest duration, in milliseconds: what 63 bits of nanoseconds hold.
const DURATION_MS_MAX: i64 = i64::MAX / 1_000_000;

/// A duration token's milliseconds.
///
/// Reads what `model::time::parse_duration` reads; it is here again because the query language
/// words its refusals differently.
pub(super) fn duration_ms(text: &str) -> Result<i64, String> {
    let malformed = || format!("not a valid duration string: {}", quote(text));
    let out_of_range = || "duration out of range".to_owned();
    let mut units_left = &UNITS[..];
    let mut total_ms: i64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (count, tail) = rest.split_at(digits);
        let letters = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        if count.is_empty() || unit.is_empty() {
            return Err(malformed());
        }
        if !UNITS.iter().any(|(name, _)| *name == unit) {
            let (unit, whole) = (quote(unit), quote(text));
            return Err(format!("unknown unit {unit} in duration {whole}"));
        }
        let at = units_left
            .iter()
            .position(|(name, _)| *name == unit)
            .ok_or_else(malformed)?;
        let count: i64 = count.parse().map_err(|_| out_of_range())?;
        total_ms = count
            .checked_mul(units_left[at].1)
            .and_then(|ms| total_ms.checked_add(ms))
            .filter(|&ms| ms <= DURATION_MS_MAX)
            .ok_or_else(out_of_range)?;
        units_left = &units_left[at + 1..];
        rest = tail;
    }
    Ok(total_ms)
}

/// Milliseconds of a number of seconds, rounded to nanoseconds and then cut towards zero; `None`
/// when it is no duration.
pub(super) fn seconds_as_ms(seconds: f64) -> Option<i64> {
    let limit = i64::MAX as f64 / 1e9;
    let nanoseconds = (seconds * 1e9).round();
    (seconds > -limit && seconds < limit).then_some(nanoseconds as i64 / 1_000_000)
}

/// A string token's value. The lexer has checked its escapes.
pub(super) fn string(text: &str, span: Span) -> StringLiteral {
    let inner = text
        .get(1..text.len().saturating_sub(1))
        .unwrap_or_default();
    let bytes = if text.starts_with('`') {
        inner.as_bytes().to_vec()
    } else {
        unescape(inner)
    };
    match String::from_utf8(bytes) {
        Ok(value) => StringLiteral {
            value,
            not_utf8: None,
            span,
        },
        Err(error) => StringLiteral {
            value: String::from_utf8_lossy(error.as_bytes()).into_owned(),
            not_utf8: Some(error.into_bytes()),
            span,
        },
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (plain, escape) = rest.split_at(at);
        bytes.extend_from_slice(plain.as_bytes());
        rest = unescape_one(&escape[1..], &mut bytes);
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Decodes the escape that `text` starts with (its backslash already gone) and returns what is
/// left behind it.
fn unescape_one<'a>(text: &'a str, bytes: &mut Vec<u8>) -> &'a str {
    let mut chars = text.chars();
    let Some(c) = chars.next() else {
        return "";
    };
    let (skip, digits, base) = match c {
        '0'..='7' => (0, 3, 8),
        'x' => (1, 2, 16),
        'u' => (1, 4, 16),
        'U' => (1, 8, 16),
        _ => {
            bytes.extend_from_slice(plain_escape(c).encode_utf8(&mut [0; 4]).as_bytes());
            return chars.as_str();
        }
    };
    let number = text.get(skip..skip + digits).unwrap_or_default();
    let value = u32::from_str_radix(number, base).unwrap_or_default();
    match (c, char::from_u32(value)) {
        ('u' | 'U', Some(c)) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        _ => bytes.push(value as u8),
    }
    text.get(skip + digits..).unwrap_or_default()
}

fn plain_escape(c: char) -> char {
    match c {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        quote_or_backslash => quote_or_backslash,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_in_every_base() {
        for (text, value) in [
            ("31", 31.0),
            ("0755", 493.0),
            ("08", 8.0),
            ("0x1F", 31.0),
            ("1_000.5", 1000.5),
            ("2.", 2.0),
            (".5", 0.5),
            ("4.9e-324", 5e-324),
            ("9223372036854775808", 9_223_372_036_854_775_808.0),
        ] {
            assert_eq!(number(text), Ok(value), "{text}");
        }
        assert!(number("NaN").unwrap().is_nan());
        assert_eq!(number("inF"), Ok(f64::INFINITY));
        assert!(number("1e400").unwrap_err().ends_with("value out of range"));
        assert!(number("0x").unwrap_err().ends_with("invalid syntax"));
    }

    #[test]
    fn durations_name_each_unit_once_from_large_to_small() {
        assert_eq!(duration_ms("1h30m5ms"), Ok(5_400_005));
        assert_eq!(
            duration_ms("1m1h").unwrap_err(),
            r#"not a valid duration string: "1m1h""#
        );
        assert_eq!(
            duration_ms("1.5s").unwrap_err(),
            r#"unknown unit "." in duration "1.5s""#
        );
        assert_eq!(duration_ms("300y").unwrap_err(), "duration out of range");
    }

    #[test]
    fn strings_decode_bytes_and_code_points() {
        let value = |text: &str| string(text, Span::default()).value;
        assert_eq!(value(r#""a\x41\u00e9\101\n\"""#), "aAéA\n\"");
        assert_eq!(value(r"'it\'s'"), "it's");
        assert_eq!(value(r"`raw \n`"), r"raw \n");
        let broken = string(r#""a\xc5z""#, Span::default());
        assert_eq!(broken.not_utf8, Some(b"a\xc5z".to_vec()));
        assert_eq!(broken.value, "a\u{fffd}z");
    }
}
