//! A shard's replica: opened from disk, joined to its group, asked by the node's services.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use futures::future::try_join;
use model::group::{Group, GroupingKey, PushOp, PushOptions};
use model::port::World;
use model::sink::{Pushed, Written};
use model::source::Consistency;
use model::{Batch, FamilyMetadata, GroupId, Labels, ShardId};
use tokio::sync::Semaphore;
use tsdb::collecting::Looked;
use tsdb::compaction::Candidate;
use tsdb::file::FileKind;
use tsdb::{CleanCommand, Command, DeleteCommand, Outcome, Shard, WipeCommand, Wiped};

use super::describing::Describing;
use super::machine::ShardMachine;
use super::mending::{self, Mender};
use super::proposer::{Proposer, Windows};
use super::pushes::Pushes;
use super::rebuilding;
use super::room::Room;
use crate::convert::scoped;
use crate::journal::Journal;
use crate::peer::Peers;
use crate::raft::group::{self, Parts, Timing};
use crate::raft::machine::Machine;
use crate::raft::service::Running;
use crate::raft::standing::Standing;
use crate::raft::transfers::Transfers;
use crate::raft::types::WatchReceiver;
use crate::raft::types::{Raft, Reply, Vote};
use crate::refusal::Refusal;

/// The directory of all shards, below the node's root.
pub const DIR: &str = "shards";

/// The engine's own, inside it.
pub fn engine_dir_of(shard: ShardId) -> PathBuf {
    dir_of(shard).join("engine")
}

/// Opens a replica with these.
pub struct Setup {
    pub world: World,
    pub node: u64,
    pub shard: ShardId,
    pub log: Arc<dyn wal::Log>,
    pub peers: Arc<Peers>,
    pub transfers: Arc<Transfers>,
    pub timing: Timing,
    pub windows: Arc<dyn Windows>,
    /// How many the cluster has.
    pub shards: usize,
    pub metrics: Arc<tsdb::Metrics>,
    pub tables: Arc<tsdb::Tables>,
    pub journal: Arc<Journal>,
    /// [`checkpoint_turns`](super::machine::checkpoint_turns) of the node.
    pub checkpoint_turns: Arc<Semaphore>,
    pub mender: Arc<Mender>,
}

/// One shard on this node.
pub struct Replica {
    pub shard: ShardId,
    pub engine: Arc<Shard>,
    pub raft: Raft,
    pub standing: Arc<Standing>,
    /// How far series were looked at, to forget those that are dead.
    pub looked: Mutex<Looked>,
    /// Why it must stop, once it must.
    pub condemned: OnceLock<String>,
    machine: Arc<dyn Machine>,
    proposer: Proposer,
    room: Arc<Room>,
    pushes: Pushes,
    describing: Describing,
    world: World,
}

/// A shard's directory; the engine's own lies inside it.
pub fn dir_of(shard: ShardId) -> PathBuf {
    Path::new(DIR).join(format!("{:05}", shard.0))
}

impl Replica {
    pub async fn open(setup: Setup) -> io::Result<Self> {
        let Setup {
            world,
            node,
            shard,
            log,
            peers,
            transfers,
            timing,
            windows,
            shards,
            metrics,
            tables,
            journal,
            checkpoint_turns,
            mender,
        } = setup;
        let dir = dir_of(shard);
        let engine_dir = engine_dir_of(shard);
        world.disk.create_dir_all(&engine_dir).await?;
        let engine = Shard::open(&world, engine_dir, metrics, tables).await?;
        let group = GroupId::of_shard(shard);
        let held = engine.position().map(|position| position.index);
        if let Some(gap) = rebuilding::gap(held, log.state(group).purged) {
            return Err(gap.into());
        }
        rebuilding::clear(&*world.disk, shard).await?;
        let engine = Arc::new(engine);
        let machine = ShardMachine::new(
            engine.clone(),
            world.disk.clone(),
            dir.clone(),
            checkpoint_turns,
        );
        let machine: Arc<dyn Machine> = Arc::new(machine.mended_by(mender, shard));
        let parts = Parts {
            world: world.clone(),
            node,
            group,
            log,
            peers,
            transfers,
            machine: machine.clone(),
            timing,
        };
        // A flush of the directory waits for whatever else the disk is writing.
        let keep = try_join(engine.keep_names(), keep_dir(&world, &dir));
        let (replayed, _) = try_join(group::replay(parts), keep).await?;
        let (raft, standing) = replayed.begin().await?;
        let room = Arc::new(Room::new(engine.clone(), windows.clone(), shards));
        let proposer = Proposer::start(
            &world,
            raft.clone(),
            engine.clone(),
            room.clone(),
            windows,
            shards,
        );
        let pushes = Pushes::start(&world, raft.clone(), journal);
        let describing = Describing::new(&world, raft.clone(), engine.clone());
        Ok(Self {
            shard,
            engine,
            raft,
            standing: Arc::new(standing),
            looked: Mutex::default(),
            condemned: OnceLock::new(),
            machine,
            proposer,
            room,
            pushes,
            describing,
            world,
        })
    }

    /// For the Raft service's table.
    pub fn running(&self) -> Running {
        Running {
            raft: self.raft.clone(),
            machine: self.machine.clone(),
            standing: self.standing.clone(),
        }
    }

    pub async fn write(&self, batch: Arc<Batch>) -> Result<Written, Refusal> {
        self.must_lead()?;
        self.proposer.write(batch).await
    }

    /// What the push changed, once it is committed and its samples are stored.
    ///
    /// `None`: nothing was done, because the group does not have all these series, so that other
    /// groups must be asked first.
    pub async fn push(
        &self,
        key: GroupingKey,
        op: PushOp,
        options: PushOptions,
    ) -> Result<Option<Pushed>, Refusal> {
        self.must_lead()?;
        if !options.unchecked && !self.engine.holds(&key, &op, options) {
            return Ok(None);
        }
        self.pushes.push(key, op, options).await.map(Some)
    }

    /// What a push contradicts in the groups of this shard, all that was acknowledged before
    /// among them. `series` are those that it would write here: without room for them it is refused.
    pub async fn conflict(
        &self,
        key: &GroupingKey,
        op: &PushOp,
        series: &[Labels],
    ) -> Result<Option<String>, Refusal> {
        self.settle(Consistency::Strong).await?;
        match self.engine.conflict(key, op) {
            None => self.room.holds(series).map(|()| None),
            conflict => Ok(conflict),
        }
    }

    /// Removes every group of the shard.
    pub async fn wipe(&self) -> Result<Wiped, Refusal> {
        self.must_lead()?;
        let command = Command::Wipe(WipeCommand {
            proposed_at: self.world.clock.now(),
        });
        let proposal = group::propose(&self.raft, command.encode());
        match scoped(&self.world.dice, proposal).await? {
            Reply::Shard(Outcome::Wiped(wiped)) => Ok(wiped),
            reply => unreachable!("a wipe was answered with {reply:?}"),
        }
    }

    pub async fn delete(&self, command: DeleteCommand) -> Result<(), Refusal> {
        self.must_lead()?;
        let proposal = group::propose(&self.raft, Command::Delete(command).encode());
        match scoped(&self.world.dice, proposal).await? {
            Reply::Shard(Outcome::Deleted) => Ok(()),
            reply => unreachable!("a deletion was answered with {reply:?}"),
        }
    }

    /// Cleans one block of which something is deleted; whether there was one.
    pub async fn clean_one(&self) -> Result<bool, Refusal> {
        self.must_lead()?;
        self.settle(Consistency::Strong).await?;
        let Some(block) = self.engine.unclean_blocks().first().copied() else {
            return Ok(false);
        };
        let command = Command::Clean(CleanCommand { block });
        let proposal = group::propose(&self.raft, command.encode());
        match scoped(&self.world.dice, proposal).await? {
            Reply::Shard(Outcome::Cleaned) => Ok(true),
            reply => unreachable!("a cleaning was answered with {reply:?}"),
        }
    }

    /// A file that counts here and its length, by its name; of a block also by its name without the checksum,
    /// and a manifest by what its state must hold.
    pub async fn file_of(&self, name: &str) -> io::Result<Option<(PathBuf, u64)>> {
        if let Some(index) = rebuilding::index_in(name) {
            let Some(path) = self.engine.path_of_manifest(index).await else {
                return Ok(None);
            };
            let len = self.world.disk.len(&path).await?;
            return Ok(Some((path, len)));
        }
        let found = match mending::id_in(name) {
            Some(id) => self.engine.path_of_block(id).await,
            None => self.engine.path_of(name).await,
        };
        Ok(found.map(|(path, entry)| (path, entry.len)))
    }

    /// A block that has no file here yet gets one, and so does a state that a peer needs: who does asks again.
    pub async fn write_soon(&self, name: &str) {
        let is_here = match (rebuilding::index_in(name), FileKind::of_name(name)) {
            (Some(index), _) => self.has_applied(index),
            (_, Some(FileKind::Block(id))) => {
                let is_it = |block: &Candidate| block.id == id && block.bytes == 0;
                self.engine.candidates().iter().any(is_it)
            }
            _ => false,
        };
        if !is_here {
            return;
        }
        if let Err(error) = self.raft.trigger().snapshot().await {
            tracing::debug!(shard = %self.shard, %error, "no checkpoint for a peer that needs it");
        }
    }

    fn has_applied(&self, index: u64) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let applied = metrics.last_applied.as_ref();
        applied.is_some_and(|applied| applied.index >= index)
    }

    /// A log index that holds everything acknowledged before.
    pub async fn settled_index(&self) -> Result<u64, Refusal> {
        self.settle(Consistency::Strong).await?;
        Ok(self.engine.applied_index())
    }

    /// What this leader can say to a node whose replica does not run and votes no more: its own vote, and an
    /// index up to which all was committed that ever counted the node's. None if the node does vote.
    pub async fn discharge(&self, node: u64) -> Result<Option<(Vote, u64)>, Refusal> {
        self.settle(Consistency::Strong).await?;
        let told = self.raft.with_raft_state(move |state| {
            let members = state.membership_state.effective();
            let committed = state.local_committed().map(|id| id.index);
            let changed_at = members.log_id().as_ref().map(|id| id.index);
            let told = (*state.vote_ref(), committed.unwrap_or(0));
            let (votes, learns) = (
                members.voter_ids().any(|voter| voter == node),
                members.get_node(&node).is_some(),
            );
            (changed_at <= committed).then_some((told, votes, learns))
        });
        let told = told.await.map_err(stopped)?;
        let Some(((vote, index), votes, learns)) = told else {
            return Err(Refusal::Unavailable("its members change".to_owned()));
        };
        if !vote.committed || vote.leader_id.node_id != *self.raft.node_id() {
            return Err(Refusal::NotLeader(None));
        }
        if votes {
            return Ok(None);
        }
        if learns {
            // What it has acknowledged to this leader already it will not have.
            let trigger = self.raft.trigger();
            let allowed = trigger.allow_next_revert(&node, true).await;
            allowed.map_err(stopped)?.map_err(stopped)?;
        }
        Ok(Some((vote, index)))
    }

    /// The groups, containing every push acknowledged before.
    pub async fn groups(&self) -> Result<Vec<Group>, Refusal> {
        self.settle(Consistency::Strong).await?;
        Ok(self.engine.groups())
    }

    /// Stores what is new of it.
    pub async fn describe(&self, families: &[FamilyMetadata]) -> Result<(), Refusal> {
        self.must_lead()?;
        scoped(&self.world.dice, self.describing.describe(families)).await
    }

    /// What is known of all families or of one, containing everything acknowledged before.
    pub async fn described(&self, family: Option<&str>) -> Result<Vec<FamilyMetadata>, Refusal> {
        self.settle(Consistency::Strong).await?;
        Ok(self.engine.described(family))
    }

    /// Waits until reading the engine gives what `consistency` promises.
    pub async fn settle(&self, consistency: Consistency) -> Result<(), Refusal> {
        match consistency {
            Consistency::Local => Ok(()),
            Consistency::Strong => scoped(&self.world.dice, group::linearize(&self.raft)).await,
        }
    }

    /// Who leads, as far as this replica knows.
    pub fn leader(&self) -> Option<u64> {
        self.raft.metrics().borrow_watched().current_leader
    }

    pub fn voters(&self) -> BTreeSet<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().voter_ids().collect()
    }

    pub fn leads(&self) -> bool {
        self.leader() == Some(*self.raft.node_id())
    }

    fn must_lead(&self) -> Result<(), Refusal> {
        match self.leader() {
            Some(leader) if leader == *self.raft.node_id() => Ok(()),
            leader => Err(Refusal::NotLeader(leader)),
        }
    }
}

fn stopped(error: impl std::fmt::Display) -> Refusal {
    Refusal::Unavailable(error.to_string())
}

/// Makes the names of a shard's directory and of those above it durable.
async fn keep_dir(world: &World, dir: &Path) -> io::Result<()> {
    world.disk.flush_dir(dir).await?;
    world.disk.flush_dir(Path::new(DIR)).await?;
    world.disk.flush_dir(Path::new("")).await
}
