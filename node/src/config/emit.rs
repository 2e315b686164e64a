//! Writes YAML the way Go's library does, so that what is shown reads and compares like what
//! Prometheus shows.

use super::secret::{REDACTED, names_secret, redacted_url};
use super::yaml::{Node, Scalar, Value};

/// A value to be written.
#[derive(Debug, Clone)]
pub enum Out {
    /// Quoted where YAML would read something else.
    Text(String),
    /// Written as it is: numbers, truth values.
    Bare(String),
    List(Vec<Out>),
    /// A list on one line.
    Flow(Vec<String>),
    Map(Map),
}

/// Keys and values in the order written.
#[derive(Debug, Clone, Default)]
pub struct Map(Vec<(String, Out)>);

impl Map {
    pub fn put(&mut self, key: &str, value: Out) {
        self.0.push((key.to_owned(), value));
    }

    pub fn text(&mut self, key: &str, text: impl Into<String>) {
        self.put(key, Out::Text(text.into()));
    }

    /// Nothing when the text is empty.
    pub fn text_if(&mut self, key: &str, text: impl Into<String>) {
        let text = text.into();
        if !text.is_empty() {
            self.text(key, text);
        }
    }

    pub fn bare(&mut self, key: &str, value: impl ToString) {
        self.put(key, Out::Bare(value.to_string()));
    }

    /// Nothing when the number is zero.
    pub fn number_if(&mut self, key: &str, number: u64) {
        if number > 0 {
            self.bare(key, number);
        }
    }

    /// Nothing when there are no texts.
    pub fn texts_if<T: Into<String>>(&mut self, key: &str, texts: impl IntoIterator<Item = T>) {
        let texts: Vec<Out> = texts.into_iter().map(|t| Out::Text(t.into())).collect();
        self.list_if(key, texts);
    }

    pub fn list_if(&mut self, key: &str, items: Vec<Out>) {
        if !items.is_empty() {
            self.put(key, Out::List(items));
        }
    }

    pub fn map_if(&mut self, key: &str, map: Self) {
        if !map.0.is_empty() {
            self.put(key, Out::Map(map));
        }
    }

    /// The whole document.
    pub fn document(&self) -> String {
        let mut text = String::new();
        write_map(self, 0, &mut text);
        text
    }
}

/// A section kept as written, with everything hidden that may be a secret.
pub fn redacted(node: &Node) -> Out {
    match &node.value {
        Value::Scalar(scalar) if scalar.plain && scalar.tag() != "!!str" => {
            Out::Bare(match scalar.tag() {
                "!!null" => "null".to_owned(),
                _ => scalar.text.clone(),
            })
        }
        Value::Scalar(scalar) => Out::Text(redacted_url(&scalar.text)),
        Value::Sequence(items) => Out::List(items.iter().map(redacted).collect()),
        Value::Mapping(entries) => {
            let mut map = Map::default();
            for (key, value) in entries {
                let name = key.text().unwrap_or_default();
                let out = match name {
                    _ if value.is_null() => Out::Bare("null".to_owned()),
                    "headers" | "proxy_connect_header" => hidden_values(value),
                    _ if names_secret(name) => hidden(value),
                    _ => redacted(value),
                };
                map.put(name, out);
            }
            Out::Map(map)
        }
    }
}

/// A header's value may well be a key: the names stay, the values do not.
fn hidden_values(node: &Node) -> Out {
    let Value::Mapping(entries) = &node.value else {
        return hidden(node);
    };
    let mut map = Map::default();
    for (key, value) in entries {
        map.put(key.text().unwrap_or_default(), hidden(value));
    }
    Out::Map(map)
}

fn hidden(node: &Node) -> Out {
    match &node.value {
        Value::Sequence(items) => Out::List(items.iter().map(hidden).collect()),
        Value::Scalar(_) | Value::Mapping(_) => Out::Text(REDACTED.to_owned()),
    }
}

fn write_map(map: &Map, indent: usize, text: &mut String) {
    for (i, (key, value)) in map.0.iter().enumerate() {
        // The first key of a list's item stands behind its dash.
        if i > 0 || text.is_empty() || text.ends_with('\n') {
            text.push_str(&" ".repeat(indent));
        }
        text.push_str(&scalar(key, indent));
        text.push(':');
        write_value(value, indent, text);
    }
}

fn write_value(value: &Out, indent: usize, text: &mut String) {
    match value {
        Out::Map(map) if map.0.is_empty() => text.push_str(" {}\n"),
        Out::Map(map) => {
            text.push('\n');
            write_map(map, indent + 2, text);
        }
        Out::List(items) if items.is_empty() => text.push_str(" []\n"),
        Out::List(items) => {
            text.push('\n');
            write_list(items, indent, text);
        }
        Out::Text(_) | Out::Bare(_) | Out::Flow(_) => {
            text.push(' ');
            write_inline(value, indent, text);
        }
    }
}

fn write_list(items: &[Out], indent: usize, text: &mut String) {
    for item in items {
        text.push_str(&" ".repeat(indent));
        text.push_str("- ");
        match item {
            Out::Map(map) if map.0.is_empty() => text.push_str("{}\n"),
            Out::Map(map) => write_map(map, indent + 2, text),
            Out::List(items) if items.is_empty() => text.push_str("[]\n"),
            Out::List(items) => {
                text.pop();
                text.push('\n');
                write_list(items, indent + 2, text);
            }
            Out::Text(_) | Out::Bare(_) | Out::Flow(_) => write_inline(item, indent, text),
        }
    }
}

fn write_inline(value: &Out, indent: usize, text: &mut String) {
    match value {
        Out::Text(value) => text.push_str(&scalar(value, indent)),
        Out::Bare(value) => text.push_str(value),
        Out::Flow(items) => {
            let items: Vec<String> = items.iter().map(|item| flow_scalar(item)).collect();
            text.push_str(&format!("[{}]", items.join(", ")));
        }
        Out::List(_) | Out::Map(_) => unreachable!("written as a block"),
    }
    text.push('\n');
}

/// A text as a YAML scalar that reads back as the same text.
fn scalar(text: &str, indent: usize) -> String {
    if text.is_empty() || reads_otherwise(text) || text.chars().any(needs_escape) {
        return double_quoted(text);
    }
    if text.contains('\n') {
        return literal(text, indent).unwrap_or_else(|| double_quoted(text));
    }
    match plain_is_safe(text) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "''")),
    }
}

fn flow_scalar(text: &str) -> String {
    let plain = scalar(text, 0);
    if plain == text && text.contains([',', '[', ']', '{', '}']) {
        return format!("'{text}'");
    }
    plain
}

/// Whether a plain scalar of this text would be a number, a truth value, null or a date.
fn reads_otherwise(text: &str) -> bool {
    let plain = Scalar {
        text: text.to_owned(),
        plain: true,
    };
    plain.tag() != "!!str" || is_base_60(text)
}

/// YAML 1.1 reads `1:30` as a number of base 60.
fn is_base_60(text: &str) -> bool {
    let mut parts = text.trim_start_matches(['+', '-']).split(':');
    let first = parts.next().unwrap_or_default();
    let sixty = |part: &str| matches!(part.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9']);
    let mut rest = parts.peekable();
    rest.peek().is_some()
        && first.starts_with(|c: char| c.is_ascii_digit())
        && first.chars().all(|c| c.is_ascii_digit() || c == '_')
        && rest.all(|part| sixty(part.split('.').next().unwrap_or_default()))
}

fn needs_escape(c: char) -> bool {
    (c.is_control() && c != '\n') || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{85}')
}

fn plain_is_safe(text: &str) -> bool {
    let starts_badly = text.starts_with([
        ' ', '#', ',', '[', ']', '{', '}', '&', '*', '!', '|', '>', '\'', '"', '%', '@', '`',
    ]);
    let alone = text
        .strip_prefix(['-', '?', ':'])
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
    !(starts_badly
        || alone
        || text.starts_with("---")
        || text.starts_with("...")
        || text.ends_with([' ', ':'])
        || text.contains(": ")
        || text.contains(" #")
        || text.contains([',', '[', ']', '{', '}']) && needs_quotes_in_go(text))
}

/// Go's library quotes a text with these signs, although a block scalar could hold them plain.
fn needs_quotes_in_go(text: &str) -> bool {
    text.starts_with(['[', ']', '{', '}', ','])
}

fn literal(text: &str, indent: usize) -> Option<String> {
    if text.starts_with([' ', '\n']) || text.lines().any(|line| line.ends_with(' ')) {
        return None;
    }
    let body = text.trim_end_matches('\n');
    let chomping = match text.len() - body.len() {
        0 => "-",
        1 => "",
        _ => return None,
    };
    let mut written = format!("|{chomping}");
    for line in body.split('\n') {
        written.push('\n');
        if !line.is_empty() {
            written.push_str(&" ".repeat(indent + 2));
            written.push_str(line);
        }
    }
    Some(written)
}

fn double_quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if needs_escape(c) && (c as u32) < 0x100 => {
                quoted.push_str(&format!("\\x{:02x}", c as u32));
            }
            c if needs_escape(c) => quoted.push_str(&format!("\\u{:04x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::yaml;
    use super::*;

    /// What Prometheus 3.5 printed for these texts as external labels.
    #[test]
    fn scalars_are_quoted_as_go_quotes_them() {
        for (text, written) in [
            ("", r#""""#),
            ("on", r#""on""#),
            ("1.0", r#""1.0""#),
            ("010", r#""010""#),
            ("2020-01-01", r#""2020-01-01""#),
            ("x: y", "'x: y'"),
            ("<<", "<<"),
            ("?", "'?'"),
            ("#x", "'#x'"),
            ("-", "'-'"),
            ("tab\t", r#""tab\t""#),
            ("it's", "it's"),
            ("a]", "a]"),
            ("a #b", "'a #b'"),
            ("\\", "\\"),
            ("\"", "'\"'"),
            ("a:b", "a:b"),
            ("=", "="),
            ("0x1", r#""0x1""#),
            ("1_000", r#""1_000""#),
            ("~", r#""~""#),
            ("+1", r#""+1""#),
            ("1:30", r#""1:30""#),
            ("a: ", "'a: '"),
            (" lead", "' lead'"),
            ("@a", "'@a'"),
            ("{a}", "'{a}'"),
            (".inf", r#"".inf""#),
            ("NaN", "NaN"),
            ("é", "é"),
            ("a\u{1}", r#""a\x01""#),
            (",", "','"),
            ("%", "'%'"),
            ("10.0.0.1:9090", "10.0.0.1:9090"),
        ] {
            assert_eq!(scalar(text, 0), written, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(text in "[-a1:\\[\\]{}&*!|>'\"%@?,#~< \\n\\té.]{0,12}") {
            let mut map = Map::default();
            map.text("key", text.clone());
            let mut list = Map::default();
            list.list_if("list", vec![Out::Text(text.clone())]);
            map.map_if("below", list);
            let document = map.document();
            let root = yaml::parse(&document).unwrap().unwrap();
            prop_assert_eq!(root.get("key").and_then(Node::text), Some(text.as_str()), "{}", document);
            let Some(Value::Sequence(items)) = root.get("below").and_then(|b| b.get("list")).map(|l| &l.value) else {
                panic!("{document}");
            };
            prop_assert_eq!(items[0].text(), Some(text.as_str()), "{}", document);
        }
    }
}
