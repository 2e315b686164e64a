//! YAML text as a tree that knows its lines.
//!
//! Scalars keep their text: what a text means depends on the field it is for (Prometheus decodes
//! `job_name: 5` as the text "5"), so nothing is converted here. Anchors, aliases and `<<` merges
//! are resolved; only the first document is read, as Prometheus does.
//!
//! Any text gives a tree or an error: depth and number of nodes are bounded, so that neither
//! nesting nor aliases of aliases exhaust the stack or the memory.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use model::limits::{CONFIG_DEPTH_MAX, CONFIG_NODES_MAX};

/// One value and the line (from 1) where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub line: u32,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    /// In the order of the text; a key may occur twice.
    Mapping(Vec<(Node, Node)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar {
    pub text: String,
    /// Written without quotes: only then may it be a number, a truth value or null.
    pub plain: bool,
}

/// Why a text is not YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    pub line: u32,
    pub reason: String,
}

/// The first document of `text`; `None` when there is nothing but comments.
pub fn parse(text: &str) -> Result<Option<Node>, SyntaxError> {
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|e| SyntaxError {
            line: line_of(e.marker().line()),
            reason: e.info().to_owned(),
        })?;
        if builder.take(event, span)? == Progress::Done {
            break;
        }
    }
    Ok(builder.root)
}

impl Node {
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(s) if s.tag() == "!!null")
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            Value::Sequence(_) | Value::Mapping(_) => None,
        }
    }

    /// The value of a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let Value::Mapping(entries) = &self.value else {
            return None;
        };
        entries
            .iter()
            .find(|(name, _)| name.text() == Some(key))
            .map(|(_, value)| value)
    }

    /// The last line on which something of this node begins.
    pub fn last_line(&self) -> u32 {
        let below = match &self.value {
            Value::Scalar(_) => None,
            Value::Sequence(items) => items.iter().map(Node::last_line).max(),
            Value::Mapping(entries) => entries.iter().map(|(_, v)| v.last_line()).max(),
        };
        below.unwrap_or(self.line).max(self.line)
    }

    /// What the value is, as Go's YAML library names it in its messages: "!!str `abc`", `!!seq`.
    pub fn described(&self) -> String {
        match &self.value {
            Value::Sequence(_) => "!!seq".to_owned(),
            Value::Mapping(_) => "!!map".to_owned(),
            Value::Scalar(scalar) if scalar.text.len() > 10 => {
                let short: String = scalar.text.chars().take(7).collect();
                format!("{} `{short}...`", scalar.tag())
            }
            Value::Scalar(scalar) => format!("{} `{}`", scalar.tag(), scalar.text),
        }
    }
}

impl Scalar {
    /// The tag Go's YAML library gives the scalar (YAML 1.1 words, as there).
    pub fn tag(&self) -> &'static str {
        match self.text.as_str() {
            _ if !self.plain => "!!str",
            "" | "~" | "null" | "Null" | "NULL" => "!!null",
            text if truth(text).is_some() => "!!bool",
            text if integer(text).is_some() => "!!int",
            text if float(text).is_some() => "!!float",
            text if is_date(text) => "!!timestamp",
            _ => "!!str",
        }
    }
}

/// YAML 1.1's truth values.
pub fn truth(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "true" | "True" | "TRUE" => {
            Some(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "false" | "False" | "FALSE" => {
            Some(false)
        }
        _ => None,
    }
}

/// YAML 1.1's integers: decimal, `0x`, `0b`, `0o` and leading-zero octal, with `_` between digits.
pub fn integer(text: &str) -> Option<i128> {
    let clean = text.replace('_', "");
    let (sign, digits) = match clean.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, clean.strip_prefix('+').unwrap_or(&clean)),
    };
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x', ..] => (&digits[2..], 16),
        [b'0', b'b', ..] => (&digits[2..], 2),
        [b'0', b'o', ..] => (&digits[2..], 8),
        [b'0', _, ..] => (&digits[1..], 8),
        _ => (digits, 10),
    };
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    i128::from_str_radix(digits, radix).ok()?.checked_mul(sign)
}

/// YAML 1.1's floats.
pub fn float(text: &str) -> Option<f64> {
    match text {
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Some(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Some(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        _ => {}
    }
    let numeric = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    let has_digit = text.contains(|c: char| c.is_ascii_digit());
    if !has_digit || !text.chars().all(numeric) {
        return None;
    }
    text.parse().ok()
}

/// `2020-01-01`, with or without a time of day.
fn is_date(text: &str) -> bool {
    let four = text.len() > 4 && text.bytes().take(4).all(|byte| byte.is_ascii_digit());
    let sign = |c: char| c.is_ascii_digit() || matches!(c, '-' | ':' | 'T' | 'Z' | '.' | '+' | ' ');
    four && text.as_bytes().get(4) == Some(&b'-')
        && text.bytes().filter(|byte| *byte == b'-').count() >= 2
        && text.ends_with(|c: char| c.is_ascii_digit() || c == 'Z')
        && text.chars().all(sign)
}

fn line_of(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX).max(1)
}

#[derive(PartialEq)]
enum Progress {
    More,
    Done,
}

/// A sequence or mapping whose end has not been seen.
struct Open {
    line: u32,
    anchor: usize,
    value: Value,
    /// A mapping's key that waits for its value.
    key: Option<Node>,
}

/// Builds the tree from events, with its own stack instead of recursion.
#[derive(Default)]
struct Builder {
    stack: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    root: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<Progress, SyntaxError> {
        let line = line_of(span.start.line());
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let explicit_text = tag.is_some_and(|tag| tag.suffix == "str");
                let plain = style == ScalarStyle::Plain && !explicit_text;
                let text = text.into_owned();
                self.count(1, line)?;
                let value = Value::Scalar(Scalar { text, plain });
                self.add(Node { line, value }, anchor);
            }
            Event::SequenceStart(anchor, _) => {
                self.open(line, anchor, Value::Sequence(Vec::new()))?;
            }
            Event::MappingStart(anchor, _) => {
                self.open(line, anchor, Value::Mapping(Vec::new()))?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(line, anchor)?,
            Event::DocumentEnd | Event::StreamEnd => return Ok(Progress::Done),
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => {}
        }
        Ok(Progress::More)
    }

    fn count(&mut self, more: usize, line: u32) -> Result<(), SyntaxError> {
        self.nodes += more;
        if self.nodes > CONFIG_NODES_MAX {
            let reason = format!("document holds more than {CONFIG_NODES_MAX} values");
            return Err(SyntaxError { line, reason });
        }
        Ok(())
    }

    fn open(&mut self, line: u32, anchor: usize, value: Value) -> Result<(), SyntaxError> {
        self.count(1, line)?;
        if self.stack.len() == CONFIG_DEPTH_MAX {
            let reason = format!("nested deeper than {CONFIG_DEPTH_MAX} levels");
            return Err(SyntaxError { line, reason });
        }
        self.stack.push(Open {
            line,
            anchor,
            value,
            key: None,
        });
        Ok(())
    }

    fn close(&mut self) {
        let Some(open) = self.stack.pop() else {
            return;
        };
        let node = Node {
            line: open.line,
            value: merged(open.value),
        };
        self.add(node, open.anchor);
    }

    fn alias(&mut self, line: u32, anchor: usize) -> Result<(), SyntaxError> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            let reason = "anchor contains itself".to_owned();
            return Err(SyntaxError { line, reason });
        };
        self.count(size(&node), line)?;
        if depth(&node) + self.stack.len() > CONFIG_DEPTH_MAX {
            let reason = format!("nested deeper than {CONFIG_DEPTH_MAX} levels");
            return Err(SyntaxError { line, reason });
        }
        self.add(node, 0);
        Ok(())
    }

    fn add(&mut self, node: Node, anchor: usize) {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.stack.last_mut() else {
            self.root.get_or_insert(node);
            return;
        };
        match (&mut open.value, open.key.take()) {
            (Value::Sequence(items), _) => items.push(node),
            (Value::Mapping(entries), Some(key)) => entries.push((key, node)),
            (Value::Mapping(_), None) => open.key = Some(node),
            (Value::Scalar(_), _) => unreachable!("only sequences and mappings are opened"),
        }
    }
}

/// Replaces `<<: *base` by the entries of the base that the mapping does not have itself.
fn merged(value: Value) -> Value {
    let Value::Mapping(entries) = value else {
        return value;
    };
    let is_merge = |key: &Node| matches!(&key.value, Value::Scalar(s) if s.plain && s.text == "<<");
    let (merges, mut own): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|(key, _)| is_merge(key));
    for (_, base) in merges {
        let bases = match base.value {
            Value::Sequence(items) => items,
            _ => vec![base],
        };
        for base in bases {
            let Value::Mapping(inherited) = base.value else {
                continue;
            };
            for (key, value) in inherited {
                if !own.iter().any(|(own, _)| own.text() == key.text()) {
                    own.push((key, value));
                }
            }
        }
    }
    Value::Mapping(own)
}

fn size(node: &Node) -> usize {
    match &node.value {
        Value::Scalar(_) => 1,
        Value::Sequence(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Mapping(entries) => {
            1 + entries
                .iter()
                .map(|(k, v)| size(k) + size(v))
                .sum::<usize>()
        }
    }
}

fn depth(node: &Node) -> usize {
    let below = match &node.value {
        Value::Scalar(_) => return 0,
        Value::Sequence(items) => items.iter().map(depth).max(),
        Value::Mapping(entries) => entries.iter().map(|(k, v)| depth(k).max(depth(v))).max(),
    };
    1 + below.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nodes_know_their_lines() {
        let root = parse("a: 1\nb:\n  - x\n  - {c: d}\n").unwrap().unwrap();
        let b = root.get("b").unwrap();
        let Value::Sequence(items) = &b.value else {
            panic!("{b:?}");
        };
        assert_eq!(root.get("a").unwrap().line, 1);
        assert_eq!((items[0].line, items[1].line), (3, 4));
        assert_eq!(root.last_line(), 4);
    }

    #[test]
    fn anchors_and_merges_are_resolved() {
        let text = "base: &b {x: 1, y: 2}\nderived:\n  <<: *b\n  y: 3\n";
        let root = parse(text).unwrap().unwrap();
        let derived = root.get("derived").unwrap();
        assert_eq!(derived.get("x").and_then(Node::text), Some("1"));
        assert_eq!(derived.get("y").and_then(Node::text), Some("3"));
    }

    #[test]
    fn only_the_first_document_counts_and_none_is_none() {
        assert_eq!(parse("# nothing\n"), Ok(None));
        let root = parse("a: 1\n---\nb: 2\n").unwrap().unwrap();
        assert!(root.get("a").is_some() && root.get("b").is_none());
    }

    #[test]
    fn bombs_are_refused() {
        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..12 {
            let refs = vec![format!("*a{}", i - 1); 10].join(", ");
            laughs.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
        }
        assert!(parse(&laughs).unwrap_err().reason.contains("more than"));
        let deep = "[".repeat(5000);
        assert!(parse(&deep).is_err());
        assert_eq!(parse("a: &a [*a]\n").unwrap_err().line, 1);
    }

    #[test]
    fn scalars_are_tagged_as_go_tags_them() {
        let plain = |text: &str| Scalar {
            text: text.to_owned(),
            plain: true,
        };
        for (text, tag) in [
            ("abc", "!!str"),
            ("yes", "!!bool"),
            ("~", "!!null"),
            ("-4", "!!int"),
            ("0x10", "!!int"),
            ("1_000", "!!int"),
            ("1.5", "!!float"),
            ("2020-01-01", "!!timestamp"),
            ("2020-1", "!!str"),
            ("1e3", "!!float"),
            ("localhost:9090", "!!str"),
            ("-", "!!str"),
            ("é", "!!str"),
            ("0é", "!!str"),
        ] {
            assert_eq!(plain(text).tag(), tag, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_a_tree_or_an_error(text in "[\\PC\\n\\t ]{0,200}") {
            parse(&text).ok();
        }

        #[test]
        fn text_of_yaml_signs_gives_a_tree_or_an_error(text in "[-a:\\[\\]{}&*!|>'\"%@?,#~<\\n\\t ]{0,120}") {
            parse(&text).ok();
        }
    }
}
