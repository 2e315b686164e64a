//! Templates of names and label values: `$1`, `${1}`.

/// Appends `template` with its references replaced. A reference is the longest run of letters,
/// digits and underscores behind the dollar, so `$1_x` names no capture; what names none stands
/// for nothing.
pub fn expand(template: &str, captures: &[&str], into: &mut String) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        into.push_str(before);
        let Some((reference, behind)) = reference(after) else {
            into.push('$');
            rest = after;
            continue;
        };
        let index = reference.parse::<usize>().ok();
        let index = index.and_then(|index| index.checked_sub(1));
        let captured = index.and_then(|index| captures.get(index));
        into.push_str(captured.copied().unwrap_or_default());
        rest = behind;
    }
    into.push_str(rest);
}

/// What stands behind a dollar, and the rest.
fn reference(text: &str) -> Option<(&str, &str)> {
    let (inner, braced) = match text.strip_prefix('{') {
        Some(inner) => (inner, true),
        None => (text, false),
    };
    let end = inner.find(|c: char| c != '_' && !c.is_ascii_alphanumeric());
    let (reference, behind) = inner.split_at(end.unwrap_or(inner.len()));
    let behind = match braced {
        true => behind.strip_prefix('}')?,
        false => behind,
    };
    (!reference.is_empty()).then_some((reference, behind))
}

/// Whether a template is made of what names of metrics are made of, and numbered references.
pub fn is_name(template: &str) -> bool {
    let mut rest = template;
    let mut first = true;
    while let Some(c) = rest.chars().next() {
        let numbered = rest.strip_prefix('$').and_then(numbered);
        if let Some(behind) = numbered {
            rest = behind;
        } else if c == '_' || c.is_ascii_alphabetic() || (!first && c.is_ascii_digit()) {
            rest = &rest[1..];
        } else {
            return false;
        }
        first = false;
    }
    !first
}

/// What stands behind `1` or `{1}`.
fn numbered(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('{').unwrap_or(text);
    let digits = inner.trim_start_matches(|c: char| c.is_ascii_digit());
    let behind = (digits.len() < inner.len()).then_some(digits)?;
    Some(behind.strip_prefix('}').unwrap_or(behind))
}
