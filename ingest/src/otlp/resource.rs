//! The labels that all data points of a resource and a scope share, and `target_info`.

use std::collections::BTreeMap;

use model::labels::METRIC_NAME;
use model::{Labels, limits};
use proto::otlp::{InstrumentationScope, KeyValue};

use super::{Promote, Settings, names, values};
use crate::remote::{excess, invalid};

const SERVICE_NAME: &str = "service.name";
const SERVICE_NAMESPACE: &str = "service.namespace";
const SERVICE_INSTANCE: &str = "service.instance.id";
/// What `job` and `instance` are made of.
const IDENTIFYING: [&str; 3] = [SERVICE_NAMESPACE, SERVICE_NAME, SERVICE_INSTANCE];

/// Who made the data points.
#[derive(Debug, Clone, Default)]
pub struct Resource {
    attributes: Vec<KeyValue>,
    /// Labels that a data point may have itself, in order.
    promoted: Vec<(String, String)>,
    /// Labels that it may not.
    fixed: Vec<(String, String)>,
    job: Option<String>,
    instance: Option<String>,
}

fn check_count(what: &str, attributes: &[KeyValue]) -> Result<(), String> {
    let (count, max) = (attributes.len(), limits::OTLP_ATTRIBUTES_MAX);
    match count > max {
        true => Err(format!("{what} of {count} attributes, the limit is {max}")),
        false => Ok(()),
    }
}

impl Resource {
    pub fn new(attributes: Vec<KeyValue>, settings: &Settings) -> Result<Self, String> {
        check_count("a resource", &attributes)?;
        let find = |key| {
            let found = values::find(&attributes, key);
            found.map(|attribute| values::text(attribute.value.as_ref()))
        };
        let job = find(SERVICE_NAME).map(|name| match find(SERVICE_NAMESPACE) {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name,
        });
        let instance = find(SERVICE_INSTANCE);
        let is_promoted = |attribute: &&KeyValue| match &settings.promote {
            Promote::Only(keys) => keys.contains(&attribute.key),
            Promote::AllBut(keys) => !keys.contains(&attribute.key),
        };
        let mut promoted: Vec<&KeyValue> = attributes.iter().filter(is_promoted).collect();
        promoted.sort_by(|a, b| a.key.cmp(&b.key));
        let promoted = promoted
            .into_iter()
            .map(|a| label(a, "", settings))
            .collect();
        Ok(Self {
            promoted,
            fixed: Vec::new(),
            job,
            instance,
            attributes,
        })
    }

    /// The same, for data points of a scope.
    pub fn with_scope(
        mut self,
        scope: &InstrumentationScope,
        schema_url: &str,
        settings: &Settings,
    ) -> Result<Self, String> {
        check_count("a scope", &scope.attributes)?;
        if settings.promote_scope && !scope.name.is_empty() {
            let told = [
                ("otel_scope_name", scope.name.as_str()),
                ("otel_scope_version", scope.version.as_str()),
                ("otel_scope_schema_url", schema_url),
            ];
            let told = told.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let attributes = scope.attributes.iter();
            let attributes = attributes.map(|a| label(a, "otel_scope_", settings));
            self.fixed = told.into_iter().chain(attributes).collect();
        }
        Ok(self)
    }

    /// Labels of a data point, by name; an empty value is still there. Names that become one are
    /// joined by `;` in the order of the attributes' names.
    pub fn labels(
        &self,
        attributes: &[KeyValue],
        settings: &Settings,
    ) -> Result<BTreeMap<String, String>, String> {
        check_count("a data point", attributes)?;
        let mut labels = merge(attributes.iter(), settings);
        for (name, value) in &self.promoted {
            labels.entry(name.clone()).or_insert_with(|| value.clone());
        }
        labels.extend(self.fixed.iter().cloned());
        self.identify(&mut labels);
        Ok(labels)
    }

    fn identify(&self, labels: &mut BTreeMap<String, String>) {
        for (name, value) in [("job", &self.job), ("instance", &self.instance)] {
            if let Some(value) = value {
                labels.insert(name.to_owned(), value.clone());
            }
        }
    }

    /// `target_info` with what the resource has beside its identity; `None` when that is nothing,
    /// when nothing identifies it, or when it is no series.
    pub fn target_info(&self, settings: &Settings) -> Option<Labels> {
        let is_identity = |a: &&KeyValue| IDENTIFYING.contains(&a.key.as_str());
        if self.attributes.iter().all(|a| is_identity(&a)) {
            return None;
        }
        let told = self.attributes.iter();
        let told = told.filter(|a| settings.keep_identifying || !is_identity(a));
        let mut labels = merge(told, settings);
        self.identify(&mut labels);
        if !labels.contains_key("job") && !labels.contains_key("instance") {
            return None;
        }
        labels.insert(METRIC_NAME.to_owned(), "target_info".to_owned());
        series(&labels, &[]).ok()
    }
}

fn label(attribute: &KeyValue, prefix: &str, settings: &Settings) -> (String, String) {
    let name = names::label(&format!("{prefix}{}", attribute.key), settings.strategy);
    (name, values::text(attribute.value.as_ref()))
}

fn merge<'a>(
    attributes: impl Iterator<Item = &'a KeyValue>,
    settings: &Settings,
) -> BTreeMap<String, String> {
    let mut sorted: Vec<&KeyValue> = attributes.collect();
    sorted.sort_by(|a, b| a.key.cmp(&b.key));
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    for attribute in sorted {
        let (name, value) = label(attribute, "", settings);
        match labels.get_mut(&name) {
            Some(before) => {
                before.push(';');
                before.push_str(&value);
            }
            None => drop(labels.insert(name, value)),
        }
    }
    labels
}

/// The series of these labels and `more`; a text when they are none.
pub fn series(labels: &BTreeMap<String, String>, more: &[(&str, &str)]) -> Result<Labels, String> {
    let own = labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
    let mut pairs: Vec<(&str, &str)> = own.chain(more.iter().copied()).collect();
    pairs.sort_unstable();
    match excess(&pairs).or_else(|| invalid(&pairs)) {
        Some(problem) => Err(problem),
        None => Ok(Labels::from_sorted(pairs)),
    }
}
