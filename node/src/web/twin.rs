//! Twins in memory of everything the handlers stand on, and requests into both routers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use bytes::Bytes;
use cluster::newest::Newest;
use cluster::{Changes, Question};
use http_body_util::BodyExt;
use ingest::metadata::told::Told;
use ingest::remote::seen::Seen;
use model::admin::{Admin, Count, HeadStatistics};
use model::group::{Group, GroupingKey, PushOp, PushOptions, sum};
use model::limits::QUERIES_MAX;
use model::matcher::matches_all;
use model::port::{Clock, Dice, Spawn, Task};
use model::sample::{Exemplar, ExemplarSeries, Sample, Samples};
use model::sink::{Groups, Pushed, Reason, Rejection, Sink, WriteError, Written};
use model::source::{Consistency, MetadataSelection, Selection, Source, SourceError, Take};
use model::{
    Batch, FamilyMetadata, Labels, Matcher, MetadataStore, NewestSelection, Series, ShardId,
    Timestamp,
};
use promql::{Engine, EngineOptions};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use super::body::Budget;
use super::state::*;
use super::{api_router, push_router};
use crate::queries::Queries;
use crate::queries::active::ActiveQueries;
use crate::queries::log::QueryLog;
use crate::queries::memory::Memory;
use crate::queries::metrics::Metrics;

/// What all queries may hold together.
pub const QUERIES_BYTES: usize = 100_000;

/// The instant every request sees.
pub const NOW: Timestamp = Timestamp(1_795_233_379_500);

/// Series and groups; fails when told to.
#[derive(Default)]
pub struct Store {
    series: Mutex<BTreeMap<Labels, BTreeMap<Timestamp, f64>>>,
    groups: Mutex<BTreeMap<Vec<u8>, Group>>,
    exemplars: Mutex<Vec<ExemplarSeries>>,
    /// What was told of metrics, and how often something was.
    pub described: Mutex<(BTreeSet<FamilyMetadata>, usize)>,
    /// Name, and whether with the head.
    pub snapshots: Mutex<Vec<(String, bool)>>,
    pub broken: AtomicBool,
    /// Whether too much waits for more to be taken.
    pub overloaded: AtomicBool,
    /// Whether there are as many series as may be.
    pub full: AtomicBool,
    /// Series with a sample before this instant get `too old`.
    pub oldest: Mutex<Option<Timestamp>>,
    /// Whether selections never end.
    pub hangs: AtomicBool,
    pub unready: AtomicBool,
    pub stopping: AtomicBool,
    pub reload_fails: AtomicBool,
    pub consistency: Mutex<Option<Consistency>>,
}

impl Store {
    pub fn add(&self, pairs: &[(&str, &str)], at: Timestamp, value: f64) {
        let labels = Labels::from_pairs(pairs.iter().copied());
        let mut series = self.series.lock().unwrap();
        series.entry(labels).or_default().insert(at, value);
    }

    pub fn add_exemplar(&self, pairs: &[(&str, &str)], trace: &str, at: Timestamp, value: f64) {
        self.exemplars.lock().unwrap().push(ExemplarSeries {
            labels: Labels::from_pairs(pairs.iter().copied()),
            exemplars: vec![Exemplar {
                labels: Labels::from_pairs([("trace_id", trace)]),
                value,
                timestamp: at,
            }],
        });
    }

    pub fn value(&self, pairs: &[(&str, &str)], at: Timestamp) -> Option<f64> {
        let labels = Labels::from_pairs(pairs.iter().copied());
        let series = self.series.lock().unwrap();
        series.get(&labels)?.get(&at).copied()
    }

    fn answers(&self, consistency: Consistency) -> Result<(), SourceError> {
        *self.consistency.lock().unwrap() = Some(consistency);
        match self.broken.load(Ordering::SeqCst) {
            true => Err(SourceError::Unavailable(vec![ShardId(3)])),
            false => Ok(()),
        }
    }

    fn accepts(&self) -> Result<(), WriteError> {
        if self.overloaded.load(Ordering::SeqCst) {
            return Err(WriteError::Overloaded("too many writes wait".to_owned()));
        }
        match self.broken.load(Ordering::SeqCst) {
            true => Err(WriteError::Unavailable(vec![ShardId(3)])),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Source for Store {
    async fn select(&self, selection: &Selection) -> Result<Vec<Series>, SourceError> {
        self.answers(selection.consistency)?;
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let mut found = Vec::new();
        for (labels, column) in self.series.lock().unwrap().iter() {
            let mut samples = Samples::default();
            for (&at, &value) in column.range(selection.start..=selection.end) {
                samples.push(at, value);
            }
            if let (Take::Last, Some(Sample { timestamp, value })) =
                (selection.take, samples.last())
            {
                samples = Samples::default();
                samples.push(timestamp, value);
            }
            if !samples.is_empty() && matches_all(&selection.matchers, labels) {
                let labels = labels.clone();
                found.push(Series { labels, samples });
            }
        }
        Ok(found)
    }

    async fn series(&self, selection: &MetadataSelection) -> Result<Vec<Labels>, SourceError> {
        self.answers(selection.consistency)?;
        let in_range = |column: &BTreeMap<Timestamp, f64>| {
            let mut times = column.keys();
            times.any(|t| (selection.start..=selection.end).contains(t))
        };
        let chosen = |labels: &Labels| {
            let any_of = &selection.any_of;
            any_of.is_empty() || any_of.iter().any(|m| matches_all(m, labels))
        };
        let series = self.series.lock().unwrap();
        let found = series.iter().filter(|(l, c)| chosen(l) && in_range(c));
        Ok(found.map(|(labels, _)| labels.clone()).collect())
    }

    async fn label_names(&self, selection: &MetadataSelection) -> Result<Vec<String>, SourceError> {
        let series = self.series(selection).await?;
        let names = series.iter().flat_map(Labels::iter).map(|(n, _)| n);
        Ok(sorted(names))
    }

    async fn label_values(
        &self,
        name: &str,
        selection: &MetadataSelection,
    ) -> Result<Vec<String>, SourceError> {
        let series = self.series(selection).await?;
        Ok(sorted(series.iter().filter_map(|l| l.get(name))))
    }

    async fn exemplars(
        &self,
        selection: &MetadataSelection,
    ) -> Result<Vec<ExemplarSeries>, SourceError> {
        self.answers(selection.consistency)?;
        let mut found = self.exemplars.lock().unwrap().clone();
        found.retain_mut(|series| {
            let range = selection.start..=selection.end;
            series.exemplars.retain(|e| range.contains(&e.timestamp));
            let mut any_of = selection.any_of.iter();
            any_of.any(|m| matches_all(m, &series.labels)) && !series.exemplars.is_empty()
        });
        found.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(found)
    }
}

#[async_trait]
impl Admin for Store {
    async fn delete_series(
        &self,
        any_of: Vec<Vec<Matcher>>,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<(), WriteError> {
        self.accepts()?;
        let mut all = self.series.lock().unwrap();
        for (labels, column) in all.iter_mut() {
            if any_of.iter().any(|matchers| matches_all(matchers, labels)) {
                column.retain(|at, _| !(start..=end).contains(at));
            }
        }
        all.retain(|_, column| !column.is_empty());
        Ok(())
    }

    async fn clean_tombstones(&self) -> Result<(), WriteError> {
        self.accepts()
    }

    async fn snapshot(&self, name: &str, with_head: bool) -> Result<(), WriteError> {
        self.accepts()?;
        let mut snapshots = self.snapshots.lock().unwrap();
        snapshots.push((name.to_owned(), with_head));
        Ok(())
    }

    async fn head_statistics(&self, limit: usize) -> Result<HeadStatistics, SourceError> {
        self.answers(Consistency::Strong)?;
        let all = self.series.lock().unwrap();
        let pairs = || all.keys().flat_map(Labels::iter);
        let distinct: BTreeSet<_> = pairs().collect();
        let times = || all.values().flat_map(BTreeMap::keys).copied();
        let count = |names: Vec<String>| {
            let mut counts: BTreeMap<String, u64> = BTreeMap::new();
            names
                .into_iter()
                .for_each(|n| *counts.entry(n).or_default() += 1);
            let mut counts: Vec<_> = counts.into_iter().collect();
            counts.sort_by_key(|(name, value)| (u64::MAX - value, name.clone()));
            counts.truncate(limit);
            let count = |(name, value)| Count { name, value };
            counts.into_iter().map(count).collect()
        };
        let bytes = distinct
            .iter()
            .flat_map(|(n, v)| std::iter::repeat_n(n, v.len()));
        Ok(HeadStatistics {
            series: all.len() as u64,
            label_pairs: distinct.len() as u64,
            chunks: all.len() as u64,
            min_time: times().min(),
            max_time: times().max(),
            series_by_metric_name: count(all.keys().map(|l| l.metric_name().to_owned()).collect()),
            values_by_label_name: count(distinct.iter().map(|(n, _)| (*n).to_owned()).collect()),
            memory_by_label_name: count(bytes.map(|n| (*n).to_owned()).collect()),
            series_by_label_pair: count(pairs().map(|(n, v)| format!("{n}={v}")).collect()),
        })
    }
}

impl Dice for Store {
    fn roll(&self) -> u64 {
        7
    }
}

fn sorted<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<String> {
    let set: std::collections::BTreeSet<_> = texts.map(str::to_owned).collect();
    set.into_iter().collect()
}

#[async_trait]
impl Sink for Store {
    async fn write(&self, batch: Batch) -> Result<Written, WriteError> {
        self.accepts()?;
        assert_eq!(batch.validate(), Ok(()));
        let mut written = Written::default();
        let rows = &batch.rows;
        let oldest = self.oldest.lock().unwrap().unwrap_or(Timestamp::MIN);
        for row in 0..rows.len() {
            let refused = match self.full.load(Ordering::SeqCst) {
                true => Some(Reason::SeriesLimit),
                false => (rows.timestamps[row] < oldest).then_some(Reason::TooOld),
            };
            if let Some(reason) = refused {
                let row = row as u32;
                written.rejected.push(Rejection { row, reason });
                continue;
            }
            let labels = batch.series[rows.series[row] as usize].clone();
            let mut series = self.series.lock().unwrap();
            let column = series.entry(labels).or_default();
            let old = column.entry(rows.timestamps[row]);
            let stored = *old.or_insert(rows.values[row]);
            if stored.to_bits() != rows.values[row].to_bits() {
                written.rejected.push(Rejection {
                    row: row as u32,
                    reason: Reason::Duplicate,
                });
            }
        }
        Ok(written)
    }
}

#[async_trait]
impl MetadataStore for Store {
    async fn describe(&self, told: Vec<FamilyMetadata>) -> Result<(), WriteError> {
        self.accepts()?;
        let mut described = self.described.lock().unwrap();
        described.0.extend(told);
        described.1 += 1;
        Ok(())
    }

    async fn described(&self, family: Option<&str>) -> Result<Vec<FamilyMetadata>, SourceError> {
        self.answers(Consistency::Strong)?;
        let described = self.described.lock().unwrap();
        let chosen = |word: &&FamilyMetadata| family.is_none_or(|family| word.name == family);
        Ok(described.0.iter().filter(chosen).cloned().collect())
    }
}

#[async_trait]
impl Groups for Store {
    async fn push(
        &self,
        key: GroupingKey,
        op: PushOp,
        options: PushOptions,
    ) -> Result<Pushed, WriteError> {
        self.accepts()?;
        if self.full.load(Ordering::SeqCst) {
            let limit = Reason::SeriesLimit.as_str().to_owned();
            return Err(WriteError::Overloaded(limit));
        }
        let mut groups = self.groups.lock().unwrap();
        let name = key.canonical();
        let before = groups.get(&name).cloned();
        let mut group = before.clone().unwrap_or(Group::new(key));
        let stored = !matches!(op, PushOp::Delete | PushOp::Reject);
        if stored {
            group.expires = options.ttl_ms.map(|ttl| self.now().plus_ms(ttl as i64));
        }
        let after = match op {
            PushOp::Delete => None,
            PushOp::Expire => unreachable!("the door does not let groups expire"),
            PushOp::Add { families, .. } => {
                for family in families {
                    let old = group.families.iter().position(|f| f.name == family.name);
                    match old {
                        Some(at) => group.families[at] = sum::add(&group.families[at], &family),
                        None => group.families.push(family),
                    }
                }
                group.push_time = self.now();
                Some(group)
            }
            PushOp::Reject => {
                group.push_failure_time = self.now();
                Some(group)
            }
            PushOp::Put(families) => {
                group.families = families;
                group.push_time = self.now();
                Some(group)
            }
            PushOp::Post(families) => {
                let named = |f: &model::group::Family| families.iter().any(|n| n.name == f.name);
                group.families.retain(|f| !named(f));
                group.families.extend(families);
                group.families.sort_by(|a, b| a.name.cmp(&b.name));
                group.push_time = self.now();
                Some(group)
            }
        };
        match &after {
            Some(group) => drop(groups.insert(name, group.clone())),
            None => drop(groups.remove(&name)),
        }
        Ok(Pushed {
            at: NOW,
            before: before.map(Arc::new),
            after: after.map(Arc::new),
            repeated: false,
        })
    }

    async fn wipe(&self) -> Result<(), WriteError> {
        self.accepts()?;
        self.groups.lock().unwrap().clear();
        Ok(())
    }

    async fn groups(&self) -> Result<Vec<Group>, SourceError> {
        self.answers(Consistency::Strong)?;
        Ok(self.groups.lock().unwrap().values().cloned().collect())
    }
}

impl Clock for Store {
    fn now(&self) -> Timestamp {
        NOW
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

/// One shard, whose index is how many series there are.
#[async_trait]
impl Upward for Store {
    fn cluster_id(&self) -> Option<model::ClusterId> {
        Status::cluster_id(self)
    }

    fn shards(&self) -> Vec<ShardId> {
        vec![ShardId(0)]
    }

    fn origins(&self) -> String {
        model::ClusterId(0xab).to_string()
    }

    async fn changes(&self, _: ShardId, asked: &Question) -> Result<Changes, SourceError> {
        let index = self.series.lock().unwrap().len() as u64;
        let mut found = Vec::new();
        for matchers in &asked.any_of {
            let selection = Selection {
                matchers: matchers.clone(),
                start: asked.oldest,
                end: Timestamp::MAX,
                take: Take::All,
                consistency: Consistency::Strong,
            };
            found.extend(self.select(&selection).await?);
        }
        found.retain(|_| asked.since.is_none_or(|since| since < index));
        let series = (!found.is_empty()).then_some(Ok(found));
        Ok(Changes {
            index,
            series: Box::pin(futures::stream::iter(series)),
        })
    }

    /// Each sample is an entry of the log, in the order of time.
    async fn newest(
        &self,
        _: ShardId,
        selection: &NewestSelection,
        since: Option<u64>,
    ) -> Result<Newest, SourceError> {
        let mut times: Vec<Timestamp> = {
            let series = self.series.lock().unwrap();
            series.values().flat_map(BTreeMap::keys).copied().collect()
        };
        times.sort();
        let index = times.len() as u64;
        let known = since.filter(|since| *since <= index);
        let written = known.and_then(|since| times.get(since as usize).copied());
        let start = match known {
            None => selection.start,
            Some(_) => written.unwrap_or(selection.end).max(selection.start),
        };
        let mut selection = NewestSelection {
            start,
            ..selection.clone()
        };
        if known.is_some() && written.is_none() {
            selection.any_of.clear();
        }
        Ok(Newest {
            index,
            whole: known.is_none(),
            pages: Source::newest(self, &selection).await?,
        })
    }
}

#[async_trait]
impl Status for Store {
    fn ready(&self) -> Result<(), String> {
        match self.unready.load(Ordering::SeqCst) {
            true => Err("shard s3 has no leader".to_owned()),
            false => Ok(()),
        }
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn flags(&self) -> Vec<(String, String)> {
        let flag = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        vec![flag("web.listen-address", ":9090"), flag("a", "<1>")]
    }

    fn config_yaml(&self) -> String {
        "global:\n  scrape_interval: 1s\n".to_owned()
    }

    fn build(&self) -> Build {
        Build {
            version: "3.5.3+ds1".into(),
            revision: "3.5.3+ds1-6".into(),
            branch: "debian/sid".into(),
            build_user: "team+pkg-go@tracker.debian.org".into(),
            build_date: "20260929-11:59:39".into(),
            go_version: "go1.27.1".into(),
        }
    }

    fn runtime(&self) -> Runtime {
        Runtime {
            started: Timestamp(1_795_233_289_099),
            directory: "/data".into(),
            retention: "15d".into(),
            threads: 2,
            ..Runtime::default()
        }
    }

    fn cluster(&self) -> ClusterStatus {
        let node = model::NodeId;
        let member = Member {
            id: node(7),
            address: "127.0.0.1:9192".into(),
            zone: "a".into(),
            alive: true,
            version: "0.1.0".into(),
        };
        let here = Replica {
            role: "leader",
            term: 2,
            last_log: 12,
            applied: 11,
            lag: 1,
        };
        let shard = |id, leader, here| Shard {
            id: ShardId(id),
            leader,
            replicas: vec![node(7), node(8)],
            here,
        };
        ClusterStatus {
            cluster_id: model::ClusterId(0xab),
            node_id: node(7),
            members: vec![member],
            shards: vec![shard(0, Some(node(7)), Some(here)), shard(1, None, None)],
        }
    }

    fn cluster_id(&self) -> Option<model::ClusterId> {
        Some(model::ClusterId(0xab))
    }

    async fn targets(&self) -> Targets {
        let labels = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied());
        let target = Target {
            discovered_labels: labels(&[
                ("__address__", "127.0.0.1:21992"),
                ("__metrics_path__", "/metrics"),
                ("__scheme__", "http"),
                ("__scrape_interval__", "1s"),
                ("__scrape_timeout__", "1s"),
                ("job", "exp"),
            ]),
            labels: labels(&[("instance", "127.0.0.1:21992"), ("job", "exp")]),
            scrape_pool: "exp".into(),
            scrape_url: "http://127.0.0.1:21992/metrics".into(),
            global_url: "http://vm:21992/metrics".into(),
            last_error: String::new(),
            last_scrape: Some(Timestamp(1_795_233_379_555)),
            last_scrape_duration: Duration::from_nanos(1_228_454),
            healthy: Some(true),
            scrape_interval: "1s".into(),
            scrape_timeout: "1s".into(),
        };
        Targets {
            active: vec![target],
            dropped: Vec::new(),
            dropped_counts: BTreeMap::from([("exp".to_owned(), 0)]),
            warnings: Vec::new(),
        }
    }

    fn scrape_pools(&self) -> Vec<String> {
        ["other", "exp"].map(str::to_owned).to_vec()
    }

    async fn metadata(&self, metric: Option<&str>) -> Metadata {
        let target = |job, metrics: &[(&str, &str, &str, &str)]| {
            let metrics = metrics
                .iter()
                .map(|(name, kind, help, unit)| MetricMetadata {
                    metric: (*name).to_owned(),
                    kind: (*kind).to_owned(),
                    help: (*help).to_owned(),
                    unit: (*unit).to_owned(),
                });
            TargetMetadata {
                labels: Labels::from_pairs([("job", job)]),
                metrics: metrics
                    .filter(|of| metric.is_none_or(|metric| of.metric == metric))
                    .collect(),
            }
        };
        let total = ("total", "counter", "", "bytes");
        Metadata {
            targets: vec![
                target("exp", &[total, ("up", "gauge", "A < B.", "")]),
                target("other", &[("up", "gauge", "Other.", "")]),
            ],
            warnings: Vec::new(),
        }
    }

    fn notifications(&self) -> Vec<Notification> {
        let stopping = self.stopping();
        let one = || Notification {
            text: "stopping".to_owned(),
            since: NOW,
        };
        stopping.then(one).into_iter().collect()
    }

    fn metrics_text(&self) -> String {
        "# TYPE own gauge\nown 1\n".to_owned()
    }

    fn push_metrics_text(&self) -> String {
        "# HELP own Ours.\n# TYPE own gauge\nown 1\n# TYPE theirs gauge\ntheirs 2\n".to_owned()
    }

    async fn reload(&self) -> Result<(), String> {
        match self.reload_fails.load(Ordering::SeqCst) {
            true => Err("line 4: field targets not found".to_owned()),
            false => Ok(()),
        }
    }

    fn quit(&self) -> bool {
        !self.stopping.swap(true, Ordering::SeqCst)
    }
}

/// Both routers over one store.
pub struct Twin {
    pub store: Arc<Store>,
    pub queries: Arc<Queries>,
    pub http_metrics: super::metrics::Metrics,
    pub api: Router,
    pub push: Router,
}

impl Twin {
    pub fn new() -> Self {
        Self::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Self {
        Self::with_bodies(settings, Budget::default())
    }

    /// With a bound on what all bodies hold together.
    pub fn with_bodies(settings: Settings, body_budget: Budget) -> Self {
        let store = Arc::new(Store::default());
        let state = ApiState {
            source: store.clone(),
            sink: store.clone(),
            groups: store.clone(),
            admin: store.clone(),
            metadata: store.clone(),
            told: Arc::new(Told::new(0)),
            dice: store.clone(),
            queries: Arc::new(queries(&store)),
            clock: store.clone(),
            status: store.clone(),
            upward: store.clone(),
            settings,
            otlp: Arc::default(),
            external_labels: Arc::new(RwLock::new(Labels::from_pairs([("region", "eu")]))),
            seen: Arc::new(Seen::new(0)),
            body_budget,
            http_metrics: super::metrics::Metrics::default(),
        };
        Self {
            store,
            queries: Arc::clone(&state.queries),
            http_metrics: state.http_metrics.clone(),
            api: api_router(state.clone()),
            push: push_router(state),
        }
    }

    /// GET on the API's listener.
    pub async fn get(&self, path: &str) -> Answer {
        self.api_request("GET", path, &[], "").await
    }

    pub async fn api_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        ask(&self.api, method, path, headers, body.into()).await
    }

    pub async fn push_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        ask(&self.push, method, path, headers, body.into()).await
    }
}

/// Queries over the store, written down nowhere.
fn queries(store: &Arc<Store>) -> Queries {
    struct NoTasks;
    impl Spawn for NoTasks {
        fn spawn(&self, _: &'static str, _: futures::future::BoxFuture<'static, ()>) -> Task {
            unreachable!("nothing is written down")
        }
    }
    let nothing = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    Queries {
        engine: Arc::new(Engine::new(EngineOptions::default(), store.clone())),
        source: store.clone(),
        clock: store.clone(),
        slots: Arc::new(Semaphore::new(QUERIES_MAX)),
        memory: Memory::new(QUERIES_BYTES),
        active: ActiveQueries::nowhere(store.clone()),
        log: Arc::new(QueryLog::new(Arc::new(NoTasks), Arc::new(nothing))),
        metrics: Metrics::new(QUERIES_MAX),
    }
}

async fn ask(
    router: &Router,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Body,
) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if headers.iter().all(|(name, _)| *name != "host") {
        request = request.header("host", "x");
    }
    let request = request.body(body).expect("a request of the test's own");
    let Ok(response) = router.clone().oneshot(request).await;
    let (parts, body) = response.into_parts();
    Answer {
        code: parts.status.as_u16(),
        headers: parts.headers,
        body: body.collect().await.expect("a whole body").to_bytes(),
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("answers are UTF-8")
    }

    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |v| v.to_str().expect("a header of text"))
    }

    /// Code and body at once.
    pub fn seen(&self) -> (u16, &str) {
        (self.code, self.text())
    }
}
