//! One life of a node: the production cluster above simulated ports, its clients, and an observer
//! that writes down what the node says of itself.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster::catalogue::{Catalogue, opened};
use cluster::{CheckpointPolicy, Cluster, Options};
use futures::FutureExt;
use futures::future::BoxFuture;
use model::port::{Task, World};
use model::sink::{Sink, WriteError, Written};
use model::source::Consistency;
use model::{Batch, GroupId, NodeId, ShardId};
use sim_world::{SimClock, SimDice, SimDisk};
use tokio::time::sleep;

use crate::record::{Ending, Shared, Stage};
use crate::swarm::{FOUNDERS, Plan};
use crate::workload::{Client, Door, FLEETING};

/// A store that is broken on purpose, to see that it is found out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    #[default]
    None,
    /// One write in ten is acknowledged and thrown away.
    ForgottenWrites,
    /// Once the cluster is formed, all disks answer flushes and do nothing.
    LyingDisks,
}

/// How often the observer looks.
const LOOK: Duration = Duration::from_millis(100);
/// Batches every node takes before it counts as settled, so that each run has something to lose.
const SETTLED_WRITES: usize = 5;

/// Where a life takes place.
#[derive(Clone)]
pub struct Place {
    pub machine: usize,
    pub plan: Arc<Plan>,
    pub sabotage: Sabotage,
    pub record: Arc<Shared>,
    pub clock: SimClock,
    pub disk: SimDisk,
    pub catalogue: Arc<dyn Catalogue>,
}

pub fn name_of(machine: usize) -> String {
    format!("n{}", machine + 1)
}

fn address_of(machine: usize) -> String {
    format!("{}:9092", name_of(machine))
}

/// Often, so that an alarm without a reason shows: a node that heeds one is never ready again.
const COMPARE_EVERY: Duration = Duration::from_secs(2);

/// Few enough that they leave again.
const EXEMPLARS_MAX: u64 = 64;

fn options_of(place: &Place) -> Options {
    let plan = &place.plan;
    Options {
        listen: ":9092".to_owned(),
        advertise: address_of(place.machine),
        join: (0..FOUNDERS).map(address_of).collect(),
        bootstrap_expect: FOUNDERS,
        shards: Some(plan.shards),
        replication_factor: FOUNDERS,
        version: "sim".to_owned(),
        out_of_order_window_ms: plan.out_of_order_window_ms,
        exemplars_max: EXEMPLARS_MAX,
        series_max: 0,
        history_interval: plan.history_interval,
        retention: plan.retention,
        scrub_every: plan.scrub_every,
        compare_every: COMPARE_EVERY,
        checkpoint: CheckpointPolicy {
            entries_max: plan.checkpoint_entries,
            entries_kept: plan.entries_kept,
            ..CheckpointPolicy::default()
        },
        log: wal::Options {
            segment_bytes: plan.segment_bytes,
            ..wal::Options::default()
        },
        ..Options::default()
    }
}

/// Runs until the machine is crashed. Never returns: a host whose software ended could not be
/// crashed any more.
pub async fn live(place: Place) -> turmoil::Result {
    let name = name_of(place.machine);
    let life = {
        let mut record = place.record.lock();
        let machine = &mut record.machines[place.machine];
        machine.lives += 1;
        machine.ending = None;
        machine.stop_asked = false;
        machine.unready = "not started".to_owned();
        let life = machine.lives;
        record.replicas.reborn(place.machine);
        record.note(&name, format_args!("life {life} begins"));
        life
    };
    let salt = (place.machine as u64 + 1) << 32 | life;
    let world = sim_world::world(place.plan.seed ^ salt, &place.clock, &place.disk);
    let ending = until_end(&place, &name, &world, life).await;
    {
        let mut record = place.record.lock();
        record.note(&name, format_args!("ends: {ending:?}"));
        record.machines[place.machine].ending = Some(ending);
    }
    std::future::pending().await
}

async fn until_end(place: &Place, name: &str, world: &World, life: u64) -> Ending {
    let registry = prometheus::Registry::new();
    let started = Cluster::start(
        world.clone(),
        options_of(place),
        opened(place.catalogue.clone()),
        &registry,
    );
    let cluster = match started.await {
        Ok(cluster) => cluster,
        Err(error) => return Ending::NotStarted(causes(&error)),
    };
    {
        let mut record = place.record.lock();
        record.note(name, format_args!("started as {}", cluster.node_id()));
        record.machines[place.machine].node = Some(cluster.node_id());
    }
    let clients = (0..place.plan.clients).map(|i| client(place, world, &cluster, life, i).run());
    let mut tasks: Vec<Task> = clients
        .map(|client| world.spawn.spawn("client", client.boxed()))
        .collect();
    tasks.push(
        world
            .spawn
            .spawn("observer", observe(place.clone(), cluster.clone())),
    );
    tasks.push(world.spawn.spawn(
        "stages",
        stages(place.clone(), world.clone(), cluster.clone(), life),
    ));
    tokio::select! {
        biased;
        why = cluster.failed() => Ending::Failed(why),
        () = stop_asked(place) => {
            cluster.stop().await;
            Ending::Stopped
        }
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

async fn stop_asked(place: &Place) {
    while !place.record.lock().machines[place.machine].stop_asked {
        sleep(LOOK).await;
    }
}

fn client(place: &Place, world: &World, cluster: &Arc<Cluster>, life: u64, index: usize) -> Client {
    let sink: Arc<dyn Sink> = match place.sabotage {
        Sabotage::ForgottenWrites => Arc::new(Forgetful {
            inner: cluster.clone(),
            dice: SimDice::new(world.dice.roll()),
        }),
        _ => cluster.clone(),
    };
    let sources = cluster.clone();
    let door = Door {
        sink,
        groups: cluster.clone(),
        metadata: cluster.clone(),
        admin: cluster.admin(),
        sources: Arc::new(move || sources.source().into_iter().collect()),
    };
    Client {
        name: format!("{}.{life}.{index}", name_of(place.machine)),
        number: (place.machine as u64) << 48 | life << 8 | index as u64,
        plan: place.plan.clone(),
        record: place.record.clone(),
        dice: SimDice::new(world.dice.roll()),
        clock: world.clock.clone(),
        door,
        unanswered: Vec::new(),
    }
}

/// Acknowledges one write in ten without passing it on.
struct Forgetful {
    inner: Arc<dyn Sink>,
    dice: SimDice,
}

#[async_trait]
impl Sink for Forgetful {
    async fn write(&self, batch: Batch) -> Result<Written, WriteError> {
        match self.dice.one_in(10) {
            true => Ok(Written::default()),
            false => self.inner.write(batch).await,
        }
    }
}

/// Writes down leaders, digests and readiness.
fn observe(place: Place, cluster: Arc<Cluster>) -> BoxFuture<'static, ()> {
    async move {
        let name = name_of(place.machine);
        loop {
            look(&place, &name, &cluster);
            sleep(LOOK).await;
        }
    }
    .boxed()
}

fn look(place: &Place, name: &str, cluster: &Cluster) {
    let status = cluster.status();
    let mut record = place.record.lock();
    let shards = (0..).map(ShardId).zip(&status.shards);
    let groups = shards
        .clone()
        .map(|(shard, group)| (GroupId::of_shard(shard), group));
    for (group, seen) in groups.chain([(GroupId::META, &status.meta)]) {
        let Some(leader) = seen.leader.map(NodeId) else {
            continue;
        };
        match record
            .replicas
            .leads(place.machine, group, seen.term, leader)
        {
            Ok(false) => {}
            Ok(true) => {
                record.note(
                    name,
                    format_args!("{group} led by {leader} in term {}", seen.term),
                );
                let newer = record
                    .leaders
                    .get(&group)
                    .is_none_or(|(term, _)| *term < seen.term);
                if let Some(machine) = record.machine_of(leader).filter(|_| newer) {
                    record.leaders.insert(group, (seen.term, machine));
                }
            }
            Err(violation) => record.check(name, Err(violation)),
        }
    }
    for (shard, _) in shards {
        if let Some((index, digest)) = cluster.digest(shard) {
            let checked = record.replicas.is_at(place.machine, shard, index, digest);
            record.check(name, checked);
        }
    }
    let unready = cluster.ready().err().unwrap_or_default();
    let machine = &mut record.machines[place.machine];
    if machine.unready != unready {
        machine.unready.clone_from(&unready);
        record.note(name, format_args!("unready: {unready:?}"));
    }
}

/// Does what each stage after the load asks of a node.
fn stages(place: Place, world: World, cluster: Arc<Cluster>, life: u64) -> BoxFuture<'static, ()> {
    async move {
        let mut client = client(&place, &world, &cluster, life, 99);
        loop {
            let (stage, done) = {
                let record = place.record.lock();
                (record.stage, record.machines[place.machine].done)
            };
            if stage > Stage::Load && done < Some(stage) {
                match stage {
                    Stage::Load => unreachable!("excluded above"),
                    Stage::Settle | Stage::SettleAgain => settle(&mut client, &cluster).await,
                    Stage::Verify | Stage::VerifyAgain => verify(&place, &client, &cluster).await,
                }
                let mut record = place.record.lock();
                record.note(&client.name, format_args!("{stage:?} is done"));
                record.machines[place.machine].done = Some(stage);
            }
            sleep(LOOK).await;
        }
    }
    .boxed()
}

/// Ready, and taking writes and pushes.
async fn settle(client: &mut Client, cluster: &Cluster) {
    while cluster.ready().is_err() {
        sleep(LOOK).await;
    }
    for _ in 0..SETTLED_WRITES {
        while !client.write_everywhere().await {
            sleep(LOOK).await;
        }
    }
    while !client.push(true).await {
        sleep(LOOK).await;
    }
    // Twice: to what it stands at.
    for _ in 0..2 {
        while !client.add().await {
            sleep(LOOK).await;
        }
    }
    client.describe().await;
    while !client.write_doomed().await {
        sleep(LOOK).await;
    }
}

/// Everything acknowledged is shown, here too, and all replicas are in one state.
async fn verify(place: &Place, client: &Client, cluster: &Cluster) {
    let all = 0..=place.plan.series + FLEETING - 1;
    let started = loop {
        match client.read(all.clone(), Consistency::Strong).await {
            Some(started) => break started,
            None => sleep(LOOK).await,
        }
    };
    while !client.read_groups().await {
        sleep(LOOK).await;
    }
    while !client.read_sums().await || !client.read_words().await {
        sleep(LOOK).await;
    }
    while !client.read_doomed().await {
        sleep(LOOK).await;
    }
    // Whatever the strong read showed was applied somewhere; let an observer see that. Replicas
    // that agree on something at least as new hold all of it.
    sleep(3 * LOOK).await;
    let shards: Vec<ShardId> = (0..place.plan.shards).map(ShardId).collect();
    let floor: Vec<u64> = {
        let record = place.record.lock();
        shards
            .iter()
            .map(|shard| record.replicas.newest(*shard).saturating_sub(1))
            .collect()
    };
    let agreed = || {
        let record = place.record.lock();
        let mut pairs = shards.iter().zip(&floor);
        pairs.all(|(shard, after)| record.replicas.agreed(*shard, FOUNDERS, *after).is_some())
    };
    // A replica that came here just now may be behind those, and shows what it has.
    let is_level = |(shard, after): (&ShardId, &u64)| match cluster.digest(*shard) {
        Some((index, _)) => index > *after,
        None => true,
    };
    while !agreed() || !shards.iter().zip(&floor).all(is_level) {
        sleep(LOOK).await;
    }
    while !client
        .read_since(all.clone(), Consistency::Local, Some(started))
        .await
    {
        sleep(LOOK).await;
    }
}
