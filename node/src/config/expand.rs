//! `$NAME` and `${NAME}` in external labels, as Prometheus (Go's `os.Expand`) puts them in.

/// Replaces variables; one that is not set becomes the empty text, `$$` a dollar.
pub fn expand(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let (name, tail) = split_name(after);
        match name {
            Name::None => expanded.push('$'),
            Name::Malformed => {}
            Name::Dollar => expanded.push('$'),
            Name::Variable(name) => expanded.push_str(&variable(name).unwrap_or_default()),
        }
        rest = tail;
    }
    expanded.push_str(rest);
    expanded
}

enum Name<'t> {
    /// A dollar before something that cannot be a name: it stays.
    None,
    /// `${}` or an unclosed brace: it vanishes.
    Malformed,
    Dollar,
    Variable(&'t str),
}

fn split_name(after: &str) -> (Name<'_>, &str) {
    if let Some(inner) = after.strip_prefix('{') {
        return match inner.split_once('}') {
            None => (Name::Malformed, inner),
            Some(("", tail)) => (Name::Malformed, tail),
            Some(("$", tail)) => (Name::Dollar, tail),
            Some((name, tail)) => (Name::Variable(name), tail),
        };
    }
    if let Some(tail) = after.strip_prefix('$') {
        return (Name::Dollar, tail);
    }
    let special = |c: char| matches!(c, '*' | '#' | '@' | '!' | '?' | '-' | '0'..='9');
    if after.starts_with(special) {
        let (name, tail) = after.split_at(1);
        return (Name::Variable(name), tail);
    }
    let len = after
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .unwrap_or(after.len());
    match after.split_at(len) {
        ("", tail) => (Name::None, tail),
        (name, tail) => (Name::Variable(name), tail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_in_as_go_does() {
        let variable = |name: &str| (name == "ZONE").then(|| "eu-1".to_owned());
        for (text, expanded) in [
            ("plain", "plain"),
            ("$ZONE", "eu-1"),
            ("${ZONE}b", "eu-1b"),
            ("a$$b", "a$b"),
            ("x${MISSING}y", "xy"),
            ("$1.$ZONE", ".eu-1"),
            ("a$", "a$"),
            ("a$ b", "a$ b"),
            ("${", ""),
            ("${}x", "x"),
            ("é$ZONE€", "éeu-1€"),
        ] {
            assert_eq!(expand(text, &variable), expanded, "{text}");
        }
    }
}
