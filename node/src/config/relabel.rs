//! `relabel_configs` and `metric_relabel_configs`, checked but not compiled: rules are `ingest`'s own.

use ingest::relabel::{Action, RelabelConfig};
use model::matcher::compile_anchored;

use super::fields::Fields;
use super::problem::{Help, Kind, Problem, Problems};
use super::yaml::Node;
use crate::nearest::nearest;

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
    if fields.is_clean()
        && let Some(text) = rule.complaint()
    {
        fields.whole(fields.line, text, None);
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
        let help = Help::sentence(format!("`regex` does not compile: {}", error.problem));
        fields.value(line, error.to_string(), Some(help));
    }
    Some(text)
}

fn action(fields: &Fields<'_, '_>) -> Action {
    let Some(text) = fields.text("action") else {
        return Action::Replace;
    };
    if let Ok(action) = text.parse() {
        return action;
    }
    let lower = text.to_lowercase();
    let meant =
        nearest(&lower, Action::names()).map_or(String::new(), |m| format!("did you mean {m}? "));
    let all: Vec<&str> = Action::names().collect();
    let sentence = format!(
        "{text:?} is no relabel action; {meant}Known: {}",
        all.join(", ")
    );
    let line = fields.line_of("action");
    let text = format!("unknown relabel action {text:?}");
    fields.value(line, text, Some(Help::sentence(sentence)));
    Action::Replace
}
