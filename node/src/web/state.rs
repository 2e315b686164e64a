//! What the handlers stand on: ports, settings, and a view of the node.
//!
//! Promise: nothing here knows a cluster; tests put twins in memory behind it.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use ingest::metadata::Gathered;
use ingest::metadata::told::Told;
use ingest::push::Names;
use ingest::remote::seen::Seen;
use model::admin::Admin;
use model::matcher::compile_anchored;
use model::port::{Clock, Dice};
use model::regex::Regex;
use model::sink::{Groups, Sink, WriteError};
use model::source::Source;
use model::{ClusterId, Labels, MetadataStore, NodeId, ShardId, Timestamp};
use promql::ParseOptions;
use serde::{Deserialize, Serialize, Serializer};

use super::body::Budget;
use super::metrics::Metrics;
pub use super::stream::Upward;
use super::write::Message;
use crate::queries::Queries;

/// Everything a request may need. Cheap to clone; both listeners share one.
#[derive(Clone)]
pub struct ApiState {
    /// The whole cluster.
    pub source: Arc<dyn Source>,
    pub sink: Arc<dyn Sink>,
    pub groups: Arc<dyn Groups>,
    pub admin: Arc<dyn Admin>,
    /// What senders said of their metrics.
    pub metadata: Arc<dyn MetadataStore>,
    pub queries: Arc<Queries>,
    pub clock: Arc<dyn Clock>,
    pub dice: Arc<dyn Dice>,
    pub status: Arc<dyn Status>,
    /// What a parent cluster streams.
    pub upward: Arc<dyn Upward>,
    pub settings: Settings,
    /// `global.external_labels`: a reload exchanges them.
    pub external_labels: Arc<RwLock<Labels>>,
    /// The configuration's `otlp`: a reload exchanges it.
    pub otlp: Arc<RwLock<ingest::otlp::Settings>>,
    /// Label sets of remote write that need not be read again.
    pub seen: Arc<Seen>,
    /// What `metadata` was told from here.
    pub told: Arc<Told>,
    /// Memory for the bodies of requests.
    pub body_budget: Budget,
    pub http_metrics: Metrics,
}

impl ApiState {
    /// The `otlp` section of this moment, with the lookback.
    pub fn otlp_settings(&self) -> ingest::otlp::Settings {
        let settings = self.otlp.read().unwrap_or_else(PoisonError::into_inner);
        ingest::otlp::Settings {
            lookback: self.settings.lookback,
            adds_deltas: self.settings.otlp_deltas,
            keeps_deltas: self.settings.otlp_native_deltas,
            type_and_unit_labels: self.settings.type_and_unit_labels,
            ..settings.clone()
        }
    }

    /// Stores what a request says of its metrics, unless it was said before.
    pub async fn describe(&self, said: &Gathered) -> Result<(), WriteError> {
        let now = self.clock.monotonic();
        let untold = match said.families() {
            [] => return Ok(()),
            families => self.told.untold(families, now),
        };
        if !untold.is_empty() {
            self.metadata.describe(untold.clone()).await?;
            self.told.note(&untold, now);
        }
        Ok(())
    }

    /// The external labels of this moment.
    pub fn external_labels(&self) -> Labels {
        let labels = self.external_labels.read();
        labels.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Flags that stay as they are while the process runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `--query.lookback-delta`.
    pub lookback: Duration,
    /// `--query.timeout`: a request may ask for less.
    pub query_timeout: Duration,
    /// Whether `/api/v1/write` takes samples. Prometheus' default is no; a cluster store's nature
    /// is to receive, so ours is yes.
    pub remote_write_receiver: bool,
    /// Whether `/api/v1/otlp/v1/metrics` takes data points; ours is yes, for the same reason.
    pub otlp_receiver: bool,
    /// `otlp-deltatocumulative`: whether it takes those of delta temporality and adds them up.
    pub otlp_deltas: bool,
    /// `otlp-native-delta-ingestion`: whether it takes them and stores them as they are.
    pub otlp_native_deltas: bool,
    /// `type-and-unit-labels`: whether type and unit become labels of its series.
    pub type_and_unit_labels: bool,
    /// `--web.remote-write-receiver.accepted-protobuf-messages`.
    pub remote_write_messages: Vec<Message>,
    /// `--web.enable-lifecycle`.
    pub lifecycle: bool,
    /// `--web.enable-admin-api`.
    pub admin: bool,
    /// `promql-per-step-stats`: `stats=all` tells of every step.
    pub per_step_stats: bool,
    /// What an expression may contain.
    pub parse: ParseOptions,
    /// `--push.enable-utf8-names`.
    pub push_names: Names,
    /// `--push.disable-consistency-check`.
    pub push_unchecked: bool,
    /// `--push.enable-admin-api`, or Pushgateway's `--web.enable-admin-api`.
    pub push_admin: bool,
    /// `--push.enable-lifecycle`, or Pushgateway's `--web.enable-lifecycle`.
    pub push_lifecycle: bool,
    /// `--web.telemetry-path` of the push listener.
    pub telemetry_path: String,
    /// In front of every route, without a slash at its end: `--web.route-prefix`.
    pub route_prefix: String,
    /// In front of every path that a page leads to, in the same form: that of `--web.external-url`.
    pub external_path: String,
    /// `--web.cors.origin`: pages of these origins may read the API.
    pub cors_origin: Regex,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lookback: Duration::from_secs(300),
            query_timeout: Duration::from_secs(120),
            remote_write_receiver: true,
            remote_write_messages: Message::ALL.to_vec(),
            otlp_receiver: true,
            otlp_deltas: false,
            otlp_native_deltas: false,
            type_and_unit_labels: false,
            lifecycle: false,
            admin: false,
            per_step_stats: false,
            parse: ParseOptions::default(),
            push_names: Names::default(),
            push_unchecked: false,
            push_admin: false,
            push_lifecycle: false,
            telemetry_path: "/metrics".to_owned(),
            route_prefix: String::new(),
            external_path: String::new(),
            cors_origin: compile_anchored(".*").expect("a constant"),
        }
    }
}

/// The node as its pages show it, and the two orders it takes.
#[async_trait]
pub trait Status: Send + Sync {
    /// Whether every shard held here has a leader; else what is missing.
    fn ready(&self) -> Result<(), String>;
    /// Whether the node is on its way out.
    fn stopping(&self) -> bool;
    /// Name and value of every flag.
    fn flags(&self) -> Vec<(String, String)>;
    /// The configuration in force, secrets blotted out.
    fn config_yaml(&self) -> String;
    fn build(&self) -> Build;
    fn runtime(&self) -> Runtime;
    fn cluster(&self) -> ClusterStatus;
    /// `None` while there is no cluster.
    fn cluster_id(&self) -> Option<ClusterId>;
    /// Targets of the whole cluster.
    async fn targets(&self) -> Targets;
    /// Names of the jobs, in any order.
    fn scrape_pools(&self) -> Vec<String>;
    /// What the targets of the whole cluster say their metrics mean; of all, or of one.
    async fn metadata(&self, metric: Option<&str>) -> Metadata;
    /// What an operator should know now, oldest first.
    fn notifications(&self) -> Vec<Notification>;
    /// The node's own telemetry in the text format, for `/metrics` of the API's listener.
    fn metrics_text(&self) -> String;
    /// The same for `/metrics` of the push listener, where the pushed groups stand above it.
    fn push_metrics_text(&self) -> String;
    /// Loads the configuration again; on an error the old one stays in force.
    async fn reload(&self) -> Result<(), String>;
    /// Begins to stop; false when that had begun before.
    fn quit(&self) -> bool;
}

/// What was built, in the shape of Prometheus (Grafana takes more fields for another product).
#[derive(Debug, Default, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Build {
    pub version: String,
    pub revision: String,
    pub branch: String,
    pub build_user: String,
    pub build_date: String,
    /// Stands where Prometheus names its Go.
    pub go_version: String,
}

/// The running process.
#[derive(Debug, Default, Clone)]
pub struct Runtime {
    pub started: Timestamp,
    pub directory: String,
    pub hostname: String,
    pub last_reload_succeeded: bool,
    pub last_config_time: Timestamp,
    pub corruptions: u64,
    pub tasks: u64,
    pub threads: u64,
    pub memory_limit_bytes: i64,
    /// As the flags give it: `15d`.
    pub retention: String,
}

/// The cluster as this node knows it.
#[derive(Debug, Default, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    #[serde(serialize_with = "as_text")]
    pub cluster_id: ClusterId,
    #[serde(serialize_with = "as_text")]
    pub node_id: NodeId,
    pub members: Vec<Member>,
    pub shards: Vec<Shard>,
}

#[derive(Debug, Default, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    #[serde(serialize_with = "as_text")]
    pub id: NodeId,
    pub address: String,
    pub zone: String,
    pub alive: bool,
    pub version: String,
}

#[derive(Debug, Default, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shard {
    #[serde(serialize_with = "as_text")]
    pub id: ShardId,
    #[serde(serialize_with = "as_optional_text")]
    pub leader: Option<NodeId>,
    #[serde(serialize_with = "as_texts")]
    pub replicas: Vec<NodeId>,
    /// This node's replica; `None` when it holds none.
    pub here: Option<Replica>,
}

/// One replica's place in its log.
#[derive(Debug, Default, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replica {
    /// `leader`, `follower`, `candidate` or `learner`.
    pub role: &'static str,
    pub term: u64,
    pub last_log: u64,
    pub applied: u64,
    /// Entries that are committed as far as is known here and not yet applied.
    pub lag: u64,
}

/// Scrape targets of the cluster.
#[derive(Debug, Default, Clone)]
pub struct Targets {
    pub active: Vec<Target>,
    /// Labels before relabelling.
    pub dropped: Vec<DroppedTarget>,
    /// Per scrape pool.
    pub dropped_counts: BTreeMap<String, u64>,
    /// Nodes that did not tell of their targets: what is shown of those comes from the data.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Target {
    pub discovered_labels: Labels,
    pub labels: Labels,
    pub scrape_pool: String,
    pub scrape_url: String,
    pub global_url: String,
    pub last_error: String,
    /// `None` before the first scrape.
    pub last_scrape: Option<Timestamp>,
    pub last_scrape_duration: Duration,
    /// `None` before the first scrape.
    pub healthy: Option<bool>,
    pub scrape_interval: String,
    pub scrape_timeout: String,
}

#[derive(Debug, Clone)]
pub struct DroppedTarget {
    pub discovered_labels: Labels,
    pub scrape_pool: String,
}

/// What targets say their metrics mean.
#[derive(Debug, Default, Clone)]
pub struct Metadata {
    /// Targets by pool and labels, metrics by name.
    pub targets: Vec<TargetMetadata>,
    /// Nodes that did not tell of their targets.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct TargetMetadata {
    pub labels: Labels,
    pub metrics: Vec<MetricMetadata>,
}

/// One family of metrics, in the words of the exposition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MetricMetadata {
    pub metric: String,
    /// `counter`, `gauge`, `unknown`, …
    pub kind: String,
    pub help: String,
    pub unit: String,
}

/// Something an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    pub text: String,
    pub since: Timestamp,
}

fn as_text<T: ToString, S: Serializer>(id: &T, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&id.to_string())
}

fn as_optional_text<T: ToString, S: Serializer>(id: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
    id.as_ref().map(ToString::to_string).serialize(to)
}

fn as_texts<T: ToString, S: Serializer>(ids: &[T], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(ids.iter().map(ToString::to_string))
}
