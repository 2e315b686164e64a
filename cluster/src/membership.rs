//! The node's own part in its cluster: telling who it is, promising, forming, joining, and
//! proposing to the meta group from any node.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use model::port::World;
use model::{ClusterId, GroupId, ShardId};
use proto::node as wire;
use proto::node::membership_server::Membership;
use tokio::sync::{Mutex, watch};
use tonic::{Request, Response, Status};

use crate::convert::{cluster_id_from_wire, cluster_id_to_wire, scoped};
use crate::formation::{self, Neighbour, Step};
use crate::identity::{Identity, Promise};
use crate::meta::{Command, Member, Outcome, State};
use crate::peer::{Peers, membership_client};
use crate::placement::{self, Told};
use crate::raft::group;
use crate::raft::service::Groups;
use crate::raft::types::WatchReceiver;
use crate::raft::types::{Raft, Reply};
use crate::refusal::Refusal;

/// Between two rounds of asking around.
const ROUND: Duration = Duration::from_millis(300);
/// Between two looks at what another loop of this node is about to do.
const MOMENT: Duration = Duration::from_millis(10);
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Looking for the meta leader before giving a proposal up.
const PROPOSE_DEADLINE: Duration = Duration::from_secs(10);

/// What a cluster is founded with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founding {
    pub bootstrap_expect: usize,
    /// `None`: as [`placement::shards_for`] has it.
    pub shards: Option<u32>,
    pub cores: u32,
    pub replication_factor: usize,
}

/// This node among the others.
pub struct Local {
    pub world: World,
    pub peers: Arc<Peers>,
    pub address: String,
    pub zone: String,
    pub version: String,
    pub founding: Founding,
    pub identity: Mutex<Identity>,
    /// Addresses that may know a cluster.
    pub join: std::sync::Mutex<Vec<String>>,
    /// Set once the node belongs to a cluster.
    pub belongs: watch::Sender<Option<ClusterId>>,
    pub meta: std::sync::OnceLock<Raft>,
    /// What runs here.
    pub groups: Arc<Groups>,
    pub log: Arc<dyn wal::Log>,
    pub view: watch::Receiver<Arc<State>>,
    /// What formation waits for, for people.
    pub progress: std::sync::Mutex<String>,
}

impl Local {
    pub async fn node_id(&self) -> u64 {
        self.identity.lock().await.node_id
    }

    fn as_member(&self) -> Member {
        Member {
            address: self.address.clone(),
            zone: self.zone.clone(),
            version: self.version.clone(),
            alive: true,
        }
    }

    async fn wire_member(&self) -> wire::Member {
        wire::Member {
            node_id: self.node_id().await,
            address: self.address.clone(),
            zone: self.zone.clone(),
            version: self.version.clone(),
        }
    }

    /// Writes down that this node belongs to `cluster` from now on. Nothing has changed on an
    /// error: what is not on disk must not be answered for.
    async fn belong_to(
        &self,
        identity: &mut Identity,
        cluster: ClusterId,
        promise: Option<Promise>,
    ) -> io::Result<()> {
        let next = Identity {
            cluster_id: cluster.to_string(),
            promise,
            ..identity.clone()
        };
        next.store(&self.world).await?;
        *identity = next;
        self.peers.belong_to(cluster);
        self.belongs.send_replace(Some(cluster));
        Ok(())
    }

    /// Asks around until this node belongs to a cluster that is formed and knows it as a member.
    pub async fn settle(self: Arc<Self>) -> io::Result<()> {
        loop {
            let node = self.node_id().await;
            let known = self.view.borrow().members.contains_key(&node);
            if known {
                if self.is_known() {
                    return Ok(());
                }
                self.announce(None).await;
            } else if self.must_ask().await {
                self.round().await?;
            } else {
                self.announce(None).await;
            }
            tokio::time::sleep(ROUND).await;
        }
    }

    /// Whether the members list has this node as it is now.
    fn is_known(&self) -> bool {
        let state = self.view.borrow();
        state
            .members
            .values()
            .any(|m| m.address == self.address && m.version == self.version && m.zone == self.zone)
    }

    /// Whether this node still looks for a cluster, or is the one to form it.
    async fn must_ask(&self) -> bool {
        if self.belongs.borrow().is_none() {
            return true;
        }
        let identity = self.identity.lock().await;
        let first = identity
            .promise
            .as_ref()
            .and_then(|p| p.members.keys().next().copied());
        first == Some(identity.node_id) && !self.view.borrow().is_formed()
    }

    async fn round(&self) -> io::Result<()> {
        let neighbours = self.ask_around().await;
        let draw = || {
            let half = || u128::from(self.world.dice.roll());
            ClusterId((half() << 64 | half()).max(1))
        };
        let step = {
            let identity = self.identity.lock().await;
            let expect = self.founding.bootstrap_expect;
            formation::choose(&identity, &self.address, &neighbours, expect, draw)
        };
        self.note(&format!("{step:?}"));
        match step {
            Step::Wait(_) => Ok(()),
            Step::Join(cluster, address) => {
                let mut identity = self.identity.lock().await;
                tracing::info!(%cluster, via = address, "joining a cluster");
                let promise = identity.promise.clone();
                let promise = promise.filter(|promise| promise.cluster_id == cluster.to_string());
                self.belong_to(&mut identity, cluster, promise).await?;
                drop(identity);
                self.announce(Some(address)).await;
                Ok(())
            }
            Step::Form(promise) => self.form(promise).await,
        }
    }

    fn note(&self, progress: &str) {
        progress.clone_into(&mut self.progress.lock().expect("not poisoned"));
    }

    async fn ask_around(&self) -> Vec<Neighbour> {
        let join = self.join.lock().expect("not poisoned").clone();
        let from = self.wire_member().await;
        let own = from.node_id;
        let others = join.into_iter().filter(|address| *address != self.address);
        let asked = others.map(|address| self.hello(address, from.clone()).boxed());
        let answers = join_all(asked).await.into_iter().flatten();
        answers
            .filter_map(Neighbour::from_wire)
            .filter(|n| n.node_id != own)
            .collect()
    }

    /// What this node says of the replicas on it.
    fn told(&self) -> Told {
        let shards: Vec<ShardId> = self.view.borrow().shards().collect();
        let runs = |shard: &&ShardId| {
            let running = self.groups.get(GroupId::of_shard(**shard));
            running.is_some_and(|r| r.raft.metrics().borrow_watched().current_leader.is_some())
        };
        let is_damaged = |shard: &&ShardId| {
            let group = GroupId::of_shard(**shard);
            self.log.quarantined(group).is_some()
        };
        Told {
            running: shards.iter().filter(runs).map(|shard| shard.0).collect(),
            damaged: shards
                .iter()
                .filter(is_damaged)
                .map(|shard| shard.0)
                .collect(),
        }
    }

    /// What every member that lives says of the replicas on it, by node.
    pub async fn ask_members(&self) -> BTreeMap<u64, Told> {
        let (from, state) = (self.wire_member().await, self.view.borrow().clone());
        let living = state.members.iter().filter(|(_, member)| member.alive);
        let asked = living.map(async |(&node, member)| {
            if node == from.node_id {
                return Some((node, self.told()));
            }
            let reply = self.hello(member.address.clone(), from.clone()).await?;
            let is_it = reply.member.is_some_and(|member| member.node_id == node);
            let told = Told {
                running: reply.running.into_iter().collect(),
                damaged: reply.damaged.into_iter().collect(),
            };
            is_it.then_some((node, told))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    async fn hello(&self, address: String, from: wire::Member) -> Option<wire::HelloReply> {
        let request = wire::HelloRequest { from: Some(from) };
        let mut client = membership_client(&self.peers, &address);
        let reply = tokio::time::timeout(ASK_TIMEOUT, client.hello(request))
            .await
            .ok()?;
        Some(reply.ok()?.into_inner())
    }

    /// Collects every promise, then begins the meta group and proposes the first state.
    async fn form(&self, promise: Promise) -> io::Result<()> {
        let node_id = {
            let mut identity = self.identity.lock().await;
            if identity.promise.as_ref() != Some(&promise) {
                identity.promise = Some(promise.clone());
                identity.store(&self.world).await?;
            }
            identity.node_id
        };
        for (node, address) in promise.members.iter().filter(|(node, _)| **node != node_id) {
            if let Err(why) = self.ask_promise(address, &promise).await {
                self.note(&format!("node {node} at {address} has not promised: {why}"));
                return Ok(());
            }
        }
        let cluster: ClusterId = promise.cluster_id.parse().map_err(io::Error::other)?;
        {
            let mut identity = self.identity.lock().await;
            if identity.cluster_id.is_empty() {
                self.belong_to(&mut identity, cluster, Some(promise.clone()))
                    .await?;
            }
        }
        let Some(meta) = self.meta_started().await else {
            // Started by whoever watches `belongs`; the next round asks again.
            return Ok(());
        };
        let begin = group::initialize(meta, &promise.members);
        scoped(&self.world.dice, begin).await?;
        self.propose_founding(&promise).await;
        Ok(())
    }

    /// The meta group's replica here, once it runs; waits for it a moment.
    async fn meta_started(&self) -> Option<&Raft> {
        let started = async {
            loop {
                if let Some(meta) = self.meta.get() {
                    return meta;
                }
                tokio::time::sleep(MOMENT).await;
            }
        };
        tokio::time::timeout(ROUND, started).await.ok()
    }

    async fn ask_promise(&self, address: &str, promise: &Promise) -> Result<(), String> {
        let cluster: ClusterId = promise
            .cluster_id
            .parse()
            .map_err(|_| "cluster id".to_owned())?;
        let member = |(id, address): (&u64, &String)| wire::Member {
            node_id: *id,
            address: address.clone(),
            ..Default::default()
        };
        let request = wire::PromiseRequest {
            cluster_id: cluster_id_to_wire(cluster),
            members: promise.members.iter().map(member).collect(),
        };
        let mut client = membership_client(&self.peers, address);
        let reply = tokio::time::timeout(ASK_TIMEOUT, client.promise(request))
            .await
            .map_err(|_| "no answer in time".to_owned())?
            .map_err(|status| status.to_string())?
            .into_inner();
        if reply.promised {
            Ok(())
        } else {
            Err(reply.refusal)
        }
    }

    async fn propose_founding(&self, promise: &Promise) {
        // Zones are told by each member when it announces itself; only its own is known here.
        let zone_of = |id: &u64, own: u64| {
            if *id == own {
                self.zone.clone()
            } else {
                String::new()
            }
        };
        let own = self.node_id().await;
        let known = self.ask_zones().await;
        let member = |(id, address): (&u64, &String)| {
            let found = known.get(id).cloned();
            let member = found.unwrap_or_else(|| Member {
                address: address.clone(),
                zone: zone_of(id, own),
                version: self.version.clone(),
                alive: true,
            });
            (*id, member)
        };
        let members: BTreeMap<u64, Member> = promise.members.iter().map(member).collect();
        let zones = members
            .iter()
            .map(|(id, m)| (*id, m.zone.clone()))
            .collect();
        let Founding {
            shards,
            cores,
            replication_factor,
            ..
        } = self.founding;
        let shards = shards.unwrap_or_else(|| placement::shards_for(members.len(), cores));
        let command = Command::Form {
            cluster_id: promise.cluster_id.clone(),
            replication_factor,
            hash_seed: self.world.dice.roll(),
            placement: placement::found(&zones, shards as usize, replication_factor),
            members,
        };
        match self.propose(command).await {
            Ok(outcome) => tracing::info!(?outcome, "cluster formed"),
            Err(refusal) => self.note(&format!("forming: {refusal}")),
        }
    }

    /// Zone and version of every neighbour that answers.
    async fn ask_zones(&self) -> BTreeMap<u64, Member> {
        let from = self.wire_member().await;
        let join = self.join.lock().expect("not poisoned").clone();
        let asked = join
            .into_iter()
            .map(|address| self.hello(address, from.clone()).boxed());
        let member = |reply: wire::HelloReply| {
            let m = reply.member?;
            let member = Member {
                address: m.address,
                zone: m.zone,
                version: m.version,
                alive: true,
            };
            Some((m.node_id, member))
        };
        let answers = join_all(asked).await.into_iter().flatten();
        let mut found: BTreeMap<u64, Member> = answers.filter_map(member).collect();
        found.insert(from.node_id, self.as_member());
        found
    }

    /// Tells the meta group who this node is, if the group does not know yet.
    async fn announce(&self, via: Option<String>) {
        let node = self.node_id().await;
        let command = Command::Join {
            node,
            member: self.as_member(),
        };
        let addresses: Vec<String> = via
            .into_iter()
            .chain(
                self.view
                    .borrow()
                    .members
                    .values()
                    .map(|m| m.address.clone()),
            )
            .chain(self.join.lock().expect("not poisoned").clone())
            .filter(|address| *address != self.address)
            .collect();
        let result = match self.leads_meta() {
            true => self.propose(command).await,
            false => self.propose_via(addresses, &command).await,
        };
        match result {
            Ok(Outcome::Done) => self.note("announced"),
            Ok(Outcome::Refused(why)) => {
                tracing::error!(why, "the cluster does not take this node");
                self.note(&why);
            }
            Err(refusal) => self.note(&refusal.to_string()),
        }
    }

    fn leads_meta(&self) -> bool {
        self.meta.get().is_some_and(|raft| {
            raft.metrics().borrow_watched().current_leader == Some(*raft.node_id())
        })
    }

    /// Commits a meta command, wherever the leader is.
    pub async fn propose(&self, command: Command) -> Result<Outcome, Refusal> {
        let deadline = self.world.clock.monotonic() + PROPOSE_DEADLINE;
        loop {
            let refusal = match self.propose_once(&command).await {
                Ok(outcome) => return Ok(outcome),
                Err(refusal) => refusal,
            };
            // Every meta command may be repeated.
            if self.world.clock.monotonic() >= deadline {
                return Err(refusal);
            }
            tokio::time::sleep(ROUND).await;
        }
    }

    pub async fn propose_once(&self, command: &Command) -> Result<Outcome, Refusal> {
        let meta = self.meta.get().ok_or(Refusal::NotLeader(None))?;
        if self.leads_meta() {
            return self.propose_here(meta, command).await;
        }
        let leader = self.meta_leader().ok_or(Refusal::NotLeader(None))?;
        self.propose_via(vec![leader], command).await
    }

    /// Where the meta leader is, as far as this node knows.
    fn meta_leader(&self) -> Option<String> {
        let metrics = self.meta.get()?.metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader?;
        let node = metrics.membership_config.membership().get_node(&leader)?;
        Some(node.addr.clone())
    }

    async fn propose_here(&self, meta: &Raft, command: &Command) -> Result<Outcome, Refusal> {
        let bytes = serde_json::to_vec(command).expect("plain data is JSON");
        let proposal = group::propose(meta, Bytes::from(bytes));
        match scoped(&self.world.dice, proposal).await? {
            Reply::Meta(outcome) => Ok(outcome),
            reply => unreachable!("a meta command was answered with {reply:?}"),
        }
    }

    /// Asks these nodes in turn, and where they say the leader is.
    async fn propose_via(
        &self,
        mut addresses: Vec<String>,
        command: &Command,
    ) -> Result<Outcome, Refusal> {
        let bytes = serde_json::to_vec(command).expect("plain data is JSON");
        let mut last = Refusal::NotLeader(None);
        let mut next = 0;
        while let Some(address) = addresses.get(next).cloned() {
            next += 1;
            let request = wire::ProposeMetaRequest {
                cluster_id: cluster_id_to_wire(self.peers.cluster()),
                command: Bytes::from(bytes.clone()),
            };
            let mut client = membership_client(&self.peers, &address);
            let asked = tokio::time::timeout(PROPOSE_DEADLINE, client.propose_meta(request)).await;
            match asked {
                Ok(Ok(reply)) if !reply.get_ref().not_leader => {
                    return serde_json::from_slice(&reply.into_inner().outcome)
                        .map_err(|e| Refusal::Internal(e.to_string()));
                }
                Ok(Ok(reply)) => {
                    last = Refusal::NotLeader(None);
                    let leader = reply.into_inner().leader_address;
                    if !leader.is_empty() && leader != self.address && !addresses.contains(&leader)
                    {
                        addresses.push(leader);
                    }
                }
                Ok(Err(status)) => last = Refusal::Unavailable(status.to_string()),
                Err(_) => last = Refusal::Unavailable("no answer in time".to_owned()),
            }
        }
        Err(last)
    }

    async fn give_promise(&self, request: wire::PromiseRequest) -> Result<(), String> {
        let cluster = cluster_id_from_wire(&request.cluster_id)
            .filter(|id| id.0 != 0)
            .ok_or_else(|| "no cluster id".to_owned())?;
        let asked = Promise {
            cluster_id: cluster.to_string(),
            members: request
                .members
                .into_iter()
                .map(|m| (m.node_id, m.address))
                .collect(),
        };
        let mut identity = self.identity.lock().await;
        formation::may_promise(&identity, &asked)?;
        if identity.cluster_id.is_empty() {
            self.belong_to(&mut identity, cluster, Some(asked))
                .await
                .map_err(|e| e.to_string())?;
        }
        Ok(())
    }
}

/// Answers the membership calls of other nodes.
#[derive(Clone)]
pub struct Service(pub Arc<Local>);

#[tonic::async_trait]
impl Membership for Service {
    async fn hello(
        &self,
        _request: Request<wire::HelloRequest>,
    ) -> Result<Response<wire::HelloReply>, Status> {
        let formed = self.0.view.borrow().cluster_id();
        let Told { running, damaged } = self.0.told();
        Ok(Response::new(wire::HelloReply {
            member: Some(self.0.wire_member().await),
            cluster_id: formed.map(cluster_id_to_wire).unwrap_or_default(),
            known: Vec::new(),
            running: running.into_iter().collect(),
            damaged: damaged.into_iter().collect(),
        }))
    }

    async fn promise(
        &self,
        request: Request<wire::PromiseRequest>,
    ) -> Result<Response<wire::PromiseReply>, Status> {
        let given = self.0.give_promise(request.into_inner()).await;
        Ok(Response::new(wire::PromiseReply {
            promised: given.is_ok(),
            refusal: given.err().unwrap_or_default(),
        }))
    }

    async fn propose_meta(
        &self,
        request: Request<wire::ProposeMetaRequest>,
    ) -> Result<Response<wire::ProposeMetaReply>, Status> {
        let request = request.into_inner();
        if cluster_id_from_wire(&request.cluster_id) != Some(self.0.peers.cluster()) {
            return Err(Status::failed_precondition(
                "this node belongs to another cluster",
            ));
        }
        let command: Command = serde_json::from_slice(&request.command)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let outcome = match self.0.meta.get().filter(|_| self.0.leads_meta()) {
            Some(meta) => self.0.propose_here(meta, &command).await,
            None => Err(Refusal::NotLeader(None)),
        };
        match outcome {
            Ok(outcome) => Ok(Response::new(wire::ProposeMetaReply {
                outcome: serde_json::to_vec(&outcome)
                    .expect("plain data is JSON")
                    .into(),
                ..Default::default()
            })),
            Err(Refusal::NotLeader(_)) => Ok(Response::new(wire::ProposeMetaReply {
                not_leader: true,
                leader_address: self.0.meta_leader().unwrap_or_default(),
                ..Default::default()
            })),
            Err(refusal) => Err(Status::unavailable(refusal.to_string())),
        }
    }
}
