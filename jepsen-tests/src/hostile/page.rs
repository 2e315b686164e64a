//! The text format, read strictly (prometheus.io/docs/instrumenting/exposition_formats): every line
//! is a comment or a sample, names and escapes are legal, values are numbers, a family has one TYPE
//! that stands before its samples, and no series comes twice. Only a bucket or quantile may: a
//! Pushgateway shows again what was pushed so. Beside HELP and TYPE a comment may say what was left out.

use std::collections::{BTreeMap, BTreeSet};

/// What a page holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub families: usize,
    /// Each line without its value, and the value.
    pub samples: BTreeMap<String, String>,
}

/// Reads a page, or says what the first wrong line is.
pub fn read(text: &str) -> Result<Page, String> {
    let mut page = Page::default();
    let mut typed: BTreeMap<&str, &str> = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut begun = BTreeSet::new();
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("the last line does not end".to_owned());
    }
    for line in text.lines() {
        let wrong = |why: &str| {
            Err(format!(
                "{why}: {}",
                line.chars().take(300).collect::<String>()
            ))
        };
        if line.starts_with("# left out: ") {
            continue;
        }
        if let Some(comment) = line.strip_prefix("# ") {
            let mut parts = comment.splitn(3, ' ');
            let (what, name, rest) = (parts.next(), parts.next(), parts.next());
            let Some(name) = name.filter(|name| is_name(name, true)) else {
                return wrong("a comment without a metric's name");
            };
            match (what, rest) {
                (Some("HELP"), Some(text)) if is_help(text) && helped.insert(name) => {}
                (Some("TYPE"), Some(kind)) if is_kind(kind) && !begun.contains(name) => {
                    if typed.insert(name, kind).is_some() {
                        return wrong("a second TYPE");
                    }
                    page.families += 1;
                }
                _ => return wrong("a wrong comment"),
            }
            continue;
        }
        let (series, value) = match sample(line) {
            Ok(parts) => parts,
            Err(why) => return wrong(why),
        };
        let name = series.split('{').next().unwrap_or_default();
        let family = family_of(name, &typed);
        let Some(family) = family else {
            return wrong("a sample without TYPE");
        };
        begun.insert(family);
        let before = page.samples.insert(series.to_owned(), value.to_owned());
        let has_bound = ["le=\"", "quantile=\""].iter().any(|b| series.contains(b));
        if before.is_some() && !has_bound {
            return wrong("a series twice");
        }
    }
    Ok(page)
}

/// The family whose sample `name` is, by its suffix if its type has parts. Pushes that contradict each
/// other and were under way together make a family untyped, which then has the parts of any.
fn family_of<'a>(name: &'a str, typed: &BTreeMap<&'a str, &'a str>) -> Option<&'a str> {
    if typed.contains_key(name) {
        return Some(name);
    }
    let parts = [("_bucket", "histogram"), ("_sum", ""), ("_count", "")];
    parts.into_iter().find_map(|(suffix, wanted)| {
        let stem = name.strip_suffix(suffix)?;
        let kind = typed.get(stem)?;
        let fits = match wanted {
            "" => *kind == "histogram" || *kind == "summary",
            wanted => *kind == wanted,
        };
        let fits = fits || *kind == "untyped";
        fits.then_some(stem)
    })
}

fn is_kind(kind: &str) -> bool {
    ["counter", "gauge", "histogram", "summary", "untyped"].contains(&kind)
}

fn is_help(text: &str) -> bool {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\\' && !matches!(chars.next(), Some('\\' | 'n')) {
            return false;
        }
    }
    true
}

fn is_name(name: &str, colon: bool) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || (colon && c == ':');
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

/// A line's series and value.
fn sample(line: &str) -> Result<(&str, &str), &'static str> {
    let name_len = line.find(['{', ' ']).ok_or("no value")?;
    if !is_name(&line[..name_len], true) {
        return Err("not a metric's name");
    }
    let mut end = name_len;
    if line[name_len..].starts_with('{') {
        end += labels(&line[name_len..])?;
    }
    let value = line[end..]
        .strip_prefix(' ')
        .ok_or("no blank before the value")?;
    match is_number(value) {
        true => Ok((&line[..end], value)),
        false => Err("not a number"),
    }
}

/// The length of what stands in braces.
fn labels(text: &str) -> Result<usize, &'static str> {
    let mut seen = BTreeSet::new();
    let mut rest = &text[1..];
    loop {
        let equals = rest.find('=').ok_or("no label's value")?;
        let name = &rest[..equals];
        if !is_name(name, false) || !seen.insert(name) {
            return Err("a label's name that is none, or twice");
        }
        rest = rest[equals + 1..]
            .strip_prefix('"')
            .ok_or("a value without quotes")?;
        rest = &rest[quoted(rest)?..];
        if let Some(behind) = rest.strip_prefix('}') {
            return Ok(text.len() - behind.len());
        }
        rest = rest.strip_prefix(',').ok_or("no comma between labels")?;
    }
}

/// The length of a quoted text behind its first quote, the last one included.
fn quoted(text: &str) -> Result<usize, &'static str> {
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Ok(at + 1),
            b'\\' => match bytes.next() {
                Some((_, b'\\' | b'"' | b'n')) => {}
                _ => return Err("an escape that is none"),
            },
            _ => {}
        }
    }
    Err("a value that does not end")
}

fn is_number(text: &str) -> bool {
    ["NaN", "+Inf", "-Inf"].contains(&text)
        || (text
            .bytes()
            .all(|b| b.is_ascii_digit() || b"+-.e".contains(&b))
            && text.parse::<f64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_page_is_read() {
        let page = read(
            "# HELP a x\\n\\\\y\n# TYPE a gauge\na{b=\"c\\\"\\n\",d=\"\"} 1e+06\na 2\n\
             # TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum NaN\nh_count 1\n",
        )
        .unwrap();
        assert_eq!((page.families, page.samples.len()), (2, 5));
        assert_eq!(page.samples["a"], "2");
        let contradicted = "# TYPE h untyped\nh{a=\"b\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_sum 2\n";
        assert_eq!(read(contradicted).map(|page| page.families), Ok(1));
    }

    #[test]
    fn wrong_lines_are_told() {
        for (text, why) in [
            ("a 1\n", "a sample without TYPE"),
            ("# TYPE a gauge\na 1", "does not end"),
            ("# TYPE a gauge\na 1\na 2\n", "a series twice"),
            ("# TYPE a gauge\na one\n", "not a number"),
            ("# TYPE a gauge\na{b=\"\\x\"} 1\n", "an escape that is none"),
            ("# TYPE a gauge\na{b=\"c} 1\n", "a value that does not end"),
            ("# TYPE a gauge\na{b=\"c\",b=\"d\"} 1\n", "or twice"),
            ("# TYPE a gauge\n# TYPE a gauge\n", "a second TYPE"),
            ("# TYPE a gauge\na 1\n# TYPE a counter\n", "a wrong comment"),
            ("# TYPE s summary\ns_bucket 1\n", "a sample without TYPE"),
            ("# TYPE a-b gauge\n", "without a metric's name"),
            ("1a 1\n", "not a metric's name"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }
}
