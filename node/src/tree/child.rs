//! A child cluster as the configuration names it.

use std::time::Duration;

use model::hash::xxh3;
use model::labels::METRIC_NAME;
use model::{Labels, LabelsBuilder};

use crate::config::HttpClient;

/// Which child a series came from; of nested ones the path from the top, by slashes.
pub const CHILD_LABEL: &str = "quorate_child";

/// One child of kind `quorate`.
#[derive(Debug, Clone, PartialEq)]
pub struct Child {
    /// Unique among the children.
    pub name: String,
    pub interval: Duration,
    /// Selectors as written; at least one.
    pub matches: Vec<String>,
    /// Added to each series that lacks them.
    pub labels: Vec<(String, String)>,
    /// `host:port` of any of its nodes.
    pub targets: Vec<String>,
    pub consul: Option<Consul>,
    /// How far back the first stream goes.
    pub history: Duration,
    pub http: HttpClient,
}

/// Its nodes by a Consul agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consul {
    /// `host:port` of the agent.
    pub server: String,
    pub service: String,
}

impl Child {
    /// Under which its cursor is kept. Another choice of series is another stream.
    pub fn key(&self) -> String {
        let chosen = self.matches.join("\n");
        format!("{}/{:016x}", self.name, xxh3(0, chosen.as_bytes()))
    }

    /// What its lease is given for.
    pub fn identity(&self) -> u64 {
        xxh3(0, format!("federation/{}", self.name).as_bytes())
    }

    /// The path of the stream since a position, on any of its nodes.
    pub fn path(&self, since: Option<&str>) -> String {
        let mut path = "/api/v1/federation/stream?".to_owned();
        for selector in &self.matches {
            path += &format!("match[]={}&", escape(selector));
        }
        if let Some(since) = since {
            path += &format!("since={}&", escape(since));
        }
        path + &format!("history={}ms", self.history.as_millis())
    }

    /// Labels of one of its series as they are stored here.
    pub fn labelled(&self, labels: &Labels) -> Labels {
        let mut builder: LabelsBuilder = labels.to_builder();
        let path = match builder.get(CHILD_LABEL) {
            Some(below) => format!("{}/{below}", self.name),
            None => self.name.clone(),
        };
        builder.set(CHILD_LABEL, &path);
        for (name, value) in &self.labels {
            if builder.get(name).is_none() {
                builder.set(name, value);
            }
        }
        builder.build()
    }

    /// Labels of the samples that tell how a pull went, as those of a scrape.
    pub fn own(&self, metric: &str) -> Labels {
        Labels::from_pairs([
            (METRIC_NAME, metric),
            ("instance", &self.name),
            ("job", "federation"),
        ])
    }
}

/// RFC 3986: everything but what is unreserved.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            byte => out += &format!("%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn child(name: &str) -> Child {
        Child {
            name: name.to_owned(),
            interval: Duration::from_secs(15),
            matches: vec![r#"{job=~".+"}"#.to_owned()],
            labels: vec![("region".to_owned(), "eu".to_owned())],
            targets: Vec::new(),
            consul: None,
            history: Duration::from_secs(3600),
            http: HttpClient::default(),
        }
    }

    #[test]
    fn a_series_says_where_it_came_from() {
        let eu = child("eu");
        let own = Labels::from_pairs([("__name__", "a"), ("region", "own")]);
        let stored = eu.labelled(&own);
        let wanted = [
            ("__name__", "a"),
            ("quorate_child", "eu"),
            ("region", "own"),
        ];
        assert_eq!(stored, Labels::from_pairs(wanted));
        let top = child("top").labelled(&eu.labelled(&Labels::from_pairs([("__name__", "a")])));
        assert_eq!(top.get(CHILD_LABEL), Some("top/eu"));
        assert_eq!(top.get("region"), Some("eu"));
    }

    #[test]
    fn another_choice_is_another_stream() {
        let (eu, mut other) = (child("eu"), child("eu"));
        other.matches = vec!["up".to_owned()];
        assert_ne!(eu.key(), other.key());
        assert_eq!(eu.identity(), other.identity());
        assert_eq!(
            eu.path(Some("q1.7.1a-")),
            "/api/v1/federation/stream?match[]=%7Bjob%3D~%22.%2B%22%7D&since=q1.7.1a-&history=3600000ms"
        );
    }
}
