//! What a pattern found, and templates that refer to it: `$1`, `${name}`, `$$`.

use regex_automata::util::captures;

/// The groups of one match in `text`.
#[derive(Debug)]
pub struct Captures<'t> {
    pub(super) text: &'t str,
    pub(super) found: captures::Captures,
    pub(super) names: &'t [(u32, Box<str>)],
}

impl<'t> Captures<'t> {
    /// What group `index` matched; the whole match is group 0. `None` when it took no part.
    pub fn get(&self, index: usize) -> Option<&'t str> {
        let span = self.found.get_group(index)?;
        self.text.get(span.start..span.end)
    }

    /// What the first group of that name that took part matched.
    pub fn name(&self, name: &str) -> Option<&'t str> {
        let mut groups = self.names.iter().filter(|(_, known)| **known == *name);
        groups.find_map(|(index, _)| self.get(*index as usize))
    }

    /// Appends `template` with its references replaced, as Go's `Regexp.Expand` does: a name is
    /// the longest run of letters, digits and underscores, an unknown one stands for nothing, and
    /// a dollar that begins no reference for itself.
    pub fn expand(&self, template: &str, into: &mut String) {
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('$') {
            into.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                into.push('$');
                rest = after;
            } else if let Some((reference, after)) = reference(after) {
                into.push_str(self.lookup(reference).unwrap_or_default());
                rest = after;
            } else {
                into.push('$');
                rest = after;
            }
        }
        into.push_str(rest);
    }

    fn lookup(&self, reference: &str) -> Option<&'t str> {
        match number(reference) {
            Some(index) => self.get(index),
            None => self.name(reference),
        }
    }
}

/// The name behind a dollar, in braces or without, and what follows it.
fn reference(text: &str) -> Option<(&str, &str)> {
    let (name, in_braces) = match text.strip_prefix('{') {
        Some(name) => (name, true),
        None => (text, false),
    };
    let end = name.find(|c: char| c != '_' && !c.is_alphanumeric());
    let (name, rest) = name.split_at(end.unwrap_or(name.len()));
    if name.is_empty() {
        return None;
    }
    let rest = if in_braces {
        rest.strip_prefix('}')?
    } else {
        rest
    };
    Some((name, rest))
}

/// A reference by number: decimal, without leading zeros.
fn number(name: &str) -> Option<usize> {
    let is_number = name.bytes().all(|b| b.is_ascii_digit()) && name.len() < 9;
    let is_padded = name.len() > 1 && name.starts_with('0');
    (is_number && !is_padded).then(|| name.parse().ok())?
}
