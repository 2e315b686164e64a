//! One running Raft group: starting it, and the few questions asked of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::GroupId;
use model::port::World;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::impls::BasicNode;
use openraft::raft::ReadPolicy;
use openraft::{ChangeMembers, Config, RaftMetrics, SnapshotPolicy};

use super::before;
use super::log_store::LogStore;
use super::machine::{Machine, StateMachine};
use super::network::Network;
use super::standing::{Standing, is_short};
use super::transfers::Transfers;
use super::types::WatchReceiver;
use super::types::{Payload, Raft, Reply, TypeConfig};
use crate::convert::scoped;
use crate::peer::Peers;
use crate::refusal::Refusal;

/// Openraft's channels, bounded well below its defaults: each slot may hold a proposal.
const API_CHANNEL: u64 = 256;
const MACHINE_CHANNEL: u64 = 64;
/// A proposal or a read that Raft has not settled by then is given up.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);
/// So long a lone voter is waited for that elects itself: a flush or two.
const ALONE_TIMEOUT: Duration = Duration::from_secs(1);

/// How fast a group notices that its leader is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    pub heartbeat_ms: u64,
    pub election_min_ms: u64,
    pub election_max_ms: u64,
}

/// A follower waits for the lease (the longest election timeout) and one election timeout: a
/// dead leader costs 1.1 to 1.4 s. Shorter ones make elections on a machine whose cores are busy.
impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat_ms: 150,
            election_min_ms: 500,
            election_max_ms: 700,
        }
    }
}

impl Timing {
    fn config(&self, name: String) -> io::Result<Config> {
        let config = Config {
            cluster_name: name,
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min: self.election_min_ms,
            election_timeout_max: self.election_max_ms,
            max_payload_entries: 64,
            // Checkpoints and purging are ours: see `shard::upkeep`.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            api_channel_size: Some(API_CHANNEL),
            state_machine_channel_size: Some(MACHINE_CHANNEL),
            enable_pre_vote: Some(true),
            quorum_loss_probe_interval: Some(6_000),
            enable_leader_restore: Some(false),
            install_snapshot_timeout: 60_000,
            ..Config::default()
        };
        config.validate().map_err(io::Error::other)
    }
}

/// What a group is made of.
pub struct Parts {
    pub world: World,
    pub node: u64,
    pub group: GroupId,
    pub log: Arc<dyn wal::Log>,
    pub peers: Arc<Peers>,
    pub transfers: Arc<Transfers>,
    pub machine: Arc<dyn Machine>,
    pub timing: Timing,
}

/// A replica whose machine holds what its log says was committed, before Raft is given it.
pub struct Replayed {
    world: World,
    node: u64,
    group: GroupId,
    config: Config,
    log: Arc<dyn wal::Log>,
    network: Network,
    machine: StateMachine,
}

/// Brings the group's machine on this node to where it was.
pub async fn replay(parts: Parts) -> io::Result<Replayed> {
    let Parts {
        world,
        node,
        group,
        log,
        peers,
        transfers,
        machine,
        timing,
    } = parts;
    let config = timing.config(format!("group {group}"))?;
    let machine = StateMachine::new(machine)?;
    machine.replay(&*log, group).await?;
    let network = Network::new(peers, world.disk.clone(), transfers, group);
    Ok(Replayed {
        world,
        node,
        group,
        config,
        log,
        network,
        machine,
    })
}

impl Replayed {
    /// Joins the group. What the replica has it tells others of from then on, so its log must be known to
    /// be durable.
    pub async fn begin(mut self) -> io::Result<(Raft, Standing)> {
        self.log.settled().await?;
        let before = before::of(&*self.world.disk, self.group).await?;
        before::promise(&*self.log, self.group, before).await?;
        // The members in a log that is not all here yet may be those of long ago.
        self.config.enable_elect = !is_short(&self.log.state(self.group), before);
        let may_elect = self.config.enable_elect;
        let store = LogStore::new(self.log.clone(), self.group);
        let changes = store.changes();
        let config = Arc::new(self.config);
        let raft = Raft::new(self.node, config, self.network, store, self.machine);
        let raft = scoped(&self.world.dice, raft)
            .await
            .map_err(io::Error::other)?;
        if may_elect {
            elect_if_alone(&raft, self.node).await?;
        }
        let standing = Standing::new(raft.clone(), self.log, self.group, changes, before);
        Ok((raft, standing))
    }
}

/// Who is the only voter leads at once, and before anybody asks. Raft would do the same with its first tick,
/// which comes after up to one and a half heartbeats.
async fn elect_if_alone(raft: &Raft, node: u64) -> io::Result<()> {
    let is_alone = raft.with_raft_state(move |state| {
        let voters = state.membership_state.effective().voter_ids();
        voters.eq([node])
    });
    if is_alone.await.map_err(io::Error::other)? {
        raft.trigger()
            .elect(false)
            .await
            .map_err(io::Error::other)?;
        let wait = raft.wait(Some(ALONE_TIMEOUT));
        // Later is as good: whoever asks meanwhile looks for a leader.
        drop(wait.current_leader(node, "alone").await);
    }
    Ok(())
}

/// Makes an empty group begin with these voters. Of several replicas that do so with the same
/// voters one wins; a group that has begun is left alone.
pub async fn initialize(raft: &Raft, voters: &BTreeMap<u64, String>) -> io::Result<()> {
    let nodes = nodes_of(voters);
    if raft.is_initialized().await.map_err(io::Error::other)? {
        return Ok(());
    }
    match raft.initialize(nodes).await {
        Ok(()) => Ok(()),
        Err(RaftError::APIError(openraft::errors::InitializeError::NotAllowed(_))) => Ok(()),
        Err(e) => Err(io::Error::other(e)),
    }
}

fn nodes_of(members: &BTreeMap<u64, String>) -> BTreeMap<u64, BasicNode> {
    members
        .iter()
        .map(|(id, addr)| (*id, BasicNode { addr: addr.clone() }))
        .collect()
}

/// Commits a command and gives what applying it gave.
pub async fn propose(raft: &Raft, command: Bytes) -> Result<Reply, Refusal> {
    let write = raft.client_write(Payload(command));
    let written = tokio::time::timeout(SETTLE_TIMEOUT, write)
        .await
        .map_err(|_| Refusal::Unavailable("not committed in time".to_owned()))?;
    match written {
        Ok(response) => Ok(response.data),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
            Err(Refusal::NotLeader(forward.leader_id))
        }
        Err(e) => Err(Refusal::Unavailable(e.to_string())),
    }
}

/// Returns once this leader's machine holds everything that was committed when it was called.
pub async fn linearize(raft: &Raft) -> Result<(), Refusal> {
    let linear = async {
        let linearizer = raft
            .get_read_linearizer(ReadPolicy::ReadIndex)
            .await
            .map_err(|e| match e {
                RaftError::APIError(openraft::errors::LinearizableReadError::ForwardToLeader(
                    f,
                )) => Refusal::NotLeader(f.leader_id),
                e => Refusal::Unavailable(e.to_string()),
            })?;
        let ready = linearizer.await_ready(raft).await;
        ready
            .map(drop)
            .map_err(|e| Refusal::Unavailable(e.to_string()))
    };
    tokio::time::timeout(SETTLE_TIMEOUT, linear)
        .await
        .map_err(|_| Refusal::Unavailable("no quorum answered in time".to_owned()))?
}

/// Whether these vote, and nobody else: not while Raft is between two memberships.
pub fn has_voters(raft: &Raft, wanted: &BTreeSet<u64>) -> bool {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let configs = metrics.membership_config.membership().get_joint_config();
    matches!(configs.as_slice(), [voters] if voters == wanted)
}

/// Returns once all that this leader's log holds now is held by those who are to vote and do not yet: who came
/// back to its group must not be needed while it owes something.
async fn catch_up(raft: &Raft, wanted: &BTreeSet<u64>) -> io::Result<()> {
    let (last, fresh) = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        let fresh: Vec<u64> = wanted.difference(&voters).copied().collect();
        (metrics.last_log_index, fresh)
    };
    let has_all = |metrics: &RaftMetrics<TypeConfig>| match &metrics.replication {
        // It leads no more.
        None => true,
        Some(matched) => fresh.iter().all(|node| {
            let matched = matched.get(node).and_then(Option::as_ref);
            matched.map(|id| id.index) >= last
        }),
    };
    let wait = raft.wait(None);
    let waited = wait.metrics(has_all, "new voters catch up").await;
    waited.map(drop).map_err(io::Error::other)
}

/// One step of a leader towards having exactly `voters`: adds a missing one as learner and waits
/// until it has caught up, then changes the voters jointly. Others stay on as `learners`.
pub async fn change_members(
    raft: &Raft,
    voters: &BTreeMap<u64, String>,
    learners: &BTreeMap<u64, String>,
) -> io::Result<()> {
    let known: BTreeSet<u64> = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics
            .membership_config
            .membership()
            .nodes()
            .map(|(id, _)| *id)
            .collect()
    };
    for (id, node) in nodes_of(voters)
        .into_iter()
        .filter(|(id, _)| !known.contains(id))
    {
        raft.add_learner(id, node, true)
            .await
            .map_err(io::Error::other)?;
    }
    for (id, node) in nodes_of(learners)
        .into_iter()
        .filter(|(id, _)| !known.contains(id))
    {
        raft.add_learner(id, node, false)
            .await
            .map_err(io::Error::other)?;
    }
    let wanted: BTreeSet<u64> = voters.keys().copied().collect();
    if !has_voters(raft, &wanted) {
        catch_up(raft, &wanted).await?;
        let change = ChangeMembers::ReplaceAllVoters(wanted);
        raft.change_membership(change, false)
            .await
            .map_err(io::Error::other)?;
    }
    Ok(())
}
