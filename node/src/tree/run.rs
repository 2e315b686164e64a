//! The loops of all children. Each node runs them all; who holds a child's lease pulls.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster::Cluster;
use model::Batch;
use model::port::{Task, World};
use model::sink::Sink;
use tracing::{info, warn};

use super::child::Child;
use super::origins;
use super::place::places;
use super::pull::{Pull, Pulled};
use crate::config::{HttpClient, Surroundings};
use crate::scrape::{Client, HttpFetch};

/// Runs the children it was last given.
pub struct Tree {
    world: World,
    cluster: Arc<Cluster>,
    surroundings: Arc<dyn Surroundings + Send + Sync>,
    running: Mutex<BTreeMap<String, (Child, Task)>>,
}

impl Tree {
    pub fn new(
        world: World,
        cluster: Arc<Cluster>,
        surroundings: Arc<dyn Surroundings + Send + Sync>,
    ) -> Self {
        Self {
            world,
            cluster,
            surroundings,
            running: Mutex::default(),
        }
    }

    /// Makes the loops be those of `children`. What did not change runs on undisturbed.
    pub fn apply(&self, children: &[Child]) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut old = std::mem::take(&mut *running);
        for child in children {
            let same = old.remove(&child.name).filter(|(known, _)| known == child);
            let entry = same.unwrap_or_else(|| (child.clone(), self.start(child.clone())));
            running.insert(child.name.clone(), entry);
        }
    }

    /// Ends all loops; the cursors say where others go on.
    pub fn stop(&self) {
        self.apply(&[]);
    }

    /// Whose samples pass here, as a parent is told; nothing before there is a cluster.
    pub fn origins(&self) -> String {
        let Some(own) = self.cluster.cluster_id() else {
            return String::new();
        };
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<String> = running.values().map(|(child, _)| child.key()).collect();
        let origins = origins::of(own, &keys, &self.cluster.cursors());
        Vec::from_iter(origins).join(",")
    }

    fn fetch(&self, http: HttpClient) -> HttpFetch {
        let cluster = Arc::clone(&self.cluster);
        HttpFetch {
            net: Arc::clone(&self.world.net),
            client: Client {
                http,
                enable_compression: false,
            },
            surroundings: Arc::clone(&self.surroundings),
            cluster_id: Arc::new(move || cluster.cluster_id()),
        }
    }

    fn start(&self, child: Child) -> Task {
        let of_child = Loop {
            world: self.world.clone(),
            cluster: Arc::clone(&self.cluster),
            http: self.fetch(child.http.clone()),
            consul: self.fetch(HttpClient::default()),
            child,
        };
        let task = Box::pin(of_child.run());
        self.world.spawn.spawn("federation child", task)
    }
}

struct Loop {
    world: World,
    cluster: Arc<Cluster>,
    http: HttpFetch,
    consul: HttpFetch,
    child: Child,
}

impl Loop {
    async fn run(self) {
        let interval = self.child.interval.max(Duration::from_millis(100));
        // Where the last pull found it; tried first.
        let mut turn = 0;
        let mut failed = false;
        loop {
            let began = self.world.clock.monotonic();
            if let Some(fence) = self.cluster.scrape_fence(self.child.identity()) {
                let pulled = self.pull(fence, turn).await;
                let took = self.world.clock.monotonic().saturating_sub(began);
                match &pulled {
                    Ok(pulled) => {
                        if std::mem::take(&mut failed) {
                            info!(
                                child = self.child.name,
                                samples = pulled.samples,
                                "child is read again"
                            );
                        }
                        if pulled.conflicts > 0 {
                            warn!(
                                child = self.child.name,
                                samples = pulled.conflicts,
                                "the child has other values at instants that are stored already"
                            );
                        }
                    }
                    Err(error) => {
                        turn += 1;
                        failed = true;
                        warn!(child = self.child.name, error, "child not read");
                    }
                }
                self.tell(fence, &pulled, took).await;
            }
            let took = self.world.clock.monotonic().saturating_sub(began);
            tokio::time::sleep(interval.saturating_sub(took)).await;
        }
    }

    async fn pull(&self, fence: model::batch::Fence, turn: usize) -> Result<Pulled, String> {
        let mut places = places(&self.child, &self.consul).await?;
        let turn = turn % places.len();
        places.rotate_left(turn);
        let pull = Pull {
            child: &self.child,
            cluster: &self.cluster,
            http: &self.http,
            clock: &*self.world.clock,
            fence,
        };
        pull.run(&places).await
    }

    /// What a scrape leaves: whether it went well, how long it took, how much came.
    async fn tell(
        &self,
        fence: model::batch::Fence,
        pulled: &Result<Pulled, String>,
        took: Duration,
    ) {
        let now = self.world.clock.now();
        let samples = pulled.as_ref().map_or(0, |pulled| pulled.samples);
        let mut batch = Batch {
            fence: Some(fence),
            ..Batch::default()
        };
        for (metric, value) in [
            ("up", f64::from(u8::from(pulled.is_ok()))),
            ("scrape_duration_seconds", took.as_secs_f64()),
            ("scrape_samples_scraped", samples as f64),
        ] {
            batch.add_sample(self.child.own(metric), now, value);
        }
        if let Err(error) = self.cluster.write(batch).await {
            warn!(child = self.child.name, %error, "how the pull went is not stored");
        }
    }
}
