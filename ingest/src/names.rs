//! Names of other systems as names Prometheus takes in every form: `[a-zA-Z_:][a-zA-Z0-9_:]*` for
//! metrics, the same without colons for labels.

use std::borrow::Cow;

/// A metric's name: each other character becomes `_`, a digit in front gets one in front of it.
pub fn metric(name: &str) -> Cow<'_, str> {
    legal(name, |c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

/// A label's name, likewise, without colons.
pub fn label(name: &str) -> Cow<'_, str> {
    legal(name, |c| c.is_ascii_alphanumeric() || c == '_')
}

fn legal(name: &str, fits: impl Fn(char) -> bool) -> Cow<'_, str> {
    let digit = name.starts_with(|c: char| c.is_ascii_digit());
    if !digit && name.chars().all(&fits) {
        return Cow::Borrowed(name);
    }
    let mut out = String::with_capacity(name.len() + 1);
    if digit {
        out.push('_');
    }
    out.extend(name.chars().map(|c| if fits(c) { c } else { '_' }));
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_legal() {
        for (name, as_metric, as_label) in [
            ("cpu.load-1", "cpu_load_1", "cpu_load_1"),
            ("a:b", "a:b", "a_b"),
            ("5xx", "_5xx", "_5xx"),
            ("héé", "h__", "h__"),
            ("", "", ""),
        ] {
            assert_eq!((&*metric(name), &*label(name)), (as_metric, as_label));
        }
    }
}
