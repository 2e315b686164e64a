//! One node of the cluster, assembled: what the binary and the simulation start.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join;
use futures::{FutureExt, StreamExt};
use model::admin::Admin;
use model::batch::Fence;
use model::fragment::Evaluator;
use model::group::{Group, GroupingKey, PushOp, PushOptions};
use model::limits::{ASK_BYTES_MAX, RPC_BYTES_MAX};
use model::port::{Listener, Task, World};
use model::sink::{Groups, Pushed, Sink, WriteError, Written};
use model::source::{Source, SourceError};
use model::{
    Batch, ClusterId, FamilyMetadata, GroupId, MetadataStore, NewestSelection, NodeId, ShardId,
};
use proto::node::application_server::ApplicationServer;
use proto::node::membership_server::MembershipServer;
use proto::node::raft_server::RaftServer;
use proto::node::shards_server::ShardsServer;
use tokio::sync::watch;

use crate::ask::{self, Answers, Asked};
use crate::catalogue::Opening;
use crate::changes;
use crate::control::Control;
use crate::convert::scoped;
use crate::history::History;
use crate::identity::Identity;
use crate::incoming;
use crate::journal::Journal;
use crate::membership::{self, Founding, Local};
use crate::meta::{Command, Cursor, MetaMachine, Outcome};
use crate::metrics::Metrics;
use crate::newest;
use crate::peer::Peers;
use crate::raft::group::Timing;
use crate::raft::service as raft_service;
use crate::raft::transfers::Transfers;
use crate::raft::types::WatchReceiver;
use crate::reads::{self, AllShards};
use crate::router::{Replicas, Router, ShardSource};
use crate::shard::comparing;
use crate::shard::machine::checkpoint_turns;
use crate::shard::mending::Mender;
use crate::shard::proposer::Windows;
use crate::shard::scrub;
use crate::shard::upkeep::CheckpointPolicy;
use crate::shards_service;
use crate::status::{self, Status};

/// The log's directory, below the node's root.
pub(crate) const LOG_DIR: &str = "log";

/// How a node takes part.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the gRPC listener binds.
    pub listen: String,
    /// What other nodes dial; empty means where `listen` was bound.
    pub advertise: String,
    /// Addresses that may know a cluster; the node's own may be among them.
    pub join: Vec<String>,
    /// Nodes that must have met before a cluster is formed.
    pub bootstrap_expect: usize,
    /// Of a cluster that this node forms; `None`: by its nodes and `cores`.
    pub shards: Option<u32>,
    /// Of this node.
    pub cores: u32,
    pub replication_factor: usize,
    pub zone: String,
    pub version: String,
    pub out_of_order_window_ms: i64,
    /// How late a sample may be that is the newest of its series.
    pub in_order_window_ms: i64,
    /// Exemplars the whole cluster keeps; zero keeps none.
    pub exemplars_max: u64,
    /// Series that the whole cluster registers; zero: no limit.
    pub series_max: u64,
    /// How often living push groups are repeated into history.
    pub history_interval: Duration,
    pub retention: Option<Duration>,
    /// Bytes that blocks and checkpoints of all shards may take on this node; zero: no limit.
    pub retention_bytes: Option<u64>,
    /// In what time every byte of the shards' files is read again.
    pub scrub_every: Duration,
    /// How often the replicas of a shard led here are asked whether their states are one.
    pub compare_every: Duration,
    pub timing: Timing,
    pub checkpoint: CheckpointPolicy,
    pub log: wal::Options,
}

impl Default for Options {
    /// A cluster of one on the usual port.
    fn default() -> Self {
        Self {
            listen: ":9092".to_owned(),
            advertise: String::new(),
            join: Vec::new(),
            bootstrap_expect: 1,
            shards: None,
            cores: 1,
            replication_factor: 3,
            zone: String::new(),
            version: String::new(),
            out_of_order_window_ms: 30 * 60_000,
            in_order_window_ms: 0,
            exemplars_max: 0,
            series_max: 0,
            history_interval: Duration::from_secs(60),
            retention: None,
            retention_bytes: None,
            scrub_every: Duration::from_secs(20 * 3600),
            compare_every: Duration::from_secs(60),
            timing: Timing::default(),
            checkpoint: CheckpointPolicy::default(),
            log: wal::Options::default(),
        }
    }
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("reading the node's identity")]
    Identity(#[source] io::Error),
    #[error(transparent)]
    Log(#[from] wal::OpenError),
    #[error("opening the meta state")]
    Meta(#[source] io::Error),
    #[error("listening on {address}")]
    Listen {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("registering metrics")]
    Metrics(#[from] prometheus::Error),
}

/// The settings that may change while the node runs.
pub struct Settings {
    out_of_order_window_ms: AtomicI64,
    in_order_window_ms: i64,
    exemplars_max: AtomicU64,
    series_max: u64,
}

impl Windows for Settings {
    fn out_of_order_ms(&self) -> i64 {
        self.out_of_order_window_ms.load(Ordering::Relaxed)
    }

    fn in_order_ms(&self) -> i64 {
        self.in_order_window_ms
    }

    fn exemplars_max(&self) -> u64 {
        self.exemplars_max.load(Ordering::Relaxed)
    }

    fn series_max(&self) -> u64 {
        self.series_max
    }
}

/// What every part of the node shares.
pub struct Shared {
    pub world: World,
    pub options: Options,
    pub node: NodeId,
    pub log: Arc<wal::SegmentedLog>,
    pub peers: Arc<Peers>,
    pub groups: Arc<raft_service::Groups>,
    pub replicas: Replicas,
    pub meta_machine: Arc<MetaMachine>,
    pub local: Arc<Local>,
    pub router: Arc<Router>,
    pub journal: Arc<Journal>,
    /// Answers what other nodes' programs ask; set by ours.
    pub answers: ask::Answering,
    pub settings: Arc<Settings>,
    pub engine_metrics: Arc<tsdb::Metrics>,
    pub tables: Arc<tsdb::Tables>,
    pub checkpoint_turns: Arc<tokio::sync::Semaphore>,
    pub mender: Arc<Mender>,
    pub metrics: Metrics,
    pub transfers: Arc<Transfers>,
    pub view: watch::Receiver<Arc<crate::meta::State>>,
    /// Why the node must end, once it must.
    pub failure: watch::Sender<Option<String>>,
    /// Groups that do not run here, because their log or what a shard opens with is damaged, and why.
    pub quarantined: Mutex<BTreeMap<GroupId, String>>,
}

impl Shared {
    /// Ends the node: its disk or a group's log cannot be trusted any more.
    pub fn fail(&self, why: String) {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert(why);
            first
        });
    }
}

/// One node of the cluster.
pub struct Cluster {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<Task>>,
}

impl Cluster {
    /// Opens the node's state and starts to listen. Forming or joining goes on behind.
    pub async fn start(
        world: World,
        options: Options,
        catalogue: Opening,
        registry: &prometheus::Registry,
    ) -> Result<Arc<Self>, StartError> {
        let found = Identity::load(&world).await.map_err(StartError::Identity)?;
        let log_metrics = wal::Metrics::new(registry)?;
        let engine_metrics = Arc::new(tsdb::Metrics::new());
        engine_metrics.register(registry)?;
        let corruptions = engine_metrics.corruptions.clone();
        // Neither needs the other, and both may wait for the disk.
        let (log, meta_machine) = join(
            wal::SegmentedLog::open(&world, Path::new(LOG_DIR), options.log.clone(), log_metrics),
            MetaMachine::open(world.disk.clone(), catalogue, corruptions),
        )
        .await;
        let (log, recovery) = log?;
        report(&recovery);
        log.begin_settling();
        let metrics = Metrics::new(registry)?;
        let meta_machine = Arc::new(meta_machine.map_err(StartError::Meta)?);
        let known = meta_machine.watch().borrow().clone();
        let identity = found.confirm(&world, &known).await;
        let identity = identity.map_err(StartError::Identity)?;
        let listener = world.net.listen(&options.listen).await;
        let listener = listener.map_err(|source| StartError::Listen {
            address: options.listen.clone(),
            source,
        })?;
        let address = advertised(&options, &*listener)?;
        let shared = share(
            world,
            options,
            identity,
            log,
            meta_machine,
            engine_metrics,
            metrics,
            address,
        );
        let mut tasks = vec![serve(&shared, listener)];
        tasks.extend(run(&shared));
        Ok(Arc::new(Self {
            shared,
            tasks: Mutex::new(tasks),
        }))
    }

    pub fn node_id(&self) -> NodeId {
        self.shared.node
    }

    /// `None` until the cluster is formed.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.shared.view.borrow().cluster_id()
    }

    /// How often damage was found in this node's files since it started.
    pub fn corruptions(&self) -> u64 {
        self.shared.engine_metrics.corruptions.get()
    }

    /// Where other nodes reach this one.
    pub fn address(&self) -> String {
        self.shared.local.address.clone()
    }

    /// Whether this node can do its part: it is a member, every replica meant to be here runs and
    /// has a leader, and votes if there was one here before.
    pub fn ready(&self) -> Result<(), String> {
        let state = self.shared.view.borrow().clone();
        if !state.is_formed() {
            let progress = self
                .shared
                .local
                .progress
                .lock()
                .expect("not poisoned")
                .clone();
            return Err(format!("no cluster yet: {progress}"));
        }
        if let Some((group, why)) = self
            .shared
            .quarantined
            .lock()
            .expect("not poisoned")
            .iter()
            .next()
        {
            return Err(format!("group {group} does not run: {why}"));
        }
        let meta = self.shared.local.meta.get();
        if meta
            .and_then(|raft| raft.metrics().borrow_watched().current_leader)
            .is_none()
        {
            return Err("the meta group has no leader".to_owned());
        }
        let replicas = self.shared.replicas.read().expect("not poisoned");
        for shard in state.shards() {
            let meant = state
                .assignment(shard)
                .is_some_and(|a| a.replicas.contains(&self.shared.node.0));
            match replicas.get(&shard) {
                None if meant => return Err(format!("shard {} is not open yet", shard.0)),
                Some(replica) if replica.leader().is_none() => {
                    return Err(format!("shard {} has no leader", shard.0));
                }
                Some(replica) if meant && replica.standing.is_coming_back() => {
                    return Err(format!("shard {} is coming back", shard.0));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub fn status(&self) -> Status {
        let shared = &self.shared;
        let state = shared.view.borrow().clone();
        let replicas = shared.replicas.read().expect("not poisoned");
        let of_shard = |shard: ShardId| match replicas.get(&shard) {
            Some(replica) => status::of_group(&replica.raft),
            None => status::absent(
                state
                    .assignment(shard)
                    .map(|a| a.replicas.clone())
                    .unwrap_or_default(),
            ),
        };
        Status {
            node_id: shared.node.0,
            address: self.address(),
            meta: match shared.local.meta.get() {
                Some(raft) => status::of_group(raft),
                None => status::absent(Vec::new()),
            },
            shards: state.shards().map(of_shard).collect(),
            state,
        }
    }

    /// All shards as one source; none until the cluster is formed.
    pub fn source(&self) -> Option<Arc<dyn Source>> {
        let shards: Vec<_> = self.shared.view.borrow().shards().collect();
        let all = AllShards {
            router: self.shared.router.clone(),
            shards,
            trail: None,
        };
        (!all.shards.is_empty()).then(|| Arc::new(all) as Arc<dyn Source>)
    }

    /// Each shard as a source of its own, for what is asked page by page: their pages are read as
    /// they are needed. None until the cluster is formed.
    pub fn shard_sources(&self) -> Vec<Arc<dyn Source>> {
        let source = |shard| {
            let router = self.shared.router.clone();
            Arc::new(ShardSource { router, shard }) as Arc<dyn Source>
        };
        self.shards().into_iter().map(source).collect()
    }

    /// From now on `answers` is what other nodes' questions are put to. The first one stays.
    pub fn answer_with(&self, answers: Arc<dyn Answers>) {
        self.shared.answers.set(answers);
    }

    /// Puts a question to every other member that is believed to live, all at once; by node id.
    pub async fn ask_others(&self, kind: &str, payload: Bytes) -> Vec<Asked> {
        let state = self.shared.view.borrow().clone();
        let own = self.shared.node.0;
        let living = state.members.iter().filter(|(_, member)| member.alive);
        let others = living
            .filter(|(id, _)| **id != own)
            .map(|(&id, member)| (NodeId(id), member.address.clone()))
            .collect();
        ask::ask_all(&self.shared.peers, others, kind, payload).await
    }

    /// From now on parts of queries are computed here, for this node and for others.
    pub fn set_evaluator(&self, evaluator: Arc<dyn Evaluator>) {
        self.shared.router.evaluator.get_or_init(|| evaluator);
    }

    /// Deletes, cleans, snapshots and counts, over the whole cluster.
    pub fn admin(&self) -> Arc<dyn Admin> {
        self.shared.router.clone()
    }

    /// The lease of a scrape target, while this node holds it.
    pub fn scrape_fence(&self, target: u64) -> Option<Fence> {
        let state = self.shared.view.borrow();
        let own = state.lease_owner(target) == Some(self.shared.node);
        own.then_some(Fence {
            target,
            epoch: state.lease_epoch,
        })
    }

    /// What was written to a shard after an index of its log.
    pub async fn changes(
        &self,
        shard: ShardId,
        question: &changes::Question,
    ) -> Result<changes::Changes, SourceError> {
        changes::of_shard(&self.shared.router, shard, question).await
    }

    /// The newest samples of a shard's series, of those written after an index of its log if one is
    /// given.
    pub async fn newest(
        &self,
        shard: ShardId,
        selection: &NewestSelection,
        since: Option<u64>,
    ) -> Result<newest::Newest, SourceError> {
        newest::of_shard(&self.shared.router, shard, selection, since).await
    }

    /// Shards of the cluster; none until it is formed.
    pub fn shards(&self) -> Vec<ShardId> {
        self.shared.view.borrow().shards().collect()
    }

    /// How far children were read, as far as this node knows.
    pub fn cursors(&self) -> BTreeMap<String, Cursor> {
        self.shared.view.borrow().cursors.clone()
    }

    /// Notes through the meta group that `child` was read on from `from`; an error tells why that
    /// is not so, or not known.
    pub async fn advance_cursor(
        &self,
        child: String,
        from: Option<String>,
        to: Cursor,
    ) -> Result<(), String> {
        self.propose_meta(Command::Advance { child, from, to })
            .await
    }

    /// Forgets how far other children than these were read.
    pub async fn keep_cursors(&self, children: Vec<String>) -> Result<(), String> {
        self.propose_meta(Command::KeepCursors { children }).await
    }

    async fn propose_meta(&self, command: Command) -> Result<(), String> {
        let proposal = self.shared.local.propose(command);
        match scoped(&self.shared.world.dice, proposal).await {
            Ok(Outcome::Done) => Ok(()),
            Ok(Outcome::Refused(why)) => Err(why),
            Err(refusal) => Err(refusal.to_string()),
        }
    }

    /// What each replica here holds; walks all series.
    pub fn stored(&self) -> Vec<tsdb::Stats> {
        let replicas = self.shared.replicas.read().expect("not poisoned").clone();
        replicas.values().map(|r| r.engine.stats()).collect()
    }

    /// Applied index and content digest of the replica here.
    pub fn digest(&self, shard: ShardId) -> Option<(u64, u64)> {
        let replica = self.shared.router.replica(shard)?;
        Some(replica.engine.digest_now())
    }

    /// More addresses that may know a cluster.
    pub fn add_join_addresses(&self, addresses: Vec<String>) {
        let mut join = self.shared.local.join.lock().expect("not poisoned");
        for address in addresses {
            if !join.contains(&address) {
                join.push(address);
            }
        }
    }

    pub fn set_out_of_order_window(&self, window_ms: i64) {
        self.shared
            .settings
            .out_of_order_window_ms
            .store(window_ms, Ordering::Relaxed);
    }

    /// Of the whole cluster; zero drops exemplars at this node's edge.
    pub fn set_exemplars_max(&self, exemplars_max: u64) {
        let setting = &self.shared.settings.exemplars_max;
        setting.store(exemplars_max, Ordering::Relaxed);
    }

    /// Resolves when the node must end, with the reason.
    pub async fn failed(&self) -> String {
        let mut failure = self.shared.failure.subscribe();
        loop {
            if let Some(reason) = failure.borrow_and_update().clone() {
                return reason;
            }
            if failure.changed().await.is_err() {
                return "the node stopped".to_owned();
            }
        }
    }

    /// Hands leadership on, then stops everything and closes the log.
    pub async fn stop(&self) {
        let hand_on = crate::control::hand_leadership_on(&self.shared);
        scoped(&self.shared.world.dice, hand_on).await;
        self.tasks.lock().expect("not poisoned").clear();
        for (_, running) in self.shared.groups.all() {
            // Already stopped is as good.
            running.raft.shutdown().await.ok();
        }
        self.shared.log.closed().await;
    }
}

#[async_trait]
impl Sink for Cluster {
    async fn write(&self, batch: Batch) -> Result<Written, WriteError> {
        self.shared.router.write(batch).await
    }

    async fn write_kept(&self, batch: &Batch) -> Result<Written, WriteError> {
        self.shared.router.write_kept(batch).await
    }
}

#[async_trait]
impl Groups for Cluster {
    async fn push(
        &self,
        key: GroupingKey,
        op: PushOp,
        options: PushOptions,
    ) -> Result<Pushed, WriteError> {
        self.shared.router.push(key, op, options).await
    }

    async fn wipe(&self) -> Result<(), WriteError> {
        self.shared.router.wipe().await
    }

    async fn groups(&self) -> Result<Vec<Group>, SourceError> {
        self.shared.router.groups().await
    }
}

#[async_trait]
impl MetadataStore for Cluster {
    async fn describe(&self, told: Vec<FamilyMetadata>) -> Result<(), WriteError> {
        self.shared.router.describe(told).await
    }

    async fn described(&self, family: Option<&str>) -> Result<Vec<FamilyMetadata>, SourceError> {
        self.shared.router.described(family).await
    }
}

fn report(recovery: &wal::Recovery) {
    if recovery.torn_bytes > 0 {
        tracing::warn!(bytes = recovery.torn_bytes, "the log's torn end was cut");
    }
    for damage in &recovery.damage {
        tracing::error!(damage, "the log is damaged");
    }
}

/// The address others dial: the advertised one with the real port where it names port 0.
fn advertised(options: &Options, listener: &dyn Listener) -> Result<String, StartError> {
    if !options.advertise.is_empty() {
        return Ok(options.advertise.clone());
    }
    let bound = listener.local_addr().map_err(|source| StartError::Listen {
        address: options.listen.clone(),
        source,
    })?;
    let host = options.listen.rsplit_once(':').map_or("", |(host, _)| host);
    let host = match host {
        "" | "0.0.0.0" | "[::]" => "127.0.0.1",
        host => host,
    };
    Ok(format!("{host}:{}", bound.port()))
}

#[allow(
    clippy::too_many_arguments,
    reason = "called once, to put the parts together"
)]
fn share(
    world: World,
    options: Options,
    identity: Identity,
    log: Arc<wal::SegmentedLog>,
    meta_machine: Arc<MetaMachine>,
    engine_metrics: Arc<tsdb::Metrics>,
    metrics: Metrics,
    address: String,
) -> Arc<Shared> {
    let node = identity.node();
    let peers = Arc::new(Peers::new(world.clone()));
    if let Some(cluster) = identity.cluster() {
        peers.belong_to(cluster);
    }
    let view = meta_machine.watch();
    let replicas: Replicas = Arc::new(RwLock::default());
    let groups: Arc<raft_service::Groups> = Arc::default();
    let local = Arc::new(Local {
        world: world.clone(),
        peers: peers.clone(),
        address,
        zone: options.zone.clone(),
        version: options.version.clone(),
        founding: Founding {
            bootstrap_expect: options.bootstrap_expect,
            shards: options.shards,
            cores: options.cores,
            replication_factor: options.replication_factor,
        },
        belongs: watch::Sender::new(identity.cluster()),
        identity: tokio::sync::Mutex::new(identity),
        join: Mutex::new(options.join.clone()),
        meta: std::sync::OnceLock::new(),
        groups: groups.clone(),
        log: log.clone(),
        view: view.clone(),
        progress: Mutex::default(),
    });
    let settings = Arc::new(Settings {
        out_of_order_window_ms: AtomicI64::new(options.out_of_order_window_ms),
        in_order_window_ms: options.in_order_window_ms,
        exemplars_max: AtomicU64::new(options.exemplars_max),
        series_max: options.series_max,
    });
    let router = Router::new(
        node.0,
        world.clone(),
        peers.clone(),
        replicas.clone(),
        view.clone(),
        metrics.query_bytes.clone(),
        settings.clone(),
    );
    let transfers = Arc::new(Transfers::new(world.clock.clone()));
    let mender = Mender::new(node.0, world.clone(), peers.clone(), view.clone());
    Arc::new(Shared {
        world,
        node,
        log,
        peers,
        groups,
        replicas,
        meta_machine,
        local,
        router: Arc::new(router),
        journal: Arc::default(),
        answers: ask::Answering::default(),
        settings,
        engine_metrics,
        tables: Arc::default(),
        checkpoint_turns: checkpoint_turns(),
        mender: Arc::new(mender),
        metrics,
        transfers,
        view,
        failure: watch::Sender::new(None),
        quarantined: Mutex::default(),
        options,
    })
}

/// Serves all services on one listener.
fn serve(shared: &Arc<Shared>, listener: Box<dyn Listener>) -> Task {
    let raft = raft_service::Service {
        node: shared.node,
        world: shared.world.clone(),
        peers: shared.peers.clone(),
        groups: shared.groups.clone(),
    };
    let shards = shards_service::Service {
        node: shared.node,
        world: shared.world.clone(),
        peers: shared.peers.clone(),
        replicas: shared.replicas.clone(),
        evaluator: shared.router.evaluator.clone(),
    };
    let bounded = RPC_BYTES_MAX;
    let router = tonic::transport::Server::builder()
        .initial_stream_window_size(crate::peer::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(crate::peer::CONNECTION_WINDOW_BYTES)
        .add_service(
            RaftServer::new(raft)
                .max_decoding_message_size(bounded)
                .max_encoding_message_size(bounded),
        )
        .add_service(
            ShardsServer::new(shards)
                .max_decoding_message_size(bounded)
                .max_encoding_message_size(bounded),
        )
        .add_service(
            ApplicationServer::new(ask::Service {
                peers: shared.peers.clone(),
                answering: shared.answers.clone(),
            })
            .max_decoding_message_size(ASK_BYTES_MAX)
            .max_encoding_message_size(ASK_BYTES_MAX),
        )
        .add_service(MembershipServer::new(membership::Service(
            shared.local.clone(),
        )));
    let answerer = Arc::new(reads::Answerer {
        server: reads::Server {
            seat: shared.router.evaluator.clone(),
            world: shared.world.clone(),
            replicas: shared.replicas.clone(),
        },
        peers: shared.peers.clone(),
    });
    let incoming = incoming::connections(listener, answerer).boxed();
    let owner = shared.clone();
    let serve = async move {
        if let Err(e) = router.serve_with_incoming(incoming).await {
            owner.fail(format!("the gRPC listener ended: {e}"));
        }
    };
    shared.world.spawn.spawn("grpc server", serve.boxed())
}

/// The node's own loops.
fn run(shared: &Arc<Shared>) -> Vec<Task> {
    let spawn = |name, future| {
        shared
            .world
            .spawn
            .spawn(name, scoped(&shared.world.dice, future))
    };
    let settle = {
        let (shared, local) = (shared.clone(), shared.local.clone());
        async move {
            if let Err(e) = local.settle().await {
                shared.fail(format!("writing the node's identity: {e}"));
            }
        }
        .boxed()
    };
    let log = {
        let shared = shared.clone();
        async move {
            let log = shared.log.clone();
            let why = log.failed().await;
            shared.fail(format!("the log cannot be written: {why}"));
        }
        .boxed()
    };
    let control = Control::new(shared.clone()).run().boxed();
    let history = History::new(shared.clone()).run().boxed();
    let expiry = History::new(shared.clone()).expire().boxed();
    let journal = {
        let shared = shared.clone();
        async move { shared.journal.run(&*shared.router).await }.boxed()
    };
    let scrub = scrub::run(shared.clone()).boxed();
    let compare = comparing::run(shared.clone()).boxed();
    vec![
        spawn("membership", settle),
        spawn("log watch", log),
        spawn("control", control),
        spawn("push history", history),
        spawn("push expiry", expiry),
        spawn("push journal", journal),
        spawn("scrub", scrub),
        spawn("comparison", compare),
    ]
}
