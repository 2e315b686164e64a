//! Sizes in bytes as Prometheus writes them: `512MB`, `10MiB`, `0B`. Every unit counts by 1024.

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    #[error("units: invalid {0}")]
    Malformed(String),
    #[error("units: unknown unit {unit} in {text}")]
    UnknownUnit { unit: String, text: String },
    #[error("units: {0} is out of range")]
    OutOfRange(String),
}

const UNITS: [(&str, &str, u64); 7] = [
    ("EB", "EiB", 1 << 60),
    ("PB", "PiB", 1 << 50),
    ("TB", "TiB", 1 << 40),
    ("GB", "GiB", 1 << 30),
    ("MB", "MiB", 1 << 20),
    ("KB", "KiB", 1 << 10),
    ("B", "B", 1),
];

/// Bytes; numbers may have a fraction (`1.5GB`), and parts may follow each other (`1GiB512MiB`).
/// A bare `0` needs no unit.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    if text == "0" {
        return Ok(0);
    }
    let malformed = || SizeError::Malformed(text.to_owned());
    let numeric = |c: char| c.is_ascii_digit() || c == '.';
    let mut total = 0.0;
    let mut rest = text;
    loop {
        let digits = rest.find(|c| !numeric(c)).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let number: f64 = number.parse().map_err(|_| malformed())?;
        let (unit, tail) = tail.split_at(tail.find(numeric).unwrap_or(tail.len()));
        total += number * unit_bytes(unit, text)? as f64;
        if total >= i64::MAX as f64 {
            return Err(SizeError::OutOfRange(text.to_owned()));
        }
        if tail.is_empty() {
            return Ok(total as u64);
        }
        rest = tail;
    }
}

fn unit_bytes(unit: &str, text: &str) -> Result<u64, SizeError> {
    let named = UNITS
        .iter()
        .find(|(short, long, _)| unit == *short || unit == *long);
    let bytes = named.map(|(_, _, bytes)| *bytes);
    bytes.ok_or_else(|| SizeError::UnknownUnit {
        unit: unit.to_owned(),
        text: text.to_owned(),
    })
}

/// The shortest exact form by the large units: `10MiB`, `1GiB512MiB`, `0B`.
pub fn format_size(bytes: u64) -> String {
    if bytes == 0 {
        return "0B".to_owned();
    }
    let mut rest = bytes;
    let mut text = String::new();
    for (_, unit, unit_bytes) in UNITS {
        let count = rest / unit_bytes;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
            rest -= count * unit_bytes;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_prometheus_reads_them() {
        for (text, bytes) in [
            ("0", 0),
            ("0B", 0),
            ("512MB", 512 << 20),
            ("10MiB", 10 << 20),
            ("1.5GB", 3 << 29),
            ("1KB", 1024),
            ("1KiB476B", 1500),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for (text, message) in [
            ("10XB", "units: unknown unit XB in 10XB"),
            ("5", "units: unknown unit  in 5"),
            ("abc", "units: invalid abc"),
            ("", "units: invalid "),
            ("1.2.3MB", "units: invalid 1.2.3MB"),
            ("-1MB", "units: invalid -1MB"),
            ("9EB", "units: 9EB is out of range"),
        ] {
            assert_eq!(parse_size(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn sizes_write_as_prometheus_writes_them() {
        assert_eq!(format_size(10 << 20), "10MiB");
        assert_eq!(format_size(0), "0B");
        assert_eq!(format_size(1500), "1KiB476B");
    }
}
