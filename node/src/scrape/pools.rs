//! The loops of all targets, by job.
//!
//! Invariant: a loop runs for each target of the newest configuration, once per job. Loops that
//! were told to end are kept until they have.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use ingest::metrics::Metrics;
use ingest::scrape::{
    Fetch, FetchError, Fetched, Loop, MetadataCell, ScrapeRequest, StatusCell, Stop, Target,
    discovered_labels,
};
use model::batch::Fence;
use model::port::{Task, World};
use model::sink::Sink;
use model::{ClusterId, Labels};
use tokio::sync::watch;
use tracing::warn;

use super::http::{Client, HttpFetch};
use super::jobs::Job;
use crate::config::Surroundings;
use crate::web::state::{MetricMetadata, TargetMetadata};

/// The lease of a target, by its identity; `None` while another node holds it.
pub type Leases = Arc<dyn Fn(u64) -> Option<Fence> + Send + Sync>;

/// Runs the loops of the jobs it was last given.
pub struct Pools {
    world: World,
    sink: Arc<dyn Sink>,
    leases: Leases,
    cluster_id: Arc<dyn Fn() -> Option<ClusterId> + Send + Sync>,
    surroundings: Arc<dyn Surroundings + Send + Sync>,
    metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pools: BTreeMap<String, Pool>,
    ending: Vec<Task>,
}

/// One job's targets.
#[derive(Default)]
pub(super) struct Pool {
    /// By identity: a target that stands twice in a job is scraped once.
    pub(super) running: BTreeMap<u64, Running>,
    pub(super) dropped: Vec<Labels>,
    pub(super) dropped_count: u64,
}

/// A target with its loop.
pub(super) struct Running {
    pub(super) discovered: Labels,
    pub(super) target: Arc<Target>,
    pub(super) status: StatusCell,
    pub(super) metadata: MetadataCell,
    client: Client,
    refusal: Option<String>,
    stop: watch::Sender<Stop>,
    task: Task,
}

/// What a job comes to.
#[derive(Default)]
struct Wanted {
    targets: BTreeMap<u64, (Labels, Target)>,
    dropped: Vec<Labels>,
    dropped_count: u64,
}

fn metadata_of(cell: &MetadataCell, metric: Option<&str>) -> Vec<MetricMetadata> {
    let known = match metric {
        Some(metric) => {
            let one = cell.get(metric);
            one.map(|known| (metric.to_owned(), known))
                .into_iter()
                .collect()
        }
        None => cell.list(),
    };
    let word = |(metric, known): (String, ingest::scrape::MetricMetadata)| MetricMetadata {
        metric,
        kind: known.kind.as_str().to_owned(),
        help: known.help,
        unit: known.unit,
    };
    known.into_iter().map(word).collect()
}

impl Pools {
    pub fn new(
        world: World,
        sink: Arc<dyn Sink>,
        leases: Leases,
        cluster_id: Arc<dyn Fn() -> Option<ClusterId> + Send + Sync>,
        surroundings: Arc<dyn Surroundings + Send + Sync>,
        metrics: Metrics,
    ) -> Self {
        Self {
            world,
            sink,
            leases,
            cluster_id,
            surroundings,
            metrics,
            state: Mutex::default(),
        }
    }

    /// Makes the loops be those of `jobs`. What did not change runs on undisturbed.
    pub fn apply(&self, jobs: &[Job]) {
        let mut state = self.lock();
        let mut old = std::mem::take(&mut state.pools);
        for job in jobs {
            let pool = old.remove(&job.scrape.job_name).unwrap_or_default();
            let (pool, ended) = self.renew(pool, job);
            state.ending.extend(ended);
            state.pools.insert(job.scrape.job_name.clone(), pool);
        }
        let gone = old.into_values().flat_map(|pool| pool.running);
        let gone = gone.map(|(_, running)| running.end(Stop::TargetGone));
        state.ending.extend(gone);
        state.ending.retain(|task| !task.is_finished());
    }

    /// Ends all loops without staleness markers: the targets are scraped on, by other nodes.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.pools.clear();
        state.ending.clear();
    }

    /// What the targets scraped here say their metrics mean, with their jobs; of all, or of one.
    pub fn metadata(&self, metric: Option<&str>) -> Vec<(String, TargetMetadata)> {
        let mut all = Vec::new();
        self.each(|job, pool| {
            let here = pool.running.values();
            let here = here.filter(|running| self.holds_lease(&running.target));
            all.extend(here.map(|running| {
                let labels = running.target.labels.clone();
                let metrics = metadata_of(&running.metadata, metric);
                (job.to_owned(), TargetMetadata { labels, metrics })
            }));
        });
        all
    }

    /// Calls `show` with each pool, by job name.
    pub(super) fn each(&self, mut show: impl FnMut(&str, &Pool)) {
        for (job, pool) in &self.lock().pools {
            show(job, pool);
        }
    }

    /// Whether this node scrapes the target now.
    pub(super) fn holds_lease(&self, target: &Target) -> bool {
        (self.leases)(target.identity()).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn renew(&self, mut old: Pool, job: &Job) -> (Pool, Vec<Task>) {
        let wanted = wanted(job);
        let found = wanted.targets.len() as u64;
        let refusal = (job.targets_max > 0 && found > job.targets_max).then(|| {
            let limit = job.targets_max;
            format!("target_limit exceeded (number of targets: {found}, limit: {limit})")
        });
        let mut ended = Vec::new();
        let mut running = BTreeMap::new();
        for (identity, (discovered, target)) in wanted.targets {
            let kept = match old.running.remove(&identity) {
                Some(mut same) if same.is_as(&target, &job.client, &refusal) => {
                    same.discovered = discovered;
                    same
                }
                changed => {
                    // Its series go on under the new settings: no markers in between.
                    ended.extend(changed.map(|old| old.end(Stop::LeaseMoved)));
                    self.start(discovered, target, &job.client, refusal.clone())
                }
            };
            running.insert(identity, kept);
        }
        let gone = old.running.into_values();
        ended.extend(gone.map(|running| running.end(Stop::TargetGone)));
        let pool = Pool {
            running,
            dropped: wanted.dropped,
            dropped_count: wanted.dropped_count,
        };
        (pool, ended)
    }

    fn start(
        &self,
        discovered: Labels,
        target: Target,
        client: &Client,
        refusal: Option<String>,
    ) -> Running {
        let fetch: Arc<dyn Fetch> = match &refusal {
            Some(why) => Arc::new(Refuse(why.clone())),
            None => Arc::new(HttpFetch {
                net: Arc::clone(&self.world.net),
                client: client.clone(),
                surroundings: Arc::clone(&self.surroundings),
                cluster_id: Arc::clone(&self.cluster_id),
            }),
        };
        let (identity, leases) = (target.identity(), Arc::clone(&self.leases));
        let target = Arc::new(target);
        let (status, metadata) = (StatusCell::default(), MetadataCell::default());
        let scrapes = Loop {
            target: Arc::clone(&target),
            fetch,
            sink: Arc::clone(&self.sink),
            clock: Arc::clone(&self.world.clock),
            offset: target.offset(),
            fence: Box::new(move || leases(identity)),
            status: status.clone(),
            metadata: metadata.clone(),
            metrics: self.metrics.clone(),
        };
        let (stop, stopped) = watch::channel(Stop::Run);
        let task = scrapes.run(stopped);
        Running {
            discovered,
            target,
            status,
            metadata,
            client: client.clone(),
            refusal,
            stop,
            task: self.world.spawn.spawn("scrape", Box::pin(task)),
        }
    }
}

impl Running {
    fn is_as(&self, target: &Target, client: &Client, refusal: &Option<String>) -> bool {
        *self.target == *target && self.client == *client && self.refusal == *refusal
    }

    /// Tells the loop to end and hands over its task.
    fn end(self, how: Stop) -> Task {
        self.stop.send_replace(how);
        self.task
    }
}

fn wanted(job: &Job) -> Wanted {
    let mut wanted = Wanted::default();
    for discovered in &job.discovered {
        let labels = discovered_labels(discovered, &job.scrape);
        match Target::from_discovered(discovered, &job.scrape) {
            Ok(Some(target)) => {
                let identity = target.identity();
                wanted.targets.insert(identity, (labels, target));
            }
            Ok(None) => {
                wanted.dropped_count += 1;
                if job.dropped_max == 0 || wanted.dropped_count <= job.dropped_max {
                    wanted.dropped.push(labels);
                }
            }
            Err(error) => {
                let job = &job.scrape.job_name;
                warn!(job, labels = %discovered, %error, "discovered labels make no target");
            }
        }
    }
    wanted
}

/// Asks nobody: a limit forbids it.
struct Refuse(String);

#[async_trait]
impl Fetch for Refuse {
    async fn fetch(&self, _request: ScrapeRequest) -> Result<Fetched, FetchError> {
        Err(FetchError::Refused(self.0.clone()))
    }
}

#[cfg(test)]
mod tests;
