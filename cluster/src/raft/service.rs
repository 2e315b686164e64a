//! The gRPC side of Raft: finds the group a message is for and hands it over.
//!
//! Appends of one group keep their order: each connection has a lane per group that feeds
//! openraft's own pipeline. A group that does not run here, or another cluster's message, gets an
//! answer that makes the sender wait and try again.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, RwLock};

use futures::{FutureExt, Stream, StreamExt};
use model::port::{Task, World};
use model::{GroupId, NodeId};
use openraft::raft::TransferLeaderRequest;
use openraft::raft::{StreamAppendError, VoteRequest};
use proto::node as wire;
use proto::node::raft_server::Raft as RaftService;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::machine::Machine;
use super::network::matching;
use super::snapshot::{self, Incoming};
use super::standing::Standing;
use super::types::{
    AppendRequest, Raft, append_from_wire, log_id_from_wire, log_id_to_wire, vote_from_wire,
    vote_to_wire,
};
use crate::convert::{cluster_id_from_wire, scoped};
use crate::peer::Peers;

/// Appends of one group from one connection, waiting for openraft.
const LANE_MAX: usize = 64;
/// Answers on their way to one connection.
const REPLIES_MAX: usize = 256;

/// A group that runs on this node.
#[derive(Clone)]
pub struct Running {
    pub raft: Raft,
    pub machine: Arc<dyn Machine>,
    pub standing: Arc<Standing>,
}

/// The groups that run on this node, by id.
#[derive(Default)]
pub struct Groups(RwLock<BTreeMap<GroupId, Running>>);

impl Groups {
    pub fn get(&self, group: GroupId) -> Option<Running> {
        self.0.read().expect("not poisoned").get(&group).cloned()
    }

    pub fn insert(&self, group: GroupId, running: Running) {
        self.0.write().expect("not poisoned").insert(group, running);
    }

    pub fn remove(&self, group: GroupId) -> Option<Running> {
        self.0.write().expect("not poisoned").remove(&group)
    }

    pub fn all(&self) -> Vec<(GroupId, Running)> {
        let groups = self.0.read().expect("not poisoned");
        groups
            .iter()
            .map(|(id, running)| (*id, running.clone()))
            .collect()
    }
}

/// Answers the Raft calls of other nodes.
#[derive(Clone)]
pub struct Service {
    pub node: NodeId,
    pub world: World,
    pub peers: Arc<Peers>,
    pub groups: Arc<Groups>,
}

impl Service {
    /// The group a message is for, if it runs here and the message is for this very node.
    fn find(&self, cluster_id: &[u8], group: u32, to: u64) -> Result<Running, String> {
        if cluster_id_from_wire(cluster_id) != Some(self.peers.cluster()) {
            return Err("this node belongs to another cluster".to_owned());
        }
        if to != self.node.0 {
            return Err(format!("this is node {}, not {to}", self.node.0));
        }
        let group = GroupId(group);
        self.groups
            .get(group)
            .ok_or_else(|| format!("group {group} does not run here"))
    }

    async fn control_reply(&self, request: wire::ControlRequest) -> wire::control_reply::Reply {
        use wire::control_reply::Reply;
        use wire::control_request::Call;
        let running = match self.find(&request.cluster_id, request.group, request.to) {
            Ok(running) => running,
            Err(why) => return Reply::Unavailable(why),
        };
        let result = match request.call {
            Some(Call::Vote(_) | Call::Transfer(_)) if running.standing.owes() => {
                Err("it does not yet hold what it held before".to_owned())
            }
            Some(Call::Vote(vote)) => answer_vote(&running.raft, vote).await,
            Some(Call::Heartbeat(append)) => answer_heartbeat(&running.raft, append).await,
            Some(Call::Transfer(transfer)) => answer_transfer(&running.raft, transfer).await,
            None => Err("an empty call".to_owned()),
        };
        result.unwrap_or_else(Reply::Unavailable)
    }
}

async fn answer_vote(
    raft: &Raft,
    call: wire::VoteRequest,
) -> Result<wire::control_reply::Reply, String> {
    let vote = vote_from_wire(call.vote).map_err(|e| e.to_string())?;
    let mut request = VoteRequest::new(vote, call.last.map(log_id_from_wire));
    request.leadership_transfer = call.leadership_transfer;
    let answered = match call.pre_vote {
        true => raft.pre_vote(request).await,
        false => raft.vote(request).await,
    };
    let answer = answered.map_err(|e| e.to_string())?;
    Ok(wire::control_reply::Reply::Vote(wire::VoteReply {
        vote: Some(vote_to_wire(&answer.vote)),
        granted: answer.vote_granted,
        last: answer.last_log_id.as_ref().map(log_id_to_wire),
    }))
}

async fn answer_heartbeat(
    raft: &Raft,
    call: wire::AppendEntries,
) -> Result<wire::control_reply::Reply, String> {
    let request = append_from_wire(Some(call)).map_err(|e| e.to_string())?;
    let previous = request.prev_log_id;
    let last = request.entries.last().map(|e| e.log_id).or(previous);
    let answer = raft
        .append_entries(request)
        .await
        .map_err(|e| e.to_string())?;
    let result = append_result(answer.into_stream_result(previous, last));
    Ok(wire::control_reply::Reply::Heartbeat(wire::AppendReply {
        seq: 0,
        result: Some(result),
    }))
}

async fn answer_transfer(
    raft: &Raft,
    call: wire::TransferLeader,
) -> Result<wire::control_reply::Reply, String> {
    let from = vote_from_wire(call.from).map_err(|e| e.to_string())?;
    let request = TransferLeaderRequest::new(from, call.to, call.last.map(log_id_from_wire));
    let answer = raft
        .handle_transfer_leader(request)
        .await
        .map_err(|e| e.to_string())?;
    let refused = answer.err().map(|e| e.to_string()).unwrap_or_default();
    Ok(wire::control_reply::Reply::TransferRefused(refused))
}

fn append_result(
    result: openraft::raft::StreamAppendResult<super::types::TypeConfig>,
) -> wire::append_reply::Result {
    use wire::append_reply::Result as Wire;
    match result {
        Ok(last) => Wire::Success(matching(last)),
        Err(StreamAppendError::Conflict(at)) => Wire::Conflict(log_id_to_wire(&at)),
        Err(StreamAppendError::HigherVote(vote)) => Wire::HigherVote(vote_to_wire(&vote)),
    }
}

type Replies = mpsc::Sender<Result<wire::AppendReply, Status>>;

/// One group's appends from one connection, in order.
struct Lane {
    requests: mpsc::Sender<(u64, AppendRequest)>,
    _task: Task,
}

impl Lane {
    fn open(world: &World, raft: Raft, replies: Replies) -> Self {
        let (requests, receiver) = mpsc::channel(LANE_MAX);
        let task = scoped(&world.dice, run_lane(raft, receiver, replies));
        Self {
            requests,
            _task: world.spawn.spawn("append lane", task),
        }
    }
}

/// Feeds openraft's pipeline and answers each request in turn. When the pipeline ends early (a
/// conflict, a higher vote) what was queued behind is answered "try again".
async fn run_lane(raft: Raft, requests: mpsc::Receiver<(u64, AppendRequest)>, replies: Replies) {
    let (numbers, mut waiting) = mpsc::channel::<u64>(LANE_MAX);
    let input = ReceiverStream::new(requests).then(move |(seq, request)| {
        let numbers = numbers.clone();
        async move {
            // The receiver outlives this stream: see below.
            numbers.send(seq).await.ok();
            request
        }
    });
    let mut results = Box::pin(raft.stream_append(input));
    while let Some(result) = results.next().await {
        let Some(seq) = waiting.recv().await else {
            break;
        };
        let result = match result {
            Ok(result) => append_result(result),
            Err(fatal) => wire::append_reply::Result::Unavailable(fatal.to_string()),
        };
        let reply = wire::AppendReply {
            seq,
            result: Some(result),
        };
        if replies.send(Ok(reply)).await.is_err() {
            return;
        }
    }
    drop(results);
    while let Some(seq) = waiting.recv().await {
        let again = "the pipeline was reset".to_owned();
        let result = Some(wire::append_reply::Result::Unavailable(again));
        if replies
            .send(Ok(wire::AppendReply { seq, result }))
            .await
            .is_err()
        {
            return;
        }
    }
}

/// All lanes of one connection.
struct Lanes {
    service: Service,
    replies: Replies,
    open: BTreeMap<GroupId, Lane>,
}

impl Lanes {
    async fn take(&mut self, frame: wire::AppendFrame) {
        let seq = frame.seq;
        if let Err(why) = self.try_take(frame).await {
            let result = Some(wire::append_reply::Result::Unavailable(why));
            // A connection that is gone needs no answer.
            self.replies
                .send(Ok(wire::AppendReply { seq, result }))
                .await
                .ok();
        }
    }

    async fn try_take(&mut self, frame: wire::AppendFrame) -> Result<(), String> {
        let running = self
            .service
            .find(&frame.cluster_id, frame.group, frame.to)?;
        let request = append_from_wire(frame.append).map_err(|e| e.to_string())?;
        let group = GroupId(frame.group);
        let lane = match self
            .open
            .remove(&group)
            .filter(|lane| !lane.requests.is_closed())
        {
            Some(lane) => lane,
            None => Lane::open(&self.service.world, running.raft, self.replies.clone()),
        };
        let sent = lane.requests.send((frame.seq, request)).await;
        self.open.insert(group, lane);
        sent.map_err(|_| "the pipeline was reset".to_owned())
    }
}

type ReplyStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl RaftService for Service {
    type AppendStream = ReplyStream<wire::AppendReply>;
    type SnapshotStream = ReplyStream<wire::SnapshotReply>;

    async fn append(
        &self,
        request: Request<Streaming<wire::AppendFrame>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let mut frames = request.into_inner();
        let (replies, receiver) = mpsc::channel(REPLIES_MAX);
        let mut lanes = Lanes {
            service: self.clone(),
            replies,
            open: BTreeMap::new(),
        };
        let read = async move {
            while let Some(Ok(frame)) = frames.next().await {
                lanes.take(frame).await;
            }
        };
        let task = self.world.spawn.spawn("appends from a peer", read.boxed());
        Ok(Response::new(owned(ReceiverStream::new(receiver), task)))
    }

    async fn control(
        &self,
        request: Request<wire::ControlRequest>,
    ) -> Result<Response<wire::ControlReply>, Status> {
        let answer = self.control_reply(request.into_inner());
        let reply = scoped(&self.world.dice, answer).await;
        Ok(Response::new(wire::ControlReply { reply: Some(reply) }))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<wire::SnapshotFrame>>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let mut frames = request.into_inner();
        let (replies, receiver) = mpsc::channel(2);
        let service = self.clone();
        let take = async move {
            let closing = replies.clone();
            let taken = service.take_snapshot(&mut frames, replies).await;
            if let Err(why) = &taken {
                tracing::warn!(why, "snapshot not installed");
            }
            closing.send(Ok(snapshot::closing_reply(taken))).await.ok();
        };
        let task = self
            .world
            .spawn
            .spawn("snapshot from a peer", scoped(&self.world.dice, take));
        Ok(Response::new(owned(ReceiverStream::new(receiver), task)))
    }
}

impl Service {
    async fn take_snapshot(
        &self,
        frames: &mut Streaming<wire::SnapshotFrame>,
        replies: mpsc::Sender<Result<wire::SnapshotReply, Status>>,
    ) -> Result<super::types::Vote, String> {
        let first = frames
            .next()
            .await
            .and_then(Result::ok)
            .and_then(|f| f.frame);
        let Some(wire::snapshot_frame::Frame::Open(open)) = first else {
            return Err("a snapshot begins with its opening frame".to_owned());
        };
        let running = self.find(&open.cluster_id, open.group, open.to)?;
        let incoming = Incoming {
            open,
            frames,
            replies,
        };
        snapshot::receive(
            incoming,
            &running.raft,
            &*running.machine,
            &*self.world.disk,
        )
        .await
    }
}

/// A stream that ends the task feeding it when the peer stops listening.
fn owned<T: Send + 'static>(
    stream: ReceiverStream<T>,
    task: Task,
) -> Pin<Box<dyn Stream<Item = T> + Send>> {
    Box::pin(stream.map(move |item| {
        let _keep = &task;
        item
    }))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use bytes::Bytes;
    use model::ClusterId;
    use sim_world::{SimClock, SimDisk};
    use wal::Log;

    use super::*;
    use crate::catalogue::{Memory, opened};
    use crate::convert::cluster_id_to_wire;
    use crate::meta::MetaMachine;
    use crate::raft::before;
    use crate::raft::group::{self, Parts, Timing};
    use crate::raft::standing::{Leadership, Seen};
    use crate::raft::transfers::Transfers;
    use crate::raft::types::WatchReceiver;

    const GROUP: GroupId = GroupId(7);
    const REACHED: u64 = 20;

    /// A replica on node 1, and the service that answers for it.
    async fn begin(world: &World, log: &Arc<wal::SegmentedLog>) -> (Raft, Service) {
        let corruptions = prometheus::IntCounter::new("c", "c").unwrap();
        let catalogue = opened(Arc::new(Memory::default()));
        let machine = MetaMachine::open(world.disk.clone(), catalogue, corruptions);
        let machine: Arc<dyn Machine> = Arc::new(machine.await.unwrap());
        let peers = Arc::new(Peers::new(world.clone()));
        peers.belong_to(ClusterId(5));
        let parts = Parts {
            world: world.clone(),
            node: 1,
            group: GROUP,
            log: log.clone(),
            peers: peers.clone(),
            transfers: Arc::new(Transfers::new(world.clock.clone())),
            machine: machine.clone(),
            timing: Timing::default(),
        };
        let replayed = group::replay(parts).await.unwrap();
        let (raft, standing) = replayed.begin().await.unwrap();
        let groups = Arc::new(Groups::default());
        let running = Running {
            raft: raft.clone(),
            machine,
            standing: Arc::new(standing),
        };
        groups.insert(GROUP, running);
        let service = Service {
            node: NodeId(1),
            world: world.clone(),
            peers,
            groups,
        };
        (raft, service)
    }

    async fn ask_vote(service: &Service) -> wire::control_reply::Reply {
        let vote = wire::Vote {
            term: 12,
            node_id: 2,
            committed: false,
        };
        let request = wire::ControlRequest {
            cluster_id: cluster_id_to_wire(ClusterId(5)),
            group: GROUP.0,
            to: 1,
            call: Some(wire::control_request::Call::Vote(wire::VoteRequest {
                vote: Some(vote),
                last: Some(wire::LogId {
                    term: 11,
                    node_id: 2,
                    index: 90,
                }),
                ..Default::default()
            })),
        };
        service.control_reply(request).await
    }

    #[tokio::test(start_paused = true)]
    async fn who_came_back_has_no_part_in_elections_before_it_holds_what_it_held() {
        let world = sim_world::world(1, &SimClock::new(), &SimDisk::new(5));
        let registry = prometheus::Registry::new();
        let metrics = wal::Metrics::new(&registry).unwrap();
        let log = wal::SegmentedLog::open(&world, Path::new("log"), Default::default(), metrics);
        let (log, _) = log.await.unwrap();
        let whole = async {
            // The group was of this node alone, long ago.
            let (raft, _) = begin(&world, &log).await;
            let alone = BTreeMap::from([(1, "n1".to_owned())]);
            group::initialize(&raft, &alone).await.unwrap();
            let wait = raft.wait(Some(Duration::from_secs(5)));
            wait.current_leader(1, "alone").await.unwrap();
            raft.shutdown().await.unwrap();

            let vote = Leadership { term: 9, node: 3 };
            let reached = Some(REACHED);
            let seen = Seen { vote, reached };
            before::keep(&*world.disk, GROUP, seen).await.unwrap();
            let (raft, service) = begin(&world, &log).await;
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!(raft.metrics().borrow_watched().current_leader, None);
            assert_eq!(log.state(GROUP).vote.map(Leadership::from), Some(vote));
            assert!(service.groups.get(GROUP).unwrap().standing.owes());
            let reply = ask_vote(&service).await;
            let refused = wire::control_reply::Reply::Unavailable(
                "it does not yet hold what it held before".to_owned(),
            );
            assert_eq!(reply, refused);

            let last = log.state(GROUP).last.unwrap();
            let entry = |index| wal::Entry {
                id: wal::LogId { index, ..last },
                payload: Bytes::new(),
            };
            let missing = (last.index + 1..=REACHED).map(entry).collect();
            let done = Box::new(|result: std::io::Result<()>| result.unwrap());
            log.append(GROUP, missing, done).await.unwrap();
            let reply = ask_vote(&service).await;
            assert!(
                matches!(&reply, wire::control_reply::Reply::Vote(vote) if vote.granted),
                "{reply:?}"
            );
            raft.shutdown().await.unwrap();
        };
        scoped(&world.dice, whole).await;
    }
}
