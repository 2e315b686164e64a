//! `federation`: the clusters below this one.
//!
//! ```yaml
//! federation:
//!   children:
//!     - name: eu
//!       targets: [eu-1:9090, eu-2:9090]
//!       match: ['{__name__=~".+"}']
//! ```
//!
//! A child of kind `prometheus` is no more than a job that scrapes `/federate`, and becomes one.

use std::path::Path;
use std::time::Duration;

use model::limits::CURSORS_MAX;
use model::time::format_duration;

use super::fields::Fields;
use super::global::{self, Global};
use super::http_client::HttpClient;
use super::problem::{Help, Problems};
use super::scrape::{ScrapeConfig, read_jobs};
use super::sections::{Kept, Section};
use super::yaml::{self, Node};
use crate::tree::child::{CHILD_LABEL, Child, Consul};

/// How far back the first stream of a child goes.
const HISTORY_DEFAULT: Duration = Duration::from_secs(60 * 60);

/// What the section comes to.
#[derive(Debug, Default)]
pub struct Children {
    pub streamed: Vec<Child>,
    /// Those that are scraped.
    pub jobs: Vec<ScrapeConfig>,
    /// As written, to be shown.
    pub section: Option<Section>,
}

enum One {
    Streamed(Child),
    Scraped(Child),
}

pub fn read(
    fields: &Fields<'_, '_>,
    global: &Global,
    taken: &mut Vec<String>,
    problems: &Problems,
) -> Children {
    let mut children = Children::default();
    let Some(node) = fields.node("federation") else {
        return children;
    };
    children.section = Some(Section {
        name: "federation",
        kept: Kept(node.clone()),
    });
    let Some(section) = Fields::open(node, "config.Federation", "federation", problems) else {
        return children;
    };
    let items = section
        .items("children", "[]*config.Child")
        .unwrap_or_default();
    let mut names: Vec<String> = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let place = format!("federation.children[{i}]");
        let Some(fields) = Fields::open(item, "config.Child", place, problems) else {
            continue;
        };
        let Some(one) = read_child(&fields, global) else {
            continue;
        };
        let (One::Streamed(child) | One::Scraped(child)) = &one;
        if names.contains(&child.name) {
            let text = format!(
                "found multiple federation children with name {:?}",
                child.name
            );
            fields.late(fields.line_of("name"), text, None);
        }
        names.push(child.name.clone());
        match one {
            One::Streamed(child) => children.streamed.push(child),
            One::Scraped(child) => children
                .jobs
                .extend(as_job(&child, global, taken, problems)),
        }
    }
    if names.len() > CURSORS_MAX {
        section.whole(
            node.line,
            format!("more than {CURSORS_MAX} federation children"),
            None,
        );
    }
    section.finish();
    children
}

fn read_child(fields: &Fields<'_, '_>, global: &Global) -> Option<One> {
    let interval = fields.duration("interval").filter(|d| !d.is_zero());
    let child = Child {
        name: fields.text("name").unwrap_or_default(),
        interval: interval.unwrap_or(global.scrape_interval),
        matches: fields.texts("match", "[]string").unwrap_or_default(),
        labels: global::read_labels(fields, "labels", "model.LabelSet"),
        targets: fields.texts("targets", "[]string").unwrap_or_default(),
        consul: read_consul(fields),
        history: fields.duration("history").unwrap_or(HISTORY_DEFAULT),
        http: HttpClient::read(fields),
    };
    let kind = fields.text("kind").unwrap_or_else(|| "quorate".to_owned());
    fields.refuse_unknown(|_, _| None);
    if !fields.is_clean() {
        return None;
    }
    match check(&child, &kind) {
        Ok(()) if kind == "prometheus" => Some(One::Scraped(child)),
        Ok(()) => Some(One::Streamed(child)),
        Err((name, text, help)) => {
            fields.value(fields.line_of(name), text, Some(Help::sentence(help)));
            None
        }
    }
}

/// The field that is wrong, what is, and what to do.
fn check(child: &Child, kind: &str) -> Result<(), (&'static str, String, &'static str)> {
    if child.name.is_empty() || child.name.contains('/') {
        let help = "every child needs a name of its own, without a slash";
        return Err((
            "name",
            format!("invalid name of a child {:?}", child.name),
            help,
        ));
    }
    if !["quorate", "prometheus"].contains(&kind) {
        return Err((
            "kind",
            format!("unknown kind {kind:?}"),
            "kind is quorate or prometheus",
        ));
    }
    if child.matches.is_empty() {
        let help = "`match` says which series to take; all of them: ['{__name__=~\".+\"}']";
        return Err((
            "match",
            format!("child {:?} has no match", child.name),
            help,
        ));
    }
    for selector in &child.matches {
        if let Err(error) = promql::parse_matchers(selector) {
            let text = format!("match {selector:?}: {error}");
            return Err((
                "match",
                text,
                "each item is a selector, like `match[]` of /federate",
            ));
        }
    }
    if let Some(target) = child
        .targets
        .iter()
        .find(|t| t.contains('/') || t.is_empty())
    {
        let help = "a target is host:port";
        return Err((
            "targets",
            format!("{target:?} is not a valid hostname"),
            help,
        ));
    }
    if child.targets.is_empty() && (child.consul.is_none() || kind == "prometheus") {
        let help = "name its nodes in `targets`, or those of kind quorate by `consul`";
        return Err((
            "targets",
            format!("child {:?} has no targets", child.name),
            help,
        ));
    }
    Ok(())
}

fn read_consul(parent: &Fields<'_, '_>) -> Option<Consul> {
    let place = format!("{}, consul", parent.place);
    let node = parent.node("consul")?;
    let fields = Fields::open(node, "config.Consul", place, parent.problems)?;
    let consul = Consul {
        server: fields
            .text("server")
            .unwrap_or_else(|| "127.0.0.1:8500".to_owned()),
        service: fields.text("service").unwrap_or_default(),
    };
    if consul.service.is_empty() || consul.service.contains(['/', '?', '#', ' ']) {
        let text = format!("invalid name of a service {:?}", consul.service);
        fields.value(fields.line_of("service"), text, None);
    }
    fields.finish();
    Some(consul)
}

/// The job that scrapes `/federate` of it. Written as text and read as any other job is: so it has
/// the same defaults.
fn as_job(
    child: &Child,
    global: &Global,
    taken: &mut Vec<String>,
    problems: &Problems,
) -> Vec<ScrapeConfig> {
    let mut labels: serde_json::Map<String, serde_json::Value> = child
        .labels
        .iter()
        .map(|(name, value)| (name.clone(), value.clone().into()))
        .collect();
    labels.insert(CHILD_LABEL.to_owned(), child.name.clone().into());
    // JSON is YAML.
    let job = serde_json::json!([{
        "job_name": format!("federation/{}", child.name),
        "honor_labels": true,
        "metrics_path": "/federate",
        "scrape_interval": format_duration(child.interval),
        "params": {"match[]": child.matches},
        "static_configs": [{"targets": child.targets, "labels": labels}],
    }]);
    let Ok(Some(Node {
        value: yaml::Value::Sequence(items),
        ..
    })) = yaml::parse(&job.to_string())
    else {
        unreachable!("a list was written");
    };
    let mut jobs = read_jobs(&items, global, taken, problems);
    for job in &mut jobs {
        job.http = child.http.clone();
    }
    jobs
}

/// Makes relative file names start at the configuration's directory.
pub fn resolve(children: &mut [Child], directory: &Path) {
    for child in children {
        child.http.resolve(directory);
    }
}

#[cfg(test)]
mod tests {
    use super::super::surroundings::Machine;
    use super::super::{Config, parse};
    use super::*;

    fn parsed(children: &str) -> Result<Config, String> {
        let text = format!("federation:\n  children:\n{children}");
        let parsed = parse(&text, Path::new("p.yml"), &Machine);
        parsed.map_err(|error| error.to_string())
    }

    #[test]
    fn a_child_has_what_a_job_has() {
        let config = parsed(
            "    - name: eu\n      targets: ['a:9090']\n      match: ['up']\n      labels: {region: eu}\n      \
             basic_auth: {username: u, password: p}\n      interval: 5s\n",
        )
        .unwrap();
        let child = &config.children[0];
        assert_eq!((child.name.as_str(), child.interval.as_secs()), ("eu", 5));
        assert_ne!(child.http, HttpClient::default());
        assert!(config.redacted_yaml().contains("name: eu"));
        assert!(!config.redacted_yaml().contains("password: p\n"));
        assert!(config.warnings().is_empty(), "{:?}", config.warnings());
    }

    #[test]
    fn a_prometheus_is_scraped() {
        let config = parsed(
            "    - {name: old, kind: prometheus, targets: ['p:9090'], match: ['{job=\"a\"}'], interval: 7s}\n",
        )
        .unwrap();
        let job = &config.scrape_configs[0];
        assert_eq!(job.job_name, "federation/old");
        assert!(job.honor_labels && job.honor_timestamps);
        assert_eq!(job.metrics_path, "/federate");
        assert_eq!(job.params["match[]"], [r#"{job="a"}"#]);
        assert_eq!(job.scrape_interval.as_secs(), 7);
        let labels = &job.static_configs[0].labels;
        assert_eq!(labels, &[("quorate_child".to_owned(), "old".to_owned())]);
        assert!(config.children.is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        for (child, words) in [
            ("    - {targets: ['a:1'], match: [up]}\n", "invalid name"),
            ("    - {name: a, match: [up]}\n", "no targets"),
            ("    - {name: a, targets: ['a:1']}\n", "no match"),
            ("    - {name: a, targets: ['a:1'], match: ['{']}\n", "match"),
            (
                "    - {name: a, targets: ['http://a'], match: [up]}\n",
                "hostname",
            ),
            (
                "    - {name: a, targets: ['a:1'], match: [up], kind: x}\n",
                "unknown kind",
            ),
            (
                "    - {name: a, targets: ['a:1'], match: [up], colour: x}\n",
                "colour",
            ),
            (
                "    - {name: a, targets: ['a:1'], match: [up]}\n    - {name: a, targets: ['b:1'], match: [up]}\n",
                "multiple",
            ),
        ] {
            let error = parsed(child).expect_err(child);
            assert!(error.contains(words), "{child}: {error}");
        }
    }
}
