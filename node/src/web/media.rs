//! A request's media type, as Go's `mime.ParseMediaType` takes one apart: what Prometheus says of a form hangs on it.

/// A media type in lower case, which is empty where nothing can be made of it, and what is wrong with it, if anything is.
#[derive(Debug, PartialEq, Eq)]
pub struct Media {
    pub kind: String,
    pub error: Option<&'static str>,
}

impl Media {
    pub fn parse(text: &str) -> Self {
        let base = text.split(';').next().unwrap_or_default();
        let kind = base.trim().to_lowercase();
        if let Err(error) = check_kind(&kind) {
            return Self::nothing(error);
        }
        let mut rest = text[base.len()..].trim_start();
        let mut parameters: Vec<(String, String)> = Vec::new();
        while !rest.is_empty() {
            let Some((name, value, behind)) = parameter(rest) else {
                // A last semicolon is forgiven.
                let error = (rest.trim() != ";").then_some("mime: invalid media parameter");
                return Self { kind, error };
            };
            if parameters.iter().any(|(n, v)| *n == name && *v != value) {
                return Self::nothing("mime: duplicate parameter name");
            }
            parameters.push((name, value));
            rest = behind.trim_start();
        }
        Self { kind, error: None }
    }

    fn nothing(error: &'static str) -> Self {
        Self {
            kind: String::new(),
            error: Some(error),
        }
    }
}

fn check_kind(kind: &str) -> Result<(), &'static str> {
    let (first, rest) = token(kind);
    if first.is_empty() {
        return Err("mime: no media type");
    }
    if rest.is_empty() {
        return Ok(());
    }
    let rest = rest.strip_prefix('/');
    let (second, rest) = token(rest.ok_or("mime: expected slash after first token")?);
    match (second, rest) {
        ("", _) => Err("mime: expected token after slash"),
        (_, "") => Ok(()),
        _ => Err("mime: unexpected content after media subtype"),
    }
}

/// What a token may be made of (RFC 2045), and the rest.
fn token(text: &str) -> (&str, &str) {
    let is_in = |byte: u8| byte.is_ascii_graphic() && !is_special(byte);
    let len = text.bytes().take_while(|byte| is_in(*byte)).count();
    text.split_at(len)
}

fn is_special(byte: u8) -> bool {
    br#"()<>@,;:\"/[]?="#.contains(&byte)
}

/// Name and value of the parameter in front, and what stands behind.
fn parameter(text: &str) -> Option<(String, String, &str)> {
    let (name, rest) = token(text.strip_prefix(';')?.trim_start());
    let rest = rest.trim_start().strip_prefix('=')?.trim_start();
    let (value, behind) = match rest.strip_prefix('"') {
        Some(quoted) => unquote(quoted)?,
        None => {
            let (value, behind) = token(rest);
            (value.to_owned(), behind)
        }
    };
    let is_there = !name.is_empty() && behind.len() < rest.len();
    is_there.then(|| (name.to_lowercase(), value, behind))
}

/// Up to the quote that ends it. A backslash in front of anything but a special character is one.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &text[at + 1..])),
            '\r' | '\n' => return None,
            '\\' => {
                let special = |(_, next): &(usize, char)| u8::try_from(*next).is_ok_and(is_special);
                value.push(chars.next_if(special).map_or(char, |(_, next)| next));
            }
            _ => value.push(char),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_go_says_of_them() {
        let form = "application/x-www-form-urlencoded";
        let invalid = Some("mime: invalid media parameter");
        let cases = [
            (form, form, None),
            ("text", "text", None),
            (" Text/Plain ; charset=utf-8;", "text/plain", None),
            ("a/b; x=\"a;\\\"b\"; y = c", "a/b", None),
            ("a/b; x=\"\"", "a/b", None),
            ("a/b; x=1; X=1", "a/b", None),
            ("a/b; x=1; X=2", "", Some("mime: duplicate parameter name")),
            ("a/b; x", "a/b", invalid),
            ("a/b; x=", "a/b", invalid),
            ("a/b;;", "a/b", invalid),
            ("a/b; x=\"1", "a/b", invalid),
            ("a/b; x=1 y", "a/b", invalid),
            ("", "", Some("mime: no media type")),
            (";", "", Some("mime: no media type")),
            ("/b", "", Some("mime: no media type")),
            ("a b", "", Some("mime: expected slash after first token")),
            ("a/", "", Some("mime: expected token after slash")),
            (
                "a/b c",
                "",
                Some("mime: unexpected content after media subtype"),
            ),
        ];
        for (text, kind, error) in cases {
            let kind = kind.to_owned();
            assert_eq!(Media::parse(text), Media { kind, error }, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_looked_at(text in "[a/;= \"\\\\x\u{e9}]{0,12}") {
            let _ = Media::parse(&text);
        }
    }
}
