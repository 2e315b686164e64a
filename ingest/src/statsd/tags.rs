//! Tags: in the name (`name[a=b]rest`, `name#a=b`, `name,a=b`) or behind it (`|#a:b`).

use std::borrow::Cow;

use crate::names;

/// A name without its tags.
pub struct Name<'a> {
    pub name: Cow<'a, str>,
    pub tags: Vec<(String, String)>,
}

/// Takes the tags out of a name: SignalFX's in brackets, Librato's behind `#`, InfluxDB's behind a
/// comma.
pub fn of_name<'a>(name: &'a str, bad: &mut u64) -> Name<'a> {
    let plain = |name| Name {
        name: Cow::Borrowed(name),
        tags: Vec::new(),
    };
    let mut tags = Vec::new();
    match (name.find('['), name.find(']')) {
        (Some(start), Some(end)) if start < end => {
            read(&name[start + 1..end], '=', &mut tags, bad);
            let name = format!("{}{}", &name[..start], &name[end + 1..]);
            return Name {
                name: name.into(),
                tags,
            };
        }
        (None, None) => {}
        _ => {
            *bad += 1;
            return plain(name);
        }
    }
    match name.find(['#', ',']) {
        None => plain(name),
        Some(at) => {
            read(&name[at + 1..], '=', &mut tags, bad);
            Name {
                name: Cow::Borrowed(&name[..at]),
                tags,
            }
        }
    }
}

/// Datadog's tags; a `#` in front of one is taken off.
pub fn of_datadog(text: &str, tags: &mut Vec<(String, String)>, bad: &mut u64) {
    read(text, ':', tags, bad);
}

/// Two underscores in front are for labels that no sender gives: a page with one cannot be read.
fn unreserved(name: &str) -> String {
    match name.strip_prefix("__") {
        Some(rest) => format!("_{}", rest.trim_start_matches('_')),
        None => name.to_owned(),
    }
}

/// A comma at the end says nothing; a tag without a name or value is left out.
fn read(text: &str, separator: char, tags: &mut Vec<(String, String)>, bad: &mut u64) {
    let text = text.strip_suffix(',').unwrap_or(text);
    if text.is_empty() {
        return;
    }
    for tag in text.split(',') {
        let tag = match separator {
            ':' => tag.strip_prefix('#').unwrap_or(tag),
            _ => tag,
        };
        let pair = tag.split_once(separator);
        match pair.filter(|(name, value)| !name.is_empty() && !value.is_empty()) {
            Some((name, value)) => tags.push((unreserved(&names::label(name)), value.to_owned())),
            None => *bad += 1,
        }
    }
}
