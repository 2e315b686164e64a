//! `relabel_configs` and `metric_relabel_configs`, checked but not compiled.

use model::matcher::compile_anchored;

use super::fields::Fields;
use super::problem::{Help, Kind, Problem, Problems};
use super::yaml::Node;
use crate::nearest::nearest;

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelabelConfig {
    pub source_labels: Vec<String>,
    pub separator: String,
    /// Compiles, anchored at both ends.
    pub regex: String,
    /// Above zero when the action is [`RelabelAction::HashMod`].
    pub modulus: u64,
    pub target_label: String,
    pub replacement: String,
    pub action: RelabelAction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelabelAction {
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

use RelabelAction as Action;

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

impl RelabelAction {
    pub fn as_str(self) -> &'static str {
        let named = ACTIONS.iter().find(|(_, action)| *action == self);
        named.map_or("", |(name, _)| name)
    }
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

/// Reads a list of rules. `section` names it as Prometheus does in "empty or null … rule".
pub fn read_rules(
    items: &[Node],
    place: &str,
    section: &str,
    problems: &Problems,
) -> Vec<RelabelConfig> {
    let rules = items.iter().enumerate().filter_map(|(i, item)| {
        if item.is_null() {
            problems.add(Problem {
                line: item.line,
                place: place.to_owned(),
                kind: Kind::Value,
                text: format!("empty or null {section}"),
                help: Some(Help::sentence("a rule is empty; remove its `-`")),
            });
            return None;
        }
        read_rule(item, format!("{place}[{i}]"), problems)
    });
    rules.collect()
}

fn read_rule(node: &Node, place: String, problems: &Problems) -> Option<RelabelConfig> {
    let fields = Fields::open(node, "relabel.plain", place, problems)?;
    let default = RelabelConfig::default();
    let rule = RelabelConfig {
        source_labels: source_labels(&fields),
        separator: fields.text("separator").unwrap_or(default.separator),
        regex: regex(&fields).unwrap_or(default.regex),
        modulus: fields.unsigned("modulus", "uint64").unwrap_or(0),
        target_label: fields.text("target_label").unwrap_or_default(),
        replacement: fields.text("replacement").unwrap_or(default.replacement),
        action: action(&fields),
    };
    fields.refuse_unknown(|_, _| None);
    if fields.is_clean() {
        check(&rule, &fields);
    }
    fields.is_clean().then_some(rule)
}

fn source_labels(fields: &Fields<'_, '_>) -> Vec<String> {
    let labels = fields
        .texts("source_labels", "model.LabelNames")
        .unwrap_or_default();
    if labels.iter().any(String::is_empty) {
        let line = fields.line_of("source_labels");
        fields.value(line, "\"\" is not a valid label name", None);
    }
    labels
}

fn regex(fields: &Fields<'_, '_>) -> Option<String> {
    let text = fields.text("regex")?;
    if let Err(error) = compile_anchored(&text) {
        let line = fields.line_of("regex");
        let help = Help::sentence(format!("`regex` does not compile: {}", error.reason.trim()));
        let short = error.reason.lines().last().unwrap_or_default();
        let short = short.trim().trim_start_matches("error: ");
        let text = format!("error parsing regexp: {short}: `^(?s:{text})$`");
        fields.value(line, text, Some(help));
    }
    Some(text)
}

fn action(fields: &Fields<'_, '_>) -> Action {
    let Some(text) = fields.text("action") else {
        return Action::Replace;
    };
    let lower = text.to_lowercase();
    let known = ACTIONS.iter().find(|(name, _)| *name == lower);
    known.map_or_else(
        || {
            let names = || ACTIONS.iter().map(|(name, _)| *name);
            let meant =
                nearest(&lower, names()).map_or(String::new(), |m| format!("did you mean {m}? "));
            let all: Vec<&str> = names().collect();
            let sentence = format!(
                "{text:?} is no relabel action; {meant}Known: {}",
                all.join(", ")
            );
            let line = fields.line_of("action");
            let text = format!("unknown relabel action {text:?}");
            fields.value(line, text, Some(Help::sentence(sentence)));
            Action::Replace
        },
        |(_, action)| *action,
    )
}

/// What the fields must be together.
fn check(rule: &RelabelConfig, fields: &Fields<'_, '_>) {
    let default = RelabelConfig::default();
    let name = rule.action.as_str();
    let needs_target = matches!(
        rule.action,
        Action::Replace
            | Action::HashMod
            | Action::Lowercase
            | Action::Uppercase
            | Action::KeepEqual
            | Action::DropEqual
    );
    let rest_default = rule.separator == default.separator
        && rule.replacement == default.replacement
        && rule.modulus == 0;
    let refuse = |text: String| fields.whole(fields.line, text, None);
    if rule.action == Action::HashMod && rule.modulus == 0 {
        refuse("relabel configuration for hashmod requires non-zero modulus".to_owned());
    } else if needs_target && rule.target_label.is_empty() {
        refuse(format!(
            "relabel configuration for {name} action requires 'target_label' value"
        ));
    }
    let plain_replacement = matches!(
        rule.action,
        Action::Lowercase | Action::Uppercase | Action::KeepEqual | Action::DropEqual
    );
    if plain_replacement && rule.replacement != default.replacement {
        refuse(format!("'replacement' can not be set for {name} action"));
    }
    match rule.action {
        Action::LabelMap if rule.replacement.is_empty() => {
            refuse("\"\" is invalid 'replacement' for labelmap action".to_owned());
        }
        Action::LabelDrop | Action::LabelKeep
            if !(rest_default && rule.source_labels.is_empty() && rule.target_label.is_empty()) =>
        {
            refuse(format!(
                "{name} action requires only 'regex', and no other fields"
            ));
        }
        Action::KeepEqual | Action::DropEqual if !(rest_default && rule.regex == default.regex) => {
            refuse(format!(
                "{name} action requires only 'source_labels' and `target_label`, and no other fields"
            ));
        }
        _ => {}
    }
}
