//! The URL of a push: `/metrics/job/<job>{/<label>/<value>}`.
//!
//! Percent-escapes are undone before the path is cut, as in the original, so a value that holds a
//! slash is written in base64: `/job@base64/<value>`, `/<label>@base64/<value>`; URL-safe, padded
//! or not. Unlike the original, a value that is not UTF-8 is refused here and now: there it makes
//! every later push fail.

use model::group::GroupingKey;
use model::quote::quote_bytes;

use super::Names;

/// Why a path names no group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The path is none of a push at all.
    #[error("404 page not found")]
    NotFound,
    #[error("{0}")]
    Invalid(String),
}

const BASE64: &str = "@base64";

/// Reads the raw (still percent-escaped) path of a push, without query.
pub fn parse(raw_path: &str, names: Names) -> Result<GroupingKey, PathError> {
    let path = undo_percent(raw_path)?;
    let rest = path
        .strip_prefix("/metrics/job")
        .ok_or(PathError::NotFound)?;
    let (in_base64, rest) = match rest.strip_prefix(BASE64) {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.strip_prefix('/').ok_or(PathError::NotFound)?;
    let (job, labels) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let job = match in_base64 {
        true => decode_base64(job).map_err(|reason| {
            invalid(format!(
                "invalid base64 encoding in job name \"\": {reason}"
            ))
        })?,
        false => job.to_owned(),
    };
    let mut pairs = split_labels(labels, names)?;
    // Every metric shows the instance, empty where there is none: two groups that only this told apart
    // would show each series twice.
    pairs.retain(|(name, value)| name != "instance" || !value.is_empty());
    pairs.push(("job".to_owned(), job));
    GroupingKey::new(pairs).ok_or_else(|| invalid("job name is required"))
}

fn invalid(text: impl Into<String>) -> PathError {
    PathError::Invalid(text.into())
}

/// Cuts `/name/value/name/value`; the value behind the last slash may be empty.
fn split_labels(labels: &str, names: Names) -> Result<Vec<(String, String)>, PathError> {
    let Some(inner) = labels.strip_prefix('/').filter(|inner| !inner.is_empty()) else {
        return Ok(Vec::new());
    };
    let parts: Vec<&str> = inner.split('/').collect();
    if !parts.len().is_multiple_of(2) {
        return Err(invalid(format!(
            "odd number of components in label string {}",
            quote_bytes(labels)
        )));
    }
    let pairs = parts.chunks_exact(2).map(|pair| (pair[0], pair[1]));
    pairs
        .map(|(name, value)| label(name, value, names))
        .collect()
}

fn label(component: &str, value: &str, names: Names) -> Result<(String, String), PathError> {
    let (raw_name, in_base64) = match component.strip_suffix(BASE64) {
        Some(name) => (name, true),
        None => (component, false),
    };
    let name = match names {
        Names::Legacy => raw_name.to_owned(),
        Names::Utf8 => unescape_name(raw_name),
    };
    if !names.allow_label(&name) || name.starts_with("__") {
        return Err(invalid(format!(
            "improper label name {}",
            quote_bytes(raw_name)
        )));
    }
    if !in_base64 {
        return Ok((name, value.to_owned()));
    }
    match decode_base64(value) {
        Ok(decoded) => Ok((name, decoded)),
        Err(reason) => Err(invalid(format!(
            "invalid base64 encoding for label {name}={}: {reason}",
            quote_bytes(value)
        ))),
    }
}

/// Undoes `%41`; a malformed escape is refused, as Go's server refuses it.
fn undo_percent(raw: &str) -> Result<String, PathError> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let escape = after
            .get(..2)
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = escape.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.ok_or_else(|| {
            let shown: String = after.chars().take(2).collect();
            invalid(format!(
                "invalid URL escape {}",
                quote_bytes(format!("%{shown}"))
            ))
        })?);
        rest = after.get(2..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes)
        .map_err(|e| invalid(format!("path is not UTF-8: {}", quote_bytes(e.as_bytes()))))
}

/// URL-safe base64, padding and line ends ignored; the reason names the byte as Go does.
fn decode_base64(text: &str) -> Result<String, String> {
    let (mut word, mut digits) = (0u32, 0);
    let mut group_at = 0;
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for (at, byte) in text.trim_end_matches('=').bytes().enumerate() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            b'\r' | b'\n' => continue,
            _ => return Err(format!("illegal base64 data at input byte {at}")),
        };
        if digits == 0 {
            group_at = at;
        }
        word = (word << 6 | u32::from(digit)) & 0x00ff_ffff;
        digits = (digits + 1) % 4;
        match digits {
            1 => {}
            2 => bytes.push((word >> 4) as u8),
            3 => bytes.push((word >> 2) as u8),
            _ => bytes.push(word as u8),
        }
    }
    if digits == 1 {
        return Err(format!("illegal base64 data at input byte {group_at}"));
    }
    String::from_utf8(bytes).map_err(|e| format!("{} is not UTF-8", quote_bytes(e.as_bytes())))
}

/// Undoes the `U__` form of a name (Prometheus' UTF-8 proposal): `__` is `_`, `_2e_` is U+002E.
/// A name that does not follow it stands for itself.
fn unescape_name(name: &str) -> String {
    let undo = || {
        let mut rest = name.strip_prefix("U__")?;
        let mut plain = String::new();
        while let Some((before, after)) = rest.split_once('_') {
            plain.push_str(before);
            let (code, tail) = after.split_once('_')?;
            plain.push(match code {
                "" => '_',
                code => char::from_u32(u32::from_str_radix(code, 16).ok()?)?,
            });
            rest = tail;
        }
        plain.push_str(rest);
        Some(plain)
    };
    undo().unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(path: &str) -> Result<Vec<(String, String)>, String> {
        let owned = |(n, v): (&str, &str)| (n.to_owned(), v.to_owned());
        parse(path, Names::Legacy)
            .map(|key| key.iter().map(owned).collect())
            .map_err(|e| e.to_string())
    }

    /// Paths and answers as pushgateway 1.11.2 gave them.
    #[test]
    fn paths_are_read_as_pushgateway_reads_them() {
        for (path, pairs) in [
            ("/metrics/job/a", &[("job", "a")][..]),
            ("/metrics/job/a/", &[("job", "a")]),
            ("/metrics/job/%20", &[("job", " ")]),
            ("/metrics/job/a/b/", &[("b", ""), ("job", "a")]),
            ("/metrics/job/a/b/c+d", &[("b", "c+d"), ("job", "a")]),
            ("/metrics/job/a/b/c/b/d", &[("b", "d"), ("job", "a")]),
            ("/metrics/job/a/job/d", &[("job", "a")]),
            ("/metrics/job/a/%62/é", &[("b", "é"), ("job", "a")]),
            ("/metrics/job@base64/YQ==", &[("job", "a")]),
            ("/metrics/job%40base64/YQ", &[("job", "a")]),
            (
                "/metrics/job@base64/L2E_/b/c",
                &[("b", "c"), ("job", "/a?")],
            ),
            ("/metrics/job/a/b@base64/=", &[("b", ""), ("job", "a")]),
            ("/metrics/job/a/b@base64/", &[("b", ""), ("job", "a")]),
            ("/metrics/job/a/b@base64/YQ===", &[("b", "a"), ("job", "a")]),
            ("/metrics/job/a/b@base64/YR", &[("b", "a"), ("job", "a")]),
            ("/metrics/job/a/b@base64/YQ%0A", &[("b", "a"), ("job", "a")]),
            (
                "/metrics/job/a/b%40base64/4p-c",
                &[("b", "⟜"), ("job", "a")],
            ),
            ("/metrics/job/a/U__b/c", &[("U__b", "c"), ("job", "a")]),
        ] {
            let pairs = pairs
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
            assert_eq!(read(path), Ok(pairs.collect()), "{path}");
        }
    }

    #[test]
    fn bad_paths_are_refused_in_its_words() {
        for (path, error) in [
            ("/metrics/jobs/a", "404 page not found"),
            ("/metrics", "404 page not found"),
            ("/metrics/job", "404 page not found"),
            ("/metrics/job/", "job name is required"),
            ("/metrics/job@base64/=", "job name is required"),
            (
                "/metrics/job/a/b",
                r#"odd number of components in label string "/b""#,
            ),
            (
                "/metrics/job/a/b/c%2Fd",
                r#"odd number of components in label string "/b/c/d""#,
            ),
            ("/metrics/job/a/b-c/d", r#"improper label name "b-c""#),
            ("/metrics/job/a/__x/d", r#"improper label name "__x""#),
            ("/metrics/job/a/b:c/d", r#"improper label name "b:c""#),
            ("/metrics/job/a/@base64/YQ", r#"improper label name """#),
            (
                "/metrics/job/a/b@base64x/c",
                r#"improper label name "b@base64x""#,
            ),
            (
                "/metrics/job@base64/Y!",
                r#"invalid base64 encoding in job name "": illegal base64 data at input byte 1"#,
            ),
            (
                "/metrics/job/a/b@base64/4p+c",
                r#"invalid base64 encoding for label b="4p+c": illegal base64 data at input byte 2"#,
            ),
            (
                "/metrics/job/a/b@base64/Y",
                r#"invalid base64 encoding for label b="Y": illegal base64 data at input byte 0"#,
            ),
            (
                "/metrics/job/a/b@base64/YW=Jj",
                r#"invalid base64 encoding for label b="YW=Jj": illegal base64 data at input byte 2"#,
            ),
        ] {
            assert_eq!(read(path), Err(error.to_owned()), "{path}");
        }
        for path in [
            "/metrics/job/a/b@base64/_w",
            "/metrics/job/%ff",
            "/metrics/job/%4",
        ] {
            assert!(read(path).is_err(), "{path}");
        }
    }

    /// Pushgateway 1.11.2 takes them for two, and then shows no metrics at all.
    #[test]
    fn an_empty_instance_is_none() {
        let with = parse("/metrics/job/a/instance@base64/=", Names::Legacy);
        assert_eq!(with, parse("/metrics/job/a", Names::Legacy));
        let zone = parse("/metrics/job/a/zone@base64/=", Names::Legacy);
        assert_ne!(zone, with);
    }

    #[test]
    fn utf8_names_come_escaped() {
        let key = parse("/metrics/job/a/U__b_2e_c__d/v", Names::Utf8).unwrap();
        assert!(key.iter().any(|pair| pair == ("b.c_d", "v")));
        assert_eq!(unescape_name("U__b_zz_"), "U__b_zz_");
    }

    proptest! {
        #[test]
        fn any_value_survives_base64(job in "\\PC{1,40}") {
            use base64_of as encode;
            let path = format!("/metrics/job@base64/{}", encode(&job));
            let key = parse(&path, Names::Legacy).unwrap();
            prop_assert_eq!(key.iter().next(), Some(("job", job.as_str())));
        }

        #[test]
        fn any_path_is_answered(path in "(/metrics/job(@base64)?/)?[a-z@/%=_0-9é]{0,40}") {
            let _ = parse(&path, Names::Utf8);
        }
    }

    fn base64_of(text: &str) -> String {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let bits: String = text.bytes().map(|b| format!("{b:08b}")).collect();
        let sextets = bits.as_bytes().chunks(6).map(|six| {
            let six = format!("{:0<6}", std::str::from_utf8(six).unwrap());
            char::from(DIGITS[usize::from_str_radix(&six, 2).unwrap()])
        });
        sextets.collect()
    }
}
