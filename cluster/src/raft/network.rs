//! openraft's network: one replica speaking to another replica of its group.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyerror::AnyError;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use model::{ClusterId, GroupId};
use openraft::base::BoxFuture as RaftFuture;
use openraft::base::BoxStream as RaftStream;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::impls::BasicNode;
use openraft::network::{
    Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential,
};
use openraft::raft::{
    AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult, VoteRequest,
    VoteResponse,
};
use openraft::raft::{TransferLeaderRequest, TransferLeaderResponse};
use proto::node as wire;

use super::commits;
use super::machine::{FileSet, GroupSnapshot};
use super::snapshot;
use super::transfers::Transfers;
use super::types::{
    AppendRequest, LogId, TypeConfig, Vote, append_to_wire, log_id_from_wire, log_id_to_wire,
    malformed, vote_from_wire, vote_to_wire,
};
use crate::link::Broken;
use crate::peer::{Peer, Peers};

/// AppendEntries of one group on their way to one peer.
const APPENDS_IN_FLIGHT_MAX: usize = 32;
/// Waiting for a peer that does not answer before trying again.
const BACKOFF: Duration = Duration::from_millis(200);

type Rpc<T> = Result<T, RPCError<TypeConfig>>;

/// Makes the clients of one group.
#[derive(Clone)]
pub struct Network {
    peers: Arc<Peers>,
    disk: Arc<dyn model::port::Disk>,
    transfers: Arc<Transfers>,
    group: GroupId,
}

impl Network {
    pub fn new(
        peers: Arc<Peers>,
        disk: Arc<dyn model::port::Disk>,
        transfers: Arc<Transfers>,
        group: GroupId,
    ) -> Self {
        Self {
            peers,
            disk,
            transfers,
            group,
        }
    }
}

impl Network {
    fn client(&self, target: u64, node: &BasicNode, heartbeats: bool) -> Client {
        Client {
            cluster: self.peers.cluster(),
            group: self.group,
            to: target,
            peer: self.peers.at(&node.addr),
            disk: self.disk.clone(),
            transfers: self.transfers.clone(),
            heartbeats,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Client {
        self.client(target, node, false)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &BasicNode) -> Client {
        self.client(target, node, true)
    }
}

/// Speaks to one replica.
pub struct Client {
    cluster: ClusterId,
    group: GroupId,
    to: u64,
    peer: Arc<Peer>,
    disk: Arc<dyn model::port::Disk>,
    transfers: Arc<Transfers>,
    /// Whether appends go on the control connection, one at a time.
    heartbeats: bool,
}

impl Client {
    fn cluster_id(&self) -> bytes::Bytes {
        crate::convert::cluster_id_to_wire(self.cluster)
    }

    async fn control(
        &self,
        call: wire::control_request::Call,
        ttl: Duration,
    ) -> Rpc<wire::control_reply::Reply> {
        let request = wire::ControlRequest {
            cluster_id: self.cluster_id(),
            group: self.group.0,
            to: self.to,
            call: Some(call),
        };
        let mut client = self.peer.control();
        let reply = tokio::time::timeout(ttl, client.control(request))
            .await
            .map_err(|_| unreachable_because(&io::Error::from(io::ErrorKind::TimedOut)))?
            .map_err(|status| unreachable_because(&status))?;
        match reply.into_inner().reply {
            Some(wire::control_reply::Reply::Unavailable(why)) => {
                Err(unreachable_because(&Broken(why)))
            }
            Some(reply) => Ok(reply),
            None => Err(unreachable_because(&malformed("reply: empty"))),
        }
    }

    async fn ask_vote(
        &self,
        request: VoteRequest<TypeConfig>,
        pre_vote: bool,
        ttl: Duration,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        let call = wire::control_request::Call::Vote(wire::VoteRequest {
            vote: Some(vote_to_wire(&request.vote)),
            last: request.last_log_id.as_ref().map(log_id_to_wire),
            leadership_transfer: request.leadership_transfer,
            pre_vote,
        });
        match self.control(call, ttl).await? {
            wire::control_reply::Reply::Vote(reply) => {
                let vote = vote_from_wire(reply.vote).map_err(|e| unreachable_because(&e))?;
                Ok(VoteResponse::new(
                    vote,
                    reply.last.map(log_id_from_wire),
                    reply.granted,
                ))
            }
            _ => Err(unreachable_because(&malformed("reply: not to a vote"))),
        }
    }
}

/// The peer cannot be spoken to now; openraft backs off.
fn unreachable_because<E: std::error::Error + 'static>(error: &E) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(error))
}

/// What a follower said to one AppendEntries.
fn stream_result(reply: wire::AppendReply) -> Rpc<StreamAppendResult<TypeConfig>> {
    use wire::append_reply::Result as Wire;
    match reply.result {
        Some(Wire::Success(matching)) => Ok(Ok(matching.last.map(log_id_from_wire))),
        Some(Wire::Conflict(at)) => Ok(Err(StreamAppendError::Conflict(log_id_from_wire(at)))),
        Some(Wire::HigherVote(vote)) => vote_from_wire(Some(vote))
            .map(|vote| Err(StreamAppendError::HigherVote(vote)))
            .map_err(|e| unreachable_because(&e)),
        Some(Wire::Unavailable(why)) => Err(unreachable_because(&Broken(why))),
        None => Err(unreachable_because(&malformed("reply: empty"))),
    }
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = FileSet;

    /// Heartbeats: on the control connection, never behind entries.
    async fn append_entries(
        &mut self,
        request: AppendRequest,
        option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig>> {
        let call = wire::control_request::Call::Heartbeat(append_to_wire(request));
        match self.control(call, option.hard_ttl()).await? {
            wire::control_reply::Reply::Heartbeat(reply) => match stream_result(reply)? {
                Ok(last) => Ok(AppendEntriesResponse::PartialSuccess(last)),
                Err(StreamAppendError::Conflict(_)) => Ok(AppendEntriesResponse::Conflict),
                Err(StreamAppendError::HigherVote(vote)) => {
                    Ok(AppendEntriesResponse::HigherVote(vote))
                }
            },
            _ => Err(unreachable_because(&malformed("reply: not to a heartbeat"))),
        }
    }

    /// Entries: pipelined on the stream that all groups share.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> RaftFuture<'s, Rpc<RaftStream<'s, Rpc<StreamAppendResult<TypeConfig>>>>>
    where
        S: Stream<Item = AppendRequest> + Send + Unpin + 'static,
    {
        if self.heartbeats {
            return stream_append_sequential(self, input, option);
        }
        let cluster_id = self.cluster_id();
        let (group, to) = (self.group.0, self.to);
        let peer = self.peer.clone();
        let hold = match self.group {
            // Seldom written, and what follows from it should not wait.
            GroupId::META => None,
            _ => Some(commits::HOLD),
        };
        let sent = commits::riding(input, hold).then(move |(request, followed)| {
            let frame = wire::AppendFrame {
                cluster_id: cluster_id.clone(),
                group,
                to,
                seq: 0,
                append: Some(append_to_wire(request)),
            };
            let peer = peer.clone();
            async move { (peer.append.ask(frame).await, followed) }
        });
        let ttl = option.hard_ttl();
        let answers = sent
            .map(move |(asked, followed)| -> BoxFuture<'static, _> {
                let answer = async move {
                    let broken = |e: Broken| unreachable_because(&e);
                    let timed_out = |_| unreachable_because(&Broken("no answer in time".into()));
                    let answer = asked.map_err(broken)?.answer();
                    let reply = tokio::time::timeout(ttl, answer)
                        .await
                        .map_err(timed_out)?
                        .map_err(broken)?;
                    stream_result(reply)
                };
                answer.map(|answer| (answer, followed)).boxed()
            })
            .buffered(APPENDS_IN_FLIGHT_MAX);
        let answers: BoxStream<'s, _> = commits::counting(answers).boxed();
        async move { Ok(answers) }.boxed()
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        self.ask_vote(request, false, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        self.ask_vote(request, true, option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: GroupSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let open = wire::SnapshotOpen {
            cluster_id: self.cluster_id(),
            group: self.group.0,
            to: self.to,
            vote: Some(vote_to_wire(&vote)),
            ..Default::default()
        };
        let _running = self.transfers.begin(self.group, snapshot.snapshot.index);
        let send = snapshot::send(
            self.peer.files(),
            self.disk.clone(),
            open,
            snapshot.snapshot,
        );
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = send => sent.map(SnapshotResponse::new).map_err(|e| {
                StreamingError::Unreachable(Unreachable::new(&e))
            }),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        let call = wire::control_request::Call::Transfer(wire::TransferLeader {
            from: Some(vote_to_wire(request.from_leader())),
            to: *request.to_node_id(),
            last: request.last_log_id().map(log_id_to_wire),
        });
        match self.control(call, option.hard_ttl()).await? {
            wire::control_reply::Reply::TransferRefused(why) if why.is_empty() => Ok(Ok(())),
            wire::control_reply::Reply::TransferRefused(why) => {
                Err(unreachable_because(&AnyError::error(why)))
            }
            _ => Err(unreachable_because(&malformed("reply: not to a transfer"))),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(BACKOFF)))
    }
}

/// A log id for a wire reply.
pub fn matching(last: Option<LogId>) -> wire::Matching {
    wire::Matching {
        last: last.as_ref().map(log_id_to_wire),
    }
}
