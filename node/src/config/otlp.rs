//! The `otlp` section: what becomes of OpenTelemetry's metrics. Checks and texts are Prometheus'.

use std::collections::BTreeSet;

use ingest::otlp::names::Strategy;
use ingest::otlp::{Promote, Settings};

use super::fields::Fields;
use super::global::Global;

/// Reads the section at the top of the file.
pub fn read(fields: &Fields<'_, '_>, global: &Global) -> Settings {
    let mut settings = Settings::default();
    let Some(node) = fields.node("otlp") else {
        return settings;
    };
    let Some(otlp) = Fields::open(node, "config.plain", "otlp", fields.problems) else {
        return settings;
    };
    settings.promote = read_promote(&otlp);
    if let Some(name) = otlp.text("translation_strategy") {
        settings.strategy = read_strategy(&otlp, &name, global);
    }
    let truth = |name| otlp.truth(name).unwrap_or_default();
    settings.keep_identifying = truth("keep_identifying_resource_attributes");
    settings.convert_histograms = truth("convert_histograms_to_nhcb");
    settings.promote_scope = truth("promote_scope_metadata");
    // Of later versions: how labels with underscores are named. Ours are those of 3.5.
    otlp.truth("label_name_underscore_sanitization");
    otlp.truth("label_name_preserve_multiple_underscores");
    otlp.finish();
    settings
}

fn read_strategy(otlp: &Fields<'_, '_>, name: &str, global: &Global) -> Strategy {
    let line = otlp.line_of("translation_strategy");
    let Some(strategy) = Strategy::of_name(name) else {
        let text = format!("unsupported OTLP translation strategy {name:?}");
        otlp.whole(line, text, None);
        return Strategy::default();
    };
    let is_legacy = global.naming.validation_scheme == "legacy";
    if is_legacy && !strategy.escapes() {
        let text =
            format!("OTLP translation strategy {name:?} is not allowed when UTF8 is disabled");
        otlp.late(line, text, None);
    }
    strategy
}

fn read_promote(otlp: &Fields<'_, '_>) -> Promote {
    const PROMOTE: &str = "promote_resource_attributes";
    const IGNORE: &str = "ignore_resource_attributes";
    const ALL: &str = "promote_all_resource_attributes";
    let all = otlp.truth(ALL).unwrap_or_default();
    let promoted = read_attributes(otlp, PROMOTE, "promoted");
    let ignored = read_attributes(otlp, IGNORE, "ignored");
    if all && !promoted.is_empty() {
        let text = format!("'{ALL}' and '{PROMOTE}' cannot be configured simultaneously");
        otlp.whole(otlp.line_of(PROMOTE), text, None);
    }
    if !all && !ignored.is_empty() {
        let text = format!("'{IGNORE}' cannot be configured unless '{ALL}' is true");
        otlp.whole(otlp.line_of(IGNORE), text, None);
    }
    match all {
        true => Promote::AllBut(ignored),
        false => Promote::Only(promoted),
    }
}

fn read_attributes(otlp: &Fields<'_, '_>, name: &'static str, what: &str) -> BTreeSet<String> {
    let mut attributes = BTreeSet::new();
    for attribute in otlp.texts(name, "[]string").unwrap_or_default() {
        let attribute = attribute.trim();
        let line = otlp.line_of(name);
        if attribute.is_empty() {
            let text = format!("invalid '{name}': empty {what} OTel resource attribute");
            otlp.whole(line, text, None);
        } else if !attributes.insert(attribute.to_owned()) {
            let text = format!(
                "invalid '{name}': duplicated {what} OTel resource attribute {attribute:?}"
            );
            otlp.whole(line, text, None);
        }
    }
    attributes
}
