//! What the node tells of itself, and the two orders it takes over HTTP.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use cluster::Cluster;
use cluster::status::{GroupStatus, Role};
use model::labels::METRIC_NAME;
use model::matcher::MatchOp;
use model::port::Clock;
use model::source::{Consistency, Selection, Source, Take};
use model::{ClusterId, Labels, Matcher, NodeId, ShardId, Timestamp};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::Config;
use crate::configuration::{Configuration, LoadError, Loaded};
use crate::neighbours;
use crate::process;
use crate::queries::log::QueryLog;
use crate::scrape::{Elsewhere, ExternalUrl, Pools, Seen};
use crate::telemetry::Telemetry;
use crate::tree::Tree;
use crate::web::state::{
    Build, ClusterStatus, Member, Metadata, Notification, Replica, Runtime, Shard, Status, Targets,
};

/// The two series of a target that tell how its last scrape went.
const UP: &str = "up";
const DURATION: &str = "scrape_duration_seconds";

/// Notifications, in Prometheus' words.
const RELOAD_FAILED: &str = "Configuration reload has failed.";
const STOPPING: &str = "Prometheus is shutting down and gracefully stopping all operations.";

/// The node behind its pages.
pub struct NodeStatus {
    pub cluster: Arc<Cluster>,
    pub source: Arc<dyn Source>,
    pub clock: Arc<dyn Clock>,
    pub configuration: Configuration,
    pub pools: Arc<Pools>,
    pub tree: Arc<Tree>,
    pub telemetry: Arc<Telemetry>,
    pub query_log: Arc<QueryLog>,
    pub external_labels: Arc<RwLock<Labels>>,
    pub otlp: Arc<RwLock<ingest::otlp::Settings>>,
    pub external_url: ExternalUrl,
    /// As the command line gave them.
    pub flags: Vec<(String, String)>,
    pub retention: String,
    pub lookback: Duration,
    /// Whether exemplars are kept at all.
    pub exemplar_storage: bool,
    pub started: Timestamp,
    /// Turns true once the node is to stop.
    pub quit: watch::Sender<bool>,
    /// Held while a configuration is loaded: one after the other.
    pub loading: tokio::sync::Mutex<()>,
}

impl NodeStatus {
    /// Reads the configuration and puts it in force.
    pub async fn load(&self) -> Result<(), LoadError> {
        let _turn = self.loading.lock().await;
        info!("loading configuration file");
        match self.configuration.load() {
            Ok(loaded) => {
                self.put_in_force(loaded);
                info!("completed loading of configuration file");
                Ok(())
            }
            Err(error) => {
                self.configuration.note(None);
                self.telemetry.reloaded(false, &*self.clock);
                Err(error)
            }
        }
    }

    /// Cannot fail: all that can be wrong was looked at before.
    pub fn put_in_force(&self, loaded: Loaded) {
        let config = &loaded.config;
        for warning in config.warnings() {
            warn!("{warning}");
        }
        let state = self.configuration.state();
        if state.since > Timestamp(0) && needs_restart(&state.config, config) {
            warn!(
                "changed retention, evaluation_interval or scrape_interval of pushed groups: in force after a restart"
            );
        }
        let labels = external_labels(config);
        *self
            .external_labels
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = labels;
        *self
            .otlp
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = config.otlp.clone();
        let window_ms = config.out_of_order_time_window().as_millis();
        let window_ms = i64::try_from(window_ms).unwrap_or(i64::MAX);
        self.cluster.set_out_of_order_window(window_ms);
        if self.exemplar_storage {
            self.cluster.set_exemplars_max(config.exemplars_max());
        }
        self.pools.apply(&loaded.jobs);
        self.tree.apply(&config.children);
        let query_log = config.global.query_log_file.as_deref();
        self.query_log.write_to(query_log);
        self.configuration.note(Some(Arc::clone(config)));
        self.telemetry.reloaded(true, &*self.clock);
    }

    /// By a target's labels, how its last scrape went, whoever made it.
    async fn seen(&self) -> BTreeMap<Labels, Seen> {
        let now = self.clock.now();
        let lookback_ms = i64::try_from(self.lookback.as_millis()).unwrap_or(i64::MAX);
        let names = format!("{UP}|{DURATION}");
        let by_name = Matcher::new(MatchOp::Regex, METRIC_NAME, &names);
        let selection = Selection {
            matchers: vec![by_name.expect("a constant expression")],
            start: now.plus_ms(-lookback_ms),
            end: now,
            take: Take::Last,
            consistency: Consistency::Local,
        };
        let series = match self.source.select(&selection).await {
            Ok(series) => series,
            Err(error) => {
                warn!(%error, "targets of other nodes are shown without their state");
                return BTreeMap::new();
            }
        };
        let mut seen: BTreeMap<Labels, Seen> = BTreeMap::new();
        for one in series {
            let Some(last) = one.samples.last() else {
                continue;
            };
            let name = one.labels.metric_name().to_owned();
            let mut builder = one.labels.to_builder();
            builder.remove(METRIC_NAME);
            let entry = seen.entry(builder.build()).or_insert(Seen {
                up: false,
                at: last.timestamp,
                duration: Duration::ZERO,
            });
            match name.as_str() {
                UP => (entry.up, entry.at) = (last.value == 1.0, last.timestamp),
                _ => entry.duration = seconds(last.value),
            }
        }
        seen
    }
}

/// Whether something differs that a running node does not change.
fn needs_restart(old: &Config, new: &Config) -> bool {
    old.storage.retention != new.storage.retention
        || old.global.evaluation_interval != new.global.evaluation_interval
        || old.global.scrape_interval != new.global.scrape_interval
}

/// A duration that a sample claims; whoever pushed it may have written anything.
fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or_default()
}

/// `global.external_labels` as a label set.
pub fn external_labels(config: &Config) -> Labels {
    let labels = config.global.external_labels.iter();
    Labels::from_pairs(labels.map(|(name, value)| (name.as_str(), value.as_str())))
}

/// What was built.
pub fn build() -> Build {
    Build {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: crate::flags::REVISION.to_owned(),
        branch: crate::flags::BRANCH.to_owned(),
        build_user: "unknown".to_owned(),
        build_date: "unknown".to_owned(),
        go_version: concat!("rust", env!("CARGO_PKG_RUST_VERSION")).to_owned(),
    }
}

#[async_trait]
impl Status for NodeStatus {
    fn ready(&self) -> Result<(), String> {
        self.cluster.ready()
    }

    fn stopping(&self) -> bool {
        *self.quit.borrow()
    }

    fn flags(&self) -> Vec<(String, String)> {
        self.flags.clone()
    }

    fn config_yaml(&self) -> String {
        self.configuration.state().config.redacted_yaml()
    }

    fn build(&self) -> Build {
        build()
    }

    fn runtime(&self) -> Runtime {
        let state = self.configuration.state();
        let (directory, hostname) = process::place();
        let tasks = tokio::runtime::Handle::try_current();
        let tasks = tasks.map_or(0, |handle| handle.metrics().num_alive_tasks());
        let threads = std::thread::available_parallelism();
        Runtime {
            started: self.started,
            directory,
            hostname,
            last_reload_succeeded: state.last_succeeded,
            last_config_time: state.since,
            corruptions: self.cluster.corruptions(),
            tasks: tasks as u64,
            threads: threads.map_or(1, |count| count.get() as u64),
            memory_limit_bytes: i64::MAX,
            retention: self.retention.clone(),
        }
    }

    fn cluster(&self) -> ClusterStatus {
        let status = self.cluster.status();
        let members = status.state.members.iter();
        let shards = status.shards.iter().enumerate();
        ClusterStatus {
            cluster_id: status.state.cluster_id().unwrap_or_default(),
            node_id: NodeId(status.node_id),
            members: members
                .map(|(&id, member)| Member {
                    id: NodeId(id),
                    address: member.address.clone(),
                    zone: member.zone.clone(),
                    alive: member.alive,
                    version: member.version.clone(),
                })
                .collect(),
            shards: shards.map(|(at, group)| shard(at, group)).collect(),
        }
    }

    fn cluster_id(&self) -> Option<ClusterId> {
        self.cluster.cluster_id()
    }

    async fn targets(&self) -> Targets {
        let (told, warnings) = neighbours::ask_targets(&self.cluster).await;
        let seen = match self.pools.untold(&told) {
            true => self.seen().await,
            false => BTreeMap::new(),
        };
        let elsewhere = Elsewhere { told, seen };
        let targets = self.pools.targets(&self.external_url, &elsewhere);
        Targets {
            warnings,
            ..targets
        }
    }

    fn scrape_pools(&self) -> Vec<String> {
        self.pools.names()
    }

    async fn metadata(&self, metric: Option<&str>) -> Metadata {
        let (targets, warnings) =
            neighbours::ask_metadata(&self.cluster, &self.pools, metric).await;
        Metadata { targets, warnings }
    }

    fn notifications(&self) -> Vec<Notification> {
        let state = self.configuration.state();
        let failed = (!state.last_succeeded).then_some((RELOAD_FAILED, state.last_attempt));
        let stopping = self.stopping().then(|| (STOPPING, self.clock.now()));
        let both = failed.into_iter().chain(stopping);
        both.map(|(text, since)| Notification {
            text: text.to_owned(),
            since,
        })
        .collect()
    }

    fn metrics_text(&self) -> String {
        self.telemetry.text()
    }

    fn push_metrics_text(&self) -> String {
        self.telemetry.push_text()
    }

    async fn reload(&self) -> Result<(), String> {
        self.load().await.map_err(|error| error.to_string())
    }

    fn quit(&self) -> bool {
        !self.quit.send_replace(true)
    }
}

fn shard(at: usize, group: &GroupStatus) -> Shard {
    let here = (group.role != Role::Absent).then(|| Replica {
        role: group.role.as_str(),
        term: group.term,
        last_log: group.last_log,
        applied: group.applied,
        lag: group.lag,
    });
    Shard {
        id: ShardId(u32::try_from(at).unwrap_or(u32::MAX)),
        leader: group.leader.map(NodeId),
        replicas: group.replicas.iter().copied().map(NodeId).collect(),
        here,
    }
}
