//! Loops over a real clock with short intervals, an exporter in this process and a sink in memory.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use ingest::scrape::ScrapeJob;
use model::Batch;
use model::sample::is_stale;
use model::sink::{WriteError, Written};
use tokio::time::{sleep, timeout};

use super::super::view::{Elsewhere, ExternalUrl, Seen};
use super::*;
use crate::config::{HttpClient, Machine};
use crate::web::{Bounds, serve};

/// Keeps what is written.
#[derive(Default)]
struct Kept(Mutex<Vec<Batch>>);

#[async_trait]
impl Sink for Kept {
    async fn write(&self, batch: Batch) -> Result<Written, WriteError> {
        self.0.lock().unwrap().push(batch);
        Ok(Written::default())
    }
}

impl Kept {
    fn batches(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn markers(&self) -> usize {
        let batches = self.0.lock().unwrap();
        let values = batches.iter().flat_map(|batch| &batch.rows.values);
        values.filter(|value| is_stale(**value)).count()
    }
}

struct Rig {
    pools: Pools,
    sink: Arc<Kept>,
    has_lease: Arc<AtomicBool>,
    leases_asked: Arc<AtomicU64>,
    hits: Arc<AtomicU64>,
    address: String,
    _server: (Task, watch::Sender<bool>),
    _root: tempfile::TempDir,
}

impl Rig {
    async fn start(has_lease: bool) -> Self {
        let root = tempfile::tempdir().unwrap();
        let world = host::world(root.path()).unwrap();
        let hits = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&hits);
        let exporter = move || {
            let hits = counted.fetch_add(1, Ordering::SeqCst) + 1;
            async move { format!("hits_total {hits}\n") }
        };
        let listener = world.net.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = Router::new().route("/metrics", get(exporter));
        let (stop, stopping) = watch::channel(false);
        let spawn = Arc::clone(&world.spawn);
        let served = serve(listener, router, spawn, Bounds::default(), stopping);
        let server = world.spawn.spawn("exporter", Box::pin(served));
        let sink = Arc::new(Kept::default());
        let has_lease = Arc::new(AtomicBool::new(has_lease));
        let leases_asked = Arc::new(AtomicU64::new(0));
        let (lease, asked) = (Arc::clone(&has_lease), Arc::clone(&leases_asked));
        let leases: Leases = Arc::new(move |target| {
            asked.fetch_add(1, Ordering::SeqCst);
            let held = lease.load(Ordering::SeqCst);
            held.then_some(Fence { target, epoch: 1 })
        });
        let pools = Pools::new(
            world,
            sink.clone(),
            leases,
            Arc::new(|| None),
            Arc::new(Machine),
            Metrics::new(),
        );
        Self {
            pools,
            sink,
            has_lease,
            leases_asked,
            hits,
            address,
            _server: (server, stop),
            _root: root,
        }
    }

    fn job(&self) -> Job {
        let mut scrape = ScrapeJob::new("app");
        scrape.interval = Duration::from_millis(20);
        scrape.timeout = Duration::from_millis(20);
        Job {
            scrape,
            client: Client {
                http: HttpClient::default(),
                enable_compression: true,
            },
            discovered: vec![Labels::from_pairs([("__address__", &*self.address)])],
            targets_max: 0,
            dropped_max: 0,
        }
    }

    /// Waits until every loop has asked for its lease a few times more.
    async fn let_rounds_pass(&self) {
        let begin = self.leases_asked.load(Ordering::SeqCst);
        until(|| self.leases_asked.load(Ordering::SeqCst) >= begin + 3).await;
    }

    fn last_error(&self) -> Option<String> {
        let mut error = None;
        self.pools.each(|_, pool| {
            let mut running = pool.running.values();
            error = running.next().and_then(|r| r.status.get().last_error);
        });
        error
    }
}

async fn until(mut is_so: impl FnMut() -> bool) {
    let waited = timeout(Duration::from_secs(60), async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("within a minute");
}

#[tokio::test]
async fn only_the_holder_of_the_lease_scrapes() {
    let rig = Rig::start(false).await;
    rig.pools.apply(&[rig.job()]);
    rig.let_rounds_pass().await;
    assert_eq!(rig.hits.load(Ordering::SeqCst), 0);
    rig.has_lease.store(true, Ordering::SeqCst);
    until(|| rig.sink.batches() > 0).await;
    let fence = rig.sink.0.lock().unwrap()[0].fence;
    assert!(fence.is_some_and(|fence| fence.epoch == 1));
}

#[tokio::test]
async fn a_lease_that_moves_leaves_no_markers_but_a_removed_target_does() {
    let rig = Rig::start(true).await;
    rig.pools.apply(&[rig.job()]);
    until(|| rig.sink.batches() > 1).await;
    rig.has_lease.store(false, Ordering::SeqCst);
    rig.let_rounds_pass().await;
    assert_eq!(rig.sink.markers(), 0);
    rig.has_lease.store(true, Ordering::SeqCst);
    let before = rig.sink.batches();
    until(|| rig.sink.batches() > before).await;
    rig.pools.apply(&[]);
    // hits_total and the five series of the target itself.
    until(|| rig.sink.markers() == 6).await;
}

/// The node that scrapes a target tells how it went; without its word the data does.
#[tokio::test]
async fn a_target_is_shown_as_its_node_tells() {
    let rig = Rig::start(true).await;
    rig.pools.apply(&[rig.job()]);
    let is_told = || {
        rig.pools
            .told()
            .values()
            .any(|told| told.healthy == Some(true))
    };
    until(is_told).await;
    let told = rig.pools.told();
    let external = ExternalUrl {
        scheme: "http".to_owned(),
        host: "h:9090".to_owned(),
        own_port: 9090,
    };
    let shown = |elsewhere: &Elsewhere| {
        let target = rig.pools.targets(&external, elsewhere).active.remove(0);
        (target.healthy, target.last_error)
    };
    rig.has_lease.store(false, Ordering::SeqCst);
    assert!(rig.pools.told().is_empty());
    assert!(rig.pools.untold(&BTreeMap::new()));
    assert!(!rig.pools.untold(&told));
    let mut elsewhere = Elsewhere::default();
    assert_eq!(shown(&elsewhere), (None, String::new()));
    let labels = rig
        .pools
        .targets(&external, &elsewhere)
        .active
        .remove(0)
        .labels;
    let seen = Seen {
        up: false,
        at: model::Timestamp(1),
        duration: Duration::ZERO,
    };
    elsewhere.seen.insert(labels, seen);
    assert_eq!(shown(&elsewhere).0, Some(false));
    elsewhere.told = told;
    assert_eq!(shown(&elsewhere), (Some(true), String::new()));
}

#[tokio::test]
async fn a_node_that_stops_leaves_no_markers() {
    let rig = Rig::start(true).await;
    rig.pools.apply(&[rig.job()]);
    until(|| rig.sink.batches() > 0).await;
    rig.pools.stop();
    assert!(rig.pools.names().is_empty());
    assert_eq!(rig.sink.markers(), 0);
}

#[tokio::test]
async fn a_reload_touches_only_what_changed() {
    let rig = Rig::start(true).await;
    let mut job = rig.job();
    rig.pools.apply(std::slice::from_ref(&job));
    let cell = |rig: &Rig| {
        let mut scraped = None;
        rig.pools.each(|_, pool| {
            let mut running = pool.running.values();
            scraped = running.next().and_then(|r| r.status.get().last_scrape);
        });
        scraped
    };
    until(|| cell(&rig).is_some()).await;
    rig.pools.apply(std::slice::from_ref(&job));
    assert!(cell(&rig).is_some(), "the loop was not disturbed");
    job.scrape.honor_labels = true;
    rig.pools.apply(std::slice::from_ref(&job));
    assert!(cell(&rig).is_none(), "a new loop began");
    let before = rig.sink.batches();
    until(|| rig.sink.batches() > before + 1).await;
    assert_eq!(rig.sink.markers(), 0);
}

#[tokio::test]
async fn too_many_targets_are_not_scraped_at_all() {
    let rig = Rig::start(true).await;
    let mut job = rig.job();
    job.targets_max = 1;
    job.discovered
        .push(Labels::from_pairs([("__address__", "127.0.0.1:1")]));
    rig.pools.apply(std::slice::from_ref(&job));
    let text = "target_limit exceeded (number of targets: 2, limit: 1)";
    until(|| rig.last_error().as_deref() == Some(text)).await;
    assert_eq!(rig.hits.load(Ordering::SeqCst), 0);
    job.targets_max = 2;
    rig.pools.apply(std::slice::from_ref(&job));
    until(|| rig.hits.load(Ordering::SeqCst) > 0).await;
}

#[tokio::test]
async fn dropped_targets_are_counted_and_some_are_kept() {
    let rig = Rig::start(false).await;
    let mut job = rig.job();
    let drop = ingest::relabel::RelabelConfig {
        source_labels: vec!["__address__".to_owned()],
        regex: "drop.*".to_owned(),
        action: ingest::relabel::Action::Drop,
        ..ingest::relabel::RelabelConfig::default()
    };
    job.scrape.relabel = vec![ingest::relabel::Rule::new(drop).unwrap()];
    for address in ["drop-1:1", "drop-2:1", "with/slash"] {
        let labels = Labels::from_pairs([("__address__", address)]);
        job.discovered.push(labels);
    }
    job.dropped_max = 1;
    rig.pools.apply(&[job]);
    rig.pools.each(|name, pool| {
        assert_eq!(name, "app");
        assert_eq!(
            (pool.running.len(), pool.dropped.len(), pool.dropped_count),
            (1, 1, 2)
        );
    });
}
