//! The sections that are kept as they are written because nothing serves them yet: rules, alerts,
//! remote write and read, tracing; and OTLP, which is read in its own file and kept to be shown. A
//! configuration that has them loads, and says what is not done; their first-level keys are checked,
//! what is below is not.

use std::fmt;

use super::fields::Fields;
use super::problem::Problems;
use super::yaml::Node;

/// One such section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    pub name: &'static str,
    pub kept: Kept,
}

/// A part of the file as written. It may hold secrets, so `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Kept(pub Node);

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept(line {})", self.0.line)
    }
}

/// Keys every section that talks HTTP has.
const HTTP_KEYS: [&str; 13] = [
    "basic_auth",
    "authorization",
    "oauth2",
    "bearer_token",
    "bearer_token_file",
    "tls_config",
    "follow_redirects",
    "enable_http2",
    "http_headers",
    "proxy_url",
    "no_proxy",
    "proxy_from_environment",
    "proxy_connect_header",
];

const REMOTE_WRITE_KEYS: [&str; 14] = [
    "url",
    "remote_timeout",
    "headers",
    "write_relabel_configs",
    "name",
    "send_exemplars",
    "send_native_histograms",
    "round_robin_dns",
    "protobuf_message",
    "sigv4",
    "azuread",
    "google_iam",
    "queue_config",
    "metadata_config",
];

const REMOTE_READ_KEYS: [&str; 8] = [
    "url",
    "remote_timeout",
    "chunked_read_limit",
    "headers",
    "read_recent",
    "required_matchers",
    "filter_external_labels",
    "name",
];

const TRACING_KEYS: [&str; 8] = [
    "client_type",
    "endpoint",
    "sampling_fraction",
    "insecure",
    "tls_config",
    "headers",
    "compression",
    "timeout",
];

/// Reads these sections at the top of the file.
pub fn read_sections(fields: &Fields<'_, '_>) -> Vec<Section> {
    let mut sections = Vec::new();
    let mut keep = |name, node: &Node| {
        sections.push(Section {
            name,
            kept: Kept(node.clone()),
        });
    };
    if let Some(node) = fields.node("alerting") {
        check_keys(
            node,
            "alerting",
            &["alert_relabel_configs", "alertmanagers"],
            fields.problems,
        );
        keep("alerting", node);
    }
    if let (Some(_), Some(node)) = (
        fields.texts("rule_files", "[]string"),
        fields.node("rule_files"),
    ) {
        keep("rule_files", node);
    }
    if let Some(node) = fields.node("tracing") {
        let before = fields.problems.count();
        check_keys(node, "tracing", &TRACING_KEYS, fields.problems);
        let endpoint = node
            .get("endpoint")
            .and_then(Node::text)
            .unwrap_or_default();
        if endpoint.is_empty() && fields.problems.count() == before {
            fields.value(node.line, "tracing endpoint must be set", None);
        }
        keep("tracing", node);
    }
    for (name, go_type, keys) in [
        (
            "remote_write",
            "[]*config.RemoteWriteConfig",
            &REMOTE_WRITE_KEYS[..],
        ),
        (
            "remote_read",
            "[]*config.RemoteReadConfig",
            &REMOTE_READ_KEYS[..],
        ),
    ] {
        let Some(items) = fields.items(name, go_type) else {
            continue;
        };
        let keys: Vec<&'static str> = keys.iter().chain(&HTTP_KEYS).copied().collect();
        for (i, item) in items.iter().enumerate() {
            check_remote(item, name, i, &keys, fields);
        }
        if let Some(node) = fields.node(name) {
            keep(name, node);
        }
    }
    if let Some(node) = fields.node("otlp") {
        keep("otlp", node);
    }
    sections
}

fn check_remote(
    item: &Node,
    name: &'static str,
    i: usize,
    keys: &[&'static str],
    fields: &Fields<'_, '_>,
) {
    if item.is_null() {
        let what = name.replace('_', " ");
        let text = format!("empty or null {what} config section");
        fields.value(item.line, text, None);
        return;
    }
    let before = fields.problems.count();
    check_keys(item, &format!("{name}[{i}]"), keys, fields.problems);
    let url = item.get("url").and_then(Node::text).unwrap_or_default();
    if url.is_empty() && fields.problems.count() == before {
        fields.value(item.line, format!("url for {name} is empty"), None);
    }
}

fn check_keys(node: &Node, place: &str, keys: &[&'static str], problems: &Problems) {
    if let Some(fields) = Fields::open(node, "config.plain", place, problems) {
        fields.matching(keys);
        fields.finish();
    }
}
