//! The node's control loop: makes what runs here equal to what the meta group says.
//!
//! Each round looks at the meta state and does the next small thing: start the meta replica, open
//! a shard that belongs here, bring a led shard's Raft membership to its placement, close what
//! moved away, seal and checkpoint. The meta leader also notes who lives and evens out placement.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{join_all, try_join};
use futures::{FutureExt, StreamExt};
use model::port::Task;
use model::{GroupId, ShardId};
use tokio::sync::oneshot;

use crate::cluster::Shared;
use crate::convert::scoped;
use crate::meta::{Command, State};
use crate::placement::{self, Told};
use crate::raft::group::{self, Parts};
use crate::raft::service::Running;
use crate::raft::types::Raft;
use crate::raft::types::WatchReceiver;
use crate::shard::Replica;
use crate::shard::leaving::{Held, leave, must_leave};
use crate::shard::mending::{damaged_block, is_damage};
use crate::shard::proposer::Windows;
use crate::shard::replica::Setup;
use crate::shard::upkeep::{self, Ages, Upkeep};
use crate::status;

const ROUND: Duration = Duration::from_millis(250);
/// A founder that is not the first waits this long for the first to begin the group.
const FOUNDER_PATIENCE: Duration = Duration::from_secs(5);
/// A node the meta leader has not heard for so long holds no leases.
const DEAD_AFTER: Duration = Duration::from_secs(2);
/// Leadership returns to the preferred replica only when both have been steady for so long.
const STEADY: Duration = Duration::from_secs(10);
/// Entries the preferred replica may be behind when it is made leader.
const TRANSFER_LAG_MAX: u64 = 64;
/// Shards opened at one time.
const OPENING_MAX: usize = 8;
/// Upkeep comes every so many rounds.
const UPKEEP_ROUNDS: u64 = 8;
/// The meta leader asks what runs on the members every so many rounds.
const ASK_ROUNDS: u64 = 8;
/// Voters of the meta group; further nodes learn it.
const META_VOTERS_MAX: usize = 5;
/// Handing leadership on before a stop.
const HAND_ON_MAX: Duration = Duration::from_secs(3);

type Beats = BTreeMap<u64, (Option<String>, Duration)>;

/// The loop and what it remembers.
pub struct Control {
    shared: Arc<Shared>,
    started: Duration,
    rounds: u64,
    compared: bool,
    upkeep: BTreeMap<GroupId, Upkeep>,
    /// When each group's present leadership was first seen.
    leaders: BTreeMap<GroupId, (Option<u64>, Duration)>,
    /// What the meta leader last heard of each node, and when that last changed.
    beats: Beats,
    /// Membership changes under way, at most one a group.
    changing: Arc<Mutex<BTreeMap<GroupId, Task>>>,
    /// The one compaction under way on this node.
    merging: Option<Task>,
    /// Shards that did not open, while what they need is asked of peers.
    healing: Mutex<BTreeMap<ShardId, Task>>,
    /// Shards whose replica here is being forgotten.
    leaving: BTreeMap<ShardId, Task>,
    /// The question to all members that is under way, and their answers, which are used once.
    asking: Option<Task>,
    told: Arc<Mutex<Option<BTreeMap<u64, Told>>>>,
}

impl Control {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            started: shared.world.clock.monotonic(),
            shared,
            rounds: 0,
            compared: false,
            upkeep: BTreeMap::new(),
            leaders: BTreeMap::new(),
            beats: Beats::new(),
            changing: Arc::default(),
            merging: None,
            healing: Mutex::default(),
            leaving: BTreeMap::new(),
            asking: None,
            told: Arc::default(),
        }
    }

    pub async fn run(mut self) {
        let mut view = self.shared.view.clone();
        let mut belongs = self.shared.local.belongs.subscribe();
        loop {
            // What this round is about to read; a fresh clone would call it news for ever.
            view.mark_unchanged();
            belongs.mark_unchanged();
            if let Err(e) = self.round().await {
                self.shared.fail(e.to_string());
                return;
            }
            self.rounds += 1;
            // Whichever comes first; a closed view means the node is ending.
            tokio::select! {
                _ = view.changed() => {}
                _ = belongs.changed() => {}
                () = tokio::time::sleep(ROUND) => {}
            }
        }
    }

    async fn round(&mut self) -> io::Result<()> {
        if self.shared.local.belongs.borrow().is_none() {
            return Ok(());
        }
        self.note_forgotten();
        let meta = self.replay_meta().await?;
        let state = self.shared.view.borrow().clone();
        // The shards apply their logs while the meta group begins.
        try_join(self.begin_meta(meta), self.open_shards(&state)).await?;
        self.stop_condemned().await;
        self.check_groups()?;
        if !state.is_formed() {
            return Ok(());
        }
        self.compare_founding(&state);
        self.found_shards(&state).await;
        self.note_leaders();
        self.lead_shards(&state);
        self.close_shards(&state).await;
        self.lead_meta(&state).await;
        if self.rounds.is_multiple_of(UPKEEP_ROUNDS) {
            self.keep_up().await?;
        }
        Ok(())
    }

    fn now(&self) -> Duration {
        self.shared.world.clock.monotonic()
    }

    /// A group with a damaged log, or whose replica does not open, does not run: it must neither vote nor
    /// acknowledge.
    fn is_quarantined(&self, group: GroupId) -> bool {
        if let Some(why) = wal::Log::quarantined(&*self.shared.log, group) {
            self.quarantine(group, format!("the log is damaged: {why}"));
        }
        let quarantined = self.shared.quarantined.lock().expect("not poisoned");
        quarantined.contains_key(&group)
    }

    fn quarantine(&self, group: GroupId, why: String) {
        let mut quarantined = self.shared.quarantined.lock().expect("not poisoned");
        if let Entry::Vacant(vacant) = quarantined.entry(group) {
            tracing::error!(%group, why, "a group does not run here");
            vacant.insert(why);
        }
    }

    /// The meta replica, unless it has begun.
    async fn replay_meta(&self) -> io::Result<Option<group::Replayed>> {
        let shared = &self.shared;
        if shared.local.meta.get().is_some() || self.is_quarantined(GroupId::META) {
            return Ok(None);
        }
        let replayed = group::replay(Parts {
            world: shared.world.clone(),
            node: shared.node.0,
            group: GroupId::META,
            log: shared.log.clone(),
            peers: shared.peers.clone(),
            transfers: shared.transfers.clone(),
            machine: shared.meta_machine.clone(),
            timing: shared.options.timing,
        });
        replayed.await.map(Some)
    }

    async fn begin_meta(&self, replayed: Option<group::Replayed>) -> io::Result<()> {
        let Some(replayed) = replayed else {
            return Ok(());
        };
        let shared = &self.shared;
        let (raft, standing) = replayed.begin().await?;
        let running = Running {
            raft: raft.clone(),
            machine: shared.meta_machine.clone(),
            standing: Arc::new(standing),
        };
        shared.groups.insert(GroupId::META, running);
        // The only one who sets it.
        shared.local.meta.set(raft).ok();
        Ok(())
    }

    /// Says once when this node was told other numbers than its cluster was founded with.
    fn compare_founding(&mut self, state: &State) {
        if std::mem::replace(&mut self.compared, true) {
            return;
        }
        let founding = &self.shared.local.founding;
        let told = founding.shards.unwrap_or(state.table.len() as u32);
        if told as usize != state.table.len() {
            tracing::warn!(
                cluster = state.table.len(),
                told,
                "the number of shards is fixed when a cluster is formed"
            );
        }
        if founding.replication_factor != state.replication_factor {
            tracing::warn!(
                cluster = state.replication_factor,
                told = founding.replication_factor,
                "the replication factor is fixed when a cluster is formed"
            );
        }
    }

    async fn open_shards(&self, state: &State) -> io::Result<()> {
        let shared = &self.shared;
        let wanted = state.shards().filter(|shard| {
            self.is_needed(state, *shard)
                && shared.router.replica(*shard).is_none()
                && self.may_open(*shard)
                && !self.is_quarantined(GroupId::of_shard(*shard))
        });
        // Each waits for a handful of flushes, which the disk makes of several at once, and applies its log.
        let mut opening = futures::stream::iter(wanted.collect::<Vec<_>>())
            .map(|shard| self.open_shard(state, shard))
            .buffered(OPENING_MAX);
        while let Some(opened) = opening.next().await {
            opened?;
        }
        Ok(())
    }

    /// Whether a replica here is meant to be, or was and may vote still: until the shard has settled elsewhere it
    /// may be one that the others cannot do without.
    fn is_needed(&self, state: &State, shard: ShardId) -> bool {
        let shared = &self.shared;
        let held = wal::Log::state(&*shared.log, GroupId::of_shard(shard));
        state.assignment(shard).is_some_and(|a| {
            a.replicas.contains(&shared.node.0)
                || (!a.settled && held != wal::GroupState::default())
        })
    }

    /// Not while it is being forgotten, nor while what it needs is on its way. One whose state is whole again
    /// leaves the quarantine.
    fn may_open(&self, shard: ShardId) -> bool {
        if self.leaving.contains_key(&shard) {
            return false;
        }
        let mut healing = self.healing.lock().expect("not poisoned");
        match healing.get(&shard) {
            None => return true,
            Some(task) if !task.is_finished() => return false,
            Some(_) => drop(healing.remove(&shard)),
        }
        let mut quarantined = self.shared.quarantined.lock().expect("not poisoned");
        quarantined.remove(&GroupId::of_shard(shard));
        true
    }

    async fn open_shard(&self, state: &State, shard: ShardId) -> io::Result<()> {
        let shared = &self.shared;
        let setup = Setup {
            world: shared.world.clone(),
            node: shared.node.0,
            shard,
            log: shared.log.clone(),
            peers: shared.peers.clone(),
            transfers: shared.transfers.clone(),
            timing: shared.options.timing,
            windows: shared.settings.clone(),
            shards: state.table.len(),
            metrics: shared.engine_metrics.clone(),
            tables: shared.tables.clone(),
            journal: shared.journal.clone(),
            checkpoint_turns: shared.checkpoint_turns.clone(),
            mender: shared.mender.clone(),
        };
        // On a task of its own, so that several apply their logs on several cores.
        let (done, opened) = oneshot::channel();
        let open = async move { drop(done.send(Replica::open(setup).await)) };
        let _task = shared.world.spawn.spawn("open shard", open.boxed());
        let ended = |_| io::Error::other(format!("shard {shard} was not opened to the end"));
        let replica = match opened.await.map_err(ended)? {
            Err(error) => return self.heal(shard, error),
            opened => opened?,
        };
        let group = GroupId::of_shard(shard);
        shared.groups.insert(group, replica.running());
        let mut replicas = shared.replicas.write().expect("not poisoned");
        replicas.insert(shard, Arc::new(replica));
        shared.router.opened.notify_waiters();
        Ok(())
    }

    /// What keeps a shard from opening is asked of peers, a block or all of its state, for as long as it takes;
    /// the others go on without it, and a later round opens it.
    fn heal(&self, shard: ShardId, error: io::Error) -> io::Result<()> {
        if self.is_quarantined(GroupId::of_shard(shard)) {
            return Ok(());
        }
        if !is_damage(&error) {
            return Err(error);
        }
        let block = damaged_block(&error).map(str::to_owned);
        match &block {
            Some(_) => tracing::error!(%shard, %error, "a shard does not open"),
            None => self.quarantine(GroupId::of_shard(shard), error.to_string()),
        }
        let shared = self.shared.clone();
        let heal = async move { shared.mender.heal(shard, block, &*shared.log).await };
        let world = &self.shared.world;
        let task = scoped(&world.dice, heal);
        let task = world.spawn.spawn("mending a closed shard", task);
        let mut healing = self.healing.lock().expect("not poisoned");
        healing.insert(shard, task);
        Ok(())
    }

    /// Begins the Raft groups this node is a founder of: the first founder at once, the others
    /// only if nothing happens.
    async fn found_shards(&self, state: &State) {
        let node = self.shared.node.0;
        let patient = self.now() >= self.started + FOUNDER_PATIENCE;
        let founding = self.replicas().into_iter().map(|replica| async move {
            let Some(assignment) = state.assignment(replica.shard) else {
                return;
            };
            let founders = &assignment.founders;
            let turn = founders.first() == Some(&node) || (patient && founders.contains(&node));
            if !turn || replica.raft.is_initialized().await.unwrap_or(true) {
                return;
            }
            let voters = addresses(state, founders);
            if let Err(e) = group::initialize(&replica.raft, &voters).await {
                tracing::warn!(shard = %replica.shard, error = %e, "group not begun");
            }
        });
        join_all(founding.map(FutureExt::boxed)).await;
    }

    fn replicas(&self) -> Vec<Arc<Replica>> {
        self.shared
            .replicas
            .read()
            .expect("not poisoned")
            .values()
            .cloned()
            .collect()
    }

    /// Stops replicas that were found to hold another state than most, or whose log cannot be read.
    async fn stop_condemned(&self) {
        for replica in self.replicas() {
            let group = GroupId::of_shard(replica.shard);
            if let Some(why) = replica.condemned.get() {
                self.quarantine(group, why.clone());
            }
            if self.is_quarantined(group) {
                self.stop_replica(&replica).await;
            }
        }
    }

    async fn stop_replica(&self, replica: &Replica) {
        let shared = &self.shared;
        shared.groups.remove(GroupId::of_shard(replica.shard));
        shared
            .replicas
            .write()
            .expect("not poisoned")
            .remove(&replica.shard);
        // Stopped already is as good.
        replica.raft.shutdown().await.ok();
    }

    /// A group that stopped by itself met an error it cannot go on from.
    fn check_groups(&self) -> io::Result<()> {
        for (group, running) in self.shared.groups.all() {
            // Who came back may vote as soon as this is asked.
            running.standing.owes();
            // One whose log cannot be read any more is stopped by the next round.
            let is_condemned = group != GroupId::META && self.is_quarantined(group);
            if let Err(fatal) = &running.raft.metrics().borrow_watched().running_state
                && !is_condemned
            {
                return Err(io::Error::other(format!("group {group} stopped: {fatal}")));
            }
        }
        Ok(())
    }

    fn note_leaders(&mut self) {
        let now = self.now();
        let mut groups = Vec::new();
        for (group, running) in self.shared.groups.all() {
            let leader = running.raft.metrics().borrow_watched().current_leader;
            let seen = self.leaders.entry(group).or_insert((leader, now));
            if seen.0 != leader {
                *seen = (leader, now);
                self.shared.metrics.leader_changed();
            }
            groups.push(status::of_group(&running.raft));
        }
        self.shared.metrics.observe(&groups);
    }

    /// Whether this node has led `group` for a while.
    fn leads_steadily(&self, group: GroupId) -> bool {
        let seen = self.leaders.get(&group);
        seen.is_some_and(|(leader, since)| {
            *leader == Some(self.shared.node.0) && self.now() >= *since + STEADY
        })
    }

    fn lead_shards(&mut self, state: &State) {
        self.changing
            .lock()
            .expect("not poisoned")
            .retain(|_, task| !task.is_finished());
        let mut transferred = false;
        for replica in self.replicas().iter().filter(|replica| replica.leads()) {
            let Some(assignment) = state.assignment(replica.shard) else {
                continue;
            };
            let wanted: BTreeSet<u64> = assignment.replicas.iter().copied().collect();
            if !group::has_voters(&replica.raft, &wanted) || !assignment.settled {
                self.change_shard(state, replica);
            } else if !transferred {
                transferred = self.prefer(state, replica, assignment.replicas[0]);
            }
        }
    }

    /// Brings a led shard's membership to its placement, beside the loop.
    fn change_shard(&self, state: &State, replica: &Arc<Replica>) {
        let group = GroupId::of_shard(replica.shard);
        let mut changing = self.changing.lock().expect("not poisoned");
        if changing.contains_key(&group) {
            return;
        }
        let shard = replica.shard;
        let replicas = state
            .assignment(shard)
            .map(|a| a.replicas.clone())
            .unwrap_or_default();
        let voters = addresses(state, &replicas);
        let (replica, local) = (replica.clone(), self.shared.local.clone());
        let change = async move {
            let none = BTreeMap::new();
            if let Err(e) = group::change_members(&replica.raft, &voters, &none).await {
                tracing::warn!(%shard, error = %e, "membership not changed yet");
                return;
            }
            let settled = Command::Settled {
                shard: shard.0,
                replicas,
            };
            if let Err(refusal) = local.propose(settled).await {
                tracing::debug!(%shard, %refusal, "placement not settled yet");
            }
        };
        let world = &self.shared.world;
        let task = world
            .spawn
            .spawn("membership change", scoped(&world.dice, change));
        changing.insert(group, task);
    }

    /// Gives a led shard back to its preferred leader; whether it did.
    fn prefer(&self, state: &State, replica: &Arc<Replica>, preferred: u64) -> bool {
        let group = GroupId::of_shard(replica.shard);
        let alive = state
            .members
            .get(&preferred)
            .is_some_and(|member| member.alive);
        if preferred == self.shared.node.0 || !alive || !self.leads_steadily(group) {
            return false;
        }
        if !is_close(&replica.raft, preferred) {
            return false;
        }
        let raft = replica.raft.clone();
        let transfer = async move { raft.trigger().transfer_leader(preferred).await.is_ok() };
        let world = &self.shared.world;
        let task = scoped(&world.dice, transfer.map(drop));
        let mut changing = self.changing.lock().expect("not poisoned");
        changing.insert(group, world.spawn.spawn("leadership transfer", task));
        true
    }

    /// Closes replicas whose placement has settled elsewhere, and forgets their files and log; likewise those
    /// whose log is damaged, once they vote no more.
    async fn close_shards(&mut self, state: &State) {
        let shared = self.shared.clone();
        for shard in state.shards() {
            let group = GroupId::of_shard(shard);
            let replica = shared.router.replica(shard);
            let held = Held {
                is_damaged: wal::Log::quarantined(&*shared.log, group).is_some(),
                is_here: replica.is_some()
                    || wal::Log::state(&*shared.log, group) != wal::GroupState::default(),
            };
            let must = must_leave(state, shared.node.0, shard, held);
            if !must || self.leaving.contains_key(&shard) {
                continue;
            }
            if let Some(replica) = replica {
                tracing::info!(%shard, "the shard moved away");
                self.stop_replica(&replica).await;
            }
            // What it needed to open it needs no more.
            self.healing.get_mut().expect("not poisoned").remove(&shard);
            let leaver = shared.clone();
            let leave = async move {
                if let Err(e) = leave(&leaver, shard).await {
                    leaver.fail(format!("forgetting the replica of shard {shard}: {e}"));
                }
            };
            let world = &shared.world;
            let task = world
                .spawn
                .spawn("leaving a shard", scoped(&world.dice, leave));
            self.leaving.insert(shard, task);
        }
    }

    /// Who was forgotten is in quarantine no more, and may come back.
    fn note_forgotten(&mut self) {
        let mut quarantined = self.shared.quarantined.lock().expect("not poisoned");
        self.leaving.retain(|shard, task| {
            let is_over = task.is_finished();
            if is_over {
                quarantined.remove(&GroupId::of_shard(*shard));
            }
            !is_over
        });
    }

    async fn lead_meta(&mut self, state: &State) {
        let Some(meta) = self.shared.local.meta.get().cloned() else {
            return;
        };
        if meta.metrics().borrow_watched().current_leader != Some(self.shared.node.0) {
            self.beats.clear();
            self.asking = None;
            self.told.lock().expect("not poisoned").take();
            return;
        }
        self.change_meta(state, &meta);
        if let Some(nodes) = self.hear(state, &meta) {
            self.propose(Command::Alive { nodes }).await;
        }
        self.relieve(state).await;
        for (shard, replicas) in placement::rebalance(state) {
            self.propose(Command::Place { shard, replicas }).await;
        }
    }

    /// Asks the members about their replicas, and moves those away whose log is damaged.
    async fn relieve(&mut self, state: &State) {
        let told = self.told.lock().expect("not poisoned").take();
        for (shard, replicas) in placement::relieve(state, &told.unwrap_or_default()) {
            tracing::warn!(
                shard,
                ?replicas,
                "a replica with a damaged log is moved away"
            );
            self.shared.metrics.relieved.inc();
            self.propose(Command::Place { shard, replicas }).await;
        }
        let is_asking = self.asking.as_ref().is_some_and(|task| !task.is_finished());
        if is_asking || !self.rounds.is_multiple_of(ASK_ROUNDS) {
            return;
        }
        let (local, answers) = (self.shared.local.clone(), self.told.clone());
        let ask = async move {
            let told = local.ask_members().await;
            *answers.lock().expect("not poisoned") = Some(told);
        };
        let world = &self.shared.world;
        let task = scoped(&world.dice, ask);
        self.asking = Some(world.spawn.spawn("asking members", task));
    }

    async fn propose(&self, command: Command) {
        let once = self.shared.local.propose_once(&command);
        if let Err(refusal) = scoped(&self.shared.world.dice, once).await {
            tracing::debug!(?command, %refusal, "not committed; the next round asks again");
        }
    }

    /// Nodes whose being heard differs from the state.
    fn hear(&mut self, state: &State, meta: &Raft) -> Option<BTreeMap<u64, bool>> {
        let now = self.now();
        let heard: BTreeMap<u64, String> = {
            let metrics = meta.metrics();
            let metrics = metrics.borrow_watched();
            let beats = metrics.heartbeat.iter().flatten();
            beats
                .filter_map(|(node, at)| Some((*node, format!("{:?}", at.as_ref()?))))
                .collect()
        };
        let mut changed = BTreeMap::new();
        for (node, member) in &state.members {
            let last = heard.get(node).cloned();
            let beat = self.beats.entry(*node).or_insert((None, now));
            if beat.0 != last {
                *beat = (last, now);
            }
            let alive = *node == self.shared.node.0 || now < beat.1 + DEAD_AFTER;
            // A node just found silent may only be new to this leader.
            if alive != member.alive && (!alive || beat.0.is_some() || *node == self.shared.node.0)
            {
                changed.insert(*node, alive);
            }
        }
        (!changed.is_empty()).then_some(changed)
    }

    /// Every member follows the meta group; the first few vote.
    fn change_meta(&self, state: &State, meta: &Raft) {
        let mut changing = self.changing.lock().expect("not poisoned");
        if changing.contains_key(&GroupId::META) {
            return;
        }
        let voters = voters_of(meta);
        let alive = |node: &&u64| state.members[node].alive;
        let room = META_VOTERS_MAX.saturating_sub(voters.len());
        let fresh = state
            .members
            .keys()
            .filter(|node| !voters.contains(node))
            .filter(alive);
        let wanted: BTreeSet<u64> = voters.iter().chain(fresh.take(room)).copied().collect();
        let known: BTreeSet<u64> = {
            let metrics = meta.metrics();
            let metrics = metrics.borrow_watched();
            metrics
                .membership_config
                .membership()
                .nodes()
                .map(|(id, _)| *id)
                .collect()
        };
        let learners: Vec<u64> = state
            .members
            .keys()
            .filter(|node| !wanted.contains(node))
            .copied()
            .collect();
        if group::has_voters(meta, &wanted) && learners.iter().all(|node| known.contains(node)) {
            return;
        }
        let wanted: Vec<u64> = wanted.into_iter().collect();
        let (voters, learners) = (addresses(state, &wanted), addresses(state, &learners));
        let raft = meta.clone();
        let change = async move {
            if let Err(e) = group::change_members(&raft, &voters, &learners).await {
                tracing::warn!(error = %e, "meta membership not changed yet");
            }
        };
        let world = &self.shared.world;
        let task = world
            .spawn
            .spawn("meta membership", scoped(&world.dice, change));
        changing.insert(GroupId::META, task);
    }

    /// Begins a compaction unless one is under way; another shard each time, so that one whose
    /// files are damaged holds up nobody.
    fn merge_blocks(&mut self) {
        if self
            .merging
            .as_ref()
            .is_some_and(|task| !task.is_finished())
        {
            return;
        }
        let mut waiting = self.replicas();
        waiting.retain(|replica| replica.engine.has_merge());
        if waiting.is_empty() {
            return;
        }
        let replica = waiting.swap_remove(self.rounds as usize % waiting.len());
        let mender = self.shared.mender.clone();
        let task = async move { upkeep::merge(&replica, &mender).await };
        let world = &self.shared.world;
        let task = world.spawn.spawn("compaction", scoped(&world.dice, task));
        self.merging = Some(task);
    }

    async fn keep_up(&mut self) -> io::Result<()> {
        let shared = self.shared.clone();
        let replicas = self.replicas();
        let bytes_max = shared.options.retention_bytes.filter(|bytes| *bytes > 0);
        let ages = Ages {
            out_of_order_window_ms: shared
                .settings
                .out_of_order_ms()
                .max(shared.settings.in_order_ms()),
            in_order_window_ms: shared.settings.in_order_ms(),
            retention: shared.options.retention,
            block_bytes_max: upkeep::block_bytes_max(bytes_max, replicas.len()),
        };
        let fits_from = upkeep::fit(&replicas, bytes_max);
        let tidy =
            |(replica, fits_from)| upkeep::tidy_up(replica, &*shared.world.clock, ages, fits_from);
        // What many have to seal waits for the same flushes.
        let may_forget = join_all(replicas.iter().map(|one| &**one).zip(fits_from).map(tidy)).await;
        for (replica, _) in replicas.iter().zip(may_forget).filter(|(_, may)| *may) {
            // Looking takes time: one shard a round.
            if upkeep::forget(replica, ages).await {
                break;
            }
        }
        self.merge_blocks();
        let now = self.now();
        for (group, running) in shared.groups.all() {
            let upkeep = self.upkeep.entry(group).or_default();
            let floor = shared.transfers.floor(group);
            let done = upkeep.round(&running, now, floor, &shared.options.checkpoint);
            let done = done.await;
            if wal::Log::quarantined(&*shared.log, group).is_none() {
                done?;
            }
        }
        Ok(())
    }
}

fn voters_of(raft: &Raft) -> BTreeSet<u64> {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    metrics.membership_config.membership().voter_ids().collect()
}

fn addresses(state: &State, nodes: &[u64]) -> BTreeMap<u64, String> {
    nodes
        .iter()
        .filter_map(|id| Some((*id, state.address(*id)?.to_owned())))
        .collect()
}

/// Whether a follower holds nearly all of this leader's log.
fn is_close(raft: &Raft, follower: u64) -> bool {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let last = metrics.last_log_index.unwrap_or(0);
    let matched = metrics
        .replication
        .as_ref()
        .and_then(|r| r.get(&follower)?.as_ref());
    matched.is_some_and(|id| id.index + TRANSFER_LAG_MAX >= last)
}

/// Before a stop: every group led here goes to a follower that is close behind.
pub async fn hand_leadership_on(shared: &Shared) {
    let deadline = shared.world.clock.monotonic() + HAND_ON_MAX;
    loop {
        let mut led = 0;
        for (_, running) in shared.groups.all() {
            let raft = &running.raft;
            if raft.metrics().borrow_watched().current_leader != Some(shared.node.0) {
                continue;
            }
            let heir = voters_of(raft)
                .into_iter()
                .find(|id| *id != shared.node.0 && is_close(raft, *id));
            if let Some(heir) = heir {
                led += 1;
                // A group that has stopped needs no heir.
                raft.trigger().transfer_leader(heir).await.ok();
            }
        }
        if led == 0 || shared.world.clock.monotonic() >= deadline {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
