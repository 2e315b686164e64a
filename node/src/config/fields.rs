//! Takes a YAML mapping apart, key by key and strictly.
//!
//! Each accessor names a key, says what type it must have and gives `None` when the key is
//! absent or wrong. A null is Go's zero value: the empty text, false, else as good as absent. What
//! is wrong goes to [`Problems`]. The keys asked for are the keys that exist: [`Fields::finish`]
//! refuses every other one.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

use model::time::parse_duration;

use super::problem::{HOLDS_SECRETS, Help, Kind, Problem, Problems, Scope};
use super::secret::{REDACTED, Secret};
use super::size::parse_size;
use super::yaml::{self, Node, Value};
use crate::nearest::nearest;

/// A mapping being read.
pub struct Fields<'n, 'p> {
    type_name: &'static str,
    pub place: String,
    pub line: u32,
    scope: Scope,
    entries: Vec<(&'n str, &'n Node, &'n Node)>,
    asked: RefCell<Vec<&'static str>>,
    pub problems: &'p Problems,
    problems_before: usize,
}

impl<'n, 'p> Fields<'n, 'p> {
    /// Opens a mapping. `type_name` is what Prometheus calls it in its messages. A null gives no
    /// entries; anything else that is no mapping is a problem and `None`.
    pub fn open(
        node: &'n Node,
        type_name: &'static str,
        place: impl Into<String>,
        problems: &'p Problems,
    ) -> Option<Self> {
        let mut fields = Self {
            type_name,
            place: place.into(),
            line: node.line,
            scope: Scope {
                first: node.line,
                last: node.last_line(),
            },
            entries: Vec::new(),
            asked: RefCell::default(),
            problems,
            problems_before: problems.count(),
        };
        match &node.value {
            Value::Mapping(entries) => fields.take_entries(entries),
            _ if node.is_null() => {}
            _ => {
                fields.wrong_type(&without_secret(node, &fields.place), type_name);
                return None;
            }
        }
        Some(fields)
    }

    fn take_entries(&mut self, entries: &'n [(Node, Node)]) {
        for (key, value) in entries {
            let Some(name) = key.text() else {
                self.wrong_type(key, "string");
                continue;
            };
            if self.entries.iter().any(|(seen, ..)| *seen == name) {
                let text = format!("field {name} already set in type {}", self.type_name);
                let help = Help::sentence(format!("`{name}` is written twice; keep one"));
                self.shape(key.line, text, Some(help));
                continue;
            }
            self.entries.push((name, key, value));
        }
    }

    /// The value of a key as it stands, null included.
    pub fn raw(&self, name: &'static str) -> Option<&'n Node> {
        self.asked.borrow_mut().push(name);
        let (_, _, value) = self.entries.iter().find(|(key, ..)| *key == name)?;
        Some(value)
    }

    /// The value of a key, unless it is null.
    pub fn node(&self, name: &'static str) -> Option<&'n Node> {
        self.raw(name).filter(|node| !node.is_null())
    }

    /// Keys matching a rule, whatever they are: `*_sd_configs`.
    pub fn matching(&self, names: &[&'static str]) -> Vec<(&'static str, &'n Node)> {
        names
            .iter()
            .filter_map(|name| Some((*name, self.raw(name)?)))
            .collect()
    }

    pub fn text(&self, name: &'static str) -> Option<String> {
        self.text_as(name, "string")
    }

    /// A text of a type of its own.
    pub fn text_as(&self, name: &'static str, go_type: &'static str) -> Option<String> {
        self.scalar(name, go_type).map(ToOwned::to_owned)
    }

    pub fn secret(&self, name: &'static str) -> Option<Secret> {
        let text = self.scalar(name, "config.plain")?;
        Some(Secret::new(text))
    }

    pub fn path(&self, name: &'static str) -> Option<PathBuf> {
        self.text(name)
            .filter(|text| !text.is_empty())
            .map(PathBuf::from)
    }

    /// Null is false, as in Go.
    pub fn truth(&self, name: &'static str) -> Option<bool> {
        let null = self.raw(name)?.is_null();
        if null { Some(false) } else { self.choice(name) }
    }

    /// A truth value that may be left open by null.
    pub fn choice(&self, name: &'static str) -> Option<bool> {
        let node = self.node(name)?;
        let truth = match &node.value {
            Value::Scalar(scalar) if scalar.plain => yaml::truth(&scalar.text),
            _ => None,
        };
        if truth.is_none() {
            self.wrong_type(node, "bool");
        }
        truth
    }

    /// A number from zero; a whole float counts, its fraction is dropped (as Go's library does).
    pub fn unsigned(&self, name: &'static str, go_type: &'static str) -> Option<u64> {
        let node = self.node(name)?;
        let number = match &node.value {
            Value::Scalar(scalar) if scalar.plain => match scalar.tag() {
                "!!int" => yaml::integer(&scalar.text).and_then(|n| u64::try_from(n).ok()),
                "!!float" => yaml::float(&scalar.text)
                    .filter(|n| (0.0..=u64::MAX as f64).contains(n))
                    .map(|n| n as u64),
                _ => None,
            },
            _ => None,
        };
        if number.is_none() {
            self.wrong_type(node, go_type);
        }
        number
    }

    pub fn float(&self, name: &'static str) -> Option<f64> {
        let node = self.node(name)?;
        let number = match &node.value {
            Value::Scalar(scalar) if scalar.plain => match scalar.tag() {
                "!!int" => yaml::integer(&scalar.text).map(|n| n as f64),
                "!!float" => yaml::float(&scalar.text),
                _ => None,
            },
            _ => None,
        };
        if number.is_none() {
            self.wrong_type(node, "float64");
        }
        number
    }

    pub fn duration(&self, name: &'static str) -> Option<Duration> {
        self.node(name)?;
        let text = self.scalar(name, "string")?;
        let line = self.line_of(name);
        parse_duration(text)
            .map_err(|error| {
                let help = format!("`{name}` must be a duration such as 15s, 5m or 1h30m");
                let help = Help::sentence(format!("{help}, not {text:?}"));
                self.value(
                    line,
                    go_duration_error(text, &error.to_string()),
                    Some(help),
                );
            })
            .ok()
    }

    /// Bytes with a unit: `10MB` counts 1024 as Prometheus does. Zero means no limit.
    pub fn size(&self, name: &'static str) -> Option<u64> {
        let text = self.scalar(name, "units.Base2Bytes")?;
        if text.is_empty() {
            return None;
        }
        parse_size(text)
            .map_err(|error| {
                let help = format!("`{name}` needs a size with a unit such as 10MB, not {text:?}");
                self.value(
                    self.line_of(name),
                    error.to_string(),
                    Some(Help::sentence(help)),
                );
            })
            .ok()
    }

    /// A list of texts; a null item is the empty text.
    pub fn texts(&self, name: &'static str, go_type: &'static str) -> Option<Vec<String>> {
        let items = self.items(name, go_type)?;
        let item_type = go_type.trim_start_matches("[]");
        let texts = items
            .iter()
            .filter_map(|item| self.item_as(item, item_type));
        Some(texts.collect())
    }

    /// One text of a list.
    pub fn item(&self, node: &Node) -> Option<String> {
        self.item_as(node, "string")
    }

    fn item_as(&self, node: &Node, go_type: &str) -> Option<String> {
        if node.is_null() {
            return Some(String::new());
        }
        if node.text().is_none() {
            self.wrong_type(node, go_type);
        }
        node.text().map(ToOwned::to_owned)
    }

    /// The items of a list.
    pub fn items(&self, name: &'static str, go_type: &str) -> Option<&'n [Node]> {
        let node = self.node(name)?;
        match &node.value {
            Value::Sequence(items) => Some(items),
            _ => {
                let wants = Help::sentence(format!(
                    "`{name}` must be a list: put `- ` before each item, or write [..]"
                ));
                self.shape(node.line, unmarshal_text(node, go_type), Some(wants));
                None
            }
        }
    }

    /// The entries of a mapping whose keys are free.
    pub fn entries(
        &self,
        name: &'static str,
        go_type: &'static str,
    ) -> Option<Vec<(&'n str, &'n Node)>> {
        let node = self.node(name)?;
        let Value::Mapping(entries) = &node.value else {
            self.wrong_type(node, go_type);
            return None;
        };
        let named = entries.iter().filter_map(|(key, value)| match key.text() {
            Some(text) => Some((text, value)),
            None => {
                self.wrong_type(key, "string");
                None
            }
        });
        Some(named.collect())
    }

    /// The text of a scalar; null is the empty text, as in Go.
    fn scalar(&self, name: &'static str, go_type: &'static str) -> Option<&'n str> {
        let node = self.raw(name)?;
        if node.is_null() {
            return Some("");
        }
        if node.text().is_none() {
            self.wrong_type(node, go_type);
        }
        node.text()
    }

    /// The line of a key's value, else of the mapping.
    pub fn line_of(&self, name: &str) -> u32 {
        let entry = self.entries.iter().find(|(key, ..)| *key == name);
        entry.map_or(self.line, |(_, key, _)| key.line)
    }

    pub fn wrong_type(&self, node: &Node, go_type: &str) {
        let expected = match go_type {
            "units.Base2Bytes" => "a size such as 10MB".to_owned(),
            "string" | "config.ScrapeProtocol" | "model.LabelName" => "a text".to_owned(),
            "bool" => "true or false, without quotes".to_owned(),
            "uint" | "uint64" | "int" => "a number, without quotes".to_owned(),
            "float64" => "a number, without quotes".to_owned(),
            text if text.starts_with("[]") => "a list".to_owned(),
            _ => "`key: value` pairs".to_owned(),
        };
        let found = match &node.value {
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "`key: value` pairs".to_owned(),
            Value::Scalar(_) => node
                .described()
                .split_off("!!".len())
                .replacen(' ', ": ", 1),
        };
        let help = Help::sentence(format!("expected {expected}, found {found}"));
        self.shape(node.line, unmarshal_text(node, go_type), Some(help));
    }

    /// Reports a key or type that Prometheus' YAML library refuses.
    pub fn shape(&self, line: u32, text: String, help: Option<Help>) {
        self.report(line, Kind::Shape, text, help);
    }

    /// Reports a value that Prometheus refuses on meeting it.
    pub fn value(&self, line: u32, text: impl Into<String>, help: Option<Help>) {
        self.report(line, Kind::Value, text.into(), help);
    }

    /// Reports what Prometheus refuses once it has read the whole mapping.
    pub fn whole(&self, line: u32, text: impl Into<String>, help: Option<Help>) {
        self.report(line, Kind::Whole(self.scope), text.into(), help);
    }

    /// Reports what Prometheus refuses once it has read the whole file.
    pub fn late(&self, line: u32, text: impl Into<String>, help: Option<Help>) {
        self.report(line, Kind::Whole(Scope::FILE), text.into(), help);
    }

    /// Lets the checks of this mapping run when those of its parent do.
    #[must_use]
    pub fn checked_with(mut self, parent: &Fields<'_, '_>) -> Self {
        self.scope = parent.scope;
        self
    }

    fn report(&self, line: u32, kind: Kind, text: String, help: Option<Help>) {
        self.problems.add(Problem {
            line,
            place: self.place.clone(),
            kind,
            text,
            help,
        });
    }

    /// Refuses the keys nobody asked for. Says whether the mapping had no problem at all, so that
    /// checks across its fields make sense.
    pub fn finish(self) -> bool {
        self.finish_with(|_, _| None)
    }

    /// [`Fields::finish`] with help for keys that are known mistakes.
    pub fn finish_with(self, known_mistake: impl Fn(&str, &Node) -> Option<Help>) -> bool {
        self.refuse_unknown(known_mistake);
        self.is_clean()
    }

    pub fn is_clean(&self) -> bool {
        self.problems.count() == self.problems_before
    }

    /// As [`Fields::finish_with`], for callers that go on with checks of the whole.
    pub fn refuse_unknown(&self, known_mistake: impl Fn(&str, &Node) -> Option<Help>) {
        let asked = self.asked.borrow();
        for (name, key, value) in &self.entries {
            if asked.contains(name) {
                continue;
            }
            let text = format!("field {name} not found in type {}", self.type_name);
            let help = known_mistake(name, value).unwrap_or_else(|| {
                let meant = nearest(name, asked.iter().copied());
                let meant = meant.map_or(String::new(), |m| format!("; did you mean `{m}`?"));
                Help::sentence(format!("unknown key `{name}`{meant}"))
            });
            self.shape(key.line, text, Some(help));
        }
    }
}

/// A text in place of a section of secrets may be the secret.
fn without_secret(node: &Node, place: &str) -> Node {
    let mut node = node.clone();
    if let Value::Scalar(scalar) = &mut node.value
        && HOLDS_SECRETS.iter().any(|section| place.ends_with(section))
    {
        REDACTED.clone_into(&mut scalar.text);
    }
    node
}

fn unmarshal_text(node: &Node, go_type: &str) -> String {
    format!("cannot unmarshal {} into {go_type}", node.described())
}

/// Prometheus' words for a text that is no duration: it names an unknown unit.
fn go_duration_error(text: &str, otherwise: &str) -> String {
    let digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let unit_len = digits
        .find(|c: char| c.is_ascii_digit())
        .unwrap_or(digits.len());
    let unit = &digits[..unit_len];
    let known = matches!(unit, "y" | "w" | "d" | "h" | "m" | "s" | "ms" | "");
    if known || digits.len() == text.len() {
        return otherwise.to_owned();
    }
    format!("unknown unit {unit:?} in duration {text:?}")
}
