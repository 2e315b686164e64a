//! `relabel_configs`: rules that rewrite, keep or drop a label set, compiled once.
//!
//! Actions, defaults and checks are those of Prometheus 3 (prometheus.io/docs, `relabel_config`).
//! A label set to nothing is a label removed. Names may be any UTF-8.

use md5::{Digest, Md5};
use model::LabelsBuilder;
use model::matcher::{PatternError, compile_anchored};
use model::regex::Regex;

/// What a rule does.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    #[default]
    Replace,
    Keep,
    Drop,
    KeepEqual,
    DropEqual,
    HashMod,
    LabelMap,
    LabelDrop,
    LabelKeep,
    Lowercase,
    Uppercase,
}

const ACTIONS: [(&str, Action); 11] = [
    ("replace", Action::Replace),
    ("keep", Action::Keep),
    ("drop", Action::Drop),
    ("keepequal", Action::KeepEqual),
    ("dropequal", Action::DropEqual),
    ("hashmod", Action::HashMod),
    ("labelmap", Action::LabelMap),
    ("labeldrop", Action::LabelDrop),
    ("labelkeep", Action::LabelKeep),
    ("lowercase", Action::Lowercase),
    ("uppercase", Action::Uppercase),
];

impl Action {
    /// As the configuration writes it.
    pub fn as_str(self) -> &'static str {
        let named = ACTIONS.iter().find(|(_, action)| *action == self);
        named.expect("every action has a name").0
    }

    /// The names of all actions.
    pub fn names() -> impl Iterator<Item = &'static str> {
        ACTIONS.iter().map(|(name, _)| *name)
    }
}

impl std::str::FromStr for Action {
    type Err = RelabelError;

    fn from_str(text: &str) -> Result<Self, RelabelError> {
        let lower = text.to_lowercase();
        let named = ACTIONS.iter().find(|(name, _)| *name == lower);
        named
            .map(|(_, action)| *action)
            .ok_or_else(|| RelabelError::Rule(format!("unknown relabel action {text:?}")))
    }
}

/// A rule as configured.
#[derive(Debug, Clone, PartialEq)]
pub struct RelabelConfig {
    pub source_labels: Vec<String>,
    pub separator: String,
    pub regex: String,
    pub modulus: u64,
    pub target_label: String,
    pub replacement: String,
    pub action: Action,
}

impl Default for RelabelConfig {
    fn default() -> Self {
        Self {
            source_labels: Vec::new(),
            separator: ";".to_owned(),
            regex: "(.*)".to_owned(),
            modulus: 0,
            target_label: String::new(),
            replacement: "$1".to_owned(),
            action: Action::Replace,
        }
    }
}

impl RelabelConfig {
    /// Why the fields do not fit the action, in Prometheus' words.
    pub fn complaint(&self) -> Option<String> {
        use Action::{
            DropEqual, HashMod, KeepEqual, LabelDrop, LabelKeep, LabelMap, Lowercase, Replace,
            Uppercase,
        };
        let (action, defaults) = (self.action, Self::default());
        let name = action.as_str();
        if action == HashMod && self.modulus == 0 {
            return Some("relabel configuration for hashmod requires non-zero modulus".to_owned());
        }
        let needs_target = matches!(
            action,
            Replace | KeepEqual | DropEqual | HashMod | Lowercase | Uppercase
        );
        if needs_target && self.target_label.is_empty() {
            return Some(format!(
                "relabel configuration for {name} action requires 'target_label' value"
            ));
        }
        let plain_replacement = self.replacement == defaults.replacement;
        if matches!(action, Lowercase | Uppercase | KeepEqual | DropEqual) && !plain_replacement {
            return Some(format!("'replacement' can not be set for {name} action"));
        }
        if action == LabelMap && self.replacement.is_empty() {
            return Some(format!(
                "{:?} is invalid 'replacement' for {name} action",
                ""
            ));
        }
        let equal = matches!(action, KeepEqual | DropEqual);
        let plain_regex = self.regex == defaults.regex;
        let plain_rest = self.modulus == 0 && self.separator == defaults.separator;
        if equal && !(plain_regex && plain_rest) {
            return Some(format!(
                "{name} action requires only 'source_labels' and `target_label`, and no other fields"
            ));
        }
        let only_regex = self.source_labels.is_empty() && self.target_label.is_empty();
        if matches!(action, LabelDrop | LabelKeep)
            && !(only_regex && plain_rest && plain_replacement)
        {
            return Some(format!(
                "{name} action requires only 'regex', and no other fields"
            ));
        }
        None
    }
}

/// Why a rule cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelabelError {
    #[error("{0}")]
    Rule(String),
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

/// A checked rule with its expression compiled.
#[derive(Debug, Clone)]
pub struct Rule {
    config: RelabelConfig,
    regex: Regex,
}

/// Rules are equal when they were configured alike.
impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.config == other.config
    }
}

impl Rule {
    pub fn new(config: RelabelConfig) -> Result<Self, RelabelError> {
        let regex = compile_anchored(&config.regex)?;
        match config.complaint() {
            Some(text) => Err(RelabelError::Rule(text)),
            None => Ok(Self { config, regex }),
        }
    }

    /// Applies the rule; `false` drops the whole label set.
    fn apply(&self, labels: &mut LabelsBuilder) -> bool {
        let target = &self.config.target_label;
        match self.config.action {
            Action::Keep => return self.regex.is_match(&self.source(labels)),
            Action::Drop => return !self.regex.is_match(&self.source(labels)),
            Action::KeepEqual => return self.equals_target(labels),
            Action::DropEqual => return !self.equals_target(labels),
            Action::Replace => self.replace(labels),
            Action::HashMod => {
                let hash = hash(&self.source(labels)) % self.config.modulus;
                labels.set(target, &hash.to_string());
            }
            Action::Lowercase => {
                let lower = self.source(labels).to_lowercase();
                labels.set(target, &lower);
            }
            Action::Uppercase => {
                let upper = self.source(labels).to_uppercase();
                labels.set(target, &upper);
            }
            Action::LabelMap => self.map_names(labels),
            Action::LabelDrop => {
                labels.retain(|name, _| !self.regex.is_match(name));
            }
            Action::LabelKeep => {
                labels.retain(|name, _| self.regex.is_match(name));
            }
        }
        true
    }

    fn source(&self, labels: &LabelsBuilder) -> String {
        let values = self.config.source_labels.iter();
        let values: Vec<&str> = values
            .map(|name| labels.get(name).unwrap_or_default())
            .collect();
        values.join(&self.config.separator)
    }

    fn equals_target(&self, labels: &LabelsBuilder) -> bool {
        let target = labels.get(&self.config.target_label).unwrap_or_default();
        target == self.source(labels)
    }

    fn replace(&self, labels: &mut LabelsBuilder) {
        let source = self.source(labels);
        let Some(captures) = self.regex.captures(&source) else {
            return;
        };
        let mut target = String::new();
        captures.expand(&self.config.target_label, &mut target);
        if target.is_empty() {
            return;
        }
        let mut value = String::new();
        captures.expand(&self.config.replacement, &mut value);
        labels.set(&target, &value);
    }

    fn map_names(&self, labels: &mut LabelsBuilder) {
        let mapped: Vec<(String, String)> = labels
            .iter()
            .filter_map(|(name, value)| {
                let captures = self.regex.captures(name)?;
                let mut name = String::new();
                captures.expand(&self.config.replacement, &mut name);
                Some((name, value.to_owned()))
            })
            .filter(|(name, _)| !name.is_empty())
            .collect();
        for (name, value) in mapped {
            labels.set(&name, &value);
        }
    }
}

/// Applies rules in order; `false` drops the whole label set.
pub fn apply(rules: &[Rule], labels: &mut LabelsBuilder) -> bool {
    rules.iter().all(|rule| rule.apply(labels))
}

/// The last eight bytes of the MD5, big-endian.
fn hash(text: &str) -> u64 {
    let digest: [u8; 16] = Md5::digest(text).into();
    u128::from_be_bytes(digest) as u64
}

#[cfg(test)]
mod tests {
    use model::Labels;

    use super::*;

    fn rule(action: &str, fields: &[(&str, &str)]) -> RelabelConfig {
        let mut config = RelabelConfig {
            action: action.parse().unwrap(),
            ..RelabelConfig::default()
        };
        for (field, text) in fields {
            let text = (*text).to_owned();
            match *field {
                "source" => config.source_labels = text.split(',').map(str::to_owned).collect(),
                "separator" => config.separator = text,
                "regex" => config.regex = text,
                "modulus" => config.modulus = text.parse().unwrap(),
                "target" => config.target_label = text,
                "replacement" => config.replacement = text,
                field => panic!("no field {field}"),
            }
        }
        config
    }

    fn relabel(labels: &[(&str, &str)], config: RelabelConfig) -> Option<Labels> {
        let mut builder = Labels::from_pairs(labels.iter().copied()).to_builder();
        apply(&[Rule::new(config).unwrap()], &mut builder).then(|| builder.build())
    }

    /// Rows: labels, action, fields, labels after (or dropped).
    #[test]
    fn every_action_does_what_prometheus_does() {
        type Pairs<'a> = &'a [(&'a str, &'a str)];
        let abc: Pairs<'_> = &[("a", "foo"), ("b", "bar"), ("c", "baz")];
        let rows: &[(Pairs<'_>, &str, Pairs<'_>, Option<Pairs<'_>>)] = &[
            (
                abc,
                "replace",
                &[
                    ("source", "a"),
                    ("regex", "f(.*)"),
                    ("target", "d"),
                    ("replacement", "ch${1}-ch${1}"),
                ],
                Some(&[("a", "foo"), ("b", "bar"), ("c", "baz"), ("d", "choo-choo")]),
            ),
            (
                abc,
                "replace",
                &[
                    ("source", "a,b"),
                    ("separator", "|"),
                    ("regex", "(f).*\\|(b).*"),
                    ("target", "${1}${2}"),
                    ("replacement", "$2$1"),
                ],
                Some(&[("a", "foo"), ("b", "bar"), ("c", "baz"), ("fb", "bf")]),
            ),
            (
                abc,
                "replace",
                &[("source", "a"), ("regex", "no"), ("target", "a")],
                Some(abc),
            ),
            (
                abc,
                "replace",
                &[("source", "a"), ("regex", ".*(x?)"), ("target", "a")],
                Some(&[("b", "bar"), ("c", "baz")]),
            ),
            (
                &[],
                "replace",
                &[("target", "__address__"), ("replacement", "h:1")],
                Some(&[("__address__", "h:1")]),
            ),
            (abc, "keep", &[("source", "a"), ("regex", "foo")], Some(abc)),
            (abc, "keep", &[("source", "a"), ("regex", "fo")], None),
            (abc, "drop", &[("source", "none")], None),
            (
                &[("a", "x\ny")],
                "drop",
                &[("source", "a"), ("regex", "x.y")],
                None,
            ),
            (
                &[("a", "1"), ("b", "1")],
                "keepequal",
                &[("source", "a"), ("target", "b")],
                Some(&[("a", "1"), ("b", "1")]),
            ),
            (
                &[("a", "1"), ("b", "1")],
                "dropequal",
                &[("source", "a"), ("target", "b")],
                None,
            ),
            (
                &[("a", "1"), ("b", "2")],
                "keepequal",
                &[("source", "a"), ("target", "b")],
                None,
            ),
            (
                abc,
                "hashmod",
                &[("source", "c"), ("target", "d"), ("modulus", "1000")],
                Some(&[("a", "foo"), ("b", "bar"), ("c", "baz"), ("d", "976")]),
            ),
            (
                &[("a", "foo\nbar")],
                "hashmod",
                &[("source", "a"), ("target", "b"), ("modulus", "1000")],
                Some(&[("a", "foo\nbar"), ("b", "734")]),
            ),
            (
                &[("__meta_x", "1"), ("y", "2")],
                "labelmap",
                &[("regex", "__meta_(.*)")],
                Some(&[("__meta_x", "1"), ("x", "1"), ("y", "2")]),
            ),
            (abc, "labeldrop", &[("regex", "a|b")], Some(&[("c", "baz")])),
            (
                abc,
                "labelkeep",
                &[("regex", "a|b")],
                Some(&[("a", "foo"), ("b", "bar")]),
            ),
            (
                &[("a", "FoO")],
                "lowercase",
                &[("source", "a"), ("target", "b")],
                Some(&[("a", "FoO"), ("b", "foo")]),
            ),
            (
                &[("a", "é")],
                "uppercase",
                &[("source", "a"), ("target", "a")],
                Some(&[("a", "É")]),
            ),
        ];
        for (labels, action, fields, after) in rows {
            let after = after.map(|pairs| Labels::from_pairs(pairs.iter().copied()));
            assert_eq!(
                relabel(labels, rule(action, fields)),
                after,
                "{action} {fields:?}"
            );
        }
    }

    #[test]
    fn fields_that_do_not_fit_are_refused() {
        for (action, fields, text) in [
            (
                "hashmod",
                &[("target", "a")][..],
                "relabel configuration for hashmod requires non-zero modulus",
            ),
            (
                "replace",
                &[],
                "relabel configuration for replace action requires 'target_label' value",
            ),
            (
                "lowercase",
                &[("target", "a"), ("replacement", "x")],
                "'replacement' can not be set for lowercase action",
            ),
            (
                "labeldrop",
                &[("source", "a")],
                "labeldrop action requires only 'regex', and no other fields",
            ),
            (
                "keepequal",
                &[("target", "a"), ("regex", "x")],
                "keepequal action requires only 'source_labels' and `target_label`, and no other fields",
            ),
        ] {
            let error = Rule::new(rule(action, fields)).unwrap_err();
            assert_eq!(error.to_string(), text);
        }
        assert!(matches!(
            Rule::new(rule("keep", &[("regex", "(")])),
            Err(RelabelError::Pattern(_))
        ));
        assert!("relpace".parse::<Action>().is_err());
    }
}
