//! Keys in the wrong place, as people really write them, with what to write instead.

use super::problem::Help;
use super::yaml::{Node, Scalar, Value};

/// A key that does not belong directly under a job.
pub fn in_job(key: &str, value: &Node) -> Option<Help> {
    match key {
        "targets" => Some(Help {
            sentence: "`targets` belongs under `static_configs`".to_owned(),
            write_instead: vec![
                "static_configs:".to_owned(),
                format!("  - targets: {}", flow(value)),
            ],
        }),
        "labels" => Some(Help {
            sentence: "`labels` belongs under `static_configs`, beside `targets`".to_owned(),
            write_instead: vec![
                "static_configs:".to_owned(),
                "  - targets: [...]".to_owned(),
                format!("    labels: {}", flow(value)),
            ],
        }),
        "username" | "password" | "password_file" => Some(Help::sentence(format!(
            "`{key}` belongs under `basic_auth`"
        ))),
        "insecure_skip_verify" | "ca_file" | "cert_file" | "key_file" | "server_name" => Some(
            Help::sentence(format!("`{key}` belongs under `tls_config`")),
        ),
        "credentials" | "credentials_file" => Some(Help::sentence(format!(
            "`{key}` belongs under `authorization`"
        ))),
        "external_labels" | "evaluation_interval" => {
            Some(Help::sentence(format!("`{key}` belongs under `global`")))
        }
        _ => None,
    }
}

/// A key that does not belong at the top of the file.
pub fn at_top(key: &str, _value: &Node) -> Option<Help> {
    let section = match key {
        "scrape_interval" | "scrape_timeout" | "evaluation_interval" | "external_labels" => {
            "under `global`"
        }
        "job_name"
        | "static_configs"
        | "targets"
        | "metrics_path"
        | "honor_labels"
        | "relabel_configs"
        | "metric_relabel_configs"
        | "basic_auth" => "in a job, under `scrape_configs`",
        "alertmanagers" | "alert_relabel_configs" => "under `alerting`",
        "tsdb" | "exemplars" => "under `storage`",
        "groups" => "in a rule file, named under `rule_files`",
        _ => return None,
    };
    Some(Help::sentence(format!("`{key}` belongs {section}")))
}

/// A value on one line: `['a', 'b']`.
fn flow(node: &Node) -> String {
    match &node.value {
        Value::Scalar(scalar) => quoted(scalar),
        Value::Sequence(items) => {
            let items: Vec<String> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Mapping(entries) => {
            let entry = |(key, value): &(Node, Node)| format!("{}: {}", flow(key), flow(value));
            let entries: Vec<String> = entries.iter().map(entry).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

fn quoted(scalar: &Scalar) -> String {
    match scalar.plain {
        true => scalar.text.clone(),
        false => format!("'{}'", scalar.text.replace('\'', "''")),
    }
}
